//! Handles the HTTP request itself: any method, any path below the function, status and headers of
//! its own, and bodies that stream.
//!
//!     cargo build --release --target wasm32-wasip2 -p rust-http
//!     curl localhost:8095/rust-http/                        # hello
//!     curl localhost:8095/rust-http/request                 # the request as this function sees it
//!     curl localhost:8095/rust-http/ --data-binary @FILE    # the body back, streamed

use std::fmt::Write;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

struct Handler;

wasip2::http::proxy::export!(Handler);

impl Guest for Handler {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let sent = match request.method() {
            Method::Get | Method::Head => {
                let target = request.path_with_query().unwrap_or_default();
                let path = target.split('?').next().unwrap_or_default();
                if path.ends_with("/request") {
                    text(out, &describe(&request, &target))
                } else {
                    text(out, "hello\n")
                }
            }
            _ => echo(&request, out),
        };
        // The client left, or broke off its own body. Too late for another status, so only log it.
        if let Err(error) = sent {
            eprintln!("response ended early: {error:?}");
        }
    }
}

/// Sends a text as the whole answer.
fn text(out: ResponseOutparam, text: &str) -> Result<(), StreamError> {
    let length = text.len().to_string();
    let body = start(
        out,
        &[
            ("content-type", b"text/plain; charset=utf-8"),
            ("content-length", length.as_bytes()),
        ],
    );

    let stream = body.write().expect("a body is opened once");
    // 4096 bytes is what one such call may carry.
    for piece in text.as_bytes().chunks(4096) {
        stream.blocking_write_and_flush(piece)?;
    }
    drop(stream);
    end(body);
    Ok(())
}

/// Sends the request's body back as it arrives. `blocking_splice` moves it from stream to stream on
/// the host's side, so that a body of any length takes none of this function's memory.
fn echo(request: &IncomingRequest, out: ResponseOutparam) -> Result<(), StreamError> {
    let content_type = request.headers().get("content-type").into_iter().next();
    let content_type = content_type
        .as_deref()
        .unwrap_or(b"application/octet-stream");
    let body = start(out, &[("content-type", content_type)]);

    let incoming = request.consume().expect("a body is consumed once");
    let from = incoming.stream().expect("a body is opened once");
    let to = body.write().expect("a body is opened once");
    loop {
        match to.blocking_splice(&from, 64 * 1024) {
            Ok(_) => {}
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    drop(to);
    end(body);
    Ok(())
}

/// Sends status 200 and these headers; the body can be written from here on.
fn start(out: ResponseOutparam, headers: &[(&str, &[u8])]) -> OutgoingBody {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_vec()))
        .collect();
    let headers = Fields::from_list(&headers).expect("valid header names and values");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("a body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Marks the body as complete. One that is dropped without this reaches the client as broken off.
fn end(body: OutgoingBody) {
    if let Err(error) = OutgoingBody::finish(body, None) {
        eprintln!("response not completed: {error:?}");
    }
}

fn describe(request: &IncomingRequest, target: &str) -> String {
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        other => format!("{other:?}"),
    };
    let mut text = format!("{method} {target}\n");
    for (name, value) in request.headers().entries() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(&value));
    }
    text
}
