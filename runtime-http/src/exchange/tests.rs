//! A request's body from its client to whoever reads it, through hyper, without a socket.

mod expectations;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{mpsc, oneshot},
};

use super::{
    body_end::{BodyEnd, BodyError, BodyStatus},
    budget::{ByteBudget, Reservation},
    expectation::{Expectation, is_expected},
    pace::BodyWaits,
    read_ahead::{Client, FRAME, ReadAhead},
    request_body::{BodyBounds, RequestBody},
};

const CHUNKED: &str = "Transfer-Encoding: chunked";
const FIVE: &str = "Content-Length: 5";
const FIVE_EXPECTED: &str = "Content-Length: 5\r\nExpect: 100-continue";

const HOUR: Duration = Duration::from_secs(3600);

/// A request that hyper has received.
struct Received {
    client: DuplexStream,
    incoming: Incoming,
    /// Of the one who answers: when it is dropped the answer is sent.
    _answer: oneshot::Sender<()>,
    waits: BodyWaits,
    budget: ByteBudget,
}

/// One with these fields, of which `body` has come, and for whose body `budget` bytes may be reserved.
async fn received(fields: &str, body: &[u8], budget: u64) -> Received {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (sender, mut requests) = mpsc::channel(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, answered) = oneshot::channel::<()>();
        let sent = sender.try_send((request.into_body(), answer));
        async move {
            assert!(sent.is_ok() && answered.await.is_err());
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
    client.write_all(format!("POST / HTTP/1.1\r\nHost: box\r\n{fields}\r\n\r\n").as_bytes()).await.unwrap();
    client.write_all(body).await.unwrap();
    let (incoming, answer) = requests.recv().await.unwrap();
    Received { client, incoming, _answer: answer, waits: BodyWaits::default(), budget: ByteBudget::new(budget) }
}

/// What a test is left with beside the body.
struct Other {
    client: DuplexStream,
    _answer: oneshot::Sender<()>,
    waits: BodyWaits,
    budget: ByteBudget,
}

impl Received {
    /// Its body, of `limit` bytes at most, whose client may pause for so long.
    fn bounded(self, length: u64, pause: Duration) -> (RequestBody, Other) {
        let Received { client, incoming, _answer, waits, budget } = self;
        let bounds = BodyBounds { length, pause };
        let body = RequestBody::new(incoming, &bounds, waits.clone(), &budget.only_client());
        (body, Other { client, _answer, waits, budget })
    }

    fn body(self) -> (RequestBody, Other) {
        self.bounded(u64::MAX, HOUR)
    }

    fn read_ahead(self) -> (ReadAhead, BodyStatus, Other) {
        let Received { client, incoming, _answer, waits, budget } = self;
        let status = BodyStatus::default();
        let sender = Box::new(Client::new(HOUR, waits.clone(), budget.only_client()));
        let ahead = ReadAhead::start(incoming, sender, status.clone(), Poll::Pending);
        (ahead, status, Other { client, _answer, waits, budget })
    }
}

/// All tasks do what they can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn chunks(chunks: &[&str]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()).into_bytes()).collect()
}

async fn data(body: &mut RequestBody) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

impl Other {
    /// What the client has got so far.
    async fn got(&mut self) -> String {
        settle().await;
        let mut text = [0; 1024];
        let read = futures_util::poll!(std::pin::pin!(self.client.read(&mut text)));
        let size = if let Poll::Ready(size) = read { size.unwrap() } else { 0 };
        String::from_utf8_lossy(&text[..size]).into_owned()
    }
}

mod bodies {
    use super::*;

    #[tokio::test]
    async fn one_frame_after_the_other_and_then_nothing() {
        let (mut body, _other) = received(CHUNKED, &chunks(&["hel", "lo", ""]), 0).await.body();
        assert_eq!(data(&mut body).await, "hel");
        assert!(body.take_buffered().is_none(), "more is outstanding");
        assert_eq!(data(&mut body).await, "lo");
        assert!(body.frame().await.is_none() && body.is_end_stream());
        assert_eq!(body.take_buffered().unwrap(), "");
        assert_eq!(body.status().end(), None);
    }

    #[tokio::test]
    async fn more_than_there_may_be_ends_it() {
        let (mut body, _other) = received(CHUNKED, &chunks(&["hel", "lo", "!"]), 0).await.bounded(4, HOUR);
        let status = body.status();
        assert_eq!(data(&mut body).await, "hel");
        assert!(matches!(body.frame().await, Some(Err(BodyError::TooLarge { limit: 4 }))));
        assert_eq!(status.end(), Some(BodyEnd::TooLarge));
        assert!(body.frame().await.is_none() && body.is_end_stream() && !status.is_gone());
        drop(body);
        assert!(status.is_gone());
    }

    #[tokio::test]
    async fn who_leaves_has_broken_it_off() {
        let (mut body, other) = received(FIVE, b"he", 0).await.body();
        assert_eq!(data(&mut body).await, "he");
        drop(other.client);
        assert!(matches!(body.frame().await, Some(Err(BodyError::Read(_)))));
        assert_eq!(body.status().broken().await, BodyEnd::BrokenOff);
    }

    #[tokio::test]
    async fn who_pauses_for_too_long_is_too_slow() {
        let (mut body, other) = received(FIVE, b"he", 0).await.bounded(5, Duration::from_millis(1));
        assert_eq!(data(&mut body).await, "he");
        assert!(matches!(body.frame().await, Some(Err(BodyError::TooSlow))));
        assert_eq!(body.status().broken().await, BodyEnd::TooSlow);
        assert_eq!(other.waits.waiting().0, 0);
    }

    /// It is reserved until it is taken again.
    #[tokio::test]
    async fn what_is_read_ahead_follows_what_was_read() {
        let (mut body, mut other) = received(FIVE, b"he", 100).await.body();
        let (first, reserved) = (data(&mut body).await, body.reserve(2).unwrap());
        assert!(body.reserve(99).is_none());
        body.read_ahead_from_now();
        body.unread(first, None, reserved);
        assert_eq!((body.size_hint().exact(), body.is_end_stream(), other.budget.held()), (Some(5), false, 2));
        other.client.write_all(b"llo").await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(other.budget.held(), 0);
    }

    #[tokio::test]
    async fn trailers_that_were_read_come_last() {
        let bytes = [&chunks(&["hello"])[..], b"0\r\nx-sum: 5\r\n\r\n"].concat();
        let (mut body, _other) = received(&format!("{CHUNKED}\r\nTrailer: x-sum"), &bytes, 0).await.body();
        let first = data(&mut body).await;
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        body.unread(first, Some(trailers), Reservation::default());
        assert!(!body.is_end_stream() && body.take_buffered().is_none());
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "5");
        assert_eq!(whole.to_bytes(), "hello");
    }

    #[tokio::test]
    async fn a_whole_one_gives_back_what_is_reserved_when_it_is_taken() {
        let budget = ByteBudget::new(100);
        let mut body = RequestBody::full(Bytes::from_static(b"hello"), budget.only_client().reserve(5).unwrap());
        assert_eq!((body.size_hint().exact(), budget.held(), body.is_end_stream()), (Some(5), 5, false));
        let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data == "hello")));
        assert_eq!((budget.held(), body.is_end_stream()), (0, true));
    }

    /// Else its connection could not be used again, and its client would not get the answer.
    #[tokio::test]
    async fn what_nobody_wants_is_read_all_the_same() {
        let (body, mut other) = received(FIVE, b"he", 0).await.body();
        drop(body);
        assert!(other.waits.discarding());
        other.client.write_all(b"llo").await.unwrap();
        settle().await;
        assert!(!other.waits.discarding());
    }
}

mod frames_ahead {
    use super::*;

    async fn next(ahead: &mut ReadAhead) -> Option<Result<String, BodyError>> {
        let frame = std::future::poll_fn(|context| ahead.poll_frame(context)).await?;
        Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
    }

    /// One frame, and as many more as there is memory for.
    #[tokio::test]
    async fn frames_are_reserved_but_for_one() {
        let all = ["a", "b", "c", "d", "e"];
        for frames in [0, 2, 100] {
            let bytes = chunks(&[&all[..], &[""]].concat());
            let (mut ahead, status, other) = received(CHUNKED, &bytes, frames * FRAME).await.read_ahead();
            settle().await;
            // Of the last one only its end is left to read.
            assert_eq!(other.budget.held(), frames.min(4) * FRAME, "{frames}");
            for expected in all {
                assert_eq!(next(&mut ahead).await.unwrap().unwrap(), expected, "{frames}");
            }
            assert!(next(&mut ahead).await.is_none());
            settle().await;
            assert_eq!((other.budget.held(), status.end()), (0, None), "{frames}");
        }
    }

    #[tokio::test]
    async fn what_is_left_is_known() {
        let (mut ahead, _, mut other) = received(FIVE, b"he", FRAME).await.read_ahead();
        assert_eq!(ahead.left().exact(), Some(5));
        assert_eq!(next(&mut ahead).await.unwrap().unwrap(), "he");
        assert_eq!(ahead.left().exact(), Some(3));
        other.client.write_all(b"llo").await.unwrap();
        assert_eq!(next(&mut ahead).await.unwrap().unwrap(), "llo");
        assert_eq!(ahead.left().exact(), Some(0));
    }

    /// Its guest may never read.
    #[tokio::test]
    async fn who_leaves_is_noticed_while_nobody_reads() {
        let (mut ahead, status, other) = received(FIVE, b"he", FRAME).await.read_ahead();
        drop(other.client);
        assert_eq!(status.broken().await, BodyEnd::BrokenOff);
        assert_eq!(next(&mut ahead).await.unwrap().unwrap(), "he");
        assert!(matches!(next(&mut ahead).await, Some(Err(BodyError::Read(_)))));
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_is_thrown_away() {
        let (ahead, _, mut other) = received(CHUNKED, &chunks(&["a", "b", "c"]), FRAME).await.read_ahead();
        settle().await;
        drop(ahead);
        settle().await;
        assert!(other.waits.discarding() && other.budget.held() == 0);
        other.client.write_all(&chunks(&["d", ""])).await.unwrap();
        settle().await;
        assert!(!other.waits.discarding());
    }
}
