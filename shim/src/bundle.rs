//! A container's bundle: the directory that containerd made for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The spec.
pub const CONFIG: &str = "config.json";
/// The options that the container was created with, for `delete`, which is told none.
const OPTIONS: &str = "wasmbox-options.json";
const ROOTFS: &str = "rootfs";

#[derive(Debug, Clone)]
pub struct Bundle(PathBuf);

impl Bundle {
    pub fn new(path: impl Into<PathBuf>) -> Bundle {
        Bundle(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn rootfs(&self) -> PathBuf {
        self.0.join(ROOTFS)
    }

    pub fn read_config(&self) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(CONFIG))
    }

    /// Replaces the spec in one step.
    pub fn write_config(&self, text: &[u8]) -> io::Result<()> {
        let new = self.0.join("config.json.new");
        fs::write(&new, text)?;
        fs::rename(new, self.0.join(CONFIG))
    }

    pub fn read_options(&self) -> Option<Vec<u8>> {
        fs::read(self.0.join(OPTIONS)).ok()
    }

    pub fn write_options(&self, text: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(OPTIONS), text)
    }

    /// Unmounts the root filesystem, if this shim mounted it.
    pub fn unmount(&self) {
        let rootfs = self.rootfs();
        if let Err(error) = containerd_shim::mount::umount_recursive(rootfs.to_str(), libc::MNT_DETACH) {
            log::warn!("unmounting {}: {error}", rootfs.display());
        }
    }
}
