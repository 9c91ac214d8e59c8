//! Instances that serve several requests at once, as the function's author has asked: who may join one, and who is in it.
//!
//! Such an instance is an invocation of its own, the carrier, which has the permit, the account of memory, the CPU quota and the worker. Its
//! requests have what is theirs alone: their replies, records, deadlines, and clients who may leave. A request joins a carrier that has a place for it,
//! or is admitted, and then has a carrier made for it. What is in it is driven by [`super::shared`].
//!
//! - [`places`]: how many requests there may be; [`arrival`]: one that waits for a place; [`carried_request`]: one that is in it
//! - [`abortable`]: an answer that ends before its guest does; [`last_one`]: when nobody waits for any answer; [`guard`]: what makes it run

mod abortable;
mod arrival;
mod carried_request;
mod guard;
mod last_one;
mod places;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, futures::Notified, oneshot};

pub use self::arrival::Joined;
pub(super) use self::carried_request::CarriedRequest;
pub use self::carried_request::{Joining, Observer};
pub use self::guard::CarrierGuard;
use self::{
    arrival::{Arrival, Waiting},
    last_one::LastOne,
    places::Places,
};
use crate::{
    exchange::request_body::RequestBody,
    invocation::{CancelReason, CancelToken},
    limits::Limits,
    threads,
};

/// How long a request waits for an instance to take it: one that computes does not. Its thread may have to wait for a core, too.
const PATIENCE: Duration = Duration::from_millis(50);

/// The carriers of one version of a function.
pub struct Carriers {
    /// The most requests at once in each.
    at_once: NonZeroU32,
    /// Those that may take further requests.
    open: Mutex<Vec<Arc<Carrier>>>,
    room: Notify,
}

/// One instance, and the requests in it.
pub struct Carrier {
    family: Arc<Carriers>,
    limits: Limits,
    /// Its own deadline. Whose deadline is later does not join.
    until: Instant,
    /// Ends it, with all who are in it.
    cancel: CancelToken,
    /// What others hold for as long as its permit is needed: for an answer that has no other account.
    pub(super) permit: Arc<dyn Send + Sync>,
    /// Woken when somebody joins.
    waker: AtomicWaker,
    state: Mutex<State>,
}

struct State {
    places: Places,
    /// Whether its tasks wait, so that it would take a request at once.
    is_receptive: bool,
    /// Whom it was made for, as long as it has not begun.
    first: Option<Entering>,
    arrived: VecDeque<Box<Arrival>>,
    tickets: u64,
    present: Vec<Arc<CarriedRequest>>,
    /// The latest deadline of those who have been in it.
    latest: Instant,
    /// Its CPU time when that was divided last.
    divided: Duration,
}

/// One that is in it from now on, with what its guest is called with.
type Entering = (Arc<CarriedRequest>, http::Request<RequestBody>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Carriers {
    pub fn new(at_once: NonZeroU32) -> Arc<Carriers> {
        Arc::new(Carriers { at_once, open: Mutex::default(), room: Notify::new() })
    }

    /// Ready when a place has become free since this was enabled; then another one may have taken it already.
    pub fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// A place that has become free is not for whoever was told: somebody else who waits may have it. Ready when it is time to look for another one.
    pub async fn pass_room_on(&self) {
        self.room.notify_one();
        tokio::time::sleep(PATIENCE).await;
    }

    /// Has a request with `limits` join an instance, if one takes it.
    pub async fn join(&self, joining: Box<Joining>, limits: &Limits) -> Joined {
        let (back, mut returned) = oneshot::channel();
        let waiting = match self.offer(Box::new(Arrival { ticket: 0, joining, back }), limits) {
            (Ok(waiting), _) => waiting,
            (Err(arrival), is_unlike) => {
                return if is_unlike { Joined::Unlike(arrival.joining) } else { Joined::Full(arrival.joining) };
            }
        };
        waiting.carrier.waker.wake();
        let joining = match tokio::time::timeout(PATIENCE, &mut returned).await {
            Ok(returned) => returned.ok(),
            Err(_) => match waiting.withdraw() {
                // It is in, or is given back, at this moment.
                None => returned.await.ok(),
                joining => joining,
            },
        };
        joining.map_or(Joined::Yes, Joined::Full)
    }

    /// Where it waits to be taken, or it again; and whether there was a place that it may not have.
    fn offer(&self, mut arrival: Box<Arrival>, limits: &Limits) -> (Result<Waiting, Box<Arrival>>, bool) {
        let mut is_unlike = false;
        for carrier in &*lock(&self.open) {
            if *limits != carrier.limits || arrival.joining.deadline > carrier.until {
                is_unlike |= carrier.takes_somebody();
                continue;
            }
            match carrier.offer(arrival) {
                Ok(ticket) => return (Ok(Waiting { carrier: carrier.clone(), ticket }), false),
                Err(same) => arrival = same,
            }
        }
        (Err(arrival), is_unlike)
    }

    /// A carrier for `joining`, which has been admitted; `cancel` ends it.
    pub fn carry(
        self: &Arc<Self>,
        joining: Joining,
        limits: Limits,
        until: Instant,
        cancel: CancelToken,
        permit: Arc<dyn Send + Sync>,
    ) -> CarrierGuard {
        let (carried, request) = CarriedRequest::new(joining, true);
        let carried = Arc::new(carried);
        let state = State {
            places: Places::with_one(self.at_once, 1),
            is_receptive: false,
            first: Some((carried.clone(), request)),
            arrived: VecDeque::new(),
            tickets: 0,
            present: vec![carried.clone()],
            latest: carried.deadline,
            divided: Duration::ZERO,
        };
        let carrier = Arc::new(Carrier {
            family: self.clone(),
            limits,
            until,
            cancel,
            permit,
            waker: AtomicWaker::new(),
            state: Mutex::new(state),
        });
        carried.tells(LastOne::of(&carrier));
        CarrierGuard(carrier)
    }
}

impl Carrier {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Gives its ticket, or back what has no place here.
    fn offer(&self, mut arrival: Box<Arrival>) -> Result<u64, Box<Arrival>> {
        let mut state = self.state();
        if !state.is_receptive || !state.places.take() {
            return Err(arrival);
        }
        state.tickets += 1;
        arrival.ticket = state.tickets;
        state.arrived.push_back(arrival);
        Ok(state.tickets)
    }

    fn takes_somebody(&self) -> bool {
        let state = self.state();
        state.is_receptive && state.places.is_there_one()
    }

    /// Its thread begins to run it.
    pub(super) fn begin(&self) {
        self.state().divided = threads::cpu_time();
    }

    /// Before anybody joins: its instance may serve so many requests.
    pub(super) fn serves(&self, in_all: u32) {
        self.state().places = Places::with_one(self.family.at_once, in_all);
    }

    /// Its event loop asks for the next request, if there is one. It takes none beside that before all of its tasks wait.
    pub(super) fn next(self: &Arc<Self>) -> Option<Entering> {
        let mut state = self.state();
        if state.first.is_some() || !state.arrived.is_empty() {
            // It is not known how long it computes.
            state.is_receptive = false;
        }
        if let Some(first) = state.first.take() {
            return Some(first);
        }
        // Who has left has taken itself back.
        let Arrival { joining, back, .. } = *state.arrived.pop_front()?;
        state.divide();
        let (carried, request) = CarriedRequest::new(*joining, false);
        let carried = Arc::new(carried);
        state.present.push(carried.clone());
        state.latest = state.latest.max(carried.deadline);
        drop(state);
        carried.tells(LastOne::of(self));
        // Now that it is in.
        drop(back);
        Some((carried, request))
    }

    /// Until when tasks of those who were answered may run.
    pub(super) fn latest(&self) -> Instant {
        self.state().latest
    }

    pub(super) fn cancel(&self, reason: CancelReason) {
        self.cancel.cancel(reason);
    }

    /// Its tasks wait: it takes requests.
    pub(super) fn is_receptive(self: &Arc<Self>) {
        let has_room = {
            let mut state = self.state();
            !std::mem::replace(&mut state.is_receptive, true) && state.places.is_there_one()
        };
        if !has_room {
            return;
        }
        let mut open = lock(&self.family.open);
        if !open.iter().any(|other| Arc::ptr_eq(other, self)) {
            open.push(self.clone());
        }
        drop(open);
        self.family.room.notify_one();
    }

    /// Nobody joins any more.
    pub(super) fn close(&self) {
        let arrived = {
            let mut state = self.state();
            state.places.close();
            std::mem::take(&mut state.arrived)
        };
        lock(&self.family.open).retain(|other| !std::ptr::eq(Arc::as_ptr(other), self));
        for arrival in arrived {
            // If nobody waits it is dropped.
            let _ = arrival.back.send(arrival.joining);
        }
    }

    /// The same, if nobody is in it; whether that is so.
    pub(super) fn close_if_empty(&self) -> bool {
        let is_empty = {
            let mut state = self.state();
            let is_empty = state.present.is_empty() && state.arrived.is_empty();
            if is_empty {
                state.places.close();
            }
            is_empty
        };
        if is_empty {
            self.close();
        }
        is_empty
    }

    /// Who is in it.
    pub(super) fn present(&self) -> Vec<Arc<CarriedRequest>> {
        self.state().present.clone()
    }

    /// Whether it has served one request alone, and no other was ever with it.
    pub(super) fn has_served_one(&self) -> bool {
        self.state().tickets == 0
    }

    /// How many requests it has taken.
    pub(super) fn served(&self) -> u32 {
        self.state().places.served()
    }

    /// `carried` is free; gives the CPU time that was its part. `None` if it was before.
    pub(super) fn free(&self, carried: &CarriedRequest) -> Option<Duration> {
        let mut state = self.state();
        let position = state.present.iter().position(|other| std::ptr::eq(Arc::as_ptr(other), carried))?;
        state.divide();
        state.present.swap_remove(position);
        state.places.free();
        let has_room = state.is_receptive && state.places.is_there_one();
        drop(state);
        if has_room {
            self.family.room.notify_one();
        }
        Some(carried.cpu())
    }

    /// Before whoever drives it waits: woken when somebody joins.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }
}

impl State {
    /// Divides the CPU time since the last time evenly among those who are in it. What was used when nobody was there is for the next one.
    fn divide(&mut self) {
        let (now, count) = (threads::cpu_time(), u32::try_from(self.present.len()).unwrap_or(u32::MAX));
        if count > 0 {
            let part = now.saturating_sub(self.divided) / count;
            self.present.iter().for_each(|carried| carried.add_cpu(part));
            self.divided = now;
        }
    }
}
