//! The sandbox: one invocation in a store and instance of its own, with limits, on the calling thread.
//!
//! It knows nothing of HTTP statuses, names, queues or files: it gets compiled code and an input, and gives a [`Reply`].
//! Nothing of a guest outlives its invocation; what it could still reach is exactly what [`Grants`] lists.
//!
//! - [`program`]: compiled code that is ready to run, and the linkers behind it
//! - [`command`]: runs `_start` and `wasi:cli/run`; [`http`] runs `wasi:http/incoming-handler`
//! - [`executor`]: the loop around a guest call: deadline, stop
//! - [`limiter`]: memory; [`stop`]: ending from outside; [`failure`]: all ways to fail
//! - [`stdin`], [`stdout`], [`stderr`], [`body`]: the guest's streams
//! - [`outbound`]: HTTP requests of guests, denied unless granted

pub mod body;
mod command;
mod executor;
pub mod failure;
mod http;
mod limiter;
mod outbound;
pub mod program;
mod stderr;
mod stdin;
mod stdout;
pub mod stop;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use wasmtime::Store;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

pub use self::{
    body::RequestBody,
    command::Stdio,
    failure::{Bounds, Failure},
    program::{Program, ProgramError, Toolchain},
    stop::{Stop, StopOnDrop, StopReason},
};
use self::{executor::Bounded, limiter::Limiter};
use crate::{
    cgroup::seat::Seat,
    epoch,
    limits::Limits,
    memory::Holding,
    record::{End, Record, Usage},
    store::settings::{OutboundHost, Preopen},
};

/// What the operator and the function's settings open to a guest beyond computing.
#[derive(Debug, Default)]
pub struct Grants {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub preopens: Vec<Preopen>,
    pub outbound_hosts: Vec<OutboundHost>,
}

/// One call of one program.
pub struct Invocation {
    pub program: Arc<Program>,
    pub grants: Arc<Grants>,
    pub limits: Limits,
    /// When the client must have its answer.
    pub deadline: Instant,
    /// The most bytes of output and of input; bytes of output held back before the response starts.
    pub max_output: u64,
    pub max_body: u64,
    pub hold: usize,
    pub input: Input,
    /// Bytes of memory to make resident before the guest runs.
    pub preallocated: u64,
    /// Its memory, and the signal to stop. What is held is given back when this is dropped: after the store, whose pages it is.
    pub holding: Arc<Holding>,
    pub record: Arc<Record>,
}

/// What the guest is given.
pub enum Input {
    Command { args: Vec<String>, env: Vec<(String, String)>, stdio: Stdio },
    Http(::http::Request<RequestBody>),
}

/// What comes back, at once or while the guest still runs.
pub enum Reply {
    /// A command's whole output.
    Output(Bytes),
    /// A command's output so far; the rest follows. It is complete if the record then shows no failure.
    OutputStream {
        first: Bytes,
        rest: mpsc::Receiver<Bytes>,
    },
    /// A whole response of a wasi:http guest.
    Response {
        head: ::http::response::Parts,
        frames: Vec<Frame<Bytes>>,
    },
    /// A response whose body is still written by its guest. It is complete if the record then shows no failure.
    ResponseStream(::http::Response<HyperOutgoingBody>),
    Failed(Failure),
}

impl Invocation {
    fn bounds(&self) -> Bounds {
        Bounds {
            memory: self.limits.memory.bytes(),
            output: self.max_output,
            body: self.max_body,
            timeout_ms: self.limits.timeout.duration().as_millis(),
        }
    }

    fn limiter(&self) -> Limiter {
        Limiter::new(self.limits.memory.bytes(), self.holding.clone())
    }

    /// Runs to the end, on this thread, which must be in a tokio context and is limited by `seat`. The reply is sent as soon as it is
    /// known, or left unsent if the client's side is gone; the record's end is set in any case.
    pub fn run(self, reply: oneshot::Sender<Reply>, epochs: &epoch::Awake, seat: &mut Seat) {
        match seat.begin(self.limits.cpu_quota) {
            Ok(None) => {}
            Ok(Some(times)) => drop(self.record.cgroup.set(times)),
            Err(error) => {
                let failure = Failure::Internal { reason: format!("its CPU limit could not be set: {error}") };
                set_end(&self.record, Usage::default(), Some(failure.clone()));
                let _ = reply.send(Reply::Failed(failure));
                return;
            }
        }
        let stop = self.holding.stop.clone();
        stop.begin(seat.lift());
        let meter = Meter::start(seat, stop);
        let program = self.program.clone();
        match &*program {
            Program::Core(core) => command::run_core(core, self, reply, epochs, meter),
            Program::Command(component) => command::run_component(component, self, reply, epochs, meter),
            Program::Http(component) => http::run(component, self, reply, epochs, meter),
        }
    }
}

/// Measures one run.
struct Meter<'a> {
    started: Instant,
    cpu: Duration,
    seat: &'a mut Seat,
    stop: Stop,
}

impl<'a> Meter<'a> {
    fn start(seat: &'a mut Seat, stop: Stop) -> Self {
        Meter { started: Instant::now(), cpu: thread_cpu_time(), seat, stop }
    }

    /// The guest has ended: what it used. From here on this thread works for the box, with a fresh budget.
    fn usage(self, limiter: Option<&Limiter>) -> Usage {
        let execution = self.started.elapsed();
        let cpu = thread_cpu_time().saturating_sub(self.cpu);
        let throttled = self.seat.end(cpu, self.stop.end());
        Usage { execution, cpu, throttled, memory_peak: limiter.map_or(0, Limiter::peak) }
    }
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A store with this invocation's limits; `limiter` finds the limiter in its data.
fn bounded_store<T: 'static>(
    engine: &wasmtime::Engine,
    data: T,
    limiter: impl Fn(&mut T) -> &mut Limiter + Send + Sync + 'static,
) -> Store<T> {
    let mut store = Store::new(engine, data);
    store.limiter_async(move |data| limiter(data));
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

fn bounded<'a>(invocation: &'a Invocation, epochs: &'a epoch::Awake) -> Bounded<'a> {
    Bounded { deadline: invocation.deadline, stop: &invocation.holding.stop, epochs }
}

/// Sets the record's end; done before the guest's streams are closed, so that whoever sees them closed can see why.
fn set_end(record: &Record, usage: Usage, failure: Option<Failure>) {
    // The end is set by the worker alone, once.
    let _ = record.end.set(End { usage, failure });
}
