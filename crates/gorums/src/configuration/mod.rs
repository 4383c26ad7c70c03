//! Configurations: sets of nodes, and what can be made of them.

mod adaptive_limit;
mod address;
mod builder;
mod error;
#[cfg(feature = "toml")]
mod file;
mod interceptor;
mod members;
mod membership;
mod node;
#[cfg(feature = "toml")]
pub(crate) mod node_file;
pub(crate) mod nodes;
mod resolve;
mod watch;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

pub use adaptive_limit::AdaptiveLimit;
pub use address::NodeAddress;
pub use builder::ConfigurationBuilder;
pub use error::ConfigurationError;
pub use interceptor::{ClientInterceptor, Outgoing};
pub(crate) use interceptor::{Interceptors, Observers, intercept};
pub(crate) use members::Members;
use members::Wanted;
pub use membership::{Change, Membership, NeverConnected};
#[cfg(test)]
pub(crate) use membership::{MOST, REMEMBERED};
pub use node::Node;
pub use resolve::{Family, Resolve};
pub use watch::Watch;
pub(crate) use watch::Watched;

use crate::bounds::Reached;
use crate::channel::Targets;
use crate::error::{NodeError, QuorumError};
use crate::handler::{Running, ServerCtx};
use crate::node_id::NodeId;

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
pub struct Configuration {
    inner: Arc<Inner>,
    /// Of whose handler it is, from which its calls inherit.
    caller: Option<Running>,
}

struct Inner {
    nodes: Box<[Node]>,
    targets: Arc<Targets>,
    /// The interceptors of all pools that the nodes belong to, one pool after the other.
    interceptors: Interceptors,
}

impl Configuration {
    pub(crate) fn from_nodes(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes: Box<[Node]> = nodes.into_iter().collect();
        let targets = Targets::new(nodes.iter().map(|node| Arc::clone(node.channel())));
        let interceptors = distinct_members(&nodes)
            .iter()
            .fold(Interceptors::default(), |all, members| {
                all.then(members.interceptors())
            });
        let inner = Arc::new(Inner {
            nodes,
            targets,
            interceptors,
        });
        Self {
            inner,
            caller: None,
        }
    }

    /// The same nodes as the handler of this request has them: its calls inherit.
    pub(crate) fn called_by(mut self, ctx: &ServerCtx) -> Self {
        self.caller = Some(ctx.while_running());
        self
    }

    /// The request from which calls inherit.
    #[inline]
    pub(crate) fn caller(&self) -> Option<&Running> {
        self.caller.as_ref()
    }

    /// These nodes, as a part of this configuration or made from it.
    fn made_of(&self, nodes: impl IntoIterator<Item = Node>) -> Self {
        Self {
            caller: self.caller.clone(),
            ..Self::from_nodes(nodes)
        }
    }

    /// The configuration of no nodes.
    pub(crate) fn empty() -> Self {
        Self::from_nodes([])
    }

    pub(crate) fn targets(&self) -> &Arc<Targets> {
        &self.inner.targets
    }

    /// The interceptors of every call to these nodes.
    pub(crate) fn interceptors(&self) -> &Interceptors {
        &self.inner.interceptors
    }

    /// One for each pool that the nodes belong to, in the order of the nodes.
    pub(crate) fn members(&self) -> Vec<Arc<Members>> {
        distinct_members(&self.inner.nodes)
    }

    /// How often the bounds of these nodes' connections were reached: of all nodes that they share
    /// calls and settings with, those that were [added](Self::extend) too; and those of the handlers of
    /// a client that serves its nodes ([`serve`](ConfigurationBuilder::serve)).
    #[must_use]
    pub fn reached(&self) -> Reached {
        let members = self.members();
        Reached::of(members.iter().flat_map(|members| {
            let own = std::iter::once(Arc::clone(&members.pool().reached));
            own.chain(members.serving().reached())
        }))
    }

    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        self.inner.targets.position(id)
    }

    /// The same nodes, of which calls inherit nothing from the request whose handler has got them:
    /// neither its deadline nor its cancellation. For what a handler does on its own account, and
    /// leaves to run when its caller has gone. See [`ServerCtx::config`].
    #[must_use]
    pub fn independent(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: None,
        }
    }

    /// The number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.nodes.len()
    }

    /// Whether there are no nodes, which only a part of another configuration can be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.nodes.is_empty()
    }

    /// The nodes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.inner.nodes.iter()
    }

    /// The nodes, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Node] {
        &self.inner.nodes
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
        let mut nodes = self.inner.nodes.to_vec();
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
        let mut union = self.made_of(nodes);
        union.caller = union.caller.or_else(|| other.caller.clone());
        Ok(union)
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
        Ok(self.made_of(nodes))
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
        self.made_of(self.iter().filter(|node| keep(node)).cloned())
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
        self.made_of(sorted)
    }

    /// This configuration and nodes at these addresses, which it starts to connect to and does not
    /// wait for. The new nodes belong to the pool of this one's connections: they have
    /// its settings, and keep order with the others. They get ids after the greatest that the pool
    /// ever had. A node that the pool has at one of the addresses, in whatever configuration, is
    /// taken as it is. No addresses make a clone.
    ///
    /// Any number of tasks may extend at a time. Where nodes of several pools were brought together
    /// ([`union`](Self::union)), the pool is that of the first node. The new connections are driven
    /// by the tokio runtime that this is called in.
    ///
    /// # Errors
    /// This configuration is empty; an address is named twice or is none; the node at an
    /// address has the id of another one here; ids are used up; or a node is new and there is no
    /// tokio runtime here. The error names the culprit, and nothing was added.
    pub fn extend<A: Into<String>>(
        &self,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, ConfigurationError> {
        let addresses = addresses.into_iter();
        self.join(addresses.map(|address| (None, address.into()).into()))
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
        let nodes = nodes.into_iter();
        self.join(nodes.map(|(id, address)| (Some(id.into()), address.into()).into()))
    }

    fn join(&self, wanted: impl Iterator<Item = Wanted>) -> Result<Self, ConfigurationError> {
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            return Ok(self.clone());
        }
        let first = self.inner.nodes.first();
        let first = first.ok_or(ConfigurationError::NothingToExtend)?;
        let nodes = first.members().join(self.as_slice(), &wanted, None)?;
        self.union(&Self::from_nodes(nodes))
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
        &self.inner.nodes[position]
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
mod tests;
