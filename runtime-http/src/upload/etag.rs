//! What a function's content is called: the same name, the same module and settings.

use std::{
    fmt,
    io::{self, Read},
};

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Of a module that is read piece by piece.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn end(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl Digest {
    /// Of what can be read, and how much that is; `None` if it is more than `limit` bytes.
    ///
    /// # Errors
    /// The reader's.
    pub fn of(reader: impl Read, limit: u64) -> io::Result<Option<(Digest, u64)>> {
        let mut hasher = Hasher::default();
        let mut reader = reader.take(limit + 1);
        let mut buffer = vec![0; 64 << 10];
        let mut bytes = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok((bytes <= limit).then(|| (hasher.end(), bytes))),
                read => {
                    bytes += read as u64;
                    hasher.update(&buffer[..read]);
                }
            }
        }
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// 32 hexadecimal digits for a module together with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    const DIGITS: usize = 32;

    pub fn of(module: &Digest, settings: Option<&[u8]>) -> Etag {
        let mut hasher = Hasher::default();
        hasher.update(&module.0);
        if let Some(settings) = settings {
            let mut own = Hasher::default();
            own.update(settings);
            hasher.update(&own.end().0);
        }
        let mut text = hasher.end().to_string();
        text.truncate(Self::DIGITS);
        Etag(text)
    }

    /// As it is written in a name.
    pub fn parse(text: &str) -> Option<Etag> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == Self::DIGITS && text.bytes().all(is_digit)).then(|| Etag(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With the quotes of a header (RFC 9110, section 8.8.3).
    pub fn header(&self) -> HeaderValue {
        HeaderValue::try_from(format!("\"{}\"", self.0)).expect("quotes and digits are a header's value")
    }
}

/// What a change asks of what is there before it (RFC 9110, section 13.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    /// As they are between the quotes. A weak one is none of ours.
    Listed(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{header} is neither * nor a list of entity tags in double quotes, such as \"0123\"")]
pub struct BadCondition {
    header: &'static str,
}

impl Conditions {
    /// # Errors
    /// [`BadCondition`], so that a condition that is written wrongly is not taken for none.
    pub fn parse(headers: &HeaderMap) -> Result<Conditions, BadCondition> {
        Ok(Conditions {
            matches: Tags::parse(headers, &header::IF_MATCH, "If-Match")?,
            none_matches: Tags::parse(headers, &header::IF_NONE_MATCH, "If-None-Match")?,
        })
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Conditions::default()
    }

    /// Whether what is there is as it must be: `None`, nothing is there; `Some(None)`, something whose content is not known.
    pub fn hold(&self, there: Option<Option<&Etag>>) -> bool {
        let is_among = |tags: &Tags| match tags {
            Tags::Any => there.is_some(),
            Tags::Listed(tags) => there.flatten().is_some_and(|etag| tags.iter().any(|tag| tag == etag.as_str())),
        };
        self.matches.as_ref().is_none_or(is_among) && !self.none_matches.as_ref().is_some_and(is_among)
    }
}

impl Tags {
    fn parse(
        headers: &HeaderMap,
        name: &header::HeaderName,
        header: &'static str,
    ) -> Result<Option<Tags>, BadCondition> {
        let bad = || BadCondition { header };
        let mut listed = Vec::new();
        for value in headers.get_all(name) {
            let text = value.to_str().map_err(|_| bad())?.trim();
            if text == "*" {
                return Ok(Some(Tags::Any));
            }
            for tag in text.split(',') {
                let tag = tag.trim();
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(bad)?;
                if strong.len() == tag.len() {
                    listed.push(inner.to_owned());
                }
            }
        }
        Ok(headers.contains_key(name).then_some(Tags::Listed(listed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etag(content: &[u8], settings: Option<&[u8]>) -> Etag {
        Etag::of(&Digest::of(content, 100).unwrap().unwrap().0, settings)
    }

    #[test]
    fn etags_tell_contents_apart() {
        let all = [etag(b"a", None), etag(b"b", None), etag(b"a", Some(b"")), etag(b"a", Some(b"b"))];
        for (index, tag) in all.iter().enumerate() {
            assert_eq!(Etag::parse(tag.as_str()).as_ref(), Some(tag));
            assert!(!all[..index].contains(tag));
        }
        assert_eq!(etag(b"a", Some(b"b")), all[3]);
        for bad in ["", "0123", "../../etc/passwd", &"g".repeat(32), &"A".repeat(32)] {
            assert_eq!(Etag::parse(bad), None);
        }
        assert_eq!(Digest::of(&b"12345"[..], 4).unwrap(), None);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(&b""[..], 4).unwrap().unwrap().0.to_string(), empty);
    }

    #[test]
    fn conditions() {
        let one = etag(b"a", None);
        let there = [None, Some(None), Some(Some(&one))];
        let holds = |name: header::HeaderName, value: &str| {
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            Conditions::parse(&headers).map(|conditions| there.map(|there| conditions.hold(there)))
        };
        let listed = format!("\"x\", {}", one.header().to_str().unwrap());
        assert_eq!(holds(header::IF_MATCH, "*"), Ok([false, true, true]));
        assert_eq!(holds(header::IF_MATCH, &listed), Ok([false, false, true]));
        assert_eq!(holds(header::IF_MATCH, &format!("W/\"{}\"", one.as_str())), Ok([false; 3]));
        assert_eq!(holds(header::IF_NONE_MATCH, "*"), Ok([true, false, false]));
        assert_eq!(holds(header::IF_NONE_MATCH, &listed), Ok([true, true, false]));
        assert!(Conditions::default().hold(None));
        for bad in ["", "x", "\"", "\"a\", b"] {
            assert!(holds(header::IF_MATCH, bad).is_err(), "{bad:?}");
        }
    }
}
