//! Answers of HTTP/1.1 as RFC 9112 says, and no others: what comes after one is the next one's.

/// One answer.
#[derive(Debug)]
pub struct Strict {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether it came to the end that it announced.
    pub complete: bool,
}

impl Strict {
    /// The values of header `name`, which is written in lower case.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The box's own error, if it is one.
    pub fn code(&self) -> Option<&str> {
        self.header("wasmbox-error").next().and_then(|code| std::str::from_utf8(code).ok())
    }
}

/// All answers of a connection that has ended; interim ones (100) are left out. `methods` are those of the requests.
///
/// # Errors
/// What in `bytes` is no answer.
pub fn answers(bytes: &[u8], methods: &[&str]) -> Result<Vec<Strict>, String> {
    let mut answers = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let method = methods.get(answers.len()).copied().unwrap_or("");
        let Some((answer, after)) = answer(rest, method)? else { break };
        rest = after;
        if answer.status >= 200 {
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// The first answer, and what is behind it; nothing if not even its head is whole.
fn answer<'a>(bytes: &'a [u8], method: &str) -> Result<Option<(Strict, &'a [u8])>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut head = httparse::Response::new(&mut fields);
    let size = match head.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("{error} in {:?}", shown(bytes))),
    };
    let status = head.code.ok_or("no status")?;
    let headers = head.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec())).collect();
    let mut answer = Strict { status, headers, body: Vec::new(), complete: true };
    let rest = &bytes[size..];
    let lengths: Vec<usize> = answer.header("content-length").map(digits).collect::<Result<_, _>>()?;
    let encodings: Vec<&[u8]> = answer.header("transfer-encoding").collect();
    // RFC 9110, section 8.6, and RFC 9112, section 6.1.
    if (status < 200 || status == 204) && !(lengths.is_empty() && encodings.is_empty()) {
        return Err(format!("{status} announces a body: {:?}", shown(bytes)));
    }
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        return Ok(Some((answer, rest)));
    }
    match (lengths[..].as_ref(), encodings[..].as_ref()) {
        (&[], &[]) => {
            answer.body = rest.to_vec();
            Ok(Some((answer, &[])))
        }
        (&[length], &[]) => {
            answer.complete = rest.len() >= length;
            let (body, rest) = rest.split_at(length.min(rest.len()));
            answer.body = body.to_vec();
            Ok(Some((answer, rest)))
        }
        (&[], &[b"chunked"]) => {
            let rest = chunks(&mut answer, rest)?;
            Ok(Some((answer, rest)))
        }
        _ => Err(format!("its length is not clear: {:?}", shown(bytes))),
    }
}

fn chunks<'a>(answer: &mut Strict, mut rest: &'a [u8]) -> Result<&'a [u8], String> {
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => break,
            Err(_) => return Err(format!("no chunk: {:?}", shown(rest))),
        };
        let size = usize::try_from(size).map_err(|_| format!("a chunk of {size} bytes"))?;
        rest = &rest[start..];
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 200];
            return match httparse::parse_headers(rest, &mut trailers) {
                Ok(httparse::Status::Complete((end, _))) => Ok(&rest[end..]),
                Ok(httparse::Status::Partial) => {
                    answer.complete = false;
                    Ok(&[])
                }
                Err(error) => Err(format!("{error} in trailers {:?}", shown(rest))),
            };
        }
        let Some(end) = rest.get(size..size + 2) else { break };
        if end != b"\r\n" {
            return Err(format!("a chunk that does not end: {:?}", shown(&rest[size..])));
        }
        answer.body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    answer.complete = false;
    Ok(&[])
}

fn digits(value: &[u8]) -> Result<usize, String> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("a length of {:?}", shown(value)))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_they_say() {
        let two = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let parsed = answers(two, &["GET", "GET"]).unwrap();
        assert_eq!(parsed.len(), 2);
        assert!(parsed.iter().all(|answer| answer.body == b"hi" && answer.complete));
        assert_eq!(
            answers(two, &["HEAD"]).unwrap_err(),
            "invalid HTTP version in \"hiHTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n2\\r\\nhi\\r\\n0\\r\\n\\r\\n\""
        );
        assert!(!answers(&two[..two.len() - 3], &["GET", "GET"]).unwrap()[1].complete);
    }

    #[test]
    fn what_is_not_clear_is_no_answer() {
        for bad in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ] {
            assert!(answers(bad.as_bytes(), &["GET"]).is_err(), "{bad}");
        }
    }
}
