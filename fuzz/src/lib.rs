//! The parsers of the box, for fuzzing: compiled from its very sources, but without the rest of it, of which the Wasm compiler alone
//! would take longer to build than all targets take to run.
//!
//! So a parser must depend on nothing of the box but other parsers. One that no longer does breaks this build; the way out is to
//! take the new dependency out of the parser, not to add it here.

#![allow(dead_code, reason = "a fuzz target uses a part")]

#[path = "../../runtime-http/src/excerpt.rs"]
pub mod excerpt;
#[path = "../../runtime-http/src/limits/mod.rs"]
pub mod limits;
#[path = "../../runtime-http/src/module_format.rs"]
pub mod module_format;

pub mod api;
pub mod invocation;
pub mod store;
