//! Worker threads: where guests run. Started on demand, kept while they have work, ended when idle for long.
//!
//! How many invocations are in flight is for admission to say. How many workers are awake is decided here. A worker that has just begun
//! a function that usually takes less than [`SHORT`] is about to end: then a further job waits for it, because that is sooner than
//! waking another thread. There are never more such waiting jobs than such workers, unless there are as many as cores;
//! and no job waits long: a worker that has been busy for [`LATE`] counts no more, and another is woken or started. So short
//! functions run on few warm threads, and long or sleeping ones never hold the others up.
//!
//! The most recently used idle worker goes first, so that caches are warm and the others can end.

use std::{
    collections::VecDeque,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    admission::Permit,
    cgroup::{Cgroups, seat::Seat},
    epoch,
    memory::Holding,
    metrics::{Metrics, gauge},
    sandbox::{Invocation, Reply, StopReason},
};

/// Guests run on fibers with stacks of their own; this is for what is around them.
const STACK_BYTES: usize = 1 << 20;
/// A function that usually takes longer is not waited for.
const SHORT: Duration = Duration::from_micros(300);
/// A job that has run for longer is not about to end, whatever is usual.
const LATE: Duration = Duration::from_millis(2);
/// How often the supervisor looks at a queue that is in use.
const LOOK: Duration = Duration::from_millis(1);
/// The supervisor sleeps after having found the queue empty this many times.
const QUIET_LOOKS: u32 = 100;

/// One admitted invocation.
pub struct Job {
    pub invocation: Invocation,
    pub reply: oneshot::Sender<Reply>,
    pub permit: Permit,
}

impl Job {
    fn is_short(&self) -> bool {
        self.invocation.record.function.usual_execution().is_some_and(|usual| usual < SHORT)
    }
}

/// The threads; dropping the pool waits for running jobs and joins all.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the supervisor.
    waiting: Condvar,
    epochs: epoch::Awake,
    cgroups: Cgroups,
    runtime: tokio::runtime::Handle,
    metrics: Arc<Metrics>,
    /// How long a worker waits for work before it ends.
    keep_idle: Duration,
    cores: usize,
}

#[derive(Default)]
struct State {
    /// Jobs that wait for a worker that has just begun another. Bounded by admission.
    queue: VecDeque<Job>,
    /// The last is the most recently used.
    idle: Vec<Arc<Desk>>,
    /// Workers that are about to end their jobs, as far as is known, and when they began them.
    ending: Vec<(Arc<Desk>, Instant)>,
    all: Vec<Arc<Desk>>,
    threads: Vec<JoinHandle<()>>,
    started: usize,
    supervised: bool,
    closed: bool,
}

/// Where one worker is given a job, and can be told to stop.
#[derive(Default)]
struct Desk {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    /// What the job that is running holds, and its stop signal.
    running: Mutex<Option<Arc<Holding>>>,
}

#[derive(Default)]
enum Inbox {
    #[default]
    Empty,
    Job(Box<Job>),
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerPool {
    /// Workers poll their guests' host calls in the context of `runtime`.
    ///
    /// # Errors
    /// If the supervisor's thread cannot be started.
    pub fn new(
        runtime: tokio::runtime::Handle,
        epochs: epoch::Awake,
        cgroups: Cgroups,
        keep_idle: Duration,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            waiting: Condvar::new(),
            epochs,
            cgroups,
            runtime,
            metrics,
            keep_idle,
            cores: thread::available_parallelism().map_or(1, usize::from),
        });
        let supervisor = {
            let shared = shared.clone();
            thread::Builder::new().name("supervisor".into()).spawn(move || shared.supervise())?
        };
        lock(&shared.state).threads.push(supervisor);
        Ok(WorkerPool { shared })
    }

    /// Has `job` run, on a worker that is awake, idle or new.
    ///
    /// # Errors
    /// If there is no worker and no thread can be started; the job, with its permit, is dropped.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        state.queue.push_back(job);
        let woken = self.shared.wake_unless_one_ends_soon(&mut state);
        if !state.queue.is_empty() && !state.supervised {
            state.supervised = true;
            self.shared.waiting.notify_one();
        }
        match woken {
            Err(error) if state.all.is_empty() => {
                state.queue.clear();
                Err(error)
            }
            // Those that are there will come to it.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What running jobs hold.
    pub fn running(&self) -> Vec<Arc<Holding>> {
        lock(&self.shared.state).all.iter().filter_map(|desk| lock(&desk.running).clone()).collect()
    }

    /// Stops all running jobs.
    pub fn stop_all(&self, reason: StopReason) {
        for desk in &lock(&self.shared.state).all {
            if let Some(holding) = &*lock(&desk.running) {
                holding.stop.request(reason);
            }
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let threads = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            for desk in state.idle.drain(..) {
                desk.put(Inbox::Closed);
            }
            self.shared.waiting.notify_one();
            std::mem::take(&mut state.threads)
        };
        threads.into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    // A panic in a worker was reported by the panic hook.
    let _ = thread.join();
}

impl Desk {
    fn put(&self, content: Inbox) {
        *lock(&self.inbox) = content;
        self.filled.notify_one();
    }

    /// Waits for content; `Empty` after `patience`.
    fn wait(&self, patience: Duration) -> Inbox {
        let inbox = lock(&self.inbox);
        let (mut inbox, _) = self
            .filled
            .wait_timeout_while(inbox, patience, |inbox| matches!(inbox, Inbox::Empty))
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *inbox)
    }
}

impl Shared {
    /// Gives the queue's first job to an idle or new worker, unless it will have one sooner without.
    fn wake_unless_one_ends_soon(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.queue.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        if self.ends_soon(state) {
            state.ending.retain(|(_, begun)| now.duration_since(*begun) < LATE);
            if self.ends_soon(state) {
                return Ok(());
            }
        }
        if let Some(desk) = state.idle.pop() {
            let job = state.queue.pop_front().expect("it was just seen to have one, under this lock");
            if job.is_short() {
                state.ending.push((desk.clone(), now));
            }
            desk.put(Inbox::Job(Box::new(job)));
            return Ok(());
        }
        // Ended threads are joined when another starts, so that their handles do not pile up.
        let (ended, living): (Vec<_>, Vec<_>) = state.threads.drain(..).partition(JoinHandle::is_finished);
        state.threads = living;
        ended.into_iter().for_each(join);
        let desk = Arc::new(Desk::default());
        let thread = {
            let (shared, desk) = (self.clone(), desk.clone());
            thread::Builder::new()
                .name(format!("worker-{}", state.started))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.work(&desk))?
        };
        let job = state.queue.pop_front().expect("it was just seen to have one, under this lock");
        if job.is_short() {
            state.ending.push((desk.clone(), now));
        }
        desk.put(Inbox::Job(Box::new(job)));
        state.started += 1;
        state.all.push(desk);
        state.threads.push(thread);
        self.metrics.workers.set(gauge(state.all.len()));
        Ok(())
    }

    /// Whether each waiting job has a worker that will be free before another could be woken.
    fn ends_soon(&self, state: &State) -> bool {
        state.ending.len() >= self.cores || state.queue.len() <= state.ending.len()
    }

    /// Sees to it that queued jobs do not wait for workers that turned out to be busy for long.
    fn supervise(self: &Arc<Self>) {
        let mut quiet_looks = 0;
        let mut state = lock(&self.state);
        while !state.closed {
            if quiet_looks > QUIET_LOOKS {
                state.supervised = false;
                state = self.waiting.wait(state).unwrap_or_else(PoisonError::into_inner);
                quiet_looks = 0;
            } else {
                state = self.waiting.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
                quiet_looks = if state.queue.is_empty() { quiet_looks + 1 } else { 0 };
                let _ = self.wake_unless_one_ends_soon(&mut state);
            }
        }
    }

    fn work(&self, desk: &Arc<Desk>) {
        let _context = self.runtime.enter();
        let mut seat = self.cgroups.seat();
        loop {
            match desk.wait(self.keep_idle) {
                Inbox::Job(job) => {
                    self.run(desk, *job, &mut seat);
                    while let Some(job) = self.next(desk) {
                        self.run(desk, job, &mut seat);
                    }
                }
                Inbox::Closed => break,
                Inbox::Empty => {
                    let mut state = lock(&self.state);
                    // Whoever took this desk off the list is about to fill it.
                    if let Some(position) = state.idle.iter().position(|idle| Arc::ptr_eq(idle, desk)) {
                        state.idle.remove(position);
                        break;
                    }
                }
            }
        }
        let mut state = lock(&self.state);
        state.all.retain(|other| !Arc::ptr_eq(other, desk));
        self.metrics.workers.set(gauge(state.all.len()));
    }

    /// The next job from the queue, or `None` after having joined the idle.
    fn next(&self, desk: &Arc<Desk>) -> Option<Job> {
        let mut state = lock(&self.state);
        let position = state.ending.iter().position(|(ending, _)| Arc::ptr_eq(ending, desk));
        if let Some(position) = position {
            state.ending.swap_remove(position);
        }
        let next = state.queue.pop_front();
        match &next {
            Some(job) if job.is_short() => state.ending.push((desk.clone(), Instant::now())),
            Some(_) => {}
            None if state.closed => desk.put(Inbox::Closed),
            None => state.idle.push(desk.clone()),
        }
        next
    }

    fn run(&self, desk: &Desk, job: Job, seat: &mut Seat) {
        let Job { invocation, reply, permit } = job;
        let (id, function) = (invocation.record.id, invocation.record.function.clone());
        function.in_flight().inc();
        *lock(&desk.running) = Some(invocation.holding.clone());
        // The reply channel is dropped in a panic: the client is answered 500.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| invocation.run(reply, &self.epochs, seat)));
        // Dropped without the lock: it may let those in who wait for memory.
        let holding = lock(&desk.running).take();
        drop(holding);
        function.in_flight().dec();
        if result.is_err() {
            tracing::error!(%id, function = %function.name(), "internal error: a worker panicked; the box goes on");
            // What it has spent is not known.
            *seat = self.cgroups.seat();
        }
        drop(permit);
    }
}
