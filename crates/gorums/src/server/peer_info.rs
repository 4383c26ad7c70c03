//! What the server around a mounted one knows of who sent a request.

use std::fmt;
use std::net::SocketAddr;

use http::Extensions;

/// Who sent a request to a [`GorumsService`](crate::tower::GorumsService), as far as the server around it
/// knows: the address, and what its TLS or its layers have proved.
///
/// It stands for what a [`Transport`](crate::runtime::Transport) of a server with a port of its own
/// knows of a connection: the address is what handlers find with
/// [`ServerCtx::peer_addr`](crate::ServerCtx::peer_addr) and what
/// [`max_connections_per_address`](crate::ServerBuilder::max_connections_per_address) counts; the
/// values are what they find with [`ServerCtx::proven`](crate::ServerCtx::proven), and what
/// [`node_proof`](crate::ServerBuilder::node_proof) goes by. By default nothing is known.
///
/// Only put in what whoever sends requests cannot make up: nothing of their headers that no layer
/// has verified.
#[derive(Clone, Default)]
pub struct PeerInfo {
    pub(super) addr: Option<SocketAddr>,
    pub(super) proven: Extensions,
}

impl PeerInfo {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the address that the request comes from, where that is known.
    #[must_use]
    pub fn with_addr(mut self, addr: impl Into<Option<SocketAddr>>) -> Self {
        self.addr = addr.into();
        self
    }

    /// With this value, which says what was proven: there is one of each type at the most, and the
    /// last one counts.
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.proven.insert(value);
        self
    }

    /// The address that the request comes from.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// What was proven, of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.proven.get()
    }
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerInfo")
            .field("addr", &self.addr)
            .field("proven", &self.proven.len())
            .finish()
    }
}
