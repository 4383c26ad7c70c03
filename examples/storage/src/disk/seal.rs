//! What is known of the file of a replica beside it.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use super::directory;

/// What a file says of itself, and its seal of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The replica whose file it is.
    pub(super) replica: u32,
    /// A number that no other file has.
    pub(super) file: u128,
    /// How many commits there were.
    pub(super) commits: u64,
}

impl Identity {
    /// That of a new file.
    pub(super) fn new(replica: u32) -> Self {
        // Each state has keys of its own, which are random.
        let random = || u128::from(RandomState::new().hash_one(()));
        Self {
            replica,
            file: random() << 64 | random(),
            commits: 0,
        }
    }
}

/// A small file beside that of a replica, by which a file that is gone, or another one in its place,
/// is noticed. It is replaced as a whole.
///
/// It is written when the file is made, opened and closed, and not at each commit. So it tells of
/// a file that it has at least so many commits.
#[derive(Debug)]
pub(super) struct Seal {
    path: PathBuf,
}

impl Seal {
    /// The seal at this path.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says. Nothing where it is not there.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, and `InvalidData` where it is not as it was written.
    pub(super) fn read(&self) -> io::Result<Option<Identity>> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let sealed = std::str::from_utf8(&text).ok().and_then(parse);
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong");
        sealed.map(Some).ok_or_else(damaged)
    }

    /// [Replaces](directory::replace) it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written. Then either is there.
    pub(super) fn write(&self, identity: Identity) -> io::Result<()> {
        directory::replace(&self.path, Text(identity).to_string().as_bytes())
    }
}

/// A seal as it is in its file: a line for people, and a checksum of it.
struct Text(Identity);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            replica,
            file,
            commits,
        } = self.0;
        let line = format!("replica {replica}, file {file:032x}, commits {commits}");
        writeln!(f, "{line}\n{:08x}", crc32fast::hash(line.as_bytes()))
    }
}

fn parse(text: &str) -> Option<Identity> {
    let line = text.lines().next()?;
    let mut parts = line.split(", ");
    let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix(' ');
    let identity = Identity {
        replica: part("replica")?.parse().ok()?,
        file: u128::from_str_radix(part("file")?, 16).ok()?,
        commits: part("commits")?.parse().ok()?,
    };
    // All of it is as it would be written, the checksum with it.
    (Text(identity).to_string() == text).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_says_what_was_written_or_that_it_is_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let seal = Seal::at(directory.path().join("seal"));
        assert_eq!(seal.read().expect("there is none"), None);
        let mut identity = Identity::new(7);
        assert_ne!(identity.file, Identity::new(7).file);
        seal.write(identity).expect("there is room");
        identity.commits = 12_345;
        seal.write(identity).expect("there is room");
        assert_eq!(seal.read().expect("it is whole"), Some(identity));
        let whole = fs::read(seal.path()).expect("it is there");
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
        for bytes in flipped.chain(cut) {
            fs::write(seal.path(), &bytes).expect("there is room");
            let error = seal.read().expect_err("it is damaged");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).expect("it").count(), 1);
    }
}
