//! Compiling for all boxes of a node: boxes hand modules over, and find the code in a cache that they cannot write.
//!
//! A box connects to a socket; for each connection the shim starts `wasmbox compile-service` on the host, with the connection as standard
//! input and output. That process hashes what it is sent and owns the cache, but does not even parse a module. It has the
//! [confined compiler](crate::confined) compile it. So what a box sends decides about the entry of those very bytes only.
//!
//! The exchange: the service says which compiled code it makes, [`Greeting`]; the box sends the module and shuts its side down; the
//! service says how it went, [`Answer`]. Each is one line. The code itself is found in the cache.
//!
//! - [`client`]: the box's side
//! - [`service`]: the trusted process; [`lock`]: what its processes share

pub mod client;
pub mod lock;
pub mod service;

use std::{fmt, time::Duration};

use crate::limits::ConfigDuration;

/// How long a module may take to arrive.
pub const RECEIVE_TIME: ConfigDuration = ConfigDuration::from_secs(30);
/// How long one waits for a place among those that compile; then the box had better do it itself.
pub const SLOT_TIME: Duration = Duration::from_secs(5);
/// How long compiling may take.
pub const COMPILE_TIME: ConfigDuration = ConfigDuration::from_secs(300);

/// Which code the service makes: [`crate::engine::Engines::compatibility_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting(pub u64);

impl Greeting {
    fn parse(line: &str) -> Option<Greeting> {
        u64::from_str_radix(line.strip_prefix("compiles for ")?, 16).ok().map(Greeting)
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compiles for {:016x}", self.0)
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The code is in the cache.
    Done,
    /// The module cannot be compiled, here or elsewhere, for this reason.
    Failed(String),
    /// It was not compiled, for this reason, which says nothing of the module.
    Refused(String),
}

impl Answer {
    fn parse(line: &str) -> Option<Answer> {
        match line {
            "done" => Some(Answer::Done),
            _ => {
                let (kind, reason) = line.split_once(": ")?;
                match kind {
                    "failed" => Some(Answer::Failed(unescaped(reason))),
                    "refused" => Some(Answer::Refused(unescaped(reason))),
                    _ => None,
                }
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => f.write_str("done"),
            Answer::Failed(reason) => write!(f, "failed: {}", escaped(reason)),
            Answer::Refused(reason) => write!(f, "refused: {}", escaped(reason)),
        }
    }
}

/// In one line.
fn escaped(reason: &str) -> String {
    reason.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescaped(line: &str) -> String {
    let mut characters = line.chars();
    let mut reason = String::new();
    while let Some(character) = characters.next() {
        match character {
            '\\' => reason.extend(characters.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped })),
            _ => reason.push(character),
        }
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_was_said() {
        for greeting in [Greeting(0), Greeting(7), Greeting(u64::MAX)] {
            assert_eq!(Greeting::parse(&greeting.to_string()), Some(greeting));
        }
        let reasons = ["no: room", "two\nlines", "\\n is no line \\\\\n", ""];
        let with_reasons = reasons
            .map(str::to_owned)
            .into_iter()
            .flat_map(|reason| [Answer::Failed(reason.clone()), Answer::Refused(reason)]);
        for answer in with_reasons.chain([Answer::Done]) {
            let line = answer.to_string();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Answer::parse(&line), Some(answer));
        }
        for nothing in ["", "don", "done ", "refused", "failed", "compiles for ", "compiles for x"] {
            assert_eq!((Greeting::parse(nothing), Answer::parse(nothing)), (None, None), "{nothing:?}");
        }
    }
}
