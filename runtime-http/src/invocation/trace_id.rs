//! The name of the trace that an invocation belongs to (W3C Trace Context, "trace-id").

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The name of a trace. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// Numbers that nobody can foresee, and that do not come again.
pub fn random() -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Keyed by the operating system's randomness.
    KEYS.get_or_init(RandomState::new).hash_one(NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub fn not_zero() -> u64 {
    loop {
        if let number @ 1.. = random() {
            return number;
        }
    }
}

impl TraceId {
    /// A new one, all of which is random.
    pub fn new() -> TraceId {
        TraceId((u128::from(random()) << 64 | u128::from(not_zero())).to_be_bytes())
    }

    /// The name that somebody else has given; not all zeros.
    pub fn of(bytes: [u8; 16]) -> TraceId {
        TraceId(bytes)
    }

    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The part by which a share of all traces is drawn.
    pub fn low(&self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }
}

impl Default for TraceId {
    fn default() -> Self {
        TraceId::new()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
