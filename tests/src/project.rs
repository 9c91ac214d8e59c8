//! A developer's project, and `wasmbox` run in it.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use rustix::process::Signal;

use crate::{Answer, Request, client::exchange, eventually, process::Process, temporary::TempDir, workspace};

/// What compilers are found by. Whatever else is set where the tests run is not for them.
const KEPT: [&str; 6] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "WASI_CC"];
/// What begins or ends like this says how registries are reached.
const KEPT_PREFIXES: [&str; 6] = ["pip_", "npm_config_", "go", "ssl_cert_", "node_extra_", "requests_"];
const KEPT_SUFFIX: &str = "_proxy";

/// Directories of a test's own: a project, a cache, a place for temporary files. When it is dropped nothing may be left in the last.
pub struct Project {
    directory: TempDir,
    name: String,
}

impl Project {
    /// A project without any file but `functions/NAME.toml`.
    pub fn with_settings(name: &str, settings: &str) -> Project {
        let project = Project::nothing(name);
        fs::create_dir(project.path()).expect("a new directory");
        project.write(&format!("functions/{name}.toml"), settings);
        project
    }

    /// As `wasmbox new` makes it.
    ///
    /// # Panics
    /// If it does not.
    pub fn new(name: &str, language: &str) -> Project {
        let project = Project::nothing(name);
        let made = project.run_in(project.directory.path(), &["new", name, "--lang", language], b"");
        assert!(made.status.success(), "{made:?}");
        project
    }

    /// A place for one.
    pub fn nothing(name: &str) -> Project {
        let directory = TempDir::new();
        for name in ["cache", "tmp"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory");
        }
        Project { directory, name: name.into() }
    }

    /// The directory that the project is in.
    pub fn above(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    pub fn read(&self, file: &str) -> String {
        let path = self.path().join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// In one step, as editors do.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        let new = path.with_file_name(".new");
        fs::write(&new, content).expect("a new file");
        fs::rename(new, path).expect("a new name");
    }

    pub fn replace(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} has no {old:?}: {text}");
        self.write(file, text.replace(old, new));
    }

    /// `wasmbox` or another program in the project.
    pub fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let kept = env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept));
        command.args(arguments).env_clear().envs(kept).stdin(Stdio::null());
        command.env("WASMBOX", workspace::wasmbox()).env("CACHE_DIR", self.directory.path().join("cache"));
        command.env("TMPDIR", self.directory.path().join("tmp")).current_dir(self.path());
        command
    }

    /// `wasmbox` to its end, with `input`.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.run_in(&self.path(), arguments, input)
    }

    fn run_in(&self, directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(workspace::wasmbox(), arguments);
        output(command.current_dir(directory), input)
    }

    /// The project's own test, to its end.
    pub fn test(&self) -> Output {
        output(&mut self.command("sh", &["test.sh"]), b"")
    }

    /// `wasmbox dev`, which serves when this returns.
    ///
    /// # Panics
    /// If it does not start.
    pub fn dev(&self, flags: &[&str]) -> Dev<'_> {
        let log = self.directory.path().join("dev.log");
        let file = File::create(&log).expect("a new file");
        let mut command = self.command(workspace::wasmbox(), &["dev", "--port=0", "--admin-port=0"]);
        command.args(flags).stdout(file.try_clone().expect("another descriptor")).stderr(file);
        let child = command.spawn().expect("it runs");
        let mut dev = Dev { project: self, log, child: Some(child), address: String::new() };
        let line = dev.said("serving ");
        let (_, address) = line.split_once("http://").expect("an address");
        // Coloured, it ends with a sequence.
        dev.address = address.trim_end_matches("\u{1b}[0m").to_owned();
        dev
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left: Vec<_> =
                fs::read_dir(self.directory.path().join("tmp")).expect("the directory").flatten().collect();
            assert!(left.is_empty(), "temporary files are left: {left:?}");
            let functions = fs::read_dir(self.path().join("functions")).into_iter().flatten().flatten();
            let hidden: Vec<_> =
                functions.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).collect();
            assert!(hidden.is_empty(), "files are left: {hidden:?}");
        }
    }
}

/// A running `wasmbox dev`. Dropped, it is ended with SIGTERM, and nothing of it may be left.
pub struct Dev<'a> {
    project: &'a Project,
    log: PathBuf,
    child: Option<Child>,
    address: String,
}

impl Dev<'_> {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a line of its output has `part`, and gives it.
    pub fn said(&self, part: &str) -> String {
        self.said_after(0, part)
    }

    /// As `said`, in the output behind the first bytes.
    pub fn said_after(&self, bytes: usize, part: &str) -> String {
        let what = format!("{part:?} among what wasmbox dev says");
        eventually(&what, || {
            let log = self.log();
            log[bytes..].lines().find(|line| line.contains(part)).map(str::to_owned)
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// # Panics
    /// If there is no answer.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let address = self.address.parse().expect("an address");
        exchange(address, Request::post(path), body.to_owned()).expect("an answer")
    }

    /// Waits until an answer is that.
    pub fn answers(&self, path: &str, text: &str) {
        eventually(&format!("{text:?} from {path}"), || (self.post(path, "").text() == text).then_some(()));
    }

    /// # Panics
    /// If it was ended.
    pub fn process(&self) -> Process {
        Process(self.child.as_ref().expect("it runs").id())
    }

    /// Sends a signal, and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        Process(child.id()).signal(signal);
        eventually("the end of wasmbox dev", || child.try_wait().expect("the child is ours"))
    }

    /// Waits until no process is left that runs in the project, or serves it.
    pub fn is_gone(&self) {
        let directory = self.project.path();
        eventually("no process of the project's", || processes_of(&directory).is_empty().then_some(()));
    }
}

impl Drop for Dev<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut child) = self.child.take() {
                // With what it has started; a kill would leave that.
                let _ = Process(child.id()).try_signal(Signal::TERM);
                let _ = child.wait();
            }
            eprintln!("wasmbox dev said:\n{}", self.log());
            return;
        }
        if self.child.is_some() {
            let status = self.end(Signal::TERM);
            assert!(status.success(), "{status}: {}", self.log());
        }
        self.is_gone();
    }
}

fn is_kept(name: &str) -> bool {
    let lower = name.to_lowercase();
    KEPT.contains(&name)
        || lower.ends_with(KEPT_SUFFIX)
        || KEPT_PREFIXES.into_iter().any(|prefix| lower.starts_with(prefix))
}

/// Those whose working directory it is, or that name it in their arguments.
fn processes_of(directory: &Path) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").expect("proc(5)").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_of_it = |process: &Process| {
        let of = |file: &str| format!("/proc/{}/{file}", process.0);
        let works_there = fs::read_link(of("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        let arguments = fs::read(of("cmdline")).unwrap_or_default();
        works_there || String::from_utf8_lossy(&arguments).contains(&*directory.to_string_lossy())
    };
    numbers.map(Process).filter(is_of_it).collect()
}

/// Runs it to its end, with `input`.
///
/// # Panics
/// If it does not run.
pub fn output(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // One that does not read its input is no error.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("it ends")
}
