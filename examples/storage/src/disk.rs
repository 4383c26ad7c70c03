//! The state of a replica on a disk, so that it outlives the process.
//!
//! One task has the disk, and carries out the requests in their order. Those that wait are one
//! batch, which is on disk before any of them is answered; so no reader sees what could still be
//! lost, and one `fsync` serves many writers.
//!
//! The disk is a [`Volume`]: a [file](Disk::open) with a thread of its own, or whatever a test
//! [puts there](Disk::on), slow or failing. The file is in a [`Backend`], which a test can replace
//! as well: the code that production runs on a disk that loses power ([`File::on`]).
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | requests that wait | 1,024 | callers wait with their request |
//! | requests in a batch | 1,024 | the batch ends, and the next one begins with what is left |
//! | bytes of requests, waiting and in the batch | 8 MiB; a read counts 512 KiB | callers wait |
//! | bytes of an answer that is kept | 1,024 | the request fails, and changes nothing |
//! | answers that are kept of a client | 1,024 | the oldest goes; a call as old as that fails with `Aborted` |
//! | clients of whom answers are kept | 1,024 | those of the one that was answered the longest time ago go; what a client that is not here sends again fails with `Aborted` from then on |
//! | bytes of records found and not taken | 16 MiB | the batch ends; the disk waits for readers |
//!
//! What a read finds is not known before, and its caller holds it afterwards. So a read counts more
//! than it has, and no more than 16 of them are past the queue before the first is answered. A
//! record that is larger than a bound is let through alone; so the most that is held here is 24 MiB
//! and one record more, beside the cache of the file.
//!
//! Whoever has asked for a record and does not [take](Coming::result) it keeps others waiting. The
//! record is given back where the [`Coming`] is dropped.
//!
//! # Calls that come again
//!
//! A change that is of a [call](KeyedCall) is kept with its answer, in one commit. When the call comes again,
//! which a client with sessions does to a replica that was started anew, it is answered by that, and
//! changes nothing. An answer of a few bytes takes some 60, so that those of all clients take 60 MiB at the most; one
//! may have [1 KiB](ANSWER). None of it is in memory.
//!
//! What is sent again of which the answer may have gone is not carried out: a call as old as one of which it
//! has, and what a client sends again that is none of the 1,024, once there have been more. What such a
//! client sends for the first time is. A replica that has lost its file has lost them all, and those
//! of others are not its own. So what it has begun anew without them is a call that comes for the first
//! time. That is harmless for values that have a time or a version, of which the second write finds
//! the first; [`Store::change`](crate::store::Store::change) is refused where a replica gets lost
//! data from others.
//!
//! # A full disk
//!
//! Where the disk has no room for a batch, its writes fail with `ResourceExhausted` and its reads
//! are carried out again, before anything else. The replica goes on: it has what it acknowledged,
//! and takes what still fits. Each such batch costs the time that it takes to open the file again,
//! with a look at all of it. What opening changes in the file may have no room either, as where
//! others take what was given back: then the reserve is given up, a file of 1 MiB beside that of the
//! replica, and if that is not enough the changes stay in memory until there is room, and the file
//! is read as if they were made. The reserve is taken again with the first commit after which there
//! is room for it.
//!
//! # A sync that fails
//!
//! Where a sync fails, a system may have in memory what is not on the disk, and count it as written:
//! the next sync succeeds, and what was read is gone when the power is (Rebello and others, *Can
//! Applications Recover from fsync Failures?*, 2020). So the writes of that batch fail, and what is
//! on the disk is found out as after a loss of power: what is in memory is given up, and the file is
//! opened again from the disk, with a look at all of it. The same is done when a replica starts,
//! since its process may have been killed in such a sync. Three syncs in a row that fail are the end,
//! and so is the first one where the system cannot be told to read from the disk (all but Linux).
//! After any other error the replica ends as well.
//!
//! # Damage
//!
//! redb has a checksum of each page in the page above it, and looks at them when a file is opened.
//! For the time after that, a checksum of each page that was read or written is in memory, four bytes
//! for 4 KiB, and is looked at whenever a page is read. So no read gives what was not written; it
//! fails, with path and offset, and the replica ends. What nobody reads is read for that: 1 MiB in a
//! second.
//!
//! Each commit has two phases, so what a loss of power leaves of one that was not acknowledged is in
//! pages that nothing leads to, and is no damage. What was acknowledged and is not whole is.
//!
//! Beside the file is its seal, which says whose file it is and how many commits it has at least. It
//! is written when a file is made, opened and closed. So a file that is gone, that is another's, or
//! that is older than when it was last opened or closed is noticed. It is not used then, nor changed:
//! whoever opens it may [put it aside](Disk::set_aside), where the data can be had from others.
//!
//! Why redb: it is Rust without build tools of other languages, its pages have checksums, a commit
//! is either there or not after a crash, and it has an error of its own for a file that is open
//! elsewhere.
//!
//! What that costs, in release builds on a machine with two cores and a virtual disk that others
//! used as well: the lowest and the highest figure of three rounds, to be compared with one another
//! only. Records have some 130 bytes. Of the replicas, by `storage cluster --data data -c 'load 1
//! 3000' -c 'load 64 5000'`, it is writes that a majority of three processes has acknowledged, in a
//! second, and the median of how long one took. These are from before a commit wrote how many there
//! were, which is one page more.
//!
//! | | one at a time | 64 at a time |
//! |---|---|---|
//! | replicas in memory | 10,700 to 12,100; 0.08 ms | 190,000 to 200,000; 0.3 ms |
//! | replicas on disk | 890 to 1,120; 0.8 ms | 12,400 to 16,200; 4 ms |
//! | redb alone, commits as they are made here | 570 to 3,600; 0.3 to 0.6 ms | 27,600 to 50,700 records |
//! | a plain file, a sync for each append | 430 to 6,900; 0.1 to 2.9 ms | 43,900 to 123,000 records |
//!
//! The disk's own pace differed most. A commit is two syncs, and by the medians of the same minute
//! it took twice as long as the file's one, whether of one record or of 64. So a log would be
//! faster: about twice at the disk, and less than that for a client. What it would need as well
//! (checksums, what to do after a crash, an index, making room) is code that this program does not
//! exist for, so redb stays. No other database was measured.

mod answers;
mod batch;
mod caught;
pub(crate) mod change;
mod database;
pub(crate) mod directory;
mod error;
mod file;
mod health;
mod held;
mod layout;
mod native;
mod page;
mod reserve;
mod room;
mod seal;
mod sums;

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use gorums::Status;
use gorums::server::{Answered, CallKey, KeyedCall};
use tokio::sync::{mpsc, oneshot};

pub use self::answers::{CALLS_OF_CLIENT, CLIENTS};
use self::batch::Worker;
use self::change::Change;
pub use self::change::{ANSWER, Changed};
pub use redb::StorageBackend;

pub use self::error::{FileError, Loss, OpenError};
pub use self::file::{File, Verified};
use self::health::Pulse;
pub use self::health::{Health, STALLED};
pub(crate) use self::native::as_it_is;
pub use self::native::{Backend, Within};
pub use self::page::Page;
use self::page::Paging;
use self::room::{Place, Room};
use crate::store::Entry;

/// How many requests may wait for the disk, and how many are one batch.
const REQUESTS: usize = 1024;

/// How many bytes of requests may wait for the disk or be in the batch.
const REQUEST_BYTES: usize = 8 << 20;

/// How many bytes a read counts as among them. What it finds is not known yet.
const READ_BYTES: usize = 512 << 10;

/// How many bytes of records may have been read from the disk without having been taken.
const FOUND_BYTES: usize = 16 << 20;

/// How long a disk that nobody asks rests before the next part of it is verified.
const REST: Duration = Duration::from_secs(1);

/// What a replica keeps for a key.
pub trait Record: Clone + fmt::Debug + Send + Sync + 'static {
    /// How it stands in a file.
    type Stored: redb::Value + Send + Sync + 'static;

    /// How many bytes of memory it takes, about.
    fn size(&self) -> usize;

    /// Whether it replaces what is known for its key.
    fn is_newer_than(&self, known: Option<&Self>) -> bool;

    /// The record as it is stored.
    fn stored(&self) -> <Self::Stored as redb::Value>::SelfType<'_>;

    /// A record as it was stored.
    fn from_stored(stored: <Self::Stored as redb::Value>::SelfType<'_>) -> Self;
}

/// Where the records of a replica are kept, so that they are there again after a crash.
///
/// The calls come one after the other. After an error there is none any more.
pub trait Volume<E: Record = Entry>: Send + 'static {
    /// Why the disk has failed. It reaches clients and the user as it reads.
    type Error: Display + Send;

    /// What is there for this key.
    fn read(&mut self, key: &str) -> impl Future<Output = Result<Option<E>, Self::Error>> + Send;

    /// The records behind this key, or the first ones, in the order of their keys.
    fn page(
        &mut self,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Page<E>, Self::Error>> + Send;

    /// What is known of this call.
    fn answered(
        &mut self,
        call: KeyedCall,
    ) -> impl Future<Output = Result<Answered<Vec<u8>>, Self::Error>> + Send;

    /// Replaces the values of these keys and keeps the answers to these calls, all or none of them.
    /// Of each client [`CALLS_OF_CLIENT`] answers are kept, and of [`CLIENTS`] clients; the oldest go.
    ///
    /// It returns when no crash can take this back. If it fails, or the crash comes before, then
    /// they may be replaced or not, but not some of them only.
    fn commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> impl Future<Output = Result<Commit, Self::Error>> + Send;

    /// Reads a part of what is on the disk, from this position on, and fails where it is damaged.
    /// Where the next part begins, if there is one. The first one is at 0.
    fn verify(
        &mut self,
        _from: u64,
    ) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send {
        std::future::ready(Ok(None))
    }

    /// Where the records are, for the user.
    fn place(&self) -> Option<&Path> {
        None
    }

    /// Whether the disk has little room, though it had some for the last commit.
    fn is_full(&self) -> bool {
        false
    }
}

/// What came of a [commit](Volume::commit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// All of it is on the disk.
    Done,
    /// The disk has no room for it. It is as it was before, and can be used.
    NoRoom,
    /// A sync has failed, for this reason. All of it is on the disk, or nothing, as reads will tell;
    /// the disk can be used.
    NotSynced(String),
}

/// What a replica has found where it keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, and a file was made. Where the replica has acknowledged something before, it has
    /// lost all of it, its directory too: only whoever starts replicas can know.
    New,
    /// All that there was when it was closed.
    Closed,
    /// All that was acknowledged before its process, or the power, ended without notice.
    Interrupted,
}

/// Where the answer goes when it is on disk. Dropped where the disk fails before that.
type Reply<T> = oneshot::Sender<Result<Answer<T>, Status>>;

/// An answer on its way to whoever has asked.
#[derive(Debug)]
struct Answer<T> {
    result: T,
    /// Where its bytes are counted until it is taken.
    _place: Option<Place>,
}

/// The way to a disk, and to the task that has it. It is given up with the last clone, or by
/// [`close`](Self::close).
#[derive(Debug, Clone)]
pub struct Disk<E = Entry> {
    requests: mpsc::Sender<Request<E>>,
    /// Room for the bytes of requests.
    room: Room,
    /// Why the task has ended, where it was not told to.
    failure: Arc<OnceLock<Status>>,
    pulse: Pulse,
    found: Option<Found>,
}

#[derive(Debug)]
enum Request<E> {
    Read(Read<E>),
    Change(Change<E>),
    /// From where, and who waits for where the next part begins.
    Verify(u64, oneshot::Sender<Option<u64>>),
    Page(Paging<E>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Read<E> {
    key: String,
    reply: Reply<Option<E>>,
    /// Where it is counted until it is answered.
    _place: Place,
}

/// A result that is not on disk yet.
#[derive(Debug)]
pub struct Coming<T, E = Entry> {
    answer: oneshot::Receiver<Result<Answer<T>, Status>>,
    disk: Disk<E>,
}

impl<E: Record> Disk<E> {
    /// Opens the file of a replica in this directory, with a thread that waits for it. Both
    /// directory and file are made where there is none.
    ///
    /// While it runs, a part of the file of 1 MiB is read from the disk each second, and compared
    /// with what was written.
    ///
    /// # Errors
    ///
    /// Where the file cannot be had or is open elsewhere; and where it is not as it was written, is
    /// gone, or is not the one that was there: [`OpenError::loss`] says which. Everything is left
    /// as it is.
    pub fn open(directory: &Path, id: u32) -> Result<Self, OpenError> {
        Self::open_within(directory, id, &as_it_is)
    }

    /// The same, with something between it and the file.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_within(directory: &Path, id: u32, within: Within<'_>) -> Result<Self, OpenError> {
        let file = File::open(directory, id, within)?;
        let found = file.found();
        let (mut disk, work) = Self::on(file, id);
        disk.found = found;
        let verifying = verify_for_ever(disk.requests.downgrade());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime
                .expect("without sockets it needs nothing of the system")
                .block_on(async {
                    tokio::select! {
                        biased;
                        () = work => {}
                        never = verifying => match never {},
                    }
                });
        };
        thread::Builder::new()
            .name(format!("disk of replica {id}"))
            .spawn(run)
            .expect("the system has room for a thread, as for those of the runtime");
        Ok(disk)
    }

    /// The disk of a replica on this volume, and the work that is to be done for it: a future for a
    /// task, which ends when the disk is closed, given up, or has failed. Where it is dropped
    /// before, everything that waits for the disk ends with an error, as when the process is
    /// killed.
    pub fn on(
        volume: impl Volume<E>,
        id: u32,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, waiting) = mpsc::channel(REQUESTS);
        let failure = Arc::new(OnceLock::new());
        let disk = Self {
            requests,
            room: Room::new(REQUEST_BYTES, REQUEST_BYTES),
            failure: Arc::clone(&failure),
            pulse: Pulse::default(),
            found: None,
        };
        let mut worker = Worker::new(volume, waiting, disk.pulse.clone(), id);
        let work = async move {
            let closed = match worker.work().await {
                Ok(closed) => closed,
                Err(error) => {
                    let status = format!("the disk of replica {id} has failed: {error}");
                    // Before those who wait see that the channel has ended.
                    let _ = failure.set(Status::internal(status));
                    None
                }
            };
            // What is asked from now on is refused at once.
            drop(worker);
            // Before those who wait for the end may open it again. That nobody does is no error.
            let _ = closed.map(|closed| closed.send(()));
        };
        (disk, work)
    }

    /// The value of a key. It comes when all that was asked before is on disk.
    ///
    /// # Errors
    ///
    /// When the disk has failed or is closed.
    pub async fn read(&self, key: String) -> Result<Coming<Option<E>, E>, Status> {
        let place = self.room.take(key.len().max(READ_BYTES)).await;
        let read = |reply| {
            Request::Read(Read {
                key,
                reply,
                _place: place,
            })
        };
        self.ask(read).await
    }

    /// Makes the file of a replica in this directory where there is none, and looks whether it can be
    /// [opened](Self::open).
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn make(directory: &Path, id: u32) -> Result<(), OpenError> {
        File::<E>::open(directory, id, &as_it_is).map(drop)
    }

    /// Whether there is a file of this replica in this directory.
    ///
    /// # Errors
    ///
    /// Where nobody can tell.
    pub fn is_there(directory: &Path, id: u32) -> Result<bool, OpenError> {
        match directory::path(directory, id).try_exists() {
            // Whoever makes the directory says what is wrong with it.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
            is_there => is_there.map_err(|error| OpenError::at(directory, error)),
        }
    }

    /// Looks at the file of a replica that does not run, all of it, and changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and where there is none.
    pub fn verify_closed(directory: &Path, id: u32) -> Result<Verified, OpenError> {
        File::<E>::verify_closed(directory, id)
    }

    /// Puts what is left of a replica's files aside, so that [`open`](Self::open) makes new ones: for
    /// a replica that has lost its data, and knows how to get them again. Returns their new names,
    /// which end with `.lost`; what was put aside before is gone.
    ///
    /// # Errors
    ///
    /// Where they cannot be renamed. Called once more, it goes on.
    pub fn set_aside(directory: &Path, id: u32) -> Result<Vec<PathBuf>, OpenError> {
        let aside = directory::set_aside(&directory::path(directory, id));
        aside.map_err(|error| OpenError::at(directory, error))
    }

    /// What was there when the file was opened. `None` for a disk [on](Self::on) something else.
    pub fn found(&self) -> Option<Found> {
        self.found
    }

    /// How the disk is. It costs a lock that nobody holds for long, so it can be asked often.
    pub fn health(&self) -> Health {
        match self.requests.is_closed() {
            true => Health::Failing,
            false => self.pulse.health(),
        }
    }

    /// Reads all that was written from the disk, and compares it. It is done in parts, between which
    /// other requests are carried out.
    ///
    /// # Errors
    ///
    /// Where something is damaged, which also ends the disk; and as for [`read`](Self::read).
    pub async fn verify(&self) -> Result<(), Status> {
        let mut next = Some(0);
        while let Some(from) = next {
            let (reply, answer) = oneshot::channel();
            let sent = self.requests.send(Request::Verify(from, reply)).await;
            next = match (sent, answer.await) {
                (Ok(()), Ok(next)) => next,
                _ => return Err(self.ended().await),
            };
        }
        Ok(())
    }

    /// Gives up the disk behind all that was asked before. What comes later is refused.
    pub async fn close(&self) {
        let (closed, at_end) = oneshot::channel();
        if self.requests.send(Request::Close(closed)).await.is_ok() {
            // Where the task has ended for another reason, the disk is given up as well.
            let _ = at_end.await;
        }
    }

    /// Waits while there is no room.
    async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request<E>,
    ) -> Result<Coming<T, E>, Status> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_err() {
            return Err(self.ended().await);
        }
        let disk = self.clone();
        Ok(Coming { answer, disk })
    }

    /// Why the disk cannot be used any more, once it is so.
    pub async fn ended(&self) -> Status {
        self.requests.closed().await;
        let failure = self.failure.get().cloned();
        failure.unwrap_or_else(|| Status::unavailable("the replica is being stopped"))
    }
}

/// Verifies a part of the disk, rests, and goes on with the next one, as long as anybody can use it.
async fn verify_for_ever<E>(requests: mpsc::WeakSender<Request<E>>) -> Infallible {
    let mut from = 0;
    loop {
        tokio::time::sleep(REST).await;
        let (reply, next) = oneshot::channel();
        if let Some(requests) = requests.upgrade() {
            // Where it has ended, so does this.
            let _ = requests.send(Request::Verify(from, reply)).await;
        }
        from = next.await.ok().flatten().unwrap_or(0);
    }
}

impl<T, E: Record> Coming<T, E> {
    /// The result, when it is on disk.
    ///
    /// # Errors
    ///
    /// When the disk has no room for a write, which is `ResourceExhausted`; and when the disk fails
    /// before the result is there. The request may or may not have taken effect then.
    pub async fn result(self) -> Result<T, Status> {
        match self.answer.await {
            Ok(answer) => Ok(answer?.result),
            Err(_) => Err(self.disk.ended().await),
        }
    }
}

#[cfg(test)]
mod tests;
