//! Room for bytes, of which there is so much and no more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes may be somewhere. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    /// What something counts at most, so that it gets in however large it is.
    largest: usize,
}

/// A part of the [`Room`], which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(
    #[expect(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit,
);

impl Room {
    /// Room for `all` bytes. What is larger than `largest` counts as if it were not.
    pub(super) fn new(all: usize, largest: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(all)),
            largest,
        }
    }

    /// A place for so many bytes. Waits, behind those who came before, until they are free.
    pub(super) async fn take(&self, bytes: usize) -> Place {
        let place = Arc::clone(&self.free).acquire_many_owned(self.count(bytes));
        Place(place.await.expect("nobody closes it"))
    }

    /// A place for so many bytes, if they are free.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Place> {
        let place = Arc::clone(&self.free).try_acquire_many_owned(self.count(bytes));
        place.ok().map(Place)
    }

    fn count(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.largest)).unwrap_or(u32::MAX)
    }
}
