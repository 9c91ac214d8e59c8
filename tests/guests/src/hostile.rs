//! What an author does who wants the box, not an answer. The first word of the query says how.

use std::mem;

use wasip2::{
    clocks::monotonic_clock,
    http::{
        outgoing_handler,
        types::{Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme},
    },
    io::poll,
    random::random::get_random_bytes,
    sockets::{network::IpAddressFamily, tcp_create_socket::create_tcp_socket, udp_create_socket::create_udp_socket},
};

use crate::{answer, start};

/// What another's client would take for an answer.
const FORGED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nSet-Cookie: owned=1\r\n\r\nforged\n";

pub fn act(request: &IncomingRequest, out: ResponseOutparam, query: &str) {
    let (what, argument) = query.split_once(',').unwrap_or((query, ""));
    let number = || argument.parse::<u64>().expect("WHAT,NUMBER");
    match what {
        // LENGTH,STATUS,HOW: a head that announces a length, a body that has another; it is never finished.
        "lie" => lie(out, argument),
        "fields" => loop {
            let fields = Fields::new();
            let value = vec![b'x'; 127 << 10];
            if fields.append("x-large", &value).is_err() {
                mem::forget(fields);
                continue;
            }
            mem::forget(fields);
        },
        "field" => {
            let fields = Fields::new();
            let value = vec![b'x'; 4 << 10];
            while fields.append("x-many", &value).is_ok() {}
            panic!("it is full");
        }
        "empty-fields" => loop {
            mem::forget(Fields::new());
        },
        "outgoing-requests" => loop {
            mem::forget(OutgoingRequest::new(Fields::new()));
        },
        "outgoing-responses" => loop {
            let response = OutgoingResponse::new(Fields::new());
            let body = response.body().expect("the first use");
            mem::forget((body.write(), body, response));
        },
        "pollables" => loop {
            mem::forget(monotonic_clock::subscribe_duration(86_400_000_000_000));
        },
        "poll" => {
            let pollables: Vec<_> =
                (0..number()).map(|_| monotonic_clock::subscribe_duration(86_400_000_000_000)).collect();
            loop {
                poll::poll(&pollables.iter().collect::<Vec<_>>());
            }
        }
        // The same one, many times in one list.
        "poll-one" => {
            let pollable = monotonic_clock::subscribe_duration(86_400_000_000_000);
            poll::poll(&vec![&pollable; number() as usize]);
        }
        "tcp-sockets" => loop {
            mem::forget(create_tcp_socket(IpAddressFamily::Ipv4).map_err(|error| panic!("{error:?}")));
        },
        "udp-sockets" => loop {
            mem::forget(create_udp_socket(IpAddressFamily::Ipv6).map_err(|error| panic!("{error:?}")));
        },
        "random" => answer(out, 200, &[], get_random_bytes(number()).len().to_string().as_bytes()),
        "denied" => loop {
            let request = OutgoingRequest::new(Fields::new());
            let _ = request.set_scheme(Some(&Scheme::Http));
            let _ = request.set_authority(Some("169.254.169.254"));
            let _ = outgoing_handler::handle(request, None);
        },
        "read" => {
            let body = request.consume().expect("the first use");
            let stream = body.stream().expect("the first use");
            while stream.blocking_read(u64::MAX).is_ok() {}
            answer(out, 200, &[], b"read to the end");
        }
        "zeroes" => {
            let body = start(out, 200, &[]);
            let stream = body.write().expect("the first use");
            while stream.blocking_write_zeroes_and_flush(4096).is_ok() {}
        }
        "zeroes-at-once" => {
            let body = start(out, 200, &[]);
            let stream = body.write().expect("the first use");
            let _ = stream.write_zeroes(number());
            panic!("more than it may");
        }
        "write-at-once" => {
            let body = start(out, 200, &[]);
            let stream = body.write().expect("the first use");
            let _ = stream.write(&vec![b'x'; number() as usize]);
            panic!("more than it may");
        }
        "headers" => {
            let headers: Vec<_> = (0..number()).map(|index| (format!("x-{index}"), vec![b'x'; 64])).collect();
            match Fields::from_list(&headers) {
                Ok(fields) => ResponseOutparam::set(out, Ok(OutgoingResponse::new(fields))),
                Err(error) => panic!("{error:?}"),
            }
        }
        "trailers" => {
            let body = start(out, 200, &[]);
            let trailers: Vec<_> = (0..number()).map(|index| (format!("x-{index}"), vec![b'x'; 64])).collect();
            let _ = OutgoingBody::finish(body, Some(Fields::from_list(&trailers).expect("trailers")));
        }
        "stderr" => loop {
            eprintln!("\u{9b}31m\u{202e}{}", "x".repeat(1000));
        },
        // A line that does not end.
        "stderr-line" => loop {
            eprint!("{}", "x".repeat(4096));
        },
        "stdout" => loop {
            println!("{}", "x".repeat(1000));
        },
        _ => answer(out, 404, &[], what.as_bytes()),
    }
}

fn lie(out: ResponseOutparam, argument: &str) {
    let mut words = argument.split(',');
    let (length, status, how) = (words.next(), words.next(), words.next());
    let length = length.expect("LENGTH");
    let headers: &[_] = if length.is_empty() { &[] } else { &[("content-length", length)] };
    let body = start(out, status.and_then(|status| status.parse().ok()).expect("STATUS"), headers);
    let stream = body.write().expect("the first use");
    let _ = stream.write(b"first");
    let _ = stream.flush();
    if how == Some("later") {
        // The box passes on what is there when the guest waits.
        monotonic_clock::subscribe_duration(20_000_000).block();
    }
    let _ = stream.write(FORGED);
    let _ = stream.flush();
    mem::forget((stream, body));
}
