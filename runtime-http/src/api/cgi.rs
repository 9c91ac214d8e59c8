//! CGI (RFC 3875): the environment a command sees, and the header block it may write.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request::Parts};
use percent_encoding::percent_decode_str;

use crate::limits::fields::Fields;

/// The variables of RFC 3875, section 4.1, and a `HTTP_` variable for each header.
///
/// Left out are `HTTP_PROXY`, since programs take it for a setting of theirs ("httpoxy", CVE-2016-5385); the body's transfer coding, which
/// is gone when the program reads it; and headers with `_` in their names, which would look like others with `-`: a client could
/// send `X_Remote_User` past a proxy that sets `X-Remote-User`. `Authorization` is passed on: it is the function that checks it, not the box.
///
/// `path_info` is what follows the module's name in the path.
pub fn environment(
    head: &Parts,
    module: &str,
    path_info: Option<String>,
    body_length: Option<u64>,
    server: SocketAddr,
    client: SocketAddr,
) -> Vec<(String, String)> {
    let mut variables = Vec::with_capacity(12 + head.headers.len());
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("GATEWAY_INTERFACE", "CGI/1.1".into());
    set("SERVER_SOFTWARE", concat!("wasmbox/", env!("CARGO_PKG_VERSION")).into());
    set("SERVER_PROTOCOL", protocol(head.version).into());
    set("REQUEST_METHOD", head.method.as_str().to_owned());
    set("SCRIPT_NAME", format!("/{module}"));
    if let Some(path) = path_info {
        set("PATH_INFO", path);
    }
    set("QUERY_STRING", without_nul(head.uri.query().unwrap_or_default()));
    set("REQUEST_URI", without_nul(head.uri.path_and_query().map_or("/", |path| path.as_str())));
    set("REMOTE_ADDR", client.ip().to_string());
    set("REMOTE_PORT", client.port().to_string());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(|| head.headers.get(header::HOST)?.to_str().ok());
    let name = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    set("SERVER_NAME", name.map_or_else(|| server.ip().to_string(), |name| name.host().to_owned()));
    set("SERVER_PORT", server.port().to_string());
    if let Some(length) = body_length {
        set("CONTENT_LENGTH", length.to_string());
    }
    for name in head.headers.keys() {
        let value = || {
            let values: Vec<_> =
                head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            without_nul(&values.join(if name == header::COOKIE { "; " } else { ", " }))
        };
        if name == header::CONTENT_TYPE {
            set("CONTENT_TYPE", value());
        } else if is_passed_on(name) {
            set(&variable_name(name), value());
        }
    }
    variables
}

/// What follows the first segment of a path, decoded (RFC 3875, section 4.1.5).
///
/// # Errors
/// If it cannot be in an environment, whose variables are UTF-8 without NUL.
pub fn path_info(path: &str) -> Result<Option<String>, &'static str> {
    let Some((_, rest)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return Ok(None) };
    match percent_decode_str(rest).decode_utf8() {
        Ok(rest) if rest.contains('\0') => Err("the path contains a NUL byte"),
        Ok(rest) => Ok(Some(format!("/{rest}"))),
        Err(_) => Err("the path is not UTF-8 after percent-decoding"),
    }
}

fn is_passed_on(name: &HeaderName) -> bool {
    !name.as_str().contains('_') && !["content-length", "transfer-encoding", "proxy"].contains(&name.as_str())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn variable_name(name: &HeaderName) -> String {
    let name = name.as_str().bytes().map(|byte| if byte == b'-' { '_' } else { byte.to_ascii_uppercase().into() });
    "HTTP_".chars().chain(name).collect()
}

/// Neither URIs nor header values can contain NUL as hyper parses them; the environment cannot either.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// What a CGI header block says.
#[derive(Debug, PartialEq)]
pub struct CgiHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Splits output into its header block and the first part of its body (RFC 3875, section 6).
///
/// # Errors
/// What is wrong with the block.
pub fn split_head(output: Bytes) -> Result<(CgiHead, Bytes), String> {
    let mut head = CgiHead { status: StatusCode::OK, headers: HeaderMap::new() };
    let (mut has_status, mut fields) = (false, Fields::default());
    let mut rest = output;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("it does not end with an empty line")?;
        let line = rest.split_to(end + 1);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("no colon in {}", quoted(line)))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        fields.add(name.len(), value.len()).map_err(|error| error.to_string())?;
        let wrong = || format!("{} is not a header", quoted(line));
        let name = HeaderName::from_bytes(name).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
        if name.as_str() == "status" {
            let code = value.as_bytes().get(..3).filter(|_| !has_status).ok_or_else(wrong)?;
            // 1xx are not final answers.
            head.status =
                StatusCode::from_bytes(code).ok().filter(|status| status.as_u16() >= 200).ok_or_else(wrong)?;
            has_status = true;
        } else {
            head.headers.append(name, value);
        }
    }
    if head.headers.is_empty() && !has_status {
        return Err("it is empty; RFC 3875 wants at least one of Content-Type, Location and Status".into());
    }
    if !has_status && head.headers.contains_key(header::LOCATION) {
        head.status = StatusCode::FOUND;
    }
    Ok((head, rest))
}

/// A line of the guest's for an error: its start.
fn quoted(line: &[u8]) -> String {
    const MOST: usize = 200;
    let start = String::from_utf8_lossy(&line[..line.len().min(MOST)]);
    let more = if line.len() > MOST { "..." } else { "" };
    format!("{start:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(output: &'static str) -> Result<(CgiHead, Bytes), String> {
        split_head(Bytes::from_static(output.as_bytes()))
    }

    #[test]
    fn paths_below_a_name() {
        for (path, info) in [
            ("/echo", None),
            ("/echo/", Some("/")),
            ("/echo/a/../b;c", Some("/a/../b;c")),
            ("/echo/%41%2f%C3%A9", Some("/A/é")),
            ("/echo/100%", Some("/100%")),
        ] {
            assert_eq!(path_info(path).unwrap().as_deref(), info, "{path}");
        }
        assert!(path_info("/echo/%00").is_err() && path_info("/echo/%ff").is_err());
    }

    #[test]
    fn header_blocks() {
        let (head, body) = split("Status: 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>\n\nx").unwrap();
        assert_eq!(
            (head.status, &head.headers["content-type"], &body[..]),
            (StatusCode::NOT_FOUND, &HeaderValue::from_static("text/html"), &b"<p>\n\nx"[..])
        );
        let (head, body) = split("Location: /there\n\n").unwrap();
        assert_eq!((head.status, body.len()), (StatusCode::FOUND, 0));
        let (head, _) = split("Set-Cookie: a=1\nSet-Cookie: b=2\n\n").unwrap();
        assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn bad_header_blocks() {
        for bad in [
            "",
            "hello",
            "hello\n\n",
            "\nbody",
            "A: b\n",
            "Bad Name: x\n\n",
            "Status: abc\n\n",
            "Status: 100\n\n",
            "Status: 200\nStatus: 201\n\n",
            "A: \u{7}\n\n",
        ] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
        for many in [
            "a:\n".repeat(1 << 20),
            (0..30_000).map(|number| format!("a{number}: b\n")).collect(),
            "a: ".to_owned() + &"b".repeat(16 << 10) + "\n",
        ] {
            let refused = split_head(Bytes::from(many + "\n")).unwrap_err();
            assert!(refused.contains("more than 80 fields"), "{refused}");
        }
        let most = "Set-Cookie: a=1; Path=/\n".repeat(80);
        assert_eq!(split_head(Bytes::from(most + "\n")).unwrap().0.headers.len(), 80);
        let long = split_head(Bytes::from("x".repeat(1 << 20) + "\n\n")).unwrap_err();
        assert!(long.len() < 300, "{} bytes of error", long.len());
    }

    #[test]
    fn the_environment() {
        let request = http::Request::post("/echo?arg=a&b=%20")
            .header("host", "box.example:8095")
            .header("content-type", "text/plain")
            .header("content-length", "3")
            .header("proxy", "http://evil/")
            .header("x_remote_user", "forged")
            .header("x-remote-user", "known")
            .header("transfer-encoding", "chunked")
            .header("authorization", "Basic eDp5")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(())
            .unwrap();
        let (server, client) = ("127.0.0.1:8095".parse().unwrap(), "10.0.0.7:4321".parse().unwrap());
        let variables = environment(&request.into_parts().0, "echo", Some("/a b".into()), Some(3), server, client);
        let get = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(get("REQUEST_METHOD"), Some("POST"));
        assert_eq!(get("QUERY_STRING"), Some("arg=a&b=%20"));
        assert_eq!(get("SCRIPT_NAME"), Some("/echo"));
        assert_eq!(get("PATH_INFO"), Some("/a b"));
        assert_eq!(get("SERVER_NAME"), Some("box.example"));
        assert_eq!(get("CONTENT_TYPE"), Some("text/plain"));
        assert_eq!(get("CONTENT_LENGTH"), Some("3"));
        assert_eq!(get("HTTP_X_TWICE"), Some("1, 2"));
        assert_eq!(get("REMOTE_ADDR"), Some("10.0.0.7"));
        assert_eq!(get("HTTP_PROXY"), None);
        let users: Vec<_> = variables.iter().filter(|(name, _)| name == "HTTP_X_REMOTE_USER").collect();
        assert_eq!(users, [&("HTTP_X_REMOTE_USER".to_owned(), "known".to_owned())]);
        assert_eq!((get("HTTP_TRANSFER_ENCODING"), get("HTTP_AUTHORIZATION")), (None, Some("Basic eDp5")));
        assert_eq!(get("HTTP_CONTENT_TYPE"), None);
    }
}
