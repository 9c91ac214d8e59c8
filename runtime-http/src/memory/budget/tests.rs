use std::{
    pin::{Pin, pin},
    task::{Context, Waker},
};

use super::*;
use crate::invocation::CancelReason;

fn budget(ceiling: i64) -> Arc<MemoryBudget> {
    let budget = MemoryBudget::new(
        IntCounter::new("waits", "of growths").unwrap(),
        IntCounter::new("evicted", "invocations").unwrap(),
    );
    budget.set_ceiling(ceiling);
    budget
}

fn reserve(budget: &Arc<MemoryBudget>) -> Arc<MemoryReservation> {
    budget.reserve(InvocationId::next(), CancelToken::default())
}

fn is_ready(future: Pin<&mut impl Future<Output = ()>>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn growth_waits_by_seniority_and_nobody_overtakes() {
    let budget = budget(100);
    let [old, young, youngest] = std::array::from_fn(|_| reserve(&budget));
    assert!(youngest.take(90));
    let mut second = pin!(young.wait(20));
    assert!(!is_ready(second.as_mut()));
    assert!(!old.take(5), "somebody waits");
    let mut first = pin!(old.wait(5));
    assert!(is_ready(first.as_mut()), "it is senior, and fits");
    assert_eq!(budget.first().map(|first| (first.seniority, first.missing)), Some((young.seniority, 15)));
    drop(youngest);
    assert!(is_ready(second.as_mut()));
    assert_eq!((budget.committed(), old.held(), young.held()), (25, 5, 20));
    assert!(budget.first().is_none());
    assert_eq!(budget.waits.get(), 2);
}

#[test]
fn what_is_allocated_for_an_invocation_counts_and_is_given_back() {
    let budget = budget(1 << 20);
    let [one, other] = [reserve(&budget), reserve(&budget)];
    let small = {
        let _charging = one.charge();
        vec![0_u8; 1000]
    };
    assert_eq!(one.check(1000), Ok(()));
    assert_eq!((one.cost(), one.held(), budget.committed()), (1000, 0, 0), "not worth the trouble");
    let large = {
        let _charging = one.charge();
        vec![0_u8; 2 << 20]
    };
    assert_eq!(one.check(1 << 20), Err(CancelReason::MemoryLimit));
    assert_eq!((one.held(), budget.committed()), ((2 << 20) + 1000, (2 << 20) + 1000), "even above the ceiling");
    assert!(!other.take(1000), "there is no room for others");
    drop(large);
    assert_eq!((one.check(1000), budget.committed()), (Ok(()), 1000));
    assert!(other.take(1000));
    drop((one, small, other));
    assert_eq!(budget.committed(), 0);
}

#[test]
fn what_is_taken_in_advance_is_used_first_and_what_is_more_cannot_wait() {
    let budget = budget(3 << 20);
    let [one, other] = [reserve(&budget), reserve(&budget)];
    assert!(is_ready(pin!(one.reserve_overhead(1 << 20))));
    assert_eq!((one.held(), one.used(), budget.committed(), budget.used()), (1 << 20, 0, 1 << 20, 0));
    let allocated = |bytes: usize| {
        let _charging = one.charge();
        vec![0_u8; bytes]
    };
    let first = allocated(512 << 10);
    assert_eq!(one.check(u64::MAX), Ok(()));
    assert_eq!((one.held(), one.used(), budget.committed(), budget.used()), (1 << 20, 512 << 10, 1 << 20, 512 << 10));
    assert!(other.take(1 << 20));
    assert!(one.has_room(1 << 20, 2 << 20), "half of it was taken in advance, the other half is there");
    assert!(!one.has_room((3 << 20) / 2 + 1, u64::MAX), "there is not so much");
    let second = allocated(1 << 20);
    assert_eq!((one.check(u64::MAX), budget.committed(), budget.used()), (Ok(()), 5 << 19, 5 << 19));
    let third = allocated(1 << 20);
    assert_eq!(one.check(u64::MAX), Err(CancelReason::Evicted));
    drop((first, second, third));
    assert_eq!((one.check(u64::MAX), budget.committed(), budget.used()), (Ok(()), 2 << 20, 1 << 20));
    let answer = allocated(256 << 10);
    one.guest_ended();
    assert_eq!((one.held(), budget.committed(), budget.used()), (256 << 10, (5 << 20) / 4, (5 << 20) / 4));
    drop((one, answer, other));
    assert_eq!((budget.committed(), budget.used()), (0, 0));
}

#[test]
fn an_overhead_waits_like_a_growth() {
    let budget = budget(3 << 20);
    let [one, other] = [reserve(&budget), reserve(&budget)];
    assert!(is_ready(pin!(one.reserve_overhead(2 << 20))));
    {
        let mut waiting = pin!(other.reserve_overhead(2 << 20));
        assert!(!is_ready(waiting.as_mut()));
        drop(one);
        assert!(is_ready(waiting.as_mut()));
    }
    assert_eq!((other.held(), other.used(), budget.used()), (2 << 20, 0, 0));
    drop(other);
    assert_eq!((budget.committed(), budget.used()), (0, 0));
}

#[test]
fn who_leaves_the_queue_lets_the_next_one_in_and_keeps_nothing() {
    let budget = budget(100);
    let [old, young] = std::array::from_fn(|_| reserve(&budget));
    {
        let mut small = pin!(young.wait(10));
        {
            let mut large = pin!(old.wait(101));
            assert!(!is_ready(large.as_mut()));
            assert!(!is_ready(small.as_mut()));
        }
        assert!(is_ready(small.as_mut()));
    }
    assert_eq!((old.held(), young.held()), (0, 10));
    drop(young);
    // Granted, but never polled again.
    {
        let mut waiting = pin!(old.wait(101));
        assert!(!is_ready(waiting.as_mut()));
        budget.set_ceiling(101);
    }
    assert_eq!(old.held(), 101);
    drop(old);
    assert_eq!(budget.committed(), 0);
}

#[test]
fn nothing_is_lost_between_threads() {
    let budget = budget(1000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let reservation = reserve(&budget);
                    for bytes in [50, 100, 250] {
                        if !reservation.take(bytes) {
                            // Whoever waits holds less than all: 8 * 150 are more than there is, so some must let go.
                            reservation.guest_ended();
                            runtime.handle().block_on(reservation.wait(bytes));
                        }
                        assert!(budget.committed() <= 1000 + 8 * 250, "a failed attempt shows for a moment");
                    }
                }
            });
        }
    });
    assert_eq!(budget.committed(), 0);
    assert!(budget.first().is_none());
}
