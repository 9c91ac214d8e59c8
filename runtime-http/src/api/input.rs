//! The request body before the function is started: small bodies are read whole, so that a slow client holds no worker, and the
//! original's form `{"parameter": "..."}` is recognised.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use super::problem::{Code, Problem};
use crate::{
    exchange::{
        budget::Reservation,
        request_body::{BodyEnd, BodyError, FRAME, RequestBody},
    },
    invocation::Failure,
};

/// Bodies up to this length, if they say so, are read before the function starts.
const READ_AHEAD: u64 = 64 << 10;
/// The original's form is recognised up to this length. It is held twice: as text, and as what was parsed of it.
const LARGEST_PARAMETER: usize = 1 << 20;

/// Bodies that do not say their length are read up to this one for CGI programs, which must be told it.
const LARGEST_SPOOLED: usize = 1 << 20;

/// What a body is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An HTTP component's request.
    Request,
    /// A command's standard input, or its parameter in the original's form.
    Input,
    /// The same, with a length that must be known.
    Cgi,
}

/// A body, as far as it needed to be read.
#[derive(Debug)]
pub struct ReadAhead {
    pub body: RequestBody,
    /// The value, if the body is the original's form.
    pub parameter: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterForm {
    parameter: String,
}

/// Reads ahead, until `deadline`.
///
/// # Errors
/// If the body is too large, broken off or too slow, or too long to find its length; at the deadline; if too much is read ahead already.
pub async fn read_ahead(
    mut body: RequestBody,
    purpose: Purpose,
    deadline: Instant,
    timeout_ms: u128,
) -> Result<ReadAhead, Problem> {
    if body.is_end_stream() {
        return Ok(ReadAhead { body, parameter: None });
    }
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > body.limit()) {
        return Err(Failure::BodyTooLarge { limit: body.limit() }.into());
    }
    // A component may answer without it.
    if purpose == Purpose::Request && body.expectation().is_some() {
        return Ok(ReadAhead { body, parameter: None });
    }
    let with_parameter = purpose != Purpose::Request;
    let spooled = purpose == Purpose::Cgi && announced.is_none();
    let short = announced.is_some_and(|length| length <= READ_AHEAD);
    let mut ahead = BytesMut::new();
    let mut trailers = None;
    let mut reserved = Reservation::default();
    let reading = async {
        while !body.is_end_stream() {
            let may_be_parameter = with_parameter && ahead.len() <= LARGEST_PARAMETER && may_become_parameter(&ahead);
            if spooled && ahead.len() > LARGEST_SPOOLED {
                let detail = format!(
                    "a CGI program must be told the length of its input, which is found for bodies up to {LARGEST_SPOOLED} bytes; send Content-Length"
                );
                return Err(Problem::new(Code::LengthRequired, detail));
            }
            if !short && !spooled && !may_be_parameter {
                break;
            }
            // One frame may be held without asking.
            let held = ahead.len() as u64 * if may_be_parameter { 2 } else { 1 };
            if reserved.bytes() < held {
                match body.reserve((held - reserved.bytes()).max(FRAME)) {
                    Some(more) => reserved.add(more),
                    // A function that would wait for the rest would hold its permit meanwhile.
                    None => return Err(no_memory()),
                }
            }
            match body.frame().await {
                None => break,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => ahead.extend_from_slice(&data),
                    Err(last) => {
                        trailers = last.into_trailers().ok();
                        let held = trailers.as_ref().map_or(0, held_for);
                        reserved.add(body.reserve(held).ok_or_else(no_memory)?);
                    }
                },
                Some(Err(BodyError::TooLarge { limit })) => return Err(Failure::BodyTooLarge { limit }.into()),
                Some(Err(BodyError::Read(error))) => return Err(unreadable(error.to_string())),
                Some(Err(BodyError::TooSlow)) => return Err(unreadable(BodyEnd::TooSlow.reason().into())),
            }
        }
        Ok(())
    };
    let read = tokio::time::timeout_at(deadline.into(), reading).await;
    read.map_err(|_| Failure::DeadlineExceeded { timeout_ms })??;
    let ahead = ahead.freeze();
    if with_parameter
        && body.is_end_stream()
        && may_become_parameter(&ahead)
        && let Ok(form) = serde_json::from_slice::<ParameterForm>(&ahead)
    {
        let body = RequestBody::full(Bytes::from(form.parameter.clone()), reserved);
        return Ok(ReadAhead { body, parameter: Some(form.parameter) });
    }
    body.read_ahead_from_now();
    body.unread(ahead, trailers, reserved);
    Ok(ReadAhead { body, parameter: None })
}

/// Bytes that trailers are held in, about.
fn held_for(trailers: &HeaderMap) -> u64 {
    const EACH: usize = 64;
    trailers.iter().map(|(name, value)| (name.as_str().len() + value.len() + EACH) as u64).sum()
}

fn unreadable(reason: String) -> Problem {
    Failure::BodyUnreadable { reason }.into()
}

fn no_memory() -> Problem {
    Problem::new(
        Code::QueueFull,
        "request bodies of this client, or of all, hold too much memory before they are admitted; try again, or send less at once",
    )
}

/// Whether `start` is the start of `{"parameter":`, with white space between.
fn may_become_parameter(start: &[u8]) -> bool {
    let mut rest = start;
    for token in [&b"{"[..], b"\"parameter\"", b":"] {
        rest = rest.trim_ascii_start();
        let common = rest.iter().zip(token).take_while(|(a, b)| a == b).count();
        if common == rest.len() {
            return true;
        }
        if common < token.len() {
            return false;
        }
        rest = &rest[common..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_the_form() {
        for start in ["", " ", "{", "{ \"par", "{\"parameter\"", "\n{ \"parameter\" : \"x", "{\"parameter\":1"] {
            assert!(may_become_parameter(start.as_bytes()), "{start:?}");
        }
        for other in ["x", "{x", "{}", "{\"other\"", "[{\"parameter\":", "{\"parameter\"}", "{\"parameters\""] {
            assert!(!may_become_parameter(other.as_bytes()), "{other:?}");
        }
    }
}
