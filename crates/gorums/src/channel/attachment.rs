//! How calls to a node that opens its streams itself go over the stream that was accepted.

use std::sync::Arc;
use std::task::Waker;

use super::outbox::StreamId;
use super::{Channel, NodeState};
use crate::error::{Outcome, Status};
use crate::wire::Features;

/// A stream that carries a node's calls, until this is dropped or the node has opened another one.
///
/// A node opens its next stream as soon as it knows that the last one is of no use, which may be
/// long before this process does. Requests that were written on the last one and not answered fail
/// then. Its end, whenever that is noticed, changes nothing.
///
/// What a node has sent on the way to opening a stream may come late, when it has given that stream
/// up and opened the next one: the wrong one carries the calls then, until it ends. So whoever serves
/// a stream that carries no calls any more ends it when none does: the node opens another one.
pub(crate) struct Attachment {
    channel: Arc<Channel>,
    stream_id: StreamId,
}

impl Attachment {
    /// From now on the node's calls go over a stream that it has opened. None where the node is not
    /// called any more.
    pub(crate) fn new(channel: &Arc<Channel>, features: Features) -> Option<Self> {
        let _attaching = channel.attach_lock();
        let (stream_id, replaced) = channel.outbox().attach()?;
        if let Some(replaced) = replaced.filter(|replaced| channel.expects_another(*replaced)) {
            // Done before this stream takes anything out, too.
            channel.leave_calls_to(replaced);
        } else if replaced.is_some() {
            // Done before this stream takes anything out, so that only requests of the other are
            // lost.
            channel.set_features(None);
            channel.fail_written(
                Outcome::Unknown,
                &Status::unavailable("the node has opened another stream"),
            );
        }
        channel.set_features(Some(features));
        channel.set_last_error(None);
        channel.set_state(NodeState::Connected);
        // The task of the other stream sees that it carries no calls any more.
        channel.io().wake();
        Some(Self {
            channel: Arc::clone(channel),
            stream_id,
        })
    }

    /// This end winds the stream down, and the node is to open another one. Until then this one
    /// carries the calls; after that, those that were written on it are answered on it.
    pub(crate) fn expect_another(&self) {
        self.channel.expect_another(self.stream_id);
    }

    /// Whether answers are to come on the stream that is needed no more where it
    /// [`carries`](Self::register) the calls no more. The task is woken when there is something to
    /// tell the node of them.
    pub(crate) fn awaits_answers(&self, waker: &Waker) -> bool {
        self.channel.awaits_answers(self.stream_id, waker)
    }

    /// Whether the stream takes messages out.
    pub(crate) fn carries(&self) -> bool {
        self.channel.outbox().is_carried_by(self.stream_id)
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    pub(crate) fn stream_id(&self) -> StreamId {
        self.stream_id
    }

    /// Wakes the stream's task when there is something to write. False where the stream carries no
    /// calls any more.
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        // The lock keeps the task of an earlier stream from registering in this one's place.
        let outbox = self.channel.outbox();
        let carries = outbox.is_carried_by(self.stream_id);
        if carries {
            self.channel.io().register(waker);
        }
        carries
    }

    /// Whether nobody can make another call, and every call has been answered.
    pub(crate) fn is_finished(&self) -> bool {
        let channel = &self.channel;
        channel.is_closing() && channel.outbox().is_empty() && channel.pending() == 0
    }
}

impl Drop for Attachment {
    /// Written requests are lost. Queued ones wait for the next stream, or fail.
    fn drop(&mut self) {
        let channel = &self.channel;
        let _attaching = channel.attach_lock();
        let status = Status::unavailable("the stream that the node had opened has ended");
        let Some(unwritten) = channel.outbox().detach(self.stream_id) else {
            channel.end_winding_down(self.stream_id, &status);
            return;
        };
        channel.set_features(None);
        channel.set_last_error(Some(status.clone()));
        channel.set_state(NodeState::Disconnected);
        Channel::fail_unwritten(unwritten, Outcome::NotSent, &status);
        channel.fail_written(Outcome::Unknown, &status);
        channel.detached().notify_one();
        channel.abandoned().notify_waiters();
    }
}
