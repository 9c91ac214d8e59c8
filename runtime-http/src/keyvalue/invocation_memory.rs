//! The memory in which is what a store reads: the invocation's.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use super::{KeyvalueError, MOST_KEY, PAGE_KEYS};
use crate::{allocator::HeldBytes, memory::MemoryReservation};

/// What an invocation has left of its memory.
#[derive(Clone)]
pub struct InvocationMemory {
    reservation: Arc<MemoryReservation>,
    /// The most that the invocation may cost, bytes.
    most: u64,
}

impl InvocationMemory {
    pub fn new(reservation: Arc<MemoryReservation>, most: u64) -> InvocationMemory {
        InvocationMemory { reservation, most }
    }

    /// A copy, which is the invocation's until it is gone.
    ///
    /// # Errors
    /// [`KeyvalueError::Memory`], if there is no room for it; then nothing is allocated.
    pub fn copy(&self, bytes: &[u8]) -> Result<Vec<u8>, KeyvalueError> {
        self.check(bytes.len())?;
        let _charging = self.reservation.charge();
        Ok(bytes.to_vec())
    }

    /// As [`Self::copy`].
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn text(&self, text: &str) -> Result<String, KeyvalueError> {
        self.check(text.len())?;
        let _charging = self.reservation.charge();
        Ok(text.to_owned())
    }

    /// Room for `bytes` that are going to be read.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn hold(&self, bytes: usize) -> Result<Option<HeldBytes>, KeyvalueError> {
        let Some(bytes) = NonZeroUsize::new(bytes) else { return Ok(None) };
        match self.reservation.hold(bytes, self.most) {
            Some(held) => Ok(Some(held)),
            None => Err(KeyvalueError::Memory { bytes: bytes.get() }),
        }
    }

    /// Room for a copy of `pairs`, which whoever keeps them makes.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn hold_copy(&self, pairs: &BTreeMap<String, Vec<u8>>) -> Result<Option<HeldBytes>, KeyvalueError> {
        self.hold(pairs.iter().map(|(key, value)| key.len() + value.len()).sum())
    }

    /// Room for a page of the longest keys.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn hold_page(&self) -> Result<Option<HeldBytes>, KeyvalueError> {
        self.hold((PAGE_KEYS + 1) * MOST_KEY)
    }

    fn check(&self, bytes: usize) -> Result<(), KeyvalueError> {
        if self.reservation.has_room(bytes as u64, self.most) { Ok(()) } else { Err(KeyvalueError::Memory { bytes }) }
    }
}
