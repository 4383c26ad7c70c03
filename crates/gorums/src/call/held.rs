//! What a thrifty call asks at first, and what it keeps of the nodes that it does not.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::thrifty::Thrifty;
use super::timer::Timer;
use crate::channel::{Pool, Requests, Targets};
use crate::error::{Code, NodeError, Status};
use crate::quorum::Bits;
use crate::runtime::paced;

/// After so many delays all nodes are asked, whatever the budget.
const DELAYS: u32 = 8;

/// How a call chooses the nodes that it asks at first.
pub(crate) struct Choice<'a> {
    pub(crate) thrifty: &'a Thrifty,
    /// The nodes that the request is for.
    pub(crate) members: Bits,
    /// Whether these nodes are enough to ask.
    pub(crate) is_enough: &'a dyn Fn(&Bits) -> bool,
    /// So many, where no rule of the call says which nodes are enough.
    pub(crate) asks: Option<usize>,
}

/// What is known of a call before it is begun.
pub(crate) struct Beginning<'a> {
    pub(crate) targets: &'a Targets,
    pub(crate) method: &'static str,
    /// By position: why a node gets nothing. Empty where none is rejected.
    pub(crate) rejected: &'a [Option<Status>],
    pub(crate) now: Instant,
    pub(crate) deadline: Option<Instant>,
}

/// The nodes that a call has not asked, and when it does.
pub(crate) struct Held {
    thrifty: Thrifty,
    /// What is to be sent to them, or why nothing can be: in the order in which they are asked.
    requests: Requests,
    /// The same nodes.
    parts: Bits,
    asks: Option<usize>,
    /// Of each node, by position, how many come before it.
    ranks: Vec<usize>,
    delay: Duration,
    /// When others are asked, if the budget has room.
    next: Option<Instant>,
    /// When all others are asked.
    last: Option<Instant>,
    /// From then on nobody is: the call ends.
    deadline: Option<Instant>,
    /// How many failures are known to other calls.
    noted: usize,
    timer: Timer,
    /// The nodes that were asked later.
    later: Bits,
    was_late: bool,
    has_failed: bool,
}

/// Why other nodes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Those that were asked cannot be enough any more.
    Failed,
    /// They have not answered in time.
    Late,
    /// They have not answered for so long that all others are asked.
    Last,
}

impl Choice<'_> {
    /// Chooses the nodes to ask at first. Returns the others, if there are any.
    pub(crate) fn choose(&self, beginning: &Beginning<'_>) -> Option<Box<Held>> {
        let Beginning {
            targets,
            method,
            rejected,
            now,
            deadline,
        } = *beginning;
        let clock = &targets.pools().first()?.clock;
        let failed = self.thrifty.failed_lately(now);
        let all = || (0..targets.len()).filter(|part| self.members.contains(*part));
        let distance = |part: usize| {
            let channel = &targets.channels()[part];
            let is_rejected = rejected.get(part).is_some_and(Option::is_some);
            let is_unfit = is_rejected || channel.paused_until(method).is_some();
            let latency = channel.expected_latency(now);
            let has_failed = failed.contains(&channel.id());
            (is_unfit, channel.state_seen().rank(), has_failed, latency)
        };
        let mut nearest: Vec<_> = all().collect();
        nearest.sort_by_cached_key(|part| distance(*part));
        let mut first = smallest(&nearest, self.is_enough);
        let asked = first.len().max(1) as f64;
        let delay = self.thrifty.begin(|q| {
            // All that are asked are to have answered by then, each for itself.
            let q = q.powf(asked.recip());
            let quantile = |part: usize| targets.channels()[part].latencies().quantile(q);
            let is_fit = |part: &usize| {
                let (is_unfit, ..) = distance(*part);
                !is_unfit && targets.channels()[*part].state().is_connected()
            };
            let mut quantiles: Vec<_> = all()
                .filter(is_fit)
                .filter_map(|part| Some((quantile(part)?, part)))
                .collect();
            // Of a strategy every quorum is to be given the time that its nodes need.
            if let Some(drawn) = self.thrifty.of_strategy() {
                let drawn: Bits = drawn.filter_map(|id| targets.position(id)).collect();
                quantiles.retain(|(_, part)| drawn.contains(*part));
                return quantiles.into_iter().map(|(quantile, _)| quantile).max();
            }
            quantiles.sort_unstable();
            // Not of the nodes that are asked: one that is slow now and then is to be passed by then.
            let steadiest: Vec<_> = quantiles.iter().map(|(_, part)| *part).collect();
            let steadiest = smallest(&steadiest, self.is_enough);
            let of_these = quantiles
                .iter()
                .filter(|(_, part)| steadiest.contains(part));
            of_these.map(|(quantile, _)| *quantile).max()
        });
        if let Some(drawn) = self.thrifty.draw(|| clock.random()) {
            let drawn: Bits = drawn
                .iter()
                .filter_map(|id| targets.position(*id))
                .collect();
            nearest.sort_by_cached_key(|part| {
                let (is_unfit, rank, has_failed, latency) = distance(*part);
                let is_drawn = drawn.contains(*part);
                (is_unfit, rank, has_failed, !is_drawn, latency)
            });
            first = smallest(&nearest, self.is_enough);
        }
        let mut parts = self.members.clone().without(&first.into_iter().collect());
        if let Some(number) = self.thrifty.explores(|| clock.random()) {
            let others: Vec<_> = all()
                .filter(|part| {
                    let (is_unfit, ..) = distance(*part);
                    let is_connected = targets.channels()[*part].state().is_connected();
                    parts.contains(*part) && is_connected && !is_unfit
                })
                .collect();
            if !others.is_empty() && self.thrifty.spend(1) {
                parts.remove(others[number % others.len()]);
                self.thrifty.note_explored();
            }
        }
        if parts.len() == 0 {
            return None;
        }
        let mut ranks = vec![0; targets.len()];
        for (rank, part) in nearest.into_iter().enumerate() {
            ranks[part] = rank;
        }
        let half = deadline.map(|deadline| now + deadline.saturating_duration_since(now) / 2);
        let patience = now.checked_add(paced(delay).saturating_mul(DELAYS));
        Some(Box::new(Held {
            thrifty: self.thrifty.clone(),
            requests: Vec::with_capacity(parts.len()),
            parts,
            asks: self.asks,
            ranks,
            delay: paced(delay),
            next: now.checked_add(delay),
            last: half.into_iter().chain(patience).min(),
            deadline,
            noted: 0,
            timer: Timer::default(),
            later: Bits::default(),
            was_late: false,
            has_failed: false,
        }))
    }
}

/// The first of these nodes that are enough, without those that are not needed for it: of these the
/// last go first.
fn smallest(nodes: &[usize], is_enough: &dyn Fn(&Bits) -> bool) -> Vec<usize> {
    let mut set = Bits::default();
    let mut first = Vec::new();
    for node in nodes {
        if is_enough(&set) {
            break;
        }
        set.insert(*node);
        first.push(*node);
    }
    for at in (0..first.len()).rev() {
        set.remove(first[at]);
        if is_enough(&set) {
            first.remove(at);
        } else {
            set.insert(first[at]);
        }
    }
    first
}

impl Held {
    /// Whether this node is one of them.
    pub(crate) fn has(&self, part: usize) -> bool {
        self.parts.contains(part)
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn parts(&self) -> &Bits {
        &self.parts
    }

    /// Whether it is too late to ask anybody.
    pub(super) fn is_too_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn asks(&self) -> Option<usize> {
        self.asks
    }

    /// Keeps what is to be sent to one of them.
    pub(crate) fn keep(&mut self, part: usize, frame: Result<Bytes, Status>) {
        let ranks = &self.ranks;
        let at = self
            .requests
            .partition_point(|(other, _)| ranks[*other] < ranks[part]);
        self.requests.insert(at, (part, frame));
    }

    /// The nodes, in the order in which they are asked.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> {
        self.requests.iter().map(|(part, _)| *part)
    }

    /// Whether others are to be asked for the time that has passed. Where not, the task is woken when
    /// they are.
    pub(super) fn poll_due(&mut self, pool: &Pool, cx: &mut Context<'_>) -> Poll<Why> {
        let mut now = pool.clock.now();
        loop {
            if self.last.is_some_and(|last| last <= now) {
                return Poll::Ready(Why::Last);
            }
            if self.next.is_some_and(|next| next <= now) {
                self.next = now.checked_add(self.delay);
                return Poll::Ready(Why::Late);
            }
            let Some(at) = self.next.into_iter().chain(self.last).min() else {
                return Poll::Pending;
            };
            ready!(self.timer.poll(pool, at, cx));
            now = now.max(at);
        }
    }

    /// Whether these may be asked, by the budget.
    pub(super) fn may_ask(&self, nodes: usize) -> bool {
        let may = self.thrifty.spend(nodes);
        if !may {
            self.thrifty.note_over_budget();
        }
        may
    }

    /// Takes out what is sent to these nodes now.
    pub(super) fn take(&mut self, parts: &Bits) -> Requests {
        let all = std::mem::take(&mut self.requests);
        let (taken, left) = all
            .into_iter()
            .partition::<Vec<_>, _>(|(part, _)| parts.contains(*part));
        self.requests = left;
        for (part, _) in &taken {
            self.parts.remove(*part);
        }
        taken
    }

    /// The call had ended, and nothing of this was sent.
    pub(super) fn give_back(&mut self, requests: Requests) {
        for (part, frame) in requests {
            self.parts.insert(part);
            self.keep(part, frame);
        }
    }

    /// These nodes were asked.
    pub(super) fn note_asked(&mut self, parts: &Bits, count: usize, why: Why) {
        self.later = std::mem::take(&mut self.later).with(parts);
        self.thrifty.note_extra(count);
        match why {
            Why::Failed if !std::mem::replace(&mut self.has_failed, true) => {
                self.thrifty.note_failed();
            }
            Why::Late | Why::Last if !std::mem::replace(&mut self.was_late, true) => {
                self.thrifty.note_late();
            }
            _ => {}
        }
    }

    /// Nodes that are not available are not asked before the others for a while. Another error, or a no,
    /// says nothing of the next call.
    pub(super) fn note_failures(&mut self, failures: &[NodeError], now: Instant) {
        for error in failures.iter().skip(self.noted) {
            if error.code() == Code::Unavailable {
                self.thrifty.note_failure(error.node(), now);
            }
        }
        self.noted = failures.len();
    }

    /// The reply of this node was the last that was needed.
    pub(super) fn note_completed_by(&self, part: usize) {
        if self.later.contains(part) {
            self.thrifty.note_rescued();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.thrifty.note_saved(self.parts.len());
    }
}
