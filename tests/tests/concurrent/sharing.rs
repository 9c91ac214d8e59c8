//! What requests in one instance share, and what is each one's own.

use std::thread;

use http::Version;
use wasmbox_tests::{client::VERSIONS, component, eventually, guest};

use super::{
    assert_alone,
    joining::{Open, joined, leave},
    launch, plain, present, settings, uses,
};

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
        let counted = || server.metrics().sum("wasmbox_invocations_total", &[]);
        eventually("and is counted", || (counted() >= all).then_some(()));
        assert_eq!(counted(), all);
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

#[test]
fn only_who_can_may_and_the_operator_has_the_last_word() {
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
