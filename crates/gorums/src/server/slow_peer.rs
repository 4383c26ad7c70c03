//! Peers that keep a stream busy and do next to nothing: they go on with a message ever so slowly, or
//! take what is written to them so.
//!
//! Each is looked at once in the time that it may take. Whoever has gone on meanwhile by [`LEAST`]
//! bytes, or to another message or batch, may go on; the others are cut off. So who stops is noticed
//! within twice that time. A peer that answers pings is not dead by keep-alive, whatever it does.

use std::task::Waker;
use std::time::Duration;

use crate::stream::{Link, NodeStream, Received, Timer, Written};

/// How many bytes of a message or a batch have to come or go in the time.
pub(super) const LEAST: u64 = 64 * 1024;

/// How far the peer of a stream had come when it was last looked at.
pub(super) struct SlowPeer {
    limit: Duration,
    received: Received,
    written: Written,
}

impl SlowPeer {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            received: Received::default(),
            written: Written::default(),
        }
    }

    /// Something was read: looks again in time where the peer is within a message. The task is woken to
    /// poll the timers, where one was set.
    #[inline]
    pub(super) fn after_read(&mut self, stream: &NodeStream, link: &mut Link, task: &Waker) {
        if !link.timers.is_set(Timer::SlowSender) && stream.inbound.awaits_rest() {
            self.received = stream.inbound.received();
            link.timers.set(Timer::SlowSender, link.now() + self.limit);
            task.wake_by_ref();
        }
    }

    /// Something was to be written: looks again in time where it is not. The task is woken as above.
    #[inline]
    pub(super) fn after_write(&mut self, stream: &NodeStream, link: &mut Link, task: &Waker) {
        if !link.timers.is_set(Timer::SlowReader) && !stream.outbound.is_free() {
            self.written = stream.outbound.written();
            link.timers.set(Timer::SlowReader, link.now() + self.limit);
            task.wake_by_ref();
        }
    }

    /// Whether the peer has sent too little of a message in the time. Otherwise looks again.
    pub(super) fn is_slow_sender(
        &mut self,
        stream: &NodeStream,
        link: &mut Link,
        task: &Waker,
    ) -> bool {
        let (before, now) = (self.received, stream.inbound.received());
        let is_slow = stream.inbound.awaits_rest()
            && before.messages == now.messages
            && before.pauses == now.pauses
            && now.bytes - before.bytes < LEAST;
        if !is_slow {
            self.after_read(stream, link, task);
        }
        is_slow
    }

    /// Whether the peer has taken too little of a batch in the time. Otherwise looks again.
    pub(super) fn is_slow_reader(
        &mut self,
        stream: &NodeStream,
        link: &mut Link,
        task: &Waker,
    ) -> bool {
        let (before, now) = (self.written, stream.outbound.written());
        let is_slow = !stream.outbound.is_free()
            && before.batches == now.batches
            && before.left.abs_diff(now.left) < LEAST;
        if !is_slow {
            self.after_write(stream, link, task);
        }
        is_slow
    }

    /// Why a stream ends whose peer is a slow sender.
    pub(super) fn sender(&self) -> String {
        format!(
            "the client has begun a message, and sent less than {LEAST} bytes of it within {:?} \
             (ServerBuilder::slow_peer_timeout)",
            self.limit
        )
    }

    /// Why a connection ends whose peer is a slow reader.
    pub(super) fn reader(&self) -> String {
        format!(
            "the client does not read: it has taken less than {LEAST} bytes of what is written to it \
             within {:?} (ServerBuilder::slow_peer_timeout)",
            self.limit
        )
    }
}
