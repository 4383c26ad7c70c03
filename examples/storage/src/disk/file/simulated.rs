//! Disks that are simulated: they lose their power, have little room, or do not sync.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use redb::StorageBackend;

use super::{Backend, File};
use crate::store::{Entry, Time};

/// A file on a disk that keeps no promise but one: what was synced is there. Of what was changed
/// since, a loss of power leaves any part. Where a sync fails, any part of it is on the disk, and what
/// is in memory counts as written nevertheless: no later sync writes it.
#[derive(Debug, Clone)]
pub(in crate::disk) struct Powered(Arc<Mutex<Contents>>);

#[derive(Debug)]
pub(in crate::disk) struct Contents {
    pub(in crate::disk) now: Vec<u8>,
    pub(in crate::disk) lasting: Lasting,
    /// What there was before each sync.
    pub(in crate::disk) before_syncs: Vec<Lasting>,
    /// Which of the next syncs fail, by how many come before them.
    pub(in crate::disk) failing: Vec<usize>,
    /// Which parts reach the disk when a sync fails.
    pub(in crate::disk) random: fastrand::Rng,
    /// What is in memory is not what is on the disk.
    has_failed: bool,
    /// Whether what is in memory can be given up.
    pub(in crate::disk) forgets: bool,
}

#[derive(Debug, Clone)]
pub(in crate::disk) struct Lasting {
    synced: Vec<u8>,
    /// What was changed since, in parts of which each may survive without the others.
    pub(in crate::disk) unsynced: Vec<Unsynced>,
}

#[derive(Debug, Clone)]
pub(in crate::disk) enum Unsynced {
    /// A disk writes sectors whole, and no more than that.
    Sector {
        offset: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
}

pub(in crate::disk) const SECTOR: usize = 512;

impl Lasting {
    fn synced(now: &[u8]) -> Self {
        Self {
            synced: now.to_owned(),
            unsynced: Vec::new(),
        }
    }

    /// What a loss of power may leave: `survives` says of each part whether it does. The length
    /// is a part of its own, and what lies behind it is lost.
    pub(in crate::disk) fn left(&self, mut survives: impl FnMut(&Unsynced) -> bool) -> Vec<u8> {
        let mut left = self.synced.clone();
        let mut length = left.len();
        for part in self.unsynced.iter().filter(|part| survives(part)) {
            match part {
                Unsynced::Length(new) => {
                    left.truncate(*new);
                    length = *new;
                }
                Unsynced::Sector { offset, bytes } => {
                    let end = offset + bytes.len();
                    left.resize(left.len().max(end), 0);
                    left[*offset..end].copy_from_slice(bytes);
                }
            }
        }
        left.resize(length, 0);
        left
    }
}

impl Powered {
    pub(in crate::disk) fn new(now: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            lasting: Lasting::synced(&now),
            now,
            before_syncs: Vec::new(),
            failing: Vec::new(),
            random: fastrand::Rng::with_seed(1),
            has_failed: false,
            forgets: true,
        })))
    }

    pub(in crate::disk) fn with<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics with it"))
    }
}

impl StorageBackend for Powered {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|contents| contents.now.len() as u64))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.with(|contents| contents.now[offset as usize..][..len].to_owned()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|contents| {
            contents.now.resize(len as usize, 0);
            let length = Unsynced::Length(len as usize);
            contents.lasting.unsynced.push(length);
        });
        Ok(())
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        // What is synced at some time is not yet.
        if eventual {
            return Ok(());
        }
        self.with(|contents| {
            let fails = contents.failing.contains(&0);
            contents.failing.retain(|before| *before > 0);
            contents.failing.iter_mut().for_each(|before| *before -= 1);
            let random = &mut contents.random;
            let synced = contents.lasting.left(|_| !fails || random.bool());
            let synced = Lasting::synced(&synced);
            let before = std::mem::replace(&mut contents.lasting, synced);
            contents.before_syncs.push(before);
            contents.has_failed |= fails;
            match fails {
                true => Err(io::Error::other("the disk is broken")),
                false => Ok(()),
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|contents| {
            let (mut at, end) = (offset as usize, offset as usize + data.len());
            contents.now[at..end].copy_from_slice(data);
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                let bytes = contents.now[at..next].to_owned();
                let sector = Unsynced::Sector { offset: at, bytes };
                contents.lasting.unsynced.push(sector);
                at = next;
            }
        });
        Ok(())
    }
}

/// A new file of a replica, and the folder that it was made in.
pub(in crate::disk) fn new_file() -> (Vec<u8>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    drop(File::<Entry>::open(directory.path(), 1, &super::as_it_is).expect("it can be opened"));
    let now = fs::read(directory.path().join("replica-1.redb")).expect("a file");
    (now, directory)
}

/// A file on a disk with so many pages, which says what has no room, and whether in a sync.
#[derive(Debug)]
pub(in crate::disk) struct Small {
    pub(in crate::disk) file: Powered,
    /// The pages that something was written to. The others take no room.
    used: Mutex<BTreeSet<u64>>,
    pub(in crate::disk) pages: AtomicUsize,
    /// Syncs fail as well when there is no room.
    pub(in crate::disk) late: AtomicBool,
    /// Somebody else takes all room as soon as it is given back. And each write takes room, as where
    /// nothing is overwritten in its place.
    pub(in crate::disk) greedy: AtomicBool,
    /// How many pages are the reserve, and how many of them are kept now.
    reserve: usize,
    pub(in crate::disk) reserved: AtomicUsize,
}

impl Small {
    /// How many pages are there for the file.
    fn room(&self) -> usize {
        let pages = self.pages.load(Ordering::Relaxed);
        pages.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }
}

impl StorageBackend for Small {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        let used = self.used.lock().expect("no test panics with it").len();
        if self.late.load(Ordering::Relaxed) && used > self.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut used = self.used.lock().expect("no test panics with it");
        for (page, data) in (offset / PAGE..).zip(data.chunks(PAGE as usize)) {
            let full = used.len() >= self.room();
            let takes_room = !used.contains(&page) || self.greedy.load(Ordering::Relaxed);
            if full && takes_room && !self.late.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            used.insert(page);
            self.file.write(page * PAGE + offset % PAGE, data)?;
        }
        Ok(())
    }
}

impl Backend for Small {
    fn give_back(&self, offset: u64, len: u64) {
        let end = offset + len;
        let pages = offset.div_ceil(PAGE)..end / PAGE;
        let mut used = self.used.lock().expect("no test panics with it");
        used.retain(|page| !pages.contains(page));
        if self.greedy.load(Ordering::Relaxed) {
            let reserved = self.reserved.load(Ordering::Relaxed);
            self.pages.store(used.len() + reserved, Ordering::Relaxed);
        }
        self.file.with(|contents| {
            let end = contents.now.len().min(end as usize);
            contents.now[offset as usize..end].fill(0);
        });
    }

    fn forget(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.file.forget(offset, len)
    }

    fn release_reserve(&self) -> bool {
        self.reserved.swap(0, Ordering::Relaxed) > 0
    }

    fn has_room(&self, bytes: u64) -> bool {
        let used = self.used.lock().expect("no test panics with it").len() as u64;
        used + bytes.div_ceil(PAGE) <= self.room() as u64
    }

    fn take_reserve(&self) -> bool {
        let used = self.used.lock().expect("no test panics with it").len();
        if used + self.reserve > self.pages.load(Ordering::Relaxed) {
            return false;
        }
        self.reserved.store(self.reserve, Ordering::Relaxed);
        true
    }
}

impl Backend for Powered {
    fn give_back(&self, _: u64, _: u64) {}

    fn forget(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(self.with(|contents| {
            if contents.has_failed && contents.forgets {
                contents.now = contents.lasting.left(|_| true);
            }
            contents.forgets
        }))
    }
}

pub(in crate::disk) const PAGE: u64 = 4096;

/// A new file of a replica, on a disk that has room for so many more pages, of which so many are the
/// reserve.
pub(in crate::disk) fn small(more: usize, reserve: usize) -> (Arc<Small>, tempfile::TempDir) {
    let (now, directory) = new_file();
    let used: BTreeSet<_> = (0..)
        .zip(now.chunks(PAGE as usize))
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(page, _)| page)
        .collect();
    let pages = AtomicUsize::new(used.len() + more);
    let file = Powered::new(now);
    let small = Small {
        file,
        used: Mutex::new(used),
        pages,
        late: AtomicBool::new(false),
        greedy: AtomicBool::new(false),
        reserve,
        reserved: AtomicUsize::new(0),
    };
    (Arc::new(small), directory)
}

pub(in crate::disk) fn of_size(bytes: usize, seconds: i64) -> Entry {
    Entry {
        value: "v".repeat(bytes),
        time: Time::from_parts(seconds, 0),
    }
}
