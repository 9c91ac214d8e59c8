//! How many requests an instance takes, at once and in all: without requests, clocks and locks.

use std::num::NonZeroU32;

/// The places for requests in one instance.
#[derive(Debug)]
pub(super) struct Places {
    at_once: u32,
    taken: u32,
    in_all: u32,
    /// How many of these it may still take.
    left: u32,
    open: bool,
}

impl Places {
    /// For at most so many `at_once`, and `in_all`. One of them is taken.
    pub fn with_one(at_once: NonZeroU32, in_all: u32) -> Places {
        Places { at_once: at_once.get(), taken: 1, in_all, left: in_all.saturating_sub(1), open: true }
    }

    pub fn is_there_one(&self) -> bool {
        self.open && self.taken < self.at_once && self.left > 0
    }

    /// Whether there was one.
    pub fn take(&mut self) -> bool {
        let is_free = self.is_there_one();
        if is_free {
            self.taken += 1;
            self.left -= 1;
        }
        is_free
    }

    /// Its request has been served.
    pub fn free(&mut self) {
        self.taken -= 1;
    }

    /// Its request is served elsewhere.
    pub fn give_back(&mut self) {
        self.taken -= 1;
        self.left += 1;
    }

    /// From now on there are none.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// How many have been taken, but for those that were given back.
    pub fn served(&self) -> u32 {
        self.in_all - self.left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever happens, there are never more than that, and closed is closed.
        #[test]
        fn no_more_than_so_many(at_once in 1_u32..6, in_all in 1_u32..20, steps in prop::collection::vec(0_u8..16, 0..200)) {
            let mut places = Places::with_one(NonZeroU32::new(at_once).unwrap(), in_all);
            let (mut present, mut served, mut open) = (1_u32, 1_u32, true);
            for step in steps {
                match step {
                    0..8 => {
                        let expected = open && present < at_once && served < in_all;
                        prop_assert_eq!((places.is_there_one(), places.take()), (expected, expected));
                        present += u32::from(expected);
                        served += u32::from(expected);
                    }
                    8..12 if present > 0 => {
                        present -= 1;
                        places.free();
                    }
                    12..15 if present > 0 => {
                        present -= 1;
                        served -= 1;
                        places.give_back();
                    }
                    15 => {
                        open = false;
                        places.close();
                    }
                    _ => {}
                }
                prop_assert_eq!(places.served(), served);
            }
        }
    }
}
