//! Clients that read and write, and note what they see.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gorums::Configuration;
use gorums_sim::history::Recorder;
use register::client::{Effect, Register};
use register::proto::register_client::RegisterClient;
use register::version::{Version, Writer};
use tokio::sync::watch;
use tokio::time::sleep;

/// How long an operation may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause between two operations of a client.
const THINKING: Duration = Duration::from_millis(20);

/// After so many operations, on average, a client ends and another one begins.
const LIFE: u32 = 300;

/// How long the registers may take to answer when all faults have ended.
const RECOVERY: Duration = Duration::from_secs(30);

/// The number of the client that reads all registers at the end.
const LAST: u32 = 0;

/// What all clients have in common.
#[derive(Clone)]
pub(crate) struct Load {
    keys: u32,
    addresses: Arc<[SocketAddr]>,
    recorder: Recorder,
    counts: Arc<Counts>,
    /// The newest version of each register that was acknowledged.
    acknowledged: Arc<Mutex<HashMap<String, Version>>>,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    failed_reads: AtomicU64,
    not_done: AtomicU64,
    unknown: AtomicU64,
    clients: AtomicU64,
}

/// How many operations ended how.
pub(crate) struct Outcomes(Arc<Counts>);

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} reads and {} writes ok, {} reads failed, {} writes not done and {} unknown, of {} clients",
            of(&self.0.reads),
            of(&self.0.writes),
            of(&self.0.failed_reads),
            of(&self.0.not_done),
            of(&self.0.unknown),
            of(&self.0.clients)
        )
    }
}

impl Load {
    pub(crate) fn new(keys: u32, addresses: Vec<SocketAddr>, recorder: Recorder) -> Self {
        Self {
            keys,
            addresses: addresses.into(),
            recorder,
            counts: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        Outcomes(Arc::clone(&self.counts))
    }

    /// Reads and writes until it is told to stop.
    pub(crate) async fn run(self, client: u32, stopped: watch::Receiver<bool>) -> Result<()> {
        let mut register = self.connect()?;
        let mut number = 0u64;
        while !*stopped.borrow() {
            if fastrand::u32(..LIFE) == 0 {
                register = self.connect()?;
            }
            let key = format!("r{}", fastrand::u32(..self.keys));
            if fastrand::bool() {
                number += 1;
                self.write(client, &register, &key, &format!("{client}-{number}"))
                    .await;
            } else {
                self.read(client, &register, &key).await;
            }
            sleep(THINKING.mul_f64(fastrand::f64())).await;
        }
        Ok(())
    }

    /// A new client, with connections and an id of its own.
    fn connect(&self) -> Result<Register> {
        let replicas = Configuration::builder()
            .nodes(self.addresses.iter().map(SocketAddr::to_string))
            .connect_timeout(Duration::from_secs(1))
            .backoff(Duration::from_millis(50), Duration::from_millis(500))
            // A connection whose other end is gone without a word is noticed soon.
            .keep_alive(Duration::from_millis(500), Duration::from_secs(1))
            .connect()
            .context("the addresses of the proxies")?;
        self.counts.clients.fetch_add(1, Ordering::Relaxed);
        let register = Register::new(RegisterClient::new(replicas), Writer::random());
        Ok(register.with_timeout(TIMEOUT))
    }

    async fn write(&self, client: u32, register: &Register, key: &str, value: &str) {
        let noted = self.recorder.write(client, key, value);
        let count = match register.write(key, value).await {
            Ok(version) => {
                noted.ok();
                self.acknowledge(key, version);
                &self.counts.writes
            }
            Err(error) if error.effect() == Effect::NotDone => {
                noted.not_done();
                &self.counts.not_done
            }
            Err(_) => {
                drop(noted);
                &self.counts.unknown
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    async fn read(&self, client: u32, register: &Register, key: &str) -> Option<Option<Version>> {
        let noted = self.recorder.read(client, key);
        let Ok(found) = register.read(key).await else {
            noted.failed();
            self.counts.failed_reads.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        noted.ok(found.as_ref().map(|found| &found.value));
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        Some(found.map(|found| found.version))
    }

    fn acknowledge(&self, key: &str, version: Version) {
        let mut acknowledged = self.acknowledged();
        let newest = acknowledged.entry(key.to_owned()).or_insert(version);
        *newest = version.max(*newest);
    }

    /// Reads every register once more, as a client of its own. Returns those that have less than
    /// was acknowledged.
    ///
    /// # Errors
    ///
    /// Where one cannot be read, though nothing happens to the replicas any more.
    pub(crate) async fn read_all(&self) -> Result<Vec<String>> {
        let register = self.connect()?;
        let mut lost = Vec::new();
        for number in 0..self.keys {
            let key = format!("r{number}");
            let begun = Instant::now();
            let found = loop {
                if let Some(found) = self.read(LAST, &register, &key).await {
                    break found;
                }
                if begun.elapsed() > RECOVERY {
                    anyhow::bail!("{key} cannot be read, {RECOVERY:?} after all faults have ended");
                }
            };
            let acknowledged = self.acknowledged().get(&key).copied();
            if found < acknowledged {
                let version = |version: Option<Version>| {
                    version.map_or("nothing".to_owned(), |version| version.to_string())
                };
                let (found, acknowledged) = (version(found), version(acknowledged));
                lost.push(format!(
                    "{key} has {found}, and {acknowledged} was acknowledged"
                ));
            }
        }
        Ok(lost)
    }

    /// No code panics while it holds the lock.
    fn acknowledged(&self) -> MutexGuard<'_, HashMap<String, Version>> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
