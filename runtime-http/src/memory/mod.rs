//! The memory of running guests: how much of it there may be, who waits for more, who must go.
//!
//! `Memory-Request` bounds what one guest may take; what all of them take at once is bounded here, by what the container really has. Three
//! steps, each for when the one before was not enough:
//!
//! 1. The memory gate of admission closes while the container's working set is above the high mark: nothing new starts.
//! 2. A growth of a guest's memory that does not fit below the high mark waits, until memory is given back, or until the invocation's
//!    deadline. A guest's resident memory can never be more than what it has grown to. So as long as what the box needs for itself is known
//!    (see [`forecast`]), nothing that guests do can reach the container's limit, however fast they touch what they have.
//! 3. Where waiting cannot help, because those who wait hold what they wait for, the youngest invocation is evicted. The rule is that of
//!    databases ("wound-wait"): an invocation waits for those admitted before it, and evicts those admitted after it. There is no
//!    circle in that, so the oldest always ends. Above the eviction mark the youngest go, too, whoever waits.
//!
//! Not done here: reading the container's files ([`crate::container`]), deciding when to look ([`crate::sampler`]).
//!
//! - [`budget`]: the sum of what guests hold, and who waits; [`reservation`]: what one of them holds; [`kept`]: what an instance holds between two
//! - [`forecast`]: what the box itself needs, and the watermarks
//! - [`eviction`]: who must go; [`throttle`]: how much may start afterwards
//! - [`reclaim`]: what the box can give back without harming anyone

pub mod budget;
pub mod eviction;
pub mod forecast;
pub mod kept;
pub mod reclaim;
pub mod reservation;
pub mod throttle;

pub use self::{budget::MemoryBudget, kept::KeptMemory, reservation::MemoryReservation};

/// For sums and differences that may be negative.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
