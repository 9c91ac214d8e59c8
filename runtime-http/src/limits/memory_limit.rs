//! The memory of a whole box, as operators write it.

use std::{fmt, str::FromStr};

use super::{ByteSize, InvalidLimit, number};

const MIB: f64 = 1_048_576.0;

/// Like a [`ByteSize`], at least 64 KiB; a plain number of MiB may have decimals (`7629.39`), as it comes out of other units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(ByteSize);

impl MemoryLimit {
    pub const MIN: MemoryLimit = MemoryLimit(ByteSize::of_bytes(64 << 10));

    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl FromStr for MemoryLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let size = match number::decimal(text).filter(|_| text.contains('.')) {
            // Out of range, the conversion gives the nearest number, which is out of bounds too.
            Some(mebibytes) => {
                Some((mebibytes * MIB) as u64).filter(|bytes| *bytes < ByteSize::MAX.bytes()).map(ByteSize::of_bytes)
            }
            None => Some(text.parse()?),
        };
        size.filter(|size| *size >= Self::MIN.0).map(MemoryLimit).ok_or(InvalidLimit {
            reason: "not between 64Ki and 2^63 bytes",
            expected: "MiB (512.5) or a quantity (512Mi)",
        })
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_may_have_decimals() {
        for (text, bytes) in [("512", 512 << 20), ("1Gi", 1 << 30), ("0.5", 512 << 10), ("7629.394531", 7_999_999_999)]
        {
            assert_eq!(text.parse::<MemoryLimit>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "0", "63Ki", "0.0", "-1.5", "NaN", "1.5Gi", "1e3.0", "1.2.3", "99999999999999.5"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }
}
