//! A real Redis, or Valkey, with a password, which keeps nothing on disk.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{eventually, workspace};

/// Which of them: the second was made from the first.
#[derive(Debug, Clone, Copy)]
pub enum Software {
    Redis,
    Valkey,
}

impl Software {
    pub const ALL: [Software; 2] = [Software::Redis, Software::Valkey];

    fn name(self) -> &'static str {
        match self {
            Software::Redis => "redis",
            Software::Valkey => "valkey",
        }
    }
}

/// A running server. Dropping it ends it.
pub struct RedisServer {
    software: Software,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    pub const PASSWORD: &str = "open-sesame";

    /// # Panics
    /// With what to do about it, if it is not there.
    pub fn start(software: Software) -> RedisServer {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let mut server = RedisServer { software, port: free.port(), child: None };
        server.begin_again();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", Self::PASSWORD, self.port)
    }

    /// On the same port, without what it has kept.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn begin_again(&mut self) {
        let name = self.software.name();
        let unpacked = workspace::root().join("target/tools").join(name);
        let server = format!("{name}-server");
        let binary = unpacked.join(&server);
        let mut command = Command::new(if binary.exists() { binary.as_path() } else { Path::new(&server) });
        if binary.exists() {
            command.env("LD_LIBRARY_PATH", &unpacked);
        }
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", Self::PASSWORD])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{server}: {error}; tests/redis-debian.sh gets it"));
        self.child = Some(child);
        eventually("it listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// # Panics
    /// If it runs no more.
    pub fn end(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end();
        }
    }
}
