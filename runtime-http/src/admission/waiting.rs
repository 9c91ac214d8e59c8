//! Who waits: a queue for each function, and the orders over the queues. It does not decide who starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    share::{Share, ShareId},
    state::{Decision, Refused},
};

/// A place in the queue of one function. Later places have larger numbers, among all functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub(super) share: ShareId,
    number: u64,
}

/// A request that waits, which `W` identifies.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub share: Arc<Share>,
    pub units: u64,
    pub waiter: W,
}

/// All who wait.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    queues: BTreeMap<ShareId, Queue<W>>,
    /// The queues in the order in which functions have their turn.
    turns: BTreeSet<Turn>,
    /// The queues by their units.
    lengths: BTreeSet<Length>,
    units: u64,
    invocations: usize,
    next_number: u64,
}

/// Never empty. Every change of it, and of its share's units in flight, is followed by [`Waiting::reorder`].
#[derive(Debug)]
struct Queue<W> {
    share: Arc<Share>,
    by_number: BTreeMap<u64, Waiter<W>>,
    units: u64,
    /// As they stand in `turns` and `lengths`.
    turn: Turn,
    length: Length,
}

/// Fewest units in flight first; then who waits longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    in_flight: u64,
    number: u64,
    /// The head's.
    units: u64,
    share: ShareId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Length {
    units: u64,
    share: ShareId,
}

/// By how much the depth is exceeded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess {
    pub units: u64,
    pub invocations: usize,
}

impl Excess {
    /// Whether it is gone when so much less waits: one of both is enough.
    pub fn is_gone_after(self, units: u64, invocations: usize) -> bool {
        units >= self.units || invocations >= self.invocations
    }
}

impl<W> Waiter<W> {
    pub fn refused(self, refused: Refused) -> Decision<W> {
        Decision { waiter: self.waiter, share: self.share, units: self.units, result: Err(refused) }
    }
}

impl<W> Waiting<W> {
    pub fn new() -> Self {
        Waiting {
            queues: BTreeMap::new(),
            turns: BTreeSet::new(),
            lengths: BTreeSet::new(),
            units: 0,
            invocations: 0,
            next_number: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub fn units(&self) -> u64 {
        self.units
    }

    pub fn invocations(&self) -> usize {
        self.invocations
    }

    pub fn has(&self, share: &Share) -> bool {
        self.queues.contains_key(&share.id())
    }

    /// Puts a request at the end of its function's queue.
    pub fn push(&mut self, waiter: Waiter<W>) -> Ticket {
        let ticket = Ticket { share: waiter.share.id(), number: self.next_number };
        self.next_number += 1;
        self.units += waiter.units;
        self.invocations += 1;
        let queue = self.queues.entry(ticket.share).or_insert_with(|| Queue {
            share: waiter.share.clone(),
            by_number: BTreeMap::new(),
            units: 0,
            turn: Turn { in_flight: 0, number: ticket.number, units: 0, share: ticket.share },
            length: Length { units: 0, share: ticket.share },
        });
        queue.units += waiter.units;
        queue.by_number.insert(ticket.number, waiter);
        self.reorder(ticket.share);
        ticket
    }

    /// Takes a request out, wherever it stands; `None` if it does not wait any more.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Waiter<W>> {
        let queue = self.queues.get_mut(&ticket.share)?;
        let waiter = queue.by_number.remove(&ticket.number)?;
        queue.units -= waiter.units;
        self.units -= waiter.units;
        self.invocations -= 1;
        self.reorder(ticket.share);
        Some(waiter)
    }

    /// Puts a function's queue where it belongs in the orders.
    pub fn reorder(&mut self, share: ShareId) {
        let Some(queue) = self.queues.get_mut(&share) else { return };
        self.turns.remove(&queue.turn);
        self.lengths.remove(&queue.length);
        let Some((number, head)) = queue.by_number.first_key_value() else {
            self.queues.remove(&share);
            return;
        };
        queue.turn = Turn { in_flight: queue.share.units(), number: *number, units: head.units, share };
        queue.length = Length { units: queue.units, share };
        self.turns.insert(queue.turn);
        self.lengths.insert(queue.length);
    }

    /// The first of each function, with its units, in the order of turns.
    pub fn heads(&self) -> impl Iterator<Item = (Ticket, u64)> {
        self.turns.iter().map(|turn| (Ticket { share: turn.share, number: turn.number }, turn.units))
    }

    /// Who must go so that one of `units` of `share` can wait without `excess`: the latest of the function that has most waiting, as long
    /// as that function still has as much waiting as `share` then has. `None` if there is no such function.
    pub fn displaced_by(&self, share: &Share, units: u64, excess: Excess) -> Option<Vec<Ticket>> {
        let own = self.queues.get(&share.id()).map_or(0, |queue| queue.units) + units;
        let longest = self.queues.get(&self.lengths.last()?.share)?;
        let spare = longest.units.checked_sub(own)?;
        let (mut displaced, mut freed) = (Vec::new(), 0);
        for (number, waiter) in longest.by_number.iter().rev() {
            freed += waiter.units;
            if freed > spare {
                return None;
            }
            displaced.push(Ticket { share: longest.share.id(), number: *number });
            if excess.is_gone_after(freed, displaced.len()) {
                return Some(displaced);
            }
        }
        None
    }

    /// Who wants more than `units`.
    pub fn larger_than(&self, units: u64) -> Vec<Ticket> {
        let all =
            self.queues.iter().flat_map(|(share, queue)| queue.by_number.iter().map(move |entry| (*share, entry)));
        let larger = all.filter(|(_, (_, waiter))| waiter.units > units);
        larger.map(|(share, (number, _))| Ticket { share, number: *number }).collect()
    }

    /// Takes everybody out.
    pub fn take_all(&mut self) -> impl Iterator<Item = Waiter<W>> + use<W> {
        let next_number = self.next_number;
        let all = std::mem::replace(self, Waiting { next_number, ..Waiting::new() });
        all.queues.into_values().flat_map(|queue| queue.by_number.into_values())
    }
}
