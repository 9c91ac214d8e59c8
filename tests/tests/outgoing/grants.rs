//! What may be reached: by host, below a domain, by network; each with a port.

use wasmbox_tests::{Upstream, WasmBox};

use super::{add, fetch_by, granted, has};

fn grants<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn settings_ask_for_a_part_of_what_the_operator_grants() {
    let launch = WasmBox::launch().flag("--allow-outbound", "*.example.com:443,10.0.0.0/8:80,[fd00::/8]:80,a.b:80");
    let cases = [
        ("exact", "a.b:80", true),
        ("below", "x.example.com:443", true),
        ("narrower", "*.y.example.com:443", true),
        ("address", "10.1.2.3", true),
        ("network", "10.1.0.0/16:80", true),
        ("six", "[fd00::1]:80", true),
        ("apex", "example.com:443", false),
        ("port", "x.example.com:80", false),
        ("wider", "*.com:443", false),
        ("supernet", "10.0.0.0/7:80", false),
        ("elsewhere", "11.0.0.1:80", false),
        ("all", "0.0.0.0/0:80", false),
        ("name", "10.1.2.3.example:80", false),
    ];
    let launch = cases.iter().fold(launch, |launch, (name, grant, _)| add(launch, name, &grants([grant])));
    let server = launch.start();
    for (name, grant, good) in cases {
        let answer = server.get(&format!("/{name}/request"));
        if good {
            answer.ok();
        } else {
            answer.problem(422, "module-invalid").names(&[grant, "--allow-outbound"]);
        }
    }
}

#[test]
fn a_network_and_nothing_beside_it() {
    let [inside, outside] = ["127.0.0.2:0", "127.0.0.9:0"].map(Upstream::plain);
    let operator = format!("127.0.0.0/29:{},127.0.0.0/29:{}", inside.port(), outside.port());
    let wanted = [format!("127.0.0.0/30:{}", inside.port()), format!("127.0.0.1:{}", outside.port())];
    let server = granted("http", &wanted).flag("--allow-outbound", operator).start();
    has(&fetch_by(&server, "http", &format!("GET,http://{}/", inside.address())), &["status=200"]);
    // Not in the network; in the operator's, but not in the function's; another port.
    for elsewhere in [
        outside.address().to_string(),
        format!("127.0.0.4:{}", inside.port()),
        format!("127.0.0.2:{}", outside.port()),
        format!("[::ffff:127.0.0.9]:{}", outside.port()),
        format!("user@127.0.0.2:{}", outside.port()),
    ] {
        let text = fetch_by(&server, "http", &format!("GET,http://{elsewhere}/"));
        assert!(text.contains("HttpRequestDenied") || text.contains("HttpRequestUriInvalid"), "{elsewhere}: {text}");
    }
    assert_eq!(outside.connections(), 0);
    // An address of IPv4 is the same one in an address of IPv6.
    let mapped = format!("GET,http://[::ffff:127.0.0.2]:{}/", inside.port());
    has(&fetch_by(&server, "http", &mapped), &["status=200"]);
}
