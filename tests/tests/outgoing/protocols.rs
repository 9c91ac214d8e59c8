//! HTTP/1.1 and HTTP/2.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::net::sockopt::set_socket_linger;
use wasmbox_tests::{Authority, Upstream, WasmBox};

use super::{Servers, Wasi, fetch, granted_to, has};

with_both_guests!(
    https_by_http1_and_http2,
    ipv6_with_and_without_tls,
    trailers_both_ways,
    bodies_are_streamed_both_ways,
    large_bodies_pass_through_little_memory,
    a_large_head_is_bounded,
    an_answer_that_breaks_off_is_no_whole_one,
    a_proxy_that_resets,
);

fn https_by_http1_and_http2(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    server.logged(&["serving", "Landlock", "seccomp", "capabilities"]);
    for (url, version) in servers.urls().iter().zip(["HTTP/1.1", "HTTP/1.1", "HTTP/2.0"]) {
        let address = url.split("//").nth(1).expect("an address");
        let text = fetch(&server, &format!("GET,{url}/a/path?and=query"));
        let host = if version == "HTTP/2.0" { "host= authority=" } else { "host=" };
        let (version, host) = (format!("x-version={version}"), format!("{host}{address}"));
        has(&text, &["status=200", &version, "GET /a/path?and=query", &host, "te=trailers"]);
        has(&fetch(&server, &format!("POST,{url}/read,body=100000")), &["status=200", "read 100000"]);
        has(&fetch(&server, &format!("HEAD,{url}/")), &["status=200", "body=\n"]);
        has(&fetch(&server, &format!("GET,{url}/status?302")), &["status=302", "body=as asked"]);
        has(&fetch(&server, &format!("GET,{url}/status?204")), &["status=204"]);
        has(&fetch(&server, &format!("CONNECT,{url}/")), &["HttpRequestMethodInvalid"]);
    }
}

fn ipv6_with_and_without_tls(wasi: Wasi) {
    let authority = Authority::new();
    let secure = Upstream::secure("[::1]:0", authority.server(&["::1"], &["h2"]));
    let plain = Upstream::plain("[::1]:0");
    let grants = [secure.address().to_string(), plain.address().to_string()];
    let launch = granted_to(wasi, "http", &grants).flag("--allow-outbound", grants.join(","));
    authority.write(&launch.directory().join("ca.pem"));
    let file = launch.directory().join("ca.pem");
    let server = launch.flag("--outbound-ca", file.display()).start();
    has(&fetch(&server, &format!("GET,https://{}/", secure.address())), &["status=200", "HTTP/2.0"]);
    has(&fetch(&server, &format!("GET,http://{}/", plain.address())), &["status=200", "HTTP/1.1"]);
}

fn trailers_both_ways(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/trailers")), &["body=before", "trailer etag=\"42\""]);
        let sent = format!("POST,{url}/read,body=10,header=trailer:etag,trailer=etag:sum");
        has(&fetch(&server, &sent), &["read 10", "etag", "sum"]);
    }
}

/// Each part is answered before the next is sent.
fn bodies_are_streamed_both_ways(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        let head = "Host: box\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut wire = server.wire(format!("POST /http/relay?POST,{url}/echo HTTP/1.1\r\n{head}"));
        for part in [&b"one"[..], b"two", b"three"] {
            wire.send_chunk(part);
            if part == b"one" {
                assert_eq!(wire.head().status, 200);
            }
            assert_eq!(wire.chunk().expect("the part"), Some(part.to_vec()), "{url}");
        }
        wire.send_chunk(b"");
        assert_eq!(wire.chunk().expect("the end"), None);
    }
}

fn large_bodies_pass_through_little_memory(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        fetch(&server, &format!("GET,{url}/"));
        let before = server.process().peak_resident_bytes();
        let large = 64 << 20;
        let copy = server.get(&format!("/http/relay-down?GET,{url}/bytes?{large}"));
        assert_eq!(copy.ok().body.len(), large, "{url}");
        has(&fetch(&server, &format!("POST,{url}/read,body=16777216")), &["read 16777216"]);
        // The guest has made 16 MiB itself.
        let growth = server.process().peak_resident_bytes().saturating_sub(before);
        assert!(growth < 40 << 20, "{url}: {growth} bytes");
    }
}

fn a_large_head_is_bounded(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/field?16000")), &["status=200", "x-large=xxx"]);
        let text = fetch(&server, &format!("GET,{url}/field?100000"));
        has(&text, &["error="]);
        assert!(!text.contains("xxx"), "{text}");
    }
}

fn an_answer_that_breaks_off_is_no_whole_one(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/broken")), &["status=200", "first ", "body-error="]);
    }
    // Nothing of that is left.
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/")), &["status=200"]);
    }
}

/// Answers each request with `bytes`, and then resets its connection; counts the connections.
fn resetting(bytes: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let connections = Arc::<AtomicUsize>::default();
    let count = connections.clone();
    let reset = move |mut stream: TcpStream| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(bytes);
        // What was sent is read before.
        thread::sleep(std::time::Duration::from_millis(500));
        set_socket_linger(&stream, Some(std::time::Duration::ZERO)).expect("a socket");
    };
    thread::spawn(move || listener.incoming().flatten().for_each(reset));
    (address, connections)
}

fn a_proxy_that_resets(wasi: Wasi) {
    let (before, before_count) = resetting(b"");
    let (within, within_count) = resetting(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst");
    let (garbage, garbage_count) = resetting(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let grants = [before, within, garbage].map(|address| address.to_string());
    let server: WasmBox = granted_to(wasi, "http", &grants).flag("--allow-outbound", grants.join(",")).start();
    has(&fetch(&server, &format!("GET,http://{before}/")), &["error=", "ConnectionTerminated"]);
    has(&fetch(&server, &format!("GET,http://{within}/")), &["status=200", "first", "body-error="]);
    has(&fetch(&server, &format!("GET,http://{garbage}/")), &["error=", "HttpProtocolError"]);
    has(&fetch(&server, &format!("GET,https://{before}/")), &["error=", "ConnectionTerminated"]);
    has(&fetch(&server, &format!("GET,https://{garbage}/")), &["error=", "Tls"]);
    // To try again is the guest's business.
    let connections = [before_count, within_count, garbage_count].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(connections, [2, 1, 2]);
}
