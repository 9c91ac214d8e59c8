//! The memory of a whole box, as operators write it.

use std::{fmt, str::FromStr};

use super::{InvalidLimit, MemoryRequest, number, serde_through_text};

const MIB: f64 = 1_048_576.0;

/// Like a [`MemoryRequest`]; a plain number of MiB may have decimals (`7629.39`), as it comes out of other units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(MemoryRequest);

impl MemoryLimit {
    pub fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl FromStr for MemoryLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        match number::decimal(text).filter(|_| text.contains('.')) {
            // Out of range, the conversion gives the nearest number, which is out of bounds too.
            Some(mebibytes) => MemoryRequest::from_bytes((mebibytes * MIB) as u64)
                .map(MemoryLimit)
                .ok_or(InvalidLimit { reason: "not between 64Ki and 16383Gi", expected: "MiB (512.5)" }),
            None => text.parse().map(MemoryLimit),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_string() {
            // What `MemoryRequest` shows but does not read.
            text if text.ends_with("bytes") => write!(f, "{:.6}", self.0.bytes() as f64 / MIB),
            text => f.write_str(&text),
        }
    }
}

serde_through_text!(MemoryLimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_may_have_decimals_and_survive_being_written() {
        for (text, bytes) in [("512", 512 << 20), ("1Gi", 1 << 30), ("0.5", 512 << 10), ("7629.394531", 8_000_000_000)]
        {
            let limit: MemoryLimit = text.parse().unwrap();
            assert!(limit.bytes().abs_diff(bytes) < 2, "{text}: {}", limit.bytes());
            assert!(limit.to_string().parse::<MemoryLimit>().unwrap().bytes().abs_diff(bytes) < 4, "{limit}");
        }
        for text in ["", "0.0", "-1.5", "NaN", "1.5Gi", "1e3.0", "1.2.3", "99999999999.5"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }
}
