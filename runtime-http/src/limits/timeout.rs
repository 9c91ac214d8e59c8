//! How long an invocation may take, from its arrival to its last byte.

use std::{fmt, str::FromStr, time::Duration};

use super::{InvalidLimit, number, serde_through_text};

/// Wall-clock time, 1 ms to 24 h. Written in milliseconds (`60000`), or with a unit (`500ms`, `60s`, `5m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvocationTimeout(Duration);

impl InvocationTimeout {
    pub const DEFAULT: InvocationTimeout = InvocationTimeout(Duration::from_secs(60));
    pub const MIN: InvocationTimeout = InvocationTimeout(Duration::from_millis(1));
    pub const MAX: InvocationTimeout = InvocationTimeout(Duration::from_secs(24 * 3600));

    const EXPECTED: &str = "milliseconds (60000), or a number with unit ms, s or m (60s)";

    /// `None` outside the type's bounds.
    pub fn from_duration(duration: Duration) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&duration).then_some(InvocationTimeout(duration))
    }

    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for InvocationTimeout {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = |reason| InvalidLimit { reason, expected: Self::EXPECTED };
        let digits_end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (digits, suffix) = text.split_at(digits_end);
        let unit = match suffix {
            "" | "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => return Err(invalid("unknown unit or not a number")),
        };
        let number = number::digits(digits).ok_or(invalid("not a number"))?;
        Self::from_duration(Duration::from_millis(number.saturating_mul(unit)))
            .ok_or(invalid("not between 1 ms and 24 h"))
    }
}

impl fmt::Display for InvocationTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

serde_through_text!(InvocationTimeout);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, millis) in [("1", 1), ("60000", 60_000), ("500ms", 500), ("60s", 60_000), ("5m", 300_000)] {
            assert_eq!(text.parse::<InvocationTimeout>().unwrap().duration().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "0", "-1", "1.5", "NaN", "Inf", "1h", "s", "86400001", "99999999999999999999s"] {
            assert!(text.parse::<InvocationTimeout>().is_err(), "{text:?}");
        }
    }
}
