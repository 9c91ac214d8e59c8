//! The rules of admission: examples of each, and properties that hold whatever comes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index};
use wasmbox::admission::{
    Capacity, Gate, Refused, Share,
    state::{AdmissionState, Arrival, Decision},
    waiting::Ticket,
};

type Name = u32;

/// What is no matter in a test.
const BOUNDS: Capacity = Capacity { units: 100, depth: 1000, depth_invocations: 0, invocations: 1000 };

/// A state beside a plain account of the same.
struct Audited {
    capacity: Capacity,
    state: AdmissionState<Name>,
    functions: Vec<Arc<Share>>,
    running: BTreeMap<Name, Invocation>,
    waiting: BTreeMap<Name, (Invocation, Ticket)>,
    /// Who starts, in this order.
    started: Vec<Name>,
    refused: Vec<(Name, Refused)>,
    closed: [bool; 2],
    draining: bool,
    next: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Invocation {
    function: usize,
    units: u64,
}

impl Audited {
    fn new(capacity: Capacity, functions: usize) -> Audited {
        Audited {
            capacity,
            state: AdmissionState::new(capacity),
            functions: (0..functions).map(|_| Arc::new(Share::new())).collect(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            started: Vec::new(),
            refused: Vec::new(),
            closed: [false; 2],
            draining: false,
            next: 0,
        }
    }

    /// Gives the newcomer's name.
    fn arrive(&mut self, function: usize, units: u64) -> Name {
        let name = self.next;
        self.next += 1;
        let invocation = Invocation { function, units };
        let (may_start, queued, before) = (self.may_start(), self.state.waiting_units(), self.waiting.len());
        match self.state.arrive(&self.functions[function], units, || name) {
            Ok(Arrival::Starts) => {
                assert!(may_start, "a gate is closed");
                self.start(name, invocation);
            }
            Ok(Arrival::Waits { ticket, decisions }) => {
                self.waiting.insert(name, (invocation, ticket));
                self.heed(may_start, decisions);
            }
            Err(refused) => {
                match refused {
                    Refused::Draining => assert!(self.draining),
                    Refused::ExceedsCapacity { .. } => assert!(units > self.capacity.units),
                    Refused::QueueFull { .. } => {
                        assert!(queued + units > self.capacity.depth && before >= self.capacity.depth_invocations);
                    }
                    Refused::QueueTimeout => panic!("there is no clock"),
                }
                self.refused.push((name, refused));
            }
        }
        self.check();
        name
    }

    fn release(&mut self, name: Name) {
        let Invocation { function, units } = self.running.remove(&name).unwrap();
        let may_start = self.may_start();
        let decisions = self.state.release(&self.functions[function], units);
        self.heed(may_start, decisions);
        self.check();
    }

    fn leave(&mut self, name: Name) {
        let may_start = self.may_start();
        let (_, ticket) = self.waiting.remove(&name).unwrap();
        let decisions = self.state.leave(ticket);
        self.heed(may_start, decisions);
        assert!(self.state.leave(ticket).is_empty(), "twice is once");
        self.check();
    }

    fn set_gate(&mut self, gate: Gate, open: bool) {
        self.closed[gate as usize] = !open;
        let may_start = self.may_start();
        let decisions = self.state.set_gate(gate, open);
        self.heed(may_start, decisions);
        self.check();
    }

    fn drain(&mut self) {
        self.draining = true;
        let decisions = self.state.drain();
        self.heed(false, decisions);
        assert!(self.waiting.is_empty(), "all who wait are refused");
        self.check();
    }

    fn may_start(&self) -> bool {
        self.closed == [false; 2] || self.running.is_empty()
    }

    fn heed(&mut self, may_start: bool, decisions: Vec<Decision<Name>>) {
        let starts = decisions.iter().filter(|decision| decision.result.is_ok()).count();
        assert!(starts == 0 || may_start, "a gate is closed");
        assert!(starts <= 1 || self.closed == [false; 2], "one may pass a closed gate, not {starts}");
        for decision in decisions {
            let (invocation, _) = self.waiting.remove(&decision.waiter).expect("a decision for somebody who waits");
            assert_eq!(invocation.units, decision.units);
            assert!(Arc::ptr_eq(&self.functions[invocation.function], &decision.share));
            match decision.result {
                Ok(()) => self.start(decision.waiter, invocation),
                Err(refused) => self.refused.push((decision.waiter, refused)),
            }
        }
    }

    fn start(&mut self, name: Name, invocation: Invocation) {
        let mut earlier = self.waiting.range(..name).map(|(_, (other, _))| other.function);
        assert!(!earlier.any(|function| function == invocation.function), "first come, first served within a function");
        self.running.insert(name, invocation);
        self.started.push(name);
    }

    /// The first of each function, by its units.
    fn heads(&self) -> BTreeMap<usize, u64> {
        // In reverse, so that the first is the last to be inserted.
        self.waiting.values().rev().map(|(waiter, _)| (waiter.function, waiter.units)).collect()
    }

    /// What holds after each change.
    fn check(&self) {
        let sum = |function: Option<usize>| {
            let mine = |of: usize| function.is_none_or(|function| function == of);
            self.running.values().filter(|one| mine(one.function)).map(|one| one.units).sum::<u64>()
        };
        let waiting: u64 = self.waiting.values().map(|(one, _)| one.units).sum();
        let snapshot = self.state.snapshot();
        assert_eq!(snapshot.in_flight_invocations, self.running.len());
        assert_eq!(snapshot.in_flight_units, sum(None));
        assert_eq!(snapshot.waiting_invocations, self.waiting.len());
        assert_eq!(snapshot.waiting_units, waiting);
        for (function, share) in self.functions.iter().enumerate() {
            assert_eq!(share.units(), sum(Some(function)));
        }
        assert!(snapshot.in_flight_units <= self.capacity.units);
        assert!(snapshot.in_flight_invocations <= self.capacity.invocations);
        assert!(waiting <= self.capacity.depth || self.waiting.len() <= self.capacity.depth_invocations);
        assert!(self.waiting.is_empty() || !self.running.is_empty(), "nobody waits for nothing");
        let fits = |units: &u64| {
            snapshot.in_flight_units + units <= self.capacity.units
                && snapshot.in_flight_invocations < self.capacity.invocations
        };
        let all_fit = !self.waiting.is_empty() && self.heads().values().all(fits);
        assert!(!(all_fit && self.may_start()), "whoever is next fits, and waits");
    }
}

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

fn server(units: u64, depth: u64) -> Audited {
    Audited::new(Capacity { units, depth, ..BOUNDS }, 4)
}

#[test]
fn the_function_with_the_fewest_units_in_flight_is_next() {
    let mut server = server(100, 1000);
    let flood: Vec<Name> = (0..10).map(|_| server.arrive(0, 25)).collect();
    let quiet = server.arrive(1, 25);
    let quiet_again = server.arrive(1, 25);
    server.release(flood[0]);
    assert_eq!(server.started.last(), Some(&quiet), "it has none in flight");
    server.release(flood[1]);
    assert_eq!(server.started.last(), Some(&flood[4]), "it had the claim, which was used up");
    server.release(flood[2]);
    assert_eq!(server.started.last(), Some(&quiet_again), "25 units against 50");
}

#[test]
fn room_for_several_is_divided() {
    let mut server = server(100, 1000);
    let running = server.arrive(2, 100);
    let first: Vec<Name> = (0..4).map(|_| server.arrive(0, 25)).collect();
    let second: Vec<Name> = (0..4).map(|_| server.arrive(1, 25)).collect();
    server.release(running);
    assert_eq!(server.started[1..], [first[0], second[0], first[1], second[1]]);
}

#[test]
fn a_claim_is_met_however_many_come_before_it_in_turn() {
    let mut server = Audited::new(Capacity { units: 100, depth: 10_000, ..BOUNDS }, 102);
    server.arrive(0, 10);
    let running = server.arrive(1, 85);
    let claimed = server.arrive(0, 10);
    // Each has nothing in flight, and is more than may pass.
    (2..102).for_each(|function| {
        server.arrive(function, 20);
    });
    server.release(running);
    assert_eq!(server.started[2], claimed);
    assert_eq!(server.running.len(), 6, "then the others");
}

#[test]
fn a_large_one_is_passed_by_its_own_units_and_no_more() {
    let mut server = server(100, 1000);
    let running = server.arrive(0, 60);
    let large = server.arrive(1, 80);
    let passing = server.arrive(2, 40);
    assert_eq!(server.started, [running, passing], "there is room beside the claim");
    server.release(passing);
    let passing = server.arrive(2, 40);
    server.release(passing);
    assert_eq!(server.started, [running, 2, passing], "80 units passed");
    let late = server.arrive(2, 1);
    assert!(server.waiting.contains_key(&late) && server.waiting.contains_key(&large), "40 units are kept for it");
    server.release(running);
    assert_eq!(server.started[3..], [large, late]);
}

#[test]
fn a_claim_ends_with_who_has_it() {
    let mut server = server(100, 1000);
    let running = server.arrive(0, 90);
    let large = server.arrive(1, 11);
    let next = server.arrive(1, 5);
    let last = server.arrive(2, 20);
    server.leave(large);
    assert_eq!(server.started, [running, next]);
    server.release(next);
    server.release(running);
    assert_eq!(server.started, [running, next, last]);
}

#[test]
fn who_floods_the_queue_makes_room_for_others() {
    let mut server = server(10, 40);
    server.arrive(0, 10);
    let flood: Vec<Name> = (0..4).map(|_| server.arrive(0, 10)).collect();
    let full = |requested| Refused::QueueFull { invocations: 4, queued: 40, requested, depth: 40 };
    let another = server.arrive(0, 10);
    assert_eq!(server.refused, [(another, full(10))], "not for its own");
    let quiet = server.arrive(1, 5);
    assert_eq!(server.refused[1..], [(flood[3], full(10))], "its latest goes");
    assert!(server.waiting.contains_key(&quiet));
    server.arrive(1, 10);
    let refused = Refused::QueueFull { invocations: 4, queued: 35, requested: 10, depth: 40 };
    assert_eq!(server.refused[2..], [(flood[2], refused)]);
    let greedy = server.arrive(1, 10);
    assert_eq!(
        server.refused[3..],
        [(greedy, refused)],
        "20 of one and 15 of the other wait: no more than a like part"
    );
}

#[test]
fn the_number_of_invocations_is_bounded_too() {
    let mut server = Audited::new(Capacity { units: 100, depth: 100, invocations: 2, ..BOUNDS }, 4);
    let first = server.arrive(0, 1);
    server.arrive(1, 1);
    let third = server.arrive(2, 1);
    assert_eq!(server.running.len(), 2);
    server.release(first);
    assert!(server.running.contains_key(&third));
}

#[test]
fn so_many_wait_whatever_their_units() {
    let mut server = Audited::new(Capacity { units: 100, depth: 20, depth_invocations: 3, ..BOUNDS }, 4);
    let running = server.arrive(0, 100);
    let flood: Vec<Name> = (0..3).map(|_| server.arrive(0, 50)).collect();
    let full = |requested| Refused::QueueFull { invocations: 3, queued: 150, requested, depth: 20 };
    let another = server.arrive(0, 1);
    assert_eq!(server.refused, [(another, full(1))], "three wait, with more units than the depth");
    let quiet = server.arrive(1, 20);
    assert_eq!(server.refused[1..], [(flood[2], full(50))], "one goes for one");
    assert!(server.waiting.contains_key(&quiet));
    server.release(running);
    assert_eq!(server.started[1..], [flood[0], quiet], "50 units beside 20; the next 50 do not fit");
    (0..5).for_each(|_| {
        server.arrive(2, 40);
    });
    assert_eq!((server.waiting.len(), server.refused.len()), (3, 5), "two of them wait beside one");
}
