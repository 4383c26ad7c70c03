//! The kinds of faults, and how many of each have fired.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What passes a proxy comes late.
    Delay,
    /// Nothing passes for a while.
    Stall,
    /// All connections of a replica are closed.
    Cut,
    /// One side of each connection is closed.
    HalfOpen,
    /// A replica's process is killed.
    Kill,
    /// All of them are, at once.
    KillAll,
    /// A replica's process is stopped for a while.
    Pause,
    /// The disk of a replica does not sync for a while.
    StalledDisk,
    /// The disk of a replica has no room for a while.
    FullDisk,
    /// A replica is ended and another copy of its program takes its place.
    Upgrade,
    /// The bytes of a replica go nowhere.
    BlackHole,
}

/// How many faults have fired: those of a proxy when they have touched bytes or a connection.
#[derive(Debug)]
pub struct Tally {
    kinds: Vec<Kind>,
    counts: [AtomicU64; KINDS],
}

/// How many kinds there are.
const KINDS: usize = Kind::BlackHole as usize + 1;

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Delay => "delays",
            Self::Stall => "stalls",
            Self::Cut => "cuts",
            Self::HalfOpen => "half-opens",
            Self::Kill => "kills",
            Self::KillAll => "kills of all",
            Self::Pause => "pauses",
            Self::StalledDisk => "stalled disks",
            Self::FullDisk => "full disks",
            Self::Upgrade => "upgrades",
            Self::BlackHole => "black holes",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::Delay => "what passed a proxy came late",
            Self::Stall => "bytes were held back, in both directions",
            Self::Cut => "the connections of a replica were closed",
            Self::HalfOpen => "one side of a connection was closed, and the other not told",
            Self::Kill => "SIGKILL to a replica, which was started again",
            Self::KillAll => "SIGKILL to all replicas at once",
            Self::Pause => "SIGSTOP and SIGCONT to a replica",
            Self::StalledDisk => "syncs did not return, and no write was answered meanwhile",
            Self::FullDisk => {
                "writes had no room and were refused, and went on without a restart when there was room"
            }
            Self::Upgrade => "a replica was ended and started from another copy of the program",
            Self::BlackHole => {
                "all bytes of a replica went nowhere, and its connections stayed open"
            }
        }
    }
}

impl Tally {
    /// None yet, of these kinds.
    #[must_use]
    pub fn of(kinds: Vec<Kind>) -> Self {
        Self {
            kinds,
            counts: Default::default(),
        }
    }

    /// One more.
    pub fn add(&self, kind: Kind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those of one kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// Whether there was at least one of each of these kinds.
    pub fn have_fired(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.count(*kind) > 0)
    }

    /// The kinds of which there was none.
    pub fn missing(&self) -> impl Iterator<Item = Kind> {
        let kinds = self.kinds.iter().copied();
        kinds.filter(|kind| self.count(*kind) == 0)
    }

    /// A line for each kind, with what it is.
    #[must_use]
    pub fn table(&self) -> String {
        let lines = self.kinds.iter().map(|kind| {
            let (name, explanation) = (kind.name(), kind.explanation());
            format!("  {:6}  {name}: {explanation}\n", self.count(*kind))
        });
        lines.collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, kind) in self.kinds.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", self.count(*kind), kind.name())?;
        }
        Ok(())
    }
}
