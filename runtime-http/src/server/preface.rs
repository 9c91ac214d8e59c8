//! Who speaks HTTP/2 badly from the first line on is told so in HTTP/2 (RFC 9113, section 3.4).
//!
//! hyper takes for HTTP/1 whatever is not the whole preface, and answers it with a 400 that such a client cannot read. So that is left to
//! clients whose first line may be one of HTTP/1, if a bad one (RFC 9112, section 3): of up to two words, or with a target, or a version.

/// What only clients of HTTP/2 begin with: the first line of their preface.
const BEGINNING: &[u8; 16] = b"PRI * HTTP/2.0\r\n";
/// What the third word of a request line begins with.
const VERSION: &[u8; 5] = b"HTTP/";

/// The server's own preface, which is an empty SETTINGS frame, and GOAWAY: no stream, PROTOCOL_ERROR.
pub const REFUSAL: &[u8] =
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01";

/// How a connection begins.
#[derive(Debug, Default)]
pub struct Beginning {
    preface: Prefix,
    version: Prefix,
    /// Whether the second word may be the target of a request: a path, a URL, a host with its port, or `*`.
    has_target: bool,
    /// How many words of the first line have ended, and whether a word has begun since.
    words: u32,
    in_word: bool,
    is_over: bool,
}

/// How much of something is as expected.
#[derive(Debug, Default)]
struct Prefix {
    same: usize,
    is_other: bool,
}

impl Prefix {
    /// The next byte, if `expected` is not there as a whole.
    fn read(&mut self, byte: u8, expected: &[u8]) {
        match expected.get(self.same) {
            Some(next) if *next == byte && !self.is_other => self.same += 1,
            Some(_) => self.is_other = true,
            None => {}
        }
    }
}

impl Beginning {
    /// The connection's next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.is_over {
                return;
            }
            self.preface.read(*byte, BEGINNING);
            match byte {
                b'\n' => self.is_over = true,
                b' ' => self.words += u32::from(std::mem::take(&mut self.in_word)),
                b'\r' => {}
                _ => {
                    self.in_word = true;
                    match (self.words, byte) {
                        (1, b'/' | b':' | b'*') => self.has_target = true,
                        (2, _) => self.version.read(*byte, VERSION),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Whether no client of HTTP/1 begins so.
    pub fn is_http2(&self) -> bool {
        self.preface.same == BEGINNING.len() || self.version.is_other && !self.has_target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_http2(text: &[u8], size: usize) -> bool {
        let mut beginning = Beginning::default();
        text.chunks(size).for_each(|bytes| beginning.read(bytes));
        beginning.is_http2()
    }

    #[test]
    fn however_it_comes() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for size in 1..=preface.len() {
            assert!(is_http2(preface, size), "{size}");
            for wrong in 0..BEGINNING.len() {
                let mut other = *preface;
                other[wrong] ^= 1;
                // With another byte for `*` there is still a version.
                assert!(!is_http2(&other, size), "{size}, {wrong}");
            }
            for (text, expected) in [
                (&preface[..15], false),
                (b"INVALID CONNECTION PREFACE\r\n\r\n", true),
                (b"GET / HTTP/1.1\r\nHost: a\r\nno such header here\r\n", false),
                (b"GET / HTTP/9\r\n", false),
                (b"GET / HTTX/1.1\r\n", false),
                (b"GET /a b HTTP/1.1\r\n", false),
                (b"GET a HTTX/1.1\r\n", true),
                (b"CONNECT a:1 b\r\n", false),
                (b"GET /\r\nHost: a b c\r\n", false),
                (b"\r\na b c", false),
                (b"a  b", false),
                (b"a  b  c", true),
                (b"GET  /hello  HTTP/1.1\r\n", false),
                (b"a b ", false),
                (b"", false),
            ] {
                assert_eq!(is_http2(text, size), expected, "{}, {size}", text.escape_ascii());
            }
        }
    }
}
