//! Admission: how much may run at once. Units are MiB of `Memory-Request`.
//!
//! The permit is the only way to occupy capacity, and dropping it the only way to free it. Who does not get one at once waits: at most
//! `depth` units of them or `depth_invocations`, whichever is more, each until its deadline, and a request that leaves frees its place. The
//! rules:
//!
//! 1. Within a function, first come, first served.
//! 2. Between functions, the one with the fewest units in flight is next; of equals the one whose first waits longest. So each function
//!    that wants more than its part gets the same part of the box, whether its invocations are many or few, short or long: in the long
//!    run this is max-min fairness in units times seconds, and nobody's run time need be known or remembered. What a function did not
//!    use before gives it no credit.
//! 3. The request that is next but does not fit gets a *claim*. While it waits for room, others may start, in the order of rule 2, but only
//!    as many units in all as it wants itself; then none starts before it. So room is not left empty for one that is large, and it is
//!    not starved by many that are small: what passes it delays it by no more than another one of its size. There is one claim at a
//!    time. Without the bound small ones could pass for ever; with none allowed to pass, half a box could be empty for minutes.
//! 4. Who comes when `depth` is reached, by units and by number, is refused, unless another function has much more waiting: then its latest
//!    are, as long as it still has no less waiting than the new one's function (as fair queues in networks drop from the longest flow). Else
//!    who floods a box would have all of its queue, and rule 2 nobody to choose.
//! 5. While a [`Gate`] is closed, nothing starts, except one when nothing runs, so that no box waits for itself. The capacity may be lowered
//!    for a while, with the same exception.
//!
//! Nobody is starved: each claim is met as soon as what runs has ended and what may pass has passed; a function whose own have
//! ended has none in flight, its first becomes the oldest of those, and gets the next claim.
//!
//! - [`state`]: the rules, without clock or task; [`waiting`]: the queues and their orders; [`share`]: units in flight by function
//! - [`gate`]: what closes admission; [`overbooking`]: capacity from memory
//! - here: the same for tasks, with deadlines, metrics, and guards

pub mod gate;
pub mod overbooking;
pub mod share;
pub mod state;
pub mod waiting;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

pub use self::{
    gate::Gate,
    overbooking::OverbookingRatio,
    share::Share,
    state::{Capacity, Refused, Snapshot},
};
use self::{
    state::{AdmissionState, Arrival, Decision},
    waiting::Ticket,
};
use crate::{
    limits::MemoryRequest,
    metrics::{Metrics, gauge},
};

/// Tells a waiting request its decision.
type Tell = oneshot::Sender<Result<Permit, Refused>>;

/// Decides who may run.
pub struct Admission {
    state: Mutex<AdmissionState<Tell>>,
    metrics: Arc<Metrics>,
    /// Notified when the last permit is dropped.
    idle: tokio::sync::Notify,
}

/// The right to run one invocation; held by the worker until it has ended.
pub struct Permit {
    admission: Arc<Admission>,
    share: Arc<Share>,
    units: u64,
    has_waited: bool,
}

impl Permit {
    /// Whether there was no room for it when it came.
    pub fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("units", &self.units).finish_non_exhaustive()
    }
}

/// A waiter's place: frees it when its client left, or its deadline came.
struct Place<'a> {
    admission: &'a Arc<Admission>,
    ticket: Ticket,
}

impl Admission {
    pub fn new(capacity: Capacity, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.admissible_units.set(gauge(capacity.units));
        Arc::new(Admission {
            state: Mutex::new(AdmissionState::new(capacity)),
            metrics,
            idle: tokio::sync::Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState<Tell>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    pub fn snapshot(&self) -> Snapshot {
        self.state().snapshot()
    }

    /// Waits, until `deadline`, for room for `memory` of the function that has `share`.
    ///
    /// # Errors
    /// [`Refused`]: at once, but `QueueTimeout` at the deadline, and `QueueFull` also when others displace it.
    pub async fn admit(
        self: &Arc<Self>,
        share: &Arc<Share>,
        memory: MemoryRequest,
        deadline: Instant,
    ) -> Result<Permit, Refused> {
        let units = memory.mebibytes();
        let mut receiver = None;
        let arrival = {
            let mut state = self.state();
            let arrival = state.arrive(share, units, || {
                let (sender, admitted) = oneshot::channel();
                receiver = Some(admitted);
                sender
            });
            self.show(&state);
            arrival?
        };
        let (place, decisions) = match arrival {
            Arrival::Starts => return Ok(self.permit(share.clone(), units, false)),
            Arrival::Waits { ticket, decisions } => (Place { admission: self, ticket }, decisions),
        };
        self.tell(decisions);
        let admitted = receiver.expect("a request that waits has made its channel");
        let result = tokio::time::timeout_at(deadline.into(), admitted).await;
        drop(place);
        match result {
            Ok(Ok(result)) => result,
            // The sender is dropped only after sending.
            Ok(Err(_)) => Err(Refused::Draining),
            // Perhaps it came between the timeout and leaving the queue; then it is dropped, and free again.
            Err(_) => Err(Refused::QueueTimeout),
        }
    }

    fn permit(self: &Arc<Self>, share: Arc<Share>, units: u64, has_waited: bool) -> Permit {
        self.metrics.admitted.inc();
        Permit { admission: self.clone(), share, units, has_waited }
    }

    /// Changes the state, and tells those whom it concerns.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut AdmissionState<Tell>) -> Vec<Decision<Tell>>) {
        let decisions = {
            let mut state = self.state();
            let decisions = change(&mut state);
            self.show(&state);
            decisions
        };
        self.tell(decisions);
    }

    /// Without the lock: the permit of one who is gone comes back, and is dropped here.
    fn tell(self: &Arc<Self>, decisions: Vec<Decision<Tell>>) {
        for Decision { waiter, share, units, result } in decisions {
            drop(waiter.send(result.map(|()| self.permit(share, units, true))));
        }
    }

    /// Opens or closes a gate. Who waits for it starts at once.
    pub fn set_gate(self: &Arc<Self>, gate: Gate, open: bool) {
        self.metrics.gate_closed.with_label_values(&[gate.name()]).set(i64::from(!open));
        self.change(|state| state.set_gate(gate, open));
    }

    /// Lowers the most units in flight below the capacity, or raises it again; who waits for that starts at once.
    pub fn set_ceiling(self: &Arc<Self>, units: u64) {
        self.metrics.admissible_units.set(gauge(units));
        self.change(|state| state.set_ceiling(units));
    }

    /// Changes what is admitted; who waits for that starts at once, or is refused if it cannot fit any more.
    pub fn set_capacity(self: &Arc<Self>, capacity: Capacity) {
        self.metrics.admissible_units.set(gauge(capacity.units));
        self.change(|state| state.set_capacity(capacity));
    }

    /// Refuses all who wait and all who come.
    pub fn drain(self: &Arc<Self>) {
        self.change(AdmissionState::drain);
    }

    /// Returns when nothing is in flight.
    pub async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn show(&self, state: &AdmissionState<Tell>) {
        let (in_flight, waiting) = (state.units(), state.waiting_units());
        self.metrics.in_flight_units.set(gauge(in_flight));
        self.metrics.queued_units.set(gauge(waiting));
        self.metrics.queued_invocations.set(gauge(state.waiting_invocations()));
        self.metrics.requested_memory_bytes.set(gauge((in_flight + waiting) << 20));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut nobody_runs = false;
        self.admission.change(|state| {
            let decisions = state.release(&self.share, self.units);
            nobody_runs = state.in_flight() == 0;
            decisions
        });
        if nobody_runs {
            self.admission.idle.notify_waiters();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.admission.change(|state| state.leave(self.ticket));
    }
}

#[cfg(test)]
mod tests;
