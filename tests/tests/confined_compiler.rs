//! Compiling is never in the box: what a module may cost, and what the process that compiles may do. Without the node's service; with it see
//! `node_cache.rs`. In one step, which is the one that takes long; for two see `tiers.rs`.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use wasmbox_tests::{Answer, Request, TestCgroup, WasmBox, binary, component, eventually, guest, server::Launch};

/// Takes seconds to compile.
const LARGE: usize = 6 << 20;

fn one_step() -> Launch {
    WasmBox::launch().flag("--tiers", "off")
}

/// The processes that compile for `server` now.
fn compilers(server: &WasmBox) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", server.process().0)) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

fn status(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.expect("proc(5): status").trim()
}

/// One that has confined itself, and its status.
fn wait_for_compiler(server: &WasmBox) -> (u32, String) {
    eventually("a compiler runs, confined", || {
        let pid = *compilers(server).first()?;
        let status = status(pid)?;
        // Beside the filter that it has from the box.
        let filters = |status: &str| field(status, "Seccomp_filters").parse::<u32>().expect("a number");
        let own = filters(&status) > filters(&self::status(server.process().0)?);
        own.then_some((pid, status))
    })
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).expect("a process number"), Signal::KILL).expect("it runs");
}

/// The answer when compiling has ended, on a busy machine too.
fn patient(server: &WasmBox, path: &str) -> Answer {
    let give_up = Instant::now() + Duration::from_secs(300);
    loop {
        let answer = server.call(Request::get(path).header("Invocation-Timeout", "20s"), "");
        if !(answer.status == 503 && answer.text().contains("still being compiled")) || Instant::now() > give_up {
            return answer;
        }
    }
}

fn compilations(server: &WasmBox, result: &str) -> f64 {
    server.metrics().sum("wasmbox_compilations_total", &[&format!("result=\"{result}\"")])
}

/// As root, and as a user without any right on a read-only root file system, as in a container.
#[test]
fn the_process_that_compiles_can_reach_nothing() {
    let unprivileged = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,ro / 2>/dev/null || mount --bind / / && mount -o remount,bind,ro /; exec \"$@\"",
        "sh",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ];
    for wrapper in [&[][..], &unprivileged] {
        let launch = one_step().function("large.wasm", binary::large(LARGE)).flag("--cache-dir", "none");
        fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let server = launch.through(wrapper.iter().copied()).start();
        thread::scope(|scope| {
            let request = scope.spawn(|| patient(&server, "/large").ok());
            let (pid, status) = wait_for_compiler(&server);
            assert_eq!(field(&status, "NoNewPrivs"), "1");
            for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, name), "0000000000000000", "{name}");
            }
            // All threads, not only the first.
            for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("it compiles").flatten() {
                let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
                assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "1"));
            }
            for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).expect("it compiles") {
                let target = fs::read_link(descriptor.expect("an entry").path()).expect("it is open");
                assert!(target.to_string_lossy().starts_with("/memfd:"), "{}", target.display());
            }
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it compiles");
            let limit = |name: &str| {
                let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5): limits");
                line.split_whitespace().next().expect("the soft limit").to_owned()
            };
            for name in ["Max cpu time", "Max file size", "Max data size"] {
                assert_ne!(limit(name), "unlimited", "{name}");
            }
            for name in ["Max open files", "Max processes", "Max core file size"] {
                assert_eq!(limit(name), "0", "{name}");
            }
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it compiles");
            assert_eq!(read("oom_score_adj").trim(), "1000");
            // The 19th field, behind the command's name, is the nice value.
            let stat = read("stat");
            let (_, fields) = stat.rsplit_once(") ").expect("proc(5): stat");
            assert_eq!(fields.split(' ').nth(16), Some("10"));
            request.join().expect("an answer");
        });
        assert!(compilers(&server).is_empty());
    }
}

#[test]
fn it_ends_with_its_box() {
    // One that is killed leaves its cgroups.
    let launch = one_step().function("large.wasm", binary::large(4 * LARGE));
    let mut server = launch.flag("--enable-cgroups", false).start();
    let impatient = server.call(Request::get("/large").header("Invocation-Timeout", "1"), "");
    impatient.problem(503, "compiling");
    let (pid, _) = wait_for_compiler(&server);
    server.signal(Signal::KILL);
    server.wait();
    eventually("the compiler has ended", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

/// 190 KB that would take gigabytes: the box is in 512 MiB, and serves others meanwhile.
#[test]
fn a_module_that_exhausts_memory_is_invalid() {
    let cgroup = TestCgroup::with_memory(512);
    let server = WasmBox::launch()
        .function("exhausting.wasm", binary::exhausting(&[]))
        .function("hello.wat", guest::hello())
        .within(&cgroup)
        .start();
    server.get("/hello").ok();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                server.get("/hello").ok();
            }
        });
        let answer = patient(&server, "/exhausting");
        ended.store(true, Ordering::Relaxed);
        answer.problem(422, "module-invalid").names(&["--compile-memory", "320 MiB"]);
    });
    // It is not compiled again.
    patient(&server, "/exhausting").problem(422, "module-invalid");
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (1.0, 1.0));
    assert_eq!(cgroup.oom_kills(), 0);
}

/// What the allocator has for each thread must not count before it is used: it differed from one run to the next.
#[test]
fn a_component_of_300_kb_is_compiled_in_80_mib_every_time() {
    let copies = 0..8_u8;
    // A custom section (id 0) of no name and one byte: each is another component, and none is in the cache.
    let copy = |number| [component::http_guest(), &[0, 2, 0, number]].concat();
    let launch = one_step().flag("--compile-memory", "80Mi");
    let server = copies.clone().fold(launch, |launch, n| launch.function(&format!("f{n}.wasm"), copy(n))).start();
    for number in copies {
        patient(&server, &format!("/f{number}/headers")).ok();
    }
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (0.0, 8.0));
}

#[test]
fn a_module_that_takes_too_long_is_invalid() {
    let server = one_step()
        .function("large.wasm", binary::large(LARGE))
        .function("hello.wat", guest::hello())
        .flag("--compile-time", "1s")
        .start();
    patient(&server, "/large").problem(422, "module-invalid").names(&["1000 ms", "--compile-time"]);
    patient(&server, "/large").problem(422, "module-invalid");
    assert_eq!(compilations(&server, "failed"), 1.0);
    eventually("nothing compiles any more", || compilers(&server).is_empty().then_some(()));
    // Until it changes.
    server.put("large.wasm", binary::encoded(&guest::hello()));
    assert_eq!(patient(&server, "/large").ok().text(), "hello\n");
}

/// Its limit is more than it can use within its time, unless it was taken over: so it is lowered here, as it is.
#[test]
fn a_compiler_that_uses_too_much_cpu_time_makes_its_module_invalid() {
    let server = one_step().function("large.wasm", binary::large(4 * LARGE)).start();
    thread::scope(|scope| {
        let request = scope.spawn(|| patient(&server, "/large"));
        let (pid, _) = wait_for_compiler(&server);
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it compiles");
        let cpu = limits.lines().find_map(|line| line.strip_prefix("Max cpu time")).expect("proc(5): limits");
        let mut numbers = cpu.split_whitespace().take(2).map(|number| number.parse::<u64>().expect("it is limited"));
        let [soft, hard] = [(); 2].map(|()| numbers.next().expect("two limits"));
        let lowered = Rlimit { current: Some(1), maximum: Some(1 + (hard - soft)) };
        prlimit(Pid::from_raw(pid as i32), Resource::Cpu, lowered).expect("it compiles");
        request.join().expect("an answer").problem(422, "module-invalid").names(&["signal", "24"]);
    });
    patient(&server, "/large").problem(422, "module-invalid");
    assert_eq!(compilations(&server, "failed"), 1.0, "it is not compiled again");
}

/// By the kernel for want of memory, for instance: that is no fault of the module's.
#[test]
fn a_compiler_that_is_killed_is_started_again() {
    let server = one_step().function("large.wasm", binary::large(LARGE)).start();
    thread::scope(|scope| {
        let request = scope.spawn(|| patient(&server, "/large"));
        kill(wait_for_compiler(&server).0);
        let problem = request.join().expect("an answer").problem(503, "compiling");
        problem.names(&["large.wasm", "killed"]);
    });
    // Not at once, but in a moment.
    eventually("it is compiled", || {
        let answer = patient(&server, "/large");
        (answer.status == 200).then_some(())
    });
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (1.0, 1.0));
}

/// 12 MB of functions take a gigabyte to read as text.
#[test]
fn a_text_is_small() {
    let server = WasmBox::launch()
        .function("large.wat", format!("(module {})", "(func)".repeat(2 << 20)))
        .function("broken.wat", "(module (func (export \"_start\")")
        .start();
    let before = server.process().peak_resident_bytes();
    server.get("/large").problem(422, "module-invalid").names(&["2097152", "binary"]);
    assert!(compilers(&server).is_empty());
    let gained = server.process().peak_resident_bytes() - before;
    assert!(gained < 128 << 20, "{} MiB for a file of 12 MiB", gained >> 20);
    // What the parser says, and where.
    server.get("/broken").problem(422, "module-invalid").names(&["expected", "1:"]);
}

/// Forty modules of 30 MB at once, in a box of 1 GiB: what waits holds no bytes.
#[test]
fn many_large_modules_at_once_wait_without_their_bytes() {
    const SIZE: usize = 30 << 20;
    let cgroup = TestCgroup::with_memory(1024);
    let mut launch = WasmBox::launch().function("hello.wat", guest::hello()).within(&cgroup);
    for index in 0..40_u8 {
        // Data is quick to compile, and different content is another module.
        let text = format!("(module (memory 1) (func (export \"_start\")) (data \"{index}\"))");
        let mut module = binary::encoded(&text);
        module.extend(binary::custom_section("padding", &vec![index; SIZE]));
        launch = launch.function(&format!("large{index}.wasm"), module);
    }
    let server = launch.start();
    server.get("/hello").ok();
    thread::scope(|scope| {
        let server = &server;
        for index in 0..40 {
            scope.spawn(move || patient(server, &format!("/large{index}")).ok());
        }
        server.get("/hello").ok();
    });
    assert_eq!(cgroup.oom_kills(), 0);
    let peak = server.process().peak_resident_bytes();
    assert!(peak < 512 << 20, "{} MiB were resident", peak >> 20);
}

/// What a module's author wrote is quoted, but not all of it, and not as control characters.
#[test]
fn long_names_are_shortened_in_answers_and_in_the_log() {
    let long = "x".repeat(100_000);
    let server = WasmBox::launch()
        .function("long.wasm", binary::command_importing(&[(&long, &long)]))
        .function("escape.wasm", binary::command_importing(&[("env", "a\u{1b}[2J\u{202e}b")]))
        .function("settings.wat", guest::hello())
        .function("settings.toml", format!("args = [\"{}\\u0000\"]", "y".repeat(60_000)))
        .function("syntax.wat", guest::hello())
        .function("syntax.toml", format!("# {}\nz{} = 1", "c".repeat(100), "z".repeat(60_000)))
        .start();
    let logged = server.log().len();
    for name in ["long", "settings", "syntax"] {
        let answer = server.get(&format!("/{name}"));
        answer.problem(422, "module-invalid");
        assert!(answer.body.len() < 4096, "{name}: {} bytes", answer.body.len());
    }
    let answer = server.get("/escape");
    let detail = answer.problem(422, "module-invalid").detail().to_owned();
    assert!(detail.contains("\\u{1b}") && detail.contains("\\u{202e}"), "{detail}");
    assert!(!detail.contains(['\u{1b}', '\u{202e}']), "{detail}");
    let log = server.log();
    assert!(log.len() - logged < 32 << 10, "{} bytes of log", log.len() - logged);
}

/// What could not be linked is not compiled: this one would take minutes, and fail for another reason.
#[test]
fn a_missing_import_is_found_before_compiling() {
    let server = WasmBox::launch()
        .function("missing.wasm", binary::exhausting(&[("env", "emscripten_notify")]))
        .function("store.wat", "(component (import \"wasi:keyvalue/store@0.2.0\" (instance (export \"f\" (func)))))")
        .start();
    patient(&server, "/missing").problem(422, "module-invalid").names(&["env::emscripten_notify"]);
    patient(&server, "/store").problem(422, "module-invalid").names(&["wasi:keyvalue/store@0.2.0", "wasi:http"]);
    assert_eq!(compilations(&server, "invalid"), 2.0);
}

/// Each in a process of its own; and a small one does not wait for them.
#[test]
fn as_many_are_compiled_at_once_as_there_are_jobs() {
    let mut launch = one_step().function("small.wat", guest::hello()).flag("--compile-jobs", 3);
    for index in 0..3 {
        launch = launch.function(&format!("large{index}.wasm"), binary::large(LARGE + (index << 18)));
    }
    let server = launch.start();
    thread::scope(|scope| {
        let server = &server;
        let requests = [0, 1, 2].map(|index| scope.spawn(move || patient(server, &format!("/large{index}")).ok()));
        let first: BTreeSet<u32> = eventually("two compile", || {
            let compilers: BTreeSet<u32> = compilers(server).into_iter().collect();
            (compilers.len() == 2).then_some(compilers)
        });
        server.get("/small").ok();
        let still: BTreeSet<u32> = compilers(server).into_iter().collect();
        assert!(!first.is_disjoint(&still), "the large modules were compiled too soon to show anything");
        for request in requests {
            request.join().expect("an answer");
        }
    });
}

/// A writer that opens a module breaks the lease by which the box sees writers. Here it is no container's first process, which the kernel
/// would spare.
#[test]
fn writers_that_race_with_loading_do_not_end_the_box() {
    let server = WasmBox::with("module.wat", guest::hello());
    let path = server.functions().join("module.wat");
    server.get("/module").ok();
    thread::sleep(Duration::from_millis(100));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(fs::OpenOptions::new().write(true).open(&path).expect("the file is there"));
                }
            });
        }
        for round in 0..300 {
            // Another version, of the same content: it is read again.
            let mode = if round % 2 == 0 { 0o644 } else { 0o640 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
            let answer = server.call(Request::get("/module").header("Invocation-Timeout", "100"), "");
            assert!([200, 503, 504].contains(&answer.status), "{answer:?}");
        }
        ended.store(true, Ordering::Relaxed);
    });
    server.get("/module").ok();
}
