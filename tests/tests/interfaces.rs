//! What components import beyond WASI itself: configuration and lines for the log; and what is said of what there is not.

use wasmbox_tests::{WasmBox, client::VERSIONS, component, server::Launch};

fn launch() -> Launch {
    WasmBox::launch().function("http.wasm", component::http_guest()).function("p3.wasm", component::p3_guest())
}

#[test]
fn configuration_is_the_functions_own() {
    let server = launch()
        .function("http.toml", "[config]\ngreeting = 'hello'\n'with space' = ''\n")
        .function("p3.toml", "config = { greeting = 'good day' }\n")
        .function("other.wasm", component::http_guest())
        .start();
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.get("/http/config").ok().text(), "greeting=hello\nwith space=\n");
        assert_eq!(server.get("/http/config?greeting").ok().text(), "Some(\"hello\")");
        assert_eq!(server.get("/http/config?other").ok().text(), "None");
        assert_eq!(server.get("/other/config").ok().text(), "");
        assert_eq!(server.get("/p3/config?greeting").ok().text(), "Some(\"good day\")");
        // It is no environment.
        assert_eq!(server.get("/http/environment").ok().text(), "");
    }
}

#[test]
fn configuration_is_bounded() {
    let many: String = (0..257).map(|number| format!("k{number} = ''\n")).collect();
    let server = WasmBox::launch()
        .function("many.wasm", component::http_guest())
        .function("many.toml", format!("[config]\n{many}"))
        .function("large.wasm", component::http_guest())
        .function("large.toml", format!("[config]\nk = '{}'\n", "x".repeat(32 << 10)))
        .function("number.wasm", component::http_guest())
        .function("number.toml", "[config]\nk = 1\n")
        .start();
    for version in VERSIONS {
        server.speak(version);
        server.get("/many/config").problem(422, "module-invalid").names(&["[config]", "257", "256"]);
        server.get("/large/config").problem(422, "module-invalid").names(&["[config]", "32769", "32768"]);
        server.get("/number/config").problem(422, "module-invalid").names(&["number.toml", "line 2", "string"]);
    }
}

#[test]
fn lines_for_the_log_have_their_level_and_their_invocation() {
    let server = launch().flag("--stderr-in-errors", "true").start();
    for (level, logged) in [("info", "INFO"), ("warn", "WARN"), ("error", "ERROR"), ("critical", "ERROR")] {
        let answer = server.get(&format!("/http/log?{level},shop,sold+{level}"));
        let id = answer.ok().header("wasmbox-invocation-id").to_owned();
        let line = server.logged(&["guest", &format!("sold {level}")]);
        for part in [logged, "function=http", &format!("id={id}"), &format!("severity={level}"), "context=shop"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
    // Less than the box logs; it costs the function nothing of what it may log.
    server.get("/http/log?debug,shop,whispered,100000").ok();
    server.get("/p3/log?from-p3").ok();
    server.logged(&["WARN", "function=p3", "context=p3", "log=from-p3"]);
    server.get("/http/log-and-trap?error,shop,last+words").problem(500, "guest-trap").names(&["shop: last words"]);
    assert!(!server.log().contains("whispered") && !server.log().contains("was not logged"), "{}", server.log());
}

#[test]
fn nobody_else_s_line_is_forged() {
    let forged = "a\\n2026-01-01T00:00:00.000000Z+INFO+invocation:+function=other";
    for format in ["text", "json"] {
        let server = launch().flag("--log-format", format).start();
        server.get(&format!("/http/log?info,shop,{forged}")).ok();
        let line = server.logged(&["2026-01-01T00:00:00"]);
        assert!(line.contains("shop") && line.contains("guest"), "{line}");
        assert!(
            !server.log().lines().any(|line| line.starts_with("2026-01-01T00:00:00.000000Z INFO")),
            "{}",
            server.log()
        );
    }
}

/// Lines of the log and standard error are in one account.
#[test]
fn a_flood_is_cut_off() {
    let server = launch().flag("--invocation-timeout", "60s").start();
    server.get(&format!("/http/log?info,shop,{},20000", "x".repeat(500))).ok();
    server.get("/p3/flood?5000").ok();
    for function in ["http", "p3"] {
        server.logged(&["WARN", "guest", &format!("function={function}"), "dropped_bytes=", "1 MiB"]);
    }
    let bytes = server.log().len();
    assert!(bytes < 3 << 20, "{bytes} bytes of log");
    server.get("/http/log?info,shop,afterwards").ok();
    server.logged(&["log=afterwards"]);
}

#[test]
fn what_there_is_not_is_said_with_who_has_it() {
    let component = |name: &str| format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
    let cases = [
        ("spin", "fermyon:spin/key-value@2.0.0", "Spin"),
        ("cloud", "wasmcloud:bus/lattice@1.0.0", "wasmCloud"),
        ("watcher", "wasi:keyvalue/watcher@0.2.0-draft", "wasi:keyvalue@0.2.0-draft"),
        ("runtime", "wasi:config/runtime@0.2.0-draft", "wasi:config/store@0.2.0-rc.1"),
        ("own", "own:package/interface", "wac plug"),
    ];
    let launch = cases.iter().fold(WasmBox::launch(), |launch, (function, name, _)| {
        launch.function(&format!("{function}.wat"), component(name))
    });
    let server = launch.start();
    for version in VERSIONS {
        server.speak(version);
        for (function, name, advice) in cases {
            server.get(&format!("/{function}")).problem(422, "module-invalid").names(&[name, advice]);
        }
    }
}
