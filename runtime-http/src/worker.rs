//! Worker threads: where guests run. Started on demand, kept while they have work, ended when idle for long.
//!
//! A worker takes one job at a time. There is no queue here: each admitted job has a worker, because admission bounds their
//! number. The most recently used idle worker goes first, so that caches are warm and the others can end.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    admission::Permit,
    epoch,
    metrics::Metrics,
    sandbox::{Invocation, Reply, Stop, StopReason},
};

/// Guests run on fibers with stacks of their own; this is for what is around them.
const STACK_BYTES: usize = 1 << 20;

/// One admitted invocation.
pub struct Job {
    pub invocation: Invocation,
    pub reply: oneshot::Sender<Reply>,
    pub permit: Permit,
}

/// The threads; dropping the pool waits for running jobs and joins all.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    epochs: epoch::Awake,
    runtime: tokio::runtime::Handle,
    metrics: Arc<Metrics>,
    /// How long a worker waits for work before it ends.
    keep_idle: Duration,
}

#[derive(Default)]
struct State {
    /// The last is the most recently used.
    idle: Vec<Arc<Desk>>,
    all: Vec<Arc<Desk>>,
    threads: Vec<JoinHandle<()>>,
    started: usize,
    closed: bool,
}

/// Where one worker gets its jobs, and can be told to stop.
#[derive(Default)]
struct Desk {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    /// The stop signal of the job that is running.
    running: Mutex<Option<Stop>>,
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
    pub fn new(
        runtime: tokio::runtime::Handle,
        epochs: epoch::Awake,
        keep_idle: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        WorkerPool { shared: Arc::new(Shared { state: Mutex::default(), epochs, runtime, metrics, keep_idle }) }
    }

    /// Gives `job` to an idle worker, or to a new one.
    ///
    /// # Errors
    /// If there is no idle worker and no thread can be started; the job, with its permit, is dropped.
    pub fn run(&self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        if let Some(desk) = state.idle.pop() {
            drop(state);
            desk.put(Inbox::Job(Box::new(job)));
            return Ok(());
        }
        // Ended threads are joined when another starts, so that their handles do not pile up.
        let (ended, running): (Vec<_>, Vec<_>) = state.threads.drain(..).partition(JoinHandle::is_finished);
        state.threads = running;
        ended.into_iter().for_each(join);
        let desk = Arc::new(Desk::default());
        *lock(&desk.inbox) = Inbox::Job(Box::new(job));
        let thread = {
            let (shared, desk) = (self.shared.clone(), desk.clone());
            thread::Builder::new()
                .name(format!("worker-{}", state.started))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.work(&desk))?
        };
        state.started += 1;
        state.all.push(desk);
        state.threads.push(thread);
        self.shared.metrics.workers.set(state.all.len() as i64);
        Ok(())
    }

    /// Stops all running jobs.
    pub fn stop_all(&self, reason: StopReason) {
        for desk in &lock(&self.shared.state).all {
            if let Some(stop) = &*lock(&desk.running) {
                stop.request(reason);
            }
        }
    }
}

fn join(thread: JoinHandle<()>) {
    // A panic in a worker was reported by the panic hook.
    let _ = thread.join();
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let threads = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            for desk in state.idle.drain(..) {
                desk.put(Inbox::Closed);
            }
            std::mem::take(&mut state.threads)
        };
        threads.into_iter().for_each(join);
    }
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
    fn work(&self, desk: &Arc<Desk>) {
        let _context = self.runtime.enter();
        loop {
            match desk.wait(self.keep_idle) {
                Inbox::Job(job) => {
                    self.run(desk, *job);
                    let mut state = lock(&self.state);
                    if state.closed {
                        break;
                    }
                    state.idle.push(desk.clone());
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
        self.metrics.workers.set(state.all.len() as i64);
    }

    fn run(&self, desk: &Desk, job: Job) {
        let Job { invocation, reply, permit } = job;
        let (id, function) = (invocation.record.id, invocation.record.function.clone());
        function.in_flight().inc();
        *lock(&desk.running) = Some(invocation.stop.clone());
        // The reply channel is dropped in a panic: the client is answered 500.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| invocation.run(reply, &self.epochs)));
        *lock(&desk.running) = None;
        function.in_flight().dec();
        if result.is_err() {
            tracing::error!(%id, function = %function.name(), "internal error: a worker panicked; the box goes on");
        }
        drop(permit);
    }
}
