//! The rules of admission: examples of each, and properties that hold whatever comes.
//!
//! - [`audited`]: the state beside a plain account of the same, which checks each step
//! - [`properties`]: what holds for random sequences; [`examples`]: what each rule means

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audited;
mod examples;
mod properties;

use wasmbox::admission::Capacity;

type Name = u32;

/// What is no matter in a test.
const BOUNDS: Capacity = Capacity { units: 100, depth: 1000, depth_invocations: 0, invocations: 1000 };
