//! What the kernel says of a process.

use std::{collections::HashSet, fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// A process, or one of its threads, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        self.try_resident_bytes().expect("the process is running")
    }

    /// The most resident memory so far, bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn peak_resident_bytes(self) -> u64 {
        self.kibibytes("VmHWM").expect("the process is running") << 10
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
        // A zombie has none.
        self.kibibytes("VmRSS").map(|kibibytes| kibibytes << 10)
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

    /// What its status says of a field (proc(5)), if the process is there and has one.
    pub fn status(self, field: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned())
    }

    fn kibibytes(self, field: &str) -> Option<u64> {
        self.status(field)?.strip_suffix(" kB")?.parse().ok()
    }

    /// A limit by its name in `/proc/PID/limits`, the soft and the hard one.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn limit(self, name: &str) -> [String; 2] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.0)).expect("the process is running");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5): limits");
        let mut values = line.split_whitespace().map(str::to_owned);
        [(); 2].map(|()| values.next().expect("proc(5): two limits"))
    }

    /// Its threads that are there.
    pub fn threads(self) -> Vec<Process> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Process)).collect()
    }

    /// What its threads have started, and is there.
    pub fn children(self) -> Vec<Process> {
        let file = |thread: Process| format!("/proc/{}/task/{}/children", self.0, thread.0);
        let lines = self.threads().into_iter().filter_map(|thread| fs::read_to_string(file(thread)).ok());
        let numbers = |line: String| line.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>();
        lines.flat_map(numbers).map(Process).collect()
    }

    /// # Errors
    /// The kernel's, if the process is gone.
    ///
    /// # Panics
    /// If this is no process number.
    pub fn try_signal(self, signal: Signal) -> rustix::io::Result<()> {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).expect("a process number");
        kill_process(pid, signal)
    }

    /// # Panics
    /// If the process is gone.
    pub fn signal(self, signal: Signal) {
        self.try_signal(signal).expect("the process is there");
    }
}

/// The inodes of the sockets that listen on `port` of an IPv4 address.
///
/// A port that was let go may be another process's a moment later; an inode is one socket's.
///
/// # Panics
/// If the kernel does not tell.
pub fn listeners(port: u16) -> HashSet<String> {
    // proc_net(5): local address in hexadecimal, 0A is TCP_LISTEN, and the inode is the tenth field.
    let local = format!(":{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").expect("proc_net(5): tcp");
    let fields = sockets.lines().skip(1).map(|socket| socket.split_whitespace().collect::<Vec<_>>());
    let listening = fields.filter(|fields| fields[1].ends_with(&local) && fields[3] == "0A");
    listening.map(|fields| fields[9].to_owned()).collect()
}
