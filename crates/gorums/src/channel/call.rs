//! One call in flight, shared by its handle and the channels of its nodes.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::asked_later::AskedLater;
use super::early::Early;
use super::events::{Event, EventKind};
use super::kept::Resending;
use super::parts::{PartState, Parts};
use super::progress::{Progress, WakeAfter};
use super::unread::{Account, TooMuch};
use super::{Channel, OutMessage, Targets, Ticket, Unread, WhilePaused};
use crate::bounds::Bound;
use crate::error::{Code, Outcome, Status};
use crate::log;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::wire::{H2Settings, MethodKind, reply_cost};

/// What kind of answer a call expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One reply from each node.
    Unary,
    /// Any number of replies from each node, of which so many wait to be taken.
    Streamed(Unread),
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
    /// Told to the nodes that take it.
    deadline: Option<Instant>,
    /// Whether events say when they happened.
    timed: bool,
    /// Whether requests are written again where their stream breaks.
    pub(super) resending: Resending,
    while_paused: WhilePaused,
    /// Of a call that asks some of its nodes at first; none in other calls.
    pub(super) asked_later: Option<Box<AskedLater>>,
    progress: Mutex<Progress>,
    /// No part is open, and since then it is in no table any more.
    has_ended: AtomicBool,
}

impl Kind {
    /// What is expected of the method.
    pub(crate) fn of_method(self) -> MethodKind {
        match self {
            Self::Unary => MethodKind::TwoWay,
            Self::Streamed(_) => MethodKind::Streamed,
            Self::OneWay => MethodKind::OneWay,
        }
    }
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
        let accounts = match kind {
            Kind::Streamed(unread) => (0..targets.len()).map(|_| Account::new(unread)).collect(),
            Kind::Unary | Kind::OneWay => Box::default(),
        };
        Self {
            id,
            method,
            kind,
            parts: Parts::new(targets.len()),
            timed: false,
            resending: Resending::Never,
            while_paused: WhilePaused::Fail,
            asked_later: None,
            progress: Mutex::new(Progress::new(members, accounts)),
            targets,
            started,
            deadline: None,
            has_ended: AtomicBool::new(false),
        }
    }

    /// Whether events are to say when they happened.
    pub(crate) fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    /// Whether requests are to be written again where their stream breaks before they are answered.
    /// Of no account for one-way calls, of which nothing tells that they were read.
    pub(crate) fn resending(mut self, resending: Resending) -> Self {
        if self.kind != Kind::OneWay && resending != Resending::Never {
            self.resending = resending;
            self.progress.get_mut().kept = (0..self.parts.len()).map(|_| None).collect();
        }
        self
    }

    /// What becomes of it at a node that has asked for a pause.
    pub(crate) fn while_paused(mut self, while_paused: WhilePaused) -> Self {
        self.while_paused = while_paused;
        self
    }

    /// It has nodes that are not asked at first, and may be [later](Self::widen). Its members are those that
    /// are.
    #[cold]
    pub(crate) fn hold(&mut self) {
        self.asked_later = Some(Box::default());
        let progress = self.progress.get_mut();
        // The call goes on when all that were asked are done with it.
        progress.open += 1;
        progress.may_widen = true;
    }

    /// With when it ends. It is for the nodes to know: the table ends the call.
    pub(crate) fn ending(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// What the node of a part is told of it. Where nobody waits for its answer any more, since there
    /// are enough, the request is one to be handled all the same, however late.
    #[inline]
    pub(super) fn deadline_of(&self, part: usize) -> Option<Instant> {
        self.deadline.filter(|_| self.parts.is_sent(part))
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.kind, Kind::Streamed(_))
    }

    pub(super) fn is_unary(&self) -> bool {
        self.kind == Kind::Unary
    }

    pub(crate) fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    pub(super) fn channel(&self, part: usize) -> &Arc<Channel> {
        &self.targets.channels()[part]
    }

    // ---- the caller's side

    /// Queues a part's frame; a part that is refused at once fails.
    pub(crate) fn queue(self: &Arc<Self>, part: usize, frame: Bytes) -> bool {
        // Nobody sheds one-way messages.
        if self.kind != Kind::OneWay
            && let Some(until) = self.channel(part).paused_until(self.method)
        {
            match self.while_paused {
                WhilePaused::Fail => {
                    let status = self.channel(part).refuse_paused(self.method, until);
                    self.fail_at_once(part, &status);
                    return false;
                }
                WhilePaused::Wait => self.channel(part).hold_until(until),
            }
        }
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
        if self.is_streamed() {
            let reserve = |bytes| self.channel(part).reserve_unread(bytes);
            self.progress.lock().accounts[part].open(reserve);
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
        let mut progress = self.progress.lock();
        let event = progress.pop()?;
        let is_charged = !progress.accounts.is_empty();
        drop(progress);
        if is_charged {
            self.charge(&event);
        }
        Some(event)
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
            let is_charged = !progress.accounts.is_empty();
            drop(progress);
            if is_charged {
                self.charge(&event);
            }
            return Poll::Ready(Some(event));
        }
        if progress.open == 0 {
            return Poll::Ready(None);
        }
        progress.register(cx, wake_after);
        Poll::Pending
    }

    /// An event of a streamed call was taken: the node may send more.
    fn charge(&self, event: &Event) {
        let EventKind::Reply(payload) = &event.kind else {
            return;
        };
        let (part, cost) = (event.part, reply_cost(payload.len()));
        let channel = self.channel(part);
        let reserve = |bytes| match self.parts.is_sent(part) {
            true => channel.reserve_unread(bytes),
            false => 0,
        };
        let credit = self.progress.lock().accounts[part].taken(cost, reserve);
        if let Some(credit) = credit {
            channel.send_credit(self.id, credit, || self.parts.is_sent(part));
        }
    }

    /// How many replies have made room for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        let progress = self.progress.lock();
        progress
            .accounts
            .iter()
            .map(|account| account.dropped)
            .sum()
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
        // Looked at without order: who looks too early looks for it in the tables, in vain.
        if !self.has_ended.load(Ordering::Relaxed) {
            self.unregister();
        }
        let mut unanswered = 0;
        for part in 0..self.parts.len() {
            let Some(was) = self.parts.complete(part, self.is_streamed()) else {
                continue;
            };
            unanswered += usize::from(was == PartState::Sent);
            // The peer goes on streaming until it is told.
            if was == PartState::Sent && self.is_streamed() {
                self.channel(part).send_cancel(self.id, true);
            }
            if was == PartState::Again {
                self.channel(part).outbox().note_withdrawn();
            }
            self.release_pending(part);
        }
        let orphans = (0..self.parts.len()).filter(|part| self.parts.is_sent_orphan(*part));
        self.note_behind(unanswered, orphans);
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
        if early == Early::Deadline {
            let unanswered = failures.iter();
            let unanswered = unanswered.filter(|(_, error)| error.outcome() == Outcome::Unknown);
            let parts = unanswered.clone().map(|(part, _)| *part);
            self.note_unanswered(unanswered.count(), parts);
        }
        let at = self.time();
        let mut progress = self.progress.lock();
        // A part that has just been moved by its reply is counted off by whoever moved it.
        progress.close(failures.len());
        progress.close_held();
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
        if matches!(was, PartState::Queued | PartState::Again) {
            self.channel(part).outbox().note_withdrawn();
        } else if self.kind != Kind::OneWay {
            self.channel(part).send_cancel(self.id, self.is_streamed());
        }
        let outcome = match was {
            PartState::Queued => Outcome::NotSent,
            _ => Outcome::Unknown,
        };
        self.release_pending(part);
        Some(outcome)
    }

    // ---- the writer's side

    /// The request of a streamed call is about to be written: what the node is told behind it.
    pub(crate) fn announce(&self, part: usize) {
        let channel = self.channel(part);
        if self.parts.is_sent(part) {
            let credit = self.progress.lock().accounts[part].first_credit();
            // The task that is told is this one, which looks once it has taken the requests.
            channel.note_credit(self.id, credit, || self.parts.is_sent(part));
        } else {
            // An orphan, or given up since it was taken out: nobody will ever give it credit.
            channel.note_cancel(self.id, true);
        }
    }

    /// The request was written whole: a one-way part is done.
    pub(crate) fn handed_over(&self, part: usize) {
        if self.kind == Kind::OneWay && self.parts.finish(part) {
            self.record(part, EventKind::Ended, true);
        }
    }

    /// The request will not be written; the outcome is refused where the node has said why. One that
    /// was written on an earlier stream may have been handled then.
    pub(crate) fn not_written(&self, part: usize, outcome: Outcome, status: &Status) {
        if let Some(was) = self.parts.refuse(part) {
            self.release_pending(part);
            let outcome = match was {
                PartState::Again => Outcome::Unknown,
                _ => outcome,
            };
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
                    let latency = now.saturating_duration_since(self.asked_at(part));
                    self.channel(part).latencies().record(latency);
                    self.record(part, EventKind::Reply(payload), true);
                }
                current
            }
            // No latency: it would tell how long the handler went on, and not how near the node is.
            Kind::Streamed(_) => {
                let current = self.parts.is_sent(part);
                if current {
                    self.record_streamed(part, kept(payload));
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
        if self.kind == Kind::OneWay {
            return;
        }
        let outcome = match outcome {
            // It may have been handled before, and what is refused is the second time.
            Outcome::Refused if self.was_sent_again(part) => Outcome::Unknown,
            outcome => outcome,
        };
        let was_late = status.code() == Code::DeadlineExceeded && self.deadline_has_passed(part);
        if was_late {
            // The node has found it out before the sweeper: the call ends at its deadline, and not
            // because of the node.
            self.progress.lock().early.get_or_insert(Early::Deadline);
        }
        // The handler may go on, for it is told of nothing that went wrong behind it, and would
        // wait for credit that never comes.
        if self.fail_sent(part, outcome, status) && self.is_streamed() {
            self.channel(part).send_cancel(self.id, true);
        }
        if was_late {
            self.end_early(Early::Deadline);
        }
    }

    fn deadline_has_passed(&self, part: usize) -> bool {
        let now = || self.channel(part).pool().clock.now();
        self.deadline.is_some_and(|deadline| deadline <= now())
    }

    /// Fails a part whose request was written; false if it was done.
    fn fail_sent(&self, part: usize, outcome: Outcome, status: Status) -> bool {
        let current = self.parts.finish(part);
        if current {
            self.release_pending(part);
            let error = self.channel(part).error(outcome, status);
            self.record(part, EventKind::Failed(error), true);
        }
        current
    }

    fn release_pending(&self, part: usize) {
        self.let_go(part);
        if self.kind != Kind::OneWay {
            self.channel(part).remove_pending();
        }
        if self.is_streamed() {
            let reserved = self.progress.lock().accounts[part].close();
            self.channel(part).end_streamed(self.id, reserved);
        }
    }

    fn record(&self, part: usize, kind: EventKind, last: bool) {
        let at = self.time();
        let mut progress = self.progress.lock();
        progress.push(Event { part, kind, at });
        progress.close(usize::from(last));
        let ended = progress.open == 0;
        Progress::wake(progress);
        if ended {
            self.unregister();
            self.has_ended.store(true, Ordering::Relaxed);
        }
    }

    /// Records a reply of a streamed call, unless there is too much of the node's already.
    fn record_streamed(&self, part: usize, payload: Bytes) {
        let (at, cost) = (self.time(), reply_cost(payload.len()));
        let channel = self.channel(part);
        let is_held = channel.features_for(self.id).credit;
        let mut progress = self.progress.lock();
        // Whoever ends the part records that under this lock. A reply that finds the part ended is
        // dropped, so that nothing of a node comes behind its end.
        if !self.parts.is_sent(part) {
            return;
        }
        // The rest of the replies would not follow on this one.
        self.take_kept_of(&mut progress, part);
        let made_room = progress.make_room(part, cost);
        let reserve = |bytes| channel.reserve_unread(bytes);
        if let Err(too_much) = progress.accounts[part].received(cost, is_held, reserve) {
            drop(progress);
            return self.overflow(part, too_much);
        }
        let dropped = progress.accounts[part].dropped;
        let kind = EventKind::Reply(payload);
        progress.push(Event { part, kind, at });
        Progress::wake(progress);
        if made_room > 0 {
            channel
                .pool()
                .reached
                .add_all(Bound::DroppedReplies, made_room);
        }
        // The first, and then ever more seldom.
        if made_room > 0 && dropped.is_power_of_two() {
            tracing::debug!(
                target: log::CALL,
                method = self.method,
                call = self.id,
                node = channel.id().get(),
                dropped,
                "replies that nobody took made room for newer ones"
            );
        }
    }

    /// Fails a node that sent more replies than may wait, for a caller that must not miss one.
    fn overflow(&self, part: usize, too_much: TooMuch) {
        let TooMuch {
            window,
            against_credit,
        } = too_much;
        let text = if against_credit {
            format!(
                "the node has sent more of a streamed reply than the {window} bytes of its credit"
            )
        } else {
            format!(
                "{window} bytes of the node's replies were not taken, and it knows no credit by which \
                 it could be held back (see QuorumCall::unread_replies)"
            )
        };
        if let Some(outcome) = self.abandon(part) {
            let channel = self.channel(part);
            channel.pool().reached.add(Bound::UnreadReplies);
            let error = channel.error(outcome, Status::resource_exhausted(text));
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

/// Payloads up to this size are copied out of the chunk that they came in, which they would keep:
/// a caller that takes nothing would otherwise have chunks waiting, of which its window counts only
/// a small part. A larger payload is half of the largest chunk, at least.
const COPY: usize = H2Settings::FRAME as usize / 2;

/// A payload that may wait long.
fn kept(payload: Bytes) -> Bytes {
    if payload.len() <= COPY {
        Bytes::copy_from_slice(&payload)
    } else {
        payload
    }
}
