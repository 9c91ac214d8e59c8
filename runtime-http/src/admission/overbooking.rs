//! How much more memory is admitted than there is.

use std::{fmt, str::FromStr};

use crate::limits::{InvalidLimit, number};

/// Memory-Request admitted per memory, 0.1 to 100. Functions seldom use all they request: above 1 the difference is put to use.
///
/// Written as a decimal number with at most three decimals (`1`, `1.5`): no sign, no exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverbookingRatio {
    thousandths: u64,
}

const EXPECTED: &str = "a decimal number from 0.1 to 100, with at most three decimals (1.5)";

impl OverbookingRatio {
    pub const ONE: OverbookingRatio = OverbookingRatio { thousandths: 1000 };

    /// `units` times this, rounded down.
    pub fn times(self, units: u64) -> u64 {
        u64::try_from(u128::from(units) * u128::from(self.thousandths) / 1000).unwrap_or(u64::MAX)
    }
}

impl FromStr for OverbookingRatio {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let thousandths = number::thousandths(whole, decimals, EXPECTED)?;
        if !(100..=100_000).contains(&thousandths) {
            return Err(InvalidLimit { reason: "not between 0.1 and 100", expected: EXPECTED });
        }
        Ok(OverbookingRatio { thousandths })
    }
}

impl fmt::Display for OverbookingRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.thousandths / 1000, self.thousandths % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, units, shown) in [
            ("1", 1000, "1"),
            ("1.50", 1500, "1.5"),
            ("0.1", 100, "0.1"),
            ("100", 100_000, "100"),
            ("2.125", 2125, "2.125"),
        ] {
            let ratio: OverbookingRatio = text.parse().unwrap();
            assert_eq!((ratio.times(1000), ratio.to_string().as_str()), (units, shown));
        }
        assert_eq!("0.3".parse::<OverbookingRatio>().unwrap().times(5), 1);
    }

    #[test]
    fn what_is_no_ratio_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "0",
            "0.0",
            "0.099",
            "100.001",
            "-1",
            "+1",
            "1e1",
            "NaN",
            "nan",
            "Inf",
            "inf",
            "1,5",
            " 1",
            "1 ",
            "1.2345",
            "1.5.0",
            "0x1",
            "99999999999999999999999",
        ] {
            let message = text.parse::<OverbookingRatio>().unwrap_err().to_string();
            assert!(message.contains("from 0.1 to 100"), "{text:?}: {message}");
        }
    }
}
