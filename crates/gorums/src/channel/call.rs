//! One call in flight, shared by its handle and the channels of its nodes.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::early::Early;
use super::events::{Event, EventKind};
use super::parts::{PartState, Parts};
use super::progress::{Progress, WakeAfter};
use super::{Channel, OutMessage, Targets, Ticket, Unread};
use crate::error::{Outcome, Status};
use crate::sync::Mutex;

/// What kind of answer a call expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One reply from each node.
    Unary,
    /// Any number of replies from each node.
    Streamed,
    /// None: a part is done when it is handed to the connection.
    OneWay,
}

pub(crate) struct Call {
    id: u64,
    method: &'static str,
    kind: Kind,
    targets: Arc<Targets>,
    pub(crate) parts: Parts,
    started: Instant,
    unread: Unread,
    /// Whether events say when they happened.
    timed: bool,
    progress: Mutex<Progress>,
}

impl Call {
    /// A call on `members` of the targets; the others are left out.
    pub(crate) fn new(
        id: u64,
        method: &'static str,
        kind: Kind,
        targets: Arc<Targets>,
        members: usize,
        started: Instant,
    ) -> Self {
        Self {
            id,
            method,
            kind,
            parts: Parts::new(targets.len()),
            targets,
            started,
            unread: Unread::default(),
            timed: false,
            progress: Mutex::new(Progress::new(members)),
        }
    }

    /// Whether events are to say when they happened.
    pub(crate) fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    /// How many replies are kept that nobody takes.
    pub(crate) fn unread(mut self, unread: Unread) -> Self {
        self.unread = unread;
        self
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.kind == Kind::Streamed
    }

    pub(crate) fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn channel(&self, part: usize) -> &Arc<Channel> {
        &self.targets.channels()[part]
    }

    // ---- the caller's side

    /// Queues a part's frame; a part that is refused at once fails.
    pub(crate) fn queue(self: &Arc<Self>, part: usize, frame: Bytes) -> bool {
        let message = self.begin(part, frame);
        let queued = self.channel(part).queue(message);
        if let Err(status) = &queued {
            self.not_written(part, Outcome::NotSent, status);
        }
        queued.is_ok()
    }

    /// Queues a marker without bytes, which is handed over when all before it is.
    pub(crate) fn queue_marker(self: &Arc<Self>, part: usize) {
        let marker = self.begin(part, Bytes::new());
        if let Err(status) = self.channel(part).queue_marker(marker) {
            self.not_written(part, Outcome::NotSent, &status);
        }
    }

    fn begin(self: &Arc<Self>, part: usize, frame: Bytes) -> OutMessage {
        // Counted before it is queued: the deadline may end a queued part, and counts it off.
        if self.kind != Kind::OneWay {
            self.channel(part).add_pending();
        }
        self.parts.begin(part);
        let call = Arc::clone(self);
        OutMessage::new(frame, Some(Ticket { call, part }))
    }

    /// Fails a part before anything is queued.
    pub(crate) fn fail_at_once(&self, part: usize, status: &Status) {
        self.parts.fail_at_once(part);
        let error = self.channel(part).error(Outcome::NotSent, status.clone());
        self.record(part, EventKind::Failed(error), true);
    }

    /// The next event, if there is one already.
    pub(crate) fn try_event(&self) -> Option<Event> {
        self.progress.lock().pop()
    }

    /// Whether no event is left and none can come.
    pub(crate) fn is_over(&self) -> bool {
        let progress = self.progress.lock();
        progress.open == 0 && progress.events.is_empty()
    }

    /// The next event; none when no more can come.
    pub(crate) fn poll_event(
        &self,
        cx: &mut Context<'_>,
        wake_after: WakeAfter,
    ) -> Poll<Option<Event>> {
        let mut progress = self.progress.lock();
        if let Some(event) = progress.pop() {
            return Poll::Ready(Some(event));
        }
        if progress.open == 0 {
            return Poll::Ready(None);
        }
        progress.register(cx, wake_after);
        Poll::Pending
    }

    /// The call had ended before anything was queued.
    pub(crate) fn end_at_once(&self, part: usize, early: Early) {
        self.progress.lock().early = Some(early);
        self.fail_at_once(part, &early.status_at_once());
    }

    /// What ended the call early.
    pub(crate) fn early(&self) -> Option<Early> {
        self.progress.lock().early
    }

    /// The call has what it wanted. What is queued is still written; replies are ignored.
    pub(crate) fn complete(&self) {
        self.unregister();
        for part in 0..self.parts.len() {
            let Some(was) = self.parts.complete(part, self.is_streamed()) else {
                continue;
            };
            // The peer goes on streaming until it is told.
            if was == PartState::Sent && self.is_streamed() {
                self.channel(part).send_cancel(self.id);
            }
            self.release_pending(part);
        }
    }

    /// Nobody wants the call any more. What is queued is withdrawn: of so many nodes.
    pub(crate) fn forget(&self) -> usize {
        self.unregister();
        (0..self.parts.len())
            .filter(|part| self.abandon(*part) == Some(Outcome::NotSent))
            .count()
    }

    /// The deadline passed, or the call was cancelled: every part that is not done fails.
    pub(crate) fn end_early(&self, early: Early) {
        self.unregister();
        // Set before the parts are looked at: see `settle_deadline`.
        self.progress.lock().early.get_or_insert(early);
        let mut failures = Vec::new();
        for part in 0..self.parts.len() {
            if let Some(outcome) = self.abandon(part) {
                let status = early.status(match outcome {
                    Outcome::NotSent => "not written",
                    _ if self.kind == Kind::OneWay => "not wholly written",
                    _ => "no answer",
                });
                failures.push((part, self.channel(part).error(outcome, status)));
            }
        }
        let at = self.time();
        let mut progress = self.progress.lock();
        // A part that has just been moved by its reply is counted off by whoever moved it.
        progress.close(failures.len());
        for (part, error) in failures {
            let kind = EventKind::Failed(error);
            progress.push(Event { part, kind, at });
        }
        Progress::wake(progress);
    }

    /// All parts are queued. A deadline that passed meanwhile found some of them not begun, and
    /// they end now.
    pub(crate) fn settle_deadline(&self) {
        if let Some(early) = self.early() {
            self.end_early(early);
        }
    }

    /// Gives up a part that is not done, and says what became of its request.
    fn abandon(&self, part: usize) -> Option<Outcome> {
        let was = self.parts.abandon(part)?;
        let outcome = if was == PartState::Queued {
            self.channel(part).outbox().note_withdrawn();
            Outcome::NotSent
        } else {
            if self.kind != Kind::OneWay {
                self.channel(part).send_cancel(self.id);
            }
            Outcome::Unknown
        };
        self.release_pending(part);
        Some(outcome)
    }

    // ---- the writer's side

    /// The request was written whole: a one-way part is done.
    pub(crate) fn handed_over(&self, part: usize) {
        if self.kind == Kind::OneWay && self.parts.finish(part) {
            self.record(part, EventKind::Ended, true);
        }
    }

    /// The request will not be written; the outcome is refused where the node has said why.
    pub(crate) fn not_written(&self, part: usize, outcome: Outcome, status: &Status) {
        if self.parts.refuse(part) {
            self.release_pending(part);
            let error = self.channel(part).error(outcome, status.clone());
            self.record(part, EventKind::Failed(error), true);
        }
    }

    /// The connection broke after the request was written; the outcome is what is known of it.
    pub(crate) fn lost(&self, part: usize, outcome: Outcome, status: &Status) {
        self.fail_sent(part, outcome, status.clone());
    }

    // ---- the reader's side

    /// A reply came at this time; false if the part had its reply, or never was sent.
    pub(crate) fn replied(&self, part: usize, payload: Bytes, now: Instant) -> bool {
        match self.kind {
            Kind::OneWay => false,
            Kind::Unary => {
                let current = self.parts.finish(part);
                if current {
                    self.release_pending(part);
                    // Recorded before the caller is woken, who may ask for it.
                    let latency = now.saturating_duration_since(self.started);
                    self.channel(part).latencies().record(latency);
                    self.record(part, EventKind::Reply(payload), true);
                }
                current
            }
            // No latency: it would tell how long the handler went on, and not how near the node is.
            Kind::Streamed => {
                let current = self.parts.is_sent(part);
                if current {
                    self.record(part, EventKind::Reply(payload), false);
                }
                current
            }
        }
    }

    /// A streamed reply ended.
    pub(crate) fn ended(&self, part: usize, status: Option<Status>) {
        match status {
            Some(status) => self.failed(part, Outcome::Refused, status),
            None if self.is_streamed() && self.parts.finish(part) => {
                self.release_pending(part);
                self.record(part, EventKind::Ended, true);
            }
            None => {}
        }
    }

    /// The node answered with an error, or with something that cannot be used.
    pub(crate) fn failed(&self, part: usize, outcome: Outcome, status: Status) {
        if self.kind != Kind::OneWay {
            self.fail_sent(part, outcome, status);
        }
    }

    fn fail_sent(&self, part: usize, outcome: Outcome, status: Status) {
        if self.parts.finish(part) {
            self.release_pending(part);
            let error = self.channel(part).error(outcome, status);
            self.record(part, EventKind::Failed(error), true);
        }
    }

    fn release_pending(&self, part: usize) {
        if self.kind != Kind::OneWay {
            self.channel(part).remove_pending();
        }
    }

    fn record(&self, part: usize, kind: EventKind, last: bool) {
        let at = self.time();
        let mut progress = self.progress.lock();
        if self.is_streamed() && matches!(kind, EventKind::Reply(_)) {
            // Whoever ends the part records that under this lock. A reply that finds the part ended
            // is dropped, so that nothing of a node comes behind its end.
            if !self.parts.is_sent(part) {
                return;
            }
            if !progress.make_room(part, self.unread) {
                drop(progress);
                return self.overflow(part);
            }
        }
        progress.push(Event { part, kind, at });
        progress.close(usize::from(last));
        let ended = progress.open == 0;
        Progress::wake(progress);
        if ended {
            self.unregister();
        }
    }

    /// Fails a node that sent more replies than are kept, for a caller that must not miss one.
    fn overflow(&self, part: usize) {
        if let Some(outcome) = self.abandon(part) {
            let status = Status::resource_exhausted(format!(
                "more than {} replies of the node were not taken (see QuorumCall::unread_replies)",
                self.unread.limit
            ));
            let error = self.channel(part).error(outcome, status);
            self.record(part, EventKind::Failed(error), true);
        }
    }

    fn time(&self) -> Option<Instant> {
        // All pools of a call have one clock, or their times could not be compared.
        self.timed
            .then(|| self.targets.pools().first().map(|pool| pool.clock.now()))
            .flatten()
    }

    fn unregister(&self) {
        for pool in self.targets.pools() {
            pool.calls.remove(self.id);
        }
    }
}
