//! Who must go: a decision, without its execution.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    budget::{First, Seniority},
    forecast::Watermarks,
    reservation::MemoryReservation,
};

/// Bytes. Evicting an invocation that holds less hardly helps: it goes only if none holds more, and for the working set it does not go
/// if all together hold less.
const WORTHWHILE: u64 = 1 << 20;
/// How long growths wait before others are evicted for them: many end by themselves.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long a growth waits that evicting others cannot help: nothing starts meanwhile.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Memory that eviction must free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The working set is, or is about to be, above the eviction mark.
    Working { bytes: u64 },
    /// A growth has waited for too long.
    Growth { bytes: u64, by: Seniority, waited: Duration, impossible: bool },
}

impl Need {
    /// With the working set that is expected, and the growth that is served next: the more urgent one first.
    pub fn of(
        expected: u64,
        watermarks: &Watermarks,
        first: Option<First>,
        now: Instant,
    ) -> impl Iterator<Item = Need> {
        let working = (expected > watermarks.eviction).then(|| Need::Working { bytes: expected - watermarks.high });
        let growth = first.filter(|first| first.missing > 0 && now.duration_since(first.short_since) >= PATIENCE);
        let growth = growth.map(|First { seniority, since, missing, impossible, .. }| Need::Growth {
            bytes: missing,
            by: seniority,
            waited: now.duration_since(since),
            impossible,
        });
        working.into_iter().chain(growth)
    }

    /// Who must go, the youngest first; those who were told to end already count.
    pub fn victims(self, running: &[Arc<MemoryReservation>]) -> Vec<Arc<MemoryReservation>> {
        let (ending, mut staying): (Vec<_>, Vec<_>) =
            running.iter().partition(|reservation| reservation.cancel.reason().is_some());
        staying.sort_by_key(|reservation| reservation.seniority);
        // Memory that is used is what the container has more than it should; memory that is held is what a growth waits for.
        let bytes_of = match self {
            Need::Working { .. } => MemoryReservation::used,
            Need::Growth { .. } => MemoryReservation::held,
        };
        let ending: u64 = ending.iter().map(|reservation| bytes_of(reservation)).sum();
        match self {
            // The oldest goes only if it is alone.
            Need::Working { bytes } => {
                let victims = match staying.as_slice() {
                    [] => Vec::new(),
                    [last] if ending == 0 => vec![Arc::clone(last)],
                    [_oldest, younger @ ..] => youngest(younger, bytes.saturating_sub(ending), bytes_of),
                };
                // It is not guests that use the memory.
                let freed: u64 = victims.iter().map(|reservation| bytes_of(reservation)).sum();
                if freed < WORTHWHILE { Vec::new() } else { victims }
            }
            Need::Growth { bytes, by, waited, impossible } => {
                let waiting = staying
                    .iter()
                    .find(|reservation| reservation.seniority == by)
                    .map(|reservation| Arc::clone(reservation));
                let juniors: Vec<_> = staying.into_iter().filter(|reservation| reservation.seniority > by).collect();
                let evictable: u64 = juniors.iter().map(|reservation| bytes_of(reservation)).sum();
                if impossible || waited >= LAST_PATIENCE {
                    // There is not so much; or its seniors have it, and do not end.
                    waiting.into_iter().collect()
                } else if ending + evictable >= bytes {
                    youngest(&juniors, bytes.saturating_sub(ending), bytes_of)
                } else {
                    Vec::new()
                }
            }
        }
    }
}

/// The last ones of `reservations`, which are sorted by seniority, until `bytes_of` them is `bytes`: first of those that use something worth it.
fn youngest(
    reservations: &[&Arc<MemoryReservation>],
    bytes: u64,
    bytes_of: fn(&MemoryReservation) -> u64,
) -> Vec<Arc<MemoryReservation>> {
    let (large, small): (Vec<_>, Vec<_>) = reservations
        .iter()
        .rev()
        .map(|reservation| Arc::clone(reservation))
        .partition(|reservation| reservation.used() >= WORTHWHILE);
    let mut left = bytes;
    let mut is_needed = |reservation: &Arc<MemoryReservation>| {
        let needed = left > 0;
        left = left.saturating_sub(bytes_of(reservation));
        needed
    };
    large
        .into_iter()
        .chain(small)
        .filter(|reservation| bytes_of(reservation) > 0)
        .take_while(|reservation| is_needed(reservation))
        .collect()
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;
    use crate::{
        invocation::{CancelReason, CancelToken, InvocationId},
        memory::MemoryBudget,
    };

    const MIB: u64 = 1 << 20;

    /// From the oldest to the youngest.
    fn running(mebibytes: &[u64]) -> Vec<Arc<MemoryReservation>> {
        let budget = MemoryBudget::new(
            IntCounter::new("waits", "of growths").unwrap(),
            IntCounter::new("evicted", "invocations").unwrap(),
        );
        let open = |mebibytes: &u64| {
            let reservation = budget.reserve(InvocationId::next(), CancelToken::default());
            assert!(reservation.take(mebibytes * MIB));
            reservation
        };
        mebibytes.iter().map(open).collect()
    }

    fn held(need: Need, running: &[Arc<MemoryReservation>]) -> Vec<u64> {
        need.victims(running).iter().map(|reservation| reservation.held() / MIB).collect()
    }

    #[test]
    fn the_youngest_go_until_it_is_enough_and_the_oldest_stays() {
        let running = running(&[50, 20, 0, 10, 30]);
        let need = |mebibytes| Need::Working { bytes: mebibytes * MIB };
        assert_eq!(held(need(1), &running), [30]);
        assert_eq!(held(need(31), &running), [30, 10]);
        assert_eq!(held(need(1000), &running), [30, 10, 20]);
        running[4].cancel.cancel(CancelReason::Evicted);
        assert_eq!(held(need(30), &running), [0; 0], "one that ends is enough");
        assert_eq!(held(need(31), &running), [10]);
        assert_eq!(held(need(31), &running[..1]), [50], "alone");
        assert_eq!(held(need(90), &[running[0].clone(), running[4].clone()]), [0; 0], "alone soon");
        assert_eq!(held(need(90), &running[2..3]), [0; 0], "it is not its memory");
    }

    #[test]
    fn a_growth_evicts_its_juniors_and_waits_for_its_seniors() {
        let running = running(&[50, 20, 30]);
        let need = |waiter: usize, mebibytes: u64, waited| {
            let by = running[waiter].seniority;
            held(Need::Growth { bytes: mebibytes * MIB, by, waited, impossible: false }, &running)
        };
        assert_eq!(need(0, 7, PATIENCE), [30]);
        assert_eq!(need(0, 31, PATIENCE), [30, 20]);
        assert_eq!(need(1, 30, PATIENCE), [30]);
        assert_eq!(need(1, 31, PATIENCE), [0; 0], "its junior is not enough, so it goes on");
        assert_eq!(need(2, 1, PATIENCE), [0; 0]);
        assert_eq!(need(0, 51, PATIENCE), [0; 0]);
        assert_eq!(need(2, 1, LAST_PATIENCE), [30], "its seniors do not end");
        let by = running[0].seniority;
        let impossible = Need::Growth { bytes: 200 * MIB, by, waited: PATIENCE, impossible: true };
        assert_eq!(held(impossible, &running), [50], "there is not so much");
    }

    #[test]
    fn there_is_patience_with_growth_and_none_near_the_limit() {
        let watermarks = Watermarks::new(1000 * MIB, 0.85, 0.95);
        let now = Instant::now();
        let by = running(&[0])[0].seniority;
        let first = |short_since| Some(First { seniority: by, since: now, short_since, missing: 7, impossible: false });
        let needs = |expected, first| Need::of(expected, &watermarks, first, now).collect::<Vec<_>>();
        let growth = Need::Growth { bytes: 7, by, waited: Duration::ZERO, impossible: false };
        assert_eq!(needs(10 * MIB, first(now)), []);
        assert_eq!(needs(10 * MIB, first(now - PATIENCE)), [growth]);
        assert_eq!(needs(960 * MIB, None), [Need::Working { bytes: 110 * MIB }]);
        assert_eq!(needs(960 * MIB, first(now - PATIENCE)), [Need::Working { bytes: 110 * MIB }, growth]);
    }
}
