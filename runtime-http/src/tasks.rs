//! Tasks that belong to somebody.

use tokio::task::JoinHandle;

/// A task that ends with its owner.
#[derive(Debug)]
pub struct Owned<T>(pub JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
