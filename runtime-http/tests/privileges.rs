//! What is left to a thread that has given up what a box gives up, tried by doing it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    io::{self, ErrorKind},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::sync_channel,
    thread,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket},
    process::{Pid, Signal, kill_process},
};
use wasmbox::{
    config::{Config, Confine, Settings},
    privileges,
};

/// A directory of its own, with `functions`, `cache`, `data`, and a file `secret` that nobody is to see.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let place = env::temp_dir().join(format!("wasmbox-privileges-{name}-{}", std::process::id()));
        for directory in ["functions", "data/a", "data/b"] {
            fs::create_dir_all(place.join(directory)).unwrap();
        }
        for file in ["functions/hello.wat", "data/a/file", "secret"] {
            fs::write(place.join(file), file).unwrap();
        }
        Place(place.canonicalize().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn config(&self) -> Config {
        let mut settings = Settings::default();
        settings.places.functions_dir = Some(self.path("functions"));
        settings.places.cache_dir = Some(self.path("cache").into_os_string().into());
        settings.places.port = Some(0);
        settings.admin.admin_port = Some(0);
        settings.modules.preopen_root = Some(vec![self.path("data")]);
        settings.confinement.confine = Some(Confine::True);
        Config::new(settings).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does it on a thread that has given up; the others of this process keep what they have.
fn having_given_up<T: Send>(config: &Config, task: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            privileges::access::make_directories(config);
            let given_up = privileges::give_up(config).unwrap();
            assert!(given_up.missing.is_empty(), "{:?}", given_up.missing);
            task()
        });
        confined.join().unwrap()
    })
}

fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn files_that_the_settings_name_are_left_and_no_others() {
    let place = Place::new("files");
    let config = place.config();
    symlink(place.path("secret"), place.path("data/link")).unwrap();
    having_given_up(&config, || {
        let path = |name: &str| place.path(name);
        // Functions: read, not written, and new ones are seen.
        assert_eq!(fs::read_to_string(path("functions/hello.wat")).unwrap(), "functions/hello.wat");
        assert_eq!(fs::read_dir(path("functions")).unwrap().count(), 1);
        assert!(denied(fs::write(path("functions/new"), "")) && denied(fs::remove_file(path("functions/hello.wat"))));
        // The cache was made, and is written; what guests may be given too, and files move within it.
        fs::write(path("cache/new"), "code").unwrap();
        fs::rename(path("cache/new"), path("cache/newer")).unwrap();
        fs::remove_file(path("cache/newer")).unwrap();
        fs::rename(path("data/a/file"), path("data/b/file")).unwrap();
        fs::create_dir(path("data/c")).unwrap();
        // Nothing else: not beside them, not by a link, not of the system, not of another process.
        assert!(denied(fs::read(path("secret"))) && denied(fs::read(path("data/link"))));
        assert!(denied(fs::read_dir(&place.0)) && denied(fs::write(path("elsewhere"), "")));
        assert!(denied(fs::read("/etc/shadow")) && denied(fs::read("/etc/passwd")) && denied(fs::read_dir("/")));
        assert!(denied(fs::read("/proc/1/environ")) && denied(fs::read("/proc/1/cmdline")));
        assert!(denied(fs::rename(path("data/b/file"), path("functions/file"))));
        // Of itself what it needs, and to be executed again.
        for file in ["statm", "cgroup", "mountinfo"] {
            assert!(!fs::read_to_string(Path::new("/proc/self").join(file)).unwrap().is_empty(), "{file}");
        }
        assert!(
            denied(fs::write("/proc/self/comm", "other"))
                && denied(fs::write("/proc/sys/kernel/core_pattern", "|/bin/true"))
        );
        assert!(denied(Command::new("/bin/true").status()));
        let again = Command::new("/proc/self/exe").arg("--list").output().unwrap();
        assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("files_that"), "{again:?}");
    });
    // It was no fault of theirs.
    assert_eq!(fs::read_to_string(place.path("secret")).unwrap(), "secret");
    assert!(Command::new("/bin/true").status().unwrap().success());
}

/// As git-sync publishes a new state of all functions.
#[test]
fn a_link_may_be_switched_to_what_is_made_beside_it_later() {
    let place = Place::new("link");
    symlink("functions", place.path("current")).unwrap();
    let mut config = place.config();
    config.functions_dir = place.path("current");
    let ((ready, given_up), (publish, published)) = (sync_channel(1), sync_channel(1));
    thread::scope(|scope| {
        let config = &config;
        let confined = scope.spawn(move || {
            privileges::give_up(config).unwrap();
            ready.send(fs::read_to_string(config.functions_dir.join("hello.wat"))).unwrap();
            published.recv().unwrap();
            fs::read_to_string(config.functions_dir.join("new.wat"))
        });
        assert_eq!(given_up.recv().unwrap().unwrap(), "functions/hello.wat");
        fs::create_dir(place.path("later")).unwrap();
        fs::write(place.path("later/new.wat"), "new").unwrap();
        fs::remove_file(place.path("current")).unwrap();
        symlink("later", place.path("current")).unwrap();
        publish.send(()).unwrap();
        assert_eq!(confined.join().unwrap().unwrap(), "new");
    });
}

#[test]
fn ports_and_processes_of_others_are_out_of_reach() {
    let place = Place::new("ports");
    let mut config = place.config();
    let [allowed, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    config.outbound.allow = vec![allowed.local_addr().unwrap().to_string().parse().unwrap()];
    config.reporter = None;
    let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
    let child = Pid::from_child(&sleeping);
    having_given_up(&config, || {
        // As `--port 0` does.
        TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(denied(TcpListener::bind("127.0.0.1:1").map(drop)));
        TcpStream::connect(allowed.local_addr().unwrap()).unwrap();
        assert!(denied(TcpStream::connect(other.local_addr().unwrap())));
        assert_eq!(kill_process(child, Signal::KILL), Err(Errno::PERM));
        // Names are looked up by UDP.
        UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(denied(UnixListener::bind(place.path("data/socket")).map(drop)));
        for (family, kind) in [
            (AddressFamily::PACKET, SocketType::RAW),
            (AddressFamily::INET, SocketType::RAW),
            (AddressFamily::from_raw(38), SocketType::SEQPACKET),
            (AddressFamily::VSOCK, SocketType::STREAM),
        ] {
            assert_eq!(socket(family, kind, None).map(drop), Err(Errno::NOSYS), "{family:?} {kind:?}");
        }
        // Streams that Landlock takes for no TCP, and a connection without connect(2).
        for protocol in [ipproto::MPTCP, ipproto::SCTP] {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                let refused = socket(family, SocketType::STREAM, Some(protocol)).map(drop);
                assert_eq!(refused, Err(Errno::NOSYS), "{protocol:?}");
            }
        }
        let tcp = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).unwrap();
        let sent = sendto(&tcp, b"x", SendFlags::from_bits_retain(0x2000_0000), &other.local_addr().unwrap());
        assert_eq!(sent, Err(Errno::NOSYS));
    });
    TcpStream::connect(other.local_addr().unwrap()).unwrap();
    sleeping.kill().unwrap();
    sleeping.wait().unwrap();
}

/// Those by which other systems were broken out of.
#[test]
fn system_calls_of_escapes_are_not_there() {
    let place = Place::new("calls");
    having_given_up(&place.config(), || {
        for (name, call) in [
            ("unshare", libc::SYS_unshare),
            ("setns", libc::SYS_setns),
            ("mount", libc::SYS_mount),
            ("move_mount", libc::SYS_move_mount),
            ("pivot_root", libc::SYS_pivot_root),
            ("chroot", libc::SYS_chroot),
            ("ptrace", libc::SYS_ptrace),
            ("process_vm_writev", libc::SYS_process_vm_writev),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("bpf", libc::SYS_bpf),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("keyctl", libc::SYS_keyctl),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("init_module", libc::SYS_init_module),
            ("kexec_load", libc::SYS_kexec_load),
            ("mknodat", libc::SYS_mknodat),
            ("setuid", libc::SYS_setuid),
            ("clone3", libc::SYS_clone3),
        ] {
            assert_eq!(system_call(call), Some(libc::ENOSYS), "{name}");
        }
        // Namespaces are not to be had by the older call either; threads and processes are.
        thread::scope(|scope| scope.spawn(|| ()).join().unwrap());
        assert!(
            rustix::thread::capabilities(None).unwrap().effective.is_empty() || rustix::process::getuid().is_root()
        );
    });
}

/// Its error, when it is called with arguments that it would refuse.
#[allow(unsafe_code, reason = "no library calls what nobody is to call")]
fn system_call(number: i64) -> Option<i32> {
    // SAFETY: the arguments are not those of memory that it could read or write: each pointer is invalid, each number out of range.
    let result = unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
    (result == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap())
}
