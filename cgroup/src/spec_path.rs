//! The cgroups that a container's spec names (`linux.cgroupsPath`), as the drivers cgroupfs and systemd write it.
//!
//! `libcgroups` takes such a path apart in private, for managers: that of v1 knows no path of systemd, and that of systemd wants a
//! connection to it. Here only the directory is looked for.

use std::path::PathBuf;

use crate::hierarchy::{CgroupMounts, inside};

/// The cgroups that a spec names, as far as they are there.
pub fn directories(path: &str) -> Vec<PathBuf> {
    let Some(below) = below_root(path) else { return Vec::new() };
    let Ok(mounts) = CgroupMounts::read() else { return Vec::new() };
    mounts.points().filter_map(|point| inside(point, &below)).filter(|path| path.is_dir()).collect()
}

/// Where the cgroup that a spec names is below the root of a hierarchy: `/PATH`, or `SLICE:PREFIX:NAME` of systemd, whose slices are nested by
/// the dashes in their names (systemd.slice(5)).
fn below_root(path: &str) -> Option<PathBuf> {
    if let Some(below) = path.strip_prefix('/') {
        return Some(below.into()).filter(|_| !below.is_empty());
    }
    let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else { return None };
    let slice = slice.strip_suffix(".slice")?;
    let ends = slice.match_indices('-').map(|(end, _)| end).chain([slice.len()]);
    let mut below: PathBuf = ends.map(|end| format!("{}.slice", &slice[..end])).collect();
    below.push(format!("{prefix}-{name}.scope"));
    Some(below)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_both_drivers() {
        for (path, below) in [
            ("/kubepods/pod1/abc", "kubepods/pod1/abc"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
            ("system.slice:runc:abc", "system.slice/runc-abc.scope"),
        ] {
            assert_eq!(below_root(path).as_deref(), Some(Path::new(below)), "{path}");
        }
        for path in ["", "/", "abc", "system.slice:abc", "system:runc:abc"] {
            assert_eq!(below_root(path), None, "{path:?}");
        }
    }

    proptest! {
        /// Each slice is in the one that has its name but for what follows the last dash.
        #[test]
        fn slices_are_nested_by_their_dashes(
            parts in prop::collection::vec("[a-z0-9_]{1,8}", 1..6),
            prefix in "[a-z-]{1,12}",
            name in "[a-z0-9]{1,16}",
        ) {
            let slice = format!("{}.slice", parts.join("-"));
            let below = below_root(&format!("{slice}:{prefix}:{name}")).unwrap();
            let names: Vec<&str> = below.iter().map(|name| name.to_str().unwrap()).collect();
            let (scope, slices) = names.split_last().unwrap();
            prop_assert_eq!(*scope, format!("{prefix}-{name}.scope"));
            prop_assert_eq!(slices.len(), parts.len());
            prop_assert_eq!(*slices.last().unwrap(), slice);
            for pair in slices.windows(2) {
                let (outer, inner) = (pair[0].strip_suffix(".slice").unwrap(), pair[1].strip_suffix(".slice").unwrap());
                let rest = inner.strip_prefix(outer).unwrap().strip_prefix('-').unwrap();
                prop_assert!(!rest.contains('-'), "{}", rest);
            }
        }

        /// Whatever a spec names is in the hierarchy, or nowhere.
        #[test]
        fn a_name_never_leads_out_of_the_hierarchy(path in "(/|[a-z-]{0,6}\\.slice:|)([a-z]|\\.\\.|\\.|/|-|:|\\.slice){0,12}") {
            let point = Path::new("/sys/fs/cgroup/cpu");
            if let Some(place) = below_root(&path).and_then(|below| inside(point, &below)) {
                prop_assert!(place.starts_with(point), "{}", place.display());
                prop_assert!(place.iter().all(|name| name != ".."), "{}", place.display());
            }
        }
    }
}
