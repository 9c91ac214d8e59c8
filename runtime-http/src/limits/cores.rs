//! CPU as a number of cores in use.

use std::{fmt, str::FromStr};

use super::{InvalidLimit, number};

/// More than 0, at most 10,000; decimal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cores(f64);

impl Cores {
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Cores {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = InvalidLimit { reason: "not a number of cores", expected: "a number above 0 (6.5)" };
        number::decimal(text).filter(|number| *number > 0.0 && *number <= 10_000.0).map(Cores).ok_or(invalid)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
