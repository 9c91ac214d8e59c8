//! Who begins as clients of HTTP/2 do, and then says something else, is told so in HTTP/2 (RFC 9113, section 3.4).
//!
//! hyper takes for HTTP/1 whatever is not the whole preface, and answers it with a 400 that such a client cannot read.

/// What only clients of HTTP/2 begin with: the first line of their preface.
const BEGINNING: &[u8; 16] = b"PRI * HTTP/2.0\r\n";

/// The server's own preface, which is an empty SETTINGS frame, and GOAWAY: no stream, PROTOCOL_ERROR.
pub const REFUSAL: &[u8] =
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01";

/// How a connection begins.
#[derive(Debug)]
pub struct Beginning {
    /// How many of its bytes are those of [`BEGINNING`]; `None` when one was not.
    same: Option<usize>,
}

impl Default for Beginning {
    fn default() -> Self {
        Beginning { same: Some(0) }
    }
}

impl Beginning {
    /// The connection's next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        let Some(same) = self.same.filter(|same| *same < BEGINNING.len()) else { return };
        let more = bytes.len().min(BEGINNING.len() - same);
        self.same = (bytes[..more] == BEGINNING[same..same + more]).then_some(same + more);
    }

    /// Whether it is that of HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.same == Some(BEGINNING.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_comes() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for size in 1..=preface.len() {
            let mut beginning = Beginning::default();
            preface.chunks(size).for_each(|bytes| beginning.read(bytes));
            assert!(beginning.is_http2(), "{size}");
            for wrong in 0..BEGINNING.len() {
                let mut other = *preface;
                other[wrong] ^= 1;
                let mut beginning = Beginning::default();
                other.chunks(size).for_each(|bytes| beginning.read(bytes));
                assert!(!beginning.is_http2(), "{size}, {wrong}");
            }
        }
        let mut short = Beginning::default();
        short.read(&preface[..15]);
        assert!(!short.is_http2());
    }
}
