//! Which sizes of huge pages a cgroup counts.

use std::fs;

use crate::process::ProcessCgroups;

/// The sizes, as the controller's files are called: `2MB`. `file` is one that there is for each size.
pub fn sizes(cgroups: &ProcessCgroups, file: &str) -> Vec<String> {
    let entries = cgroups.directory("hugetlb").and_then(|directory| fs::read_dir(directory).ok());
    let names = entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let suffix = format!(".{file}");
    let mut sizes: Vec<String> =
        names.filter_map(|name| Some(name.strip_prefix("hugetlb.")?.strip_suffix(&suffix)?.to_owned())).collect();
    sizes.retain(|size| !size.contains('.'));
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_pages_are_no_size_of_their_own() {
        let directory = std::env::temp_dir().join(format!("wasmbox-cgroup-huge-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for file in ["hugetlb.2MB.current", "hugetlb.2MB.rsvd.current", "hugetlb.1GB.current", "memory.current"] {
            fs::write(directory.join(file), "0\n").unwrap();
        }
        assert_eq!(sizes(&ProcessCgroups::V2(directory.clone()), "current"), ["1GB", "2MB"]);
        fs::remove_dir_all(&directory).unwrap();
        assert!(sizes(&ProcessCgroups::V2(directory), "current").is_empty());
    }
}
