//! The servers that are measured: one entry of [`TARGETS`] each. A further one is a further entry.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::connection::Connection;
use crate::fixture::Fixture;
use crate::load::Load;
use crate::process::Server;
use crate::row::Row;

/// How long a fresh server is loaded before it is measured, in seconds.
const WARM_UP_SECONDS: u32 = 1;

/// A server, and how to start it.
#[derive(Debug)]
pub struct Target {
    /// Its name in the results.
    pub name: &'static str,
    /// What is started.
    pub program: Program,
    /// The arguments. Filled in are `{port}` and `{admin}`, two free ports; `{home}`, a directory with `functions` and
    /// `cache`; and `{component}`, the trivial `wasi:http` component.
    pub args: &'static [&'static str],
    /// Variables of its environment, beside those of the bench.
    pub env: &'static [(&'static str, &'static str)],
    /// The path that answers 200 once the server is up.
    pub ready: &'static str,
    /// The path of the function, which answers `hello`.
    pub path: &'static str,
}

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// This program: the bare hyper server is in it.
    Bench,
    /// The box.
    Wasmbox,
    /// The other box that `--baseline` names.
    Baseline,
    /// `wasmtime`. Its `serve` needs `-Scli` for components made with Rust's standard library.
    Wasmtime,
}

/// The arguments of `wasmtime serve` with its pooling allocator kept warm, and others.
macro_rules! tuned {
    ($($other:literal),*) => {
        &[
            "serve",
            "--addr",
            "127.0.0.1:{port}",
            "-Scli",
            "-Opooling-allocator=y",
            "-Opooling-memory-keep-resident=2097152",
            "-Opooling-table-keep-resident=65536",
            "-Opooling-async-stack-keep-resident=65536",
            "-Opooling-pagemap-scan=y",
            $($other,)*
            "{component}",
        ]
    };
}

/// How the box is started: as an operator would, with its log on. `$cache` keeps the code of one box from the other.
macro_rules! wasmbox_serve {
    ($cache:literal) => {
        &[
            "serve",
            "--functions-dir",
            "{home}/functions",
            "--cache-dir",
            $cache,
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--admin-port",
            "{admin}",
            "--log-format",
            "text",
            "--log-level",
            "info",
        ]
    };
}

/// All targets, in the order in which each round measures them.
pub const TARGETS: &[Target] = &[
    Target { name: "hyper", program: Program::Bench, args: &["hello", "{port}"], env: &[], ready: "/", path: "/" },
    Target {
        name: "wasmbox-core",
        program: Program::Wasmbox,
        args: WASMBOX_SERVE,
        env: &[],
        ready: "/-/ready",
        path: "/hello-core",
    },
    Target {
        name: "wasmbox-http",
        program: Program::Wasmbox,
        args: WASMBOX_SERVE,
        env: &[],
        ready: "/-/ready",
        path: "/hello-http",
    },
    Target {
        name: "wasmbox-core-baseline",
        program: Program::Baseline,
        args: BASELINE_SERVE,
        env: &[],
        ready: "/-/ready",
        path: "/hello-core",
    },
    Target {
        name: "wasmbox-http-baseline",
        program: Program::Baseline,
        args: BASELINE_SERVE,
        env: &[],
        ready: "/-/ready",
        path: "/hello-http",
    },
    Target {
        name: "wasmbox-http-reuse",
        program: Program::Wasmbox,
        args: WASMBOX_SERVE,
        env: &[],
        ready: "/-/ready",
        path: "/hello-http-reuse",
    },
    Target {
        name: "wasmbox-core-workers",
        program: Program::Wasmbox,
        args: WASMBOX_SERVE,
        env: ON_WORKERS,
        ready: "/-/ready",
        path: "/hello-core",
    },
    Target {
        name: "wasmbox-http-workers",
        program: Program::Wasmbox,
        args: WASMBOX_SERVE,
        env: ON_WORKERS,
        ready: "/-/ready",
        path: "/hello-http",
    },
    Target {
        name: "wasmtime-serve",
        program: Program::Wasmtime,
        args: &["serve", "--addr", "127.0.0.1:{port}", "-Scli", "{component}"],
        env: &[],
        ready: "/",
        path: "/",
    },
    Target {
        name: "wasmtime-serve-tuned",
        program: Program::Wasmtime,
        args: tuned![],
        env: &[],
        ready: "/",
        path: "/",
    },
    Target {
        name: "wasmtime-serve-reuse",
        program: Program::Wasmtime,
        args: tuned!["--max-instance-reuse-count", "128"],
        env: &[],
        ready: "/",
        path: "/",
    },
];

/// No guest begins on the thread of its connection.
const ON_WORKERS: &[(&str, &str)] = &[("INLINE", "off")];

/// How the box is started.
pub const WASMBOX_SERVE: &[&str] = wasmbox_serve!["{home}/cache"];

/// How the box that it is compared with is started.
const BASELINE_SERVE: &[&str] = wasmbox_serve!["{home}/cache-baseline"];

/// A server that was started, and where it listens.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub server: Server,
    /// Its port on the loopback interface.
    pub port: u16,
}

impl Target {
    /// Starts a server, which may not be up yet, with the directory `home`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&self, fixture: &Fixture, home: &Path) -> Result<Running> {
        let [port, admin] = free_ports()?;
        let mut command = Command::new(fixture.program(self.program));
        command.args(self.args.iter().map(|arg| {
            arg.replace("{port}", &port.to_string())
                .replace("{admin}", &admin.to_string())
                .replace("{home}", &home.to_string_lossy())
                .replace("{component}", &fixture.component().to_string_lossy())
        }));
        // wasmtime keeps compiled code below it, else in the user's home.
        command.env("XDG_CACHE_HOME", home.join("xdg-cache"));
        command.envs(self.env.iter().copied());
        let server = Server::start(command, &fixture.log(self.name))?;
        Ok(Running { server, port })
    }

    /// One round: starts a server, checks its answer, warms it up, and measures it under `load` for `seconds`.
    ///
    /// # Errors
    ///
    /// When the server does not start, does not answer `hello`, or ends under the load.
    pub async fn measure(&self, fixture: &Fixture, load: Load, seconds: u32) -> Result<Row> {
        self.round(fixture, load, seconds).await.with_context(|| format!("target {}", self.name))
    }

    async fn round(&self, fixture: &Fixture, load: Load, seconds: u32) -> Result<Row> {
        let Running { mut server, port } = self.start(fixture, fixture.home())?;
        let mut connection = Connection::when_ready(&mut server, port, self.ready).await?;
        connection.hello(self.path).await?;
        drop(connection);
        let script = fixture.script();
        let warm_up = Load { gap_ms: 0, ..load };
        warm_up.run(&script, port, self.path, WARM_UP_SECONDS).await?;

        let before = server.cpu()?;
        let answers = load.run(&script, port, self.path, seconds).await?;
        let cpu = server.cpu()?.saturating_sub(before);
        Ok(Row {
            name: self.name,
            connections: load.connections,
            gap_ms: load.gap_ms,
            req_per_s: answers.requests as f64 * 1e6 / answers.duration_us as f64,
            p50_us: answers.p50_us,
            p99_us: answers.p99_us,
            cpu_us: cpu.as_secs_f64() * 1e6 / answers.requests as f64,
            rss_kib: server.rss_kib()?,
            errors: answers.errors,
            held: None,
        })
    }
}

/// Two different ports that nobody listens on now.
fn free_ports() -> Result<[u16; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port");
    let listeners = [bind()?, bind()?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TARGETS.len());
    }

    #[test]
    fn two_ports_differ() {
        let [port, admin] = free_ports().unwrap();
        assert_ne!(port, admin);
    }
}
