//! The timer behind the time that a connection may take to send a request's head.
//!
//! hyper asks for a new sleep for each request and drops it soon after. Entering it in the event loop's wheel, taking it out again, and
//! waking the loop to look at its wheel costs more than parsing the head. So a connection keeps one entry, which stays where it is: when
//! it fires, early, it is moved to where it should be by then.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

type Entry = Pin<Box<tokio::time::Sleep>>;

/// One connection's timer; it is meant to have one sleep at a time.
#[derive(Default)]
pub struct HeadTimer {
    unused: Arc<Mutex<Option<Entry>>>,
}

struct HeadSleep {
    deadline: tokio::time::Instant,
    /// Set for `deadline` or earlier. Taken by drop alone.
    entry: Option<Entry>,
    home: Arc<Mutex<Option<Entry>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = deadline.into();
        let unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that is set for later cannot stand in: it would fire late.
        let entry = unused.filter(|entry| entry.deadline() <= deadline);
        let entry = entry.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(deadline)));
        Box::pin(HeadSleep { deadline, entry: Some(entry), home: self.unused.clone() })
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let entry = self.entry.as_mut().expect("only drop takes it");
        loop {
            ready!(entry.as_mut().poll(context));
            if entry.deadline() >= deadline {
                return Poll::Ready(());
            }
            entry.as_mut().reset(deadline);
        }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.entry.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_sleep_ends_before_its_deadline_whatever_the_entry_was_set_for() {
        let timer = HeadTimer::default();
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut given_up = timer.sleep_until(after(5));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        for milliseconds in [40, 60] {
            let deadline = after(milliseconds);
            tokio::time::timeout(Duration::from_secs(30), timer.sleep_until(deadline)).await.unwrap();
            assert!(Instant::now() >= deadline, "{milliseconds}");
        }
    }

    #[tokio::test]
    async fn an_entry_that_would_be_late_is_not_used() {
        let timer = HeadTimer::default();
        drop(timer.sleep(Duration::from_secs(3600)));
        tokio::time::timeout(Duration::from_secs(30), timer.sleep(Duration::from_millis(1))).await.unwrap();
    }
}
