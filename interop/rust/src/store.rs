//! The case of a store that keeps what it acknowledged, on replicas of this library and of another
//! one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use gorums::Configuration;
use prost_types::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::history::{Kind, Operation, check};
use crate::mixed::free_addresses;
use crate::process::Process;
use crate::runner::{Case, Start, cases};
use crate::storage::storage_client::StorageClient;
use crate::storage::{ReadRequest, ReadResponse, WriteRequest};

pub(crate) const CASES: &[Case] =
    cases![a_durable_store_serves_while_each_replica_is_killed_and_restarted];

/// How long an operation may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many more operations are waited for after each event, of each client and kind.
const MORE: usize = 40;
/// How often each replica is killed.
const ROUNDS: usize = 2;

/// The clients that write. Each is the only writer of the keys that begin with its name.
const NAMES: [&str; 2] = ["rust", "go"];

async fn a_durable_store_serves_while_each_replica_is_killed_and_restarted(
    start: Start,
) -> Result<()> {
    let folder = Folder::new(start.others)?;
    let nodes = start.configuration()?;
    let mut replicas = Replicas::start(start, &folder.0).await?;
    let history = History::default();
    let mut clients = JoinSet::new();
    let all = nodes.nodes(replicas.addresses.clone()).connect()?;
    all.connected(3).await?;
    ours(&mut clients, &all, &history);
    let stop_theirs = theirs(&mut clients, &replicas, &history).await?;
    for _ in 0..ROUNDS {
        for index in 0..3 {
            history.grows(&mut clients).await?;
            replicas.running[index].kill().await?;
            history.grows(&mut clients).await?;
            replicas.running[index] = replicas.replica(index).await?;
            all.connected(3).await?;
        }
    }
    history.grows(&mut clients).await?;
    drop(stop_theirs);
    // Ours go on until they are told.
    let ended = clients.join_next().await.context("the clients are gone")?;
    ended??;
    clients.shutdown().await;
    let mut operations = history.all();
    let open = NAMES.map(|name| open_write(name, &operations));
    operations.extend(open);
    check(&operations)?;
    let failed = operations.iter().filter(|operation| !operation.ok).count();
    ensure!(
        failed * 10 < operations.len(),
        "{failed} of {} operations failed, although two replicas were always there",
        operations.len()
    );
    Ok(())
}

/// A folder that is removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new(others: usize) -> Result<Self> {
        let name = format!("gorums-interop-store-{}-{others}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Three replicas, those of the other implementation first.
struct Replicas {
    start: Start,
    folder: PathBuf,
    addresses: Vec<String>,
    peers: String,
    running: Vec<Process>,
}

impl Replicas {
    async fn start(start: Start, folder: &Path) -> Result<Self> {
        let addresses = free_addresses(3)?;
        let peers = (1..).zip(&addresses);
        let peers: Vec<_> = peers
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        let mut replicas = Self {
            start,
            folder: folder.to_owned(),
            addresses,
            peers: peers.join(","),
            running: Vec::new(),
        };
        for index in 0..3 {
            if index >= replicas.start.others {
                let id = (index + 1).to_string();
                replicas.start.set_up(&id, &replicas.data(index)).await?;
            }
            let replica = replicas.replica(index).await?;
            replicas.running.push(replica);
        }
        Ok(replicas)
    }

    fn data(&self, index: usize) -> String {
        let folder = self.folder.join((index + 1).to_string());
        folder.display().to_string()
    }

    async fn replica(&self, index: usize) -> Result<Process> {
        let id = (index + 1).to_string();
        let data = self.data(index);
        let args = [
            "--id",
            &id,
            "--listen",
            &self.addresses[index],
            "--peers",
            &self.peers,
            "--data",
            &data,
        ];
        let secrets = self.start.secrets(&format!("node-{id}"));
        if index >= self.start.others {
            return self.start.storage_as(&secrets, &args).await;
        }
        let secrets = secrets.args();
        let mut command = vec![self.theirs()?, "storage"];
        command.extend(args);
        command.extend(secrets.iter().map(String::as_str));
        Process::start(&command).await
    }

    /// The program of the other implementation.
    fn theirs(&self) -> Result<&str> {
        let program = self.start.command.first();
        program.map(String::as_str).context("there is no program")
    }
}

/// What both clients have done.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<(usize, Operation)>>>);

impl History {
    fn add(&self, client: usize, operation: Operation) {
        let mut operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        operations.push((client, operation));
    }

    fn all(&self) -> Vec<Operation> {
        let operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        operations
            .iter()
            .map(|(_, operation)| operation.clone())
            .collect()
    }

    /// How many reads and writes of each client succeeded.
    fn counts(&self) -> [usize; 4] {
        let operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = [0; 4];
        for (client, operation) in operations.iter().filter(|(_, operation)| operation.ok) {
            counts[client * 2 + usize::from(operation.kind == Kind::Write)] += 1;
        }
        counts
    }

    /// Waits until both clients have got on with reading and writing.
    async fn grows(&self, clients: &mut JoinSet<Result<()>>) -> Result<()> {
        let before = self.counts();
        let patience = Instant::now() + 4 * PATIENCE;
        loop {
            let now = self.counts();
            if now
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + MORE)
            {
                return Ok(());
            }
            if let Some(ended) = clients.try_join_next() {
                ended??;
                bail!("a client has ended");
            }
            ensure!(
                Instant::now() < patience,
                "no progress since {before:?}: {now:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The write that a client may have been making when it was stopped, of which it has not told.
fn open_write(name: &str, operations: &[Operation]) -> Operation {
    let own = operations.iter().filter(|operation| {
        let writer = operation.key.split_once('/').map(|(writer, _)| writer);
        operation.kind == Kind::Write && writer == Some(name)
    });
    let last = own.max_by_key(|write| write.number);
    let number = last.map_or(0, |write| write.number) + 1;
    Operation {
        kind: Kind::Write,
        key: key(name, number),
        number,
        begin: last.map_or(0, |write| write.end),
        end: u128::MAX,
        ok: false,
    }
}

/// Starts the Go client, and reads what it does, until what is returned is dropped.
async fn theirs(
    clients: &mut JoinSet<Result<()>>,
    replicas: &Replicas,
    history: &History,
) -> Result<oneshot::Sender<()>> {
    let [ours, theirs] = NAMES;
    let names = format!("{theirs},{ours}");
    let secrets = replicas.start.secrets("client").args();
    let mut command = vec![
        replicas.theirs()?,
        "history",
        "--replicas",
        &replicas.peers,
        "--names",
        &names,
    ];
    command.extend(secrets.iter().map(String::as_str));
    let mut client = Process::start(&command).await?;
    let history = history.clone();
    let (stop, mut stopped) = oneshot::channel();
    clients.spawn(async move {
        loop {
            let line = tokio::select! {
                line = client.line() => line?.context("the Go client has ended")?,
                _ = &mut stopped => break,
            };
            history.add(1, Operation::parse(&line)?);
        }
        client.kill().await?;
        // What it had told by then.
        while let Some(line) = client.line().await? {
            history.add(1, Operation::parse(&line)?);
        }
        Ok(())
    });
    Ok(stop)
}

/// Our client: one task that writes, and two that read.
fn ours(clients: &mut JoinSet<Result<()>>, all: &Configuration, history: &History) {
    let last = Arc::new(AtomicU64::new(0));
    for task in 0..3 {
        let (last, history) = (Arc::clone(&last), history.clone());
        let store = StorageClient::new(all).with_timeout(PATIENCE);
        clients.spawn(async move {
            for turn in 0_u64.. {
                let operation = if task == 0 {
                    write(&store, &last).await
                } else {
                    read(&store, &last, turn * 2 + task).await
                };
                history.add(0, operation);
            }
            Ok(())
        });
    }
}

/// That of write n: every second one has a key of its own, which is written once, and the others
/// share some.
fn key(name: &str, n: u64) -> String {
    format!("{name}/{}", if n.is_multiple_of(2) { n % 8 } else { n })
}

async fn write(store: &StorageClient, last: &AtomicU64) -> Operation {
    let number = last.load(Ordering::SeqCst) + 1;
    let key = key(NAMES[0], number);
    let request = WriteRequest {
        value: format!("{key}={number}"),
        key: key.clone(),
        time: Some(Timestamp {
            seconds: i64::try_from(number).unwrap_or(i64::MAX),
            nanos: 0,
        }),
    };
    let begin = now();
    let replies = store.write_qc(request).majority().replies().await;
    let ok = replies.is_ok_and(|replies| replies.values().all(|reply| reply.new));
    let operation = Operation {
        kind: Kind::Write,
        key,
        number,
        begin,
        end: now(),
        ok,
    };
    last.store(number, Ordering::SeqCst);
    operation
}

async fn read(store: &StorageClient, last: &AtomicU64, turn: u64) -> Operation {
    // Spread over all keys; every fourth read is made by the replicas.
    let number = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let name = NAMES[usize::from(number.is_multiple_of(2))];
    let key = key(name, 1 + number / 2 % (last.load(Ordering::SeqCst) + 1));
    let request = ReadRequest { key: key.clone() };
    let nested = number % 8 > 5;
    let begin = now();
    let call = if nested {
        store.read_nested_qc(request)
    } else {
        store.read_qc(request)
    };
    let newest = call.majority().max_by_key(version).await;
    let end = now();
    let number = newest.as_ref().ok().and_then(version).unwrap_or(0);
    let right = |reply: &ReadResponse| !reply.ok || reply.value == format!("{key}={number}");
    Operation {
        kind: Kind::Read,
        // No write has such a number.
        number: if newest.as_ref().is_ok_and(|reply| !right(reply)) {
            u64::MAX
        } else {
            number
        },
        key,
        begin,
        end,
        ok: newest.is_ok(),
    }
}

fn version(reply: &ReadResponse) -> Option<u64> {
    let seconds = reply.time.as_ref().map_or(0, |time| time.seconds);
    reply.ok.then(|| u64::try_from(seconds).unwrap_or(0))
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}
