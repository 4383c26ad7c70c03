//! The file of a replica on a simulated disk, with the code that production runs.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gorums::ServerBuilder;
use gorums::server::{Answered, CallKey, KeyedCall};
use gorums_sim::{Disk, Replica, Violation};
use storage::disk::{Backend, Commit, File, FileError, Page, Record, StorageBackend, Volume};
use storage::rejoin::proto::rejoin_server::RejoinServer;
use storage::rejoin::{self, Seat, Slate, Source, Transfer};
use storage::store::Store;

use crate::bug::Bug;

/// One commit in so many has a large record beside the others, which the next one takes away. So the
/// file grows and shrinks.
const LARGE_ONE_IN: u64 = 20;

/// More than fits into what a file has left when it has shrunk.
const LARGE: usize = 300_000;

/// How often a replica that may lose its data looks at its disk.
const LOOK: Duration = Duration::from_millis(200);

/// Where the records are.
const FILE: &str = "replica.redb";

/// Nobody asks for it.
const LARGE_KEY: &str = "large";

/// A store in the replica's file. `sized` makes a record of about so many bytes.
pub(crate) async fn store<E: Record>(
    node: &Replica,
    sized: fn(usize) -> E,
    bug: Option<Bug>,
) -> gorums_sim::Result<Store<E>> {
    on_file(node, sized, bug, None).await
}

/// The same with a seat: a replica whose file is gone does not answer until it has caught up.
pub(crate) async fn store_with_seat<E: Record>(
    node: &Replica,
    sized: fn(usize) -> E,
    bug: Option<Bug>,
) -> gorums_sim::Result<Store<E>> {
    let mut slate = SimSlate(node.file("replica.rejoin"));
    if node.crashes() == 0 {
        // What somebody does who sets up the cluster.
        Seat::declare_whole(&mut slate)?;
        slate.done().await;
    }
    let has_data = node.crashes() == 0 || !node.file(FILE).is_empty()?;
    let (id, replicas) = (node.id(), node.addresses().len());
    let seat = match bug.and_then(Bug::of_storage) {
        Some(bug) => Seat::open_with_bug(id, replicas, slate, has_data, bug),
        None => Seat::open(id, replicas, slate, has_data),
    }?;
    // Before there is a file: one that a crash leaves alone would be taken for the data.
    seat.settled().await;
    on_file(node, sized, bug, Some(seat)).await
}

/// Serves until the replica is killed, or its disk has failed.
pub(crate) async fn serve<E: Record>(
    node: &Replica,
    store: Arc<Store<E>>,
    server: ServerBuilder,
) -> gorums_sim::Result {
    tokio::select! {
        biased;
        served = node.serve(server) => served,
        status = store.failed() => Err(status.into()),
    }
}

/// Serves, and gets the replica's data again where it has lost them.
pub(crate) async fn serve_and_catch_up<E: Transfer>(
    node: &Replica,
    store: Arc<Store<E>>,
    server: ServerBuilder,
) -> gorums_sim::Result {
    let others = node.peers().connect()?.without(node.id());
    let server = server.add_service(RejoinServer::new(Source::new(Arc::clone(&store))));
    // What has lost its data, and waits for others in vain, has nothing to do with its disk. It looks at
    // it nevertheless, as what runs beside production does, so that a fault of the disk has an effect.
    let disk = node.disk::<()>();
    let looks = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = disk.read(|()| ()).await {
                break error;
            }
        }
    };
    let caught_up = async {
        rejoin::catch_up(&store, &others, Arc::new(node.clock()), |_| ()).await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        served = serve(node, Arc::clone(&store), server) => served,
        error = looks => Err(error.into()),
        () = caught_up => Ok(()),
    }
}

async fn on_file<E: Record>(
    node: &Replica,
    sized: fn(usize) -> E,
    bug: Option<Bug>,
    seat: Option<Seat>,
) -> gorums_sim::Result<Store<E>> {
    let volume = SimVolume::open(node, sized, bug).await?;
    let held_back = match bug {
        Some(Bug::StoreReplyBeforeDurable) => HeldBack::All,
        Some(Bug::LedgerAnswersLate) => HeldBack::Answers,
        _ => return Ok(on(volume, node, seat)),
    };
    let lying = LyingVolume {
        volume,
        held_back,
        records: BTreeMap::new(),
        answers: BTreeMap::new(),
    };
    Ok(on(lying, node, seat))
}

/// A store on this volume.
fn on<E: Record>(volume: impl Volume<E>, node: &Replica, seat: Option<Seat>) -> Store<E> {
    let (disk, work) = storage::disk::Disk::on(volume, node.id());
    tokio::spawn(work);
    Store::on_disk(disk, seat)
}

/// A slate on the replica's disk.
struct SimSlate(gorums_sim::File);

impl Slate for SimSlate {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let length = self.0.len()?;
        self.0.read_at(0, length as usize)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.replace(bytes)
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.done())
    }
}

#[derive(Debug)]
struct SimVolume<E: Record> {
    file: File<E>,
    /// The file that this is in.
    simulated: gorums_sim::File,
    /// For the time of reads and their failures: redb has all of so small a file in its cache.
    reads: Disk<()>,
    node: Replica,
    sized: fn(usize) -> E,
    /// Whether the last commit had a large record.
    is_large: bool,
}

impl<E: Record> SimVolume<E> {
    async fn open(
        node: &Replica,
        sized: fn(usize) -> E,
        bug: Option<Bug>,
    ) -> gorums_sim::Result<Self> {
        let simulated = node.file(FILE);
        if simulated.is_empty()? {
            // Production makes it under another name, so that it is there as a whole or not at all.
            simulated.replace(&new_file::<E>()?)?;
        }
        let backend = Arc::new(SimBackend {
            file: simulated.clone(),
            unwritten: Mutex::default(),
        });
        let opened = match bug.and_then(Bug::of_storage) {
            Some(bug) => File::on_with_bug(backend, bug),
            None => File::on(backend),
        };
        simulated.done().await;
        let file = opened.map_err(|error| {
            if error.is_damage() {
                // Even where its disk has failed before, which is an excuse for any other end.
                let refused = format!("the file of replica {} is refused: {error}", node.id());
                node.report(Violation::new(refused, []));
            }
            error.to_string()
        })?;
        Ok(Self {
            file,
            simulated,
            reads: node.disk(),
            node: node.clone(),
            sized,
            is_large: false,
        })
    }
}

impl<E: Record> Volume<E> for SimVolume<E> {
    type Error = String;

    async fn read(&mut self, key: &str) -> Result<Option<E>, String> {
        let time = self.reads.read(|()| ()).await;
        time.map_err(|error| error.to_string())?;
        let found = self.file.read(key).await;
        self.simulated.done().await;
        found.map_err(|error| error.to_string())
    }

    async fn page(&mut self, after: Option<&str>) -> Result<Page<E>, String> {
        let time = self.reads.read(|()| ()).await;
        time.map_err(|error| error.to_string())?;
        let found = self.file.page(after).await;
        self.simulated.done().await;
        found.map_err(|error| error.to_string())
    }

    async fn answered(&mut self, call: KeyedCall) -> Result<Answered<Vec<u8>>, String> {
        let found = self.file.answered(call).await;
        self.simulated.done().await;
        found.map_err(|error| error.to_string())
    }

    async fn commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<Commit, String> {
        let was_large = self.is_large;
        self.is_large = self.node.random_below(LARGE_ONE_IN) == 0;
        let other = (self.is_large || was_large)
            .then(|| (self.sized)(if self.is_large { LARGE } else { 0 }));
        let mut records = records.to_vec();
        records.extend(other.iter().map(|other| (LARGE_KEY, other)));
        let commit = self.file.commit(&records, answers).await;
        // So that nothing is acknowledged before its sync has had its time.
        self.simulated.done().await;
        commit.map_err(|error| error.to_string())
    }
}

/// What a volume that lies says to have, and has only with its next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldBack {
    /// All of a commit.
    All,
    /// The answers of a commit, whose records it has.
    Answers,
}

/// A volume that says of its last commit that it is done, and does a part of it with the next one.
#[derive(Debug)]
struct LyingVolume<E: Record> {
    volume: SimVolume<E>,
    held_back: HeldBack,
    /// The records that are held back.
    records: BTreeMap<String, E>,
    /// The answers that are held back.
    answers: BTreeMap<CallKey, Vec<u8>>,
}

impl<E: Record> Volume<E> for LyingVolume<E> {
    type Error = String;

    async fn read(&mut self, key: &str) -> Result<Option<E>, String> {
        let found = self.volume.read(key).await?;
        Ok(self.records.get(key).cloned().or(found))
    }

    /// As it is on the disk: nobody catches up from a volume that lies.
    async fn page(&mut self, after: Option<&str>) -> Result<Page<E>, String> {
        self.volume.page(after).await
    }

    async fn answered(&mut self, call: KeyedCall) -> Result<Answered<Vec<u8>>, String> {
        match self.answers.get(&call.key) {
            Some(answer) => Ok(Answered::Yes(answer.clone())),
            None => self.volume.answered(call).await,
        }
    }

    async fn commit(
        &mut self,
        records: &[(&str, &E)],
        answers: &[(CallKey, &[u8])],
    ) -> Result<Commit, String> {
        let records_before = std::mem::take(&mut self.records);
        let records_before: Vec<_> = records_before
            .iter()
            .map(|(key, record)| (&**key, record))
            .collect();
        let answers_before = std::mem::take(&mut self.answers);
        let answers_before: Vec<_> = answers_before
            .iter()
            .map(|(call, answer)| (*call, &**answer))
            .collect();
        let records_now = match self.held_back {
            HeldBack::All => &records_before[..],
            HeldBack::Answers => records,
        };
        let commit = match records_now.is_empty() && answers_before.is_empty() {
            true => Commit::Done,
            false => self.volume.commit(records_now, &answers_before).await?,
        };
        let answers = answers.iter();
        self.answers = answers
            .map(|&(call, answer)| (call, answer.to_owned()))
            .collect();
        if self.held_back == HeldBack::All {
            let records = records.iter();
            self.records = records
                .map(|&(key, record)| (key.to_owned(), record.clone()))
                .collect();
        }
        Ok(commit)
    }
}

/// The way from redb to the simulated file.
#[derive(Debug)]
struct SimBackend {
    file: gorums_sim::File,
    /// What redb writes at once is in the order of a hash table. Here it gets one that follows from
    /// the seed, by where it is written.
    unwritten: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl SimBackend {
    fn written(&self) -> io::Result<MutexGuard<'_, BTreeMap<u64, Vec<u8>>>> {
        let unwritten = self.unwritten.lock();
        let mut unwritten = unwritten.unwrap_or_else(PoisonError::into_inner);
        for (offset, bytes) in std::mem::take(&mut *unwritten) {
            self.file.write_at(offset, &bytes)?;
        }
        Ok(unwritten)
    }
}

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        drop(self.written()?);
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        drop(self.written()?);
        self.file.read_at(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        drop(self.written()?);
        self.file.set_len(len)
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        drop(self.written()?);
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        let mut unwritten = self
            .unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let last = unwritten.range(..end).next_back();
        if last.is_some_and(|(at, bytes)| at + bytes.len() as u64 > offset) {
            // Written again: now the order matters.
            drop(unwritten);
            unwritten = self.written()?;
        }
        unwritten.insert(offset, data.to_owned());
        Ok(())
    }
}

impl Backend for SimBackend {
    /// No simulated disk is full.
    fn give_back(&self, _: u64, _: u64) {}

    fn forget(&self, _: u64, _: u64) -> io::Result<bool> {
        drop(self.written()?);
        self.file.forget()?;
        Ok(true)
    }
}

/// What is in a new file, which is the same for all replicas with such records.
fn new_file<E: Record>() -> Result<Arc<[u8]>, FileError> {
    static MADE: Mutex<BTreeMap<TypeId, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(new) = made.get(&TypeId::of::<E>()) {
        return Ok(Arc::clone(new));
    }
    let memory = Memory::default();
    File::<E>::fill(memory.clone())?;
    let new: Arc<[u8]> = memory.lock().as_slice().into();
    made.insert(TypeId::of::<E>(), Arc::clone(&new));
    Ok(new)
}

/// A file in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let memory = self.lock();
        let found = memory.get(from..from.saturating_add(len));
        Ok(found.ok_or(io::ErrorKind::UnexpectedEof)?.to_owned())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        let mut memory = self.lock();
        let place = memory.get_mut(from..from + data.len());
        place
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}
