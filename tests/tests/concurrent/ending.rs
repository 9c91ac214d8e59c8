//! What ends one of the requests in an instance, and what all of them.

use std::{thread, time::Duration};

use http::{Request, Version};
use rustix::process::Signal;
use wasmbox_tests::{client::VERSIONS, eventually};

use super::{
    assert_alone, compiled,
    joining::{Open, joined, sleeping, try_to_join},
    launch, plain, present, uses,
};

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

/// The first one's guest sees that its answer is read no more, and has the other one leave.
#[test]
fn a_deadline_is_that_of_one_request() {
    let server = launch(8, 100).flag("--invocation-timeout", "6s").start();
    compiled(&server);
    let kept = || server.metrics().sum("wasmbox_kept_instances", &[]);
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
        // Of those who came alone before.
        let others = kept();
        assert_eq!(first.rest(), None, "it is broken off");
        assert_eq!(second.rest().as_deref(), Some("2 left"));
        server.logged(&["function=p3", "did not end within 6000 ms"]);
        server.wait_until_idle();
        assert!(kept() <= others, "a task of the first one might still run in it");
        assert_alone(&server, plain(), "they have ended");
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

/// Work after the answer has the deadline of its request, and what ends it is in the log.
#[test]
fn what_goes_on_when_nobody_waits_ends_at_the_last_deadline() {
    let server = launch(8, 100).start();
    compiled(&server);
    for version in VERSIONS {
        server.speak(version);
        let request = Request::get("/p3/goes-on?60000").header("Invocation-Timeout", "3000");
        assert_eq!(server.call(request, "").ok().text(), "answered");
        server.logged(&[
            "function=p3",
            "a shared instance failed while it served nobody",
            "did not end within 3000 ms",
        ]);
        server.wait_until_idle();
    }
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
