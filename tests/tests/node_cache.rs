//! The node's cache and its compile service: boxes in mount namespaces of their own, as in containers, and a socket behind which each
//! connection gets a process, as from the shim. They take root.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};
use wasmbox_tests::{WasmBox, binary, eventually, metrics::Metrics, server::Launch, temporary::TempDir, workspace};

/// The user of boxes that are not root's.
const USER: u32 = 1000;
/// Takes long enough to compile to look at it meanwhile.
const LARGE: usize = 3 << 20;

/// A node: a cache, and a socket with the service behind it.
struct Node {
    directory: TempDir,
    ending: Arc<AtomicBool>,
    /// The service's processes that run.
    services: Arc<Mutex<BTreeSet<u32>>>,
    listening: Option<JoinHandle<()>>,
}

impl Node {
    fn start(flags: &[&str]) -> Node {
        let directory = TempDir::new();
        let cache = directory.path().join("cache");
        for path in [&cache, &directory.path().join("mapped")] {
            fs::create_dir(path).expect("a new directory");
            fs::set_permissions(path, Permissions::from_mode(0o711)).expect("the directory is ours");
        }
        let socket = directory.path().join("compile.sock");
        let listener = UnixListener::bind(&socket).expect("a new socket");
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("the socket is ours");
        let (ending, services) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let flags: Vec<String> =
            flags.iter().map(|flag| (*flag).to_owned()).chain([format!("--cache-dir={}", cache.display())]).collect();
        let listening = thread::spawn({
            let (ending, services) = (Arc::clone(&ending), Arc::clone(&services));
            move || serve(&listener, &flags, &ending, &services)
        });
        Node { directory, ending, services, listening: Some(listening) }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("compile.sock")
    }

    /// A box that does not know the service.
    fn launch_alone(&self) -> Launch {
        // In a mount namespace, where the node's cache is read-only.
        let script = "mount --bind \"$0\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
        let mapped = self.directory.path().join("mapped").display().to_string();
        WasmBox::launch()
            .through(["unshare", "--mount", "sh", "-c", script, &self.cache().display().to_string(), &mapped])
            .flag("--node-cache-dir", &mapped)
            .flag("--cache-dir", "none")
    }

    fn launch(&self) -> Launch {
        self.launch_alone().flag("--compile-socket", self.socket().display())
    }

    /// What is in the cache.
    fn images(&self) -> Vec<PathBuf> {
        let mut images: Vec<PathBuf> =
            fs::read_dir(self.cache()).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        images.sort();
        images
    }

    fn services(&self) -> Vec<u32> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// The processes that compile for this node.
    fn compilers(&self) -> Vec<u32> {
        self.services()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok())
            .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect()
    }

    fn wait_for_compiler(&self) -> u32 {
        eventually("a compiler runs, confined", || {
            self.compilers()
                .into_iter()
                .find(|pid| Path::new(&format!("/proc/{pid}/root/proc")).try_exists().is_ok_and(|there| !there))
        })
    }

    /// Connects as a box does, and reads the greeting.
    fn connect(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).expect("somebody listens");
        let greeting = line(&mut stream);
        assert!(greeting.starts_with("compiles for "), "{greeting}");
        stream
    }

    /// What the service answers.
    fn send(&self, module: &[u8]) -> String {
        let mut stream = self.connect();
        // It may refuse before it has read all.
        let _ = stream.write_all(module);
        let _ = stream.shutdown(Shutdown::Write);
        line(&mut stream)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        let _ = UnixStream::connect(self.socket());
        let ended = self.listening.take().map(JoinHandle::join);
        if thread::panicking() {
            return;
        }
        assert!(matches!(ended, Some(Ok(()))), "the listener failed");
        for path in self.images() {
            assert!(path.extension().is_some_and(|ending| ending == "cwasm"), "{} is left", path.display());
        }
    }
}

/// A process for each connection, until the end.
fn serve(listener: &UnixListener, flags: &[String], ending: &AtomicBool, services: &Mutex<BTreeSet<u32>>) {
    thread::scope(|scope| {
        for connection in listener.incoming() {
            let connection: OwnedFd = connection.expect("a connection").into();
            if ending.load(Ordering::Acquire) {
                return;
            }
            scope.spawn(move || {
                let output = connection.try_clone().expect("another descriptor");
                let mut child = Command::new(workspace::wasmbox())
                    .arg("compile-service")
                    .args(flags)
                    .stdin(connection)
                    .stdout(output)
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("the service's binary runs");
                let services = || services.lock().unwrap_or_else(PoisonError::into_inner);
                services().insert(child.id());
                child.wait().expect("the child is ours");
                services().remove(&child.id());
            });
        }
    });
}

fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("an answer") == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("lines are text")
}

fn node(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("wasmbox_cache_requests_total", &["cache=\"node\"", &format!("result=\"{result}\"")])
}

fn compilations(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("wasmbox_compilations_total", &[&format!("result=\"{result}\"")])
}

/// (compiled by the service, compiled by the box, found in the node's cache)
fn counts(server: &WasmBox) -> (f64, f64, f64) {
    let metrics = server.metrics();
    (compilations(&metrics, "node"), compilations(&metrics, "ok"), node(&metrics, "hit"))
}

#[test]
fn the_second_box_of_a_node_starts_warm() {
    let examples = |launch: Launch| launch.example("rust-hello.wasm").example("rust-http.wasm").start();
    let node = Node::start(&[]);
    let first = examples(node.launch());
    let answer = first.get("/rust-hello?arg=Ada").ok();
    // A component, too.
    first.get("/rust-http").ok();
    assert_eq!(counts(&first), (2.0, 0.0, 0.0));
    let images = node.images();
    assert_eq!(images.len(), 2, "{images:?}");
    for image in &images {
        let metadata = fs::metadata(image).expect("it is there");
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o444));
    }
    // Without the service, since nothing has to be compiled.
    let second = examples(node.launch_alone());
    assert_eq!(second.get("/rust-hello?arg=Ada").ok().body, answer.body);
    second.get("/rust-http").ok();
    assert_eq!(counts(&second), (0.0, 0.0, 2.0));
    assert!(!second.log().contains("WARN"), "{}", second.log());
}

#[test]
fn a_box_without_rights_is_served_too() {
    let drop = ["setpriv", &format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"].map(str::to_owned);
    let node = Node::start(&[]);
    for expected in [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] {
        let server = node.launch().through(drop.clone()).example("rust-hello.wasm").start();
        let status = fs::read_to_string(format!("/proc/{}/status", server.process().0)).expect("it runs");
        assert!(status.contains(&format!("Uid:\t{USER}")), "{status}");
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), expected);
    }
}

/// As in a pod with `hostUsers: false`, where the node's root is nobody that a box knows.
#[test]
fn a_box_in_a_user_namespace_is_served_too() {
    // Somebody outside makes the namespace, maps its users, and lets go of it when the box is in it.
    let script = "box=$$; namespace() { readlink /proc/$1/ns/user; }
        (unshare --user sleep 60 & holder=$!
            while [ \"$(namespace $holder)\" = \"$(namespace self)\" ]; do sleep 0.01; done
            for map in gid_map uid_map; do echo 0 100000 65536 > /proc/$holder/$map; done
            echo $holder > $0
            while [ \"$(namespace $box)\" = \"$(namespace self)\" ]; do sleep 0.01; done
            kill $holder) &
        until [ -s $0 ]; do sleep 0.01; done
        holder=$(cat $0); rm $0
        exec nsenter --user=/proc/$holder/ns/user --setuid 0 --setgid 0 \"$@\"";
    let node = Node::start(&[]);
    for expected in [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] {
        let holder = node.directory.path().join("holder").display().to_string();
        let launch = node.launch().through(["sh", "-c", script, &holder]);
        let server = launch.example("rust-hello.wasm").start();
        let map = fs::read_to_string(format!("/proc/{}/uid_map", server.process().0)).expect("it runs");
        assert!(map.split_whitespace().eq(["0", "100000", "65536"]), "{map}");
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), expected);
    }
}

/// What compiling a small module costs is less than asking for it.
#[test]
fn small_modules_are_compiled_by_the_box() {
    let node = Node::start(&[]);
    let server = node.launch().function("small.wat", wasmbox_tests::guest::hello()).start();
    server.get("/small").ok();
    assert_eq!(counts(&server), (0.0, 1.0, 0.0));
    assert!(node.images().is_empty());
}

/// Baseline code is the box's own, optimised code the node's.
#[test]
fn what_is_compiled_in_two_steps_is_optimised_by_the_service() {
    let node = Node::start(&[]);
    let server = node.launch().function("large.wasm", binary::large(LARGE)).start();
    assert!(server.get("/large").ok().header("server-timing").contains("desc=baseline"));
    assert!(node.images().is_empty());
    eventually("it is optimised", || {
        let timing = server.get("/large").ok().header("server-timing").to_owned();
        (!timing.contains("desc=baseline")).then_some(())
    });
    let metrics = server.metrics();
    assert_eq!((compilations(&metrics, "node"), compilations(&metrics, "ok")), (1.0, 1.0));
    assert_eq!(node.images().len(), 1);
}

#[test]
fn two_boxes_at_once_compile_once() {
    let node = Node::start(&[]);
    let servers =
        [(); 2].map(|()| node.launch().flag("--tiers", "off").function("large.wasm", binary::large(LARGE)).start());
    let compilers = Mutex::new(BTreeSet::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                compilers.lock().expect("nobody panicked").extend(node.compilers());
                thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let requests = servers.each_ref().map(|server| scope.spawn(|| server.get("/large").ok()));
        for request in requests {
            request.join().expect("an answer");
        }
        done.store(true, Ordering::Release);
    });
    // Both were served by the one compilation, or the later one found it done.
    let [first, second] = servers.each_ref().map(counts);
    assert_eq!((first.1, second.1), (0.0, 0.0), "{first:?} {second:?}");
    assert_eq!((first.0 + first.2, second.0 + second.2), (1.0, 1.0), "{first:?} {second:?}");
    let compilers = compilers.into_inner().expect("nobody panicked");
    assert_eq!(compilers.len(), 1, "{compilers:?}");
}

#[test]
fn the_process_that_compiles_can_reach_nothing() {
    let node = Node::start(&[]);
    let mut connection = node.connect();
    connection.write_all(&binary::large(LARGE)).expect("it reads");
    connection.shutdown(Shutdown::Write).expect("connected");
    let pid = node.wait_for_compiler();
    let parent = node.services()[0];
    let status = eventually("it has confined itself", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it compiles");
        status.contains("Seccomp:\t2").then_some(status)
    });
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect("proc(5): status");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // A user that nobody else is.
    let user = (0x7000_0000 + parent).to_string();
    for name in ["Uid", "Gid"] {
        assert_eq!(field(name), [&user; 4].map(String::as_str));
    }
    assert!(field("Groups").is_empty());
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(name), ["0000000000000000"]);
    }
    assert_eq!(field("NSpid").last().map(String::as_str), Some("1"));
    for namespace in ["mnt", "net", "ipc", "uts", "pid", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it compiles");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).expect("it compiles").count(), 0);
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).expect("it compiles") {
        let target = fs::read_link(descriptor.expect("an entry").path()).expect("it is open");
        let target = target.to_string_lossy().into_owned();
        assert!(target.starts_with("/memfd:") || target == "/dev/null", "{target}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it compiles");
    for limited in ["Max cpu time", "Max file size", "Max data size", "Max processes"] {
        let line = limits.lines().find(|line| line.starts_with(limited)).expect("proc(5): limits");
        assert!(!line.contains("unlimited"), "{line}");
    }
    assert_eq!(line(&mut connection), "done");
}

#[test]
fn what_is_no_module_leaves_nothing() {
    let node = Node::start(&["--max-module-size=1Mi", "--receive-time=500"]);
    for garbage in [&b""[..], b"\0", b"hello", b"\0asm", b"\0asm\x01\0\0\0\xff\xff\xff", &[0xff; 1 << 20], b"(module)"]
    {
        let said = node.send(garbage);
        assert!(said.starts_with("failed: "), "{} bytes: {said}", garbage.len());
    }
    // Native code is none either, though it is what the cache holds.
    assert_eq!(node.send(&binary::large(64 << 10)), "done");
    let native = fs::read(&node.images()[0]).expect("an image");
    assert!(node.send(&native).starts_with("failed: "));
    let said = node.send(&binary::large(2 << 20));
    assert!(said.contains("refused") && said.contains("larger than 1048576 bytes"), "{said}");
    // One that does not end.
    let mut slow = node.connect();
    slow.write_all(b"\0asm").expect("it reads");
    let said = line(&mut slow);
    assert!(said.contains("refused") && said.contains("did not arrive within 500 ms"), "{said}");
    assert_eq!(node.images().len(), 1);
}

/// Others may wait for the same module.
#[test]
fn a_compilation_outlives_its_box() {
    let node = Node::start(&[]);
    let mut connection = node.connect();
    connection.write_all(&binary::large(LARGE)).expect("it reads");
    connection.shutdown(Shutdown::Write).expect("connected");
    node.wait_for_compiler();
    drop(connection);
    eventually("the code is there", || (node.images().len() == 1).then_some(()));
}

#[test]
fn compiling_for_too_long_is_given_up() {
    let node = Node::start(&["--compile-time=100"]);
    let said = node.send(&binary::large(2 * LARGE));
    assert!(said.contains("failed") && said.contains("longer than 100 ms"), "{said}");
    eventually("nothing runs", || node.services().is_empty().then_some(()));
    assert!(node.images().is_empty());
}

/// What the node's compiler could not compile, the box does not try to.
#[test]
fn a_module_that_exhausts_the_compiler_is_compiled_nowhere_else() {
    let node = Node::start(&["--compile-memory=128Mi"]);
    let server = node.launch().function("exhausting.wasm", binary::exhausting(&[])).start();
    for _ in 0..2 {
        server.get("/exhausting").problem(422, "module-invalid").names(&["128 MiB"]);
    }
    let metrics = server.metrics();
    assert_eq!(compilations(&metrics, "node-failed"), 1.0);
    for result in ["ok", "invalid", "failed"] {
        assert_eq!(compilations(&metrics, result), 0.0, "{result}");
    }
    assert!(node.images().is_empty());
}

#[test]
fn an_invalid_module_is_what_it_always_is() {
    // Large enough to be asked for.
    let text = "(module (func (export \"_start\") (drop)))";
    let mut module = binary::encoded(text);
    module.extend(binary::custom_section("filling", &vec![7; 64 << 10]));
    let node = Node::start(&[]);
    let server = node.launch().function("bad.wasm", &module).start();
    let alone = WasmBox::with("bad.wasm", &module);
    let details = [&server, &alone].map(|server| server.get("/bad").problem(422, "module-invalid").detail().to_owned());
    assert_eq!(details[0], details[1]);
    let metrics = server.metrics();
    assert_eq!((compilations(&metrics, "node-failed"), compilations(&metrics, "invalid")), (1.0, 0.0));
    assert!(!server.log().contains("compile service"), "{}", server.log());
    assert!(node.images().is_empty());
}

#[test]
fn a_service_that_is_killed_is_made_up_for() {
    for victim in [Node::services as fn(&Node) -> Vec<u32>, Node::compilers] {
        let node = Node::start(&[]);
        let server = node.launch().flag("--tiers", "off").function("large.wasm", binary::large(LARGE)).start();
        thread::scope(|scope| {
            let request = scope.spawn(|| server.get("/large").ok());
            let compiler = node.wait_for_compiler();
            let victim = victim(&node)[0];
            kill_process(Pid::from_raw(victim as i32).expect("a process number"), Signal::KILL).expect("it runs");
            eventually("nothing is left", || {
                (node.services().is_empty() && !Path::new(&format!("/proc/{compiler}")).exists()).then_some(())
            });
            request.join().expect("an answer");
        });
        assert_eq!(counts(&server), (0.0, 1.0, 0.0));
        server.logged(&["WARN", "compile service", "compiling here"]);
        assert!(node.images().is_empty());
    }
}

#[test]
fn without_its_service_a_box_compiles_itself_and_says_so_once() {
    let node = Node::start(&[]);
    let gone = node.directory.path().join("gone.sock");
    let server = node
        .launch_alone()
        .flag("--compile-socket", gone.display())
        .function("first.wasm", binary::large(64 << 10))
        .function("second.wasm", binary::large(80 << 10))
        .start();
    server.get("/first").ok();
    server.get("/second").ok();
    assert_eq!(counts(&server), (0.0, 2.0, 0.0));
    assert_eq!(server.log().matches("does not serve").count(), 1, "{}", server.log());
    server.logged(&["WARN", "gone.sock", "connecting"]);
}

/// After the node's binaries were replaced, boxes of the old ones still run.
#[test]
fn a_service_of_another_version_is_not_used() {
    let node = Node::start(&[]);
    let other = node.directory.path().join("other.sock");
    let listener = UnixListener::bind(&other).expect("a new socket");
    let server = node
        .launch_alone()
        .flag("--compile-socket", other.display())
        .function("module.wasm", binary::large(64 << 10))
        .start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut connection, _) = listener.accept().expect("the box");
            connection.write_all(b"compiles for 0123456789abcdef\n").expect("it reads");
        });
        server.get("/module").ok();
    });
    assert_eq!(counts(&server), (0.0, 1.0, 0.0));
    server.logged(&["WARN", "another version"]);
}

#[test]
fn a_cache_that_can_be_written_is_refused() {
    let node = Node::start(&[]);
    let refusal = |launch: Launch, parts: &[&str]| {
        let said = launch.refusal();
        for part in parts.iter().chain(&["--node-cache-dir"]) {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    };
    let writable = WasmBox::launch().flag("--node-cache-dir", node.cache().display());
    refusal(writable, &["not mounted read-only"]);
    fs::set_permissions(node.cache(), Permissions::from_mode(0o775)).expect("the directory is ours");
    refusal(node.launch(), &["775"]);
    fs::set_permissions(node.cache(), Permissions::from_mode(0o711)).expect("the directory is ours");
    chown(node.cache(), Some(USER), None).expect("the directory is ours");
    refusal(node.launch(), &["belongs to user 1000"]);
    // The service does not write there either.
    let mut stream = UnixStream::connect(node.socket()).expect("somebody listens");
    let said = line(&mut stream);
    assert!(said.starts_with("refused: ") && said.contains("belongs to user 1000"), "{said}");
    chown(node.cache(), Some(0), None).expect("the directory is ours");
    refusal(WasmBox::launch().flag("--node-cache-dir", "/nowhere"), &["/nowhere"]);
    let alone = WasmBox::launch().flag("--compile-socket", node.socket().display()).refusal();
    assert!(alone.contains("--node-cache-dir"), "{alone}");
}

/// By the node's root, or by its disk: nobody else can.
#[test]
fn a_changed_file_is_refused_and_made_anew() {
    let node = Node::start(&[]);
    let start = |launch: Launch| launch.example("rust-hello.wasm").start();
    start(node.launch()).get("/rust-hello").ok();
    let image = node.images().remove(0);
    let genuine = fs::read(&image).expect("it can be read");
    for damage in [
        |image: &mut Vec<u8>| image[5000] ^= 1,
        |image: &mut Vec<u8>| *image.last_mut().expect("an image") ^= 0x80,
        |image: &mut Vec<u8>| image.truncate(100),
    ] {
        let mut content = genuine.clone();
        damage(&mut content);
        fs::remove_file(&image).expect("it is there");
        fs::write(&image, &content).expect("a new file");
        let alone = start(node.launch_alone());
        alone.get("/rust-hello").ok();
        assert_eq!(counts(&alone), (0.0, 1.0, 0.0));
        alone.logged(&["WARN", "node's cache", "digest"]);
        // The box cannot remove it, the service does.
        assert_eq!(fs::read(&image).expect("it is there"), content);
        let server = start(node.launch());
        server.get("/rust-hello").ok();
        assert_eq!(counts(&server), (1.0, 0.0, 0.0));
        assert_eq!(fs::read(&image).expect("it is there"), genuine);
    }
    // One that others may write, though what is in it is right.
    fs::set_permissions(&image, Permissions::from_mode(0o666)).expect("it is ours");
    let alone = start(node.launch_alone());
    alone.get("/rust-hello").ok();
    assert_eq!(counts(&alone), (0.0, 1.0, 0.0));
}

/// An image that is genuine, but another module's.
#[test]
fn one_image_cannot_stand_in_for_another() {
    let node = Node::start(&[]);
    for size in [64 << 10, 96 << 10] {
        assert_eq!(node.send(&binary::large(size)), "done");
    }
    let images = node.images();
    fs::copy(&images[0], node.directory.path().join("copy")).expect("it can be read");
    fs::rename(node.directory.path().join("copy"), &images[1]).expect("the same file system");
    let server = node
        .launch_alone()
        .function("first.wasm", binary::large(64 << 10))
        .function("second.wasm", binary::large(96 << 10))
        .start();
    server.get("/first").ok();
    server.get("/second").ok();
    assert_eq!(counts(&server), (0.0, 1.0, 1.0));
}

#[test]
fn the_nodes_cache_is_bounded() {
    let node = Node::start(&["--cache-size=512Ki"]);
    for size in 0..6 {
        assert_eq!(node.send(&binary::large((64 << 10) + (size << 14))), "done");
    }
    let sizes: Vec<u64> =
        node.images().into_iter().map(|image| fs::metadata(image).expect("it is there").len()).collect();
    assert!(!sizes.is_empty() && sizes.iter().sum::<u64>() <= 512 << 10, "{sizes:?}");
    // Code that is larger than the whole cache removes nothing.
    let said = node.send(&binary::large(1 << 20));
    assert!(said.starts_with("refused: "), "{said}");
    assert_eq!(node.images().len(), sizes.len());
}

#[test]
fn run_uses_the_nodes_cache_too() {
    let node = Node::start(&[]);
    let script = "mount --bind \"$0\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let mapped = node.directory.path().join("mapped");
    for _ in 0..2 {
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .args([&node.cache(), &mapped, &workspace::wasmbox()])
            .arg("run")
            .arg(workspace::example("rust-hello.wasm"))
            .env_clear()
            .envs([("NODE_CACHE_DIR", &mapped), ("COMPILE_SOCKET", &node.socket())])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .expect("unshare, of the package util-linux, runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(node.images().len(), 1);
    }
}
