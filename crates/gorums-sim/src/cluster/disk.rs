use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Random;
use super::world::{Access, World};

/// What a replica keeps across crashes. A replica has one disk for each type of state.
///
/// Each access takes some milliseconds of virtual time, more on a
/// [slow disk](super::FaultKind::SlowDisk). A commit is all or nothing. A crash in its middle, or
/// an error, leaves open which of both.
pub struct Disk<T> {
    state: Arc<Mutex<T>>,
    world: Arc<World>,
    node: usize,
}

/// The disk has failed. What was to be written may be on it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskError;

impl<T: Default + Send + 'static> Disk<T> {
    pub(crate) fn new(world: &Arc<World>, node: usize) -> Self {
        Self {
            state: world.disk(node),
            world: Arc::clone(world),
            node,
        }
    }

    /// Reads, when the disk has had its time.
    ///
    /// # Errors
    ///
    /// While the disk [fails](super::FaultKind::FailingDisk).
    pub async fn read<R>(&self, read: impl FnOnce(&T) -> R) -> Result<R, DiskError> {
        match self.world.access(self.node) {
            Access::Works(takes) => {
                self.pass(takes).await;
                Ok(read(&self.lock()))
            }
            Access::Fails(takes) => {
                self.pass(takes).await;
                Err(DiskError)
            }
        }
    }

    /// Changes what is there. When it returns, no crash takes it back.
    ///
    /// # Errors
    ///
    /// While the disk [fails](super::FaultKind::FailingDisk). The change may have been made.
    pub async fn commit(&self, change: impl FnOnce(&mut T)) -> Result<(), DiskError> {
        let mut random = Random::new(self.world.random(self.node));
        let (takes, fails) = match self.world.access(self.node) {
            Access::Works(takes) => (takes, false),
            Access::Fails(takes) => (takes, true),
        };
        let before = takes.mul_f64(random.below(1001) as f64 / 1000.0);
        self.pass(before).await;
        if !fails || random.one_in(2) {
            change(&mut self.lock());
        }
        self.pass(takes - before).await;
        if fails { Err(DiskError) } else { Ok(()) }
    }

    async fn pass(&self, time: std::time::Duration) {
        tokio::time::sleep(time).await;
        self.world.runs(self.node).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Disk<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            world: Arc::clone(&self.world),
            node: self.node,
        }
    }
}

impl<T> fmt::Debug for Disk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated disk has failed")
    }
}

impl std::error::Error for DiskError {}
