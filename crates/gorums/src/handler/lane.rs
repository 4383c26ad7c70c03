//! Starts the handlers of a connection one after the other.
//!
//! The lane is a task of its own, beside the task that reads and writes. It polls the handler that
//! holds the turn itself: a handler that never suspends costs no task. One that suspends while it
//! holds the turn keeps the lane waiting, which has nothing else to do. One that suspends after it
//! released is moved to the [set](super::released) of those that go on beside the lane, and the
//! lane goes on to the next; one that awaits its release is moved to a task of its own. So each
//! handler behaves as a task of its own, and pays for one only where somebody could see the
//! difference.
//!
//! Two more rules keep a handler that blocks its thread from delaying the replies of others:
//!
//! * Replies are queued without waking the I/O task; it is woken when the lane is done for now. A
//!   worker of tokio keeps the task that it woke last to itself, so an I/O task that was woken
//!   right before a handler blocks could not run anywhere else. The [monitor](super::Monitor) wakes
//!   it from outside where a handler takes its time.
//! * Handlers that are moved are handed over when the lane is done for now, too, all of them at
//!   once: a task that is woken before the next handler blocks could not run anywhere else either,
//!   and to end the lane's turn for each of them would let every message go out alone. Where a
//!   handler takes its time, the monitor hands them over from outside.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::context::{ConnectionInfo, RequestInfo, ServerCtx};
use super::credit::Credit;
use super::interceptor::Passage;
use super::lanes::Lanes;
use super::released::ReleasedSet;
use super::reply_queue::ReplyQueue;
use super::reply_sender::Sink;
use super::request::{Called, Request};
use super::shedding::{Candidate, Overload, Refusal, Shedding};
use super::unstarted::Unstarted;
use super::worker::Worker;
use super::{Monitor, Polling};
use crate::bounds::{Bound, Counts};
use crate::log::Throttle;
use crate::runtime::{BoxFuture, Clock, InProcess};
use crate::sync::{AtomicWaker, Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};
use crate::wire::{Features, NO_BOUND};

/// What all connections of a server have in common.
pub(crate) struct LaneSettings {
    pub(crate) passage: Arc<Passage>,
    /// The one turn of the server, where there is only one.
    pub(crate) server_turn: Option<Arc<Semaphore>>,
    pub(crate) max_encoding: usize,
    /// How many handlers may run at once, on one connection, after they released.
    pub(crate) max_running: usize,
    /// Whether a caller is told what a handler panicked with.
    pub(crate) expose_panics: bool,
    /// The way to the server itself, where it is one of its peers.
    pub(crate) in_process: Option<InProcess>,
    /// By which requests come too late for their turn.
    pub(crate) clock: Arc<dyn Clock>,
    /// Of requests that did.
    pub(crate) late: Throttle,
    /// When requests are shed, where any are.
    pub(crate) shedding: Option<Shedding>,
    /// Of those that were.
    pub(crate) sheds: Throttle,
    /// Those that have these settings.
    pub(crate) lanes: Lanes,
}

impl LaneSettings {
    /// How often the bounds of the server were reached.
    pub(crate) fn reached(&self) -> &Arc<Counts> {
        &self.passage.reached
    }

    /// Without bounds, for tests and fuzzing.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn unbounded(clock: Arc<dyn Clock>) -> Self {
        Self {
            passage: Arc::new(Passage {
                interceptors: Box::new([]),
                max_decoding: usize::MAX,
                reached: Arc::default(),
            }),
            server_turn: None,
            max_encoding: usize::MAX,
            max_running: usize::MAX,
            expose_panics: false,
            in_process: None,
            clock,
            late: Throttle::default(),
            shedding: None,
            sheds: Throttle::default(),
            lanes: Lanes::default(),
        }
    }
}

/// What the lane shares with the I/O task and with the handlers that were moved.
pub(crate) struct Lane {
    pub(super) settings: Arc<LaneSettings>,
    pub(super) replies: Arc<ReplyQueue>,
    /// What the peer understands.
    pub(super) features: Features,
    pub(super) state: Mutex<State>,
    pub(super) task: AtomicWaker,
}

#[derive(Default)]
pub(super) struct State {
    /// What the requests that come have in common.
    info: Arc<ConnectionInfo>,
    pub(super) waiting: VecDeque<Request>,
    /// The cost of the waiting requests.
    pub(super) bytes: usize,
    /// The request whose handler the lane polls.
    pub(super) current: Option<(u64, ServerCtx)>,
    /// The requests whose handlers were moved, by message id: in an order that does not change from
    /// run to run.
    pub(super) moved: BTreeMap<u64, Vec<ServerCtx>>,
    pub(super) running: usize,
    /// When a handler was first found to run, by its message id, where anybody has looked.
    pub(super) found: BTreeMap<u64, Instant>,
    /// The lane is to be woken: it was at its bound of running handlers.
    pub(super) has_room: bool,
    /// Cancellations of requests that have not started.
    pub(super) unstarted: Unstarted,
    /// Of no account where nothing is shed.
    overload: Overload,
    /// Of the requests of streamed methods, from the time that they come until their handlers have
    /// ended, where the peer gives credit.
    pub(super) credits: BTreeMap<u64, Arc<Credit>>,
    /// No credit comes any more, and none is needed.
    pub(super) needs_no_credit: bool,
    /// The I/O task wants to be woken when the waiting requests cost no more than this.
    pub(super) wake_below: Option<usize>,
    /// No request comes any more.
    pub(super) finished: bool,
    /// The connection ended.
    pub(super) gone: bool,
}

/// A request that has come to be the current one.
pub(super) struct Begun {
    pub(super) id: u64,
    pub(super) called: Called,
    pub(super) payload: Bytes,
    pub(super) ctx: ServerCtx,
    /// Why it is not run, where it is not.
    pub(super) refusal: Option<Refusal>,
    /// When it began, where it is measured how long the method takes.
    pub(super) measured: Option<Instant>,
}

impl State {
    /// Why the request is not run that has its turn now, if it is not.
    fn judge(
        &mut self,
        settings: &LaneSettings,
        called: &Called,
        now: Instant,
        waited: Duration,
        deadline: Option<Instant>,
    ) -> Option<Refusal> {
        let shedding = settings.shedding.as_ref()?;
        let entry = called.entry()?;
        let candidate = Candidate {
            now,
            waited,
            deadline,
            priority: entry.priority,
            needed: &entry.needed,
            is_at_bound: self.wake_below.is_some(),
        };
        let refusal = self.overload.judge(shedding, &candidate)?;
        // Nobody would hear of one that was shed.
        (!called.is_one_way()).then_some(refusal)
    }

    /// See [`Lane::needs_credit`].
    fn needs_credit(&self, max_running: usize) -> bool {
        // One that was cancelled and still runs ends by itself.
        let mut handlers = self.moved.values().flatten();
        let is_full = self.running >= max_running && !handlers.any(ServerCtx::is_cancelled);
        let credits = || {
            let moved = self
                .moved
                .iter()
                .filter(|(_, handlers)| !handlers.is_empty());
            moved.map(|(id, _)| self.credits.get(id))
        };
        // One that has used up its credit may wait for one that has a reply for which there is none.
        is_full
            && credits().all(|credit| credit.is_some_and(|credit| credit.is_used_up()))
            && credits().flatten().any(|credit| credit.is_missed())
    }
}

impl Lane {
    /// A lane and the task that works it off.
    pub(crate) fn start(
        settings: Arc<LaneSettings>,
        info: Arc<ConnectionInfo>,
        replies: Arc<ReplyQueue>,
        features: Features,
    ) -> (Arc<Self>, BoxFuture<'static, ()>) {
        let (lane, _, task) = Self::start_with_set(settings, info, replies, features);
        (lane, task)
    }

    /// The same, with the handlers that will go on beside it.
    pub(crate) fn start_with_set(
        settings: Arc<LaneSettings>,
        info: Arc<ConnectionInfo>,
        replies: Arc<ReplyQueue>,
        features: Features,
    ) -> (Arc<Self>, Arc<ReleasedSet>, BoxFuture<'static, ()>) {
        replies.count_in(settings.reached());
        let lane = Arc::new(Self {
            settings,
            replies,
            features,
            state: Mutex::new(State {
                info,
                ..State::default()
            }),
            task: AtomicWaker::new(),
        });
        lane.settings.lanes.add(&lane);
        let runtime = Handle::current();
        let monitor = Monitor::get(&runtime);
        let released = ReleasedSet::new(Arc::clone(&lane), &runtime, monitor);
        let polling = monitor.map(|monitor| {
            let replies = Arc::downgrade(&lane.replies);
            let released = Arc::downgrade(&released);
            let polling = Polling::new(runtime, move || {
                if let Some(replies) = replies.upgrade() {
                    replies.wake_io();
                }
                if let Some(released) = released.upgrade() {
                    released.hand_over();
                    // The handler may have woken the runner, on the thread that it now blocks.
                    released.take_over();
                }
            });
            (monitor, polling)
        });
        let mut worker = Worker {
            lane: Arc::clone(&lane),
            polling,
            run: None,
            spare: None,
            has_moved: false,
            released: Arc::clone(&released),
            permit: None,
            acquiring: None,
        };
        let task = Box::pin(poll_fn(move |cx| worker.poll(cx)));
        (lane, released, task)
    }

    #[inline]
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds requests in the order in which they came.
    pub(crate) fn push(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let arrived = self.settings.shedding.map(|_| self.settings.clock.now());
        let mut displaced = Vec::new();
        let mut state = self.state();
        for mut request in requests.drain(..) {
            request.arrived = arrived;
            if !request.is_as_expected(&self.features) {
                request.refuse_kind();
            }
            state.bytes += request.cost();
            state.unstarted.add(request.id);
            if self.features.credit && request.is_streamed(&self.features) && !state.needs_no_credit
            {
                displaced.extend(state.credits.insert(request.id, Arc::new(Credit::new())));
            }
            state.waiting.push_back(request);
        }
        drop(state);
        // What the caller gives from now on is for its newer request of the same id. The older one
        // would wait for ever.
        for credit in displaced {
            credit.give(NO_BOUND);
        }
        self.task.wake();
    }

    /// Requests start from now on as those of another connection.
    pub(crate) fn go_on(&self, info: Arc<ConnectionInfo>) {
        self.state().info = info;
    }

    /// The cost of the requests that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state().bytes
    }

    /// Whether nothing starts before a caller gives credit or gives up: as many handlers run as may,
    /// all have used up the credit of their callers, and one of them has a reply more.
    pub(crate) fn needs_credit(&self) -> bool {
        self.state().needs_credit(self.settings.max_running)
    }

    /// Wakes the I/O task when the waiting requests cost no more than this, or nothing starts before
    /// there is credit.
    pub(crate) fn wake_when_below(&self, bytes: usize) {
        let mut state = self.state();
        if state.bytes <= bytes || state.needs_credit(self.settings.max_running) {
            drop(state);
            self.replies.wake_io();
        } else {
            state.wake_below = Some(bytes);
        }
    }

    /// The caller of this request gave up.
    pub(crate) fn cancel(&self, id: u64) {
        let mut state = self.state();
        if let Some((current, ctx)) = &state.current
            && *current == id
        {
            ctx.cancel();
        } else if let Some(moved) = state.moved.get(&id)
            && !moved.iter().all(ServerCtx::is_cancelled)
        {
            moved.iter().for_each(ServerCtx::cancel);
        } else {
            let State {
                unstarted, waiting, ..
            } = &mut *state;
            unstarted.cancel(id, waiting);
        }
    }

    /// The caller of this request takes so many more bytes of its replies. Nothing is kept for a
    /// request that is not here.
    pub(crate) fn give(&self, id: u64, bytes: u64) {
        let credit = self.state().credits.get(&id).cloned();
        if let Some(credit) = credit {
            credit.give(bytes);
        }
    }

    /// What the caller of this request takes of its replies.
    pub(super) fn credit(&self, id: u64) -> Option<Arc<Credit>> {
        self.state().credits.get(&id).cloned()
    }

    /// The handler that these replies were of has ended.
    pub(super) fn end_credit(&self, id: u64, sink: &Sink) {
        let Some(ended) = &sink.credit else {
            return;
        };
        // A peer may have sent another request with this id.
        let removed = {
            let mut state = self.state();
            let is_own = |credit: &Arc<Credit>| Arc::ptr_eq(credit, ended);
            match state.credits.get(&id).is_some_and(is_own) {
                true => state.credits.remove(&id),
                false => None,
            }
        };
        // Two that waited at the same time have one in common, and one of them goes on.
        if let Some(credit) = removed
            && Arc::strong_count(&credit) > 2
        {
            credit.give(NO_BOUND);
        }
    }

    /// Nothing is read any more, so no credit comes: what was asked is answered all the same, as
    /// fast as the peer takes it.
    pub(crate) fn end_credits(&self) {
        let credits = {
            let mut state = self.state();
            state.needs_no_credit = true;
            std::mem::take(&mut state.credits)
        };
        for credit in credits.into_values() {
            credit.give(NO_BOUND);
        }
    }

    /// No request comes any more; those that wait are still handled.
    pub(crate) fn finish(&self) {
        self.state().finished = true;
        self.task.wake();
    }

    /// The connection ended, and no request comes any more.
    pub(crate) fn disconnect(&self) {
        self.state().finished = true;
        self.leave();
    }

    /// The client has gone: handlers are told, and go on. What it sent before may still come.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        state.gone = true;
        if let Some((_, ctx)) = &state.current {
            ctx.cancel();
        }
        state.moved.values().flatten().for_each(ServerCtx::cancel);
        drop(state);
        self.replies.close();
        self.task.wake();
    }

    /// The server was stopped: what has not started never will.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        state.unstarted = Unstarted::default();
        drop(state);
        drop(waiting);
        self.disconnect();
    }

    /// Whether no handler runs and none waits.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.current.is_none() && state.running == 0
    }

    /// The current request is done, if there was one. Makes the next one the current, if there is
    /// one and it may start. Under one lock: in between a request would be nowhere, and its
    /// cancellation lost.
    #[inline]
    pub(super) fn next(
        &self,
        may_start: bool,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Option<Begun> {
        let mut state = self.state();
        let last = state.current.take();
        if !may_start || state.running >= self.settings.max_running {
            if !state.waiting.is_empty() {
                self.settings.reached().add(match may_start {
                    true => Bound::RunningHandlers,
                    false => Bound::ReplyBytes,
                });
            }
            return None;
        }
        let request = state.waiting.pop_front()?;
        state.bytes -= request.cost();
        let bytes = state.bytes;
        let room = state.wake_below.take_if(|below| bytes <= *below).is_some();
        let Request {
            id,
            called,
            metadata,
            payload,
            size: _,
            deadline,
            is_resent,
            arrived,
        } = request;
        let method = called.name();
        let request = RequestInfo {
            id,
            deadline,
            is_one_way: called.is_one_way(),
            is_resent,
        };
        // Another connection may carry the session by now.
        let last = last.filter(|(_, last)| last.is_of(&state.info));
        let needs_time = deadline.is_some() || arrived.is_some();
        let now = needs_time.then(|| self.settings.clock.now());
        let refusal = now.and_then(|now| {
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Some(Refusal::Late);
            }
            let waited = now.saturating_duration_since(arrived?);
            state.judge(&self.settings, &called, now, waited, deadline)
        });
        let measured = now.filter(|_| arrived.is_some());
        let ctx = match last {
            Some((_, last)) => last.renew(method, metadata, permit.take(), request),
            None => {
                let method = Arc::clone(method);
                let info = Arc::clone(&state.info);
                let replies = Arc::clone(&self.replies);
                ServerCtx::new(method, metadata, info, permit.take())
                    .replying_to(replies)
                    .of(request)
            }
        };
        let cancelled = state.unstarted.remove(id);
        if state.waiting.is_empty() {
            state.unstarted = Unstarted::default();
        }
        if cancelled || state.gone {
            ctx.cancel();
        }
        state.current = Some((id, ctx.clone()));
        drop(state);
        if room {
            self.replies.wake_io();
        }
        Some(Begun {
            id,
            called,
            payload,
            ctx,
            refusal,
            measured,
        })
    }

    /// The current request is done.
    #[inline]
    pub(super) fn end_current(&self) {
        self.state().current = None;
    }

    /// The current request's handler goes on beside the lane.
    #[inline]
    pub(super) fn move_current(&self) {
        let mut state = self.state();
        if let Some((id, ctx)) = state.current.take() {
            state.moved.entry(id).or_default().push(ctx);
            state.running += 1;
            let is_stuck =
                state.wake_below.is_some() && state.needs_credit(self.settings.max_running);
            drop(state);
            // The credit may be behind requests, for which reading has paused.
            if is_stuck {
                self.replies.wake_io();
            }
        }
    }

    /// A handler that was moved is done. To be followed by [`settle`](Self::settle).
    #[inline]
    pub(super) fn end_moved(&self, id: u64, ctx: &ServerCtx) {
        let mut state = self.state();
        if let Some(moved) = state.moved.get_mut(&id) {
            moved.retain(|other| !other.is(ctx));
            if moved.is_empty() {
                state.moved.remove(&id);
            }
        }
        state.running -= 1;
        state.has_room |= state.running + 1 == self.settings.max_running;
    }

    /// Wakes whom handlers that were moved have not: the I/O task for their replies, and the lane
    /// where there is room for others.
    pub(crate) fn settle(&self) {
        let has_room = std::mem::take(&mut self.state().has_room);
        self.replies.wake_io();
        if has_room {
            self.task.wake();
        }
    }
}
