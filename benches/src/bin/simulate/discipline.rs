//! Three ways to decide who runs: what is compared.

use std::{collections::VecDeque, sync::Arc};

use wasmbox::admission::{
    Capacity, Gate, Share,
    state::{AdmissionState, Arrival, Decision},
    waiting::Ticket,
};

use crate::{random::Random, trace::Request};

/// What becomes of requests, by their places in the trace.
#[derive(Debug, Default)]
pub struct Fate {
    pub start: Vec<usize>,
    pub refused: Vec<usize>,
}

/// Decides who runs. Each change gives the fate of those whom it concerns; who has none waits.
pub trait Discipline {
    fn arrive(&mut self, request: usize) -> Fate;
    fn release(&mut self, request: usize) -> Fate;
    /// One who waits gives up.
    fn leave(&mut self, request: usize) -> Fate;
    fn set_gate(&mut self, open: bool) -> Fate;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fifo,
    Breaker,
    Wasmbox,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Fifo, Kind::Breaker, Kind::Wasmbox];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Fifo => "plain FIFO",
            Kind::Breaker => "the fork's breaker",
            Kind::Wasmbox => "WasmBox",
        }
    }

    pub fn discipline(self, capacity: Capacity, requests: &[Request], seed: u64) -> Box<dyn Discipline + '_> {
        let room = Room { requests, capacity, units: 0, waiting: VecDeque::new(), waiting_units: 0, open: true };
        match self {
            Kind::Fifo => Box::new(Fifo(room)),
            Kind::Breaker => Box::new(Breaker { room, random: Random::new(seed) }),
            Kind::Wasmbox => Box::new(Wasmbox::new(capacity, requests)),
        }
    }
}

/// What the first two have in common.
struct Room<'a> {
    requests: &'a [Request],
    capacity: Capacity,
    units: u64,
    waiting: VecDeque<usize>,
    waiting_units: u64,
    open: bool,
}

impl Room<'_> {
    fn units(&self, request: usize) -> u64 {
        self.requests[request].units
    }

    fn fits(&self, request: usize) -> bool {
        self.open && self.units + self.units(request) <= self.capacity.units
    }

    fn start(&mut self, request: usize) -> usize {
        self.units += self.units(request);
        request
    }

    /// A request that does not start waits, or is refused.
    fn wait(&mut self, request: usize) -> Fate {
        if self.waiting_units + self.units(request) > self.capacity.depth {
            return Fate { refused: vec![request], ..Fate::default() };
        }
        self.waiting_units += self.units(request);
        self.waiting.push_back(request);
        Fate::default()
    }

    /// The one at `place` does not wait any more.
    fn take_out(&mut self, place: usize) {
        if let Some(request) = self.waiting.remove(place) {
            self.waiting_units -= self.units(request);
        }
    }

    fn leave(&mut self, request: usize) {
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == request) {
            self.take_out(place);
        }
    }
}

/// First come, first served, among all functions; a gate that opens is noticed.
struct Fifo<'a>(Room<'a>);

impl Fifo<'_> {
    fn start_waiting(&mut self) -> Fate {
        let mut fate = Fate::default();
        while let Some(first) = self.0.waiting.front().copied().filter(|first| self.0.fits(*first)) {
            self.0.take_out(0);
            fate.start.push(self.0.start(first));
        }
        fate
    }
}

impl Discipline for Fifo<'_> {
    fn arrive(&mut self, request: usize) -> Fate {
        if self.0.waiting.is_empty() && self.0.fits(request) {
            return Fate { start: vec![self.0.start(request)], ..Fate::default() };
        }
        self.0.wait(request)
    }

    fn release(&mut self, request: usize) -> Fate {
        self.0.units -= self.0.units(request);
        self.start_waiting()
    }

    fn leave(&mut self, request: usize) -> Fate {
        self.0.leave(request);
        self.start_waiting()
    }

    fn set_gate(&mut self, open: bool) -> Fate {
        self.0.open = open;
        self.start_waiting()
    }
}

/// The queue-proxy of the resource-aware Knative fork. Who comes and fits starts, past all who wait. Only a release wakes anybody: one,
/// whichever, who goes back to wait if he does not fit or the CPU is busy. When the CPU is free again nobody is told.
struct Breaker<'a> {
    room: Room<'a>,
    random: Random,
}

impl Discipline for Breaker<'_> {
    fn arrive(&mut self, request: usize) -> Fate {
        if self.room.fits(request) {
            return Fate { start: vec![self.room.start(request)], ..Fate::default() };
        }
        self.room.wait(request)
    }

    fn release(&mut self, request: usize) -> Fate {
        self.room.units -= self.room.units(request);
        if self.room.waiting.is_empty() {
            return Fate::default();
        }
        let place = self.random.below(self.room.waiting.len());
        let woken = self.room.waiting[place];
        if !self.room.fits(woken) {
            return Fate::default();
        }
        self.room.take_out(place);
        Fate { start: vec![self.room.start(woken)], ..Fate::default() }
    }

    fn leave(&mut self, request: usize) -> Fate {
        self.room.leave(request);
        Fate::default()
    }

    fn set_gate(&mut self, open: bool) -> Fate {
        self.room.open = open;
        Fate::default()
    }
}

/// The box's own: the code that serves.
struct Wasmbox<'a> {
    requests: &'a [Request],
    state: AdmissionState<usize>,
    shares: Vec<Arc<Share>>,
    /// Of those who wait, by request.
    tickets: Vec<Option<Ticket>>,
}

impl<'a> Wasmbox<'a> {
    fn new(capacity: Capacity, requests: &'a [Request]) -> Self {
        let functions = requests.iter().map(|request| request.function + 1).max().unwrap_or(0);
        Wasmbox {
            requests,
            state: AdmissionState::new(capacity),
            shares: (0..functions).map(|_| Arc::new(Share::new())).collect(),
            tickets: vec![None; requests.len()],
        }
    }
}

fn fate(decisions: Vec<Decision<usize>>) -> Fate {
    let mut fate = Fate::default();
    for Decision { waiter, result, .. } in decisions {
        match result {
            Ok(()) => fate.start.push(waiter),
            Err(_) => fate.refused.push(waiter),
        }
    }
    fate
}

impl Discipline for Wasmbox<'_> {
    fn arrive(&mut self, request: usize) -> Fate {
        let Request { function, units, .. } = self.requests[request];
        match self.state.arrive(&self.shares[function], units, || request) {
            Ok(Arrival::Starts) => Fate { start: vec![request], ..Fate::default() },
            Ok(Arrival::Waits { ticket, decisions }) => {
                self.tickets[request] = Some(ticket);
                fate(decisions)
            }
            Err(_) => Fate { refused: vec![request], ..Fate::default() },
        }
    }

    fn release(&mut self, request: usize) -> Fate {
        let Request { function, units, .. } = self.requests[request];
        fate(self.state.release(&self.shares[function], units))
    }

    fn leave(&mut self, request: usize) -> Fate {
        self.tickets[request].take().map(|ticket| fate(self.state.leave(ticket))).unwrap_or_default()
    }

    fn set_gate(&mut self, open: bool) -> Fate {
        fate(self.state.set_gate(Gate::Cpu, open))
    }
}
