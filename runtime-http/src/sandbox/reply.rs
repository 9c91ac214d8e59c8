//! The way back from a guest to whoever waits for its answer.
//!
//! Each invocation ends with one [`Outcome`]. An answer that is whole comes together with it. One that begins before the guest has ended comes
//! first, and the outcome follows by a channel of its own: only that tells whether what was streamed is complete.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use wasmtime_wasi_http::WasiBody;

use crate::{
    exchange::budget::Hold,
    invocation::{CgroupTimes, Outcome},
};

/// A whole answer of a guest that has ended.
#[derive(Debug)]
pub enum Answer {
    /// A command's output.
    Output(Bytes),
    /// The response of a wasi:http guest.
    Response { head: http::response::Parts, frames: Vec<Frame<Bytes>> },
}

impl Answer {
    /// Of its body.
    pub fn bytes(&self) -> u64 {
        match self {
            Answer::Output(output) => output.len() as u64,
            Answer::Response { frames, .. } => {
                frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum()
            }
        }
    }
}

/// The beginning of an answer whose guest still runs.
#[derive(Debug)]
pub enum Stream {
    /// A command's output so far; the rest follows.
    Output { first: Bytes, rest: mpsc::Receiver<Bytes> },
    /// A response whose body is still written by its guest.
    Response(http::Response<WasiBody>),
}

/// What comes back.
#[derive(Debug)]
pub enum Reply {
    /// The guest has ended; an answer is there unless the outcome has a failure.
    Ended { outcome: Outcome, answer: Option<Answer>, hold: Option<Hold> },
    Streaming {
        stream: Stream,
        /// `None` without cgroups.
        cgroup: Option<CgroupTimes>,
        /// Comes after the stream's end. If it never does, the worker failed.
        outcome: oneshot::Receiver<(Outcome, Option<Hold>)>,
    },
}

/// The worker's end. Clones are of the same reply.
#[derive(Debug, Clone)]
pub struct ReplySender(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    cgroup: Option<CgroupTimes>,
    channel: Channel,
}

#[derive(Debug)]
enum Channel {
    Unanswered(oneshot::Sender<Reply>),
    Streaming(oneshot::Sender<(Outcome, Option<Hold>)>),
    Ended,
}

/// A channel for one reply. It closes without one only if the worker fails.
pub fn reply() -> (ReplySender, oneshot::Receiver<Reply>) {
    let (sender, receiver) = oneshot::channel();
    let state = State { cgroup: None, channel: Channel::Unanswered(sender) };
    (ReplySender(Arc::new(Mutex::new(state))), receiver)
}

impl ReplySender {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the invocation's cgroup has cost.
    pub fn set_cgroup(&self, times: Option<CgroupTimes>) {
        self.state().cgroup = times;
    }

    /// What was set last.
    pub fn cgroup(&self) -> Option<CgroupTimes> {
        self.state().cgroup
    }

    /// Whether the answer has begun.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state().channel, Channel::Streaming(_))
    }

    /// Begins the answer, if it has not begun.
    pub fn stream(&self, stream: Stream) {
        let mut state = self.state();
        let cgroup = state.cgroup;
        let (ending, outcome) = oneshot::channel();
        match std::mem::replace(&mut state.channel, Channel::Ended) {
            Channel::Unanswered(sender) => {
                state.channel = Channel::Streaming(ending);
                drop(state);
                // A receiver that is gone is a client that is gone: the cancel token tells the worker.
                let _ = sender.send(Reply::Streaming { stream, cgroup, outcome });
            }
            other => state.channel = other,
        }
    }

    /// The guest has ended. `hold` accounts for what of the answer is not delivered yet.
    pub fn end(&self, outcome: Outcome, answer: Option<Answer>, hold: Option<Hold>) {
        let channel = std::mem::replace(&mut self.state().channel, Channel::Ended);
        // Nobody receives it if the client is gone.
        match channel {
            Channel::Unanswered(sender) => drop(sender.send(Reply::Ended { outcome, answer, hold })),
            Channel::Streaming(sender) => drop(sender.send((outcome, hold))),
            Channel::Ended => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Failure;

    fn failed() -> Outcome {
        Outcome { failure: Some(Failure::Evicted), ..Outcome::default() }
    }

    #[test]
    fn a_whole_answer_comes_with_its_outcome() {
        let (sender, mut receiver) = reply();
        sender.end(Outcome::default(), Some(Answer::Output(Bytes::from_static(b"x"))), None);
        let Ok(Reply::Ended { outcome, answer: Some(Answer::Output(output)), .. }) = receiver.try_recv() else {
            panic!("no answer")
        };
        assert_eq!((outcome.failure, &output[..]), (None, &b"x"[..]));
    }

    #[test]
    fn an_outcome_follows_what_was_streamed_and_a_second_answer_is_none() {
        let (sender, mut receiver) = reply();
        let stream = || Stream::Output { first: Bytes::new(), rest: mpsc::channel(1).1 };
        sender.stream(stream());
        assert!(sender.is_streaming());
        sender.stream(stream());
        let Ok(Reply::Streaming { mut outcome, .. }) = receiver.try_recv() else { panic!("no stream") };
        sender.end(failed(), None, None);
        assert_eq!(outcome.try_recv().unwrap().0.failure, Some(Failure::Evicted));
    }

    #[test]
    fn a_worker_that_fails_closes_the_channel() {
        let (sender, mut receiver) = reply();
        drop(sender);
        assert!(receiver.try_recv().is_err());
        let (sender, mut receiver) = reply();
        sender.stream(Stream::Output { first: Bytes::new(), rest: mpsc::channel(1).1 });
        drop(sender);
        let Ok(Reply::Streaming { mut outcome, .. }) = receiver.try_recv() else { panic!("no stream") };
        assert!(outcome.try_recv().is_err());
    }
}
