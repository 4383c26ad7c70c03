//! Where a replica writes down whether it has its data.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::{fs, io};

use crate::disk::directory;

/// A few bytes that are replaced as a whole, and outlive a crash.
pub trait Slate: Send + 'static {
    /// What is on it. Nothing where it is new, or has been lost.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    fn read(&mut self) -> io::Result<Vec<u8>>;

    /// Replaces what is on it. It waits for the disk, and keeps the thread meanwhile.
    ///
    /// # Errors
    ///
    /// Where it cannot be written. Then either is on it: what was, or what was to be.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Completes when what was written lasts, where that is later: on the disk of a simulation.
    fn done(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// A slate in a file of its own, beside the one with the data.
#[derive(Debug)]
pub struct SlateFile {
    path: PathBuf,
}

impl SlateFile {
    /// That of this replica, in the directory of its data.
    #[must_use]
    pub fn new(directory: &Path, id: u32) -> Self {
        Self {
            path: directory::slate(directory, id),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Slate for SlateFile {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        use io::ErrorKind::{NotADirectory, NotFound};

        match fs::read(&self.path) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
            read => read,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        directory::make(directory::above(&self.path))?;
        directory::replace(&self.path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slate_is_empty_at_first_and_keeps_what_was_written_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().join("new");
        let mut slate = SlateFile::new(&directory, 2);
        assert_eq!(slate.read().expect("it can be read"), b"");
        slate.write(b"a longer text").expect("it can be written");
        slate.write(b"a text").expect("it can be written");
        let mut again = SlateFile::new(&directory, 2);
        assert_eq!(again.read().expect("it can be read"), b"a text");
        let files: Vec<_> = fs::read_dir(&directory).expect("it is there").collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }
}
