//! One thread per process that notices handlers which block their thread.
//!
//! A worker of tokio that is stuck in a handler holds on to two things: tasks that it woke last
//! (no other worker may take them from its slot), and, where the other workers sleep, the duty to
//! poll sockets and timers. Replies would wait for the handler to end. So every stretch of polling
//! handlers is announced to this monitor; where one lasts longer than a tick, the monitor wakes the
//! connection's I/O task and another worker from outside, and has the handlers that released go on in
//! another task. The cost for a handler that does not block is two atomic stores.
//!
//! On a runtime with one worker nothing could take over, and the monitor is not used: a simulation
//! never starts the thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::sync::{Mutex, MutexGuard};

/// How long a handler may hold its thread before another worker is woken, at most twice this.
const TICK: Duration = Duration::from_millis(1);

/// After so many ticks without any polling the monitor sleeps until it is needed again.
const IDLE_TICKS: u32 = 1000;

/// The announcements of one connection's handlers: how often polling them began and ended.
pub(crate) struct Polling {
    entered: AtomicU64,
    left: AtomicU64,
    runtime: Handle,
    /// Wakes and spawns the tasks that must not wait for a handler, in the runtime.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Polling {
    /// Runs a stretch of polling under the monitor's eye.
    pub(crate) fn watched<R>(&self, monitor: &Monitor, poll: impl FnOnce() -> R) -> R {
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
    pub(crate) fn enter(&self, monitor: &Monitor) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        monitor.rouse();
    }

    /// A stretch that began has ended, or is watched no more.
    pub(crate) fn leave(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

/// The process' monitor.
pub(crate) struct Monitor {
    watched: Mutex<Vec<Watched>>,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Watched {
    polling: Weak<Polling>,
    seen: (u64, u64),
}

impl Monitor {
    /// The monitor, if this runtime has workers that could take over from a blocked one.
    pub(crate) fn get(runtime: &Handle) -> Option<&'static Self> {
        static MONITOR: OnceLock<Option<Monitor>> = OnceLock::new();
        if runtime.metrics().num_workers() < 2 {
            return None;
        }
        let monitor = MONITOR
            .get_or_init(|| {
                let started = thread::Builder::new()
                    .name("gorums-monitor".to_owned())
                    .spawn(|| {
                        loop {
                            thread::park();
                            if let Some(Some(monitor)) = MONITOR.get() {
                                monitor.run();
                            }
                        }
                    });
                match started {
                    Ok(handle) => {
                        let monitor = Monitor {
                            watched: Mutex::new(Vec::new()),
                            asleep: AtomicBool::new(false),
                            thread: OnceLock::new(),
                        };
                        monitor.thread.get_or_init(|| handle.thread().clone());
                        Some(monitor)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no thread for the monitor: a handler that blocks its thread can delay others");
                        None
                    }
                }
            })
            .as_ref()?;
        Some(monitor)
    }

    /// Starts to watch a lane that runs on this runtime; it ends when the lane is dropped.
    pub(crate) fn watch(
        &self,
        runtime: Handle,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Polling> {
        let polling = Arc::new(Polling {
            entered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            runtime,
            wake: Box::new(wake),
        });
        let mut watched = self.lock();
        watched.retain(|w| w.polling.strong_count() > 0);
        watched.push(Watched {
            polling: Arc::downgrade(&polling),
            seen: (0, 0),
        });
        drop(watched);
        // The first unpark also tells the thread that the monitor exists.
        self.unpark();
        polling
    }

    fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock()
    }

    fn run(&self) {
        let mut idle = 0;
        loop {
            idle = if self.tick() { 0 } else { idle + 1 };
            if idle < IDLE_TICKS {
                thread::sleep(TICK);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // A stretch that began before the store has not seen it: look once more.
            if !self.tick() {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }

    /// Whether any lane polled since the last tick.
    fn tick(&self) -> bool {
        let mut active = false;
        let mut stuck = Vec::new();
        self.lock().retain_mut(|watched| {
            let Some(polling) = watched.polling.upgrade() else {
                return false;
            };
            // In this order, so that what has left has entered.
            let left = polling.left.load(Ordering::SeqCst);
            let epoch = (polling.entered.load(Ordering::SeqCst), left);
            let in_poll = epoch.0 != epoch.1;
            active |= in_poll || epoch != watched.seen;
            if in_poll && epoch == watched.seen {
                stuck.push(polling);
            }
            watched.seen = epoch;
            true
        });
        for polling in stuck {
            // What is woken may spawn.
            let _runtime = polling.runtime.enter();
            (polling.wake)();
            // An empty task from outside wakes a sleeping worker, which then polls sockets and
            // timers. One per tick is cheap beside a thread that is blocked.
            polling.runtime.spawn(async {});
        }
        active
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
        let polling = monitor.watch(runtime.handle().clone(), move || {
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
    fn one_worker_has_no_monitor() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        assert!(Monitor::get(runtime.handle()).is_none());
    }
}
