//! The end of a box: its signals, what still runs, its threads.

use std::{pin::pin, time::Duration};

use tokio::{signal::unix::Signal, sync::oneshot, task::JoinHandle};

use crate::{core::Core, logging, server::Ending};

/// The status of a process that a second SIGTERM ended.
const ENDED_AT_ONCE: i32 = 128 + 15;

/// The signals that end a server.
pub(super) struct Signals(pub [Signal; 2]);

impl Signals {
    pub async fn next(&mut self) -> &'static str {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
    }

    /// Waits for a second one, and ends the process.
    pub async fn end_at_once(&mut self, logs: &logging::Logs) -> ! {
        let name = self.next().await;
        tracing::warn!("second signal ({name}): ending at once");
        logs.flush();
        std::process::exit(ENDED_AT_ONCE)
    }
}

/// The box is not ready any more, and takes no new connection. What arrives on open ones is served, until they are closed or idle; what
/// has not ended after `timeout` is stopped.
pub(super) async fn drain(core: &Core, ending: &Ending, functions: JoinHandle<()>, timeout: Duration) {
    core.set_draining();
    ending.drain.cancel();
    let mut functions = pin!(functions);
    let served = async {
        let _ = functions.as_mut().await;
        // The client of one that still runs has left.
        core.admission.idle().await;
    };
    if tokio::time::timeout(timeout, served).await.is_ok() {
        return;
    }
    tracing::warn!(in_flight = core.admission.in_flight(), "the drain time is over: stopping what still runs");
    core.end_invocations().await;
    ending.close.cancel();
    if !functions.is_finished() {
        let _ = functions.await;
    }
}

/// Has `last` done, which joins threads. If that takes longer than `time` the process ends without.
pub(super) async fn end_within(
    time: Duration,
    last: impl FnOnce() + Send + 'static,
    mut signals: Signals,
    logs: &logging::Logs,
) {
    let (sender, done) = oneshot::channel();
    let joining = std::thread::Builder::new().name("end".into()).spawn(move || {
        last();
        let _ = sender.send(());
    });
    if joining.is_err() {
        // Then it was dropped, on this thread.
        return;
    }
    tokio::select! {
        _ = done => {}
        () = tokio::time::sleep(time) => {
            tracing::error!("a thread does not end: ending without it");
            logs.flush();
            std::process::exit(0);
        }
        _ = signals.end_at_once(logs) => {}
    }
}
