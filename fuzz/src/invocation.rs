//! What functions may be granted, which their settings name.

#[path = "../../runtime-http/src/invocation/grants.rs"]
pub mod grants;
#[path = "../../runtime-http/src/invocation/outbound_grant.rs"]
pub mod outbound_grant;

pub use self::{
    grants::{HostDirectory, Preopen, PreopenRoot},
    outbound_grant::OutboundGrant,
};
