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
//! # A full disk
//!
//! Where the disk has no room for a batch, its writes fail with `ResourceExhausted` and its reads
//! are carried out again, before anything else. The replica goes on: it has what it acknowledged,
//! and takes what still fits. Each such batch costs the time that it takes to open the file again,
//! with a look at all of it. After any other error the replica ends.
//!
//! Why redb: it is Rust without build tools of other languages, its pages have checksums, a commit
//! is either there or not after a crash, and it has an error of its own for a file that is open
//! elsewhere.
//!
//! What that costs, in release builds on a machine with two cores and a virtual disk that others
//! used as well: the lowest and the highest figure of three rounds, to be compared with one another
//! only. Records have some 130 bytes. Of the replicas, by `storage cluster --data data -c 'load 1
//! 3000' -c 'load 64 5000'`, it is writes that a majority of three processes has acknowledged, in a
//! second, and the median of how long one took.
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

mod batch;
mod file;
mod held;
mod native;
mod room;

use std::fmt::{self, Display};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use gorums::Status;
use tokio::sync::{mpsc, oneshot};

use self::batch::Worker;
pub use redb::StorageBackend;

pub use self::file::{File, FileError, OpenError};
pub use self::native::Backend;
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

    /// Replaces the values of these keys, all or none of them.
    ///
    /// It returns when no crash can take this back. If it fails, or the crash comes before, then
    /// they may be replaced or not, but not some of them only.
    fn commit(
        &mut self,
        records: &[(&str, &E)],
    ) -> impl Future<Output = Result<Commit, Self::Error>> + Send;
}

/// What came of a [commit](Volume::commit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// All of it is on the disk.
    Done,
    /// The disk has no room for it. It is as it was before, and can be used.
    NoRoom,
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
}

#[derive(Debug)]
enum Request<E> {
    Read(Read<E>),
    Write(Write<E>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Read<E> {
    key: String,
    reply: Reply<Option<E>>,
    /// Where it is counted until it is answered.
    _place: Place,
}

#[derive(Debug)]
struct Write<E> {
    key: String,
    record: E,
    reply: Reply<bool>,
    /// Where its bytes are counted while they are here.
    place: Place,
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
    /// # Errors
    ///
    /// Where the file cannot be had, is open elsewhere, or is not as it was written. It is left as
    /// it is.
    pub fn open(directory: &Path, id: u32) -> Result<Self, OpenError> {
        let file = File::open(directory, id)?;
        let (disk, work) = Self::on(file, id);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime
                .expect("without timers and sockets it needs nothing of the system")
                .block_on(work);
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
        };
        let work = async move {
            let mut worker = Worker::new(volume, waiting, id);
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

    /// Takes a value if it is newer. Whether it was taken comes when it is on disk.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub async fn write(&self, key: String, record: E) -> Result<Coming<bool, E>, Status> {
        let place = self.room.take(key.len() + record.size()).await;
        self.ask(|reply| {
            Request::Write(Write {
                key,
                record,
                reply,
                place,
            })
        })
        .await
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
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::sync::{Mutex, MutexGuard};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::store::Time;

    fn entry(value: &str, seconds: i64) -> Entry {
        Entry {
            value: value.to_owned(),
            time: Time::from_parts(seconds, 7),
        }
    }

    async fn write(disk: &Disk, key: &str, entry: Entry) -> bool {
        let coming = disk.write(key.to_owned(), entry).await.expect("open");
        coming.result().await.expect("the disk works")
    }

    async fn read(disk: &Disk, key: &str) -> Option<Entry> {
        let coming = disk.read(key.to_owned()).await.expect("open");
        coming.result().await.expect("the disk works")
    }

    fn open(directory: &Path) -> Disk {
        Disk::open(directory, 3).expect("it can be opened")
    }

    #[tokio::test]
    async fn what_was_written_is_there_when_the_file_is_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        // Directories that are not there are made.
        let path = directory.path().join("a/b");
        let disk = open(&path);
        assert_eq!(read(&disk, "k").await, None);
        assert!(write(&disk, "k", entry("v", 5)).await);
        assert!(!write(&disk, "k", entry("old", 4)).await);
        assert!(!write(&disk, "k", entry("as old", 5)).await);
        assert!(write(&disk, "", entry("", -5)).await);
        // Nobody waits for this one, and it is before the end.
        drop(disk.write("k".to_owned(), entry("w", 6)).await);
        disk.close().await;
        for _ in 0..2 {
            let disk = open(&path);
            assert_eq!(read(&disk, "k").await, Some(entry("w", 6)));
            assert_eq!(read(&disk, "").await, Some(entry("", -5)));
            disk.close().await;
        }
        let files: Vec<_> = fs::read_dir(&path).expect("a directory").collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[tokio::test]
    async fn requests_take_effect_in_their_order_however_many_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = open(directory.path());
        let mut coming = Vec::new();
        for time in 1..=400 {
            let written = disk.write("k".to_owned(), entry("v", time)).await;
            let found = disk.read("k".to_owned()).await;
            coming.push((time, written.expect("open"), found.expect("open")));
        }
        for (time, written, found) in coming {
            assert!(written.result().await.expect("the disk works"), "{time}");
            let found = found.result().await.expect("the disk works");
            assert_eq!(found, Some(entry("v", time)));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_closed_refuses_and_one_that_is_open_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = open(directory.path());
        let error = Disk::<Entry>::open(directory.path(), 3).expect_err("in use");
        assert!(error.to_string().ends_with("in use by another replica"));
        // Another replica has another file.
        let other = Disk::open(directory.path(), 4).expect("it can be opened");
        disk.close().await;
        let error = disk.read("k".to_owned()).await.expect_err("closed");
        assert_eq!(error.message(), "the replica is being stopped");
        disk.close().await;
        assert_eq!(read(&other, "k").await, None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_and_left_as_it_is_or_all_of_it_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = open(directory.path());
        let value_of_all = "v".repeat(3000);
        for key in 0..20 {
            assert!(write(&disk, &key.to_string(), entry(&value_of_all, 1)).await);
        }
        disk.close().await;
        let path = directory.path().join("replica-3.redb");
        let whole = fs::read(&path).expect("a file");
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        let value = whole
            .windows(8)
            .position(|bytes| bytes == b"vvvvvvvv")
            .expect("the values are there as they are");
        // Surely refused, and what may be where nothing is, or what redb panics about.
        let surely = [
            flipped(value),
            flipped(0),
            Vec::new(),
            b"not a file of a replica".to_vec(),
            whole[..whole.len() / 2].to_vec(),
            whole[..4096].to_vec(),
            whole[..100].to_vec(),
        ];
        // The header's first part, which has no checksum, and some of the rest.
        let perhaps = (8..48).chain((4..20).map(|part| part * 16)).map(flipped);
        let cases = surely.into_iter().map(|bytes| (bytes, true));
        for (case, (bytes, surely)) in cases.chain(perhaps.map(|bytes| (bytes, false))).enumerate()
        {
            fs::write(&path, &bytes).expect("written");
            let disk = match Disk::open(directory.path(), 3) {
                Err(error) => {
                    let error = error.to_string();
                    let expected = format!("{} is damaged, or not the file", path.display());
                    assert!(error.starts_with(&expected), "case {case}: {error}");
                    assert!(fs::read(&path).expect("a file") == bytes, "case {case}");
                    continue;
                }
                Ok(disk) => disk,
            };
            assert!(!surely, "case {case}");
            for key in 0..20 {
                assert_eq!(
                    read(&disk, &key.to_string()).await,
                    Some(entry(&value_of_all, 1))
                );
            }
            disk.close().await;
        }
    }

    /// A volume that takes a second, and fails when it is told to.
    #[derive(Clone, Default)]
    struct Simulated(Arc<Mutex<SimulatedState>>);

    struct SimulatedState {
        entries: HashMap<String, Entry>,
        commits: usize,
        /// The keys of the last commit, as they came.
        keys: Vec<String>,
        fails: bool,
        /// How many bytes of values fit into a commit.
        room: usize,
    }

    impl Default for SimulatedState {
        fn default() -> Self {
            Self {
                entries: HashMap::new(),
                commits: 0,
                keys: Vec::new(),
                fails: false,
                room: usize::MAX,
            }
        }
    }

    impl Simulated {
        fn state(&self) -> MutexGuard<'_, SimulatedState> {
            self.0.lock().expect("no test panics with it")
        }
    }

    impl Volume for Simulated {
        type Error = &'static str;

        async fn read(&mut self, key: &str) -> Result<Option<Entry>, Self::Error> {
            Ok(self.state().entries.get(key).cloned())
        }

        async fn commit(&mut self, records: &[(&str, &Entry)]) -> Result<Commit, Self::Error> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut state = self.state();
            if state.fails {
                return Err("it is broken");
            }
            state.commits += 1;
            state.keys = records.iter().map(|(key, _)| (*key).to_owned()).collect();
            let size = |(_, entry): &(&str, &Entry)| entry.value.len();
            if records.iter().map(size).sum::<usize>() > state.room {
                return Ok(Commit::NoRoom);
            }
            let new = records
                .iter()
                .map(|&(key, entry)| (key.to_owned(), entry.clone()));
            state.entries.extend(new);
            Ok(Commit::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_answered_before_it_is_on_disk_and_what_waits_is_one_batch() {
        let volume = Simulated::default();
        let (disk, work) = Disk::on(volume.clone(), 1);
        tokio::spawn(work);
        let begun = Instant::now();
        let first = disk
            .write("k".to_owned(), entry("v", 1))
            .await
            .expect("open");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut later = Vec::new();
        for time in 2..=50 {
            later.push(
                disk.write("k".to_owned(), entry("w", time))
                    .await
                    .expect("open"),
            );
        }
        let found = disk.read("k".to_owned()).await.expect("open");
        assert!(first.result().await.expect("the disk works"));
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert_eq!(volume.state().entries["k"], entry("v", 1));
        assert_eq!(
            found.result().await.expect("the disk works"),
            Some(entry("w", 50))
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert_eq!(volume.state().commits, 2);
        for later in later {
            assert!(later.result().await.expect("the disk works"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_has_its_keys_in_an_order_that_is_always_the_same() {
        let volume = Simulated::default();
        let (disk, work) = Disk::on(volume.clone(), 1);
        let mut coming = Vec::new();
        for number in (10..40).rev() {
            let written = disk.write(number.to_string(), entry("v", 1)).await;
            coming.push(written.expect("open"));
        }
        tokio::spawn(work);
        for written in coming {
            assert!(written.result().await.expect("the disk works"));
        }
        let expected: Vec<_> = (10..40).map(|number| number.to_string()).collect();
        assert_eq!(volume.state().keys, expected);
        assert_eq!(volume.state().commits, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_fails_says_so_to_all_that_wait_and_to_all_that_come() {
        let volume = Simulated::default();
        volume.state().fails = true;
        let (disk, work) = Disk::on(volume.clone(), 1);
        tokio::spawn(work);
        let coming = disk
            .write("k".to_owned(), entry("v", 1))
            .await
            .expect("open");
        let errors = [
            coming.result().await.expect_err("it failed"),
            disk.read("k".to_owned()).await.expect_err("it failed"),
            disk.ended().await,
        ];
        for error in errors {
            assert_eq!(
                error.message(),
                "the disk of replica 1 has failed: it is broken"
            );
        }
        disk.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_without_room_refuses_its_writes_reads_again_and_goes_on() {
        let volume = Simulated::default();
        let (disk, work) = Disk::on(volume.clone(), 1);
        tokio::spawn(work);
        assert!(write(&disk, "k", entry("v", 1)).await);
        volume.state().room = 5;
        let ask = |key: &str, value: &str| disk.write(key.to_owned(), entry(value, 2));
        let small = ask("k", "w").await.expect("open");
        let found = disk.read("k".to_owned()).await.expect("open");
        let large = ask("l", "large").await.expect("open");
        let missing = disk.read("l".to_owned()).await.expect("open");
        for refused in [small, large] {
            let error = refused.result().await.expect_err("no room");
            assert_eq!(error.code(), gorums::Code::ResourceExhausted);
            let expected = "the disk of replica 1 has no room for this write";
            assert_eq!(error.message(), expected);
        }
        // What they saw was not written.
        let found = found.result().await.expect("the disk works");
        assert_eq!(found, Some(entry("v", 1)));
        let missing = missing.result().await.expect("the disk works");
        assert_eq!(missing, None);
        assert!(write(&disk, "k", entry("w", 2)).await);
        assert_eq!(read(&disk, "k").await, Some(entry("w", 2)));
        // What is behind a batch without room is done before the disk is given up.
        let refused = ask("l", "larger").await.expect("open");
        let found = disk.read("k".to_owned()).await.expect("open");
        disk.close().await;
        refused.result().await.expect_err("no room");
        let found = found.result().await.expect("the disk works");
        assert_eq!(found, Some(entry("w", 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_fails_says_so_to_those_who_wait_for_room() {
        let volume = Simulated::default();
        volume.state().fails = true;
        let (disk, work) = Disk::on(volume, 1);
        tokio::spawn(work);
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..20 {
            let disk = disk.clone();
            writers.spawn(async move {
                let value = "v".repeat(1 << 20);
                let written = disk.write(number.to_string(), entry(&value, 1)).await;
                written?.result().await
            });
        }
        for written in writers.join_all().await {
            let error = written.expect_err("it failed");
            let expected = "the disk of replica 1 has failed: it is broken";
            assert_eq!(error.message(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_dropped_leaves_nobody_waiting() {
        let (disk, work) = Disk::on(Simulated::default(), 1);
        let working = tokio::spawn(work);
        let coming = disk
            .write("k".to_owned(), entry("v", 1))
            .await
            .expect("open");
        working.abort();
        let error = coming.result().await.expect_err("nobody works");
        assert_eq!(error.message(), "the replica is being stopped");
    }
}
