//! The programs that a run uses: found, or else built or installed, visibly.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;

/// The line of wasmtime that is measured: the one that the box embeds.
const WASMTIME: &str = "48";

/// What of `wasmtime-cli` is built: all that `wasmtime serve` can feel, as in a release, and not its other commands.
const WASMTIME_FEATURES: &str = "run,serve,compile,cranelift,component-model,component-model-async,pooling-allocator,\
    parallel-compilation,threads,gc,gc-drc,gc-null,stack-switching,addr2line,backtrace,demangle,logging,cache";

/// The target that the component is built for.
const COMPONENT_TARGET: &str = "wasm32-wasip2";

/// Makes sure that `wrk` is there.
///
/// # Errors
///
/// When it is not, and cannot be installed.
pub async fn wrk() -> Result<()> {
    if version("wrk").await.is_some() {
        return Ok(());
    }
    eprintln!("wrk, which makes the load, is missing: apt-get install wrk");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "wrk"]);
    run(install).await.context("install wrk and run again (Debian and Ubuntu: apt-get install wrk)")
}

/// Makes sure that `program` is a `wasmtime` of the line that is measured; else installs it below `output` with cargo,
/// which takes many minutes.
///
/// # Errors
///
/// When it cannot be installed.
pub async fn wasmtime(program: &Path, output: &Path) -> Result<()> {
    let wanted = format!("wasmtime {WASMTIME}.");
    if let Some(found) = version(program).await
        && found.starts_with(&wanted)
    {
        return Ok(());
    }
    eprintln!("Installing wasmtime {WASMTIME} with cargo, once: this takes many minutes.");
    let build = output.join("tools-build");
    let mut install = Command::new("cargo");
    install.args(["install", "wasmtime-cli", "--version", &format!("^{WASMTIME}")]);
    install.args(["--locked", "--force", "--no-default-features", "--features", WASMTIME_FEATURES]);
    install.arg("--root").arg(output.join("tools"));
    install.arg("--target-dir").arg(&build);
    run(install).await.context("cannot install wasmtime-cli")?;
    // Gigabytes that nothing needs again. Kept when the installation was interrupted, so that it goes on from there.
    std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

/// Makes sure that `program` is the box.
///
/// # Errors
///
/// When it cannot be built, or is not there.
pub async fn wasmbox(program: &Path, bench: &Path) -> Result<()> {
    build("wasmbox", program, bench).await?;
    ensure!(
        program.is_file(),
        "no box at {}: run the bench with `cargo run --profile dist -p wasmbox-bench`, or name one with --wasmbox",
        program.display()
    );
    Ok(())
}

/// Builds `program`, of a package of the workspace, when it belongs beside `bench`, in its profile, so that it is never an old one.
///
/// # Errors
///
/// When it cannot be built.
pub async fn build(package: &str, program: &Path, bench: &Path) -> Result<()> {
    let Some(profile) = bench.parent().filter(|directory| program.parent() == Some(directory)) else { return Ok(()) };
    // The directory bears its name; with one exception.
    let profile = profile.file_name().filter(|name| *name != "debug").unwrap_or("dev".as_ref());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let name = program.file_name().unwrap_or_default();
    let mut build = Command::new("cargo");
    build.args(["build", "--package", package, "--bin"]).arg(name);
    build.arg("--manifest-path").arg(workspace).arg("--profile").arg(profile);
    run(build).await.with_context(|| format!("cannot build {}", program.display()))
}

/// Builds the trivial `wasi:http` component below `output`, and says where it is.
///
/// # Errors
///
/// When it cannot be built.
pub async fn component(output: &Path) -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/hello-http/Cargo.toml");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "--quiet", "--target", COMPONENT_TARGET]);
    build.arg("--manifest-path").arg(manifest);
    build.arg("--target-dir").arg(output);
    run(build).await.with_context(|| {
        format!("cannot build the component; is its target there? rustup target add {COMPONENT_TARGET}")
    })?;
    Ok(output.join(COMPONENT_TARGET).join("release/hello_http.wasm"))
}

/// What a program says about its version; `None` when it cannot be run.
pub async fn version(program: impl AsRef<OsStr>) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    process::die_with_parent(&mut command);
    // The exit code says nothing: wrk's is 1.
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // wrk goes on with its event loop and copyright.
    let line = text.lines().next()?.split(" [").next()?;
    Some(line.trim().to_owned())
}

/// Runs a program to its end, with its output visible.
///
/// # Errors
///
/// When it cannot be run, or fails.
pub async fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null());
    process::die_with_parent(&mut command);
    let status = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{}: {status}", program.display());
    Ok(())
}
