//! The memory that requests and answers hold outside of invocations: before a permit, and after it was given back.
//!
//! It is a fixed share of the box's memory, divided among the four things that hold some. Each holder reserves first; who gets nothing
//! is refused or waits. So at any number of connections the sum is known, and guests' memory is what is left ([`crate::memory`]).
//!
//! What clients hold is reserved through a [`ClientBudget`], so that none takes all of it: as long as most is free, each has what it wants;
//! the less is free, the less may one of them hold.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Memory that is given out in advance, in bytes.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    held: AtomicU64,
    total: u64,
}

/// Of the same size; for settings.
impl PartialEq for ByteBudget {
    fn eq(&self, other: &Self) -> bool {
        self.total() == other.total()
    }
}

/// How many times as much as it leaves free one client may hold: alone two thirds of a budget, beside another that takes all it can get two
/// fifths. So who is alone, as a proxy is, has most of it; and there is always some for another one.
const TIMES_FREE: u64 = 2;

/// One client's access to a budget that it shares with others (T. Choudhury, E. L. Hahne: Dynamic queue length thresholds for shared-memory
/// packet switches, 1998). Clones are of the same client.
#[derive(Debug, Clone)]
pub struct ClientBudget(Arc<Client>);

#[derive(Debug)]
struct Client {
    /// Never less than what it holds; more while something is refused.
    held: AtomicU64,
    is_alone: bool,
    budget: ByteBudget,
}

/// Memory that its holder may use; given back when this is dropped.
#[derive(Debug, Default)]
pub struct Reservation {
    bytes: u64,
    /// `None` without bytes.
    of: Option<ClientBudget>,
}

/// What accounts for an answer until it is delivered: a [`Reservation`], or what its invocation held.
pub type Hold = Box<dyn std::any::Any + Send + Sync>;

impl ByteBudget {
    pub fn new(total: u64) -> ByteBudget {
        ByteBudget(Arc::new(Pool { held: AtomicU64::new(0), total }))
    }

    /// For a client that holds nothing yet.
    pub fn client(&self) -> ClientBudget {
        self.client_who(false)
    }

    /// For one that shares it with nobody, and may have all of it.
    pub fn only_client(&self) -> ClientBudget {
        self.client_who(true)
    }

    fn client_who(&self, is_alone: bool) -> ClientBudget {
        ClientBudget(Arc::new(Client { held: AtomicU64::new(0), is_alone, budget: self.clone() }))
    }

    /// Takes `bytes` if they are there, and what is left free then is `enough`.
    fn take(&self, bytes: u64, enough: impl Fn(u64) -> bool) -> bool {
        let Pool { held, total } = &*self.0;
        let taken = |held: u64| held.checked_add(bytes).filter(|held| total.checked_sub(*held).is_some_and(&enough));
        held.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    /// All there is, in bytes.
    pub fn total(&self) -> u64 {
        self.0.total
    }

    pub fn held(&self) -> u64 {
        self.0.held.load(Relaxed)
    }
}

impl ClientBudget {
    /// `bytes`, if they are free and not more than this client's part of them.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        if bytes == 0 {
            return Some(Reservation::default());
        }
        let Client { held, is_alone, budget } = &*self.0;
        // First its own: so what is looked at below is never too little, whatever others of this client's do meanwhile.
        let own = held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if budget.take(bytes, |free| *is_alone || own <= free.saturating_mul(TIMES_FREE)) {
            return Some(Reservation { bytes, of: Some(self.clone()) });
        }
        held.fetch_sub(bytes, Relaxed);
        None
    }
}

impl Reservation {
    /// Adds what was reserved of the same budget by the same client.
    pub fn add(&mut self, mut more: Reservation) {
        if self.of.is_none() {
            *self = more;
        } else {
            // Nothing is left in it that would be given back.
            self.bytes += std::mem::take(&mut more.bytes);
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(ClientBudget(client)) = &self.of {
            client.budget.0.held.fetch_sub(self.bytes, Relaxed);
            client.held.fetch_sub(self.bytes, Relaxed);
        }
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

/// One client's access to those that it shares with others.
#[derive(Debug)]
pub struct ClientBudgets {
    pub heads: ClientBudget,
    pub bodies: ClientBudget,
    pub answers: ClientBudget,
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

    /// For a client that holds nothing yet.
    pub fn client(&self) -> Arc<ClientBudgets> {
        let Budgets { heads, bodies, answers, .. } = self;
        Arc::new(ClientBudgets { heads: heads.client(), bodies: bodies.client(), answers: answers.client() })
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
mod tests;
