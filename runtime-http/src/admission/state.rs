//! The rules of admission: who runs, who waits, who is next. Without a clock, a lock or a task, so that tests and the simulation run what
//! serves. After each change nobody waits who might run: the change's decisions say who starts by it.

use std::sync::Arc;

use super::{
    gate::{ClosedGates, Gate},
    share::Share,
    waiting::{Excess, Ticket, Waiter, Waiting},
};

/// Bounds of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// The most units in flight.
    pub units: u64,
    /// The most units waiting.
    pub depth: u64,
    /// So many invocations may wait even if their units exceed the depth.
    pub depth_invocations: usize,
    /// The most invocations in flight, whatever their units: there is an instance slot and a worker for each.
    pub invocations: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Memory-Request of {requested} MiB is more than the {capacity} MiB this server admits at once")]
    ExceedsCapacity { requested: u64, capacity: u64 },
    #[error(
        "{invocations} invocations with {queued} MiB are waiting already, {requested} MiB more would exceed the depth of {depth} MiB"
    )]
    QueueFull { invocations: usize, queued: u64, requested: u64, depth: u64 },
    #[error("no capacity became free before the invocation's deadline")]
    QueueTimeout,
    #[error("the server is shutting down")]
    Draining,
}

/// What becomes of a request that was not refused.
#[derive(Debug)]
pub enum Arrival<W> {
    /// It runs, until [`AdmissionState::release`].
    Starts,
    /// It waits, until a decision or [`AdmissionState::leave`].
    Waits { ticket: Ticket, decisions: Vec<Decision<W>> },
}

/// What became of a request that waited.
#[derive(Debug)]
#[must_use = "who is not told waits for ever"]
pub struct Decision<W> {
    pub waiter: W,
    pub share: Arc<Share>,
    pub units: u64,
    /// It runs, until [`AdmissionState::release`]; or does not.
    pub result: Result<(), Refused>,
}

/// The state of admission at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    pub in_flight_invocations: usize,
    pub in_flight_units: u64,
    pub waiting_invocations: usize,
    pub waiting_units: u64,
    pub closed_gates: Vec<Gate>,
    pub draining: bool,
    pub capacity: Capacity,
}

/// Who runs and who waits. `W` is what identifies a request that waits.
#[derive(Debug)]
pub struct AdmissionState<W> {
    capacity: Capacity,
    /// The most units in flight for now; at most `capacity.units`.
    ceiling: u64,
    in_flight: usize,
    units: u64,
    waiting: Waiting<W>,
    /// There is one when a request waits and no gate is closed.
    claim: Option<Claim>,
    closed: ClosedGates,
    draining: bool,
}

/// Held by the request that was first in turn and did not fit, until it starts or leaves.
#[derive(Debug)]
struct Claim {
    ticket: Ticket,
    units: u64,
    /// Units that may still start before it; at first its own.
    spare: u64,
}

/// How many functions' heads are looked at for one that fits beside the claim.
const LOOK_AHEAD: usize = 16;

impl<W> AdmissionState<W> {
    pub fn new(capacity: Capacity) -> Self {
        AdmissionState {
            capacity,
            ceiling: capacity.units,
            in_flight: 0,
            units: 0,
            waiting: Waiting::new(),
            claim: None,
            closed: ClosedGates::default(),
            draining: false,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn units(&self) -> u64 {
        self.units
    }

    pub fn waiting_units(&self) -> u64 {
        self.waiting.units()
    }

    pub fn waiting_invocations(&self) -> usize {
        self.waiting.invocations()
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            in_flight_invocations: self.in_flight,
            in_flight_units: self.units,
            waiting_invocations: self.waiting.invocations(),
            waiting_units: self.waiting.units(),
            closed_gates: self.closed.iter().collect(),
            draining: self.draining,
            capacity: self.capacity,
        }
    }

    /// A request comes that wants `units` for the function of `share`. `waiter` is called only if it must wait.
    ///
    /// # Errors
    /// [`Refused`], but never `QueueTimeout`: there is no clock here.
    pub fn arrive(
        &mut self,
        share: &Arc<Share>,
        units: u64,
        waiter: impl FnOnce() -> W,
    ) -> Result<Arrival<W>, Refused> {
        if self.draining {
            return Err(Refused::Draining);
        }
        if units > self.capacity.units {
            return Err(Refused::ExceedsCapacity { requested: units, capacity: self.capacity.units });
        }
        if self.may_start_now(share, units) {
            self.claim.iter_mut().for_each(|claim| claim.spare -= units);
            self.occupy(share, units);
            return Ok(Arrival::Starts);
        }
        let mut decisions = self.make_room(share, units)?;
        let ticket = self.waiting.push(Waiter { share: share.clone(), units, waiter: waiter() });
        decisions.extend(self.start_waiting());
        Ok(Arrival::Waits { ticket, decisions })
    }

    /// Whether a request that comes starts before all that wait. None of them might start now.
    fn may_start_now(&self, share: &Share, units: u64) -> bool {
        let passes = match &self.claim {
            None => self.waiting.is_empty(),
            Some(claim) => units <= claim.spare && !self.waiting.has(share),
        };
        passes && self.is_open() && self.fits(units)
    }

    /// Makes one of `units` of `share` fit into the depth: by its units, or by the number of those who wait.
    fn make_room(&mut self, share: &Share, units: u64) -> Result<Vec<Decision<W>>, Refused> {
        let (invocations, queued, depth) = (self.waiting.invocations(), self.waiting.units(), self.capacity.depth);
        let full = |requested| Refused::QueueFull { invocations, queued, requested, depth };
        let excess = Excess {
            units: (queued + units).saturating_sub(depth),
            invocations: (invocations + 1).saturating_sub(self.capacity.depth_invocations),
        };
        if excess.is_gone_after(0, 0) {
            return Ok(Vec::new());
        }
        let displaced = self.waiting.displaced_by(share, units, excess).ok_or(full(units))?;
        let waiters = displaced.into_iter().filter_map(|ticket| self.waiting.remove(ticket));
        let refused = |waiter: Waiter<W>| {
            let full = full(waiter.units);
            waiter.refused(full)
        };
        Ok(waiters.map(refused).collect())
    }

    /// A request has run.
    pub fn release(&mut self, share: &Share, units: u64) -> Vec<Decision<W>> {
        self.in_flight -= 1;
        self.units -= units;
        share.give_back(units);
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting.reorder(share.id());
        self.start_waiting()
    }

    /// A request does not wait any more. Nothing happens if its decision was made before.
    pub fn leave(&mut self, ticket: Ticket) -> Vec<Decision<W>> {
        if self.waiting.remove(ticket).is_none() {
            return Vec::new();
        }
        self.claim.take_if(|claim| claim.ticket == ticket);
        self.start_waiting()
    }

    pub fn set_gate(&mut self, gate: Gate, open: bool) -> Vec<Decision<W>> {
        self.closed.set(gate, open);
        self.start_waiting()
    }

    /// Lowers what may be in flight below the capacity, or raises it again. What is in flight stays.
    pub fn set_ceiling(&mut self, units: u64) -> Vec<Decision<W>> {
        self.ceiling = units.min(self.capacity.units);
        self.start_waiting()
    }

    /// Changes what may be in flight and wait. What is in flight stays, and so does who waits and still fits; the others would wait for ever.
    pub fn set_capacity(&mut self, capacity: Capacity) -> Vec<Decision<W>> {
        self.capacity = capacity;
        self.ceiling = capacity.units;
        let excess = |requested| Refused::ExceedsCapacity { requested, capacity: capacity.units };
        let too_large = self.waiting.larger_than(capacity.units).into_iter();
        let mut decisions: Vec<_> = too_large
            .filter_map(|ticket| {
                self.claim.take_if(|claim| claim.ticket == ticket);
                self.waiting.remove(ticket)
            })
            .map(|waiter| {
                let refused = excess(waiter.units);
                waiter.refused(refused)
            })
            .collect();
        decisions.extend(self.start_waiting());
        decisions
    }

    /// Refuses all who wait and all who come.
    pub fn drain(&mut self) -> Vec<Decision<W>> {
        self.draining = true;
        self.claim = None;
        self.waiting.take_all().map(|waiter| waiter.refused(Refused::Draining)).collect()
    }

    /// Closed gates let one through when nothing runs: waiting for the end of nothing would last for ever.
    fn is_open(&self) -> bool {
        self.closed.is_empty() || self.in_flight == 0
    }

    /// A lowered ceiling lets one through, too, when nothing runs.
    fn fits(&self, units: u64) -> bool {
        let is_room = self.in_flight == 0 || self.units + units <= self.ceiling;
        is_room && self.in_flight < self.capacity.invocations
    }

    fn occupy(&mut self, share: &Share, units: u64) {
        self.in_flight += 1;
        self.units += units;
        share.take(units);
    }

    fn start_waiting(&mut self) -> Vec<Decision<W>> {
        let mut decisions = Vec::new();
        while let Some(waiter) = self.next() {
            self.occupy(&waiter.share, waiter.units);
            self.waiting.reorder(waiter.share.id());
            decisions.push(Decision {
                waiter: waiter.waiter,
                share: waiter.share,
                units: waiter.units,
                result: Ok(()),
            });
        }
        decisions
    }

    /// Takes out who starts next: the first in turn who fits, and whom the claim lets pass.
    fn next(&mut self) -> Option<Waiter<W>> {
        if !self.is_open() {
            return None;
        }
        let (first, units) = self.waiting.heads().next()?;
        if self.claim.is_none() && !self.fits(units) {
            self.claim = Some(Claim { ticket: first, units, spare: units });
        }
        let passes = |ticket, units| {
            self.claim.as_ref().is_none_or(|claim| claim.ticket == ticket || units <= claim.spare) && self.fits(units)
        };
        // Who has the claim may be further back by now: others have fewer units in flight.
        let claimed = self.claim.iter().map(|claim| (claim.ticket, claim.units));
        let candidates = self.waiting.heads().take(LOOK_AHEAD).chain(claimed);
        let (ticket, units) = { candidates }.find(|(ticket, units)| passes(*ticket, *units))?;
        match &mut self.claim {
            Some(claim) if claim.ticket != ticket => claim.spare -= units,
            claim => *claim = None,
        }
        self.waiting.remove(ticket)
    }
}
