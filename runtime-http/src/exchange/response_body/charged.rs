//! Bytes that are charged for as long as somebody has them: a connection takes a frame of any size at once, and keeps it until it is sent.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body::Frame;

use crate::exchange::budget::Hold;

/// Bytes with what accounts for them.
pub struct Charged {
    bytes: Bytes,
    _hold: Arc<LateHold>,
}

/// Empty while the invocation itself is charged.
pub type LateHold = OnceLock<Hold>;

impl Charged {
    pub fn bytes(bytes: Bytes, hold: &Arc<LateHold>) -> Bytes {
        Bytes::from_owner(Charged { bytes, _hold: hold.clone() })
    }

    pub fn frame(frame: Frame<Bytes>, hold: &Arc<LateHold>) -> Frame<Bytes> {
        frame.map_data(|bytes| Charged::bytes(bytes, hold))
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
