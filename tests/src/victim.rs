//! Others than the attackers of a box: a customer calls its own function all the time, a probe asks both ports. They count how they are served.

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
/// What an answer may have of a head, or of a body.
const LARGEST: usize = 64 << 10;
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

    fn to(self, address: SocketAddr) -> Call {
        let mut connection = None;
        Box::new(move || {
            let called = match self {
                Way::New => hello(&mut connection, address, false),
                Way::Kept => hello(&mut connection, address, true),
                Way::Http2 => hello_by_http2(address),
                Way::Upload => upload(address),
            };
            called.map_err(|error| format!("{self:?}: {error}"))
        })
    }
}

/// Calls in some ways, or asks both ports, all the time, until it is asked how it went.
///
/// Its threads are in a cgroup with a high share of the CPU, as the box under attack is: what else the machine does is not counted.
pub struct Victim {
    who: &'static str,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Calls>>,
    _cgroup: TestCgroup,
}

/// One call; an error is why it was not answered right.
type Call = Box<dyn FnMut() -> Result<(), String> + Send>;

/// How calls went.
#[derive(Debug)]
pub struct Calls {
    who: &'static str,
    times: Vec<Duration>,
    wrong: Vec<String>,
}

impl Victim {
    /// Starts to call.
    pub fn of(address: SocketAddr, ways: &[Way]) -> Victim {
        Victim::start("victim", ways.iter().map(|way| way.to(address)).collect())
    }

    /// Starts to ask each port in turns whether the box lives and is ready, each time on a new connection.
    pub fn probing(functions: SocketAddr, admin: SocketAddr) -> Victim {
        let probe = |address, live: &'static str, ready: &'static str| -> Call {
            // Whoever is not ready says so.
            let mut asked = [(live, &[200][..]), (ready, &[200, 503])].into_iter().cycle();
            Box::new(move || {
                let (path, statuses) = asked.next().expect("they are asked again and again");
                match get(&mut None, address, path, false).map_err(|error| format!("{path}: {error}"))? {
                    (status, body) if statuses.contains(&status) && !body.is_empty() => Ok(()),
                    (status, body) => Err(format!("{path}: {status}, {:?}", String::from_utf8_lossy(&body))),
                }
            })
        };
        Victim::start("probes", vec![probe(functions, "/-/live", "/-/ready"), probe(admin, "/live", "/ready")])
    }

    fn start(who: &'static str, calls: Vec<Call>) -> Victim {
        let cgroup = TestCgroup::cpu();
        let over = Arc::new(AtomicBool::new(false));
        let threads = Vec::from_iter(calls.into_iter().map(|call| {
            let (over, join) = (over.clone(), cgroup.join_here());
            thread::spawn(move || {
                join();
                Calls::until(&over, who, call)
            })
        }));
        Victim { who, over, threads, _cgroup: cgroup }
    }

    /// Ends the calls.
    ///
    /// # Panics
    /// If a calling thread panicked.
    pub fn result(mut self) -> Calls {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Calls::of(self.who);
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
    fn of(who: &'static str) -> Calls {
        Calls { who, times: Vec::new(), wrong: Vec::new() }
    }

    fn until(over: &AtomicBool, who: &'static str, mut call: Call) -> Calls {
        let mut calls = Calls::of(who);
        while !over.load(Ordering::Relaxed) {
            let started = Instant::now();
            calls.wrong.extend(call().err());
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
        assert!(self.times.len() >= LEAST, "too few calls: {self}");
        assert!(self.wrong.len() <= self.hundredth(), "{self}");
        assert!(self.all_but(self.hundredth()) < P99, "{self}");
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = self.times.len() - self.wrong.len();
        write!(f, "{} {right}/{} right, ", self.who, self.times.len())?;
        let [median, p99, worst] = [self.times.len() / 2, self.hundredth(), 0].map(|others| self.all_but(others));
        write!(f, "p50 {median:.1?}, p99 {p99:.1?}, worst {worst:.1?}")?;
        let some = &self.wrong[..self.wrong.len().min(5)];
        if some.is_empty() { Ok(()) } else { write!(f, ", wrong: {some:?}") }
    }
}

/// One call of `/hello`; what is not exactly its answer is an error.
fn hello(connection: &mut Option<BufReader<TcpStream>>, address: SocketAddr, kept: bool) -> Result<(), String> {
    match get(connection, address, "/hello", kept)? {
        (200, body) if body == b"hello\n" => Ok(()),
        (status, body) => Err(format!("not its answer: {status}, {:?}", String::from_utf8_lossy(&body))),
    }
}

/// The status and the body of an answer behind which nothing comes; what is no such answer is an error, and ends the connection.
fn get(
    connection: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    path: &str,
    kept: bool,
) -> Result<(u16, Vec<u8>), String> {
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
    // By a name at which the admin port answers anything.
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nMemory-Request: 1\r\n{close}\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(failed("send"))?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let size = stream.read_line(&mut head).map_err(failed("head"))?;
        if size == 0 || head.len() > LARGEST {
            return Err(format!("no head: {:?}", head.get(..200).unwrap_or(&head)));
        }
    }
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let (Some(status), Some(length @ 0..=LARGEST)) = (status, length) else {
        return Err(format!("not its head: {head:?}"));
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(failed("body"))?;
    if !stream.buffer().is_empty() {
        return Err(format!("more than its answer: {:?}", String::from_utf8_lossy(stream.buffer())));
    }
    if kept {
        *connection = Some(stream);
    } else if stream.read(&mut [0]).map_err(failed("end"))? > 0 {
        return Err("more than its answer".into());
    }
    Ok((status, body))
}

fn hello_by_http2(address: SocketAddr) -> Result<(), String> {
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
