//! Instances that serve one request after the other, where their function's author asks for it.

use std::thread;

use http::Request;
use wasmbox_tests::{
    Upstream, WasmBox, client::Answer, component, guest, patience::eventually, server::Launch, temporary::TempDir,
};

fn launch(reuse: u32) -> Launch {
    let settings = format!("[instance]\nreuse = {reuse}");
    // Optimised code in the place of baseline code is a new version.
    let launch = WasmBox::launch().flag("--tiers", "off");
    ["p2", "p3"].into_iter().fold(launch, |launch, name| {
        let guest = if name == "p2" { component::http_guest() } else { component::p3_guest() };
        launch.function(&format!("{name}.wasm"), guest).function(&format!("{name}.toml"), &settings)
    })
}

/// What the answer says: how often its instance has served, and whether that was fresh.
fn served(server: &WasmBox, path: &str) -> (u32, String) {
    let answer = server.get(path).ok();
    (answer.text().parse().expect("a number"), answer.header("wasmbox-instance").to_owned())
}

fn ended(server: &WasmBox, reason: &str) -> f64 {
    server.metrics().sum("wasmbox_instances_ended_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn an_instance_serves_as_many_as_asked_one_after_the_other() {
    let server = launch(3).start();
    for function in ["p2", "p3"] {
        let path = format!("/{function}/instance");
        let answers: Vec<_> = (0..7).map(|_| served(&server, &path)).collect();
        let expected =
            [1, 2, 3, 1, 2, 3, 1].map(|number| (number, if number == 1 { "fresh" } else { "reused" }.into()));
        assert_eq!(answers, expected, "{function}");
    }
    assert_eq!(ended(&server, "used-up"), 4.0);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("wasmbox_kept_instances", &[]), 2.0);
    assert!(metrics.sum("wasmbox_kept_instance_bytes", &[]) >= 2.0 * 65_536.0, "{}", metrics.text());
    assert_eq!(metrics.sum("wasmbox_instance_uses_total", &["instance=\"reused\""]), 8.0);
}

#[test]
fn nobody_gets_an_instance_who_has_not_asked_or_that_is_anothers() {
    let server = launch(10)
        .function("plain.wasm", component::http_guest())
        .function("once.wasm", component::http_guest())
        .function("once.toml", "[instance]\nreuse = 1")
        .function("twin.wasm", component::http_guest())
        .function("twin.toml", "[instance]\nreuse = 10")
        .start();
    assert_eq!([1, 2], [0; 2].map(|_| served(&server, "/p2/instance").0));
    for function in ["plain", "once"] {
        for _ in 0..2 {
            let answer = server.get(&format!("/{function}/instance")).ok();
            assert_eq!((answer.text(), answer.headers.get("wasmbox-instance")), ("1", None), "{function}");
        }
    }
    assert_eq!(served(&server, "/twin/instance"), (1, "fresh".into()));
    // A new version has new instances.
    server.put("p2.toml", "[instance]\nreuse = 11");
    assert_eq!(served(&server, "/p2/instance"), (1, "fresh".into()));
}

#[test]
fn what_fails_ends_its_instance() {
    let server = launch(10).start();
    for (function, failing, status) in [
        ("p2", "trap", 500),
        ("p2", "silent", 500),
        ("p2", "error", 500),
        ("p2", "exit?0", 500),
        ("p2", "loop", 504),
        ("p2", "sleep", 504),
        ("p2", "memory", 500),
        ("p3", "trap", 500),
        ("p3", "error", 500),
    ] {
        let path = format!("/{function}/instance");
        assert_eq!(served(&server, &path).0, 1, "{failing}");
        assert_eq!(served(&server, &path).0, 2, "{failing}");
        let timeout = if status == 504 { "200ms" } else { "20s" };
        let request = Request::get(format!("/{function}/{failing}"))
            .header("Invocation-Timeout", timeout)
            .header("Memory-Request", "10Mi");
        assert_eq!(server.call(request, "").status, status, "{failing}");
        assert_eq!(served(&server, &path).0, 1, "{failing}");
        // For the next case.
        server.get(&format!("/{function}/trap"));
    }
    // One that ends well, but later than its client is there.
    assert_eq!(served(&server, "/p2/instance").0, 1);
    let client = server.wire("GET /p2/sleep HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_until_running("p2", 1);
    drop(client);
    server.wait_until_idle();
    assert_eq!(served(&server, "/p2/instance").0, 1);
}

#[test]
fn what_holds_on_to_a_request_ends_with_it() {
    let server = launch(10).start();
    for (index, (function, how)) in
        [("p2", "hold-request"), ("p2", "leave-open"), ("p3", "leave-open")].into_iter().enumerate()
    {
        let path = format!("/{function}/instance");
        assert_eq!(served(&server, &path).0, 1, "{how}");
        assert_eq!(server.post(&format!("{path}?{how}"), "body").ok().text(), "2", "{function} {how}");
        assert_eq!(served(&server, &path), (1, "fresh".into()), "{function} {how}");
        server.get(&format!("/{function}/trap"));
        if function == "p2" {
            assert_eq!(ended(&server, "unclean"), index as f64 + 1.0);
        }
    }
}

/// The body of a request is what its connection waits for.
#[test]
fn a_body_that_a_task_has_not_let_go_of_ends_the_instance() {
    let server = launch(10).start();
    assert_eq!(served(&server, "/p3/instance").0, 1);
    let long = vec![b'x'; 1 << 20];
    assert_eq!(server.post("/p3/instance?hold-request", long).ok().text(), "2");
    assert_eq!(served(&server, "/p3/instance"), (1, "fresh".into()));
}

/// Nor may what another server has answered go on, with its connection, when nobody is there to pay for it.
#[test]
fn an_answer_of_another_server_that_is_not_read_ends_the_instance() {
    let upstream = Upstream::plain("127.0.0.1:0");
    let address = upstream.address();
    let settings = format!("allowed-outbound-hosts = ['{address}']\n[instance]\nreuse = 10");
    let server = WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("p3.toml", settings)
        .flag("--tiers", "off")
        .flag("--allow-outbound", address)
        .start();
    assert_eq!(served(&server, "/p3/instance").0, 1);
    assert_eq!(served(&server, &format!("/p3/instance?hold-response={address}")).0, 2);
    assert_eq!(served(&server, "/p3/instance"), (1, "fresh".into()));
    assert_eq!(ended(&server, "unclean"), 1.0);
}

/// What one instruction may touch there is bounded.
#[test]
fn an_instance_with_much_memory_does_not_begin_on_its_connections_thread() {
    let server = launch(1000).start();
    assert_eq!(served(&server, "/p2/instance?grow=20000000").0, 1);
    let slices = || server.metrics().sum("wasmbox_slices_total", &[]);
    let before = slices();
    for number in 2..100 {
        assert_eq!(served(&server, "/p2/instance"), (number, "reused".into()));
    }
    assert_eq!(slices(), before);
}

#[test]
fn streamed_answers_and_bodies_leave_instances_for_the_next() {
    let server = launch(100).start();
    // What is left of an answer for a moment is no reason for the next request to wait: it has a fresh instance then.
    let reused = |name: &str, call: &dyn Fn() -> Answer| {
        let answers: Vec<_> = (0..20).map(|_| call().ok().header("wasmbox-instance").to_owned()).collect();
        assert!(answers.iter().any(|used| used == "reused"), "{name}: {answers:?}");
    };
    reused("a streamed answer", &|| {
        let answer = server.get("/p2/instance?stream=300000");
        assert_eq!(answer.body.len(), 300_000);
        answer
    });
    reused("a body that comes back", &|| {
        let body = vec![b'x'; 300_000];
        let answer = server.post("/p2/echo", body.clone());
        assert!(answer.body == body);
        answer
    });
    for path in ["/p3/status?200", "/p3/pass", "/p3/copy", "/p3/write?10000"] {
        server.post(path, "short").ok();
    }
    assert_eq!(served(&server, "/p3/instance"), (1, "reused".into()));
    // One of WASI 0.3 is kept only if nothing of its answer is on its way any more when its tasks have ended. Whole it is anyway.
    assert_eq!(server.get("/p3/write?30000000").ok().body.len(), 30_000_000);
    served(&server, "/p3/instance");
}

#[test]
fn each_request_has_its_own_lines_in_the_log() {
    let server = launch(3).start();
    for number in 1..4 {
        let answer = server.get("/p2/instance?print").ok();
        let id = answer.header("wasmbox-invocation-id").to_owned();
        // Its line has no end, and its instance goes on.
        server.logged(&["function=p2", &format!("id={id}"), &format!("request {number} of this instance")]);
    }
    // Of a failure one is told what this request has written, not what others have.
    let told = server.get("/p2/trap");
    assert!(!told.problem(500, "guest-trap").detail().contains("of this instance"));
}

#[test]
fn parallel_requests_have_an_instance_each() {
    let server = launch(5).start();
    let threads = 8;
    let all: Vec<u32> = thread::scope(|scope| {
        let calls = || (0..50).map(|_| served(&server, "/p2/instance").0).collect::<Vec<_>>();
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(calls)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("its calls went well")).collect()
    });
    assert!(all.iter().all(|number| (1..=5).contains(number)));
    // Each that has served n has served n - 1 before.
    let count = |number: u32| all.iter().filter(|other| **other == number).count();
    assert!((1..5).all(|number| count(number) >= count(number + 1)), "{all:?}");
    assert!(count(2) > 0, "{all:?}");
    server.wait_until_idle();
    assert!(server.metrics().sum("wasmbox_kept_instances", &[]) <= f64::from(threads));
}

#[test]
fn memory_that_is_kept_is_there_for_others() {
    let server = launch(100)
        .function("grow.wat", guest::filling(150, 0))
        .flag("--memory-limit", "256Mi")
        .flag("--kept-memory", "128Mi")
        .flag("--max-memory-request", "200Mi")
        .start();
    let keep = || {
        let request = Request::get("/p2/instance?grow=60000000").header("Memory-Request", "100Mi");
        assert_eq!(server.call(request, "").ok().text(), "1");
    };
    keep();
    let kept = || server.metrics().sum("wasmbox_kept_instances", &[]);
    assert_eq!(kept(), 1.0);
    // Who may have less than it has gets another; who may have more gets it.
    let with = |limit: &str| {
        let request = Request::get("/p2/instance").header("Memory-Request", limit);
        server.call(request, "").ok().text().to_owned()
    };
    assert_eq!([with("10Mi"), with("100Mi")], ["1", "2"]);
    let request = Request::get("/grow").header("Memory-Request", "200Mi");
    let answer = server.call(request, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(kept() < 2.0, "the large one was ended for it");
    assert!(ended(&server, "memory") >= 1.0);
    assert_eq!(server.metrics().sum("wasmbox_evicted_total", &[]), 0.0);
}

#[test]
fn what_waits_for_long_ends_and_little_is_kept() {
    let server = launch(100).flag("--instance-idle", "50ms").start();
    assert_eq!(served(&server, "/p2/instance").0, 1);
    eventually("the idle instance ends", || (ended(&server, "idle") == 1.0).then_some(()));
    assert_eq!(server.metrics().sum("wasmbox_kept_instances", &[]), 0.0);
    assert_eq!(served(&server, "/p2/instance"), (1, "fresh".into()));
    let server = launch(100).flag("--kept-memory", "1Mi").start();
    for _ in 0..2 {
        let answer = server.get("/p2/instance?grow=2000000").ok();
        assert_eq!((answer.text(), answer.header("wasmbox-instance")), ("1", "fresh"));
    }
    assert_eq!(server.metrics().sum("wasmbox_kept_instances", &[]), 0.0);
}

#[test]
fn the_operator_has_the_last_word_and_commands_have_none() {
    let granted = TempDir::new();
    let server = launch(10)
        .function("command.wat", guest::hello())
        .function("command.toml", "[instance]\nreuse = 2")
        .function("none.wasm", component::http_guest())
        .function("none.toml", "[instance]\nreuse = 0")
        .function("opens.wasm", component::http_guest())
        .function(
            "opens.toml",
            format!("preopens = [{{ host = '{}', guest = '/data' }}]\n[instance]\nreuse = 2", granted.path().display()),
        )
        .flag("--preopen-root", granted.path().display())
        .flag("--max-instance-reuse", "5")
        .start();
    server.get("/p2/instance").problem(422, "module-invalid").names(&["p2.toml", "instance.reuse 10", "cap 5"]);
    server.get("/command").problem(422, "module-invalid").names(&["command.toml", "HTTP components", "is a command"]);
    server.get("/opens").problem(422, "module-invalid").names(&["opens.toml", "has preopens"]);
    server.get("/none/instance").problem(422, "module-invalid").names(&["none.toml"]);
}
