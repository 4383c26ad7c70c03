//! How a thrifty call asks nodes that it has not asked.

use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;

use super::collect::Collector;
use super::held::{Held, Why};
use crate::handler::refusal;
use crate::log;
use crate::quorum::Bits;

/// Whether a call cannot succeed, by what is known of it.
type IsHopeless<'a, Resp> = dyn Fn(&Collector<Resp>) -> bool + 'a;

impl<Resp: Message + Default> Collector<Resp> {
    /// Asks other nodes, where those that were asked cannot be enough any more or have not answered in
    /// time. True where it has, and something may have happened at once.
    #[cold]
    pub(crate) fn poll_widen(
        &mut self,
        cx: &mut Context<'_>,
        is_hopeless: &IsHopeless<'_, Resp>,
    ) -> bool {
        let Some(mut held) = self.held.take() else {
            return false;
        };
        let has_widened = self.widen(&mut held, cx, is_hopeless);
        self.held = Some(held);
        has_widened
    }

    fn widen(
        &mut self,
        held: &mut Held,
        cx: &mut Context<'_>,
        is_hopeless: &IsHopeless<'_, Resp>,
    ) -> bool {
        let targets = Arc::clone(self.handle.call.targets());
        let Some(pool) = targets.pools().first() else {
            return false;
        };
        let has_ended = self.handle.call.early().is_some();
        if held.len() == 0 || has_ended || held.is_too_late(pool.clock.now()) {
            return false;
        }
        let pending = self.asked().clone().without(held.parts());
        let pending = pending.without(self.answered()).without(self.out());
        let in_place_of_failed = self.in_place_of_failed(held, &pending, is_hopeless);
        if in_place_of_failed.len() > 0 {
            return self.ask(held, &in_place_of_failed, Why::Failed);
        }
        loop {
            match held.poll_due(pool, cx) {
                Poll::Pending => return false,
                Poll::Ready(Why::Last) => {
                    let all = held.parts().clone();
                    return self.ask(held, &all, Why::Last);
                }
                Poll::Ready(_) => {
                    let others = self.in_place_of_late(held, &pending, is_hopeless);
                    if others.len() > 0 && held.may_ask(others.len()) {
                        return self.ask(held, &others, Why::Late);
                    }
                }
            }
        }
    }

    /// Which others make those that were asked enough again, if they are not.
    fn in_place_of_failed(
        &mut self,
        held: &Held,
        pending: &Bits,
        is_hopeless: &IsHopeless<'_, Resp>,
    ) -> Bits {
        if let Some(asks) = held.asks() {
            // A reply that cannot be used is its node's failure.
            let lacking = asks.saturating_sub(pending.len() + self.answered().len());
            let count = match pending.len() {
                0 if lacking == 0 => held.len(),
                _ => lacking,
            };
            return held.in_order().take(count).collect();
        }
        let out = self.out().clone().with(held.parts());
        self.others(held, out, &Bits::default(), is_hopeless)
    }

    /// Which others would be enough with those that have answered.
    fn in_place_of_late(
        &mut self,
        held: &Held,
        pending: &Bits,
        is_hopeless: &IsHopeless<'_, Resp>,
    ) -> Bits {
        if held.asks().is_some() {
            return held.in_order().take(pending.len()).collect();
        }
        let out = self.out().clone().with(held.parts()).with(pending);
        self.others(held, out, pending, is_hopeless)
    }

    /// The first of the nodes that were not asked which are enough together with those that are not out;
    /// where all are not enough, with the first of these as well, which have been asked. Those that are
    /// not needed for it are not among them: of these the last go first.
    fn others(
        &mut self,
        held: &Held,
        out: Bits,
        asked: &Bits,
        is_hopeless: &IsHopeless<'_, Resp>,
    ) -> Bits {
        let before = std::mem::replace(&mut self.out, out);
        let mut others = Vec::new();
        for part in held.in_order() {
            if !is_hopeless(self) {
                break;
            }
            self.out.remove(part);
            others.push(part);
        }
        for part in (0..self.configuration().len()).filter(|part| asked.contains(*part)) {
            if !is_hopeless(self) {
                break;
            }
            self.out.remove(part);
        }
        for at in (0..others.len()).rev() {
            self.out.insert(others[at]);
            if is_hopeless(self) {
                self.out.remove(others[at]);
            } else {
                others.remove(at);
            }
        }
        self.out = before;
        others.into_iter().collect()
    }

    /// Asks these nodes.
    fn ask(&mut self, held: &mut Held, parts: &Bits, why: Why) -> bool {
        let call = &self.handle.call;
        let pools = call.targets().pools();
        let now = pools
            .first()
            .map_or(call.started(), |pool| pool.clock.now());
        held.note_failures(self.failures(), now);
        let mut requests = held.take(parts);
        let count = requests.len();
        tracing::debug!(
            target: log::CALL,
            method = call.method(),
            call = call.id(),
            nodes = count,
            reason = match why {
                Why::Failed => "failed",
                Why::Late => "late",
                Why::Last => "last",
            },
            "a call asks more nodes"
        );
        for (part, frame) in &mut requests {
            let channel = &call.targets().channels()[*part];
            // It may be awaited by another handler than the one that has made it.
            if let Some(status) = refusal(|| channel.in_process()) {
                *frame = Err(status);
            }
        }
        match call.widen(requests, held.len() == 0, now) {
            Ok(()) => {
                held.note_asked(parts, count, why);
                true
            }
            Err(requests) => {
                held.give_back(requests);
                false
            }
        }
    }
}
