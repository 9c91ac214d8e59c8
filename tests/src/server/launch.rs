//! How a server is started, in directories of its own.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use super::WasmBox;
use crate::{cgroup::TestCgroup, eventually, patience::PATIENCE, process::listeners, temporary::TempDir, workspace};

/// How a server is started.
pub struct Launch {
    directory: TempDir,
    wrapper: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// By default a request may ask for half of a box, which are small here.
const MOST: (&str, &str) = ("--max-memory-request", "4Gi");

impl Launch {
    /// With empty directories, free ports, an empty environment.
    pub(super) fn new() -> Launch {
        let directory = TempDir::new();
        let launch = Launch { directory, wrapper: Vec::new(), flags: Vec::new(), environment: Vec::new() };
        for directory in [launch.functions(), launch.cache()] {
            fs::create_dir(directory).expect("a new directory");
        }
        launch
    }

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

    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The command line; flags of the test come last and override.
    fn command(&self) -> Command {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log file");
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
        // The kernel's list may miss one, if another ends while it is read.
        let listeners = eventually("both of its sockets are listed", || {
            let listeners: HashSet<_> = [address, admin].iter().flat_map(|it| listeners(it.port())).collect();
            (listeners.len() > 1).then_some(listeners)
        });
        let is_http2 = AtomicBool::default();
        let server = WasmBox { launch: self, child: Some(child), address, admin, listeners, is_http2 };
        server.get("/-/live").ok();
        server
    }

    /// Starts a server that must refuse to; gives what it says, which names what is expected, or ends with what to do.
    ///
    /// # Panics
    /// If it starts, or says nothing of that.
    pub fn refusal(&self) -> String {
        let (code, said) = self.failure();
        assert!(matches!(code, 1 | 2), "exit code {code}: {said}");
        let last = said.lines().rfind(|line| line.starts_with("wasmbox: "));
        let is_remedy = |part: &str| part.split(": ").any(|part| REMEDIES.iter().any(|verb| part.starts_with(verb)));
        if let Some(last) = last {
            let teaches = ["expected ", "[possible values: "].iter().any(|part| last.contains(part))
                || last.split("; ").last().is_some_and(is_remedy);
            assert!(teaches, "it does not say what to do: {last}");
        }
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

/// How a remedy begins.
const REMEDIES: [&str; 13] = [
    "choose ", "create ", "enable ", "give ", "have ", "let ", "lower ", "make ", "name ", "raise ", "remove ", "run ",
    "with ",
];

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
