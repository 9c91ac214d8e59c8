//! Who compiles next: at most so many at once, small modules before large ones, nobody for ever.
//!
//! Each is due when it has waited for about as long as it takes to compile; who is due first is next. So a small module passes large ones that
//! have not waited for long, and a large one is passed only until it is due. Where several compile at once, one place is not for large ones:
//! else small ones could wait for minutes until one of those ends.
//!
//! What nobody waits for, optimised code in place of baseline code, is compiled when nobody waits for a place, one at a time. It is stopped
//! when somebody does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::confined::stop::Stop;

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
    kind: Kind,
    /// How it is told to end early.
    pub stop: Option<Stop>,
}

/// What a place is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Large,
    /// Nobody waits for it.
    Later,
}

impl Kind {
    fn of(size: u64) -> Kind {
        if size > LARGE { Kind::Large } else { Kind::Small }
    }
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
        let kind = Kind::of(size);
        self.turns().take(kind).then(|| Turn { queue: self.clone(), kind, stop: None })
    }

    /// Waits for the turn of what nobody waits for; with `stop` it is told to end when somebody does. One at a time.
    pub async fn turn_later(&self, stop: Option<Stop>) -> Turn {
        let (sender, receiver) = oneshot::channel();
        self.turns().wait_for_later(sender, stop.clone());
        self.hand_out();
        let mut turn = receiver.await.expect("only another one that waits takes its place");
        turn.stop = stop;
        turn
    }

    /// Whether nobody compiles, and nobody waits to.
    pub fn is_idle(&self) -> bool {
        let turns = self.turns();
        turns.running == 0 && turns.waiting.is_empty()
    }

    /// How many compile, how many wait for a place that somebody waits for, and how many places there are.
    pub fn load(&self) -> (usize, usize, usize) {
        let turns = self.turns();
        (turns.running, turns.waiting.len(), turns.places)
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
            let Some((waiting, kind)) = self.turns().next() else { break };
            // One that does not wait any more gives it back, without the lock.
            let _ = waiting.send(Turn { queue: self.clone(), kind, stop: None });
        }
        self.turns().stop_what_is_in_the_way();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.turns().give_back(self.kind);
        self.queue.hand_out();
    }
}

/// The rules, without clock or task.
#[derive(Debug)]
struct Turns<W> {
    places: usize,
    running: usize,
    running_large: usize,
    /// By when they are due, and in which order they came.
    waiting: BTreeMap<(Instant, u64), (W, Kind)>,
    came: u64,
    waiting_for_later: Option<(W, Option<Stop>)>,
    runs_later: bool,
    /// Of what runs, until it is told.
    stop_later: Option<Stop>,
}

impl<W> Turns<W> {
    fn new(places: usize) -> Turns<W> {
        Turns {
            places: places.max(1),
            running: 0,
            running_large: 0,
            waiting: BTreeMap::new(),
            came: 0,
            waiting_for_later: None,
            runs_later: false,
            stop_later: None,
        }
    }

    fn has_place(&self, kind: Kind) -> bool {
        self.running < self.places && self.may_be_one_more(kind)
    }

    /// Whether there are not too many of its kind.
    fn may_be_one_more(&self, kind: Kind) -> bool {
        match kind {
            Kind::Small => true,
            Kind::Large => self.running_large < self.places.saturating_sub(1).max(1),
            Kind::Later => !self.runs_later,
        }
    }

    fn occupy(&mut self, kind: Kind) {
        self.running += 1;
        self.running_large += usize::from(kind == Kind::Large);
        self.runs_later |= kind == Kind::Later;
    }

    /// Takes a place, if there is one that none of those who wait could take.
    fn take(&mut self, kind: Kind) -> bool {
        let somebody_is_next = self.waiting.values().any(|(_, kind)| self.has_place(*kind));
        let takes = self.has_place(kind) && !somebody_is_next;
        if takes {
            self.occupy(kind);
        }
        takes
    }

    fn wait(&mut self, size: u64, now: Instant, waiting: W) {
        self.came += 1;
        let time = PER_MEBIBYTE.mul_f64(size as f64 / f64::from(1 << 20));
        self.waiting.insert((now + time, self.came), (waiting, Kind::of(size)));
    }

    fn wait_for_later(&mut self, waiting: W, stop: Option<Stop>) {
        self.waiting_for_later = Some((waiting, stop));
    }

    /// Who is next, if there is a place for it, which it then has.
    fn next(&mut self) -> Option<(W, Kind)> {
        let next = self.waiting.iter().find(|(_, (_, kind))| self.has_place(*kind)).map(|(due, _)| *due);
        if let Some((waiting, kind)) = next.and_then(|next| self.waiting.remove(&next)) {
            self.occupy(kind);
            return Some((waiting, kind));
        }
        if !self.waiting.is_empty() || !self.has_place(Kind::Later) {
            return None;
        }
        let (waiting, stop) = self.waiting_for_later.take()?;
        self.occupy(Kind::Later);
        self.stop_later = stop;
        Some((waiting, Kind::Later))
    }

    /// If somebody waits for the very place that has what nobody waits for.
    fn stop_what_is_in_the_way(&mut self) {
        let is_in_the_way = self.runs_later
            && self.running >= self.places
            && self.waiting.values().any(|(_, kind)| self.may_be_one_more(*kind));
        if let Some(stop) = self.stop_later.take_if(|_| is_in_the_way) {
            stop.say();
        }
    }

    fn give_back(&mut self, kind: Kind) {
        self.running -= 1;
        match kind {
            Kind::Small => {}
            Kind::Large => self.running_large -= 1,
            Kind::Later => (self.runs_later, self.stop_later) = (false, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn so_many_at_once_and_a_place_for_small_ones() {
        let mut turns: Turns<()> = Turns::new(3);
        assert!(turns.take(Kind::Large) && turns.take(Kind::Large));
        assert!(!turns.take(Kind::Large), "the third place is for small ones");
        assert!(turns.take(Kind::Small) && !turns.take(Kind::Small));
        turns.give_back(Kind::Large);
        assert!(turns.take(Kind::Small), "small ones take any place");
        // The only place is everybody's.
        let mut only: Turns<()> = Turns::new(1);
        assert!(only.take(Kind::Large) && !only.take(Kind::Small));
    }

    #[test]
    fn small_ones_pass_until_large_ones_are_due() {
        let now = Instant::now();
        let mut turns = Turns::new(1);
        assert!(turns.take(Kind::Large));
        turns.wait(10 * MEBIBYTE, now, "large");
        for second in [0, 39, 41] {
            turns.wait(1 << 10, now + Duration::from_secs(second), ["early", "in time", "late"][second as usize / 20]);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            assert!(turns.next().is_none(), "there is no place");
            turns.give_back(Kind::Large);
            let (who, kind) = turns.next().expect("somebody waits");
            // As if each were large: the place is the same.
            turns.running_large += usize::from(kind == Kind::Small);
            order.push(who);
        }
        assert_eq!(order, ["early", "in time", "large", "late"]);
    }

    #[test]
    fn nobody_overtakes_who_is_next_but_only_where_there_is_a_place() {
        let now = Instant::now();
        let mut turns = Turns::new(2);
        assert!(turns.take(Kind::Large));
        turns.wait(MEBIBYTE, now, "large");
        // The free place is not for it, so others need not wait for it.
        assert!(turns.next().is_none());
        assert!(turns.take(Kind::Small));
        turns.give_back(Kind::Large);
        assert!(!turns.take(Kind::Large), "somebody is next");
        assert_eq!(turns.next(), Some(("large", Kind::Large)));
    }

    #[test]
    fn what_nobody_waits_for_has_a_place_until_somebody_wants_it() {
        let is_said = |stop: &Stop| crate::confined::ready(stop.as_fd(), Instant::now()).unwrap();
        let now = Instant::now();
        for places in [1, 2] {
            let mut turns = Turns::new(places);
            let stop = Stop::new().unwrap();
            turns.wait_for_later("later", Some(stop.clone()));
            assert_eq!(turns.next(), Some(("later", Kind::Later)));
            turns.wait_for_later("after it", None);
            assert!(turns.next().is_none(), "one at a time");
            for _ in 1..places {
                assert!(turns.take(Kind::Large));
            }
            turns.stop_what_is_in_the_way();
            assert!(!is_said(&stop), "nobody waits");
            turns.wait(1, now, "small");
            assert!(turns.next().is_none());
            turns.stop_what_is_in_the_way();
            assert!(is_said(&stop));
            turns.give_back(Kind::Later);
            assert_eq!(turns.next(), Some(("small", Kind::Small)));
            turns.give_back(Kind::Small);
            turns.wait(1, now, "small");
            assert_eq!(turns.next(), Some(("small", Kind::Small)), "before what nobody waits for");
            turns.give_back(Kind::Small);
            assert_eq!(turns.next(), Some(("after it", Kind::Later)));
        }
    }

    #[test]
    fn a_large_one_that_would_have_to_wait_in_any_case_stops_nothing() {
        let mut turns = Turns::new(2);
        let stop = Stop::new().unwrap();
        turns.wait_for_later("later", Some(stop.clone()));
        assert!(turns.next().is_some() && turns.take(Kind::Large));
        turns.wait(10 * MEBIBYTE, Instant::now(), "large");
        turns.stop_what_is_in_the_way();
        assert!(!crate::confined::ready(stop.as_fd(), Instant::now()).unwrap());
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
