//! Whoever reads the log of one function: what is there and, if it wants to, what comes. A task reads on as its client does; what it did not take in time
//! is gone, and it is told how many lines that were.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};

use super::{FunctionLogs, line::Shown};
use crate::tasks::Owned;

/// What is sent at once, as it is encoded, but for the line with which it is more: the longest one has 8 KiB of text, and what is escaped is six
/// times as long.
const PIECE: usize = 8 << 10;
/// When nothing happens for so long an empty line is sent: by it a client that is gone is noticed.
const QUIET: Duration = Duration::from_secs(30);

impl FunctionLogs {
    /// The lines of `function` as pieces of a body; with `follow` it ends with the box, or its client. The task that sends them and `place` are
    /// held as long.
    pub fn read(
        self: &Arc<Self>,
        function: Arc<str>,
        follow: bool,
        place: OwnedSemaphorePermit,
    ) -> (mpsc::Receiver<Bytes>, (Owned<()>, OwnedSemaphorePermit)) {
        // One piece is in it, one is on its way.
        let (pieces, body) = mpsc::channel(1);
        let logs = self.clone();
        let task = Owned(tokio::spawn(async move { logs.send(&function, follow, QUIET, &pieces).await }));
        (body, (task, place))
    }

    async fn send(&self, function: &str, mut follow: bool, quiet: Duration, to: &mpsc::Sender<Bytes>) {
        let mut next = None;
        // Of all functions' lines there is news, so this goes on over it.
        let mut deadline = Instant::now() + quiet;
        loop {
            // Before it is looked: what comes later wakes it.
            let news = self.shared.news.notified();
            let page = self.shared.rings().read(function, next, PIECE);
            if page.lines.is_empty() {
                if !follow {
                    return;
                }
                // Nothing was there: all that comes is new.
                next = next.or(Some(page.next));
                tokio::select! {
                    // Those that come all the time last.
                    biased;
                    () = sleep_until(deadline) => {
                        if to.send(Bytes::from_static(b"\n")).await.is_err() {
                            return;
                        }
                        deadline = Instant::now() + quiet;
                    }
                    // What is there by now is still sent.
                    () = self.end.cancelled() => follow = false,
                    () = news => {}
                }
                continue;
            }
            let mut text = if page.missed > 0 { Shown::missed(page.missed).json() } else { Vec::new() };
            let mut lines = page.lines.iter();
            while text.len() < PIECE
                && let Some(line) = lines.next()
            {
                text.extend_from_slice(&line.json());
            }
            // Lines of a page have numbers without gaps.
            next = Some(page.next - lines.len() as u64);
            if to.send(text.into()).await.is_err() {
                return;
            }
            deadline = Instant::now() + quiet;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::Builder,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::{
        function_log::{Entry, LogSender},
        invocation::InvocationId,
    };

    const SOON: Duration = Duration::from_secs(20);
    /// The longest line, in the longest form that it has.
    const LONGEST: usize = 64 << 10;

    fn start() -> (Arc<FunctionLogs>, LogSender) {
        FunctionLogs::start(1 << 30, Arc::new(|| ())).unwrap()
    }

    fn block_on(test: impl Future<Output = ()>) {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn who_is_gone_is_noticed_while_others_write() {
        block_on(async {
            let (logs, sender) = start();
            let other = sender.of("other".into());
            let writing = Owned(tokio::spawn(async move {
                loop {
                    other.push(InvocationId::next(), Entry::Stderr("again".into()));
                    sleep(Duration::from_millis(2)).await;
                }
            }));
            let (to, mut pieces) = mpsc::channel(1);
            let following = tokio::spawn(async move { logs.send("quiet", true, Duration::from_millis(50), &to).await });
            assert_eq!(timeout(SOON, pieces.recv()).await.unwrap().unwrap(), "\n");
            drop(pieces);
            timeout(SOON, following).await.expect("it ends").unwrap();
            drop(writing);
        });
    }

    #[test]
    fn a_piece_is_bounded_as_it_is_sent() {
        block_on(async {
            let (logs, sender) = start();
            let log = sender.of("f".into());
            for _ in 0..8 {
                log.push(InvocationId::next(), Entry::Stderr("\u{1}".repeat(8 << 10).into()));
                log.push(InvocationId::next(), Entry::Stderr("short".into()));
            }
            let all = async {
                while logs.shared.rings().read("f", None, usize::MAX).lines.len() < 16 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(SOON, all).await.unwrap();
            let (to, mut pieces) = mpsc::channel(100);
            logs.send("f", false, QUIET, &to).await;
            drop(to);
            let mut lines = 0;
            while let Some(piece) = pieces.recv().await {
                assert!(piece.len() <= LONGEST, "{} bytes", piece.len());
                lines += piece.iter().filter(|byte| **byte == b'\n').count();
            }
            assert_eq!(lines, 16);
        });
    }
}
