//! How much a guest may send in a head, and as trailers.

use http::HeaderMap;

/// The most fields that a guest may send in a head or as trailers, and the most bytes of them, counted as HTTP/2 does (RFC 9113, section 6.5.2). With the
/// box's own they are within what clients take: 100 fields, 16 KiB. What waits for a client to read it is bounded by that, too.
const MOST_FIELDS: usize = 80;
const MOST_FIELD_BYTES: usize = 15 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {MOST_FIELDS} fields, or more than {MOST_FIELD_BYTES} bytes of them")]
pub struct TooManyFields;

/// Counts the fields of a guest, as they come.
#[derive(Debug, Default)]
pub struct Fields {
    number: usize,
    bytes: usize,
}

impl Fields {
    /// # Errors
    /// If one with a name and a value of these lengths is too much.
    pub fn add(&mut self, name: usize, value: usize) -> Result<(), TooManyFields> {
        self.number += 1;
        self.bytes = self.bytes.saturating_add(name).saturating_add(value).saturating_add(32);
        if self.number > MOST_FIELDS || self.bytes > MOST_FIELD_BYTES { Err(TooManyFields) } else { Ok(()) }
    }

    /// # Errors
    /// If `all` are too many.
    pub fn check(all: &HeaderMap) -> Result<(), TooManyFields> {
        let mut fields = Fields::default();
        all.iter().try_for_each(|(name, value)| fields.add(name.as_str().len(), value.len()))
    }
}
