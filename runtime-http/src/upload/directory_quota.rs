//! How many bytes functions may have on disk: what arrives is claimed before it is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes that there may be.
#[derive(Debug)]
pub struct DirectoryQuota {
    most: u64,
    usage: Mutex<DirectoryUsage>,
}

#[derive(Debug, Default)]
struct DirectoryUsage {
    /// As it was when somebody looked last, and what was added since.
    used: u64,
    claimed: u64,
}

/// Bytes that arrive; given back when this is dropped.
#[derive(Debug)]
pub struct Claim {
    quota: Arc<DirectoryQuota>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSpace {
    pub most: u64,
}

impl DirectoryQuota {
    pub fn new(most: u64) -> Arc<DirectoryQuota> {
        Arc::new(DirectoryQuota { most, usage: Mutex::default() })
    }

    fn usage(&self) -> MutexGuard<'_, DirectoryUsage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to claim, when so many bytes are used.
    pub fn claim(self: &Arc<Self>, used: u64) -> Claim {
        self.usage().used = used;
        Claim { quota: self.clone(), bytes: 0 }
    }
}

impl Claim {
    /// # Errors
    /// [`NoSpace`], if there is no place for so many more.
    pub fn add(&mut self, bytes: u64) -> Result<(), NoSpace> {
        let mut usage = self.quota.usage();
        if usage.used.saturating_add(usage.claimed).saturating_add(bytes) > self.quota.most {
            return Err(NoSpace { most: self.quota.most });
        }
        usage.claimed += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// They are used now.
    pub fn keep(self) {
        self.quota.usage().used += self.bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.quota.usage().claimed -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_given_back_or_used() {
        let quota = DirectoryQuota::new(10);
        let mut first = quota.claim(2);
        first.add(5).unwrap();
        let mut second = quota.claim(2);
        assert_eq!(second.add(4), Err(NoSpace { most: 10 }));
        second.add(3).unwrap();
        drop(first);
        second.add(5).unwrap();
        second.keep();
        assert!(quota.claim(10).add(1).is_err());
        quota.claim(4).add(6).unwrap();
    }
}
