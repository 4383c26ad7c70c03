//! The clients that can be called back.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::channel::Attachment;
use crate::configuration::{Configuration, Members, Node, Watch, Watched};
use crate::error::Status;
use crate::node_id::{DYNAMIC_IDS, NodeId};
use crate::runtime::{BoxFuture, bounded};
use crate::sync::{Mutex, MutexGuard};
use crate::wire::{Features, Side};

/// The clients of a server that can be called back, as [`Server::clients`](crate::Server::clients)
/// has them. Clones are about the same server.
///
/// A client can be called back if it was told to serve calls
/// ([`ConfigurationBuilder::serve`](crate::ConfigurationBuilder::serve)). As long as it is
/// connected it is a node of [`config`](Self::config), and its address is the one that it connected
/// from. Once it has left, calls to it fail at once, on configurations that were taken before too;
/// when it comes back it is another node.
#[derive(Clone)]
pub struct Clients(Arc<Inner>);

struct Inner {
    members: Arc<Members>,
    state: Mutex<State>,
    /// Wakes those who wait for a change, in the order in which they began to wait. A `watch` would
    /// wake them in a random one, which no seed of a simulation fixes.
    changes: Arc<Notify>,
}

struct State {
    nodes: BTreeMap<NodeId, Node>,
    /// Made of the nodes when it is asked for.
    config: Option<Configuration>,
    /// Where the search for the id of a client that has none begins.
    next: u32,
    stopped: bool,
}

impl Clients {
    pub(super) fn new(members: Arc<Members>) -> Self {
        Self(Arc::new(Inner {
            members,
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                config: None,
                next: DYNAMIC_IDS,
                stopped: false,
            }),
            changes: Arc::default(),
        }))
    }

    /// The clients that are connected now and can be called, by their ids. Empty where there are
    /// none, and calls on it fail at once.
    #[must_use]
    pub fn config(&self) -> Configuration {
        let mut state = self.state();
        let State { nodes, config, .. } = &mut *state;
        config
            .get_or_insert_with(|| Configuration::from_nodes(nodes.values().cloned()))
            .clone()
    }

    /// Waits until the clients are as the predicate wants them, and returns them. It is asked at
    /// once, and again after every change; of changes that come close together perhaps only after
    /// the last. Bound it with [`wait_for_within`](Self::wait_for_within).
    ///
    /// # Errors
    /// The clients are not so, and the server shuts down or has stopped: a handler that waits does
    /// not hold up a shutdown.
    pub async fn wait_for(
        &self,
        predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, ServerStopped> {
        let found = self.watch().find(predicate).await;
        found.ok_or_else(ServerStopped::new)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// As for [`wait_for`](Self::wait_for), or the time is over: the error says who was connected then.
    pub async fn wait_for_within(
        &self,
        limit: Duration,
        predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, WaitError> {
        let waiting = self.wait_for(predicate);
        within(self, limit, waiting, || self.config()).await
    }

    /// Hears of changes from now on, and of the shutdown of the server.
    pub(super) fn listen(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.0.changes).notified_owned()
    }

    /// Whether the server shuts down, or has stopped.
    pub(super) fn have_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Follows the clients, until the server shuts down.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }

    /// A client has connected. One that had this id before is no longer in the configuration.
    pub(super) fn attach(
        &self,
        claimed: Option<NodeId>,
        address: Option<SocketAddr>,
        features: Features,
    ) -> Result<Attached, Status> {
        let mut state = self.state();
        let id = match claimed {
            Some(id) => id,
            None => {
                let nodes = &state.nodes;
                let id = free_id(state.next, nodes.len(), |id| nodes.contains_key(&id.into()));
                let id = id.ok_or_else(|| {
                    Status::resource_exhausted(
                        "all ids for clients that can be called back are in use",
                    )
                })?;
                state.next = id_after(id);
                id.into()
            }
        };
        let address = address.map_or_else(|| "client".into(), |address| address.to_string().into());
        let node = Node::new(Side::Server, id, address, Arc::clone(&self.0.members));
        let attachment = Attachment::new(node.channel(), features);
        state.nodes.insert(id, node.clone());
        self.changed(state);
        Ok(Attached {
            attachment: attachment.expect("a new channel takes messages"),
            node,
            clients: self.clone(),
        })
    }

    /// Calls end at their deadlines as long as this runtime runs.
    pub(super) fn start(&self) {
        self.0
            .members
            .pool()
            .run_on(&tokio::runtime::Handle::current());
    }

    /// Nobody is to wait for clients any more.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        self.changed(state);
    }

    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.config = None;
        drop(state);
        self.0.changes.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

/// The first id from this one on that no client has. Ids are used again, the one that was given the
/// longest time ago first. As many clients as there are cannot have all of one more id.
fn free_id(from: u32, clients: usize, is_used: impl Fn(u32) -> bool) -> Option<u32> {
    std::iter::successors(Some(from), |id| Some(id_after(*id)))
        .take(clients.saturating_add(1))
        .find(|id| !is_used(*id))
}

/// Behind the last id the first one comes again.
fn id_after(id: u32) -> u32 {
    id.checked_add(1).unwrap_or(DYNAMIC_IDS)
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clients").field(&self.config()).finish()
    }
}

/// The server shuts down or has stopped, and no client will connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStopped(());

impl fmt::Display for ServerStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server shuts down or has stopped")
    }
}

impl Error for ServerStopped {}

impl ServerStopped {
    pub(super) fn new() -> Self {
        Self(())
    }
}

/// Why nobody waits any more for clients or peers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WaitError {
    /// The server shuts down, or has stopped.
    Stopped,
    /// The time is over, and the predicate never held.
    Deadline {
        /// How long that was.
        limit: Duration,
        /// Who was connected at the end.
        connected: Configuration,
    },
}

impl From<ServerStopped> for WaitError {
    fn from(_: ServerStopped) -> Self {
        Self::Stopped
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => ServerStopped::new().fmt(f),
            Self::Deadline { limit, connected } => {
                write!(f, "waited for {limit:?} in vain: ")?;
                if connected.is_empty() {
                    return f.write_str("nobody is connected");
                }
                let ids: Vec<_> = connected.ids().map(|id| id.to_string()).collect();
                write!(f, "connected are {}", ids.join(", "))
            }
        }
    }
}

impl Error for WaitError {}

impl From<WaitError> for Status {
    fn from(error: WaitError) -> Self {
        let text = error.to_string();
        match error {
            WaitError::Stopped => Self::unavailable(text),
            WaitError::Deadline { .. } => Self::deadline_exceeded(text),
        }
    }
}

/// Waits for so long at most.
pub(super) async fn within(
    clients: &Clients,
    limit: Duration,
    waiting: impl Future<Output = Result<Configuration, ServerStopped>>,
    connected: impl FnOnce() -> Configuration,
) -> Result<Configuration, WaitError> {
    let clock = &clients.0.members.pool().clock;
    let over = clock.sleep_until(clock.now() + bounded(limit));
    tokio::select! {
        biased;
        met = waiting => Ok(met?),
        () = over => Err(WaitError::Deadline { limit, connected: connected() }),
    }
}

impl Watched for Clients {
    fn listen(&self) -> BoxFuture<'static, ()> {
        Box::pin(Self::listen(self))
    }

    fn has_ended(&self) -> bool {
        self.have_stopped()
    }

    fn look(&mut self) -> Configuration {
        self.config()
    }
}

/// A client while it is connected: a node that comes with a stream, and leaves with it.
pub(super) struct Attached {
    attachment: Attachment,
    node: Node,
    clients: Clients,
}

impl Attached {
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.clients.state();
        // Another one may have its id by now.
        if state.nodes.get(&self.node.id()) == Some(&self.node) {
            state.nodes.remove(&self.node.id());
            self.clients.changed(state);
        } else {
            drop(state);
        }
        let status = Status::unavailable("the client has left");
        self.node.channel().end(&status);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_begin_anew_behind_the_last_and_those_in_use_are_stepped_over() {
        let mut used = BTreeSet::from([DYNAMIC_IDS, DYNAMIC_IDS + 1, u32::MAX - 1]);
        let mut from = u32::MAX - 2;
        let mut given = Vec::new();
        for _ in 0..4 {
            let id = free_id(from, used.len(), |id| used.contains(&id)).expect("most are free");
            assert!(used.insert(id));
            given.push(id);
            from = id_after(id);
        }
        let expected = [u32::MAX - 2, u32::MAX, DYNAMIC_IDS + 2, DYNAMIC_IDS + 3];
        assert_eq!(given, expected);
    }

    #[test]
    fn where_all_ids_are_in_use_there_is_none() {
        assert_eq!(free_id(DYNAMIC_IDS, 3, |_| true), None);
    }
}
