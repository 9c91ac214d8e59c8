//! How many bytes functions may have on disk: what arrives is claimed before it is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All there may be.
#[derive(Debug)]
pub struct Space {
    most: u64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// As it was when somebody looked last, and what was added since.
    used: u64,
    claimed: u64,
}

/// Bytes that arrive; given back when this is dropped.
#[derive(Debug)]
pub struct Claim {
    space: Arc<Space>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSpace {
    pub most: u64,
}

impl Space {
    pub fn new(most: u64) -> Arc<Space> {
        Arc::new(Space { most, ledger: Mutex::default() })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to claim, when so many bytes are used.
    pub fn claim(self: &Arc<Self>, used: u64) -> Claim {
        self.ledger().used = used;
        Claim { space: self.clone(), bytes: 0 }
    }
}

impl Claim {
    /// # Errors
    /// [`NoSpace`], if there is no place for so many more.
    pub fn add(&mut self, bytes: u64) -> Result<(), NoSpace> {
        let mut ledger = self.space.ledger();
        if ledger.used.saturating_add(ledger.claimed).saturating_add(bytes) > self.space.most {
            return Err(NoSpace { most: self.space.most });
        }
        ledger.claimed += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// They are used now.
    pub fn keep(self) {
        self.space.ledger().used += self.bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.space.ledger().claimed -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_given_back_or_used() {
        let space = Space::new(10);
        let mut first = space.claim(2);
        first.add(5).unwrap();
        let mut second = space.claim(2);
        assert_eq!(second.add(4), Err(NoSpace { most: 10 }));
        second.add(3).unwrap();
        drop(first);
        second.add(5).unwrap();
        second.keep();
        assert!(space.claim(10).add(1).is_err());
        space.claim(4).add(6).unwrap();
    }
}
