//! Clients that speak HTTP/2 as nobody should.

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use wasmbox_tests::{
    Attack,
    attack::{TIME, goes_on, together},
    attacker::{self, CLOSED, Outcomes, Streams, WINDOW},
    frames::{
        END_HEADERS, END_STREAM, Frames, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, PADDED, frame, kind, request, settings,
    },
    guest,
};

/// What a request waits for no longer than that, and how little it takes.
const SHORT: [(&str, &str); 2] = [("memory-request", "1"), ("invocation-timeout", "2000")];

/// How requests end that were admitted, or wait to be, and are not done at their deadline.
const ENDED: &[&str] = &[
    "503 queue-timeout",
    "503 evicted",
    "504 deadline-exceeded",
    "400 body-unreadable",
    "200 RST_STREAM INTERNAL_ERROR",
    "200 RST_STREAM CANCEL",
];

/// What is flooded.
#[derive(Clone, Copy, PartialEq)]
enum Flood {
    /// The connection: a stream's number stands for nothing that would be answered.
    Frames,
    /// There is a request on each stream, and it is answered.
    Requests,
}

impl Flood {
    /// Floods the box from some connections with what `bytes` gives for each stream's number, for as long as it is taken; half of the clients read meanwhile. A
    /// connection that is closed is made anew. The last request on each is answered, or has ended with its connection.
    fn of(self, bytes: impl Fn(u32) -> Vec<u8> + Sync) -> Outcomes {
        let outcomes = Outcomes::default();
        let attack = Attack::within(256)
            .function("sleeping.wat", guest::sleeping())
            .function("echo.wat", guest::echo())
            // A line for each stream.
            .log_bytes(128 << 20);
        attack.run(|server| {
            together(4, |client| outcomes.extend(self.on(server.address(), client % 2 == 0, &bytes)));
        });
        outcomes
    }

    fn on(self, address: SocketAddr, reads: bool, bytes: impl Fn(u32) -> Vec<u8>) -> Vec<String> {
        let mut frames = attacker::http2(TcpStream::connect(address).expect("the server accepts connections"));
        let mut streams = Streams::default();
        let started = Instant::now();
        let mut stream = 1;
        let mut taken = true;
        while taken && goes_on(started) {
            if self == Flood::Requests {
                streams.begin(stream);
            }
            taken = frames.send_bytes(&bytes(stream)).is_ok();
            if reads {
                streams.see_ready(&mut frames);
            }
            stream += 2;
        }
        streams.begin(stream);
        let last = request("GET", "/hello", &SHORT);
        if !taken || frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &last).is_err() {
            // The last frame may be half a one: nothing can follow.
            frames.finish();
        }
        streams.settle(&mut frames)
    }
}

#[test]
fn settings_without_end() {
    Flood::Frames.of(|_| frame(kind::SETTINGS, 0, 0, &[]).repeat(1000)).assert_are(&[], &["200", CLOSED]);
}

#[test]
fn pings_without_end() {
    Flood::Frames.of(|_| frame(kind::PING, 0, 0, &[7; 8]).repeat(1000)).assert_are(&[], &["200", CLOSED]);
}

#[test]
fn priorities_without_end() {
    let flood = |stream| frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 16]).repeat(1000);
    Flood::Frames.of(flood).assert_are(&[], &["200", CLOSED]);
}

#[test]
fn window_updates_until_they_overflow() {
    let flood = |_| frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(10);
    Flood::Frames.of(flood).assert_are(&["GOAWAY FLOW_CONTROL_ERROR"], &[CLOSED]);
}

#[test]
fn frames_of_unknown_kinds() {
    let flood = |stream| frame(0xfa, 0xff, stream, &[0; 1000]).repeat(100);
    Flood::Frames.of(flood).assert_are(&[], &["200", CLOSED]);
}

/// CVE-2023-44487.
#[test]
fn streams_that_are_reset_at_once() {
    let flood = |stream| {
        let open = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/sleeping", &[]));
        [open, frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    Flood::Frames.of(flood).assert_are(&["GOAWAY ENHANCE_YOUR_CALM"], &["200", CLOSED]);
}

/// The same, with the box as the one that resets: CVE-2025-8671.
#[test]
fn streams_that_the_box_must_reset() {
    let flood = |stream| {
        let open = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/sleeping", &SHORT));
        [open, frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    };
    Flood::Requests.of(flood).assert_are(&["GOAWAY PROTOCOL_ERROR"], &[CLOSED]);
}

/// CVE-2024-27316 and its kin: a field block that never ends.
#[test]
fn continuations_without_end() {
    let flood = |stream| {
        let mut bytes = frame(kind::HEADERS, END_STREAM, stream, &request("GET", "/hello", &[]));
        bytes.extend(frame(kind::CONTINUATION, 0, stream, b"").repeat(200));
        bytes.extend(frame(kind::CONTINUATION, 0, stream, &[0x40, 1, b'x', 1, b'y'].repeat(200)).repeat(20));
        bytes
    };
    Flood::Requests.of(flood).assert_are(&["GOAWAY ENHANCE_YOUR_CALM"], &[CLOSED]);
}

/// A table entry of 4 KB that is named again and again: a field block of kilobytes that means megabytes.
#[test]
fn field_blocks_that_grow_when_they_are_read() {
    let flood = |stream| {
        let mut block = request("GET", "/hello", &[]);
        // Literal with incremental indexing: x-a, of 3000 bytes (7-bit prefix, 127 + 2873).
        block.extend([0x40, 3]);
        block.extend(b"x-a");
        block.extend([0x7f, 0xb9, 0x16]);
        block.extend([b'v'; 3000]);
        // The newest entry of the table is number 62.
        block.extend([0xbe; 8000]);
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    Flood::Requests.of(flood).assert_are(&["GOAWAY ENHANCE_YOUR_CALM"], &["431", CLOSED]);
}

#[test]
fn table_sizes_that_change_all_the_time() {
    let flood = |stream| {
        // Dynamic table size updates to 0 and 4096.
        let block = [[0x20, 0x3f, 0xe1, 0x1f].repeat(2000), request("GET", "/nothing", &[])].concat();
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    // More than there may be at once are refused, and who goes on is told to be calm.
    let others = ["200", "503 queue-full", "RST_STREAM REFUSED_STREAM", "GOAWAY ENHANCE_YOUR_CALM", CLOSED];
    let unfinished = ["404 broken off", "503 broken off"];
    Flood::Requests.of(flood).assert_are(&["404 module-not-found"], &[&others[..], &unfinished].concat());
}

#[test]
fn data_that_is_padding() {
    let flood = |stream| {
        let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &request("POST", "/echo", &SHORT));
        let mut padding = vec![255];
        padding.extend([0; 255]);
        bytes.extend(frame(kind::DATA, PADDED, stream, &padding).repeat(40));
        bytes.extend(frame(kind::DATA, 0, stream, b"").repeat(200));
        bytes
    };
    Flood::Requests.of(flood).assert_are(&["GOAWAY ENHANCE_YOUR_CALM"], &[CLOSED]);
}

#[test]
fn frames_that_are_too_long_or_on_the_wrong_stream() {
    // Each connection begins with another one.
    let turn = AtomicUsize::new(0);
    let flood = |stream| match turn.fetch_add(1, Ordering::Relaxed) % 6 {
        0 => frame(kind::DATA, 0, 0, b"x"),
        1 => frame(kind::DATA, 0, stream, &[0; 20_000]),
        2 => frame(kind::PUSH_PROMISE, 0, stream, &[0; 4]),
        3 => frame(kind::GOAWAY, 0, 0, &[0; 8]),
        4 => frame(kind::HEADERS, PADDED, stream, &[255]),
        _ => frame(kind::RST_STREAM, 0, stream, &[0; 4]),
    };
    // A client that says goodbye is said goodbye to.
    let all = ["GOAWAY PROTOCOL_ERROR", "GOAWAY FRAME_SIZE_ERROR", "GOAWAY NO_ERROR"];
    Flood::Frames.of(flood).assert_are(&all, &[CLOSED]);
}

/// A window that stays shut: answers wait for a reader who never reads, and what makes them waits too. When it is opened at last, they end.
#[test]
fn windows_that_stay_shut() {
    let attack = Attack::within(256).function("flood.wat", guest::flood(40)).descriptors(700);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        let shut = [(HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, 0)];
        let mut all: Vec<_> = (0..20).map(|_| (Frames::connect(server.address(), &shut), Streams::default())).collect();
        let started = Instant::now();
        let mut stream = 1;
        while goes_on(started) {
            let fields = [("memory-request", "1"), ("invocation-timeout", "5000")];
            for (frames, streams) in &mut all {
                streams.begin(stream);
                let _ =
                    frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/flood", &fields));
            }
            stream += 2;
            thread::sleep(TIME / 200);
        }
        thread::scope(|scope| {
            for (mut frames, streams) in all {
                let outcomes = &outcomes;
                scope.spawn(move || {
                    let open = settings(&[(INITIAL_WINDOW_SIZE, WINDOW)]);
                    let _ = frames.send(kind::SETTINGS, 0, 0, &open);
                    let _ = frames.send(kind::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
                    outcomes.extend(streams.settle(&mut frames));
                });
            }
        });
    });
    outcomes.assert_are(&["503 queue-full"], &[&["200"], ENDED].concat());
}

/// Bodies that are read ahead before anybody has admitted them: nine connections of 250 streams of a MiB.
#[test]
fn bodies_before_admission() {
    let attack = Attack::within(512).function("echo.wat", guest::echo()).descriptors(700);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        thread::scope(|scope| {
            for _ in 0..9 {
                scope.spawn(|| outcomes.extend(bodies(server.address())));
            }
        });
    });
    outcomes.assert_are(&["503 queue-full"], ENDED);
}

fn bodies(address: SocketAddr) -> Vec<String> {
    let mut frames = attacker::http2(TcpStream::connect(address).expect("the server accepts connections"));
    let mut waiting = Streams::default();
    let mut data = b"{\"parameter\":\"".to_vec();
    data.resize(16_000, b'x');
    let streams: Vec<u32> = (1..500).step_by(2).collect();
    for stream in &streams {
        // Those that are admitted, and then wait for their bodies, leave room for others.
        let fields = [("content-type", "application/json"), ("memory-request", "1"), ("invocation-timeout", "6000")];
        let head = request("POST", "/echo", &fields);
        waiting.begin(*stream);
        let _ = frames.send(kind::HEADERS, END_HEADERS, *stream, &head);
    }
    let _ = frames.upload(&streams, &data, Instant::now() + TIME, |frame| {
        waiting.see(frame);
    });
    // None of them ever ends.
    waiting.settle(&mut frames)
}

/// All streams that there may be, each with a request that waits, from many connections.
#[test]
fn as_many_streams_as_there_may_be() {
    let attack = Attack::within(256).function("sleeping.wat", guest::sleeping()).descriptors(700);
    let outcomes = Outcomes::default();
    attack.run(|server| {
        let connect =
            |_| attacker::http2(TcpStream::connect(server.address()).expect("the server accepts connections"));
        let mut all: Vec<_> = (0..40).map(connect).map(|frames| (frames, Streams::default())).collect();
        for (frames, streams) in &mut all {
            for stream in (1..600).step_by(2) {
                let block = request("GET", "/sleeping", &SHORT);
                if frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block).is_err() {
                    break;
                }
                streams.begin(stream);
            }
        }
        thread::sleep(TIME);
        for (mut frames, streams) in all {
            outcomes.extend(streams.settle(&mut frames));
        }
    });
    outcomes.assert_are(&["503 queue-full"], &["504 deadline-exceeded", "RST_STREAM REFUSED_STREAM"]);
}
