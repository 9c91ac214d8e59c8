//! A body that its client waits to be asked for (`Expect: 100-continue`; RFC 9110, section 10.1.1).
//!
//! hyper sends the interim response 100 when the body is first polled, unless the final response has begun: then it sends none, and a client
//! that gets neither 100 nor the end of its answer waits for ever. So the body is polled when its guest first reads; and before the head of an answer whose
//! guest may still read it. A guest that has ended without reading has refused it, and so has the box in most of its refusals.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use http::{HeaderMap, Request, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::{
    body_end::BodyStatus,
    pace::Expecting,
    read_ahead::{Client, ReadAhead, discard},
};

/// What is shared by the body, wherever it is, and whoever answers.
#[derive(Debug, Clone)]
pub struct Expectation(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// `is_wanted`: somebody may still read it.
    Unasked { body: Box<Unasked>, is_wanted: bool },
    /// On its way to whoever will read it.
    Asked(ReadAhead),
    /// With who reads it, or nobody's.
    Gone,
}

/// A body that was not polled.
#[derive(Debug)]
pub(super) struct Unasked {
    pub incoming: Incoming,
    pub client: Box<Client>,
    pub status: BodyStatus,
    /// That of the connection, on whose thread it is read.
    runtime: Handle,
    _expecting: Expecting,
}

impl Unasked {
    /// hyper knows when this returns that the body is wanted.
    fn ask(mut self) -> ReadAhead {
        let first = Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()));
        let _runtime = self.runtime.enter();
        ReadAhead::start(self.incoming, self.client, self.status, first)
    }
}

/// Whether a client waits, as hyper sees it.
pub fn is_expected<B>(request: &Request<B>) -> bool {
    let last = |headers: &HeaderMap| {
        headers
            .get_all(header::EXPECT)
            .iter()
            .next_back()
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    };
    request.version() == Version::HTTP_11 && last(request.headers())
}

impl Expectation {
    /// In the context of the connection.
    pub(super) fn new(incoming: Incoming, client: Box<Client>, status: BodyStatus) -> Expectation {
        let expecting = client.waits.expect();
        let body = Unasked { incoming, client, status, runtime: Handle::current(), _expecting: expecting };
        Expectation(Arc::new(Mutex::new(State::Unasked { body: Box::new(body), is_wanted: true })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it as it is, if nobody has asked for it.
    pub(super) fn take_unasked(&self) -> Option<Box<Unasked>> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Unasked { body, .. } => Some(body),
            other => {
                *state = other;
                None
            }
        }
    }

    /// For who reads it now.
    pub(super) fn read(&self) -> Option<ReadAhead> {
        match std::mem::replace(&mut *self.state(), State::Gone) {
            State::Unasked { body, .. } => Some(body.ask()),
            State::Asked(ahead) => Some(ahead),
            State::Gone => None,
        }
    }

    /// Nobody will read it.
    pub(super) fn unwanted(&self) {
        let mut state = self.state();
        match &mut *state {
            State::Unasked { is_wanted, .. } => *is_wanted = false,
            State::Asked(_) => *state = State::Gone,
            State::Gone => {}
        }
    }

    /// Before the head of an answer whose guest runs on: what the guest may read is asked for, and hyper has seen that when this returns.
    pub async fn before_head(&self) {
        {
            let mut state = self.state();
            match std::mem::replace(&mut *state, State::Gone) {
                State::Unasked { body, is_wanted: true } => *state = State::Asked(body.ask()),
                unwanted @ State::Unasked { .. } => {
                    *state = unwanted;
                    return;
                }
                other => *state = other,
            }
        }
        // A connection reads before it takes an answer from here.
        tokio::task::yield_now().await;
    }

    /// Together with the head. Whether the client was never asked: it may send its body or leave it out, so nothing else can follow on its connection.
    pub fn end(&self) -> bool {
        let Some(Unasked { incoming, client, .. }) = self.take_unasked().map(|body| *body) else { return false };
        // It runs when the head is written: then no 100 is sent.
        tokio::spawn(discard(incoming, client.waits.discard()));
        true
    }
}
