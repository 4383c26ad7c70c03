//! Writes what is queued on one side of a stream, and knows how far each message came.

use std::collections::VecDeque;

use super::Channel;
use super::outbox::{Carrier, OutMessage, Ticket};
use crate::server::ReplyQueue;
use crate::wire::{BATCH_BYTES, Batch, BatchBuilder, BatchSlot, Control, encode_control};

/// Puts batches together, of which one at a time is with `h2`: answers first, then calls.
#[derive(Default)]
pub(crate) struct Writer {
    slot: BatchSlot,
    builder: BatchBuilder,
    /// The messages of the batch that is with `h2`.
    batch: VecDeque<OutMessage>,
    /// How many of its bytes come before them.
    before: usize,
}

impl Writer {
    /// Whether the next batch can be sent.
    pub(crate) fn is_free(&self) -> bool {
        self.slot.is_free()
    }

    /// Whether messages of the last batch are not settled.
    pub(crate) fn has_messages(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Adds answers that are queued, up to a batch's size.
    pub(crate) fn push_replies(&mut self, replies: &ReplyQueue) {
        replies.take(&mut self.builder);
    }

    /// Adds messages that are queued, behind all answers and up to a batch's size of their own, so
    /// that neither holds up the other.
    pub(crate) fn push_messages(&mut self, channel: &Channel, carrier: Carrier) {
        self.before = self.builder.len();
        {
            let mut outbox = channel.outbox();
            let mut len = 0;
            while len < BATCH_BYTES {
                let Some(message) = outbox.pop(carrier) else {
                    break;
                };
                len += message.frame.len();
                self.batch.push_back(message);
            }
        }
        for message in &self.batch {
            self.builder.push(&message.frame);
        }
        // Behind the requests: what is given up was written before.
        for id in channel.take_cancels() {
            let frame = encode_control(channel.side().id_on_the_wire(id), Control::Cancel);
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

    /// Where the batch is written, one-way calls have been handed over. Markers that were passed are
    /// added to these.
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
    /// written go back to the outbox; the others are left to fail with an unknown outcome.
    pub(crate) fn give_back(&mut self, channel: &Channel) {
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
        for message in unwritten.into_iter().rev() {
            let wanted = message
                .ticket
                .as_ref()
                .is_none_or(|ticket| ticket.call.take_back(ticket.part));
            if wanted {
                outbox.put_back(message);
            }
        }
    }
}
