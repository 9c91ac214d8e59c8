//! Processes that end with the bench, and what a server process costs.
//!
//! The only file with `unsafe` code: two system calls that the standard library does not offer.
#![allow(
    unsafe_code,
    reason = "PR_SET_PDEATHSIG must be set between fork and exec, and another process's CPU clock has no safe wrapper"
)]

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How long a server may take to end by itself after SIGTERM: it may have cgroups to remove.
const GRACE: Duration = Duration::from_secs(3);

/// How often [`Server::drop`] looks whether the process has ended.
const POLL: Duration = Duration::from_millis(2);

/// How much of a log an error shows, in lines.
const LOG_TAIL: usize = 40;

/// A server process. Dropping it ends it: SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its output in the file `log`, which is emptied first.
    ///
    /// # Errors
    ///
    /// When the log cannot be written, or the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let log = log.to_owned();
        Ok(Self { child, log })
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// User and system CPU time of all threads since the start, of ended threads too: the sum of `utime` and `stime` of
    /// `/proc/PID/stat`, read from the process's CPU clock, which counts nanoseconds where that file counts 10 ms.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a PID is a pid_t");
        let mut clock: libc::clockid_t = 0;
        // SAFETY: `clock` is a valid place for the one value that the call writes.
        let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the one value that the call writes.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
        let nanos = u32::try_from(time.tv_nsec).expect("nanoseconds are below a second");
        Ok(Duration::new(seconds, nanos))
    }

    /// Resident memory in KiB: `VmRSS` of `/proc/PID/status`.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn rss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        parse_rss_kib(&status).with_context(|| format!("no VmRSS in {path}: the server has ended"))
    }

    /// Open descriptors: the entries of `/proc/PID/fd`.
    ///
    /// # Errors
    ///
    /// When the process has ended, or is another user's.
    pub fn descriptors(&self) -> Result<u64> {
        let path = format!("/proc/{}/fd", self.child.id());
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(entries.count() as u64)
    }

    /// Mappings: the lines of `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// As [`Self::descriptors`].
    pub fn mappings(&self) -> Result<u64> {
        let path = format!("/proc/{}/maps", self.child.id());
        let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(maps.lines().count() as u64)
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let pid = Pid::from_child(&self.child);
        // An error means that it has just ended, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.has_ended() {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the process that `command` starts get SIGTERM when the bench ends without running its destructors. To be
/// started on the main thread: the kernel sends the signal when the thread that started the process ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system call.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        });
    }
}

fn parse_rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rss_is_read_from_status() {
        let status = "Name:\tsleep\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(parse_rss_kib(status), Some(1_234));
        assert_eq!(parse_rss_kib("Name:\tzombie\n"), None);
    }

    #[test]
    fn a_dropped_server_has_ended() {
        let log = std::env::temp_dir().join(format!("wasmbox-bench-test-{}", std::process::id()));
        let mut command = Command::new("sleep");
        command.arg("60");
        let server = Server::start(command, &log).unwrap();
        let proc = format!("/proc/{}", server.child.id());
        assert!(server.rss_kib().unwrap() > 0);
        server.cpu().unwrap();
        drop(server);
        assert!(!Path::new(&proc).exists());
        fs::remove_file(log).unwrap();
    }
}
