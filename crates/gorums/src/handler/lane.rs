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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use super::context::{ConnectionInfo, ServerCtx};
use super::handling::Handling;
use super::interceptor::{Incoming, Interceptor, Next, Reply};
use super::registry::MethodKind;
use super::released::ReleasedSet;
use super::reply_queue::{Answer, ReplyQueue};
use super::reply_sender::{Sink, Way};
use super::request::Request;
use super::{Monitor, Polling};
use crate::error::Status;
use crate::runtime::{BoxFuture, InProcess};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{AtomicWaker, Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, spawn};

/// How many handlers are polled in one turn of the lane on its worker. Replies leave together at
/// the end of a turn: fewer handlers make more and smaller writes.
const HANDLERS_PER_TURN: usize = 128;

/// What all connections of a server have in common.
pub(crate) struct LaneSettings {
    pub(crate) interceptors: Arc<[Arc<dyn Interceptor>]>,
    /// The one turn of the server, where there is only one.
    pub(crate) server_turn: Option<Arc<Semaphore>>,
    /// The largest request of a service that does not say otherwise.
    pub(crate) max_decoding: usize,
    pub(crate) max_encoding: usize,
    /// How many handlers may run at once, on one connection, after they released.
    pub(crate) max_running: usize,
    /// The way to the server itself, where it is one of its peers.
    pub(crate) in_process: Option<InProcess>,
}

/// What the lane shares with the I/O task and with the handlers that were moved.
pub(crate) struct Lane {
    settings: Arc<LaneSettings>,
    info: Arc<ConnectionInfo>,
    replies: Arc<ReplyQueue>,
    /// The peer knows the frame that ends a streamed reply.
    stream_end: bool,
    state: Mutex<State>,
    task: AtomicWaker,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    /// The cost of the waiting requests.
    bytes: usize,
    /// The request whose handler the lane polls.
    current: Option<(u64, ServerCtx)>,
    /// The requests whose handlers were moved, by message id: in an order that does not change from
    /// run to run.
    moved: BTreeMap<u64, Vec<ServerCtx>>,
    running: usize,
    /// The lane is to be woken: it was at its bound of running handlers.
    has_room: bool,
    /// Whose callers may give up before they start.
    unstarted: Unstarted,
    /// The I/O task wants to be woken when the waiting requests cost no more than this.
    wake_below: Option<usize>,
    /// No request comes any more.
    finished: bool,
    /// The connection ended.
    gone: bool,
}

/// The ids of the requests that wait, each with how many of them there are and how many of these
/// were given up. Kept from the first cancellation on until none waits: most connections never pay
/// for it, and looking through all that waits at each cancellation would let a client that sends
/// nothing else take the thread.
#[derive(Default)]
struct Unstarted(Option<BTreeMap<u64, (usize, usize)>>);

impl Unstarted {
    fn add(&mut self, id: u64) {
        if let Some(ids) = &mut self.0 {
            ids.entry(id).or_default().0 += 1;
        }
    }

    /// The caller of one more request with this id gave up, where there is one.
    fn cancel(&mut self, id: u64, waiting: &VecDeque<Request>) {
        if waiting.is_empty() {
            return;
        }
        let ids = self.0.get_or_insert_with(|| {
            let mut ids = BTreeMap::<_, (usize, usize)>::new();
            for request in waiting {
                ids.entry(request.id).or_default().0 += 1;
            }
            ids
        });
        if let Some((waiting, cancelled)) = ids.get_mut(&id) {
            *cancelled = (*cancelled + 1).min(*waiting);
        }
    }

    /// The first request with this id starts. True if its caller gave up.
    fn remove(&mut self, id: u64) -> bool {
        let Some(ids) = &mut self.0 else {
            return false;
        };
        let Some((waiting, cancelled)) = ids.get_mut(&id) else {
            return false;
        };
        let was_cancelled = *cancelled > 0;
        *waiting -= 1;
        *cancelled = cancelled.saturating_sub(1);
        if *waiting == 0 {
            ids.remove(&id);
        }
        was_cancelled
    }
}

impl Lane {
    /// A lane and the task that works it off.
    pub(crate) fn start(
        settings: Arc<LaneSettings>,
        info: Arc<ConnectionInfo>,
        replies: Arc<ReplyQueue>,
        stream_end: bool,
    ) -> (Arc<Self>, BoxFuture<'static, ()>) {
        let (lane, _, task) = Self::start_with_set(settings, info, replies, stream_end);
        (lane, task)
    }

    /// The same, with the handlers that will go on beside it.
    pub(crate) fn start_with_set(
        settings: Arc<LaneSettings>,
        info: Arc<ConnectionInfo>,
        replies: Arc<ReplyQueue>,
        stream_end: bool,
    ) -> (Arc<Self>, Arc<ReleasedSet>, BoxFuture<'static, ()>) {
        let lane = Arc::new(Self {
            settings,
            info,
            replies,
            stream_end,
            state: Mutex::default(),
            task: AtomicWaker::new(),
        });
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
            has_moved: false,
            released: Arc::clone(&released),
            permit: None,
            acquiring: None,
        };
        let task = Box::pin(poll_fn(move |cx| worker.poll(cx)));
        (lane, released, task)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds requests in the order in which they came.
    pub(crate) fn push(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let mut state = self.state();
        for request in requests.drain(..) {
            state.bytes += request.cost();
            state.unstarted.add(request.id);
            state.waiting.push_back(request);
        }
        drop(state);
        self.task.wake();
    }

    /// The cost of the requests that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state().bytes
    }

    /// Wakes the I/O task when the waiting requests cost no more than this.
    pub(crate) fn wake_when_below(&self, bytes: usize) {
        let mut state = self.state();
        if state.bytes <= bytes {
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
        } else if let Some(moved) = state.moved.remove(&id) {
            moved.iter().for_each(ServerCtx::cancel);
        } else {
            let State {
                unstarted, waiting, ..
            } = &mut *state;
            unstarted.cancel(id, waiting);
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
    fn next(
        &self,
        may_start: bool,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Option<(Request, ServerCtx)> {
        let mut state = self.state();
        let last = state.current.take();
        if !may_start || state.running >= self.settings.max_running {
            return None;
        }
        let mut request = state.waiting.pop_front()?;
        state.bytes -= request.cost();
        let bytes = state.bytes;
        let room = state.wake_below.take_if(|below| bytes <= *below).is_some();
        let method = Arc::clone(&request.method);
        let metadata = std::mem::take(&mut request.metadata);
        let info = Arc::clone(&self.info);
        let ctx = match last {
            Some((_, last)) => last.renew(method, metadata, info, permit.take()),
            None => ServerCtx::new(method, metadata, info, permit.take()),
        };
        let cancelled = state.unstarted.remove(request.id);
        if state.waiting.is_empty() {
            state.unstarted = Unstarted::default();
        }
        if cancelled || state.gone {
            ctx.cancel();
        }
        state.current = Some((request.id, ctx.clone()));
        drop(state);
        if room {
            self.replies.wake_io();
        }
        Some((request, ctx))
    }

    /// The current request is done.
    fn end_current(&self) {
        self.state().current = None;
    }

    /// The current request's handler goes on beside the lane.
    fn move_current(&self) {
        let mut state = self.state();
        if let Some((id, ctx)) = state.current.take() {
            state.moved.entry(id).or_default().push(ctx);
            state.running += 1;
        }
    }

    /// A handler that was moved is done. To be followed by [`settle`](Self::settle).
    fn end_moved(&self, id: u64, ctx: &ServerCtx) {
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

/// A request whose handler was started, until its reply is queued and its turn given up.
struct Run {
    id: u64,
    ctx: ServerCtx,
    kind: MethodKind,
    max_encoding: usize,
    /// Of a streamed method.
    sink: Option<Arc<Sink>>,
    stage: Stage,
}

type HandlerFuture = BoxFuture<'static, Result<Reply, Status>>;

enum Stage {
    /// Nothing has been polled.
    Start(Next, Incoming),
    Handling(HandlerFuture),
    /// The queue of replies is full.
    Answering(BoxFuture<'static, ()>),
    Ended,
}

impl Run {
    /// Ready when the handler has ended, its reply is queued, and its turn given up.
    fn poll(&mut self, cx: &mut Context<'_>, lane: &Lane) -> Poll<()> {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let mut answering = match stage {
            Stage::Answering(answering) => answering,
            // The lane does not poll what has ended.
            Stage::Ended => return Poll::Pending,
            Stage::Start(..) | Stage::Handling(_) => {
                let (polled, handling) = poll_catching(stage, cx);
                let Poll::Ready(result) = polled else {
                    self.stage = handling.map_or(Stage::Ended, Stage::Handling);
                    return Poll::Pending;
                };
                if let Some(sink) = &self.sink {
                    sink.ended.store(true, Ordering::Release);
                }
                let queued = match self.answer(lane.stream_end, &result) {
                    None => true,
                    Some(answer) => lane
                        .replies
                        .try_push(self.id, self.ctx.method(), &answer, self.max_encoding)
                        .is_some(),
                };
                if queued {
                    // Only now, so that replies of handlers that hold their turn keep the order.
                    self.ctx.turn().end();
                    return Poll::Ready(());
                }
                self.wait_for_room(lane, result)
            }
        };
        if answering.as_mut().poll(cx).is_pending() {
            self.stage = Stage::Answering(answering);
            return Poll::Pending;
        }
        self.ctx.turn().end();
        Poll::Ready(())
    }

    /// What is queued when the handler has ended with this.
    fn answer<'a>(
        &self,
        stream_end: bool,
        result: &'a Result<Reply, Status>,
    ) -> Option<Answer<'a>> {
        let ends = self.kind == MethodKind::Streamed && stream_end;
        match result {
            Ok(reply) if reply.is_queued() => None,
            Ok(reply) if self.kind == MethodKind::TwoWay => Some(Answer::Reply(reply.payload())),
            Ok(_) if ends => Some(Answer::End(None)),
            Ok(_) => None,
            Err(status) if ends => Some(Answer::End(Some(status))),
            Err(status) => Some(Answer::Error(status)),
        }
    }

    fn wait_for_room(&self, lane: &Lane, result: Result<Reply, Status>) -> BoxFuture<'static, ()> {
        let replies = Arc::clone(&lane.replies);
        let stream_end = lane.stream_end;
        let run = Self {
            stage: Stage::Ended,
            ctx: self.ctx.clone(),
            sink: None,
            ..*self
        };
        Box::pin(async move {
            if let Some(answer) = run.answer(stream_end, &result) {
                replies
                    .push_last(run.id, run.ctx.method(), &answer, run.max_encoding)
                    .await;
            }
        })
    }
}

/// Starts or polls a handler; a panic becomes its reply. What has not ended is handed back.
fn poll_catching(
    stage: Stage,
    cx: &mut Context<'_>,
) -> (Poll<Result<Reply, Status>>, Option<HandlerFuture>) {
    // The future is never polled again after a panic, and what it shares with others is theirs to
    // keep consistent, as with any thread that panics.
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut handling = match stage {
            Stage::Start(next, incoming) => next.start(incoming),
            Stage::Handling(handling) => handling,
            Stage::Answering(_) | Stage::Ended => return (Poll::Pending, None),
        };
        // What has ended is dropped in here: that may panic as well.
        match handling.as_mut().poll(cx) {
            Poll::Pending => (Poll::Pending, Some(handling)),
            ready => (ready, None),
        }
    }));
    polled.unwrap_or_else(|panic| (Poll::Ready(Err(panicked(&*panic))), None))
}

/// The lane's task.
struct Worker {
    lane: Arc<Lane>,
    polling: Option<(&'static Monitor, Arc<Polling>)>,
    run: Option<Run>,
    /// Handlers were moved in this turn of the lane: some may not have been handed over yet.
    has_moved: bool,
    released: Arc<ReleasedSet>,
    /// The server's turn, acquired for the next request.
    permit: Option<OwnedSemaphorePermit>,
    acquiring: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
}

/// Why the lane stopped polling handlers.
enum Stop {
    /// Nothing can be done before something happens.
    Waiting,
    /// It is somebody else's turn on the worker.
    Yield,
    /// All requests have been started, and no more come.
    Finished,
}

impl Worker {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.task.register(cx.waker());
        let stop = match self.polling.clone() {
            Some((monitor, polling)) => polling.watched(monitor, || self.poll_handlers(cx)),
            None => self.poll_handlers(cx),
        };
        // In this order: what is woken or spawned later pushes the earlier out of the slot that
        // only this worker takes from.
        self.lane.replies.wake_io();
        if std::mem::take(&mut self.has_moved) {
            self.released.hand_over();
        }
        match stop {
            Stop::Waiting => Poll::Pending,
            Stop::Finished => Poll::Ready(()),
            Stop::Yield => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_handlers(&mut self, cx: &mut Context<'_>) -> Stop {
        for _ in 0..HANDLERS_PER_TURN {
            let mut run = match self.run.take() {
                Some(run) => run,
                None => {
                    // With its replies at their bound a client that takes none could have as many
                    // more made as there may be handlers. Nothing that has to happen for room to
                    // come waits for a handler that is not started here: docs/ordering.md has the
                    // argument.
                    let may_start = self.lane.replies.poll_below_bound(cx).is_ready();
                    if !may_start {
                        // The server's turn is for those who can use it, and may come meanwhile.
                        self.acquiring = None;
                    } else if self.poll_server_turn(cx).is_pending() {
                        return Stop::Waiting;
                    }
                    let next = self.lane.next(may_start, &mut self.permit);
                    let Some((request, ctx)) = next else {
                        // The turn is not kept while there is nothing to do with it.
                        self.permit = None;
                        let state = self.lane.state();
                        return if state.finished && state.waiting.is_empty() {
                            Stop::Finished
                        } else {
                            Stop::Waiting
                        };
                    };
                    self.start(request, ctx)
                }
            };
            if self.poll_run(&mut run, cx).is_ready() {
                if self.lane.settings.server_turn.is_some() {
                    // The next one may have to wait for others.
                    self.lane.end_current();
                }
                continue;
            }
            if run.ctx.turn().poll_released(cx).is_ready() {
                self.lane.move_current();
                self.has_moved = true;
                self.released.push(Moved {
                    run,
                    lane: Arc::clone(&self.lane),
                    polling: self.polling.clone(),
                    apart: false,
                });
                continue;
            }
            self.run = Some(run);
            return Stop::Waiting;
        }
        Stop::Yield
    }

    fn poll_run(&self, run: &mut Run, cx: &mut Context<'_>) -> Poll<()> {
        let Some(in_process) = &self.lane.settings.in_process else {
            return run.poll(cx, &self.lane);
        };
        let handling = Handling {
            ctx: run.ctx.clone(),
            in_process: in_process.clone(),
        };
        handling.during(|| run.poll(cx, &self.lane))
    }

    /// Ready when the next handler may start as far as other connections are concerned.
    fn poll_server_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &self.lane.settings.server_turn else {
            return Poll::Ready(());
        };
        if self.permit.is_some() || self.lane.state().waiting.is_empty() {
            return Poll::Ready(());
        }
        let acquiring = self.acquiring.get_or_insert_with(|| {
            let turn = Arc::clone(turn);
            Box::pin(async move { turn.acquire_owned().await.ok() })
        });
        self.permit = std::task::ready!(acquiring.as_mut().poll(cx));
        self.acquiring = None;
        Poll::Ready(())
    }

    fn start(&mut self, request: Request, ctx: ServerCtx) -> Run {
        let lane = &self.lane;
        let Request {
            id, entry, payload, ..
        } = request;
        let (kind, max_encoding) = match &entry {
            Some(entry) => (entry.kind, entry.max_encoding),
            None => (MethodKind::TwoWay, None),
        };
        let max_encoding = max_encoding.unwrap_or(lane.settings.max_encoding);
        let sink = (kind == MethodKind::Streamed).then(|| {
            Arc::new(Sink {
                id,
                method: Arc::clone(ctx.method_name()),
                replies: Arc::clone(&lane.replies),
                max_encoding,
                ended: AtomicBool::new(false),
            })
        });
        let next = Next::new(
            Arc::clone(&lane.settings.interceptors),
            entry,
            lane.settings.max_decoding,
        );
        // Interceptors get to see the reply before it is queued.
        let seen_by_none = kind == MethodKind::TwoWay && lane.settings.interceptors.is_empty();
        let way = seen_by_none.then(|| Way {
            ctx: ctx.clone(),
            replies: Arc::clone(&lane.replies),
            id,
            max_encoding,
        });
        let incoming = Incoming::new(ctx.clone(), payload, sink.clone(), way);
        Run {
            id,
            ctx,
            kind,
            max_encoding,
            sink,
            stage: Stage::Start(next, incoming),
        }
    }
}

/// A handler that goes on beside the lane, in the set or on a task of its own.
pub(crate) struct Moved {
    run: Run,
    lane: Arc<Lane>,
    /// Of the lane, for a task of its own.
    polling: Option<(&'static Monitor, Arc<Polling>)>,
    /// It has a task of its own.
    apart: bool,
}

impl Moved {
    /// Whether it is to get a task of its own.
    pub(crate) fn wants_task(&self) -> bool {
        self.run.ctx.turn().is_apart()
    }

    /// Gives it a task of its own.
    pub(crate) fn spawn(mut self) {
        self.apart = true;
        spawn(self);
    }
}

impl Future for Moved {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            run,
            lane,
            polling,
            apart,
        } = &mut *self;
        match polling {
            Some((monitor, polling)) if *apart => polling.watched(monitor, || run.poll(cx, lane)),
            _ => run.poll(cx, lane),
        }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.lane.end_moved(self.run.id, &self.run.ctx);
        if self.apart {
            self.lane.settle();
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Status::internal(format!("the handler panicked: {text}"))
}
