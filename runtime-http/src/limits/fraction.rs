//! Shares of a whole.

use std::{fmt, str::FromStr};

use super::{InvalidLimit, number};

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(f64);

impl Fraction {
    pub const fn percent(percent: u8) -> Fraction {
        assert!(percent <= 100);
        Fraction(percent as f64 / 100.0)
    }

    pub fn get(self) -> f64 {
        self.0
    }

    pub fn of(self, bytes: u64) -> u64 {
        (bytes as f64 * self.0) as u64
    }
}

impl FromStr for Fraction {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = InvalidLimit { reason: "not a share", expected: "a number from 0 to 1 (0.85)" };
        number::decimal(text).filter(|number| (0.0..=1.0).contains(number)).map(Fraction).ok_or(invalid)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_0_to_1() {
        for (text, value) in [("0", 0.0), ("1", 1.0), ("0.85", 0.85), (".5", 0.5)] {
            assert_eq!(text.parse::<Fraction>().unwrap().get(), value);
        }
        for text in ["", "-0.1", "1.01", "85%", "NaN", "inf", "1e-3", "+0.5"] {
            assert!(text.parse::<Fraction>().is_err(), "{text}");
        }
    }
}
