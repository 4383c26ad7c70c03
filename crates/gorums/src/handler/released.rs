//! Polls the handlers of a connection that released their turn and suspended.
//!
//! They run beside the lane, in one task for all of them: the runner. A task for each would cost
//! more than most of them do, and would let each reply go out alone. Where somebody could see the
//! difference, it is made up for:
//!
//! * The waker of a handler puts it in a queue, once, and wakes the runner; the runner polls what
//!   is in the queue, so many handlers in one turn on its worker.
//! * Where a handler takes its time in a poll, the [monitor](super::Monitor) starts another
//!   runner, which takes over the queue. The earlier one ends when that poll does. So there is one
//!   runner more for each handler that blocks its thread.
//! * What ends in a turn is told to the lane and to the I/O task together, at the end of the turn:
//!   a task that is woken before the next handler blocks could not run anywhere else. The monitor
//!   does it where a handler takes its time.
//! * A handler that awaits its release gets a task of its own. So do all handlers where there are
//!   several threads and no monitor.
//!
//! What is left is as in the lane: the one task that a handler woke last, such as the I/O task of a
//! node that it calls, waits where the next handler of the same turn blocks its thread.
//!
//! The runner ends when no handler is left. A runtime that shuts down drops it, and all handlers
//! with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop;

use super::lane::Lane;
use super::run::Background;
use super::{Monitor, Polling};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, spawn};

/// How many handlers are polled in one turn of the runner on its worker. Replies leave together at
/// the end of a turn. Fewer than in the lane: handlers that wait for the same event, such as a tick
/// of the clock, wake in waves, and small turns let the calls that follow spread instead of coming
/// as the next wave.
const HANDLERS_PER_TURN: usize = 16;

/// The released handlers of a connection.
pub(crate) struct ReleasedSet {
    lane: Arc<Lane>,
    /// The runtime has several threads that poll tasks, and no monitor.
    own_tasks: bool,
    monitor: Option<&'static Monitor>,
    /// From the first handler on: most connections have none.
    polling: OnceLock<Arc<Polling>>,
    /// Handlers that the lane has moved in this turn and that do not go on yet. The lane's task and
    /// the monitor share them.
    handed: Mutex<Vec<Background>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All of them. One that nobody can wake stays, too.
    slots: Slab<Arc<HandlerSlot>>,
    /// Those that were woken, in this order.
    ready: VecDeque<Arc<HandlerSlot>>,
    /// There is a runner.
    runs: bool,
    /// Generation of the active runner. Older runners stop.
    generation: u64,
    /// The runner is polling handlers, which was announced to the monitor.
    in_turn: bool,
    /// The runner, while nothing is ready.
    sleeping: Option<Waker>,
}

/// A handler in the set: its own waker.
struct HandlerSlot {
    set: Weak<ReleasedSet>,
    key: usize,
    /// It is in the queue.
    queued: AtomicBool,
    state: Mutex<HandlerState>,
}

enum HandlerState {
    Suspended(Background),
    Polled {
        /// It was taken out of the queue by another runner meanwhile.
        woken: bool,
    },
    /// Has ended, or left the set.
    Gone,
}

/// What a handler has come to when it was polled.
#[derive(PartialEq)]
enum After {
    Other,
    /// It was given a task of its own, which is to run before another handler blocks.
    Spawned,
}

impl ReleasedSet {
    /// Those of this lane, which runs on this runtime.
    pub(crate) fn new(
        lane: Arc<Lane>,
        runtime: &Handle,
        monitor: Option<&'static Monitor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            lane,
            monitor,
            own_tasks: monitor.is_none()
                && runtime.runtime_flavor() != RuntimeFlavor::CurrentThread,
            polling: OnceLock::new(),
            handed: Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn handed(&self) -> MutexGuard<'_, Vec<Background>> {
        self.handed.lock()
    }

    /// A handler that released and suspended. It goes on at the next
    /// [`hand_over`](Self::hand_over).
    pub(crate) fn push(&self, handler: Background) {
        self.handed().push(handler);
    }

    /// Lets the handlers go on that have come.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        let handlers = std::mem::take(&mut *self.handed());
        if handlers.is_empty() {
            return;
        }
        if self.monitor.is_some() {
            self.polling.get_or_init(|| {
                let set = Arc::downgrade(self);
                Polling::new(Handle::current(), move || {
                    if let Some(set) = set.upgrade() {
                        set.take_over();
                    }
                })
            });
        }
        // Not under the lock: a runtime that shuts down drops here what is spawned.
        let mut with_tasks = Vec::new();
        let mut state = self.state();
        for handler in handlers {
            if self.own_tasks || handler.wants_task() {
                with_tasks.push(handler);
                continue;
            }
            let vacant = state.slots.vacant_entry();
            let slot = Arc::new(HandlerSlot {
                set: Arc::downgrade(self),
                key: vacant.key(),
                queued: AtomicBool::new(true),
                state: Mutex::new(HandlerState::Suspended(handler)),
            });
            vacant.insert(Arc::clone(&slot));
            state.ready.push_back(slot);
        }
        let first = !state.ready.is_empty() && !state.runs;
        state.runs |= first;
        let generation = state.generation;
        let sleeping = if state.ready.is_empty() {
            None
        } else {
            state.sleeping.take()
        };
        drop(state);
        if first {
            spawn(Runner::new(Arc::clone(self), generation));
        }
        if let Some(runner) = sleeping {
            runner.wake();
        }
        with_tasks.into_iter().for_each(Background::spawn);
    }

    fn wake(&self, slot: Arc<HandlerSlot>) {
        let mut state = self.state();
        state.ready.push_back(slot);
        let sleeping = state.sleeping.take();
        drop(state);
        if let Some(runner) = sleeping {
            runner.wake();
        }
    }

    /// A handler has ended, or leaves.
    fn remove(&self, slot: &Arc<HandlerSlot>) {
        let mut state = self.state();
        // Not where all were dropped meanwhile, and others came.
        let known = state.slots.get(slot.key);
        if known.is_some_and(|known| Arc::ptr_eq(known, slot)) {
            state.slots.remove(slot.key);
        }
        // The runner ends with the last one, which an earlier runner may have polled.
        let sleeping = state
            .slots
            .is_empty()
            .then(|| state.sleeping.take())
            .flatten();
        drop(state);
        if let Some(runner) = sleeping {
            runner.wake();
        }
    }

    /// Starts another runner where there is one that neither sleeps nor gets on: it polls a handler
    /// that takes its time, or was woken on a thread that is blocked.
    pub(crate) fn take_over(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.runs || state.sleeping.is_some() {
            return;
        }
        self.end_turn(&mut state);
        state.generation += 1;
        let generation = state.generation;
        drop(state);
        self.lane.settle();
        spawn(Runner::new(Arc::clone(self), generation));
    }

    fn begin_turn(&self, state: &mut State) {
        if !std::mem::replace(&mut state.in_turn, true)
            && let (Some(monitor), Some(polling)) = (self.monitor, self.polling.get())
        {
            polling.enter(monitor);
        }
    }

    fn end_turn(&self, state: &mut State) {
        if std::mem::take(&mut state.in_turn)
            && let Some(polling) = self.polling.get()
        {
            polling.leave();
        }
    }

    /// The handlers are dropped: nobody is left to poll them.
    fn clear(&self) {
        let mut state = self.state();
        self.end_turn(&mut state);
        state.runs = false;
        state.sleeping = None;
        let slots = std::mem::take(&mut state.slots);
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        drop(ready);
        for (_, slot) in slots {
            let slot = std::mem::replace(&mut *slot.state(), HandlerState::Gone);
            // What panics here must not keep the others from being dropped.
            if let HandlerState::Suspended(handler) = slot {
                handler.drop_catching();
            }
        }
        self.lane.settle();
    }
}

impl HandlerSlot {
    fn state(&self) -> MutexGuard<'_, HandlerState> {
        self.state.lock()
    }

    /// It was taken out of the queue.
    fn poll(self: Arc<Self>, set: &ReleasedSet) -> After {
        // From here on whoever wakes it queues it again.
        self.queued.swap(false, Ordering::AcqRel);
        let mut handler = {
            let mut state = self.state();
            match std::mem::replace(&mut *state, HandlerState::Polled { woken: false }) {
                HandlerState::Suspended(handler) => handler,
                HandlerState::Polled { .. } => {
                    *state = HandlerState::Polled { woken: true };
                    return After::Other;
                }
                HandlerState::Gone => {
                    *state = HandlerState::Gone;
                    return After::Other;
                }
            }
        };
        let waker = Waker::from(Arc::clone(&self));
        let pending = Pin::new(&mut handler)
            .poll(&mut Context::from_waker(&waker))
            .is_pending();
        let leaves = pending && handler.wants_task();
        if !pending || leaves {
            *self.state() = HandlerState::Gone;
            set.remove(&self);
            if !leaves {
                drop(handler);
                return After::Other;
            }
            set.lane.settle();
            handler.spawn();
            return After::Spawned;
        }
        let mut state = self.state();
        match &*state {
            HandlerState::Polled { woken } => {
                let woken = *woken;
                *state = HandlerState::Suspended(handler);
                drop(state);
                if woken {
                    self.wake();
                }
            }
            // All were dropped while this one was polled.
            HandlerState::Suspended(_) | HandlerState::Gone => {
                drop(state);
                drop(handler);
            }
        }
        After::Other
    }
}

impl Wake for HandlerSlot {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(set) = self.set.upgrade()
        {
            set.wake(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

/// The task that polls the handlers of a set.
struct Runner {
    set: Arc<ReleasedSet>,
    generation: u64,
    ended: bool,
}

/// What the runner does next.
enum Step {
    Poll(Arc<HandlerSlot>),
    /// Nothing is ready.
    Sleep,
    /// No handler is left, or another runner has taken over.
    End,
}

impl Runner {
    fn new(set: Arc<ReleasedSet>, generation: u64) -> Self {
        Self {
            set,
            generation,
            ended: false,
        }
    }

    fn next(&self, cx: &Context<'_>) -> Step {
        let mut state = self.set.state();
        if state.generation != self.generation {
            return Step::End;
        }
        if let Some(slot) = state.ready.pop_front() {
            self.set.begin_turn(&mut state);
            return Step::Poll(slot);
        }
        self.set.end_turn(&mut state);
        if state.slots.is_empty() {
            state.runs = false;
            return Step::End;
        }
        state.sleeping = Some(cx.waker().clone());
        Step::Sleep
    }

    fn poll_handlers(&mut self, cx: &Context<'_>) -> Poll<()> {
        for _ in 0..HANDLERS_PER_TURN {
            match self.next(cx) {
                Step::Poll(slot) => {
                    let after = slot.poll(&self.set);
                    // What is polled after the task's budget is spent has to be polled again.
                    if after == After::Spawned || !coop::has_budget_remaining() {
                        break;
                    }
                }
                Step::Sleep => return Poll::Pending,
                Step::End => {
                    self.ended = true;
                    return Poll::Ready(());
                }
            }
        }
        let mut state = self.set.state();
        if state.generation == self.generation {
            self.set.end_turn(&mut state);
        }
        drop(state);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for Runner {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_handlers(cx);
        self.set.lane.settle();
        polled
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The runtime shuts down.
        let is_last = self.set.state().generation == self.generation;
        if is_last {
            self.set.clear();
        }
    }
}
