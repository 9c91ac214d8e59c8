//! Authors who may send requests, and want the box's connections, its memory or its thread.

use http::StatusCode;
use wasmbox_tests::{Attack, Authority, Request, Upstream, attack::together, component::http_guest};

use crate::{
    assert_coded,
    host_memory::{CROWDED, REFUSED},
};

/// What each client's guest sends again and again: `METHOD`, the rest of the URL and options.
fn sending(what: &[(&str, &str)]) {
    let authority = Authority::new();
    let upstream = Upstream::secure("127.0.0.1:0", authority.server(&["127.0.0.1"], &["h2", "http/1.1"]));
    let address = upstream.address();
    let attack = Attack::within(512)
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = ['{address}']"))
        .flag("--allow-outbound", address);
    let file = attack.launch().directory().join("ca.pem");
    authority.write(&file);
    attack.flag("--outbound-ca", file.display()).log_bytes(64 << 20).run(|server| {
        together(8, |client| {
            let (method, rest) = what[client % what.len()];
            let request = Request::get(format!("/http/fetch?{method},https://{address}{rest}"));
            let answer = server.call(request.header("Memory-Request", "8Mi").header("Invocation-Timeout", "2000"), "");
            if answer.status != StatusCode::OK {
                assert_coded(&answer, &[REFUSED, CROWDED].concat());
            }
        });
    });
}

#[test]
fn responses_that_are_never_read() {
    sending(&[
        ("GET", "/bytes?100000000,together=100,keep,times=1000"),
        ("GET", "/field?30000,keep,together=50,times=1000"),
    ]);
}

#[test]
fn requests_that_are_given_up() {
    sending(&[
        ("GET", "/slow-head?60000,together=300"),
        ("GET", "/slow-head?60000,together=16,first=1,times=100000"),
        ("POST", "/echo,body=100000000"),
        ("GET", "/,connect=0,together=100,times=100000"),
    ]);
}

#[test]
fn connections_without_end() {
    sending(&[("GET", "/close,together=16,times=100000"), ("GET", "/broken,together=16,times=100000")]);
}
