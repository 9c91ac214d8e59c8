//! Errors of a guest that ran: 500.

use wasmbox_tests::{Request, WasmBox, component, guest};

#[test]
fn guest_exit() {
    let server = WasmBox::with("exit.wat", guest::printing("not an answer", "(call $exit (i32.const 3))"));
    let answer = server.get("/exit");
    let problem = answer.problem(500, "guest-exit");
    problem.names(&["3"]);
    assert_eq!(problem.member("exit_code"), 3);
    // As a shell shows them: C's exit(-1), Python's sys.exit(200), AssemblyScript's abort; and what is no success stays none.
    for (code, shown) in [(-1, 255), (200, 200), (255, 255), (125, 125), (126, 126), (0x1003, 3), (256, 256)] {
        let name = format!("exit{}.wat", code & 0xffff);
        server.put(&name, guest::command(&format!("(call $exit (i32.const {code}))")));
        let answer = server.get(&format!("/{name}"));
        assert_eq!(answer.problem(500, "guest-exit").member("exit_code"), shown, "{code}");
    }
    server.put("zero.wat", guest::printing("fine", "(call $exit (i32.const 0))"));
    assert_eq!(server.get("/zero").ok().text(), "fine");
}

#[test]
fn guest_trap() {
    let server = WasmBox::launch()
        .function("unreachable.wat", guest::command("unreachable"))
        .function("division.wat", guest::command("(drop (i32.div_u (i32.const 1) (i32.const 0)))"))
        .function("bounds.wat", guest::command("(drop (i32.load (i32.const -4)))"))
        .function("indirect.wat", guest::command_with("(table 1 funcref)", "(call_indirect (i32.const 0))"))
        .function("start.wat", guest::command_with("(func $start unreachable) (start $start)", ""))
        .function("http.wasm", component::http_guest())
        .start();
    for (name, trap) in [
        ("unreachable", "unreachable"),
        ("division", "divide by zero"),
        ("bounds", "out of bounds memory access"),
        ("indirect", "uninitialized element"),
        ("start", "unreachable"),
        ("http/trap", "unreachable"),
    ] {
        let answer = server.get(&format!("/{name}"));
        let problem = answer.problem(500, "guest-trap");
        problem.names(&[trap]);
        assert!(problem.member("trap").as_str().is_some_and(|text| text.contains(trap)), "{problem:?}");
    }
}

#[test]
fn guest_memory_limit() {
    let server = WasmBox::with("hungry.wat", guest::hungry());
    let answer = server.call(Request::get("/hungry").header("Memory-Request", "3"), "");
    let problem = answer.problem(500, "guest-memory-limit");
    assert_eq!(problem.member("limit_bytes"), 3 << 20);
    assert_eq!(problem.member("wanted_bytes"), (3 << 20) + 65536);
}

#[test]
fn guest_output_limit() {
    let server = WasmBox::launch()
        .function("flood.wat", guest::flood(0))
        .function("fits.wat", guest::flood(4))
        .function("http.wasm", component::http_guest())
        .flag("--max-output", "256Ki")
        .flag("--output-buffer-bytes", 1 << 20)
        .start();
    assert_eq!(server.get("/fits").ok().body.len(), 256 << 10);
    let problem = server.get("/flood").problem(500, "guest-output-limit");
    assert_eq!(problem.member("limit_bytes"), 256 << 10);
    assert_eq!(server.get("/http/write?262144").ok().body.len(), 256 << 10);
    // An HTTP component decides itself when its answer starts: such an answer is broken off, and the log says why.
    let broken = server.try_call(Request::get("/http/write?262145"), "").expect_err("more than the limit");
    assert!(broken.body.len() <= 256 << 10, "{broken:?}");
    server.logged(&["invocation", "function=http", "failure=", "262144 bytes of output"]);
}

#[test]
fn guest_bad_header() {
    let server = WasmBox::launch()
        .function("cgi.wat", guest::printing("no header\n\nbody", ""))
        .function("cgi.toml", "output = 'cgi'")
        .start();
    server.get("/cgi").problem(500, "guest-bad-header").names(&["no header"]);
}

#[test]
fn guest_no_response() {
    let server = WasmBox::launch()
        .function("http.wasm", component::http_guest())
        .function("p3.wasm", component::p3_guest())
        .start();
    // What a guest says is not repeated at any length, neither here nor in the log.
    for function in ["http", "p3"] {
        let answer = server.get(&format!("/{function}/long-error?500000"));
        answer.problem(500, "guest-no-response").names(&["InternalError", "xxx"]);
        assert!(answer.body.len() < 2000, "{} bytes", answer.body.len());
    }
    assert!(server.log().len() < 20_000, "{} bytes", server.log().len());
    server.get("/http/silent").problem(500, "guest-no-response");
    server.get("/http/error").problem(500, "guest-no-response").names(&["as asked"]);
}
