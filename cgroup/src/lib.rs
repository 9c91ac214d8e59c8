//! Cgroups, v1 and v2: where they are, what is in them, what they have used, and those that limit single threads.
//!
//! The box and the shim share this crate; it knows neither of them. It has no policy, log or metrics: who calls it decides what is done,
//! and what is said of it.
//!
//! Where cgroups are:
//!
//! - [`hierarchy`]: how the host is set up, what is mounted, and the one mapping from a line of `/proc/PID/cgroup` to a directory
//! - [`directory`]: [`Cgroup`], a directory of one hierarchy: this process's own, one that is named, or one that is searched for
//! - [`process`]: [`ProcessCgroups`], the cgroups of any process, by controller
//! - [`spec_path`]: the cgroups that a container's spec names, for cgroupfs and systemd
//!
//! What is in them:
//!
//! - [`mod@file`]: numbers and fields of the kernel's files
//! - [`limit`]: the memory, CPU time and pids that a cgroup may have, with those above it
//! - [`members`]: the processes in a tree, and killing them
//! - [`tree`]: removing what is below a cgroup
//! - [`oom`]: kills because memory was short
//! - [`stats`]: what a cgroup has used
//!
//! Limits of threads:
//!
//! - [`bandwidth`]: from millicores to quota and period
//! - [`root`]: the cgroup in which leaves are made
//! - [`leaf`]: one thread's cgroup
//! - [`step`]: which step failed, on which path, and how
//!
//! The crate `libcgroups`, youki's, tells how the host is set up ([`hierarchy`]), reads single numbers ([`mod@file`]) and the use of pids
//! ([`stats`]). Its managers of whole cgroups cannot be used here; each module that does by hand what they offer says why.

#![forbid(unsafe_code)]

pub mod bandwidth;
pub mod directory;
pub mod file;
pub mod hierarchy;
pub mod leaf;
pub mod limit;
pub mod members;
pub mod oom;
pub mod process;
pub mod root;
pub mod spec_path;
pub mod stats;
pub mod step;
pub mod tree;

pub use self::{
    bandwidth::Bandwidth,
    directory::{Cgroup, NotFound},
    hierarchy::Version,
    leaf::{Leaf, LeafQuota},
    process::ProcessCgroups,
    root::Root,
    step::{LeafError, Step},
};
