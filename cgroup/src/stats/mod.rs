//! What a cgroup has used. A reading that is not there is zero or none, and takes no other with it.
//!
//! The numbers of processes are read by `libcgroups`. The rest of its statistics is not used:
//!
//! - It gives all controllers or an error, and its parsers of single ones are private. One missing file is an error, and there are hosts that
//!   have none of `memory.memsw.*` or `memory.swap.*` (no swap accounting), `memory.kmem.*`, `*.pressure` (no PSI) or `hugetlb.*`.
//! - Its [`pressure`] leaves out `total`, which containerd's metrics have, and by which the box notices that memory is short.
//! - Its [`block_io`] refuses a whole file for one line of a device that is `(unknown)` or has no numbers, as kernels write them; of v1 it
//!   reads the throttling policy's files only where there is no `blkio.weight`, and else those of a scheduler that kernels have no more.
//! - Its sizes of [`huge_pages`] are those of the machine, whether the cgroup counts them or not; and it has no limits of them.
//! - It has no `memory.events`, bursts of CPU time, or limits of huge pages.

pub mod block_io;
pub mod huge_pages;
pub mod pressure;

use libcgroups::stats::{PidStats, pid_stats};

use crate::process::ProcessCgroups;

/// Processes and threads, and the limit; 0 is none.
pub fn pids(cgroups: &ProcessCgroups) -> PidStats {
    cgroups.directory("pids").and_then(|directory| pid_stats(directory).ok()).unwrap_or_default()
}

/// `MAJOR:MINOR`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
