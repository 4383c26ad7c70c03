//! Room on the disk that nobody else can have.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// How many bytes are kept: more than it takes to open a file again, and to seal it.
pub(super) const RESERVE: u64 = 1 << 20;

/// A file that takes room, for what has to be written on a full disk: what opening the file of a
/// replica changes in it, and its seal.
///
/// It is given up when one of these finds no room, and taken again with the first commit after which
/// the disk has so much.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_there: bool,
}

impl Reserve {
    /// A reserve in this file. It has to be [taken](Self::take).
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            is_there: false,
        }
    }

    /// Takes the room, where the disk has it. Whether it is there then.
    pub(super) fn take(&mut self) -> bool {
        if !self.is_there {
            self.is_there = fill(&self.path).is_ok();
            if !self.is_there {
                self.empty();
            }
        }
        self.is_there
    }

    /// Gives the room back. Whether there was some.
    pub(super) fn release(&mut self) -> bool {
        let was_there = std::mem::take(&mut self.is_there);
        // One of a process that died may be there still.
        self.empty() || was_there
    }

    /// Whether there was something in it. It keeps its name, so that a full disk needs no room for
    /// one.
    fn empty(&self) -> bool {
        let file = fs::File::options().write(true).open(&self.path);
        let emptied = file.and_then(|file| {
            let length = file.metadata()?.len();
            file.set_len(0)?;
            Ok(length > 0)
        });
        emptied.unwrap_or(false)
    }
}

/// A file of so many bytes that has all of its room.
fn fill(path: &Path) -> io::Result<()> {
    let file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    allocate(&file)
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    match fallocate(file, FallocateFlags::empty(), 0, RESERVE) {
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write(file),
        allocated => Ok(allocated?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &fs::File) -> io::Result<()> {
    write(file)
}

/// Takes the room by writing there. Numbers that differ, so that nothing is gained by compressing
/// them.
fn write(mut file: &fs::File) -> io::Result<()> {
    use io::Write;

    if file.metadata()?.len() == RESERVE {
        return Ok(());
    }
    let mut number = 1_u64;
    let numbers = std::iter::repeat_with(|| {
        // Xorshift, by Marsaglia.
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number.to_le_bytes()
    });
    let bytes: Vec<u8> = numbers.take(RESERVE as usize / 8).flatten().collect();
    file.set_len(0)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_has_its_room_until_it_is_released() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("reserve");
        let length = || fs::metadata(&path).map(|metadata| metadata.len()).ok();
        let mut reserve = Reserve::at(&path);
        assert!(!reserve.release());
        assert_eq!(length(), None);
        for _ in 0..2 {
            assert!(reserve.take());
            assert!(reserve.take());
            assert_eq!(length(), Some(RESERVE));
            assert!(reserve.release());
            assert!(!reserve.release());
            assert_eq!(length(), Some(0));
        }
        assert!(reserve.take());
        // What a process that has died has left is there for the next one.
        let mut next = Reserve::at(&path);
        assert!(next.release());
        assert_eq!(length(), Some(0));
        let file = fs::File::options().write(true).open(&path);
        write(&file.expect("it is there")).expect("there is room");
        assert_eq!(length(), Some(RESERVE));
    }

    #[test]
    fn a_reserve_that_cannot_be_had_is_no_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut reserve = Reserve::at(&directory.path().join("missing/reserve"));
        assert!(!reserve.take());
        assert!(!reserve.release());
    }
}
