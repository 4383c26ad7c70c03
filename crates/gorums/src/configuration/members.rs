//! The nodes of a pool, and how others join them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::node::WeakNode;
use super::{ConfigurationError, Interceptors, Node};
use crate::channel::{Pairs, Pool};
use crate::dial::{Serving, run};
use crate::node_id::NodeId;
use crate::runtime::{Address, AddressError};
use crate::stream::Served;
use crate::sync::{Mutex, MutexGuard};
use crate::wire::Side;

/// A node that is to join.
pub(super) struct Wanted {
    /// None for the next one.
    pub(super) id: Option<NodeId>,
    /// Who listed the node has chosen the id, as the others do who list it.
    pub(super) is_named: bool,
    pub(super) address: String,
}

impl From<(Option<NodeId>, String)> for Wanted {
    /// An id that is there was chosen.
    fn from((id, address): (Option<NodeId>, String)) -> Self {
        Self {
            id,
            is_named: id.is_some(),
            address,
        }
    }
}

/// The nodes of a pool that somebody holds, and what they have in common.
pub(crate) struct Members {
    pool: Arc<Pool>,
    /// The interceptors of every call to one of the nodes.
    interceptors: Interceptors,
    /// Serves the requests that the nodes send to this process.
    serving: Arc<Serving>,
    /// The lock serialises additions.
    joined: Mutex<Joined>,
}

#[derive(Default)]
struct Joined {
    /// Each addition removes those that are gone, so there are never many more than are held.
    nodes: Vec<WeakNode>,
    /// The greatest id that was ever given.
    greatest: u32,
}

impl Members {
    pub(crate) fn new(
        pool: Arc<Pool>,
        interceptors: Interceptors,
        served: Option<Served>,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            interceptors,
            serving: Arc::new(Serving::new(served)),
            joined: Mutex::default(),
        })
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn interceptors(&self) -> &Interceptors {
        &self.interceptors
    }

    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Finds the wanted nodes among the present ones and in the pool, and adds the others. These
    /// start to connect or, where the other one of a pair does that, wait for it. After an error
    /// nothing is added.
    pub(super) fn join(
        self: &Arc<Self>,
        present: &[Node],
        wanted: &[Wanted],
        pairs: Option<Pairs>,
    ) -> Result<Vec<Node>, ConfigurationError> {
        let (joined, _) = self.replace(present, wanted, pairs, |_| false)?;
        Ok(joined)
    }

    /// The same, where some nodes are replaced: they are looked at as if they were not there. These
    /// come second, for the caller to retire them.
    pub(super) fn replace(
        self: &Arc<Self>,
        present: &[Node],
        wanted: &[Wanted],
        pairs: Option<Pairs>,
        is_replaced: impl Fn(&Node) -> bool,
    ) -> Result<(Vec<Node>, Vec<Node>), ConfigurationError> {
        let wanted = wanted
            .iter()
            .map(|node| {
                Ok(Asked::new(
                    node.id,
                    node.is_named,
                    self.read(&node.address)?,
                ))
            })
            .collect::<Result<Vec<_>, ConfigurationError>>()?;
        let mut joined = self.lock();
        let alive: Vec<Node> = joined.nodes.iter().filter_map(WeakNode::upgrade).collect();
        joined.nodes = alive.iter().map(Node::downgrade).collect();
        let ours: HashMap<_, _> = present.iter().map(|node| (node.id(), node)).collect();
        let others = alive
            .iter()
            .filter(|node| ours.get(&node.id()) != Some(node));
        let there = present.iter().chain(others);
        let (replaced, there): (Vec<_>, Vec<_>) = there.partition(|node| is_replaced(node));
        let replaced: Vec<Node> = replaced.into_iter().cloned().collect();
        let known = Known::new(there);
        let identified = identified(&wanted, &known, joined.greatest)?;
        if let Some(Pairs { me, .. }) = pairs
            && !identified.iter().any(|node| node.id() == me)
            && !present.iter().any(|node| node.id() == me)
        {
            let known = identified.iter().map(Identified::id).collect();
            return Err(ConfigurationError::NotOfAPair { me, known });
        }
        let unable = pairs.and_then(|pairs| pairs.unable(identified.iter().map(Identified::id)));
        if let Some(nodes) = unable {
            return Err(ConfigurationError::NoCommonStream { nodes });
        }
        let is_new = |node: &Identified| matches!(node, Identified::New(..));
        if !identified.iter().any(is_new) {
            let known = identified.into_iter().filter_map(Identified::known);
            return Ok((known.collect(), replaced));
        }
        let runtime = Handle::try_current().map_err(|_| ConfigurationError::NoRuntime)?;
        let lacking = |error: io::Error| ConfigurationError::Runtime {
            reason: error.to_string(),
        };
        self.pool.clock.check_runtime().map_err(lacking)?;
        self.pool.transport.check_runtime().map_err(lacking)?;
        self.pool.run_on(&runtime);
        let nodes = identified
            .into_iter()
            .map(|node| match node {
                Identified::Known(node) => node,
                Identified::New(id, is_named, address) => {
                    let side = pairs.map_or(Side::Client, |pairs| pairs.side(id));
                    let node = Node::new(side, id, address.into(), Arc::clone(self));
                    let before = replaced.iter().find(|before| before.id() == id);
                    let was_named = before.is_none_or(|before| before.channel().is_named());
                    node.channel().set_named(is_named && was_named);
                    if let Some(before) = before
                        && let Some(in_process) = before.channel().in_process()
                    {
                        // The server itself stays where it is, whatever its address.
                        node.channel().set_in_process(in_process);
                        node.channel().take_server_of(before.channel());
                    }
                    joined.nodes.push(node.downgrade());
                    joined.greatest = joined.greatest.max(id.get());
                    runtime.spawn(run(Arc::clone(node.channel()), Arc::clone(&self.serving)));
                    node
                }
            })
            .collect();
        Ok((nodes, replaced))
    }

    /// Reads the address of a node.
    pub(super) fn read(&self, text: &str) -> Result<Address, AddressError> {
        let address = self.pool.transport.address(text)?;
        address.check_connectable()?;
        Ok(address)
    }

    /// The node with this id that opens the stream of its pair, if there is one.
    pub(crate) fn that_connects(&self, id: NodeId) -> Option<Node> {
        let joined = self.lock();
        let mut alive = joined.nodes.iter().filter_map(WeakNode::upgrade);
        alive.find(|node| node.id() == id && node.channel().side() == Side::Server)
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock()
    }
}

/// The nodes that exist; of two with one id or address, the first.
#[derive(Default)]
struct Known {
    by_id: HashMap<NodeId, Node>,
    by_address: HashMap<String, Node>,
}

impl Known {
    fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut known = Self::default();
        for node in nodes {
            known.by_id.entry(node.id()).or_insert_with(|| node.clone());
            known
                .by_address
                .entry(node.canonical().to_owned())
                .or_insert_with(|| node.clone());
        }
        known
    }
}

/// A node that is to join.
struct Asked {
    id: Option<NodeId>,
    is_named: bool,
    address: String,
    canonical: String,
}

impl Asked {
    fn new(id: Option<NodeId>, is_named: bool, address: Address) -> Self {
        Self {
            id,
            is_named,
            address: address.as_str().to_owned(),
            canonical: address.canonical(),
        }
    }
}

enum Identified {
    Known(Node),
    /// Its id, whether that was chosen, and its address.
    New(NodeId, bool, String),
}

impl Identified {
    fn id(&self) -> NodeId {
        match self {
            Self::Known(node) => node.id(),
            Self::New(id, ..) => *id,
        }
    }

    fn known(self) -> Option<Node> {
        match self {
            Self::Known(node) => Some(node),
            Self::New(..) => None,
        }
    }
}

/// Gives every wanted node an id, or says what is wrong. Ids that are not named follow the
/// greatest.
fn identified(
    wanted: &[Asked],
    known: &Known,
    greatest: u32,
) -> Result<Vec<Identified>, ConfigurationError> {
    let mut greatest = known
        .by_id
        .keys()
        .map(|id| id.get())
        .fold(greatest, u32::max);
    let mut by_id: HashMap<NodeId, &str> = HashMap::new();
    let mut by_address: HashMap<&str, NodeId> = HashMap::new();
    let mut identified = Vec::with_capacity(wanted.len());
    for asked in wanted {
        let Asked {
            id,
            is_named,
            address,
            canonical,
        } = asked;
        let there = known.by_address.get(canonical);
        let same = there.filter(|node| id.is_none_or(|id| id == node.id()));
        let id = match (id, same) {
            (Some(id), _) => *id,
            (None, Some(node)) => node.id(),
            (None, None) => NodeId::from(greatest.checked_add(1).ok_or_else(|| {
                ConfigurationError::NoMoreIds {
                    address: address.clone(),
                }
            })?),
        };
        if id.get() == 0 {
            return Err(ConfigurationError::ZeroId {
                address: address.clone(),
            });
        }
        let other = known.by_id.get(&id).filter(|node| Some(*node) != same);
        let other = other.map(Node::address).or(by_id.insert(id, address));
        if let Some(other) = other {
            return Err(ConfigurationError::DuplicateId {
                id,
                addresses: [other.to_owned(), address.clone()],
            });
        }
        let other = there.filter(|node| node.id() != id).map(Node::id);
        let other = other.or(by_address.insert(canonical, id));
        if let Some(other) = other {
            return Err(ConfigurationError::DuplicateAddress {
                address: address.clone(),
                ids: [other, id],
            });
        }
        greatest = greatest.max(id.get());
        identified.push(match same {
            Some(node) => Identified::Known(node.clone()),
            None => Identified::New(id, *is_named, address.clone()),
        });
    }
    Ok(identified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Configuration;

    fn asked(id: Option<NodeId>, address: &str) -> Asked {
        Asked::new(id, false, address.parse().expect("legal"))
    }

    fn ids(wanted: &[(Option<u32>, &str)], known: &Known, greatest: u32) -> Vec<u32> {
        let wanted = wanted
            .iter()
            .map(|(id, address)| asked(id.map(NodeId::from), address));
        identified(&wanted.collect::<Vec<_>>(), known, greatest)
            .expect("legal")
            .iter()
            .map(|node| node.id().get())
            .collect()
    }

    #[test]
    fn ids_go_on_after_the_greatest() {
        let none = Known::default();
        assert_eq!(ids(&[(None, "a:1"), (None, "b:1")], &none, 0), [1, 2]);
        assert_eq!(
            ids(
                &[(Some(7), "a:1"), (None, "b:1"), (None, "[::1]:2")],
                &none,
                0
            ),
            [7, 8, 9]
        );
        assert_eq!(ids(&[(None, "a:1"), (Some(3), "b:1")], &none, 10), [11, 3]);
        let three = Configuration::unconnected(3);
        let known = Known::new(&three);
        assert_eq!(
            ids(&[(None, "a:1"), (None, "NODE-2:1")], &known, 1),
            [4, 2],
            "a node that there is keeps its id"
        );
    }

    #[test]
    fn the_last_id_is_not_given_twice() {
        let wanted = [asked(None, "a:1")];
        let Err(error) = identified(&wanted, &Known::default(), u32::MAX) else {
            panic!("there is no id left");
        };
        assert!(error.to_string().contains("a:1"), "{error}");
        assert!(identified(&wanted, &Known::default(), u32::MAX - 1).is_ok());
    }

    #[test]
    fn of_two_nodes_with_one_id_neither_is_taken_for_the_other() {
        // As in a configuration of two pools.
        let (here, there) = (Configuration::unconnected(1), Configuration::unconnected(2));
        let known = Known::new(here.iter().chain(&there));
        assert_eq!(
            ids(&[(None, "node-2:1"), (Some(1), "node-1:1")], &known, 0),
            [2, 1]
        );
        let elsewhere = Node::new(
            Side::Client,
            NodeId::from(1),
            "elsewhere:1".into(),
            Arc::clone(here[0].members()),
        );
        let known = Known::new(here.iter().chain([&elsewhere]));
        let Err(error) = identified(&[asked(None, "elsewhere:1")], &known, 0) else {
            panic!("its id is another node's");
        };
        let text = error.to_string();
        assert!(
            text.contains("node-1:1") && text.contains("elsewhere:1"),
            "{text}"
        );
    }
}
