//! One thread per process that notices handlers which block their thread.
//!
//! A worker of tokio that is stuck in a handler holds on to two things: tasks that it woke last (no
//! other worker may take them from its slot), and, where the other workers sleep, the duty to poll
//! sockets and timers. Replies would wait for the handler to end. So every stretch of polling
//! handlers is announced to this monitor; where one lasts longer than a tick, the monitor wakes the
//! connection's I/O task and another worker from outside, and has the handlers that released go on
//! in another task. The cost for a handler that does not block is two atomic additions.
//!
//! The monitor looks only at lanes that poll. A lane lists itself when a stretch begins, and is
//! taken off the list by the first tick that finds it quiet. So a connection without requests costs
//! nothing, and the thread of an idle server waits without a timer.
//!
//! On a runtime with one worker nothing could take over, and the monitor is not used: a simulation
//! never starts the thread.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::log;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, many};

/// How long a handler may hold its thread before another worker is woken, at most twice this.
const TICK: Duration = Duration::from_millis(1);

/// After so many ticks without any polling the monitor waits until it is needed again.
const QUIET_TICKS: usize = many(1000, 1);

/// The announcements of one connection's handlers: how often polling them began and ended.
pub(crate) struct Polling {
    entered: AtomicU64,
    left: AtomicU64,
    /// It is on the monitor's list, or whoever set this is about to put it there.
    listed: AtomicBool,
    runtime: Handle,
    /// Wakes and spawns the tasks that must not wait for a handler, in the runtime.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Polling {
    /// Of a lane that runs on this runtime. The monitor calls `wake` where a stretch lasts too
    /// long.
    pub(crate) fn new(runtime: Handle, wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            entered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            runtime,
            wake: Box::new(wake),
        })
    }

    /// Runs a stretch of polling under the monitor's eye.
    pub(crate) fn watched<R>(self: &Arc<Self>, monitor: &Monitor, poll: impl FnOnce() -> R) -> R {
        struct End<'a>(&'a Polling);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.leave();
            }
        }
        self.enter(monitor);
        let _end = End(self);
        poll()
    }

    /// A stretch of polling begins.
    pub(crate) fn enter(self: &Arc<Self>, monitor: &Monitor) {
        // The addition comes before the look at `listed`. In `unlist` the monitor does both the
        // other way round, and of two read-modify-writes one sees the other: either the monitor
        // sees this stretch, or this stretch sees that it has to list itself.
        self.entered.fetch_add(1, Ordering::AcqRel);
        if !self.listed.load(Ordering::Relaxed) {
            monitor.list(self);
        }
    }

    /// A stretch that began has ended, or is watched no more.
    pub(crate) fn leave(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// The monitor is about to take it off its list, having seen so many stretches begin. False
    /// where another one has begun that relies on the list.
    fn unlist(&self, entered: u64) -> bool {
        // Read-modify-writes only: each sees the one before, whoever lists or takes off.
        self.listed.swap(false, Ordering::AcqRel);
        // A load could miss a stretch that began just now.
        let is_quiet = self.entered.fetch_add(0, Ordering::AcqRel) == entered;
        // The stretch may have listed itself anew.
        is_quiet || self.listed.swap(true, Ordering::AcqRel)
    }
}

/// The process' monitor.
pub(crate) struct Monitor {
    state: Mutex<State>,
    has_new: Condvar,
}

#[derive(Default)]
struct State {
    /// Lanes that began to poll, until the thread puts them on its own list.
    new: Vec<Arc<Polling>>,
    /// The thread waits until there is one.
    waits: bool,
}

/// What the monitor's thread has to itself: nobody who begins to poll waits for a tick.
#[derive(Default)]
pub(crate) struct Watchlist {
    lanes: Vec<Watched>,
    /// So many ticks in a row found nobody who polls.
    quiet: usize,
}

struct Watched {
    polling: Arc<Polling>,
    /// What the last tick saw.
    seen: Option<(u64, u64)>,
}

impl Monitor {
    /// The monitor, if this runtime has workers that could take over from a blocked one.
    pub(crate) fn get(runtime: &Handle) -> Option<&'static Self> {
        static MONITOR: OnceLock<Option<Arc<Monitor>>> = OnceLock::new();
        if runtime.metrics().num_workers() < 2 {
            return None;
        }
        let monitor = MONITOR.get_or_init(|| {
            let monitor = Arc::new(Monitor::new());
            let of_thread = Arc::clone(&monitor);
            let started = thread::Builder::new()
                .name("gorums-monitor".to_owned())
                .spawn(move || of_thread.run());
            match started {
                Ok(_) => Some(monitor),
                Err(error) => {
                    tracing::warn!(
                        target: log::HANDLER,
                        %error,
                        "no thread for the monitor: a handler that blocks its thread can delay others"
                    );
                    None
                }
            }
        });
        monitor.as_deref()
    }

    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            has_new: Condvar::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A lane polls that was not on the list.
    #[cold]
    fn list(&self, polling: &Arc<Polling>) {
        if polling.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.lock();
        state.new.push(Arc::clone(polling));
        let waits = std::mem::take(&mut state.waits);
        drop(state);
        if waits {
            self.has_new.notify_one();
        }
    }

    fn run(&self) {
        let mut watchlist = Watchlist::default();
        loop {
            self.tick(&mut watchlist);
            thread::sleep(TICK);
        }
    }

    /// Looks once at the lanes that poll, and wakes others where one does so for too long. Where
    /// nobody has polled for long, it waits until somebody does.
    pub(crate) fn tick(&self, watchlist: &mut Watchlist) {
        self.take_new(watchlist);
        let mut stuck = Vec::new();
        watchlist.lanes.retain_mut(|Watched { polling, seen }| {
            // In this order, so that what has left has entered.
            let left = polling.left.load(Ordering::Acquire);
            let epoch = (polling.entered.load(Ordering::Acquire), left);
            if seen.replace(epoch) != Some(epoch) {
                return true;
            }
            let in_poll = epoch.0 != epoch.1;
            if in_poll {
                stuck.push(Arc::clone(polling));
            }
            in_poll || !polling.unlist(epoch.0)
        });
        if watchlist.lanes.is_empty() {
            watchlist.quiet += 1;
        } else {
            watchlist.quiet = 0;
        }
        for polling in stuck {
            // What is woken may spawn.
            let _runtime = polling.runtime.enter();
            (polling.wake)();
            // An empty task from outside wakes a sleeping worker, which then polls sockets and
            // timers. One per tick is cheap beside a thread that is blocked.
            polling.runtime.spawn(async {});
        }
    }

    /// Puts the lanes on the thread's list that have come.
    fn take_new(&self, watchlist: &mut Watchlist) {
        let mut state = self.lock();
        if watchlist.quiet >= QUIET_TICKS {
            // Memory for as many as there may have been once.
            *watchlist = Watchlist::default();
            state.new.shrink_to_fit();
            while state.new.is_empty() {
                state.waits = true;
                state = self.has_new.wait(state);
            }
            state.waits = false;
        }
        let new = state.new.drain(..);
        watchlist.lanes.extend(new.map(|polling| Watched {
            polling,
            seen: None,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_long_poll_is_noticed_and_a_short_one_is_not() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("a runtime");
        let monitor = Monitor::get(runtime.handle()).expect("two workers");
        let (noticed, wait) = mpsc::channel();
        let polling = Polling::new(runtime.handle().clone(), move || {
            let _ = noticed.send(());
        });
        polling.watched(monitor, || {
            wait.recv_timeout(Duration::from_secs(30))
                .expect("the monitor wakes others while this stretch lasts");
        });
        while wait.try_recv().is_ok() {}
        assert_eq!(
            polling.entered.load(Ordering::SeqCst),
            polling.left.load(Ordering::SeqCst)
        );
    }

    #[test]
    fn a_tick_looks_only_at_lanes_that_poll_however_many_there_are() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (monitor, mut watchlist) = (Monitor::new(), Watchlist::default());
        let lane = || Polling::new(runtime.handle().clone(), || {});
        let idle: Vec<_> = (0..15_000).map(|_| lane()).collect();
        let busy = lane();
        assert!(monitor.lock().new.is_empty(), "nobody has polled");
        for polling in &idle {
            polling.watched(&monitor, || {});
        }
        // The first tick sees that they have polled, the second that they do so no more.
        for looked_at in [15_001, 15_001, 1, 1] {
            busy.watched(&monitor, || {});
            monitor.take_new(&mut watchlist);
            assert_eq!(watchlist.lanes.len(), looked_at);
            monitor.tick(&mut watchlist);
        }
        busy.watched(&monitor, || {});
        drop(busy);
        for _ in 0..3 {
            monitor.tick(&mut watchlist);
        }
        assert!(watchlist.lanes.is_empty(), "nobody polls");
    }

    #[test]
    fn a_stretch_that_lasts_keeps_its_lane_on_the_list_and_is_told_at_each_tick() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (monitor, mut watchlist) = (Monitor::new(), Watchlist::default());
        let (noticed, told) = mpsc::channel();
        let polling = Polling::new(runtime.handle().clone(), move || {
            noticed.send(()).expect("the test listens");
        });
        polling.watched(&monitor, || {
            for _ in 0..10 {
                monitor.tick(&mut watchlist);
            }
        });
        assert_eq!(told.try_iter().count(), 9, "all but the first");
        for _ in 0..2 {
            monitor.tick(&mut watchlist);
        }
        assert_eq!(told.try_iter().count(), 0);
        assert!(watchlist.lanes.is_empty(), "it was quiet for a tick");
    }

    #[test]
    fn one_worker_has_no_monitor() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        assert!(Monitor::get(runtime.handle()).is_none());
    }
}
