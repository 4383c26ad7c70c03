//! The replies of a connection that wait to be written, already encoded side by side.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::bounds::{Bound, Counts};
use crate::error::Status;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{AtomicWaker, Mutex, MutexGuard, Notify};
use crate::wire::{
    BATCH_BYTES, BatchBuilder, Control, Unacknowledged, encode_reply, encode_status,
};

/// Payloads up to this size are copied beside the others.
const COPY: usize = 2048;

/// What is answered.
pub(crate) enum Answer<'a> {
    Reply(&'a Bytes),
    Error(&'a Status),
    /// A streamed reply ended, and the peer knows the frame for it.
    End(Option<&'a Status>),
    /// Nothing: this is said, about no request.
    Notice(Control),
}

impl Answer<'_> {
    /// How many bytes of somebody's it keeps.
    fn len(&self) -> usize {
        match self {
            Self::Reply(payload) => payload.len(),
            Self::Error(status) | Self::End(Some(status)) => {
                let details = status.details().iter();
                let details = details.map(|detail| detail.type_url.len() + detail.value.len());
                status.message().len() + details.sum::<usize>()
            }
            Self::End(None) | Self::Notice(_) => 0,
        }
    }
}

pub(crate) struct ReplyQueue {
    state: Mutex<State>,
    /// What is queued and what ended handlers hold together have reached the bound. It changes
    /// under the lock of the state; the lane looks at it without, before every handler that it
    /// starts.
    at_bound: AtomicBool,
    io: AtomicWaker,
    /// The lane, where it starts no handler because of the bound.
    lane: AtomicWaker,
    room: Notify,
    max_bytes: usize,
    /// Where it counts how often a reply was too large.
    reached: OnceLock<Arc<Counts>>,
}

struct State {
    chunks: VecDeque<Chunk>,
    tail: BytesMut,
    /// How many answers begin in the tail.
    in_tail: u64,
    bytes: usize,
    /// Of answers that wait for room, of handlers that have ended.
    held: usize,
    closed: bool,
}

struct Chunk {
    bytes: Bytes,
    /// How many answers begin in it. What is said about no request is none.
    answers: u64,
}

impl ReplyQueue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                tail: BytesMut::new(),
                in_tail: 0,
                bytes: 0,
                held: 0,
                closed: false,
            }),
            at_bound: AtomicBool::new(false),
            io: AtomicWaker::new(),
            lane: AtomicWaker::new(),
            room: Notify::new(),
            max_bytes,
            reached: OnceLock::new(),
        }
    }

    /// Counts among these from now on, unless it counts already, how often its bounds are reached.
    pub(crate) fn count_in(&self, reached: &Arc<Counts>) {
        self.reached.get_or_init(|| Arc::clone(reached));
    }

    /// A bound of the connection was reached.
    pub(crate) fn has_reached(&self, bound: Bound) {
        if let Some(reached) = self.reached.get() {
            reached.add(bound);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues an answer, and waits where the queue is full. The I/O task is not woken. False where
    /// the connection has ended: nobody will read it.
    pub(crate) async fn push(
        &self,
        id: u64,
        method: &str,
        answer: &Answer<'_>,
        limit: usize,
    ) -> bool {
        loop {
            if let Some(queued) = self.try_push(id, method, answer, limit) {
                return queued;
            }
            // What is queued must go out for room to come.
            self.wake_io();
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if let Some(queued) = self.try_push(id, method, answer, limit) {
                return queued;
            }
            room.await;
        }
    }

    /// Queues the answer of a handler that has ended. While it waits for room it counts as what is
    /// queued does. Only ended handlers count: they do nothing but wait for room, so nothing that
    /// they hold waits for a handler that is not started on their account.
    pub(crate) async fn push_last(&self, id: u64, method: &str, answer: &Answer<'_>, limit: usize) {
        let _held = self.hold(answer.len());
        self.push(id, method, answer, limit).await;
    }

    fn hold(&self, bytes: usize) -> Held<'_> {
        let mut state = self.lock();
        state.held += bytes;
        self.note_bound(&state);
        Held { queue: self, bytes }
    }

    /// To be called with every change of what counts. True where the lane has to be woken, without
    /// the lock: the bound was left.
    #[inline]
    fn note_bound(&self, state: &State) -> bool {
        let is_at_bound = self.is_at_bound(state);
        let was_at_bound = self.at_bound.load(Ordering::Relaxed);
        // As good as never: a queue that is taken in time does not come near its bound.
        is_at_bound != was_at_bound && self.change_bound(is_at_bound)
    }

    #[cold]
    fn change_bound(&self, is_at_bound: bool) -> bool {
        self.at_bound.store(is_at_bound, Ordering::Relaxed);
        !is_at_bound
    }

    #[inline]
    fn is_at_bound(&self, state: &State) -> bool {
        state.bytes.saturating_add(state.held) >= self.max_bytes && !state.closed
    }

    /// Ready when a handler may start, as far as replies are concerned. Else the lane is woken when
    /// it may.
    ///
    /// A reply that another thread queues may reach the bound at the same time, and is not seen
    /// then: one more handler starts.
    #[inline]
    pub(crate) fn poll_below_bound(&self, cx: &Context<'_>) -> Poll<()> {
        if self.at_bound.load(Ordering::Relaxed) {
            self.poll_at_bound(cx)
        } else {
            Poll::Ready(())
        }
    }

    #[cold]
    fn poll_at_bound(&self, cx: &Context<'_>) -> Poll<()> {
        self.lane.register(cx.waker());
        if self.is_at_bound(&self.lock()) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Queues an answer if there is room. None where there is not, and `Some(false)` where the
    /// connection has ended.
    pub(crate) fn try_push(
        &self,
        id: u64,
        method: &str,
        answer: &Answer<'_>,
        limit: usize,
    ) -> Option<bool> {
        let mut state = self.lock();
        if state.closed {
            return Some(false);
        }
        if state.bytes >= self.max_bytes {
            return None;
        }
        let fits = state.put(id, method, answer, limit);
        self.note_bound(&state);
        drop(state);
        if !fits {
            self.has_reached(Bound::ReplySent);
        }
        Some(true)
    }

    /// Encodes a reply straight into the queue, if it is small and there is room. False where it is
    /// to come another way.
    pub(crate) fn try_encode(
        &self,
        id: u64,
        method: &str,
        reply: &impl Message,
        limit: usize,
    ) -> bool {
        let len = reply.encoded_len();
        if len > COPY {
            return false;
        }
        let mut state = self.lock();
        if state.closed {
            return true;
        }
        let queued = state.bytes < self.max_bytes && state.encode(id, method, reply, len, limit);
        self.note_bound(&state);
        queued
    }

    /// What is queued, and what handlers hold that have ended.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes.saturating_add(state.held)
    }

    /// Whether handlers wait with their replies.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().bytes >= self.max_bytes
    }

    /// Whether what is queued is more than this beyond the bound.
    pub(crate) fn exceeds(&self, beyond: usize) -> bool {
        self.lock().bytes > self.max_bytes.saturating_add(beyond)
    }

    /// Queues an answer whatever the bound, for the I/O task, which reads no further while the
    /// queue is full.
    pub(crate) fn push_unbounded(&self, id: u64, method: &str, answer: &Answer<'_>) {
        let mut state = self.lock();
        if !state.closed {
            state.put(id, method, answer, usize::MAX);
            self.note_bound(&state);
        }
    }

    pub(crate) fn wake_io(&self) {
        self.io.wake();
    }

    pub(crate) fn io(&self) -> &AtomicWaker {
        &self.io
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes == 0
    }

    /// Moves what is queued to a batch, up to a batch's size. It is kept, too, where that is asked for.
    pub(crate) fn take(&self, batch: &mut BatchBuilder, mut kept: Option<&mut Unacknowledged>) {
        let mut state = self.lock();
        state.seal();
        let was_full = state.bytes >= self.max_bytes;
        while batch.len() < BATCH_BYTES {
            let Some(chunk) = state.chunks.pop_front() else {
                break;
            };
            state.bytes -= chunk.bytes.len();
            if let Some(kept) = &mut kept {
                kept.push_part(&chunk.bytes, chunk.answers);
            }
            batch.push_chunk(chunk.bytes);
        }
        let has_room = state.bytes < self.max_bytes;
        let left_bound = self.note_bound(&state);
        drop(state);
        if was_full && has_room {
            self.room.notify_waiters();
        }
        if left_bound {
            self.lane.wake();
        }
    }

    /// The connection ended.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.chunks.clear();
        state.tail = BytesMut::new();
        state.in_tail = 0;
        state.bytes = 0;
        let left_bound = self.note_bound(&state);
        drop(state);
        self.room.notify_waiters();
        if left_bound {
            self.lane.wake();
        }
    }
}

/// What an ended handler holds while it waits for room.
struct Held<'a> {
    queue: &'a ReplyQueue,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.held -= self.bytes;
        let left_bound = self.queue.note_bound(&state);
        drop(state);
        if left_bound {
            self.queue.lane.wake();
        }
    }
}

impl State {
    /// False where a reply is too large, and an error is in its place.
    fn put(&mut self, id: u64, method: &str, answer: &Answer<'_>, limit: usize) -> bool {
        let mut fits = true;
        let before = self.tail.len();
        let mut large = None;
        self.in_tail += u64::from(!matches!(answer, Answer::Notice(_)));
        match answer {
            Answer::Reply(payload) => {
                match encode_reply(id, method, payload.len(), limit, &mut self.tail) {
                    Ok(()) if payload.len() <= COPY => self.tail.put_slice(payload),
                    Ok(()) => large = Some((*payload).clone()),
                    Err(status) => {
                        fits = false;
                        let control = Control::Message;
                        encode_status(id, method, Some(&status), control, &mut self.tail);
                    }
                }
            }
            Answer::Error(status) => {
                encode_status(id, method, Some(status), Control::Message, &mut self.tail);
            }
            Answer::End(status) => {
                encode_status(id, method, *status, Control::End, &mut self.tail);
            }
            Answer::Notice(control) => {
                encode_status(id, method, None, *control, &mut self.tail);
            }
        }
        self.bytes += self.tail.len() - before;
        if let Some(payload) = large {
            self.seal();
            self.bytes += payload.len();
            self.chunks.push_back(Chunk {
                bytes: payload,
                answers: 0,
            });
        } else if self.tail.len() >= BATCH_BYTES {
            self.seal();
        }
        fits
    }

    /// False where nothing was put: the reply is too large, or not as long as it says.
    fn encode(
        &mut self,
        id: u64,
        method: &str,
        reply: &impl Message,
        len: usize,
        limit: usize,
    ) -> bool {
        let before = self.tail.len();
        let mut draft = Draft {
            tail: &mut self.tail,
            whole: before,
        };
        if encode_reply(id, method, len, limit, draft.tail).is_err() {
            return false;
        }
        let end = draft.tail.len() + len;
        reply.encode_raw(draft.tail);
        if draft.tail.len() != end {
            return false;
        }
        draft.whole = end;
        drop(draft);
        self.in_tail += 1;
        self.bytes += end - before;
        if end >= BATCH_BYTES {
            self.seal();
        }
        true
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk {
                bytes: self.tail.split().freeze(),
                answers: std::mem::take(&mut self.in_tail),
            });
        }
    }
}

/// A frame that is being put behind others. What is not whole is taken back, also where the message
/// panics while it encodes itself.
struct Draft<'a> {
    tail: &'a mut BytesMut,
    /// How much is whole.
    whole: usize,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        self.tail.truncate(self.whole);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{BatchSlot, Envelope, PREFIX};

    fn payload(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_the_next_reply_wait_until_it_is_written() {
        let queue = ReplyQueue::new(100);
        let payload = payload(100);
        let answer = Answer::Reply(&payload);
        assert!(queue.push(1, "m", &answer, usize::MAX).await);
        assert_eq!(queue.try_push(2, "m", &answer, usize::MAX), None);
        {
            let mut second = std::pin::pin!(queue.push(2, "m", &answer, usize::MAX));
            tokio::time::timeout(Duration::from_secs(1), second.as_mut())
                .await
                .expect_err("there is no room");
            queue.take(&mut BatchBuilder::default(), None);
            assert!(second.await);
        }
        queue.close();
        assert!(!queue.push(3, "m", &answer, usize::MAX).await);
        assert!(queue.is_empty());
    }

    #[test]
    fn small_and_large_replies_come_in_order() {
        use bytes::Buf;
        let queue = ReplyQueue::new(usize::MAX);
        for (id, len) in [(1, 10), (2, COPY + 1), (3, 0), (4, 3 * COPY)] {
            let payload = payload(len);
            assert_eq!(
                queue.try_push(id, "m", &Answer::Reply(&payload), usize::MAX),
                Some(true)
            );
        }
        let mut batch = BatchBuilder::default();
        queue.take(&mut batch, None);
        let slot = BatchSlot::default();
        let mut bytes = batch.finish(&slot);
        for (id, len) in [(1, 10), (2, COPY + 1), (3, 0), (4, 3 * COPY)] {
            let mut prefix = bytes.copy_to_bytes(PREFIX);
            prefix.advance(1);
            let frame = bytes.copy_to_bytes(prefix.get_u32() as usize);
            let envelope = Envelope::decode(&frame).expect("our own");
            assert_eq!((envelope.id, envelope.payload.len()), (id, len));
        }
        assert!(!bytes.has_remaining() && queue.is_empty());
    }

    /// A message of two bytes that says how long it is, or panics half-way.
    #[derive(Debug)]
    struct Odd {
        says: usize,
        panics: bool,
    }

    impl Message for Odd {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            buf.put_u8(7);
            assert!(!self.panics, "half-way");
            buf.put_u8(7);
        }

        fn merge_field(
            &mut self,
            _tag: u32,
            _wire_type: prost::encoding::WireType,
            _buf: &mut impl bytes::Buf,
            _ctx: prost::encoding::DecodeContext,
        ) -> Result<(), prost::DecodeError> {
            Ok(())
        }

        fn encoded_len(&self) -> usize {
            self.says
        }

        fn clear(&mut self) {}
    }

    #[test]
    fn of_a_reply_that_cannot_be_encoded_straight_into_the_queue_nothing_stays_there() {
        let queue = ReplyQueue::new(1000);
        let odd = |says, panics| Odd { says, panics };
        let encode = |message: &Odd| queue.try_encode(1, "m", message, 100);
        assert!(!encode(&odd(1, false)), "longer than it says");
        assert!(!encode(&odd(3, false)), "shorter than it says");
        assert!(!encode(&odd(101, false)), "above the limit");
        assert!(!encode(&odd(COPY + 1, false)), "large");
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| encode(&odd(2, true))));
        assert!(panicked.is_err());
        assert!(queue.is_empty());
        assert!(encode(&odd(2, false)));
        let mut batch = BatchBuilder::default();
        queue.take(&mut batch, None);
        use bytes::Buf;
        let slot = BatchSlot::default();
        let mut bytes = batch.finish(&slot);
        bytes.advance(PREFIX);
        let frame = bytes.copy_to_bytes(bytes.remaining());
        assert_eq!(Envelope::decode(&frame).expect("ours").payload, [7, 7]);
    }

    #[test]
    fn a_reply_above_the_limit_becomes_an_error() {
        let queue = ReplyQueue::new(usize::MAX);
        let payload = payload(1000);
        assert_eq!(
            queue.try_push(1, "m", &Answer::Reply(&payload), 100),
            Some(true)
        );
        let mut batch = BatchBuilder::default();
        queue.take(&mut batch, None);
        let slot = BatchSlot::default();
        use bytes::Buf;
        let mut bytes = batch.finish(&slot);
        bytes.advance(PREFIX);
        let frame = bytes.copy_to_bytes(bytes.remaining());
        let status = Envelope::decode(&frame)
            .expect("ours")
            .status
            .expect("an error");
        assert_eq!(status.code(), crate::Code::ResourceExhausted);
    }
}
