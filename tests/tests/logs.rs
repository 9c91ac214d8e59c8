//! The log: what operators see of each invocation, and what functions write to standard error.

use serde_json::Value;
use wasmbox_tests::{Request, WasmBox, component::http_guest, eventually, guest, guest::command_with};

/// Writes its input to standard error.
fn complains() -> String {
    guest::command("(call $copy (i32.const 0) (i32.const 2))")
}

#[test]
fn each_invocation_is_one_line() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("trap.wat", guest::command("unreachable"))
        .start();
    for (path, status, code) in [("/hello", 200, ""), ("/trap", 500, "guest-trap")] {
        let answer = server.get(path);
        let id = answer.header("wasmbox-invocation-id");
        let line = server.logged(&["invocation", id]);
        for part in [format!("function={}", &path[1..]), format!("status={status}"), code.to_owned()] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
        for name in ["queue_us=", "compile_us=", "exec_us=", "cpu_us=", "memory_bytes="] {
            let (_, value) = line.split_once(name).unwrap_or_else(|| panic!("{name} is not in {line}"));
            let value = value.split(' ').next().and_then(|value| value.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{name} in {line}");
        }
        assert_eq!(server.log().matches(id).count(), 1);
    }
}

#[test]
fn json() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("complains.wat", complains())
        .function("bad.wat", "(module\n(nonsense))")
        .flag("--log-format", "json")
        .start();
    let answer = server.get("/hello").ok();
    server.post("/complains", "first \"line\"\nsecond").ok();
    server.get("/bad").problem(422, "module-invalid");
    server.logged(&["422"]);
    server.logged(&["\"second\""]);
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let id = answer.header("wasmbox-invocation-id");
    let line = lines.iter().find(|line| line["id"] == id).expect("a line of the invocation");
    assert_eq!(
        (&line["target"], &line["function"], &line["status"]),
        (&"invocation".into(), &"hello".into(), &200.into())
    );
    for name in ["queue_us", "compile_us", "exec_us", "cpu_us", "memory_bytes"] {
        assert!(line[name].is_number(), "{name} in {line}");
    }
    let complaints: Vec<&Value> = lines.iter().filter(|line| line["target"] == "guest").collect();
    assert_eq!(complaints.len(), 2);
    assert_eq!(complaints[0]["stderr"], "first \"line\"");
    assert!(!log.contains("ciovs"), "inner workings of the sandbox are in {log}");
    assert_eq!(complaints[1]["stderr"], "second");
}

#[test]
fn standard_error_is_logged_line_by_line() {
    let server = WasmBox::with("complains.wat", complains());
    let answer = server.post("/complains", "one\ntwo\r\n\nthree without an end").ok();
    assert_eq!(answer.body, "");
    let id = answer.header("wasmbox-invocation-id");
    for text in ["one", "two", "three without an end"] {
        let line = server.logged(&["guest", "function=complains", id, text]);
        let (_, logged) = line.split_once("stderr=").expect("the field");
        assert_eq!(logged.trim_matches('"'), text);
    }
    // A line of any length, bytes that are no text, an end that never comes.
    server.post("/complains", vec![b'x'; 100_000]).ok();
    server.post("/complains", &b"\xff\xfe\0"[..]).ok();
    server.logged(&["guest", "\u{fffd}"]);
}

/// What one invocation writes to the log is bounded.
#[test]
fn a_flood_of_complaints_is_cut() {
    let flood = guest::flood(512).replace("(call $print ", "(call $write (i32.const 2) ");
    let server = WasmBox::with("flood.wat", flood);
    server.get("/flood").ok();
    server.logged(&["WARN", "guest", "function=flood", "dropped_bytes="]);
    assert!(server.log().len() < 3 << 20, "{} bytes of log", server.log().len());
}

/// A line costs the log more than its text, and a control character more than its byte.
#[test]
fn a_flood_of_empty_lines_is_cut() {
    let flood = guest::command(
        "(local $left i32) (local.set $left (i32.const 200000))
         (i32.store8 (i32.const 1024) (i32.const 10))
         (memory.fill (i32.const 65536) (i32.const 27) (i32.const 65536))
         (loop $again
           (call $write (i32.const 2) (i32.const 1024) (i32.const 1))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $again (local.get $left)))
         (loop $again (call $write (i32.const 2) (i32.const 65536) (i32.const 65536)) (br $again))",
    );
    let server = WasmBox::with("flood.wat", flood);
    let answer = server.call(Request::get("/flood").header("Invocation-Timeout", "5000"), "");
    answer.problem(504, "deadline-exceeded");
    server.logged(&["WARN", "guest", "function=flood", "dropped_bytes="]);
    assert!(server.log().len() < 2 << 20, "{} bytes of log", server.log().len());
}

/// Whatever clients, functions and files say, it does not look like a line of the server's.
#[test]
fn nobody_else_can_write_a_line() {
    let forged = "x\n2026-01-01T00:00:00Z  INFO invocation: forged";
    let escaped = forged.replace('\n', "\\n");
    let server = WasmBox::launch()
        .function("complains.wat", complains())
        .function("import.wat", format!("(module (import \"env\" \"{escaped}\" (func)) (func (export \"_start\")))"))
        .function("settings.wat", guest::hello())
        .function(
            "settings.toml",
            format!("'{}' = 1", forged.replace('\n', " "))
                + "\n[limits]\ncpu-quota = \"\"\"\nx\n2026-01-01T00:00:00Z  INFO invocation: forged\"\"\"\n",
        )
        .function("cgi.wat", guest::printing(format!("{forged}\n\n"), ""))
        .function("cgi.toml", "output = 'cgi'")
        .function("syntax.wat", "(module\n2026-01-01T00:00:00Z  INFO invocation: forged\n)")
        .function("http.wasm", http_guest())
        .function("export.wat", command_with(&format!("(func (export \"{escaped}\") unreachable)"), "unreachable"))
        .start();
    server.post("/complains", forged.replace('\n', "\r")).ok();
    server.post("/complains", format!("{}\u{1b}[2K\u{1b}[1A", forged.replace('\n', "\u{85}"))).ok();
    for path in ["/import", "/settings", "/cgi", "/syntax", "/export", "/a%0a2026-01-01T00:00:00Z"] {
        assert!(server.get(path).status >= 400, "{path}");
    }
    let last = server.get("/nothing").problem(404, "module-not-found");
    last.names(&["nothing"]);
    server.logged(&["no function", "nothing"]);
    let log = server.log();
    let line = log.lines().find(|line| line.starts_with("2026-01-01") || line.starts_with("unexpected"));
    assert_eq!(line, None, "in {log}");
    assert!(!log.contains(['\u{1b}', '\r', '\u{85}']), "control characters in {log:?}");
    // Each line of the log starts with a time: none of them is the rest of another.
    let broken: Vec<&str> = log.lines().filter(|line| !line.starts_with("20")).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn levels() {
    let server = WasmBox::launch()
        .function("complains.wat", complains())
        .flag("--log-level", "warn,wasmbox::serve=info,guest=off")
        .start();
    server.post("/complains", "text").ok();
    server.get("/nothing").problem(404, "module-not-found");
    let log = server.stop();
    let log = std::fs::read_to_string(log.directory().join("log")).expect("the log is there");
    assert!(!log.contains("invocation:") && !log.contains("guest:"), "{log}");
}

/// What one function writes is bounded in time, too, and that of others is there as ever.
#[test]
fn one_function_does_not_push_out_the_lines_of_others() {
    let server = WasmBox::launch()
        .function("noisy.wat", complains())
        .function("quiet.wat", complains())
        .function("http.wasm", http_guest())
        .flag("--function-log-rate", "8Ki")
        .start();
    let flood = format!("{}\n", "noise".repeat(50)).repeat(20);
    for _ in 0..20 {
        server.post("/noisy", flood.clone()).ok();
    }
    server.get("/http/log?info,shop,sold,200").ok();
    for function in ["noisy", "http"] {
        server.logged(&["WARN", "guest", &format!("function={function}"), "dropped_bytes=", "--function-log-rate"]);
    }
    server.post("/quiet", "whispered\n").ok();
    server.logged(&["function=quiet", "stderr=whispered"]);
    let lines = server.log().lines().filter(|line| line.contains("noisenoise")).count();
    assert!((16..200).contains(&lines), "{lines} of 400 lines");
    // It may write again.
    eventually("its bucket is filled", || {
        server.post("/noisy", "once more\n").ok();
        server.log().contains("once more").then_some(())
    });
}
