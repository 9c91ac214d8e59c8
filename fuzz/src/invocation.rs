//! What functions may be granted, which their settings name.

#[path = "../../runtime-http/src/invocation/grants.rs"]
pub mod grants;

pub use self::grants::{HostDirectory, OutboundHost, Preopen, PreopenRoot};
