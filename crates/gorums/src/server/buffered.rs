//! What all connections of a server hold together.
//!
//! Each connection has bounds of its own, and many that reach them would hold more than a process
//! has. So what they hold is added up, in steps, and where that is more than it may be, connections
//! are ended until it is not: the one that holds most, of those from the address whose connections
//! hold most. Who holds little is not concerned by what others do, and whoever makes others hold much
//! by many connections loses these first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;

use super::admission::origin;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What a connection holds is added to the sum when it has changed by so much.
pub(super) const STEP: usize = 64 * 1024;

/// The sum.
pub(super) struct Buffered {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    /// Those that hold something, by number.
    holders: HashMap<u64, Holder>,
    next: u64,
}

/// Who holds something: those who are not spared make room for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    /// The address, or the network, that one party may have to itself.
    pub(super) from: Option<IpAddr>,
    pub(super) is_spared: bool,
}

/// A connection that holds something.
struct Holder {
    owner: Owner,
    bytes: usize,
    /// Set where it is to end.
    ended: Arc<AtomicBool>,
    /// Its task.
    waker: Waker,
}

/// What one connection holds of it, until this is dropped.
pub(super) struct Share {
    of: Arc<Buffered>,
    number: u64,
    owner: Owner,
    bytes: usize,
    ended: Arc<AtomicBool>,
}

/// The connection is to end, since all together hold more than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) limit: usize,
}

impl Buffered {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
        })
    }

    /// For a connection from this address that holds nothing yet. One that is spared is never ended.
    pub(super) fn share(self: &Arc<Self>, from: Option<SocketAddr>, is_spared: bool) -> Share {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        Share {
            of: Arc::clone(self),
            number,
            owner: Owner {
                from: from.map(|from| origin(from.ip())),
                is_spared,
            },
            bytes: 0,
            ended: Arc::default(),
        }
    }
}

impl Share {
    /// Leaves one that holds nothing behind.
    pub(super) fn take(&mut self) -> Self {
        let left = self.of.share(None, true);
        std::mem::replace(self, left)
    }

    /// Whose connection it is.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether the connection is one that is never ended.
    pub(super) fn is_spared(&self) -> bool {
        self.owner.is_spared
    }

    /// The connection is one that is never ended, from now on.
    pub(super) fn spare(&mut self) {
        self.owner.is_spared = true;
        if let Some(holder) = self.of.state.lock().holders.get_mut(&self.number) {
            holder.owner.is_spared = true;
        }
    }

    /// From now on this task is woken where the connection is to end.
    pub(super) fn attend(&mut self, task: &Waker) {
        if let Some(holder) = self.of.state.lock().holders.get_mut(&self.number) {
            holder.waker.clone_from(task);
        }
    }

    /// The connection holds so much now. Where it is to end on account of what others hold, this task
    /// is woken, and is told here.
    ///
    /// # Errors
    /// It is to end.
    #[inline]
    pub(super) fn note(&mut self, bytes: usize, task: &Waker) -> Result<(), Excess> {
        if bytes.abs_diff(self.bytes) >= STEP {
            self.change(bytes, task);
        }
        if self.ended.load(Ordering::Relaxed) {
            let limit = self.of.limit;
            return Err(Excess { limit });
        }
        Ok(())
    }

    #[cold]
    fn change(&mut self, bytes: usize, task: &Waker) {
        self.bytes = bytes;
        let mut state = self.of.state.lock();
        // What ends is not counted any more.
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let holder = state.holders.entry(self.number).or_insert_with(|| Holder {
            owner: self.owner,
            bytes: 0,
            ended: Arc::clone(&self.ended),
            waker: task.clone(),
        });
        holder.waker.clone_from(task);
        let before = std::mem::replace(&mut holder.bytes, bytes);
        state.bytes = state.bytes - before + bytes;
        let mut ended = Vec::new();
        while state.bytes > self.of.limit
            && let Some(waker) = state.end_largest()
        {
            ended.push(waker);
        }
        drop(state);
        ended.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Ends the connection that holds most, of those from the address whose connections hold most.
    /// None where there is none that may be ended.
    fn end_largest(&mut self) -> Option<Waker> {
        let may_end = || {
            self.holders
                .iter()
                .filter(|(_, holder)| !holder.owner.is_spared)
        };
        let mut sums: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for (_, holder) in may_end() {
            *sums.entry(holder.owner.from).or_default() += holder.bytes;
        }
        let most = sums.values().copied().max()?;
        let of_most = may_end().filter(|(_, holder)| sums[&holder.owner.from] == most);
        // Of equal ones the newest.
        let (number, _) = of_most.max_by_key(|(number, holder)| (holder.bytes, **number))?;
        let number = *number;
        let holder = self.holders.remove(&number)?;
        self.bytes -= holder.bytes;
        holder.ended.store(true, Ordering::Relaxed);
        Some(holder.waker)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.of.state.lock();
        if let Some(holder) = state.holders.remove(&self.number) {
            state.bytes -= holder.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Woken;

    fn address(ip: [u8; 4]) -> Option<SocketAddr> {
        Some(SocketAddr::from((ip, 1)))
    }

    #[test]
    fn the_largest_of_the_address_that_holds_most_ends_where_all_hold_too_much() {
        let all = Buffered::new(10 * STEP);
        let woken = Arc::new(Woken::default());
        let task = woken.waker();
        let mut hoarders: Vec<_> = (0..4)
            .map(|_| all.share(address([10, 0, 0, 1]), false))
            .collect();
        for (share, bytes) in hoarders.iter_mut().zip([2, 3, 2, 1]) {
            share.note(bytes * STEP, &task).expect("all hold little");
        }
        let mut large = all.share(address([10, 0, 0, 2]), false);
        large.note(STEP - 1, &task).expect("too little to count");
        assert_eq!(woken.count(), 0);
        // More than any other one, and less than all of the other address.
        large.note(4 * STEP, &task).expect("others hold more");
        assert_eq!(woken.count(), 1);
        let excess = Excess { limit: 10 * STEP };
        let ends: Vec<_> = hoarders
            .iter_mut()
            .zip([2, 3, 2, 1])
            .map(|(share, bytes)| share.note(bytes * STEP, &task))
            .collect();
        assert_eq!(ends, [Ok(()), Err(excess), Ok(()), Ok(())]);
        assert_eq!(all.state.lock().bytes, 9 * STEP);
        // What ends is not counted again.
        assert_eq!(hoarders[1].note(9 * STEP, &task), Err(excess));
        assert_eq!(all.state.lock().bytes, 9 * STEP);
        drop(hoarders);
        assert_eq!(
            large.note(11 * STEP, &task),
            Err(excess),
            "more than there may be"
        );
        drop(large);
        assert_eq!(all.state.lock().bytes, 0);
        assert!(all.state.lock().holders.is_empty());
    }

    #[test]
    fn what_nodes_hold_counts_and_they_are_spared() {
        let all = Buffered::new(10 * STEP);
        let mut node = all.share(None, false);
        let mut client = all.share(None, false);
        node.note(8 * STEP, Waker::noop()).expect("there is room");
        node.spare();
        client.note(2 * STEP, Waker::noop()).expect("there is room");
        node.note(20 * STEP, Waker::noop()).expect("it is spared");
        assert!(client.note(2 * STEP, Waker::noop()).is_err());
        assert_eq!(all.state.lock().bytes, 20 * STEP);
    }
}
