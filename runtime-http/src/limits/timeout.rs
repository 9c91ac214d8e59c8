//! How long an invocation may take, from its arrival to its last byte.

use std::{fmt, str::FromStr, time::Duration};

use super::{ConfigDuration, InvalidLimit, serde_through_text};

/// Wall-clock time, 1 ms to 24 h, written like a [`ConfigDuration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvocationTimeout(ConfigDuration);

impl InvocationTimeout {
    pub const DEFAULT: InvocationTimeout = InvocationTimeout(ConfigDuration::from_secs(60));
    pub const MIN: InvocationTimeout = InvocationTimeout(ConfigDuration::from_millis(1));
    pub const MAX: InvocationTimeout = InvocationTimeout(ConfigDuration::MAX);

    /// The nearest there is.
    pub const fn from_millis(millis: u32) -> Self {
        InvocationTimeout(ConfigDuration::from_millis(if millis == 0 { 1 } else { millis }))
    }

    pub const fn duration(self) -> Duration {
        self.0.duration()
    }
}

impl FromStr for InvocationTimeout {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let duration: ConfigDuration = text.parse()?;
        if duration < Self::MIN.0 {
            return Err(InvalidLimit { reason: "not between 1 ms and 24 h", expected: ConfigDuration::EXPECTED });
        }
        Ok(InvocationTimeout(duration))
    }
}

impl fmt::Display for InvocationTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
