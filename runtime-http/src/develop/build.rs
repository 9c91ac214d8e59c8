//! `wasmbox build`: makes a project's modules, and checks them.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Output},
    time::{Duration, Instant},
};

use tokio::process::Command;

use super::{
    palette::Palette,
    project::{Buildable, Project, ProjectError},
    steps::{Interrupts, Shown, Step, how},
    told::Remark,
};

#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// The project: a directory with `functions` in it
    #[arg(default_value = ".", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Whether messages are coloured
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error("{command:?} cannot be run: {source}")]
    Start { command: String, source: io::Error },
    #[error("{command:?}: {how}")]
    Failed { command: String, how: String },
    #[error(
        "{command:?} succeeded, but there is no {}: {source}; `output` of [build] in functions/{name}.toml names what the command makes",
        path.display()
    )]
    NoOutput { command: String, path: PathBuf, name: String, source: io::Error },
    #[error("{}: {source}", path.display())]
    Install { path: PathBuf, source: io::Error },
}

/// A function that was not built.
#[derive(Debug, thiserror::Error)]
#[error("{name}: the build failed: {error}")]
pub struct Failure {
    name: String,
    error: BuildError,
}

/// Builds all of it, in order; the first error ends it.
///
/// # Errors
/// [`ProjectError`] or [`Failure`], if something cannot be built.
pub fn build(arguments: &BuildArgs) -> anyhow::Result<ExitCode> {
    let palette = Palette::new(arguments.color, &io::stderr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut project = Project::read(&arguments.directory)?;
        if !project.broken.is_empty() {
            return Err(project.broken.remove(0).error.into());
        }
        let mut interrupts = Interrupts::new()?;
        for buildable in &project.buildable {
            let started = Instant::now();
            eprintln!("{}", announcement(buildable, palette));
            let ended = match start(&project, buildable)?.ended_unless(&mut interrupts).await {
                Ok(ended) => ended,
                Err(code) => return Ok(ExitCode::from(code)),
            };
            finish(&project, buildable, ended)?;
            eprintln!("{}", success(buildable, started.elapsed(), palette));
        }
        let checked = match start_check(&project)?.ended_unless(&mut interrupts).await {
            Ok(checked) => checked?,
            Err(code) => return Ok(ExitCode::from(code)),
        };
        for remark in findings(&checked, &project) {
            eprintln!("{}", painted(&remark.text, checked.status, palette));
        }
        Ok(if checked.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

pub fn announcement(buildable: &Buildable, palette: Palette) -> String {
    palette.faint(format_args!("{}: {}", buildable.name, buildable.settings.command))
}

pub fn success(buildable: &Buildable, took: Duration, palette: Palette) -> String {
    palette.good(format_args!("{}: built in {:.1} s", buildable.name, took.as_secs_f64()))
}

/// Starts the command of one function.
///
/// # Errors
/// [`Failure`], of [`BuildError::Start`].
pub fn start(project: &Project, buildable: &Buildable) -> Result<Step, Failure> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&buildable.settings.command).current_dir(&project.directory);
    Step::start(command, Shown::AtOnce).map_err(|source| {
        let error = BuildError::Start { command: buildable.settings.command.clone(), source };
        Failure { name: buildable.name.clone(), error }
    })
}

/// What is to be done when the command has ended: puts the module where it is served, in one step.
///
/// # Errors
/// [`Failure`], if it failed, or the module is not there.
pub fn finish(project: &Project, buildable: &Buildable, ended: io::Result<Output>) -> Result<(), Failure> {
    put_in_place(project, buildable, ended).map_err(|error| Failure { name: buildable.name.clone(), error })
}

fn put_in_place(project: &Project, buildable: &Buildable, ended: io::Result<Output>) -> Result<(), BuildError> {
    let Buildable { name, settings } = buildable;
    let command = || settings.command.clone();
    let status = ended.map_err(|source| BuildError::Start { command: command(), source })?.status;
    if !status.success() {
        return Err(BuildError::Failed { command: command(), how: how(status) });
    }
    let path = project.directory.join(&settings.output);
    let module = fs::read(&path).map_err(|source| BuildError::NoOutput {
        command: command(),
        path: path.clone(),
        name: name.clone(),
        source,
    })?;
    let ending = if path.extension().is_some_and(|ending| ending == "wat") { "wat" } else { "wasm" };
    let target = project.functions().join(format!("{name}.{ending}"));
    // A box would load it anew, and it may be its own place already.
    if fs::read(&target).is_ok_and(|there| there == module) {
        return Ok(());
    }
    install(&target, &module).map_err(|source| BuildError::Install { path: target, source })
}

/// In one step, so that no box ever reads half of it.
fn install(target: &Path, module: &[u8]) -> io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    // What begins with a dot is no function.
    let part = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let result = fs::write(&part, module).and_then(|()| fs::rename(&part, target));
    if result.is_err() {
        // It may never have been there.
        let _ = fs::remove_file(&part);
    }
    result
}

/// Starts `wasmbox compile` on all functions: that finds what is wrong with them, and leaves the code where a box looks for it, if there is
/// such a place.
///
/// # Errors
/// [`BuildError::Start`].
pub fn start_check(project: &Project) -> Result<Step, BuildError> {
    let failed = |source| BuildError::Start { command: "wasmbox compile".into(), source };
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(["compile", "--check", "--functions-dir"]).arg(project.functions());
    Step::start(command, Shown::Later).map_err(failed)
}

/// What the check has to say about each file; nothing of what was compiled before.
pub fn findings(checked: &Output, project: &Project) -> Vec<Remark> {
    let functions = project.functions();
    let mut findings: Vec<Remark> = Vec::new();
    for line in String::from_utf8_lossy(&checked.stderr).lines() {
        // The last line counts.
        if line.ends_with(": was compiled already") || line.ends_with(" modules are in the cache") {
            continue;
        }
        // A remark may have several lines; its first begins with the file.
        let file = line.split_once(": ").map(|(file, _)| functions.join(file)).filter(|file| file.is_file());
        match (file, findings.last_mut()) {
            (None, Some(remark)) => remark.text.extend(["\n", line]),
            (file, _) => findings.push(Remark { file: file.unwrap_or(functions.clone()), text: line.to_owned() }),
        }
    }
    findings
}

/// What a check found, by how it ended.
pub fn painted(finding: &str, status: ExitStatus, palette: Palette) -> String {
    if status.success() { palette.faint(finding) } else { palette.bad(finding) }
}
