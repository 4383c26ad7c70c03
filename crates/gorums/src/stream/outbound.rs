//! Writes what is queued on one side of a stream, and knows how far each message came.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::session::Session;
use crate::channel::{Channel, OutMessage, StreamId, Ticket};
use crate::handler::ReplyQueue;
use crate::wire::{
    Added, BATCH_BYTES, Batch, BatchBuilder, BatchSlot, Control, PREFIX, Unacknowledged,
    encode_control, encode_credit, start_with,
};

/// Puts batches together, of which one at a time is with `h2`: answers first, then calls.
#[derive(Default)]
pub(crate) struct Outbound {
    slot: BatchSlot,
    builder: BatchBuilder,
    /// The messages of the batch that is with `h2`.
    batch: VecDeque<OutMessage>,
    /// How many of its bytes come before them.
    before: usize,
    /// How many of these, the first ones, were written before, in a session on a stream that broke.
    again: usize,
    /// How many batches there were.
    batches: u64,
}

/// How much was written so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// How many batches were handed over.
    pub(crate) batches: u64,
    /// How many bytes are left of the last one.
    pub(crate) left: u64,
}

impl Outbound {
    /// Whether the next batch can be sent.
    pub(crate) fn is_free(&self) -> bool {
        self.slot.is_free()
    }

    /// Whether messages of the last batch are not settled.
    pub(crate) fn has_messages(&self) -> bool {
        !self.batch.is_empty()
    }

    /// When the last of the messages was asked for that the last batch has, where that is known.
    pub(crate) fn asked(&self) -> Option<Instant> {
        let ticket = self.batch.back()?.ticket.as_ref()?;
        Some(ticket.call.started())
    }

    /// Adds what a session begins with on a stream that resumes it, up to a batch's size. True where
    /// more of that is to come.
    #[inline]
    pub(super) fn push_rest(&mut self, session: &mut Session) -> bool {
        let more = session.push_rest(&mut self.builder, &mut self.batch);
        self.again = self.batch.len();
        more
    }

    /// Says that this end has read so many messages of the session, where that is due. True where it
    /// did.
    #[inline]
    pub(super) fn say(&mut self, session: &mut Session, received: u64, bytes: usize) -> bool {
        session.say(received, bytes, &mut self.builder)
    }

    /// Adds answers that are queued, up to a batch's size.
    #[inline]
    pub(crate) fn push_replies(&mut self, replies: &ReplyQueue, kept: Option<&mut Unacknowledged>) {
        replies.take(&mut self.builder, kept);
    }

    /// Adds messages that are queued, behind all answers and up to a batch's size of their own, so
    /// that neither holds up the other.
    pub(crate) fn push_messages(
        &mut self,
        channel: &Channel,
        stream: StreamId,
        session: Option<&mut Session>,
    ) {
        self.before = self.builder.len();
        let room = session
            .as_ref()
            .map_or(usize::MAX, |session| session.room());
        let (mut has_deadlines, mut has_resent) = (false, false);
        let notices = {
            let mut outbox = channel.outbox();
            let mut len = 0;
            while len < BATCH_BYTES.min(room) {
                let Some(message) = outbox.pop(stream) else {
                    break;
                };
                len += message.frame.len();
                has_deadlines |= message.deadline().is_some();
                has_resent |= message.is_resent();
                if let Some(ticket) = &message.ticket
                    && ticket.call.is_streamed()
                {
                    ticket.call.announce(ticket.part);
                }
                self.batch.push_back(message);
            }
            // Under the lock: those of the stream that takes over are not for this one to write.
            if outbox.is_carried_by(stream) {
                channel.take_notices()
            } else {
                channel.take_notices_of(stream)
            }
        };
        let mut kept = session.map(|session| &mut session.kept);
        // Nobody else's calls have names by which a node could know them.
        has_resent &= channel.pool().client.is_some();
        has_deadlines &= channel.features().deadline;
        if has_deadlines || has_resent {
            let now = has_deadlines.then(|| channel.pool().clock.now());
            self.push_added(now, has_resent, kept.as_deref_mut());
        } else {
            for message in self.batch.range(self.again..) {
                push(&mut self.builder, &mut kept, &message.frame);
            }
        }
        // Behind the requests: what is given up was written before.
        let side = channel.side();
        for id in notices.cancels {
            let frame = encode_control(side.id_on_the_wire(id), Control::Cancel);
            push(&mut self.builder, &mut kept, &frame);
        }
        for (id, credit) in notices.credits {
            let frame = encode_credit(side.id_on_the_wire(id), credit);
            push(&mut self.builder, &mut kept, &frame);
        }
    }

    /// Adds the messages of the batch that are new to this stream, each with the time that is left to its
    /// caller at this time, and with whether it was written on one that broke, as far as either is told.
    #[cold]
    fn push_added(
        &mut self,
        now: Option<Instant>,
        has_resent: bool,
        mut kept: Option<&mut Unacknowledged>,
    ) {
        for message in self.batch.range_mut(self.again..) {
            let time_left = message.deadline().zip(now).map(|(deadline, now)| {
                // Rounded up: the node does not find it late before the caller does.
                let left = deadline.saturating_duration_since(now).as_nanos();
                let left = left.div_ceil(1_000);
                // One whose time has just passed is not told as one that has no deadline.
                u64::try_from(left).unwrap_or(u64::MAX).max(1)
            });
            let added = Added {
                time_left,
                is_resent: has_resent && message.is_resent(),
            };
            match start_with(&message.frame, added) {
                None => push(&mut self.builder, &mut kept, &message.frame),
                Some((start, len)) => {
                    let (start, frame) = (&start[..len], &message.frame);
                    message.beyond = len - PREFIX;
                    self.builder.push_begun(start, frame, PREFIX);
                    if let Some(kept) = &mut kept {
                        kept.push_begun(start, frame, PREFIX);
                    }
                }
            }
        }
    }

    /// How much was written so far.
    pub(crate) fn written(&self) -> Written {
        Written {
            batches: self.batches,
            left: self.slot.left() as u64,
        }
    }

    /// The batch, if there is anything to send.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        if self.builder.is_empty() {
            return None;
        }
        self.batches += 1;
        Some(self.builder.finish(&self.slot))
    }

    /// An empty batch, which ends the stream.
    pub(crate) fn last(&mut self) -> Batch {
        self.builder.finish(&self.slot)
    }

    /// Where the batch is written, one-way calls have been handed over. Markers that were passed
    /// are added to these.
    pub(crate) fn settle(&mut self, markers: &mut Vec<Ticket>) {
        if self.batch.is_empty() || !self.slot.is_free() {
            return;
        }
        self.again = 0;
        for message in self.batch.drain(..) {
            match message.ticket {
                Some(marker) if message.frame.is_empty() => markers.push(marker),
                Some(ticket) => ticket.call.handed_over(ticket.part),
                None => {}
            }
        }
    }

    /// The stream has ended, and its session goes on: these are the messages of the last batch, of
    /// which it is not known whether they were written.
    pub(super) fn into_batch(self) -> VecDeque<OutMessage> {
        self.batch
    }

    /// The stream has ended. Messages of which not a byte was written go back to the outbox; the
    /// others are left to fail with an unknown outcome. Where another stream has taken over, so are
    /// all: it may have written what came behind them. And so are those of a batch that `h2` still
    /// holds, which it may yet write, and those that were written before.
    pub(crate) fn give_back(&mut self, channel: &Channel, stream: StreamId) {
        self.batch.drain(..self.again);
        if !self.slot.is_free() {
            self.batch.clear();
        }
        let written = self.slot.written();
        let mut begin = self.before;
        let mut unwritten = Vec::new();
        for message in self.batch.drain(..) {
            let end = begin + message.frame.len() + message.beyond;
            match &message.ticket {
                Some(ticket) if end <= written => ticket.call.handed_over(ticket.part),
                _ if begin >= written => unwritten.push(message),
                _ => {}
            }
            begin = end;
        }
        let mut outbox = channel.outbox();
        if !outbox.is_carried_by(stream) {
            return;
        }
        for message in unwritten.into_iter().rev() {
            let wanted = message
                .ticket
                .as_ref()
                .is_none_or(|ticket| ticket.call.take_back(&message, ticket.part));
            if wanted {
                outbox.put_back(message);
            }
        }
    }
}

/// Adds a message to the batch, and to what a session keeps. A marker is none.
#[inline]
fn push(builder: &mut BatchBuilder, kept: &mut Option<&mut Unacknowledged>, frame: &Bytes) {
    builder.push(frame);
    if let Some(kept) = kept
        && !frame.is_empty()
    {
        kept.push(frame);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Buf;

    use super::*;
    use crate::channel::{Attachment, Call, Kind, Targets, Unread};
    use crate::membership::WhileDisconnected;
    use crate::metadata::Metadata;
    use crate::wire::{Decoder, Envelope, FIRST_CREDIT, Features, Frame, Side, encode_message};
    use crate::{Client, Configuration};

    /// A node that opens its streams itself, and what holds it.
    fn node_that_connects() -> Configuration {
        let both = Configuration::builder()
            .node(1, "127.0.0.1:1")
            .node(2, "127.0.0.1:2")
            .one_stream_per_pair(2, WhileDisconnected::Wait)
            .connect()
            .expect("legal");
        both.select([1]).expect("known")
    }

    /// It would come behind what the other one has written since, and nobody would wake that one.
    #[tokio::test]
    async fn what_a_stream_did_not_write_before_another_took_over_stays_out_of_the_outbox() {
        let node = node_that_connects();
        let channel = node[0].channel();
        let features = Features::default();
        for replaced in [false, true] {
            let first = Attachment::new(channel, features).expect("open");
            let detached = Client::new(&node).multicast("test.Test.Note", ()).detach();
            assert!(detached.is_empty());
            let mut outbound = Outbound::default();
            outbound.push_messages(channel, first.stream_id(), None);
            assert!(outbound.has_messages());
            let second = replaced.then(|| Attachment::new(channel, features));
            outbound.give_back(channel, first.stream_id());
            assert_eq!(channel.outbox().is_empty(), replaced);
            drop((first, second));
            channel.outbox().drain();
        }
    }

    /// A one-way call on the node that ends in a second, and is queued.
    fn timed_call(channel: &Arc<Channel>, id: u64, frame: &Bytes) -> Arc<Call> {
        let now = channel.pool().clock.now();
        let targets = Targets::new([Arc::clone(channel)]);
        let call = Call::new(id, "m", Kind::OneWay, targets, 1, now);
        let call = Arc::new(call.ending(Some(now + std::time::Duration::from_secs(1))));
        assert!(call.queue(0, frame.clone()));
        call
    }

    /// It is counted with the time that was put before it, and has another time when it is written
    /// at last.
    #[tokio::test(start_paused = true)]
    async fn what_was_not_written_of_messages_with_deadlines_goes_back() {
        let node = node_that_connects();
        let channel = node[0].channel();
        let features = Features {
            deadline: true,
            ..Features::default()
        };
        // Small ones are copied, and large ones go by reference.
        for size in [10, 10_000] {
            let request = "k".repeat(size);
            let frame = encode_message(3, "m", &Metadata::new(), &request, usize::MAX);
            let frame = frame.expect("no limit");
            let stream = Attachment::new(channel, features).expect("open");
            let calls: Vec<_> = (1..=3).map(|id| timed_call(channel, id, &frame)).collect();
            let mut outbound = Outbound::default();
            outbound.push_messages(channel, stream.stream_id(), None);
            let mut batch = outbound.next().expect("three requests");
            let each = batch.remaining() / 3;
            assert_eq!(each, frame.len() + 4);
            // All of the first, and a byte of the second.
            batch.advance(each + 1);
            drop(batch);
            outbound.give_back(channel, stream.stream_id());
            let is_over: Vec<_> = calls.iter().map(|call| call.is_over()).collect();
            assert_eq!(is_over, [false, false, false], "events are to be taken");
            assert!(calls[0].try_event().is_some() && calls[0].is_over());
            assert!(calls[1].try_event().is_none(), "its outcome is unknown");
            assert_eq!(channel.outbox().len(), 1);
            tokio::time::advance(std::time::Duration::from_millis(999)).await;
            outbound.push_messages(channel, stream.stream_id(), None);
            let mut batch = outbound.next().expect("the third request");
            let bytes = batch.copy_to_bytes(batch.remaining());
            let mut decoder = Decoder::new(100_000);
            decoder.push(bytes);
            let Some(Frame::Message(message)) = decoder.next().expect("ours") else {
                panic!("it is whole");
            };
            let envelope = Envelope::decode(&message).expect("ours");
            assert_eq!(envelope.time_left, 1_000);
            drop((calls, stream));
        }
    }

    #[tokio::test]
    async fn a_cancellation_is_told_on_the_stream_that_carries_the_calls() {
        let node = node_that_connects();
        let channel = node[0].channel();
        let features = Features {
            cancel: true,
            ..Features::default()
        };
        let first = Attachment::new(channel, features).expect("open");
        let second = Attachment::new(channel, features).expect("open");
        channel.send_cancel(7, false);
        for (stream, expected) in [(&first, false), (&second, true)] {
            let mut outbound = Outbound::default();
            outbound.push_messages(channel, stream.stream_id(), None);
            assert_eq!(outbound.next().is_some(), expected);
        }
    }

    /// What is told of a streamed call whose request is written, after this was done to the call.
    fn told_of_streamed(then: impl FnOnce(&Call)) -> Vec<(Control, u64)> {
        let node = node_that_connects();
        let channel = node[0].channel();
        let (id, now) = (7, channel.pool().clock.now());
        let kind = Kind::Streamed(Unread::default());
        let targets = Targets::new([Arc::clone(channel)]);
        let call = Arc::new(Call::new(id, "m", kind, targets, 1, now));
        assert!(call.queue(0, Bytes::from_static(b"a request")));
        then(&call);
        let features = Features {
            cancel: true,
            stream_end: true,
            credit: true,
            instance: true,
            kind: true,
            going_away: true,
            deadline: true,
        };
        let stream = Attachment::new(channel, features).expect("open");
        let mut outbound = Outbound::default();
        outbound.push_messages(channel, stream.stream_id(), None);
        let mut batch = outbound.next().expect("the request");
        let mut bytes = batch.copy_to_bytes(batch.remaining());
        bytes.advance(b"a request".len());
        let mut decoder = Decoder::new(100);
        decoder.push(bytes);
        let mut told = Vec::new();
        while let Some(Frame::Message(frame)) = decoder.next().expect("ours") {
            let envelope = Envelope::decode(&frame).expect("ours");
            assert_eq!(envelope.id, Side::Server.id_on_the_wire(id));
            told.push((envelope.control, envelope.credit));
        }
        told
    }

    #[tokio::test]
    async fn credit_goes_behind_the_request_of_a_streamed_call() {
        let window = Unread::default().window;
        let told = told_of_streamed(|_| {});
        assert_eq!(told, [(Control::Credit, window - FIRST_CREDIT)]);
    }

    /// Its handler would wait for credit for ever.
    #[tokio::test]
    async fn a_streamed_call_that_is_written_for_nobody_is_cancelled() {
        let told = told_of_streamed(Call::complete);
        assert_eq!(told, [(Control::Cancel, 0)]);
    }
}
