//! Which node the other end of a connection has proved to be.

use std::fmt;
use std::sync::Arc;

use http::Extensions;

use crate::error::Status;
use crate::node_id::NodeId;

/// What a transport has proved of the other end of a connection: the values of its
/// [`Handshake`](super::Handshake), one of each type at the most.
#[derive(Clone, Copy)]
pub struct Evidence<'a>(&'a Extensions);

impl<'a> Evidence<'a> {
    pub(crate) fn new(values: &'a Extensions) -> Self {
        Self(values)
    }

    /// What was proven, of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&'a T> {
        self.0.get()
    }
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("values", &self.0.len())
            .finish()
    }
}

/// Says by what a transport has proved which node the other end of a connection is. Given to
/// [`ServerBuilder::node_proof`](crate::ServerBuilder::node_proof) and
/// [`ConfigurationBuilder::node_proof`](crate::ConfigurationBuilder::node_proof).
///
/// With TLS it is [`tls::NodeUris`](crate::tls::NodeUris). Every function from [`Evidence`] is one.
pub trait NodeProof: Send + Sync + 'static {
    /// The node that the other end has proved to be, or none where it is no node: a client, say.
    ///
    /// # Errors
    /// The other end is not to be talked to, as one that belongs to another cluster. Only
    /// [`PermissionDenied`](crate::Code::PermissionDenied) and
    /// [`Unauthenticated`](crate::Code::Unauthenticated) are usual.
    fn node(&self, evidence: Evidence<'_>) -> Result<Option<NodeId>, Status>;
}

impl<F> NodeProof for F
where
    F: Fn(Evidence<'_>) -> Result<Option<NodeId>, Status> + Send + Sync + 'static,
{
    fn node(&self, evidence: Evidence<'_>) -> Result<Option<NodeId>, Status> {
        self(evidence)
    }
}

/// A rule that settings may have.
#[derive(Clone)]
pub(crate) struct SharedProof(Arc<dyn NodeProof>);

impl SharedProof {
    pub(crate) fn new(proof: impl NodeProof) -> Self {
        Self(Arc::new(proof))
    }

    pub(crate) fn node(&self, values: &Extensions) -> Result<Option<NodeId>, Status> {
        self.0.node(Evidence::new(values))
    }
}

impl fmt::Debug for SharedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedProof")
    }
}
