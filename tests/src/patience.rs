//! Waiting: for what must come, but not for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

/// After this long something hangs. It is no measure of speed: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `happens` gives something.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub fn eventually<T>(what: &str, mut happens: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = happens() {
            return result;
        }
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
