//! Who is trusted, and who is not. There is no way not to check.

use wasmbox_tests::{Authority, Upstream, WasmBox};

use super::{Servers, Wasi, fetch, granted_to, has};

with_both_guests!(
    a_private_authority_is_trusted_where_it_is_named,
    certificates_that_are_not_the_servers_or_not_good_any_more,
);

fn a_private_authority_is_trusted_where_it_is_named(wasi: Wasi) {
    let servers = Servers::start();
    let url = &servers.urls()[2];
    let grants = servers.grants();
    let launch = granted_to(wasi, "http", &grants).flag("--allow-outbound", grants.join(","));
    let server = launch.env("SSL_CERT_DIR", "/nowhere").env("SSL_CERT_FILE", "/nowhere").start();
    has(&fetch(&server, &format!("GET,{url}/")), &["error=", "TlsCertificateError"]);
    server.logged(&["outbound request refused", "certificate", "no certificates (/etc/ssl/certs)", "--outbound-ca"]);
    // The system's own, wherever it has them.
    let launch = server.stop();
    let file = launch.directory().join("system.pem");
    servers.authority.write(&file);
    let server = launch.env("SSL_CERT_FILE", file.display()).start();
    has(&fetch(&server, &format!("GET,{url}/")), &["status=200"]);
    // The operator's file is instead of them: whom only the system trusts is not trusted.
    let launch = server.stop();
    let other = launch.directory().join("other.pem");
    Authority::new().write(&other);
    let server = launch.flag("--outbound-ca", other.display()).start();
    has(&fetch(&server, &format!("GET,{url}/")), &["error=", "TlsCertificateError"]);
    server.logged(&["certificate is not accepted", "add who has issued its certificate to --outbound-ca"]);
    drop(server);
    let server = servers.launch_of(wasi).start();
    has(&fetch(&server, &format!("GET,{url}/")), &["status=200"]);
}

fn certificates_that_are_not_the_servers_or_not_good_any_more(wasi: Wasi) {
    let authority = Authority::new();
    let expired = Upstream::secure("127.0.0.1:0", authority.expired_server(&["127.0.0.1"]));
    let wrong = Upstream::secure("127.0.0.1:0", authority.server(&["wrong.example", "127.0.0.2"], &["h2"]));
    let plain = Upstream::plain("127.0.0.1:0");
    let grants = [&expired, &wrong, &plain].map(|server| server.address().to_string());
    let launch = granted_to(wasi, "http", &grants).flag("--allow-outbound", grants.join(","));
    let file = launch.directory().join("ca.pem");
    authority.write(&file);
    let server = launch.flag("--outbound-ca", file.display()).start();
    has(&fetch(&server, &format!("GET,https://{}/", expired.address())), &["error=", "TlsCertificateError"]);
    server.logged(&["outbound request refused", "xpired"]);
    has(&fetch(&server, &format!("GET,https://{}/", wrong.address())), &["error=", "TlsCertificateError"]);
    server.logged(&["outbound request refused", "wrong.example"]);
    has(&fetch(&server, &format!("GET,https://{}/", plain.address())), &["error=", "TlsProtocolError"]);
    assert_eq!([&expired, &wrong, &plain].map(Upstream::requests), [0, 0, 0], "nothing was sent");
    assert_eq!(server.metrics().sum("wasmbox_outbound_requests_total", &["result=\"refused\""]), 2.0);
}

#[test]
fn a_file_without_certificates_prevents_the_start() {
    for (content, reason) in [
        (None, "No such file"),
        (Some("nothing"), "it has no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate"),
        (Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "base64"),
    ] {
        let launch = WasmBox::launch();
        let file = launch.directory().join("ca.pem");
        if let Some(content) = content {
            std::fs::write(&file, content).expect("a new file");
        }
        let said = launch.flag("--outbound-ca", file.display()).refusal();
        has(&said, &["--outbound-ca (OUTBOUND_CA)", "ca.pem", reason, "let it be a readable file"]);
    }
}
