//! Requests to others, as the query says: [`wanted`].

mod wanted;

use std::mem;

use wasip2::{
    clocks::monotonic_clock,
    exports::http::incoming_handler::{IncomingRequest, ResponseOutparam},
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
            OutgoingRequest, RequestOptions, Scheme,
        },
    },
    io::streams::StreamError,
};

use self::wanted::{Wanted, parse};
use crate::{answer, start, write_all};

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&pairs).expect("fields that are allowed")
}

fn request(wanted: &Wanted) -> OutgoingRequest {
    let (scheme, authority, path) = wanted.target();
    let request = OutgoingRequest::new(fields(&wanted.headers));
    let method = match wanted.method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.into()),
    };
    request.set_method(&method).expect("a method");
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    request
}

fn options(wanted: &Wanted) -> RequestOptions {
    let options = RequestOptions::new();
    let [connect, first, between] = wanted.timeouts.map(|millis| millis.map(|millis| millis * 1_000_000));
    options.set_connect_timeout(connect).expect("it is supported");
    options.set_first_byte_timeout(first).expect("it is supported");
    options.set_between_bytes_timeout(between).expect("it is supported");
    options
}

/// Sends it, with its body.
fn send(wanted: &Wanted) -> Result<FutureIncomingResponse, ErrorCode> {
    let request = request(wanted);
    let body = wanted.body.map(|bytes| (bytes, request.body().expect("the first use")));
    let future = outgoing_handler::handle(request, Some(options(wanted)))?;
    if let Some((bytes, body)) = body {
        let stream = body.write().expect("the first use");
        // Who does not want all of it may answer before.
        let _ = write_all(&stream, &vec![b'x'; bytes]);
        drop(stream);
        let trailers = (!wanted.trailers.is_empty()).then(|| fields(&wanted.trailers));
        let _ = OutgoingBody::finish(body, trailers);
    }
    Ok(future)
}

fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    future.get().expect("it is ready").expect("the first use")
}

/// One line of what came.
fn describe(response: Result<IncomingResponse, ErrorCode>) -> String {
    let response = match response {
        Ok(response) => response,
        Err(error) => return format!("error={error:?}\n"),
    };
    let mut text = format!("status={}", response.status());
    for (name, value) in response.headers().entries() {
        if name.starts_with("x-") {
            text += &format!(" {name}={}", String::from_utf8_lossy(&value));
        }
    }
    let incoming = response.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    let (mut body, mut failure) = (Vec::new(), String::new());
    loop {
        match from.blocking_read(65536) {
            Ok(piece) => body.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                failure = format!(" body-error={}", error.to_debug_string());
                break;
            }
        }
    }
    drop(from);
    match body.len() {
        ..=4096 => text += &format!(" body={}", String::from_utf8_lossy(&body)),
        bytes => text += &format!(" bytes={bytes}"),
    }
    text += &failure;
    if failure.is_empty() {
        let trailers = IncomingBody::finish(incoming);
        trailers.subscribe().block();
        if let Some(Ok(Ok(Some(trailers)))) = trailers.get() {
            for (name, value) in trailers.entries() {
                text += &format!(" trailer {name}={}", String::from_utf8_lossy(&value));
            }
        }
    }
    text + "\n"
}

pub fn fetch(out: ResponseOutparam, query: &str) {
    let wanted = parse(query);
    let mut text = String::new();
    for time in 0..wanted.times {
        if time > 0 && wanted.pause > 0 {
            monotonic_clock::subscribe_duration(wanted.pause * 1_000_000).block();
        }
        let sent: Vec<_> = (0..wanted.together).map(|_| send(&wanted)).collect();
        let mut kept = Vec::new();
        for future in sent {
            let response = future.and_then(|future| wait(&future));
            match response {
                Ok(response) if wanted.keep => {
                    text += &format!("kept={}\n", response.status());
                    kept.push(response);
                }
                response => text += &describe(response),
            }
        }
    }
    answer(out, 200, &[], text.as_bytes());
}

/// The request's body goes to the server as it comes, and what that answers comes back as it comes.
pub fn relay(incoming: &IncomingRequest, out: ResponseOutparam, query: &str) {
    let wanted = parse(query);
    let request = request(&wanted);
    let upload = request.body().expect("the first use");
    let to = upload.write().expect("the first use");
    let future = outgoing_handler::handle(request, Some(options(&wanted))).expect("it is granted");
    let incoming = incoming.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    let first = from.blocking_read(4096).expect("a first part");
    write_all(&to, &first).expect("the server reads");
    let response = wait(&future).expect("a response before the request has ended");
    let answer = response.consume().expect("the first use");
    let back = answer.stream().expect("the first use");
    let body = start(out, response.status(), &[]);
    let client = body.write().expect("the first use");
    loop {
        let piece = back.blocking_read(4096).expect("the server answers each part");
        write_all(&client, &piece).expect("the client reads");
        match from.blocking_read(4096) {
            Ok(piece) => write_all(&to, &piece).expect("the server reads"),
            Err(_) => break,
        }
    }
    drop(to);
    let _ = OutgoingBody::finish(upload, None);
    while let Ok(piece) = back.blocking_read(4096) {
        write_all(&client, &piece).expect("the client reads");
    }
    drop(client);
    let _ = OutgoingBody::finish(body, None);
    mem::drop((back, answer));
}

/// What the server answers comes back as it comes.
pub fn relay_down(out: ResponseOutparam, query: &str) {
    let response = send(&parse(query)).and_then(|future| wait(&future)).expect("a response");
    let incoming = response.consume().expect("the first use");
    let from = incoming.stream().expect("the first use");
    let body = start(out, response.status(), &[]);
    let to = body.write().expect("the first use");
    loop {
        match from.blocking_read(65536) {
            Ok(piece) => write_all(&to, &piece).expect("the client reads"),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
    drop(to);
    let _ = OutgoingBody::finish(body, None);
}
