use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use http::Extensions;
use tokio::time::Instant;

use super::call_key::{CallKey, KeyedCall};
use super::reply_queue::ReplyQueue;
use super::turn::{Released, Turn};
use crate::log::Peer;
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify, OwnedSemaphorePermit};
use crate::wire::ClientId;

/// What a handler knows of its request, and how it lets the next one start.
///
/// A clone may be kept, and used from any task. Dropping it releases nothing: the turn belongs to
/// the handler's future, which gives it up when it ends at the latest.
#[derive(Clone)]
pub struct ServerCtx(Arc<Inner>);

struct Inner {
    /// Its name alone: whoever keeps a context must not keep the handlers with it.
    method: Arc<str>,
    metadata: Metadata,
    connection: Arc<ConnectionInfo>,
    /// Where the reply goes.
    replies: Option<Arc<ReplyQueue>>,
    turn: Turn,
    request: RequestInfo,
    cancelled: AtomicBool,
    cancel: Notify,
    values: Mutex<Extensions>,
}

/// What one request brings, beside its metadata.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestInfo {
    /// That of its message.
    pub(super) id: u64,
    /// When the caller stops to wait.
    pub(super) deadline: Option<Instant>,
    /// Nobody waits for an answer.
    pub(super) is_one_way: bool,
    /// The caller has sent it before, on a stream that broke.
    pub(super) is_resent: bool,
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
            replies: None,
            turn: Turn::new(permit),
            request: RequestInfo::default(),
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
    /// What the server and the connect callback have set for the connection.
    pub(crate) values: Extensions,
    /// What the transport has proved of the peer. Nobody else can set it.
    pub(crate) proven: Extensions,
    /// Which node the other end is, as it has proved or is believed to be, or was dialled as.
    pub(crate) node: Option<NodeId>,
    /// The id by which this server calls the client.
    pub(crate) callee: Option<NodeId>,
    /// The connection is the one to the process' own node.
    pub(crate) own: bool,
    /// Which client it is, of one that has sessions.
    pub(crate) client: Option<ClientId>,
}

impl ConnectionInfo {
    /// Who the client is, or the node whose call this process serves as its client.
    pub(crate) fn peer_id(&self) -> Option<NodeId> {
        self.callee.or(self.node)
    }

    /// The other end.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            address: self.peer_addr,
            id: self.peer_id(),
            is_own: self.own,
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

    /// With where the reply goes; nobody else has it yet.
    pub(super) fn replying_to(mut self, replies: Arc<ReplyQueue>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.replies = Some(replies);
        }
        self
    }

    /// With what the request brings; nobody else has it yet.
    pub(super) fn of(mut self, request: RequestInfo) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.request = request;
        }
        self
    }

    /// The context of another request of the same connection, in the place of this one where nobody
    /// holds this one any more.
    pub(super) fn renew(
        mut self,
        method: &Arc<str>,
        metadata: Metadata,
        permit: Option<OwnedSemaphorePermit>,
        request: RequestInfo,
    ) -> Self {
        match Arc::get_mut(&mut self.0) {
            Some(place) => {
                // Counting references locks memory, and most requests are of the method before.
                if !Arc::ptr_eq(&place.method, method) {
                    place.method = Arc::clone(method);
                }
                place.metadata = metadata;
                place.turn.renew(permit);
                place.request = request;
                // Whoever waited to be told of it held the context.
                place.cancelled.store(false, Ordering::Relaxed);
                place.values.get_mut().clear();
            }
            None => {
                let connection = Arc::clone(&self.0.connection);
                self.0 = Arc::new(Inner {
                    replies: self.0.replies.clone(),
                    request,
                    ..Inner::new(Arc::clone(method), metadata, connection, permit)
                });
            }
        }
        self
    }

    /// Gives up the turn: the next request may start.
    ///
    /// It starts at the latest when this handler next suspends or ends. Awaiting what is returned
    /// also moves the rest of this handler to a task of its own, so that heavy work after it runs
    /// in parallel with later handlers:
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

    /// Who sent the request: the id by which the client is a node of
    /// [`client_config`](Self::client_config), or a peer one of [`config`](Self::config). Where the
    /// request is the call of a server to this client, that server's node.
    ///
    /// None for a client that cannot be called back, and for one that claims to be somebody while
    /// the server was not told to believe it
    /// ([`trust_claimed_ids`](crate::ServerBuilder::trust_claimed_ids)).
    #[must_use]
    pub fn peer_id(&self) -> Option<NodeId> {
        self.0.connection.peer_id()
    }

    /// Which node of the cluster sent the request: the one that it has proved to be
    /// ([`node_proof`](crate::ServerBuilder::node_proof)), or claims to be where claims are believed
    /// ([`trust_claimed_ids`](crate::ServerBuilder::trust_claimed_ids)), or this process itself. Where
    /// the request is the call of a server to this client, that server.
    ///
    /// None for clients. Other than [`peer_id`](Self::peer_id) it is never an id that this server has
    /// given to a client so as to call it back, which every client can have: so this is what to ask
    /// for where something is for nodes alone.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.connection.node
    }

    /// A value that an interceptor set for this request, or else one that the connect callback set
    /// for its connection.
    #[must_use]
    pub fn value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let own = self.values().get::<T>().cloned();
        own.or_else(|| self.0.connection.values.get::<T>().cloned())
    }

    /// What the transport has proved of the other end of the connection, as a value of this type:
    /// with TLS a [`TlsPeer`](crate::tls::TlsPeer), with a transport of your own what its
    /// [`Handshake`](crate::runtime::Handshake) said. Neither an interceptor nor the connect callback
    /// can set it.
    ///
    /// None where nothing of this type was proven, and for the process' own node, to which there is
    /// no transport.
    #[must_use]
    pub fn proven<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.connection.proven.get()
    }

    /// What was set for the connection of the request.
    pub(crate) fn connection_values(&self) -> &Extensions {
        &self.0.connection.values
    }

    /// Sets the value of this type for the request.
    pub(crate) fn set_value<T: Clone + Send + Sync + 'static>(&self, value: T) {
        self.values().insert(value);
    }

    fn values(&self) -> MutexGuard<'_, Extensions> {
        self.0.values.lock()
    }

    /// When the caller stops to wait, by this server's [clock](Self::clock); none where it set no
    /// deadline, or its library does not tell.
    ///
    /// Of calls of this library this is the time that was left when the request was written, from
    /// when it was read: the way from one to the other is not counted, so this is later than the
    /// caller's own deadline by as much. It is not told with requests that are written before the
    /// server has opened the stream, which are the first ones on a connection. Of ordinary gRPC it is
    /// what `grpc-timeout` says, from when the call's head came.
    ///
    /// A request whose deadline has passed before its turn is not run, and calls that have replies
    /// inherit the deadline where this handler makes them: see [`config`](Self::config).
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.request.deadline
    }

    /// The name of the call, which it has also where it is sent again, and whether this is so. None where
    /// the client has no [sessions](crate::ConfigurationBuilder::sessions), and for calls of ordinary gRPC
    /// and of the Go library.
    ///
    /// A service whose effects outlive it keeps the key with each effect, and so knows a call that it
    /// has handled before it was started anew: see
    /// [`AnsweredCalls`](crate::server::AnsweredCalls).
    #[must_use]
    pub fn keyed_call(&self) -> Option<KeyedCall> {
        let client = self.0.connection.client?;
        Some(KeyedCall {
            key: CallKey::new(client.number(), self.0.request.id),
            is_resent: self.0.request.is_resent,
        })
    }

    /// Whether the caller gave up, or its connection ended: nobody reads the reply. The handler
    /// goes on all the same, and keeps its turn if it has it.
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

    /// Whether the request came on this connection.
    #[inline]
    pub(super) fn is_of(&self, connection: &Arc<ConnectionInfo>) -> bool {
        Arc::ptr_eq(&self.0.connection, connection)
    }

    /// Who sent the request.
    pub(crate) fn peer(&self) -> Peer {
        self.0.connection.peer()
    }

    /// Where the reply goes.
    pub(super) fn replies(&self) -> Option<&Arc<ReplyQueue>> {
        self.0.replies.as_ref()
    }

    pub(crate) fn turn(&self) -> &Turn {
        &self.0.turn
    }

    /// The same, for as long as the handler runs.
    pub(crate) fn while_running(&self) -> Running {
        Running(Arc::downgrade(&self.0))
    }

    /// Whether it is the context of the same request.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A request whose handler may have ended. It keeps nothing of it.
#[derive(Clone)]
pub(crate) struct Running(Weak<Inner>);

impl Running {
    /// None once the handler has ended.
    pub(crate) fn ctx(&self) -> Option<ServerCtx> {
        let ctx = ServerCtx(self.0.upgrade()?);
        (!ctx.turn().has_ended()).then_some(ctx)
    }

    /// The request, where somebody waits for its answer. That the caller of a one-way message has gone
    /// says nothing of what it has asked for.
    pub(crate) fn awaited(&self) -> Option<ServerCtx> {
        self.ctx().filter(|ctx| !ctx.0.request.is_one_way)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.ctx()).finish()
    }
}

impl fmt::Debug for ServerCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCtx")
            .field("method", &self.method())
            .field("metadata", self.metadata())
            .field("peer_addr", &self.peer_addr())
            .field("released", &self.0.turn.is_released())
            .field("deadline", &self.deadline())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
