use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::contents::Contents;
use super::world::{self, World};
use super::{DiskError, Random};

/// A file of a replica, on a disk that is as unkind as real ones.
///
/// Its calls return at once, as those of a blocking file would for the code around it, and take
/// virtual time afterwards: [`done`](Self::done) waits until it has passed. What a call has changed
/// is there for the program at once. It counts for others when its time has passed and not before,
/// a [`sync`](Self::sync) as well. So whoever acknowledges something calls `done` first; otherwise
/// a crash may take back what was acknowledged.
///
/// | what happens | what is there when the replica starts again |
/// |---|---|
/// | a [crash](super::FaultKind::Crash), or the replica ends by itself | the operations that were done, synced or not |
/// | a [power failure](super::FaultKind::PowerFailure) | what a `sync` that was done has covered, and of the rest any part: each sector of 512 bytes as it was at any moment since, and each change of the length kept or not, apart from what was written |
/// | [crash and lose](super::FaultKind::CrashAndLose) | nothing |
///
/// A power failure likes to come while something is written: it may wait for that, or for a file
/// that grows, as long as it would last.
///
/// On a [slow disk](super::FaultKind::SlowDisk) each sync takes 50 to 500 ms. While a disk
/// [fails](super::FaultKind::FailingDisk), either all calls but [`len`](Self::len) end with an error,
/// and what they were to write may be written nevertheless; or, as where the system has what is read
/// and written in its memory, each `sync` alone. Of what such a sync was to write, any part counts as
/// written and is not: it can be read, also by the next program after a crash, and no later sync
/// writes it. [`forget`](Self::forget) gives it up.
///
/// When the replica is killed its files do nothing any more, so what is dropped then cannot write.
///
/// It is kinder than a disk in two ways. A write that is under way when its program
/// is killed, or that fails, may be there in part; here it is there or not. And of more than 10,000
/// operations without a `sync` the oldest are written out, and no loss of power takes them back.
#[derive(Clone)]
pub struct File {
    contents: Arc<Mutex<Contents>>,
    world: Arc<World>,
    node: usize,
    incarnation: u64,
}

/// How an operation goes.
struct Operation {
    now: Duration,
    takes: Duration,
    fails: bool,
    /// Whether it has an effect though it fails.
    in_effect: bool,
}

/// The longest file that there can be, so that no sum of offsets is too large.
const LONGEST: u64 = 1 << 62;

impl File {
    pub(crate) fn open(world: &Arc<World>, node: usize, incarnation: u64, name: &str) -> Self {
        Self {
            contents: world.file(node, name),
            world: Arc::clone(world),
            node,
            incarnation,
        }
    }

    /// How long it is, in bytes.
    ///
    /// # Errors
    ///
    /// When the replica that has opened it was killed.
    pub fn len(&self) -> io::Result<u64> {
        if self.world.is_alive(self.node, self.incarnation) {
            Ok(self.lock().len())
        } else {
            Err(killed())
        }
    }

    /// Whether there is nothing in it, as in one that is new.
    ///
    /// # Errors
    ///
    /// As for [`len`](Self::len).
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// So many bytes from this offset on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the file ends before; while the disk fails; and when the replica was
    /// killed.
    pub fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let operation = self.begin(false)?;
        let mut contents = self.lock();
        contents.pass(operation.now, operation.takes);
        operation.result()?;
        let found = contents.read(offset, len);
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Writes there. Where that is beyond its end the file becomes longer, and zero in between.
    ///
    /// # Errors
    ///
    /// Where the file would be too long; while the disk fails, and it may be written nevertheless;
    /// and when the replica was killed.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > LONGEST) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.change(false, |contents, now, takes| {
            contents.write(now, takes, offset, bytes);
        })
    }

    /// Makes the file so long: cuts off what is behind that, or adds zeros.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        if length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.change(false, |contents, now, takes| {
            contents.set_len(now, takes, length);
        })
    }

    /// Makes all that was changed before last: when it is [done](Self::done), no loss of power
    /// takes it back.
    ///
    /// # Errors
    ///
    /// While the disk fails; nobody knows then what is on it, and a later sync that succeeds says
    /// nothing of what this one was to write. And when the replica was killed.
    pub fn sync(&self) -> io::Result<()> {
        let operation = self.begin(true)?;
        let mut contents = self.lock();
        let Operation { now, takes, .. } = operation;
        let result = operation.result();
        match result {
            Ok(()) => contents.sync(now, takes),
            Err(_) => {
                let random = Random::new(self.world.random(self.node));
                contents.fail_sync(now, takes, random);
            }
        }
        let length = contents.len();
        drop(contents);
        self.world.note_sync(self.node, length, result.is_ok());
        result
    }

    /// Gives up what the system has in memory and could not write, so that what is on the disk is read
    /// from now on: what a [`sync`](Self::sync) that has failed was to write may be there or not. What
    /// is to be written yet stays as it is.
    ///
    /// # Errors
    ///
    /// While the disk fails, and when the replica was killed.
    pub fn forget(&self) -> io::Result<()> {
        let operation = self.begin(false)?;
        let mut contents = self.lock();
        match operation.result() {
            Ok(()) => contents.forget(operation.now, operation.takes),
            Err(_) => contents.pass(operation.now, operation.takes),
        }
        operation.result()
    }

    /// Puts this in the place of all that is there, and makes it last: all or nothing, as where
    /// another file is written, synced, renamed to this one, and its directory synced.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    pub fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.change(true, |contents, now, takes| {
            contents.replace(now, takes, bytes);
        })
    }

    /// Waits until all that was begun before is done.
    pub async fn done(&self) {
        let until = self.lock().busy_until();
        loop {
            let now = world::now();
            if now >= until {
                break;
            }
            tokio::time::sleep(until - now).await;
        }
        self.world.runs(self.node).await;
    }

    fn change(
        &self,
        syncs: bool,
        change: impl FnOnce(&mut Contents, Duration, Duration),
    ) -> io::Result<()> {
        let operation = self.begin(syncs)?;
        let mut contents = self.lock();
        if operation.in_effect {
            change(&mut contents, operation.now, operation.takes);
        } else {
            contents.pass(operation.now, operation.takes);
        }
        operation.result()
    }

    fn begin(&self, syncs: bool) -> io::Result<Operation> {
        let access = self.world.file_access(self.node, self.incarnation, syncs);
        let (takes, fails, in_effect) = access.ok_or_else(killed)?;
        Ok(Operation {
            now: world::now(),
            takes,
            fails,
            in_effect,
        })
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    fn result(&self) -> io::Result<()> {
        match self.fails {
            true => Err(io::Error::other(DiskError)),
            false => Ok(()),
        }
    }
}

fn killed() -> io::Error {
    io::Error::other("the replica that had this file open was killed")
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
