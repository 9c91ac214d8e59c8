//! The three timeouts of `request-options`.

use std::net::TcpListener;

use super::{Servers, Wasi, fetch, granted_to, has};

with_both_guests!(a_first_byte_that_does_not_come, bytes_that_do_not_go_on, a_connection_that_is_not_made,);

fn a_first_byte_that_does_not_come(wasi: Wasi) {
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/slow-head?60000,first=200")), &["error=", "ConnectionReadTimeout"]);
        has(&fetch(&server, &format!("GET,{url}/slow-head?50,first=30000")), &["status=200", "late"]);
        // It is for the head alone.
        has(&fetch(&server, &format!("GET,{url}/slow-body?5000,first=3000")), &["status=200", "first second"]);
    }
}

fn bytes_that_do_not_go_on(wasi: Wasi) {
    // As the guest says it: wasmtime gives one of WASI 0.2 a text, not the code.
    let code = match wasi {
        Wasi::P2 => "connection read timeout",
        Wasi::P3 => "ConnectionReadTimeout",
    };
    let servers = Servers::start();
    let server = servers.launch_of(wasi).start();
    for url in servers.urls() {
        let text = fetch(&server, &format!("GET,{url}/slow-body?60000,between=200"));
        has(&text, &["status=200", "body=first ", "body-error=", code]);
        assert!(!text.contains("second"), "{text}");
        // It is for each pause, not for the whole.
        let text = fetch(&server, &format!("GET,{url}/steps?500,between=2000"));
        has(&text, &["body=step step step step step \n"]);
    }
}

fn a_connection_that_is_not_made(wasi: Wasi) {
    // Accepts nothing, so that nobody begins with TLS.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("a bound socket").to_string();
    let server = granted_to(wasi, "http", std::slice::from_ref(&address)).flag("--allow-outbound", &address).start();
    has(&fetch(&server, &format!("GET,https://{address}/,connect=200")), &["error=", "ConnectionTimeout"]);
    // It is connected: the answer is another matter.
    has(
        &fetch(&server, &format!("GET,http://{address}/,connect=10000,first=500")),
        &["error=", "ConnectionReadTimeout"],
    );
    has(&fetch(&server, &format!("GET,https://{address}/,connect=0")), &["error=", "ConnectionTimeout"]);
    drop(silent);
    has(&fetch(&server, &format!("GET,http://{address}/")), &["error=", "ConnectionRefused"]);
}
