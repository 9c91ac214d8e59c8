//! Who must go: a decision, without its execution.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    account::{First, Holding, Seniority},
    forecast::Marks,
};

/// Evicting who holds less hardly helps; they go only if nobody holds more.
const WORTHWHILE: u64 = 1 << 20;
/// How long growths wait before others are evicted for them: many end by themselves.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long a growth waits that evicting others cannot help. What the box has for itself is known after [`super::forecast`]'s window.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Memory that eviction must free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The working set is, or is about to be, above the eviction mark.
    Working { bytes: u64 },
    /// A growth has waited for too long.
    Growth { bytes: u64, by: Seniority, waited: Duration },
}

impl Need {
    /// With the working set that is expected, and the growth that is served next.
    pub fn of(expected: u64, marks: &Marks, first: Option<First>, now: Instant) -> Option<Need> {
        if expected > marks.eviction {
            return Some(Need::Working { bytes: expected - marks.high });
        }
        let First { seniority, since, short_since, missing } = first?;
        let waited = now.duration_since(since);
        (missing > 0 && now.duration_since(short_since) >= PATIENCE).then_some(Need::Growth {
            bytes: missing,
            by: seniority,
            waited,
        })
    }

    /// Who must go, the youngest first; those who were told to end already count.
    pub fn victims(self, running: &[Arc<Holding>]) -> Vec<Arc<Holding>> {
        let (ending, mut staying): (Vec<_>, Vec<_>) =
            running.iter().partition(|holding| holding.stop.requested().is_some());
        staying.sort_by_key(|holding| holding.seniority);
        let ending: u64 = ending.iter().map(|holding| holding.held()).sum();
        match self {
            // The oldest goes only if it is alone.
            Need::Working { bytes } => match staying.as_slice() {
                [] => Vec::new(),
                [last] if ending == 0 => vec![Arc::clone(last)],
                [_oldest, younger @ ..] => youngest(younger, bytes.saturating_sub(ending)),
            },
            Need::Growth { bytes, by, waited } => {
                let (seniors, rest): (Vec<_>, Vec<_>) = staying.into_iter().partition(|holding| holding.seniority < by);
                let (waiting, juniors): (Vec<_>, Vec<_>) =
                    rest.into_iter().partition(|holding| holding.seniority == by);
                let evictable: u64 = juniors.iter().map(|holding| holding.held()).sum();
                if ending + evictable >= bytes {
                    youngest(&juniors, bytes.saturating_sub(ending))
                } else if seniors.iter().any(|holding| holding.held() >= WORTHWHILE) || waited < LAST_PATIENCE {
                    // They end before it does.
                    Vec::new()
                } else {
                    // There is not so much at all.
                    waiting.into_iter().cloned().collect()
                }
            }
        }
    }
}

/// The last ones of `holdings`, which are sorted by seniority, until what they hold is `bytes`: first of those with something worth it.
fn youngest(holdings: &[&Arc<Holding>], bytes: u64) -> Vec<Arc<Holding>> {
    let (large, small): (Vec<_>, Vec<_>) =
        holdings.iter().rev().map(|holding| Arc::clone(holding)).partition(|holding| holding.held() >= WORTHWHILE);
    let mut left = bytes;
    let mut is_needed = |holding: &Arc<Holding>| {
        let needed = left > 0;
        left = left.saturating_sub(holding.held());
        needed
    };
    large
        .into_iter()
        .chain(small)
        .filter(|holding| holding.held() > 0)
        .take_while(|holding| is_needed(holding))
        .collect()
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;
    use crate::{
        memory::Account,
        record::InvocationId,
        sandbox::{Stop, StopReason},
    };

    const MIB: u64 = 1 << 20;

    /// From the oldest to the youngest.
    fn running(mebibytes: &[u64]) -> Vec<Arc<Holding>> {
        let account = Account::new(IntCounter::new("waits", "of growths").unwrap());
        let open = |mebibytes: &u64| {
            let holding = account.open(InvocationId::next(), Stop::default());
            assert!(holding.take(mebibytes * MIB));
            holding
        };
        mebibytes.iter().map(open).collect()
    }

    fn held(need: Need, running: &[Arc<Holding>]) -> Vec<u64> {
        need.victims(running).iter().map(|holding| holding.held() / MIB).collect()
    }

    #[test]
    fn the_youngest_go_until_it_is_enough_and_the_oldest_stays() {
        let running = running(&[50, 20, 0, 10, 30]);
        let need = |mebibytes| Need::Working { bytes: mebibytes * MIB };
        assert_eq!(held(need(1), &running), [30]);
        assert_eq!(held(need(31), &running), [30, 10]);
        assert_eq!(held(need(1000), &running), [30, 10, 20]);
        running[4].stop.request(StopReason::Evicted);
        assert_eq!(held(need(30), &running), [0; 0], "one that ends is enough");
        assert_eq!(held(need(31), &running), [10]);
        assert_eq!(held(need(31), &running[..1]), [50], "alone");
        assert_eq!(held(need(90), &[running[0].clone(), running[4].clone()]), [0; 0], "alone soon");
    }

    #[test]
    fn a_growth_evicts_its_juniors_and_waits_for_its_seniors() {
        let running = running(&[50, 20, 30]);
        let need = |waiter: usize, mebibytes: u64, waited| {
            let need = Need::Growth { bytes: mebibytes * MIB, by: running[waiter].seniority, waited };
            held(need, &running)
        };
        assert_eq!(need(0, 7, PATIENCE), [30]);
        assert_eq!(need(0, 31, PATIENCE), [30, 20]);
        assert_eq!(need(1, 30, PATIENCE), [30]);
        assert_eq!(need(1, 31, LAST_PATIENCE), [0; 0], "its junior is not enough, so it goes on");
        assert_eq!(need(2, 1, LAST_PATIENCE), [0; 0]);
        assert_eq!(need(0, 51, PATIENCE), [0; 0]);
        assert_eq!(need(0, 51, LAST_PATIENCE), [50], "there is not so much");
    }

    #[test]
    fn there_is_patience_with_growth_and_none_near_the_limit() {
        let marks = Marks::new(1000 * MIB, 0.85, 0.95);
        let now = Instant::now();
        let by = running(&[0])[0].seniority;
        let first = |short_since| Some(First { seniority: by, since: now, short_since, missing: 7 });
        assert_eq!(Need::of(10 * MIB, &marks, first(now), now), None);
        let need = Need::of(10 * MIB, &marks, first(now - PATIENCE), now);
        assert_eq!(need, Some(Need::Growth { bytes: 7, by, waited: Duration::ZERO }));
        assert_eq!(Need::of(960 * MIB, &marks, None, now), Some(Need::Working { bytes: 110 * MIB }));
    }
}
