//! What is admitted where nothing is set: capacity, the default `Memory-Request` and the queue, which fit each other in a box of any size.
//!
//! A request that names no `Memory-Request` gets 200 MiB, but at most a quarter of the capacity: [`AT_ONCE`] of them run at once also in a
//! small box, since one alone would keep all others from running, however little it used. A quarter of a small box may be too little for a
//! function, so it is never less than [`LEAST`].
//!
//! Units say how much may wait only where boxes are large. In a small one few requests are worth as many units as the box has, and waiting
//! costs no units. So [`DEPTH_INVOCATIONS`] wait in any box. A depth that is set counts alone.

use super::{ConfigError, capacity::CapacitySettings, invocation::InvocationSettings, within};
use crate::{
    admission::{Capacity, OverbookingRatio},
    limits::MemoryRequest,
};

const MIB: u64 = 1 << 20;
/// Of admission: 4 PiB.
const MOST_UNITS: u64 = u32::MAX as u64;
/// Requests that name no `Memory-Request` and run at once, at least.
const AT_ONCE: u64 = 4;
/// Of the default `Memory-Request`, where the capacity is as much: MiB.
const LEAST: u64 = 16;
/// What four at once can do within a minute, the default deadline, if each takes a second.
const DEPTH_INVOCATIONS: usize = 256;

/// The most MiB of `Memory-Request` in flight, in a box with so many bytes of memory.
///
/// # Errors
/// [`ConfigError::Value`], if what was set is not within the bounds.
pub(super) fn units(settings: &CapacitySettings, memory_limit: u64) -> Result<u64, ConfigError> {
    let overbooked = settings.overbooking_ratio.unwrap_or(OverbookingRatio::ONE).times(memory_limit / MIB);
    let units = settings.concurrent_resource_request.unwrap_or(overbooked.clamp(1, MOST_UNITS));
    within("--concurrent-resource-request", units, 1, MOST_UNITS)?;
    Ok(units)
}

/// What a request gets that names no `Memory-Request`.
///
/// # Errors
/// [`ConfigError::Value`], if what was set is never admitted.
pub(super) fn default_request(settings: &InvocationSettings, units: u64) -> Result<MemoryRequest, ConfigError> {
    let mebibytes = |units: u64| MemoryRequest::from_bytes(units.saturating_mul(MIB)).unwrap_or(MemoryRequest::MAX);
    let most = mebibytes(units);
    match settings.memory_request {
        Some(set) if set > most => Err(ConfigError::Value {
            name: "--memory-request",
            value: set.to_string(),
            expected: format!("at most what is admitted at once, {most}"),
        }),
        Some(set) => Ok(set),
        None => Ok(MemoryRequest::DEFAULT.min(mebibytes((units / AT_ONCE).max(LEAST).min(units)))),
    }
}

/// The bounds of admission.
pub(super) fn capacity(settings: &CapacitySettings, units: u64, invocations: usize) -> Capacity {
    let (depth, depth_invocations) = match settings.queue_depth_resource_units {
        Some(depth) => (depth, 0),
        None => (units.saturating_mul(2), DEPTH_INVOCATIONS),
    };
    Capacity { units, depth, depth_invocations, invocations }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::{
        admission::{
            Share,
            state::{AdmissionState, Arrival},
        },
        config::{Config, Settings},
    };

    /// Of a box with so many MiB, whatever this machine has.
    fn of(settings: &Settings, mebibytes: u64) -> (Capacity, u64) {
        let units = units(&settings.capacity, mebibytes * MIB).unwrap();
        let memory = default_request(&settings.invocation, units).unwrap().mebibytes();
        let invocations = usize::try_from(units.min(1000)).unwrap();
        (capacity(&settings.capacity, units, invocations), memory)
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
