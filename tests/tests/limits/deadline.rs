//! The deadline: it ends guests in whatever they do.

use std::{thread, time::Duration};

use wasmbox_tests::{
    Request, WasmBox, component, eventually,
    guest::{self, command, command_with},
};

#[test]
fn the_deadline_ends_whatever_the_guest_does() {
    let server = WasmBox::launch()
        .function("busy.wat", guest::busy())
        .function("start.wat", command_with("(func $start (loop $again (br $again))) (start $start)", ""))
        .function("sleeping.wat", guest::sleeping())
        .function("polling.wat", command("(loop $again (call $sleep (i64.const 1)) (br $again))"))
        .function("reading.wat", guest::echo())
        .function("http.wasm", component::http_guest())
        .start();
    for path in ["/busy", "/start", "/sleeping", "/polling", "/http/loop", "/http/sleep"] {
        // Loaded first, or the answer would be that it is still compiling.
        eventually("the function is compiled", || {
            let answer = server.call(Request::get(path).header("Invocation-Timeout", "200"), "");
            (answer.header("wasmbox-error") != "compiling").then(|| answer.problem(504, "deadline-exceeded"))
        });
    }
    // As above.
    server.call(Request::options("/reading"), "");
    // Blocked in reading: a chunked body that does not end, and one that is shorter than it says.
    for head in [
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        "Content-Length: 10\r\n\r\nx",
        "Content-Length: 1000000\r\n\r\nx",
    ] {
        let mut wire = server.wire(format!("POST /reading HTTP/1.1\r\nHost: box\r\nInvocation-Timeout: 400\r\n{head}"));
        wire.answer().problem(504, "deadline-exceeded").names(&["400 ms"]);
    }
    server.wait_until_idle();
}

/// A server that had nothing to do sleeps; what wakes it must also wake what watches the time.
#[test]
fn the_deadline_holds_after_a_pause() {
    let server = WasmBox::with("busy.wat", guest::busy());
    // Loaded first, or the answer would be that it is still compiling.
    server.call(Request::options("/busy"), "");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1500));
        let answer = server.call(Request::get("/busy").header("Invocation-Timeout", "200"), "");
        answer.problem(504, "deadline-exceeded");
    }
}

#[test]
fn the_deadline_breaks_off_an_answer_that_has_started() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("stuck.wat", guest::printing("x", "(call $sleep (i64.const 86400000))"))
        .function("stuck.toml", "output-buffer-bytes = 0")
        .start();
    for path in ["/flood", "/stuck"] {
        server.call(Request::head(path), "").ok();
        // Enough for an answer to begin.
        let broken = server.try_call(Request::get(path).header("Invocation-Timeout", "3000"), "");
        assert_eq!(broken.expect_err("it cannot end").status, Some(200), "{path}");
        let name = path.trim_start_matches('/');
        server.logged(&[&format!("function={name}"), "failure=", "did not end within 3000 ms"]);
    }
    // Also when the client does not read: then the guest is blocked in writing.
    let mut wire = server.wire("GET /flood HTTP/1.1\r\nHost: box\r\nInvocation-Timeout: 3000\r\n\r\n");
    wire.head();
    server.wait_until_idle();
    let mut end = Ok(None);
    while matches!(&end, Ok(chunk) if chunk.as_ref().is_none_or(|chunk: &Vec<u8>| !chunk.is_empty())) {
        end = wire.chunk();
        assert!(!matches!(end, Ok(None)), "the answer is whole");
    }
}
