//! One call in flight.
//!
//! A call has a *part* at each node. Who moves a part from one state to the next with a
//! compare-and-swap owns what follows from it, so no reply is counted twice and no request that was
//! withdrawn is written:
//!
//! ```text
//!            queued ──taken by the writer──► sent ──reply, error, loss, hand-over──► done
//!              │                              │
//!              ├──withdrawn, refused──► done  ├──the call was forgotten──► done
//!              │                              └──the call ended──► sent orphan
//!              └──the call ended──► orphan ──written──► sent orphan
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Channel, OutMessage, Targets, Ticket};
use crate::error::{NodeError, Outcome, QuorumErrorKind, Status};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, MutexGuard, many};

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

/// The node was left out, refused the message at once, or is not reached yet.
const IDLE: u8 = 0;
const QUEUED: u8 = 1;
/// Queued, in a call that nobody waits for any more: still to be written.
const ORPHAN: u8 = 2;
const SENT: u8 = 3;
const DONE: u8 = 4;
/// With the writer, in a call that nobody waits for any more: if it is not written after all, it is
/// an orphan again.
const SENT_ORPHAN: u8 = 5;

/// What becomes of a node's replies to a streamed call while nobody takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// So many wait.
    pub(crate) limit: usize,
    pub(crate) overflow: Overflow,
}

impl Default for Unread {
    fn default() -> Self {
        Self {
            limit: 64,
            overflow: Overflow::DropOldest,
        }
    }
}

/// What happens when a node replies to a streamed call while as many of its replies as may wait are
/// not taken: see [`QuorumCall::unread_replies`](crate::QuorumCall::unread_replies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The node's oldest reply makes room for its newest.
    DropOldest,
    /// The node's part fails with [`ResourceExhausted`](crate::Code::ResourceExhausted): for callers
    /// that must not miss a reply. What waits is still delivered.
    FailNode,
}

impl From<Early> for QuorumErrorKind {
    fn from(early: Early) -> Self {
        match early {
            Early::Deadline => Self::Deadline,
            Early::Cancelled => Self::Cancelled,
        }
    }
}

/// What ended a call before its parts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    Deadline,
    Cancelled,
}

impl Early {
    /// The status of a part that this ended.
    fn status(self, outcome: Outcome, kind: Kind) -> Status {
        let (word, new): (_, fn(String) -> Status) = match self {
            Self::Deadline => ("before the deadline", Status::deadline_exceeded),
            Self::Cancelled => ("before the call was cancelled", Status::cancelled),
        };
        new(match outcome {
            Outcome::NotSent => format!("not written {word}"),
            _ if kind == Kind::OneWay => format!("not wholly written {word}"),
            _ => format!("no answer {word}"),
        })
    }
}

pub(crate) struct Call {
    id: u64,
    method: &'static str,
    kind: Kind,
    targets: Arc<Targets>,
    parts: Parts,
    started: Instant,
    unread: Unread,
    /// Somebody wants to know when things happened.
    timed: bool,
    state: Mutex<State>,
}

/// The states of the parts, by position. Those of a few nodes are in the call itself.
enum Parts {
    Few([AtomicU8; FEW], usize),
    Many(Box<[AtomicU8]>),
}

const FEW: usize = many(8, 0);

impl Parts {
    fn new(count: usize) -> Self {
        if count <= FEW {
            Self::Few(std::array::from_fn(|_| AtomicU8::new(IDLE)), count)
        } else {
            Self::Many((0..count).map(|_| AtomicU8::new(IDLE)).collect())
        }
    }
}

impl std::ops::Deref for Parts {
    type Target = [AtomicU8];

    fn deref(&self) -> &[AtomicU8] {
        match self {
            Self::Few(parts, count) => &parts[..*count],
            Self::Many(parts) => parts,
        }
    }
}

/// What has happened and was not taken. The first few are in the call itself.
#[derive(Default)]
struct Events {
    few: [Option<Event>; FEW_EVENTS],
    /// Where the first of the few is, and how many there are.
    first: usize,
    count: usize,
    /// What came after them.
    rest: VecDeque<Event>,
}

const FEW_EVENTS: usize = 4;

impl Events {
    fn push(&mut self, event: Event) {
        if self.count < FEW_EVENTS && self.rest.is_empty() {
            self.few[(self.first + self.count) % FEW_EVENTS] = Some(event);
            self.count += 1;
        } else {
            self.rest.push_back(event);
        }
    }

    fn pop(&mut self) -> Option<Event> {
        if self.count == 0 {
            return self.rest.pop_front();
        }
        let event = self.few[self.first].take();
        self.first = (self.first + 1) % FEW_EVENTS;
        self.count -= 1;
        event
    }

    fn is_empty(&self) -> bool {
        self.count == 0 && self.rest.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Event> {
        let few =
            (0..self.count).filter_map(|at| self.few[(self.first + at) % FEW_EVENTS].as_ref());
        few.chain(&self.rest)
    }

    /// Takes out the first event that this is true of. False where there is none.
    fn remove_first(&mut self, is_it: impl Fn(&Event) -> bool) -> bool {
        let Some(at) = self.iter().position(is_it) else {
            return false;
        };
        if let Some(at) = at.checked_sub(self.count) {
            self.rest.remove(at);
            return true;
        }
        self.few[(self.first + at) % FEW_EVENTS] = None;
        for hole in at..self.count - 1 {
            let hole = self.first + hole;
            self.few.swap(hole % FEW_EVENTS, (hole + 1) % FEW_EVENTS);
        }
        self.count -= 1;
        true
    }
}

struct State {
    events: Events,
    /// Parts of which more may come.
    open: usize,
    /// Replies among the events.
    unread: usize,
    failures: usize,
    wake_after: WakeAfter,
    waker: Option<Waker>,
    early: Option<Early>,
}

/// What the waiting task wants to be woken for, beside the end of the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeAfter {
    /// So many replies that it has not seen.
    pub(crate) replies: usize,
    /// So many failures in all.
    pub(crate) failures: usize,
}

impl WakeAfter {
    /// Everything that happens.
    pub(crate) const ANY: Self = Self {
        replies: 1,
        failures: 0,
    };
}

/// Something that happened at a node.
pub(crate) struct Event {
    pub(crate) part: usize,
    pub(crate) kind: EventKind,
    /// When it happened, in a call that is timed.
    pub(crate) at: Option<Instant>,
}

impl Event {
    fn is_reply_of(&self, part: usize) -> bool {
        self.part == part && matches!(self.kind, EventKind::Reply(_))
    }
}

pub(crate) enum EventKind {
    Reply(Bytes),
    /// A streamed reply ended well, or a one-way request was handed over.
    Ended,
    Failed(NodeError),
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
            state: Mutex::new(State {
                events: Events::default(),
                open: members,
                unread: 0,
                failures: 0,
                wake_after: WakeAfter::ANY,
                waker: None,
                early: None,
            }),
        }
    }

    /// Notes when things happen.
    pub(crate) fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    /// What becomes of replies that nobody takes.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn shift(&self, part: usize, from: u8, to: u8) -> bool {
        self.parts[part]
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Moves a part on from whatever state it is in, and says which that was; none where nothing
    /// follows. The writer may take a part out and give it back meanwhile, so to try one state after
    /// the other could miss it in both.
    fn move_on(&self, part: usize, next: impl Fn(u8) -> Option<u8>) -> Option<u8> {
        self.parts[part]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .ok()
    }

    // ---- the caller's side

    /// Queues a part's frame; a part that is refused at once fails.
    pub(crate) fn queue(self: &Arc<Self>, part: usize, frame: Bytes) -> bool {
        let channel = self.channel(part);
        self.begin(part);
        let ticket = Ticket {
            call: Arc::clone(self),
            part,
        };
        let queued = channel.queue(OutMessage::new(frame, Some(ticket)));
        if let Err(status) = &queued {
            self.not_sent(part, status);
        }
        queued.is_ok()
    }

    /// Queues a marker without bytes, which is handed over when all before it is.
    pub(crate) fn queue_marker(self: &Arc<Self>, part: usize) {
        self.begin(part);
        let ticket = Ticket {
            call: Arc::clone(self),
            part,
        };
        let queued = self
            .channel(part)
            .queue_marker(OutMessage::new(Bytes::new(), Some(ticket)));
        if let Err(status) = queued {
            self.not_sent(part, &status);
        }
    }

    fn begin(&self, part: usize) {
        // Counted first: from then on the deadline may end the part, which is counted off then.
        if self.kind != Kind::OneWay {
            self.channel(part).add_pending();
        }
        self.parts[part].store(QUEUED, Ordering::Release);
    }

    /// A part that fails before anything is queued.
    pub(crate) fn fail_at_once(&self, part: usize, status: &Status) {
        self.parts[part].store(DONE, Ordering::Release);
        let error = self.channel(part).error(Outcome::NotSent, status.clone());
        self.record(part, EventKind::Failed(error), true);
    }

    /// What has happened already; none when nothing is known now.
    pub(crate) fn try_event(&self) -> Option<Event> {
        self.state().pop()
    }

    /// Whether all that can happen has happened and was taken.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.open == 0 && state.events.is_empty()
    }

    /// The next thing that happened; none when nothing more can.
    pub(crate) fn poll_event(
        &self,
        cx: &mut Context<'_>,
        wake_after: WakeAfter,
    ) -> Poll<Option<Event>> {
        let mut state = self.state();
        if let Some(event) = state.pop() {
            return Poll::Ready(Some(event));
        }
        if state.open == 0 {
            return Poll::Ready(None);
        }
        state.wake_after = wake_after;
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The call had ended before anything was queued.
    pub(crate) fn end_at_once(&self, part: usize, early: Early) {
        self.state().early = Some(early);
        let status = match early {
            Early::Deadline => {
                Status::deadline_exceeded("the deadline had passed before the call began")
            }
            Early::Cancelled => Status::cancelled("the call was cancelled before it began"),
        };
        self.fail_at_once(part, &status);
    }

    /// What ended the call early.
    pub(crate) fn early(&self) -> Option<Early> {
        self.state().early
    }

    /// The call has what it wanted. What is queued is still written; replies are ignored.
    pub(crate) fn complete(&self) {
        self.unregister();
        for part in 0..self.parts.len() {
            let was = self.move_on(part, |state| match state {
                QUEUED => Some(ORPHAN),
                SENT if self.kind == Kind::Streamed => Some(DONE),
                SENT => Some(SENT_ORPHAN),
                _ => None,
            });
            if was.is_none() {
                continue;
            }
            // The peer goes on streaming until it is told.
            if was == Some(SENT) && self.kind == Kind::Streamed {
                self.channel(part).send_cancel(self.id);
            }
            self.release_pending(part);
        }
    }

    /// Nobody wants the call any more. What is queued is withdrawn.
    pub(crate) fn forget(&self) {
        self.unregister();
        for part in 0..self.parts.len() {
            self.abandon(part);
        }
    }

    /// The deadline passed, or the call was cancelled: every part that is not done fails.
    pub(crate) fn end_early(&self, early: Early) {
        self.unregister();
        // Before the parts are looked at: see `settle_deadline`.
        self.state().early.get_or_insert(early);
        let mut failures = Vec::new();
        for part in 0..self.parts.len() {
            if let Some(outcome) = self.abandon(part) {
                let status = early.status(outcome, self.kind);
                failures.push((part, self.channel(part).error(outcome, status)));
            }
        }
        let at = self.time();
        let mut state = self.state();
        // A part whose reply is on its way here records that itself.
        state.open -= failures.len().min(state.open);
        state.failures += failures.len();
        for (part, error) in failures {
            let kind = EventKind::Failed(error);
            state.events.push(Event { part, kind, at });
        }
        Self::wake(state);
    }

    /// All parts are queued. Where the deadline passed meanwhile it found some of them not begun.
    pub(crate) fn settle_deadline(&self) {
        if let Some(early) = self.early() {
            self.end_early(early);
        }
    }

    /// Gives up a part that is not done, and says what became of its request.
    fn abandon(&self, part: usize) -> Option<Outcome> {
        let was = self.move_on(part, |state| matches!(state, QUEUED | SENT).then_some(DONE))?;
        let outcome = if was == QUEUED {
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

    fn is_sent(&self, part: usize) -> bool {
        self.parts[part].load(Ordering::Acquire) == SENT
    }

    // ---- the writer's side

    pub(crate) fn is_queued(&self, part: usize) -> bool {
        matches!(self.parts[part].load(Ordering::Acquire), QUEUED | ORPHAN)
    }

    /// The part is about to be written; false if it was withdrawn.
    pub(crate) fn take_for_writing(&self, part: usize) -> bool {
        self.shift(part, QUEUED, SENT) || self.shift(part, ORPHAN, SENT_ORPHAN)
    }

    /// The part was not written after all; false if nobody wants it any more.
    pub(crate) fn take_back(&self, part: usize) -> bool {
        self.shift(part, SENT, QUEUED) || self.shift(part, SENT_ORPHAN, ORPHAN)
    }

    /// The request was written whole: a one-way part is done.
    pub(crate) fn handed_over(&self, part: usize) {
        if self.kind == Kind::OneWay && self.shift(part, SENT, DONE) {
            self.record(part, EventKind::Ended, true);
        }
    }

    /// The request will not be written.
    pub(crate) fn not_sent(&self, part: usize, status: &Status) {
        self.not_written(part, Outcome::NotSent, status);
    }

    /// The same, where the node may have said why.
    pub(crate) fn not_written(&self, part: usize, outcome: Outcome, status: &Status) {
        if self.shift(part, QUEUED, DONE) {
            self.release_pending(part);
            let error = self.channel(part).error(outcome, status.clone());
            self.record(part, EventKind::Failed(error), true);
        } else {
            self.shift(part, ORPHAN, DONE);
        }
    }

    /// The connection broke after the request was written, and this is known of it.
    pub(crate) fn lost(&self, part: usize, outcome: Outcome, status: &Status) {
        self.fail_sent(part, outcome, status.clone());
    }

    // ---- the reader's side

    /// A reply came at this time; false if the part had its reply, or never was sent.
    pub(crate) fn replied(&self, part: usize, payload: Bytes, now: Instant) -> bool {
        match self.kind {
            Kind::OneWay => false,
            Kind::Unary => {
                let current = self.shift(part, SENT, DONE);
                if current {
                    self.release_pending(part);
                    // Before the caller is woken, who may ask for it.
                    let latency = now.saturating_duration_since(self.started);
                    self.channel(part).latencies().record(latency);
                    self.record(part, EventKind::Reply(payload), true);
                }
                current
            }
            // This tells how long the handler went on, and not how near the node is.
            Kind::Streamed => {
                let current = self.is_sent(part);
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
            Some(status) => self.refused(part, status),
            None if self.kind == Kind::Streamed && self.shift(part, SENT, DONE) => {
                self.release_pending(part);
                self.record(part, EventKind::Ended, true);
            }
            None => {}
        }
    }

    /// The node answered with an error.
    pub(crate) fn refused(&self, part: usize, status: Status) {
        if self.kind != Kind::OneWay {
            self.fail_sent(part, Outcome::Refused, status);
        }
    }

    /// The node answered with something that cannot be used.
    pub(crate) fn unreadable(&self, part: usize, status: Status) {
        if self.kind != Kind::OneWay {
            self.fail_sent(part, Outcome::Unknown, status);
        }
    }

    fn fail_sent(&self, part: usize, outcome: Outcome, status: Status) {
        if self.shift(part, SENT, DONE) {
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
        let mut state = self.state();
        match &kind {
            EventKind::Reply(_) => {
                if self.kind == Kind::Streamed {
                    // Whoever has ended the part meanwhile records that under this lock, before or
                    // after: nothing of a node comes behind its end.
                    if !self.is_sent(part) {
                        return;
                    }
                    if state.is_full(part, self.unread.limit) {
                        match self.unread.overflow {
                            Overflow::DropOldest => state.drop_oldest(part),
                            Overflow::FailNode => {
                                drop(state);
                                return self.overflow(part);
                            }
                        }
                    }
                }
                state.unread += 1;
            }
            EventKind::Failed(_) => state.failures += 1,
            EventKind::Ended => {}
        }
        state.events.push(Event { part, kind, at });
        // After the deadline nothing is open.
        state.open -= usize::from(last).min(state.open);
        let ended = state.open == 0;
        Self::wake(state);
        if ended {
            self.unregister();
        }
    }

    /// A node sent more replies than may wait, to a caller that must not miss one.
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

    fn wake(mut state: MutexGuard<'_, State>) {
        let wanted = state.open == 0
            || state.unread >= state.wake_after.replies
            || (state.failures >= state.wake_after.failures && !state.events.is_empty());
        if wanted && let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    fn unregister(&self) {
        for pool in self.targets.pools() {
            pool.calls.remove(self.id);
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop()?;
        self.unread -= usize::from(matches!(event.kind, EventKind::Reply(_)));
        Some(event)
    }

    /// Whether as many replies of the node as may wait do: a call whose replies nobody takes must not
    /// grow.
    fn is_full(&self, part: usize, limit: usize) -> bool {
        self.unread >= limit
            && self
                .events
                .iter()
                .filter(|event| event.is_reply_of(part))
                .count()
                >= limit
    }

    fn drop_oldest(&mut self, part: usize) {
        if self.events.remove_first(|event| event.is_reply_of(part)) {
            self.unread -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(events: &Events) -> Vec<usize> {
        events.iter().map(|event| event.part).collect()
    }

    #[test]
    fn events_come_in_order_whatever_is_taken_out_between() {
        for removed in 0..3 * FEW_EVENTS {
            let (mut events, mut expected) = (Events::default(), VecDeque::new());
            for part in 0..3 * FEW_EVENTS {
                let kind = EventKind::Ended;
                events.push(Event {
                    part,
                    kind,
                    at: None,
                });
                expected.push_back(part);
                // So that the few begin at every place.
                if part % 3 == 2 {
                    assert_eq!(events.pop().map(|event| event.part), expected.pop_front());
                }
            }
            let at = expected.iter().position(|part| *part == removed);
            assert_eq!(
                events.remove_first(|event| event.part == removed),
                at.is_some()
            );
            at.map(|at| expected.remove(at));
            assert_eq!(parts(&events), Vec::from(expected.clone()));
            while let Some(part) = expected.pop_front() {
                assert!(!events.is_empty());
                assert_eq!(events.pop().map(|event| event.part), Some(part));
            }
            assert!(events.is_empty() && events.pop().is_none());
        }
    }
}
