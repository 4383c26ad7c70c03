//! The task of a lane: it starts the handlers of a connection one after the other.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::context::ServerCtx;
use super::handler_future::{Block, HandlerFuture};
use super::handling::Handling;
use super::interceptor::{Incoming, Next};
use super::lane::{Begun, Lane};
use super::released::ReleasedSet;
use super::reply_sender::{ReplySlot, Sink};
use super::run::{Background, Run, Stage};
use super::{Monitor, Polling};
use crate::runtime::BoxFuture;
use crate::sync::OwnedSemaphorePermit;
use crate::sync::atomic::AtomicBool;
use crate::wire::MethodKind;

/// How many handlers are polled in one turn of the lane on its worker. Replies leave together at
/// the end of a turn: fewer handlers make more and smaller writes.
const HANDLERS_PER_TURN: usize = 128;

/// The lane's task.
pub(super) struct Worker {
    pub(super) lane: Arc<Lane>,
    pub(super) polling: Option<(&'static Monitor, Arc<Polling>)>,
    pub(super) run: Option<Run>,
    /// For the next handler.
    pub(super) spare: Option<Block>,
    /// Handlers were moved in this turn of the lane: some may not have been handed over yet.
    pub(super) has_moved: bool,
    pub(super) released: Arc<ReleasedSet>,
    /// The server's turn, acquired for the next request.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) acquiring: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
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
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
            let (run, polled) = match self.run.take() {
                Some(mut run) => {
                    let polled = during(self.handling(&run.ctx), || run.poll(cx, &self.lane));
                    (run, polled)
                }
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
                    let Some(begun) = next else {
                        // The turn is not kept while there is nothing to do with it.
                        self.permit = None;
                        let state = self.lane.state();
                        return if state.finished && state.waiting.is_empty() {
                            Stop::Finished
                        } else {
                            Stop::Waiting
                        };
                    };
                    let spare = self.spare.take();
                    self.begin(begun, spare, cx)
                }
            };
            if polled.is_ready() {
                if let Stage::Ended(block @ Some(_)) = run.stage {
                    self.spare = block;
                }
                if self.lane.settings.server_turn.is_some() {
                    // The next one may have to wait for others.
                    self.lane.end_current();
                }
                continue;
            }
            if run.ctx.turn().poll_released(cx).is_ready() {
                self.lane.move_current();
                self.has_moved = true;
                self.released.push(Background {
                    run,
                    lane: Arc::clone(&self.lane),
                    polling: self.polling.clone(),
                    own_task: false,
                });
                continue;
            }
            self.run = Some(run);
            return Stop::Waiting;
        }
        Stop::Yield
    }

    /// What is told of a handler while it is polled, where its server is a node of its own peers.
    #[inline]
    fn handling(&self, ctx: &ServerCtx) -> Option<Handling> {
        let in_process = self.lane.settings.in_process.as_ref()?;
        Some(Handling {
            ctx: ctx.clone(),
            in_process: in_process.clone(),
        })
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

    /// Starts a handler, and polls it.
    #[inline]
    fn begin(&self, begun: Begun, spare: Option<Block>, cx: &mut Context<'_>) -> (Run, Poll<()>) {
        let lane = &self.lane;
        let settings = &lane.settings;
        let Begun {
            id,
            called,
            payload,
            ctx,
            refusal,
            measured,
        } = begun;
        let (kind, max_encoding) = match called.entry() {
            Some(entry) => (entry.kind, entry.max_encoding),
            None => (MethodKind::TwoWay, None),
        };
        let max_encoding = max_encoding.unwrap_or(settings.max_encoding);
        let sink = (kind == MethodKind::Streamed).then(|| {
            Arc::new(Sink {
                id,
                ctx: ctx.clone(),
                replies: Arc::clone(&lane.replies),
                max_encoding,
                credit: lane.credit(id),
                ended: AtomicBool::new(false),
            })
        });
        // Interceptors get to see the reply before it is queued.
        let seen_by_none = kind == MethodKind::TwoWay && settings.passage.interceptors.is_empty();
        let slot = seen_by_none.then(|| ReplySlot {
            ctx: ctx.clone(),
            id,
            max_encoding,
        });
        let incoming = Incoming::new(ctx.clone(), payload, sink.clone(), slot);
        let mut run = Run {
            id,
            ctx,
            kind,
            max_encoding,
            sink,
            stage: Stage::Ended(None),
            measured: None,
        };
        if let Some(refusal) = refusal {
            drop(incoming);
            let polled = run.refuse(refusal, cx, lane);
            return (run, polled);
        }
        run.measured = measured.and_then(|began| Some((began, Arc::clone(called.entry()?))));
        let start = || match called.entry() {
            Some(entry) if settings.passage.is_open(entry, incoming.payload().len()) => {
                entry.handler.start_in(incoming, spare)
            }
            entry => {
                let next = Next::new(Arc::clone(&settings.passage), entry.cloned());
                HandlerFuture::Once(next.start(incoming))
            }
        };
        let polled = during(self.handling(&run.ctx), || run.begin(cx, lane, start));
        (run, polled)
    }
}

#[inline]
fn during<T>(handling: Option<Handling>, act: impl FnOnce() -> T) -> T {
    match handling {
        None => act(),
        Some(handling) => handling.during(act),
    }
}
