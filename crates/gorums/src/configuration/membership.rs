use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::members::Wanted;
use super::{Configuration, ConfigurationError, Members, Node, NodeAddress};
use crate::channel::NodeState;
use crate::error::Status;
use crate::log::{self, Throttle};
use crate::node_id::NodeId;
use crate::runtime::{Address, Clock, SystemClock};
use crate::sync::{Mutex, MutexGuard};

/// How many nodes a membership has at most.
pub(crate) const MOST: usize = 65_536;

/// How many nodes that have left are remembered, so that nobody else gets their ids.
pub(crate) const REMEMBERED: usize = 65_536;

/// A set of nodes that changes: they join and leave one after the other, and
/// [`config`](Self::config) is the set as it is now.
///
/// Clones share one membership. The nodes share one pool of connections, as those of a
/// [`Configuration`] do. A configuration that was taken before a change stays as it is: calls go
/// on, and the connection of a node that has left ends when nobody holds the node any more.
///
/// An id belongs to one node for ever: a node that comes back to its address gets the id that it
/// had, and a node that joins at another address never gets it (of nodes that have left, the last
/// 65,536 are remembered). Only who says so moves a node to another address: [`Change::Move`], and
/// [`set`](Self::set).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use gorums::Configuration;
/// use gorums::membership::Change;
///
/// let members = Configuration::builder()
///     .addresses(["1=10.0.0.1:8080".parse()?, "2=10.0.0.2:8080".parse()?])
///     .membership()?;
/// let before = members.config();
/// members.apply(Change::Insert("3=10.0.0.3:8080".parse()?))?;
/// members.apply(Change::Remove(1.into()))?;
/// assert_eq!(members.config().ids().map(|id| id.get()).collect::<Vec<_>>(), [2, 3]);
/// assert_eq!(before.len(), 2);
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    /// None if it was made of an empty configuration, which has no connections to share.
    members: Option<Arc<Members>>,
    state: Mutex<State>,
    /// Wakes those who wait for a change or for the end of the membership.
    changed: Arc<Notify>,
}

struct State {
    config: Configuration,
    /// The node that is the server itself.
    own: Option<NodeId>,
    past: Past,
    last_error: Option<ConfigurationError>,
}

/// A change of a [`Membership`].
///
/// Like `tower::discover::Change` with an id as its key and an address as its service:
///
/// ```
/// use gorums::{NodeId, membership::{Change, NodeAddress}};
/// # mod tower { pub mod discover { pub enum Change<K, V> { Insert(K, V), Remove(K) } } }
///
/// fn change(change: tower::discover::Change<u32, String>) -> Change {
///     match change {
///         tower::discover::Change::Insert(id, address) => Change::insert(id, address),
///         tower::discover::Change::Remove(id) => Change::Remove(id.into()),
///     }
/// }
/// # change(tower::discover::Change::Remove(1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A node joins. Without an id it gets the one that it had, or the next one. If it is there
    /// already, nothing changes.
    Insert(NodeAddress),
    /// The node with this id leaves. If there is none, nothing changes.
    Remove(NodeId),
    /// The node at this address leaves. If there is none, nothing changes.
    RemoveAddress(String),
    /// The node with this id, which is there or was, has this address from now on. If it has it
    /// already, nothing changes. See [`Membership::set`] for what becomes of calls.
    Move(NodeId, String),
    /// These are the nodes from now on: see [`Membership::set`].
    Set(Vec<NodeAddress>),
}

impl Change {
    /// A node with this id, 1 or more, joins at this address.
    pub fn insert(id: impl Into<NodeId>, address: impl Into<String>) -> Self {
        Self::Insert(NodeAddress {
            id: Some(id.into()),
            address: address.into(),
        })
    }
}

impl Membership {
    pub(super) fn new(members: Option<Arc<Members>>, config: Configuration) -> Self {
        Self(Arc::new(Inner {
            members,
            state: Mutex::new(State {
                config,
                own: None,
                past: Past::default(),
                last_error: None,
            }),
            changed: Arc::default(),
        }))
    }

    /// The nodes that there are now, in the order in which they joined. It may be empty, and calls
    /// on it then fail at once.
    #[must_use]
    pub fn config(&self) -> Configuration {
        self.state().config.clone()
    }

    /// Makes these the nodes, all at once, and in this order: those that are there already stay as
    /// they are, with their connections, those that are not join, and those that are not named
    /// leave. Nodes without ids get them as with [`Change::Insert`].
    ///
    /// An id that is named with another address has *moved*: the list says where each node is.
    /// It is a new [`Node`] with a connection of its own. The old one ends at once, in all
    /// configurations that have it: of its calls those that were not written fail as
    /// [not sent](crate::Outcome::NotSent), the others with an
    /// [unknown outcome](crate::Outcome::Unknown), and so does every call that is made on it later,
    /// as not sent; nothing that was queued for the old address goes to the new one. The same holds
    /// for a node whose address is another id's from now on. Order is that of each connection:
    /// calls to the new address are in order among themselves.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use gorums::Configuration;
    /// use gorums::membership::NodeAddress;
    ///
    /// let members = Configuration::builder().node(1, "10.0.0.1:8080").membership()?;
    /// members.set(NodeAddress::list("1=10.0.7.1:8080, 2=10.0.0.2:8080")?)?;
    /// assert_eq!(members.config()[0].address(), "10.0.7.1:8080");
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`apply`](Self::apply); the list is empty, or has an id or an address twice.
    pub fn set(
        &self,
        nodes: impl IntoIterator<Item = NodeAddress>,
    ) -> Result<(), ConfigurationError> {
        self.apply(Change::Set(nodes.into_iter().collect()))
    }

    /// Makes a change. A node that joins is connected to by the tokio runtime that this is called
    /// in, and not waited for.
    ///
    /// # Errors
    /// The text is no address; the id is 0, or is or was another node's; the address is
    /// that of a node with another id; ids are used up; two nodes cannot share a stream, because of
    /// their ids; there are 65,536 nodes; the node that
    /// leaves is the server's own ([`ServerBuilder::peers`](crate::ServerBuilder::peers)); no node
    /// has or had the id that is to move; the membership was made of an empty configuration, which has no connections to share; or there
    /// is no tokio runtime. Nothing is changed then.
    pub fn apply(&self, change: impl Into<Change>) -> Result<(), ConfigurationError> {
        let applied = self.try_apply(change.into());
        self.state().last_error = applied.as_ref().err().cloned();
        applied
    }

    fn try_apply(&self, change: Change) -> Result<(), ConfigurationError> {
        let mut state = self.state();
        let State {
            config, own, past, ..
        } = &mut *state;
        let mut arrived = None;
        let leaving = match change {
            Change::Insert(node) => {
                let members = self.0.members.as_ref();
                let members = members.ok_or(ConfigurationError::NothingToExtend)?;
                let canonical = members.read(&node.address)?.canonical();
                let there = config.iter().find(|node| node.canonical() == canonical);
                let id = past.id_for(&node, &canonical, there.map(Node::id))?;
                let wanted = Wanted {
                    id,
                    is_named: node.id.is_some(),
                    address: node.address,
                };
                let pairs = members.pool().settings.pairs;
                let joined = members.join(config.as_slice(), &[wanted], pairs)?;
                if joined.iter().all(|node| config.contains(node)) {
                    return Ok(());
                }
                if config.len() >= MOST {
                    return Err(ConfigurationError::TooManyNodes { most: MOST });
                }
                let joined = Configuration::from_nodes(joined);
                let all = config.ids().chain(joined.ids());
                if let Some(nodes) = pairs.and_then(|pairs| pairs.unable(all)) {
                    return Err(ConfigurationError::NoCommonStream { nodes });
                }
                *config = config.union(&joined)?;
                arrived = Some(joined);
                None
            }
            Change::Move(id, address) => {
                if config.node(id).is_none() && !past.addresses.contains_key(&id) {
                    let known = config.ids().collect();
                    return Err(ConfigurationError::UnknownNode { id, known });
                }
                let moved = |node: &Node| NodeAddress {
                    id: Some(node.id()),
                    address: if node.id() == id {
                        &address
                    } else {
                        node.address()
                    }
                    .to_owned(),
                };
                let mut nodes: Vec<_> = config.iter().map(moved).collect();
                if config.node(id).is_none() {
                    nodes.push(NodeAddress {
                        id: Some(id),
                        address,
                    });
                }
                // Named twice, an address is one too many: nobody is replaced by this.
                return self.arrange(state, &nodes);
            }
            Change::Set(nodes) => {
                if nodes.is_empty() {
                    return Err(ConfigurationError::Empty);
                }
                return self.arrange(state, &nodes);
            }
            Change::Remove(id) => match config.node(id) {
                None => return Ok(()),
                node => node.cloned(),
            },
            Change::RemoveAddress(address) => {
                let address = match &self.0.members {
                    Some(members) => members.read(&address)?,
                    None => address.parse::<Address>()?,
                }
                .canonical();
                let same = |node: &&Node| node.canonical() == address;
                match config.iter().find(same) {
                    None => return Ok(()),
                    node => node.cloned(),
                }
            }
        };
        if let Some(node) = &leaving {
            if *own == Some(node.id()) {
                return Err(ConfigurationError::OwnNode { me: node.id() });
            }
            past.remember(node.id(), node.canonical());
            *config = config.without(node.id());
        }
        drop(state);
        tell(arrived.iter().flatten(), &leaving);
        // This may end the node's connection, which need not happen under the lock.
        drop(leaving);
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Makes these the nodes.
    fn arrange(
        &self,
        mut state: MutexGuard<'_, State>,
        nodes: &[NodeAddress],
    ) -> Result<(), ConfigurationError> {
        let State {
            config, own, past, ..
        } = &mut *state;
        let members = self.0.members.as_ref();
        let members = members.ok_or(ConfigurationError::NothingToExtend)?;
        if nodes.len() > MOST {
            return Err(ConfigurationError::TooManyNodes { most: MOST });
        }
        let mut by_id = HashMap::new();
        let mut by_address = HashMap::new();
        let present: HashMap<_, _> = config
            .iter()
            .map(|node| (node.canonical(), node.id()))
            .collect();
        let mut wanted = Vec::with_capacity(nodes.len());
        for node in nodes {
            let canonical = members.read(&node.address)?.canonical();
            let known = || present.get(&*canonical).or(past.ids.get(&canonical));
            let id = node.id.or_else(|| known().copied());
            if let Some(id) = id {
                by_id.insert(id, canonical.clone());
            }
            by_address.insert(canonical, id);
            wanted.push(Wanted {
                id,
                is_named: node.id.is_some(),
                address: node.address.clone(),
            });
        }
        let pairs = members.pool().settings.pairs;
        let own = own.or(pairs.map(|pairs| pairs.me));
        if let Some(me) = own.filter(|me| !by_id.contains_key(me)) {
            return Err(ConfigurationError::OwnNode { me });
        }
        // Also one that has left and that somebody still holds.
        let is_replaced = |node: &Node| {
            let is_here = |canonical: &String| canonical == node.canonical();
            let is_another = |id: &Option<NodeId>| *id != Some(node.id());
            (config.contains(node) || past.addresses.get(&node.id()).is_some_and(is_here))
                && (by_id.get(&node.id()).is_some_and(|to| !is_here(to))
                    || by_address.get(node.canonical()).is_some_and(is_another))
        };
        let (joined, replaced) = members.replace(config.as_slice(), &wanted, pairs, is_replaced)?;
        let new = Configuration::from_nodes(joined);
        if new.as_slice() == config.as_slice() {
            return Ok(());
        }
        let old = std::mem::replace(config, new.clone());
        for node in &old {
            if !by_id.contains_key(&node.id()) {
                past.remember(node.id(), node.canonical());
            }
        }
        for node in &new {
            let before = past.addresses.get(&node.id());
            if before.is_some_and(|before| before != node.canonical()) {
                past.forget(node.id());
            }
        }
        drop(state);
        tell(
            new.iter().filter(|node| !old.contains(node)),
            old.iter().filter(|node| !new.contains(node)),
        );
        for node in &replaced {
            let now = new.node(node.id()).map(Node::address);
            let text = match now {
                Some(now) => format!("{node} has moved to {now}"),
                None => format!("{node} has left, and its address is another node's"),
            };
            node.channel().retire(Status::unavailable(text));
        }
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Makes the changes of a stream, one after the other, as long as the returned future is polled
    /// and somebody holds the membership; until the stream ends. Nothing happens before: spawn it.
    ///
    /// An item that is an error, and a change that [`apply`](Self::apply) refuses, change nothing:
    /// the membership stays as it was, the next item is taken, and what was wrong is told by a
    /// `tracing` event (warn, target `gorums::membership`; once where it comes again and again) and
    /// by [`last_error`](Self::last_error).
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use gorums::{Configuration, membership::Resolve};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// // All that a name stands for, looked up every ten seconds.
    /// let members = Configuration::builder().membership()?;
    /// let name = Resolve::new("replicas.example:8080", Duration::from_secs(10))?;
    /// tokio::spawn(members.follow(name));
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow<S, C, E>(&self, changes: S) -> impl Future<Output = ()> + Send + use<S, C, E>
    where
        S: Stream<Item = Result<C, E>> + Send,
        C: Into<Change> + Send,
        E: fmt::Display + Send,
    {
        let membership = Arc::downgrade(&self.0);
        let changed = Arc::clone(&self.0.changed);
        async move {
            let throttle = Throttle::default();
            let mut changes = std::pin::pin!(changes);
            let mut told = None;
            while let Some(item) = next_while_held(&membership, &changed, changes.as_mut()).await {
                let Some(membership) = membership.upgrade().map(Self) else {
                    return;
                };
                let error = membership.take(item);
                drop(membership);
                let text = error.as_ref().map(ToString::to_string);
                if let Some(error) = error {
                    // What is wrong for long is told once.
                    if told != text {
                        let admission = throttle.admit(SystemClock.now());
                        log::event!(
                            admission.is_told => warn or debug,
                            target: log::MEMBERSHIP,
                            error = %log::text(error),
                            left_out = admission.left_out,
                            "the membership stays as it was"
                        );
                    }
                    // A stream that is never pending keeps its task, but not the whole thread.
                    tokio::task::yield_now().await;
                }
                told = text;
            }
        }
    }

    /// Applies an item of a stream, or says why not.
    fn take<C: Into<Change>, E: fmt::Display>(
        &self,
        item: Result<C, E>,
    ) -> Option<ConfigurationError> {
        match item {
            Ok(change) => self.apply(change).err(),
            Err(error) => {
                let reason = error.to_string();
                let error = ConfigurationError::Discovery { reason };
                self.state().last_error = Some(error.clone());
                Some(error)
            }
        }
    }

    /// Why the last change was not made; none after one that was.
    #[must_use]
    pub fn last_error(&self) -> Option<ConfigurationError> {
        self.state().last_error.clone()
    }

    /// From now on this node cannot leave.
    pub(crate) fn set_own(&self, me: NodeId) {
        self.state().own = Some(me);
    }

    pub(crate) fn members(&self) -> Vec<Arc<Members>> {
        let mut all = self.config().members();
        if let Some(own) = &self.0.members
            && !all.iter().any(|other| Arc::ptr_eq(other, own))
        {
            all.push(Arc::clone(own));
        }
        all
    }

    /// Completes when the membership or the state of one of its nodes has changed, from now on:
    /// also before it is polled.
    pub(crate) fn listen(&self) -> Changed {
        let mut changed = vec![Box::pin(Arc::clone(&self.0.changed).notified_owned())];
        // Listed after that, so that a pool that a change brings is listed or the change is heard.
        changed.extend(self.members().iter().map(|members| {
            let changed = Arc::clone(&members.pool().state_changed);
            Box::pin(changed.notified_owned())
        }));
        Changed(changed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl Configuration {
    /// Waits until at least this many nodes are connected at once, or all where there are fewer.
    /// Bound it with a timeout: a node that is down is waited for.
    ///
    /// # Errors
    /// That can never be, since too many nodes are [`Closed`](NodeState::Closed).
    pub async fn connected(&self, at_least: usize) -> Result<(), NeverConnected> {
        let needed = at_least.min(self.len());
        let fixed = Membership::from(self);
        loop {
            // Listening begins before looking, so that no change falls between.
            let changed = fixed.listen();
            let states: Vec<_> = self.iter().map(|node| (node, node.state())).collect();
            let connected = states.iter().filter(|(_, state)| state.is_connected());
            if connected.count() >= needed {
                return Ok(());
            }
            let closed = states
                .iter()
                .filter(|(_, state)| *state == NodeState::Closed);
            let closed: Vec<_> = closed.map(|(node, _)| node).collect();
            if self.len() - closed.len() < needed {
                let nodes = self.len();
                let closed = closed.into_iter().map(ToString::to_string).collect();
                return Err(NeverConnected {
                    needed,
                    nodes,
                    closed,
                });
            }
            changed.await;
        }
    }
}

/// So many nodes will never be connected at once ([`Configuration::connected`]): too many are
/// [`Closed`](NodeState::Closed), since the runtime has ended that drove their connections, or
/// since they have moved to other addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverConnected {
    needed: usize,
    nodes: usize,
    /// Ids and addresses.
    closed: Vec<String>,
}

/// How many closed nodes the text names.
const NAMED: usize = 16;

impl fmt::Display for NeverConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            needed,
            nodes,
            closed,
        } = self;
        let named = &closed[..closed.len().min(NAMED)];
        write!(
            f,
            "{needed} of {nodes} nodes will never be connected at once, since the connections of {} \
             are closed for good: {}",
            closed.len(),
            named.join(", ")
        )?;
        match closed.len() - named.len() {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl Error for NeverConnected {}

/// Tells who has come and who has gone.
fn tell<'a>(joined: impl IntoIterator<Item = &'a Node>, left: impl IntoIterator<Item = &'a Node>) {
    for node in joined {
        tracing::info!(
            target: log::MEMBERSHIP,
            node = node.id().get(),
            address = node.address(),
            "a node joined"
        );
    }
    for node in left {
        tracing::info!(
            target: log::MEMBERSHIP,
            node = node.id().get(),
            address = node.address(),
            "a node left"
        );
    }
}

/// The next item; none at the end, and when nobody holds the membership any more.
async fn next_while_held<S: Stream>(
    membership: &Weak<Inner>,
    changed: &Arc<Notify>,
    mut changes: Pin<&mut S>,
) -> Option<S::Item> {
    loop {
        // Listening begins before looking, so that no end falls between.
        let changed = Arc::clone(changed).notified_owned();
        if membership.strong_count() == 0 {
            return None;
        }
        tokio::select! {
            biased;
            () = changed => {}
            item = poll_fn(|cx| changes.as_mut().poll_next(cx)) => return item,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.changed.notify_waiters();
    }
}

impl From<Configuration> for Membership {
    /// A membership that begins with these nodes.
    fn from(config: Configuration) -> Self {
        let members = config.iter().next().map(|node| Arc::clone(node.members()));
        // It is for longer than the request of a handler that makes it.
        Self::new(members, config.independent())
    }
}

impl From<&Configuration> for Membership {
    fn from(config: &Configuration) -> Self {
        config.clone().into()
    }
}

impl From<&Self> for Membership {
    fn from(membership: &Self) -> Self {
        membership.clone()
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Membership").field(&self.config()).finish()
    }
}

/// Completes at the first change.
pub(crate) struct Changed(Vec<Pin<Box<OwnedNotified>>>);

impl Future for Changed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = false;
        for change in &mut self.0 {
            changed |= change.as_mut().poll(cx).is_ready();
        }
        if changed {
            // Those that have completed must not be polled again.
            self.0.clear();
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The nodes that have left, so that nobody else gets their ids. At the bound the one that left
/// first is forgotten.
#[derive(Debug, Default)]
struct Past {
    addresses: HashMap<NodeId, String>,
    ids: HashMap<String, NodeId>,
    order: VecDeque<NodeId>,
}

impl Past {
    /// The id that a joining node names, that of the node which is `there` at its address, or the
    /// one that it had before, if any.
    fn id_for(
        &self,
        node: &NodeAddress,
        canonical: &str,
        there: Option<NodeId>,
    ) -> Result<Option<NodeId>, ConfigurationError> {
        let Some(id) = node.id else {
            return Ok(there.or_else(|| self.ids.get(canonical).copied()));
        };
        match self.addresses.get(&id) {
            Some(before) if before != canonical => Err(ConfigurationError::UsedId {
                id,
                address: node.address.clone(),
                before: before.clone(),
            }),
            _ => Ok(Some(id)),
        }
    }

    /// The node is there, or its address is not what it was.
    fn forget(&mut self, id: NodeId) {
        if let Some(address) = self.addresses.remove(&id) {
            self.order.retain(|other| *other != id);
            if self.ids.get(&address) == Some(&id) {
                self.ids.remove(&address);
            }
        }
    }

    fn remember(&mut self, id: NodeId, canonical: &str) {
        self.ids.insert(canonical.to_owned(), id);
        if let Some(before) = self.addresses.insert(id, canonical.to_owned()) {
            if before != canonical && self.ids.get(&before) == Some(&id) {
                self.ids.remove(&before);
            }
            return;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(first) = self.order.pop_front()
            && let Some(address) = self.addresses.remove(&first)
            && self.ids.get(&address) == Some(&first)
        {
            self.ids.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(past: &Past, node: &str) -> Result<Option<u32>, String> {
        let node: NodeAddress = node.parse().expect("legal");
        let id = past
            .id_for(&node, &node.address, None)
            .map_err(|error| error.to_string())?;
        Ok(id.map(NodeId::get))
    }

    #[test]
    fn nodes_that_have_left_are_remembered_up_to_the_bound() {
        let mut past = Past::default();
        let most = u32::try_from(REMEMBERED).expect("it is small");
        for id in 1..=most {
            past.remember(id.into(), &format!("a:{id}"));
        }
        // Those that leave again take no more room.
        past.remember(2.into(), "a:2");
        assert_eq!(id(&past, "a:1"), Ok(Some(1)));
        assert!(id(&past, "1=b:1").is_err());
        past.remember((most + 1).into(), "b:1");
        assert_eq!(id(&past, "a:1"), Ok(None));
        assert_eq!(id(&past, "1=b:1"), Ok(Some(1)));
        assert_eq!(id(&past, "a:2"), Ok(Some(2)));
        assert_eq!(
            (past.addresses.len(), past.ids.len()),
            (REMEMBERED, REMEMBERED)
        );
    }
}
