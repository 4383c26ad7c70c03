//! Requests and answers, with a disk that is simulated, and files as they are.

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
    for (case, (bytes, surely)) in cases.chain(perhaps.map(|bytes| (bytes, false))).enumerate() {
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
