//! A log in a simulated file, which crashes and losses of power must not take what it acknowledged
//! from.

mod one_register;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gorums::{ServerCtx, Status};
use gorums_sim::{Campaign, Client, Failure, FaultKind, File, Replica, Scenario};
use one_register::{READ, WRITE, Word};
use tokio::sync::Mutex;

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// What is appended is not synced.
    NoSync,
    /// It is acknowledged before the sync has had its time.
    Hasty,
}

/// Texts one after the other, each with its length and a checksum. The last whole one counts.
struct Log {
    file: File,
    end: u64,
    last: String,
    mistake: Mistake,
}

const HEAD: usize = 12;

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Log {
    async fn open(file: File, mistake: Mistake) -> io::Result<Self> {
        let mut log = Self {
            file,
            end: 0,
            last: String::new(),
            mistake,
        };
        while let Some(text) = log.record()? {
            log.end += (HEAD + text.len()) as u64;
            log.last = text;
        }
        // What a crash left behind must not be taken for what is written next. And what was found may
        // not be synced: its replica was killed before that.
        log.file.set_len(log.end)?;
        log.file.sync()?;
        log.file.done().await;
        Ok(log)
    }

    /// The record at the end, where there is one.
    fn record(&self) -> io::Result<Option<String>> {
        let left = self.file.len()? - self.end;
        if left < HEAD as u64 {
            return Ok(None);
        }
        let head = self.file.read_at(self.end, HEAD)?;
        let (len, sum) = head.split_at(4);
        let len = u32::from_le_bytes(len.try_into().expect("four bytes"));
        let sum = u64::from_le_bytes(sum.try_into().expect("eight bytes"));
        if left - (HEAD as u64) < u64::from(len) || len == 0 {
            return Ok(None);
        }
        let text = self.file.read_at(self.end + HEAD as u64, len as usize)?;
        let whole = checksum(&text) == sum;
        Ok(whole.then(|| String::from_utf8_lossy(&text).into_owned()))
    }

    async fn append(&mut self, text: String) -> io::Result<()> {
        let mut record = (text.len() as u32).to_le_bytes().to_vec();
        record.extend(checksum(text.as_bytes()).to_le_bytes());
        record.extend(text.as_bytes());
        self.file.write_at(self.end, &record)?;
        if self.mistake != Mistake::NoSync {
            self.file.sync()?;
        }
        if self.mistake != Mistake::Hasty {
            self.file.done().await;
        }
        self.end += record.len() as u64;
        self.last = text;
        Ok(())
    }
}

async fn replica(node: Replica, mistake: Mistake) -> gorums_sim::Result {
    let log = Log::open(node.file("log"), mistake).await?;
    let log = Arc::new(Mutex::new(log));
    let read = Arc::clone(&log);
    let failed = |error: io::Error| Status::internal(error.to_string());
    let server = node
        .server()
        .unary(WRITE, move |_: ServerCtx, new: Word| {
            let log = Arc::clone(&log);
            async move {
                log.lock().await.append(new.text).await.map_err(failed)?;
                Ok::<_, Status>(Word::default())
            }
        })
        .unary(READ, move |_: ServerCtx, _: Word| {
            let log = Arc::clone(&read);
            async move {
                let text = log.lock().await.last.clone();
                Ok::<_, Status>(Word { text })
            }
        });
    node.serve(server).await
}

fn scenario(mistake: Mistake) -> Scenario {
    one_register::scenario("a log")
        .faults([FaultKind::Crash, FaultKind::PowerFailure, FaultKind::Delay])
        .replica(move |node| replica(node, mistake))
}

#[test]
fn what_was_synced_outlives_all_crashes() {
    let more = [FaultKind::SlowDisk, FaultKind::Reset, FaultKind::Pause];
    let kinds = [FaultKind::Crash, FaultKind::PowerFailure];
    let scenario = scenario(Mistake::None).faults(kinds.into_iter().chain(more));
    let report = Campaign::new(&scenario).seeds(1..=40).run(|_| {});
    assert!(report.failed().is_none(), "{report}");
}

#[test]
fn a_sync_that_is_missing_is_found() {
    for mistake in [Mistake::NoSync, Mistake::Hasty] {
        let report = Campaign::new(&scenario(mistake)).seeds(1..=100).run(|_| {});
        let failed = report.failed();
        let failed = failed.unwrap_or_else(|| panic!("{mistake:?} is not found"));
        assert!(
            matches!(failed.run().failure(), Some(Failure::Violation(_))),
            "{mistake:?}: {}",
            failed.run()
        );
    }
}

/// Runs what a replica does with a file, under one kind of fault.
fn with_file(
    kind: FaultKind,
    program: impl AsyncFn(&Replica, File) -> gorums_sim::Result + Copy + Send + Sync + 'static,
) {
    let scenario = Scenario::new("a file")
        .replicas(1..=1)
        .clients(1..=1)
        .operations(1)
        .duration(Duration::from_secs(2))
        .faults([kind])
        .replica(move |node: Replica| async move {
            let file = node.file("file");
            program(&node, file).await?;
            node.serve(node.server()).await
        })
        .client(|node: Client| async move {
            while node.next_operation().await {}
            Ok(())
        });
    for seed in 1..=3 {
        let run = scenario.run(seed);
        assert_eq!(run.failure(), None, "{run}");
        assert!(run.faults_fired() >= 3, "{run}");
    }
}

#[test]
fn a_replica_that_loses_its_disk_finds_an_empty_file() {
    with_file(FaultKind::CrashAndLose, async |_, file| {
        assert!(file.is_empty()?);
        file.write_at(0, b"something")?;
        file.sync()?;
        file.done().await;
        Ok(())
    });
}

#[test]
fn a_killed_replica_finds_what_it_wrote_without_a_sync() {
    with_file(FaultKind::Crash, async |node, file| {
        if node.crashes() > 0 {
            assert_eq!(file.read_at(0, 9)?, b"something");
        }
        file.write_at(0, b"something")?;
        file.done().await;
        Ok(())
    });
}

#[test]
fn a_failing_disk_fails_all_calls_or_each_sync_and_loses_nothing_that_was_synced() {
    with_file(FaultKind::FailingDisk, async |_, file| {
        if file.is_empty()? {
            file.replace(b"0")?;
            file.done().await;
        }
        loop {
            let results = [
                file.write_at(1, b"1"),
                file.set_len(1),
                file.sync(),
                file.read_at(0, 1).map(|byte| assert_eq!(byte, b"0")),
            ];
            file.done().await;
            let failed = results.iter().filter(|result| result.is_err()).count();
            let only_sync = failed == 1 && results[2].is_err();
            assert!(
                only_sync || [0, results.len()].contains(&failed),
                "{results:?}"
            );
        }
    });
}

#[test]
fn a_file_that_is_too_long_is_refused_and_what_was_killed_writes_no_more() {
    // A file of the first start, which outlives its replica here.
    static BEFORE: std::sync::Mutex<Option<File>> = std::sync::Mutex::new(None);
    with_file(FaultKind::Crash, async |_, file| {
        let refused = file.set_len(u64::MAX).expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        let refused = file.write_at(u64::MAX, b"x").expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        let behind = file.read_at(u64::MAX, 1).expect_err("behind the end");
        assert_eq!(behind.kind(), io::ErrorKind::UnexpectedEof);
        let before = BEFORE.lock().expect("not poisoned").replace(file.clone());
        if let Some(before) = before {
            before.write_at(0, b"x").expect_err("it was killed");
            before.sync().expect_err("it was killed");
            before.len().expect_err("it was killed");
        }
        assert!(file.is_empty()?);
        Ok(())
    });
}
