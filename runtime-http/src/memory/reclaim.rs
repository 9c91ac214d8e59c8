//! What the box can give back without harming anyone: memory that the allocator keeps for later.

#![allow(unsafe_code, reason = "the allocator's interface is C")]

/// Has the allocator return to the kernel what it keeps for later. It reaches what this thread, ended threads and the arenas keep.
pub fn collect() {
    // SAFETY: The function has no preconditions. If another allocator is in use, there is nothing for it to do.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
