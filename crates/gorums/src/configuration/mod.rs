//! Configurations: sets of nodes, and what can be made of them.

mod address;
mod builder;
mod error;
mod file;
mod interceptor;
mod members;
mod membership;
mod node;
mod resolve;
mod watch;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;
use std::time::Duration;

pub use address::NodeAddress;
pub use builder::ConfigurationBuilder;
pub use error::ConfigurationError;
pub use interceptor::{ClientInterceptor, Outgoing};
pub(crate) use interceptor::{Interceptors, Observers, intercept};
pub(crate) use members::Members;
pub use membership::{Change, Membership};
#[cfg(test)]
pub(crate) use membership::{MOST, REMEMBERED};
pub use node::Node;
pub use resolve::Resolve;
pub use watch::Watch;

use crate::channel::{NodeState, Targets};
use crate::error::{NodeError, QuorumError};
use crate::node_id::NodeId;
#[cfg(test)]
use crate::wire::Side;

/// An immutable set of nodes in a fixed order, for calls.
///
/// Cheap to clone. Configurations that are made from one another share its connections: one for
/// each node, kept while any configuration, [`Node`], [`Watch`] or call holds the node. When the
/// last of these is dropped, what is queued is still written for up to a second, as far as the
/// runtime goes on that long: call [`flush`](Self::flush) before a program ends.
///
/// Nodes come and go while calls run. [`extend`](Self::extend) makes a configuration with more
/// nodes, and leaves this one as it is; a node leaves when nobody holds it any more, and other
/// nodes do not notice. Its address may then be connected to again, on a connection of its own.
///
/// Two configurations are equal if they have the same nodes, in whatever order.
#[derive(Clone)]
pub struct Configuration(Arc<Inner>);

struct Inner {
    nodes: Box<[Node]>,
    targets: Arc<Targets>,
    /// The interceptors of all pools that the nodes belong to, one pool after the other.
    interceptors: Interceptors,
}

impl Configuration {
    /// Describes a configuration to connect to.
    pub fn builder() -> ConfigurationBuilder {
        ConfigurationBuilder::new()
    }

    pub(crate) fn from_nodes(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes: Box<[Node]> = nodes.into_iter().collect();
        let targets = Targets::new(nodes.iter().map(|node| Arc::clone(node.channel())));
        let interceptors = distinct_members(&nodes)
            .iter()
            .fold(Interceptors::default(), |all, members| {
                all.then(members.interceptors())
            });
        Self(Arc::new(Inner {
            nodes,
            targets,
            interceptors,
        }))
    }

    /// The configuration of no nodes.
    pub(crate) fn empty() -> Self {
        Self::from_nodes([])
    }

    pub(crate) fn targets(&self) -> &Arc<Targets> {
        &self.0.targets
    }

    /// The interceptors of every call to these nodes.
    pub(crate) fn interceptors(&self) -> &Interceptors {
        &self.0.interceptors
    }

    /// One for each pool that the nodes belong to, in the order of the nodes.
    pub(crate) fn members(&self) -> Vec<Arc<Members>> {
        distinct_members(&self.0.nodes)
    }

    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        self.0.targets.position(id)
    }

    /// The number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.nodes.len()
    }

    /// Whether there are no nodes, which only a part of another configuration can be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.nodes.is_empty()
    }

    /// The nodes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.0.nodes.iter()
    }

    /// The nodes, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Node] {
        &self.0.nodes
    }

    /// The ids of the nodes, in order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.iter().map(Node::id)
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: impl Into<NodeId>) -> Option<&Node> {
        self.position(id.into()).map(|position| &self[position])
    }

    /// Whether it has this very node. One with the same id on another connection is another node.
    #[must_use]
    pub fn contains(&self, node: &Node) -> bool {
        self.node(node.id()) == Some(node)
    }

    /// The nodes of both: this one's, then those that only the other one has.
    ///
    /// # Errors
    /// Two different nodes have one id.
    pub fn union(&self, other: &Self) -> Result<Self, ConfigurationError> {
        let mut nodes = self.0.nodes.to_vec();
        for node in other {
            match self.node(node.id()) {
                None => nodes.push(node.clone()),
                Some(same) if same == node => {}
                Some(different) => {
                    return Err(ConfigurationError::DuplicateId {
                        id: node.id(),
                        addresses: [different.address().into(), node.address().into()],
                    });
                }
            }
        }
        Ok(Self::from_nodes(nodes))
    }

    /// This configuration and one more node.
    ///
    /// # Errors
    /// A different node has its id.
    pub fn with(&self, node: &Node) -> Result<Self, ConfigurationError> {
        self.union(&Self::from(node))
    }

    /// The nodes with these ids, in the order in which they are named.
    ///
    /// # Errors
    /// No node has one of the ids, or an id is named twice.
    pub fn select<I: Into<NodeId>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<Self, ConfigurationError> {
        let mut nodes: Vec<Node> = Vec::new();
        for id in ids {
            let id = id.into();
            let node = self
                .node(id)
                .ok_or_else(|| ConfigurationError::UnknownNode {
                    id,
                    known: self.ids().collect(),
                })?;
            if nodes.contains(node) {
                return Err(ConfigurationError::DuplicateId {
                    id,
                    addresses: [node.address().into(), node.address().into()],
                });
            }
            nodes.push(node.clone());
        }
        Ok(Self::from_nodes(nodes))
    }

    /// The nodes that are in both, in this one's order.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.filter(|node| other.contains(node))
    }

    /// The nodes that the other does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.filter(|node| !other.contains(node))
    }

    /// All nodes but the one with this id.
    #[must_use]
    pub fn without(&self, id: impl Into<NodeId>) -> Self {
        let id = id.into();
        self.filter(|node| node.id() != id)
    }

    /// All nodes but those that failed in this call. Nodes that did not answer in time failed;
    /// those that were not waited for, or were left out, did not.
    #[must_use]
    pub fn without_errors(&self, error: &QuorumError) -> Self {
        self.without_failed(error, |_| true)
    }

    /// All nodes but those that failed in this call, and for which the function is true. A node
    /// with the id of one that failed, and another address, is another one.
    #[must_use]
    pub fn without_failed(
        &self,
        error: &QuorumError,
        mut drop: impl FnMut(&NodeError) -> bool,
    ) -> Self {
        self.filter(|node| {
            !error
                .failure(node.id())
                .filter(|failure| failure.address() == node.address())
                .is_some_and(&mut drop)
        })
    }

    /// The nodes for which the function is true.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&Node) -> bool) -> Self {
        Self::from_nodes(self.iter().filter(|node| keep(node)).cloned())
    }

    /// The same nodes in another order, in which calls are queued. Nodes that compare as equal keep
    /// their order.
    ///
    /// [`Node::by_id`], [`Node::by_latency`] and [`Node::by_last_error`] are such functions, and
    /// can be composed. The function may contradict itself, as it does where a latency changes
    /// while it runs: unlike [`slice::sort_by`] this never panics. Every node is then in the result
    /// once, in an order as good as the answers were.
    #[must_use]
    pub fn sort_by(&self, mut compare: impl FnMut(&Node, &Node) -> Ordering) -> Self {
        let mut sorted: Vec<Node> = Vec::with_capacity(self.len());
        for node in self {
            // It comes after those that are equal.
            let place = sorted.partition_point(|other| compare(other, node) != Ordering::Greater);
            sorted.insert(place, node.clone());
        }
        Self::from_nodes(sorted)
    }

    /// This configuration and nodes at these addresses, `host:port`, which it starts to connect to
    /// and does not wait for. The new nodes belong to the pool of this one's connections: they have
    /// its settings, and keep order with the others. They get ids after the greatest that the pool
    /// ever had. A node that the pool has at one of the addresses, in whatever configuration, is
    /// taken as it is. No addresses make a clone.
    ///
    /// Any number of tasks may extend at a time. Where nodes of several pools were brought together
    /// ([`union`](Self::union)), the pool is that of the first node. The new connections are driven
    /// by the tokio runtime that this is called in.
    ///
    /// # Errors
    /// This configuration is empty; an address is named twice or is not `host:port`; the node at an
    /// address has the id of another one here; ids are used up; or a node is new and there is no
    /// tokio runtime here. The error names the culprit, and nothing was added.
    pub fn extend<A: Into<String>>(
        &self,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, ConfigurationError> {
        self.join(
            addresses
                .into_iter()
                .map(|address| (None, address.into()))
                .collect(),
        )
    }

    /// This configuration and nodes with these ids, 1 or more, and addresses: as
    /// [`extend`](Self::extend). A node that the pool has with that id and that address, in
    /// whatever configuration, is taken as it is.
    ///
    /// # Errors
    /// As for [`extend`](Self::extend); and an id is 0 or named twice, or one of the pool's nodes
    /// has the id and another address, or the address and another id.
    pub fn extend_with_ids<I: Into<NodeId>, A: Into<String>>(
        &self,
        nodes: impl IntoIterator<Item = (I, A)>,
    ) -> Result<Self, ConfigurationError> {
        self.join(
            nodes
                .into_iter()
                .map(|(id, address)| (Some(id.into()), address.into()))
                .collect(),
        )
    }

    fn join(&self, wanted: Vec<members::Wanted>) -> Result<Self, ConfigurationError> {
        if wanted.is_empty() {
            return Ok(self.clone());
        }
        let first = self.0.nodes.first();
        let first = first.ok_or(ConfigurationError::NothingToExtend)?;
        let nodes = first.members().join(self.as_slice(), &wanted, None)?;
        self.union(&Self::from_nodes(nodes))
    }

    /// Derives a configuration from this one, again and again: `derive` may filter by
    /// [state](Node::state), sort by [latency](Node::by_latency), or do whatever else. The
    /// [`Watch`] yields what it gives at first, and then whatever differs from what was last
    /// yielded, in its nodes or in their order.
    ///
    /// It looks again when `interval` (a millisecond at least) is over, and when the state of some
    /// node of the pool changes. `derive` runs only while somebody asks, in the task that does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gorums::{Configuration, Node, NodeState};
    ///
    /// async fn nearest_three(all: &Configuration) {
    ///     let mut watch = all.watch(Duration::from_secs(1), |all| {
    ///         let up = all.filter(|node| node.state() == NodeState::Connected);
    ///         let nearest = up.sort_by(Node::by_latency);
    ///         nearest.select(nearest.ids().take(3)).unwrap_or(nearest)
    ///     });
    ///     loop {
    ///         let nearest = watch.next().await;
    ///         println!("calls go to {nearest:?}");
    ///     }
    /// }
    /// ```
    pub fn watch(
        &self,
        interval: Duration,
        derive: impl FnMut(&Self) -> Self + Send + 'static,
    ) -> Watch {
        Watch::new(self.into(), interval, Box::new(derive))
    }

    /// Waits until at least this many nodes are connected at once, or all where there are fewer.
    /// Bound it with a timeout: a node that is down is waited for.
    pub async fn connected(&self, at_least: usize) {
        let at_least = at_least.min(self.len());
        let fixed = Membership::from(self);
        loop {
            // Listening begins before looking, so that no change falls between.
            let changed = fixed.listen();
            let connected = self
                .iter()
                .filter(|node| node.state() == NodeState::Connected)
                .count();
            if connected >= at_least {
                return;
            }
            changed.await;
        }
    }

    /// A configuration of this many nodes, with ids from 1, that never connect.
    #[cfg(test)]
    pub(crate) fn unconnected(nodes: usize) -> Self {
        let members = builder::ConfigurationBuilder::new().members();
        Self::from_nodes((1..=nodes).map(|id| {
            Node::new(
                Side::Client,
                NodeId::from(id as u32),
                format!("node-{id}:1").into(),
                Arc::clone(&members),
            )
        }))
    }
}

fn distinct_members(nodes: &[Node]) -> Vec<Arc<Members>> {
    let mut distinct: Vec<Arc<Members>> = Vec::new();
    for node in nodes {
        if !distinct
            .iter()
            .any(|other| Arc::ptr_eq(other, node.members()))
        {
            distinct.push(Arc::clone(node.members()));
        }
    }
    distinct
}

impl Index<usize> for Configuration {
    type Output = Node;

    /// The node at this position.
    ///
    /// # Panics
    /// The position is not below [`len`](Configuration::len).
    fn index(&self, position: usize) -> &Node {
        &self.0.nodes[position]
    }
}

impl<'a> IntoIterator for &'a Configuration {
    type Item = &'a Node;
    type IntoIter = std::slice::Iter<'a, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Configuration {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|node| other.contains(node))
    }
}

impl Eq for Configuration {}

impl From<&Configuration> for Configuration {
    fn from(configuration: &Configuration) -> Self {
        configuration.clone()
    }
}

impl From<&Node> for Configuration {
    fn from(node: &Node) -> Self {
        Self::from_nodes([node.clone()])
    }
}

impl From<Node> for Configuration {
    fn from(node: Node) -> Self {
        Self::from_nodes([node])
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Outcome, QuorumErrorKind, QuorumFailure, Status};

    fn ids(configuration: &Configuration) -> Vec<u32> {
        configuration.ids().map(NodeId::get).collect()
    }

    #[test]
    fn parts_keep_the_order_and_the_connections() {
        let all = Configuration::unconnected(5);
        let odd = all.filter(|node| node.id().get() % 2 == 1);
        assert_eq!(ids(&odd), [1, 3, 5]);
        assert_eq!(ids(&all.difference(&odd)), [2, 4]);
        assert_eq!(ids(&all.without(3)), [1, 2, 4, 5]);
        assert_eq!(ids(&odd.intersection(&all.without(1))), [3, 5]);
        let some = all.select([4, 1]).expect("known");
        assert_eq!(ids(&some), [4, 1]);
        let union = some.union(&odd).expect("the same nodes");
        assert_eq!(ids(&union), [4, 1, 3, 5]);
        assert_eq!(union[0], all[3], "the very same node");
        let sorted = union.sort_by(|a, b| b.id().cmp(&a.id()));
        assert_eq!(ids(&sorted), [5, 4, 3, 1]);
        assert_eq!(sorted, union, "equal as a set");
        assert_ne!(sorted, all);
        assert_eq!(ids(&odd.with(&all[1]).expect("new id")), [1, 3, 5, 2]);
    }

    #[test]
    fn what_is_made_of_a_configuration_leaves_it_as_it_is() {
        let all = Configuration::unconnected(4);
        let (front, back) = (
            all.select([1, 2, 3]).expect("known"),
            all.select([2, 3, 4]).expect("known"),
        );
        assert_eq!(all.union(&front).expect("the same nodes"), all);
        assert_eq!(front.union(&all).expect("the same nodes"), all);
        let both = front.union(&back).expect("the same nodes");
        assert_eq!(ids(&both), [1, 2, 3, 4], "no node twice");
        let with = front.with(&all[0]).and_then(|same| same.with(&all[0]));
        assert_eq!(ids(&with.expect("the same node")), [1, 2, 3]);
        assert_eq!(ids(&front.without(2)), [1, 3]);
        assert_eq!(ids(&front.without(7)), [1, 2, 3], "there is no such node");
        assert_eq!(ids(&back.difference(&front)), [4]);
        assert!(front.difference(&all).is_empty());
        assert_eq!(ids(&front.sort_by(|a, b| Node::by_id(b, a))), [3, 2, 1]);
        assert_eq!((ids(&front), ids(&back)), (vec![1, 2, 3], vec![2, 3, 4]));
        assert_eq!(ids(&all), [1, 2, 3, 4]);
    }

    #[test]
    fn an_empty_configuration_is_one_of_no_nodes() {
        let all = Configuration::unconnected(2);
        let empty = all.filter(|_| false);
        assert_eq!((empty.len(), empty.is_empty()), (0, true));
        assert!(empty.ids().next().is_none() && empty.as_slice().is_empty());
        assert!(empty.node(1).is_none() && !empty.contains(&all[0]));
        assert_eq!(empty, all.without(1).without(2));
        assert_ne!(empty, all);
        assert_ne!(all, empty);
        assert_eq!(empty.union(&all).expect("no id clashes"), all);
        assert_eq!(all.union(&empty).expect("no id clashes"), all);
        assert!(empty.union(&empty).expect("no id clashes").is_empty());
        assert_eq!(ids(&empty.with(&all[1]).expect("no id clashes")), [2]);
        assert!(empty.without(1).is_empty() && empty.difference(&all).is_empty());
        assert!(empty.intersection(&all).is_empty());
        assert!(empty.sort_by(Node::by_latency).is_empty());
        assert!(empty.without_errors(&failed(&all)).is_empty());
        assert!(empty.extend::<&str>([]).expect("a clone").is_empty());
        let error = empty.extend(["a:1"]).expect_err("there is no pool");
        assert!(error.to_string().contains("empty configuration"), "{error}");
    }

    #[test]
    fn sorting_is_stable() {
        let all = Configuration::unconnected(40);
        let parity = |node: &Node| node.id().get() % 2;
        let sorted = all.sort_by(|a, b| parity(a).cmp(&parity(b)));
        let expected: Vec<u32> = (1..=20)
            .map(|id| 2 * id)
            .chain((0..20).map(|id| 2 * id + 1))
            .collect();
        assert_eq!(ids(&sorted), expected);
        let backwards =
            sorted.sort_by(|a, b| parity(b).cmp(&parity(a)).then_with(|| Node::by_id(b, a)));
        let expected: Vec<u32> = (1..=40)
            .rev()
            .filter(|id| id % 2 == 1)
            .chain((1..=40).rev().filter(|id| id % 2 == 0))
            .collect();
        assert_eq!(ids(&backwards), expected);
        assert_eq!(ids(&all.sort_by(|_, _| Ordering::Equal)), ids(&all));
        assert_eq!(ids(&backwards.sort_by(Node::by_id)), ids(&all));
    }

    #[test]
    fn a_comparator_that_contradicts_itself_loses_no_node() {
        let all = Configuration::unconnected(200);
        let answers = [Ordering::Less, Ordering::Equal, Ordering::Greater];
        let mut seed = 1_u32;
        let random = |_: &Node, _: &Node| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            answers[(seed >> 16) as usize % 3]
        };
        for sorted in [
            all.sort_by(random),
            all.sort_by(|_, _| Ordering::Less),
            all.sort_by(|_, _| Ordering::Greater),
            // Stone, paper, scissors.
            all.sort_by(|a, b| {
                answers[(3 + a.id().get() as usize % 3 - b.id().get() as usize % 3) % 3]
            }),
        ] {
            assert_eq!((sorted.len(), &sorted), (200, &all));
        }
    }

    /// An error of a call on these nodes, each of which failed with another code.
    fn failed<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> QuorumError {
        let codes = [Code::Unavailable, Code::Internal, Code::NotFound]
            .into_iter()
            .cycle();
        let failures: Vec<_> = nodes
            .into_iter()
            .zip(codes)
            .map(|(node, code)| {
                node.channel()
                    .error(Outcome::Refused, Status::new(code, "no"))
            })
            .collect();
        QuorumError::from(QuorumFailure {
            kind: QuorumErrorKind::Incomplete,
            method: "test.Test.Call",
            nodes: 3,
            needed: None,
            replies: 0,
            failures,
            one_way: false,
        })
    }

    #[test]
    fn nodes_that_failed_in_a_call_are_left_out() {
        let all = Configuration::unconnected(4);
        let three = all.without(4);
        let error = failed(&three);
        assert_eq!(ids(&all.without_errors(&error)), [4]);
        assert_eq!(ids(&three.without_errors(&error)), []);
        assert_eq!(ids(&all.without_errors(&failed([&all[1]]))), [1, 3, 4]);
        assert_eq!(ids(&all.without_errors(&failed([]))), [1, 2, 3, 4]);
        let without = |codes: &[Code]| {
            ids(&all.without_failed(&error, |failure| codes.contains(&failure.code())))
        };
        assert_eq!(without(&[Code::Internal]), [1, 3, 4]);
        assert_eq!(without(&[Code::NotFound, Code::Unavailable]), [2, 4]);
        assert_eq!(without(&[Code::Aborted]), [1, 2, 3, 4]);
    }

    #[test]
    fn a_node_with_the_id_of_one_that_failed_is_another_one_at_another_address() {
        let all = Configuration::unconnected(2);
        let members = Arc::clone(all[0].members());
        let old = Node::new(Side::Client, NodeId::from(2), "elsewhere:1".into(), members);
        assert_eq!(ids(&all.without_errors(&failed([&old]))), [1, 2]);
    }

    #[test]
    fn two_nodes_with_one_id_do_not_mix() {
        let (a, b) = (Configuration::unconnected(2), Configuration::unconnected(2));
        assert!(!a.contains(&b[0]));
        assert!(a.intersection(&b).is_empty());
        assert_eq!(ids(&a.difference(&b)), [1, 2]);
        let error = a.union(&b).expect_err("ids clash");
        assert!(error.to_string().contains("node 1"), "{error}");
    }

    #[test]
    fn selecting_what_is_not_there_names_it() {
        let all = Configuration::unconnected(2);
        let error = all.select([1, 7]).expect_err("no node 7");
        assert!(error.to_string().contains('7'), "{error}");
        assert!(all.select([1, 1]).is_err());
        assert!(all.select::<u32>([]).expect("nothing").is_empty());
    }

    #[test]
    fn nodes_are_found_in_large_configurations() {
        let all = Configuration::unconnected(100).sort_by(|a, b| b.id().cmp(&a.id()));
        for id in 1..=100 {
            assert_eq!(all.node(id).map(|node| node.id().get()), Some(id));
        }
        assert!(all.node(101).is_none());
    }
}
