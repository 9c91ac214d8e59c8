//! How many are let in at once, and how many wait for that.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::UploadError;

/// Requests of either kind that wait for a place.
const WAITING: usize = 64;
/// How long they do.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many at once, and so many wait.
pub struct Door {
    inside: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Door {
    pub fn new(places: usize) -> Door {
        Door { inside: Arc::new(Semaphore::new(places)), waiting: Semaphore::new(WAITING) }
    }

    /// # Errors
    /// [`UploadError::Busy`], if too many wait, or nobody leaves.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, UploadError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| UploadError::Busy)?;
        place(&self.inside).await
    }
}

/// Without a bound on those who wait.
///
/// # Errors
/// [`UploadError::Busy`], if nobody gives one back.
pub async fn place(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, UploadError> {
    let place = tokio::time::timeout(PATIENCE, semaphore.clone().acquire_owned()).await;
    Ok(place.map_err(|_| UploadError::Busy)?.expect("the semaphore is never closed"))
}
