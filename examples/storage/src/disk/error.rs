//! What can be wrong with the file of a replica.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a replica has no file.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    File(FileError),
    /// What is wrong with what is at the path.
    Lost(Loss, String),
}

/// What has become of the data of a replica that cannot be opened because of them. What it has
/// acknowledged is lost, unless somebody finds it: a replica that goes on without must not answer
/// as if it had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// They are there, and not as they were written.
    Damaged,
    /// A file is gone.
    Missing,
    /// They are what they were some time ago, as where somebody has put an older copy there.
    Older,
    /// They are those of another replica, or of another time of this one.
    Foreign,
}

/// Why the file of a replica cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// Those of redb are large.
    cause: Box<redb::Error>,
    /// Where it is, if it is known.
    path: Option<PathBuf>,
    /// Offset and length of what was read before damage was found.
    last_read: Option<(u64, usize)>,
}

impl OpenError {
    pub(super) fn at(path: &Path, cause: impl Into<FileError>) -> Self {
        Self {
            path: path.to_owned(),
            cause: Cause::File(cause.into()),
        }
    }

    pub(super) fn lost(path: &Path, loss: Loss, text: String) -> Self {
        Self {
            path: path.to_owned(),
            cause: Cause::Lost(loss, text),
        }
    }

    /// The file or the directory that it is about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has become of the data. `None` where they are out of reach, and may be as they were:
    /// where the directory cannot be read, say, or another process has them open.
    pub fn loss(&self) -> Option<Loss> {
        match &self.cause {
            Cause::Lost(loss, _) => Some(*loss),
            Cause::File(error) => error.is_damage().then_some(Loss::Damaged),
        }
    }

    /// What was found, in words, and nothing of what is to be done.
    pub fn finding(&self) -> String {
        let path = self.path.display();
        match &self.cause {
            Cause::File(error) if matches!(&*error.cause, redb::Error::DatabaseAlreadyOpen) => {
                format!("{path} is in use by another replica")
            }
            Cause::File(error) if !error.is_damage() => format!("{path}: {error}"),
            Cause::File(error) => {
                format!("{path} is damaged, or not the file of a replica ({error})")
            }
            Cause::Lost(_, text) => format!("{path} {text}"),
        }
    }
}

impl FileError {
    /// Whether the file is not as it was written, rather than out of reach.
    pub fn is_damage(&self) -> bool {
        use io::ErrorKind::{InvalidData, UnexpectedEof};

        match &*self.cause {
            redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo => false,
            // These two are about what is read.
            redb::Error::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
            _ => true,
        }
    }

    /// Offset and length of what was read last before damage was found, where it was found by
    /// opening the file. It is most likely where the damage is.
    pub fn last_read(&self) -> Option<(u64, usize)> {
        self.last_read
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(&*self.cause, redb::Error::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The same about the file at this path.
    pub(super) fn of(self, path: Option<&Path>) -> Self {
        let path = path.map(Path::to_owned);
        Self { path, ..self }
    }

    /// The same, found after this was read, if that is not known better.
    pub(super) fn after_reading(self, read: (u64, usize)) -> Self {
        let last_read = self.last_read.or(Some(read));
        Self { last_read, ..self }
    }
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        Self {
            cause: Box::new(error.into()),
            path: None,
            last_read: None,
        }
    }
}

pub(super) fn damaged(message: &str) -> FileError {
    redb::Error::Corrupted(message.to_owned()).into()
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        match &*self.cause {
            // Without redb's words before the system's.
            redb::Error::Io(error) => error.fmt(f)?,
            redb::Error::Corrupted(message) => f.write_str(message)?,
            cause => cause.fmt(f)?,
        }
        match self.last_read {
            Some((offset, len)) => write!(f, ", found with the {len} bytes at offset {offset}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finding())?;
        if self.loss().is_none() {
            return Ok(());
        }
        f.write_str(
            "; everything was left as it is: restore all files of the replica from a backup, or move all of them \
             away to start empty, without what the replica acknowledged",
        )
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::File(error) => Some(&*error.cause),
            Cause::Lost(..) => None,
        }
    }
}
