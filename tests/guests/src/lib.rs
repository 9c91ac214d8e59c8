//! What this component does is the last word of the path, and what the query says: `/http/status?418`.

mod hostile;
mod instance;
mod interfaces;
mod outgoing;
mod sockets;

use std::{env, fmt::Write, io::Read, process};

use wasip2::{
    clocks::monotonic_clock,
    exports::http::incoming_handler::Guest,
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
            ResponseOutparam, Scheme,
        },
    },
    io::streams::{OutputStream, StreamError},
};

struct Handler;

wasip2::http::proxy::export!(Handler);

impl Guest for Handler {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path.rsplit('/').next().unwrap_or_default() {
            "request" => answer(out, 200, &[], describe(&request).as_bytes()),
            "echo" => echo(&request, out),
            "status" => answer(out, query.parse().expect("?STATUS"), &[], b"as asked"),
            "headers" => {
                let headers = [
                    ("content-type", "text/x-test"),
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                    ("wasmbox-invocation-id", "forged"),
                    ("wasmbox-anything", "forged"),
                    ("pod", "forged"),
                    ("execution-time", "forged"),
                    ("num-current-requests", "forged"),
                ];
                answer(out, 200, &headers, b"headers");
            }
            "trailers" => trailers(out, query),
            "received-trailers" => {
                let incoming = request.consume().expect("the first use");
                let from = incoming.stream().expect("the first use");
                while from.blocking_read(4096).is_ok() {}
                drop(from);
                let future = IncomingBody::finish(incoming);
                future.subscribe().block();
                let received = future.get().expect("it is ready").expect("the first use").expect("a whole body");
                let mut text = String::new();
                for (name, value) in received.into_iter().flat_map(|trailers| trailers.entries()) {
                    writeln!(text, "{name}: {}", String::from_utf8_lossy(&value)).expect("a string");
                }
                answer(out, 200, &[], text.as_bytes());
            }
            "length" => {
                let (announced, sent) = query.split_once(',').expect("?ANNOUNCED,SENT");
                answer(out, 200, &[("content-length", announced)], &vec![b'x'; sent.parse().expect("a number")]);
            }
            "framing" => framing(out, query),
            "write" => write(out, query.parse().expect("?BYTES")),
            "two-steps" => two_steps(&request, out),
            "answer-first" => answer_first(&request, out),
            "silent" => {}
            "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("as asked".into())))),
            "long-error" => {
                let text = "x".repeat(query.parse().expect("?BYTES"));
                ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(text))));
            }
            "late-error" => {
                let incoming = request.consume().expect("the first use");
                let from = incoming.stream().expect("the first use");
                while from.blocking_read(4096).is_ok() {}
                monotonic_clock::subscribe_duration(20_000_000).block();
                ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("as asked".into()))));
                // It runs on and waits: the error must stay where it was put.
                monotonic_clock::subscribe_duration(20_000_000).block();
            }
            "unfinished" => drop(start(out, 200, &[])),
            "trap" => panic!("as asked"),
            "trap-later" => {
                let body = start(out, 200, &[]);
                let stream = body.write().expect("the first use");
                let _ = stream.blocking_write_and_flush(b"begun");
                // The server passes on what is there when the guest waits.
                monotonic_clock::subscribe_duration(50_000_000).block();
                panic!("as asked");
            }
            "exit" => process::exit(query.parse().expect("?CODE")),
            "loop" => loop {
                std::hint::black_box(());
            },
            "head-then-loop" => {
                let body = start(out, 200, &[]);
                let stream = body.write().expect("the first use");
                let _ = write_all(&stream, b"begun");
                monotonic_clock::subscribe_duration(20_000_000).block();
                loop {
                    std::hint::black_box(());
                }
            }
            "sleep" => monotonic_clock::subscribe_duration(86_400_000_000_000).block(),
            "memory" => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(vec![1; 1 << 20]);
                    std::hint::black_box(&taken);
                }
            }
            "outbound" => outbound(out, query),
            "fetch" => outgoing::fetch(out, query),
            "relay-down" => outgoing::relay_down(out, query),
            "relay" => outgoing::relay(&request, out, query),
            "config" => answer(out, 200, &[], interfaces::config(query).as_bytes()),
            "log" => {
                interfaces::log(query);
                answer(out, 200, &[], b"logged");
            }
            "log-and-trap" => {
                interfaces::log(query);
                panic!("as asked");
            }
            "connect" => answer(out, 200, &[], sockets::connect(query).as_bytes()),
            "pinned" => answer(out, 200, &[], sockets::pinned(query).as_bytes()),
            "many-connections" => answer(out, 200, &[], sockets::many(query).as_bytes()),
            "other-sockets" => answer(out, 200, &[], sockets::others(query).as_bytes()),
            "streams" => {
                println!("to stdout");
                eprintln!("to stderr");
                let mut input = String::new();
                let read = std::io::stdin().read_to_string(&mut input);
                answer(out, 200, &[], format!("{read:?}").as_bytes());
            }
            "environment" => {
                let mut text = String::new();
                env::vars().for_each(|(name, value)| writeln!(text, "{name}={value}").expect("a string"));
                env::args().for_each(|arg| writeln!(text, "arg {arg}").expect("a string"));
                answer(out, 200, &[], text.as_bytes());
            }
            "directory" => {
                let text = match std::fs::read_dir("/") {
                    Ok(entries) => format!("{} entries", entries.count()),
                    Err(error) => format!("no directory: {error}"),
                };
                answer(out, 200, &[], text.as_bytes());
            }
            "socket" => {
                let text = match std::net::TcpStream::connect(format!("127.0.0.1:{query}")) {
                    Ok(_) => "connected".to_owned(),
                    Err(error) => format!("no connection: {error}"),
                };
                answer(out, 200, &[], text.as_bytes());
            }
            "instance" => instance::act(request, out, query),
            "hostile" => hostile::act(&request, out, query),
            _ => answer(out, 404, &[], path.as_bytes()),
        }
    }
}

fn start(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&fields).expect("headers that are allowed"));
    response.set_status_code(status).expect("a status that is allowed");
    let body = response.body().expect("the first use");
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Writes all of it, waiting for the reader.
fn write_all(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    bytes.chunks(4096).try_for_each(|piece| stream.blocking_write_and_flush(piece))
}

fn answer(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], text: &[u8]) {
    let body = start(out, status, headers);
    let stream = body.write().expect("the first use");
    let _ = write_all(&stream, text);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn describe(request: &IncomingRequest) -> String {
    let method = match request.method() {
        Method::Other(other) => other,
        // As in `Method::Get`.
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    };
    let mut text = format!("method {method}\npath {}\n", request.path_with_query().unwrap_or_default());
    let _ = writeln!(text, "authority {}", request.authority().unwrap_or_default());
    let _ = writeln!(text, "scheme {:?}", request.scheme());
    for (name, value) in request.headers().entries() {
        let _ = writeln!(text, "header {name}: {}", String::from_utf8_lossy(&value));
    }
    text
}

/// Each piece of the request's body comes back before the next is read.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    let body = start(out, 200, &[("content-type", "application/octet-stream")]);
    let to = body.write().expect("the first use");
    loop {
        match from.blocking_read(4096) {
            Ok(piece) => {
                if to.blocking_write_and_flush(&piece).is_err() {
                    return;
                }
            }
            Err(StreamError::Closed) => break,
            // A body that was broken off is not echoed as if it were whole.
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
    drop(to);
    let _ = OutgoingBody::finish(body, None);
}

/// Announces and sends trailers, among them some that it may not send, with a length in its head if `query` says so, and one that is not
/// announced; after a pause with `wait`.
fn trailers(out: ResponseOutparam, query: &str) {
    const TEXT: &str = "before the trailers";
    let length = TEXT.len().to_string();
    let names = "X-Sum, content-length, set-cookie, wasmbox-cpu-time-us, x-missing";
    let mut headers = vec![("trailer", names)];
    if query.contains("length") {
        headers.push(("content-length", &length));
    }
    let body = start(out, 200, &headers);
    let stream = body.write().expect("the first use");
    let _ = write_all(&stream, TEXT.as_bytes());
    if query.contains("wait") {
        monotonic_clock::subscribe_duration(20_000_000).block();
    }
    drop(stream);
    let fields = ["x-sum", "content-length", "set-cookie", "wasmbox-cpu-time-us", "x-silent"];
    let fields = fields.map(|name| (name.to_owned(), b"42".to_vec()));
    let fields = Fields::from_list(&fields).expect("names that wasi:http allows");
    let _ = OutgoingBody::finish(body, Some(fields));
}

/// `ANNOUNCED,STATUS,now|wait,finish|forget,SIZE-SIZE-...`: announces a length (or `none`) and sends pieces of these sizes; with `wait` its
/// answer begins before it has ended; with `forget` it never says that the body is whole.
fn framing(out: ResponseOutparam, query: &str) {
    let mut words = query.split(',');
    let mut word = || words.next().expect("five words");
    let (announced, status, pause, end, sizes) = (word(), word(), word(), word(), word());
    let headers = [("content-length", announced)];
    let body = start(out, status.parse().expect("a status"), if announced == "none" { &[] } else { &headers });
    let stream = body.write().expect("the first use");
    let mut forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged".iter().cycle();
    for size in sizes.split('-').filter(|size| !size.is_empty()) {
        let piece: Vec<u8> = forged.by_ref().take(size.parse().expect("a size")).copied().collect();
        // More than was announced is an error, and on its way all the same.
        let _ = stream.write(&piece);
        let _ = stream.blocking_flush();
        if pause == "wait" {
            monotonic_clock::subscribe_duration(5_000_000).block();
        }
    }
    if end == "forget" {
        std::mem::forget((stream, body));
    } else {
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

fn write(out: ResponseOutparam, bytes: u64) {
    let body = start(out, 200, &[]);
    let stream = body.write().expect("the first use");
    let piece = [b'x'; 4096];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(4096);
        if stream.blocking_write_and_flush(&piece[..length as usize]).is_err() {
            return;
        }
        left -= length;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// The head and a first part; the second when the request's body has ended.
fn two_steps(request: &IncomingRequest, out: ResponseOutparam) {
    let body = start(out, 200, &[]);
    let stream = body.write().expect("the first use");
    let _ = write_all(&stream, b"first ");
    let incoming = request.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    while from.blocking_read(4096).is_ok() {}
    drop(from);
    drop(IncomingBody::finish(incoming));
    let _ = write_all(&stream, b"second");
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// The head goes out before anything is read; then the request's body comes back.
fn answer_first(request: &IncomingRequest, out: ResponseOutparam) {
    let body = start(out, 200, &[]);
    monotonic_clock::subscribe_duration(20_000_000).block();
    let incoming = request.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    let to = body.write().expect("the first use");
    while let Ok(piece) = from.blocking_read(4096) {
        let _ = write_all(&to, &piece);
    }
    drop(to);
    let _ = OutgoingBody::finish(body, None);
}

/// Asks `AUTHORITY/PATH`, or `https://AUTHORITY/PATH`, and answers with what came.
fn outbound(out: ResponseOutparam, target: &str) {
    let (scheme, target) = match target.strip_prefix("https://") {
        Some(target) => (Scheme::Https, target),
        None => (Scheme::Http, target),
    };
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(&format!("/{path}"))).expect("a path");
    let response = outgoing_handler::handle(request, None).and_then(|future| {
        future.subscribe().block();
        future.get().expect("it is ready").expect("the first use")
    });
    match response {
        Err(error) => answer(out, 200, &[], format!("error {error:?}").as_bytes()),
        Ok(response) => {
            let incoming = response.consume().expect("the first use");
            let from = incoming.stream().expect("the first use");
            let mut text = format!("status {} body ", response.status()).into_bytes();
            while let Ok(piece) = from.blocking_read(4096) {
                text.extend(piece);
            }
            answer(out, 200, &[], &text);
        }
    }
}
