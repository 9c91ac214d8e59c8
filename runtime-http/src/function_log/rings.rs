//! What is kept: the last lines of each function, within bounds. Who waits and how is others' business.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::line::Line;

/// One function has at most this part of all.
const SHARE: usize = 16;
/// Functions with lines. Of more, the one that has written nothing for longest goes.
const MOST_FUNCTIONS: usize = 512;

pub struct Rings {
    by_function: HashMap<Arc<str>, Ring>,
    /// In all rings, and the most.
    bytes: usize,
    most: usize,
    /// Counts lines of all functions.
    clock: u64,
    /// The next numbers of functions whose lines went, all of them: whoever reads them still may have one of these.
    gone: HashMap<Arc<str>, u64>,
    /// At least as great as such numbers that are not there any more.
    floor: u64,
}

#[derive(Default)]
struct Ring {
    /// With the number of each.
    lines: VecDeque<(u64, Arc<Line>)>,
    bytes: usize,
    /// That of the next line.
    next: u64,
    /// When it was last written to.
    written: u64,
}

/// Some lines of a function, in order.
#[derive(Default)]
pub struct Page {
    /// Lines before them that are gone; more than there were if the function was silent for so long that it was forgotten.
    pub missed: u64,
    pub lines: Vec<Arc<Line>>,
    /// The number of the line after them.
    pub next: u64,
}

impl Ring {
    fn pop(&mut self) -> Option<Arc<Line>> {
        let (_, line) = self.lines.pop_front()?;
        self.bytes -= line.bytes();
        Some(line)
    }
}

impl Rings {
    /// With so many bytes in all.
    pub fn new(most: usize) -> Rings {
        Rings { by_function: HashMap::new(), bytes: 0, most, clock: 0, gone: HashMap::new(), floor: 0 }
    }

    pub fn knows(&self, function: &str) -> bool {
        self.by_function.contains_key(function)
    }

    /// Adds a line; gives those that had to go for it.
    pub fn push(&mut self, line: Line) -> Vec<Arc<Line>> {
        let mut gone = Vec::new();
        self.clock += 1;
        let (gone_before, floor) = (&mut self.gone, self.floor);
        let ring = self
            .by_function
            .entry(line.function.clone())
            .or_insert_with(|| Ring { next: gone_before.remove(&line.function).unwrap_or(floor), ..Ring::default() });
        let bytes = line.bytes();
        ring.next += line.lost;
        ring.lines.push_back((ring.next, Arc::new(line)));
        ring.next += 1;
        ring.bytes += bytes;
        ring.written = self.clock;
        self.bytes += bytes;
        while ring.bytes > self.most / SHARE
            && let Some(line) = ring.pop()
        {
            self.bytes -= line.bytes();
            gone.push(line);
        }
        while self.bytes > self.most || self.by_function.len() > MOST_FUNCTIONS {
            let oldest = self.by_function.iter().min_by_key(|(_, ring)| ring.written).map(|(name, _)| name.clone());
            let Some((name, ring)) = oldest.and_then(|name| self.by_function.remove_entry(&name)) else { break };
            self.remember(name, ring.next);
            self.bytes -= ring.bytes;
            gone.extend(ring.lines.into_iter().map(|(_, line)| line));
        }
        gone
    }

    /// So that lines that come later have greater numbers.
    fn remember(&mut self, function: Arc<str>, next: u64) {
        if self.gone.len() >= MOST_FUNCTIONS {
            self.floor = self.gone.drain().map(|(_, next)| next).fold(self.floor, u64::max);
        }
        self.gone.insert(function, next);
    }

    /// The lines of `function` from number `next` on, `None`: from the first that is there; up to about `most` bytes.
    pub fn read(&self, function: &str, next: Option<u64>, most: usize) -> Page {
        let Some(ring) = self.by_function.get(function) else {
            let coming = self.gone.get(function).copied().unwrap_or(self.floor);
            return Page { next: next.unwrap_or(coming), ..Page::default() };
        };
        let first = ring.lines.front().map_or(ring.next, |(number, _)| *number);
        let mut page = Page { next: next.unwrap_or(first), ..Page::default() };
        let mut bytes = 0;
        let from = ring.lines.partition_point(|(number, _)| *number < page.next);
        for (number, line) in ring.lines.iter().skip(from) {
            // Between two lines, too, some may be gone.
            let missed = *number - page.next;
            if missed > 0 && !page.lines.is_empty() {
                break;
            }
            page.missed += missed;
            page.next = number + 1;
            page.lines.push(line.clone());
            bytes += line.bytes();
            if bytes >= most {
                break;
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{function_log::Entry, invocation::InvocationId};

    fn line(function: &str, text: &str, lost: u64) -> Line {
        let (at, id) = (SystemTime::now(), InvocationId::next());
        Line { function: function.into(), at, id, lost, entry: Entry::Stderr(text.into()) }
    }

    fn texts(page: &Page) -> Vec<&str> {
        page.lines
            .iter()
            .map(|line| match &line.entry {
                Entry::Stderr(text) => &**text,
                _ => panic!("not of this test"),
            })
            .collect()
    }

    #[test]
    fn lines_are_in_order_and_each_functions_own() {
        let mut rings = Rings::new(1 << 20);
        for number in 0..3 {
            rings.push(line("a", &format!("a{number}"), 0));
            rings.push(line("b", &format!("b{number}"), 0));
        }
        let page = rings.read("a", None, 1 << 20);
        assert_eq!((texts(&page), page.missed, page.next), (vec!["a0", "a1", "a2"], 0, 3));
        assert_eq!(texts(&rings.read("b", Some(2), 1 << 20)), ["b2"]);
        assert!(rings.read("a", Some(3), 1).lines.is_empty() && rings.read("c", None, 1).lines.is_empty());
        // In pages.
        let page = rings.read("a", None, 1);
        assert_eq!((texts(&page), page.next), (vec!["a0"], 1));
    }

    #[test]
    fn what_is_missed_is_counted() {
        let mut rings = Rings::new(16 * 1000);
        for number in 0..100 {
            rings.push(line("a", &format!("a{number}"), 0));
        }
        let page = rings.read("a", Some(0), 1 << 20);
        assert!(page.missed > 80 && page.missed + page.lines.len() as u64 == 100, "{}", page.missed);
        assert_eq!(rings.read("a", None, 1 << 20).missed, 0);
        rings.push(line("a", "after", 7));
        let page = rings.read("a", Some(100), 1 << 20);
        assert_eq!((texts(&page), page.missed, page.next), (vec!["after"], 7, 108));
        // A gap is told before the line after it.
        let before = rings.read("a", Some(99), 1 << 20);
        assert_eq!((texts(&before), before.missed, before.next), (vec!["a99"], 0, 100));
    }

    #[test]
    fn who_reads_lines_that_went_all_is_told_of_the_gap() {
        let mut rings = Rings::new(1 << 20);
        // Before there was one.
        let early = rings.read("a", None, 1 << 20).next;
        for number in 0..5 {
            rings.push(line("a", &format!("a{number}"), 0));
        }
        let read = rings.read("a", None, 1 << 20);
        rings.push(line("a", "unread", 0));
        let evict = |rings: &mut Rings, from: usize| {
            for number in from..from + MOST_FUNCTIONS {
                rings.push(line(&format!("f{number}"), "one", 0));
            }
            assert!(!rings.knows("a"));
        };
        evict(&mut rings, 0);
        let nothing = rings.read("a", Some(read.next), 1 << 20);
        assert_eq!((nothing.lines.len(), nothing.missed, nothing.next), (0, 0, read.next));
        let new = rings.read("a", None, 1 << 20).next;
        rings.push(line("a", "again", 0));
        for (next, missed) in [(Some(read.next), 1), (Some(early), 6), (Some(new), 0), (None, 0)] {
            let page = rings.read("a", next, 1 << 20);
            assert_eq!((texts(&page), page.missed), (vec!["again"], missed));
        }
        let read = rings.read("a", None, 1 << 20);
        // Also when there were so many others meanwhile that nobody remembers it.
        evict(&mut rings, 10_000);
        evict(&mut rings, 20_000);
        evict(&mut rings, 30_000);
        assert!(rings.gone.len() <= MOST_FUNCTIONS && !rings.gone.contains_key("a"));
        rings.push(line("a", "at last", 0));
        let page = rings.read("a", Some(read.next), 1 << 20);
        assert_eq!(texts(&page), ["at last"]);
    }

    #[test]
    fn bytes_and_functions_are_bounded() {
        let mut rings = Rings::new(1 << 20);
        let text = "x".repeat(8000);
        for number in 0..10_000 {
            rings.push(line("storm", &text, 0));
            rings.push(line(&format!("f{}", number % 2000), "one", 0));
            assert!(rings.bytes <= rings.most && rings.by_function.len() <= MOST_FUNCTIONS);
        }
        assert!(rings.by_function["storm"].bytes <= rings.most / SHARE);
        let sum: usize = rings.by_function.values().map(|ring| ring.bytes).sum();
        assert_eq!(sum, rings.bytes);
        assert!(rings.knows("f1999") && !rings.knows("f0"));
    }
}
