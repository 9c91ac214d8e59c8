//! Clients that wait for 100 Continue.

use super::*;

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

async fn expected() -> (RequestBody, Expectation, Other) {
    let (body, other) = received(FIVE_EXPECTED, b"", FRAME).await.body();
    let body = body.expected();
    let expectation = body.expectation().unwrap();
    assert!(other.waits.expecting() && body.size_hint().exact() == Some(5));
    (body, expectation, other)
}

#[test]
fn the_last_value_counts_and_only_on_http1() {
    let expects = |values: &[&'static str], version: Version| {
        let mut request = Request::new(());
        *request.version_mut() = version;
        let headers: &mut HeaderMap = request.headers_mut();
        for value in values {
            headers.append(header::EXPECT, HeaderValue::from_static(value));
        }
        is_expected(&request)
    };
    for values in [&["100-continue"][..], &["100-Continue"], &["x", "100-continue"]] {
        assert!(expects(values, Version::HTTP_11), "{values:?}");
        assert!(!expects(values, Version::HTTP_10) && !expects(values, Version::HTTP_2), "{values:?}");
    }
    for values in [&[][..], &["100-continue", "x"], &["100"]] {
        assert!(!expects(values, Version::HTTP_11), "{values:?}");
    }
}

#[tokio::test]
async fn the_client_is_asked_by_who_reads_first() {
    let (mut body, expectation, mut other) = expected().await;
    assert_eq!(other.got().await, "");
    assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(other.got().await, CONTINUE);
    assert!(!other.waits.expecting());
    other.client.write_all(b"hello").await.unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    assert!(!expectation.end(), "it was asked");
}

#[tokio::test]
async fn what_is_read_before_admission_is_asked_for() {
    let (mut body, expectation, mut other) = expected().await;
    other.client.write_all(b"hello").await.unwrap();
    assert_eq!(data(&mut body).await, "hello");
    assert_eq!(other.got().await, CONTINUE);
    assert!(!expectation.end() && body.expectation().is_none());
}

/// A guest that runs on may read later.
#[tokio::test]
async fn what_may_still_be_read_is_asked_for_before_the_answer() {
    let (body, expectation, mut other) = expected().await;
    expectation.before_head().await;
    assert_eq!(other.got().await, CONTINUE);
    expectation.before_head().await;
    assert!(!expectation.end());
    other.client.write_all(b"hello").await.unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn what_nobody_will_read_is_not_asked_for() {
    let (body, expectation, mut other) = expected().await;
    drop(body);
    expectation.before_head().await;
    assert!(other.waits.expecting() && other.got().await.is_empty());
    assert!(expectation.end() && !expectation.end(), "it was never asked, which is said once");
    assert!(!other.waits.expecting() && other.waits.discarding());
}

#[tokio::test]
async fn what_was_refused_cannot_be_read() {
    let (mut body, expectation, _other) = expected().await;
    assert!(expectation.end());
    let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
    assert!(matches!(frame, Some(Err(BodyError::TooSlow))), "{frame:?}");
    assert!(expectation.read().is_none());
}

/// It was asked for, and its guest ends without reading.
#[tokio::test]
async fn what_was_asked_for_and_is_not_wanted_is_thrown_away() {
    let (body, expectation, mut other) = expected().await;
    expectation.before_head().await;
    drop(body);
    settle().await;
    assert!(other.waits.discarding());
    other.client.write_all(b"hello").await.unwrap();
    settle().await;
    assert!(!other.waits.discarding() && expectation.read().is_none());
}
