//! Shutting down: what runs may end, what arrives on open connections is served, and no new connection is taken.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Signal,
};
use wasmbox_tests::{Request, WasmBox, Wire, binary, client::Http2, eventually, guest, server::Launch};

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n";

fn launch() -> Launch {
    WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("hello.wat", guest::hello())
        .function("busy.wat", guest::busy())
        .function("flood.wat", guest::flood(0))
}

/// A request whose function waits for the end of its input.
fn waiting(server: &WasmBox) -> Wire {
    let mut wire = server.wire(CHUNKED);
    wire.send_chunk(b"input");
    server.wait_until_running("echo", 1);
    wire
}

#[test]
fn open_connections_are_served_and_new_ones_are_not_taken() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = launch().flag("--drain-timeout", "60s").start();
        let mut kept = [(), (), ()].map(|()| server.wire("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n"));
        for wire in &mut kept {
            wire.answer().ok();
        }
        let mut running = waiting(&server);
        server.signal(signal);
        server.logged(&["draining"]);
        // They are idle connections, which are not waited for long: all say at once what they want.
        let [probe, call, post] = &mut kept;
        probe.send("GET /-/ready HTTP/1.1\r\nHost: box\r\n\r\n");
        call.send("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
        post.send("POST /echo HTTP/1.1\r\nHost: box\r\nContent-Length: 4\r\n\r\nbody");
        // It lives, but is not ready.
        let answer = probe.answer();
        assert_eq!((answer.status, answer.header("connection")), (503, "close"));
        let answer = server.admin("/ready");
        assert_eq!((answer.status, answer.text().lines().next()), (503, Some("draining")));
        server.admin("/live").ok();
        server.admin("/metrics").ok();
        // Whoever is connected is served once more, and told to go elsewhere.
        assert_eq!(call.answer().ok().header("connection"), "close");
        let answer = post.answer().ok();
        assert_eq!((answer.text(), answer.header("connection")), ("body", "close"));
        for wire in &mut kept {
            assert_eq!(wire.rest(), b"");
        }
        eventually("nobody listens", || TcpStream::connect(server.address()).is_err().then_some(()));
        // What ran ends as if nothing were.
        running.send_chunk(b" and more");
        running.send_chunk(b"");
        let answer = running.answer().ok();
        assert_eq!(answer.text(), "input and more");
        assert_eq!(answer.header("connection"), "close");
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// HTTP/2 has its own way to say so: what is under way is answered, what comes later is for another connection.
#[test]
fn a_connection_of_http2_is_told_to_go_away() {
    let launch = launch().function("slow.wat", guest::printing("slow", "(call $sleep (i64.const 1000))"));
    let mut server = launch.flag("--drain-timeout", "30s").start();
    let connection = Http2::connect(server.address());
    let answers = thread::scope(|scope| {
        let slow = scope.spawn(|| connection.get_all(&["/slow".into(), "/slow".into()]));
        server.wait_until_running("slow", 2);
        server.signal(Signal::TERM);
        slow.join().expect("both are answered")
    });
    for answer in answers {
        assert_eq!(answer.ok().text(), "slow");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_server_ends_soon_though_idle_connections_are_open() {
    let mut server = launch().flag("--drain-timeout", "10m").start();
    let mut kept = server.wire("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    kept.answer().ok();
    let mut silent = Wire::connect(server.address());
    let mut half = server.wire("GET /hello HT");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    for wire in [&mut kept, &mut silent, &mut half] {
        assert_eq!(wire.rest(), b"");
    }
}

/// Whoever has been heard before the signal is served: waiting ones, too.
#[test]
fn who_waits_for_capacity_is_served() {
    let mut server = launch()
        .flag("--memory-request", 64)
        .flag("--concurrent-resource-request", 64)
        .flag("--drain-timeout", "60s")
        .start();
    let mut running = waiting(&server);
    let mut queued = server.wire("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    eventually("a queue", || (server.metrics().sum("wasmbox_queued_invocations", &[]) == 1.0).then_some(()));
    server.signal(Signal::TERM);
    server.logged(&["draining"]);
    running.send_chunk(b"");
    running.answer().ok();
    assert_eq!(queued.answer().ok().header("connection"), "close");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn who_waits_until_the_drain_time_is_over_is_refused() {
    let mut server = launch()
        .flag("--memory-request", 64)
        .flag("--concurrent-resource-request", 64)
        .flag("--drain-timeout", "300ms")
        .start();
    let mut running = waiting(&server);
    let mut queued = server.wire("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
    eventually("a queue", || (server.metrics().sum("wasmbox_queued_invocations", &[]) == 1.0).then_some(()));
    server.signal(Signal::TERM);
    queued.answer().problem(503, "draining");
    running.answer().problem(503, "draining");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_drain_time_is_bounded() {
    let mut server = launch().flag("--drain-timeout", "300ms").start();
    server.get("/hello").ok();
    let mut busy = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    let mut waiting = waiting(&server);
    let mut flood = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\n\r\n");
    assert_eq!(flood.head().status, 200);
    server.wait_until_running("flood", 1);
    server.signal(Signal::TERM);
    busy.answer().problem(503, "draining");
    waiting.answer().problem(503, "draining");
    // What has started can only be broken off.
    while flood.chunk().is_ok_and(|chunk| {
        assert!(chunk.is_some(), "the answer is whole");
        true
    }) {}
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.log().contains("the drain time is over"), "{}", server.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)] {
        let mut server = launch().flag("--drain-timeout", "10m").start();
        let mut running = waiting(&server);
        server.signal(first);
        server.logged(&["draining"]);
        server.signal(second);
        assert_eq!(server.wait().code(), Some(143));
        assert_eq!(running.rest(), b"");
    }
}

#[test]
fn a_compilation_does_not_hold_up_the_end() {
    let server = launch().function("large.wasm", binary::large(8 << 20));
    let mut server = server.flag("--drain-timeout", "300ms").flag("--tiers", "off").start();
    let mut compiling = server.wire("GET /large HTTP/1.1\r\nHost: box\r\n\r\n");
    server.logged(&["compiling", "large.wasm"]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.log().contains("file=\"large.wasm\" kind"), "it was waited for");
    compiling.answer().problem(503, "draining");
}

/// A file system whose server answers nothing any more, mounted over a directory until this is dropped.
struct DeadStorage {
    fuse: File,
    directory: PathBuf,
}

impl DeadStorage {
    /// Speaks FUSE (linux/fuse.h) as far as is needed to mount it.
    fn over(directory: &Path) -> DeadStorage {
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("a kernel with FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.as_raw_fd());
        let options = CString::new(options).expect("text");
        mount("dead", directory, "fuse", MountFlags::empty(), options.as_c_str()).expect("root may mount");
        let mut dead = DeadStorage { fuse, directory: directory.to_owned() };
        const INIT: u32 = 26;
        let (operation, unique) = dead.next_request();
        assert_eq!(operation, INIT);
        // The header, version 7.31, and room for the rest of `fuse_init_out`.
        let mut answer = [0_u8; 80];
        answer[0..4].copy_from_slice(&80_u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&unique.to_ne_bytes());
        answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
        answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
        answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
        dead.fuse.write_all(&answer).expect("the kernel takes it");
        dead
    }

    /// What is asked for, and its number. It is not answered.
    fn next_request(&mut self) -> (u32, u64) {
        let mut request = [0; 1 << 17];
        let length = self.fuse.read(&mut request).expect("a request of the kernel's");
        assert!(length >= 40, "a header");
        let number = |range: std::ops::Range<usize>| request[range].try_into().expect("four bytes");
        (u32::from_ne_bytes(number(4..8)), u64::from_ne_bytes(request[8..16].try_into().expect("eight bytes")))
    }
}

impl Drop for DeadStorage {
    fn drop(&mut self) {
        unmount(&self.directory, UnmountFlags::DETACH | UnmountFlags::FORCE).expect("it was mounted");
    }
}

#[test]
fn a_worker_that_is_stuck_in_dead_storage_does_not_keep_the_box_from_ending() {
    let launch = WasmBox::launch();
    let root = launch.directory().join("root");
    fs::create_dir_all(root.join("data/sub")).expect("a new directory");
    let granted = root.join("data/sub");
    let mut server = launch
        .function("hello.wat", guest::hello())
        .function("reads.wat", guest::hello())
        .function("reads.toml", format!("preopens = [{{ host = '{}', guest = '/' }}]", granted.display()))
        .flag("--preopen-root", root.display())
        .flag("--drain-timeout", "1s")
        .start();
    server.get("/reads").ok();
    let _dead = DeadStorage::over(&root.join("data"));
    // Its worker asks for the directory. A server that had taken that question would keep the process from being killed, too.
    let request = Request::get("/reads").header("Invocation-Timeout", "300");
    server.call(request, "").problem(504, "deadline-exceeded");
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    server.logged(&["a thread does not end"]);
}
