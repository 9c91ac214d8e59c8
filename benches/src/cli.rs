//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use crate::cold::COLD;
use crate::density::DENSITY;
use crate::isolation::ISOLATION;
use crate::parts::PARTS;
use crate::scale::SCALE;
use crate::target::{Program, TARGETS, Target};

const HELP: &str = "\
Targets:
  hyper                 a bare hyper HTTP/1.1 hello server, 2 threads: the ceiling
  wasmbox-core          the box, with a trivial core module (a WASI command)
  wasmbox-http          the box, with a trivial wasi:http component
  wasmbox-core-baseline wasmbox-core and wasmbox-http of the box that --baseline
  wasmbox-http-baseline names, such as one built from an earlier commit
  wasmbox-http-reuse    wasmbox-http with instances that serve 128 requests
  wasmbox-core-workers  wasmbox-core with --inline=off: no guest begins on the
                        thread of its connection
  wasmbox-http-workers  wasmbox-http with --inline=off
  wasmtime-serve        `wasmtime serve` of the same component, as it comes
  wasmtime-serve-tuned  the same with its pooling allocator kept warm
  wasmtime-serve-reuse  the same with instances that serve 128 requests
  wasmbox-cold          the box's first answer of a 1 MB module that is in its
                        cache, after each of many starts; its later answers are
                        wasmbox-warm
  isolation             the cost of CPU isolation: wasmbox-core without cgroups
                        (-none), with one for each worker (-pinned), and with a
                        fresh one for each invocation (-fresh); needs root
  density               memory for each loaded function and each idle worker; a
                        thousand invocations that sleep at once
  scale                 10,000 functions that are called now and then, and 20,000
                        connections that do nothing, or as many as there can
                        be descriptors
  parts                 what each part of a request to wasmbox-core, wasmbox-http
                        and wasmbox-cold costs alone, on one thread; beside what
                        those have cost in the same run, if they are in it

Each round starts every target anew, checks its answer, warms it up for a second
and loads it with wrk: 1, 16 and 64 connections, hot and with a gap of 50 ms
between an answer and the next request. The targets take turns, so that noise of
the machine hits all alike. Reported are the medians of the rounds. Compare
figures of one run only.

Examples:
  make bench                               all of it: 20 minutes, and the first
                                           time many more: it installs wasmtime
                                           below target/bench
  wasmbox-bench --quick                    one short round: does it work?
  wasmbox-bench --only hyper,wasmbox-core  two targets
  wasmbox-bench --wasmbox /usr/bin/wasmbox a box that is built already
  wasmbox-bench --baseline /usr/bin/wasmbox --only wasmbox-core,wasmbox-core-baseline
                                           did it get slower?

Results: tables on stdout, and target/bench/results.json.";

/// Measures WasmBox side by side with wasmtime serve and bare hyper.
#[derive(Debug, Parser)]
#[command(name = "wasmbox-bench", version, after_help = HELP, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// One round of 1 second and 3 cold starts: shows that all works, not how fast
    #[arg(long)]
    quick: bool,

    /// Measure these targets only
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(names()))]
    only: Vec<String>,

    /// Rounds, of which the median is reported [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Length of the load of each round, in seconds [default: 3]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,

    /// The box to measure, instead of the one of this workspace
    #[arg(long, value_name = "PATH")]
    pub wasmbox: Option<PathBuf>,

    /// Another box to compare it with, in turns
    #[arg(long, value_name = "PATH")]
    pub baseline: Option<PathBuf>,

    /// Also draw figures of the loads, as SVG, into this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// What the bench starts itself as
    #[command(subcommand)]
    pub command: Option<Inner>,
}

/// What this program is when the bench starts it.
#[derive(Debug, Subcommand)]
pub enum Inner {
    /// The bare hyper server
    #[command(hide = true)]
    Hello {
        /// The port on the loopback interface
        port: u16,
    },
}

impl Cli {
    /// The targets that are measured under load.
    pub fn targets(&self) -> Vec<&'static Target> {
        TARGETS.iter().filter(|target| self.includes(target.name) && self.has(target.program)).collect()
    }

    /// Whether there is a program to start: without `--baseline` there is no other box.
    fn has(&self, program: Program) -> bool {
        program != Program::Baseline || self.baseline.is_some()
    }

    /// How often the box is started for the cold start; 0 when that is not measured.
    pub fn cold_starts(&self) -> u32 {
        match (self.includes(COLD), self.quick) {
            (false, _) => 0,
            (true, true) => 3,
            (true, false) => 15,
        }
    }

    /// Whether the cost of CPU isolation is measured.
    pub fn isolation(&self) -> bool {
        self.includes(ISOLATION)
    }

    /// Pairs of invocations for what the first carries over to the second.
    pub fn pairs(&self) -> u32 {
        if self.quick { 5 } else { 100 }
    }

    /// Whether memory and many invocations at once are measured.
    pub fn density(&self) -> bool {
        self.includes(DENSITY)
    }

    /// Whether many functions and connections are measured.
    pub fn scale(&self) -> bool {
        self.includes(SCALE)
    }

    /// In how many batches the parts of a request are measured; 0 when they are not.
    pub fn batches(&self) -> u32 {
        match (self.includes(PARTS), self.quick) {
            (false, _) => 0,
            (true, true) => 3,
            (true, false) => 15,
        }
    }

    /// Rounds of each target under each load.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Length of the load of each round, in seconds.
    pub fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).chain([COLD, ISOLATION, DENSITY, SCALE, PARTS]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_each_target() {
        for name in names() {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
    }

    #[test]
    fn only_selects() {
        let cli = Cli::parse_from(["wasmbox-bench", "--only", "hyper,wasmbox-http"]);
        let names: Vec<&str> = cli.targets().iter().map(|target| target.name).collect();
        assert_eq!(names, ["hyper", "wasmbox-http"]);
        assert_eq!(cli.cold_starts(), 0);
        assert!(!cli.isolation() && !cli.density());
        assert_eq!(cli.batches(), 0);
        assert!(Cli::parse_from(["wasmbox-bench", "--only", "density"]).density());
        assert!(Cli::try_parse_from(["wasmbox-bench", "--only", "nginx"]).is_err());
    }

    #[test]
    fn the_baseline_is_measured_when_it_is_named() {
        let baselines = |arguments: &[&str]| {
            let cli = Cli::parse_from(["wasmbox-bench"].iter().chain(arguments));
            cli.targets().iter().filter(|target| target.program == Program::Baseline).count()
        };
        assert_eq!(baselines(&[]), 0);
        assert_eq!(baselines(&["--baseline", "/usr/bin/wasmbox"]), 2);
        assert_eq!(baselines(&["--baseline", "/usr/bin/wasmbox", "--only", "wasmbox-core-baseline"]), 1);
    }

    #[test]
    fn quick_is_shorter() {
        let quick = Cli::parse_from(["wasmbox-bench", "--quick"]);
        let full = Cli::parse_from(["wasmbox-bench"]);
        assert!(quick.rounds() * quick.seconds() < full.rounds() * full.seconds());
        assert!(quick.cold_starts() < full.cold_starts());
        assert!(quick.batches() < full.batches());
    }
}
