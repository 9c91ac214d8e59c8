//! Admission: how much may run at once. Units are MiB of `Memory-Request`.
//!
//! First come, first served: a large request at the head is not overtaken by small ones. Waiting is bounded in units and in time, a
//! waiter whose client left frees its place. The permit is the only way to occupy capacity, and dropping it the only way to free it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::{limits::MemoryRequest, metrics::Metrics};

/// What can be short beside the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// CPU in use.
    Cpu,
    /// Memory in use, not just requested.
    Memory,
}

/// Bounds of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The most units in flight.
    pub units: u64,
    /// The most units waiting.
    pub depth: u64,
    /// The most invocations in flight, whatever their units: there is an instance slot and a worker for each.
    pub invocations: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Memory-Request of {requested} MiB is more than the {capacity} MiB this server admits at once")]
    ExceedsCapacity { requested: u64, capacity: u64 },
    #[error("{queued} MiB are waiting already, {requested} MiB more would exceed the depth of {depth} MiB")]
    QueueFull { queued: u64, requested: u64, depth: u64 },
    #[error("no capacity became free before the invocation's deadline")]
    QueueTimeout,
    #[error("the server is shutting down")]
    Draining,
}

/// Decides who may run.
pub struct Admission {
    capacity: Capacity,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    /// Notified when the last permit is dropped.
    idle: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    units: u64,
    waiting: VecDeque<Waiter>,
    waiting_units: u64,
    next_ticket: u64,
    draining: bool,
    /// By [`Gate`]: whether nothing new may start.
    closed: [bool; 2],
}

struct Waiter {
    ticket: u64,
    units: u64,
    admitted: oneshot::Sender<Result<Permit, Refused>>,
}

/// The right to run one invocation; held by the worker until it has ended.
pub struct Permit {
    admission: Arc<Admission>,
    units: u64,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("units", &self.units).finish_non_exhaustive()
    }
}

/// Removes a waiter whose client left, or whose deadline came.
struct Place {
    admission: Arc<Admission>,
    ticket: u64,
}

impl Admission {
    pub fn new(capacity: Capacity, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Admission { capacity, state: Mutex::default(), metrics, idle: tokio::sync::Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// Waits, until `deadline`, for room for `memory`.
    ///
    /// # Errors
    /// [`Refused`], at once except for `QueueTimeout`.
    pub async fn admit(self: &Arc<Self>, memory: MemoryRequest, deadline: Instant) -> Result<Permit, Refused> {
        let units = memory.mebibytes();
        let (place, mut admitted) = {
            let mut state = self.state();
            if state.draining {
                return Err(Refused::Draining);
            }
            if units > self.capacity.units {
                return Err(Refused::ExceedsCapacity { requested: units, capacity: self.capacity.units });
            }
            if state.waiting.is_empty() && self.fits(&state, units) {
                return Ok(self.occupy(&mut state, units));
            }
            let depth = self.capacity.depth;
            if state.waiting_units + units > depth {
                return Err(Refused::QueueFull { queued: state.waiting_units, requested: units, depth });
            }
            let (sender, receiver) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push_back(Waiter { ticket, units, admitted: sender });
            state.waiting_units += units;
            self.show(&state);
            (Place { admission: self.clone(), ticket }, receiver)
        };
        let result = tokio::time::timeout_at(deadline.into(), &mut admitted).await;
        drop(place);
        match result {
            Ok(Ok(result)) => result,
            // The sender is dropped only after sending.
            Ok(Err(_)) => Err(Refused::Draining),
            // Perhaps it came between the timeout and leaving the queue; then it is dropped, and free again.
            Err(_) => Err(Refused::QueueTimeout),
        }
    }

    fn fits(&self, state: &State, units: u64) -> bool {
        state.closed == [false; 2]
            && state.in_flight < self.capacity.invocations
            && state.units + units <= self.capacity.units
    }

    fn occupy(self: &Arc<Self>, state: &mut State, units: u64) -> Permit {
        state.in_flight += 1;
        state.units += units;
        self.show(state);
        Permit { admission: self.clone(), units }
    }

    /// Admits from the head of the queue as long as the head fits.
    fn admit_waiting(self: &Arc<Self>) {
        loop {
            let (waiter, permit) = {
                let mut state = self.state();
                let Some(units) =
                    state.waiting.front().map(|waiter| waiter.units).filter(|units| self.fits(&state, *units))
                else {
                    return;
                };
                let waiter = state.waiting.pop_front().expect("the front was just seen, under the same lock");
                state.waiting_units -= units;
                (waiter, self.occupy(&mut state, units))
            };
            // If the waiter is gone, the permit comes back and is dropped here, without the lock.
            drop(waiter.admitted.send(Ok(permit)));
        }
    }

    /// While a gate is closed, nothing starts.
    pub fn set_gate(self: &Arc<Self>, gate: Gate, open: bool) {
        self.state().closed[gate as usize] = !open;
        if open {
            self.admit_waiting();
        }
    }

    /// Refuses all who wait and all who come.
    pub fn drain(&self) {
        let waiting = {
            let mut state = self.state();
            state.draining = true;
            state.waiting_units = 0;
            let waiting = std::mem::take(&mut state.waiting);
            self.show(&state);
            waiting
        };
        for waiter in waiting {
            let _ = waiter.admitted.send(Err(Refused::Draining));
        }
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

    fn show(&self, state: &State) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.in_flight_units.set(gauge(state.units));
        self.metrics.queued_units.set(gauge(state.waiting_units));
        self.metrics.queued_invocations.set(gauge(state.waiting.len() as u64));
        self.metrics.requested_memory_bytes.set(gauge((state.units + state.waiting_units) << 20));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (nobody_runs, somebody_waits) = {
            let mut state = self.admission.state();
            state.in_flight -= 1;
            state.units -= self.units;
            self.admission.show(&state);
            (state.in_flight == 0, !state.waiting.is_empty())
        };
        if somebody_waits {
            self.admission.admit_waiting();
        } else if nobody_runs {
            self.admission.idle.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_waiting = {
            let mut state = self.admission.state();
            let position = state.waiting.iter().position(|waiter| waiter.ticket == self.ticket);
            let waiter = position.and_then(|position| state.waiting.remove(position));
            if let Some(waiter) = &waiter {
                state.waiting_units -= waiter.units;
                self.admission.show(&state);
            }
            waiter.is_some()
        };
        // The head may have left: the next may fit.
        if was_waiting {
            self.admission.admit_waiting();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mebibytes(units: u64) -> MemoryRequest {
        MemoryRequest::from_bytes(units << 20).unwrap()
    }

    fn admission(units: u64, depth: u64) -> Arc<Admission> {
        Admission::new(Capacity { units, depth, invocations: 100 }, Arc::new(Metrics::new()))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn capacity_depth_and_deadline() {
        let admission = admission(100, 50);
        let first = admission.admit(mebibytes(100), soon()).await.unwrap();
        assert_eq!(
            admission.admit(mebibytes(101), soon()).await.unwrap_err(),
            Refused::ExceedsCapacity { requested: 101, capacity: 100 }
        );
        assert_eq!(
            admission.admit(mebibytes(51), soon()).await.unwrap_err(),
            Refused::QueueFull { queued: 0, requested: 51, depth: 50 }
        );
        assert_eq!(admission.admit(mebibytes(50), Instant::now()).await.unwrap_err(), Refused::QueueTimeout);
        assert_eq!(admission.state().waiting_units, 0);
        drop(first);
        assert_eq!(admission.in_flight(), 0);
    }

    #[tokio::test]
    async fn small_requests_do_not_overtake_a_large_one_and_a_waiter_that_leaves_frees_its_place() {
        let admission = admission(100, 1000);
        let first = admission.admit(mebibytes(60), soon()).await.unwrap();
        let waiting = |units| {
            let admission = admission.clone();
            tokio::spawn(async move { admission.admit(mebibytes(units), soon()).await })
        };
        let large = waiting(80);
        tokio::task::yield_now().await;
        let small = waiting(10);
        tokio::task::yield_now().await;
        assert_eq!(admission.in_flight(), 1, "40 units are free, but the large one is first");
        large.abort();
        let _ = large.await;
        let small = small.await.unwrap().unwrap();
        assert_eq!(admission.in_flight(), 2);
        drop((first, small));
        admission.idle().await;
        let state = admission.state();
        assert_eq!((state.units, state.waiting_units), (0, 0));
    }

    #[tokio::test]
    async fn draining_refuses_waiting_and_new() {
        let admission = admission(10, 1000);
        let running = admission.admit(mebibytes(10), soon()).await.unwrap();
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.admit(mebibytes(10), soon()).await }
        });
        tokio::task::yield_now().await;
        admission.drain();
        assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::Draining);
        assert_eq!(admission.admit(mebibytes(1), soon()).await.unwrap_err(), Refused::Draining);
        drop(running);
        admission.idle().await;
    }
}
