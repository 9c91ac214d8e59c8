//! What all parts of the box know of one invocation, in types that depend on none of those parts.
//!
//! - [`id`]: its name in logs and headers; [`trace_id`]: that of its trace
//! - [`grants`]: what it may reach beyond computing; [`outbound_grant`]: where its HTTP requests may go
//! - [`cancel`]: ending it from another thread
//! - [`usage`]: what it used; [`failure`]: all ways to fail; [`outcome`]: both together, when it has ended

pub mod cancel;
pub mod failure;
pub mod grants;
pub mod id;
pub mod outbound_grant;
pub mod outcome;
pub mod trace_id;
pub mod usage;

pub use self::{
    cancel::{CancelOnDrop, CancelReason, CancelToken, QuotaLift},
    failure::Failure,
    grants::{Grants, HostDirectory, Preopen, PreopenRoot},
    id::InvocationId,
    outbound_grant::{Host, OutboundGrant},
    outcome::Outcome,
    usage::{CgroupTimes, Usage, microseconds},
};
