//! The response to a guest's answer: its head, and where its body comes from.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};

use super::{
    answer::{INVOCATION_HEADERS, TEXT, is_reserved, strip_reserved},
    cgi,
    problem::Problem,
};
use crate::{
    exchange::{
        framing::{self, Length},
        response_body::{ResponseBody, Source},
        trailers::{Accepted, Passing},
    },
    invocation::{Failure, Outcome},
    limits::fields::Fields,
    sandbox::{Answer, Stream},
    store::settings::OutputMode,
};

/// The response of a guest that has ended.
pub fn ended(
    outcome: Outcome,
    answer: Option<Answer>,
    mode: OutputMode,
    accepted: Accepted,
    is_head: bool,
) -> Result<Response<ResponseBody>, Problem> {
    match (outcome.failure, answer) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(Answer::Output(output))) => {
            let (response, body) = output_head(mode, output)?;
            let body =
                if framing::is_bodiless(response.status()) { ResponseBody::empty() } else { ResponseBody::full(body) };
            Ok(response.map(|()| body))
        }
        (None, Some(Answer::Response { head, .. })) if head.status.is_informational() => {
            Err(not_final(head.status).into())
        }
        (None, Some(Answer::Response { mut head, frames })) => {
            let passing = own_fields(&mut head.headers, accepted)?;
            let (length, body) = whole(&mut head, frames, &passing, is_head)?;
            if let Some(length) = length {
                head.headers.insert(header::CONTENT_LENGTH, length.into());
            }
            Ok(Response::from_parts(head, body))
        }
        (None, None) => Err(Failure::NoResponse { reason: "it ended without one".into() }.into()),
    }
}

/// The body of a response that is all there, and the length for a head that goes without it. What the guest announced must be true.
fn whole(
    head: &mut http::response::Parts,
    frames: Vec<Frame<Bytes>>,
    passing: &Passing,
    is_head: bool,
) -> Result<(Option<u64>, ResponseBody), Failure> {
    let announced = framing::take_length(&mut head.headers)?;
    if framing::is_bodiless(head.status) {
        return Ok((None, ResponseBody::empty()));
    }
    let (body, sent, has_trailers) = ResponseBody::frames(frames, passing);
    if has_trailers && let Some(names) = passing.announcement() {
        head.headers.insert(header::TRAILER, names);
    }
    // What GET would send.
    if is_head && sent == 0 {
        return Ok((announced, body));
    }
    let mut length = Length::new(announced);
    length.add(sent)?;
    length.end()?;
    Ok((None, body))
}

/// The head of a response that has begun, and where its body comes from.
pub fn streaming(stream: Stream, mode: OutputMode, accepted: Accepted) -> Result<(Response<()>, Source), Problem> {
    match stream {
        Stream::Output { first, rest } => {
            let (response, first) = output_head(mode, first)?;
            Ok((response, Source::Output { first: Some(first), rest }))
        }
        Stream::Response(response) if response.status().is_informational() => Err(not_final(response.status()).into()),
        Stream::Response(response) => {
            let (mut head, body) = response.into_parts();
            let passing = own_fields(&mut head.headers, accepted)?;
            let announced = framing::take_length(&mut head.headers).map_err(Failure::from)?;
            if !framing::is_bodiless(head.status)
                && let Some(names) = passing.announcement()
            {
                head.headers.insert(header::TRAILER, names);
            }
            Ok((Response::from_parts(head, ()), Source::Guest { body, announced, passing }))
        }
    }
}

/// Leaves what is the guest's to say in its head, if that is not too much. Gives what passes of its trailers.
fn own_fields(headers: &mut HeaderMap, accepted: Accepted) -> Result<Passing, Failure> {
    let passing = accepted.take(headers, is_reserved);
    strip_reserved(headers);
    let too_large = |error| Failure::NoResponse { reason: format!("its head is too large: {error}") };
    Fields::check(headers).map_err(too_large)?;
    Ok(passing)
}

fn not_final(status: StatusCode) -> Failure {
    Failure::NoResponse { reason: format!("status {} is no final answer", status.as_u16()) }
}

/// The head of a command's answer, and what of the output is body.
fn output_head(mode: OutputMode, output: Bytes) -> Result<(Response<()>, Bytes), Problem> {
    let mut response = Response::new(());
    let body = match mode {
        OutputMode::Body => {
            // Text if it is text; and what it is must not be guessed by browsers, since all functions share one origin.
            let is_text = match std::str::from_utf8(&output) {
                Ok(_) => true,
                // A streamed answer may be cut in the middle of a character.
                Err(error) => error.error_len().is_none(),
            };
            let content_type = if is_text { TEXT } else { "application/octet-stream" };
            *response.headers_mut() = HeaderMap::with_capacity(INVOCATION_HEADERS + 2);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            output
        }
        OutputMode::Cgi => {
            let (mut head, body) = cgi::split_head(output).map_err(|reason| Failure::BadHeader { reason })?;
            strip_reserved(&mut head.headers);
            // A wrong length would break the connection; the right one is known or the answer is chunked.
            head.headers.remove(header::CONTENT_LENGTH);
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            body
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((response, body))
}

/// The answer to HEAD: its body is left out, its length is not. (Over HTTP/2, hyper would send the body.)
pub fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    // One without a body has no length either (RFC 9110, section 8.6).
    if let Some(length) = response.body().size_hint().exact()
        && !framing::is_bodiless(response.status())
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(|_| ResponseBody::full(Bytes::new()))
}

/// The answer to OPTIONS.
pub fn allow(methods: &HeaderValue) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, methods.clone());
    response
}
