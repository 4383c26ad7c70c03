//! Disks that stall or are full when they are told to.
//!
//! A replica's process looks at a file that says how its disk is, and writes into another one that it
//! has shown.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use cluster_live::faults::Disks;
use cluster_live::tally::{Kind, Tally};

use storage::disk::{Backend, StorageBackend};

/// How often a replica looks how its disk is to be.
const LOOK: Duration = Duration::from_millis(5);

/// What is to become of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No sync returns.
    Stalled,
    /// No write has room.
    Full,
}

impl Fault {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::StalledDisk => Some(Self::Stalled),
            Kind::FullDisk => Some(Self::Full),
            _ => None,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Stalled => Kind::StalledDisk,
            Self::Full => Kind::FullDisk,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Full => "full",
        }
    }
}

/// How a disk is to be, as it is written in the file: a word, and a number that no other time has. A
/// disk that is well has neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    fault: Fault,
    number: u64,
}

impl Order {
    fn text(order: Option<Self>) -> String {
        order.map_or(String::new(), |order| {
            format!("{} {}", order.fault.word(), order.number)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (word, number) = text.split_once(' ')?;
        let known = [Fault::Stalled, Fault::Full];
        Some(Self {
            fault: known.into_iter().find(|fault| fault.word() == word)?,
            number: number.parse().ok()?,
        })
    }
}

fn order_path(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("disk-{id}"))
}

fn shown_path(directory: &Path, id: u32) -> PathBuf {
    directory.join(format!("disk-{id}-shown"))
}

/// The disks of all replicas, for whoever spoils them. What has shown is counted.
#[derive(Debug)]
pub(crate) struct Spoiling {
    directory: PathBuf,
    tally: Arc<Tally>,
    last: AtomicU64,
}

impl Spoiling {
    /// Those of the replicas that keep their files in this directory.
    pub(crate) fn new(directory: &Path, tally: Arc<Tally>) -> Self {
        Self {
            directory: directory.to_owned(),
            tally,
            last: AtomicU64::new(0),
        }
    }

    fn order(&self, id: u32, order: Option<Order>) -> Result<()> {
        let path = order_path(&self.directory, id);
        // It is never read half written.
        let new = path.with_extension("new");
        let written = fs::write(&new, Order::text(order)).and_then(|()| fs::rename(&new, &path));
        written.with_context(|| path.display().to_string())
    }
}

impl Disks for Spoiling {
    fn spoil(&self, id: u32, kind: Kind) -> Result<()> {
        let Some(fault) = Fault::of(kind) else {
            bail!("{kind:?} is nothing that happens to a disk");
        };
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.order(id, Some(Order { fault, number }))
    }

    fn heal(&self, id: u32) -> Result<()> {
        let path = order_path(&self.directory, id);
        let order = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        self.order(id, None)?;
        let Some(order) = Order::parse(&order) else {
            return Ok(());
        };
        // A replica that had nothing to write meanwhile has not written that.
        let shown = fs::read_to_string(shown_path(&self.directory, id));
        if shown.is_ok_and(|shown| shown == Order::text(Some(order))) {
            self.tally.add(order.fault.kind());
        }
        Ok(())
    }
}

/// Looks from now on how the disk of this replica is to be, and returns what stands between the replica
/// and its file.
pub(crate) fn watched(directory: &Path, id: u32) -> impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend> {
    let state = Arc::new(State {
        shown_path: shown_path(directory, id),
        order: Mutex::new(None),
    });
    let (path, watched) = (order_path(directory, id), Arc::clone(&state));
    thread::spawn(move || {
        loop {
            // Before the first order there is no file.
            let order = fs::read_to_string(&path).ok();
            watched.set(order.and_then(|text| Order::parse(&text)));
            thread::sleep(LOOK);
        }
    });
    move |file| {
        Arc::new(Spoilt {
            file,
            state: Arc::clone(&state),
        })
    }
}

/// How the disk of this process is to be.
#[derive(Debug)]
struct State {
    shown_path: PathBuf,
    /// And whether that has shown.
    order: Mutex<Option<(Order, bool)>>,
}

impl State {
    fn set(&self, order: Option<Order>) {
        let mut now = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if now.map(|(order, _)| order) != order {
            *now = order.map(|order| (order, false));
        }
    }

    /// Whether the disk is to be so, which shows now.
    fn shows(&self, fault: Fault) -> io::Result<bool> {
        let mut now = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((order, has_shown)) = now.as_mut().filter(|(order, _)| order.fault == fault)
        else {
            return Ok(false);
        };
        if !std::mem::replace(has_shown, true) {
            fs::write(&self.shown_path, Order::text(Some(*order)))?;
        }
        Ok(true)
    }
}

/// A file on a disk that can be spoilt.
#[derive(Debug)]
struct Spoilt {
    file: Arc<dyn Backend>,
    state: Arc<State>,
}

impl Spoilt {
    fn need_room(&self) -> io::Result<()> {
        match self.state.shows(Fault::Full)? {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Spoilt {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.file.len()? {
            self.need_room()?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        while self.state.shows(Fault::Stalled)? {
            thread::sleep(LOOK);
        }
        self.file.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.need_room()?;
        self.file.write(offset, data)
    }
}

impl Backend for Spoilt {
    fn give_back(&self, offset: u64, len: u64) {
        self.file.give_back(offset, len);
    }

    fn forget(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.file.forget(offset, len)
    }

    fn release_reserve(&self) -> bool {
        self.file.release_reserve()
    }

    fn take_reserve(&self) -> bool {
        self.file.take_reserve()
    }

    fn has_room(&self, bytes: u64) -> bool {
        // Where it cannot be said that it shows, the next write says so.
        let is_full = self.state.shows(Fault::Full).unwrap_or(true);
        !is_full && self.file.has_room(bytes)
    }
}
