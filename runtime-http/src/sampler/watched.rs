//! A gate of admission, as it was last set.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::admission::{Admission, Gate};

/// Between two lines on the same gate.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// It is set, and told of, when it changes.
pub struct Watched {
    gate: Gate,
    pub open: bool,
    logged: Option<Instant>,
}

impl Watched {
    pub fn new(gate: Gate) -> Watched {
        Watched { gate, open: true, logged: None }
    }

    pub fn set(&mut self, admission: &Arc<Admission>, now: Instant, open: bool, why: impl FnOnce() -> String) {
        if self.open == open {
            return;
        }
        self.open = open;
        admission.set_gate(self.gate, open);
        if self.logged.is_none_or(|last| now.duration_since(last) >= LOG_PERIOD) {
            self.logged = Some(now);
            let state = if open { "open again" } else { "closed: nothing new starts" };
            tracing::info!(gate = ?self.gate, "gate {state}: {}", why());
        }
    }
}
