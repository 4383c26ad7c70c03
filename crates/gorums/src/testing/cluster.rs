//! Clusters in one process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::gate::Gate;
use super::pipes::Pipes;
use crate::configuration::{Configuration, ConfigurationBuilder};
use crate::node_id::NodeId;
use crate::runtime::{Listener, Sockets, Transport};
use crate::server::accept::Server;
use crate::server::builder::{ServerBuilder, ServerError};

/// How long a node may take to shut down.
const GRACE: Duration = Duration::from_secs(60);

/// Servers with ids from 1 in this process, each of which calls the others through connections of its own.
/// They can be stopped, started again, paused and slowed down.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
/// use gorums::{Client, Server, ServerCtx, Status, testing::Cluster};
///
/// let mut cluster = Cluster::on_pipes(3, |me, _peers| {
///     Server::builder().unary("demo.Who.AreYou", move |_ctx: ServerCtx, (): ()| async move {
///         Ok::<_, Status>(me.get())
///     })
/// })
/// .await?;
/// let nodes = cluster.client().connect()?;
/// nodes.connected(3).await?;
///
/// cluster.stop(2).await;
/// let who = || Client::new(&nodes).quorum_call::<(), u32>("demo.Who.AreYou", ());
/// assert!(who().all().await.is_err());
/// let majority = who().majority().replies().await?;
/// assert!(majority.values().all(|me| *me != 2));
///
/// cluster.start(2).await?;
/// nodes.connected(3).await?;
/// assert_eq!(who().all().replies().await?.len(), 3);
/// cluster.end().await;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).expect("it works");
/// ```
///
/// Dropping it stops all servers.
pub struct Cluster {
    network: Arc<dyn Transport>,
    members: Vec<Member>,
    /// Makes the server of each node, as often as it is started.
    describe: Box<Describe>,
}

type Describe = dyn FnMut(NodeId, &Configuration) -> ServerBuilder + Send;

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// A node, whether or not it runs.
#[derive(Debug)]
struct Member {
    id: NodeId,
    address: String,
    gate: Gate,
    running: Option<Running>,
}

/// Where a node is reached that is to be started.
type Bound = Box<dyn Listener>;

/// The server of a node.
#[derive(Debug)]
struct Running {
    configuration: Configuration,
    shut_down: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Cluster {
    /// Starts so many servers on [`Pipes`]. The function describes the server of each, by its id and the
    /// configuration of all nodes that it calls the others by, and need not call
    /// [`ServerBuilder::peers`]. It is called again when a node is started again: what is to outlive that
    /// belongs outside of it.
    ///
    /// # Errors
    /// A server that was described cannot serve.
    ///
    /// # Panics
    /// There is no tokio runtime here.
    pub async fn on_pipes(
        count: u32,
        describe: impl FnMut(NodeId, &Configuration) -> ServerBuilder + Send + 'static,
    ) -> Result<Self, ServerError> {
        let names = (1..=count).map(|id| format!("node {id}"));
        Self::of(Arc::new(Pipes::default()), names, Box::new(describe)).await
    }

    /// The same on loopback, each on a port that the system chooses.
    ///
    /// # Errors
    /// As for [`on_pipes`](Self::on_pipes), or loopback has no free port.
    ///
    /// # Panics
    /// There is no tokio runtime here.
    pub async fn on_loopback(
        count: u32,
        describe: impl FnMut(NodeId, &Configuration) -> ServerBuilder + Send + 'static,
    ) -> Result<Self, ServerError> {
        let ports = (1..=count).map(|_| "127.0.0.1:0".to_owned());
        Self::of(Arc::new(Sockets), ports, Box::new(describe)).await
    }

    /// Each listens before any is started, so that all know where all are.
    async fn of(
        network: Arc<dyn Transport>,
        addresses: impl Iterator<Item = String>,
        describe: Box<Describe>,
    ) -> Result<Self, ServerError> {
        let mut cluster = Self {
            network,
            members: Vec::new(),
            describe,
        };
        let mut listeners = Vec::new();
        for (id, address) in (1..).zip(addresses) {
            let listener = cluster.listen(&address).await?;
            let address = listener.local_addr().map_err(ServerError::Listen)?;
            cluster.members.push(Member {
                id: NodeId::from(id),
                address: address.to_string(),
                gate: Gate::new(),
                running: None,
            });
            listeners.push(listener);
        }
        for (place, listener) in listeners.into_iter().enumerate() {
            cluster.start_member(place, listener)?;
        }
        Ok(cluster)
    }

    async fn listen(&self, address: &str) -> Result<Bound, ServerError> {
        let listener = self.network.listen(address).await;
        listener.map_err(ServerError::Listen)
    }

    /// A client of all nodes, to which options can be added before it is connected.
    pub fn client(&self) -> ConfigurationBuilder {
        self.nodes().transport(Arc::clone(&self.network))
    }

    fn nodes(&self) -> ConfigurationBuilder {
        let addresses = self.members.iter().map(|member| &member.address);
        // They get the ids from 1, in this order.
        Configuration::builder().nodes(addresses)
    }

    /// The configuration by which a node calls the others, itself among them: the one that its handlers
    /// find in [`ServerCtx::config`](crate::ServerCtx::config). None where it does not run.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn peers_of(&self, id: impl Into<NodeId>) -> Option<&Configuration> {
        let running = self.members[self.place(id)].running.as_ref();
        running.map(|running| &running.configuration)
    }

    /// Whether a node runs, paused or not.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn is_running(&self, id: impl Into<NodeId>) -> bool {
        self.members[self.place(id)].running.is_some()
    }

    /// Stops a node as SIGKILL does: its connections end, and its handlers with them. One that does not run
    /// is left as it is. Returns when the server is gone.
    ///
    /// # Panics
    /// There is no such node.
    pub async fn stop(&mut self, id: impl Into<NodeId>) {
        let place = self.place(id);
        if let Some(running) = self.members[place].running.take() {
            running.stop().await;
        }
    }

    /// Has a node shut down as [`Server::serve_with_shutdown`] does, with a minute for what it has begun.
    /// One that does not run is left as it is. Returns when it has ended. That takes the whole minute where
    /// another node is paused that it is connected with, since that one does not go away.
    ///
    /// # Panics
    /// There is no such node, or its server has panicked.
    pub async fn shut_down(&mut self, id: impl Into<NodeId>) {
        let place = self.place(id);
        if let Some(running) = self.members[place].running.take() {
            running.end().await;
        }
    }

    /// Starts a node again, at the address that it had. One that runs is left as it is.
    ///
    /// # Errors
    /// The server that was described cannot serve; on loopback also where somebody else has taken the
    /// port.
    ///
    /// # Panics
    /// There is no such node.
    pub async fn start(&mut self, id: impl Into<NodeId>) -> Result<(), ServerError> {
        let place = self.place(id);
        let Member {
            address, running, ..
        } = &self.members[place];
        if running.is_some() {
            return Ok(());
        }
        let listener = self.listen(address).await?;
        self.start_member(place, listener)
    }

    fn start_member(&mut self, place: usize, listener: Bound) -> Result<(), ServerError> {
        let Member { id, gate, .. } = &self.members[place];
        let transport = gate.guard(Arc::clone(&self.network));
        // The addresses are the cluster's own.
        let configuration = self.nodes().transport(transport).connect();
        let configuration = configuration.expect("nodes of the cluster, in a runtime");
        let server = (self.describe)(*id, &configuration).peers(*id, &configuration);
        let server = server.with_incoming(gate.guard(listener))?;
        self.members[place].running = Some(Running::new(configuration, server));
        Ok(())
    }

    /// Lets a node do nothing any more, as SIGSTOP does: it accepts, reads and writes nothing, and its
    /// connections stay open. Its handlers that run go on. What is started again while it is paused is
    /// paused.
    ///
    /// # Panics
    /// There is no such node.
    pub fn pause(&self, id: impl Into<NodeId>) {
        self.members[self.place(id)].gate.close();
    }

    /// Lets a node go on that was paused.
    ///
    /// # Panics
    /// There is no such node.
    pub fn resume(&self, id: impl Into<NodeId>) {
        self.members[self.place(id)].gate.open();
    }

    /// Lets a node read so late what was sent to it, from now on. Zero takes it back.
    ///
    /// # Panics
    /// There is no such node.
    pub fn delay(&self, id: impl Into<NodeId>, delay: Duration) {
        self.members[self.place(id)].gate.delay(delay);
    }

    /// Stops all nodes, and returns when they are gone. What clients of it are left is theirs to end.
    pub async fn end(mut self) {
        for member in &mut self.members {
            if let Some(running) = member.running.take() {
                running.stop().await;
            }
        }
    }

    #[track_caller]
    fn place(&self, id: impl Into<NodeId>) -> usize {
        let id = id.into();
        let place = self.members.iter().position(|member| member.id == id);
        place.unwrap_or_else(|| {
            panic!(
                "there is no node {}: the cluster has {}, with ids from 1",
                id.get(),
                self.members.len()
            )
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let running = self
            .members
            .iter()
            .filter_map(|member| member.running.as_ref());
        running.for_each(|running| running.serving.abort());
    }
}

impl Running {
    fn new(configuration: Configuration, server: Server) -> Self {
        let (shut_down, told) = oneshot::channel();
        let signal = async move {
            if told.await.is_err() {
                // Nobody tells it any more, and it is stopped.
                std::future::pending::<()>().await;
            }
        };
        Self {
            configuration,
            shut_down,
            serving: tokio::spawn(server.serve_with_shutdown(signal, GRACE)),
        }
    }

    /// As a process that is killed.
    async fn stop(self) {
        self.serving.abort();
        // How it ended does not matter.
        let _ = self.serving.await;
    }

    /// As a process that is told to end.
    async fn end(self) {
        // Where it has ended already, that is seen next.
        let _ = self.shut_down.send(());
        self.serving.await.expect("the server does not panic");
    }
}
