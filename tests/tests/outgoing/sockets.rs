//! Connections that functions open by themselves: by the same grants as requests. Some run a server of names, and so need root.

use wasmbox_tests::{Names, Upstream, WasmBox, component, eventually, server::Launch};

use super::{add, granted, has};

/// Adds the same for WASI 0.3, as the function `p3`.
fn with_p3(launch: Launch, grants: &[String]) -> Launch {
    launch
        .function("p3.wasm", component::p3_guest())
        .function("p3.toml", format!("allowed-outbound-hosts = {grants:?}"))
}

fn connect(server: &WasmBox, function: &str, to: &str) -> String {
    server.get(&format!("/{function}/connect?{to}")).ok().text().to_owned()
}

#[test]
fn what_is_granted_can_be_connected_to_and_nothing_else() {
    let [upstream, other] = ["127.0.0.2:0", "127.0.0.3:0"].map(Upstream::plain);
    let grants = [upstream.address().to_string()];
    let launch =
        with_p3(granted("http", &grants), &grants).flag("--allow-outbound", format!("127.0.0.0/8:{}", upstream.port()));
    let server = add(launch, "none", &[]).start();
    for function in ["http", "p3"] {
        has(&connect(&server, function, &grants[0]), &["HTTP/1.1 200"]);
        for elsewhere in [other.address().to_string(), format!("127.0.0.3:{}", upstream.port())] {
            let text = connect(&server, function, &elsewhere).to_lowercase();
            has(&text, &["error="]);
            assert!(text.contains("denied"), "{text}");
            // That of WASI 0.3 looks up what it connects to, whatever it is.
            let said = if function == "http" { elsewhere.as_str() } else { "127.0.0.3" };
            server.logged(&["outbound request refused", said, &format!("function={function}")]);
        }
        // Nothing is listened on, and there are no datagrams, not even to where connections are granted.
        let text = server.get(&format!("/{function}/other-sockets?{}", grants[0])).ok().text().to_owned();
        for what in ["listen", "any", "datagram"] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{what} Err("))), "{function} {what}: {text}");
        }
    }
    has(&connect(&server, "none", &grants[0]), &["error="]);
    assert_eq!((upstream.connections(), other.connections()), (2, 0));
    let count = |how: &str| server.metrics().sum("wasmbox_outbound_connections_total", &[&format!("how=\"{how}\"")]);
    assert_eq!((count("socket"), count("refused")), (2.0, 2.0));
}

#[test]
fn an_invocation_has_a_bounded_number_of_sockets() {
    let upstream = Upstream::plain("127.0.0.1:0");
    let grants = [upstream.address().to_string()];
    let server = granted("http", &grants).flag("--allow-outbound", &grants[0]).start();
    for _ in 0..3 {
        let text = server.get(&format!("/http/many-connections?{},100", grants[0])).ok().text().to_owned();
        assert!(text.starts_with("64 connections, then "), "{text}");
    }
    server.logged(&["outbound request refused", "64 sockets"]);
    eventually("descriptors are given back", || (server.process().descriptors() < 100).then_some(()));
}

#[test]
fn names_lead_to_where_they_led_when_they_were_looked_up() {
    let names = Names::start();
    let upstream = Upstream::plain("127.0.0.2:0");
    let port = upstream.port();
    let grants = [format!("*.shop.example:{port}")];
    let launch =
        with_p3(granted("http", &grants), &grants).flag("--allow-outbound", format!("{},127.0.0.2:{port}", grants[0]));
    let server = {
        let wrapper = names.wrapper(launch.directory());
        launch.through(wrapper).start()
    };
    names.set("api.shop.example", &["127.0.0.2"]);
    names.set("inside.shop.example", &["127.0.0.1"]);
    names.set("both.shop.example", &["127.0.0.1", "127.0.0.2"]);
    for function in ["http", "p3"] {
        has(&connect(&server, function, &format!("api.shop.example:{port}")), &["HTTP/1.1 200"]);
        // Of both only the one that the operator grants is given.
        has(&connect(&server, function, &format!("both.shop.example:{port}")), &["HTTP/1.1 200"]);
        // It leads to this machine, and nobody has granted that address.
        has(&connect(&server, function, &format!("inside.shop.example:{port}")), &["error="]);
        server.logged(&[
            "outbound request refused",
            "inside.shop.example",
            "127.0.0.1",
            &format!("function={function}"),
        ]);
        has(&connect(&server, function, &format!("api.other.example:{port}")), &["error="]);
    }
    assert_eq!(names.asked("api.other.example"), 0, "what is not granted is not even looked up");
    // The address alone is not the function's, unless the name has led to it, with the port of the grant.
    has(&connect(&server, "http", &format!("127.0.0.2:{port}")), &["error="]);
    let pinned = |name: &str, to: &str| server.get(&format!("/http/pinned?{name},{to}")).ok().text().to_owned();
    has(&pinned("api.shop.example", &format!("127.0.0.2:{port}")), &["127.0.0.2\n", "HTTP/1.1 200"]);
    has(&pinned("api.shop.example", &format!("127.0.0.1:{port}")), &["127.0.0.2\n", "error="]);
    has(&pinned("api.shop.example", &format!("127.0.0.2:{}", port - 1)), &["127.0.0.2\n", "error="]);
    // What one invocation has looked up, another has not.
    has(&connect(&server, "http", &format!("127.0.0.2:{port}")), &["error="]);
}
