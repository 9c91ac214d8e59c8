//! containerd's fifos: whether somebody reads one, and what of it was read.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
};
use tokio::time::{Instant, sleep};

/// A reader that takes nothing for so long takes nothing any more.
const STALLED: Duration = Duration::from_secs(2);
/// After so long, somebody else keeps writing.
pub const LONGEST: Duration = Duration::from_secs(10);

/// When the reader of a fifo has taken all that was written, if it has a reader; but that is not waited for without end. containerd 1.6 stops
/// to read when it is told of a container's end, and what is in the fifo then is lost.
pub async fn drained(fifo: OwnedFd) {
    let Ok(writer) = write_only(&fifo) else { return };
    drop(fifo);
    until_read(|| if has_reader(&writer) { rustix::io::ioctl_fionread(&writer).unwrap_or(0) } else { 0 }).await;
}

/// Waits until nothing is `unread`, as long as that becomes less.
pub async fn until_read(unread: impl Fn() -> u64) {
    let began = Instant::now();
    let (mut left, mut progress) = (unread(), began);
    while left > 0 && progress.elapsed() < STALLED && began.elapsed() < LONGEST {
        sleep(Duration::from_millis(2)).await;
        let now = unread();
        if now < left {
            progress = Instant::now();
        }
        left = now;
    }
}

/// The same fifo for writing alone, so that this process is no reader itself.
///
/// # Errors
/// If nobody reads it.
pub fn write_only(fifo: &OwnedFd) -> io::Result<OwnedFd> {
    let same = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    Ok(rustix::fs::open(same, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// pipe(7), poll(2): else there is an error at the writer's end.
pub fn has_reader(writer: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(writer, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok() && !polled[0].revents().contains(PollFlags::ERR)
}
