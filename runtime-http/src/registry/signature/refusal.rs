//! Why signatures do not count.

use std::fmt;

use indicatif::HumanBytes;

use crate::{excerpt::excerpt, registry::digest::Digest};

/// The most signatures of one format that are looked at: the last ones, which are the newest where there is an order.
const MOST: usize = 64;
/// The most different reasons that are told.
const TOLD: usize = 4;

/// Why one of them does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("made by none of these keys, or altered")]
    Key,
    #[error("of another content, {0}, from which it may have been copied")]
    Content(Digest),
    #[error("without a signature in base64")]
    Encoding,
    #[error("larger than {}", HumanBytes(*.0))]
    TooLarge(u64),
    #[error("unreadable: {0}")]
    Unreadable(String),
    #[error("not made to sign an image or artifact, but for {0:?}")]
    Purpose(String),
}

impl Refusal {
    pub fn unreadable(reason: impl fmt::Display) -> Refusal {
        Refusal::Unreadable(excerpt(reason))
    }
}

/// Of all that were looked at.
#[derive(Debug, Default)]
pub struct Refusals {
    counted: Vec<(Refusal, usize)>,
    /// How many were not looked at.
    left_out: usize,
}

impl Refusals {
    pub fn add(&mut self, refusal: Refusal) {
        match self.counted.iter_mut().find(|(counted, _)| *counted == refusal) {
            Some((_, count)) => *count += 1,
            None => self.counted.push((refusal, 1)),
        }
    }

    /// Those that are to be looked at.
    pub fn newest<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        let newest = all.split_off(all.len().saturating_sub(MOST));
        self.left_out += all.len();
        newest
    }

    /// Whether there was nothing that could be a signature.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.left_out == 0
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked: usize = self.counted.iter().map(|(_, count)| count).sum();
        let reasons: Vec<String> =
            self.counted.iter().take(TOLD).map(|(refusal, count)| format!("{count} {refusal}")).collect();
        write!(formatter, "{looked}")?;
        if looked > 0 {
            write!(formatter, ": {}", excerpt(reasons.join("; ")))?;
        }
        if self.left_out > 0 {
            write!(formatter, "; {} more were not looked at, for at most {MOST} are", self.left_out)?;
        }
        Ok(())
    }
}
