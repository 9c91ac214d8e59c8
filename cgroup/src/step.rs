//! The steps on the way to a limited thread, and how one of them failed.

use std::path::PathBuf;

use rustix::io::Errno;

/// What a step on the way to a limited thread was, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Open,
    EnableCpu,
    Create,
    MakeThreaded,
    OpenQuota,
    SetQuota,
    SetWeight,
    Join,
    Leave,
    Remove,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Step::Open => "opening the cgroup",
            Step::EnableCpu => "enabling the cpu controller in",
            Step::Create => "creating the cgroup",
            Step::MakeThreaded => "making threaded",
            Step::OpenQuota => "opening the quota",
            Step::SetQuota => "setting the quota",
            Step::SetWeight => "setting the weight",
            Step::Join => "joining",
            Step::Leave => "returning to",
            Step::Remove => "removing the cgroup",
        }
    }
}

/// Which step failed, on which path, and how.
#[derive(Debug, thiserror::Error)]
#[error("{} {}: {errno}", step.as_str(), path.display())]
pub struct LeafError {
    pub step: Step,
    pub path: PathBuf,
    pub errno: Errno,
}
