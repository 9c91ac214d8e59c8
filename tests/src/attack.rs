//! An attack on a box in a small container, while another customer's function is called beside it, and both ports are asked.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::{
    WasmBox,
    cgroup::TestCgroup,
    guest,
    process::Process,
    server::Launch,
    victim::{UPLOADS, Victim, Way},
};

/// How long an attack goes on that has no end of its own.
pub const TIME: Duration = Duration::from_secs(3);
/// What the victim is watched for at least.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// An address of an attacker's own: the victim has 127.0.0.1.
pub const ENEMY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Time between two looks at the process.
const LOOK: Duration = Duration::from_millis(20);

/// What is tried, and what it may cost.
pub struct Attack {
    mebibytes: u64,
    launch: Launch,
    container: TestCgroup,
    descriptors: usize,
    log_bytes: u64,
    ways: &'static [Way],
}

/// What the box took at most while it was watched.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    resident: u64,
    descriptors: usize,
    log_bytes: u64,
}

impl Attack {
    /// On a box in a container of so much memory, which serves `/hello`.
    pub fn within(mebibytes: u64) -> Attack {
        let container = TestCgroup::with_memory(mebibytes);
        let launch = WasmBox::launch().within(&container).function("hello.wat", guest::hello());
        Attack { mebibytes, launch, container, descriptors: 512, log_bytes: 16 << 20, ways: &Way::SMALL }
    }

    /// The victim also calls by HTTP/2, and posts bodies that need more than their connection: for enemies at other addresses.
    #[must_use]
    pub fn with_all_ways_to_call(mut self) -> Attack {
        self.ways = &Way::ALL;
        self.function(&format!("{UPLOADS}.wat"), guest::echo())
    }

    /// Adds a file to the functions directory.
    #[must_use]
    pub fn function(mut self, file: &str, content: impl AsRef<[u8]>) -> Attack {
        self.launch = self.launch.function(file, content);
        self
    }

    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Attack {
        self.launch = self.launch.flag(name, value);
        self
    }

    /// The directory in which all others are.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// How many descriptors the box may have open at once: some hundreds, and one for each of the attack's connections.
    #[must_use]
    pub fn descriptors(mut self, descriptors: usize) -> Attack {
        self.descriptors = descriptors;
        self
    }

    /// How much the box may log.
    #[must_use]
    pub fn log_bytes(mut self, bytes: u64) -> Attack {
        self.log_bytes = bytes;
        self
    }

    /// Attacks, while the victim calls and both ports are asked; then everything must be as if nothing had been.
    ///
    /// # Panics
    /// If the box or the victim suffered, or the attack itself panics because it was not answered as it should be.
    pub fn run(self, attack: impl FnOnce(&WasmBox)) {
        // They are measured, so that each has the machine for itself.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Attack { mebibytes, launch, container, descriptors, log_bytes, ways } = self;
        let server = launch.start();
        server.get("/hello").ok();
        let process = server.process();
        let begun = server.log().len() as u64;
        let watch = Watch::start(process, server.launched().log_file());
        let victim = Victim::of(server.address(), ways);
        let probes = Victim::probing(server.address(), server.admin_address());
        let started = Instant::now();
        attack(&server);
        thread::sleep(LEAST_TIME.saturating_sub(started.elapsed()));
        let (calls, probed) = (victim.result(), probes.result());
        let cost = watch.result();
        eprintln!("{:.1?}: {calls}; {probed}; {cost}, of {mebibytes} MiB", started.elapsed());
        assert_eq!(container.oom_kills(), 0, "the kernel killed: {cost}");
        assert!(process.is_running(), "the box has ended: {cost}");
        calls.assert_served();
        probed.assert_served();
        assert!(cost.resident < mebibytes << 20, "{cost}");
        assert!(cost.descriptors <= descriptors, "{cost}; {descriptors} are expected");
        assert!(cost.log_bytes <= begun + log_bytes, "{cost}; {log_bytes} are expected");
        let log = server.log();
        let internal = log.lines().find(|line| line.contains("code=internal"));
        assert_eq!(internal, None, "a fault of the box's");
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        server.get("/-/live").ok();
        server.admin("/live").ok();
        server.wait_until_idle();
    }
}

/// Whether an attack that began at `started` goes on.
pub fn goes_on(started: Instant) -> bool {
    started.elapsed() < TIME
}

/// Has `clients` attack at the same time, each again and again for [`TIME`].
///
/// # Panics
/// If one of them does.
pub fn together(clients: usize, attack: impl Fn(usize) + Sync) {
    let started = Instant::now();
    thread::scope(|scope| {
        for client in 0..clients {
            let attack = &attack;
            scope.spawn(move || {
                while goes_on(started) {
                    attack(client);
                }
            });
        }
    });
}

/// A connection from this address.
///
/// # Panics
/// If it is none of the loopback interface's, or the port does not take it.
pub fn connect_from(client: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from((client, 0))).expect("an address of the loopback interface");
    connect(&socket, &server).expect("the port takes it");
    TcpStream::from(socket)
}

/// Looks at a process again and again.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Cost>>,
}

impl Watch {
    fn start(process: Process, log: std::path::PathBuf) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let thread = thread::spawn(move || {
            let mut cost = Cost::default();
            while !ended.load(Ordering::Relaxed) && process.is_running() {
                cost.resident = cost.resident.max(process.try_resident_bytes().unwrap_or(0));
                cost.descriptors = cost.descriptors.max(process.try_descriptors().unwrap_or(0));
                cost.log_bytes = fs::metadata(&log).map_or(0, |log| log.len());
                thread::sleep(LOOK);
            }
            cost
        });
        Watch { over, thread: Some(thread) }
    }

    fn result(mut self) -> Cost {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is taken once").join().expect("the watch does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { resident, descriptors, log_bytes } = self;
        write!(f, "{} MiB resident, {descriptors} descriptors, {} KiB of log", resident >> 20, log_bytes >> 10)
    }
}
