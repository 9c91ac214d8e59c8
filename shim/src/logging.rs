//! The shim's own log: lines in logrus' form on the fifo `log` of its bundle, which containerd reads. A reader that is gone or slow loses
//! lines; it holds nothing up.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::{Mode, OFlags};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

struct Fifo {
    file: Mutex<File>,
}

/// Logs to the fifo in the working directory, if there is one.
pub fn start(debug: bool) {
    // Read and write: opening does not wait for a reader, and writing does not fail when it is gone.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(Path::new("log"), flags, Mode::empty()) else { return };
    let logger = Fifo { file: Mutex::new(file.into()) };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
}

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let level = match record.level() {
            log::Level::Warn => "warning".to_owned(),
            level => level.as_str().to_ascii_lowercase(),
        };
        let line = format!("time=\"{time}\" level={level} msg={:?}\n", record.args().to_string());
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
