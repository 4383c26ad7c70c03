//! The state of a replica in a file, so that it outlives the process.
//!
//! A thread of its own carries out the requests in their order. All that wait are one transaction, which is
//! on disk before any of them is answered; so no reader sees what could still be lost, and one `fsync`
//! serves many writers.
//!
//! Why redb: it is Rust without build tools of other languages, its pages have checksums, a commit is either
//! there or not after a crash, and it has an error of its own for a file that is open elsewhere.

mod file;
mod held;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use gorums::Status;
use redb::{Database, ReadableTable, StorageError};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::file::OpenError;
use self::file::{Cause, VALUES};
use crate::store::{Entry, Time};

/// How many requests may wait for the disk. Handlers wait while there are more.
const WAITING: usize = 1024;

/// Where the result goes when it is on disk. Dropped where the disk fails before that.
type Reply<T> = oneshot::Sender<T>;

/// A file, and the thread that has it open. It is closed with the last clone, or by [`close`](Self::close).
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    requests: mpsc::Sender<Request>,
    /// Why the thread has ended, where it was not told to.
    failure: Arc<OnceLock<Status>>,
}

#[derive(Debug)]
enum Request {
    Read(String, Reply<Option<Entry>>),
    Write(String, Entry, Reply<bool>),
    Close(oneshot::Sender<()>),
}

/// An answer that is given when everything before it is on disk.
enum Answer {
    Read(Reply<Option<Entry>>, Option<Entry>),
    Write(Reply<bool>, bool),
}

/// A result that is not on disk yet.
pub(crate) struct Coming<T> {
    result: oneshot::Receiver<T>,
    disk: Disk,
}

impl Disk {
    /// Opens the file of a replica in this directory. Both are made where there is none.
    pub(crate) fn open(directory: &Path, id: u32) -> Result<Self, OpenError> {
        let database = file::open(directory, id)?;
        let (requests, mut waiting) = mpsc::channel(WAITING);
        let failure = Arc::new(OnceLock::new());
        let disk = Self {
            requests,
            failure: Arc::clone(&failure),
        };
        let run = move || match file::caught(|| work(database, &mut waiting)) {
            Ok(None) => {}
            // That nobody waits any more is no error.
            Ok(Some(closed)) => drop(closed.send(())),
            Err(error) => {
                let status = format!("the disk of replica {id} has failed: {error}");
                // Before those who wait see that the channel has ended.
                let _ = failure.set(Status::internal(status));
            }
        };
        thread::Builder::new()
            .name(format!("disk of replica {id}"))
            .spawn(run)
            .expect("the system has room for a thread, as for those of the runtime");
        Ok(disk)
    }

    /// The value of a key. It comes when all that was asked before is on disk.
    pub(crate) async fn read(&self, key: String) -> Result<Coming<Option<Entry>>, Status> {
        self.ask(|reply| Request::Read(key, reply)).await
    }

    /// Takes a value if it is newer. Whether it was taken comes when it is on disk.
    pub(crate) async fn write(&self, key: String, entry: Entry) -> Result<Coming<bool>, Status> {
        self.ask(|reply| Request::Write(key, entry, reply)).await
    }

    /// Closes the file behind all that was asked before. What comes later is refused.
    pub(crate) async fn close(&self) {
        if let Ok(closed) = self.ask(Request::Close).await {
            // Where the thread has ended for another reason, the file is closed as well.
            let _ = closed.result().await;
        }
    }

    /// Waits while there is no room.
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<Coming<T>, Status> {
        let (reply, result) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_err() {
            return Err(self.ended().await);
        }
        let disk = self.clone();
        Ok(Coming { result, disk })
    }

    /// Why the file is not open any more, once it is not.
    pub(crate) async fn ended(&self) -> Status {
        self.requests.closed().await;
        let failure = self.failure.get().cloned();
        failure.unwrap_or_else(|| Status::unavailable("the replica is being stopped"))
    }
}

impl<T> Coming<T> {
    /// The result, when it is on disk.
    pub(crate) async fn result(self) -> Result<T, Status> {
        match self.result.await {
            Ok(result) => Ok(result),
            Err(_) => Err(self.disk.ended().await),
        }
    }
}

/// Carries out requests until nobody can send any, or the file is to be closed; closes it, and returns who
/// waits for that.
fn work(
    database: Database,
    requests: &mut mpsc::Receiver<Request>,
) -> Result<Option<oneshot::Sender<()>>, Cause> {
    let mut batch = Vec::with_capacity(WAITING);
    while requests.blocking_recv_many(&mut batch, WAITING) > 0 {
        let close = batch
            .iter()
            .position(|request| matches!(request, Request::Close(_)));
        let rest = close.map(|place| batch.split_off(place));
        let answers = carry_out(&database, &mut batch)?;
        answers.into_iter().for_each(Answer::give);
        if let Some(Request::Close(closed)) = rest.and_then(|rest| rest.into_iter().next()) {
            return Ok(Some(closed));
        }
    }
    Ok(None)
}

/// Carries out requests as one transaction. After an error the disk may or may not have what they write.
fn carry_out(database: &Database, batch: &mut Vec<Request>) -> Result<Vec<Answer>, Cause> {
    let mut answers = Vec::with_capacity(batch.len());
    if batch
        .iter()
        .any(|request| matches!(request, Request::Write(..)))
    {
        let mut transaction = database.begin_write()?;
        // So a commit is never taken back when the file is opened after a crash.
        transaction.set_two_phase_commit(true);
        let mut values = transaction.open_table(VALUES)?;
        for request in batch.drain(..) {
            match request {
                Request::Read(key, reply) => answers.push(Answer::Read(reply, get(&values, &key)?)),
                Request::Write(key, entry, reply) => {
                    let known = get(&values, &key)?;
                    let taken = entry.is_newer_than(known.as_ref());
                    if taken {
                        let (seconds, nanos) = entry.time.parts();
                        values.insert(&*key, (seconds, nanos, &*entry.value))?;
                    }
                    answers.push(Answer::Write(reply, taken));
                }
                Request::Close(_) => {}
            }
        }
        drop(values);
        transaction.commit()?;
    } else if !batch.is_empty() {
        let values = database.begin_read()?.open_table(VALUES)?;
        for request in batch.drain(..) {
            if let Request::Read(key, reply) = request {
                answers.push(Answer::Read(reply, get(&values, &key)?));
            }
        }
    }
    Ok(answers)
}

fn get(
    values: &impl ReadableTable<&'static str, (i64, i32, &'static str)>,
    key: &str,
) -> Result<Option<Entry>, StorageError> {
    let found = values.get(key)?;
    Ok(found.map(|found| {
        let (seconds, nanos, value) = found.value();
        Entry {
            value: value.to_owned(),
            time: Time::from_parts(seconds, nanos),
        }
    }))
}

impl Answer {
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

    use super::*;

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
        let error = Disk::open(directory.path(), 3).expect_err("in use");
        assert!(error.to_string().ends_with("in use by another replica"));
        // Another replica has another file.
        let other = Disk::open(directory.path(), 4).expect("it can be opened");
        disk.close().await;
        let error = disk.read("k".to_owned()).await.err().expect("closed");
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
}
