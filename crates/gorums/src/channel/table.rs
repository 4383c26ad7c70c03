//! The calls that wait for replies, found by message id.
//!
//! Ids count upwards, and the low bits of an id's number are its place: finding a call is one index into a
//! vector, and no list of free places is shared. An id whose place an older call still has is
//! skipped. The table is split into shards with a lock each; successive ids go to different shards.

// Ids come from a static, whose atomic has to be `std`'s.
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, many};
use crate::wire::MethodKind;

const SHARDS: usize = many(64, 2);

/// How many places an empty shard keeps. One that had more gives all of them back.
const KEPT: usize = 1024;

/// Gives every call an id of its own.
#[derive(Debug)]
pub(crate) struct MessageIds(AtomicU64);

impl MessageIds {
    pub(crate) const fn new() -> Self {
        // 0 would not be written on the wire.
        Self(AtomicU64::new(1))
    }

    pub(crate) fn next(&self, kind: MethodKind) -> u64 {
        // Bit 63 marks calls of a server. 2^61 numbers are never used up.
        kind.id(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The table is full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyCalls;

pub(crate) struct Table<T> {
    shards: Box<[Shard<T>]>,
    len: AtomicUsize,
    limit: usize,
}

/// On cache lines of its own, so that threads that use different shards do not disturb each other.
#[repr(align(128))]
struct Shard<T>(Mutex<Slots<T>>);

struct Slots<T> {
    slots: Vec<Option<Entry<T>>>,
    used: usize,
}

struct Entry<T> {
    id: u64,
    deadline: Option<Instant>,
    value: Arc<T>,
}

impl<T> Table<T> {
    /// A table for at most `limit` calls at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| {
                    Shard(Mutex::new(Slots {
                        slots: Vec::new(),
                        used: 0,
                    }))
                })
                .collect(),
            len: AtomicUsize::new(0),
            limit,
        }
    }

    /// The number of calls in the table.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Adds a call under this id. False if the id's place is taken: the caller takes another id.
    pub(crate) fn insert(
        &self,
        id: u64,
        value: &Arc<T>,
        deadline: Option<Instant>,
    ) -> Result<bool, TooManyCalls> {
        if self.len.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.len.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManyCalls);
        }
        let mut slots = self.shard(id);
        if (slots.used + 1) * 2 > slots.slots.len() {
            slots.grow();
        }
        let index = slots.index(id);
        let free = slots.slots[index].is_none();
        if free {
            slots.slots[index] = Some(Entry {
                id,
                deadline,
                value: Arc::clone(value),
            });
            slots.used += 1;
        } else {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(free)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<T>> {
        let slots = self.shard(id);
        let entry = slots.slots.get(slots.index(id))?.as_ref()?;
        (entry.id == id).then(|| Arc::clone(&entry.value))
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Arc<T>> {
        let mut slots = self.shard(id);
        let index = slots.index(id);
        let entry = slots
            .slots
            .get_mut(index)?
            .take_if(|entry| entry.id == id)?;
        slots.removed(1);
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(entry.value)
    }

    /// Takes out the calls whose deadline has passed, oldest first, and tells the next deadline.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Arc<T>>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut next: Option<Instant> = None;
        for shard in &self.shards {
            let mut slots = shard.0.lock();
            let before = expired.len();
            for slot in &mut slots.slots {
                let Some(deadline) = slot.as_ref().and_then(|entry| entry.deadline) else {
                    continue;
                };
                if deadline <= now {
                    expired.extend(slot.take().map(|entry| (entry.id, entry.value)));
                } else if next.is_none_or(|next| deadline < next) {
                    next = Some(deadline);
                }
            }
            let removed = expired.len() - before;
            slots.removed(removed);
            self.len.fetch_sub(removed, Ordering::Relaxed);
        }
        (in_order(expired), next)
    }

    /// All calls in the table, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let slots = shard.0.lock();
            let entries = slots.slots.iter().flatten();
            all.extend(entries.map(|entry| (entry.id, Arc::clone(&entry.value))));
        }
        in_order(all)
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, Slots<T>> {
        self.shards[(MethodKind::number_of(id) % SHARDS as u64) as usize]
            .0
            .lock()
    }
}

/// A call's place depends on what the process did before. The order in which something happens to
/// several calls must not.
fn in_order<T>(mut calls: Vec<(u64, Arc<T>)>) -> Vec<Arc<T>> {
    calls.sort_unstable_by_key(|(id, _)| *id);
    calls.into_iter().map(|(_, call)| call).collect()
}

impl<T> Slots<T> {
    /// The length is a power of two, so this is a mask. The kind is in it as well, so that small ids
    /// have places of their own whatever they are.
    fn index(&self, id: u64) -> usize {
        let number = MethodKind::number_of(id);
        let kind = id - MethodKind::TwoWay.id(number);
        ((number / SHARDS as u64) ^ (kind << 2)) as usize & self.slots.len().wrapping_sub(1)
    }

    fn removed(&mut self, count: usize) {
        self.used -= count;
        // Places that only a burst needed would be looked through at every sweep.
        if self.used == 0 && self.slots.len() > KEPT {
            self.slots = Vec::new();
        }
    }

    /// Places that are distinct stay distinct in a table of twice the size.
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        let mut larger: Vec<Option<Entry<T>>> = Vec::new();
        larger.resize_with(len, || None);
        let old = std::mem::replace(&mut self.slots, larger);
        for entry in old.into_iter().flatten() {
            let index = self.index(entry.id);
            self.slots[index] = Some(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn insert(table: &Table<u64>, ids: &MessageIds, deadline: Option<Instant>) -> u64 {
        loop {
            let id = ids.next(MethodKind::TwoWay);
            if table.insert(id, &Arc::new(id), deadline).expect("not full") {
                return id;
            }
        }
    }

    #[test]
    fn calls_are_found_by_their_id_until_they_are_removed() {
        let (table, ids) = (Table::new(100_000), MessageIds::new());
        let mut live: Vec<u64> = (0..10_000).map(|_| insert(&table, &ids, None)).collect();
        // Long-lived calls stay where they are while others come and go around them.
        let old = live.split_off(9_000);
        for id in &live {
            assert_eq!(table.remove(*id).as_deref(), Some(id));
        }
        for _ in 0..50_000 {
            let id = insert(&table, &ids, None);
            assert_eq!(table.remove(id).as_deref(), Some(&id));
            assert!(table.get(id).is_none());
        }
        for id in &old {
            assert_eq!(table.get(*id).as_deref(), Some(id));
        }
        assert_eq!(table.len(), 1_000);
        assert_eq!(table.all().len(), 1_000);
        assert!(table.remove(live[0]).is_none());
        assert!(table.get(u64::MAX).is_none());
    }

    #[test]
    fn a_full_table_says_so() {
        let (table, ids) = (Table::new(2), MessageIds::new());
        let first = insert(&table, &ids, None);
        insert(&table, &ids, None);
        assert_eq!(
            table.insert(ids.next(MethodKind::TwoWay), &Arc::new(0), None),
            Err(TooManyCalls)
        );
        table.remove(first);
        assert_eq!(
            table.insert(ids.next(MethodKind::TwoWay), &Arc::new(0), None),
            Ok(true)
        );
    }

    #[test]
    fn expired_calls_come_out_and_the_next_deadline_is_told() {
        let (table, ids) = (Table::new(100), MessageIds::new());
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        let first = insert(&table, &ids, at(10));
        insert(&table, &ids, at(30));
        insert(&table, &ids, at(20));
        insert(&table, &ids, None);
        let (expired, next) = table.expire(now);
        assert_eq!((expired.len(), next), (0, at(10)));
        let (expired, next) = table.expire(now + Duration::from_millis(10));
        assert_eq!(expired, [Arc::new(first)]);
        assert_eq!(next, at(20));
        let (expired, next) = table.expire(now + Duration::from_secs(1));
        assert_eq!((expired.len(), next, table.len()), (2, None, 1));
    }
}
