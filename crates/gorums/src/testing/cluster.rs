//! Clusters in one process.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::gate::Gate;
use super::pipes::Pipes;
use crate::configuration::{Configuration, ConfigurationBuilder};
use crate::node_id::NodeId;
use crate::runtime::{Address, AddressError, BoxFuture, BoxIo, Listener, Sockets, Transport};
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
#[derive(Debug)]
pub struct Cluster {
    network: Network,
    members: Vec<Member>,
    describe: Describe,
}

type DescribeFn = dyn FnMut(NodeId, &Configuration) -> ServerBuilder + Send;

/// Makes the server of each node, as often as it is started.
struct Describe(Box<DescribeFn>);

impl fmt::Debug for Describe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Describe")
    }
}

/// What the nodes are connected by.
#[derive(Debug, Clone)]
enum Network {
    Pipes(Pipes),
    Sockets(Sockets),
}

/// A node, whether or not it runs.
#[derive(Debug)]
struct Member {
    id: NodeId,
    address: String,
    gate: Gate,
    running: Option<Running>,
}

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
        let addresses = (1..=count).map(|id| format!("node {id}")).collect();
        let network = Network::Pipes(Pipes::default());
        Self::of(network, addresses, Box::new(describe)).await
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
        let network = Network::Sockets(Sockets);
        // All are held until each has one, so that no two get the same.
        let mut listeners = Vec::new();
        for _ in 0..count {
            let listener = network.listen("127.0.0.1:0").await;
            listeners.push(listener.map_err(ServerError::Listen)?);
        }
        let addresses = listeners.iter().map(|listener| {
            let address = listener.local_addr().map_err(ServerError::Listen);
            Ok(address?.to_string())
        });
        let addresses = addresses.collect::<Result<_, ServerError>>()?;
        drop(listeners);
        Self::of(network, addresses, Box::new(describe)).await
    }

    async fn of(
        network: Network,
        addresses: Vec<String>,
        describe: Box<DescribeFn>,
    ) -> Result<Self, ServerError> {
        let members = (1..).zip(addresses).map(|(id, address)| Member {
            id: NodeId::from(id),
            address,
            gate: Gate::new(),
            running: None,
        });
        let mut cluster = Self {
            network,
            members: members.collect(),
            describe: Describe(describe),
        };
        for place in 0..cluster.members.len() {
            cluster.start_member(place).await?;
        }
        Ok(cluster)
    }

    /// A client of all nodes, to which options can be added before it is connected.
    pub fn client(&self) -> ConfigurationBuilder {
        self.nodes(Configuration::builder().transport(self.network.clone()))
    }

    fn nodes(&self, builder: ConfigurationBuilder) -> ConfigurationBuilder {
        let members = self.members.iter();
        members.fold(builder, |builder, member| {
            builder.node(member.id, member.address.clone())
        })
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
        self.start_member(place).await
    }

    async fn start_member(&mut self, place: usize) -> Result<(), ServerError> {
        let member = &self.members[place];
        if member.running.is_some() {
            return Ok(());
        }
        let gate = member.gate.clone();
        let behind = gate.guard(self.network.clone());
        let configuration = self.nodes(Configuration::builder().transport(behind));
        // The addresses are the cluster's own.
        let configuration = configuration
            .connect()
            .expect("nodes of the cluster, in a runtime");
        let server = (self.describe.0)(member.id, &configuration);
        let server = server.peers(member.id, &configuration);
        let listener = self.network.listen(&member.address).await;
        let listener = gate.guard(listener.map_err(ServerError::Listen)?);
        let server = server.with_incoming(listener)?;
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

impl Transport for Network {
    fn check_runtime(&self) -> io::Result<()> {
        match self {
            Self::Pipes(pipes) => pipes.check_runtime(),
            Self::Sockets(sockets) => sockets.check_runtime(),
        }
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        match self {
            Self::Pipes(pipes) => pipes.connect(address),
            Self::Sockets(sockets) => sockets.connect(address),
        }
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        match self {
            Self::Pipes(pipes) => pipes.address(text),
            Self::Sockets(sockets) => sockets.address(text),
        }
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        match self {
            Self::Pipes(pipes) => pipes.listen(address),
            Self::Sockets(sockets) => sockets.listen(address),
        }
    }
}
