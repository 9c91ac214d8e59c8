//! Programs that are run for a developer: each in a process group of its own, so that all of it can be ended.

use std::{
    future::Future,
    io,
    os::unix::process::ExitStatusExt,
    pin::Pin,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Command,
    signal::unix::{self, SignalKind, signal},
    time::timeout,
};

/// How long what was told to end may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the output of a program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// To ours: a terminal keeps its colours.
    AtOnce,
    /// Into [`Output`].
    Later,
}

/// A program that runs.
pub struct Step {
    group: Option<Pid>,
    end: Pin<Box<dyn Future<Output = io::Result<Output>>>>,
}

impl Step {
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, shown: Shown) -> io::Result<Step> {
        let output = || if shown == Shown::AtOnce { Stdio::inherit() } else { Stdio::piped() };
        command.stdin(Stdio::null()).stdout(output()).stderr(output()).process_group(0).kill_on_drop(true);
        let child = command.spawn()?;
        // Its group has its number.
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Step { group, end: Box::pin(child.wait_with_output()) })
    }

    /// Waits for its end; may be given up and begun again.
    ///
    /// # Errors
    /// If the system does not tell.
    pub async fn ended(&mut self) -> io::Result<Output> {
        self.end.as_mut().await
    }

    /// Waits for its end, or ends it when the user wants it: then the exit code of this process is the error.
    ///
    /// # Errors
    /// The exit code.
    pub async fn ended_unless(mut self, interrupts: &mut Interrupts) -> Result<io::Result<Output>, u8> {
        let code = tokio::select! {
            ended = self.ended() => return Ok(ended),
            code = interrupts.next() => code,
        };
        self.stop().await;
        Err(code)
    }

    /// Ends it, and what it has started.
    pub async fn stop(mut self) {
        let Some(group) = self.group else { return };
        for signal in [Signal::TERM, Signal::KILL] {
            // That it is gone already is no error.
            let _ = kill_process_group(group, signal);
            if timeout(PATIENCE, self.ended()).await.is_ok() {
                break;
            }
        }
        // Its children may have stayed behind.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The signals by which users and systems end a program. What it has started is not told by them, and is to be ended by it.
pub struct Interrupts([(SignalKind, unix::Signal); 3]);

impl Interrupts {
    /// From now on they do not end this process.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn new() -> io::Result<Interrupts> {
        let one = |kind| io::Result::Ok((kind, signal(kind)?));
        Ok(Interrupts([one(SignalKind::interrupt())?, one(SignalKind::terminate())?, one(SignalKind::hangup())?]))
    }

    /// The next one: the exit code of a process that it ended.
    pub async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup] = &mut self.0;
        let kind = tokio::select! {
            _ = interrupt.1.recv() => interrupt.0,
            _ = terminate.1.recv() => terminate.0,
            _ = hangup.1.recv() => hangup.0,
        };
        u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX)
    }
}

/// How a program that failed ended.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
