use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ClientInterceptor, Node, Outgoing};
use crate::bounds::Bound;
use crate::error::{Code, NodeError, Outcome, Status};
use crate::node_id::NodeId;
use crate::sync::Mutex;

/// How many calls a node may have at the beginning, where the range allows it.
const FIRST: usize = 20;

/// What is left of the limit of a node that has too much to do.
const LESS: f64 = 0.9;

/// Of so many nodes limits are kept. Where there is one more, all begin anew: most will have left.
const NODES: usize = 65_536;

/// Has each node asked no more at a time than it can do: a limit of calls in flight for each node, which
/// follows how the node answers.
///
/// A node that has more to do than it can answers late, or not before the deadlines, or sheds what it is
/// asked ([`ServerBuilder::shed`](crate::ServerBuilder::shed)). Whoever goes on to ask as much has more
/// and more calls fail, and those that do not wait for the others. So the limit grows by one for as many
/// replies as it is, while at least half of it is used, and a tenth of it goes where a call was shed, had
/// its deadline pass without a reply, or took longer than it [should](Self::slower_than); once for the
/// calls that were in flight then. That is additive increase and multiplicative decrease, by which the
/// clients of a node also come to equal shares (Chiu and Jain, 1989), and TCP to its window.
///
/// At the limit a node's part of a call fails at once, as [not sent](Outcome::NotSent), with
/// [`ResourceExhausted`](Code::ResourceExhausted), and a quorum call goes on with the others. What counts
/// are two-way calls that still wait for the node ([`Node::pending`]). A quorum call that has its quorum
/// waits for nobody any more: what a node that is late has of such calls counts for nothing here, and no
/// reply of it is seen. So this spares nodes the calls that need them, each for itself or all of them; what
/// is queued at one that a quorum can do without is bounded by its
/// [outbox](crate::ConfigurationBuilder::outbox). One-way messages do not count, and are refused like calls. Calls that are made at the same moment may go beyond the limit together.
///
/// It is an [interceptor](ClientInterceptor) of a client, or of all clients of a pool of connections.
/// Clones are the same limit. It is kept for each id that has answered, of 65,536 nodes at the most: with
/// one more all begin anew.
///
/// ```
/// use std::time::Duration;
///
/// use gorums::Configuration;
/// use gorums::call::AdaptiveLimit;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limit = AdaptiveLimit::new(4..=1000).slower_than(Duration::from_millis(100));
/// let all = Configuration::builder()
///     .nodes(["127.0.0.1:8081", "127.0.0.1:8082"])
///     .interceptor(limit.clone())
///     .connect()?;
/// // For a dashboard:
/// for node in &all {
///     println!("{node}: {} of {}", node.pending(), limit.of(node.id()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AdaptiveLimit(Arc<Inner>);

struct Inner {
    range: RangeInclusive<usize>,
    slow: Option<Duration>,
    nodes: Mutex<HashMap<NodeId, Limit>>,
}

impl AdaptiveLimit {
    /// A limit that is never less than this for a node, and never more: 1 at the least. It begins with 20,
    /// or with what is next to that.
    #[must_use]
    pub fn new(range: RangeInclusive<usize>) -> Self {
        let least = (*range.start()).max(1);
        let most = (*range.end()).max(least);
        Self(Arc::new(Inner {
            range: least..=most,
            slow: None,
            nodes: Mutex::default(),
        }))
    }

    /// A reply that takes longer is taken for one of a node that has too much to do. Default: only calls
    /// that are shed, and deadlines that pass, tell that.
    ///
    /// Choose it well above what the slowest method takes that is answered at once, and leave it away where
    /// replies are streamed, of which each one counts by the time since the call began. It begins anew:
    /// clones that there are do not hear of it.
    #[must_use]
    pub fn slower_than(self, slow: Duration) -> Self {
        Self(Arc::new(Inner {
            range: self.0.range.clone(),
            slow: Some(slow),
            nodes: Mutex::default(),
        }))
    }

    /// How many calls this node may have in flight now.
    #[must_use]
    pub fn of(&self, node: impl Into<NodeId>) -> usize {
        self.0.of(&self.0.nodes.lock(), node.into())
    }
}

impl Inner {
    fn of(&self, nodes: &HashMap<NodeId, Limit>, node: NodeId) -> usize {
        let limit = nodes.get(&node).copied();
        limit.unwrap_or_else(|| self.first()).whole()
    }

    fn first(&self) -> Limit {
        let first = FIRST.clamp(*self.range.start(), *self.range.end());
        Limit {
            calls: first as f64,
            lowered: None,
        }
    }

    /// The limit of a node that has answered, from now on at the latest.
    fn kept<'a>(&self, nodes: &'a mut HashMap<NodeId, Limit>, node: NodeId) -> &'a mut Limit {
        if nodes.len() == NODES && !nodes.contains_key(&node) {
            nodes.clear();
        }
        nodes.entry(node).or_insert_with(|| self.first())
    }

    /// Whether a node that has answered so has too much to do. None where that says nothing of it.
    fn is_overloaded(&self, elapsed: Duration, result: Result<(), &NodeError>) -> Option<bool> {
        let is_slow = self.slow.is_some_and(|slow| slow < elapsed);
        let Err(error) = result else {
            return Some(is_slow);
        };
        match (error.outcome(), error.code()) {
            // A shed says when to come back. Others may be of a request that is too large, or a disk
            // that is full, which fewer calls do not help.
            (Outcome::Refused, Code::ResourceExhausted)
                if error.status().retry_delay().is_some() =>
            {
                Some(true)
            }
            (Outcome::Refused | Outcome::Unknown, Code::DeadlineExceeded) => Some(true),
            // The handler has answered.
            (Outcome::Refused, _) => Some(is_slow),
            // It was not asked, or the connection broke.
            (Outcome::NotSent | Outcome::Unknown, _) => None,
        }
    }
}

/// Of one node.
#[derive(Debug, Clone, Copy)]
struct Limit {
    calls: f64,
    /// When it was lowered last. What was asked before says nothing of what it is since.
    lowered: Option<Instant>,
}

impl Limit {
    fn whole(self) -> usize {
        // It is within a range of whole numbers.
        self.calls as usize
    }

    /// A call was answered in time, while so many others waited.
    fn raise(&mut self, pending: usize, most: usize) {
        if (pending + 1) * 2 >= self.whole() {
            self.calls = (self.calls + 1.0 / self.calls).min(most as f64);
        }
    }

    /// A call that began then was not.
    fn lower(&mut self, began: Option<Instant>, now: Instant, least: usize) {
        if self
            .lowered
            .is_none_or(|lowered| began.is_some_and(|began| began > lowered))
        {
            self.calls = (self.calls * LESS).max(least as f64);
            self.lowered = Some(now);
        }
    }
}

impl ClientInterceptor for AdaptiveLimit {
    fn on_request(&self, outgoing: &mut Outgoing<'_>) -> Result<(), Status> {
        let full: Vec<_> = {
            let nodes = self.0.nodes.lock();
            let full = |node: &Node| {
                let limit = self.0.of(&nodes, node.id());
                (node.pending() >= limit).then(|| (node.clone(), limit))
            };
            outgoing.nodes().filter_map(full).collect()
        };
        for (node, limit) in full {
            node.channel().pool().reached.add(Bound::AdaptiveLimit);
            let status = Status::resource_exhausted(format!(
                "{limit} calls wait for the node, as many as it can be expected to do (see AdaptiveLimit)"
            ));
            outgoing.reject(node.id(), status);
        }
        Ok(())
    }

    fn on_response(
        &self,
        node: &Node,
        _method: &'static str,
        elapsed: Duration,
        result: Result<(), &NodeError>,
    ) {
        let Some(is_overloaded) = self.0.is_overloaded(elapsed, result) else {
            return;
        };
        let mut nodes = self.0.nodes.lock();
        let limit = self.0.kept(&mut nodes, node.id());
        if is_overloaded {
            let now = node.channel().pool().clock.now();
            limit.lower(now.checked_sub(elapsed), now, *self.0.range.start());
        } else {
            limit.raise(node.pending(), *self.0.range.end());
        }
    }
}

impl fmt::Debug for AdaptiveLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLimit")
            .field("range", &self.0.range)
            .field("slow", &self.0.slow)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limit(calls: f64) -> Limit {
        Limit {
            calls,
            lowered: None,
        }
    }

    #[test]
    fn it_grows_by_one_for_as_many_replies_as_it_is_and_only_where_it_is_used() {
        let mut used = limit(10.0);
        for _ in 0..11 {
            used.raise(9, 1000);
        }
        assert_eq!(used.whole(), 11);
        let mut unused = limit(10.0);
        for _ in 0..1000 {
            unused.raise(3, 1000);
        }
        assert_eq!(unused.whole(), 10);
        for _ in 0..1000 {
            used.raise(used.whole(), 12);
        }
        assert_eq!(used.whole(), 12, "the most");
    }

    #[test]
    fn it_is_lowered_once_for_the_calls_that_were_in_flight() {
        let mut calls = limit(100.0);
        let now = Instant::now();
        for began in 0..50 {
            calls.lower(Some(now + began * MS), now + 100 * MS, 5);
        }
        assert_eq!(calls.whole(), 90);
        calls.lower(Some(now + 101 * MS), now + 150 * MS, 5);
        assert_eq!(calls.whole(), 81);
        for turn in 2..100 {
            calls.lower(Some(now + turn * 100 * MS), now + turn * 100 * MS, 5);
        }
        assert_eq!(calls.whole(), 5, "the least");
    }

    #[test]
    fn limits_are_kept_of_so_many_nodes_and_begin_anew_with_one_more() {
        let all = AdaptiveLimit::new(1..=1000);
        let mut nodes = HashMap::new();
        for id in 1..=NODES as u32 {
            all.0.kept(&mut nodes, id.into()).calls = 50.0;
        }
        assert_eq!(all.0.kept(&mut nodes, 7.into()).whole(), 50);
        assert_eq!(nodes.len(), NODES);
        assert_eq!(
            all.0.kept(&mut nodes, (NODES as u32 + 1).into()).whole(),
            FIRST
        );
        assert_eq!(nodes.len(), 1);
        assert_eq!(all.0.of(&nodes, 7.into()), FIRST);
    }

    #[test]
    fn a_range_of_nothing_is_of_one_call() {
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "a mistake that has to do no harm"
        )]
        for range in [0..=0, 5..=1] {
            let least = (*range.start()).max(1);
            assert_eq!(AdaptiveLimit::new(range).of(1), least);
        }
        assert_eq!(AdaptiveLimit::new(1..=1000).of(1), FIRST);
    }
}
