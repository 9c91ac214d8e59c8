//! Spans of time, as operators write them.

use std::{fmt, str::FromStr, time::Duration};

use super::{InvalidLimit, number};

/// Whole milliseconds, at most 24 h. Written in milliseconds (`60000`), or with a unit (`500ms`, `60s`, `5m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigDuration(u32);

impl ConfigDuration {
    pub const MAX: ConfigDuration = ConfigDuration(24 * 3600 * 1000);

    pub(super) const EXPECTED: &str = "milliseconds (60000), or a number with unit ms, s or m (60s)";

    /// The longest if there is none of so many.
    pub const fn from_millis(millis: u32) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { ConfigDuration(millis) }
    }

    pub const fn from_secs(seconds: u32) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    pub const fn millis(self) -> u32 {
        self.0
    }

    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

impl FromStr for ConfigDuration {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = |reason| InvalidLimit { reason, expected: Self::EXPECTED };
        let (digits, suffix) = number::with_suffix(text);
        let unit = match suffix {
            "" | "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => return Err(invalid("unknown unit or not a number")),
        };
        let number = number::digits(digits).ok_or(invalid("not a number"))?;
        let millis = number.checked_mul(unit).and_then(|millis| u32::try_from(millis).ok());
        millis.filter(|millis| *millis <= Self::MAX.0).map(ConfigDuration).ok_or(invalid("more than 24 h"))
    }
}

impl fmt::Display for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
