//! A state of admission that is checked after each step.

use std::{collections::BTreeMap, sync::Arc};

use wasmbox::admission::{
    Capacity, Gate, Refused, Share,
    state::{AdmissionState, Arrival, Decision},
    waiting::Ticket,
};

use super::Name;

/// A state beside a plain account of the same.
pub struct Audited {
    pub capacity: Capacity,
    pub state: AdmissionState<Name>,
    functions: Vec<Arc<Share>>,
    pub running: BTreeMap<Name, Invocation>,
    pub waiting: BTreeMap<Name, (Invocation, Ticket)>,
    /// Who starts, in this order.
    pub started: Vec<Name>,
    pub refused: Vec<(Name, Refused)>,
    closed: [bool; 2],
    pub draining: bool,
    next: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invocation {
    function: usize,
    units: u64,
}

impl Audited {
    pub fn new(capacity: Capacity, functions: usize) -> Audited {
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
    pub fn arrive(&mut self, function: usize, units: u64) -> Name {
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

    pub fn release(&mut self, name: Name) {
        let Invocation { function, units } = self.running.remove(&name).unwrap();
        let may_start = self.may_start();
        let decisions = self.state.release(&self.functions[function], units);
        self.heed(may_start, decisions);
        self.check();
    }

    pub fn leave(&mut self, name: Name) {
        let may_start = self.may_start();
        let (_, ticket) = self.waiting.remove(&name).unwrap();
        let decisions = self.state.leave(ticket);
        self.heed(may_start, decisions);
        assert!(self.state.leave(ticket).is_empty(), "twice is once");
        self.check();
    }

    pub fn set_gate(&mut self, gate: Gate, open: bool) {
        self.closed[gate as usize] = !open;
        let may_start = self.may_start();
        let decisions = self.state.set_gate(gate, open);
        self.heed(may_start, decisions);
        self.check();
    }

    pub fn drain(&mut self) {
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
