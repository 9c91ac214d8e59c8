//! Boxes of several sizes as they start: with a container's memory limit, and no setting of capacity, default request or queue.

use std::thread;

use wasmbox_tests::{TestCgroup, WasmBox, Wire, eventually, guest};

const CLIENTS: usize = 64;
/// Of each client, on its one connection.
const REQUESTS: usize = 40;

/// 64 clients that name no limit are served: nobody is refused, nothing is evicted, the kernel kills nothing. `at_once` of them run at the
/// same time, each with `default_request` MiB.
fn serves_sixty_four_clients(mebibytes: u64, default_request: usize, at_once: usize) {
    let container = TestCgroup::with_memory(mebibytes);
    let server = WasmBox::launch()
        .within(&container)
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .start();
    for path in ["/hello", "/echo"] {
        server.get(path).ok();
    }
    // One request after the other.
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut wire = Wire::connect(server.address());
                for _ in 0..REQUESTS {
                    wire.send("GET /hello HTTP/1.1\r\nHost: box\r\n\r\n");
                    assert_eq!(wire.answer().ok().text(), "hello\n");
                }
            });
        }
    });
    server.wait_until_idle();
    // All at the same time: each ends when it is told to.
    let head = "POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let mut wires: Vec<Wire> = (0..CLIENTS).map(|_| server.wire(head)).collect();
    let expected = [at_once * default_request, (CLIENTS - at_once) * default_request].map(|units| units as f64);
    eventually(&format!("{at_once} of {CLIENTS} run, and the others wait"), || {
        let metrics = server.metrics();
        let units = ["wasmbox_in_flight_resource_units", "wasmbox_queued_resource_units"];
        (units.map(|metric| metrics.sum(metric, &[])) == expected).then_some(())
    });
    wires.iter_mut().for_each(|wire| wire.send_chunk(b""));
    wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().ok().text(), "x"));
    server.wait_until_idle();
    let all = (2 + CLIENTS * REQUESTS + CLIENTS) as f64;
    let served = || server.metrics().sum("wasmbox_invocations_total", &["status=\"200\""]);
    eventually("all are counted, which is after they are answered", || (served() >= all).then_some(()));
    assert_eq!(served(), all, "{mebibytes} MiB");
    let metrics = server.metrics();
    for metric in ["wasmbox_rejected_total", "wasmbox_evicted_total"] {
        assert_eq!(metrics.sum(metric, &[]), 0.0, "{metric} of {mebibytes} MiB");
    }
    assert_eq!(container.oom_kills(), 0);
}

#[test]
fn a_box_of_64_mebibytes_serves_64_clients() {
    serves_sixty_four_clients(64, 16, 4);
}

#[test]
fn a_box_of_128_mebibytes_serves_64_clients() {
    serves_sixty_four_clients(128, 32, 4);
}

/// As in the quick start.
#[test]
fn a_box_of_256_mebibytes_serves_64_clients() {
    serves_sixty_four_clients(256, 64, 4);
}

#[test]
fn a_box_of_a_gibibyte_serves_64_clients() {
    serves_sixty_four_clients(1024, 200, 5);
}
