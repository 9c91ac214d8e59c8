//! What names may lead to. These tests run a server of names, and so need root.

use std::thread;

use wasmbox_tests::{Authority, Names, Request, Upstream, WasmBox, server::Launch};

use super::{add, fetch, fetch_by, granted, has};

/// A box that asks `names`, whose function `http` may send requests to the names `hosts`; the operator grants them, and `addresses`.
fn launch(names: &Names, hosts: &[String], addresses: &[String]) -> Launch {
    let operator: Vec<String> = hosts.iter().chain(addresses).cloned().collect();
    let launch = granted("http", hosts).flag("--allow-outbound", operator.join(","));
    let wrapper = names.wrapper(launch.directory());
    launch.through(wrapper)
}

#[test]
fn a_name_below_a_domain_with_its_certificate() {
    let (names, authority) = (Names::start(), Authority::new());
    let secure = Upstream::secure("127.0.0.1:0", authority.server(&["*.shop.example"], &["h2"]));
    let port = secure.port();
    for name in ["api.shop.example", "a.b.shop.example", "shop.example", "api.other.example"] {
        names.set(name, &["127.0.0.1"]);
    }
    let launch = launch(&names, &[format!("*.shop.example:{port}")], &[format!("127.0.0.1:{port}")]);
    let file = launch.directory().join("ca.pem");
    authority.write(&file);
    let server = launch.flag("--outbound-ca", file.display()).start();
    server.logged(&["serving", "Landlock", "seccomp"]);
    let text = fetch(&server, &format!("GET,https://API.shop.example:{port}/"));
    has(&text, &["status=200", "HTTP/2.0", "authority=API.shop.example"]);
    // Granted, but the certificate is not for it.
    has(&fetch(&server, &format!("GET,https://a.b.shop.example:{port}/")), &["TlsCertificateError"]);
    for elsewhere in ["shop.example", "api.other.example", "ashop.example", "127.0.0.1"] {
        has(&fetch(&server, &format!("GET,https://{elsewhere}:{port}/")), &["HttpRequestDenied"]);
    }
    assert_eq!(names.asked("api.other.example"), 0, "what is not granted is not even looked up");
}

#[test]
fn names_that_lead_inside_are_refused_unless_the_address_is_granted() {
    let names = Names::start();
    let upstream = Upstream::plain("127.0.0.1:0");
    let port = upstream.port();
    let inside = [
        ("loopback.example", "127.0.0.1"),
        ("metadata.example", "169.254.169.254"),
        ("ten.example", "10.0.0.1"),
        ("private.example", "192.168.7.7"),
        ("shared.example", "100.64.0.1"),
        ("this.example", "0.0.0.0"),
        ("six.example", "::1"),
        ("local.example", "fd00:ec2::254"),
        ("mapped.example", "::ffff:127.0.0.1"),
    ];
    inside.iter().for_each(|(name, address)| names.set(name, &[address]));
    let hosts: Vec<String> = inside.iter().map(|(name, _)| format!("{name}:{port}")).collect();
    let server = launch(&names, &hosts, &[]).start();
    for (name, address) in inside {
        let text = fetch(&server, &format!("GET,http://{name}:{port}/"));
        has(&text, &["error=", "DestinationIpProhibited"]);
        let shown = if address == "::ffff:127.0.0.1" { "127.0.0.1" } else { address };
        server.logged(&["outbound request refused", name, shown, "--allow-outbound"]);
    }
    assert_eq!(upstream.connections(), 0);
    // A network of another port is none; the address itself is.
    let server = server.stop().flag("--allow-outbound", format!("127.0.0.0/8:{}", port - 1)).start();
    has(&fetch(&server, &format!("GET,http://loopback.example:{port}/")), &["DestinationIpProhibited"]);
    let server = server.stop().flag("--allow-outbound", format!("127.0.0.0/8:{port}")).start();
    has(&fetch(&server, &format!("GET,http://loopback.example:{port}/")), &["status=200"]);
    has(&fetch(&server, &format!("GET,http://mapped.example:{port}/")), &["status=200"]);
    has(&fetch(&server, &format!("GET,http://metadata.example:{port}/")), &["DestinationIpProhibited"]);
}

/// The address that was checked is the one that is connected to, whatever the next look-up says.
#[test]
fn a_name_that_changes_its_address() {
    let names = Names::start();
    let granted = Upstream::plain("127.0.0.2:0");
    let port = granted.port();
    let other = Upstream::plain(&format!("127.0.0.1:{port}"));
    let host = [format!("changing.example:{port}")];
    let server = launch(&names, &host, &[format!("127.0.0.2:{port}")]).flag("--outbound-idle-timeout", "0").start();
    names.alternate("changing.example", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let text = fetch(&server, &format!("GET,http://changing.example:{port}/,times=20"));
    let [answered, refused] = ["status=200", "DestinationIpProhibited"].map(|what| text.matches(what).count());
    assert_eq!((answered, refused), (10, 10), "{text}");
    assert_eq!(names.asked("changing.example"), 20, "once for each connection");
    // Both in one answer: only the granted one is used, also when it fails.
    names.set("changing.example", &["127.0.0.1", "127.0.0.2"]);
    has(&fetch(&server, &format!("GET,http://changing.example:{port}/")), &["status=200"]);
    drop(granted);
    has(&fetch(&server, &format!("GET,http://changing.example:{port}/")), &["ConnectionRefused"]);
    assert_eq!(other.connections(), 0);
}

#[test]
fn of_several_addresses_the_next_is_tried() {
    let names = Names::start();
    let upstream = Upstream::plain("127.0.0.3:0");
    let port = upstream.port();
    let granted = [format!("127.0.0.0/8:{port}"), format!("[::1]:{port}")];
    let server = launch(&names, &[format!("many.example:{port}")], &granted).start();
    names.set("many.example", &["::1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    has(&fetch(&server, &format!("GET,http://many.example:{port}/")), &["status=200"]);
}

#[test]
fn names_without_addresses_or_answers() {
    let names = Names::start();
    names.silence("silent.example");
    names.set("empty.example", &[]);
    let hosts = ["silent", "empty", "unknown"].map(|name| format!("{name}.example:80"));
    let server = launch(&names, &hosts, &[]).start();
    has(&fetch(&server, "GET,http://unknown.example/"), &["error=", "DnsError"]);
    has(&fetch(&server, "GET,http://empty.example/"), &["error=", "DnsError"]);
    has(&fetch(&server, "GET,http://silent.example/,connect=300"), &["error=", "DnsTimeout"]);
}

/// One function's look-ups that are never answered occupy its own threads, also when nobody waits for them any more.
#[test]
fn look_ups_that_are_not_answered_hold_nobody_else_up() {
    let names = Names::start();
    let upstream = Upstream::plain("127.0.0.1:0");
    let port = upstream.port();
    names.silence("silent.example");
    names.set("good.example", &["127.0.0.1"]);
    let good = [format!("good.example:{port}")];
    let launch = launch(&names, &["silent.example:80".into()], &[good[0].clone(), format!("127.0.0.1:{port}")]);
    let server: WasmBox = add(launch, "good", &good).start();
    for function in ["http", "good"] {
        server.get(&format!("/{function}/request")).ok();
    }
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let request = Request::get("/http/fetch?GET,http://silent.example/,together=10");
                server.call(request.header("Invocation-Timeout", "500"), "").problem(504, "deadline-exceeded");
            });
        }
    });
    has(&fetch_by(&server, "good", &format!("GET,http://good.example:{port}/,connect=4000")), &["status=200"]);
}
