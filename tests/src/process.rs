//! What the kernel says of a process.

use std::{fs, path::Path};

/// A process, by its number.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    pub fn exists(self) -> bool {
        Path::new(&format!("/proc/{}", self.0)).exists()
    }

    /// Whether it is there, and no zombie.
    pub fn is_running(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // proc(5): the state follows the command's name, which is in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
    }

    /// Resident memory, bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn resident_bytes(self) -> u64 {
        self.status("VmRSS:") << 10
    }

    /// The most resident memory so far, bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn peak_resident_bytes(self) -> u64 {
        self.status("VmHWM:") << 10
    }

    /// Open descriptors.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("the process is running").count()
    }

    /// Open descriptors, if the process is there.
    pub fn try_descriptors(self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.0)).ok()?.count())
    }

    /// Resident memory in bytes, if the process is there.
    pub fn try_resident_bytes(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        // A zombie has none.
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    }

    /// CPU time used so far, in clock ticks (proc(5): usually hundredths of a second).
    ///
    /// # Panics
    /// If the process is gone.
    pub fn cpu_ticks(self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("the process is running");
        // The command's name, in parentheses, may contain spaces. Behind it, utime and stime are the 12th and 13th fields.
        let (_, fields) = stat.rsplit_once(") ").expect("proc(5): stat");
        let ticks = |field: &str| field.parse::<u64>().expect("proc(5): a number of ticks");
        fields.split(' ').skip(11).take(2).map(ticks).sum()
    }

    fn status(self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("proc(5): status");
        line.trim().trim_end_matches(" kB").parse().expect("proc(5): kB")
    }
}

/// Whether some socket listens on 127.0.0.1:`port`.
///
/// # Panics
/// If the kernel does not tell.
pub fn is_listening(port: u16) -> bool {
    // proc_net(5): local address in hexadecimal, and 0A is TCP_LISTEN.
    let local = format!(":{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").expect("proc_net(5): tcp");
    sockets.lines().skip(1).any(|socket| {
        let fields: Vec<&str> = socket.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[3] == "0A"
    })
}
