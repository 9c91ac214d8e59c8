//! A container's root filesystem, mounted as containerd says.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use containerd_shim_protos::types::mount::Mount;

use crate::{
    bundle::Bundle,
    exits::Exits,
    idmap::{IdmapError, Mapping, mount_mapped},
};

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("{}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("mounting the root filesystem at {}: {source}", path.display())]
    Mount { path: PathBuf, source: containerd_shim::Error },
    #[error("mounting the root filesystem: {0}")]
    Idmap(#[from] IdmapError),
}

const LOWER: &str = "lowerdir=";

/// Mounts it in the bundle. What was mounted stays if that fails: [`Bundle::unmount`].
///
/// # Errors
/// The kernel's, with the path.
pub async fn mount(bundle: &Bundle, mounts: &[Mount], exits: &Exits) -> Result<(), RootfsError> {
    let rootfs = bundle.rootfs();
    if !mounts.is_empty() {
        make(&rootfs)?;
    }
    for mount in mounts {
        let mut options = mount.options.clone();
        let Some(mapping) = Mapping::take(&mut options)? else {
            mount_at(&rootfs, mount, &options)?;
            continue;
        };
        let namespace = mapping.namespace(exits).await?;
        if mount.type_ != "overlay" {
            mount_at(&rootfs, mount, &options)?;
            mount_mapped(&rootfs, &rootfs, namespace.as_fd())?;
            continue;
        }
        // Not the overlay is mapped, but its layers; the upper one is the container's own already. When it has them, their own mounts can go.
        for option in options.iter_mut().filter(|option| option.starts_with(LOWER)) {
            let mut layers = Vec::new();
            for (number, layer) in option[LOWER.len()..].split(':').enumerate() {
                let place = bundle.lower().join(number.to_string());
                make(&place)?;
                mount_mapped(Path::new(layer), &place, namespace.as_fd())?;
                layers.push(place.display().to_string());
            }
            *option = format!("{LOWER}{}", layers.join(":"));
        }
        mount_at(&rootfs, mount, &options)?;
        bundle.unmount_lower();
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), RootfsError> {
    fs::create_dir_all(directory).map_err(|source| RootfsError::Directory { path: directory.to_owned(), source })
}

fn mount_at(rootfs: &Path, mount: &Mount, options: &[String]) -> Result<(), RootfsError> {
    fn text(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    containerd_shim::mount::mount_rootfs(text(&mount.type_), text(&mount.source), options, rootfs)
        .map_err(|source| RootfsError::Mount { path: rootfs.to_owned(), source })
}
