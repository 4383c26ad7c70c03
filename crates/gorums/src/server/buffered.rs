//! What all connections of a server hold together.
//!
//! Each connection has bounds of its own, and many that reach them would hold more than a process
//! has. So what they hold is added up, in steps, and one that takes the server beyond its bound is
//! ended, if it holds more than its share: whoever holds little is not concerned by what others do.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// What a connection holds is added to the sum when it has changed by so much.
pub(super) const STEP: usize = 64 * 1024;

/// The sum.
pub(super) struct Buffered {
    limit: usize,
    bytes: AtomicUsize,
    connections: AtomicUsize,
}

/// What one connection holds of it, until this is dropped.
pub(super) struct Share {
    of: Arc<Buffered>,
    bytes: usize,
}

/// A connection holds more than its share of a server that holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) bytes: usize,
    pub(super) limit: usize,
}

impl Buffered {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            bytes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        })
    }

    /// For a connection that holds nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Share {
            of: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Share {
    /// The connection holds so much now.
    ///
    /// # Errors
    /// That is more than its share, and all together hold more than they may.
    #[inline]
    pub(super) fn note(&mut self, bytes: usize) -> Result<(), Excess> {
        if bytes.abs_diff(self.bytes) < STEP {
            return Ok(());
        }
        self.change(bytes)
    }

    #[cold]
    fn change(&mut self, bytes: usize) -> Result<(), Excess> {
        let Buffered {
            limit,
            bytes: sum,
            connections,
        } = &*self.of;
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes < before {
            sum.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let all = sum.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before);
        let share = limit / connections.load(Ordering::Relaxed).max(1);
        if all > *limit && bytes > share {
            return Err(Excess {
                bytes,
                limit: *limit,
            });
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_more_than_its_share_goes_where_all_hold_too_much() {
        let all = Buffered::new(10 * STEP);
        let (mut large, mut small) = (all.share(), all.share());
        large.note(9 * STEP).expect("all together hold little");
        small.note(STEP - 1).expect("too little to count");
        small.note(4 * STEP).expect("no more than its share");
        let excess = Excess {
            bytes: 10 * STEP,
            limit: 10 * STEP,
        };
        assert_eq!(large.note(10 * STEP), Err(excess));
        drop(large);
        // It has all of it now.
        small.note(10 * STEP).expect("no more than there may be");
        assert!(small.note(11 * STEP).is_err());
        small.note(0).expect("nothing");
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
        drop(small);
        assert_eq!(all.connections.load(Ordering::Relaxed), 0);
    }
}
