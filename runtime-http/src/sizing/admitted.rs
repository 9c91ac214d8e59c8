//! What is admitted where nothing is set: capacity, the default `Memory-Request` and the queue, which fit each other in a box of any size.
//!
//! A request that names no `Memory-Request` gets 200 MiB, but at most a quarter of the capacity: [`AT_ONCE`] of them run at once also in a
//! small box, since one alone would keep all others from running, however little it used. A quarter of a small box may be too little for a
//! function, so it is never less than [`LEAST`].
//!
//! Units say how much may wait only where boxes are large. In a small one few requests are worth as many units as the box has, and waiting
//! costs no units. So [`DEPTH_INVOCATIONS`] wait in any box. A depth that is set counts alone.

use crate::{
    admission::{Capacity, OverbookingRatio},
    engine::LARGEST_MEMORY,
    limits::{ByteSize, MemoryRequest},
};

const MIB: u64 = 1 << 20;
/// Of admission: 4 PiB.
pub const MOST_UNITS: u64 = u32::MAX as u64;
/// Requests that name no `Memory-Request` and run at once, at least.
const AT_ONCE: u64 = 4;
/// Of the default `Memory-Request`, where the capacity is as much: MiB.
const LEAST: u64 = 16;
/// What four at once can do within a minute, the default deadline, if each takes a second.
const DEPTH_INVOCATIONS: usize = 256;

/// How what is admitted follows from the memory limit, which changes when a pod is resized in place: what the operator has set, each of which
/// counts instead of what would follow.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmittedByLimit {
    /// Bytes.
    pub memory_limit: Option<u64>,
    pub overbooking_ratio: OverbookingRatio,
    pub units: Option<u64>,
    pub depth: Option<u64>,
    pub default_request: Option<MemoryRequest>,
    pub cap: Option<MemoryRequest>,
}

/// What is admitted with one memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The memory that the box may use, bytes.
    pub memory_limit: u64,
    /// [`Capacity::units`].
    pub units: u64,
    depth: u64,
    depth_invocations: usize,
    /// What a request gets that names no `Memory-Request`.
    pub default_request: MemoryRequest,
    /// The most that a request may name.
    pub cap: MemoryRequest,
}

impl AdmittedByLimit {
    /// Where so many bytes are to be had: more than there is would only make the box believe so.
    pub fn at(&self, available: u64) -> Admitted {
        let memory_limit = self.memory_limit.unwrap_or(u64::MAX).min(available);
        let overbooked = self.overbooking_ratio.times(memory_limit / MIB);
        let units = self.units.unwrap_or(overbooked.clamp(1, MOST_UNITS));
        let (depth, depth_invocations) = match self.depth {
            Some(depth) => (depth, 0),
            None => (units.saturating_mul(2), DEPTH_INVOCATIONS),
        };
        let most = mebibytes(units);
        let few = MemoryRequest::DEFAULT.min(mebibytes((units / AT_ONCE).max(LEAST)));
        let default_request = self.default_request.unwrap_or(few).min(most);
        let cap = self.cap.unwrap_or_else(|| default_cap(units, default_request));
        Admitted { memory_limit, units, depth, depth_invocations, default_request, cap }
    }
}

impl Admitted {
    /// The bounds of admission, for so many invocations at once.
    pub fn capacity(&self, invocations: usize) -> Capacity {
        let Admitted { units, depth, depth_invocations, .. } = *self;
        Capacity { units, depth, depth_invocations, invocations }
    }
}

fn mebibytes(units: u64) -> MemoryRequest {
    MemoryRequest::from_bytes(units.saturating_mul(MIB)).unwrap_or(MemoryRequest::MAX)
}

/// Of a linear memory.
pub fn largest_memory() -> MemoryRequest {
    MemoryRequest::from_bytes(LARGEST_MEMORY as u64).unwrap_or(MemoryRequest::MAX)
}

/// Of what is admitted, so that one request leaves as much to others; not less than what a request gets that names nothing.
fn default_cap(units: u64, default: MemoryRequest) -> MemoryRequest {
    let half = MemoryRequest::from_bytes(ByteSize::of_mebibytes(units).bytes() / 2).unwrap_or(MemoryRequest::MAX);
    half.max(default).min(largest_memory())
}
