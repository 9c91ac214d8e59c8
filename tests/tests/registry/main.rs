//! Functions in registries of images: `wasmbox push FILE oci://...` and `wasmbox pull`.

mod authentication;
mod hostile;
mod into_a_box;
mod keys;
mod lying_registry;
mod pull;
mod real;
mod signatures;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
};

use wasmbox_tests::{
    outcome::{self, good},
    temporary::TempDir,
    workspace,
};

/// A directory to work in, and an environment without anybody's credentials.
struct Workplace(TempDir);

impl Workplace {
    fn new() -> Workplace {
        Workplace(TempDir::new())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).expect("a file");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).expect("the file is there")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::wasmbox());
        command.args(arguments).env_clear().env("HOME", self.path().join("home")).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// What is there, by name.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("the directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn at(registry: SocketAddr, name: &str) -> String {
    format!("oci://{registry}/{name}")
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let said = outcome::refused(output, parts);
    assert!(said.len() < 4096, "{said}");
    assert!(!said.chars().any(|character| character.is_control() && character != '\n'), "{said:?}");
}

fn module() -> Vec<u8> {
    wat::parse_str(wasmbox_tests::guest::arguments()).expect("a module")
}
