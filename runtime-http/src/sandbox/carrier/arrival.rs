//! A request that waits for an instance to take it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Carrier, Joining};

/// Whether a request has joined an instance; else it again.
pub enum Joined {
    Yes,
    /// There is no place.
    Full(Box<Joining>),
    /// There is a place, for those with other limits.
    Unlike(Box<Joining>),
}

/// What is in an instance's queue.
pub(super) struct Arrival {
    pub ticket: u64,
    pub joining: Box<Joining>,
    /// Gives it back; dropped when it is in.
    pub back: oneshot::Sender<Box<Joining>>,
}

/// Its place there. Nobody waits for it any more when this is dropped.
pub(super) struct Waiting {
    pub carrier: Arc<Carrier>,
    pub ticket: u64,
}

impl Waiting {
    /// Takes it back, if it was not taken.
    pub fn withdraw(&self) -> Option<Box<Joining>> {
        let mut state = self.carrier.state();
        let position = state.arrived.iter().position(|arrival| arrival.ticket == self.ticket)?;
        // The instance did not take it at once. It was woken for it, so it says when it takes others.
        state.is_receptive = false;
        state.places.give_back();
        state.arrived.remove(position).map(|arrival| arrival.joining)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.withdraw());
        self.carrier.end_if_left();
    }
}
