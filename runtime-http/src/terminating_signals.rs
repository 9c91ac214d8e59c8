//! Signals that end `wasmbox run` in a container, whose first process it is.
//!
//! The kernel delivers to the first process of a pid namespace only signals that it handles (pid_namespaces(7)): without this, a container
//! ends on SIGTERM when its grace period does, and Ctrl-C does nothing. Elsewhere the kernel's own defaults hold, and nothing is installed.

use std::{io, process};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

/// Those whose default action ends a process (signal(7)), but for those of the processor's faults and of `abort`, which are wasmtime's and the
/// C library's, and SIGPIPE, which Rust programs ignore.
const TERMINATING: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// From now on these signals, and real-time signals, end this process, if it is the first one of its namespace: with 128 and the signal's
/// number, which is what a container's status is that a signal ended. `runtime` waits for them.
///
/// # Errors
/// If a handler cannot be installed.
pub fn end_the_first_process(runtime: &Runtime) -> io::Result<()> {
    if process::id() != 1 {
        return Ok(());
    }
    let _context = runtime.enter();
    for number in TERMINATING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        let mut arrivals = signal(SignalKind::from_raw(number))?;
        runtime.spawn(async move {
            if arrivals.recv().await.is_some() {
                process::exit(128 + number);
            }
        });
    }
    Ok(())
}
