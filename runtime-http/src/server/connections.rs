//! All connections of a port: how many there may be, and which ones make room for others.
//!
//! Only a full port looks at addresses. While clients of several of them are connected, none keeps more than its part of the places
//! from the others. Behind a proxy all have one address; then the idle ones make room.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{
    activity::{Activity, Idle},
    patience::Order,
};
use crate::exchange::budget::{Budgets, ClientBudgets};

/// How often a full port looks for an idle connection.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection has at least been idle when it makes room: the head of a new one, or the next piece of a body, may be on its way.
const MOMENT: Duration = Duration::from_millis(250);

/// How many idle connections make room at once: one in so many. Who has thousands wait to be accepted would else have all others wait behind them.
const BATCH: usize = 16;

/// The open connections.
pub struct Connections {
    most: usize,
    budgets: Budgets,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
    next: AtomicU64,
    gauge: IntGauge,
    pub tasks: TaskTracker,
}

#[derive(Default)]
struct Open {
    by_key: HashMap<u64, (IpAddr, Arc<Activity>)>,
    /// Each client's address of which there are some.
    by_peer: HashMap<IpAddr, Peer>,
}

struct Peer {
    connections: usize,
    budgets: Arc<ClientBudgets>,
}

/// A client's address; of IPv6 what one client may choose of it is left out.
fn peer(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// A connection's place among the others, until it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    key: u64,
    peer: IpAddr,
    pub activity: Arc<Activity>,
    /// Of the client, while it has any connection. What it holds longer than that is missing in what is free, and so for itself, too.
    pub budgets: Arc<ClientBudgets>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// As many as `budgets` has room for, whose clients share them.
    pub fn new(budgets: Budgets, gauge: IntGauge) -> Arc<Connections> {
        let most = budgets.connections;
        Arc::new(Connections {
            most,
            budgets,
            places: Arc::new(Semaphore::new(most)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            gauge,
            tasks: TaskTracker::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `client` that was accepted. If there is none, those that have been idle for longest are closed: first those
    /// that have their answer and still send a body, then those that never sent a request, then those between requests, then those that send
    /// nothing of their bodies. While all are busy, this waits; but `None` if connections of other clients are there and this client's have their part of the places already.
    pub async fn place(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let peer = peer(client);
        let permit = loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                break permit;
            }
            if !self.make_room(peer, MOMENT) {
                return None;
            }
            if let Ok(permit) = tokio::time::timeout(LOOK, self.places.clone().acquire_owned()).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let (key, activity) = (self.next.fetch_add(1, Ordering::Relaxed), Activity::new());
        let mut open = self.open();
        open.by_key.insert(key, (peer, activity.clone()));
        let new = || Peer { connections: 0, budgets: self.budgets.client() };
        let of_peer = open.by_peer.entry(peer).or_insert_with(new);
        of_peer.connections += 1;
        let budgets = of_peer.budgets.clone();
        drop(open);
        self.gauge.inc();
        Some(Place { connections: self.clone(), key, peer, activity, budgets, _permit: permit })
    }

    /// Closes connections, if there are any to close, for one of `newcomer`. Whether that one may wait for it.
    fn make_room(&self, newcomer: IpAddr, at_least: Duration) -> bool {
        let open = self.open();
        let own = open.by_peer.get(&newcomer).map_or(0, |peer| peer.connections);
        let peers = open.by_peer.len() + usize::from(own == 0);
        if peers == 1 {
            open.close_longest_idle(self.most / BATCH, at_least, |_| true);
            return true;
        }
        let part = (self.most / peers).max(1);
        if own >= part {
            return open.close_longest_idle(self.most / BATCH, at_least, |peer| peer == newcomer) > 0;
        }
        // Of those that have more than their part, a moment without progress is enough.
        let greedy = |peer| open.by_peer.get(&peer).is_some_and(|peer| peer.connections > part);
        if open.close_longest_idle(1, Duration::ZERO, greedy) == 0 {
            open.close_longest_idle(1, at_least, |_| true);
        }
        true
    }

    /// Gives all of them the same order.
    pub fn order(&self, order: Order) {
        self.open().by_key.values().for_each(|(_, activity)| activity.set_order(order));
    }

    /// Returns when none is left; there are no new ones by then.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Open {
    /// Closes at most `most`, at least one, of those that have been idle for longest, of the clients that `of` chooses. Gives how many.
    fn close_longest_idle(&self, most: usize, at_least: Duration, of: impl Fn(IpAddr) -> bool) -> usize {
        let chosen = self.by_key.values().filter(|(peer, _)| of(*peer));
        let idle = chosen.filter_map(|(_, activity)| activity.idle().map(|idle| (idle, activity)));
        let least = |kind| if kind == Idle::Discarding { at_least.min(LOOK) } else { at_least };
        let mut idle: Vec<_> = idle.filter(|((kind, time), _)| *time >= least(*kind)).collect();
        idle.sort_unstable_by_key(|(idle, _)| std::cmp::Reverse(*idle));
        idle.truncate(most.max(1));
        idle.iter().for_each(|(_, activity)| activity.set_order(Order::Close));
        idle.len()
    }

    fn remove(&mut self, key: u64, peer: IpAddr) {
        self.by_key.remove(&key);
        if let Some(of_peer) = self.by_peer.get_mut(&peer) {
            of_peer.connections -= 1;
            if of_peer.connections == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(self.key, self.peer);
        self.connections.gauge.dec();
    }
}

#[cfg(test)]
mod tests;
