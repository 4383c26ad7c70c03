//! The system's files.

use std::{fs, io};

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

/// What the [file](super::File) of a replica is in: one of the system, or whatever a test puts
/// there.
pub trait Backend: StorageBackend {
    /// Gives back the room of these bytes, which are zero from now on or any others. Where that
    /// cannot be done, they keep their room.
    fn give_back(&self, offset: u64, len: u64);
}

/// A file of the system, locked for this process.
#[derive(Debug)]
pub(super) struct Native {
    locked: FileBackend,
    /// The same file.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "Linux gives room back")
    )]
    file: fs::File,
}

impl Native {
    pub(super) fn new(file: fs::File) -> Result<Self, DatabaseError> {
        let same = file.try_clone()?;
        let locked = FileBackend::new(file)?;
        Ok(Self { locked, file: same })
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
