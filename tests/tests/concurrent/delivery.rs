//! Answers that their clients do not read.
//!
//! The slow client speaks HTTP/2, since there an answer waits for a window that the client gives; on HTTP/1.1 the kernel takes whatever is short. It
//! has an address of its own: what a client may hold is counted by addresses.

use wasmbox_tests::{
    TestCgroup, WasmBox,
    attack::{ENEMY, connect_from},
    client::VERSIONS,
    eventually,
    frames::{END_STREAM, Frames, INITIAL_WINDOW_SIZE, kind},
};

use super::{
    compiled,
    joining::{Open, joined},
    launch_with, uses,
};

/// Bytes of an answer, which is passed on whole.
const ANSWER: u32 = 60_000;

/// A client that has asked for answers, and got their heads.
struct SlowReader {
    frames: Frames,
    asked: u32,
}

impl SlowReader {
    fn connect(server: &WasmBox) -> SlowReader {
        let frames = Frames::on(connect_from(ENEMY, server.address()), &[(INITIAL_WINDOW_SIZE, 0)]);
        SlowReader { frames, asked: 0 }
    }

    fn ask(&mut self) {
        let stream = 2 * self.asked + 1;
        self.asked += 1;
        self.frames.get(stream, &format!("/p3/write?{ANSWER}")).expect("the server takes frames");
        self.frames.await_frame(kind::HEADERS, stream).expect("the head of its answer");
    }

    /// Reads all of them: gives how many bytes came.
    fn read(mut self) -> u32 {
        let window = (1_u32 << 30).to_be_bytes();
        self.frames.send(kind::WINDOW_UPDATE, 0, 0, &window).expect("the server takes frames");
        for index in 0..self.asked {
            self.frames.send(kind::WINDOW_UPDATE, 0, 2 * index + 1, &window).expect("the server takes frames");
        }
        let (mut bytes, mut whole) = (0, 0);
        while whole < self.asked {
            let frame = self.frames.receive().expect("the rest of its answers");
            if frame.kind == kind::DATA {
                bytes += u32::try_from(frame.payload.len()).expect("a frame is short");
                whole += u32::from(frame.flags & END_STREAM != 0);
            }
        }
        bytes
    }
}

/// In a small box, where not all of them have room in what this client may hold.
#[test]
fn an_answer_without_room_in_its_clients_budget_keeps_the_permit_and_nobody_else_waits() {
    let container = TestCgroup::with_memory(256);
    let server = launch_with(8, 1000, 4).within(&container).start();
    compiled(&server);
    for version in VERSIONS {
        server.speak(version);
        let first = Open::new(&server, version, "/p3/stay");
        let pulse = joined(&server, version, "/p3/pulse");
        let mut slow = SlowReader::connect(&server);
        let before = uses(&server, "joined");
        eventually("some are in the instance", || {
            slow.ask();
            (slow.asked >= 50 && uses(&server, "joined") > before).then_some(())
        });
        for _ in 0..3 {
            server.get("/p3/present").ok();
            assert_eq!(server.get(&format!("/p3/write?{ANSWER}")).ok().body.len(), ANSWER as usize);
        }
        pulse.leave();
        assert_eq!(first.rest().as_deref(), Some("1 left"));
        server.wait_until_running("p3", 0);
        let units = || server.metrics().sum("wasmbox_in_flight_resource_units", &[]);
        assert!(units() >= 4.0, "what is not delivered has no permit");
        let asked = slow.asked;
        assert_eq!(slow.read(), asked * ANSWER);
        server.wait_until_idle();
    }
    assert_eq!(container.oom_kills(), 0);
}

/// They are accounted for where their client's memory is; else they would be more than the instance may have.
#[test]
fn answers_that_wait_for_their_client_are_not_the_instances_memory() {
    let server = launch_with(8, 1000, 3).start();
    compiled(&server);
    for version in VERSIONS {
        let first = Open::new(&server, version, "/p3/stay");
        let pulse = joined(&server, version, "/p3/pulse");
        let mut slow = SlowReader::connect(&server);
        let before = uses(&server, "joined");
        // More than its Memory-Request and what the box holds for it.
        eventually("they are in the instance", || {
            slow.ask();
            (uses(&server, "joined") - before >= 100.0).then_some(())
        });
        pulse.leave();
        assert_eq!(first.rest().as_deref(), Some("1 left"));
        let asked = slow.asked;
        assert_eq!(slow.read(), asked * ANSWER);
        server.wait_until_idle();
    }
}
