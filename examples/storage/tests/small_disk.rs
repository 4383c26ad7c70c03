//! A replica's disk that becomes full, gets room again, is damaged, and loses its file: on a small
//! file system of its own where one can be mounted.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use common::{host, run, serve_as};
use gorums::Code;
use storage::disk::{Disk, Found, Health, Loss};
use storage::store::{Entry, Time};

/// Tells the test that it runs on a small file system, which is mounted there.
const MOUNTED: &str = "STORAGE_TEST_SMALL_DISK";

/// How large that is.
const SIZE: &str = "size=5m";

/// What the shell ends with where nothing can be mounted.
const NOT_MOUNTED: i32 = 77;

/// A replica, and what it has acknowledged.
struct Replica {
    directory: PathBuf,
    disk: Option<Disk>,
    acknowledged: BTreeMap<String, Entry>,
    /// What had no room, so that it must not be there.
    refused: BTreeMap<String, Entry>,
    writes: i64,
}

impl Replica {
    fn start(directory: &Path) -> Self {
        let mut replica = Self {
            directory: directory.to_owned(),
            disk: None,
            acknowledged: BTreeMap::new(),
            refused: BTreeMap::new(),
            writes: 0,
        };
        assert_eq!(replica.open(), Found::New);
        replica
    }

    fn open(&mut self) -> Found {
        let disk = Disk::open(&self.directory, 1).expect("it can be opened");
        self.disk.insert(disk).found().expect("it has a directory")
    }

    async fn close(&mut self) {
        self.disk.take().expect("it is open").close().await;
    }

    fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it is open")
    }

    /// Writes so many bytes to a key. Whether there was room.
    async fn write(&mut self, key: &str, bytes: usize) -> bool {
        self.writes += 1;
        let entry = Entry {
            value: format!("{}:{}", self.writes, "v".repeat(bytes)),
            time: Time::from_parts(self.writes, 0),
        };
        let coming = self.disk().write(key.to_owned(), entry.clone()).await;
        match coming.expect("it goes on").result().await {
            Ok(taken) => {
                assert!(taken, "it is newer");
                self.acknowledged.insert(key.to_owned(), entry);
                true
            }
            Err(error) => {
                assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
                let path = self.directory.join("replica-1.redb");
                let expected = format!("make room for {}", path.display());
                assert!(error.message().contains(&expected), "{error}");
                self.refused.insert(key.to_owned(), entry);
                false
            }
        }
    }

    async fn read(&self, key: &str) -> Option<Entry> {
        let coming = self.disk().read(key.to_owned()).await.expect("it goes on");
        coming.result().await.expect("it is read")
    }

    /// Reads all that was acknowledged, and nothing of what was refused.
    async fn check(&self, case: &str) {
        for (key, entry) in &self.acknowledged {
            assert!(
                self.read(key).await.as_ref() == Some(entry),
                "{case}: {key}"
            );
        }
        for (key, entry) in &self.refused {
            assert!(
                self.read(key).await.as_ref() != Some(entry),
                "{case}: {key}"
            );
        }
    }

    async fn look_at_all(&self) {
        self.disk().verify().await.expect("it is whole");
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_on_a_small_disk_whatever_becomes_of_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("without timers and sockets it needs nothing of the system");
    if let Some(mounted) = env::var_os(MOUNTED) {
        return runtime.block_on(async {
            let mounted = Path::new(&mounted);
            let mut replica = Replica::start(&mounted.join("data"));
            becomes_full(&mut replica, mounted).await;
            is_damaged(&mut replica).await;
            loses_its_file(&mut replica).await;
            fs::remove_dir_all(&replica.directory).expect("it is closed");
            is_killed_while_full(&mounted.join("process"));
        });
    }
    let directory = tempfile::tempdir().expect("a directory");
    if !run_mounted(directory.path()) {
        // The rest needs no small disk, and full ones are simulated elsewhere.
        eprintln!("no file system can be mounted here, so that no disk becomes full");
        runtime.block_on(async {
            let mut replica = Replica::start(directory.path());
            for number in 0..100 {
                assert!(replica.write(&format!("key-{number}"), 3000).await);
            }
            is_damaged(&mut replica).await;
            loses_its_file(&mut replica).await;
        });
    }
}

/// Runs this test once more, with a small file system mounted on this directory, and in a namespace
/// of its own, so that nothing is left of that. Whether one can be mounted.
fn run_mounted(directory: &Path) -> bool {
    let script = format!(
        "mount -t tmpfs -o {SIZE} tmpfs \"$1\" || exit {NOT_MOUNTED}\n\
         exec \"$2\" --exact \"$3\" --nocapture"
    );
    let test = "nothing_that_was_acknowledged_is_lost_on_a_small_disk_whatever_becomes_of_it";
    let run = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(directory)
        .arg(env::current_exe().expect("it runs"))
        .arg(test)
        .env(MOUNTED, directory)
        .output();
    let run = match run {
        Err(error) if error.kind() == ErrorKind::NotFound => return false,
        run => run.expect("it runs to its end"),
    };
    let [output, messages] =
        [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if run.status.success() {
        assert!(output.contains("1 passed"), "{output}{messages}");
        return true;
    }
    // The test itself fails with another status than the programs that prepare it.
    assert_ne!(run.status.code(), Some(101), "{output}{messages}");
    assert!(!output.contains("running 1 test"), "{output}{messages}");
    false
}

/// The disk is filled by the replica, then by somebody else to its last byte, and gets room again.
async fn becomes_full(replica: &mut Replica, mounted: &Path) {
    let ballast = mounted.join("ballast");
    fs::write(&ballast, vec![b'b'; 3 << 19]).expect("there is room");
    assert_eq!(replica.disk().health(), Health::Healthy);
    let mut number = 0;
    while replica.write(&format!("key-{number}"), 40_000).await {
        number += 1;
    }
    assert!(number > 10, "{number}");
    assert_eq!(replica.disk().health(), Health::Full);
    replica.check("what does not fit is refused").await;
    // What fits is taken.
    let mut taken = 0;
    for small in 0..20 {
        taken += usize::from(replica.write(&format!("small-{small}"), 10).await);
    }
    assert!(taken > 0, "nothing fits");
    replica.check("what fits is taken").await;

    let filler = mounted.join("filler");
    fill(&filler);
    for key in ["key-0", "key-1", "new"] {
        replica.write(key, 40_000).await;
        replica.write(key, 10).await;
    }
    assert_eq!(replica.disk().health(), Health::Full);
    replica.check("filled by others").await;

    replica.close().await;
    fill(&filler);
    replica.open();
    replica.check("started on a full disk").await;
    replica.write("key-2", 40_000).await;
    fill(&filler);
    replica.check("written to a full disk").await;

    fs::remove_file(&filler).expect("it is there");
    let mut written = 0;
    while written < 5 {
        assert!(replica.write(&format!("again-{written}"), 1000).await);
        written += 1;
    }
    replica.check("returned").await;
    fill(&filler);
    while replica.write(&format!("again-{written}"), 1000).await {
        written += 1;
    }
    replica.check("full again").await;
    fs::remove_file(&filler).expect("it is there");
    fs::remove_file(ballast).expect("it is there");
    assert!(replica.write("last", 40_000).await);
    assert_eq!(replica.disk().health(), Health::Healthy);
    replica.look_at_all().await;
    replica.close().await;
    assert_eq!(replica.open(), Found::Closed);
    replica.check("closed and opened").await;
}

/// The process of a replica is killed while its disk is full, and the next one starts there.
fn is_killed_while_full(data: &Path) {
    let options = ["--data", data.to_str().expect("a plain path")];
    let listen = format!("{}:0", host());
    let (mut replica, address) = serve_as(1, &listen, &options);
    // As much as an argument of a program may have.
    let value = "v".repeat(100_000);
    let write = |address: &str, key: &str, value: &str| {
        let command = format!("rpc 1 write {key} {value}");
        run(&["--connect", address, "-c", &command], "")
    };
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("key-{}", acknowledged.len());
        let done = write(&address, &key, &value);
        match done.code {
            0 => acknowledged.push(key),
            _ => break done,
        }
    };
    assert!(acknowledged.len() > 5, "{refused:?}");
    let expected = format!("make room for {}", data.join("replica-1.redb").display());
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    assert_eq!(replica.error_line(), "replica 1: its disk is full");
    drop(replica);

    let filler = data.join("filler");
    fill(&filler);
    let (_replica, address) = serve_as(1, &listen, &options);
    let reads = |keys: &[String]| {
        let reads = keys.iter().map(|key| format!("rpc 1 read {key}\n"));
        run(&["--connect", &address], &reads.collect::<String>()).lines()
    };
    let found = reads(&acknowledged);
    assert_eq!(found.len(), acknowledged.len());
    for (found, key) in found.iter().zip(&acknowledged) {
        assert!(
            found.starts_with(&format!("{key} = \"{value}\"  (")),
            "{key}"
        );
    }
    fs::remove_file(&filler).expect("it is there");
    let done = write(&address, "last", "v");
    assert_eq!(done.code, 0, "{done:?}");
}

/// Takes all room that there is.
fn fill(path: &Path) {
    let file = fs::File::options().create(true).append(true).open(path);
    let mut file = file.expect("there is room for its name");
    for size in [1 << 16, 1 << 12, 1] {
        let bytes = vec![b'f'; size];
        loop {
            match file.write(&bytes) {
                Ok(written) if written > 0 => {}
                Ok(_) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                    break;
                }
            }
        }
    }
}

/// Makes a file what it was. What is in it already takes no more room.
fn put(path: &Path, bytes: &[u8]) {
    const PAGE: usize = 4096;

    let mut options = fs::File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path).expect("there is room for its name");
    file.set_len(bytes.len() as u64).expect("it is so long");
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        let offset = (number * PAGE) as u64;
        let mut there = vec![0; page.len()];
        file.read_exact_at(&mut there, offset)
            .expect("it is so long");
        if there != page {
            file.write_all_at(page, offset).expect("there is room");
        }
    }
}

/// A bit of the file, or of its seal, is flipped while the replica does not run, at 1,000 places.
async fn is_damaged(replica: &mut Replica) {
    replica.close().await;
    let mut random = fastrand::Rng::with_seed(21);
    let files = ["redb", "seal"].map(|kind| {
        let path = replica.directory.join(format!("replica-1.{kind}"));
        let whole = fs::read(&path).expect("it is there");
        (path, whole)
    });
    let mut refused = 0;
    for number in 0..1000 {
        let (path, whole) = &files[usize::from(number % 50 == 0)];
        let place = random.usize(0..whole.len());
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << random.u8(0..8);
        put(path, &bytes);
        let case = format!("{}, byte {place}", path.display());
        match Disk::<Entry>::open(&replica.directory, 1) {
            Err(error) => {
                assert!(error.loss().is_some(), "{case}: {error}");
                assert_eq!(error.path(), *path, "{case}: {error}");
                assert!(fs::read(path).expect("it is there") == bytes, "{case}");
                refused += 1;
            }
            Ok(disk) => {
                replica.disk = Some(disk);
                replica.check(&case).await;
                replica.close().await;
            }
        }
        // With what opening it has changed, a bit that did not matter may matter later.
        for (path, whole) in &files {
            put(path, whole);
        }
    }
    assert!(refused > 100, "{refused}");
    replica.open();
    replica.check("whole again").await;
}

/// Its file is gone, then its seal, then it is the one of some time ago.
async fn loses_its_file(replica: &mut Replica) {
    replica.close().await;
    let [file, seal] =
        ["redb", "seal"].map(|kind| replica.directory.join(format!("replica-1.{kind}")));
    for lost in [&file, &seal] {
        let bytes = fs::read(lost).expect("it is there");
        fs::remove_file(lost).expect("it is there");
        let error = Disk::<Entry>::open(&replica.directory, 1).expect_err("it is gone");
        assert_eq!((error.loss(), error.path()), (Some(Loss::Missing), &**lost));
        assert!(!lost.exists());
        put(lost, &bytes);
    }
    let old = fs::read(&file).expect("it is there");
    replica.open();
    assert!(replica.write("newer", 100).await);
    replica.close().await;
    let new = fs::read(&file).expect("it is there");
    put(&file, &old);
    let error = Disk::<Entry>::open(&replica.directory, 1).expect_err("it is old");
    assert_eq!(error.loss(), Some(Loss::Older), "{error}");
    put(&file, &new);
    replica.open();
    replica.check("found again").await;
    replica.close().await;
}
