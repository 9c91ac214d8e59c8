//! What an instance holds while it waits for its function's next request.

use super::budget::MemoryBudget;
use crate::allocator::HostBytes;
use std::sync::Arc;

/// Bytes. What is allocated in the box is known to this precision.
pub(super) const NOTICEABLE: u64 = 64 << 10;

/// What one instance holds of the memory of all guests. It is given back when this is dropped, which must be after the store, unless the next
/// invocation has taken it over.
#[derive(Debug)]
pub struct KeptMemory {
    pub(super) budget: Arc<MemoryBudget>,
    /// Bytes of linear memories and tables.
    pub(super) grown: u64,
    /// What is allocated for it in the box, and what of that is in the budget.
    pub(super) host: HostBytes,
    pub(super) host_counted: u64,
    /// What of it is not its last answer, bytes.
    pub(super) own: u64,
}

impl KeptMemory {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.grown + self.host_counted
    }

    /// Whether it fits an invocation that may have `limit` bytes of memory, and cost `most` in all.
    pub fn fits(&self, limit: u64, most: u64) -> bool {
        self.grown <= limit && self.grown.saturating_add(self.host.get()) <= most
    }

    /// Whether its last answer is delivered, so that whoever takes this over does not pay for it.
    pub fn is_settled(&self) -> bool {
        self.host.get() <= self.own + NOTICEABLE
    }
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes());
    }
}
