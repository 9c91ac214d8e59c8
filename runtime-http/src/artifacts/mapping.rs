//! A file's content in memory without a copy of it: read once, from the page cache itself.

#![allow(unsafe_code, reason = "a mapping is only as constant as its file")]

use std::{ffi::c_void, fs::File, io, ops::Deref, ptr, slice};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a file that nobody changes in place.
pub struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes. `file` must be one that nobody changes any more: of a cache, written once, whole, before it got its
    /// name; or in memory and sealed.
    ///
    /// # Errors
    /// If there is nothing to map, or it cannot be mapped.
    pub fn new(file: &File, length: u64) -> io::Result<Mapping> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // POPULATE: all pages at once, not one fault after another.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, flags, file, 0) }?;
        Ok(Mapping { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped readable until `self` is dropped, and its file is not changed: see `new`.
        unsafe { slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and what `deref` lends does not outlive `self`.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
