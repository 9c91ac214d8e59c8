//! What makes a carrier's instance run.

use std::sync::Arc;

use super::Carrier;

/// What makes a carrier's instance run. Nobody joins it after this is dropped, and who is in it then has no answer.
pub struct CarrierGuard(pub(in crate::sandbox) Arc<Carrier>);

impl Drop for CarrierGuard {
    fn drop(&mut self) {
        self.0.close();
        // Their replies close without an outcome, unless they have ended.
        let present = std::mem::take(&mut self.0.state().present);
        drop(present);
    }
}
