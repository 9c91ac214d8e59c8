//! Memory limit of one invocation: linear memories and tables together, refusals remembered.
//!
//! A refused `memory.grow` gives the guest -1, and most guests then die of an `unreachable` that nothing tells from any other.
//! So the limiter records that it refused, and the failure is classified by that record. What is within the limit may still have to wait,
//! until the box has that much: see [`crate::memory`].
//!
//! A growth that is allowed and then fails stays counted. It could be taken back when wasmtime tells of the failure, but it also tells of
//! failures that it did not ask about before: a guest could make those, and grow for nothing.

use std::{num::NonZeroUsize, sync::Arc};

use wasmtime::ResourceLimiterAsync;
use wasmtime_wasi::async_trait;

use super::executor::worker_for;
use crate::{
    allocator::HeldBytes,
    engine::{MOST_CORE_INSTANCES, MOST_MEMORIES, MOST_TABLES},
    invocation::CancelReason,
    memory::MemoryReservation,
};

/// A table element is a pointer.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts and bounds the memory of one store.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    used: usize,
    peak: usize,
    refused: Option<usize>,
    /// The most bytes that the invocation may cost, with what the box holds for it.
    most: u64,
    overdrawn: Option<(CancelReason, u64)>,
    reservation: Arc<MemoryReservation>,
}

impl Limiter {
    /// `limit` and `most` in bytes; what is taken is taken by `reservation`.
    pub fn new(limit: u64, most: u64, reservation: Arc<MemoryReservation>) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Limiter { limit, used: 0, peak: 0, refused: None, most, overdrawn: None, reservation }
    }

    /// For another invocation, whose instance has what it has.
    pub fn renew(&mut self, limit: u64, most: u64, reservation: Arc<MemoryReservation>) {
        *self = Limiter { used: self.used, peak: self.used, ..Limiter::new(limit, most, reservation) };
    }

    /// The most bytes in use at once.
    pub fn peak(&self) -> u64 {
        self.peak as u64
    }

    /// Looks at what the box holds for the guest: as each of its host calls begins, since it can make many before it yields. If that is too
    /// much it is to be taken from the guest, which ends when it yields.
    pub fn overdraws(&mut self) -> bool {
        match self.reservation.check(self.most) {
            Ok(()) => false,
            Err(reason) => {
                self.overdrawn.get_or_insert((reason, self.reservation.cost()));
                self.reservation.cancel.cancel(reason);
                true
            }
        }
    }

    /// The most bytes that the invocation may cost, with what the box holds for it.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Counts `bytes` as held for it until what is given is dropped, in the box's budget as long as the second part is there; `None` if it has no room for
    /// them.
    pub fn hold(&self, bytes: NonZeroUsize) -> Option<(HeldBytes, Arc<MemoryReservation>)> {
        let held = self.reservation.hold(bytes, self.most)?;
        // Whoever has no room ends at its next host call.
        let _ = self.reservation.check(self.most);
        Some((held, self.reservation.clone()))
    }

    /// Why it was taken from the guest, if it was, and how many bytes it cost in all then.
    pub fn overdrawn(&self) -> Option<(CancelReason, u64)> {
        self.overdrawn
    }

    /// If a growth was refused: the total, in bytes, that it would have made.
    pub fn refused(&self) -> Option<u64> {
        self.refused.map(|bytes| bytes as u64)
    }

    async fn grow(&mut self, current: usize, desired: usize) -> bool {
        let growth = desired.saturating_sub(current);
        // wasmtime asks for empty memories and tables, too: they never wait.
        if growth == 0 {
            return true;
        }
        let total = self.used.saturating_add(growth);
        if total > self.limit {
            self.refused = Some(total);
            return false;
        }
        worker_for(total).await;
        if !self.reservation.take(growth as u64) {
            self.reservation.wait(growth as u64).await;
        }
        self.used = total;
        self.peak = self.peak.max(total);
        true
    }
}

/// As many as the pools have for each invocation: see [`crate::engine`].
#[async_trait]
impl ResourceLimiterAsync for Limiter {
    fn instances(&self) -> usize {
        MOST_CORE_INSTANCES as usize
    }

    fn memories(&self) -> usize {
        MOST_MEMORIES as usize
    }

    fn tables(&self) -> usize {
        MOST_TABLES as usize
    }

    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Above the module's own maximum it is the guest's doing, not our limit's.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(current, desired).await)
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(bytes(current), bytes(desired)).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        invocation::{CancelToken, InvocationId},
        memory::MemoryBudget,
        metrics::Metrics,
    };

    fn limiter() -> (Arc<MemoryBudget>, Limiter) {
        let metrics = Metrics::new();
        let budget = MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone());
        let reservation = budget.reserve(InvocationId::next(), CancelToken::default());
        (budget, Limiter::new(1 << 20, 2 << 20, reservation))
    }

    #[tokio::test]
    async fn memories_and_tables_share_one_limit() {
        let (budget, mut limiter) = limiter();
        assert!(limiter.memory_growing(0, 512 << 10, None).await.unwrap());
        assert!(limiter.table_growing(0, 32 << 10, None).await.unwrap());
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(512 << 10, (800 << 10) + 1, None).await.unwrap());
        assert_eq!(limiter.refused(), Some((1056 << 10) + 1));
        assert_eq!((limiter.peak(), budget.committed()), (768 << 10, 768 << 10));
        drop(limiter);
        assert_eq!(budget.committed(), 0);
    }

    #[test]
    fn what_the_box_holds_is_seen_with_what_the_guest_has() {
        let (_, mut limiter) = limiter();
        assert!(!limiter.overdraws());
        let held = {
            let _charging = limiter.reservation.charge();
            vec![0_u8; (2 << 20) + 1]
        };
        assert!(limiter.overdraws());
        assert_eq!(limiter.reservation.cancel.reason(), Some(CancelReason::MemoryLimit));
        drop(held);
        assert!(!limiter.overdraws());
        assert_eq!(limiter.overdrawn(), Some((CancelReason::MemoryLimit, (2 << 20) + 1)), "it is remembered");
    }

    #[tokio::test]
    async fn growth_above_the_modules_own_maximum_is_not_our_refusal() {
        let (_, mut limiter) = limiter();
        assert!(!limiter.memory_growing(0, 128 << 10, Some(64 << 10)).await.unwrap());
        assert_eq!(limiter.refused(), None);
    }

    #[tokio::test]
    async fn failed_growth_stays_counted() {
        let (budget, mut limiter) = limiter();
        assert!(limiter.memory_growing(0, 1 << 20, None).await.unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        limiter.table_grow_failed(wasmtime::Error::msg("without having asked")).unwrap();
        assert_eq!(budget.committed(), 1 << 20);
        assert!(!limiter.memory_growing(0, 64 << 10, None).await.unwrap());
    }

    #[tokio::test]
    async fn growth_within_the_limit_waits_for_memory() {
        let (budget, mut limiter) = limiter();
        budget.set_ceiling(64 << 10);
        assert!(limiter.memory_growing(0, 64 << 10, None).await.unwrap());
        let raise = async { budget.set_ceiling(128 << 10) };
        let (grown, ()) = tokio::join!(limiter.memory_growing(64 << 10, 128 << 10, None), raise);
        assert!(grown.unwrap());
        assert_eq!(budget.committed(), 128 << 10);
    }
}
