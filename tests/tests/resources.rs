//! What a guest makes the box hold beside its linear memory: handles, headers, instances, descriptors, lines of the log. Each of these
//! guests asks for nearly no memory.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use wasmbox_tests::{
    Request, WasmBox, binary::encoded, component::http_guest, guest, guest::command_with, patience::SetOnDrop,
    server::Launch,
};

const MIB: u64 = 1 << 20;

/// A `wasi:cli` component that makes `number` `fields` with 120,000 bytes each, drops none, and then runs for ever.
fn header_hoarder(number: u32) -> Vec<u8> {
    encoded(&format!(
        r#"(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (type $error (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $error)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append"
      (func (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8))
        (result (result (error $header-error)))))))
  (core module $memory (memory (export "memory") 3))
  (core instance $memory (instantiate $memory))
  (core func $new (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append") (memory (core memory $memory "memory"))))
  (core module $main
    (import "host" "new" (func $new (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "memory" "memory" (memory 3))
    (func (export "run") (result i32) (local $left i32)
      (i32.store8 (i32.const 0) (i32.const 120))
      (memory.fill (i32.const 1024) (i32.const 121) (i32.const 120000))
      (local.set $left (i32.const {number}))
      (loop $again
        (call $append (call $new) (i32.const 0) (i32.const 1) (i32.const 1024) (i32.const 120000) (i32.const 16))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))
      (loop $forever (br $forever))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "new" (func $new)) (export "append" (func $append))))
    (with "memory" (instance $memory))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $run)))"#
    ))
}

#[test]
fn what_the_box_allocates_for_a_guest_is_the_guests() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("some.wasm", header_hoarder(100))
        .function("many.wasm", header_hoarder(1_000_000))
        .start();
    server.get("/hello").ok();
    let before = server.process().peak_resident_bytes();
    let small = |path| Request::get(path).header("Memory-Request", "256Ki").header("Invocation-Timeout", "60000");
    // Twelve megabytes, held.
    let problem = server.call(small("/some"), "").problem(500, "guest-memory-limit");
    assert_eq!(problem.member("limit_bytes"), 256 << 10);
    // Within the memory that it asked for it may do so, until its time is over.
    let large = Request::get("/some").header("Memory-Request", "64").header("Invocation-Timeout", "1500");
    server.call(large, "").problem(504, "deadline-exceeded");
    // It ends by one bound or the other: the memory, or the number of handles.
    let answer = server.call(small("/many"), "");
    assert_eq!(answer.status, 500);
    let more = server.process().peak_resident_bytes() - before;
    assert!(more < 256 * MIB, "{} MiB", more / MIB);
    server.get("/hello").ok();
}

#[test]
fn random_numbers_are_made_in_pieces() {
    let random = "(drop (call $random_get (i32.const 0) (i32.const 67108864)))";
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("random.wat", guest::command(random))
        .function("usual.wat", guest::command("(call $check (call $random_get (i32.const 65536) (i32.const 65536)))"))
        .start();
    server.get("/hello").ok();
    server.get("/usual").ok();
    let before = server.process().peak_resident_bytes();
    for _ in 0..3 {
        server.get("/random").problem(500, "guest-trap");
    }
    let more = server.process().peak_resident_bytes() - before;
    assert!(more < 32 * MIB, "{} MiB", more / MIB);
}

#[test]
fn instances_are_bounded_when_a_module_is_loaded() {
    let globals = "(global i32 (i32.const 0))".repeat(400_000);
    let mut component = String::from("(component (core module $m (memory 0) (memory 0) (memory 0) (memory 0))");
    for _ in 0..500 {
        component.push_str("(core instance (instantiate $m))");
    }
    write!(
        component,
        r#"(core module $main (func (export "run") (result i32) (i32.const 0)))
           (core instance $main (instantiate $main))
           (func $run (result (result)) (canon lift (core func $main "run")))
           (instance $run (export "run" (func $run)))
           (export "wasi:cli/run@0.2.0" (instance $run)))"#
    )
    .expect("a String takes all");
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("globals.wasm", encoded(&command_with(&globals, "")))
        .function("instances.wasm", encoded(&component))
        .start();
    for path in ["/globals", "/instances"] {
        let request = Request::get(path).header("Memory-Request", "256Ki");
        server.call(request, "").problem(422, "module-invalid");
        server.get("/hello").ok();
    }
}

/// Opens `file` below its granted directory again and again, and closes none.
fn descriptor_hoarder() -> String {
    command_with(
        r#"(data (i32.const 1024) "file")"#,
        "(loop $again
           (drop (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const 4)
             (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
           (br $again))",
    )
}

#[test]
fn files_that_are_never_closed_leave_descriptors_for_others() {
    let launch = WasmBox::launch();
    let granted = launch.directory().join("granted");
    fs::create_dir(&granted).expect("a new directory");
    fs::write(granted.join("file"), "content").expect("a new file");
    let server = launch
        .function("hello.wat", guest::hello())
        .function("opens.wat", descriptor_hoarder())
        .function("opens.toml", format!("preopens = [{{ host = '{}', guest = '/' }}]", granted.display()))
        .flag("--preopen-root", granted.display())
        .start();
    server.get("/hello").ok();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let hoarder = scope.spawn(|| {
            let _end = SetOnDrop(&ended);
            server.call(Request::get("/opens").header("Invocation-Timeout", "3000"), "")
        });
        let mut most = 0;
        while !ended.load(Ordering::Acquire) {
            most = most.max(server.process().descriptors());
            server.get("/hello").ok();
            thread::sleep(Duration::from_millis(5));
        }
        assert!(most < 600, "{most} descriptors");
        let answer = hoarder.join().expect("it was answered");
        assert!([500, 504].contains(&answer.status), "{answer:?}");
    });
}

/// wasmtime reads a directory whole before a guest gets its first name: the invocation must have room for that.
#[test]
fn a_directory_is_listed_by_those_who_have_room_for_it() {
    const NAMES: usize = 10_000;
    let launch = WasmBox::launch();
    let root = launch.directory().join("granted");
    let [long, short] = ["long", "short"].map(|name| root.join(name));
    for (directory, names) in [(&long, NAMES), (&short, 3)] {
        fs::create_dir_all(directory).expect("a new directory");
        (0..names).for_each(|name| fs::write(directory.join(format!("{name:0>200}")), "").expect("a new file"));
        let file = fs::File::open(directory).expect("a directory");
        // They differ in what a guest cannot set.
        file.set_times(fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).expect("it is ours");
    }
    let lists =
        "(call $check (call $fd_readdir (i32.const 3) (i32.const 65536) (i32.const 8192) (i64.const 0) (i32.const 32)))
                 (call $print (i32.const 65536) (i32.load (i32.const 32)))";
    let granted = |preopens: &[(&str, &Path)]| {
        let preopen = |(guest, host): &(&str, &Path)| format!("{{ host = '{}', guest = '{guest}' }}", host.display());
        format!("preopens = [{}]", preopens.iter().map(preopen).collect::<Vec<_>>().join(", "))
    };
    let server = launch
        .function("command.wat", guest::command_importing(guest::READDIR, lists))
        // The first of them is the one that it lists; that there is a longer one does not matter.
        .function("short.toml", granted(&[("/", &short), ("/long", &long)]))
        .function("short.wat", guest::command_importing(guest::READDIR, lists))
        .function("command.toml", granted(&[("/", &long)]))
        .function("component.wasm", http_guest())
        .function("component.toml", granted(&[("/", &long)]))
        .flag("--preopen-root", root.display())
        .start();
    // An entry takes half a kilobyte and more.
    let [little, enough] = ["2Mi", "32Mi"];
    let call = |path: &str, memory: &str| server.call(Request::get(path).header("Memory-Request", memory), "");
    // As WASI has it: nomem.
    assert_eq!(call("/command", little).problem(500, "guest-exit").member("exit_code"), 48);
    assert_eq!(call("/command", enough).ok().body.len(), 8192);
    let short = call("/short", little).ok().body;
    assert_eq!(short.windows(200).filter(|name| name.ends_with(b"0001") && name.starts_with(b"000")).count(), 1);
    assert!(call("/component/directory", little).ok().text().starts_with("no directory: "));
    assert_eq!(call("/component/directory", enough).ok().text(), format!("{NAMES} entries"));
    server.logged(&["invocation"]);
}

#[test]
fn a_granted_directory_that_became_a_symlink_is_not_followed() {
    let launch = WasmBox::launch();
    let root = launch.directory().join("root");
    let (granted, secret) = (root.join("sub"), launch.directory().join("secret"));
    fs::create_dir_all(&granted).expect("a new directory");
    fs::create_dir(&secret).expect("a new directory");
    fs::write(granted.join("file"), "granted").expect("a new file");
    fs::write(secret.join("file"), "secret").expect("a new file");
    let reads = command_with(
        r#"(data (i32.const 1024) "file")"#,
        "(call $check (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const 4)
           (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
         (call $copy (i32.load (i32.const 32)) (i32.const 1))",
    );
    let server = launch
        .function("reads.wat", reads)
        .function("reads.toml", format!("preopens = [{{ host = '{}', guest = '/' }}]", granted.display()))
        .flag("--preopen-root", root.display())
        .start();
    assert_eq!(server.get("/reads").ok().text(), "granted");
    // As another guest can do that has the root, writable.
    fs::rename(&granted, root.join("moved")).expect("a directory");
    symlink("../secret", &granted).expect("a new symlink");
    let problem = server.get("/reads").problem(500, "preopen-unavailable");
    assert!(!problem.detail().contains("secret"));
    server.logged(&["cannot open a granted directory"]);
    // It is not the name that counts, but what it is.
    fs::remove_file(&granted).expect("the symlink");
    fs::rename(root.join("moved"), &granted).expect("a directory");
    assert_eq!(server.get("/reads").ok().text(), "granted");
}

/// What holds a directory of the box's, is one, or is in one. Both are named.
#[test]
fn a_root_of_preopens_overlaps_with_nothing_of_the_box() {
    let refused = |launch: Launch, root: &Path, with: &Path| {
        let said = launch.flag("--preopen-root", root.display()).refusal();
        let expected = format!("--preopen-root {} overlaps with {}, ", root.display(), with.display());
        assert!(said.contains(&expected), "{expected:?} is not in {said}");
    };
    for (root, with) in
        [("/", "/proc"), ("/proc/sys", "/proc"), ("/sys", "/sys"), ("/sys/kernel", "/sys"), ("/run", "/run/wasmbox")]
    {
        refused(WasmBox::launch(), root.as_ref(), with.as_ref());
    }
    for name in ["functions", "cache"] {
        for below in [None, Some("below")] {
            let launch = WasmBox::launch();
            let with = launch.directory().join(name);
            let root = below.map_or(with.clone(), |below| with.join(below));
            fs::create_dir_all(&root).expect("a directory");
            refused(launch, &root, &with);
        }
    }
    let launch = WasmBox::launch();
    let (whole, functions) = (launch.directory().to_owned(), launch.functions());
    refused(launch, &whole, &functions);
    // What functions keep is made only now, and may be named in other ways: from where the box is started, through a link.
    for (named, root, with) in [
        ("data/kept", "data", "data/kept"),
        ("link/kept", "data", "data/kept"),
        ("./data", "data", "data"),
        ("data", "data/below", "data"),
    ] {
        let launch = WasmBox::launch();
        let directory = launch.directory().to_owned();
        fs::create_dir_all(directory.join("data/below")).expect("a directory");
        symlink("data", directory.join("link")).expect("a symlink");
        refused(launch.flag("--keyvalue-dir", named), &directory.join(root), &directory.join(with));
    }
    let launch = WasmBox::launch();
    let (kept, root) = (launch.directory().join("data-kept"), launch.directory().join("data"));
    fs::create_dir(&root).expect("a directory");
    launch.flag("--keyvalue-dir", kept.display()).flag("--preopen-root", root.display()).start().admin("/live").ok();
}

#[test]
fn a_long_instruction_at_the_least_quota_ends_soon_after_its_deadline() {
    let fill = "(drop (memory.grow (i32.const 2992))) (memory.fill (i32.const 0) (i32.const 7) (i32.const 196000000))";
    let server = WasmBox::with("fill.wat", guest::command(fill));
    // Compiled before its time counts.
    server.call(Request::options("/fill"), "");
    let request = Request::get("/fill").header("Cpu-Quota", "1").header("Invocation-Timeout", "1000");
    server.call(request, "").problem(504, "deadline-exceeded");
    server.wait_until_idle();
}

#[test]
fn what_wasi_does_not_implement_is_no_line_of_the_log() {
    let accepts = r#"(module
      (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (local $left i32)
        (local.set $left (i32.const 1000))
        (loop $again
          (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $again (local.get $left)))))"#;
    let server = WasmBox::launch().function("accepts.wat", accepts).function("hello.wat", guest::hello()).start();
    let answer = server.get("/accepts");
    server.logged(&["invocation", answer.header("wasmbox-invocation-id")]);
    let log = server.log();
    assert!(!log.contains("sock_accept"), "{log}");
}

#[test]
fn a_function_buffers_no_more_than_an_operator_could_let_it() {
    let prints = guest::command(&prints(100));
    let server = WasmBox::launch()
        .function("greedy.wat", guest::hello())
        .function("greedy.toml", "output-buffer-bytes = 1000000000000")
        .function("large.wat", prints)
        .function("large.toml", "output-buffer-bytes = 16777216")
        .start();
    server.get("/greedy").problem(422, "module-invalid").names(&["output-buffer-bytes", "16777216"]);
    // What it buffers is memory that it has asked for; if it has not, the answer begins when that is used up.
    for (memory, is_whole) in [("64Mi", true), ("256Ki", false)] {
        let answer = server.call(Request::get("/large").header("Memory-Request", memory), "").ok();
        assert_eq!(answer.body.len(), 100 << 16);
        assert_eq!(answer.headers.contains_key("content-length"), is_whole, "{memory}");
    }
}

/// Prints so many pages of 64 KiB.
fn prints(pages: u32) -> String {
    format!(
        "(local $left i32) (local.set $left (i32.const {pages}))
         (loop $again
           (call $print (i32.const 65536) (i32.const 65536))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $again (local.get $left)))"
    )
}
