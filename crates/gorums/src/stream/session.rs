//! One end of a session, which outlives the streams that carry it.
//!
//! The messages of a session are the requests of a client, with what it says of them, and the
//! answers of the server. Each end counts those that it has read, says so now and then, and keeps
//! those that it has written until the other end has said that. Where a stream breaks, the client
//! opens the next one for the same session: both say how many they have, and write what follows. So
//! nothing is lost, nothing comes twice, and all comes in the order in which it was written.
//!
//! This is how streams of XMPP are resumed (XEP-0198), and does for every call what RIFL (Lee et al.,
//! SOSP 2015) does for those that change something.

use std::collections::VecDeque;

use bytes::Bytes;

use super::outbound::Outbound;
use crate::channel::OutMessage;
use crate::wire::{BATCH_BYTES, BatchBuilder, Unacknowledged, encode_received};

/// What is read is said when it has come to so many messages, or so many bytes.
const MESSAGES: u64 = 64;
const BYTES: usize = 64 * 1024;

/// The least that is kept, whatever the bound: what the other end has and does not say is less.
pub(crate) const LEAST_KEPT: usize = 2 * BYTES;

/// Which of the messages that this end writes belong to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Those of the channel: it is the client's end.
    Messages,
    /// The answers: it is the server's.
    Answers,
}

/// One end of a session.
pub(crate) struct Session {
    pub(super) writes: Writes,
    pub(super) kept: Unacknowledged,
    /// No more than so many bytes are kept: the client writes no more requests then, and the server
    /// cannot resume the session.
    limit: usize,
    /// It began in the place of one that the client had asked for and that was not there.
    is_substitute: bool,
    /// How many messages of the other end this one had read when it last said so.
    said: u64,
    /// What follows what the other end has, of a session that has been resumed, and is not written
    /// on its stream so far.
    rest: VecDeque<Bytes>,
    /// The messages that `rest` ends with, of whom it is not known here that they were written.
    unsettled: VecDeque<OutMessage>,
}

impl Session {
    pub(crate) fn new(writes: Writes, limit: usize) -> Self {
        Self {
            writes,
            kept: Unacknowledged::default(),
            limit: limit.max(LEAST_KEPT),
            is_substitute: false,
            said: 0,
            rest: VecDeque::new(),
            unsettled: VecDeque::new(),
        }
    }

    /// The same, begun in the place of one that the client had asked for and that is not there.
    pub(crate) fn in_place_of_another(self) -> Self {
        Self {
            is_substitute: true,
            ..self
        }
    }

    /// How many bytes may be written before the other end says that it has something.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.kept.bytes())
    }

    /// Lets go of answers where they are too many: a client that does not say what it has cannot have
    /// the session resumed. True where some have gone.
    #[inline]
    pub(super) fn shorten(&mut self) -> bool {
        self.room() == 0 && self.kept.shorten(self.limit)
    }

    /// The other end has so many messages. False where there are not as many.
    #[must_use]
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        self.kept.acknowledge(received)
    }

    /// Says that this end has read so many messages, with so many bytes since it last said so. True
    /// where it did.
    #[inline]
    pub(super) fn say(&mut self, received: u64, bytes: usize, batch: &mut BatchBuilder) -> bool {
        let unsaid = received - self.said;
        let is_due = unsaid >= MESSAGES || (bytes >= BYTES && unsaid > 0);
        if is_due {
            self.said = received;
            batch.push(&encode_received(received));
        }
        is_due
    }

    /// The stream that carried the client's end has ended. Messages of its last batch may not have been
    /// written, and are with the others.
    pub(crate) fn suspend(&mut self, outbound: Outbound) {
        self.unsettled.extend(outbound.into_batch());
    }

    /// Another stream carries the session, on which each end has said how many messages it has. False
    /// where what the other end does not have is not there any more, or never was; and where the other
    /// end may mean the session in whose place this one began: it has not heard of that for sure before
    /// a message of it has come.
    #[must_use]
    pub(crate) fn resume(&mut self, theirs: u64, ours: u64) -> bool {
        if self.is_substitute && ours == 0 {
            return false;
        }
        self.said = ours;
        match self.kept.following(theirs) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Adds what is to be written again, before anything else. True where more is to come.
    #[inline]
    pub(super) fn push_rest(
        &mut self,
        batch: &mut BatchBuilder,
        messages: &mut VecDeque<OutMessage>,
    ) -> bool {
        if self.rest.is_empty() && self.unsettled.is_empty() {
            return false;
        }
        while batch.len() < BATCH_BYTES
            && let Some(part) = self.rest.pop_front()
        {
            batch.push_chunk(part);
        }
        if self.rest.is_empty() {
            messages.append(&mut self.unsettled);
        }
        !self.rest.is_empty()
    }

    /// Whether something is to be written again.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// How many bytes are kept for the other end.
    pub(crate) fn held_bytes(&self) -> usize {
        self.kept.bytes()
    }
}
