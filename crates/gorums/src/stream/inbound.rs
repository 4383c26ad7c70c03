//! The inbound half of a stream, the same at both ends: bytes come in, replies go to their calls,
//! and requests go to the lane.
//!
//! ```text
//!  chunk ──► Reader ──► Event ──┬─ Reply ────► the call that waits for it
//!           (messages)          ├─ Request ──► Accountant ──► lane
//!                               └─ Refuse ───► answers that wait to be written
//! ```
//!
//! Nothing here knows HTTP/2. The [`Reader`] decides what a message is for, the [`Accountant`] when
//! reading pauses.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Extensions;
use tokio::time::Instant;

use super::accountant::Accountant;
use super::reader::{Event, Handlers, Likely, Limit, Plain, Reader, Replies};
use super::served::Served;
use crate::bounds::Bound;
use crate::channel::{Answered, Channel, deliver, skipped, waiting};
use crate::error::Status;
use crate::handler::{
    Answer, ConnectionInfo, Lane, ReadFor, ReplyQueue, Request, Services, Waiting, keep_last,
};
use crate::log::{self, Peer};
use crate::runtime::{Clock, SystemClock, bounded};
use crate::wire::{Control, Features, Frame, SERVER_INITIATED};

/// The bound of the answers to a peer whose requests nobody serves, and how far the answers to
/// others may go beyond theirs while the peer owes replies.
pub(crate) const REFUSALS: usize = 64 * 1024;

/// How far reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that came was read.
    All,
    /// The lane has enough to do, or answers of this end wait to be written.
    Paused,
}

/// What the peer of a stream has sent so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Messages, whole or too large.
    pub(crate) messages: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// How often reading was found to pause.
    pub(crate) pauses: u64,
}

/// What the peer sends on a stream, until it has been handled.
pub(crate) struct Inbound {
    served: Option<Served>,
    messages: Messages,
}

/// The messages of the peer, on their way to those whom they concern.
struct Messages {
    reader: Reader,
    accountant: Accountant,
    likely: Likely,
    /// Begins with the first request: most nodes never ask.
    lane: Option<Arc<Lane>>,
    /// What handlers of this stream have in common, until the lane begins.
    info: ConnectionInfo,
    peer: Peer,
    /// What the peer understands.
    features: Features,
    replies: Option<Arc<ReplyQueue>>,
    /// The channel whose calls the peer answers.
    callee: Option<Arc<Channel>>,
    /// Read and not handed to the lane yet.
    requests: Vec<Request>,
    /// This task has answered requests itself, and the queue of replies is full.
    answers_wait: bool,
    /// No handler goes on before the peer gives credit or gives up, and so much waits that reading
    /// would pause.
    needs_credit: bool,
    /// The length of the chunk that is being read.
    chunk_len: usize,
    /// Bytes that were read, and that the peer may send anew.
    consumed: usize,
    /// When the latest of the calls began that the peer has answered.
    answered: Option<Instant>,
    /// What came while reading paused. `h2` would keep each frame in the buffer that it was read
    /// into, and a peer may make these many and large.
    unread: BytesMut,
    /// How many messages were read that would belong to a session: replies where this end has opened
    /// the stream, and others where the peer has.
    in_session: u64,
    /// How many bytes the messages have that were read since this end last said how many it has.
    unsaid: usize,
    /// How many messages of a session the peer has said to have.
    acknowledged: Option<u64>,
    /// What the peer has sent so far.
    received: Received,
    /// No further request is taken.
    is_closed: bool,
    /// The peer was asked to write no more requests.
    has_asked: bool,
    /// The peer takes no more requests.
    goes_away: bool,
}

/// What is told of a stream when its inbound half begins.
pub(crate) struct Opening {
    pub(crate) reader: Reader,
    pub(crate) served: Option<Served>,
    pub(crate) info: ConnectionInfo,
    pub(crate) callee: Option<Arc<Channel>>,
}

impl Opening {
    /// That of a stream that this end opened for the calls of a channel.
    pub(crate) fn dialled(
        channel: &Arc<Channel>,
        served: Option<Served>,
        proven: Extensions,
    ) -> Self {
        let limit = Limit {
            bytes: channel.pool().settings.max_decoding_message_size,
            envelope: 0,
            setting: "ConfigurationBuilder::max_decoding_message_size",
        };
        Self {
            reader: Reader::new(Replies::WithoutBit, limit),
            info: ConnectionInfo {
                node: Some(channel.id()),
                own: channel.in_process().is_some(),
                values: served
                    .as_ref()
                    .map(|served| served.values.clone())
                    .unwrap_or_default(),
                proven,
                ..ConnectionInfo::default()
            },
            served,
            callee: Some(Arc::clone(channel)),
        }
    }
}

impl Inbound {
    pub(crate) fn new(opening: Opening) -> Self {
        let Opening {
            reader,
            served,
            info,
            callee,
        } = opening;
        let services = served.as_ref().and_then(Served::services);
        // Where nobody serves, requests are refused and none waits.
        let limit = services.map_or(usize::MAX, |services| services.max_waiting_bytes);
        let messages = Messages {
            reader,
            accountant: Accountant::new(limit),
            likely: Likely::default(),
            lane: None,
            peer: info.peer(),
            info,
            features: Features::default(),
            replies: None,
            callee,
            requests: Vec::new(),
            answers_wait: false,
            needs_credit: false,
            chunk_len: 0,
            consumed: 0,
            answered: None,
            unread: BytesMut::new(),
            in_session: 0,
            unsaid: 0,
            acknowledged: None,
            received: Received::default(),
            is_closed: false,
            has_asked: false,
            goes_away: false,
        };
        Self { served, messages }
    }

    /// The peer has said what it understands.
    pub(crate) fn set_features(&mut self, features: Features) {
        self.messages.features = features;
    }

    /// Answers that wait to be written.
    #[inline]
    pub(crate) fn replies(&self) -> Option<&ReplyQueue> {
        self.messages.replies.as_deref()
    }

    /// Whether no answer waits to be written.
    pub(crate) fn is_answered(&self) -> bool {
        self.replies().is_none_or(ReplyQueue::is_empty)
    }

    /// Wakes the task when there are answers to write, or when reading may go on.
    #[inline]
    pub(crate) fn register(&self, waker: &Waker) {
        if let Some(replies) = &self.messages.replies {
            replies.io().register(waker);
        }
    }

    /// Whether there may be something to read though nothing has come.
    #[inline]
    pub(crate) fn is_held_up(&self) -> bool {
        self.messages.accountant.is_paused() || self.messages.answers_wait
    }

    /// Whether the stream could end here without cutting a message.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.messages.reader.is_between_messages()
    }

    /// Takes the next chunk. Everything before it was read.
    #[inline]
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.messages.push(chunk);
    }

    /// Keeps a chunk that came while reading paused. What is kept is bounded by the window: none of
    /// it may be sent anew before it has been read.
    pub(crate) fn keep(&mut self, chunk: &[u8]) {
        self.messages.unread.extend_from_slice(chunk);
    }

    /// Bytes that were read since this was last asked: the peer may send as many anew.
    #[inline]
    pub(crate) fn take_consumed(&mut self) -> usize {
        std::mem::take(&mut self.messages.consumed)
    }

    /// When the latest of the calls began that were answered since this was last asked.
    #[inline]
    pub(crate) fn take_answered(&mut self) -> Option<Instant> {
        self.messages.answered.take()
    }

    /// Reads what has been pushed and kept, as far as the lane takes it; where it does not, the
    /// waker is called when it does. `now` is set where the clock is read. After an error the
    /// stream cannot be read.
    #[inline]
    pub(crate) fn read(
        &mut self,
        waker: &Waker,
        now: &mut Option<Instant>,
    ) -> Result<Progress, Status> {
        if !self.messages.has_any() {
            return Ok(Progress::All);
        }
        let services = self.served.as_ref().and_then(Served::services);
        let handlers = match (&services, &self.served) {
            (Some(services), _) => Handlers::These(services),
            (None, Some(_)) => Handlers::Stopped,
            (None, None) => Handlers::Nobody,
        };
        self.messages.read(handlers, waker, now)
    }

    /// The handlers of the peer's requests begin to run.
    pub(crate) fn start_lane(&mut self) {
        if let Some(services) = self.served.as_ref().and_then(Served::services) {
            self.messages.start_lane(&services);
        }
    }

    /// Asks the peer to write no more requests. Those that it has written by then are taken, and
    /// what it says behind them is that none follows. False where it does not understand.
    pub(crate) fn ask_for_no_more(&mut self) -> bool {
        let asks = self.messages.features.going_away && !self.messages.is_closed;
        if asks {
            self.messages.has_asked = true;
            self.say(Control::GoingAway);
        }
        asks
    }

    /// Whether the peer takes no more requests.
    pub(crate) fn goes_away(&self) -> bool {
        self.messages.goes_away
    }

    /// Says something to the peer, behind the answers that are queued.
    pub(crate) fn say(&mut self, control: Control) {
        let services = self.served.as_ref().and_then(Served::services);
        let replies = begun(&mut self.messages.replies, services.as_deref());
        replies.push_unbounded(0, "", &Answer::Notice(control));
    }

    /// No further request is taken; what was handed over is still handled. Where this end calls the
    /// peer, it reads on, for the replies; where the peer gives credit, for that. True if it does.
    pub(crate) fn take_no_requests(&mut self) -> bool {
        self.messages.take_no_requests();
        self.messages.callee.is_some() || self.messages.features.credit
    }

    /// No more is read; what was handed over is still handled.
    pub(crate) fn close(&mut self) {
        self.messages.reader.close();
        self.messages.unread = BytesMut::new();
        self.messages.is_closed = true;
        if let Some(lane) = &self.messages.lane {
            lane.end_credits();
            lane.finish();
        }
    }

    /// The peer has gone. What it sent before is read all the same, by
    /// [`poll_work_off`](Self::poll_work_off).
    pub(crate) fn leave(&mut self) {
        self.end_calls();
        // Where no more requests are taken, what is left was for calls and for replies of handlers.
        if self.messages.is_closed {
            self.close();
        }
        if let Some(lane) = &self.messages.lane {
            lane.leave();
        }
        // Where no handler runs there are refusals, and reading would wait until they are taken.
        let services = self.served.as_ref().and_then(Served::services);
        begun(&mut self.messages.replies, services.as_deref()).close();
    }

    /// The stream has broken, and its session goes on. What was not read is written again.
    pub(crate) fn suspend(&mut self) {
        self.end_calls();
        let messages = &mut self.messages;
        messages.hand_over();
        messages.reader.close();
        messages.unread = BytesMut::new();
        messages.chunk_len = 0;
        messages.consumed = 0;
    }

    /// Another stream carries the session, which is told this. The handlers are those of before.
    pub(crate) fn resume(&mut self, opening: Opening) {
        let Opening {
            reader,
            served: _,
            info,
            callee,
        } = opening;
        let messages = &mut self.messages;
        messages.reader = reader;
        messages.callee = callee;
        messages.peer = info.peer();
        messages.unsaid = 0;
        messages.acknowledged = None;
        let lane = messages.lane.as_ref();
        if let Some(lane) = lane {
            lane.go_on(Arc::new(info));
        }
    }

    /// What the peer understands.
    pub(crate) fn features(&self) -> Features {
        self.messages.features
    }

    /// Whether handlers wait with their replies.
    pub(crate) fn is_full(&self) -> bool {
        self.replies().is_some_and(ReplyQueue::is_full)
    }

    /// Whether no more is read.
    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed
    }

    /// No reply to a call of this end comes any more.
    pub(crate) fn end_calls(&mut self) {
        self.messages.callee = None;
    }

    /// Goes on to read what was left when the peer had gone, as far as the lane takes it. Ready
    /// when all of it has been handled.
    pub(crate) fn poll_work_off(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.register(cx.waker());
        if !self.messages.is_closed {
            // Nobody would be told of a message that cannot be read.
            let progress = self.read(cx.waker(), &mut None).unwrap_or(Progress::All);
            if progress == Progress::All {
                self.close();
            }
        }
        if self.is_worked_off() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether nothing is left to be handled.
    pub(crate) fn is_worked_off(&self) -> bool {
        self.messages.is_closed
            && self
                .messages
                .lane
                .as_ref()
                .is_none_or(|lane| lane.is_idle())
    }

    /// The bytes that wait to be handled.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let at_the_lane = self
            .messages
            .lane
            .as_ref()
            .map_or(0, |lane| lane.waiting_bytes());
        self.messages.unread.len() + at_the_lane
    }

    /// The bytes that are kept for the peer: what was read and is not handled, and, where the last
    /// batch is not written, what is to be written behind it.
    pub(crate) fn held_bytes(&self, with_replies: bool) -> usize {
        let replies = self.replies().filter(|_| with_replies);
        self.waiting_bytes()
            + self.messages.reader.partial_bytes()
            + replies.map_or(0, ReplyQueue::bytes)
    }

    /// How many messages of the session were read, and how many bytes those have that came since this
    /// end last [said](Self::said) so.
    #[inline]
    pub(crate) fn of_session(&self) -> (u64, usize) {
        (self.messages.in_session, self.messages.unsaid)
    }

    /// The peer is told how many messages were read.
    pub(crate) fn said(&mut self) {
        self.messages.unsaid = 0;
    }

    /// So many messages of the session were read on earlier streams.
    pub(crate) fn go_on_from(&mut self, received: u64) {
        self.messages.in_session = received;
    }

    /// How many messages of the session the peer has said to have, where it has said more since this
    /// was last asked.
    #[inline]
    pub(crate) fn take_acknowledged(&mut self) -> Option<u64> {
        self.messages.acknowledged.take()
    }

    /// Whether the peer has sent a message, whole or too large.
    pub(crate) fn has_message(&self) -> bool {
        self.messages.received.messages > 0
    }

    /// What the peer has sent so far.
    pub(crate) fn received(&self) -> Received {
        self.messages.received
    }

    /// Whether the peer has begun a message, and the rest of it is for the peer to send.
    pub(crate) fn awaits_rest(&self) -> bool {
        !self.messages.is_closed && !self.is_between_messages() && !self.is_held_up()
    }

    /// Nothing that has come is handled, but for what has started.
    pub(crate) fn discard(&mut self) {
        self.close();
        self.abandon();
    }

    /// The server was stopped: what has not started never will.
    pub(crate) fn abandon(&mut self) {
        self.messages.requests.clear();
        if let Some(lane) = &self.messages.lane {
            lane.abandon();
        }
    }
}

/// The queue of answers, which begins with the first, whatever that is, and has the bound of those that
/// serve.
fn begun<'a>(
    replies: &'a mut Option<Arc<ReplyQueue>>,
    services: Option<&Services>,
) -> &'a Arc<ReplyQueue> {
    let bound = services.map_or(REFUSALS, |services| services.max_reply_bytes);
    replies.get_or_insert_with(|| Arc::new(ReplyQueue::new(bound)))
}

impl Messages {
    /// Whether there is anything to read, or to wait for.
    fn has_any(&self) -> bool {
        self.chunk_len > 0 || !self.unread.is_empty() || self.answers_wait
    }

    fn push(&mut self, chunk: Bytes) {
        self.accountant.begin_chunk(chunk.len());
        self.chunk_len = chunk.len();
        self.received.bytes += chunk.len() as u64;
        self.reader.push(chunk);
    }

    fn read(
        &mut self,
        handlers: Handlers<'_>,
        waker: &Waker,
        now: &mut Option<Instant>,
    ) -> Result<Progress, Status> {
        let at_the_lane = self.lane.as_ref().map_or(0, |lane| lane.waiting_bytes());
        self.accountant.lane_has(at_the_lane);
        self.needs_credit =
            self.accountant.is_full() && self.lane.as_ref().is_some_and(|lane| lane.needs_credit());
        self.answers_wait = self.answers_wait
            && self
                .replies
                .as_ref()
                .is_some_and(|replies| replies.is_full());
        let progress = loop {
            match self.read_chunk(handlers, waker, now) {
                Ok(Progress::All) => {}
                paused_or_broken => break paused_or_broken,
            }
            self.consumed += std::mem::take(&mut self.chunk_len);
            if self.unread.is_empty() {
                break Ok(Progress::All);
            }
            let unread = std::mem::take(&mut self.unread).freeze();
            self.push(unread);
        };
        self.hand_over();
        progress
    }

    fn read_chunk(
        &mut self,
        handlers: Handlers<'_>,
        waker: &Waker,
        now: &mut Option<Instant>,
    ) -> Result<Progress, Status> {
        loop {
            // Replies wait for no handler: while one is owed, reading goes on beyond the bound. So
            // it does where no handler goes on before there is credit, which may be behind.
            let was_paused = self.accountant.is_paused();
            if self.accountant.is_full() && !self.needs_credit && self.may_pause() {
                self.received.pauses += 1;
                if let (false, Some(services)) = (was_paused, handlers.services()) {
                    services.lane.reached().add(Bound::WaitingBytes);
                }
                self.hand_over();
                if let Some(replies) = &self.replies {
                    replies.io().register(waker);
                }
                if let Some(lane) = &self.lane {
                    lane.wake_when_below(self.accountant.low());
                }
                return Ok(Progress::Paused);
            }
            // The next batch makes room, and this task writes it. While a reply is owed, reading
            // goes on beyond the bound of answers, too, but not far: a peer that owes replies and
            // takes none of ours would keep both ends from going on.
            if self.answers_wait {
                if self.may_pause() {
                    self.received.pauses += 1;
                    return Ok(Progress::Paused);
                }
                if self
                    .replies
                    .as_ref()
                    .is_some_and(|replies| replies.exceeds(REFUSALS))
                {
                    return Err(Status::resource_exhausted(
                        "the peer does not read the answers to its requests",
                    ));
                }
            }
            let Some(frame) = self.reader.next()? else {
                return Ok(Progress::All);
            };
            self.received.messages += 1;
            self.take(frame, handlers, now)?;
        }
    }

    fn take(
        &mut self,
        frame: Frame,
        handlers: Handlers<'_>,
        now: &mut Option<Instant>,
    ) -> Result<(), Status> {
        let read_for = if self.needs_credit && self.may_pause() {
            ReadFor::Credit
        } else {
            ReadFor::Replies
        };
        let bytes = self.accountant.waiting();
        let room = Waiting { bytes, read_for };
        // What says that no request follows may stand before one.
        let handlers = if self.is_closed {
            Handlers::Closed
        } else {
            handlers
        };
        let Some(frame) = self.take_plain(frame, handlers, room, now) else {
            return Ok(());
        };
        let event = self
            .reader
            .interpret(&frame, handlers, &self.likely, room)?;
        if let Some(is_reply) = event.is_reply() {
            let len = match &frame {
                Frame::Message(bytes) => bytes.len(),
                Frame::Oversized { len, .. } => *len,
            };
            let is_of_session = is_reply == self.reader.has_opened();
            self.in_session += u64::from(is_of_session);
            self.unsaid = self.unsaid.saturating_add(len);
        }
        match event {
            Event::Request {
                mut request,
                time_left,
            } => {
                request.deadline = self.deadline(time_left, handlers);
                self.likely.note_request(&request);
                self.take_request(request, handlers);
            }
            Event::Reply { id, envelope } => {
                let (Some(channel), Frame::Message(bytes)) = (&self.callee, &frame) else {
                    return Ok(());
                };
                // The clock by which the call began.
                let now = *now.get_or_insert_with(|| channel.pool().clock.now());
                let answered = deliver(channel, id, &envelope, bytes, now);
                drop(envelope);
                if let Some(answered) = answered {
                    self.note_reply(answered);
                }
            }
            Event::Oversized { id, status } => {
                if let Some(channel) = &self.callee {
                    skipped(channel, id, status);
                }
            }
            Event::Cancel { id } => {
                self.hand_over();
                if let Some(lane) = &self.lane {
                    lane.cancel(id);
                }
            }
            Event::Credit { id, bytes } => {
                self.hand_over();
                if let Some(lane) = &self.lane {
                    lane.give(id, bytes);
                }
            }
            Event::Refuse {
                id,
                method,
                status,
                bound,
            } => {
                let services = handlers.services();
                if let (Some(services), Some(bound)) = (services, bound) {
                    services.lane.reached().add(bound);
                }
                // A one-way message cannot be answered, and is not lost in silence.
                if services.is_some_and(|services| services.registry.is_one_way(method)) {
                    return Err(status);
                }
                let admission = services.map(|services| services.refusals.admit(SystemClock.now()));
                log::event!(
                    admission.is_some_and(|admission| admission.is_told) => warn or debug,
                    target: log::HANDLER,
                    method = %log::text(method),
                    peer = %self.peer,
                    node = self.peer.node(),
                    call = id & !SERVER_INITIATED,
                    error = %log::text(&status),
                    left_out = admission.and_then(|admission| admission.left_out),
                    "a request was refused"
                );
                let replies = begun(&mut self.replies, services);
                replies.push_unbounded(id, method, &Answer::Error(&status));
                self.answers_wait = replies.is_full();
            }
            Event::GoAway => self.goes_away |= self.features.going_away,
            Event::NoneFollow => {
                if self.has_asked {
                    self.take_no_requests();
                }
            }
            Event::Received { messages } => self.acknowledged = Some(messages),
            Event::Nothing | Event::Unknown => {}
        }
        Ok(())
    }

    /// Takes a message that is plain, and gives any other back.
    #[inline]
    fn take_plain(
        &mut self,
        frame: Frame,
        handlers: Handlers<'_>,
        room: Waiting,
        now: &mut Option<Instant>,
    ) -> Option<Frame> {
        let Frame::Message(mut bytes) = frame else {
            return Some(frame);
        };
        match self.reader.plain(&bytes, handlers, &self.likely, room) {
            None => return Some(Frame::Message(bytes)),
            Some(Plain::Request { id, entry, payload }) => {
                self.in_session += u64::from(!self.reader.has_opened());
                self.unsaid += bytes.len();
                let request = Request::plain(id, entry, payload, bytes);
                self.take_request(request, handlers);
            }
            Some(Plain::Reply {
                id,
                method,
                payload,
            }) => {
                self.in_session += u64::from(self.reader.has_opened());
                self.unsaid += bytes.len();
                if let Some(channel) = &self.callee
                    && let Some((call, part)) = waiting(channel, id, method)
                {
                    let now = *now.get_or_insert_with(|| channel.pool().clock.now());
                    keep_last(&mut bytes, payload);
                    call.replied(part, bytes, now);
                    self.note_reply(Answered::of(&call));
                }
            }
        }
        None
    }

    /// When the caller of a request stops to wait to whom so many microseconds are left, or 0 where it
    /// has no deadline.
    fn deadline(&self, time_left: u64, handlers: Handlers<'_>) -> Option<Instant> {
        if time_left == 0 || !self.features.deadline {
            return None;
        }
        let clock = &handlers.services()?.lane.clock;
        // Whatever the peer says can be added.
        Some(clock.now() + bounded(Duration::from_micros(time_left)))
    }

    #[inline]
    fn take_request(&mut self, mut request: Request, handlers: Handlers<'_>) {
        self.accountant.count(&mut request);
        self.requests.push(request);
        if let (None, Some(services)) = (&self.lane, handlers.services()) {
            self.start_lane(services);
        }
    }

    #[inline]
    fn note_reply(&mut self, answered: Answered) {
        self.likely.note_reply(answered.method);
        self.answered = self.answered.max(Some(answered.began));
    }

    /// Whether reading may pause because nobody here waits for a reply.
    fn may_pause(&self) -> bool {
        self.callee
            .as_ref()
            .is_none_or(|channel| channel.may_pause_reading())
    }

    fn take_no_requests(&mut self) {
        self.hand_over();
        self.is_closed = true;
        if let Some(lane) = &self.lane {
            lane.finish();
        }
    }

    fn start_lane(&mut self, services: &Services) {
        let replies = Arc::clone(begun(&mut self.replies, Some(services)));
        let (lane, task) = Lane::start(
            Arc::clone(&services.lane),
            Arc::new(std::mem::take(&mut self.info)),
            replies,
            self.features,
        );
        tokio::spawn(task);
        self.lane = Some(lane);
    }

    /// The lane gets what was read.
    fn hand_over(&mut self) {
        if let Some(lane) = &self.lane
            && !self.requests.is_empty()
        {
            lane.push(&mut self.requests);
            self.accountant.handed_over(lane.waiting_bytes());
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.messages.hand_over();
        if let Some(lane) = &self.messages.lane {
            lane.disconnect();
        }
    }
}
