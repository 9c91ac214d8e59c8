//! Counts its visits in a file, asks another server by https, and streams: the count at once, the other's answer as it comes.
//!
//!     cargo build --release --target wasm32-wasip2 -p rust-api
//!     cp api.toml functions/rust-api.toml    # its settings: name your API and your directory
//!     wasmbox serve --allow-outbound api.example.com:443 --preopen-root /srv/data
//!     curl -N localhost:8095/rust-api

use std::{env, fs, io};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

struct Handler;

wasip2::http::proxy::export!(Handler);

/// The directory of its settings.
const COUNTER: &str = "/data/rust-api";

impl Guest for Handler {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("a body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("a body is opened once");
        if let Err(error) = answer(&stream) {
            // The client left, or the other server broke off: too late for another status.
            eprintln!("response ended early: {error:?}");
            return;
        }
        drop(stream);
        OutgoingBody::finish(body, None).expect("no length was announced");
    }
}

fn answer(to: &OutputStream) -> Result<(), StreamError> {
    match count() {
        Ok(visit) => say(to, &format!("visit {visit}\n"))?,
        Err(error) => say(to, &format!("not counted: {error}\n"))?,
    }
    match ask(&env::var("API").unwrap_or_default()) {
        Ok(response) => {
            say(to, &format!("the API says {}: ", response.status()))?;
            let body = response.consume().expect("a body is taken once");
            let from = body.stream().expect("a body is opened once");
            loop {
                match to.blocking_splice(&from, 64 << 10) {
                    Ok(_) => {}
                    Err(StreamError::Closed) => break,
                    Err(error) => return Err(error),
                }
            }
            say(to, "\n")
        }
        Err(error) => say(to, &format!("the API was not reached: {error:?}\n")),
    }
}

/// Two calls at the same time may count as one: files have no locks in WASI.
fn count() -> io::Result<u64> {
    let visit = match fs::read_to_string(COUNTER) {
        Ok(text) => text.trim().parse().unwrap_or(0) + 1,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
        Err(error) => return Err(error),
    };
    fs::write(COUNTER, format!("{visit}\n"))?;
    Ok(visit)
}

fn ask(url: &str) -> Result<IncomingResponse, ErrorCode> {
    let rest = url.strip_prefix("https://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Https)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(invalid)?;
    let response = outgoing_handler::handle(request, None)?;
    response.subscribe().block();
    response.get().expect("it is ready").expect("it is taken once")
}

fn say(to: &OutputStream, text: &str) -> Result<(), StreamError> {
    text.as_bytes().chunks(4096).try_for_each(|piece| to.blocking_write_and_flush(piece))
}
