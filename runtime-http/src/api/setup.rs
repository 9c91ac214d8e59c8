//! What an admitted invocation is given.

use std::time::Instant;

use super::{Api, Exchange};
use crate::{
    invocation::CancelToken,
    limits::Limits,
    sandbox::{Call, InstanceUse, Setup, Stderr},
};

impl Exchange {
    /// Whose its instance is.
    pub(super) fn got(&mut self, instance: InstanceUse) {
        self.timing.instance = Some(instance);
        self.record.instance(instance.as_str());
    }
}

impl Api {
    /// The setup of an invocation that was just admitted, and its call, in an instance that has served others if its function wants that and
    /// there is one. `cancel` ends it.
    pub(super) fn setup(
        &self,
        mut call: Call,
        limits: Limits,
        deadline: Instant,
        cancel: &CancelToken,
        exchange: &mut Exchange,
    ) -> (Call, Setup) {
        let (core, function, id) = (&self.core, exchange.function.clone(), exchange.timing.id);
        let reuse = function.reuse(&core.instances);
        let kept = reuse.as_ref().and_then(|reuse| reuse.take(&limits));
        if reuse.is_some() {
            exchange.got(if kept.is_some() { InstanceUse::Reused } else { InstanceUse::Fresh });
        }
        let (stderr, memory) = match kept {
            Some((instance, memory)) => {
                let stderr = instance.begin(id);
                call.go_on_in(instance);
                (stderr, core.memory.take_over(memory, id, cancel.clone()))
            }
            None => {
                core.instances.make_slot(core.admission.in_flight());
                let stderr = Stderr::new(function.name.clone(), id, self.settings.stderr_in_errors)
                    .followed(function.metrics.log().cloned())
                    .within(function.log_allowance.clone());
                (stderr, core.memory.reserve(id, cancel.clone()))
            }
        };
        let setup = Setup {
            id,
            stderr,
            function: function.name.clone(),
            grants: function.grants.clone(),
            config: function.config.clone(),
            limits,
            deadline,
            max_output: self.settings.max_output,
            max_body: self.settings.body.length,
            buffer_limit: function.buffer_limit,
            preallocated: self.settings.preallocation.map_or(0, |share| share.of(limits.memory.bytes())),
            files: function.files.clone(),
            outbound: function.outbound(id, exchange.record.propagated()),
            keyvalue: function.keyvalue.clone(),
            reuse,
            memory,
        };
        (call, setup)
    }
}
