use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::Members;
use crate::channel::{Channel, NodeState, Targets};
use crate::error::Status;
use crate::node_id::NodeId;
use crate::wire::Side;

/// A node and its connection. Cheap to clone; equal if it is the very same node.
#[derive(Clone)]
pub struct Node(Arc<Held>);

/// Closes the connection when the last clone goes.
struct Held {
    channel: Arc<Channel>,
    members: Arc<Members>,
    /// The targets of a call to this node alone.
    alone: OnceLock<Arc<Targets>>,
    /// The address as it is compared.
    canonical: OnceLock<String>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.channel.close();
    }
}

impl Node {
    /// A node that this process connects to, as a client, or that connects to it.
    pub(crate) fn new(side: Side, id: NodeId, address: Arc<str>, members: Arc<Members>) -> Self {
        Self(Arc::new(Held {
            channel: Arc::new(Channel::new(id, address, Arc::clone(members.pool()), side)),
            members,
            alone: OnceLock::new(),
            canonical: OnceLock::new(),
        }))
    }

    pub(super) fn downgrade(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.0))
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.0.channel
    }

    /// The nodes of its pool, of which it is one.
    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.0.members
    }

    pub(crate) fn targets(&self) -> Arc<Targets> {
        Arc::clone(
            self.0
                .alone
                .get_or_init(|| Targets::new([Arc::clone(&self.0.channel)])),
        )
    }

    /// The address in the form in which it is compared. Found once, since a file may have another
    /// name later.
    pub(super) fn canonical(&self) -> &str {
        self.0.canonical.get_or_init(|| {
            let transport = &self.channel().pool().transport;
            let address = transport.address(self.address());
            address.map_or_else(|_| self.address().to_owned(), |address| address.canonical())
        })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.channel().id()
    }

    /// The address, as it was given but for blanks around it: `host:port`, `unix:/path`, or what
    /// else the [`Transport`](crate::runtime::Transport) takes. Of a client of a server: the IP
    /// address and port that it connected from, or `client` where the transport has none.
    #[must_use]
    pub fn address(&self) -> &str {
        self.channel().address()
    }

    /// What the connection is doing.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.channel().state_seen()
    }

    /// Why the node is [`Degraded`](NodeState::Degraded); none where it is not.
    #[must_use]
    pub fn degraded(&self) -> Option<Status> {
        self.channel().degraded()
    }

    /// The time from a two-way call to this node's reply, as a moving average that gives a new
    /// sample a weight of 1/5; none before the first. Errors, one-way messages and replies of streamed
    /// calls are no samples. Of replies that nobody waits for any more, since others were enough, one
    /// at a time is: so a node that is always late has a latency, too.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.channel().latencies().average()
    }

    /// A quantile of the node's last 256 [latencies](Self::latency): the least of them that at
    /// least this part of them does not exceed, so 0.5 gives the median, 0 the least and 1 the
    /// greatest. None before the first. What is below 0, or not a number, counts as 0; what is
    /// above 1, as 1.
    ///
    /// It looks at all of them, so ask now and then, and not for each call.
    #[must_use]
    pub fn latency_quantile(&self, q: f64) -> Option<Duration> {
        self.channel().latencies().quantile(q)
    }

    /// Why the last attempt to connect failed or the connection broke; none once the node has
    /// connected, or accepted a connection again, which a node of the Go library does with its
    /// first reply.
    #[must_use]
    pub fn last_error(&self) -> Option<Status> {
        self.channel().last_error()
    }

    /// The other node of the pool that is the very same server, as two addresses may be that lead to
    /// one: see [`allow_same_server`](crate::ConfigurationBuilder::allow_same_server). None where
    /// there is none, as far as is known.
    #[must_use]
    pub fn same_server_as(&self) -> Option<NodeId> {
        self.channel().same_server_as()
    }

    /// Orders nodes by id, for [`Configuration::sort_by`](super::Configuration::sort_by).
    ///
    /// The four orders can be composed, by [`Ordering::then_with`]:
    ///
    /// ```
    /// use gorums::{Configuration, Node};
    ///
    /// fn best_first(nodes: &Configuration) -> Configuration {
    ///     nodes.sort_by(|a, b| Node::by_state(a, b).then_with(|| Node::by_latency(a, b)))
    /// }
    /// ```
    #[must_use]
    pub fn by_id(a: &Self, b: &Self) -> Ordering {
        a.id().cmp(&b.id())
    }

    /// Orders nodes by [latency](Self::latency), the nearest first, and those without any last.
    #[must_use]
    pub fn by_latency(a: &Self, b: &Self) -> Ordering {
        let key = |node: &Self| {
            node.latency()
                .map_or((true, Duration::ZERO), |l| (false, l))
        };
        key(a).cmp(&key(b))
    }

    /// Orders nodes by what is to be expected of them, by their [state](Self::state): those that are
    /// connected first, then those that are [degraded](NodeState::Degraded), those that connect, those
    /// that are disconnected and those that are closed.
    #[must_use]
    pub fn by_state(a: &Self, b: &Self) -> Ordering {
        a.state().rank().cmp(&b.state().rank())
    }

    /// Orders nodes without a [last error](Self::last_error) before those that have one.
    #[must_use]
    pub fn by_last_error(a: &Self, b: &Self) -> Ordering {
        a.channel().has_error().cmp(&b.channel().has_error())
    }

    /// The number of two-way requests that are queued or on their way, in calls that still wait for
    /// them.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.channel().pending()
    }
}

/// A node that is not kept alive by this.
pub(super) struct WeakNode(Weak<Held>);

impl WeakNode {
    /// The node, unless its last handle is gone or its connection was closed for good.
    pub(super) fn upgrade(&self) -> Option<Node> {
        let node = Node(self.0.upgrade()?);
        (node.state() != NodeState::Closed).then_some(node)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({})", self.id(), self.address())
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Node {}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id().get())
            .field("address", &self.address())
            .field("state", &self.state())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Configuration;

    fn measure(node: &Node, millis: impl IntoIterator<Item = u64>) {
        for sample in millis {
            node.channel()
                .latencies()
                .record(Duration::from_millis(sample));
        }
    }

    fn millis(node: &Node, quantile: f64) -> Option<u128> {
        let latency = node.latency_quantile(quantile);
        latency.map(|latency| latency.as_millis())
    }

    fn sorted(
        configuration: &Configuration,
        compare: impl FnMut(&Node, &Node) -> Ordering,
    ) -> Vec<u32> {
        let sorted = configuration.sort_by(compare);
        sorted.ids().map(NodeId::get).collect()
    }

    #[test]
    fn nodes_are_ordered_by_id() {
        let backwards = Configuration::unconnected(3)
            .select([3, 1, 2])
            .expect("known");
        assert_eq!(sorted(&backwards, Node::by_id), [1, 2, 3]);
    }

    #[test]
    fn nodes_are_ordered_by_latency_and_those_without_any_come_last() {
        let all = Configuration::unconnected(5);
        assert_eq!(
            sorted(&all, Node::by_latency),
            [1, 2, 3, 4, 5],
            "as they were"
        );
        measure(&all[1], [30]);
        measure(&all[3], [10]);
        measure(&all[4], [30]);
        assert_eq!(sorted(&all, Node::by_latency), [4, 2, 5, 1, 3]);
        let by_latency_and_id =
            |a: &Node, b: &Node| Node::by_latency(a, b).then_with(|| Node::by_id(b, a));
        assert_eq!(sorted(&all, by_latency_and_id), [4, 5, 2, 3, 1]);
    }

    #[test]
    fn nodes_with_an_error_come_after_those_without() {
        let all = Configuration::unconnected(4);
        for node in [&all[0], &all[2]] {
            let error = Status::unavailable("connection refused");
            node.channel().set_last_error(Some(error));
        }
        assert_eq!(sorted(&all, Node::by_last_error), [2, 4, 1, 3]);
        let by_error_and_id =
            |a: &Node, b: &Node| Node::by_last_error(a, b).then_with(|| Node::by_id(b, a));
        assert_eq!(sorted(&all, by_error_and_id), [4, 2, 3, 1]);
        measure(&all[2], [5]);
        measure(&all[3], [7]);
        let by_error_and_latency =
            |a: &Node, b: &Node| Node::by_last_error(a, b).then_with(|| Node::by_latency(a, b));
        assert_eq!(sorted(&all, by_error_and_latency), [4, 2, 3, 1]);
        all[0].channel().set_last_error(None);
        assert_eq!(sorted(&all, Node::by_last_error), [1, 2, 4, 3]);
    }

    #[test]
    fn the_latency_is_a_moving_average() {
        let all = Configuration::unconnected(1);
        assert_eq!(all[0].latency(), None);
        measure(&all[0], [100]);
        assert_eq!(all[0].latency(), Some(Duration::from_millis(100)));
        measure(&all[0], [200]);
        assert_eq!(all[0].latency(), Some(Duration::from_millis(120)));
    }

    #[test]
    fn a_latency_quantile_is_a_sample_of_that_rank() {
        let all = Configuration::unconnected(1);
        let quantile = |q| millis(&all[0], q);
        for q in [0.0, 0.5, 1.0, f64::NAN] {
            assert_eq!(quantile(q), None, "{q}");
        }
        measure(&all[0], [7]);
        for q in [0.0, 0.5, 1.0] {
            assert_eq!(quantile(q), Some(7), "{q}");
        }
        measure(&all[0], (1..=9).map(|sample| sample * 10));
        for (q, expected) in [
            (0.0, 7),
            (0.1, 7),
            (0.11, 10),
            (0.5, 40),
            (0.51, 50),
            (0.9, 80),
            (0.95, 90),
            (1.0, 90),
            (-0.5, 7),
            (f64::NEG_INFINITY, 7),
            (1.5, 90),
            (f64::INFINITY, 90),
            (f64::NAN, 7),
        ] {
            assert_eq!(quantile(q), Some(expected), "{q}");
        }
    }

    #[test]
    fn latency_quantiles_are_of_the_last_256_samples() {
        let all = Configuration::unconnected(1);
        let quantile = |q| millis(&all[0], q);
        measure(&all[0], std::iter::repeat_n(10_000, 100));
        measure(&all[0], 1..=200);
        // 56 of the first hundred are left.
        assert_eq!(
            (quantile(200.0 / 256.0), quantile(201.0 / 256.0)),
            (Some(200), Some(10_000))
        );
        measure(&all[0], 201..=256);
        assert_eq!(
            (quantile(0.0), quantile(0.5), quantile(1.0)),
            (Some(1), Some(128), Some(256))
        );
        measure(&all[0], [500]);
        assert_eq!((quantile(0.0), quantile(1.0)), (Some(2), Some(500)));
    }
}
