//! The name of an invocation.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Unique among all boxes: 64 random bits of the process, and a counter. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvocationId {
    process: u64,
    number: u64,
}

impl InvocationId {
    pub fn next() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // A `RandomState` is keyed by the operating system's randomness; the id need not be secret, only unique.
        let process = *PROCESS.get_or_init(|| {
            use std::hash::BuildHasher;
            std::hash::RandomState::new().hash_one(std::process::id())
        });
        InvocationId { process, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// Written twice for each invocation: digit by digit, since `{:016x}` takes several times as long.
    pub fn digits(self) -> Digits {
        let mut digits = [0; 32];
        let number = u128::from(self.process) << 64 | u128::from(self.number);
        for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
        }
        Digits(digits)
    }
}

/// The digits of an [`InvocationId`].
pub struct Digits([u8; 32]);

impl Digits {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits() {
        let id = InvocationId { process: 0x0123_4567_89ab_cdef, number: 42 };
        assert_eq!(id.to_string(), "0123456789abcdef000000000000002a");
    }
}
