//! Somebody who does what documents say, on a machine of their own: [`Node`] gives the network, on which the ports are free that documents
//! name.

use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use http::Request;

use crate::{
    document::{Block, Step},
    node::Node,
    patience::PATIENCE,
    shell::{Said, Shell},
    tutorial, workspace,
};

/// Where boxes of documents listen.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8095);

/// What goes on until somebody ends it; a reader types the rest in another terminal.
const SERVES: [&str; 3] = ["make run", "wasmbox dev", "wasmbox serve"];
const FOLLOWS: &str = "wasmbox logs -f ";
/// What is asked again until the answer is the one that is shown: a box may still be starting.
const ASKS: [&str; 4] = ["curl ", "wasmbox invoke ", "sudo ctr task exec ", "printf "];
/// Until a box serves; `make run` looks at first whether all is built.
const START: Duration = Duration::from_secs(300);
/// The most of what a box says that is shown when a test fails, bytes.
const SHOWN: usize = 4 << 10;
/// curl's exit code for an error's status, if it is told to have one.
const CURL_STATUS: i32 = 22;

pub struct Reader<'a> {
    // First, so that what it runs ends while its files are there.
    shell: Shell,
    node: &'a Node,
    directory: PathBuf,
    log: PathBuf,
    placeholders: Vec<(String, String)>,
    done: Vec<String>,
}

impl<'a> Reader<'a> {
    /// With this machine's files.
    pub fn new(node: &'a Node) -> Reader<'a> {
        Reader::typing(node, node.on_its_network("bash"))
    }

    /// With the node's mounts, and what is in a directory of programs first of all.
    pub fn on(node: &'a Node, programs: &Path) -> Reader<'a> {
        let mut reader = Reader::typing(node, node.command("bash"));
        // Who enters mounts is at their root.
        reader.prepare(&format!("cd {}", reader.directory.display()));
        reader.prepare(&format!("PATH={}:$PATH", programs.display()));
        reader
    }

    /// # Panics
    /// If there is no place for its files.
    fn typing(node: &'a Node, mut bash: Command) -> Reader<'a> {
        let place = |name: &str| {
            let path = node.directory().join(name);
            fs::create_dir_all(&path).expect("a directory");
            path
        };
        let (home, programs, directory) = (place("home"), place("programs"), place("work"));
        // Its progress is for terminals; an error's status is an error where a document shows no answer.
        fs::write(home.join(".curlrc"), "silent\nfail-with-body\n").expect("a file");
        let program = |name: &str, text: String| {
            let path = programs.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        };
        program("sudo", "exec \"$@\"".into());
        // busybox closes its sending side at the end of its input, as netcat does when it is told to by `-N`.
        let busybox = workspace::tool("containerd/busybox");
        program("nc", format!("[ \"$1\" = -N ] && exec {} nc \"$2\" \"$3\"", busybox.display()));
        let own = |name: &str, directory: &str| {
            let usual = env::var_os("HOME").map(|home| Path::new(&home).join(directory).into_os_string());
            env::var_os(name).or(usual).unwrap_or_default()
        };
        let path = tutorial::path();
        bash.env_clear()
            .env("PATH", format!("{}:{}", programs.display(), path.to_str().expect("a PATH of text")))
            .env("HOME", &home)
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", place("tmp"))
            .env("CARGO_HOME", own("CARGO_HOME", ".cargo"))
            .env("RUSTUP_HOME", own("RUSTUP_HOME", ".rustup"))
            .envs(env::var_os("RUSTUP_TOOLCHAIN").map(|toolchain| ("RUSTUP_TOOLCHAIN", toolchain)))
            .env("CARGO_NET_OFFLINE", "true")
            // Half of a box is the most otherwise, and the answers in documents are those of a large one.
            .env("MAX_MEMORY_REQUEST", "4Gi")
            .current_dir(&directory);
        let log = node.directory().join("served");
        Reader { shell: Shell::open(bash), node, directory, log, placeholders: Vec::new(), done: Vec::new() }
    }

    /// Where the reader begins.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a file below it.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    /// Puts something else for words that stand for it.
    pub fn knows(&mut self, word: &str, meaning: &str) {
        self.placeholders.push((word.to_owned(), meaning.to_owned()));
    }

    /// Leaves commands out that begin so: what they do is done.
    pub fn has_done(&mut self, beginning: &str) {
        self.done.push(beginning.to_owned());
    }

    /// Does what no document says, but takes for granted.
    ///
    /// # Panics
    /// If it fails.
    pub fn prepare(&mut self, command: &str) -> String {
        if is_one_of(&SERVES, command) {
            self.serve(command);
            return String::new();
        }
        let said = self.shell.run(command);
        assert_eq!(said.code, 0, "{command}: {}", said.text);
        said.text
    }

    /// Does what the blocks say, in their order.
    ///
    /// # Panics
    /// If a command fails, or says something else than what is shown.
    pub fn follow(&mut self, blocks: &[Block]) {
        for block in blocks {
            for step in &block.steps {
                let meant = |text: &str| {
                    self.placeholders.iter().fold(text.to_owned(), |text, (word, meaning)| text.replace(word, meaning))
                };
                let step = Step { command: meant(&step.command), expected: meant(&step.expected) };
                if !self.done.iter().any(|beginning| step.command.starts_with(beginning)) {
                    self.step(&step, &format!("{}, {}: {}", block.file, block.heading, step.command));
                }
            }
        }
    }

    fn step(&mut self, step: &Step, name: &str) {
        if is_one_of(&SERVES, &step.command) {
            return self.serve(&step.command);
        }
        if step.command.starts_with(FOLLOWS) {
            // Which is what timeout(1) says of a command that it has ended.
            let said = self.shell.run(&format!("timeout 2 {}", step.command));
            return assert_eq!(said.code, 124, "{name}: {}", said.text);
        }
        let give_up = Instant::now() + PATIENCE;
        loop {
            let said = self.shell.run(&step.command);
            if is_shown(&said, step) {
                return;
            }
            let again = is_one_of(&ASKS, &step.command) && Instant::now() < give_up;
            assert!(again, "{name}: expected {:?}: {said:?}\n{}", step.expected, self.served());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Starts what serves, and waits until it does.
    fn serve(&mut self, command: &str) {
        File::create(&self.log).expect("a file");
        let started = self.shell.run(&format!("( exec {command}\n) >{} 2>&1 </dev/null &", self.log.display()));
        assert_eq!(started.code, 0, "{command}: {}", started.text);
        let give_up = Instant::now() + START;
        // A function in development serves when it is built.
        let is_ready = |reader: &Reader| match command.starts_with("wasmbox dev") {
            true => reader.served().contains(": built in "),
            false => reader.node.call(ADDRESS, Request::get("/-/live"), "").is_ok(),
        };
        while !is_ready(self) {
            let runs = self.shell.run("kill -0 $!").code == 0 && Instant::now() < give_up;
            assert!(runs, "{command} does not serve: {}", self.served());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends what was started last and serves; it is over when this returns.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn stop(&mut self) {
        let stopped = self.shell.run("kill $! && { wait $!; true; }");
        assert_eq!(stopped.code, 0, "{}{}", stopped.text, self.served());
    }

    /// The end of what the last thing that serves has said.
    fn served(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log[log.floor_char_boundary(log.len().saturating_sub(SHOWN))..].to_owned()
    }
}

fn is_one_of(beginnings: &[&str], command: &str) -> bool {
    beginnings.iter().any(|beginning| command.starts_with(beginning))
}

fn is_shown(said: &Said, step: &Step) -> bool {
    match step.expected.trim() {
        "" => said.code == 0,
        _ => matches!(said.code, 0 | CURL_STATUS) && step.is_met_by(&said.text),
    }
}
