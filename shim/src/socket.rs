//! The socket on which a pod's shim serves.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

/// Where containerd's shims have their sockets: a short path, since the kernel allows 107 bytes.
const DIRECTORY: &str = "/run/containerd/s";
const SCHEME: &str = "unix://";
/// How often, and after which time again, a socket is asked whose it is while the process that listens there is gone.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that may wait.
const BACKLOG: i32 = 128;

/// `unix:///run/containerd/s/…`: the same for all containers of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(PathBuf);

/// Whether the group has a shim already.
pub enum Bound {
    Served,
    Ours(UnixListener),
}

impl Address {
    /// Unique for a containerd (by its own address), a namespace and a group of containers.
    pub fn of(directory: Option<&str>, containerd: &str, namespace: &str, group: &str) -> Address {
        let directory = directory.filter(|directory| !directory.is_empty()).unwrap_or(DIRECTORY);
        // As containerd's own shims: the hash of the joined path.
        let digest = Sha256::digest(format!("{containerd}/{namespace}/{group}"));
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Address(Path::new(directory).join(name))
    }

    pub fn parse(text: &str) -> Address {
        Address(text.trim().strip_prefix(SCHEME).unwrap_or(text.trim()).into())
    }

    /// Binds the socket, unless somebody serves there; one that nobody serves is replaced.
    pub fn bind(&self) -> io::Result<Bound> {
        let _locked = self.lock()?;
        match UnixListener::bind(&self.0) {
            Ok(listener) => Ok(Bound::Ours(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if self.is_served() {
                    return Ok(Bound::Served);
                }
                fs::remove_file(&self.0)?;
                UnixListener::bind(&self.0).map(Bound::Ours)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the socket, if nobody serves there. Returns whether that is so.
    pub fn remove_dead(&self) -> bool {
        if !self.0.exists() {
            return true;
        }
        let Ok(_locked) = self.lock() else { return false };
        let is_dead = !self.is_served();
        if is_dead {
            self.remove();
        }
        is_dead
    }

    /// Whether a living process listens there. That somebody can connect is not enough: a process that a shim was about to start when it was
    /// killed has the socket, too, until it has become another program. And `start` may have ended before its shim has taken it over.
    fn is_served(&self) -> bool {
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(PAUSE);
            }
            let Ok(stream) = UnixStream::connect(&self.0) else { return false };
            // One in another pid namespace has no number here.
            if listening(&stream).is_none_or(is_alive) {
                return true;
            }
        }
        false
    }

    /// Against others who find at the same time that nobody serves there: one would remove the socket that the other has just bound.
    fn lock(&self) -> io::Result<fs::File> {
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let locked = fs::File::open(directory)?;
        locked.lock()?;
        Ok(locked)
    }

    /// Removes the socket, on which this process serves.
    pub fn give_up(&self) {
        let _locked = self.lock();
        self.remove();
    }

    /// Removes the socket, if it is there.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Has the socket belong to this process, which inherited it: see unix(7), `SO_PEERCRED`.
pub fn take_over(listener: &UnixListener) -> io::Result<()> {
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// The process that listens at the other end: the last one that called listen(2).
fn listening(stream: &UnixStream) -> Option<i32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which has as many, all of integers. (rustix's `UCred` has no room for a pid of 0.)
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    (result == 0 && peer.pid > 0).then_some(peer.pid)
}

/// Whether the process runs, and is not about to end: containerd sees that the socket is closed before the process has no number any more. See
/// proc(5), `stat`.
fn is_alive(pid: i32) -> bool {
    const EXITING: u32 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may have spaces and brackets.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let is_process = fields.next().is_some_and(|state| !["", "Z", "X", "x"].contains(&state));
    is_process && fields.nth(5).and_then(|flags| flags.parse::<u32>().ok()).is_some_and(|flags| flags & EXITING == 0)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader, Write},
        process::{Command, Stdio},
    };

    use super::*;

    const SOCKET: &str = "WASMBOX_TEST_SOCKET";

    /// This test again, in a process of its own: it listens, has a child that has the socket, too, and says that one's number.
    #[allow(clippy::zombie_processes, reason = "this process is killed, and leaves its child")]
    fn serve(path: &str) {
        let listener = UnixListener::bind(path).unwrap();
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        let child = Command::new("sleep").arg("20").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        writeln!(io::stdout(), "\nchild {}", child.id()).unwrap();
        thread::sleep(Duration::from_secs(20));
    }

    #[test]
    fn a_socket_that_only_a_child_of_a_killed_shim_has_is_dead() {
        if let Ok(path) = env::var(SOCKET) {
            return serve(&path);
        }
        let directory = env::temp_dir().join(format!("wasmbox-socket-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let address = Address(directory.join("socket"));
        let mut server = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "socket::tests::a_socket_that_only_a_child_of_a_killed_shim_has_is_dead"])
            .env(SOCKET, &address.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let child = lines.find_map(|line| line.unwrap().strip_prefix("child ")?.parse::<i32>().ok()).unwrap();
        assert!(address.is_served() && !address.remove_dead());
        server.kill().unwrap();
        let pid = rustix::process::Pid::from_child(&server);
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        // Or another test, of the reaper of all children, has its exit status already.
        let _ = rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended);
        assert!(UnixStream::connect(&address.0).is_ok(), "its child has it");
        assert!(address.remove_dead(), "although nobody has waited for it yet");
        let _ = server.wait();
        assert!(!address.0.exists());
        rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn who_takes_a_socket_over_serves_there() {
        let directory = env::temp_dir().join(format!("wasmbox-taken-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let address = Address(directory.join("socket"));
        let Bound::Ours(listener) = address.bind().unwrap() else { panic!("it is new") };
        take_over(&listener).unwrap();
        assert!(matches!(address.bind().unwrap(), Bound::Served));
        drop(listener);
        assert!(matches!(address.bind().unwrap(), Bound::Ours(_)));
        assert!(address.remove_dead() && !address.0.exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
