//! The three timeouts of `request-options`.

use std::net::TcpListener;

use super::{Servers, fetch, granted, has};

#[test]
fn a_first_byte_that_does_not_come() {
    let servers = Servers::start();
    let server = servers.launch().start();
    for url in servers.urls() {
        has(&fetch(&server, &format!("GET,{url}/slow-head?60000,first=200")), &["error=", "ConnectionReadTimeout"]);
        has(&fetch(&server, &format!("GET,{url}/slow-head?50,first=30000")), &["status=200", "late"]);
        // It is for the head alone.
        has(&fetch(&server, &format!("GET,{url}/slow-body?3000,first=1500")), &["status=200", "first second"]);
    }
}

#[test]
fn bytes_that_do_not_go_on() {
    let servers = Servers::start();
    let server = servers.launch().start();
    for url in servers.urls() {
        let text = fetch(&server, &format!("GET,{url}/slow-body?60000,between=200"));
        has(&text, &["status=200", "body=first ", "body-error=", "connection read timeout"]);
        assert!(!text.contains("second"), "{text}");
        // It is for each pause, not for the whole.
        let text = fetch(&server, &format!("GET,{url}/steps?500,between=2000"));
        has(&text, &["body=step step step step step \n"]);
    }
}

#[test]
fn a_connection_that_is_not_made() {
    // Accepts nothing, so that nobody begins with TLS.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("a bound socket").to_string();
    let server = granted("http", std::slice::from_ref(&address)).flag("--allow-outbound", &address).start();
    has(&fetch(&server, &format!("GET,https://{address}/,connect=200")), &["error=", "ConnectionTimeout"]);
    // It is connected: the answer is another matter.
    has(&fetch(&server, &format!("GET,http://{address}/,connect=200,first=500")), &["error=", "ConnectionReadTimeout"]);
    has(&fetch(&server, &format!("GET,https://{address}/,connect=0")), &["error=", "ConnectionTimeout"]);
    drop(silent);
    has(&fetch(&server, &format!("GET,http://{address}/")), &["error=", "ConnectionRefused"]);
}
