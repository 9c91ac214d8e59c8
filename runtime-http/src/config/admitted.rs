//! What is admitted where something is set.

use super::{ConfigError, capacity::CapacitySettings, invocation::InvocationSettings, within};
use crate::{
    admission::OverbookingRatio,
    limits::{MemoryLimit, MemoryRequest},
    sizing::admitted::{Admitted, AdmittedByLimit, MOST_UNITS, largest_memory},
};

impl AdmittedByLimit {
    pub(super) fn new(capacity: &CapacitySettings, invocation: &InvocationSettings) -> AdmittedByLimit {
        AdmittedByLimit {
            memory_limit: capacity.memory_limit.map(MemoryLimit::bytes),
            overbooking_ratio: capacity.overbooking_ratio.unwrap_or(OverbookingRatio::ONE),
            units: capacity.concurrent_resource_request,
            depth: capacity.queue_depth_resource_units,
            default_request: invocation.memory_request,
            cap: invocation.max_memory_request,
        }
    }

    /// At the start; later, what does not fit is lowered.
    ///
    /// # Errors
    /// [`ConfigError::Value`], if what was set is not within the bounds, or never admitted.
    pub(super) fn check(&self, admitted: &Admitted) -> Result<(), ConfigError> {
        within("--concurrent-resource-request", admitted.units, 1, MOST_UNITS)?;
        match self.default_request {
            Some(set) if set > admitted.default_request => Err(ConfigError::Value {
                name: "--memory-request",
                value: set.to_string(),
                expected: format!("at most what is admitted at once, {}", admitted.default_request),
            }),
            Some(_) | None => within("--max-memory-request", admitted.cap, MemoryRequest::MIN, largest_memory()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::{
        admission::{
            Capacity, Share,
            state::{AdmissionState, Arrival},
        },
        config::{Config, Settings},
    };

    const MIB: u64 = 1 << 20;

    /// Of a box with so many MiB, whatever this machine has.
    fn of(settings: &Settings, mebibytes: u64) -> (Capacity, u64) {
        let admitted = AdmittedByLimit::new(&settings.capacity, &settings.invocation).at(mebibytes * MIB);
        let invocations = usize::try_from(admitted.units.min(1000)).unwrap();
        (admitted.capacity(invocations), admitted.default_request.mebibytes())
    }

    #[test]
    fn the_default_request_is_200_where_four_of_them_fit() {
        let memory = |mebibytes| of(&Settings::default(), mebibytes).1;
        let sizes = [1, 10, 32, 64, 128, 256, 512, 799, 800, 1024, 65_536];
        assert_eq!(sizes.map(memory), [1, 10, 16, 16, 32, 64, 128, 199, 200, 200, 200]);
    }

    #[test]
    fn what_is_set_counts() {
        let mut settings = Settings::default();
        settings.invocation.memory_request = Some("200".parse().unwrap());
        settings.capacity.queue_depth_resource_units = Some(300);
        let (capacity, memory) = of(&settings, 256);
        assert_eq!((capacity.units, capacity.depth, capacity.depth_invocations, memory), (256, 300, 0, 200));
        let mut settings = Settings::default();
        settings.capacity.concurrent_resource_request = Some(1000);
        assert_eq!(of(&settings, 256).1, 200, "a quarter of what is admitted, which may be more than there is");
        let (small, large) = (of(&Settings::default(), 64).0, of(&Settings::default(), 4096).0);
        assert_eq!([small.depth, large.depth], [128, 8192]);
        assert_eq!([small.depth_invocations, large.depth_invocations], [256, 256]);
        let mut too_large = Settings::default();
        too_large.invocation.memory_request = Some("65".parse().unwrap());
        too_large.capacity.concurrent_resource_request = Some(64);
        let message = Config::new(too_large).unwrap_err().to_string();
        assert!(message.starts_with("--memory-request 65"), "{message}");
    }

    /// A pod is resized in place: what was set at the start no longer fits, and fits again.
    #[test]
    fn a_limit_that_changes_changes_what_follows_from_it() {
        let mut settings = Settings::default();
        settings.capacity.memory_limit = Some("512".parse().unwrap());
        settings.invocation.memory_request = Some("200".parse().unwrap());
        let by_limit = AdmittedByLimit::new(&settings.capacity, &settings.invocation);
        let at = |mebibytes: u64| {
            let admitted = by_limit.at(mebibytes * MIB);
            let memory = [admitted.default_request, admitted.cap].map(MemoryRequest::mebibytes);
            (admitted.memory_limit / MIB, admitted.capacity(100), memory)
        };
        let capacity = |units| Capacity { units, depth: 2 * units, depth_invocations: 256, invocations: 100 };
        assert_eq!(at(1024), (512, capacity(512), [200, 256]), "no more than was asked for");
        assert_eq!(at(128), (128, capacity(128), [128, 128]));
        assert_eq!(at(300), (300, capacity(300), [200, 200]));
    }

    proptest! {
        /// 64 clients that name no limit, each with one request after the other, of some functions: none is refused in a box of 64 MiB to
        /// 64 GiB, and where that many are there, four run at once.
        #[test]
        fn sixty_four_clients_are_served_at_every_size(
            mebibytes in prop_oneof![64_u64..=1024, 64_u64..=65_536],
            functions in 1_usize..5,
            ends in vec(any::<Index>(), 300),
        ) {
            let (capacity, memory) = of(&Settings::default(), mebibytes);
            let mut state = AdmissionState::new(capacity);
            let shares: Vec<Arc<Share>> = (0..functions).map(|_| Arc::new(Share::new())).collect();
            let (mut running, mut clients) = (Vec::new(), (0..64_usize).collect::<VecDeque<_>>());
            for end in ends {
                while let Some(client) = clients.pop_front() {
                    match state.arrive(&shares[client % functions], memory, || client) {
                        Ok(Arrival::Starts) => running.push(client),
                        Ok(Arrival::Waits { decisions, .. }) => prop_assert!(decisions.is_empty()),
                        Err(refused) => panic!("{mebibytes} MiB: {refused}"),
                    }
                }
                prop_assert!(running.len() >= 4, "{} of {memory} MiB run in {mebibytes}", running.len());
                prop_assert!(running.len() as u64 * memory <= mebibytes);
                let client = running.swap_remove(end.index(running.len()));
                for decision in state.release(&shares[client % functions], memory) {
                    prop_assert_eq!(decision.result, Ok(()));
                    running.push(decision.waiter);
                }
                clients.push_back(client);
            }
        }
    }
}
