//! Requests and answers, with a disk that is simulated, and files as they are.

use std::collections::HashMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
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
    // Its file, its seal and its reserve.
    assert_eq!(files.len(), 3, "{files:?}");
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

/// A volume that takes a second, or what it is told to, and fails when it is told to.
#[derive(Clone, Default)]
struct Simulated(Arc<Mutex<SimulatedState>>);

struct SimulatedState {
    entries: HashMap<String, Entry>,
    answers: HashMap<CallKey, Vec<u8>>,
    commits: usize,
    /// The keys of the last commit, as they came.
    keys: Vec<String>,
    fails: bool,
    does_not_sync: bool,
    /// There is no reserve.
    is_full: bool,
    /// How long a commit takes.
    takes: Duration,
    /// How many bytes of values fit into a commit.
    room: usize,
}

impl Default for SimulatedState {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            answers: HashMap::new(),
            commits: 0,
            keys: Vec::new(),
            fails: false,
            does_not_sync: false,
            is_full: false,
            takes: Duration::from_secs(1),
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

    async fn page(&mut self, after: Option<&str>) -> Result<Page<Entry>, Self::Error> {
        let state = self.state();
        let behind = state
            .entries
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let mut behind: Vec<_> = behind.collect();
        behind.sort_by_key(|(key, _)| *key);
        Page::of(
            behind
                .into_iter()
                .map(|(key, entry)| Ok((key.clone(), entry.clone()))),
        )
    }

    async fn answered(&mut self, call: KeyedCall) -> Result<Answered<Vec<u8>>, Self::Error> {
        let answered = self.state().answers.get(&call.key).cloned();
        Ok(answered.map_or(Answered::No, Answered::Yes))
    }

    async fn commit(
        &mut self,
        records: &[(&str, &Entry)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<Commit, Self::Error> {
        let takes = self.state().takes;
        tokio::time::sleep(takes).await;
        let mut state = self.state();
        if state.fails {
            return Err("it is broken");
        }
        if state.does_not_sync {
            return Ok(Commit::NotSynced("it is broken".to_owned()));
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
        let answers = answers.iter();
        let answers = answers.map(|(call, answer)| (*call, answer.to_vec()));
        state.answers.extend(answers);
        Ok(Commit::Done)
    }

    fn is_full(&self) -> bool {
        self.state().is_full
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

/// The files of a replica of this directory, and what is in them.
fn files(directory: &Path, id: u32) -> [(PathBuf, Vec<u8>); 2] {
    ["redb", "seal"].map(|kind| {
        let path = directory.join(format!("replica-{id}.{kind}"));
        let bytes = fs::read(&path).expect("a file");
        (path, bytes)
    })
}

/// Why a replica cannot be opened. Nothing is changed by it.
fn refused(directory: &Path, id: u32) -> (Loss, String) {
    let there = || {
        let entries = fs::read_dir(directory).expect("a directory");
        let mut entries: Vec<_> = entries.map(|entry| entry.expect("one").path()).collect();
        entries.sort();
        let read = |path: PathBuf| (fs::read(&path).expect("a file"), path);
        entries.into_iter().map(read).collect::<Vec<_>>()
    };
    let before = there();
    let error = Disk::<Entry>::open(directory, id).expect_err("it is refused");
    assert!(there() == before, "{error}");
    let verified = Disk::<Entry>::verify_closed(directory, id).expect_err("it is refused");
    assert_eq!(verified.to_string(), error.to_string());
    assert!(there() == before, "{error}");
    let text = error.to_string();
    assert!(text.contains("everything was left as it is"), "{text}");
    (error.loss().expect("it is known what is lost"), text)
}

#[tokio::test]
async fn a_file_that_is_gone_or_older_or_another_one_is_refused_and_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for id in [3, 4] {
        let disk = Disk::open(path, id).expect("it can be opened");
        assert_eq!(disk.found(), Some(Found::New));
        assert!(write(&disk, "k", entry("v", 1)).await);
        disk.close().await;
    }
    let [old, old_seal] = files(path, 3);
    let disk = open(path);
    assert_eq!(disk.found(), Some(Found::Closed));
    assert!(write(&disk, "k", entry("w", 2)).await);
    disk.close().await;
    let [new, seal] = files(path, 3);
    let [other, other_seal] = files(path, 4);
    let put = |(path, _): &(PathBuf, Vec<u8>), (_, bytes): &(PathBuf, Vec<u8>)| {
        fs::write(path, bytes).expect("written");
    };

    fs::remove_file(&new.0).expect("it is there");
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Missing);
    assert!(text.contains("replica-3.redb is gone"), "{text}");

    put(&new, &old);
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Older);
    let expected = "replica-3.redb is an older copy: it has 1 commits, and ";
    assert!(text.contains(expected), "{text}");

    put(&new, &other);
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Foreign);
    assert!(
        text.contains("replica-3.redb is the file of replica 4"),
        "{text}"
    );

    put(&new, &new);
    put(&seal, &other_seal);
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Foreign);
    assert!(text.contains("is another file than the one that"), "{text}");

    fs::remove_file(&seal.0).expect("it is there");
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Missing);
    assert!(
        text.contains("replica-3.seal is gone, which belongs to"),
        "{text}"
    );

    fs::write(&seal.0, "replica 3, file 1, commits 1\n").expect("written");
    let (loss, text) = refused(path, 3);
    assert_eq!(loss, Loss::Damaged);
    assert!(text.contains("replica-3.seal is damaged"), "{text}");

    // As after a crash: the seal knows of less.
    put(&seal, &old_seal);
    let disk = open(path);
    assert_eq!(disk.found(), Some(Found::Interrupted));
    assert_eq!(read(&disk, "k").await, Some(entry("w", 2)));
    disk.close().await;
    assert!(files(path, 3)[1].1 == seal.1);
    let verified = Disk::<Entry>::verify_closed(path, 3).expect("it is whole");
    assert_eq!((verified.records, verified.commits), (1, 2));
    // All of it is gone, which nobody can know here.
    for kind in ["redb", "seal", "reserve"] {
        fs::remove_file(path.join(format!("replica-3.{kind}"))).expect("it is there");
    }
    let error = Disk::<Entry>::verify_closed(path, 3).expect_err("there is nothing");
    assert_eq!(error.loss(), None);
    assert_eq!(open(path).found(), Some(Found::New));
}

#[tokio::test]
async fn what_is_left_of_lost_data_is_put_aside_for_a_new_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for lost in ["redb", "seal"] {
        let disk = open(path);
        assert_eq!(disk.found(), Some(Found::New));
        assert!(write(&disk, "k", entry("v", 1)).await);
        disk.close().await;
        fs::remove_file(path.join(format!("replica-3.{lost}"))).expect("it is there");
        assert_eq!(refused(path, 3).0, Loss::Missing);
        let aside = Disk::<Entry>::set_aside(path, 3).expect("it can be renamed");
        let left = if lost == "redb" { "seal" } else { "redb" };
        assert_eq!(aside, [path.join(format!("replica-3.{left}.lost"))]);
        assert!(aside[0].exists());
    }
    let disk = open(path);
    assert_eq!(disk.found(), Some(Found::New));
    assert_eq!(read(&disk, "k").await, None);
}

#[tokio::test]
async fn what_was_lost_before_anything_was_acknowledged_is_no_loss() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).close().await;
    // As where it was killed while it was made.
    fs::remove_file(directory.path().join("replica-3.seal")).expect("it is there");
    let disk = open(directory.path());
    assert_eq!(disk.found(), Some(Found::New));
    assert!(write(&disk, "k", entry("v", 1)).await);
    disk.close().await;
}

#[tokio::test]
async fn damage_under_a_replica_that_runs_is_found_by_a_look_at_all_and_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = open(directory.path());
    let value = "v".repeat(3000);
    for key in 0..20 {
        assert!(write(&disk, &key.to_string(), entry(&value, 1)).await);
    }
    disk.verify().await.expect("it is whole");
    assert_eq!(disk.health(), Health::Healthy);
    let path = directory.path().join("replica-3.redb");
    let bytes = fs::read(&path).expect("a file");
    let place = bytes
        .windows(3000)
        .rposition(|bytes| bytes == value.as_bytes());
    let place = place.expect("the values are there as they are");
    let mut file = fs::File::options().write(true).open(&path).expect("a file");
    file.seek(SeekFrom::Start(place as u64))
        .expect("it is there");
    file.write_all(b"w").expect("written");
    let error = disk.verify().await.expect_err("it is damaged");
    let text = error.message();
    let named = format!("has failed: {}", path.display());
    assert!(
        text.contains(&named) && text.contains("at offset"),
        "{text}"
    );
    assert_eq!(disk.health(), Health::Failing);
    let error = disk.read("1".to_owned()).await.expect_err("it has ended");
    assert_eq!(error.message(), text);
    let error = Disk::<Entry>::open(directory.path(), 3).expect_err("it is damaged");
    assert_eq!(error.loss(), Some(Loss::Damaged));
}

#[tokio::test(start_paused = true)]
async fn a_disk_tells_how_it_is() {
    let volume = Simulated::default();
    let (disk, work) = Disk::on(volume.clone(), 1);
    assert_eq!(disk.health(), Health::Healthy);
    tokio::spawn(work);
    let ask = async |value: &str, seconds| {
        let written = disk.write("k".to_owned(), entry(value, seconds)).await;
        written.expect("open")
    };
    volume.state().takes = STALLED + Duration::from_millis(500);
    let written = ask("v", 1).await;
    tokio::time::sleep(STALLED).await;
    assert_eq!(disk.health(), Health::Healthy);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        disk.health(),
        Health::Stalled(STALLED + Duration::from_millis(300))
    );
    assert!(written.result().await.expect("the disk works"));
    assert_eq!(disk.health(), Health::Healthy);
    volume.state().takes = Duration::from_millis(1);

    volume.state().room = 5;
    ask("too large", 2)
        .await
        .result()
        .await
        .expect_err("no room");
    assert_eq!(disk.health(), Health::Full);
    assert!(ask("fits", 3).await.result().await.expect("the disk works"));
    assert_eq!(disk.health(), Health::Healthy);
    volume.state().is_full = true;
    assert!(ask("fits", 4).await.result().await.expect("the disk works"));
    assert_eq!(disk.health(), Health::Full);
    volume.state().is_full = false;

    volume.state().does_not_sync = true;
    let found = disk.read("k".to_owned());
    let (written, found) = tokio::join!(ask("lost", 5), found);
    let error = written.result().await.expect_err("it did not sync");
    assert_eq!(error.code(), gorums::Code::Internal);
    let expected = "the disk of replica 1 may have lost this write, or have it: it is broken";
    assert_eq!(error.message(), expected);
    // What was asked behind it is read again.
    let found = found.expect("open").result().await.expect("the disk works");
    assert_eq!(found, Some(entry("fits", 4)));
    assert_eq!(disk.health(), Health::Failing);
    volume.state().does_not_sync = false;
    assert!(ask("fits", 6).await.result().await.expect("the disk works"));
    assert_eq!(disk.health(), Health::Healthy);

    volume.state().fails = true;
    ask("fits", 7).await.result().await.expect_err("it fails");
    assert_eq!(disk.health(), Health::Failing);
}

/// How often something was done.
type Times = Arc<std::sync::atomic::AtomicU32>;

/// Adds to the value of a key, as its answer says it then.
async fn append(disk: &Disk, call: KeyedCall, text: &'static str, times: &Times) -> Coming<String> {
    let times = Arc::clone(times);
    let change = move |known: Option<&Entry>| {
        times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let known = known.map_or("", |known| &known.value);
        let answer = format!("{known}{text}");
        let records = vec![("k".to_owned(), entry(&answer, 0))];
        Ok(Changed { records, answer })
    };
    let coming = disk.change(Some(call), "k".to_owned(), text.len(), change);
    coming.await.expect("open")
}

fn done(times: &Times) -> u32 {
    times.load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn a_call_that_comes_again_is_answered_as_at_first_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (times, key) = (Times::default(), |call| {
        KeyedCall::first(CallKey::new(9, call))
    });
    let disk = open(directory.path());
    assert!(write(&disk, "other", entry("v", 1)).await);
    disk.close().await;
    // As every file was before there were answers.
    let verified = Disk::<Entry>::verify_closed(directory.path(), 3).expect("it is whole");
    assert_eq!((verified.records, verified.answers), (1, 0));
    let disk = open(directory.path());
    // The same call twice in one batch, and one that depends on it.
    let mut coming = Vec::new();
    for (call, text) in [(1, "a"), (1, "a"), (2, "b"), (1, "a")] {
        coming.push(append(&disk, key(call), text, &times).await);
    }
    for (coming, expected) in coming.into_iter().zip(["a", "a", "ab", "a"]) {
        assert_eq!(coming.result().await.expect("the disk works"), expected);
    }
    let taken = disk.write_once(Some(key(3)), "l".to_owned(), entry("v", 1));
    let taken = taken.await.expect("open").result().await;
    assert!(taken.expect("the disk works"));
    disk.close().await;
    let verified = Disk::<Entry>::verify_closed(directory.path(), 3).expect("it is whole");
    assert_eq!((verified.records, verified.answers), (3, 3));
    let disk = open(directory.path());
    for (call, expected) in [(2, "ab"), (1, "a")] {
        let again = append(&disk, key(call), "again", &times).await;
        assert_eq!(again.result().await.expect("the disk works"), expected);
    }
    // A value as new is not taken, unless the answer is that of before.
    for (call, expected) in [(Some(key(3)), true), (None, false)] {
        let again = disk.write_once(call, "l".to_owned(), entry("v", 1)).await;
        let again = again.expect("open").result().await;
        assert_eq!(again.expect("the disk works"), expected);
    }
    assert_eq!(read(&disk, "k").await, Some(entry("ab", 0)));
    assert_eq!(done(&times), 2);
    // Another request by the name of a call that was answered.
    let other = disk.write_once(Some(key(1)), "m".to_owned(), entry("v", 1));
    let error = other.await.expect("open").result().await;
    assert_eq!(
        error.expect_err("it is no bool").code(),
        gorums::Code::InvalidArgument
    );
    assert_eq!(read(&disk, "m").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_change_without_room_is_not_kept_and_one_that_fails_changes_nothing() {
    let volume = Simulated::default();
    let (disk, work) = Disk::on(volume.clone(), 1);
    tokio::spawn(work);
    let (times, key) = (Times::default(), |call| {
        KeyedCall::first(CallKey::new(9, call))
    });
    let first = append(&disk, key(1), "a", &times).await;
    assert_eq!(first.result().await.expect("the disk works"), "a");
    volume.state().room = 0;
    let refused = append(&disk, key(2), "b", &times).await;
    let again = append(&disk, key(1), "a", &times).await;
    let error = refused.result().await.expect_err("no room");
    assert_eq!(error.code(), gorums::Code::ResourceExhausted);
    assert_eq!(again.result().await.expect("it was answered before"), "a");
    volume.state().room = usize::MAX;
    let later = append(&disk, key(2), "b", &times).await;
    assert_eq!(later.result().await.expect("there is room"), "ab");
    assert_eq!(done(&times), 3);

    let failing = async |call, length: usize| {
        let change = move |_: Option<&Entry>| match length {
            0 => Err(Status::out_of_range("not that")),
            _ => Ok(Changed {
                records: vec![("k".to_owned(), entry("c", 0))],
                answer: "c".repeat(length),
            }),
        };
        let coming = disk
            .change(Some(key(call)), "k".to_owned(), 1, change)
            .await;
        coming.expect("open").result().await
    };
    let error = failing(3, 0).await.expect_err("it fails");
    assert_eq!(error.code(), gorums::Code::OutOfRange);
    let error = failing(3, ANSWER).await.expect_err("it does not fit");
    let expected = "the answer has 1027 bytes, and 1024 are kept at most";
    assert_eq!(error.message(), expected);
    assert_eq!(read(&disk, "k").await, Some(entry("ab", 0)));
    assert!(!volume.state().answers.contains_key(&key(3).key));
    let longest = ANSWER - 3;
    assert_eq!(failing(3, longest).await.expect("it fits").len(), longest);
}

#[tokio::test]
async fn damage_among_answers_is_found_by_a_look_at_all_and_when_the_file_is_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = open(directory.path());
    let answer = "answer".repeat(100);
    for call in 0..20 {
        let answer = answer.clone();
        let change = move |_: Option<&Entry>| {
            let records = Vec::new();
            Ok(Changed { records, answer })
        };
        let coming = disk.change(
            Some(KeyedCall::first(CallKey::new(1, call))),
            String::new(),
            0,
            change,
        );
        let answered: Result<String, _> = coming.await.expect("open").result().await;
        assert_eq!(answered.expect("the disk works").len(), 600);
    }
    disk.verify().await.expect("it is whole");
    let path = directory.path().join("replica-3.redb");
    let bytes = fs::read(&path).expect("a file");
    let place = bytes
        .windows(600)
        .rposition(|bytes| bytes == answer.as_bytes());
    let place = place.expect("the answers are there as they are") as u64;
    let mut file = fs::File::options().write(true).open(&path).expect("a file");
    file.seek(SeekFrom::Start(place)).expect("it is there");
    file.write_all(b"w").expect("written");
    let error = disk.verify().await.expect_err("it is damaged");
    assert!(error.message().contains("at offset"), "{error}");
    disk.close().await;
    for error in [
        Disk::<Entry>::open(directory.path(), 3).map(drop),
        Disk::<Entry>::verify_closed(directory.path(), 3).map(drop),
    ] {
        let error = error.expect_err("it is damaged");
        assert_eq!(error.loss(), Some(Loss::Damaged), "{error}");
    }
}
