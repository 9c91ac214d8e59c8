//! CPU quota in millicores: 1000 is one core's worth of time in each period.

use std::{fmt, str::FromStr};

use super::{
    InvalidLimit,
    number::{digits, thousandths},
    serde_through_text,
};

/// A share of CPU time, 1 to 1,024,000 millicores.
///
/// Written as millicores (`500`), as a Kubernetes quantity (`500m`), or as cores with a decimal point (`0.5`). An integer without
/// a suffix means millicores, as it did in the original WasmBox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuQuota(u32);

impl CpuQuota {
    pub const DEFAULT: CpuQuota = CpuQuota(500);
    /// The kernel's least quota (1 ms) in its longest period (1 s) is one millicore.
    pub const MIN: CpuQuota = CpuQuota(1);
    pub const MAX: CpuQuota = CpuQuota(1_024_000);

    const EXPECTED: &str = "millicores (500 or 500m) or cores with a decimal point (0.5)";

    /// `None` outside 1 to 1,024,000.
    pub fn from_millicores(millicores: u32) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&millicores).then_some(CpuQuota(millicores))
    }

    pub fn millicores(self) -> u32 {
        self.0
    }
}

impl FromStr for CpuQuota {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = |reason| InvalidLimit { reason, expected: Self::EXPECTED };
        let millicores = match text.split_once('.') {
            None => digits(text.strip_suffix('m').unwrap_or(text)).ok_or(invalid("not a number"))?,
            Some((cores, fraction)) => thousandths(cores, fraction, Self::EXPECTED)?,
        };
        u32::try_from(millicores).ok().and_then(Self::from_millicores).ok_or(invalid("not between 1m and 1024000m"))
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

serde_through_text!(CpuQuota);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_half_a_core() {
        for text in ["500", "500m", "0.5", "0.50", "0.500", "00500"] {
            assert_eq!(text.parse::<CpuQuota>().unwrap().millicores(), 500, "{text}");
        }
        assert_eq!("2.0".parse::<CpuQuota>().unwrap().millicores(), 2000);
    }

    #[test]
    fn what_is_no_quota_is_refused() {
        let long = "9".repeat(400);
        for text in [
            "", "0", "0m", "0.0", "-1", "+5", "NaN", "Inf", "inf", "1e3", "1.", ".5", "0.0001", " 5", "5 ", "5M",
            "0x10", "1024001", &long,
        ] {
            assert!(text.parse::<CpuQuota>().is_err(), "{text:?}");
        }
    }
}
