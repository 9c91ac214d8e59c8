//! `deployment/systemd`: a box as a service, as the packages install it.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use wasmbox_tests::{Answer, Request, client::exchange, eventually, guest, workspace};

use super::node::{said, systemctl};

/// What is installed, and what of it the service leaves behind.
const FILES: [&str; 4] = [UNIT, USER, "/etc/wasmbox", "/var/lib/wasmbox"];
const UNIT: &str = "/usr/lib/systemd/system/wasmbox.service";
const USER: &str = "/usr/lib/sysusers.d/wasmbox.conf";
/// Not the usual ones, which pods of other tests may have.
const ENVIRONMENT: &str = "WEBSERVER_PORT=18095\nHEALTHCHECK_PORT=18086\nLOG_FORMAT=text\n";

/// The service; dropped, it is gone.
pub struct Service;

impl Service {
    /// Installs it and starts it.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Service {
        let source = workspace::root().join("deployment/systemd");
        let put = |path: &str, content: Vec<u8>| {
            let path = Path::new(path);
            fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
            fs::write(path, content).expect("a new file");
        };
        let read = |name: &str| fs::read(source.join(name)).expect("a file of deployment/systemd");
        put(USER, read("sysusers.conf"));
        put(UNIT, read("wasmbox.service"));
        put("/etc/wasmbox/config.toml", read("config.toml"));
        put("/etc/wasmbox/environment", ENVIRONMENT.into());
        for (name, content) in [("hello.wat", guest::hello()), ("busy.wat", guest::busy())] {
            put(&format!("/var/lib/wasmbox/functions/{name}"), content.into());
        }
        said(Command::new("install").arg("-m755").arg(workspace::installed("wasmbox")).arg("/usr/bin/wasmbox"));
        said(Command::new("systemd-sysusers").arg("wasmbox.conf"));
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "wasmbox.service"]);
        Service
    }

    pub fn ask(request: http::request::Builder) -> Option<Answer> {
        exchange(SocketAddr::from(([127, 0, 0, 1], 18095)), request, "").ok()
    }

    pub fn property(name: &str) -> String {
        systemctl(&["show", "--value", "--property", name, "wasmbox.service"]).trim().to_owned()
    }

    pub fn log() -> String {
        said(Command::new("journalctl").args(["--unit", "wasmbox.service", "--output", "cat", "--no-pager"]))
    }

    /// A function that had to be compiled answers.
    pub fn answers(&self) {
        let answer = eventually("the service answers", || Self::ask(Request::get("/hello")));
        assert_eq!(answer.ok().text(), "hello\n", "{}", Self::log());
    }

    /// What the unit takes from the process, and what the box gives up itself.
    pub fn is_confined(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", Self::property("MainPID"))).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.unwrap_or_else(|| panic!("{name}: {status}")).to_owned()
        };
        assert!(!field("Uid").split('\t').any(|id| id == "0"), "{status}");
        assert_eq!((&*field("NoNewPrivs"), &*field("Seccomp")), ("1", "2"));
        for name in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(name), "0000000000000000", "{name}");
        }
        let log = Self::log();
        assert!(log.contains("given_up=no_new_privs, Landlock"), "{log}");
        assert!(!log.contains(" WARN "), "{log}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        systemctl(&["stop", "wasmbox.service"]);
        if !std::thread::panicking() {
            assert_eq!(Self::property("Result"), "success", "{}", Self::log());
            assert!(!Path::new("/sys/fs/cgroup/system.slice/wasmbox.service").exists());
        }
        for path in FILES.map(Path::new) {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.unwrap_or_else(|error| eprintln!("{}: {error}", path.display()));
        }
        systemctl(&["daemon-reload"]);
    }
}
