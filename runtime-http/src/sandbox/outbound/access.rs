//! The way out of the box: what all functions share, what one function has of it, and what one invocation has.
//!
//! Connections are driven by a thread of their own, which nothing else waits for, and in which TLS is computed.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::IntGauge;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

use super::{
    Destination, OutboundConfig,
    connection::{Connection, ConnectionOwner, IDLE_BYTES},
    dial::{LOOKUP_THREADS, LOOKUPS},
    meter::Meter,
    pool::IdlePool,
    refusal::Refusals,
    sockets::Sockets,
};
use crate::{
    by_name::ByName,
    exchange::budget::{ByteBudget, ClientBudget},
    invocation::{InvocationId, OutboundGrant},
    metrics::FunctionMetrics,
    tasks::Owned,
    threads::ThreadStart,
    tls::{HTTP_2_AND_1, Roots, TlsClient},
    traces::Propagated,
};

/// Connections that one invocation uses at once; further requests wait for one.
const MOST_OF_INVOCATION: usize = 16;
/// Of all connections that there may be, one function may have one in so many.
const SHARE: usize = 4;
/// How often idle connections are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What all functions share.
pub struct OutboundAccess {
    /// What the operator grants.
    pub(super) grants: Vec<OutboundGrant>,
    pub(super) tls: TlsClient,
    /// How long a connection may be idle.
    idle: Duration,
    /// Descriptors.
    places: Places,
    share: usize,
    pool: Mutex<IdlePool<Connection>>,
    /// What idle connections hold.
    budget: ClientBudget,
    /// A connection has become idle.
    some_idle: Arc<Notify>,
    idle_gauge: IntGauge,
    by_function: ByName<FunctionPlaces>,
    /// `None` where nothing is granted.
    runtime: Option<Runtime>,
    _reaper: Mutex<Option<Owned<()>>>,
}

/// What one function occupies, whichever version of it.
struct FunctionPlaces {
    connections: Places,
    lookups: Arc<Semaphore>,
}

/// Places for connections, idle ones among them. While somebody waits for one, none is kept idle.
struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Places {
    fn new(places: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0) }
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(&self.waiting)
    }

    fn are_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn try_take(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(count).ok()
    }
}

/// One function's way out.
pub struct FunctionAccess {
    pub(super) access: Arc<OutboundAccess>,
    metrics: Arc<FunctionMetrics>,
    places: Arc<FunctionPlaces>,
}

/// One invocation's.
pub struct InvocationAccess {
    pub(super) refusals: Refusals,
    /// Made with its first request: most have none.
    meter: OnceLock<Arc<Meter>>,
    places: OnceLock<Arc<Semaphore>>,
    pub(super) sockets: Sockets,
    /// What its requests say of the trace that they belong to.
    pub(super) trace: Option<Propagated>,
    /// `None`: there is no way out.
    pub(super) function: Option<Arc<FunctionAccess>>,
}

impl OutboundAccess {
    /// With so many `descriptors`; `budget` is for what idle connections hold, `idle_gauge` shows how many there are.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start(
        config: &OutboundConfig,
        roots: &Roots,
        descriptors: usize,
        budget: ByteBudget,
        idle_gauge: IntGauge,
        thread_start: ThreadStart,
    ) -> io::Result<Arc<OutboundAccess>> {
        let runtime = (!config.allow.is_empty()).then(|| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(LOOKUP_THREADS)
                .thread_name("outbound")
                .on_thread_start(move || thread_start())
                .enable_all()
                .build()
        });
        let most_idle =
            if config.idle.is_zero() { 0 } else { usize::try_from(budget.total() / IDLE_BYTES).unwrap_or(0) };
        // An invocation must fit, with the attempts to connect.
        let places = descriptors.clamp(2 * MOST_OF_INVOCATION, Semaphore::MAX_PERMITS);
        let access = Arc::new(OutboundAccess {
            grants: config.allow.clone(),
            tls: TlsClient::new(roots, &HTTP_2_AND_1),
            idle: config.idle,
            places: Places::new(places),
            share: (places / SHARE).max(2 * MOST_OF_INVOCATION),
            pool: Mutex::new(IdlePool::new(most_idle)),
            budget: budget.only_client(),
            some_idle: Arc::default(),
            idle_gauge,
            by_function: ByName::default(),
            runtime: runtime.transpose()?,
            _reaper: Mutex::default(),
        });
        if let Some(runtime) = &access.runtime {
            let reaper = runtime.spawn(reap(Arc::downgrade(&access), access.some_idle.clone()));
            *access._reaper.lock().unwrap_or_else(PoisonError::into_inner) = Some(Owned(reaper));
        }
        Ok(access)
    }

    /// For the function `name`.
    pub fn of(self: &Arc<Self>, name: &Arc<str>, metrics: Arc<FunctionMetrics>) -> Arc<FunctionAccess> {
        let places = self.by_function.of(name, || FunctionPlaces {
            connections: Places::new(self.share),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        });
        Arc::new(FunctionAccess { access: self.clone(), metrics, places })
    }

    pub(super) fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.runtime.as_ref().map(Runtime::handle)
    }

    fn pool(&self) -> MutexGuard<'_, IdlePool<Connection>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the pool do something; what goes is closed without its lock.
    fn with_pool<T>(&self, act: impl FnOnce(&mut IdlePool<Connection>) -> T) -> T {
        let mut pool = self.pool();
        let result = act(&mut pool);
        self.idle_gauge.set(crate::metrics::gauge(pool.len()));
        result
    }
}

impl Drop for OutboundAccess {
    fn drop(&mut self) {
        // A thread that looks a name up is left behind. It may be the runtime's own that drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Closes what has been idle for too long.
async fn reap(access: Weak<OutboundAccess>, some_idle: Arc<Notify>) {
    loop {
        let Some(held) = access.upgrade() else { return };
        let (gone, left) = held.with_pool(|pool| {
            let gone = pool.take_expired(held.idle, Instant::now(), Connection::is_closed);
            (gone, pool.len())
        });
        drop((gone, held));
        if left == 0 {
            some_idle.notified().await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl FunctionAccess {
    /// For one invocation.
    pub fn invocation(
        self: &Arc<Self>,
        id: InvocationId,
        name: Arc<str>,
        trace: Option<Propagated>,
    ) -> Arc<InvocationAccess> {
        Arc::new(InvocationAccess { function: Some(self.clone()), trace, ..InvocationAccess::none(id, name) })
    }

    pub fn metrics(&self) -> &Arc<FunctionMetrics> {
        &self.metrics
    }

    pub(super) fn lookups(&self) -> &Arc<Semaphore> {
        &self.places.lookups
    }

    /// An idle connection to `destination`.
    pub(super) fn take_idle(&self, name: &str, destination: &Destination) -> Option<Connection> {
        self.access.with_pool(|pool| pool.take(name, destination))
    }

    /// Keeps a connection for the function's next request. It is no invocation's from now on.
    pub(super) fn keep(&self, name: &Arc<str>, destination: Destination, mut connection: Connection) {
        let Some(memory) = self.access.budget.reserve(IDLE_BYTES) else { return };
        let before = connection.owner.replace(ConnectionOwner::Function { _memory: memory });
        let gone = self.access.with_pool(|pool| {
            // Who waits has counted itself before it looked into the pool, or looks into it later and finds the connection.
            if self.places.connections.are_waited_for() || self.access.places.are_waited_for() {
                return Some(connection);
            }
            pool.put(name.clone(), destination, connection, Instant::now())
        });
        // Whoever waits for the invocation's place finds the connection.
        drop((before, gone));
        self.access.some_idle.notify_one();
    }

    /// Waits for `count` descriptors of the function's and of all. Idle connections make room.
    pub(super) async fn places(&self, name: &str, count: u32) -> [OwnedSemaphorePermit; 2] {
        let own = self.take(&self.places.connections, count, |pool| pool.take_oldest_of(name)).await;
        let all = self.take(&self.access.places, count, IdlePool::take_oldest).await;
        [own, all]
    }

    /// A descriptor of the function's and of all, if there is one now. Idle connections make room.
    pub(super) fn try_place(&self, name: &str) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = self.try_take(&self.places.connections, |pool| pool.take_oldest_of(name))?;
        let all = self.try_take(&self.access.places, IdlePool::take_oldest)?;
        Some([own, all])
    }

    fn try_take(
        &self,
        places: &Places,
        oldest: impl Fn(&mut IdlePool<Connection>) -> Option<Connection>,
    ) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Some(taken) = places.try_take(1) {
                return Some(taken);
            }
            self.access.with_pool(&oldest)?;
        }
    }

    /// Takes `count` of `places`; closes idle connections as long as there are none.
    async fn take(
        &self,
        places: &Places,
        count: u32,
        oldest: impl Fn(&mut IdlePool<Connection>) -> Option<Connection>,
    ) -> OwnedSemaphorePermit {
        if let Some(taken) = places.try_take(count) {
            return taken;
        }
        let _waiting = places.wait();
        loop {
            if let Some(taken) = places.try_take(count) {
                return taken;
            }
            if self.access.with_pool(&oldest).is_none() {
                return places.free.clone().acquire_many_owned(count).await.expect("the semaphore is never closed");
            }
        }
    }
}

impl InvocationAccess {
    /// Of an invocation that has no way out.
    pub fn none(id: InvocationId, function: Arc<str>) -> InvocationAccess {
        InvocationAccess {
            refusals: Refusals::new(id, function),
            meter: OnceLock::new(),
            places: OnceLock::new(),
            sockets: Sockets::default(),
            trace: None,
            function: None,
        }
    }

    /// How long it has waited for others.
    pub fn waited(&self) -> Duration {
        self.meter.get().map_or(Duration::ZERO, |meter| meter.total())
    }

    /// Whether it waits for others, or has a connection to one.
    pub(super) fn has_requests(&self) -> bool {
        let waits = self.meter.get().is_some_and(|meter| meter.is_running());
        waits || self.places.get().is_some_and(|places| places.available_permits() < MOST_OF_INVOCATION)
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        self.meter.get_or_init(Arc::default)
    }

    /// Of the connections that it may use.
    pub(super) fn places(&self) -> &Arc<Semaphore> {
        self.places.get_or_init(|| Arc::new(Semaphore::new(MOST_OF_INVOCATION)))
    }
}
