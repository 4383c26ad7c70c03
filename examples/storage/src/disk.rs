//! The state of a replica on a disk, so that it outlives the process.
//!
//! One task has the disk, and carries out the requests in their order. All that wait are one batch,
//! which is on disk before any of them is answered; so no reader sees what could still be lost, and
//! one `fsync` serves many writers.
//!
//! The disk is a [`Volume`]: a [file](Disk::open) with a thread of its own, or whatever a test
//! [puts there](Disk::on), slow or failing.
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

mod file;
mod held;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use gorums::Status;
use tokio::sync::{mpsc, oneshot};

use self::file::File;
pub use self::file::OpenError;
use crate::store::Entry;

/// How many requests may wait for the disk. Handlers wait while there are more.
const WAITING: usize = 1024;

/// What a replica keeps for a key.
pub trait Record: Clone + fmt::Debug + Send + Sync + 'static {
    /// How it stands in a file.
    type Stored: redb::Value + 'static;

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

    /// What is there for each of these keys, in their order.
    fn read(
        &mut self,
        keys: &[String],
    ) -> impl Future<Output = Result<Vec<Option<E>>, Self::Error>> + Send;

    /// Replaces the values of these keys, all or none of them.
    ///
    /// It returns when no crash can take this back. If it fails, or the crash comes before, then
    /// they may be replaced or not, but not some of them only.
    fn commit(
        &mut self,
        entries: HashMap<String, E>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Where the result goes when it is on disk. Dropped where the disk fails before that.
type Reply<T> = oneshot::Sender<T>;

/// The way to a disk, and to the task that has it. It is given up with the last clone, or by
/// [`close`](Self::close).
#[derive(Debug, Clone)]
pub struct Disk<E = Entry> {
    requests: mpsc::Sender<Request<E>>,
    /// Why the task has ended, where it was not told to.
    failure: Arc<OnceLock<Status>>,
}

#[derive(Debug)]
enum Request<E> {
    Read(String, Reply<Option<E>>),
    Write(String, E, Reply<bool>),
    Close(oneshot::Sender<()>),
}

/// An answer that is given when everything before it is on disk.
enum Answer<E> {
    Read(Reply<Option<E>>, Option<E>),
    Write(Reply<bool>, bool),
}

/// A result that is not on disk yet.
#[derive(Debug)]
pub struct Coming<T, E = Entry> {
    result: oneshot::Receiver<T>,
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
        let (requests, waiting) = mpsc::channel(WAITING);
        let failure = Arc::new(OnceLock::new());
        let disk = Self {
            requests,
            failure: Arc::clone(&failure),
        };
        let work = async move {
            let mut volume = volume;
            let mut waiting = waiting;
            let closed = match work(&mut volume, &mut waiting).await {
                Ok(closed) => closed,
                Err(error) => {
                    let status = format!("the disk of replica {id} has failed: {error}");
                    // Before those who wait see that the channel has ended.
                    let _ = failure.set(Status::internal(status));
                    None
                }
            };
            // What is asked from now on is refused at once.
            drop((volume, waiting));
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
        self.ask(|reply| Request::Read(key, reply)).await
    }

    /// Takes a value if it is newer. Whether it was taken comes when it is on disk.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub async fn write(&self, key: String, entry: E) -> Result<Coming<bool, E>, Status> {
        self.ask(|reply| Request::Write(key, entry, reply)).await
    }

    /// Gives up the disk behind all that was asked before. What comes later is refused.
    pub async fn close(&self) {
        if let Ok(closed) = self.ask(Request::Close).await {
            // Where the task has ended for another reason, the disk is given up as well.
            let _ = closed.result().await;
        }
    }

    /// Waits while there is no room.
    async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request<E>,
    ) -> Result<Coming<T, E>, Status> {
        let (reply, result) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_err() {
            return Err(self.ended().await);
        }
        let disk = self.clone();
        Ok(Coming { result, disk })
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
    /// When the disk fails before that. The request may or may not have taken effect.
    pub async fn result(self) -> Result<T, Status> {
        match self.result.await {
            Ok(result) => Ok(result),
            Err(_) => Err(self.disk.ended().await),
        }
    }
}

/// Carries out requests until nobody can send any, or the disk is to be closed. Returns who waits
/// for that.
async fn work<E: Record, V: Volume<E>>(
    volume: &mut V,
    requests: &mut mpsc::Receiver<Request<E>>,
) -> Result<Option<oneshot::Sender<()>>, V::Error> {
    let mut batch = Vec::with_capacity(WAITING);
    while requests.recv_many(&mut batch, WAITING).await > 0 {
        let close = batch
            .iter()
            .position(|request| matches!(request, Request::Close(_)));
        let rest = close.map(|place| batch.split_off(place));
        let answers = carry_out(volume, batch.drain(..)).await?;
        answers.into_iter().for_each(Answer::give);
        if let Some(Request::Close(closed)) = rest.and_then(|rest| rest.into_iter().next()) {
            return Ok(Some(closed));
        }
    }
    Ok(None)
}

/// Carries out requests as one batch. After an error the disk may or may not have what they write.
async fn carry_out<E: Record, V: Volume<E>>(
    volume: &mut V,
    batch: impl ExactSizeIterator<Item = Request<E>>,
) -> Result<Vec<Answer<E>>, V::Error> {
    let batch: Vec<_> = batch.collect();
    let mut keys: Vec<_> = batch.iter().filter_map(Request::key).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    let found = volume.read(&keys).await?;
    // What is known of each key, and whether it is to be written.
    let mut known: HashMap<String, (Option<E>, bool)> = keys
        .into_iter()
        .zip(found)
        .map(|(key, entry)| (key, (entry, false)))
        .collect();
    let mut answers = Vec::with_capacity(batch.len());
    for request in batch {
        match request {
            Request::Read(key, reply) => {
                let entry = known.get(&key).and_then(|(entry, _)| entry.clone());
                answers.push(Answer::Read(reply, entry));
            }
            Request::Write(key, entry, reply) => {
                let (newest, changed) = known.entry(key).or_insert((None, false));
                let taken = entry.is_newer_than(newest.as_ref());
                if taken {
                    (*newest, *changed) = (Some(entry), true);
                }
                answers.push(Answer::Write(reply, taken));
            }
            Request::Close(_) => {}
        }
    }
    let changed: HashMap<_, _> = known
        .into_iter()
        .filter_map(|(key, (entry, changed))| Some((key, entry.filter(|_| changed)?)))
        .collect();
    if !changed.is_empty() {
        volume.commit(changed).await?;
    }
    Ok(answers)
}

impl<E> Request<E> {
    fn key(&self) -> Option<&String> {
        match self {
            Self::Read(key, _) | Self::Write(key, ..) => Some(key),
            Self::Close(_) => None,
        }
    }
}

impl<E> Answer<E> {
    fn give(self) {
        // Nobody waits for the result of a one-way message.
        match self {
            Self::Read(reply, entry) => drop(reply.send(entry)),
            Self::Write(reply, taken) => drop(reply.send(taken)),
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[derive(Default)]
    struct SimulatedState {
        entries: HashMap<String, Entry>,
        commits: usize,
        fails: bool,
    }

    impl Simulated {
        fn state(&self) -> MutexGuard<'_, SimulatedState> {
            self.0.lock().expect("no test panics with it")
        }
    }

    impl Volume for Simulated {
        type Error = &'static str;

        async fn read(&mut self, keys: &[String]) -> Result<Vec<Option<Entry>>, Self::Error> {
            let state = self.state();
            Ok(keys
                .iter()
                .map(|key| state.entries.get(key).cloned())
                .collect())
        }

        async fn commit(&mut self, entries: HashMap<String, Entry>) -> Result<(), Self::Error> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut state = self.state();
            if state.fails {
                return Err("no space left");
            }
            state.commits += 1;
            state.entries.extend(entries);
            Ok(())
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
                "the disk of replica 1 has failed: no space left"
            );
        }
        disk.close().await;
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
