use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use http::Extensions;

use super::clients::Clients;
use super::connection::ConnectionSettings;
use super::turn::{Released, Turn};
use crate::configuration::{Configuration, Membership, NodeId};
use crate::metadata::Metadata;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify, OwnedSemaphorePermit};

/// What a handler knows of its request, and how it lets the next one start.
///
/// A clone may be kept, and used from any task. Dropping it releases nothing: the turn belongs to
/// the handler's future, which gives it up when it ends at the latest.
#[derive(Clone)]
pub struct ServerCtx(Arc<Inner>);

struct Inner {
    method: Arc<str>,
    metadata: Metadata,
    connection: Arc<ConnectionInfo>,
    turn: Turn,
    cancelled: AtomicBool,
    cancel: Notify,
    values: Mutex<Extensions>,
}

impl Inner {
    fn new(
        method: Arc<str>,
        metadata: Metadata,
        connection: Arc<ConnectionInfo>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            method,
            metadata,
            connection,
            turn: Turn::new(permit),
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
            values: Mutex::new(Extensions::new()),
        }
    }
}

/// What all requests of a connection have in common.
#[derive(Debug, Default)]
pub(crate) struct ConnectionInfo {
    pub(crate) metadata: Metadata,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) values: Extensions,
    /// Who the client is, or the node whose call this process serves as its client.
    pub(crate) peer_id: Option<NodeId>,
    pub(crate) peers: Peers,
    /// The connection is the one to the process' own node.
    pub(crate) own: bool,
}

/// Whom handlers can call.
#[derive(Debug)]
pub(crate) enum Peers {
    Known {
        peers: Option<Membership>,
        clients: Option<Clients>,
    },
    /// Those of this server. A connection that holds them would never end, where it is theirs.
    OfServer(Weak<ConnectionSettings>),
}

impl Default for Peers {
    fn default() -> Self {
        Self::Known {
            peers: None,
            clients: None,
        }
    }
}

impl Peers {
    fn config(&self) -> Option<Configuration> {
        match self {
            Self::Known { peers, .. } => peers.as_ref().map(Membership::config),
            Self::OfServer(server) => server.upgrade()?.peers_of_handlers().config(),
        }
    }

    fn client_config(&self) -> Option<Configuration> {
        match self {
            Self::Known { clients, .. } => clients.as_ref().map(Clients::config),
            Self::OfServer(server) => server.upgrade()?.peers_of_handlers().client_config(),
        }
    }
}

impl ServerCtx {
    pub(crate) fn new(
        method: Arc<str>,
        metadata: Metadata,
        connection: Arc<ConnectionInfo>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self(Arc::new(Inner::new(method, metadata, connection, permit)))
    }

    /// The context of another request, in the place of this one where nobody holds this one any more.
    pub(super) fn renew(
        mut self,
        method: Arc<str>,
        metadata: Metadata,
        connection: Arc<ConnectionInfo>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let inner = Inner::new(method, metadata, connection, permit);
        match Arc::get_mut(&mut self.0) {
            Some(place) => *place = inner,
            None => self.0 = Arc::new(inner),
        }
        self
    }

    /// Gives up the turn: the next request may start.
    ///
    /// It starts at the latest when this handler next suspends or ends. Awaiting what is returned
    /// also moves the rest of this handler to a task of its own, so that heavy work after it runs in
    /// parallel with later handlers:
    ///
    /// ```
    /// # use gorums::{ServerCtx, Status};
    /// # async fn handler(ctx: ServerCtx) -> Result<(), Status> {
    /// // in the order in which the client sent its requests
    /// ctx.release();
    /// // beside later handlers, from the next await on
    /// ctx.release().await;
    /// // beside later handlers, and on another worker thread if there is one
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// May be called any number of times, from any clone and any task; only the first counts.
    pub fn release(&self) -> Released {
        self.0.turn.release();
        Released {
            ctx: self.clone(),
            suspended: false,
        }
    }

    /// The method called, as `package.Service.Method`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// What the caller sent beside this request.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// What the client sent when it connected.
    #[must_use]
    pub fn connection_metadata(&self) -> &Metadata {
        &self.0.connection.metadata
    }

    /// The client's address, where the transport has addresses.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.connection.peer_addr
    }

    /// The server's peers, its own node among them: the configuration that
    /// [`ServerBuilder::peers`](super::ServerBuilder::peers) was given, all of it, connected or not, so
    /// that a majority of it is a majority of the system. Where that was a
    /// [`Membership`](crate::Membership): what it is at the moment. Empty where it was given none, and
    /// calls on it fail at once.
    ///
    /// A handler may make any call on it. Replies never wait for a handler, so that other nodes answer
    /// whether or not it holds its turn. Its own node is called like the others, and its requests there
    /// have a turn of their own. So only a handler whose request came through the process' own node
    /// (or any handler, under [`HandlerOrder::PerServer`](super::HandlerOrder::PerServer)) could wait
    /// for itself: while it holds the turn, its calls to its own node that have a reply fail there at
    /// once, with [`FailedPrecondition`](crate::Code::FailedPrecondition). It calls
    /// [`release`](Self::release) first. This is known of calls that the handler's own future makes,
    /// and not of those of tasks that it spawns and waits for.
    ///
    /// What is not noticed is a circle of calls among several nodes whose handlers each hold a turn
    /// that the next one's request waits for: release the turn, or set a
    /// [timeout](crate::QuorumCall::timeout), where handlers call handlers that call.
    ///
    /// Nothing of the request goes on to such a call by itself, neither its metadata nor its deadline.
    #[must_use]
    pub fn config(&self) -> Configuration {
        let peers = self.0.connection.peers.config();
        peers.unwrap_or_else(Configuration::empty)
    }

    /// The clients of this server that are connected now and can be called back, by their ids. A
    /// handler may make any call on them, with or without release, as on [`config`](Self::config);
    /// the client that sent the request is the node [`peer_id`](Self::peer_id). Empty where there are
    /// none, and calls on it fail at once. See [`Clients`].
    #[must_use]
    pub fn client_config(&self) -> Configuration {
        let clients = self.0.connection.peers.client_config();
        clients.unwrap_or_else(Configuration::empty)
    }

    /// Who sent the request: the id by which the client is a node of
    /// [`client_config`](Self::client_config), or a peer one of [`config`](Self::config). Where the
    /// request is the call of a server to this client, that server's node.
    ///
    /// None for a client that cannot be called back, and for one that claims to be somebody while the
    /// server was not told to believe it
    /// ([`trust_claimed_ids`](super::ServerBuilder::trust_claimed_ids)).
    #[must_use]
    pub fn peer_id(&self) -> Option<NodeId> {
        self.0.connection.peer_id
    }

    /// A value that an interceptor set for this request, or else one that the connect callback set
    /// for its connection.
    #[must_use]
    pub fn value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let own = self.values().get::<T>().cloned();
        own.or_else(|| self.0.connection.values.get::<T>().cloned())
    }

    /// Sets the value of this type for the request.
    pub(crate) fn set_value<T: Clone + Send + Sync + 'static>(&self, value: T) {
        self.values().insert(value);
    }

    fn values(&self) -> MutexGuard<'_, Extensions> {
        self.0.values.lock()
    }

    /// Whether the caller gave up, or its connection ended: nobody reads the reply. The handler goes
    /// on all the same, and keeps its turn if it has it.
    ///
    /// That a caller gave up (its deadline passed, or it dropped the call) is heard from clients of
    /// this library; from others only the end of the connection is.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Waits until [`is_cancelled`](Self::is_cancelled).
    pub async fn cancelled(&self) {
        let mut notified = Box::pin(self.0.cancel.notified());
        // Listening begins before looking, so that no change falls between.
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    pub(crate) fn cancel(&self) {
        if !self.0.cancelled.swap(true, Ordering::AcqRel) {
            self.0.cancel.notify_waiters();
        }
    }

    /// Whether a request to the process' own node would wait for this handler.
    pub(crate) fn blocks_own_node(&self) -> bool {
        !self.0.turn.is_released() && (self.0.connection.own || self.0.turn.is_of_server())
    }

    pub(crate) fn turn(&self) -> &Turn {
        &self.0.turn
    }

    pub(crate) fn method_name(&self) -> &Arc<str> {
        &self.0.method
    }

    /// Whether it is the context of the same request.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ServerCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCtx")
            .field("method", &self.method())
            .field("metadata", self.metadata())
            .field("peer_addr", &self.peer_addr())
            .field("released", &self.0.turn.is_released())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}

/// A client that connects, as the [connect callback](super::ServerBuilder::on_connect) sees it.
#[derive(Debug)]
pub struct Connecting {
    pub(crate) info: ConnectionInfo,
}

impl Connecting {
    /// What the client sent when it connected.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.info.metadata
    }

    /// The client's address, where the transport has addresses.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.info.peer_addr
    }

    /// Who the client is, where it says so and is believed: see [`ServerCtx::peer_id`]. A client that
    /// can be called back and has no id gets one after this.
    #[must_use]
    pub fn peer_id(&self) -> Option<NodeId> {
        self.info.peer_id
    }

    /// Sets a value that handlers of this connection find with [`ServerCtx::value`].
    pub fn set_value<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.info.values.insert(value);
    }
}
