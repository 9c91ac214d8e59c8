//! Who compiles next: at most so many at once, small modules before large ones, nobody for ever.
//!
//! Each is due when it has waited for about as long as it takes to compile; who is due first is next. So a small module passes large ones that
//! have not waited for long, and a large one is passed only until it is due. Where several compile at once, one place is not for large ones:
//! else small ones could wait for minutes until one of those ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// A module of more bytes is large.
const LARGE: u64 = 256 << 10;
/// How long about a MiB takes.
const PER_MEBIBYTE: Duration = Duration::from_secs(4);

/// The queue.
#[derive(Debug, Clone)]
pub struct CompileQueue(Arc<Mutex<Turns<oneshot::Sender<Turn>>>>);

/// The right to compile, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    queue: CompileQueue,
    large: bool,
}

impl CompileQueue {
    /// For `places` at once, at least 1.
    pub fn new(places: usize) -> CompileQueue {
        CompileQueue(Arc::new(Mutex::new(Turns::new(places))))
    }

    fn turns(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Turn>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn at once, for a module of `size` bytes, if nobody has to be waited for.
    pub fn try_turn(&self, size: u64) -> Option<Turn> {
        let large = size > LARGE;
        self.turns().take(large).then(|| Turn { queue: self.clone(), large })
    }

    /// Waits for a turn.
    pub async fn turn(&self, size: u64) -> Turn {
        loop {
            if let Some(turn) = self.try_turn(size) {
                return turn;
            }
            let (sender, receiver) = oneshot::channel();
            self.turns().wait(size, Instant::now(), sender);
            self.hand_out();
            // It is dropped only together with the queue, of which `self` is a part.
            if let Ok(turn) = receiver.await {
                return turn;
            }
        }
    }

    /// Gives free places to those who are next.
    fn hand_out(&self) {
        loop {
            let Some((waiting, large)) = self.turns().next() else { return };
            // One that does not wait any more gives it back, without the lock.
            let _ = waiting.send(Turn { queue: self.clone(), large });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.turns().give_back(self.large);
        self.queue.hand_out();
    }
}

/// The rules, without clock, lock or task.
#[derive(Debug)]
struct Turns<W> {
    places: usize,
    running: usize,
    running_large: usize,
    /// By when they are due, and in which order they came.
    waiting: BTreeMap<(Instant, u64), (W, bool)>,
    came: u64,
}

impl<W> Turns<W> {
    fn new(places: usize) -> Turns<W> {
        Turns { places: places.max(1), running: 0, running_large: 0, waiting: BTreeMap::new(), came: 0 }
    }

    fn has_place(&self, large: bool) -> bool {
        let for_large = self.places.saturating_sub(1).max(1);
        self.running < self.places && (!large || self.running_large < for_large)
    }

    fn occupy(&mut self, large: bool) {
        self.running += 1;
        self.running_large += usize::from(large);
    }

    /// Takes a place, if there is one that none of those who wait could take.
    fn take(&mut self, large: bool) -> bool {
        let somebody_is_next = self.waiting.values().any(|(_, large)| self.has_place(*large));
        let takes = self.has_place(large) && !somebody_is_next;
        if takes {
            self.occupy(large);
        }
        takes
    }

    fn wait(&mut self, size: u64, now: Instant, waiting: W) {
        self.came += 1;
        let time = PER_MEBIBYTE.mul_f64(size as f64 / f64::from(1 << 20));
        self.waiting.insert((now + time, self.came), (waiting, size > LARGE));
    }

    /// Who is next, if there is a place for it, which it then has.
    fn next(&mut self) -> Option<(W, bool)> {
        let next = self.waiting.iter().find(|(_, (_, large))| self.has_place(*large)).map(|(due, _)| *due)?;
        let (waiting, large) = self.waiting.remove(&next)?;
        self.occupy(large);
        Some((waiting, large))
    }

    fn give_back(&mut self, large: bool) {
        self.running -= 1;
        self.running_large -= usize::from(large);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn so_many_at_once_and_a_place_for_small_ones() {
        let mut turns: Turns<()> = Turns::new(3);
        assert!(turns.take(true) && turns.take(true));
        assert!(!turns.take(true), "the third place is for small ones");
        assert!(turns.take(false) && !turns.take(false));
        turns.give_back(true);
        assert!(turns.take(false), "small ones take any place");
        // The only place is everybody's.
        let mut only: Turns<()> = Turns::new(1);
        assert!(only.take(true) && !only.take(false));
    }

    #[test]
    fn small_ones_pass_until_large_ones_are_due() {
        let now = Instant::now();
        let mut turns = Turns::new(1);
        assert!(turns.take(true));
        turns.wait(10 * MEBIBYTE, now, "large");
        for second in [0, 39, 41] {
            turns.wait(1 << 10, now + Duration::from_secs(second), ["early", "in time", "late"][second as usize / 20]);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            assert!(turns.next().is_none(), "there is no place");
            turns.give_back(true);
            let (who, large) = turns.next().expect("somebody waits");
            // As if each were large: the place is the same.
            turns.running_large += usize::from(!large);
            order.push(who);
        }
        assert_eq!(order, ["early", "in time", "large", "late"]);
    }

    #[test]
    fn nobody_overtakes_who_is_next_but_only_where_there_is_a_place() {
        let now = Instant::now();
        let mut turns = Turns::new(2);
        assert!(turns.take(true));
        turns.wait(MEBIBYTE, now, "large");
        // The free place is not for it, so others need not wait for it.
        assert!(turns.next().is_none());
        assert!(turns.take(false));
        turns.give_back(true);
        assert!(!turns.take(true), "somebody is next");
        assert_eq!(turns.next(), Some(("large", true)));
    }

    #[test]
    fn who_does_not_wait_any_more_keeps_nobody_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let queue = CompileQueue::new(1);
        runtime.block_on(async {
            let first = queue.try_turn(1).unwrap();
            let mut left = Box::pin(queue.turn(1));
            assert!(futures_util::poll!(&mut left).is_pending());
            let mut second = Box::pin(queue.turn(1));
            assert!(futures_util::poll!(&mut second).is_pending());
            drop(left);
            drop(first);
            let second = second.await;
            assert!(queue.try_turn(1).is_none());
            drop(second);
            assert!(queue.try_turn(1).is_some());
        });
    }
}
