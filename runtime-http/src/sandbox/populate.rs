//! Makes a guest's memory resident before it runs, instead of page by page while it runs.

#![allow(unsafe_code, reason = "madvise on memory that wasmtime mapped")]

use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};
use wasmtime::{AsContext, Memory};

use crate::invocation::CancelToken;

/// Takes some milliseconds.
const PIECE: usize = 16 << 20;

/// Makes the first `bytes` of `memory` resident and writable, as far as it has grown already. madvise(2): `MADV_POPULATE_WRITE`, since
/// Linux 5.14; what they contain does not change. In pieces, between which `cancel` is heeded.
///
/// # Errors
/// The kernel's, if it does not know that advice or has no memory left. Then pages come on first use, as usual.
pub fn populate(store: impl AsContext, memory: &Memory, bytes: usize, cancel: &CancelToken) -> Result<(), Errno> {
    let bytes = bytes.min(memory.data_size(&store)) & !(rustix::param::page_size() - 1);
    for start in (0..bytes).step_by(PIECE) {
        if cancel.reason().is_some() {
            return Ok(());
        }
        let length = PIECE.min(bytes - start);
        // SAFETY: The range is mapped, readable and writable, as long as the store, which is borrowed: it is in the accessible part of a
        // linear memory, which begins at a page's boundary, as each piece does. The advice changes no byte of it.
        unsafe { madvise(memory.data_ptr(&store).add(start).cast(), length, Advice::LinuxPopulateWrite)? };
    }
    Ok(())
}
