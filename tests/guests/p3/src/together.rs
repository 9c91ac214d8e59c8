//! Requests that are in one instance at once, and see each other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use wasip3::{clocks::monotonic_clock::wait_for, wit_bindgen::StreamWriter};

use crate::MILLISECOND;

static PRESENT: AtomicU32 = AtomicU32::new(0);
static LEAVE: AtomicBool = AtomicBool::new(false);

/// A request.
pub struct Inside {
    /// How many there are, with this one.
    pub number: u32,
}

/// Has all who stay leave.
pub fn leave() {
    LEAVE.store(true, Ordering::Relaxed);
}

impl Inside {
    pub fn enter() -> Inside {
        let number = PRESENT.fetch_add(1, Ordering::Relaxed) + 1;
        if number == 1 {
            LEAVE.store(false, Ordering::Relaxed);
        }
        Inside { number }
    }

    /// Until somebody says so.
    pub async fn stay(self, mut to: StreamWriter<u8>) {
        let _ = to.write_all(format!("{} ", self.number).into_bytes()).await;
        while !LEAVE.load(Ordering::Relaxed) {
            wait_for(5 * MILLISECOND).await;
        }
        let _ = to.write_all(b"left".to_vec()).await;
    }

    /// Until nobody reads it; then all others leave.
    pub async fn pulse(self, mut to: StreamWriter<u8>) {
        let mut text = format!("{} ", self.number);
        while to.write_all(text.into_bytes()).await.is_empty() {
            wait_for(5 * MILLISECOND).await;
            text = ".".into();
        }
        leave();
    }
}

/// The instance keeps so many mebibytes.
pub fn grow(mebibytes: u64) -> String {
    let bytes = usize::try_from(mebibytes << 20).expect("it has an address");
    std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(bytes)));
    mebibytes.to_string()
}

/// Writes to so many mebibytes at once, again and again.
pub fn fill(mebibytes: u64) -> ! {
    let bytes = usize::try_from(mebibytes << 20).expect("it has an address");
    let (mut memory, mut value) = (vec![0_u8; bytes], 0_u8);
    loop {
        value = value.wrapping_add(1);
        memory.fill(std::hint::black_box(value));
        std::hint::black_box(&memory);
    }
}

/// A beginning, and a while later so many bytes more.
pub async fn more(mut to: StreamWriter<u8>, bytes: u64) {
    let _ = to.write_all(b"begun".to_vec()).await;
    wait_for(50 * MILLISECOND).await;
    for _ in 0..bytes.div_ceil(64 << 10) {
        if !to.write_all(vec![b'x'; 64 << 10]).await.is_empty() {
            return;
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        PRESENT.fetch_sub(1, Ordering::Relaxed);
    }
}
