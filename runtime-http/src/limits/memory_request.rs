//! Memory in bytes, as functions ask for it.

use std::{fmt, str::FromStr};

use super::{InvalidLimit, number, serde_through_text};

const MIB: u64 = 1 << 20;

/// An amount of guest memory: linear memories and tables together. At least 64 KiB (one Wasm page), less than 16 TiB.
///
/// Written in MiB (`200`) or as a Kubernetes quantity with a binary or decimal suffix (`256Mi`, `1Gi`, `64Ki`, `100M`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryRequest(u64);

impl MemoryRequest {
    pub const DEFAULT: MemoryRequest = MemoryRequest(200 * MIB);
    pub const MIN: MemoryRequest = MemoryRequest(64 << 10);
    pub const MAX: MemoryRequest = MemoryRequest((16 << 40) - 1);

    const EXPECTED: &str = "MiB (200) or a quantity with suffix Ki, Mi, Gi, k, M or G (256Mi)";

    /// `None` outside the type's bounds.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&bytes).then_some(MemoryRequest(bytes))
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded up: the unit of admission.
    pub fn mebibytes(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

impl FromStr for MemoryRequest {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = |reason| InvalidLimit { reason, expected: Self::EXPECTED };
        let digits_end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (digits, suffix) = text.split_at(digits_end);
        let unit = match suffix {
            "" | "Mi" => MIB,
            "Ki" => 1 << 10,
            "Gi" => 1 << 30,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(invalid("unknown suffix or not a number")),
        };
        let number = number::digits(digits).ok_or(invalid("not a number"))?;
        Self::from_bytes(number.saturating_mul(unit)).ok_or(invalid("not between 64Ki and 16383Gi"))
    }
}

impl fmt::Display for MemoryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(MIB) {
            write!(f, "{}Mi", self.0 / MIB)
        } else if self.0.is_multiple_of(1 << 10) {
            write!(f, "{}Ki", self.0 >> 10)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

serde_through_text!(MemoryRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, bytes) in [
            ("200", 200 * MIB),
            ("256Mi", 256 * MIB),
            ("1Gi", 1024 * MIB),
            ("64Ki", 64 << 10),
            ("100M", 100_000_000),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(text.parse::<MemoryRequest>().unwrap().bytes(), bytes, "{text}");
        }
        assert_eq!("100M".parse::<MemoryRequest>().unwrap().mebibytes(), 96);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "NaN",
            "Inf",
            "1.5",
            "1e9",
            "Mi",
            "200 Mi",
            "200MiB",
            "200mi",
            "63Ki",
            "99999999999999999999",
            "99999999Gi",
        ] {
            assert!(text.parse::<MemoryRequest>().is_err(), "{text:?}");
        }
    }
}
