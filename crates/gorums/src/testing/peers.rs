//! Systems in which each process is a server and a client of all.

use tokio::net::TcpListener;

use crate::configuration::{Configuration, ConfigurationBuilder};
use crate::node_id::NodeId;
use crate::runtime::TcpAcceptor;
use crate::server::accept::Server;
use crate::server::builder::{ServerBuilder, ServerError};

/// One of the processes of a system in which each is a server and a client of all, as
/// [`peers`] makes them.
#[derive(Debug)]
pub struct Peer {
    /// Its own id.
    pub id: NodeId,
    /// All peers, itself among them: the configuration that its handlers find in
    /// [`ServerCtx::config`](crate::ServerCtx::config), for calls from outside of handlers.
    pub configuration: Configuration,
    /// Its server, which listens and does not serve yet: spawn [`Server::serve`].
    pub server: Server,
}

/// Makes a system of so many peers on loopback, with ids from 1, all in this process, each of which
/// calls the others through connections of its own. The function describes the server of each, and
/// need not call [`ServerBuilder::peers`].
///
/// ```
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// use gorums::{Client, Server, ServerCtx, Status, testing};
///
/// let system = testing::peers(3, |me, _peers| {
///     Server::builder().unary("demo.Who.AreYou", move |_ctx: ServerCtx, (): ()| async move {
///         Ok::<_, Status>(me.get())
///     })
/// });
/// let mut configurations = Vec::new();
/// for peer in system.await? {
///     configurations.push(peer.configuration);
///     tokio::spawn(peer.server.serve());
/// }
/// let call = Client::new(&configurations[0]).quorum_call::<(), u32>("demo.Who.AreYou", ());
/// assert_eq!(call.all().replies().await?.len(), 3);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(test()).unwrap();
/// ```
///
/// # Errors
/// Loopback has no free port, or a server that was described cannot serve.
///
/// # Panics
/// There is no tokio runtime here.
pub async fn peers(
    count: u32,
    describe: impl FnMut(NodeId, &Configuration) -> ServerBuilder,
) -> Result<Vec<Peer>, ServerError> {
    peers_with(count, |_, configuration| configuration, describe).await
}

/// As [`peers`], with more to say of the configuration of each: the first function gets it with its
/// nodes.
///
/// ```
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// use gorums::{Server, membership::WhileDisconnected, testing};
///
/// let system = testing::peers_with(
///     3,
///     |me, configuration| configuration.one_stream_per_pair(me, WhileDisconnected::Wait),
///     |_me, _peers| Server::builder().trust_claimed_ids(true),
/// );
/// # system.await?;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(test()).unwrap();
/// ```
///
/// # Errors
/// As for [`peers`].
///
/// # Panics
/// There is no tokio runtime here, or [`connect`](ConfigurationBuilder::connect) refuses a
/// configuration.
pub async fn peers_with(
    count: u32,
    mut configure: impl FnMut(NodeId, ConfigurationBuilder) -> ConfigurationBuilder,
    mut describe: impl FnMut(NodeId, &Configuration) -> ServerBuilder,
) -> Result<Vec<Peer>, ServerError> {
    let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
    for id in 1..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(ServerError::Listen)?;
        let address = listener.local_addr().map_err(ServerError::Listen)?;
        addresses.push(address.to_string());
        listeners.push((NodeId::from(id), listener));
    }
    let mut peers = Vec::new();
    for (id, listener) in listeners {
        // They get the ids from 1, in this order.
        let builder = Configuration::builder().nodes(&addresses);
        // The addresses are the system's own, and the caller is in a runtime.
        let configuration = configure(id, builder)
            .connect()
            .expect("nodes on loopback, with legal options");
        let server = describe(id, &configuration).peers(id, &configuration);
        peers.push(Peer {
            id,
            server: server.with_incoming(TcpAcceptor::from(listener))?,
            configuration,
        });
    }
    Ok(peers)
}
