//! Where an invocation begins and ends, with guests that are futures of the test's own.

use std::{
    sync::mpsc,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{estimate::ExecutionEstimate, run::Invocation, *};
use crate::{
    access_log::Record,
    admission::{Admission, Capacity, Share},
    cgroup::{CgroupSettings, DEFAULT_PERIOD, Enable, Mode},
    engine::{EngineSize, Engines},
    epoch::Ticker,
    exchange::budget::Budgets,
    invocation::{CancelToken, Failure, Grants, InvocationId, Outcome},
    limits::Limits,
    memory::MemoryBudget,
    metrics::Metrics,
    sandbox::{self, Guest, KeepLast, Reply, Setup, Stderr, outbound::InvocationAccess},
};

/// A pool with what its jobs need.
struct Fixture {
    pool: WorkerPool,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
    memory: Arc<MemoryBudget>,
    runtime: tokio::runtime::Runtime,
    _ticker: Ticker,
}

/// A job of its, seen from its client.
struct Client {
    reply: oneshot::Receiver<Reply>,
    memory: Arc<MemoryReservation>,
}

impl Fixture {
    fn new(inline: Inline) -> Fixture {
        let metrics = Arc::new(Metrics::new());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        let ticker = Ticker::start(engines).unwrap();
        let none = CgroupSettings {
            enable: Enable::False,
            mode: Mode::Pinned,
            root: None,
            pod_uid: None,
            period: DEFAULT_PERIOD,
        };
        let pool = WorkerPool::new(PoolSettings {
            runtime: runtime.handle().clone(),
            epochs: ticker.awake(),
            cgroups: Cgroups::start(&none, metrics.cgroup.clone()).unwrap(),
            inline,
            keep_idle: Duration::from_secs(10),
            workers: metrics.workers.clone(),
            start_failures: metrics.worker_start_failures.clone(),
            slices: metrics.slices.clone(),
        });
        let capacity = Capacity { units: 10_000, depth: 0, depth_invocations: 0, invocations: 10 };
        Fixture {
            pool: pool.unwrap(),
            admission: Admission::new(capacity, metrics.clone()),
            memory: MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone()),
            metrics,
            runtime,
            _ticker: ticker,
        }
    }

    /// A job that does `call`, of a function that nobody knows, and its client.
    fn job(&self, call: impl Future<Output = ()> + Send + 'static) -> (Job, Client) {
        self.job_of(&Arc::default(), call)
    }

    fn job_of(
        &self,
        estimate: &Arc<ExecutionEstimate>,
        call: impl Future<Output = ()> + Send + 'static,
    ) -> (Job, Client) {
        let id = InvocationId::next();
        let memory = self.memory.reserve(id, CancelToken::default());
        let limits = Limits::default();
        let setup = Arc::new(Setup {
            id,
            config: Arc::default(),
            keyvalue: None,
            outbound: Arc::new(InvocationAccess::none(id, "test".into())),
            stderr: Stderr::new("test".into(), id, KeepLast::Nothing),
            function: "test".into(),
            grants: Arc::new(Grants::default()),
            limits,
            deadline: Instant::now() + Duration::from_secs(60),
            max_output: 0,
            max_body: 0,
            buffer_limit: 0,
            preallocated: 0,
            files: None,
            reuse: None,
            memory: memory.clone(),
        });
        let (sender, reply) = sandbox::reply();
        let function = self.metrics.function("test");
        let share = Arc::new(Share::new());
        let permit = self.runtime.block_on(self.admission.admit(&share, limits.memory, setup.deadline)).unwrap();
        let job = Job {
            invocation: Invocation::of(Guest::doing(setup.clone(), call), setup, sender),
            spending: Spending::Unlimited,
            of: Serves::One(OneRequest {
                permit,
                record: Record::new(id, function.clone(), Instant::now(), None),
                estimate: estimate.clone(),
                budgets: Budgets::new(1 << 30, 1).client(),
                in_flight: InFlight::new(function.clone()),
            }),
        };
        (job, Client { reply, memory })
    }

    /// Runs it; gives how it ended.
    fn outcome(&self, call: impl Future<Output = ()> + Send + 'static) -> Option<Outcome> {
        let (job, client) = self.job(call);
        self.pool.run(job).unwrap();
        self.ended(client)
    }

    fn ended(&self, client: Client) -> Option<Outcome> {
        match self.runtime.block_on(client.reply) {
            Ok(Reply::Ended { outcome, .. }) => Some(outcome),
            Ok(Reply::Streaming { .. }) => panic!("nothing was streamed"),
            Err(_) => None,
        }
    }

    /// Invocations that began in a slice and were done there, were busy, waited.
    fn slices(&self) -> [u64; 3] {
        let SliceMetrics { done, busy, waiting } = &self.metrics.slices;
        [done.get(), busy.get(), waiting.get()]
    }
}

fn here() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// Computes for so long, and yields in between as a guest does.
async fn compute(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let yielded = Instant::now();
        while yielded.elapsed() < Duration::from_micros(50) {
            std::hint::spin_loop();
        }
        let mut yields = false;
        std::future::poll_fn(|context: &mut Context<'_>| {
            if std::mem::replace(&mut yields, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn what_ends_within_a_slice_never_leaves_its_thread() {
    let fixture = Fixture::new(Inline::Auto);
    let (names, seen) = mpsc::sync_channel(8);
    for _ in 0..3 {
        let names = names.clone();
        let (job, mut client) = fixture.job(async move { names.send(here()).unwrap() });
        fixture.pool.run(job).unwrap();
        assert!(client.reply.try_recv().is_ok(), "the answer is there at once");
        assert_eq!(seen.recv().unwrap(), here());
    }
    assert_eq!((fixture.slices(), fixture.metrics.workers.get()), ([3, 0, 0], 0));
    assert!(fixture.pool.running().is_empty());
    assert_eq!(fixture.admission.in_flight(), 0);
}

#[test]
fn off_means_on_workers() {
    let fixture = Fixture::new(Inline::Off);
    let (names, seen) = mpsc::sync_channel(8);
    assert!(fixture.outcome(async move { names.send(here()).unwrap() }).unwrap().failure.is_none());
    assert_eq!((seen.recv().unwrap().as_str(), fixture.slices()), ("worker-0", [0; 3]));
}

#[test]
fn what_computes_for_longer_moves_as_it_is_and_is_known_then() {
    let fixture = Fixture::new(Inline::Auto);
    let (names, seen) = mpsc::sync_channel(8);
    let call = |time| {
        let names = names.clone();
        async move {
            let first = here();
            compute(time).await;
            names.send([first, here()]).unwrap();
        }
    };
    let estimate = Arc::default();
    let outcome = |time| {
        let (job, client) = fixture.job_of(&estimate, call(time));
        fixture.pool.run(job).unwrap();
        fixture.ended(client).unwrap()
    };
    // Longer than it is kept from running, which counts.
    let outcome_of_first = outcome(Duration::from_millis(300));
    let [first, last] = seen.recv().unwrap();
    assert!(first == here() && last.starts_with("worker-"), "{first}, {last}");
    let Outcome { usage, failure, .. } = outcome_of_first;
    assert!(failure.is_none() && usage.execution >= Duration::from_millis(300), "{usage:?}");
    assert_eq!(fixture.slices(), [0, 1, 0]);
    // The CPU time of both threads counts: it computed all the time, as far as there was a core.
    assert!(usage.cpu >= Duration::from_micros(100), "{usage:?}");
    outcome(Duration::ZERO);
    assert!(seen.recv().unwrap()[0].starts_with("worker-"), "it is known to be long");
    assert_eq!(fixture.slices(), [0, 1, 0]);
}

#[test]
fn what_waits_moves_and_is_woken_there() {
    let fixture = Fixture::new(Inline::Auto);
    let (go, gone) = oneshot::channel::<()>();
    let (names, seen) = mpsc::sync_channel(8);
    let (job, client) = fixture.job(async move {
        let first = here();
        gone.await.unwrap();
        names.send([first, here()]).unwrap();
    });
    fixture.pool.run(job).unwrap();
    assert_eq!(fixture.slices(), [0, 0, 1]);
    assert_eq!(fixture.pool.running().len(), 1);
    go.send(()).unwrap();
    assert!(fixture.ended(client).unwrap().failure.is_none());
    assert_eq!(seen.recv().unwrap(), [here(), "worker-0".to_owned()]);
}

/// An eviction finds it in its slice, and it ends there; or on its way to a worker, and it never begins there.
#[test]
fn whoever_cancels_finds_it_wherever_it_is() {
    let fixture = Fixture::new(Inline::Auto);
    let (begun, has_begun) = mpsc::sync_channel(8);
    let (cancelled, is_cancelled) = mpsc::sync_channel(8);
    let (job, client) = fixture.job(async move {
        begun.send(()).unwrap();
        is_cancelled.recv().unwrap();
        std::future::pending().await
    });
    thread::scope(|scope| {
        scope.spawn(|| fixture.pool.run(job).unwrap());
        has_begun.recv().unwrap();
        for memory in fixture.pool.running() {
            memory.cancel.cancel(CancelReason::Evicted);
        }
        cancelled.send(()).unwrap();
    });
    assert_eq!(fixture.ended(client).unwrap().failure, Some(Failure::Evicted));
    assert_eq!(fixture.slices(), [1, 0, 0], "it ended in its slice");

    let fixture = Fixture::new(Inline::Auto);
    let (job, client) = fixture.job(std::future::pending());
    thread::scope(|scope| {
        let state = lock(&fixture.pool.shared.state);
        scope.spawn(|| fixture.pool.run(job).unwrap());
        while fixture.slices() != [0, 0, 1] {
            thread::yield_now();
        }
        // It cannot be handed over now, and is still seen.
        let seen = fixture.pool.shared.slices.iter().find_map(Running::get).unwrap();
        assert!(Arc::ptr_eq(&seen, &client.memory));
        seen.cancel.cancel(CancelReason::ClientGone);
        drop(state);
    });
    assert_eq!(fixture.ended(client).unwrap().failure, Some(Failure::ClientGone));
}

#[test]
fn a_panic_in_a_slice_is_contained() {
    let fixture = Fixture::new(Inline::Auto);
    assert!(fixture.outcome(async { panic!("as the test wants") }).is_none(), "its channel is closed");
    assert_eq!((fixture.admission.in_flight(), fixture.pool.running().len()), (0, 0));
    assert_eq!(fixture.metrics.function("test").running(), 0);
    assert!(fixture.outcome(async {}).unwrap().failure.is_none(), "and this thread goes on");
    assert_eq!(fixture.slices(), [1, 0, 0]);
    // On a worker, too.
    let (names, seen) = mpsc::sync_channel(8);
    let call = async move {
        compute(Duration::from_millis(300)).await;
        names.send(here()).unwrap();
        panic!("as the test wants")
    };
    assert!(fixture.outcome(call).is_none());
    assert!(seen.recv().unwrap().starts_with("worker-"));
    fixture.runtime.block_on(fixture.admission.idle());
}

/// What a guest allocates is charged to it on both threads, and to nobody else.
#[test]
fn allocations_follow_the_move() {
    let fixture = Fixture::new(Inline::Auto);
    let (go, gone) = oneshot::channel::<()>();
    let (blocks, kept) = mpsc::sync_channel(8);
    let (job, client) = fixture.job(async move {
        let first = vec![0_u8; 100_000];
        gone.await.unwrap();
        blocks.send([first, vec![0_u8; 200_000]]).unwrap();
        std::future::pending::<()>().await;
    });
    fixture.pool.run(job).unwrap();
    let here = vec![0_u8; 400_000];
    let memory = client.memory.clone();
    go.send(()).unwrap();
    let blocks = kept.recv().unwrap();
    memory.cancel.cancel(CancelReason::ClientGone);
    fixture.ended(client).unwrap();
    let bytes = memory.cost();
    assert!((300_000..350_000).contains(&bytes), "{bytes}");
    drop((blocks, here));
    assert!(memory.cost() < 50_000);
}
