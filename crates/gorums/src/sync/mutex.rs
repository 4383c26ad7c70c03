use std::fmt;
#[cfg(not(all(test, gorums_loom)))]
use std::sync as raw;

#[cfg(all(test, gorums_loom))]
use loom::sync as raw;
pub(crate) use raw::MutexGuard;

/// A lock that cannot be poisoned.
///
/// Data that a lock of this crate guards is whole whenever the lock is given back, even by a panic:
/// the few places that run code of users under a lock restore what they had begun. A poisoned lock
/// would therefore warn of nothing, and would turn one panic into two.
#[derive(Default)]
pub(crate) struct Mutex<T>(raw::Mutex<T>);

impl<T> Mutex<T> {
    #[cfg(not(all(test, gorums_loom)))]
    pub(crate) const fn new(value: T) -> Self {
        Self(raw::Mutex::new(value))
    }

    #[cfg(all(test, gorums_loom))]
    pub(crate) fn new(value: T) -> Self {
        Self(raw::Mutex::new(value))
    }

    /// What is inside, which nobody else has.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits for the lock, and takes it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Where threads wait for what is behind a [`Mutex`] to change.
#[derive(Default)]
pub(crate) struct Condvar(raw::Condvar);

impl Condvar {
    /// Gives the lock back, and takes it again once notified, or for no reason.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0
            .wait(guard)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}
