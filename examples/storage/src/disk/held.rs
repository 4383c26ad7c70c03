//! A file whose changes are held back until it is known to be whole.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What redb reads and writes instead of the file itself. Clones share one file.
///
/// redb writes already while it opens a file and while it looks for damage. Until
/// [`release`](Self::release) these changes are kept in memory, where redb sees them, so that a
/// file that is refused is as it was.
#[derive(Debug, Clone)]
pub(super) struct Held {
    file: Arc<dyn StorageBackend>,
    /// What is to be done to the file, in this order. `None` when it is no longer held.
    changes: Arc<Mutex<Option<Vec<Change>>>>,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
    Sync { eventual: bool },
}

impl Held {
    pub(super) fn new(file: impl StorageBackend) -> Self {
        Self {
            file: Arc::new(file),
            changes: Arc::new(Mutex::new(Some(Vec::new()))),
        }
    }

    /// Changes the file as redb did, syncs included, so that a crash in between is one that redb
    /// expects. From now on the file is changed at once.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut changes = self.lock();
        for change in changes.iter().flatten() {
            match change {
                Change::Write { offset, bytes } => self.file.write(*offset, bytes)?,
                Change::Length(length) => self.file.set_len(*length)?,
                Change::Sync { eventual } => self.file.sync_data(*eventual)?,
            }
        }
        *changes = None;
        Ok(())
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn length(&self, changes: &[Change]) -> io::Result<u64> {
        let length = self.file.len()?;
        Ok(changes.iter().fold(length, |length, change| match change {
            Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
            Change::Length(length) => *length,
            Change::Sync { .. } => length,
        }))
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

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.lock() {
            None => self.file.set_len(len),
            Some(changes) => {
                changes.push(Change::Length(len));
                Ok(())
            }
        }
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        match &mut *self.lock() {
            None => self.file.sync_data(eventual),
            Some(changes) => {
                changes.push(Change::Sync { eventual });
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.lock() {
            None => self.file.write(offset, data),
            Some(changes) => {
                let bytes = data.to_owned();
                changes.push(Change::Write { offset, bytes });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::FileBackend;

    use super::*;

    #[test]
    fn changes_are_seen_at_once_and_reach_the_file_when_it_is_released() {
        let mut named = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut named, b"0123456789").expect("written");
        let in_file = || std::fs::read(named.path()).expect("a file");
        let held = Held::new(FileBackend::new(named.reopen().expect("a file")).expect("free"));
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

        held.release().expect("the disk works");
        assert_eq!(in_file(), b"01a\0\0\0\0z");
        held.write(0, b"y").expect("the disk works");
        assert_eq!(in_file(), b"y1a\0\0\0\0z");
        assert_eq!(all().expect("there"), in_file());
    }
}
