//! Requests to others, as the query says: [`wanted`].

#[path = "../../src/outgoing/wanted.rs"]
mod wanted;

use std::rc::Rc;

use wasip3::{
    clocks::monotonic_clock::wait_for,
    http::{
        client,
        types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme},
    },
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

use self::wanted::{Wanted, parse};
use crate::{MILLISECOND, no_trailers, processed};

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&pairs).expect("fields that are allowed")
}

fn options(wanted: &Wanted) -> RequestOptions {
    let options = RequestOptions::new();
    let [connect, first, between] = wanted.timeouts.map(|millis| millis.map(|millis| millis * MILLISECOND));
    options.set_connect_timeout(connect).expect("it is supported");
    options.set_first_byte_timeout(first).expect("it is supported");
    options.set_between_bytes_timeout(between).expect("it is supported");
    options
}

/// `request`, where it is to go.
fn addressed(request: Request, wanted: &Wanted) -> Request {
    let (scheme, authority, path) = wanted.target();
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

/// Sends it, with its body.
async fn send(wanted: &Wanted<'_>) -> Result<Response, ErrorCode> {
    let (contents, trailers) = match wanted.body {
        Some(bytes) => {
            let (mut to, contents) = wit_stream::new();
            let (to_trailers, trailers) = wit_future::new(|| Ok(None));
            let sent = (!wanted.trailers.is_empty()).then(|| fields(&wanted.trailers));
            spawn_local(async move {
                // Who does not want all of it may answer before.
                let _ = to.write_all(vec![b'x'; bytes]).await;
                drop(to);
                let _ = to_trailers.write(Ok(sent)).await;
            });
            (Some(contents), trailers)
        }
        None => (None, no_trailers()),
    };
    let (request, _) = Request::new(fields(&wanted.headers), contents, trailers, Some(options(wanted)));
    client::send(addressed(request, wanted)).await
}

/// One line of what came.
async fn describe(response: Result<Response, ErrorCode>) -> String {
    let response = match response {
        Ok(response) => response,
        Err(error) => return format!("error={error:?}\n"),
    };
    let mut text = format!("status={}", response.get_status_code());
    for (name, value) in response.get_headers().copy_all() {
        if name.starts_with("x-") {
            text += &format!(" {name}={}", String::from_utf8_lossy(&value));
        }
    }
    let (mut from, trailers) = Response::consume_body(response, processed());
    let mut body = Vec::new();
    loop {
        let (_, bytes) = from.read(Vec::with_capacity(64 << 10)).await;
        if bytes.is_empty() {
            break;
        }
        body.extend(bytes);
    }
    match body.len() {
        ..=4096 => text += &format!(" body={}", String::from_utf8_lossy(&body)),
        bytes => text += &format!(" bytes={bytes}"),
    }
    match trailers.await {
        Err(error) => text += &format!(" body-error={error:?}"),
        Ok(trailers) => {
            for (name, value) in trailers.into_iter().flat_map(|trailers| trailers.copy_all()) {
                text += &format!(" trailer {name}={}", String::from_utf8_lossy(&value));
            }
        }
    }
    text + "\n"
}

pub async fn fetch(query: &str) -> String {
    // Tasks have it that may be there for longer than this one.
    let wanted = Rc::new(parse(query.to_owned().leak()));
    let mut text = String::new();
    for time in 0..wanted.times {
        if time > 0 && wanted.pause > 0 {
            wait_for(wanted.pause * MILLISECOND).await;
        }
        let sent: Vec<_> = (0..wanted.together)
            .map(|_| {
                let wanted = wanted.clone();
                spawn_local(async move { send(&wanted).await })
            })
            .collect();
        let mut kept = Vec::new();
        for response in sent {
            match response.await.expect("nobody cancels it") {
                Ok(response) if wanted.keep => {
                    text += &format!("kept={}\n", response.get_status_code());
                    kept.push(response);
                }
                response => text += &describe(response).await,
            }
        }
    }
    text
}

fn passed_on(response: Response) -> Response {
    let status = response.get_status_code();
    let (body, trailers) = Response::consume_body(response, processed());
    let (answer, _) = Response::new(Fields::new(), Some(body), trailers);
    answer.set_status_code(status).expect("a status");
    answer
}

/// The request's body goes to the server as it comes, and what that answers comes back as it comes.
pub async fn relay(incoming: Request, query: &str) -> Result<Response, ErrorCode> {
    let wanted = parse(query);
    let (body, trailers) = Request::consume_body(incoming, processed());
    let (request, _) = Request::new(fields(&wanted.headers), Some(body), trailers, Some(options(&wanted)));
    Ok(passed_on(client::send(addressed(request, &wanted)).await?))
}

/// What the server answers comes back as it comes.
pub async fn relay_down(query: &str) -> Result<Response, ErrorCode> {
    Ok(passed_on(send(&parse(query)).await?))
}

/// Passes on what `http://AUTHORITY/` answers.
pub async fn forward(authority: &str) -> Result<Response, ErrorCode> {
    Ok(passed_on(send_to(authority).await?))
}

pub async fn send_to(authority: &str) -> Result<Response, ErrorCode> {
    send(&parse(&format!("GET,http://{authority}/"))).await
}
