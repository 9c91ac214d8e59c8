//! What the box gives up when it starts.

use super::settings::settings;

/// Whether the box gives up anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Confine {
    /// What the kernel has no means for, or forbids, is not given up, with a warning.
    Auto,
    /// It does not start then.
    True,
    False,
}

settings! {
    /// What the box gives up when it starts.
    pub struct ConfinementSettings {
        /// Give up files, ports, system calls and rights that serving does not take; auto: what the kernel has means for [default: auto]
        #[arg(long, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "true")]
        confine: Confine = ["CONFINE"],
    }
}
