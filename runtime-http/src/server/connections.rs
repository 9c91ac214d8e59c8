//! All connections of a port: how many there may be, and which one makes room for another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{activity::Activity, patience::Order};

/// How often a full port looks for an idle connection.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection has at least been idle when it makes room: the head of a new one, or the next piece of a body, may be on its way.
const MOMENT: Duration = Duration::from_millis(250);

/// The open connections.
pub struct Connections {
    places: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    gauge: IntGauge,
    pub tasks: TaskTracker,
}

/// A connection's place among the others, until it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    key: u64,
    pub activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub fn new(most: usize, gauge: IntGauge) -> Arc<Connections> {
        Arc::new(Connections {
            places: Arc::new(Semaphore::new(most)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            gauge,
            tasks: TaskTracker::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that was accepted. If there is none, the one that has been idle for longest is closed: of those that never
    /// sent a request, else of those between requests, else of those that send nothing of their bodies. While all are busy, this waits.
    pub async fn place(self: &Arc<Self>) -> Place {
        let permit = loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                break permit;
            }
            self.close_longest_idle(MOMENT);
            if let Ok(permit) = tokio::time::timeout(LOOK, self.places.clone().acquire_owned()).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let (key, activity) = (self.next.fetch_add(1, Ordering::Relaxed), Activity::new());
        self.open().insert(key, activity.clone());
        self.gauge.inc();
        Place { connections: self.clone(), key, activity, _permit: permit }
    }

    fn close_longest_idle(&self, at_least: Duration) {
        let open = self.open();
        let idle = open.values().filter_map(|activity| activity.idle().map(|idle| (idle, activity)));
        if let Some((_, activity)) = idle.filter(|((_, time), _)| *time >= at_least).max_by_key(|(idle, _)| *idle) {
            activity.set_order(Order::Close);
        }
    }

    /// Gives all of them the same order.
    pub fn order(&self, order: Order) {
        self.open().values().for_each(|activity| activity.set_order(order));
    }

    /// Returns when none is left; there are no new ones by then.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(&self.key);
        self.connections.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_one_makes_room_and_silent_ones_first() {
        let connections = Connections::new(3, IntGauge::new("open", "connections").unwrap());
        let served = connections.place().await;
        drop(served.activity.begin(false));
        let silent = connections.place().await;
        let busy = connections.place().await;
        let request = busy.activity.begin(false);
        let orders = |places: [&Place; 3]| places.map(|place| place.activity.order());
        connections.close_longest_idle(Duration::from_secs(3600));
        assert_eq!(orders([&served, &silent, &busy]), [Order::Serve; 3], "none has been idle for that long");
        connections.close_longest_idle(Duration::ZERO);
        assert_eq!(orders([&served, &silent, &busy]), [Order::Serve, Order::Close, Order::Serve]);
        connections.close_longest_idle(Duration::ZERO);
        assert_eq!(orders([&served, &silent, &busy]), [Order::Close, Order::Close, Order::Serve]);
        connections.close_longest_idle(Duration::ZERO);
        assert_eq!(busy.activity.order(), Order::Serve);
        drop((request, silent));
        assert_eq!(connections.gauge.get(), 2);
        connections.place().await;
    }
}
