//! What clients get of a streamed response, through hyper, without a socket and without a clock.

use std::{cell::RefCell, convert::Infallible, time::Instant};

use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{invocation::InvocationId, metrics::Metrics};

/// A guest's response: what it announces, and pieces of these sizes. The invocation has ended well.
fn streamed(announced: Option<u64>, sizes: &[usize]) -> ResponseBody {
    let frames: Vec<_> = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect();
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    ResponseBody::streaming(Source::Guest { body, announced, passing: Passing::none() }, ended(None), u64::MAX)
}

/// An invocation that has ended well, and what accounts for the rest of its answer.
fn ended(hold: Option<Hold>) -> Streamed {
    let (sender, outcome) = oneshot::channel();
    assert!(sender.send((Outcome::default(), hold)).is_ok());
    let cancel = CancelToken::default();
    let record = Record::new(InvocationId::next(), Metrics::new().function("guest"), Instant::now(), None);
    Streamed { record, on_drop: CancelOnDrop::new(cancel.clone()), cancel, outcome }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    announced: Option<u64>,
    sizes: &[usize],
) -> Result<Response<ResponseBody>, Infallible> {
    let is_guest = request.uri().path() == "/guest";
    let body = if is_guest { streamed(announced, sizes) } else { ResponseBody::full(Bytes::from_static(b"other")) };
    Ok(Response::new(body))
}

/// All that a server sends in answer to a request for the guest, and another one behind it.
async fn on_http1(announced: Option<u64>, sizes: Vec<usize>) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let service = service_fn(move |request| {
        let sizes = sizes.clone();
        async move { answer(request, announced, &sizes).await }
    });
    let serving =
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
    let requests =
        b"GET /guest HTTP/1.1\r\nHost: box\r\n\r\nGET /other HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n";
    client.write_all(requests).await.unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    let _ = serving.await.unwrap();
    bytes
}

/// The body that a client of HTTP/2 gets, if it is whole.
async fn on_http2(announced: Option<u64>, sizes: Vec<usize>) -> Option<usize> {
    let (client, server) = tokio::io::duplex(1 << 16);
    let service = service_fn(move |request| {
        let sizes = sizes.clone();
        async move { answer(request, announced, &sizes).await }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(http.serve_connection(TokioIo::new(server), service));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://box/guest").body(Empty::<Bytes>::new()).unwrap();
    // One that is broken off at once may be so before its head is sent.
    let body = sender.send_request(request).await.ok()?.into_body().collect().await;
    body.ok().map(|body| body.to_bytes().len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_response_is_what_it_announced_or_is_broken_off(
        announced in proptest::option::of(0_u64..30),
        sizes in proptest::collection::vec(0_usize..20, 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent: usize = sizes.iter().sum();
        let is_right = announced.is_none_or(|announced| announced == sent as u64);

        let bytes = runtime.block_on(on_http1(announced, sizes.clone()));
        let text = String::from_utf8(bytes).unwrap();
        let responses = text.matches("HTTP/1.1 200").count();
        if is_right {
            prop_assert!(responses == 2 && text.ends_with("\r\n\r\nother"), "{}", text);
        } else {
            prop_assert!(responses <= 1 && !text.contains("other"), "{}", text);
        }
        // Not a byte more than was announced is on the wire.
        let passed = text.matches('x').count() as u64;
        prop_assert!(announced.is_none_or(|announced| passed <= announced), "{}", text);

        let whole = runtime.block_on(on_http2(announced, sizes));
        if is_right {
            prop_assert_eq!(whole, Some(sent));
        } else {
            prop_assert!(whole.is_none(), "{:?}", whole);
        }
    }
}

/// A connection has taken a whole answer, or all of a streamed one whose guest has ended, and nobody reads it: it is charged until it is sent,
/// or its client is gone.
#[tokio::test]
async fn what_a_connection_has_taken_is_charged_until_it_is_sent() {
    const SIZE: usize = 1 << 20;
    /// So little that a connection takes its end, too.
    const LITTLE: usize = 16 << 10;
    let frames = || (0..4).map(|_| Frame::data(Bytes::from(vec![b'x'; SIZE / 4]))).collect();
    let output = |hold| {
        let (sender, rest) = mpsc::channel(4);
        for _ in 0..4 {
            sender.try_send(Bytes::from(vec![b'x'; LITTLE / 4])).unwrap();
        }
        ResponseBody::streaming(Source::Output { first: None, rest }, ended(Some(hold)), u64::MAX)
    };
    let bodies: [(&dyn Fn(Hold) -> ResponseBody, usize); 3] = [
        (&|hold| ResponseBody::full(Bytes::from(vec![b'x'; SIZE])).held(Some(hold)), SIZE),
        (&|hold| ResponseBody::frames(frames(), &Passing::none()).0.held(Some(hold)), SIZE),
        (&output, LITTLE),
    ];
    for ((body, size), reads) in bodies.into_iter().flat_map(|body| [(body, true), (body, false)]) {
        let held = Arc::new(());
        let body = RefCell::new(Some(body(Box::new(held.clone()))));
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let service = service_fn(move |_| {
            let body = body.take().map(Response::new);
            async move { body.ok_or("one request only") }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let mut connection = Box::pin(connection);
        client.write_all(b"GET / HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            assert!(futures_util::poll!(connection.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&held), 2, "it is not sent");
        if reads {
            let mut answer = Vec::new();
            let (served, read) = tokio::join!(&mut connection, client.read_to_end(&mut answer));
            assert!(served.is_ok() && read.is_ok() && answer.len() > size);
            assert_eq!(Arc::strong_count(&held), 1, "it is sent");
        } else {
            drop(client);
            assert!(connection.await.is_err());
            assert_eq!(Arc::strong_count(&held), 1, "the connection is gone");
        }
    }
}

/// A guest may finish its body and run on: what accounts for the rest comes when it has ended.
#[tokio::test]
async fn what_is_taken_before_the_guest_has_ended_is_charged_until_it_is_sent() {
    let held = Arc::new(());
    let (sender, outcome) = oneshot::channel();
    let body = StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from_static(b"rest")))])).boxed_unsync();
    let source = Source::Guest { body, announced: None, passing: Passing::none() };
    let mut body = ResponseBody::streaming(source, Streamed { outcome, ..ended(None) }, u64::MAX);
    let taken = body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.is_none());
    drop(body);
    assert!(sender.send((Outcome::default(), Some(Box::new(held.clone())))).is_ok());
    assert_eq!(Arc::strong_count(&held), 2, "it is not sent");
    drop(taken);
    assert_eq!(Arc::strong_count(&held), 1, "it is sent");
}
