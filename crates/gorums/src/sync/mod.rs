//! Locks, atomics and wakers of what several threads share.
//!
//! The modules whose threads race take these from here, and not from `std`, so that
//! `cargo xtask loom` can put others in their place that explore every order in which the threads
//! may take their steps: see the module `models`. In every other build they are the usual ones.
//!
//! `Arc` stays `std`'s: methods on `&Arc<Self>` need it, and counting references decides nothing
//! here.

#[cfg(all(test, gorums_loom))]
mod explored;
mod mutex;
#[cfg(test)]
mod woken;

#[cfg(all(test, gorums_loom))]
pub(crate) use explored::*;
pub(crate) use mutex::{Condvar, Mutex, MutexGuard};
#[cfg(test)]
pub(crate) use woken::Woken;
#[cfg(not(all(test, gorums_loom)))]
pub(crate) use {
    atomic_waker::AtomicWaker,
    std::sync::atomic,
    tokio::spawn,
    tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

/// How many things there are of a kind: fewer where every order is explored, since what happens to
/// the first few happens to all.
pub(crate) const fn many(usual: usize, explored: usize) -> usize {
    if cfg!(all(test, gorums_loom)) {
        explored
    } else {
        usual
    }
}
