//! Has a child do the measuring, and clears up behind it, however it ended: the child's processes, cgroups and files go when it has succeeded,
//! failed or was killed, and when this process gets a signal. If this process is killed, the processes end with it.

use std::{
    env,
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context, Result};
use rustix::process::{Signal, WaitOptions, getpid, set_child_subreaper, wait};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};
use wasmbox_tests::{eventually, node, process::Process, temporary};

/// The flag by which the child knows that it is the one that measures.
pub const MEASURE: &str = "--measure";

/// Starts this program again with [`MEASURE`], and ends as it does; after a signal, as shells have it, with 128 and the signal's number.
///
/// # Errors
/// If the child cannot be started.
pub fn run() -> Result<ExitCode> {
    // What the child leaves behind becomes a child of this process.
    set_child_subreaper(Some(getpid())).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(env::current_exe()?).arg(MEASURE).args(env::args_os().skip(1));
        let mut child = command.spawn().context("setpriv, of the package util-linux")?;
        let pid = child.id().context("a new child has a number")?;
        let code = tokio::select! {
            ended = child.wait() => code(ended?),
            _ = hangup.recv() => after("SIGHUP", Signal::HUP),
            _ = interrupt.recv() => after("SIGINT", Signal::INT),
            _ = terminate.recv() => after("SIGTERM", Signal::TERM),
        };
        child.kill().await?;
        clear(pid);
        Ok(code)
    })
}

/// It says itself why it has failed, unless it was killed.
fn code(ended: ExitStatus) -> ExitCode {
    let Some(code) = ended.code() else {
        eprintln!("the process that measures was killed: {ended}");
        return ExitCode::FAILURE;
    };
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn after(name: &str, signal: Signal) -> ExitCode {
    eprintln!("ended by {name}: what was started is removed");
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}

/// Ends all that a child that is gone has started, and removes what it has made.
fn clear(pid: u32) {
    let own = Process(std::process::id());
    eventually("the end of all processes", || {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        let left = own.children();
        // One may end meanwhile.
        for child in &left {
            let _ = child.try_signal(Signal::KILL);
        }
        left.is_empty().then_some(())
    });
    node::sweep(pid);
    temporary::sweep(pid);
}
