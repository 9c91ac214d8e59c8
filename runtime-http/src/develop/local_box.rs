//! A box for one developer: `wasmbox serve` as a child, on this machine alone, which ends with this process.

use std::{
    env,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::log_line::LogLine;

/// How long the box may take to end beyond the drain time.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a developer's call may take when the box is told to end.
const DRAIN: &str = "--drain-timeout=1s";

#[derive(Debug, thiserror::Error)]
pub enum LocalBoxError {
    #[error("a box cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It has said why.
    #[error("the box did not start: {said}")]
    NotStarted { said: String },
    #[error("the box ended: {how}; {said}")]
    Ended { how: String, said: String },
}

/// A box that runs. Dropped without its end, it is killed.
pub struct LocalBox {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// `HOST:PORT` of the function port and of the admin port.
    pub address: String,
    pub admin: String,
}

impl LocalBox {
    /// Starts a box that serves `functions` with further flags of `serve`, and waits until it does. From the process's first thread: the
    /// box ends with the thread that has started it.
    ///
    /// # Errors
    /// [`LocalBoxError`], with what the box says, if it does not start.
    pub async fn start(functions: &Path, flags: &[OsString]) -> Result<LocalBox, LocalBoxError> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve-local").arg(format!("--parent={}", std::process::id()));
        // The user's flags come last, and override.
        command.arg("--functions-dir").arg(functions).args(["--log-format=json", DRAIN]).args(flags);
        // Ctrl-C is for this process, which ends the box.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pipe = child.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
        let mut lines = BufReader::new(pipe).lines();
        // What is no line of the log is why it ends; if there is nothing of that, the last one.
        let (mut said, mut logged) = (String::new(), String::new());
        while let Some(line) = lines.next_line().await? {
            let Some(line) = LogLine::parse(&line) else {
                said = said + "\n" + line.strip_prefix("wasmbox: ").unwrap_or(&line);
                continue;
            };
            let (address, admin) = (line.text("address"), line.text("admin"));
            if !admin.is_empty() {
                let (address, admin) = (reachable(address), reachable(admin));
                return Ok(LocalBox { child, lines, address, admin });
            }
            logged = line.message;
        }
        child.wait().await?;
        let said = if said.is_empty() { logged } else { said.trim().to_owned() };
        Err(LocalBoxError::NotStarted { said })
    }

    /// The next line of its log; may be given up and called again.
    ///
    /// # Errors
    /// [`LocalBoxError::Ended`], if it has ended, which nobody told it to.
    pub async fn line(&mut self) -> Result<LogLine, LocalBoxError> {
        loop {
            match self.lines.next_line().await? {
                Some(line) => match LogLine::parse(&line) {
                    Some(line) => return Ok(line),
                    // A panic's message, for instance.
                    None => eprintln!("{line}"),
                },
                None => {
                    let how = super::steps::how(self.child.wait().await?);
                    return Err(LocalBoxError::Ended { how, said: "what it said last is above".into() });
                }
            }
        }
    }

    /// Tells it to end, and waits for that.
    ///
    /// # Errors
    /// If the system does not tell.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        // Its log must not fill the pipe.
        let ended = async {
            while let Ok(Some(_)) = self.lines.next_line().await {}
            self.child.wait().await
        };
        if let Ok(status) = timeout(PATIENCE, ended).await {
            return status;
        }
        self.child.kill().await?;
        self.child.wait().await
    }
}

/// `HOST:PORT` to connect to, of one that is listened on.
fn reachable(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    port.parse()
        .map_or_else(|_| address.to_owned(), |port| crate::client::reachable(host.trim_matches(['[', ']']), port))
}

/// In the child, first of all: whoever has started it may be gone, or go.
///
/// # Errors
/// If it cannot be told, or is gone.
pub fn end_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    anyhow::ensure!(getppid() == Pid::from_raw(parent), "process {parent} has ended");
    Ok(())
}
