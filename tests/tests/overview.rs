//! `/overview.json` and the live page of the admin port; `/` of the function port. How the page behaves in a browser is in `tests/page`.

use std::fs;

use http::header;
use serde_json::Value;
use wasmbox_tests::{Answer, Request, WasmBox, client::exchange, eventually, guest};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\x1b[2J\u{202e}";

/// Traps after its input went to standard error.
fn complaining() -> String {
    guest::command("(call $copy (i32.const 0) (i32.const 2)) unreachable")
}

fn overview(server: &WasmBox, query: &str) -> Value {
    let answer = server.admin(&format!("/overview.json?{query}")).ok();
    assert_eq!(answer.header("content-type"), "application/json");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    serde_json::from_str(answer.text()).expect("JSON")
}

fn names(overview: &Value) -> Vec<&str> {
    let rows = overview.pointer("/functions/rows").and_then(Value::as_array).expect("rows");
    rows.iter().map(|row| row["name"].as_str().expect("a name")).collect()
}

/// The row of a function, when `is` holds of it.
fn row(server: &WasmBox, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually("a row", || {
        let rows = overview(server, &format!("filter={name}"))["functions"]["rows"].take();
        rows.as_array().into_iter().flatten().find(|row| row["name"] == name && is(row)).cloned()
    })
}

fn admin(server: &WasmBox, path: &str, host: &str) -> Answer {
    exchange(server.admin_address(), Request::get(path).header(header::HOST, host), "").expect("a whole answer")
}

#[test]
fn what_functions_do_is_counted() {
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("busy.wat", guest::busy())
        .function("fails.wat", complaining())
        .function("typo.wat", "(module")
        .start();
    for _ in 0..20 {
        server.get("/hello").ok();
    }
    server.post("/fails", "").problem(500, "guest-trap");
    server.get("/typo").problem(422, "module-invalid");
    let running = server.wire("GET /busy HTTP/1.1\r\nHost: box\r\n\r\n");
    server.wait_until_running("busy", 1);
    // A call is counted when its answer is out.
    let hello = row(&server, "hello", |row| row["calls"] == 20);
    assert_eq!((&hello["errors"], &hello["state"], &hello["file"]), (&0.into(), &"ready".into(), &"hello.wat".into()));
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    assert!(number(&hello["cpu_seconds"]) > 0.0 && number(&hello["memory_peak_bytes"]) >= 65536.0, "{hello}");
    assert!(number(&hello["p50_seconds"]) <= number(&hello["p99_seconds"]), "{hello}");
    assert_eq!(hello["limits"]["memory_request"], "200Mi");
    row(&server, "fails", |row| row["calls"] == 1 && row["errors"] == 1);
    row(&server, "busy", |row| row["running"] == 1);
    let typo = row(&server, "typo", |row| row["state"] == "failed");
    assert!(typo["reason"].as_str().is_some_and(|reason| reason.contains("typo.wat")), "{typo}");
    // Rates are of the time in which somebody looks.
    row(&server, "fails", |row| {
        server.post("/fails", "").problem(500, "guest-trap");
        number(&row["errors_per_second"]) > 0.0
    });
    let now = overview(&server, "sort=calls&limit=200");
    let failed = now["functions"]["rows"][0]["calls"].as_u64().expect("a number");
    assert_eq!((names(&now)[0], now["functions"]["all"].as_u64()), ("fails", Some(4)));
    let ended: u64 = now["latency"]["counts"].as_array().expect("counts").iter().filter_map(Value::as_u64).sum();
    assert_eq!((now["totals"]["calls"].as_u64(), ended), (Some(20 + failed), 20 + failed));
    assert_eq!(now["latency"]["counts"].as_array().map(Vec::len), Some(18));
    assert_eq!((&now["status"]["pid"], &now["uploads"]), (&server.process().0.into(), &false.into()));
    // Those of a function that is gone stay in the sum, until the box ends.
    drop(running);
    fs::write(server.functions().join("hello.wat"), guest::echo()).expect("the file");
    server.get("/hello").ok();
    row(&server, "hello", |row| row["calls"] == 21);
}

#[test]
fn functions_are_listed_with_their_limits_and_before_they_are_called() {
    let settings = "[limits]\ncpu-quota = \"250m\"\nmemory-request = \"8Mi\"\n";
    let launch = WasmBox::launch().function("limited.wat", guest::hello()).function("limited.toml", settings);
    let launch = launch.function("idle.wasm", "never looked at").function("idle.toml", "").function("notes.txt", "");
    fs::create_dir(launch.functions().join("directory.wasm")).expect("a directory");
    let server = launch.start();
    server.get("/limited").ok();
    let limited = row(&server, "limited", |row| row["calls"] == 1);
    assert_eq!((&limited["cpu_limit_cores"], &limited["memory_limit_bytes"]), (&0.25.into(), &(8 << 20).into()));
    let listed = eventually("the directory", || {
        let now = overview(&server, "sort=name");
        (now["functions"]["directory"] == "whole").then_some(now)
    });
    assert_eq!((names(&listed), &listed["functions"]["all"]), (vec!["idle", "limited"], &2.into()));
    let idle = &listed["functions"]["rows"][0];
    assert_eq!((&idle["state"], &idle["calls"]), (&"unloaded".into(), &0.into()));
    assert!(idle["limits"].is_null() && idle["cpu_limit_cores"].is_null() && idle["memory_limit_bytes"].is_null());
    // What was put there later is seen, and what is gone is not.
    fs::write(server.functions().join("later.wat"), "").expect("the file");
    fs::remove_file(server.functions().join("idle.wasm")).expect("it is there");
    eventually("what is there now", || (names(&overview(&server, "sort=name")) == ["later", "limited"]).then_some(()));
}

/// Who can write to the directory cannot make the box hold more names than its memory allows.
#[test]
fn a_directory_with_too_many_entries_is_cut() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).flag("--memory-limit", "128Mi");
    for number in 0..9000 {
        fs::write(launch.functions().join(format!("many-{number}.wasm")), "").expect("the file");
    }
    let server = launch.start();
    server.get("/hello").ok();
    let cut = eventually("the directory", || {
        let now = overview(&server, "sort=name&limit=200");
        (now["functions"]["directory"] == "cut").then_some(now)
    });
    let all = cut["functions"]["all"].as_u64().expect("a number");
    // One for 16 KiB.
    assert!((8190..=8193).contains(&all), "{all}");
    assert_eq!(cut["functions"]["rows"].as_array().map(Vec::len), Some(200));
    row(&server, "hello", |row| row["calls"] == 1);
}

#[test]
fn functions_are_sorted_filtered_and_paged_by_the_box() {
    let launch =
        (0..25).fold(WasmBox::launch(), |launch, number| launch.function(&format!("f{number:02}.wat"), guest::hello()));
    let server = launch.function("Other.wat", guest::hello()).start();
    for number in (0..25).chain([7, 7]) {
        server.get(&format!("/f{number:02}")).ok();
    }
    server.get("/Other").ok();
    row(&server, "f07", |row| row["calls"] == 3);
    let by_name = overview(&server, "sort=name&limit=10&offset=20&filter=F");
    assert_eq!(names(&by_name), ["f20", "f21", "f22", "f23", "f24"]);
    assert_eq!((&by_name["functions"]["matching"], &by_name["functions"]["all"]), (&25.into(), &26.into()));
    assert_eq!(names(&overview(&server, "sort=name&limit=1")), ["Other"]);
    assert_eq!(names(&overview(&server, "sort=calls&limit=1&filter=0")).len(), 1);
    assert_eq!(names(&overview(&server, "offset=26")), [""; 0]);
    for bad in ["sort=size", "limit=0", "limit=201", "filter=%ff", "x=1"] {
        let answer = server.admin(&format!("/overview.json?{bad}"));
        answer.problem(400, "bad-request").names(&["expected"]);
    }
}

#[test]
fn failures_are_told_with_the_guests_last_words() {
    let launch = WasmBox::launch().function("fails.wat", complaining()).function("storm.wat", complaining());
    let server = launch.function("slow.wat", guest::busy()).start();
    let id = server.post("/fails", HOSTILE).header("wasmbox-invocation-id").to_owned();
    for _ in 0..200 {
        server.post("/storm", "").problem(500, "guest-trap");
    }
    eventually("it is compiled, and does not end", || {
        let answer = server.call(Request::get("/slow").header("Invocation-Timeout", "200"), "");
        (answer.status == 504).then_some(())
    });
    let failures = eventually("all of them", || {
        let now = overview(&server, "failures=128");
        let failures = now["failures"].as_array().expect("failures").clone();
        failures.iter().any(|failure| failure["function"] == "slow").then_some(failures)
    });
    let of = |name: &str| failures.iter().filter(|failure| failure["function"] == name).collect::<Vec<_>>();
    assert_eq!((of("storm").len(), of("fails").len(), of("slow").len()), (8, 1, 1));
    let failed = of("fails")[0];
    assert_eq!(
        (&failed["invocation_id"], &failed["status"], &failed["code"]),
        (&id.into(), &500.into(), &"guest-trap".into())
    );
    let stderr = failed["stderr"].as_str().expect("text");
    assert!(stderr.contains("<img src=x") && stderr.contains("\\u{1b}[2J") && !stderr.contains('\x1b'), "{stderr}");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("trapped") && !reason.contains("img")));
    assert_eq!(overview(&server, "failures=2")["failures"].as_array().map(Vec::len), Some(2));
    assert_eq!((&of("slow")[0]["status"], &of("slow")[0]["code"]), (&504.into(), &"deadline-exceeded".into()));
}

#[test]
fn what_clients_may_not_read_is_not_on_the_page_either() {
    let server = WasmBox::launch().function("fails.wat", complaining()).flag("--stderr-in-errors", false).start();
    server.post("/fails", "secret").problem(500, "guest-trap");
    let text = eventually("the failure", || {
        let text = overview(&server, "").to_string();
        text.contains("guest-trap").then_some(text)
    });
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn the_page_is_one_document_that_nothing_can_be_added_to() {
    let server = WasmBox::with("hello.wat", guest::hello());
    let answer = server.admin("/").ok();
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'; script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((answer.header("referrer-policy"), answer.header("x-frame-options")), ("no-referrer", "DENY"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.text().contains("<title>WasmBox</title>"));
    let off = WasmBox::launch().flag("--live-page", false).start();
    assert_eq!(off.admin("/").status, 404);
    overview(&off, "");
}

#[test]
fn a_name_that_somebody_else_can_have_is_not_answered() {
    let server = WasmBox::launch().flag("--admin-name", "box.example.com,other.example.com").start();
    for host in ["127.0.0.1", "localhost:8086", "[::1]:1", "Box.Example.com:8086"] {
        admin(&server, "/", host).ok();
        admin(&server, "/overview.json", host).ok();
    }
    for host in
        ["evil.com", "localhost.evil.com:8086", "127.0.0.1.evil.com", "box", "box.team.svc.cluster.local", "box.local"]
    {
        for path in ["/", "/overview.json"] {
            let answer = admin(&server, path, host);
            assert!(answer.status == 421 && answer.text().contains("--admin-name"), "{host}: {}", answer.text());
        }
        // For programs, which nobody leads astray.
        admin(&server, "/status", host).ok();
    }
    let answer = exchange(server.admin_address(), Request::post("/overview.json"), "").expect("a whole answer");
    assert_eq!(answer.status, 405);
}

#[test]
fn people_are_told_what_the_function_port_is() {
    let html = |server: &WasmBox| server.call(Request::get("/").header("Accept", "text/html,*/*;q=0.8"), "");
    let server =
        WasmBox::launch().function("hello.wat", guest::hello()).flag("--listed-function", "hello,other").start();
    let answer = html(&server).ok();
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    let text = answer.text();
    assert!(text.contains("<a href=\"/hello\">hello</a>") && text.contains("<a href=\"/other\">"), "{text}");
    server.get("/").problem(404, "module-not-found");
    server.call(Request::get("/").header("Accept", "application/json"), "").problem(404, "module-not-found");
    server.call(Request::post("/").header("Accept", "text/html"), "").problem(404, "module-not-found");
    let silent = WasmBox::with("hello.wat", guest::hello());
    let text = html(&silent).ok().text().to_owned();
    assert!(!text.contains("hello"), "{text}");
    for bad in ["../x", "a b", "<script>"] {
        let said = WasmBox::launch().flag("--listed-function", bad).refusal();
        assert!(said.contains("--listed-function"), "{said}");
    }
}
