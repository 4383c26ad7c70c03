//! Nodes that are connected and do not answer what the others have answered.
//!
//! What a node owes is in [`Owed`](super::owed::Owed), and is looked at by one task for each pool,
//! while there is anything to look at.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::owed::Look;
use super::{Call, Channel, NodeState, Pool};
use crate::error::Status;
use crate::log;
use crate::runtime::paced;

/// How often a node is looked at in the time that it may be behind the others.
const LOOKS: u32 = 4;

impl Call {
    /// The call has what it wanted, and so many parts, these, were written and not answered.
    #[inline]
    pub(super) fn note_behind(&self, count: usize, parts: impl Iterator<Item = usize>) {
        if self.asked_later.is_some() {
            // Few nodes were asked, and others were in the place of those that did not answer. Which
            // these are has to be known, or the next calls would wait for them again.
            parts.for_each(|part| self.channel(part).owe(self, part));
        } else {
            self.note_unanswered(count, parts);
        }
    }

    /// The call has what it wanted, or its deadline has passed, and so many parts, these, were written
    /// and not answered. Where most of the others are done with it, their nodes are behind.
    #[inline]
    pub(super) fn note_unanswered(&self, count: usize, parts: impl Iterator<Item = usize>) {
        if count > 0 && count * 2 < self.targets().len() && self.is_unary() {
            parts.for_each(|part| self.channel(part).owe(self, part));
        }
    }
}

impl Channel {
    fn owe(self: &Arc<Self>, call: &Call, part: usize) {
        let asked = call.asked_at(part);
        if self.owed().owe(call.id(), call.method(), asked) {
            self.pool().watch(self);
        }
    }

    /// The node has answered this call, well or with an error.
    #[inline]
    pub(super) fn note_answer(&self, id: u64, method: &str, is_reply: bool) {
        if self.owed().concerns(id) {
            self.note_owed(id, method, is_reply);
        }
    }

    #[cold]
    fn note_owed(&self, id: u64, method: &str, is_reply: bool) {
        if let Some(began) = self.owed().answered(id, method)
            && is_reply
        {
            // How near a node is would else be known of those alone that are near enough for calls to
            // wait for them.
            let now = self.pool().clock.now();
            self.latencies()
                .record(now.saturating_duration_since(began));
        }
    }

    /// How long the node takes to answer, as far as is known: as long as it did on average, and no
    /// less than it has left a call unanswered that others have answered. None before its first reply.
    pub(crate) fn expected_latency(&self, now: Instant) -> Option<Duration> {
        let behind = self.owed().since();
        let behind = behind.map(|since| now.saturating_duration_since(since));
        self.latencies().average().max(behind)
    }

    /// What the node does: as its connection, and degraded where it is connected and does not answer.
    pub(crate) fn state_seen(&self) -> NodeState {
        match self.state() {
            NodeState::Connected if self.owed().is_degraded() => NodeState::Degraded,
            state => state,
        }
    }

    /// Why the node is degraded, if it is.
    pub(crate) fn degraded(&self) -> Option<Status> {
        self.owed()
            .why()
            .filter(|_| self.state() == NodeState::Connected)
    }

    /// Looks whether the node answers. False where there is nothing more to look at.
    fn look(&self, now: Instant, limit: Duration) -> bool {
        let is_connected = self.state() == NodeState::Connected;
        match self.owed().look(now, is_connected, limit) {
            Look::Fine => return false,
            Look::Same => return true,
            Look::Degraded(method, waited) => {
                let admission = self.admit_event();
                log::event!(
                    admission.is_told => warn or debug,
                    target: log::CLIENT,
                    node = self.id().get(),
                    address = %self.address(),
                    method,
                    waited_ms = log::millis(waited),
                    left_out = admission.left_out,
                    "degraded: the node is connected, and does not answer what others have answered"
                );
            }
            Look::Recovered(lasted) => {
                let admission = self.admit_event();
                log::event!(
                    admission.is_told => info or debug,
                    target: log::CLIENT,
                    node = self.id().get(),
                    address = %self.address(),
                    lasted_ms = log::millis(lasted),
                    left_out = admission.left_out,
                    "the node answers again"
                );
            }
        }
        self.pool().state_changed.notify_waiters();
        true
    }
}

impl Pool {
    /// Looks at this node from now on, until it owes nothing.
    #[cold]
    fn watch(self: &Arc<Self>, channel: &Arc<Channel>) {
        if !self.watched.add(Arc::downgrade(channel)) {
            return;
        }
        let mut looker = Looker(Arc::downgrade(self));
        // Where the runtime has ended, so have the connections.
        if let Some(runtime) = self.runtime() {
            let clock = Arc::clone(&self.clock);
            let interval = paced(self.settings.degraded_after / LOOKS);
            runtime.spawn(async move {
                loop {
                    clock.sleep_until(clock.now() + interval).await;
                    let Looker(pool) = &looker;
                    if !pool.upgrade().is_some_and(|pool| pool.look(clock.now())) {
                        // Somebody else may have begun since.
                        drop(std::mem::take(&mut looker.0));
                        return;
                    }
                }
            });
        }
    }

    /// Looks at all nodes that owe something. False where none is left.
    fn look(&self, now: Instant) -> bool {
        let limit = self.settings.degraded_after;
        let all = self.watched.all();
        let looked_at = all.len();
        let mut kept = all;
        kept.retain(|channel| {
            let channel = channel.upgrade();
            channel.is_some_and(|channel| channel.look(now, limit))
        });
        self.watched.keep(looked_at, kept)
    }
}

/// Looks at the nodes of a pool, until this is dropped: its runtime may end.
struct Looker(Weak<Pool>);

impl Drop for Looker {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.watched.end();
        }
    }
}
