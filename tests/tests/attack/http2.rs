//! Clients that speak HTTP/2 as nobody should.

use std::time::Instant;

use wasmbox_tests::{
    Attack,
    attack::{TIME, goes_on, together},
    frames::{END_HEADERS, END_STREAM, Frames, INITIAL_WINDOW_SIZE, PADDED, frame, kind, request},
    guest,
};

/// Floods the box from `clients` connections with what `bytes` gives for each stream number; a connection that is closed is made anew.
fn flood(
    clients: usize,
    bytes: impl Fn(u32) -> Vec<u8> + Sync,
) -> Attack2<impl Fn(usize, &wasmbox_tests::WasmBox) + Sync> {
    Attack2 {
        clients,
        act: move |_, server: &wasmbox_tests::WasmBox| {
            let mut frames = Frames::connect(server.address(), &[]);
            let started = Instant::now();
            let mut stream = 1;
            while goes_on(started) {
                if frames.send_bytes(&bytes(stream)).is_err() {
                    return;
                }
                stream = (stream + 2) & 0x7fff_ffff;
            }
        },
    }
}

struct Attack2<F> {
    clients: usize,
    act: F,
}

impl<F: Fn(usize, &wasmbox_tests::WasmBox) + Sync> Attack2<F> {
    fn run(self) {
        let attack = Attack::within(256)
            .function("sleeping.wat", guest::sleeping())
            .function("echo.wat", guest::echo())
            // A line for each stream.
            .log_bytes(128 << 20);
        attack.run(|server| together(self.clients, |client| (self.act)(client, server)));
    }
}

#[test]
fn settings_without_end() {
    flood(4, |_| frame(kind::SETTINGS, 0, 0, &[]).repeat(1000)).run();
}

#[test]
fn pings_without_end() {
    flood(4, |_| frame(kind::PING, 0, 0, &[7; 8]).repeat(1000)).run();
}

#[test]
fn priorities_without_end() {
    flood(4, |stream| frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 16]).repeat(1000)).run();
}

#[test]
fn window_updates_until_they_overflow() {
    flood(4, |_| frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(10)).run();
}

#[test]
fn frames_of_unknown_kinds() {
    flood(4, |stream| frame(0xfa, 0xff, stream, &[0; 1000]).repeat(100)).run();
}

/// CVE-2023-44487.
#[test]
fn streams_that_are_reset_at_once() {
    flood(4, |stream| {
        let open = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/sleeping", &[]));
        [open, frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    })
    .run();
}

/// The same, with the box as the one that resets: CVE-2025-8671.
#[test]
fn streams_that_the_box_must_reset() {
    flood(4, |stream| {
        let open = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/sleeping", &[]));
        [open, frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    })
    .run();
}

/// CVE-2024-27316 and its kin: a field block that never ends.
#[test]
fn continuations_without_end() {
    flood(4, |stream| {
        let mut bytes = frame(kind::HEADERS, END_STREAM, stream, &request("GET", "/hello", &[]));
        bytes.extend(frame(kind::CONTINUATION, 0, stream, b"").repeat(200));
        bytes.extend(frame(kind::CONTINUATION, 0, stream, &[0x40, 1, b'x', 1, b'y'].repeat(200)).repeat(20));
        bytes
    })
    .run();
}

/// A table entry of 4 KB that is named again and again: a field block of kilobytes that means megabytes.
#[test]
fn field_blocks_that_grow_when_they_are_read() {
    flood(4, |stream| {
        let mut block = request("GET", "/hello", &[]);
        // Literal with incremental indexing: x-a, of 3000 bytes (7-bit prefix, 127 + 2873).
        block.extend([0x40, 3]);
        block.extend(b"x-a");
        block.extend([0x7f, 0xb9, 0x16]);
        block.extend([b'v'; 3000]);
        // The newest entry of the table is number 62.
        block.extend([0xbe; 8000]);
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block)
    })
    .run();
}

#[test]
fn table_sizes_that_change_all_the_time() {
    flood(4, |stream| {
        // Dynamic table size updates to 0 and 4096.
        let block = [[0x20, 0x3f, 0xe1, 0x1f].repeat(2000), request("GET", "/nothing", &[])].concat();
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block)
    })
    .run();
}

#[test]
fn data_that_is_padding() {
    flood(4, |stream| {
        let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &request("POST", "/echo", &[]));
        let mut padding = vec![255];
        padding.extend([0; 255]);
        bytes.extend(frame(kind::DATA, PADDED, stream, &padding).repeat(40));
        bytes.extend(frame(kind::DATA, 0, stream, b"").repeat(200));
        bytes
    })
    .run();
}

#[test]
fn frames_that_are_too_long_or_on_the_wrong_stream() {
    flood(4, |stream| {
        [
            frame(kind::DATA, 0, 0, b"x"),
            frame(kind::DATA, 0, stream, &[0; 20_000]),
            frame(kind::PUSH_PROMISE, 0, stream, &[0; 4]),
            frame(kind::GOAWAY, 0, 0, &[0; 8]),
            frame(kind::HEADERS, PADDED, stream, &[255]),
            frame(kind::RST_STREAM, 0, stream, &[0; 4]),
        ][stream as usize / 2 % 6]
            .clone()
    })
    .run();
}

/// A window that stays shut: answers wait for a reader who never reads, and what makes them waits too.
#[test]
fn windows_that_stay_shut() {
    let attack = Attack::within(256).function("flood.wat", guest::flood(40)).descriptors(700);
    attack.run(|server| {
        let mut all: Vec<_> = (0..20).map(|_| Frames::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)])).collect();
        let started = Instant::now();
        let mut stream = 1;
        while goes_on(started) {
            let fields = [("memory-request", "1"), ("invocation-timeout", "5000")];
            for frames in &mut all {
                let _ =
                    frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/flood", &fields));
            }
            stream += 2;
            std::thread::sleep(TIME / 200);
        }
    });
}

/// Bodies that are read ahead before anybody has admitted them: nine connections of 250 streams of a MiB.
#[test]
fn bodies_before_admission() {
    let attack = Attack::within(512).function("echo.wat", guest::echo()).descriptors(700);
    attack.run(|server| {
        std::thread::scope(|scope| {
            for _ in 0..9 {
                scope.spawn(|| {
                    let mut frames = Frames::connect(server.address(), &[]);
                    let mut data = b"{\"parameter\":\"".to_vec();
                    data.resize(16_000, b'x');
                    for stream in (1..500).step_by(2) {
                        // Those that are admitted, and then wait for their bodies, leave room for others.
                        let fields = [("content-type", "application/json"), ("memory-request", "1")];
                        let head = request("POST", "/echo", &fields);
                        let _ = frames.send(kind::HEADERS, END_HEADERS, stream, &head);
                    }
                    let streams: Vec<u32> = (1..500).step_by(2).collect();
                    let _ = frames.upload(&streams, &data, Instant::now() + TIME);
                });
            }
        });
    });
}

/// All streams that there may be, each with a request that waits, from many connections.
#[test]
fn as_many_streams_as_there_may_be() {
    let attack = Attack::within(256).function("sleeping.wat", guest::sleeping()).descriptors(700);
    attack.run(|server| {
        let fields = [("memory-request", "1"), ("invocation-timeout", "2000")];
        let mut all: Vec<_> = (0..40).map(|_| Frames::connect(server.address(), &[])).collect();
        for frames in &mut all {
            for stream in (1..600).step_by(2) {
                let block = request("GET", "/sleeping", &fields);
                if frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block).is_err() {
                    break;
                }
            }
        }
        std::thread::sleep(TIME);
    });
}
