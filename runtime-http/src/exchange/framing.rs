//! How long a response is. What a guest announces is compared with what it sends, and decides nothing: a reader that took the wrong number
//! would take the rest of one response for the next, which may be somebody else's.

use http::{HeaderMap, HeaderName, StatusCode, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFraming {
    #[error("its Content-Length is not one number")]
    Unreadable,
    #[error("it announced {announced} bytes and sent more")]
    TooMuch { announced: u64 },
    #[error("it announced {announced} bytes and sent {sent}")]
    TooLittle { announced: u64, sent: u64 },
}

/// What a guest says of its response's length, taken out of the head.
///
/// # Errors
/// If there are several numbers, or it is none.
pub fn take_length(headers: &mut HeaderMap) -> Result<Option<u64>, BadFraming> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
    headers.remove(header::CONTENT_LENGTH);
    length.map(Some).ok_or(BadFraming::Unreadable)
}

/// The elements of a list header (RFC 9110, section 5.6.1); one that is no text is one that is not known.
pub fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or("?"));
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Whether a response with this status has no body, whatever its guest sent (RFC 9110, section 6.4.1).
pub fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Counts a body that is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Length {
    announced: Option<u64>,
    sent: u64,
}

impl Length {
    pub fn new(announced: Option<u64>) -> Length {
        Length { announced, sent: 0 }
    }

    /// What is still to come, if that is known.
    pub fn left(&self) -> Option<u64> {
        self.announced.map(|announced| announced - self.sent)
    }

    /// Before `bytes` are sent.
    ///
    /// # Errors
    /// If they would be too many: none of them may be sent then.
    pub fn add(&mut self, bytes: u64) -> Result<(), BadFraming> {
        let sent = self.sent.saturating_add(bytes);
        match self.announced {
            Some(announced) if sent > announced => Err(BadFraming::TooMuch { announced }),
            _ => {
                self.sent = sent;
                Ok(())
            }
        }
    }

    /// At the end.
    ///
    /// # Errors
    /// If bytes are missing.
    pub fn end(&self) -> Result<(), BadFraming> {
        match self.announced {
            Some(announced) if announced != self.sent => Err(BadFraming::TooLittle { announced, sent: self.sent }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_are_one_number() {
        let take = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_LENGTH, http::HeaderValue::from_static(value));
            }
            let length = take_length(&mut headers);
            assert!(headers.is_empty(), "it is never left for others");
            length
        };
        assert_eq!(take(&[]), Ok(None));
        assert_eq!(take(&["5"]), Ok(Some(5)));
        for values in
            [&["5", "5"][..], &["5", "6"], &["5, 5"], &["+5"], &["-1"], &[""], &["0x5"], &["99999999999999999999"]]
        {
            assert_eq!(take(values), Err(BadFraming::Unreadable), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_what_was_announced(announced in proptest::option::of(0_u64..20), frames: Vec<u8>) {
            let mut length = Length::new(announced);
            let passed: Vec<_> = frames.iter().take_while(|bytes| length.add(u64::from(**bytes)).is_ok()).collect();
            let sent: u64 = passed.iter().map(|bytes| u64::from(**bytes)).sum();
            match announced {
                None => prop_assert!(passed.len() == frames.len() && length.end().is_ok()),
                Some(announced) => {
                    prop_assert!(sent <= announced);
                    prop_assert_eq!(length.left(), Some(announced - sent));
                    prop_assert_eq!(length.end().is_ok(), sent == announced);
                }
            }
        }
    }
}
