//! A request whose handler was started, until its reply is queued.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tracing::Instrument as _;

use super::context::ServerCtx;
use super::handler_future::{Block, HandlerFuture};
use super::interceptor::Reply;
use super::lane::{Lane, LaneSettings};
use super::registry::Entry;
use super::reply_queue::Answer;
use super::reply_sender::Sink;
use super::shedding::Refusal;
use super::{Monitor, Polling};
use crate::bounds::Bound;
use crate::error::Status;
use crate::log;
use crate::runtime::BoxFuture;
use crate::sync::spawn;
use crate::wire::{MethodKind, SERVER_INITIATED};

/// A request whose handler was started, until its reply is queued and its turn given up.
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) ctx: ServerCtx,
    pub(super) kind: MethodKind,
    pub(super) max_encoding: usize,
    /// Where a streamed method sends its replies.
    pub(super) sink: Option<Arc<Sink>>,
    pub(super) stage: Stage,
    /// When it began, and the method, where it is measured how long that takes.
    pub(super) measured: Option<(Instant, Arc<Entry>)>,
}

pub(super) enum Stage {
    Handling(HandlerFuture),
    /// The queue of replies is full.
    Answering(BoxFuture<'static, ()>),
    /// There may be a block for the next one.
    Ended(Option<Block>),
}

impl Run {
    /// Starts the handler by this, and polls it. Ready when it has ended, its reply is queued, and
    /// its turn given up.
    #[inline]
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        start: impl FnOnce() -> HandlerFuture,
    ) -> Poll<()> {
        self.poll_handling(cx, lane, |run| run.start(start))
    }

    /// Ends the request without its handler. Ready as in [`begin`](Self::begin).
    #[cold]
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        cx: &mut Context<'_>,
        lane: &Lane,
    ) -> Poll<()> {
        self.tell_refusal(refusal, &lane.settings);
        let result = match self.kind {
            // Nobody expects an answer.
            MethodKind::OneWay => Ok(Reply::none()),
            _ => Err(refusal.status()),
        };
        let refused = HandlerFuture::Once(Box::pin(std::future::ready(result)));
        self.poll_handling(cx, lane, |_| refused)
    }

    fn tell_refusal(&self, refusal: Refusal, settings: &LaneSettings) {
        let peer = self.ctx.peer();
        let now = settings.clock.now();
        match refusal {
            Refusal::Late => {
                settings.reached().add(Bound::Deadline);
                let admission = settings.late.admit(now);
                log::event!(
                    admission.is_told => warn or debug,
                    target: log::HANDLER,
                    method = %log::text(self.ctx.method()),
                    peer = %peer,
                    node = peer.node(),
                    call = call_id(self.id),
                    left_out = admission.left_out,
                    "a request was not run: its deadline had passed before its turn"
                );
            }
            Refusal::Shed(waited) => {
                settings.reached().add(Bound::Shed);
                let admission = settings.sheds.admit(now);
                log::event!(
                    admission.is_told => warn or debug,
                    target: log::HANDLER,
                    method = %log::text(self.ctx.method()),
                    peer = %peer,
                    node = peer.node(),
                    call = call_id(self.id),
                    waited_ms = log::millis(waited),
                    left_out = admission.left_out,
                    "a request was shed: more comes than can be done"
                );
            }
        }
    }

    /// Ready when the handler has ended, its reply is queued, and its turn given up.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, lane: &Lane) -> Poll<()> {
        match std::mem::replace(&mut self.stage, Stage::Ended(None)) {
            Stage::Handling(handling) => self.poll_handling(cx, lane, |_| handling),
            Stage::Answering(answering) => self.poll_answering(cx, answering),
            // The lane does not poll what has ended.
            Stage::Ended(_) => Poll::Pending,
        }
    }

    /// Polls the handler that this gives; a panic becomes its reply.
    #[inline]
    fn poll_handling(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        handling: impl FnOnce(&Self) -> HandlerFuture,
    ) -> Poll<()> {
        // The future is never polled again after a panic, and what it shares with others is theirs
        // to keep consistent, as with any thread that panics.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let mut handling = handling(self);
            // What has ended is dropped in here: that may panic as well.
            match Pin::new(&mut handling).poll(cx) {
                Poll::Pending => Err(handling),
                Poll::Ready(result) => Ok((result, handling.into_block())),
            }
        }));
        let result = match polled {
            Ok(Ok((result, block))) => {
                self.stage = Stage::Ended(block);
                result
            }
            Ok(Err(handling)) => {
                self.stage = Stage::Handling(handling);
                return Poll::Pending;
            }
            Err(panic) => {
                let text = log::panic_text(&*panic);
                tell_panic(&self.ctx, self.id, text);
                Err(panicked("the handler", text, lane.settings.expose_panics))
            }
        };
        if let Some((began, entry)) = self.measured.take() {
            let now = lane.settings.clock.now();
            entry.needed.note(now.saturating_duration_since(began));
        }
        if let Some(sink) = &self.sink {
            sink.end();
            lane.end_credit(self.id, sink);
        }
        let queued = match self.answer(lane.features.stream_end, &result) {
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
        let answering = self.wait_for_room(lane, result);
        self.poll_answering(cx, answering)
    }

    fn poll_answering(
        &mut self,
        cx: &mut Context<'_>,
        mut answering: BoxFuture<'static, ()>,
    ) -> Poll<()> {
        if answering.as_mut().poll(cx).is_pending() {
            self.stage = Stage::Answering(answering);
            return Poll::Pending;
        }
        self.ctx.turn().end();
        Poll::Ready(())
    }

    /// Starts the handler, in a span of its own where somebody wants it.
    #[inline]
    fn start(&self, start: impl FnOnce() -> HandlerFuture) -> HandlerFuture {
        // Nothing of this is looked at where nobody wants the span.
        let span = tracing::debug_span!(
            target: log::HANDLER,
            "handler",
            method = %log::text(self.ctx.method()),
            peer = %self.ctx.peer(),
            node = self.ctx.peer().node(),
            call = call_id(self.id),
        );
        if span.is_disabled() {
            return start();
        }
        let handling = span.in_scope(start);
        HandlerFuture::Once(Box::pin(handling.instrument(span)))
    }

    /// What is queued when the handler has ended with this.
    pub(super) fn answer<'a>(
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

    pub(super) fn wait_for_room(
        &self,
        lane: &Lane,
        result: Result<Reply, Status>,
    ) -> BoxFuture<'static, ()> {
        let replies = Arc::clone(&lane.replies);
        let stream_end = lane.features.stream_end;
        let run = Self {
            stage: Stage::Ended(None),
            ctx: self.ctx.clone(),
            sink: None,
            measured: None,
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

/// A handler that goes on beside the lane, in the set or on a task of its own.
pub(crate) struct Background {
    pub(super) run: Run,
    pub(super) lane: Arc<Lane>,
    /// Of the lane, for a task of its own.
    pub(super) polling: Option<(&'static Monitor, Arc<Polling>)>,
    /// It has a task of its own.
    pub(super) own_task: bool,
}

impl Background {
    /// Whether it is to get a task of its own.
    pub(crate) fn wants_task(&self) -> bool {
        self.run.ctx.turn().wants_own_task()
    }

    /// Gives it a task of its own.
    pub(crate) fn spawn(mut self) {
        self.own_task = true;
        spawn(self);
    }

    /// Drops it, where what panics in it must not go further.
    pub(crate) fn drop_catching(self) {
        let (id, ctx) = (self.run.id, self.run.ctx.clone());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(self))) {
            tell_panic(&ctx, id, log::panic_text(&*panic));
        }
    }
}

impl Future for Background {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            run,
            lane,
            polling,
            own_task,
        } = &mut *self;
        match polling {
            Some((monitor, polling)) if *own_task => {
                polling.watched(monitor, || run.poll(cx, lane))
            }
            _ => run.poll(cx, lane),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.lane.end_moved(self.run.id, &self.run.ctx);
        if self.own_task {
            self.lane.settle();
        }
    }
}

fn tell_panic(ctx: &ServerCtx, id: u64, text: &str) {
    let peer = ctx.peer();
    tracing::error!(
        target: log::HANDLER,
        method = %log::text(ctx.method()),
        peer = %peer,
        node = peer.node(),
        call = call_id(id),
        panic = %log::text(text),
        "a handler panicked"
    );
}

/// The id of a call, which its caller's log has as well.
fn call_id(id_on_the_wire: u64) -> u64 {
    id_on_the_wire & !SERVER_INITIATED
}

/// What the caller is told of a panic of this: what it says may be about data of others, and is for
/// the log unless the server wants it told.
pub(crate) fn panicked(what: &str, text: &str, expose: bool) -> Status {
    Status::internal(if expose {
        format!("{what} panicked: {text}")
    } else {
        format!("{what} panicked")
    })
}
