//! CPU limits of invocations by nested cgroups.
//!
//! - [`hierarchy`]: finds cgroups

pub mod hierarchy;
