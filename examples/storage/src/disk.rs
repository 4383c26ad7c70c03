//! The state of a replica in a file, so that it outlives the process.
//!
//! A thread of its own carries out the requests in their order. All that wait are one transaction, which is
//! on disk before any of them is answered; so no reader sees what could still be lost, and one `fsync`
//! serves many writers.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use gorums::Status;
use redb::{Database, ReadableTable, StorageError, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::store::{Entry, Time};

/// The values by their keys: seconds and nanoseconds of the time, and the value.
const VALUES: TableDefinition<'static, &'static str, (i64, i32, &'static str)> =
    TableDefinition::new("values");

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
    /// Opens the file of a replica in this directory, or makes it where there is none.
    pub(crate) fn open(directory: &Path, id: u32) -> Result<Self, OpenError> {
        let path = directory.join(format!("replica-{id}.redb"));
        match Self::open_file(directory, &path, id) {
            Ok(disk) => Ok(disk),
            Err(cause) => Err(OpenError {
                path,
                cause: *cause,
            }),
        }
    }

    fn open_file(directory: &Path, path: &Path, id: u32) -> Result<Self, Box<redb::Error>> {
        fs::create_dir_all(directory).map_err(boxed)?;
        if !path.try_exists().map_err(boxed)? {
            create(directory, path).map_err(boxed)?;
        }
        let mut database = Database::open(path).map_err(boxed)?;
        // Every page has a checksum, and all of them are looked at. What is not as it was written is an
        // error and is not mended, since each commit has two phases.
        database.check_integrity().map_err(boxed)?;
        database
            .begin_read()
            .map_err(boxed)?
            .open_table(VALUES)
            .map_err(boxed)?;
        let (requests, mut waiting) = mpsc::channel(WAITING);
        let failure = Arc::new(OnceLock::new());
        let disk = Self {
            requests,
            failure: Arc::clone(&failure),
        };
        let run = move || {
            let ended = work(&database, &mut waiting);
            drop(database);
            match ended {
                Ok(None) => {}
                // That nobody waits any more is no error.
                Ok(Some(closed)) => drop(closed.send(())),
                Err(error) => {
                    let status = format!("the disk of replica {id} has failed: {error}");
                    // Before those who wait see that the channel has ended.
                    let _ = failure.set(Status::internal(status));
                }
            }
        };
        thread::Builder::new()
            .name(format!("disk of replica {id}"))
            .spawn(run)
            .map_err(boxed)?;
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

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

/// Makes an empty file under another name first: one with this name is whole.
fn create(directory: &Path, path: &Path) -> Result<(), redb::Error> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    // Half made by a process that died, and had the same number.
    if new.try_exists()? {
        fs::remove_file(&new)?;
    }
    let database = Database::create(&new)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(VALUES)?;
    transaction.commit()?;
    drop(database);
    // Where another process was quicker, its file stays.
    match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    fs::remove_file(&new)?;
    // The name has to last as well. Elsewhere a directory cannot be opened, and need not be.
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Carries out requests until nobody can send any, or the file is to be closed; returns who waits for that.
fn work(
    database: &Database,
    requests: &mut mpsc::Receiver<Request>,
) -> Result<Option<oneshot::Sender<()>>, redb::Error> {
    let mut batch = Vec::with_capacity(WAITING);
    while requests.blocking_recv_many(&mut batch, WAITING) > 0 {
        let close = batch
            .iter()
            .position(|request| matches!(request, Request::Close(_)));
        let rest = close.map(|place| batch.split_off(place));
        let answers = carry_out(database, &mut batch)?;
        answers.into_iter().for_each(Answer::give);
        if let Some(Request::Close(closed)) = rest.and_then(|rest| rest.into_iter().next()) {
            return Ok(Some(closed));
        }
    }
    Ok(None)
}

/// Carries out requests as one transaction. After an error the disk may or may not have what they write.
fn carry_out(database: &Database, batch: &mut Vec<Request>) -> Result<Vec<Answer>, redb::Error> {
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

/// Why a replica has no file.
#[derive(Debug)]
pub(crate) struct OpenError {
    path: PathBuf,
    cause: redb::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            redb::Error::DatabaseAlreadyOpen => {
                write!(f, "{path} is in use by another replica")
            }
            redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                write!(f, "{path}: {error}")
            }
            cause => write!(
                f,
                "{path} is damaged, or no file of a replica ({cause}): it was left as it is; move it away to begin \
                 with an empty replica, which has forgotten what it acknowledged"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
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
        let value = "v".repeat(3000);
        for key in 0..20 {
            assert!(write(&disk, &key.to_string(), entry(&value, 1)).await);
        }
        disk.close().await;
        let path = directory.path().join("replica-3.redb");
        let whole = fs::read(&path).expect("a file");
        // The places of a value, and some all over the file.
        let values = (0..whole.len()).filter(|at| whole[*at..].starts_with(b"vvvvvvvv"));
        let within: Vec<_> = values.step_by(3000).map(|at| at + 4).collect();
        assert!(within.len() >= 20);
        let step = whole.len() / 100;
        let mut damaged: Vec<_> = within
            .iter()
            .copied()
            .chain((0..whole.len()).step_by(step))
            .map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                bytes
            })
            .collect();
        damaged.extend([Vec::new(), b"not a file of a replica".to_vec()]);
        damaged.extend([whole.len() / 2, 4096, 100].map(|len| whole[..len].to_vec()));
        let mut refused = 0;
        for bytes in damaged {
            fs::write(&path, &bytes).expect("written");
            let disk = match Disk::open(directory.path(), 3) {
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("is damaged"), "{error}");
                    assert!(error.to_string().contains("replica-3.redb"), "{error}");
                    continue;
                }
                Ok(disk) => disk,
            };
            // The damage was where nothing is.
            for key in 0..20 {
                assert_eq!(read(&disk, &key.to_string()).await, Some(entry(&value, 1)));
            }
            disk.close().await;
        }
        assert!(refused >= 20 + 5, "{refused}");
    }
}
