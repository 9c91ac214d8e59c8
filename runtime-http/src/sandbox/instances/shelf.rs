//! What is kept for whoever comes next, by key: who gets what, and which goes first. Without clock and instances.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Things of type `T` with their sizes in bytes.
pub(super) struct Shelf<T> {
    /// Of each key the one that has been there for longest first; no list is empty.
    lists: BTreeMap<usize, VecDeque<Kept<T>>>,
    len: usize,
    bytes: u64,
}

struct Kept<T> {
    since: Instant,
    bytes: u64,
    content: T,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf { lists: BTreeMap::new(), len: 0, bytes: 0 }
    }
}

impl<T> Shelf<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Of all together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn put(&mut self, key: usize, content: T, bytes: u64, now: Instant) {
        self.lists.entry(key).or_default().push_back(Kept { since: now, bytes, content });
        self.len += 1;
        self.bytes += bytes;
    }

    /// The one of `key` that was put there last, of those that fit.
    pub fn take(&mut self, key: usize, fits: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.lists.get(&key)?.iter().rposition(|kept| fits(&kept.content))?;
        self.remove(key, index)
    }

    /// The one that has been there for longest.
    pub fn take_oldest(&mut self) -> Option<T> {
        let (key, _) = self.oldest()?;
        self.remove(key, 0)
    }

    /// The same, if it has been there for `time`.
    pub fn take_expired(&mut self, time: Duration, now: Instant) -> Option<T> {
        let (key, since) = self.oldest()?;
        if now.saturating_duration_since(since) < time { None } else { self.remove(key, 0) }
    }

    fn oldest(&self) -> Option<(usize, Instant)> {
        let first = self.lists.iter().filter_map(|(key, list)| Some((*key, list.front()?.since)));
        first.min_by_key(|(_, since)| *since)
    }

    fn remove(&mut self, key: usize, index: usize) -> Option<T> {
        let list = self.lists.get_mut(&key)?;
        let kept = list.remove(index)?;
        if list.is_empty() {
            self.lists.remove(&key);
        }
        self.len -= 1;
        self.bytes -= kept.bytes;
        Some(kept.content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(usize, u64),
        Take(usize, u64),
        Oldest,
        Expired,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..4, 0_u64..100).prop_map(|(key, bytes)| Step::Put(key, bytes)),
            (0_usize..4, 0_u64..100).prop_map(|(key, most)| Step::Take(key, most)),
            Just(Step::Oldest),
            Just(Step::Expired),
        ]
    }

    proptest! {
        /// Beside a list of (key, bytes) in the order in which they came.
        #[test]
        fn it_is_a_list(steps in prop::collection::vec(step(), 1..100)) {
            let begun = Instant::now();
            let at = |second: usize| begun + Duration::from_secs(second as u64);
            let (mut shelf, mut list) = (Shelf::default(), Vec::<(usize, usize, u64)>::new());
            for (second, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(key, bytes) => {
                        shelf.put(key, (second, key, bytes), bytes, at(second));
                        list.push((second, key, bytes));
                    }
                    Step::Take(key, most) => {
                        let expected = list.iter().rposition(|(_, of, bytes)| *of == key && *bytes <= most);
                        let expected = expected.map(|index| list.remove(index));
                        prop_assert_eq!(shelf.take(key, |(_, _, bytes)| *bytes <= most), expected);
                    }
                    Step::Oldest => {
                        let expected = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(shelf.take_oldest(), expected);
                    }
                    Step::Expired => {
                        let expected = list.first().is_some_and(|(since, ..)| second - since >= 10).then(|| list.remove(0));
                        prop_assert_eq!(shelf.take_expired(Duration::from_secs(10), at(second)), expected);
                    }
                }
                prop_assert_eq!(shelf.len(), list.len());
                prop_assert_eq!(shelf.bytes(), list.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
            }
        }
    }
}
