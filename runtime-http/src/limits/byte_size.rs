//! Sizes in bytes, as operators write them.

use std::{fmt, str::FromStr};

use super::{InvalidLimit, number};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A number of bytes, at most 2^63 - 1: what a file can have.
///
/// Written in MiB (`200`), or as a quantity with a suffix (`64Ki`, `256Mi`, `1Gi`, `500k`, `100M`, `1G`, `1500B`). It is shown with a suffix
/// always, exactly, and so reads the same wherever a plain number means something else ([`PlainBytes`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    pub const MAX: ByteSize = ByteSize(i64::MAX as u64);

    const EXPECTED: &str = "MiB (200) or a quantity with suffix Ki, Mi, Gi, k, M, G or B (256Mi)";

    /// The largest size if there is none of so many.
    pub const fn of_bytes(bytes: u64) -> Self {
        if bytes > Self::MAX.0 { Self::MAX } else { ByteSize(bytes) }
    }

    pub const fn of_mebibytes(mebibytes: u64) -> Self {
        Self::of_bytes(mebibytes.saturating_mul(MIB))
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// For lengths in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whole MiB, rounded up.
    pub const fn mebibytes(self) -> u64 {
        self.0.div_ceil(MIB)
    }

    /// Reads a size in which a number without a suffix counts `plain` bytes.
    fn parse(text: &str, plain: u64, expected: &'static str) -> Result<Self, InvalidLimit> {
        let invalid = |reason| InvalidLimit { reason, expected };
        let (digits, suffix) = number::with_suffix(text);
        let unit = match suffix {
            "" => plain,
            "B" => 1,
            "Ki" => KIB,
            "Mi" => MIB,
            "Gi" => GIB,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(invalid("unknown suffix or not a number")),
        };
        let number = number::digits(digits).ok_or(invalid("not a number"))?;
        let bytes = number.checked_mul(unit).filter(|bytes| *bytes <= Self::MAX.0);
        bytes.map(ByteSize).ok_or(invalid("more than 2^63 bytes"))
    }
}

impl FromStr for ByteSize {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        Self::parse(text, MIB, Self::EXPECTED)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first unit that is exact.
        const UNITS: [(u64, &str); 5] =
            [(MIB, "Mi"), (KIB, "Ki"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
        match UNITS.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, suffix)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A [`ByteSize`] in which a number without a suffix is bytes: for settings whose meaning says so (`--output-buffer-bytes 65536`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainBytes(pub ByteSize);

impl FromStr for PlainBytes {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        ByteSize::parse(text, 1, "bytes (65536) or a quantity with suffix Ki, Mi, Gi, k, M, G or B (64Ki)")
            .map(PlainBytes)
    }
}

impl fmt::Display for PlainBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, bytes, shown) in [
            ("200", 200 * MIB, "200Mi"),
            ("0", 0, "0B"),
            ("256Mi", 256 * MIB, "256Mi"),
            ("1Gi", GIB, "1024Mi"),
            ("64Ki", 64 << 10, "64Ki"),
            ("500k", 500_000, "500k"),
            ("100M", 100_000_000, "100M"),
            ("1G", 1_000_000_000, "1G"),
            ("1500B", 1500, "1500B"),
            ("1024000", 1024000 * MIB, "1024000Mi"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
        }
        assert_eq!("65536".parse::<PlainBytes>().unwrap().to_string(), "64Ki");
        assert_eq!("1".parse::<PlainBytes>().unwrap().to_string(), "1B");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "-1",
            "1.5",
            "1e9",
            "Mi",
            "B",
            "200 Mi",
            "200MiB",
            "200mi",
            "+1",
            "99999999999999999999",
            "9223372036854775808B",
            "8589934592Gi",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }
}
