//! Another customer of the box under attack: calls its own function all the time, and counts how it is served.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Version};

use crate::{cgroup::TestCgroup, client::exchange_alone};

/// Time between the beginnings of two calls.
const PERIOD: Duration = Duration::from_millis(50);
/// A call that takes longer has failed.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Fewer calls say nothing.
const LEAST: usize = 20;
/// The bound on the time that 99 of 100 calls take.
const P99: Duration = Duration::from_secs(1);

/// The victim's function that answers with what it gets.
pub const UPLOADS: &str = "uploads";
/// The body that it gets: more than a connection may hold without asking.
const UPLOAD: usize = 32 << 10;

/// How it calls.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// `/hello`, on a new connection each time.
    New,
    /// `/hello`, on a connection that is kept.
    Kept,
    /// `/hello` by HTTP/2, on a new connection each time.
    Http2,
    /// [`UPLOADS`], with a body.
    Upload,
}

impl Way {
    /// Those that need no more than their connection.
    pub const SMALL: [Way; 2] = [Way::New, Way::Kept];
    pub const ALL: [Way; 4] = [Way::New, Way::Kept, Way::Http2, Way::Upload];
}

/// Calls in some ways, all the time, until it is asked how it went.
///
/// Its threads are in a cgroup with a high share of the CPU, as the box under attack is: what else the machine does is not counted.
pub struct Victim {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Calls>>,
    _cgroup: TestCgroup,
}

/// How calls went.
#[derive(Debug, Default)]
pub struct Calls {
    times: Vec<Duration>,
    wrong: Vec<String>,
}

impl Victim {
    /// Starts to call.
    pub fn of(address: SocketAddr, ways: &[Way]) -> Victim {
        let cgroup = TestCgroup::cpu();
        let over = Arc::new(AtomicBool::new(false));
        let threads = Vec::from_iter(ways.iter().map(|way| {
            let (way, over, join) = (*way, over.clone(), cgroup.join_here());
            thread::spawn(move || {
                join();
                Calls::until(&over, address, way)
            })
        }));
        Victim { over, threads, _cgroup: cgroup }
    }

    /// Ends the calls.
    ///
    /// # Panics
    /// If a calling thread panicked.
    pub fn result(mut self) -> Calls {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for thread in self.threads.drain(..) {
            let calls = thread.join().expect("the victim does not panic");
            all.times.extend(calls.times);
            all.wrong.extend(calls.wrong);
        }
        all.times.sort();
        all
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Calls {
    fn until(over: &AtomicBool, address: SocketAddr, way: Way) -> Calls {
        let mut calls = Calls::default();
        let mut connection = None;
        while !over.load(Ordering::Relaxed) {
            let started = Instant::now();
            let answered = match way {
                Way::New => call(&mut connection, address, false),
                Way::Kept => call(&mut connection, address, true),
                Way::Http2 => call_by_http2(address),
                Way::Upload => upload(address),
            };
            if let Err(error) = answered {
                calls.wrong.push(format!("{way:?}: {error}"));
                connection = None;
            }
            let took = started.elapsed();
            calls.times.push(took);
            thread::sleep(PERIOD.saturating_sub(took));
        }
        calls
    }

    /// The time within which all but `others` calls were answered.
    fn all_but(&self, others: usize) -> Duration {
        let last = self.times.len().checked_sub(1 + others);
        last.map_or(Duration::MAX, |last| self.times[last])
    }

    /// How many calls one in a hundred is: at least one.
    fn hundredth(&self) -> usize {
        self.times.len().div_ceil(100)
    }

    /// The customer did not notice.
    ///
    /// # Panics
    /// If less than 99 of 100 calls were answered right, or not within a second.
    #[track_caller]
    pub fn assert_served(&self) {
        let some = &self.wrong[..self.wrong.len().min(5)];
        assert!(self.times.len() >= LEAST, "the victim could not call: {self}");
        assert!(self.wrong.len() <= self.hundredth(), "{self}: {some:?}");
        assert!(self.all_but(self.hundredth()) < P99, "{self}");
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = self.times.len() - self.wrong.len();
        write!(f, "victim {right}/{} right, ", self.times.len())?;
        let [median, p99, worst] = [self.times.len() / 2, self.hundredth(), 0].map(|others| self.all_but(others));
        write!(f, "p50 {median:.1?}, p99 {p99:.1?}, worst {worst:.1?}")
    }
}

/// One call of `/hello`; what is not exactly its answer is an error.
fn call(connection: &mut Option<BufReader<TcpStream>>, address: SocketAddr, kept: bool) -> Result<(), String> {
    let failed = |step: &'static str| move |error: std::io::Error| format!("{step}: {error}");
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, GIVE_UP).map_err(failed("connect"))?;
            let options = [stream.set_read_timeout(Some(GIVE_UP)), stream.set_write_timeout(Some(GIVE_UP))];
            options
                .into_iter()
                .chain([stream.set_nodelay(true)])
                .collect::<Result<(), _>>()
                .map_err(failed("option"))?;
            BufReader::new(stream)
        }
    };
    let close = if kept { "" } else { "Connection: close\r\n" };
    let request = format!("GET /hello HTTP/1.1\r\nHost: victim\r\nMemory-Request: 1\r\n{close}\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(failed("send"))?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let size = stream.read_line(&mut head).map_err(failed("head"))?;
        if size == 0 || head.len() > 64 << 10 {
            return Err(format!("no head: {:?}", head.get(..200).unwrap_or(&head)));
        }
    }
    let mut body = [0; 6];
    if !head.starts_with("HTTP/1.1 200 ") || !head.to_ascii_lowercase().contains("\r\ncontent-length: 6\r\n") {
        return Err(format!("not its answer: {head:?}"));
    }
    stream.read_exact(&mut body).map_err(failed("body"))?;
    if &body != b"hello\n" {
        return Err(format!("not its body: {body:?}"));
    }
    if !stream.buffer().is_empty() {
        return Err(format!("more than its answer: {:?}", String::from_utf8_lossy(stream.buffer())));
    }
    if kept {
        *connection = Some(stream);
        return Ok(());
    }
    match stream.read(&mut body).map_err(failed("end"))? {
        0 => Ok(()),
        _ => Err(format!("more than its answer: {:?}", String::from_utf8_lossy(&body))),
    }
}

fn call_by_http2(address: SocketAddr) -> Result<(), String> {
    let request = Request::get("/hello").version(Version::HTTP_2).header("memory-request", "1");
    whole(address, request, Bytes::new(), b"hello\n")
}

fn upload(address: SocketAddr) -> Result<(), String> {
    let body = Bytes::from(vec![b'v'; UPLOAD]);
    let request = Request::post(format!("/{UPLOADS}")).header("memory-request", "1");
    whole(address, request, body.clone(), &body)
}

/// A call on a connection of its own, whose answer must be `expected`.
fn whole(address: SocketAddr, request: http::request::Builder, body: Bytes, expected: &[u8]) -> Result<(), String> {
    let answer = exchange_alone(address, request, body).map_err(|broken| format!("{broken:?}"))?;
    if answer.status == 200 && answer.body == expected {
        return Ok(());
    }
    let start = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
    Err(format!("not its answer: {}, {start:?}", answer.status))
}
