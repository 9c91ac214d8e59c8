//! Requests of a component's own. All of what may be reached, and how, is in `outgoing`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use wasmbox_tests::{Request, WasmBox, component::http_guest, eventually};

/// A server that answers every request with 302 and its target.
fn other_server() -> SocketAddr {
    server_on("127.0.0.1:0")
}

fn server_on(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).is_ok_and(|bytes| bytes > 0) {}
            let target = request.split(' ').nth(1).unwrap_or_default();
            let length = target.len();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {length}\r\n\r\n{target}"
            );
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn outbound_requests_need_two_grants() {
    let other = other_server();
    let settings = format!("allowed-outbound-hosts = ['{other}']");
    let launch = WasmBox::launch()
        .function("without.wasm", http_guest())
        .function("granted.wasm", http_guest())
        .function("granted.toml", settings);
    let target = format!("outbound?{other}/path?and=query");
    // The function's settings alone grant nothing.
    let server = launch.start();
    server
        .get(&format!("/granted/{target}"))
        .problem(422, "module-invalid")
        .names(&[&other.to_string(), "--allow-outbound"]);
    let denied = |server: &WasmBox, path: &str| {
        let text = server.get(path).ok().text().to_owned();
        assert!(text.starts_with("error") && text.contains("HttpRequestDenied"), "{path}: {text}");
    };
    denied(&server, &format!("/without/{target}"));
    // The operator's flag alone grants nothing to a function that does not ask.
    let server = server.stop().flag("--allow-outbound", other).start();
    denied(&server, &format!("/without/{target}"));
    // Both: and a redirect is an answer, not followed.
    assert_eq!(server.get(&format!("/granted/{target}")).ok().text(), "status 302 body /path?and=query");
    // Another port, another name of the same host, another scheme.
    let port = other.port();
    let own = server.address();
    for elsewhere in [
        own.to_string(),
        server.admin_address().to_string(),
        format!("localhost:{port}"),
        "127.0.0.1".into(),
        format!("127.0.0.1.:{port}"),
        format!("127.1:{port}"),
    ] {
        denied(&server, &format!("/granted/outbound?{elsewhere}/"));
    }
    assert!(server.get(&format!("/granted/outbound?https://{other}/")).ok().text().starts_with("error"));
    server.logged(&["outbound request refused", "127.0.0.1", "allowed-outbound-hosts", "--allow-outbound"]);
}

#[test]
fn outbound_requests_go_to_addresses_of_ipv6_too() {
    let other = server_on("[::1]:0");
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = ['{other}']"))
        .flag("--allow-outbound", other)
        .start();
    assert_eq!(server.get(&format!("/http/outbound?{other}/path")).ok().text(), "status 302 body /path");
    let elsewhere = server.get(&format!("/http/outbound?[::1]:{}/", server.address().port())).ok();
    assert!(elsewhere.text().contains("HttpRequestDenied"), "{}", elsewhere.text());
}

#[test]
fn an_outbound_request_ends_with_its_invocation() {
    // Accepts nothing, answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = silent.local_addr().expect("a bound socket");
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = ['{other}', '127.0.0.1:1']"))
        .flag("--allow-outbound", format!("{other},127.0.0.1:1"))
        .start();
    // Nobody listens there.
    assert!(server.get("/http/outbound?127.0.0.1:1/").ok().text().starts_with("error"));
    let descriptors = server.process().descriptors();
    for _ in 0..3 {
        let request = Request::get(format!("/http/outbound?{other}/")).header("Invocation-Timeout", "300");
        server.call(request, "").problem(504, "deadline-exceeded");
    }
    eventually("the connections are closed", || (server.process().descriptors() <= descriptors + 1).then_some(()));
}
