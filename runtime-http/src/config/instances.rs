//! Instances that serve more than one request.

use std::num::NonZeroU32;

use super::{
    ConfigError,
    settings::{settings, whole},
    within,
};
use crate::{
    engine,
    limits::{ByteSize, ConfigDuration},
    sandbox::InstanceBounds,
};

settings! {
    /// Instances that serve more than one request.
    pub struct InstanceSettings {
        /// Most requests that a function's settings may have one instance serve; 1: none [default: 1000]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<NonZeroU32>)]
        max_instance_reuse: NonZeroU32 = ["MAX_INSTANCE_REUSE"],
        /// Most of these requests at once, in one instance of WASI 0.3; 1: one after the other [default: 16]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<NonZeroU32>)]
        max_instance_concurrency: NonZeroU32 = ["MAX_INSTANCE_CONCURRENCY"],
        /// How long such an instance waits for its next request, ms or with unit [default: 10s]
        #[arg(long, value_name = "TIME")]
        instance_idle: ConfigDuration = ["INSTANCE_IDLE"],
        /// Most memory of instances that wait [default: an eighth of the memory limit]
        #[arg(long, value_name = "SIZE")]
        kept_memory: ByteSize = ["KEPT_MEMORY"],
    }
}

/// What of instances is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReuseConfig {
    /// The most requests that one may serve.
    pub most: NonZeroU32,
    /// The most of them at once.
    pub most_at_once: NonZeroU32,
    pub bounds: InstanceBounds,
}

const MOST: NonZeroU32 = NonZeroU32::new(1000).unwrap();
const MOST_AT_ONCE: NonZeroU32 = NonZeroU32::new(16).unwrap();

impl InstanceSettings {
    /// For a box with so many bytes, whose engine has so many slots.
    pub(super) fn resolve(self, memory_limit: u64, slots: u32) -> Result<ReuseConfig, ConfigError> {
        let most = self.max_instance_reuse.unwrap_or(MOST);
        within("--max-instance-reuse", most.get(), 1, 1_000_000)?;
        let most_at_once = self.max_instance_concurrency.unwrap_or(MOST_AT_ONCE);
        within("--max-instance-concurrency", most_at_once.get(), 1, 1000)?;
        let idle = self.instance_idle.unwrap_or(ConfigDuration::from_secs(10));
        within("--instance-idle", idle.duration().as_millis(), 0, 3_600_000)?;
        let memory = self.kept_memory.unwrap_or(ByteSize::of_bytes(memory_limit / 8)).bytes();
        let slots = slots.min(engine::MOST_CONCURRENT) as usize;
        Ok(ReuseConfig { most, most_at_once, bounds: InstanceBounds { memory, slots, idle: idle.duration() } })
    }
}
