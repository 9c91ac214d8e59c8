//! Instances of WASI 0.3 that serve several requests at once, where their function's author asks for it.

use std::{thread, time::Duration};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use rustix::process::Signal;
use wasmbox_tests::{
    WasmBox, Wire,
    client::{Http2, VERSIONS},
    component, eventually, guest,
    server::Launch,
    wire::Head,
};

fn launch(at_once: u32, in_all: u32) -> Launch {
    WasmBox::launch()
        .function("p3.wasm", component::p3_guest())
        .function("p3.toml", format!("[instance]\nreuse = {in_all}\nconcurrent = {at_once}"))
        .flag("--memory-request", 64)
        // Optimised code in the place of baseline code is a new version.
        .flag("--tiers", "off")
}

/// Its function is ready, however long that takes.
fn compiled(server: &WasmBox) {
    server.call(Request::get("/p3/present").header("Invocation-Timeout", "60000"), "").ok();
}

/// An answer that has begun, of a request that stays in its instance.
enum Open {
    Http1(Wire, Head),
    Http2(Http2, Response<Incoming>),
}

impl Open {
    fn new(server: &WasmBox, version: Version, path: &str) -> Open {
        if version == Version::HTTP_2 {
            let connection = Http2::connect(server.address());
            let response = connection.open(path);
            return Open::Http2(connection, response);
        }
        let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n"));
        let head = wire.head();
        Open::Http1(wire, head)
    }

    fn instance(&self) -> &str {
        let headers = match self {
            Open::Http1(_, head) => &head.headers,
            Open::Http2(_, response) => response.headers(),
        };
        headers["wasmbox-instance"].to_str().expect("text")
    }

    /// Its client leaves, so that the server knows it: a connection that is only closed may be one whose client has no more to send.
    fn leave(self) {
        if let Open::Http1(wire, _) = self {
            wire.reset();
        }
    }

    /// All of it; `None` if it is broken off.
    fn rest(self) -> Option<String> {
        let bytes = match self {
            Open::Http1(mut wire, head) if head.headers.contains_key("content-length") => {
                let length = head.headers["content-length"].to_str().expect("text").parse().expect("a length");
                wire.bytes(length)
            }
            Open::Http1(mut wire, _) => {
                let mut bytes = Vec::new();
                while let Some(chunk) = wire.chunk().ok()? {
                    bytes.extend(chunk);
                }
                bytes
            }
            Open::Http2(connection, response) => connection.rest(response).ok()?.body.to_vec(),
        };
        Some(String::from_utf8(bytes).expect("text"))
    }
}

/// Of a request that comes to others. One that comes when a task of theirs runs, or whose machine is busy, has an instance of its own, and leaves.
fn try_to_join(server: &WasmBox, version: Version, path: &str) -> Option<Open> {
    let before = server.running("p3");
    let open = Open::new(server, version, path);
    if open.instance() == "joined" {
        return Some(open);
    }
    open.leave();
    eventually("it has left", || (server.running("p3") <= before).then_some(()));
    None
}

fn joined(server: &WasmBox, version: Version, path: &str) -> Open {
    eventually("an instance takes another request", || try_to_join(server, version, path))
}

/// Has those leave who stay.
fn leave(server: &WasmBox, version: Version) {
    eventually("one joins them and has them leave", || {
        let number = try_to_join(server, version, "/p3/leave")?.rest()?;
        // Alone it has met one that has just been answered elsewhere.
        (number != "1").then_some(())
    });
}

/// Of one that joins, and is not answered before its instance ends.
fn sleeping(server: &WasmBox) -> Wire {
    let (before, all) = (server.running("p3"), || ["fresh", "reused", "joined"].map(|instance| uses(server, instance)));
    eventually("an instance takes another request", || {
        let [fresh, reused, joined] = all();
        let wire = server.wire("GET /p3/sleep HTTP/1.1\r\nHost: box\r\n\r\n");
        let after = eventually("it has an instance", || Some(all()).filter(|now| *now != [fresh, reused, joined]));
        if after == [fresh, reused, joined + 1.0] {
            return Some(wire);
        }
        wire.reset();
        eventually("it has left", || (server.running("p3") <= before).then_some(()));
        None
    })
}

/// How many are in the instance that answers, with this one.
fn present(server: &WasmBox, request: Request<()>) -> (String, String) {
    let (head, ()) = request.into_parts();
    let mut builder = Request::get("/p3/present");
    *builder.headers_mut().expect("it is one") = head.headers;
    let answer = server.call(builder, "").ok();
    (answer.text().to_owned(), answer.header("wasmbox-instance").to_owned())
}

/// Who comes now is with nobody.
fn assert_alone(server: &WasmBox, request: Request<()>, why: &str) {
    let (number, instance) = present(server, request);
    assert!(number == "1" && instance != "joined", "{why}: {instance}, with {number}");
}

fn plain() -> Request<()> {
    Request::new(())
}

fn uses(server: &WasmBox, instance: &str) -> f64 {
    server.metrics().sum("wasmbox_instance_uses_total", &[&format!("instance=\"{instance}\"")])
}

#[test]
fn as_many_as_asked_are_in_one_instance_at_once_and_the_next_is_in_another() {
    for version in VERSIONS {
        let server = launch(3, 100).start();
        server.speak(version);
        let first = Open::new(&server, version, "/p3/stay");
        assert_eq!(first.instance(), "fresh");
        let second = joined(&server, version, "/p3/stay");
        let third = joined(&server, version, "/p3/pulse");
        assert_alone(&server, plain(), "there is no place for a fourth");
        let metrics = server.metrics();
        assert_eq!(metrics.sum("wasmbox_in_flight_invocations", &["function=\"p3\""]), 3.0);
        // They share one permit.
        eventually("the fourth is gone", || {
            (server.metrics().sum("wasmbox_in_flight_resource_units", &[]) == 64.0).then_some(())
        });
        // Who leaves makes the others leave, and ends none of them.
        third.leave();
        assert_eq!([first.rest(), second.rest()], ["1 left", "2 left"].map(|text| Some(text.into())));
        server.logged(&["invocation", "function=p3", "instance=joined", "status=200"]);
        server.wait_until_idle();
        let all = uses(&server, "fresh") + uses(&server, "reused") + uses(&server, "joined");
        let lines = |log: String| log.lines().filter(|line| line.contains(" invocation: ")).count() as f64;
        eventually("each has a line in the log", || (lines(server.log()) == all).then_some(()));
        assert_eq!(server.metrics().sum("wasmbox_invocations_total", &[]), all);
    }
}

#[test]
fn a_place_that_is_free_is_taken_again_as_long_as_the_instance_serves_any() {
    let server = launch(2, 5).start();
    let first = Open::new(&server, Version::HTTP_11, "/p3/stay");
    let mut others = 0;
    eventually("the instance is used up", || {
        // With itself alone it may have met one that has just been answered elsewhere.
        let (number, instance) = present(&server, plain());
        others += u32::from(number == "2" && instance == "joined");
        (others == 3).then_some(())
    });
    leave(&server, Version::HTTP_11);
    assert_eq!(first.rest().as_deref(), Some("1 left"));
    eventually("it is not kept", || {
        (server.metrics().sum("wasmbox_instances_ended_total", &["reason=\"used-up\""]) >= 1.0).then_some(())
    });
}

#[test]
fn bodies_and_whole_answers_are_those_of_their_requests() {
    let server = launch(8, 1000).start();
    for version in VERSIONS {
        server.speak(version);
        let stays = Open::new(&server, version, "/p3/stay");
        let body: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let joined_before = uses(&server, "joined");
        thread::scope(|scope| {
            for path in ["/p3/copy", "/p3/pass", "/p3/copy"] {
                let (server, body) = (&server, body.clone());
                scope.spawn(move || {
                    for _ in 0..5 {
                        assert!(server.post(path, body.clone()).ok().body == body, "{path}");
                    }
                });
            }
            for status in [201, 418, 503] {
                let server = &server;
                scope.spawn(move || {
                    for _ in 0..10 {
                        let answer = server.get(&format!("/p3/status?{status}"));
                        assert_eq!((answer.status, answer.text()), (status, "as asked"));
                    }
                });
            }
        });
        assert!(uses(&server, "joined") > joined_before);
        leave(&server, version);
        assert!(stays.rest().is_some_and(|text| text.ends_with("left")));
        server.wait_until_idle();
    }
}

#[test]
fn who_has_other_limits_has_another_instance() {
    let server = launch(8, 100).start();
    let first = Open::new(&server, Version::HTTP_11, "/p3/stay");
    for (name, value) in [("Memory-Request", "32"), ("Cpu-Quota", "400"), ("Invocation-Timeout", "19s")] {
        let mut request = plain();
        request.headers_mut().insert(name, value.parse().expect("a value"));
        assert_alone(&server, request, name);
    }
    leave(&server, Version::HTTP_11);
    assert_eq!(first.rest().as_deref(), Some("1 left"));
}

#[test]
fn what_ends_the_instance_ends_all_in_it_with_its_code() {
    for (path, code) in [("trap", "guest-trap"), ("memory", "guest-memory-limit")] {
        for version in VERSIONS {
            let server = launch(8, 100).start();
            server.speak(version);
            let stays = Open::new(&server, version, "/p3/stay");
            let mut sleeps = sleeping(&server);
            eventually("one of those in it ends it", || {
                let answer = server.get(&format!("/p3/{path}"));
                // What all have written is not for the client of one of them.
                let detail = answer.problem(500, code).detail().to_owned();
                let is_joined = answer.header("wasmbox-instance") == "joined";
                assert!(!is_joined || !detail.contains("standard error"), "{detail}");
                is_joined.then_some(())
            });
            let answer = sleeps.answer();
            answer.problem(500, code);
            assert_eq!(answer.header("wasmbox-instance"), "joined");
            assert_eq!(stays.rest(), None, "it is broken off");
            let failed = |log: String| log.lines().filter(|line| line.contains("failure=")).count();
            eventually("each has a line that says why", || (failed(server.log()) >= 3).then_some(()));
            server.wait_until_idle();
            assert_eq!(present(&server, plain()), ("1".into(), "fresh".into()));
        }
    }
}

#[test]
fn an_error_is_that_of_one_request() {
    let server = launch(8, 100).start();
    let first = Open::new(&server, Version::HTTP_11, "/p3/stay");
    eventually("one that joins fails", || {
        let answer = server.get("/p3/error");
        answer.problem(500, "guest-no-response").names(&["as asked"]);
        (answer.header("wasmbox-instance") == "joined").then_some(())
    });
    leave(&server, Version::HTTP_11);
    assert_eq!(first.rest().as_deref(), Some("1 left"));
}

/// The first one's guest sees that its answer is read no more, and has the other one leave.
#[test]
fn a_deadline_is_that_of_one_request() {
    let server = launch(8, 100).flag("--invocation-timeout", "6s").start();
    compiled(&server);
    for version in VERSIONS {
        let (first, second) = eventually("one comes to another much later", || {
            let first = Open::new(&server, version, "/p3/pulse");
            // So much later is the other one's.
            thread::sleep(Duration::from_secs(3));
            let second = (0..10).find_map(|_| try_to_join(&server, version, "/p3/stay"));
            match second {
                Some(second) => Some((first, second)),
                None => {
                    first.leave();
                    server.wait_until_idle();
                    None
                }
            }
        });
        assert_eq!(first.rest(), None, "it is broken off");
        assert_eq!(second.rest().as_deref(), Some("2 left"));
        server.logged(&["function=p3", "did not end within 6000 ms"]);
        server.wait_until_idle();
        // A task of the first one might still run in it.
        assert_eq!(present(&server, plain()), ("1".into(), "fresh".into()));
    }
    thread::scope(|scope| {
        let sleeps = || {
            let request = Request::get("/p3/sleep").header("Invocation-Timeout", "300");
            server.call(request, "").problem(504, "deadline-exceeded");
        };
        for _ in 0..4 {
            scope.spawn(sleeps);
        }
    });
    server.wait_until_idle();
}

/// Nobody waits for a task that computes, beside which nothing runs in its instance.
#[test]
fn who_comes_to_one_that_computes_has_another_instance() {
    let server = launch(8, 100).flag("--invocation-timeout", "5s").start();
    compiled(&server);
    let first = Open::new(&server, Version::HTTP_11, "/p3/stay");
    thread::scope(|scope| {
        let loops = scope.spawn(|| server.get("/p3/loop"));
        server.wait_until_running("p3", 2);
        // Unless the machine was too busy for it to be taken in time, it is with the first one.
        let is_joined = uses(&server, "joined") == 1.0;
        let (number, instance) = present(&server, plain());
        assert!(!is_joined || number == "1" && instance != "joined", "{instance}, with {number}");
        loops.join().expect("an answer").problem(504, "deadline-exceeded");
    });
    assert!(first.rest().is_none(), "its deadline was before");
    server.wait_until_idle();
}

#[test]
fn a_box_that_ends_ends_all_of_them() {
    for version in VERSIONS {
        let mut server = launch(8, 100).flag("--drain-timeout", "100ms").start();
        let open = [Open::new(&server, version, "/p3/stay"), joined(&server, version, "/p3/stay")];
        server.signal(Signal::TERM);
        for open in open {
            assert_eq!(open.rest(), None, "it is broken off");
        }
        assert_eq!(server.wait().code(), Some(0));
        let log = server.log();
        assert!(log.lines().filter(|line| line.contains("the server is shutting down")).count() >= 2, "{log}");
    }
}

#[test]
fn only_who_can_may_and_the_operator_has_the_last_word() {
    let settings = |at_once: u32, in_all: u32| format!("[instance]\nreuse = {in_all}\nconcurrent = {at_once}");
    let server = launch(17, 100)
        .function("p2.wasm", component::http_guest())
        .function("p2.toml", settings(2, 10))
        .function("one.wasm", component::http_guest())
        .function("one.toml", settings(1, 10))
        .function("few.wasm", component::p3_guest())
        .function("few.toml", settings(4, 3))
        .function("alone.wasm", component::p3_guest())
        .function("alone.toml", "[instance]\nconcurrent = 2")
        .function("command.wat", guest::hello())
        .function("command.toml", settings(2, 2))
        .start();
    server.get("/p3/present").problem(422, "module-invalid").names(&["p3.toml", "instance.concurrent 17", "cap 16"]);
    server.get("/p2/instance").problem(422, "module-invalid").names(&["p2.toml", "instance.concurrent", "WASI 0.2"]);
    server.get("/one/instance").ok();
    for (name, in_all) in [("few", 3), ("alone", 1)] {
        let names = [format!("{name}.toml"), format!("instance.reuse {in_all}")];
        server
            .get(&format!("/{name}/present"))
            .problem(422, "module-invalid")
            .names(&names.each_ref().map(String::as_str));
    }
    server.get("/command").problem(422, "module-invalid").names(&["command.toml", "is a command"]);
    let off = launch(2, 2).flag("--max-instance-concurrency", "1").start();
    off.get("/p3/present").problem(422, "module-invalid").names(&["instance.concurrent 2", "cap 1"]);
}
