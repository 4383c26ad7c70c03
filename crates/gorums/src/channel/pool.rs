//! What all connections of one pool share, and the task that ends calls at their deadlines.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::owed::Watched;
use super::servers::Servers;
use super::table::{MessageIds, Table, TooManyCalls};
use super::{Call, Channel, Early, Settings};
use crate::bounds::Counts;
use crate::log::Throttle;
use crate::metadata::Metadata;
use crate::runtime::{Clock, Transport};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, Notify};
use crate::wire::{ClientId, MethodKind};

/// Shared by all pools of the process: one call may go to nodes of several pools.
static PROCESS_IDS: MessageIds = MessageIds::new();

/// What the connections share that were made together or added to each other.
pub(crate) struct Pool {
    pub(crate) settings: Settings,
    pub(crate) metadata: Metadata,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) calls: Table<Call>,
    /// Which client this is, to nodes that it has sessions with.
    pub(crate) client: Option<ClientId>,
    /// How often bounds were reached.
    pub(crate) reached: Arc<Counts>,
    /// Of calls that find the table full.
    pub(crate) refusals: Throttle,
    /// Which servers the nodes are.
    pub(super) servers: Servers<Channel>,
    /// Some node's state changed.
    pub(crate) state_changed: Arc<tokio::sync::Notify>,
    /// Nodes that owe an answer.
    pub(super) watched: Watched<Channel>,
    sweeper: Arc<Sweeper>,
    runtimes: Mutex<Runtimes>,
    /// Cancelled with the pool.
    dropped: CancellationToken,
}

/// Where the sweeper runs, and where it goes on when that runtime ends. Nodes that are added later
/// may live in another runtime than the first, and longer.
#[derive(Default)]
struct Runtimes {
    present: Option<Handle>,
    /// Each once, and none that has ended.
    others: Vec<Handle>,
}

impl Pool {
    pub(crate) fn new(
        settings: Settings,
        metadata: Metadata,
        clock: Arc<dyn Clock>,
        transport: Arc<dyn Transport>,
    ) -> Arc<Self> {
        let sweeper = Arc::new(Sweeper {
            epoch: clock.now(),
            next: AtomicU64::new(NEVER),
            wake: Notify::new(),
        });
        let has_sessions = settings.sessions.is_some();
        let client = || ClientId::new(clock.random(), clock.random());
        Arc::new(Self {
            client: has_sessions.then(client).flatten(),
            calls: Table::new(settings.max_calls),
            reached: Arc::default(),
            refusals: Throttle::default(),
            settings,
            metadata,
            clock,
            transport,
            servers: Servers::default(),
            state_changed: Arc::default(),
            watched: Watched::default(),
            sweeper,
            runtimes: Mutex::default(),
            dropped: CancellationToken::new(),
        })
    }

    /// An id that no other call of this process has.
    pub(crate) fn next_id(kind: MethodKind) -> u64 {
        PROCESS_IDS.next(kind)
    }

    /// Adds a call to the table. False if its id's place is taken: the caller takes another id.
    pub(crate) fn register(
        &self,
        call: &Arc<Call>,
        deadline: Option<Instant>,
    ) -> Result<bool, TooManyCalls> {
        let inserted = self.calls.insert(call.id(), call, deadline)?;
        if let (true, Some(deadline)) = (inserted, deadline) {
            self.sweeper.note(deadline);
        }
        Ok(inserted)
    }

    /// Nodes of the pool live in this runtime. Calls end at their deadlines as long as it runs.
    pub(crate) fn run_on(self: &Arc<Self>, runtime: &Handle) {
        {
            let mut runtimes = self.runtimes.lock();
            if let Some(present) = &runtimes.present {
                let id = runtime.id();
                if present.id() != id && runtimes.others.iter().all(|other| other.id() != id) {
                    runtimes.others.push(runtime.clone());
                    drop(runtimes);
                    let listed = Listed(Arc::downgrade(self), id);
                    let dropped = self.dropped.clone();
                    // It is dropped with the runtime, if that comes before.
                    runtime.spawn(async move {
                        let _listed = listed;
                        dropped.cancelled().await;
                    });
                }
                return;
            }
            runtimes.present = Some(runtime.clone());
        }
        runtime.spawn(self.sweep());
    }

    /// Whether the sweeper runs on another runtime than this, or nowhere any more.
    pub(crate) fn is_driven_elsewhere(&self, here: tokio::runtime::Id) -> bool {
        let runtimes = self.runtimes.lock();
        let there = runtimes.present.as_ref();
        there.is_none_or(|there| there.id() != here)
    }

    /// A runtime that the pool's tasks run on, if one is left.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.runtimes.lock().present.clone()
    }

    /// Ends calls at their deadlines, until the pool is dropped.
    pub(crate) fn sweep(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let moves_on = MoveOn(Arc::downgrade(self));
        let sweeper = Arc::clone(&self.sweeper);
        let clock = Arc::clone(&self.clock);
        async move {
            let MoveOn(pool) = &moves_on;
            while let Some(next) = sweep_once(pool) {
                let woken = sweeper.wake.notified();
                match next {
                    None => woken.await,
                    Some(next) => {
                        // Deadlines that lie close together share a sweep.
                        let at = next.max(clock.now() + TICK);
                        tokio::select! {
                            biased;
                            () = woken => {}
                            () = clock.sleep_until(at) => {}
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sweeper.wake.notify_one();
        self.dropped.cancel();
    }
}

/// A runtime is among the others until this is dropped. Its handle alone would keep what it has.
struct Listed(Weak<Pool>, Id);

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut runtimes = pool.runtimes.lock();
            runtimes.others.retain(|other| other.id() != self.1);
        }
    }
}

/// Takes the sweeper to the next runtime when its own ends, even before the sweeper has begun.
struct MoveOn(Weak<Pool>);

impl Drop for MoveOn {
    fn drop(&mut self) {
        let Some(pool) = self.0.upgrade() else {
            return;
        };
        let next = {
            let mut runtimes = pool.runtimes.lock();
            runtimes.present = runtimes.others.pop();
            runtimes.present.clone()
        };
        // One that has ended, too, drops the task at once, which then goes on from here.
        if let Some(next) = next {
            next.spawn(pool.sweep());
        }
        // Whoever waits for time to pass has to do so elsewhere.
        pool.state_changed.notify_waiters();
    }
}

/// The least time between two sweeps.
const TICK: Duration = Duration::from_millis(1);

const NEVER: u64 = u64::MAX;

/// When the sweeper wakes next, so that only a call with an earlier deadline wakes it.
struct Sweeper {
    epoch: Instant,
    /// Nanoseconds after the epoch.
    next: AtomicU64,
    wake: Notify,
}

impl Sweeper {
    fn note(&self, deadline: Instant) {
        let nanos = self.nanos(deadline);
        if nanos < self.next.fetch_min(nanos, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(NEVER - 1)
    }
}

/// None once the pool is gone; otherwise the next deadline, if any.
fn sweep_once(pool: &Weak<Pool>) -> Option<Option<Instant>> {
    let pool = pool.upgrade()?;
    // A call that is registered from here on announces itself, since the pass may miss it. This is
    // a swap and no store: whoever writes here reads what it replaces, which puts them in one
    // order.
    pool.sweeper.next.swap(NEVER, Ordering::SeqCst);
    let (expired, next) = pool.calls.expire(pool.clock.now());
    for call in expired {
        call.end_early(Early::Deadline);
    }
    if let Some(next) = next {
        let nanos = pool.sweeper.nanos(next);
        pool.sweeper.next.fetch_min(nanos, Ordering::SeqCst);
    }
    Some(next)
}

#[cfg(all(test, not(gorums_loom)))]
mod tests {
    use tokio::runtime::Runtime;

    use super::*;
    use crate::runtime::{SystemClock, Tcp};

    fn runtime() -> Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().expect("a runtime")
    }

    #[test]
    fn a_runtime_that_has_ended_is_forgotten() {
        let pool = Pool::new(
            Settings::default(),
            Metadata::new(),
            Arc::new(SystemClock),
            Arc::new(Tcp),
        );
        let others = || pool.runtimes.lock().others.len();
        let (first, stays) = (runtime(), runtime());
        pool.run_on(first.handle());
        pool.run_on(stays.handle());
        for _ in 0..100 {
            let ends = runtime();
            for _ in 0..2 {
                pool.run_on(ends.handle());
                assert_eq!(others(), 2);
            }
            drop(ends);
            assert_eq!(others(), 1);
        }
        drop(first);
        assert_eq!(others(), 0);
        assert_eq!(
            pool.runtime().expect("one is left").id(),
            stays.handle().id()
        );
        let weak = Arc::downgrade(&pool);
        drop(pool);
        assert!(weak.upgrade().is_none());
    }
}
