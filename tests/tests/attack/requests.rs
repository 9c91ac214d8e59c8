//! Clients whose requests are right, and too many, too long, or for names that nobody has.

use std::sync::atomic::{AtomicUsize, Ordering};

use wasmbox_tests::{Attack, Request, attack::together, attacker::Outcomes, guest};

use crate::{assert_coded, begun, host_memory::CROWDED};

/// Names in metrics and in the list of functions are bounded, whatever is asked for.
#[test]
fn names_that_nobody_has() {
    let number = AtomicUsize::new(0);
    Attack::within(256).log_bytes(64 << 20).run(|server| {
        together(4, |_| {
            let name = format!("{:0>100}", number.fetch_add(1, Ordering::Relaxed));
            assert_coded(&server.get(&format!("/{name}")), &["module-not-found"]);
        });
        let listed = server.admin("/functions").ok().body.len();
        let metrics = server.metrics().text().len();
        assert!(listed < 64 << 10 && metrics < 512 << 10, "{listed} bytes of functions, {metrics} of metrics");
    });
}

/// Queries, arguments and heads as long as they may be.
#[test]
fn long_queries() {
    let attack = Attack::within(256).function("arguments.wat", guest::arguments()).log_bytes(16 << 20);
    attack.run(|server| {
        let queries = [
            format!("/arguments?{}", "arg=x&".repeat(5000)),
            format!("/arguments?arg={}", "x".repeat(30_000)),
            format!("/arguments?arg={}", "%00".repeat(10_000)),
            format!("/arguments?arg={}", "%ff".repeat(10_000)),
            format!("/arguments?arg={}", "+".repeat(30_000)),
            format!("/arguments?{}", "&".repeat(30_000)),
            format!("/arguments?{}", "=".repeat(30_000)),
        ];
        together(7, |client| {
            let request =
                Request::get(&queries[client]).header("Memory-Request", "1").header("Invocation-Timeout", "2000");
            let answer = server.call(request, "");
            if answer.status != 200 {
                let codes = [&["bad-argument", "guest-trap", "guest-exit", "guest-memory-limit", "compiling"], CROWDED]
                    .concat();
                assert_coded(&answer, &codes);
            }
        });
    });
}

#[test]
fn limits_that_are_no_numbers() {
    let values =
        ["NaN", "inf", "-1", "1e9", "0", "0x10", "18446744073709551616", "１００", "1,2", "9999999Ti", " ", "-0"];
    Attack::within(256).log_bytes(64 << 20).run(|server| {
        for value in values {
            for header in ["Cpu-Quota", "Memory-Request", "Invocation-Timeout"] {
                let answer = server.call(Request::get("/hello").header(header, value), "");
                assert_coded(&answer, &["bad-limit"]);
            }
        }
        together(4, |client| {
            let request = Request::get("/hello").header("Memory-Request", values[client]);
            assert_coded(&server.call(request, ""), &["bad-limit"]);
        });
        assert_eq!(server.metrics().sum("wasmbox_in_flight_resource_units", &[]), 0.0);
    });
}

/// Paths that lead out of the functions directory, or look as if.
#[test]
fn paths_that_lead_elsewhere() {
    let attack = Attack::within(256);
    std::fs::write(attack.launch().directory().join("secret.wat"), guest::printing("secret", "")).expect("a file");
    attack.run(|server| {
        for path in [
            "/../secret",
            "/..%2fsecret",
            "/%2e%2e/secret",
            "/.secret",
            "/..",
            "/.",
            "//secret",
            "/hello/../../secret",
            "/hello/",
            "/hello%00",
            "/hello.wat/x",
            "/hello\\..\\secret",
            "/-/../secret",
            "/cache/key",
            "/~root",
        ] {
            let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"));
            let rest = wire.rest();
            let text = String::from_utf8_lossy(&rest);
            assert!(!text.contains("\r\n\r\nsecret") && !text.starts_with("HTTP/1.1 200"), "{path}: {text}");
        }
        let mut wire = server.wire("GET http://elsewhere/../secret HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n");
        assert!(!String::from_utf8_lossy(&wire.rest()).contains("secret\n"));
    });
}

/// More calls at once than there is room for, of functions that take what they may.
#[test]
fn crowds() {
    let attack = Attack::within(256)
        .function("growing.wat", guest::growing(12, 100))
        .function("busy.wat", guest::busy())
        .function("sleeping.wat", guest::sleeping())
        .function("trap.wat", guest::command("unreachable"));
    attack.run(|server| {
        together(80, |client| {
            let path = ["/growing", "/busy", "/sleeping", "/trap"][client % 4];
            let request = Request::get(path).header("Memory-Request", "14").header("Invocation-Timeout", "1000");
            let answer = server.call(request.header("Cpu-Quota", "100"), "");
            if answer.status == 503 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            if answer.status != 200 {
                assert_coded(
                    &answer,
                    &[&["deadline-exceeded", "guest-trap", "evicted", "compiling"], CROWDED].concat(),
                );
            }
        });
    });
}

/// Output without end, read as fast as it comes.
#[test]
fn storms_of_output() {
    let attack = Attack::within(256).function("flood.wat", guest::flood(0)).flag("--max-output", "64Mi");
    attack.run(|server| {
        together(6, |client| {
            let version = [http::Version::HTTP_11, http::Version::HTTP_2][client % 2];
            let request = Request::get("/flood").version(version).header("Memory-Request", "1");
            // It is never whole.
            if let Some(refused) = begun(server.try_call(request.header("Invocation-Timeout", "2000"), "")) {
                assert_coded(&refused, &[&["deadline-exceeded", "evicted", "compiling"], CROWDED].concat());
            }
        });
    });
}

/// What starts is ended by its client, again and again, at each moment of its life. Nobody is there to be answered: the log has what became of it.
#[test]
fn clients_that_leave() {
    let attack = Attack::within(256)
        .function("growing.wat", guest::growing(12, 100))
        .function("flood.wat", guest::flood(0))
        .function("echo.wat", guest::echo())
        .descriptors(1000);
    attack.run(|server| {
        together(6, |client| {
            let path = ["/growing", "/flood", "/echo"][client % 3];
            let mut wire = server.wire(format!(
                "POST {path} HTTP/1.1\r\nHost: box\r\nMemory-Request: 14\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            std::thread::sleep(std::time::Duration::from_millis(client as u64 * 3));
            let _ = wire.try_send("5\r\nabc");
        });
        server.wait_until_idle();
        let outcomes = Outcomes::default();
        for line in server.log().lines().filter(|line| line.contains("INFO invocation: ")) {
            let field = |name: &str| line.split_once(&format!(" {name}="))?.1.split(' ').next();
            if field("function").is_some_and(|function| ["growing", "flood", "echo"].contains(&function)) {
                outcomes.add([field("status"), field("code")].into_iter().flatten().collect::<Vec<_>>().join(" "));
            }
        }
        // Their bodies are not whole; for some functions it is too late to notice.
        let beside = ["200", "499 client-gone", "503 queue-full", "503 queue-timeout", "503 compiling", "503 evicted"];
        outcomes.assert_are(&["400 body-unreadable"], &beside);
    });
}
