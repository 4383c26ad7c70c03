//! A file whose changes are held back until it is known to be whole.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::native::Backend;
use super::sums::{PAGE, Sums};
use crate::planted::{Bug, Planted};

/// What redb reads and writes instead of the file itself. Clones share one file.
///
/// redb writes already while it opens a file and while it looks for damage. Until
/// [`release`](Self::release) these changes are kept in memory, where redb sees them, so that a
/// file that is refused is as it was.
#[derive(Debug, Clone)]
pub(super) struct Held {
    file: Arc<dyn Backend>,
    /// What is to be done to the file, in this order. `None` when it is no longer held.
    changes: Arc<Mutex<Option<VecDeque<Change>>>>,
    /// Where the file was changed since its last sync, when it is no longer held: offset and
    /// length.
    unsynced: Arc<Mutex<Vec<(u64, u64)>>>,
    /// The disk had no room for a change since it is no longer held.
    had_no_room: Arc<AtomicBool>,
    /// A sync has failed.
    has_not_synced: Arc<AtomicBool>,
    pages: Arc<Mutex<Pages>>,
    planted: Planted<Bug>,
}

/// How many bytes at the beginning of a file are redb's header.
const HEADER: u64 = 4096;

/// What is known of the pages that were read.
#[derive(Debug, Default)]
struct Pages {
    sums: Sums,
    /// Offset and length of the last read.
    last_read: (u64, usize),
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
    Sync { eventual: bool },
}

impl Held {
    pub(super) fn new(file: Arc<dyn Backend>, planted: Planted<Bug>) -> Self {
        Self {
            file,
            changes: Arc::new(Mutex::new(Some(VecDeque::new()))),
            unsynced: Arc::default(),
            had_no_room: Arc::default(),
            has_not_synced: Arc::default(),
            pages: Arc::default(),
            planted,
        }
    }

    /// Changes the file as redb did, syncs included, so that a crash in between is one that redb
    /// expects. From now on the file is changed at once.
    ///
    /// Where the disk has no room for a change, this and what follows it stay held, redb sees them as
    /// before, and the answer is `false`.
    pub(super) fn release(&self) -> io::Result<bool> {
        let mut changes = self.lock();
        while let Some(change) = changes.as_ref().and_then(VecDeque::front) {
            let done = match change {
                Change::Write { offset, bytes } => self.file.write(*offset, bytes),
                Change::Length(length) => self.change_length(*length),
                Change::Sync { eventual } => self.sync(*eventual),
            };
            if done.as_ref().is_err_and(is_no_room) {
                return Ok(false);
            }
            done?;
            changes.as_mut().and_then(VecDeque::pop_front);
        }
        *changes = None;
        Ok(true)
    }

    /// Whether the file is changed at once.
    pub(super) fn is_released(&self) -> bool {
        self.lock().is_none()
    }

    /// Changes the length of the file. Where it grows, redb writes next that the file is so long, and
    /// a disk may keep that and lose the length, so the length has to be there first.
    fn change_length(&self, length: u64) -> io::Result<()> {
        let grows = length > self.file.len()?;
        self.file.set_len(length)?;
        if grows && !self.planted.is(Bug::UnsyncedGrowth) {
            self.sync(false)?;
        }
        Ok(())
    }

    /// A sync that fails is never one that had no room: nobody knows then what is on the disk, and
    /// what the system still has in memory may look as if it were.
    fn sync(&self, eventual: bool) -> io::Result<()> {
        let mut synced = self.file.sync_data(eventual);
        if synced.is_err() && self.planted.is(Bug::SyncAgain) {
            synced = self.file.sync_data(eventual);
        }
        synced.map_err(|error| {
            self.has_not_synced.store(true, Ordering::Relaxed);
            io::Error::other(format!("a sync has failed: {error}"))
        })
    }

    /// Whether the disk had no room for what redb wrote, after the release. Nothing came after
    /// that, as redb writes no more after an error.
    pub(super) fn had_no_room(&self) -> bool {
        self.had_no_room.load(Ordering::Relaxed)
    }

    /// Whether a sync has failed, for whatever reason.
    pub(super) fn has_not_synced(&self) -> bool {
        self.has_not_synced.load(Ordering::Relaxed)
    }

    /// Offset and length of what was read last.
    pub(super) fn last_read(&self) -> (u64, usize) {
        self.pages().last_read
    }

    /// Reads so many bytes from the disk, or those up to the end, and compares the pages of which
    /// something is known with what they were. Returns where the next ones begin, if there are any.
    pub(super) fn verify(&self, offset: u64, len: u64) -> io::Result<Option<u64>> {
        let end = offset.saturating_add(len).min(self.len()?);
        self.file.forget(offset, end.saturating_sub(offset))?;
        for page in offset / PAGE..end / PAGE {
            if self.pages().sums.knows(page) {
                self.read(page * PAGE, PAGE as usize)?;
            }
        }
        Ok((end < self.len()?).then_some(end))
    }

    /// Whether something is known of a page.
    #[cfg(test)]
    pub(super) fn knows(&self, page: u64) -> bool {
        self.pages().sums.knows(page)
    }

    /// Gives back the room of what was written since the last sync, which nobody relies on.
    /// Otherwise what did not fit would be kept in part, and leave no room for what does.
    ///
    /// redb changes nothing but its header in place. All else is written to pages that were free.
    pub(super) fn give_back(&self) {
        for (offset, len) in self.unsynced().drain(..) {
            if offset >= HEADER {
                self.file.give_back(offset, len);
            }
        }
    }

    fn unsynced(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a change has failed for lack of room.
    fn noted(&self, changed: io::Result<()>) -> io::Result<()> {
        if changed.as_ref().is_err_and(is_no_room) {
            self.had_no_room.store(true, Ordering::Relaxed);
        }
        changed
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Change>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn length(&self, changes: &VecDeque<Change>) -> io::Result<u64> {
        let length = self.file.len()?;
        Ok(changes.iter().fold(length, |length, change| match change {
            Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
            Change::Length(length) => *length,
            Change::Sync { .. } => length,
        }))
    }

    /// What is there for redb, whatever is known of it.
    fn found(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let changes = self.lock();
        let Some(changes) = &*changes else {
            return self.file.read(offset, len);
        };
        let end = offset.saturating_add(len as u64);
        if end > self.length(changes)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // How far a position is into what is read, at most to its end.
        let place = |position: u64| (position.clamp(offset, end) - offset) as usize;
        let mut found = self.file.read(offset, place(self.file.len()?))?;
        found.resize(len, 0);
        for change in changes {
            match change {
                Change::Write { offset: at, bytes } => {
                    let (from, to) = (place(*at), place(at + bytes.len() as u64));
                    if from < to {
                        let skipped = offset.saturating_sub(*at) as usize;
                        found[from..to].copy_from_slice(&bytes[skipped..][..to - from]);
                    }
                }
                // What was cut off is zero when the file grows again.
                Change::Length(length) => found[place(*length)..].fill(0),
                Change::Sync { .. } => {}
            }
        }
        Ok(found)
    }
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        match &*self.lock() {
            None => self.file.len(),
            Some(changes) => self.length(changes),
        }
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.pages().last_read = (offset, len);
        let found = self.found(offset, len)?;
        self.pages().sums.check(offset, &found)?;
        Ok(found)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pages().sums.truncate(len);
        match &mut *self.lock() {
            None => self.noted(self.change_length(len)),
            Some(changes) => {
                changes.push_back(Change::Length(len));
                Ok(())
            }
        }
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        match &mut *self.lock() {
            None => {
                let header_only = || self.unsynced().iter().all(|(offset, _)| *offset < HEADER);
                if !(self.planted.is(Bug::NoCommitSync) && header_only()) {
                    self.sync(eventual)?;
                }
                self.unsynced().clear();
                Ok(())
            }
            Some(changes) => {
                changes.push_back(Change::Sync { eventual });
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pages().sums.set(offset, data);
        match &mut *self.lock() {
            None => {
                self.unsynced().push((offset, data.len() as u64));
                self.noted(self.file.write(offset, data))
            }
            Some(changes) => {
                let bytes = data.to_owned();
                changes.push_back(Change::Write { offset, bytes });
                Ok(())
            }
        }
    }
}

/// Whether a disk or a quota is full.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};

    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::super::native::Native;
    use super::*;

    #[test]
    fn changes_are_seen_at_once_and_reach_the_file_when_it_is_released() {
        let mut named = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut named, b"0123456789").expect("written");
        let in_file = || std::fs::read(named.path()).expect("a file");
        let reserve = std::path::Path::new("");
        let file = Native::new(named.reopen().expect("a file"), reserve).expect("free");
        let held = Held::new(Arc::new(file), Planted::default());
        let all = || held.read(0, held.len().expect("it is known") as usize);

        held.write(2, b"abc").expect("held");
        held.write(4, b"de").expect("held");
        assert_eq!(all().expect("there"), b"01abde6789");
        for (offset, len, expected) in [
            (0, 2, "01"),
            (3, 2, "bd"),
            (4, 4, "de67"),
            (10, 0, ""),
            (1, 3, "1ab"),
        ] {
            let found = held.read(offset, len).expect("there");
            assert_eq!(found, expected.as_bytes(), "{len} from {offset}");
        }
        held.set_len(3).expect("held");
        held.set_len(6).expect("held");
        held.sync_data(false).expect("held");
        assert_eq!(all().expect("there"), b"01a\0\0\0");
        held.write(7, b"z").expect("held");
        assert_eq!(all().expect("there"), b"01a\0\0\0\0z");
        let error = held.read(5, 4).expect_err("behind the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(in_file(), b"0123456789");

        assert!(held.release().expect("the disk works"));
        assert_eq!(in_file(), b"01a\0\0\0\0z");
        held.write(0, b"y").expect("the disk works");
        assert_eq!(in_file(), b"y1a\0\0\0\0z");
        assert_eq!(all().expect("there"), in_file());
    }
}
