//! What this component does is the last word of the path, and what the query says: `/p3/status?418`.

mod outgoing;
mod sockets;
mod together;

use std::{
    env,
    fmt::Write,
    sync::atomic::{AtomicU32, Ordering},
};

use wasip3::{
    clocks::monotonic_clock::wait_for,
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Method, Request, Response},
    wit_bindgen::{StreamReader, StreamWriter, spawn_local},
    wit_future, wit_stream,
};

mod interfaces {
    pub mod config {
        wit_bindgen::generate!({ path: "../wit/config", generate_all });
    }
    pub mod logging {
        wit_bindgen::generate!({ path: "../../../runtime-http/wit/logging", generate_all });
    }
}

struct Handler;

wasip3::http::service::export!(Handler);

const MILLISECOND: u64 = 1_000_000;

impl Guest for Handler {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = || query.parse::<u64>().expect("?NUMBER");
        match path.rsplit('/').next().unwrap_or_default() {
            "request" => Ok(text(200, describe(&request))),
            "status" => Ok(text(u16::try_from(number()).expect("a status"), "as asked".into())),
            "pass" => {
                let (body, trailers) = Request::consume_body(request, processed());
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            "copy" => {
                let (mut from, _) = Request::consume_body(request, processed());
                Ok(streamed(&[], async move |mut to| {
                    while let Some(byte) = {
                        let (result, bytes) = from.read(Vec::with_capacity(16 << 10)).await;
                        let _ = result;
                        (!bytes.is_empty()).then_some(bytes)
                    } {
                        if !to.write_all(byte).await.is_empty() {
                            return;
                        }
                    }
                }))
            }
            "write" => {
                let bytes = number();
                Ok(streamed(&[], async move |mut to| {
                    for start in (0..bytes).step_by(64 << 10) {
                        let length = usize::try_from((bytes - start).min(64 << 10)).expect("small");
                        if !to.write_all(vec![b'x'; length]).await.is_empty() {
                            eprintln!("nobody reads");
                            return;
                        }
                    }
                }))
            }
            "length" => {
                let (announced, sent) = query.split_once(',').expect("?ANNOUNCED,SENT");
                let sent = sent.parse().expect("a number");
                Ok(streamed(&[("content-length", announced)], async move |mut to| {
                    let _ = to.write_all(vec![b'x'; sent]).await;
                }))
            }
            "trailers" => {
                let (mut to, body) = wit_stream::new();
                let (trailers_writer, trailers) = wit_future::new(|| Ok(None));
                let announced = Fields::from_list(&[("trailer".into(), b"x-checksum".to_vec())]).expect("allowed");
                let (response, _) = Response::new(announced, Some(body), trailers);
                spawn_local(async move {
                    let _ = to.write_all(b"body".to_vec()).await;
                    drop(to);
                    let fields = Fields::from_list(&[("x-checksum".into(), b"abc".to_vec())]).expect("allowed");
                    let _ = trailers_writer.write(Ok(Some(fields))).await;
                });
                Ok(response)
            }
            "received-trailers" => {
                let (from, trailers) = Request::consume_body(request, processed());
                from.collect().await;
                let mut received = String::new();
                for (name, value) in trailers.await?.into_iter().flat_map(|trailers| trailers.copy_all()) {
                    writeln!(received, "{name}: {}", String::from_utf8_lossy(&value)).expect("a string");
                }
                Ok(text(200, received))
            }
            "slowly" => {
                let pause = number();
                Ok(streamed(&[], async move |mut to| {
                    for word in ["one ", "two ", "three"] {
                        let _ = to.write_all(word.into()).await;
                        wait_for(pause * MILLISECOND).await;
                    }
                }))
            }
            "goes-on" => {
                let pause = number();
                spawn_local(async move {
                    wait_for(pause * MILLISECOND).await;
                    eprintln!("went on");
                });
                Ok(text(200, "answered".into()))
            }
            "leaves-open" => {
                let (mut to, body) = wit_stream::new();
                let (response, _) = Response::new(Fields::new(), Some(body), no_trailers());
                spawn_local(async move {
                    let _ = to.write_all(b"open".to_vec()).await;
                    std::mem::forget(to);
                });
                Ok(response)
            }
            "instance" => {
                static SERVED: AtomicU32 = AtomicU32::new(0);
                let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
                if query == "leave-open" {
                    let (mut to, body) = wit_stream::new();
                    spawn_local(async move {
                        let _ = to.write_all(served.to_string().into()).await;
                        std::mem::forget(to);
                    });
                    return Ok(Response::new(Fields::new(), Some(body), no_trailers()).0);
                }
                if let Some(authority) = query.strip_prefix("hold-response=") {
                    std::mem::forget(Response::consume_body(outgoing::send_to(authority).await?, processed()));
                }
                if query == "hold-request" {
                    std::mem::forget(Request::consume_body(request, processed()));
                }
                Ok(text(200, served.to_string()))
            }
            "present" => Ok(text(200, together::Inside::enter().number.to_string())),
            "stay" => {
                let inside = together::Inside::enter();
                Ok(streamed(&[], async move |to| inside.stay(to).await))
            }
            "pulse" => {
                let inside = together::Inside::enter();
                Ok(streamed(&[], async move |to| inside.pulse(to).await))
            }
            "leave" => {
                let inside = together::Inside::enter();
                together::leave();
                Ok(text(200, inside.number.to_string()))
            }
            "grow" => Ok(text(200, together::grow(number()))),
            "fill" => together::fill(number()),
            "more" => {
                let bytes = number();
                Ok(streamed(&[], async move |to| together::more(to, bytes).await))
            }
            "error" => Err(ErrorCode::InternalError(Some("as asked".into()))),
            "long-error" => {
                let text = "x".repeat(usize::try_from(number()).expect("small"));
                Err(ErrorCode::InternalError(Some(text)))
            }
            "trap" => panic!("as asked"),
            "trap-later" => Ok(streamed(&[], async move |mut to| {
                let _ = to.write_all(b"begun".to_vec()).await;
                wait_for(50 * MILLISECOND).await;
                panic!("as asked");
            })),
            "loop" => loop {
                std::hint::black_box(());
            },
            "sleep" => {
                wait_for(86_400_000 * MILLISECOND).await;
                Ok(text(200, String::new()))
            }
            "never" => {
                std::future::pending::<()>().await;
                Ok(text(200, String::new()))
            }
            "at-once" => {
                let (count, pause) = query.split_once(',').expect("?COUNT,MILLISECONDS");
                let pause: u64 = pause.parse().expect("a number");
                let tasks: Vec<_> = (0..count.parse::<u32>().expect("a number"))
                    .map(|number| {
                        spawn_local(async move {
                            wait_for(pause * MILLISECOND).await;
                            number
                        })
                    })
                    .collect();
                let mut sum = 0;
                for task in tasks {
                    sum += task.await.expect("nobody cancels it");
                }
                Ok(text(200, sum.to_string()))
            }
            "memory" => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(vec![1; 1 << 20]);
                    std::hint::black_box(&taken);
                }
            }
            "streams" => {
                let streams: Vec<(StreamWriter<u8>, StreamReader<u8>)> =
                    (0..number()).map(|_| wit_stream::new()).collect();
                Ok(text(200, streams.len().to_string()))
            }
            "futures" => {
                for _ in 0..number() {
                    std::mem::forget(no_trailers());
                }
                Ok(text(200, "made".into()))
            }
            "connect" => Ok(text(200, sockets::connect(query).await)),
            "other-sockets" => Ok(text(200, sockets::others(query).await)),
            "config" => {
                let value = interfaces::config::wasi::config::store::get(query).expect("an answer");
                Ok(text(200, format!("{value:?}")))
            }
            "log" => {
                use interfaces::logging::wasi::logging::logging::{Level, log};
                log(Level::Warn, "p3", query);
                Ok(text(200, "logged".into()))
            }
            "flood" => {
                for line in 0..number() {
                    eprintln!("{line} {}", "x".repeat(1000));
                }
                Ok(text(200, "flooded".into()))
            }
            "forward" => outgoing::forward(query).await,
            "fetch" => Ok(text(200, outgoing::fetch(query).await)),
            "relay" => outgoing::relay(request, query).await,
            "relay-down" => outgoing::relay_down(query).await,
            "environment" => {
                let mut text_of = String::new();
                env::vars().for_each(|(name, value)| writeln!(text_of, "{name}={value}").expect("a string"));
                env::args().for_each(|arg| writeln!(text_of, "arg {arg}").expect("a string"));
                Ok(text(200, text_of))
            }
            "directory" => Ok(text(
                200,
                match std::fs::read_dir("/") {
                    Ok(entries) => format!("{} entries", entries.count()),
                    Err(error) => format!("no directory: {error}"),
                },
            )),
            _ => Ok(text(404, path.into())),
        }
    }
}

/// What the sender of a body is told of what became of it.
fn processed() -> wasip3::wit_bindgen::FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}

fn no_trailers() -> wasip3::wit_bindgen::FutureReader<Result<Option<Fields>, ErrorCode>> {
    wit_future::new(|| Ok(None)).1
}

/// A response whose body is written by a task that goes on after it was returned.
fn streamed(headers: &[(&str, &str)], write: impl AsyncFnOnce(StreamWriter<u8>) + 'static) -> Response {
    let fields: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let (to, body) = wit_stream::new();
    let fields = Fields::from_list(&fields).expect("headers that are allowed");
    let (response, _) = Response::new(fields, Some(body), no_trailers());
    spawn_local(async move { write(to).await });
    response
}

fn text(status: u16, text: String) -> Response {
    let response = streamed(&[("content-type", "text/x-test")], async move |mut to| {
        let _ = to.write_all(text.into_bytes()).await;
    });
    response.set_status_code(status).expect("a status that is allowed");
    response
}

fn describe(request: &Request) -> String {
    let method = match request.get_method() {
        Method::Other(other) => other,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    };
    let mut text = format!(
        "{method} {} {}\n",
        request.get_authority().unwrap_or_default(),
        request.get_path_with_query().unwrap_or_default()
    );
    for (name, value) in request.get_headers().copy_all() {
        writeln!(text, "{name}: {}", String::from_utf8_lossy(&value)).expect("a string");
    }
    text
}
