//! The sandbox: one invocation in a store and instance of its own, with limits, on whichever thread drives it.
//!
//! It knows nothing of HTTP statuses, names of functions, queues, files or cgroups: it gets compiled code with its input, and gives
//! an [`Ended`], after a [`Stream`] if the answer had to begin before. Nothing of a guest outlives its invocation, unless its author wants its
//! instances to be reused; what it could still reach is exactly what [`crate::invocation::Grants`] lists.
//!
//! - [`program`]: compiled code that is ready to run, and the linkers behind it
//! - [`command`]: runs `_start` and `wasi:cli/run`; [`http`] runs `wasi:http/incoming-handler` and `wasi:http/handler`
//! - [`instance`]: one that serves several requests; [`instances`]: those that wait for the next
//! - [`carrier`]: one that serves several at once, and who joins it; [`shared`]: runs it
//! - [`p3`]: what is different for WASI 0.3; [`component`]: what the box holds for a component
//! - [`mod@reply`]: the one way back to whoever waits
//! - [`guest`]: a call that is to run; [`executor`]: what drives it, until its end, its deadline, or its cancellation
//! - [`limiter`]: memory; [`populate`]: memory made resident ahead; [`failure`]: what an error of a guest's call was
//! - [`stdin`], [`stdout`], [`stderr`]: the guest's streams; [`logging`]: lines that it gives to the log; [`log_allowance`]: how many
//! - [`file_access`]: what the files of a function's guests may occupy; [`listing`]: directories that they list
//! - [`guest_config`]: its function's configuration; [`keyvalue`]: its way to what its function keeps
//! - [`outbound`]: HTTP requests of guests, denied unless granted

pub mod carrier;
mod command;
mod component;
pub mod executor;
mod failure;
pub mod file_access;
mod guest;
mod guest_config;
mod http;
pub mod instance;
pub mod instances;
mod keyvalue;
mod limiter;
mod listing;
pub mod log_allowance;
mod logging;
pub mod outbound;
mod p3;
mod populate;
pub mod program;
pub mod reply;
mod shared;
mod stderr;
mod stdin;
mod stdout;

use std::{sync::Arc, time::Instant};

use wasmtime::{Store, component::ResourceTable};

pub use self::{
    carrier::{CarrierGuard, Carriers, Joined, Joining, Observer},
    command::{CommandInput, Stdio},
    guest::Guest,
    guest_config::GuestConfig,
    instance::{Instance, InstanceUse, Reuse},
    instances::{InstanceBounds, KeptInstances},
    program::{Program, ProgramError, Toolchain},
    reply::{Answer, Reply, ReplySender, Stream, reply},
    stderr::{KeepLast, Stderr},
};
use self::{
    command::CoreHost,
    component::ComponentHost,
    failure::Bounds,
    file_access::{FileAccess, Files, MOST_FILES},
    limiter::Limiter,
    outbound::InvocationAccess,
    program::{CommandComponent, CoreProgram, HttpComponent},
};
use crate::{
    exchange::request_body::RequestBody,
    invocation::{Failure, Grants, InvocationId},
    keyvalue::FunctionStore,
    limits::Limits,
    memory::MemoryReservation,
};

/// A program with the input that it takes.
pub enum Call {
    Core(Arc<CoreProgram>, CommandInput),
    Command(Arc<CommandComponent>, CommandInput),
    /// In an instance that has served others, if there is one.
    Http(Arc<HttpComponent>, ::http::Request<RequestBody>, Option<Box<Instance>>),
    /// The requests that share an instance.
    Shared(Arc<HttpComponent>, CarrierGuard, Option<Box<Instance>>),
}

impl Call {
    /// Has an instance serve it that has served others.
    pub fn go_on_in(&mut self, kept: Instance) {
        if let Call::Http(_, _, instance) | Call::Shared(_, _, instance) = self {
            *instance = Some(Box::new(kept));
        }
    }
}

/// What one invocation may use and reach.
pub struct Setup {
    pub id: InvocationId,
    /// The function's name, for its lines in the log.
    pub function: Arc<str>,
    /// Where its standard error goes, unless that is inherited.
    pub stderr: Stderr,
    pub grants: Arc<Grants>,
    /// Of its function.
    pub config: Arc<GuestConfig>,
    pub limits: Limits,
    /// When the client must have its answer.
    pub deadline: Instant,
    /// The most bytes of output and of input.
    pub max_output: u64,
    pub max_body: u64,
    /// Bytes of output that are buffered before the answer begins.
    pub buffer_limit: usize,
    /// Bytes of memory to make resident before the guest runs.
    pub preallocated: u64,
    /// `None` if it has no directory, or as much of the box as it likes.
    pub files: Option<Arc<FileAccess>>,
    /// What its function keeps, if it may keep anything.
    pub keyvalue: Option<FunctionStore>,
    /// Its way to others.
    pub outbound: Arc<InvocationAccess>,
    /// Whether its instance may serve others.
    pub reuse: Option<Reuse>,
    /// Its memory, and the signal to end. What is reserved is given back when this is dropped: after the store, whose pages it is.
    pub memory: Arc<MemoryReservation>,
}

/// How a guest ended.
pub struct Ended {
    /// The whole answer, unless it failed or its answer had begun.
    pub result: Result<Option<Answer>, Failure>,
    /// The most guest memory at once, bytes.
    pub memory_peak: u64,
    pub remains: Remains,
}

/// What is left of a guest. Dropping it closes its streams and gives its memory back to the system, which takes its time.
#[must_use = "whoever drops it works for the box, not for the guest"]
pub struct Remains {
    #[expect(dead_code, reason = "held to be dropped")]
    store: Option<Left>,
    instance: Option<Box<Instance>>,
    /// After the store, whose files they are.
    #[expect(dead_code, reason = "held to be dropped")]
    files: Option<Files>,
}

impl Remains {
    fn of(store: Left) -> Remains {
        Remains { store: Some(store), instance: None, files: None }
    }

    fn none() -> Remains {
        Remains { store: None, instance: None, files: None }
    }

    /// Of one that may serve another request. `has_ended`: nobody holds the body of the last.
    fn reusable(mut instance: Instance, reuse: &Reuse, has_ended: bool) -> Remains {
        let metrics = reuse.instances.metrics();
        if instance.served >= reuse.most.get() {
            metrics.ended_used_up.inc();
        } else if !has_ended || !instance.store.data_mut().is_clean() {
            metrics.ended_unclean.inc();
        } else {
            return Remains { instance: Some(Box::new(instance)), ..Remains::none() };
        }
        Remains::of(Left::Component(instance.store))
    }

    /// Keeps the instance for the next request of its function, if it may serve another. `undelivered` bytes of its answer are still there.
    pub fn keep(&mut self, setup: &Setup, undelivered: u64) {
        if let (Some(instance), Some(reuse)) = (self.instance.take(), &setup.reuse) {
            instance.stderr.end();
            reuse.instances.put(reuse.program.clone(), *instance, setup.memory.keep(undelivered));
        }
    }
}

#[expect(dead_code, reason = "held to be dropped")]
enum Left {
    Core(Store<CoreHost>),
    Component(Store<ComponentHost>),
}

impl Setup {
    fn bounds(&self) -> Bounds {
        Bounds {
            memory: self.limits.memory.bytes(),
            output: self.max_output,
            body: self.max_body,
            timeout_ms: self.limits.timeout.duration().as_millis(),
        }
    }

    /// What can be between an ended guest and its client, if its answer is streamed: what was buffered first, and full channels.
    pub fn most_undelivered(&self) -> u64 {
        let channel = outbound::BODY_BYTES.max((stdout::CHUNKS_AHEAD + 1) * stdout::CHUNK);
        ((self.buffer_limit + channel) as u64).min(self.most_memory())
    }

    fn limiter(&self) -> Limiter {
        Limiter::new(self.limits.memory.bytes(), self.most_memory(), self.memory.clone())
    }

    /// The most that it may cost, with what the box holds for it; bytes.
    fn most_memory(&self) -> u64 {
        self.limits.memory.bytes().saturating_add(OVERHEAD)
    }

    /// Before the guest starts: waits until there is memory for what the box holds for it.
    async fn reserve_overhead(&self) {
        self.memory.reserve_overhead(ADVANCE).await;
    }
}

impl Ended {
    /// Of a guest that was not started.
    fn not_started(failure: Failure) -> Ended {
        Ended { result: Err(failure), memory_peak: 0, remains: Remains::none() }
    }
}

/// Runs to the end. It must be polled in a tokio context. An answer that has to begin before the end is sent to `reply`.
async fn run(call: Call, setup: Arc<Setup>, reply: ReplySender) -> Ended {
    let files = match setup.files.as_ref().map(FileAccess::open).transpose() {
        Ok(files) => files,
        Err(occupied) => {
            tracing::warn!(function = %setup.function, id = %setup.id, "not started: {occupied}");
            return Ended::not_started(Failure::NoSlot);
        }
    };
    let call = async {
        match call {
            Call::Core(program, input) => command::run_core(&program, input, &setup, &reply).await,
            Call::Command(program, input) => command::run_component(&program, input, &setup, &reply).await,
            Call::Http(program, request, kept) => {
                http::run(&program, request, kept.map(|kept| *kept), &setup, &reply).await
            }
            Call::Shared(program, guard, kept) => {
                shared::run(&program, guard, kept.map(|kept| *kept), &setup, &reply).await
            }
        }
    };
    let mut call = std::pin::pin!(call);
    // Whichever thread polls it is in the context of its files.
    let ended = std::future::poll_fn(|context| {
        let _context = files.as_ref().map(Files::enter);
        call.as_mut().poll(context)
    })
    .await;
    if let Some(files) = files.as_ref().filter(|_| setup.memory.cancel.reason().is_some()) {
        files.abandon();
    }
    // Before its client can call the function again, whose lines come after these.
    setup.stderr.end();
    let result = ended.result.map_err(|failure| failure.with_stderr(setup.stderr.last_lines()));
    Ended { result, remains: Remains { files, ..ended.remains }, ..ended }
}

/// What the box may hold for an invocation beyond its `Memory-Request`, bytes: a response that waits for its client is a megabyte.
pub const OVERHEAD: u64 = 2 << 20;
/// What of that is taken in advance, bytes: few need more. As many as may run at once must find it, also when all of them wait for their clients.
pub const ADVANCE: u64 = 64 << 10;
/// The most handles to the box's resources: streams, headers, files.
const MOST_HANDLES: usize = 1000;
/// The most bytes that a component passes to the box in one call.
const HOSTCALL_BYTES: usize = 1 << 20;
/// The most handles of a component, its own among them.
const MOST_COMPONENT_HANDLES: usize = 10_000;

fn handles(setup: &Setup) -> usize {
    if setup.grants.preopens.is_empty() { MOST_HANDLES } else { MOST_FILES as usize }
}

fn resource_table(setup: &Setup) -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(handles(setup));
    table
}

/// A store with this invocation's limits; `limiter` finds the limiter in its data.
fn bounded_store<T: 'static>(
    engine: &wasmtime::Engine,
    data: T,
    limiter: impl Fn(&mut T) -> &mut Limiter + Send + Sync + 'static,
) -> Store<T> {
    let mut store = Store::new(engine, data);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MOST_COMPONENT_HANDLES);
    store.limiter_async(move |data| limiter(data));
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}
