//! What one request in an instance may send and be sent: whoever wants more has an end of its own.

use http::Version;
use wasmbox_tests::{
    WasmBox,
    client::VERSIONS,
    eventually,
    frames::{END_HEADERS, Frames, kind, request},
};

use super::{
    compiled,
    joining::{Open, joined, leave},
    launch, plain, present, uses,
};

#[test]
fn the_output_limit_is_each_ones_own() {
    let server = launch(8, 1000).flag("--max-output", "32Ki").start();
    for version in VERSIONS {
        server.speak(version);
        let first = Open::new(&server, version, "/p3/stay");
        eventually("one that joins has a whole answer that is too long", || {
            let answer = server.get("/p3/write?40000");
            answer.problem(500, "guest-output-limit").names(&["32768"]);
            (answer.header("wasmbox-instance") == "joined").then_some(())
        });
        // That task has ended with its answer, so that others may come.
        let pulse = joined(&server, version, "/p3/pulse");
        let more = joined(&server, version, "/p3/more?65536");
        assert_eq!(more.rest(), None, "it is broken off");
        eventually("nobody joins them any more, since a task may still write", || {
            (present(&server, plain()).1 != "joined").then_some(())
        });
        pulse.leave();
        assert_eq!(first.rest().as_deref(), Some("1 left"));
        server.wait_until_idle();
    }
}

/// Until one of those who send it is in the instance: that is known of those alone who are answered.
fn until_one_joins(server: &WasmBox, mut send: impl FnMut()) {
    let before = uses(server, "joined");
    eventually("one joins", || {
        send();
        (uses(server, "joined") > before).then_some(())
    });
}

#[test]
fn who_leaves_while_it_sends_its_body_leaves_alone() {
    let server = launch(8, 1000).start();
    compiled(&server);
    for version in VERSIONS {
        let first = Open::new(&server, version, "/p3/stay");
        let pulse = joined(&server, version, "/p3/pulse");
        until_one_joins(&server, || {
            let running = server.running("p3");
            let arrived = || eventually("it has come", || (server.running("p3") > running).then_some(()));
            if version == Version::HTTP_2 {
                let mut frames = Frames::connect(server.address(), &[]);
                let head = request("POST", "/p3/copy", &[]);
                frames.send(kind::HEADERS, END_HEADERS, 1, &head).expect("the server takes frames");
                frames.send(kind::DATA, 0, 1, b"abc").expect("the server takes frames");
                arrived();
                frames.send(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).expect("the server takes frames");
            } else {
                let head = "POST /p3/copy HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
                let wire = server.wire(head);
                arrived();
                wire.reset();
            }
            eventually("it is over", || (server.running("p3") <= running).then_some(()));
        });
        pulse.leave();
        assert_eq!(first.rest().as_deref(), Some("1 left"));
        server.wait_until_idle();
    }
}

#[test]
fn a_body_that_is_too_long_is_its_senders() {
    let server = launch(8, 1000).flag("--max-body", "16Ki").start();
    for version in VERSIONS {
        server.speak(version);
        let first = Open::new(&server, version, "/p3/stay");
        let pulse = joined(&server, version, "/p3/pulse");
        until_one_joins(&server, || {
            // Its answer has begun when it turns out to be too long.
            if version == Version::HTTP_2 {
                let mut frames = Frames::connect(server.address(), &[]);
                frames
                    .send(kind::HEADERS, END_HEADERS, 1, &request("POST", "/p3/pass", &[]))
                    .and_then(|()| frames.send(kind::DATA, 0, 1, &[b'x'; 1000]))
                    .expect("the server takes frames");
                frames.await_frame(kind::HEADERS, 1).expect("the head of its answer");
                for _ in 0..2 {
                    frames.send(kind::DATA, 0, 1, &[b'x'; 10_000]).expect("the server takes frames");
                }
                frames.await_frame(kind::RST_STREAM, 1).expect("its end");
            } else {
                let mut wire = server.wire("POST /p3/pass HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
                wire.send_chunk(&[b'x'; 1000]);
                let head = wire.head();
                assert_eq!(head.status, 200);
                wire.send_chunk(&[b'x'; 20_000]);
                assert_eq!(Open::Http1(wire, head).rest(), None, "it is broken off");
            }
        });
        pulse.leave();
        assert_eq!(first.rest().as_deref(), Some("1 left"));
        server.wait_until_idle();
    }
    // Who sends as much as it may is served.
    let first = Open::new(&server, Version::HTTP_11, "/p3/stay");
    assert_eq!(server.post("/p3/copy", vec![b'x'; 16 << 10]).ok().body.len(), 16 << 10);
    leave(&server, Version::HTTP_11);
    assert_eq!(first.rest().as_deref(), Some("1 left"));
}
