//! What holds whatever comes, for random sequences of arrivals, ends, departures and gates.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};
use wasmbox::admission::{Capacity, Gate};

use super::{BOUNDS, Name, audited::Audited};

#[derive(Debug, Clone)]
enum Step {
    Arrive { function: usize, units: u64 },
    Release(Index),
    Leave(Index),
    Gate { memory: bool, open: bool },
    Drain,
}

const FUNCTIONS: usize = 24;

fn capacity() -> impl Strategy<Value = Capacity> {
    (1_u64..100, 0_u64..300, prop_oneof![Just(0), 0_usize..20], 1_usize..20).prop_map(
        |(units, depth, depth_invocations, invocations)| Capacity { units, depth, depth_invocations, invocations },
    )
}

/// Mostly small, sometimes large, and sometimes of a function that floods.
fn arrival() -> impl Strategy<Value = Step> {
    let function = prop_oneof![Just(0), 0..FUNCTIONS];
    let units = prop_oneof![4 => 1_u64..10, 1 => 1_u64..110];
    (function, units).prop_map(|(function, units)| Step::Arrive { function, units })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        200 => arrival(),
        150 => any::<Index>().prop_map(Step::Release),
        40 => any::<Index>().prop_map(Step::Leave),
        20 => (any::<bool>(), any::<bool>()).prop_map(|(memory, open)| Step::Gate { memory, open }),
        1 => Just(Step::Drain),
    ]
}

fn key<V>(map: &BTreeMap<Name, V>, index: &Index) -> Option<Name> {
    (!map.is_empty()).then(|| *map.keys().nth(index.index(map.len())).unwrap())
}

fn take(steps: Vec<Step>, server: &mut Audited) {
    for step in steps {
        match step {
            Step::Arrive { function, units } => {
                server.arrive(function, units);
            }
            Step::Release(index) => {
                if let Some(name) = key(&server.running, &index) {
                    server.release(name);
                }
            }
            Step::Leave(index) => {
                if let Some(name) = key(&server.waiting, &index) {
                    server.leave(name);
                }
            }
            Step::Gate { memory, open } => server.set_gate(if memory { Gate::Memory } else { Gate::Cpu }, open),
            Step::Drain => server.drain(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Capacity, depth, sums, order within a function, gates: [`Audited::check`] and [`Audited::heed`]. Nobody is forgotten: when what runs
    /// ends and the gates open, everybody has started or been refused.
    #[test]
    fn whatever_comes(capacity in capacity(), steps in vec(step(), 1..300)) {
        let mut server = Audited::new(capacity, FUNCTIONS);
        take(steps, &mut server);
        while let Some(name) = server.running.keys().next().copied() {
            server.release(name);
        }
        assert!(server.waiting.is_empty());
        for gate in Gate::ALL {
            server.set_gate(gate, true);
        }
        assert_eq!(server.state.snapshot().in_flight_units, 0);
        // A drained state refuses; any other takes the largest.
        let last = server.arrive(0, capacity.units);
        assert_eq!(server.running.contains_key(&last), !server.draining);
    }

    /// Whatever goes on coming, as long as what runs ends in some order, whoever waits starts.
    #[test]
    fn nobody_starves(bounds in capacity(), before in vec(arrival(), 1..100), after in vec(arrival(), 1..20), ends in vec(any::<Index>(), 1..20)) {
        // Nobody is displaced.
        let mut server = Audited::new(Capacity { depth: u64::from(u32::MAX), ..bounds }, FUNCTIONS);
        take(before, &mut server);
        let patient: Vec<Name> = server.waiting.keys().copied().collect();
        let waits = |server: &Audited| patient.iter().any(|name| server.waiting.contains_key(name));
        let mut rounds = 0;
        while waits(&server) {
            take(after.clone(), &mut server);
            // Any of the running may end, but each of them does at some time: the oldest in every other step.
            for index in &ends {
                for name in [key(&server.running, index), server.running.keys().next().copied()].into_iter().flatten() {
                    if server.running.contains_key(&name) {
                        server.release(name);
                    }
                }
            }
            rounds += 1;
            assert!(rounds < 2000, "somebody still waits after {rounds} rounds");
        }
    }

    /// From when somebody is next in turn, others start before him with no more units than his own.
    #[test]
    fn what_passes_is_bounded(units in 2_u64..100, share in 1_u64..=100, small in vec(1_u64..20, 200), ends in vec(any::<Index>(), 400)) {
        let large = (units * share).div_ceil(100);
        let mut server = Audited::new(Capacity { units, depth: u64::from(u32::MAX), ..BOUNDS }, 1 + small.len());
        server.arrive(1, units);
        // It is the only one: it is next.
        let name = server.arrive(0, large);
        let mut ends = ends.iter();
        // Each small one is of a function of its own, which has nothing in flight.
        for (number, units) in small.iter().enumerate().filter(|(_, small)| **small <= units) {
            server.arrive(1 + number, *units);
            if server.started.contains(&name) {
                break;
            }
            let end = key(&server.running, ends.next().unwrap()).unwrap();
            server.release(end);
        }
        while !server.started.contains(&name) {
            server.release(*server.running.keys().next().unwrap());
        }
        let passed = server.started.iter().skip(1).take_while(|started| **started != name);
        let passed: u64 = passed.map(|name| small[*name as usize - 2]).sum();
        assert!(passed <= large, "{passed} passed one of {large}");
    }
}
