//! A real server, in a directory of its own.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Version, request::Builder};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cgroup::{self, TestCgroup},
    client::{Answer, Broken, exchange},
    eventually,
    metrics::Metrics,
    patience::PATIENCE,
    process::{Process, is_listening},
    temporary::TempDir,
    wire::Wire,
    workspace,
};

/// The most of a server's log that is shown when a test fails, bytes.
const SHOWN: usize = 16 << 10;

/// How a server is started.
pub struct Launch {
    directory: TempDir,
    wrapper: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running server. Dropping it ends it with SIGTERM, and checks that it obeys and that nothing of it is left.
pub struct WasmBox {
    launch: Launch,
    child: Option<Child>,
    /// The function port and the admin port.
    address: SocketAddr,
    admin: SocketAddr,
    is_http2: AtomicBool,
}

/// By default a request may ask for half of a box, which are small here.
const MOST: (&str, &str) = ("--max-memory-request", "4Gi");

impl WasmBox {
    /// A server that is not started yet: with empty directories, free ports, an empty environment.
    pub fn launch() -> Launch {
        let directory = TempDir::new();
        for name in ["functions", "cache"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory");
        }
        Launch { directory, wrapper: Vec::new(), flags: Vec::new(), environment: Vec::new() }
    }

    /// A server with one function.
    pub fn with(file: &str, content: impl AsRef<[u8]>) -> WasmBox {
        WasmBox::launch().function(file, content).start()
    }
}

impl Launch {
    /// Adds a file to the functions directory.
    #[must_use]
    pub fn function(self, file: &str, content: impl AsRef<[u8]>) -> Launch {
        fs::write(self.functions().join(file), content).expect("a file of the functions directory");
        self
    }

    /// Adds a built example.
    #[must_use]
    pub fn example(self, file: &str) -> Launch {
        let content = fs::read(workspace::example(file)).expect("the example can be read");
        self.function(file, content)
    }

    /// Adds a flag, `--max-body` for instance, with its value.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Launch {
        self.flags.push(format!("{name}={}", value.to_string()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Launch {
        self.environment.push((name.into(), value.to_string()));
        self
    }

    /// Starts the server through a command that becomes the one whose words are appended to it: in a namespace, as another user. What is
    /// added last is innermost.
    #[must_use]
    pub fn through(mut self, wrapper: impl IntoIterator<Item = impl Into<String>>) -> Launch {
        self.wrapper.extend(wrapper.into_iter().map(Into::into));
        self
    }

    /// Starts the server in a cgroup.
    #[must_use]
    pub fn within(self, cgroup: &TestCgroup) -> Launch {
        self.through(cgroup.enter())
    }

    /// The directory in which all others are; tests may put files there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn functions(&self) -> PathBuf {
        self.directory().join("functions")
    }

    pub fn cache(&self) -> PathBuf {
        self.directory().join("cache")
    }

    /// What the server writes its log to.
    pub fn log_file(&self) -> PathBuf {
        self.directory().join("log")
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The command line; flags of the test come last and override.
    fn command(&self) -> Command {
        let log = OpenOptions::new().create(true).append(true).open(self.directory().join("log")).expect("a log file");
        let path = |name: &str, path: &Path| format!("{name}={}", path.display());
        let binary = workspace::wasmbox().into_os_string();
        let mut words = self.wrapper.iter().map(OsString::from).chain([binary]);
        let mut command = Command::new(words.next().expect("the server's binary is one"));
        command.args(words);
        let named = |name: &str| self.flags.iter().any(|flag| flag.starts_with(&format!("{name}=")));
        command.arg("serve");
        for (name, value) in [("--host", "127.0.0.1"), ("--admin-host", "127.0.0.1"), ("--drain-timeout", "2s"), MOST] {
            let set = self.environment.iter().any(|(variable, _)| name == MOST.0 && variable == "MAX_MEMORY_REQUEST");
            if !named(name) && !set {
                command.arg(format!("{name}={value}"));
            }
        }
        for (name, variable) in [("--port", "WEBSERVER_PORT"), ("--admin-port", "HEALTHCHECK_PORT")] {
            if !named(name) && !self.environment.iter().any(|(name, _)| name == variable) {
                command.arg(format!("{name}=0"));
            }
        }
        for (name, directory) in [("--functions-dir", self.functions()), ("--cache-dir", self.cache())] {
            if !named(name) {
                command.arg(path(name, &directory));
            }
        }
        command
            .args(&self.flags)
            .current_dir(self.directory())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("another descriptor"))
            .stderr(log);
        command
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// With its log, if it does not get ready.
    #[must_use]
    pub fn start(self) -> WasmBox {
        let known = self.log().len();
        let mut child = self.command().spawn().expect("the server's binary runs");
        let give_up = Instant::now() + PATIENCE;
        let (address, admin) = loop {
            if let Some(addresses) = addresses(&self.log()[known..]) {
                break addresses;
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the server did not start ({status}):\n{}", self.log());
            }
            if Instant::now() > give_up {
                let _ = child.kill();
                panic!("the server does not get ready:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let server = WasmBox { launch: self, child: Some(child), address, admin, is_http2: AtomicBool::default() };
        server.get("/-/live").ok();
        server
    }

    /// Starts a server that must refuse to; gives what it says.
    ///
    /// # Panics
    /// If it starts.
    pub fn refusal(&self) -> String {
        let (code, said) = self.failure();
        assert!(matches!(code, 1 | 2), "exit code {code}: {said}");
        said
    }

    /// Starts a server that must fail to; gives its exit code, and what it says.
    ///
    /// # Panics
    /// If it starts, or is ended by a signal.
    pub fn failure(&self) -> (i32, String) {
        let known = self.log().len();
        let said = || self.log().split_off(known);
        let mut child = self.command().spawn().expect("the server's binary runs");
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().expect("the child is ours") {
                Some(status) => break status,
                None if Instant::now() > give_up || addresses(&said()).is_some() => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server runs, though it should refuse to:\n{}", said());
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        (status.code().unwrap_or_else(|| panic!("{status}: {}", said())), said())
    }
}

/// The two addresses that a starting server logs.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("serving, with") && line.contains("admin"))?;
    let address = |name: &str| {
        // `name=value` in text, `"name":"value"` in JSON.
        let (_, rest) = line.split_once(&format!("{name}=")).or_else(|| line.split_once(&format!("\"{name}\":\"")))?;
        rest.split([' ', '"']).next()?.parse().ok()
    };
    Some((address("address")?, address("admin")?))
}

impl WasmBox {
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
        let pid = i32::try_from(self.process().0).ok().and_then(Pid::from_raw).expect("a process number");
        kill_process(pid, signal).expect("the process is ours");
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
        let unused =
            Launch { directory: TempDir::new(), wrapper: Vec::new(), flags: Vec::new(), environment: Vec::new() };
        std::mem::replace(&mut self.launch, unused)
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
            assert!(!is_listening(address.port()), "something still listens on {address}");
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
