//! What the box gives up when it starts.

use super::settings::settings;
use crate::privileges::Confine;

settings! {
    /// What the box gives up when it starts.
    pub struct ConfinementSettings {
        /// Give up files, ports, system calls and rights that serving does not take; auto: what the kernel has means for [default: auto]
        #[arg(long, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "true")]
        confine: Confine = ["CONFINE"],
    }
}
