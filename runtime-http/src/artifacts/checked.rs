//! What was checked before: which image of the cache is a module's, both files unchanged since.
//!
//! To hash a module and its image takes longer than all else of its first answer. Whenever a file changes the kernel sets its ctime, which nobody else can
//! (inode(7)). So what a look at both files is enough to know again is written down, under a MAC, and holds until the kernel starts anew: whoever changes a disk elsewhere
//! may write any time there.
//!
//! It is one file of fixed size, so that it cannot grow, with a slot for each of many modules. Whose slot another one takes is checked in full again.
//! What is torn or changed has no right MAC, and is as if it were not there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::{ArtifactKey, KEY_BYTES};
use crate::artifacts::file_identity::FileIdentity;

const FILE: &str = "checked";
const SLOTS: u64 = 1 << 16;
/// The kernel gives each of its starts a random number (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_BYTES: usize = 36;
/// So that a MAC of this file is none of an image.
const CONTEXT: &str = "wasmbox 2026-11-22 images that were checked";

const CONTENT_BYTES: usize = BOOT_BYTES + FileIdentity::BYTES + ArtifactKey::BYTES + FileIdentity::BYTES;
const SLOT_BYTES: usize = CONTENT_BYTES + blake3::OUT_LEN;

/// The file.
pub(super) struct CheckedImages {
    file: File,
    key: [u8; KEY_BYTES],
    boot: [u8; BOOT_BYTES],
}

impl CheckedImages {
    /// `None` if the kernel does not tell when it was started.
    ///
    /// # Errors
    /// If the file can neither be opened nor made.
    pub fn open(directory: &Path, cache_key: &[u8; KEY_BYTES]) -> io::Result<Option<CheckedImages>> {
        let Ok(boot) = fs::read(BOOT_ID) else { return Ok(None) };
        let Some(boot) = boot.first_chunk().copied() else { return Ok(None) };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(directory.join(FILE))?;
        Ok(Some(CheckedImages { file, key: blake3::derive_key(CONTEXT, cache_key), boot }))
    }

    /// What the image of `module` is, and which file it was.
    pub fn find(&self, module: &FileIdentity) -> Option<(ArtifactKey, FileIdentity)> {
        let mut slot = [0; SLOT_BYTES];
        self.file.read_exact_at(&mut slot, self.position(module)).ok()?;
        let (content, mac) = slot.split_first_chunk::<CONTENT_BYTES>()?;
        let mac: [u8; blake3::OUT_LEN] = mac.try_into().ok()?;
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&self.key, content) != blake3::Hash::from_bytes(mac) {
            return None;
        }
        let rest = content.strip_prefix(&self.boot)?.strip_prefix(&module.to_bytes())?;
        let (key, image) = rest.split_first_chunk()?;
        Some((ArtifactKey::from_bytes(*key), FileIdentity::from_bytes(*image.first_chunk()?)))
    }

    /// Writes down that `image` is what `module` was compiled to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, module: &FileIdentity, key: &ArtifactKey, image: &FileIdentity) -> io::Result<()> {
        let content = [&self.boot[..], &module.to_bytes(), &key.to_bytes(), &image.to_bytes()].concat();
        let mac = blake3::keyed_hash(&self.key, &content);
        self.file.write_all_at(&[&content[..], mac.as_bytes()].concat(), self.position(module))
    }

    /// Where nobody can choose it who does not have the key.
    fn position(&self, module: &FileIdentity) -> u64 {
        let hash = blake3::keyed_hash(&self.key, &module.inode_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d])) % SLOTS * SLOT_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("wasmbox-checked-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_was_put_is_found_by_whom_it_belongs_to_alone() {
        let directory = directory("found");
        let [module, other, image] = [1, 2, 3].map(FileIdentity::numbered);
        let key = ArtifactKey::new(b"content", 7);
        let checked = CheckedImages::open(&directory, &[1; KEY_BYTES]).unwrap().expect("the kernel has a boot id");
        assert_eq!(checked.find(&module), None);
        checked.put(&module, &key, &image).unwrap();
        assert_eq!(checked.find(&module), Some((key, image)));
        assert_eq!(checked.find(&other), None);
        // Of another process; of one with another key; after another start of the kernel.
        let again = CheckedImages::open(&directory, &[1; KEY_BYTES]).unwrap().unwrap();
        assert_eq!(again.find(&module), Some((key, image)));
        let stranger = CheckedImages::open(&directory, &[2; KEY_BYTES]).unwrap().unwrap();
        assert_eq!(stranger.find(&module), None);
        let restarted = CheckedImages { boot: [b'0'; BOOT_BYTES], ..again };
        assert_eq!(restarted.find(&module), None);
        fs::remove_dir_all(directory).unwrap();
    }

    proptest! {
        /// No byte of it can be changed, and no length is too short to read.
        #[test]
        fn what_was_changed_is_not_there(at in 0..SLOT_BYTES, flip in 1..=255_u8, cut in any::<bool>()) {
            let directory = directory("changed");
            let module = FileIdentity::numbered(1);
            let checked = CheckedImages::open(&directory, &[1; KEY_BYTES]).unwrap().unwrap();
            checked.put(&module, &ArtifactKey::new(b"content", 7), &FileIdentity::numbered(3)).unwrap();
            let position = checked.position(&module) + at as u64;
            if cut {
                checked.file.set_len(position).unwrap();
            } else {
                let mut byte = [0];
                checked.file.read_exact_at(&mut byte, position).unwrap();
                checked.file.write_all_at(&[byte[0] ^ flip], position).unwrap();
            }
            prop_assert_eq!(checked.find(&module), None);
            checked.file.set_len(0).unwrap();
        }
    }
}
