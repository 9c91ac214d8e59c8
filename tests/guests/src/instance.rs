//! What an instance has kept of the requests that it served before.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

use super::{answer, start, write_all};

static SERVED: AtomicU32 = AtomicU32::new(0);
static MEMORY: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Answers with the number of requests that the instance has served, and does before what `query` says.
pub fn act(request: IncomingRequest, out: ResponseOutparam, query: &str) {
    let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
    let (what, number) = query.split_once('=').unwrap_or((query, "0"));
    let number: usize = number.parse().expect("WHAT=NUMBER");
    match what {
        // Bytes of memory that stay.
        "grow" => *MEMORY.lock().expect("one at a time") = vec![1; number],
        "print" => eprint!("request {served} of this instance"),
        "hold-request" => std::mem::forget(request.consume()),
        "leave-open" => {
            let body = start(out, 200, &[]);
            let stream = body.write().expect("the first use");
            let _ = write_all(&stream, served.to_string().as_bytes());
            std::mem::forget((body, stream));
            return;
        }
        // An answer that is longer than what is buffered, so that it is streamed.
        "stream" => {
            let body = start(out, 200, &[("x-served", &served.to_string())]);
            let stream = body.write().expect("the first use");
            let _ = write_all(&stream, &vec![b'x'; number]);
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
            return;
        }
        _ => {}
    }
    answer(out, 200, &[], served.to_string().as_bytes());
}
