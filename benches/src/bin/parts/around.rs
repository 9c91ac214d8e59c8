//! What a call takes around its guest: finding the function, admission, the log line with the metrics, the answer's headers, two system calls.

use std::{
    io::{IoSlice, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{Result, error::Context};

use hyper::{HeaderMap, StatusCode, header::HeaderValue};
use rustix::time::{ClockId, clock_gettime};
use wasmbox::{
    access_log::Record,
    admission::{Admission, Share},
    api::answer::{INVOCATION_HEADERS, Timing, add_invocation_headers},
    engine::tier::Tier,
    invocation::{CgroupTimes, InvocationId, Outcome, Usage},
    logging::Logs,
    metrics::FunctionMetrics,
    store::{file::FunctionsDir, name::ModuleName},
    threads::cpu_time,
};

use crate::{
    guest::finish,
    invocation::Sandboxes,
    meter::{Meter, Part, micros},
};

/// Of a batch: fewer than the log may hold.
const LINES: u32 = 20_000;
/// As `wrk` asks.
pub const REQUEST: &[u8] = b"GET /hello-core HTTP/1.1\r\nHost: 127.0.0.1:8095\r\n\r\n";

/// Finding the file of a function that is loaded, as each request does.
///
/// # Errors
/// If it is not in `directory`.
pub fn find(meter: &Meter, directory: &Path) -> Result<Part> {
    let directory = FunctionsDir::new(directory.to_owned());
    let name: ModuleName = "hello-core".parse()?;
    meter.alone("find the function's file: three stat calls", || Ok(directory.find(&name)?))
}

/// # Errors
/// If nothing is admitted.
pub fn admit(meter: &Meter, sandboxes: &Sandboxes) -> Result<Part> {
    let admission = Admission::new(sandboxes.config.capacity, sandboxes.metrics.clone());
    let share = Arc::new(Share::new());
    let (memory, deadline) = (sandboxes.config.defaults.memory, Instant::now() + Duration::from_secs(3600));
    meter.alone("admission", || Ok(finish(admission.admit(&share, memory, deadline))?))
}

fn outcome() -> Outcome {
    let usage = Usage {
        execution: Duration::from_micros(21),
        cpu: Duration::from_micros(19),
        throttled: Some(Duration::ZERO),
        outbound: Duration::ZERO,
        memory_peak: 65_536,
    };
    Outcome { usage, began: Some(Instant::now()), cgroup: Some(CgroupTimes::default()), failure: None }
}

/// The record of an invocation: its metrics, and its line where there is a log.
///
/// # Errors
/// Without a batch.
pub fn record(meter: &Meter, name: &'static str, function: &Arc<FunctionMetrics>) -> Result<Part> {
    meter.alone(name, || Ok(make_record(function)))
}

fn make_record(function: &Arc<FunctionMetrics>) -> Arc<Record> {
    let now = Instant::now();
    let record = Record::new(InvocationId::next(), function.clone(), now, None);
    record.compiled(Duration::ZERO);
    record.admitted(now, Duration::ZERO);
    record.ended(outcome());
    record.answered(StatusCode::OK, "");
    record
}

/// What the log's thread takes for a line: of the process's CPU time what this thread has not used.
///
/// # Errors
/// Without a batch.
pub fn log_thread(meter: &Meter, logs: &Logs, function: &Arc<FunctionMetrics>) -> Result<Part> {
    let process = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let mut samples = Vec::new();
    for _ in 0..meter.batches {
        let (before, own) = (process(), cpu_time());
        for _ in 0..LINES {
            drop(make_record(function));
        }
        logs.flush();
        let others = (process() - before).saturating_sub(cpu_time() - own);
        samples.push(micros(others) / f64::from(LINES));
    }
    Part::of("the log's thread, for each line", samples)
}

/// # Errors
/// Without a batch.
pub fn headers(meter: &Meter) -> Result<Part> {
    let mut timing = Timing::new(InvocationId::next(), Tier::Optimised);
    timing.ended(&outcome());
    let pod = HeaderValue::from_static("pod");
    meter.alone("the answer's headers", || {
        let mut headers = HeaderMap::with_capacity(INVOCATION_HEADERS + 2);
        add_invocation_headers(&mut headers, &timing, 16, &pod);
        Ok(headers)
    })
}

/// # Errors
/// Without a batch.
pub fn clock(meter: &Meter) -> Result<Part> {
    meter.alone("reading the thread's CPU clock, twice", || Ok((cpu_time(), cpu_time())))
}

/// The two system calls that a request cannot do without, on a connection of the loopback interface.
///
/// # Errors
/// If there is no such connection.
pub fn system_calls(meter: &Meter) -> Result<Vec<Part>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (head, body) = ([b'h'; 400], b"hello\n");
    let mut buffer = [0; 8192];
    meter.laps(["recv of a request", "writev of an answer of 400 bytes"], |laps| {
        client.write_all(REQUEST)?;
        laps.skip();
        wasmtime::ensure!(server.read(&mut buffer)? == REQUEST.len(), "a request came in pieces");
        laps.lap(0);
        let sent = server.write_vectored(&[IoSlice::new(&head), IoSlice::new(body)])?;
        laps.lap(1);
        client.read_exact(&mut buffer[..sent])?;
        Ok(())
    })
}
