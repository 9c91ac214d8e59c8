//! What a failed function wrote to standard error last is in its error, and in no other.

use wasmbox_tests::{WasmBox, client::VERSIONS, component, guest};

/// Copies its input to standard error, then does what `end` says.
fn complaining(end: &str) -> String {
    guest::command(&format!("(call $copy (i32.const 0) (i32.const 2)) {end}"))
}

const SAID: &str = "thread 'main' panicked at src/main.rs:3:5:\nno \"luck\"\n";
const SHOWN: &str = "; its standard error ended with:\nthread 'main' panicked at src/main.rs:3:5:\nno \"luck\"";

fn launch() -> wasmbox_tests::server::Launch {
    WasmBox::launch()
        .function("traps.wat", complaining("unreachable"))
        .function("exits.wat", complaining("(call $exit (i32.const 3))"))
        .function("silent.wat", guest::command("unreachable"))
        .function("fine.wat", complaining(""))
}

#[test]
fn they_are_in_the_detail_of_a_trap_and_an_exit() {
    let server = launch().start();
    for (path, code) in [("/traps", "guest-trap"), ("/exits", "guest-exit")] {
        let answer = server.post(path, SAID);
        let problem = answer.problem(500, code);
        let detail = problem.member("detail");
        assert!(detail.as_str().is_some_and(|detail| detail.ends_with(SHOWN)), "{detail}");
    }
    assert_eq!(server.post("/fine", SAID).ok().text(), "");
    server.logged(&["function=fine", "luck"]);
    let log = server.log();
    assert_eq!(log.matches("no \\\"luck").count(), 3, "once for each invocation: {log}");
}

#[test]
fn they_are_those_of_this_invocation_alone() {
    let server = launch().flag("--max-invocations", 1).start();
    for version in VERSIONS {
        server.speak(version);
        server.post("/traps", "secret").problem(500, "guest-trap").names(&["secret"]);
        for path in ["/silent", "/traps", "/exits"] {
            let answer = server.post(path, "");
            let text = answer.text();
            assert!(!text.contains("secret") && !text.contains("standard error"), "{text}");
        }
    }
}

#[test]
fn a_flood_leaves_its_end() {
    let server = launch().start();
    for version in VERSIONS {
        server.speak(version);
        let flood = "all the same\n".repeat(300_000) + "the end";
        let answer = server.post("/traps", flood);
        let detail = answer.problem(500, "guest-trap").member("detail").to_string();
        assert!(detail.len() < 2048 && detail.ends_with("all the same\\nthe end\""), "{detail}");
    }
}

#[test]
fn a_component_has_them_too() {
    let server = WasmBox::with("http.wasm", component::http_guest());
    for version in VERSIONS {
        server.speak(version);
        let answer = server.get("/http/trap");
        answer.problem(500, "guest-trap").names(&["; its standard error ended with:\n", "panicked at", "as asked"]);
    }
}

#[test]
fn the_operator_may_keep_them_in_the_log() {
    let server = launch().flag("--stderr-in-errors", false).start();
    let answer = server.post("/traps", SAID);
    answer.problem(500, "guest-trap");
    assert!(!answer.text().contains("luck"), "{}", answer.text());
    server.logged(&["traps", "no \\\"luck"]);
}
