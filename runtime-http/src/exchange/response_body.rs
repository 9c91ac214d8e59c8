//! A response's body on its way to the client: whole, or streamed while its guest runs; then done.
//!
//! Its length is what it says here, never what its guest says ([`super::framing`]). A streamed one ends with an error, so that it is broken off,
//! if its guest failed meanwhile or sent another length than it announced.

mod charged;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{
    mpsc,
    oneshot::{self, error::TryRecvError},
};
use wasmtime_wasi_http::WasiBody;

use self::charged::{Charged, LateHold};
use super::{
    budget::Hold,
    framing::{BadFraming, Length},
    trailers::Passing,
};
use crate::{
    access_log::Record,
    invocation::{CancelOnDrop, CancelReason, CancelToken, Failure, Outcome},
};

/// A response's body.
pub struct ResponseBody(State);

enum State {
    Whole(Bytes),
    /// `chunked`: since trailers follow it.
    Frames {
        frames: std::vec::IntoIter<Frame<Bytes>>,
        left: u64,
        chunked: bool,
    },
    Streaming(Box<Streaming>),
    /// Of the server's own, as they come, with what is held for them.
    Pieces {
        pieces: mpsc::Receiver<Bytes>,
        _hold: Hold,
    },
    Done,
}

struct Streaming {
    source: Source,
    by: Streamed,
    length: Length,
    /// The end of an announced length: passed on when the guest has said that it was the end.
    last: Option<Frame<Bytes>>,
    /// What accounts for frames that are not sent when the invocation's account is closed: it comes with the guest's end.
    hold: Arc<LateHold>,
    /// Passed on after that.
    trailers: Option<Frame<Bytes>>,
    /// Whether the guest's end was seen, and was well.
    ended: bool,
    /// Bytes that the guest may send in all, and may still send.
    limit: u64,
    allowed: u64,
}

/// What a guest writes while it is sent.
pub enum Source {
    /// A command's output.
    Output { first: Option<Bytes>, rest: mpsc::Receiver<Bytes> },
    /// A wasi:http guest's body, the length that it announced, and what passes of its trailers.
    Guest { body: WasiBody, announced: Option<u64>, passing: Passing },
}

/// The invocation behind a response that has begun before it ended.
pub struct Streamed {
    /// Kept until the last byte is sent.
    pub record: Arc<Record>,
    pub cancel: CancelToken,
    /// Cancels the invocation if the client leaves before the end.
    pub on_drop: CancelOnDrop,
    /// Tells whether what was streamed is whole. What accounts for the rest of it is in there, too, until then.
    pub outcome: oneshot::Receiver<(Outcome, Option<Hold>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum Aborted {
    #[error("the function failed while its answer was sent: {0}")]
    Failed(Failure),
    #[error("the worker failed while the answer was sent")]
    Worker,
    #[error("the function broke its response off")]
    Guest(wasmtime_wasi_http::Error),
}

type NextFrame = Option<Result<Frame<Bytes>, Aborted>>;

fn length_of(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, Bytes::len) as u64
}

impl ResponseBody {
    pub fn full(bytes: Bytes) -> Self {
        ResponseBody::from(if bytes.is_empty() { State::Done } else { State::Whole(bytes) })
    }

    pub fn empty() -> Self {
        ResponseBody::from(State::Done)
    }

    /// With its length, and whether trailers follow it.
    pub fn frames(frames: Vec<Frame<Bytes>>, passing: &Passing) -> (Self, u64, bool) {
        let (mut data, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(Frame::is_data);
        let left = data.iter().map(length_of).sum();
        let trailers = others.into_iter().filter_map(|frame| frame.into_trailers().ok()).next_back();
        let trailers = trailers.and_then(|trailers| passing.filter(trailers));
        let has_trailers = trailers.is_some();
        data.extend(trailers.map(Frame::trailers));
        let chunked = has_trailers && passing.needs_chunks();
        (ResponseBody::from(State::Frames { frames: data.into_iter(), left, chunked }), left, has_trailers)
    }

    /// What the server itself has to say, as long as somebody sends it. `hold` is kept until then.
    pub fn pieces(pieces: mpsc::Receiver<Bytes>, hold: Hold) -> Self {
        ResponseBody::from(State::Pieces { pieces, _hold: hold })
    }

    /// With what accounts for a body that is not streamed until its last byte is sent.
    #[must_use]
    pub fn held(self, hold: Option<Hold>) -> Self {
        let Some(hold) = hold else { return self };
        let hold = Arc::new(LateHold::from(hold));
        ResponseBody(match self.0 {
            State::Whole(bytes) => State::Whole(Charged::bytes(bytes, &hold)),
            State::Frames { frames, left, chunked } => {
                let frames: Vec<_> = frames.map(|frame| Charged::frame(frame, &hold)).collect();
                State::Frames { frames: frames.into_iter(), left, chunked }
            }
            other => other,
        })
    }

    /// Of at most `limit` bytes.
    pub fn streaming(source: Source, by: Streamed, limit: u64) -> Self {
        let announced = match &source {
            Source::Guest { announced, .. } => *announced,
            Source::Output { .. } => None,
        };
        let length = Length::new(announced);
        ResponseBody::from(State::Streaming(Box::new(Streaming {
            source,
            by,
            length,
            last: None,
            hold: Arc::default(),
            trailers: None,
            ended: false,
            limit,
            allowed: limit,
        })))
    }
}

impl From<State> for ResponseBody {
    fn from(state: State) -> Self {
        ResponseBody(state)
    }
}

impl Source {
    fn needs_chunks(&self) -> bool {
        matches!(self, Source::Guest { passing, .. } if passing.needs_chunks())
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<NextFrame> {
        match self {
            Source::Output { first, rest } => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => rest.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            },
            Source::Guest { body, .. } => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Aborted::Guest)))
            }
        }
    }
}

impl From<BadFraming> for Failure {
    fn from(error: BadFraming) -> Self {
        Failure::NoResponse { reason: error.to_string() }
    }
}

impl Streaming {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<NextFrame> {
        while !self.ended {
            match ready!(self.source.poll_frame(context)) {
                Some(Ok(frame)) if frame.is_data() => {
                    self.sends(length_of(&frame))?;
                    let frame = Charged::frame(frame, &self.hold);
                    if self.length.left() != Some(0) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    // Empty ones may follow it.
                    if length_of(&frame) > 0 {
                        self.last = Some(frame);
                    }
                }
                // Who sends them asks for no end any more.
                Some(Ok(trailers)) => {
                    if let (Source::Guest { passing, .. }, Ok(trailers)) = (&self.source, trailers.into_trailers()) {
                        self.trailers = passing.filter(trailers).map(Frame::trailers);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let hold = ready!(self.poll_end(context))?;
                    self.ended = true;
                    if let Some(hold) = hold {
                        // It comes once.
                        let _ = self.hold.set(hold);
                    }
                }
            }
        }
        Poll::Ready(self.last.take().or_else(|| self.trailers.take()).map(Ok))
    }

    /// Before a frame is passed on.
    fn sends(&mut self, bytes: u64) -> Result<(), Aborted> {
        self.length.add(bytes).map_err(|error| self.abort(error.into(), CancelReason::ClientGone))?;
        match self.allowed.checked_sub(bytes) {
            Some(left) => {
                self.allowed = left;
                Ok(())
            }
            None => Err(self.abort(Failure::OutputLimit { limit: self.limit }, CancelReason::OutputLimit)),
        }
    }

    /// The client's side ends it.
    fn abort(&mut self, failure: Failure, reason: CancelReason) -> Aborted {
        self.by.cancel.cancel(reason);
        self.by.on_drop.release();
        self.by.record.aborted(failure.clone());
        Aborted::Failed(failure)
    }

    /// The guest's streams are closed: whether what was sent is whole, and what accounts for the rest of it.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Hold>, Aborted>> {
        let outcome = match &self.source {
            // A guest may finish its body and run on. When it fails before, its outcome is there before its body is closed.
            Source::Guest { .. } => match self.by.outcome.try_recv() {
                Ok(ended) => Ok(ended),
                Err(TryRecvError::Empty) => {
                    // What accounts for the rest comes to where this is kept, when the guest has ended.
                    let outcome = std::mem::replace(&mut self.by.outcome, oneshot::channel().1);
                    Ok((Outcome::default(), Some(Box::new(outcome) as Hold)))
                }
                Err(TryRecvError::Closed) => Err(Aborted::Worker),
            },
            Source::Output { .. } => {
                let outcome = ready!(Pin::new(&mut self.by.outcome).poll(context));
                outcome.map_err(|_| Aborted::Worker)
            }
        };
        self.by.on_drop.release();
        let result = match outcome {
            Ok((Outcome { failure: Some(failure), .. }, _)) => Err(Aborted::Failed(failure)),
            Ok((Outcome { failure: None, .. }, hold)) => self.length.end().map(|()| hold).map_err(|error| {
                let failure = Failure::from(error);
                self.by.record.aborted(failure.clone());
                Aborted::Failed(failure)
            }),
            Err(aborted) => Err(aborted),
        };
        Poll::Ready(result)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<NextFrame> {
        let frame = match &mut self.0 {
            State::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            State::Frames { frames, left, .. } => match frames.next() {
                Some(frame) => {
                    *left -= length_of(&frame);
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => None,
            },
            State::Streaming(streaming) => match ready!(streaming.poll_frame(context)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                last => last,
            },
            State::Pieces { pieces, .. } => match ready!(pieces.poll_recv(context)) {
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => None,
            },
            State::Done => None,
        };
        self.0 = State::Done;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Frames { frames, .. } => frames.len() == 0,
            // Only the end itself tells whether it is whole.
            State::Whole(_) | State::Streaming(_) | State::Pieces { .. } => false,
            State::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            State::Frames { chunked: true, .. } | State::Pieces { .. } => SizeHint::default(),
            State::Frames { left, .. } => SizeHint::with_exact(*left),
            State::Streaming(streaming) if streaming.source.needs_chunks() => SizeHint::default(),
            State::Streaming(streaming) => {
                let last = streaming.last.as_ref().map_or(0, length_of);
                // A length of zero would end the response with its head, before the guest has ended: whether that is true is not known then.
                let left = streaming.length.left().filter(|left| *left > 0 || last > 0);
                left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + last))
            }
            State::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests;
