//! Ends what is left in cgroups, and removes them: off the event loop, since nothing bounds how many there are.

use std::{path::PathBuf, time::Duration};

use tokio::time::sleep;
use wasmbox_cgroup::{members, tree};

use crate::thread;

/// Kills what is in cgroups.
pub async fn kill(cgroups: Vec<PathBuf>) {
    if !cgroups.is_empty() {
        let _ = thread::run(move || members::kill(&cgroups)).await;
    }
}

/// Kills what is left in cgroups, and removes them: for containers that the OCI runtime does not know, since it was killed itself.
pub async fn sweep(cgroups: Vec<PathBuf>) {
    /// The kernel drops ended processes late.
    const ATTEMPTS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..ATTEMPTS {
        if !cgroups.iter().any(|cgroup| cgroup.exists()) {
            return;
        }
        let swept = cgroups.clone();
        let _ = thread::run(move || sweep_once(&swept)).await;
        sleep(PAUSE).await;
    }
}

fn sweep_once(cgroups: &[PathBuf]) {
    members::kill(cgroups);
    cgroups.iter().for_each(|cgroup| tree::remove(cgroup));
}
