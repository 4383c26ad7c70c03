//! How a reply finds its call.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Call, Channel};
use crate::bounds::Bound;
use crate::error::{Outcome, Status, excerpt};
use crate::log;
use crate::wire::{Control, Envelope};

/// The call that a reply was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Its method, which the next reply is likely to have as well.
    pub(crate) method: &'static str,
    /// When it began. The node has what was written before.
    pub(crate) began: Instant,
}

impl Answered {
    #[inline]
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            method: call.method(),
            began: call.started(),
        }
    }
}

/// The call with this id and its part at this node. Nobody waits for a reply whose call is not in
/// the table, or ever did.
#[inline]
pub(super) fn find(channel: &Arc<Channel>, id: u64) -> Option<(Arc<Call>, usize)> {
    let call = channel.pool().calls.get(id)?;
    let part = call.targets().position_of(channel)?;
    Some((call, part))
}

/// Gives a reply to the call with this id, if somebody still waits for it, and returns which that
/// is.
pub(crate) fn deliver(
    channel: &Arc<Channel>,
    id: u64,
    envelope: &Envelope<'_>,
    frame: &Bytes,
    now: Instant,
) -> Option<Answered> {
    channel.note_answer(id, envelope.method, envelope.status.is_none());
    if let Some(status) = &envelope.status {
        // Also where the call has its answers, or was given up.
        channel.note_pause(envelope.method, status);
    }
    let (call, part) = find(channel, id)?;
    let method = call.method();
    let answered = Answered::of(&call);
    if let Some(excess) = &envelope.excess {
        channel.pool().reached.add(Bound::ReplyReceived);
        let status = Status::resource_exhausted(format!("the reply has {excess}"));
        useless(channel, &call, part, status);
        return Some(answered);
    }
    match envelope.control {
        Control::Unknown
        | Control::Cancel
        | Control::Credit
        | Control::GoingAway
        | Control::NoneFollow
        | Control::Received => {}
        Control::End => call.ended(part, envelope.status.clone()),
        Control::Message if envelope.method != method => {
            of_another_method(channel, &call, part, envelope.method);
        }
        Control::Message => match &envelope.status {
            Some(status) => call.failed(part, Outcome::Refused, status.clone()),
            None => {
                call.replied(part, frame.slice_ref(envelope.payload), now);
            }
        },
    }
    Some(answered)
}

/// The call that waits for a reply with this id and of this method, and the part of it that the
/// reply is for.
#[inline]
pub(crate) fn waiting(channel: &Arc<Channel>, id: u64, method: &str) -> Option<(Arc<Call>, usize)> {
    channel.note_answer(id, method, true);
    let (call, part) = find(channel, id)?;
    let known = call.method();
    // Text that is the same in the same place need not be compared.
    if std::ptr::eq(known, method) || known == method {
        return Some((call, part));
    }
    of_another_method(channel, &call, part, method);
    None
}

#[cold]
fn of_another_method(channel: &Channel, call: &Call, part: usize, method: &str) {
    let status = Status::internal(format!(
        "the node answered a call of {} with a reply of {:?}",
        call.method(),
        excerpt(method)
    ));
    useless(channel, call, part, status);
}

/// Fails the call to which a reply came that was not read.
pub(crate) fn skipped(channel: &Arc<Channel>, id: u64, status: Status) {
    // The node has answered. Of which method this is does not matter for the call that it owes.
    channel.note_answer(id, "", false);
    channel.pool().reached.add(Bound::ReplyReceived);
    if let Some((call, part)) = find(channel, id) {
        useless(channel, &call, part, status);
    }
}

/// Fails a part of a call whose reply says nothing of what became of the request.
fn useless(channel: &Channel, call: &Call, part: usize, status: Status) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => warn or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        method = call.method(),
        call = call.id(),
        error = %log::text(&status),
        left_out = admission.left_out,
        "a reply is of no use"
    );
    call.failed(part, Outcome::Unknown, status);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::channel::{Kind, StreamId, Targets, WakeAfter};
    use crate::{Configuration, Node};

    /// Notes the latency that a node has, and its calls in flight, when the caller is woken.
    struct Woken {
        node: Node,
        seen: Mutex<Option<(Option<Duration>, usize)>>,
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let seen = (self.node.latency(), self.node.pending());
            *self.seen.lock().expect("no panic") = Some(seen);
        }
    }

    #[tokio::test]
    async fn what_a_node_tells_of_itself_is_so_when_the_caller_is_woken() {
        let nodes = Configuration::builder().node(1, "127.0.0.1:1").connect();
        let node = nodes.expect("legal")[0].clone();
        let channel = node.channel();
        let (id, started) = (1, channel.pool().clock.now());
        let targets = Targets::new([Arc::clone(channel)]);
        let call = Arc::new(Call::new(id, "m", Kind::Unary, targets, 1, started));
        assert_eq!(channel.pool().register(&call, None), Ok(true));
        assert!(call.queue(0, Bytes::from_static(b"x")));
        assert!(channel.outbox().pop(StreamId::DIALLED).is_some());
        let woken = Arc::new(Woken {
            node: node.clone(),
            seen: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(matches!(
            call.poll_event(&mut cx, WakeAfter::ANY),
            Poll::Pending
        ));
        // Field 2 is the method.
        let frame = Bytes::from_static(&[0x12, 1, b'm']);
        let envelope = Envelope::decode_like(&frame, "m").expect("well formed");
        assert_eq!(node.pending(), 1);
        let second = Duration::from_secs(1);
        assert_eq!(
            deliver(channel, id, &envelope, &frame, started + second),
            Some(Answered {
                method: "m",
                began: started
            })
        );
        let seen = *woken.seen.lock().expect("no panic");
        assert_eq!(seen, Some((Some(second), 0)));
    }
}
