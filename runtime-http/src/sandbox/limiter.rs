//! Memory limit of one invocation: linear memories and tables together, refusals remembered.
//!
//! A refused `memory.grow` gives the guest -1, and most guests then die of an `unreachable` that nothing tells from any other.
//! So the limiter records that it refused, and the failure is classified by that record.

use wasmtime::ResourceLimiter;

/// A table element is a pointer.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts and bounds the memory of one store.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    used: usize,
    peak: usize,
    last_growth: usize,
    refused: Option<usize>,
}

impl Limiter {
    /// `limit` in bytes.
    pub fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Limiter { limit, used: 0, peak: 0, last_growth: 0, refused: None }
    }

    /// The most bytes in use at once.
    pub fn peak(&self) -> u64 {
        self.peak as u64
    }

    /// If a growth was refused: the total, in bytes, that it would have made.
    pub fn refused(&self) -> Option<u64> {
        self.refused.map(|bytes| bytes as u64)
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let growth = desired.saturating_sub(current);
        let total = self.used.saturating_add(growth);
        if total > self.limit {
            self.refused = Some(total);
            return false;
        }
        self.used = total;
        self.last_growth = growth;
        self.peak = self.peak.max(total);
        true
    }

    fn undo_last_growth(&mut self) {
        self.used -= std::mem::take(&mut self.last_growth);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Above the module's own maximum it is the guest's doing, not our limit's.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(current, desired))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo_last_growth();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(bytes(current), bytes(desired)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo_last_growth();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = Limiter::new(1 << 20);
        assert!(limiter.memory_growing(0, 512 << 10, None).unwrap());
        assert!(limiter.table_growing(0, 32 << 10, None).unwrap());
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(512 << 10, (800 << 10) + 1, None).unwrap());
        assert_eq!(limiter.refused(), Some((1056 << 10) + 1));
        assert_eq!(limiter.peak(), 768 << 10);
    }

    #[test]
    fn growth_above_the_modules_own_maximum_is_not_our_refusal() {
        let mut limiter = Limiter::new(1 << 20);
        assert!(!limiter.memory_growing(0, 128 << 10, Some(64 << 10)).unwrap());
        assert_eq!(limiter.refused(), None);
    }

    #[test]
    fn failed_growth_is_given_back() {
        let mut limiter = Limiter::new(1 << 20);
        assert!(limiter.memory_growing(0, 1 << 20, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        limiter.table_grow_failed(wasmtime::Error::msg("called twice")).unwrap();
        assert!(limiter.memory_growing(0, 1 << 20, None).unwrap());
    }
}
