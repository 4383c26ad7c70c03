//! How a disk is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the disk may take for one thing, a sync say, before it counts as stalled.
pub const STALLED: Duration = Duration::from_secs(1);

/// How a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It does what it is told.
    Healthy,
    /// A write had no room, or there is none for the reserve. Reads are answered, and so are writes
    /// that fit. Over with the first commit after which the reserve is there, and as much again is
    /// free.
    Full,
    /// What it is doing has taken so long, which is more than [`STALLED`]. It may go on.
    Stalled(Duration),
    /// A sync has failed, and no commit has succeeded since; or the disk has failed altogether, and
    /// answers nothing any more.
    Failing,
}

/// What is seen of a disk by whoever uses it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when it has been doing one thing.
    busy_since: Option<Instant>,
    is_full: bool,
    is_failing: bool,
}

impl Pulse {
    /// Notes how long something takes.
    pub(super) async fn time<T>(&self, work: impl Future<Output = T>) -> T {
        self.state().busy_since = Some(Instant::now());
        let done = work.await;
        self.state().busy_since = None;
        done
    }

    /// Notes whether there is room.
    pub(super) fn full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Notes whether what was written is on the disk.
    pub(super) fn failing(&self, is_failing: bool) {
        self.state().is_failing = is_failing;
    }

    /// How it is now.
    pub(super) fn health(&self) -> Health {
        let state = self.state();
        let busy = state.busy_since.map(|since| since.elapsed());
        match busy {
            Some(time) if time > STALLED => Health::Stalled(time),
            _ if state.is_failing => Health::Failing,
            _ if state.is_full => Health::Full,
            _ => Health::Healthy,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
