use std::net::SocketAddr;

use crate::handler::ConnectionInfo;
use crate::metadata::Metadata;
use crate::node_id::NodeId;

/// What a client asks for when it connects, as the
/// [connect callback](crate::ServerBuilder::on_connect) sees it.
#[derive(Debug)]
pub struct ConnectRequest {
    pub(crate) info: ConnectionInfo,
}

impl ConnectRequest {
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

    /// Who the client is, where it says so and is believed: see
    /// [`ServerCtx::peer_id`](crate::ServerCtx::peer_id). A client that can be called back and has
    /// no id gets one after this.
    #[must_use]
    pub fn peer_id(&self) -> Option<NodeId> {
        self.info.peer_id()
    }

    /// What the transport has proved of the client, as a value of this type: see
    /// [`ServerCtx::proven`](crate::ServerCtx::proven).
    #[must_use]
    pub fn proven<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.info.proven.get()
    }

    /// Whether this process' own node connects, which no transport proves anything of, and nobody
    /// else can be: see [`ServerBuilder::peers`](crate::ServerBuilder::peers).
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.info.own
    }

    /// Sets a value that handlers of this connection find with
    /// [`ServerCtx::value`](crate::ServerCtx::value).
    pub fn set_value<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.info.values.insert(value);
    }
}
