//! Connections that are used again, and whose they are.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use wasmbox_tests::{Request, WasmBox, eventually};

use super::{Servers, add, fetch, fetch_by, granted, has};

/// The box counts a connection a moment after it is given back, or closed.
fn wait_until_idle(server: &WasmBox, number: f64) {
    eventually(&format!("{number} idle connections"), || {
        (server.metrics().sum("wasmbox_outbound_idle_connections", &[]) == number).then_some(())
    });
}

#[test]
fn a_function_uses_its_connection_again_and_nobody_else_does() {
    let servers = Servers::start();
    let launch = add(servers.launch(), "other", &servers.grants());
    let server = launch.start();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        for path in ["/", "/read,body=100000", "/bytes?300000", "/trailers", "/status?204"] {
            let text = fetch(&server, &format!("POST,{url}{path},times=4"));
            assert_eq!(text.matches("x-connection=1").count(), 4, "{url}{path}: {text}");
        }
        assert_eq!(upstream.connections(), 1);
        // Another invocation did that; another function has its own.
        has(&fetch_by(&server, "other", &format!("GET,{url}/")), &["x-connection=2"]);
        has(&fetch(&server, &format!("GET,{url}/")), &["x-connection=1"]);
        has(&fetch_by(&server, "other", &format!("GET,{url}/")), &["x-connection=2"]);
    }
    let metrics = server.metrics();
    let connections = |how| metrics.sum("wasmbox_outbound_connections_total", &[how]);
    assert_eq!((connections("how=\"opened\""), connections("how=\"reused\"")), (6.0, 63.0));
    wait_until_idle(&server, 6.0);
}

#[test]
fn a_connection_is_not_used_again_that_is_not_done() {
    let servers = Servers::start();
    let server = servers.launch().start();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        // Not read to the end; broken off; given up; closed by the server.
        fetch(&server, &format!("GET,{url}/bytes?10000000,keep"));
        fetch(&server, &format!("GET,{url}/broken"));
        fetch(&server, &format!("GET,{url}/slow-head?60000,first=100"));
        eventually("they are closed", || (upstream.open() == 0).then_some(()));
        assert_eq!(upstream.connections(), 3);
        has(&fetch(&server, &format!("GET,{url}/")), &["status=200", "x-connection=4"]);
    }
    let url = &servers.urls()[0];
    let text = fetch(&server, &format!("GET,{url}/close,times=3"));
    assert_eq!(text.matches("status=200").count(), 3, "{text}");
    has(&text, &["x-connection=4", "x-connection=5", "x-connection=6"]);
}

/// The server says nothing of it: that is no failure of the next request.
#[test]
fn a_connection_that_the_server_has_closed_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).is_ok_and(|bytes| bytes > 0) {}
            let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let server = granted("http", std::slice::from_ref(&address)).flag("--allow-outbound", &address).start();
    let text = fetch(&server, &format!("POST,http://{address}/,body=10,times=10,pause=100"));
    assert_eq!(text.matches("status=200 body=ok").count(), 10, "{text}");
}

#[test]
fn idle_connections_are_closed() {
    let servers = Servers::start();
    let server = servers.launch().flag("--outbound-idle-timeout", "500ms").start();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        fetch(&server, &format!("GET,{url}/"));
        eventually("it is closed", || (upstream.open() == 0).then_some(()));
    }
    wait_until_idle(&server, 0.0);
    drop(server);
    let server = servers.launch().flag("--outbound-idle-timeout", "0").start();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        let before = upstream.connections();
        fetch(&server, &format!("GET,{url}/,times=3"));
        assert_eq!(upstream.connections() - before, 3);
        eventually("they are closed", || (upstream.open() == 0).then_some(()));
    }
}

#[test]
fn idle_connections_of_a_function_are_bounded() {
    let servers = Servers::start();
    let server = servers.launch().start();
    // 16 at once, from three invocations.
    let url = &servers.urls()[0];
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| has(&fetch(&server, &format!("GET,{url}/slow-head?1000,together=16")), &["late"]));
        }
    });
    let upstream = &servers.all[0].1;
    assert!(upstream.connections() > 16, "{}", upstream.connections());
    eventually("16 are left", || (upstream.open() <= 16).then_some(()));
    wait_until_idle(&server, 16.0);
}

#[test]
fn what_is_in_use_ends_with_its_invocation() {
    let servers = Servers::start();
    let server = servers.launch().start();
    // Compiled before its time counts.
    server.get("/http/headers").ok();
    let descriptors = server.process().descriptors();
    for ((_, upstream), url) in servers.all.iter().zip(servers.urls()) {
        for path in ["slow-head?60000", "slow-body?60000", "echo"] {
            let request = Request::get(format!("/http/fetch?GET,{url}/{path},together=4"));
            let answer = server.call(request.header("Invocation-Timeout", "1000"), "");
            if path != "echo" {
                answer.problem(504, "deadline-exceeded");
                eventually("they are closed", || (upstream.open() == 0).then_some(()));
            }
        }
    }
    server.wait_until_idle();
    // What was not reused is gone, but for those of `echo`.
    eventually("descriptors are given back", || (server.process().descriptors() <= descriptors + 14).then_some(()));
    let metrics = server.metrics();
    assert!(metrics.sum("wasmbox_outbound_requests_total", &["result=\"abandoned\""]) >= 12.0);
}
