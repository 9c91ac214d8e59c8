//! A real server, in a directory of its own. [`Launch`] says how it is started.

mod launch;

use std::{
    collections::HashSet,
    fs::{self, File},
    mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Version, request::Builder};
use rustix::process::Signal;

pub use self::launch::Launch;
use crate::{
    cgroup,
    client::{Answer, Broken, exchange},
    eventually,
    metrics::Metrics,
    patience::PATIENCE,
    process::{Process, listeners},
    wire::Wire,
};

/// The most of a server's log that is shown when a test fails, bytes.
const SHOWN: usize = 16 << 10;

/// A running server. Dropping it ends it with SIGTERM, and checks that it obeys and that nothing of it is left.
pub struct WasmBox {
    launch: Launch,
    child: Option<Child>,
    /// The function port and the admin port.
    address: SocketAddr,
    admin: SocketAddr,
    /// The inodes of its listening sockets.
    listeners: HashSet<String>,
    is_http2: AtomicBool,
}

impl WasmBox {
    /// A server that is not started yet: with empty directories, free ports, an empty environment.
    pub fn launch() -> Launch {
        Launch::new()
    }

    /// A server with one function.
    pub fn with(file: &str, content: impl AsRef<[u8]>) -> WasmBox {
        WasmBox::launch().function(file, content).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn launched(&self) -> &Launch {
        &self.launch
    }

    pub fn functions(&self) -> PathBuf {
        self.launch.functions()
    }

    /// What it has logged since its first start.
    pub fn log(&self) -> String {
        self.launch.log()
    }

    /// Waits until a line of the log has all of `parts`, and gives it.
    pub fn logged(&self, parts: &[&str]) -> String {
        eventually(&format!("{parts:?} in the log"), || {
            let log = self.log();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }

    /// # Panics
    /// If it was ended.
    pub fn process(&self) -> Process {
        Process(self.child.as_ref().expect("the server runs").id())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path), "")
    }

    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Request::post(path), body)
    }

    /// # Panics
    /// If there is no whole answer.
    pub fn call(&self, request: Builder, body: impl Into<Bytes>) -> Answer {
        self.try_call(request, body).expect("a whole answer")
    }

    /// Sends requests in `version` from now on, unless they are written byte by byte.
    pub fn speak(&self, version: Version) {
        self.is_http2.store(version == Version::HTTP_2, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Broken`] if there is no whole answer.
    pub fn try_call(&self, request: Builder, body: impl Into<Bytes>) -> Result<Answer, Broken> {
        let is_http2 = self.is_http2.load(Ordering::Relaxed);
        let request = if is_http2 { request.version(Version::HTTP_2) } else { request };
        exchange(self.address, request, body)
    }

    /// Asks the admin port.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub fn admin(&self, path: &str) -> Answer {
        exchange(self.admin, Request::get(path), "").expect("a whole answer")
    }

    /// Sends bytes to the function port.
    pub fn wire(&self, bytes: impl AsRef<[u8]>) -> Wire {
        Wire::send_to(self.address, bytes)
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.admin("/metrics").ok().text().to_owned())
    }

    /// How many invocations of `function` are running.
    pub fn running(&self, function: &str) -> f64 {
        self.metrics().sum("wasmbox_in_flight_invocations", &[&format!("function=\"{function}\"")])
    }

    /// Waits until `number` invocations of `function` are running.
    pub fn wait_until_running(&self, function: &str, number: usize) {
        eventually(&format!("{number} running invocations of {function}"), || {
            (self.running(function) == number as f64).then_some(())
        });
    }

    /// Waits until nothing runs, and nothing is occupied by what ran.
    pub fn wait_until_idle(&self) {
        eventually("nothing runs", || {
            let metrics = self.metrics();
            let occupied = ["wasmbox_in_flight_invocations", "wasmbox_in_flight_resource_units"]
                .map(|metric| metrics.sum(metric, &[]));
            (occupied == [0.0, 0.0]).then_some(())
        });
    }

    /// Puts a file into the functions directory, in one step.
    ///
    /// # Panics
    /// If that fails.
    pub fn put(&self, file: &str, content: impl AsRef<[u8]>) {
        let temporary = self.functions().join(format!(".{file}.new"));
        fs::write(&temporary, content).expect("a new file");
        fs::rename(&temporary, self.functions().join(file)).expect("a new name");
    }

    /// # Panics
    /// If it was ended.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits for the server's end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                return status;
            }
            if Instant::now() > give_up {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server does not end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the server with SIGTERM, which must succeed, and gives back its directory.
    #[must_use]
    pub fn stop(mut self) -> Launch {
        self.end();
        mem::replace(&mut self.launch, Launch::new())
    }

    fn end(&mut self) {
        if self.child.is_some() {
            let process = self.process();
            self.signal(Signal::TERM);
            let status = self.wait();
            assert_eq!(status.code(), Some(0), "{status} after SIGTERM:\n{}", self.log());
            assert!(!process.exists(), "process {} is still there", process.0);
            let leaves = cgroup::leaves_of(process);
            assert!(leaves.is_empty(), "{leaves:?} are left");
        }
        for address in [self.address, self.admin] {
            let left = listeners(address.port()).intersection(&self.listeners).count();
            assert_eq!(left, 0, "its sockets still listen on {address}");
        }
        // Guests may panic; their lines are marked.
        let panicked = |line: &str| line.contains("panicked") && !line.contains("INFO guest: ");
        assert!(!self.log().lines().any(panicked), "a panic of the server's is in its log:\n{}", self.log());
        for entry in fs::read_dir(self.launch.cache()).into_iter().flatten().flatten() {
            let left = entry.path().extension().is_some_and(|ending| ending == "tmp");
            assert!(!left, "{} is left", entry.path().display());
        }
    }
}

impl Drop for WasmBox {
    fn drop(&mut self) {
        if !thread::panicking() {
            return self.end();
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        let end = log.floor_char_boundary(log.len().saturating_sub(SHOWN));
        eprintln!("the end of the server's log:\n{}", &log[end..]);
    }
}

/// Makes a file that is still open for writing.
///
/// # Panics
/// If that fails.
pub fn half_written(path: &Path, content: &[u8]) -> File {
    use std::io::Write;
    let mut file = File::create(path).expect("a new file");
    file.write_all(content).expect("a file takes what is written");
    file
}
