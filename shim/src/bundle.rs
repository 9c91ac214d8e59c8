//! A container's bundle: the directory that containerd made for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use wasmbox_cgroup::spec_path;
use wasmbox_oci::Spec;

/// The spec.
pub const CONFIG: &str = "config.json";
/// The address of the shim that serves it.
pub const ADDRESS: &str = "address";
/// The pid of its init process.
const INIT_PID: &str = "init.pid";
/// The options that the container was created with, for `delete`, which is told none.
const OPTIONS: &str = "wasmbox-options.json";
/// In the bundle of a pod's first container: notes of the others.
const POD: &str = "wasmbox-pod";
const ROOTFS: &str = "rootfs";
const LOWER: &str = "lower";

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

    /// Where the OCI runtime writes the pid of the init process.
    pub fn init_pid_file(&self) -> PathBuf {
        self.0.join(INIT_PID)
    }

    pub fn read_init_pid(&self) -> Option<u32> {
        fs::read_to_string(self.init_pid_file()).ok()?.trim().parse().ok()
    }

    pub fn read_address(&self) -> Option<String> {
        fs::read_to_string(self.0.join(ADDRESS)).ok()
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

    /// The container's cgroups, as far as they are there and bear its name.
    pub fn cgroups(&self, id: &str) -> Vec<PathBuf> {
        let spec = self.read_config().ok().and_then(|text| Spec::parse(&text).ok());
        let bears = |path: &&str| [format!("/{id}"), format!(":{id}")].iter().any(|name| path.ends_with(name));
        let path = spec.as_ref().and_then(Spec::cgroups_path).filter(bears);
        path.map_or_else(Vec::new, spec_path::directories)
    }

    /// Notes in the pod's first bundle what it takes to remove this container: containerd may have removed this bundle by then.
    pub fn note(&self, pod: &Bundle, id: &str) -> io::Result<()> {
        let note = pod.0.join(POD).join(id);
        fs::create_dir_all(&note)?;
        for file in [CONFIG, OPTIONS] {
            match fs::hard_link(self.0.join(file), note.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// It was removed.
    pub fn forget(&self, id: &str) {
        let _ = fs::remove_dir_all(self.0.join(POD).join(id));
    }

    /// The containers that were noted here.
    pub fn noted(&self) -> Vec<(String, Bundle)> {
        let entries = fs::read_dir(self.0.join(POD)).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, Bundle(entry.path())))).collect()
    }

    /// Where layers of the root filesystem are mounted while that is made.
    pub fn lower(&self) -> PathBuf {
        self.0.join(LOWER)
    }

    /// Unmounts the root filesystem, if this shim mounted it.
    pub fn unmount(&self) {
        unmount(&self.rootfs());
        if self.lower().exists() {
            self.unmount_lower();
        }
    }

    /// Unmounts its layers, which it has itself.
    pub fn unmount_lower(&self) {
        let lower = self.lower();
        unmount(&lower);
        // Each directory is empty now. One that is still a mount must not be emptied.
        for entry in fs::read_dir(&lower).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(lower);
    }
}

fn unmount(path: &Path) {
    if let Err(error) = containerd_shim::mount::umount_recursive(path.to_str(), libc::MNT_DETACH) {
        log::warn!("unmounting {}: {error}", path.display());
    }
}
