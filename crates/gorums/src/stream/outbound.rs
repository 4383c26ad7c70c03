//! Writes what is queued on one side of a stream, and knows how far each message came.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::channel::{Channel, OutMessage, StreamId, Ticket};
use crate::handler::ReplyQueue;
use crate::wire::{
    BATCH_BYTES, Batch, BatchBuilder, BatchSlot, Control, encode_control, encode_credit,
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

    /// Adds answers that are queued, up to a batch's size.
    pub(crate) fn push_replies(&mut self, replies: &ReplyQueue) {
        replies.take(&mut self.builder);
    }

    /// Adds messages that are queued, behind all answers and up to a batch's size of their own, so
    /// that neither holds up the other.
    pub(crate) fn push_messages(&mut self, channel: &Channel, stream: StreamId) {
        self.before = self.builder.len();
        let notices = {
            let mut outbox = channel.outbox();
            let mut len = 0;
            while len < BATCH_BYTES {
                let Some(message) = outbox.pop(stream) else {
                    break;
                };
                len += message.frame.len();
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
        for message in &self.batch {
            self.builder.push(&message.frame);
        }
        // Behind the requests: what is given up was written before.
        let side = channel.side();
        for id in notices.cancels {
            let frame = encode_control(side.id_on_the_wire(id), Control::Cancel);
            self.builder.push(&frame);
        }
        for (id, credit) in notices.credits {
            let frame = encode_credit(side.id_on_the_wire(id), credit);
            self.builder.push(&frame);
        }
    }

    /// The batch, if there is anything to send.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        (!self.builder.is_empty()).then(|| self.builder.finish(&self.slot))
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
        for message in self.batch.drain(..) {
            match message.ticket {
                Some(marker) if message.frame.is_empty() => markers.push(marker),
                Some(ticket) => ticket.call.handed_over(ticket.part),
                None => {}
            }
        }
    }

    /// The stream has ended, and `h2` holds no batch any more. Messages of which not a byte was
    /// written go back to the outbox; the others are left to fail with an unknown outcome. Where
    /// another stream has taken over, so are all: it may have written what came behind them.
    pub(crate) fn give_back(&mut self, channel: &Channel, stream: StreamId) {
        let written = self.slot.written();
        let mut begin = self.before;
        let mut unwritten = Vec::new();
        for message in self.batch.drain(..) {
            let end = begin + message.frame.len();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{Buf, Bytes};

    use super::*;
    use crate::channel::{Attachment, Call, Kind, Targets, Unread};
    use crate::membership::WhileDisconnected;
    use crate::wire::{Decoder, Envelope, FIRST_CREDIT, Features, Frame, Side};
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
            outbound.push_messages(channel, first.stream_id());
            assert!(outbound.has_messages());
            let second = replaced.then(|| Attachment::new(channel, features));
            outbound.give_back(channel, first.stream_id());
            assert_eq!(channel.outbox().is_empty(), replaced);
            drop((first, second));
            channel.outbox().drain();
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
            outbound.push_messages(channel, stream.stream_id());
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
        };
        let stream = Attachment::new(channel, features).expect("open");
        let mut outbound = Outbound::default();
        outbound.push_messages(channel, stream.stream_id());
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
