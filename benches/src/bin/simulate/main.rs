//! `simulate`: one bursty trace through three ways to admit, on a virtual clock. The same seed gives the same figures, anywhere.
//!
//! - [`random`], [`trace`]: what comes
//! - [`discipline`]: a plain FIFO, the breaker of the resource-aware Knative fork, and the box's own code
//! - [`mod@replay`]: the clock; [`report`]: the table

#![allow(clippy::print_stdout, reason = "its table goes to stdout")]

mod discipline;
mod random;
mod replay;
mod report;
mod trace;

use clap::Parser;
use wasmbox::admission::Capacity;

use crate::{
    discipline::Kind,
    replay::{Machine, replay},
    report::Summary,
    trace::{Class, SECOND},
};

/// Replays a bursty trace through a plain FIFO, the fork's breaker and WasmBox's admission, and shows who waited how long.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
struct Cli {
    /// Another seed is another trace
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Length of the trace, in simulated seconds
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    seconds: u32,
}

/// The fork's default capacity and depth; 12 cores in use close its gate, and ours.
const MACHINE: Machine = Machine {
    capacity: Capacity { units: 8000, depth: 16_000, depth_invocations: 0, invocations: 1000 },
    most_millicores: 12_000,
    patience: 10 * SECOND,
};

fn main() {
    let cli = Cli::parse();
    let requests = trace::trace(&trace::streams(), cli.seed, f64::from(cli.seconds));
    let wanted: u128 = requests.iter().map(|request| u128::from(request.units) * u128::from(request.runs)).sum();
    let whole = u128::from(MACHINE.capacity.units) * u128::from(cli.seconds) * u128::from(SECOND);
    println!(
        "seed {}, {} s, {} requests, which want {:.0} % of the capacity",
        cli.seed,
        cli.seconds,
        requests.len(),
        100.0 * wanted as f64 / whole as f64
    );
    println!();
    println!("{}", report::HEAD);
    println!("{}", report::RULE);
    for kind in Kind::ALL {
        let outcome = replay(MACHINE, &requests, &mut *kind.discipline(MACHINE.capacity, &requests, cli.seed));
        for class in Class::ALL {
            println!("{}", report::row(kind, class, &Summary::of(class, &requests, &outcome), outcome.utilisation));
        }
    }
}

#[cfg(test)]
mod tests;
