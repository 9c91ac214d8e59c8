//! What may take long, off the event loop.

use std::thread;

use tokio::sync::oneshot;

/// Does it on a thread of its own. `None` if no thread can be had, as on a node that is out of process numbers: tokio's own would panic.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = oneshot::channel();
    let started = thread::Builder::new().name("cgroups".into()).spawn(move || drop(sender.send(work())));
    if let Err(error) = started {
        log::warn!("a thread for cgroups: {error}");
        return None;
    }
    done.await.ok()
}
