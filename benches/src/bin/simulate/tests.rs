use super::*;
use crate::{
    replay::Outcome,
    trace::{Request, Stream, Time, trace},
};

fn run(kind: Kind, machine: Machine, requests: &[Request]) -> Outcome {
    replay(machine, requests, &mut *kind.discipline(machine.capacity, requests, 1))
}

const SEEDS: u64 = 10;
const LONGEST_RUN: Time = SECOND / 8;

/// Bursts of which most are more than a box of 40 places.
const QUIET: Stream = Stream {
    class: Class::Quiet,
    function: 0,
    bursts_per_second: 1.0,
    burst: (40.0, 120.0),
    units: (100.0, 100.0),
    runs: (0.08, 0.125),
    millicores: 0,
};

/// Five times what the box can run.
const FLOODING: Stream =
    Stream { class: Class::Flooding, function: 1, bursts_per_second: 20.0, burst: (60.0, 400.0), ..QUIET };

const SMALL_BOX: Machine = Machine {
    capacity: Capacity { units: 4000, depth: 200_000, depth_invocations: 0, invocations: 1000 },
    most_millicores: 1,
    patience: 60 * SECOND,
};

/// A box of a part of the size.
fn part(machine: Machine, divisor: u64) -> Machine {
    let whole = machine.capacity;
    Machine { capacity: Capacity { units: whole.units / divisor, ..whole }, ..machine }
}

fn p99(kind: Kind, machine: Machine, requests: &[Request]) -> Time {
    let summary = Summary::of(Class::Quiet, requests, &run(kind, machine, requests));
    assert!(kind != Kind::Wasmbox || summary.refused + summary.timed_out == 0, "who does not flood is not refused");
    summary.percentile(99)
}

/// The flood's requests and those of `quiet`.
fn beside_a_flood(quiet: &[Request], seed: u64) -> Vec<Request> {
    let mut requests = trace(&[FLOODING], seed, 100.0);
    requests.extend(quiet);
    requests.sort_by_key(|request| request.arrives);
    requests
}

/// Two functions, of which one floods: the other's p99 wait is within twice its wait alone, and one run. Twice, since half of the box
/// is its part; one run, since what runs is not interrupted when it comes.
#[test]
fn who_floods_at_most_doubles_the_others_wait() {
    for seed in 0..SEEDS {
        let mut random = random::Random::new(seed);
        // A burst each second, which is over before the next one even with half of the box.
        let burst = |second: Time, random: &mut random::Random| -> Vec<Request> {
            let from = second * SECOND;
            let mut burst = trace(&[Stream { bursts_per_second: 1000.0, ..QUIET }], random.next(), 0.05);
            burst.truncate(40 + random.below(80));
            burst.iter_mut().for_each(|request| request.arrives += from);
            burst
        };
        let quiet: Vec<Request> = (0..100).flat_map(|second| burst(second, &mut random)).collect();
        let beside = beside_a_flood(&quiet, seed);
        let alone = p99(Kind::Wasmbox, SMALL_BOX, &quiet);
        let most = 2 * alone + LONGEST_RUN;
        let (ours, fifo) = (p99(Kind::Wasmbox, SMALL_BOX, &beside), p99(Kind::Fifo, SMALL_BOX, &beside));
        assert!(alone > 0 && ours <= most, "seed {seed}: {ours} us beside a flood, {alone} us alone");
        assert!(fifo > most, "seed {seed}: a FIFO would do, too ({fifo} us)");
    }
}

/// Bursts that come before the last one is over: no later than on half a box that it has for itself, and one run.
#[test]
fn who_floods_takes_no_more_than_its_part() {
    for seed in 0..SEEDS {
        let quiet = trace(&[QUIET], seed, 100.0);
        let half = p99(Kind::Wasmbox, part(SMALL_BOX, 2), &quiet);
        let ours = p99(Kind::Wasmbox, SMALL_BOX, &beside_a_flood(&quiet, seed));
        assert!(ours <= half + LONGEST_RUN, "seed {seed}: {ours} us beside a flood, {half} us alone on half a box");
    }
}

/// What docs/design.md says of the whole trace, for others, too.
#[test]
fn quiet_functions_wait_less_and_are_not_refused_and_the_box_is_as_full() {
    for seed in 0..5 {
        let requests = trace(&trace::streams(), seed, 300.0);
        let [fifo, breaker, ours] = Kind::ALL.map(|kind| run(kind, MACHINE, &requests));
        let quiet = |outcome| Summary::of(Class::Quiet, &requests, outcome);
        let large = |outcome| Summary::of(Class::Large, &requests, outcome);
        for other in [&fifo, &breaker] {
            assert!(2 * quiet(&ours).percentile(99) < quiet(other).percentile(99), "seed {seed}");
            assert!(
                large(&ours).refused + large(&ours).timed_out < large(other).refused + large(other).timed_out,
                "{seed}"
            );
            assert!(ours.utilisation > 0.98 * other.utilisation, "seed {seed}");
        }
        assert_eq!(quiet(&ours).refused + quiet(&ours).timed_out, 0, "seed {seed}");
        assert!(quiet(&fifo).refused > 0 && quiet(&breaker).refused > 0, "seed {seed}: the depth was never reached");
    }
}

/// The fork's fault that the simulation shows: who waits for a gate is not told that it opened.
#[test]
fn only_the_breaker_leaves_who_waits_for_the_gate_waiting() {
    let request = |arrives, runs| Request { arrives, runs, units: 10, millicores: 2, ..flood_request() };
    // The second comes while the first has the CPU, which has ended when the gate opens.
    let requests = [request(0, SECOND), request(SECOND / 2, SECOND)];
    for kind in Kind::ALL {
        let ends = run(kind, SMALL_BOX, &requests).ends;
        let waited = matches!(ends[1], replay::End::Waited(wait) if wait <= SECOND);
        assert_eq!(waited, kind != Kind::Breaker, "{kind:?}: {ends:?}");
    }
}

fn flood_request() -> Request {
    trace(&[FLOODING], 0, 10.0)[0]
}

#[test]
fn the_same_seed_gives_the_same() {
    let trace = |seed| trace(&trace::streams(), seed, 20.0);
    let ends = |seed, kind| run(kind, MACHINE, &trace(seed)).ends;
    for kind in Kind::ALL {
        assert_eq!(ends(3, kind), ends(3, kind));
        assert_ne!(ends(3, kind), ends(4, kind));
    }
}
