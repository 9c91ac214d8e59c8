//! Files in memory are sealed although the kernel, or somebody who is about to let go of them, still uses them.

use std::{io::Write, ptr, thread, time::Duration};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use wasmbox::confined::memory_file::MemoryFile;

const PAGE: usize = 4096;

#[test]
#[allow(unsafe_code, reason = "no safe wrapper maps a file for writing")]
fn a_file_in_use_is_sealed_a_moment_later() {
    let mut file = MemoryFile::new("test").expect("a file");
    file.file().write_all(&[7; PAGE]).expect("memory");
    // SAFETY: a new mapping, of which nobody makes a reference.
    let mapping = unsafe { mmap(ptr::null_mut(), PAGE, ProtFlags::WRITE, MapFlags::SHARED, file.file(), 0) };
    let address = mapping.expect("a mapping").expose_provenance();
    let unmapping = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        // SAFETY: the mapping of above, with its length.
        unsafe { munmap(ptr::with_exposed_provenance_mut(address), PAGE) }.expect("it is mapped");
    });
    assert_eq!(file.seal().expect("nobody uses it any more").length(), PAGE as u64);
    unmapping.join().expect("it ends");
}
