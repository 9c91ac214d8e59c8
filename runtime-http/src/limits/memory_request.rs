//! Memory in bytes, as functions ask for it.

use std::{fmt, str::FromStr};

use super::{ByteSize, InvalidLimit, serde_through_text};

/// An amount of guest memory: linear memories and tables together. At least 64 KiB (one Wasm page), less than 16 TiB.
///
/// Written like a [`ByteSize`]: in MiB (`200`), or as a Kubernetes quantity with a binary or decimal suffix (`256Mi`, `1Gi`, `64Ki`, `100M`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryRequest(ByteSize);

impl MemoryRequest {
    pub const DEFAULT: MemoryRequest = MemoryRequest(ByteSize::of_mebibytes(200));
    pub const MIN: MemoryRequest = MemoryRequest(ByteSize::of_bytes(64 << 10));
    pub const MAX: MemoryRequest = MemoryRequest(ByteSize::of_bytes((16 << 40) - 1));

    const EXPECTED: &str = "MiB (200) or a quantity with suffix Ki, Mi, Gi, k, M or G (256Mi)";

    /// `None` outside the type's bounds.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (Self::MIN.bytes()..=Self::MAX.bytes()).contains(&bytes).then_some(MemoryRequest(ByteSize::of_bytes(bytes)))
    }

    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }

    /// Whole MiB, rounded up: the unit of admission.
    pub const fn mebibytes(self) -> u64 {
        self.0.mebibytes()
    }
}

impl FromStr for MemoryRequest {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let size: ByteSize = text.parse().map_err(|invalid| InvalidLimit { expected: Self::EXPECTED, ..invalid })?;
        Self::from_bytes(size.bytes())
            .ok_or(InvalidLimit { reason: "not between 64Ki and 16383Gi", expected: Self::EXPECTED })
    }
}

impl fmt::Display for MemoryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_through_text!(MemoryRequest);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

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
