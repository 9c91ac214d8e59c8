//! Idle connections: which are kept, who gets one, which goes first. Without clock and sockets.
//!
//! A connection is its function's: nobody else gets it, so that nothing that one function has sent or been sent over it, nor what its server
//! has made of it, is another's.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Destination;

/// The most that one function has.
const MOST_OF_FUNCTION: usize = 16;

/// Connections of type `C`, the one that has been idle for longest first.
pub struct IdlePool<C> {
    idle: VecDeque<Idle<C>>,
    most: usize,
}

struct Idle<C> {
    function: Arc<str>,
    destination: Destination,
    since: Instant,
    connection: C,
}

impl<C> IdlePool<C> {
    /// With at most so many.
    pub fn new(most: usize) -> Self {
        IdlePool { idle: VecDeque::new(), most }
    }

    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// The one that `function` has used last of those to `destination`.
    pub fn take(&mut self, function: &str, destination: &Destination) -> Option<C> {
        let index =
            self.idle.iter().rposition(|idle| &*idle.function == function && idle.destination == *destination)?;
        self.idle.remove(index).map(|idle| idle.connection)
    }

    /// Keeps one; gives back what has to go for it.
    pub fn put(&mut self, function: Arc<str>, destination: Destination, connection: C, now: Instant) -> Option<C> {
        if self.most == 0 {
            return Some(connection);
        }
        let own = self.idle.iter().filter(|idle| idle.function == function).count();
        let gone = if own >= MOST_OF_FUNCTION {
            self.take_oldest_of(&function)
        } else if self.idle.len() >= self.most {
            self.take_oldest()
        } else {
            None
        };
        self.idle.push_back(Idle { function, destination, since: now, connection });
        gone
    }

    /// The one that has been idle for longest.
    pub fn take_oldest(&mut self) -> Option<C> {
        self.idle.pop_front().map(|idle| idle.connection)
    }

    /// The same, of one function's.
    pub fn take_oldest_of(&mut self, function: &str) -> Option<C> {
        let index = self.idle.iter().position(|idle| &*idle.function == function)?;
        self.idle.remove(index).map(|idle| idle.connection)
    }

    /// Those that have been idle for `time`, or are closed.
    pub fn take_expired(&mut self, time: Duration, now: Instant, is_closed: impl Fn(&C) -> bool) -> Vec<C> {
        let (gone, left) =
            self.idle.drain(..).partition(|idle| now.duration_since(idle.since) >= time || is_closed(&idle.connection));
        self.idle = left;
        let gone: VecDeque<Idle<C>> = gone;
        gone.into_iter().map(|idle| idle.connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Host;

    fn destination(port: u16) -> Destination {
        Destination { host: Host::parse("a.example").unwrap(), port, secure: true }
    }

    #[test]
    fn a_connection_is_its_functions_alone() {
        let (mut pool, now) = (IdlePool::new(10), Instant::now());
        for connection in [1, 2] {
            assert_eq!(pool.put("f".into(), destination(443), connection, now), None);
        }
        assert_eq!(pool.take("g", &destination(443)), None);
        assert_eq!(pool.take("f", &destination(444)), None);
        assert_eq!(pool.take("f", &Destination { secure: false, ..destination(443) }), None);
        assert_eq!(pool.take("f", &destination(443)), Some(2), "the last first");
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn they_are_bounded_for_each_and_for_all() {
        let (mut pool, now) = (IdlePool::new(20), Instant::now());
        for connection in 0..MOST_OF_FUNCTION {
            assert_eq!(pool.put("f".into(), destination(443), connection, now), None);
        }
        assert_eq!(pool.put("f".into(), destination(443), 100, now), Some(0), "its own oldest");
        for connection in 200..204 {
            assert_eq!(pool.put("g".into(), destination(443), connection, now), None);
        }
        assert_eq!(pool.put("g".into(), destination(443), 204, now), Some(1), "the oldest of all");
        assert_eq!((pool.len(), pool.take_oldest()), (20, Some(2)));
        assert_eq!(IdlePool::new(0).put("f".into(), destination(1), 7, now), Some(7));
    }

    #[test]
    fn what_is_old_or_closed_goes() {
        let (mut pool, now) = (IdlePool::new(20), Instant::now());
        for (connection, seconds) in [(1, 0), (2, 1), (3, 2)] {
            pool.put("f".into(), destination(443), connection, now + Duration::from_secs(seconds));
        }
        let expired = |pool: &mut IdlePool<i32>, seconds, closed| {
            pool.take_expired(Duration::from_secs(10), now + Duration::from_secs(seconds), |other| *other == closed)
        };
        assert!(expired(&mut pool, 9, 0).is_empty());
        assert_eq!(expired(&mut pool, 10, 3), [1, 3]);
        assert_eq!(expired(&mut pool, 11, 0), [2]);
    }
}
