//! Waiting: for what must come, but not for ever.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// After this long something hangs. It is no measure of speed: the machine may be busy with other things. It is less than the default deadline of
/// an invocation, a minute, which would end what is waited for.
pub const PATIENCE: Duration = Duration::from_secs(45);

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

/// What `runs` says in one of three runs that `is_so`: for what a machine can spoil, whose cores are taken away for a moment. It gives the kernel's
/// accounts a jump, of the virtual machine's time as of its threads'.
///
/// # Panics
/// If it is so in none of them, with what the last one says.
#[track_caller]
pub fn in_one_of_three<T: std::fmt::Debug>(runs: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let mut run = runs();
    for _ in 1..3 {
        if !is_so(&run) {
            eprintln!("once more, after {run:?}");
            run = runs();
        }
    }
    assert!(is_so(&run), "{run:?}");
    run
}

/// Sets a flag when it is dropped. Threads of a scope that work until it is set then end also if the test panics, which else waits for them
/// for ever.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
