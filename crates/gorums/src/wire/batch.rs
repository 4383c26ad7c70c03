//! Many messages as one DATA frame. `h2` writes a frame's buffer by reference, so a batch is a
//! buffer of shared chunks. At most one batch is with `h2` at a time.
//!
//! Messages below 2 KiB are copied side by side into one chunk; larger ones go by reference. When
//! `h2` has written a batch it drops it, which is how we learn of it: [`BatchSlot`] is the other
//! end.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
// It orders nothing, so this is `std`'s also where every order is explored.
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};

use crate::sync::Mutex;

/// Messages up to this size are copied.
const COPY: usize = 2048;

/// The size at which a batch is closed.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// The buffer of one DATA frame (or several, where the peer takes only small ones).
#[derive(Debug)]
pub(crate) struct Batch {
    chunks: VecDeque<Bytes>,
    len: usize,
    remaining: usize,
    slot: Arc<Shared>,
}

/// What a batch has in common with whoever has sent it.
#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    /// How many bytes the batch has that is out.
    left: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    out: bool,
    /// How many bytes of the last batch were written when it was dropped.
    written: usize,
    /// The last batch's emptied list, to be used again.
    spare: VecDeque<Bytes>,
}

/// Tells whether a batch is with `h2`, and how much of the last one was written.
#[derive(Debug, Default)]
pub(crate) struct BatchSlot(Arc<Shared>);

impl BatchSlot {
    /// Whether the next batch can be sent.
    pub(crate) fn is_free(&self) -> bool {
        !self.0.slot.lock().out
    }

    /// The number of bytes of the last batch that were handed to the socket.
    pub(crate) fn written(&self) -> usize {
        self.0.slot.lock().written
    }

    /// The number of bytes of the batch that is out that were not handed to the socket, or about so
    /// many.
    pub(crate) fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }
}

/// Puts a batch together. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    chunks: VecDeque<Bytes>,
    scratch: BytesMut,
    len: usize,
}

impl BatchBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, message: &Bytes) {
        if message.len() <= COPY {
            self.len += message.len();
            self.scratch.extend_from_slice(message);
        } else {
            self.push_chunk(message.clone());
        }
    }

    /// Adds a message whose first bytes, of which there are so many, are replaced by these.
    pub(crate) fn push_begun(&mut self, start: &[u8], message: &Bytes, replaced: usize) {
        self.len += start.len();
        self.scratch.extend_from_slice(start);
        if message.len() <= COPY {
            let rest = &message[replaced..];
            self.len += rest.len();
            self.scratch.extend_from_slice(rest);
        } else {
            self.push_chunk(message.slice(replaced..));
        }
    }

    /// Adds a chunk by reference, whatever its size.
    pub(crate) fn push_chunk(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len();
        self.seal();
        self.chunks.push_back(chunk);
    }

    /// The batch, which from now on is the one that is out.
    pub(crate) fn finish(&mut self, slot: &BatchSlot) -> Batch {
        self.seal();
        let len = std::mem::take(&mut self.len);
        let mut state = slot.0.slot.lock();
        debug_assert!(!state.out, "one batch is out at a time");
        state.out = true;
        let spare = std::mem::take(&mut state.spare);
        drop(state);
        slot.0.left.store(len, Ordering::Relaxed);
        Batch {
            chunks: std::mem::replace(&mut self.chunks, spare),
            len,
            remaining: len,
            slot: Arc::clone(&slot.0),
        }
    }

    fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced past the end of a batch");
        self.remaining -= count;
        self.slot.left.store(self.remaining, Ordering::Relaxed);
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.chunks.clear();
        let mut slot = self.slot.slot.lock();
        slot.out = false;
        slot.written = self.len - self.remaining;
        slot.spare = std::mem::take(&mut self.chunks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_its_messages_in_order_and_tells_what_was_written() {
        let slot = BatchSlot::default();
        let mut builder = BatchBuilder::default();
        let large = Bytes::from(vec![1; COPY + 1]);
        for message in [
            &Bytes::from_static(b"ab"),
            &Bytes::from_static(b"c"),
            &large,
            &Bytes::from_static(b"d"),
        ] {
            builder.push(message);
        }
        assert_eq!(builder.len(), 4 + large.len());
        let mut batch = builder.finish(&slot);
        assert!(builder.is_empty());
        assert!(!slot.is_free());
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(batch.chunks_vectored(&mut slices), 3);
        assert_eq!(&*slices[0], b"abc");
        assert_eq!(slot.left(), 4 + large.len());
        assert_eq!(batch.copy_to_bytes(4)[..], [b'a', b'b', b'c', 1]);
        assert_eq!(slot.left(), large.len());
        drop(batch);
        assert!(slot.is_free());
        assert_eq!(slot.written(), 4);
    }

    #[test]
    fn large_messages_are_not_copied() {
        let slot = BatchSlot::default();
        let mut builder = BatchBuilder::default();
        let large = Bytes::from(vec![1; COPY + 1]);
        builder.push(&large);
        assert_eq!(builder.finish(&slot).chunk().as_ptr(), large.as_ptr());
    }
}
