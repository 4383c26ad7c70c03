//! The file of a replica on a simulated disk, with the code that production runs.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gorums_sim::{Disk, Replica, Violation};
use storage::disk::{Backend, Commit, File, FileError, Record, StorageBackend, Volume};
use storage::store::Store;

use crate::bug::Bug;

/// One commit in so many has a large record beside the others, which the next one takes away. So the
/// file grows and shrinks.
const LARGE_ONE_IN: u64 = 20;

/// More than fits into what a file has left when it has shrunk.
const LARGE: usize = 300_000;

/// Nobody asks for it.
const LARGE_KEY: &str = "large";

/// A store in the replica's file. `sized` makes a record of about so many bytes.
pub(crate) async fn store<E: Record>(
    node: &Replica,
    sized: fn(usize) -> E,
    bug: Option<Bug>,
) -> gorums_sim::Result<Store<E>> {
    let volume = SimVolume::open(node, sized, bug).await?;
    Ok(match bug {
        Some(Bug::StoreReplyBeforeDurable) => {
            let held_back = BTreeMap::new();
            on(LyingVolume { volume, held_back }, node)
        }
        _ => on(volume, node),
    })
}

/// A store on this volume.
fn on<E: Record>(volume: impl Volume<E>, node: &Replica) -> Store<E> {
    let (disk, work) = storage::disk::Disk::on(volume, node.id());
    tokio::spawn(work);
    Store::Disk(disk)
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
        let simulated = node.file("replica.redb");
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

    async fn commit(&mut self, records: &[(&str, &E)]) -> Result<Commit, String> {
        let was_large = self.is_large;
        self.is_large = self.node.random_below(LARGE_ONE_IN) == 0;
        let other = (self.is_large || was_large)
            .then(|| (self.sized)(if self.is_large { LARGE } else { 0 }));
        let mut records = records.to_vec();
        records.extend(other.iter().map(|other| (LARGE_KEY, other)));
        let commit = self.file.commit(&records).await;
        // So that nothing is acknowledged before its sync has had its time.
        self.simulated.done().await;
        commit.map_err(|error| error.to_string())
    }
}

/// A volume that says of its last commit that it is done, and does it with the next one.
#[derive(Debug)]
struct LyingVolume<E: Record> {
    volume: SimVolume<E>,
    held_back: BTreeMap<String, E>,
}

impl<E: Record> Volume<E> for LyingVolume<E> {
    type Error = String;

    async fn read(&mut self, key: &str) -> Result<Option<E>, String> {
        let found = self.volume.read(key).await?;
        Ok(self.held_back.get(key).cloned().or(found))
    }

    async fn commit(&mut self, records: &[(&str, &E)]) -> Result<Commit, String> {
        let before = std::mem::take(&mut self.held_back);
        let before: Vec<_> = before
            .iter()
            .map(|(key, record)| (&**key, record))
            .collect();
        let commit = match before.is_empty() {
            true => Commit::Done,
            false => self.volume.commit(&before).await?,
        };
        let records = records.iter();
        self.held_back = records
            .map(|&(key, record)| (key.to_owned(), record.clone()))
            .collect();
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
