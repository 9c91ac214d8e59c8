//! The box is short of memory: an instance goes as any other invocation does, with all who are in it.
//!
//! The box is in a cgroup of its own, with a memory limit. Where none can be made this fails.

use http::Request;
use wasmbox_tests::{TestCgroup, client::VERSIONS, eventually, guest};

use super::{
    compiled,
    joining::{Open, joined, sleeping},
    launch_with, plain, present,
};

#[test]
fn an_instance_that_is_evicted_ends_all_in_it_with_that_code() {
    let container = TestCgroup::with_memory(256);
    let (data, print) = guest::text("begun\n");
    let grow = "(if (i32.lt_s (memory.grow (i32.const 2400)) (i32.const 0)) (then unreachable))";
    // It wants 150 MiB as soon as its input is at an end.
    let older = guest::command_with(&data, &format!("(call $copy (i32.const 0) (i32.const 1)) {grow} {print}"));
    let server = launch_with(8, 100, 160)
        .within(&container)
        .env("ENABLE_CGROUPS", "true")
        // The requests of both fit, as if the box were larger.
        .flag("--concurrent-resource-request", 2048)
        .function("older.wat", older)
        .start();
    server.call(Request::options("/older"), "");
    compiled(&server);
    for (round, version) in VERSIONS.into_iter().enumerate() {
        server.speak(version);
        let head = "POST /older HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
        let mut older = server.wire(head);
        server.wait_until_running("older", 1);
        let stays = [Open::new(&server, version, "/p3/stay"), joined(&server, version, "/p3/stay")];
        let mut sleeps = sleeping(&server);
        eventually("one who joins has it grow", || {
            let answer = server.get("/p3/grow?100").ok();
            (answer.header("wasmbox-instance") == "joined").then_some(())
        });
        let short = |log: String| {
            let lines = log.lines().filter(|line| line.contains(" invocation: ") && line.contains("function=p3"));
            lines.filter(|line| line.contains("ran short of memory")).count()
        };
        let before = short(server.log());
        older.send_chunk(b"");
        assert_eq!(older.answer().ok().text(), "xbegun\n");
        let answer = sleeps.answer();
        answer.problem(503, "evicted");
        assert_eq!(answer.header("wasmbox-instance"), "joined");
        for open in stays {
            assert_eq!(open.rest(), None, "it is broken off");
        }
        server.wait_until_idle();
        eventually("each has one line", || (short(server.log()) == before + 3).then_some(()));
        assert_eq!(server.metrics().sum("wasmbox_evicted_total", &[]), round as f64 + 1.0);
        assert_eq!(present(&server, plain()).0, "1", "it is another one");
        eventually("guests' memory is given back", || {
            (server.metrics().sum("wasmbox_guest_memory_bytes", &[]) == 0.0).then_some(())
        });
    }
    assert_eq!(container.oom_kills(), 0);
}
