//! Collects the replies and the failures of a call.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::handle::Handle;
use super::held::Held;
use crate::channel::{Call, Event, EventKind, NodeState, WakeAfter};
use crate::configuration::{Configuration, Node};
use crate::error::{
    Counted, NodeError, Outcome, QuorumError, QuorumErrorKind, QuorumFailure, Status,
};
use crate::quorum::{Bits, NodeSet, QuorumSystem};

pub(crate) type MapResponse<Resp> = Arc<dyn Fn(&Node, Resp) -> Result<Resp, Status> + Send + Sync>;

/// A quorum call in flight, as the task that awaits it sees it.
pub(crate) struct Collector<Resp> {
    pub(super) handle: Handle,
    configuration: Configuration,
    needed: Option<usize>,
    max_decoding: Option<usize>,
    map_response: Option<MapResponse<Resp>>,
    /// The nodes that the request is for: those that are not left out.
    asked: Bits,
    /// The nodes that count as having answered.
    answered: Bits,
    /// The nodes from which no (first) answer can come any more: failed, ended, left out.
    pub(super) out: Bits,
    /// The nodes that a thrifty call has not asked, and when it does.
    pub(super) held: Option<Box<Held>>,
    failures: Vec<NodeError>,
    /// How many nodes the connections have reported as failed.
    reported: usize,
}

/// A step of a call.
pub(crate) enum Step {
    Reply(usize, Bytes),
    /// A node failed or ended its streamed reply; what it said is recorded.
    Out(usize),
    /// Nothing more can come.
    End,
}

impl Step {
    /// The node that it is of.
    pub(crate) fn part(&self) -> Option<usize> {
        match self {
            Self::Reply(part, _) | Self::Out(part) => Some(*part),
            Self::End => None,
        }
    }
}

impl<Resp: Message + Default> Collector<Resp> {
    pub(crate) fn new(
        handle: Handle,
        held: Option<Box<Held>>,
        configuration: Configuration,
        left_out: Bits,
        needed: Option<usize>,
        max_decoding: Option<usize>,
        map_response: Option<MapResponse<Resp>>,
    ) -> Self {
        let asked = Bits::all(configuration.len()).without(&left_out);
        Self {
            handle,
            configuration,
            needed,
            max_decoding,
            map_response,
            answered: Bits::default(),
            asked,
            out: left_out,
            held,
            failures: Vec::new(),
            reported: 0,
        }
    }

    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.handle.call.is_streamed()
    }

    /// How many replies have made room for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        self.handle.call.dropped()
    }

    pub(crate) fn failures(&self) -> &[NodeError] {
        &self.failures
    }

    /// How a node has failed, if it has.
    pub(crate) fn failure_of(&self, part: usize) -> Option<&NodeError> {
        let node = self.configuration[part].id();
        self.failures.iter().find(|failure| failure.node() == node)
    }

    /// How long ago the call began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.handle.elapsed()
    }

    pub(crate) fn call(&self) -> &Call {
        &self.handle.call
    }

    /// Whether the request was sent to this node, or tried to be.
    pub(crate) fn was_asked(&self, part: usize) -> bool {
        let is_held = self.held.as_ref().is_some_and(|held| held.has(part));
        self.asked.contains(part) && !is_held
    }

    pub(crate) fn asked(&self) -> &Bits {
        &self.asked
    }

    pub(crate) fn answered(&self) -> &Bits {
        &self.answered
    }

    pub(crate) fn out(&self) -> &Bits {
        &self.out
    }

    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>, wake_after: WakeAfter) -> Poll<Step> {
        let event = ready!(self.handle.poll_event(cx, wake_after));
        Poll::Ready(event.map_or(Step::End, |event| self.step(event)))
    }

    /// The next step, if it has happened already.
    pub(crate) fn try_step(&mut self) -> Option<Step> {
        if self.handle.call.is_over() {
            return Some(Step::End);
        }
        let event = self.handle.try_event()?;
        Some(self.step(event))
    }

    fn step(&mut self, event: Event) -> Step {
        match event.kind {
            EventKind::Reply(payload) => Step::Reply(event.part, payload),
            EventKind::Ended => {
                self.out.insert(event.part);
                Step::Out(event.part)
            }
            EventKind::Failed(error) => {
                self.reported += 1;
                self.fail(event.part, error);
                Step::Out(event.part)
            }
        }
    }

    fn fail(&mut self, part: usize, error: NodeError) {
        self.out.insert(part);
        // A streamed call may have any number of replies that cannot be used.
        if !self
            .failures
            .iter()
            .any(|failure| failure.node() == error.node())
        {
            self.failures.push(error);
        }
    }

    /// Decodes a reply and maps it, and counts it. Where either fails, so does the node.
    pub(crate) fn take(&mut self, part: usize, payload: &Bytes) -> Option<Resp> {
        let reply = self.look(part, payload)?;
        self.accept(part);
        Some(reply)
    }

    /// Counts a reply that was looked at.
    pub(crate) fn accept(&mut self, part: usize) {
        self.answered.insert(part);
    }

    /// Has a reply that was looked at be its node's failure.
    pub(crate) fn refuse(&mut self, part: usize, status: Status) {
        let channel = self.configuration[part].channel();
        let error = channel.error(Outcome::Refused, status);
        self.fail(part, error);
    }

    /// Decodes a reply and maps it, and does not count it. Where either fails, so does the node.
    pub(crate) fn look(&mut self, part: usize, payload: &Bytes) -> Option<Resp> {
        let node = &self.configuration[part];
        let reply = decode_reply(payload, self.max_decoding)
            .map_err(|status| (Outcome::Unknown, status))
            .and_then(|reply| match &self.map_response {
                None => Ok(reply),
                Some(map) => map(node, reply).map_err(|status| (Outcome::Refused, status)),
            });
        match reply {
            Ok(reply) => Some(reply),
            Err((outcome, status)) => {
                let error = node.channel().error(outcome, status);
                self.fail(part, error);
                None
            }
        }
    }

    /// Counts a reply that nobody will look at. A reply that has to be mapped is looked at.
    pub(crate) fn count(&mut self, part: usize, payload: &Bytes) {
        if self.map_response.is_some() {
            self.take(part, payload);
        } else {
            self.answered.insert(part);
        }
    }

    pub(crate) fn is_quorum(&self, system: &impl QuorumSystem) -> bool {
        match self.needed {
            Some(needed) => self.answered.len() >= needed,
            None => self.would_be_quorum(system, &self.answered),
        }
    }

    /// The nodes that have answered or still can.
    pub(crate) fn can_answer(&self) -> Bits {
        let cannot = self.out.clone().without(&self.answered);
        Bits::all(self.configuration.len()).without(&cannot)
    }

    /// Whether the nodes that have answered or still can would be a quorum.
    pub(crate) fn is_possible(&self, system: &impl QuorumSystem) -> bool {
        self.would_be_quorum(system, &self.can_answer())
    }

    /// Whether these nodes would be a quorum.
    pub(crate) fn would_be_quorum(&self, system: &impl QuorumSystem, nodes: &Bits) -> bool {
        system.is_quorum(&NodeSet::new(&self.configuration, nodes))
    }

    /// What has to happen before a count of replies can be decided either way.
    pub(crate) fn wake_after(&self) -> WakeAfter {
        match (self.needed, &self.map_response) {
            (Some(needed), None) if !self.is_streamed() => {
                let possible = self.configuration.len() - self.out.len() - self.not_asked();
                WakeAfter {
                    replies: needed.saturating_sub(self.answered.len()).max(1),
                    failures: self.reported + possible.saturating_sub(needed) + 1,
                }
            }
            _ => WakeAfter::ANY,
        }
    }

    /// Whether a node has failed that did not say no.
    pub(crate) fn is_without_answer(&self) -> bool {
        let mut outcomes = self.failures.iter().map(NodeError::outcome);
        outcomes.any(|outcome| outcome != Outcome::Refused)
    }

    /// Whether other nodes may be asked than those that were.
    #[inline]
    pub(crate) fn may_widen(&self) -> bool {
        self.held.is_some()
    }

    /// How many nodes the request is for and was not sent to, nor tried to be.
    fn not_asked(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.len())
    }

    /// The call succeeded, with the reply of this node, where it was one.
    pub(crate) fn complete_by(&mut self, part: Option<usize>) {
        if let (Some(held), Some(part)) = (&self.held, part) {
            held.note_completed_by(part);
        }
        self.complete();
    }

    /// The call succeeded: what is queued is still sent, and further replies are ignored.
    pub(crate) fn complete(&mut self) {
        self.handle.complete();
    }

    /// The call failed. The error also says what is known of the other nodes by now: `late` takes
    /// the replies that have come.
    pub(crate) fn error(
        &mut self,
        kind: QuorumErrorKind,
        counted: Counted,
        mut late: impl FnMut(&mut Self, usize, &Bytes),
    ) -> QuorumError {
        let early = self.handle.call.early();
        // Before the rest is looked at: what is withdrawn will not be sent any more.
        let withdrawn = self.handle.give_up();
        while let Some(step) = self.try_step() {
            match step {
                Step::Reply(part, payload) => late(self, part, &payload),
                Step::Out(_) => {}
                Step::End => break,
            }
        }
        let targets = self.handle.call.targets();
        // A node that has moved is closed, and says nothing of the others.
        let closed = targets
            .channels()
            .iter()
            .any(|channel| channel.state() == NodeState::Closed && !channel.is_retired());
        let error = QuorumFailure {
            kind: match early {
                Some(early) => early.into(),
                None if closed => QuorumErrorKind::Closed,
                None => kind,
            },
            method: self.handle.call.method(),
            nodes: self.configuration.len(),
            asked: self.asked.len() - withdrawn - self.not_asked(),
            withdrawn,
            needed: self.needed,
            replies: self.answered.len(),
            failures: std::mem::take(&mut self.failures),
            counted,
        }
        .into();
        self.handle.tell_failure(&error);
        error
    }
}

/// Decodes a reply. One above the limit is not looked at.
pub(crate) fn decode_reply<Resp: Message + Default>(
    payload: &Bytes,
    limit: Option<usize>,
) -> Result<Resp, Status> {
    if let Some(limit) = limit.filter(|limit| payload.len() > *limit) {
        return Err(Status::resource_exhausted(format!(
            "a reply of {} bytes exceeds the client's limit of {limit} (max_decoding_message_size)",
            payload.len()
        )));
    }
    Resp::decode(payload.clone())
        .map_err(|error| Status::internal(format!("the reply cannot be decoded: {error}")))
}
