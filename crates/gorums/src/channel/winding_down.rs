//! What is left of a node's stream when the node goes away: it takes no further requests there, and
//! answers those that were written.

use std::sync::Arc;
use std::task::Waker;

use super::deliver::find;
use super::node_channel::WindingDown;
use super::{Call, Channel, Notices, StreamId};
use crate::error::{Outcome, Status};
use crate::wire::Features;

impl Channel {
    /// The node goes away: nothing more is written on the stream that this process has opened, and
    /// the calls that were are answered on it. Returns what the stream is called from now on.
    pub(crate) fn wind_down(self: &Arc<Self>) -> StreamId {
        let stream = self.outbox().wind_down();
        self.leave_calls_to(stream);
        stream
    }

    /// The calls that are written and not answered have their answers on this stream, which is not
    /// the present one any more.
    pub(super) fn leave_calls_to(self: &Arc<Self>, stream: StreamId) {
        let is_written = |call: &Arc<Call>| {
            let part = call.targets().position_of(self);
            part.is_some_and(|part| {
                // Newer ones go over the next stream from now on, before it could be written there.
                call.let_go(part);
                call.parts.is_sent(part)
            })
        };
        let calls = self.pool().calls.all().into_iter().filter(is_written);
        let mut calls: Vec<_> = calls.map(|call| call.id()).collect();
        let mut peer = self.peer();
        // Those of an earlier stream that winds down still are.
        calls.retain(|id| !peer.winding_down.iter().any(|other| other.has(*id)));
        let winding_down = WindingDown {
            stream,
            features: peer.features.take().unwrap_or_default(),
            calls,
            notices: std::mem::take(&mut peer.notices),
            teller: None,
        };
        peer.winding_down.push(winding_down);
        drop(peer);
        self.found().is_current = false;
    }

    /// The node is to open another stream in the place of this one.
    pub(super) fn expect_another(&self, than: StreamId) {
        self.peer().going_away = Some(than);
    }

    /// Whether another stream was expected in the place of this one.
    pub(super) fn expects_another(&self, than: StreamId) -> bool {
        self.peer().going_away == Some(than)
    }

    /// Whether calls that were written on this stream, which winds down, wait for their answers. The
    /// task of the stream is woken when there is something to tell the node of them.
    pub(crate) fn awaits_answers(self: &Arc<Self>, stream: StreamId, teller: &Waker) -> bool {
        let calls = {
            let mut peer = self.peer();
            let mut streams = peer.winding_down.iter_mut();
            let Some(stream) = streams.find(|other| other.stream == stream) else {
                return false;
            };
            stream.teller = Some(teller.clone());
            stream.calls.clone()
        };
        // Not under the lock of the peer, which those who end calls take.
        let is_open =
            |id: &u64| find(self, *id).is_some_and(|(call, part)| call.parts.is_sent(part));
        let open: Vec<_> = calls.into_iter().filter(is_open).collect();
        let mut peer = self.peer();
        let mut streams = peer.winding_down.iter_mut();
        if let Some(stream) = streams.find(|other| other.stream == stream) {
            stream.calls.retain(|id| open.binary_search(id).is_ok());
        }
        !open.is_empty()
    }

    /// A stream that wound down has ended: calls that were written on it will have no answer.
    pub(crate) fn end_winding_down(self: &Arc<Self>, stream: StreamId, status: &Status) {
        let ended = {
            let mut peer = self.peer();
            let streams = &mut peer.winding_down;
            let at = streams.iter().position(|other| other.stream == stream);
            at.map(|at| streams.remove(at))
        };
        for id in ended.into_iter().flat_map(|ended| ended.calls) {
            if let Some((call, part)) = find(self, id) {
                call.lost(part, Outcome::Unknown, status);
            }
        }
    }

    /// The channel is closed: calls on streams that wind down fail as all others do.
    pub(super) fn forget_winding_down(&self) {
        self.peer().winding_down.clear();
    }

    /// Whether a call was written on a stream that winds down.
    pub(super) fn is_winding_down_with(&self, id: u64) -> bool {
        self.peer().winding_down_with(id).is_some()
    }

    /// What is to be told of calls that were written on this stream, which winds down.
    pub(crate) fn take_notices_of(&self, stream: StreamId) -> Notices {
        let mut peer = self.peer();
        let mut streams = peer.winding_down.iter_mut();
        streams
            .find(|other| other.stream == stream)
            .map(|stream| std::mem::take(&mut stream.notices))
            .unwrap_or_default()
    }

    /// What the peer is known to understand on the stream that this call was written on.
    pub(crate) fn features_for(&self, id: u64) -> Features {
        let mut peer = self.peer();
        let features = peer.winding_down_with(id).map(|stream| stream.features);
        features.or(peer.features).unwrap_or_default()
    }
}
