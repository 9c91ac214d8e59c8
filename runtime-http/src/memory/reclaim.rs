//! What the box can give back without harming anyone: memory that the allocator, or somebody else, keeps for later.

#![allow(unsafe_code, reason = "the allocator's interface is C")]

/// Who keeps memory of guests that nobody needs now.
pub trait Spare: Send + Sync + std::fmt::Debug {
    /// Gives back `bytes` soon, if so much is kept; how many are on their way.
    fn give_back(&self, bytes: u64) -> u64;
}

/// Has the allocator return to the kernel what it keeps for later. It reaches what this thread, ended threads and the arenas keep.
pub fn collect() {
    // SAFETY: The function has no preconditions. If another allocator is in use, there is nothing for it to do.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
