//! What the clients were told, to be compared with what the replicas have.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// A reply to one request of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) replica: u32,
    pub(crate) what: What,
}

/// What it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// This line is in the log, here.
    Appended { line: Line, position: u64 },
    /// One was added to the counter, which is this since then.
    Added { count: u64 },
}

/// A line of the log: the lane that has written it, and its number in that lane, from 1. Its text is
/// both, with a hyphen between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) lane: u32,
    pub(crate) number: u32,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (lane, number) = text.split_once('-')?;
        Some(Self {
            lane: lane.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.lane, self.number)
    }
}

/// How many bytes of the file one reply takes.
const BYTES: usize = 20;

/// The position of a reply that has none: it is about the counter.
const NO_POSITION: u64 = u64::MAX;

impl Told {
    fn to_bytes(self) -> [u8; BYTES] {
        let (first, lane, position) = match self.what {
            What::Appended { line, position } => (u64::from(line.number), line.lane, position),
            What::Added { count } => (count, 0, NO_POSITION),
        };
        // Lanes and replicas share a word: there are few of both.
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&position.to_le_bytes());
        bytes[16..20].copy_from_slice(&(lane << 4 | self.replica).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; BYTES]) -> Self {
        let word =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (first, position) = (word(0), word(8));
        let last = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"));
        let what = match position {
            NO_POSITION => What::Added { count: first },
            position => What::Appended {
                line: Line {
                    lane: last >> 4,
                    number: u32::try_from(first).expect("it was one"),
                },
                position,
            },
        };
        Self {
            replica: last & 0xf,
            what,
        }
    }
}

/// All replies, in a file without a name: there are too many for the memory, which is measured. Clones
/// share it.
#[derive(Debug, Clone)]
pub(crate) struct Noted(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    file: BufWriter<File>,
    /// Why some of them are missing.
    failure: Option<io::Error>,
}

impl Noted {
    /// None yet.
    pub(crate) fn new() -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 16, tempfile::tempfile()?);
        let failure = None;
        Ok(Self(Arc::new(Mutex::new(Notes { file, failure }))))
    }

    /// One more. Where it cannot be kept, [`each`](Self::each) fails.
    pub(crate) fn add(&self, told: Told) {
        self.notes(|notes| {
            let kept = notes.file.write_all(&told.to_bytes());
            notes.failure = notes.failure.take().or(kept.err());
        });
    }

    /// Hands all of them to a function, in the order in which they came.
    pub(crate) fn each(&self, mut f: impl FnMut(Told)) -> io::Result<()> {
        self.notes(|Notes { file, failure }| {
            if let Some(error) = failure.take() {
                return Err(error);
            }
            file.flush()?;
            let file = file.get_mut();
            file.rewind()?;
            let mut reader = BufReader::with_capacity(1 << 16, &mut *file);
            let mut bytes = [0; BYTES];
            loop {
                match reader.read_exact(&mut bytes) {
                    Ok(()) => f(Told::from_bytes(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn notes<T>(&self, f: impl FnOnce(&mut Notes) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_there_in_its_order() {
        let noted = Noted::new().expect("a file");
        let line = Line {
            lane: 12_345,
            number: u32::MAX,
        };
        let all = [
            (1, What::Appended { line, position: 0 }),
            (15, What::Added { count: u64::MAX }),
            (
                3,
                What::Appended {
                    line,
                    position: u64::MAX - 1,
                },
            ),
        ];
        let all = all.map(|(replica, what)| Told { replica, what });
        for told in all {
            noted.add(told);
        }
        for _ in 0..2 {
            let mut found = Vec::new();
            noted.each(|told| found.push(told)).expect("it is read");
            assert_eq!(found, all);
        }
    }
}
