//! The memory that requests and answers hold outside of invocations: before a permit, and after it was given back.
//!
//! It is a fixed share of the box's memory, divided among the four things that hold some. Each holder reserves first; who gets nothing
//! is refused or waits. So at any number of connections the sum is known, and guests' memory is what is left ([`crate::memory`]).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What permits of the semaphore count: a permit is a `u32`, and bodies may have more bytes than that.
const UNIT: u64 = 1 << 10;

/// Memory that is given out in advance, in steps of 1 KiB.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    total: u64,
}

/// Of the same size; for settings.
impl PartialEq for ByteBudget {
    fn eq(&self, other: &Self) -> bool {
        self.total == other.total
    }
}

/// Memory that its holder may use; given back when this is dropped.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

/// What accounts for an answer until it is delivered: a [`Reservation`], or what its invocation held.
pub type Hold = Box<dyn std::any::Any + Send + Sync>;

/// `bytes` as permits.
pub fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl ByteBudget {
    pub fn new(bytes: u64) -> ByteBudget {
        let permits = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        ByteBudget { free: Arc::new(Semaphore::new(permits)), total: permits as u64 * UNIT }
    }

    /// `bytes`, if they are free and nobody waits for some.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        if bytes == 0 {
            return Some(Reservation::default());
        }
        self.free.clone().try_acquire_many_owned(permits(bytes)).ok().map(|permit| Reservation(Some(permit)))
    }

    /// For those who wait: its permits are of [`permits`].
    pub fn semaphore(&self) -> Arc<Semaphore> {
        self.free.clone()
    }

    /// All there is, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn held(&self) -> u64 {
        self.total - self.free.available_permits() as u64 * UNIT
    }
}

impl From<OwnedSemaphorePermit> for Reservation {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Reservation(Some(permit))
    }
}

impl Reservation {
    /// Adds what was reserved of the same budget.
    pub fn add(&mut self, more: Reservation) {
        match (&mut self.0, more.0) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let Some(held) = &mut self.0 else { return };
        let surplus = held.num_permits().saturating_sub(permits(bytes) as usize);
        drop(held.split(surplus));
    }

    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |held| held.num_permits() as u64 * UNIT)
    }
}

/// The share of the box's memory that requests and answers may hold outside of invocations: a tenth, as much as lies between the default
/// marks at which growth waits and at which invocations are evicted.
const SHARE: u64 = 10;
/// Also a very small box serves some connections.
const LEAST: u64 = 4 << 20;
/// The same for idle connections of functions to others, where functions may have any: 8 at least, 256 at most.
const OUTBOUND_SHARE: u64 = 256;
const LEAST_OUTBOUND: u64 = 512 << 10;
const MOST_OUTBOUND: u64 = 16 << 20;

/// What a connection may hold without asking: its task, buffers of hyper's, one frame of a body in each direction, the kernel's socket.
pub const CONNECTION: u64 = 32 << 10;
/// What an HTTP/2 connection may hold beyond that: its receive window, tables of header compression, a header block in parts.
pub const HTTP2_CONNECTION: u64 = 128 << 10;
/// What one HTTP/2 request may hold: its task, its small head, one frame of a body in each direction.
pub const HTTP2_STREAM: u64 = 40 << 10;
/// A head up to this size is included in what its connection or stream may hold.
pub const SMALL_HEAD: u64 = 4 << 10;

/// The budgets of one box. Each is apart, so that who fills one does not take from the others: without a body or a large head, requests on
/// HTTP/1 need no more than their connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Budgets {
    /// Connections at once: each may hold [`CONNECTION`].
    pub connections: usize,
    /// HTTP/2 connections and streams, and heads that are not small.
    pub heads: ByteBudget,
    /// Request bodies that are read ahead.
    pub bodies: ByteBudget,
    /// Answers that are not delivered yet although their permit was given back.
    pub answers: ByteBudget,
    /// Idle connections of functions to others.
    pub outbound: ByteBudget,
}

impl Budgets {
    /// For a box with `memory` bytes, and `connections` at most.
    pub fn new(memory: u64, connections: usize) -> Budgets {
        let total = (memory / SHARE).max(LEAST);
        let connections = connections.min(usize::try_from(total / 2 / CONNECTION).unwrap_or(usize::MAX));
        Budgets {
            connections,
            heads: ByteBudget::new(total / 4),
            bodies: ByteBudget::new(total / 8),
            answers: ByteBudget::new(total / 8),
            outbound: ByteBudget::new(0),
        }
    }

    /// With a budget for idle connections of functions to others, beside the rest, in a box with `memory` bytes.
    pub fn with_outbound(mut self, memory: u64) -> Budgets {
        self.outbound = ByteBudget::new((memory / OUTBOUND_SHARE).clamp(LEAST_OUTBOUND, MOST_OUTBOUND));
        self
    }

    /// What they can still take, with so many connections.
    pub fn free(&self, connections: u64) -> u64 {
        let held = connections * CONNECTION + self.heads.held() + self.bodies.held() + self.answers.held();
        let held = held + self.outbound.held();
        self.total().saturating_sub(held)
    }

    /// The most that requests and answers can hold, in bytes.
    pub fn total(&self) -> u64 {
        let shared = self.heads.total() + self.bodies.total() + self.answers.total();
        self.connections as u64 * CONNECTION + shared + self.outbound.total()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_reserved_comes_back() {
        let budget = ByteBudget::new(64 << 10);
        let mut first = budget.reserve(40 << 10).unwrap();
        assert!(budget.reserve(25 << 10).is_none());
        first.add(budget.reserve(1).unwrap());
        assert_eq!((first.bytes(), budget.held()), (41 << 10, 41 << 10));
        first.shrink_to(1);
        assert_eq!((first.bytes(), budget.held()), (1 << 10, 1 << 10));
        first.shrink_to(5 << 10);
        assert_eq!(first.bytes(), 1 << 10);
        let mut nothing = budget.reserve(0).unwrap();
        nothing.add(first);
        drop(nothing);
        assert_eq!(budget.held(), 0);
    }

    proptest! {
        #[test]
        fn the_parts_are_never_more_than_the_whole(memory in 64 * MIB..1 << 40, connections in 1_usize..1_000_000) {
            let budgets = Budgets::new(memory, connections);
            prop_assert!(budgets.total() <= (memory / SHARE).max(LEAST));
            prop_assert!(budgets.connections >= 1 && budgets.connections <= connections);
            prop_assert!(budgets.bodies.total() >= 256 << 10);
        }
    }
}
