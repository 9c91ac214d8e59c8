//! `wasmbox-bench`: the box side by side with its peers, in one run and under the same load.
//!
//! It measures, and compares with the goals. It does not tune the machine, and does not fail when a goal is missed.
//!
//! - [`cli`]: what to measure
//! - [`fixture`]: programs, modules and directories of a run; [`tool`] builds and installs, [`module`] writes core modules
//! - [`target`]: the servers; [`process`] is one's process, [`connection`] asks one single things, [`hello`] is the ceiling
//! - [`load`]: one run of `wrk`; [`cold`]: the first answer after a start
//! - [`isolation`]: what a cgroup costs an invocation, [`carry`]: what a spent budget costs the next one; [`density`]: memory; [`scale`]: many
//!   functions and connections; [`parts`]: what each part of a request costs alone, which another program measures
//! - [`row`]: one line of the results; [`goal`]: what is expected; [`report`]: tables and JSON; [`plot`]: figures

#![allow(clippy::print_stdout, reason = "its tables go to stdout")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod carry;
mod cli;
mod cold;
mod connection;
mod density;
mod fixture;
mod goal;
mod hello;
mod isolation;
mod load;
mod module;
mod parts;
mod plot;
mod process;
mod report;
mod row;
mod scale;
mod target;
mod tool;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, Inner};
use crate::fixture::Fixture;
use crate::load::Load;
use crate::row::Row;
use crate::target::{Program, Target};

/// Connections that the load has open, one setting after the other.
const CONNECTIONS: [u32; 3] = [1, 16, 64];

/// Pauses between an answer and the next request: none, and long enough that workers, caches and memory go cold.
const GAPS_MS: [u32; 2] = [0, 50];

/// The exit code after ctrl-c, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Inner::Hello { port }) = cli.command {
        hello::serve(port)?;
        return Ok(ExitCode::SUCCESS);
    }
    // On this thread alone: processes that it starts are to end with it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whichever ends first drops the others: with the run end its processes and its directory.
        tokio::select! {
            result = run(&cli) => result.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
        }
    })
}

async fn run(cli: &Cli) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("benches/ is in the workspace")?;
    let output = workspace.join("target/bench");
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;

    let targets = cli.targets();
    let starts = cli.cold_starts();
    let mut programs: Vec<Program> = targets.iter().map(|target| target.program).collect();
    if starts > 0 || cli.isolation() || cli.density() || cli.scale() {
        programs.push(Program::Wasmbox);
    }
    let fixture = Fixture::prepare(&programs, &output, cli.wasmbox.clone(), cli.baseline.clone()).await?;
    if cli.batches() > 0 {
        parts::prepare(&fixture).await?;
    }
    println!("{}", fixture.versions(&programs).await);

    let rounds = loaded(&fixture, &targets, cli.rounds(), cli.seconds()).await?;
    let mut rows = medians(&rounds);
    if starts > 0 {
        rows.extend(cold::measure(&fixture, starts).await?);
    }
    if cli.isolation() {
        rows.extend(isolation::measure(&fixture, cli.rounds(), cli.seconds()).await?);
        rows.extend(carry::measure(cli.pairs())?);
    }
    if cli.density() {
        rows.extend(density::measure(&fixture).await?);
    }
    if cli.scale() {
        rows.extend(scale::measure(&fixture).await?);
    }
    let results = output.join("results.json");
    report::save(&rows, &results)?;
    print!("{}", report::tables(&rows, &rounds));
    println!("\n{}", results.display());
    if cli.batches() > 0 {
        parts::measure(&fixture, cli.batches(), &results).await?;
    }
    if let Some(directory) = &cli.plots {
        println!("{} figures in {}", plot::save(&rows, directory)?, directory.display());
    }
    Ok(())
}

/// `rounds` rounds, each with a row for each load and target, in the same order.
async fn loaded(fixture: &Fixture, targets: &[&Target], rounds: u32, seconds: u32) -> Result<Vec<Vec<Row>>> {
    let loads =
        GAPS_MS.iter().flat_map(|&gap_ms| CONNECTIONS.iter().map(move |&connections| Load { connections, gap_ms }));
    let settings: Vec<(Load, &Target)> =
        loads.flat_map(|load| targets.iter().map(move |&target| (load, target))).collect();
    let mut all = Vec::new();
    for round in 1..=rounds {
        let mut rows = Vec::new();
        for (load, target) in &settings {
            let row = target.measure(fixture, *load, seconds).await?;
            eprintln!("round {round} of {rounds}: {}", report::progress(&row));
            rows.push(row);
        }
        all.push(rows);
    }
    Ok(all)
}

/// A row for each load and target.
fn medians(rounds: &[Vec<Row>]) -> Vec<Row> {
    let settings = rounds.first().map_or(0, Vec::len);
    let of = |index: usize| rounds.iter().filter_map(|rows| rows.get(index).cloned()).collect::<Vec<_>>();
    (0..settings).filter_map(|index| Row::of_rounds(&of(index))).collect()
}
