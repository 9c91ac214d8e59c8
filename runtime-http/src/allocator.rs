//! The allocator of the process: mimalloc, which also counts for whom it allocates.
//!
//! A guest makes the box allocate: tables, headers, buffers, the instance itself. While a thread works for an invocation, it [charges](HostBytes::charge)
//! what it allocates to that invocation's [`HostBytes`]. Each block remembers its counter in a word before its first byte, so that it is taken
//! off again whenever and by whichever thread it is freed: what goes to another thread stays charged until it is gone. A counter lives as long
//! as its handle or any block of it.

#![allow(unsafe_code, reason = "a global allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, handle_alloc_error},
    cell::Cell,
    marker::PhantomData,
    num::NonZeroUsize,
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering, fence},
};

use mimalloc::MiMalloc;

/// What is before a block: its counter in the last word, and what keeps the block aligned.
const HEADER: usize = 16;

/// The global allocator.
#[derive(Debug)]
pub struct Allocator;

/// Bytes that are allocated on behalf of one invocation.
#[derive(Debug)]
pub struct HostBytes(NonNull<Counter>);

#[derive(Debug)]
struct Counter {
    /// Bytes of all blocks, and one more for each handle. At zero it is freed.
    references: AtomicUsize,
}

// SAFETY: The counter is atomic, and is freed by whoever takes off the last reference.
unsafe impl Send for HostBytes {}
// SAFETY: As above.
unsafe impl Sync for HostBytes {}

thread_local! {
    /// Whom this thread works for; null for the box itself.
    static CHARGED: Cell<*mut Counter> = const { Cell::new(ptr::null_mut()) };
}

/// Bytes that count as allocated for one invocation until this is dropped: for what is allocated for it where nothing can be charged.
#[derive(Debug)]
pub struct HeldBytes {
    counter: NonNull<Counter>,
    /// Not zero: it is these that keep the counter.
    bytes: usize,
}

// SAFETY: The counter is atomic, and is freed by whoever takes off the last reference.
unsafe impl Send for HeldBytes {}
// SAFETY: As above.
unsafe impl Sync for HeldBytes {}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        // SAFETY: This holds so many references, and is gone now.
        unsafe { release(self.counter.as_ptr(), self.bytes) };
    }
}

/// While it exists, what its thread allocates is charged.
#[derive(Debug)]
pub struct Charging<'a> {
    before: *mut Counter,
    handle: PhantomData<&'a HostBytes>,
}

impl Drop for Charging<'_> {
    fn drop(&mut self) {
        CHARGED.set(self.before);
    }
}

impl Default for HostBytes {
    fn default() -> Self {
        let layout = Layout::new::<Counter>();
        // SAFETY: The layout is not empty. It comes from mimalloc itself, since a counter is charged to nobody.
        let counter = unsafe { MiMalloc.alloc(layout) }.cast::<Counter>();
        let Some(counter) = NonNull::new(counter) else { handle_alloc_error(layout) };
        // SAFETY: It was just allocated for this.
        unsafe { counter.write(Counter { references: AtomicUsize::new(1) }) };
        HostBytes(counter)
    }
}

impl HostBytes {
    /// Bytes that are allocated now; each further handle counts as one.
    pub fn get(&self) -> u64 {
        // SAFETY: This handle holds a reference.
        let references = unsafe { self.0.as_ref() }.references.load(Ordering::Relaxed);
        references as u64 - 1
    }

    /// Counts `bytes` until what is given is dropped.
    pub fn hold(&self, bytes: NonZeroUsize) -> HeldBytes {
        let bytes = bytes.get();
        // SAFETY: This handle holds a reference.
        unsafe { self.0.as_ref() }.references.fetch_add(bytes, Ordering::Relaxed);
        HeldBytes { counter: self.0, bytes }
    }

    /// Charges what this thread allocates from now on.
    pub fn charge(&self) -> Charging<'_> {
        Charging { before: CHARGED.replace(self.0.as_ptr()), handle: PhantomData }
    }
}

impl Clone for HostBytes {
    /// Another handle on the same counter.
    fn clone(&self) -> Self {
        // SAFETY: This handle holds a reference.
        unsafe { self.0.as_ref() }.references.fetch_add(1, Ordering::Relaxed);
        HostBytes(self.0)
    }
}

impl Drop for HostBytes {
    fn drop(&mut self) {
        // SAFETY: This handle holds one reference, and is gone now.
        unsafe { release(self.0.as_ptr(), 1) };
    }
}

/// Takes `references` off.
///
/// # Safety
/// The caller must hold that many, and not use the counter afterwards unless it holds more.
unsafe fn release(counter: *mut Counter, references: usize) {
    // SAFETY: It is not freed, since the caller holds references.
    let before = unsafe { (*counter).references.fetch_sub(references, Ordering::Release) };
    if before == references {
        fence(Ordering::Acquire);
        // SAFETY: These were the last. It was allocated with this layout, by `HostBytes::default`.
        unsafe { MiMalloc.dealloc(counter.cast(), Layout::new::<Counter>()) };
    }
}

/// The bytes before a block, a multiple of its alignment.
fn offset(layout: Layout) -> usize {
    layout.align().max(HEADER)
}

/// The layout of a block with what is before it; `None` if that is too large.
fn with_header(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().checked_add(offset(layout))?, offset(layout)).ok()
}

/// Where a block's counter is.
///
/// # Safety
/// `block` must be one that this allocator gave.
unsafe fn counter_of(block: *mut u8) -> *mut *mut Counter {
    // SAFETY: There are at least `HEADER` bytes before each block, and a block is aligned for them.
    unsafe { block.cast::<*mut Counter>().sub(1) }
}

/// Charges a new block that begins with its header.
///
/// # Safety
/// `start` must be null or have been allocated with `with_header(layout)`.
unsafe fn charged(start: *mut u8, layout: Layout) -> *mut u8 {
    if start.is_null() {
        return start;
    }
    let counter = CHARGED.get();
    if !counter.is_null() {
        // SAFETY: While this thread charges it, its handle is borrowed.
        unsafe { (*counter).references.fetch_add(layout.size(), Ordering::Relaxed) };
    }
    // SAFETY: The block begins behind its header, within what was allocated.
    unsafe {
        let block = start.add(offset(layout));
        counter_of(block).write(counter);
        block
    }
}

// SAFETY: Blocks are mimalloc's, of the size and alignment asked for, behind a header of this allocator. It does not unwind.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(outer) = with_header(layout) else { return ptr::null_mut() };
        // SAFETY: `outer` is not empty.
        unsafe { charged(MiMalloc.alloc(outer), layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(outer) = with_header(layout) else { return ptr::null_mut() };
        // SAFETY: `outer` is not empty.
        unsafe { charged(MiMalloc.alloc_zeroed(outer), layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(outer) = with_header(layout) else { return };
        // SAFETY: The caller gives a block of this allocator with its layout, which holds `size` references to its counter.
        unsafe {
            let counter = counter_of(block).read();
            if !counter.is_null() {
                release(counter, layout.size());
            }
            MiMalloc.dealloc(block.sub(offset(layout)), outer);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(larger) = Layout::from_size_align(size, layout.align()) else { return ptr::null_mut() };
        let (Some(outer), Some(new_outer)) = (with_header(layout), with_header(larger)) else {
            return ptr::null_mut();
        };
        // SAFETY: The caller gives a block of this allocator with its layout. The header moves with it, and the offset stays the same.
        unsafe {
            let start = MiMalloc.realloc(block.sub(offset(layout)), outer, new_outer.size());
            if start.is_null() {
                return start;
            }
            let block = start.add(offset(layout));
            let counter = counter_of(block).read();
            if counter.is_null() {
                // What the box began and an invocation lets grow is the invocation's.
                return charged(start, larger);
            }
            match size.checked_sub(layout.size()) {
                Some(more) => drop((*counter).references.fetch_add(more, Ordering::Relaxed)),
                None => release(counter, layout.size() - size),
            }
            block
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn what_is_allocated_for_somebody_is_counted_until_it_is_freed_wherever() {
        let bytes = HostBytes::default();
        let block = {
            let _charging = bytes.charge();
            vec![1_u8; 1000]
        };
        assert_eq!(bytes.get(), 1000);
        let other = vec![1_u8; 1000];
        assert_eq!(bytes.get(), 1000, "nobody is charged");
        thread::spawn(move || drop(block)).join().unwrap();
        assert_eq!(bytes.get(), 0);
        drop(other);
        assert_eq!(bytes.get(), 0);
    }

    #[test]
    fn what_grows_and_shrinks_is_counted_by_whom_it_belongs_to() {
        let [first, second] = [HostBytes::default(), HostBytes::default()];
        let mut block = Vec::<u8>::with_capacity(100);
        {
            let _charging = first.charge();
            block.reserve_exact(5000);
            assert_eq!(first.get(), 5000, "what the box began");
            {
                let _charging = second.charge();
                block.reserve_exact(10_000);
            }
            assert_eq!((first.get(), second.get()), (10_000, 0));
            block.extend_from_slice(&[7; 10]);
        }
        block.shrink_to_fit();
        assert_eq!((first.get(), block.as_slice()), (10, &[7; 10][..]));
        // The handle goes before its blocks.
        drop(first);
        drop(block);
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped_also_without_its_handle() {
        let bytes = HostBytes::default();
        let [one, other] = [1000, 24].map(|size| bytes.hold(NonZeroUsize::new(size).unwrap()));
        assert_eq!(bytes.get(), 1024);
        drop(other);
        assert_eq!(bytes.get(), 1000);
        drop(bytes);
        drop(one);
    }

    #[test]
    fn alignment_and_zeroes() {
        #[repr(align(256))]
        struct Aligned([u8; 300]);
        let bytes = HostBytes::default();
        let _charging = bytes.charge();
        let aligned = Box::new(Aligned([3; 300]));
        assert_eq!((&raw const *aligned).addr() % 256, 0);
        assert_eq!(bytes.get(), 512);
        assert!(aligned.0.iter().all(|byte| *byte == 3));
        let zeroes = vec![0_u8; 1 << 20];
        assert!(zeroes.iter().all(|byte| *byte == 0));
        assert_eq!(bytes.get(), 512 + (1 << 20));
        drop((aligned, zeroes));
        assert_eq!(bytes.get(), 0);
    }
}
