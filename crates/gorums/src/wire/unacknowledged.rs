//! Messages that were written in a session and that the peer has not said to have: what is written
//! again where the stream breaks.
//!
//! Nothing is looked for here. Messages of a session are counted at both ends, in the order in which
//! they are written, so that one number says what the peer has. Small ones are copied side by side;
//! larger ones are kept by reference.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::PREFIX;

/// Messages up to this size are copied.
const COPY: usize = 2048;

/// So many bytes of small messages are let go of together.
const CHUNK: usize = 16 * 1024;

/// Messages of a session, in the order in which they were written.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    chunks: VecDeque<Chunk>,
    /// The last of them, which are small.
    tail: BytesMut,
    /// How many messages of the session come before those that are kept.
    first: u64,
    /// How many messages of the session there are.
    written: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// How many messages of the session have begun when it ends.
    end: u64,
}

impl Unacknowledged {
    /// Keeps a message, of which this is all.
    #[inline]
    pub(crate) fn push(&mut self, message: &Bytes) {
        self.push_part(message, 1);
    }

    /// Keeps what was written next, in which so many messages begin.
    #[inline]
    pub(crate) fn push_part(&mut self, bytes: &Bytes, messages: u64) {
        if bytes.len() <= COPY || messages > 1 {
            self.push_small(bytes, messages);
        } else {
            self.seal();
            self.written += messages;
            self.bytes += bytes.len();
            self.chunks.push_back(Chunk {
                bytes: bytes.clone(),
                end: self.written,
            });
        }
    }

    /// Keeps a message whose first bytes, of which there are so many, are replaced by these.
    pub(crate) fn push_begun(&mut self, start: &[u8], message: &Bytes, replaced: usize) {
        self.push_small(start, 1);
        self.push_part(&message.slice(replaced..), 0);
    }

    #[inline]
    fn push_small(&mut self, bytes: &[u8], messages: u64) {
        // What is let go of together are whole messages.
        if self.tail.len() >= CHUNK && messages > 0 {
            self.seal();
        }
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
        self.written += messages;
    }

    #[cold]
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk {
                bytes: self.tail.split().freeze(),
                end: self.written,
            });
        }
    }

    /// The peer has so many messages of the session. False where there are not as many.
    #[must_use]
    pub(crate) fn acknowledge(&mut self, received: u64) -> bool {
        if received > self.written {
            return false;
        }
        while let Some(chunk) = self.chunks.front()
            && chunk.end <= received
        {
            self.drop_first();
        }
        if received == self.written {
            self.bytes -= self.tail.len();
            self.tail.clear();
            self.first = self.written;
        }
        true
    }

    /// Keeps no more than so many bytes, and the last messages in any case: lets go of the first ones,
    /// which cannot be written again then. True where some have gone.
    pub(crate) fn shorten(&mut self, bytes: usize) -> bool {
        let first = self.first;
        while self.bytes > bytes
            && (self.chunks.front()).is_some_and(|chunk| chunk.end < self.written)
        {
            self.drop_first();
            // The rest of a message that is not there as a whole any more.
            while self
                .chunks
                .front()
                .is_some_and(|chunk| chunk.end == self.first)
            {
                self.drop_first();
            }
        }
        self.first != first
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.bytes.len();
            self.first = chunk.end;
        }
    }

    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What follows the first so many messages of the session, in parts. None where that is not kept.
    pub(crate) fn following(&mut self, received: u64) -> Option<VecDeque<Bytes>> {
        if received < self.first || !self.acknowledge(received) {
            return None;
        }
        self.seal();
        let parts = self.chunks.iter().map(|chunk| chunk.bytes.clone());
        let mut parts: VecDeque<_> = parts.collect();
        // They are ours, and whole.
        for _ in self.first..received {
            let mut len = {
                let prefix = parts.front()?.get(1..PREFIX)?;
                PREFIX + usize::try_from(u32::from_be_bytes(prefix.try_into().ok()?)).ok()?
            };
            while len > 0 {
                let part = parts.front_mut()?;
                let skipped = len.min(part.len());
                part.advance(skipped);
                len -= skipped;
                if part.is_empty() {
                    parts.pop_front();
                }
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;
    use crate::wire::{Decoder, Envelope, Frame, encode_message};

    /// The message of this number, with a payload of so many bytes.
    fn message(number: u64, len: usize) -> Bytes {
        let payload = vec![7; len];
        encode_message(number, "m", &Metadata::new(), &payload, usize::MAX).expect("no limit")
    }

    /// What follows so many messages, by their numbers.
    fn following(kept: &mut Unacknowledged, received: u64) -> Option<Vec<u64>> {
        let mut decoder = Decoder::new(usize::MAX);
        let mut ids = Vec::new();
        for part in kept.following(received)? {
            decoder.push(part);
            while let Some(Frame::Message(message)) = decoder.next().expect("ours") {
                ids.push(Envelope::decode(&message).expect("ours").id);
            }
        }
        assert!(decoder.is_between_messages());
        Some(ids)
    }

    #[test]
    fn what_follows_any_number_of_messages_is_there_until_it_is_acknowledged() {
        for sizes in [
            vec![1; 40],
            vec![1, COPY, COPY + 1, 1, 3 * COPY, 0],
            vec![600; 100],
        ] {
            let mut kept = Unacknowledged::default();
            for (number, size) in (1..).zip(&sizes) {
                kept.push(&message(number, *size));
            }
            let count = sizes.len() as u64;
            for received in 0..=count {
                let rest = following(&mut kept, received).expect("it is kept");
                assert_eq!(rest, (received + 1..=count).collect::<Vec<_>>());
            }
            assert_eq!(kept.bytes(), 0);
            assert_eq!(
                following(&mut kept, count + 1),
                None,
                "there are not as many"
            );
            kept.push(&message(count + 1, 1));
            assert_eq!(following(&mut kept, count), Some(vec![count + 1]));
        }
    }

    #[test]
    fn a_message_that_is_pushed_in_parts_is_one() {
        let mut kept = Unacknowledged::default();
        for number in 1..=1_000 {
            let small = message(number, 50);
            kept.push_begun(&small[..10], &small, 10);
        }
        for received in 0..=1_000 {
            let rest = following(&mut kept, received).expect("it is kept");
            assert_eq!(rest.len() as u64, 1_000 - received);
        }
        let mut kept = Unacknowledged::default();
        let large = message(1, 2 * COPY);
        kept.push_part(&large.slice(..10), 1);
        kept.push_part(&large.slice(10..), 0);
        kept.push(&message(2, 1));
        assert_eq!(following(&mut kept, 0), Some(vec![1, 2]));
        assert_eq!(following(&mut kept, 1), Some(vec![2]));
    }

    #[test]
    fn what_was_let_go_of_cannot_be_written_again() {
        let mut kept = Unacknowledged::default();
        for number in 1..=4 {
            kept.push(&message(number, 2 * COPY));
        }
        assert!(kept.acknowledge(1));
        kept.shorten(usize::MAX);
        assert_eq!(
            following(&mut kept, 1),
            Some(vec![2, 3, 4]),
            "there is room"
        );
        let each = kept.bytes() / 3;
        kept.shorten(2 * each);
        assert_eq!(kept.bytes(), 2 * each);
        assert_eq!(following(&mut kept, 1), None);
        assert_eq!(following(&mut kept, 2), Some(vec![3, 4]));
        let large = message(5, 2 * COPY);
        kept.push_part(&large.slice(..10), 1);
        kept.push_part(&large.slice(10..), 0);
        kept.push(&message(6, 1));
        kept.shorten(large.len());
        assert_eq!(following(&mut kept, 5), Some(vec![6]));
    }

    #[test]
    fn what_comes_and_is_acknowledged_in_turn_needs_no_memory() {
        let mut kept = Unacknowledged::default();
        let message = message(7, 100);
        kept.push(&message);
        let place = kept.tail.as_ptr();
        for number in 1..1_000 {
            assert!(kept.acknowledge(number));
            kept.push(&message);
            assert_eq!(kept.tail.as_ptr(), place);
        }
        assert!(!kept.acknowledge(1_001));
    }
}
