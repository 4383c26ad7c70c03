//! The system's files.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

use super::reserve::Reserve;

/// What the [file](super::File) of a replica is in: one of the system, or whatever a test puts
/// there.
pub trait Backend: StorageBackend {
    /// Gives back the room of these bytes, which are zero from now on or any others. Where that
    /// cannot be done, they keep their room.
    fn give_back(&self, offset: u64, len: u64);

    /// Sees to it that these bytes are read from the disk when they are read next, and not from what
    /// the system has in memory. Whether that can be had.
    ///
    /// Called after a sync: what was not synced may be as it was, or as it was before.
    ///
    /// # Errors
    ///
    /// Where the system refuses.
    fn forget(&self, offset: u64, len: u64) -> io::Result<bool>;

    /// Gives up the room that is kept for what has to be written on a full disk. Whether there was
    /// any.
    fn release_reserve(&self) -> bool {
        false
    }

    /// Keeps that room again, where the disk has it. Whether it is kept, or need not be.
    fn take_reserve(&self) -> bool {
        true
    }

    /// Whether the disk has room for so many bytes, as far as it is known.
    fn has_room(&self, _bytes: u64) -> bool {
        true
    }
}

/// What stands between a replica and its file: given that file, whatever is to be used in its place.
/// A test can make a disk fail by that which does not.
pub type Within<'a> = &'a dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend>;

/// Nothing stands between.
pub(crate) fn as_it_is(file: Arc<dyn Backend>) -> Arc<dyn Backend> {
    file
}

/// A file of the system, locked for this process.
#[derive(Debug)]
pub(super) struct Native {
    locked: FileBackend,
    /// The same file.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "Linux gives room back, and forgets")
    )]
    file: fs::File,
    reserve: Mutex<Reserve>,
}

impl Native {
    /// A file, with a reserve at this path.
    pub(super) fn new(file: fs::File, reserve: &Path) -> Result<Self, DatabaseError> {
        let same = file.try_clone()?;
        let locked = FileBackend::new(file)?;
        Ok(Self {
            locked,
            file: same,
            reserve: Mutex::new(Reserve::at(reserve)),
        })
    }

    fn with_reserve<T>(&self, work: impl FnOnce(&mut Reserve) -> T) -> T {
        work(&mut self.reserve.lock().expect("no code panics with it"))
    }
}

impl Backend for Native {
    #[cfg(target_os = "linux")]
    fn give_back(&self, offset: u64, len: u64) {
        use rustix::fs::{FallocateFlags, fallocate};

        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Not every file system can.
        let _ = fallocate(&self.file, hole, offset, len);
    }

    #[cfg(not(target_os = "linux"))]
    fn give_back(&self, _: u64, _: u64) {}

    #[cfg(target_os = "linux")]
    fn forget(&self, offset: u64, len: u64) -> io::Result<bool> {
        use rustix::fs::{Advice, fadvise};

        // Linux drops what is clean then, and what a sync could not write is clean.
        fadvise(
            &self.file,
            offset,
            std::num::NonZeroU64::new(len),
            Advice::DontNeed,
        )?;
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    fn forget(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn release_reserve(&self) -> bool {
        self.with_reserve(Reserve::release)
    }

    fn take_reserve(&self) -> bool {
        self.with_reserve(Reserve::take)
    }

    #[cfg(target_os = "linux")]
    fn has_room(&self, bytes: u64) -> bool {
        // Where it cannot be asked, the next write tells.
        let free = rustix::fs::fstatvfs(&self.file);
        free.is_ok_and(|free| free.f_bavail.saturating_mul(free.f_frsize) >= bytes)
    }
}

impl StorageBackend for Native {
    fn len(&self) -> io::Result<u64> {
        self.locked.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.locked.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.locked.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        self.locked.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.locked.write(offset, data)
    }
}
