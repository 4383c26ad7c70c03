//! The requests that wait to be written to a node, bounded in messages and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Call;

/// A frame and the call that it belongs to.
pub(crate) struct OutMessage {
    pub(crate) frame: Bytes,
    /// None where nobody waits for an answer or for the frame to be written.
    pub(crate) ticket: Option<Ticket>,
    /// An attempt to connect has begun since it was queued. It fails with that attempt, unless it
    /// may be tried again.
    attempted: bool,
    /// How often it has been tried again, since it was written on a stream that broke; 0 where it
    /// was not.
    pub(super) tries: u8,
    /// How many bytes it has on the wire beyond those of its frame.
    pub(crate) beyond: usize,
}

/// A call's part at one node.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) call: Arc<Call>,
    pub(crate) part: usize,
}

impl OutMessage {
    pub(crate) fn new(frame: Bytes, ticket: Option<Ticket>) -> Self {
        Self {
            frame,
            ticket,
            attempted: false,
            tries: 0,
            beyond: 0,
        }
    }

    /// When its caller stops to wait, where the node is to know it.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let Ticket { call, part } = self.ticket.as_ref()?;
        call.deadline_of(*part)
    }

    /// Whether it was written before, on a stream that broke.
    #[inline]
    pub(crate) fn is_resent(&self) -> bool {
        self.tries > 0
    }

    /// Whether the message is still to be written, and was not withdrawn.
    fn is_wanted(&self) -> bool {
        self.ticket
            .as_ref()
            .is_none_or(|ticket| ticket.call.parts.is_queued(ticket.part))
    }

    /// Whether it was written before, and is tried once more.
    fn is_tried_again(&self) -> bool {
        let has_another = |ticket: &Ticket| {
            ticket.call.may_try_again(ticket.part, self.tries) && self.is_wanted()
        };
        self.tries > 0 && self.ticket.as_ref().is_some_and(has_another)
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    Full,
    Closed,
    /// The node has opened no stream, and messages do not wait for one.
    Away,
    /// The node is the same server as another one.
    SameServer,
}

/// Names a stream that takes messages out. A node may open another one before the last has ended
/// here: then only the newer one takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl StreamId {
    /// The stream to a node that this process connects to, whose I/O task has one at a time.
    pub(crate) const DIALLED: Self = Self(0);
}

pub(crate) struct Outbox {
    queue: VecDeque<OutMessage>,
    bytes: usize,
    /// How many messages in the queue were withdrawn.
    withdrawn: usize,
    /// How many messages were taken out whose frames are kept. Gives each its place among them.
    places: u64,
    closed: bool,
    /// Takes messages out. None while a node that opens its streams itself has none open.
    stream: Option<StreamId>,
    /// How many streams were given a name of their own: those that the node has opened, and those
    /// to it that wind down.
    opened: u64,
    /// Messages do not wait while there is no stream.
    fails_fast: bool,
    /// No message is taken: the node is the same server as another one.
    refuses: bool,
    /// Nothing is taken out before this time, or somewhat later.
    held_until: Option<Instant>,
    max_messages: usize,
    max_bytes: usize,
}

impl Outbox {
    /// The outbox of a node that this process connects to.
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            withdrawn: 0,
            places: 0,
            closed: false,
            stream: Some(StreamId::DIALLED),
            opened: 0,
            fails_fast: false,
            refuses: false,
            held_until: None,
            max_messages,
            max_bytes,
        }
    }

    /// The outbox of a node that opens its streams itself.
    pub(crate) fn without_stream(max_messages: usize, max_bytes: usize, fails_fast: bool) -> Self {
        Self {
            stream: None,
            fails_fast,
            ..Self::new(max_messages, max_bytes)
        }
    }

    /// Queues a message. An empty outbox takes also one that alone exceeds the bound in bytes.
    pub(crate) fn push(&mut self, message: OutMessage) -> Result<(), Rejected> {
        if self.closed {
            return Err(Rejected::Closed);
        }
        if self.refuses {
            return Err(Rejected::SameServer);
        }
        if self.fails_fast && self.stream.is_none() {
            return Err(Rejected::Away);
        }
        if !self.has_room(message.frame.len()) {
            // Sweeping costs a pass over the queue, so it is done only where it frees an eighth.
            if self.withdrawn * 8 < self.queue.len() {
                return Err(Rejected::Full);
            }
            self.sweep();
            if !self.has_room(message.frame.len()) {
                return Err(Rejected::Full);
            }
        }
        self.push_unbounded(message)
    }

    /// Queues a marker, whatever the bound. It is refused where there is no stream and nothing
    /// waits for one.
    pub(crate) fn push_marker(&mut self, marker: OutMessage) -> Result<(), Rejected> {
        if self.stream.is_none() && self.is_empty() && !self.closed {
            return Err(Rejected::Away);
        }
        if self.refuses && !self.closed {
            return Err(Rejected::SameServer);
        }
        self.push_unbounded(marker)
    }

    fn push_unbounded(&mut self, message: OutMessage) -> Result<(), Rejected> {
        if self.closed {
            return Err(Rejected::Closed);
        }
        self.bytes += message.frame.len();
        self.queue.push_back(message);
        Ok(())
    }

    fn has_room(&self, len: usize) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < self.max_messages && self.bytes + len <= self.max_bytes)
    }

    /// Notes that a queued message was withdrawn.
    pub(crate) fn note_withdrawn(&mut self) {
        self.withdrawn += 1;
        if self.withdrawn * 2 > self.queue.len() {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut kept =
            VecDeque::with_capacity(self.queue.len() - self.withdrawn.min(self.queue.len()));
        self.bytes = 0;
        for message in self.queue.drain(..) {
            if message.is_wanted() {
                self.bytes += message.frame.len();
                kept.push_back(message);
            }
        }
        self.queue = kept;
        self.withdrawn = 0;
    }

    /// The next message for this stream to write, whose part is now sent. Withdrawn ones are passed
    /// over.
    pub(crate) fn pop(&mut self, stream: StreamId) -> Option<OutMessage> {
        if !self.is_carried_by(stream) || self.held_until.is_some() {
            return None;
        }
        loop {
            let message = self.pop_any()?;
            let wanted = message.ticket.as_ref().is_none_or(|ticket| {
                let Ticket { call, part } = ticket;
                call.take_for_writing(&message, *part, &mut self.places)
            });
            if wanted {
                return Some(message);
            }
            self.withdrawn = self.withdrawn.saturating_sub(1);
        }
    }

    fn pop_any(&mut self) -> Option<OutMessage> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.frame.len();
        Some(message)
    }

    /// Nothing is taken out before this time. True where somebody has to [end](Self::end_hold) that.
    pub(super) fn hold_until(&mut self, until: Instant) -> bool {
        let before = self.held_until;
        self.held_until = before.max(Some(until));
        before.is_none()
    }

    /// Until when nothing is taken out; none from now on where that is over.
    pub(super) fn end_hold(&mut self, now: Instant) -> Option<Instant> {
        self.held_until = self.held_until.filter(|until| *until > now);
        self.held_until
    }

    /// Puts a message before all others, which was popped last and not written, or is written again.
    pub(crate) fn put_back(&mut self, mut message: OutMessage) {
        message.beyond = 0;
        self.bytes += message.frame.len();
        self.queue.push_front(message);
    }

    /// An attempt to connect begins, for the messages that are queued now.
    pub(crate) fn begin_attempt(&mut self) {
        for message in &mut self.queue {
            message.attempted = true;
        }
    }

    /// The attempt failed, or its stream broke early: takes out the messages that it was made for,
    /// which are the first of the queue, but for those that are tried again. These stay before all
    /// others.
    pub(crate) fn fail_attempt(&mut self) -> Vec<OutMessage> {
        let attempted = self.queue.iter().take_while(|message| message.attempted);
        let attempted = self.take_first(attempted.count());
        let (again, failed): (Vec<_>, _) =
            attempted.into_iter().partition(OutMessage::is_tried_again);
        for mut message in again.into_iter().rev() {
            message.tries = message.tries.saturating_add(1);
            self.put_back(message);
        }
        failed
    }

    /// Takes out all messages.
    pub(crate) fn drain(&mut self) -> Vec<OutMessage> {
        self.take_first(self.queue.len())
    }

    fn take_first(&mut self, count: usize) -> Vec<OutMessage> {
        let taken = (0..count).filter_map(|_| self.pop_any()).collect();
        self.withdrawn = self.withdrawn.min(self.queue.len());
        taken
    }

    /// Puts messages that were written before all others, whatever the bound: they were within it
    /// when they were kept. Gives them back where they cannot wait for a stream.
    pub(crate) fn push_again(&mut self, messages: Vec<OutMessage>) -> Vec<OutMessage> {
        let is_away = self.fails_fast && self.stream.is_none();
        if self.closed || self.refuses || is_away {
            return messages;
        }
        for message in messages.into_iter().rev() {
            self.put_back(message);
        }
        Vec::new()
    }

    /// From now on messages are not taken. Returns those that were queued.
    pub(crate) fn refuse(&mut self) -> Vec<OutMessage> {
        self.refuses = true;
        self.drain()
    }

    /// From now on messages are taken again.
    pub(crate) fn accept(&mut self) {
        self.refuses = false;
    }

    /// The node has opened a stream, which takes the messages from now on. Returns the stream, and
    /// the one that it replaces, if any; none where the outbox is closed.
    pub(crate) fn attach(&mut self) -> Option<(StreamId, Option<StreamId>)> {
        if self.closed {
            return None;
        }
        self.opened += 1;
        let stream = StreamId(self.opened);
        Some((stream, self.stream.replace(stream)))
    }

    /// This stream takes no more messages. Returns those that do not wait for the next stream; none
    /// where this one had ceased to take messages before.
    pub(crate) fn detach(&mut self, stream: StreamId) -> Option<Vec<OutMessage>> {
        if !self.is_carried_by(stream) {
            return None;
        }
        self.stream = None;
        Some(if self.fails_fast {
            self.drain()
        } else {
            Vec::new()
        })
    }

    /// The stream that this process has opened takes no more messages, and is called this from now
    /// on: the next one has its name.
    pub(crate) fn wind_down(&mut self) -> StreamId {
        self.opened += 1;
        StreamId(self.opened)
    }

    pub(crate) fn is_carried_by(&self, stream: StreamId) -> bool {
        self.stream == Some(stream)
    }

    /// Whether any stream takes messages.
    pub(crate) fn is_carried(&self) -> bool {
        self.stream.is_some()
    }

    /// From now on messages are neither taken nor given out. Returns those that were queued.
    pub(crate) fn close(&mut self) -> Vec<OutMessage> {
        self.closed = true;
        self.stream = None;
        self.drain()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many bytes are queued, those of withdrawn messages included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages are queued, withdrawn ones included.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> OutMessage {
        OutMessage::new(Bytes::from(vec![0; len]), None)
    }

    #[test]
    fn it_is_bounded_in_messages_and_in_bytes() {
        let mut outbox = Outbox::new(3, 100);
        for _ in 0..3 {
            assert_eq!(outbox.push(message(1)), Ok(()));
        }
        assert_eq!(outbox.push(message(1)), Err(Rejected::Full));
        while outbox.pop(StreamId::DIALLED).is_some() {}
        assert_eq!(outbox.push(message(60)), Ok(()));
        assert_eq!(outbox.push(message(41)), Err(Rejected::Full));
        assert_eq!(outbox.push(message(40)), Ok(()));
        while outbox.pop(StreamId::DIALLED).is_some() {}
        assert_eq!(outbox.push(message(1000)), Ok(()), "alone");
        assert_eq!(outbox.push(message(1)), Err(Rejected::Full));
    }

    #[test]
    fn a_failed_attempt_takes_what_was_queued_before_it() {
        let mut outbox = Outbox::new(10, 100);
        assert_eq!(outbox.push(message(1)), Ok(()));
        assert_eq!(outbox.push(message(2)), Ok(()));
        outbox.begin_attempt();
        assert_eq!(outbox.push(message(3)), Ok(()));
        let failed: Vec<_> = outbox
            .fail_attempt()
            .iter()
            .map(|m| m.frame.len())
            .collect();
        assert_eq!(failed, [1, 2]);
        assert_eq!(outbox.len(), 1);
        assert_eq!(outbox.close().len(), 1);
        assert_eq!(outbox.push(message(1)), Err(Rejected::Closed));
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut outbox = Outbox::new(10, 100);
        assert_eq!(outbox.push(message(1)), Ok(()));
        assert_eq!(outbox.push(message(2)), Ok(()));
        let first = outbox.pop(StreamId::DIALLED).expect("queued");
        outbox.put_back(first);
        assert_eq!(
            outbox.pop(StreamId::DIALLED).map(|m| m.frame.len()),
            Some(1)
        );
    }
}
