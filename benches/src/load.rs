//! The load: one `wrk` run against one server.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::process;

/// What `wrk` runs: the pause between requests, and the line that [`Load::run`] reads.
pub const SCRIPT: &str = include_str!("load.lua");

/// How hard to push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections that stay open, each with at most one request under way.
    pub connections: u32,
    /// Pause of each connection between an answer and its next request, in milliseconds. 0 is a hot loop.
    pub gap_ms: u32,
}

/// What `wrk` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Answers received, whatever their status.
    pub requests: u64,
    /// How long the load lasted, in microseconds.
    pub duration_us: u64,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: u64,
    /// Answers with a status of 400 and above, and socket errors (connect, read, write, timeout).
    pub errors: u64,
}

impl Load {
    /// Loads `http://127.0.0.1:{port}{path}` for `seconds`. `script` is the file that holds [`SCRIPT`].
    ///
    /// # Errors
    ///
    /// When `wrk` does not run, or not one request was answered.
    pub async fn run(self, script: &Path, port: u16, path: &str, seconds: u32) -> Result<Answers> {
        let mut wrk = std::process::Command::new("wrk");
        wrk.arg("-t1")
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{seconds}s"))
            .arg("-s")
            .arg(script)
            .arg(format!("http://127.0.0.1:{port}{path}"))
            .env("GAP_MS", self.gap_ms.to_string())
            .env("CONNECTIONS", self.connections.to_string())
            .stdin(Stdio::null());
        process::die_with_parent(&mut wrk);
        let output = Command::from(wrk).kill_on_drop(true).output().await.context("cannot run wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        let answers = Answers::parse(&text).with_context(|| format!("wrk said: {text}"))?;
        ensure!(answers.requests > 0, "no request was answered: {text}");
        Ok(answers)
    }
}

impl Answers {
    /// Reads the line that [`SCRIPT`] prints; `None` when it is not there.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("LOAD "))?;
        let mut numbers = line.split(' ').map_while(|number| number.parse().ok());
        Some(Self {
            requests: numbers.next()?,
            duration_us: numbers.next()?,
            p50_us: numbers.next()?,
            p99_us: numbers.next()?,
            errors: numbers.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_script_is_read() {
        let text = "Running 1s test\n  188 requests in 1.01s\nLOAD 188 1007400 845 3597 2\n";
        let answers = Answers { requests: 188, duration_us: 1_007_400, p50_us: 845, p99_us: 3_597, errors: 2 };
        assert_eq!(Answers::parse(text), Some(answers));
    }

    #[test]
    fn a_missing_or_short_line_is_refused() {
        assert_eq!(Answers::parse("188 requests in 1.01s\n"), None);
        assert_eq!(Answers::parse("LOAD 188 1007400\n"), None);
    }
}
