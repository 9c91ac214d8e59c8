//! Compiling for all boxes of a node: boxes hand modules over, and find the code in a cache that they cannot write.
//!
//! A box connects to a socket; for each connection the shim starts `wasmbox compile-service` on the host, with the connection as standard
//! input and output. That process hashes what it is sent and owns the cache, but does not even parse a module. It starts `wasmbox
//! compile-confined`, which compiles and can do nothing else. So what a box sends decides about the entry of those very bytes only.
//!
//! The exchange: the service says which compiled code it makes, [`Greeting`]; the box sends the module and shuts its side down; the
//! service says how it went, [`Answer`]. Each is one line. The code itself is found in the cache.
//!
//! - [`client`]: the box's side
//! - [`service`]: the trusted process; [`lock`]: what its processes share; [`memory_file`]: how bytes get into the other one and out of it
//! - [`confined`]: the process that compiles; [`confinement`]: what it is kept from

pub mod client;
pub mod confined;
pub mod confinement;
pub mod lock;
pub mod memory_file;
pub mod service;

use std::{fmt, time::Duration};

/// How long a module may take to arrive.
pub const RECEIVE_TIME: Duration = Duration::from_secs(30);
/// How long one waits for a place among those that compile; then the box had better do it itself.
pub const SLOT_TIME: Duration = Duration::from_secs(5);
/// How long compiling may take.
pub const COMPILE_TIME: Duration = Duration::from_secs(300);

/// Which code the service makes: [`crate::engine::compatibility_key`].
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
    /// It is no valid module. The box finds the reason itself, in the words it always uses.
    Invalid,
    /// It was not compiled, for this reason.
    Refused(String),
}

impl Answer {
    fn parse(line: &str) -> Option<Answer> {
        match line {
            "done" => Some(Answer::Done),
            "invalid" => Some(Answer::Invalid),
            _ => line.strip_prefix("refused: ").map(|reason| Answer::Refused(reason.to_owned())),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => f.write_str("done"),
            Answer::Invalid => f.write_str("invalid"),
            Answer::Refused(reason) => write!(f, "refused: {}", reason.replace('\n', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_was_said() {
        for greeting in [Greeting(0), Greeting(7), Greeting(u64::MAX)] {
            assert_eq!(Greeting::parse(&greeting.to_string()), Some(greeting));
        }
        for answer in [Answer::Done, Answer::Invalid, Answer::Refused("no: room".into())] {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
        assert_eq!(Answer::Refused("two\nlines".into()).to_string(), "refused: two lines");
        for nothing in ["", "don", "done ", "refused", "compiles for ", "compiles for x"] {
            assert_eq!((Greeting::parse(nothing), Answer::parse(nothing)), (None, None), "{nothing:?}");
        }
    }
}
