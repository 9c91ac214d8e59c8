//! What a run needs before its first measurement: programs, modules, and a directory for what the servers write.

use std::fs::{self, DirBuilder};
use std::num::NonZero;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::target::Program;
use crate::{load, module, tool};

/// How the directories of runs are named, followed by the PID.
const WORK_PREFIX: &str = "work-";

/// The prepared files. Dropping it removes the directory of this run.
#[derive(Debug)]
pub struct Fixture {
    work: WorkDir,
    bench: PathBuf,
    wasmbox: PathBuf,
    baseline: Option<PathBuf>,
    wasmtime: PathBuf,
    component: PathBuf,
}

impl Fixture {
    /// Makes or installs what `programs` need. `output` is the directory that stays between runs; `wasmbox` is the box to
    /// measure, else the one of this workspace is built; `baseline` is another one.
    ///
    /// # Errors
    ///
    /// When something cannot be built, installed or written.
    pub async fn prepare(
        programs: &[Program],
        output: &Path,
        wasmbox: Option<PathBuf>,
        baseline: Option<PathBuf>,
    ) -> Result<Self> {
        let bench = std::env::current_exe().context("cannot find this program")?;
        tool::wrk().await?;
        let component = tool::component(&output.join("guests")).await?;
        let wasmtime = output.join("tools/bin/wasmtime");
        if programs.contains(&Program::Wasmtime) {
            tool::wasmtime(&wasmtime, output).await?;
        }
        let wasmbox = match wasmbox {
            Some(path) => path,
            None => bench.with_file_name("wasmbox"),
        };
        if programs.contains(&Program::Wasmbox) {
            tool::wasmbox(&wasmbox, &bench).await?;
        }
        let work = WorkDir::create(output)?;
        let fixture = Self { work, bench, wasmbox, baseline, wasmtime, component };
        fixture.write_files()?;
        Ok(fixture)
    }

    fn write_files(&self) -> Result<()> {
        let functions = self.directory("functions")?;
        self.directory("cache")?;
        self.directory("cache-baseline")?;
        write(&functions.join("hello-core.wasm"), &module::hello()?)?;
        let component =
            fs::read(&self.component).with_context(|| format!("cannot read {}", self.component.display()))?;
        write(&functions.join("hello-http.wasm"), &component)?;
        write(&functions.join("hello-http-reuse.wasm"), &component)?;
        write(&functions.join("hello-http-reuse.toml"), b"[instance]\nreuse = 128\n")?;
        write(&self.script(), load::SCRIPT.as_bytes())
    }

    /// Where a program is.
    pub fn program(&self, program: Program) -> &Path {
        match program {
            Program::Bench => &self.bench,
            Program::Wasmbox => &self.wasmbox,
            Program::Baseline => self.baseline.as_deref().unwrap_or(&self.wasmbox),
            Program::Wasmtime => &self.wasmtime,
        }
    }

    /// The directory of this run: with `functions`, the trivial ones, and `cache`, empty at first.
    pub fn home(&self) -> &Path {
        &self.work.0
    }

    /// The trivial `wasi:http` component.
    pub fn component(&self) -> &Path {
        &self.component
    }

    /// A line with the versions of what takes part, and how busy the machine is.
    pub async fn versions(&self, programs: &[Program]) -> String {
        let mut parts = vec![tool::version("wrk").await];
        for program in [Program::Wasmbox, Program::Baseline, Program::Wasmtime] {
            if programs.contains(&program) {
                parts.push(tool::version(self.program(program)).await);
            }
        }
        let mut parts: Vec<String> = parts.into_iter().flatten().collect();
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        parts.push(format!("{cpus} CPUs"));
        if let Ok(load) = fs::read_to_string("/proc/loadavg") {
            let minute = load.split(' ').next().unwrap_or_default();
            parts.push(format!("load average {minute} at the start (other work adds noise)"));
        }
        parts.join(", ")
    }

    /// The script for `wrk`.
    pub fn script(&self) -> PathBuf {
        self.work.0.join("load.lua")
    }

    /// The log of a server.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.0.join(format!("{name}.log"))
    }

    /// Makes a directory of this run that nobody else can read.
    ///
    /// # Errors
    ///
    /// When it is already there, or cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.work.0.join(name);
        private_directory(&path)?;
        Ok(path)
    }
}

/// The directory of one run, removed when dropped.
#[derive(Debug)]
struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes one below `output`, and removes those of runs that were killed.
    fn create(output: &Path) -> Result<Self> {
        let entries = fs::read_dir(output).with_context(|| format!("cannot read {}", output.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(pid) = name.strip_prefix(WORK_PREFIX)
                && (pid == own_pid() || !Path::new("/proc").join(pid).exists())
            {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        let path = output.join(format!("{WORK_PREFIX}{}", own_pid()));
        private_directory(&path)?;
        Ok(Self(path))
    }
}

fn own_pid() -> String {
    std::process::id().to_string()
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn private_directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file, naming it when that fails.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
