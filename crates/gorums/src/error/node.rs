use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{Code, Status};
use crate::node_id::NodeId;

/// What is known of a request that failed at a node, or at all nodes of a call
/// ([`QuorumError::outcome`](crate::QuorumError::outcome)). In the order of what may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The node has not acted on the request and never will, so trying again is safe. It was not
    /// written at all, or to a peer that does not speak HTTP/2, or on a stream that the peer, by
    /// the rules of HTTP/2, has declared unprocessed.
    NotSent,
    /// The node answered, with an error status: the request, or the client as a whole, which its
    /// [connect callback](crate::ServerBuilder::on_connect) has turned away.
    Refused,
    /// The request was written and no answer came: the node may or may not have handled it.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotSent => "not sent",
            Self::Refused => "refused",
            Self::Unknown => "outcome unknown",
        })
    }
}

/// One node's part of a call that failed: which node, what is known of the request, and why.
#[derive(Clone)]
pub struct NodeError(Arc<Inner>);

struct Inner {
    node: NodeId,
    address: Arc<str>,
    outcome: Outcome,
    status: Status,
}

impl NodeError {
    pub(crate) fn new(node: NodeId, address: Arc<str>, outcome: Outcome, status: Status) -> Self {
        Self(Arc::new(Inner {
            node,
            address,
            outcome,
            status: status.as_error().into_owned(),
        }))
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// The node's address, as it was given to the configuration.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether the request was not sent, was refused, or has an unknown outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The cause: the node's own answer where it [refused](Outcome::Refused), ours otherwise.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    /// The code of the [status](Self::status).
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.status.code()
    }
}

impl fmt::Debug for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeError")
            .field("node", &self.0.node)
            .field("address", &self.0.address)
            .field("outcome", &self.0.outcome)
            .field("status", &self.0.status)
            .finish()
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node {} ({}): {}: {}",
            self.0.node, self.0.address, self.0.outcome, self.0.status
        )
    }
}

impl Error for NodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0.status)
    }
}

/// Lets `?` work in a handler that calls other nodes: the code is kept, and the message says which
/// node failed and how. A [hint when to come back](Status::retry_delay) is not: it is about that node,
/// and not about the one whose handler this is.
impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        Status::new(error.code(), error.to_string())
            .with_details(error.status().details().iter().cloned())
            .without_retry_delay()
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_node_address_outcome_and_cause() {
        let error = NodeError::new(
            NodeId::from(2),
            "10.0.0.2:80".into(),
            Outcome::NotSent,
            Status::unavailable("connection refused"),
        );
        let text = "node 2 (10.0.0.2:80): not sent: unavailable: connection refused";
        assert_eq!(error.to_string(), text);
        let status = Status::from(error);
        assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    }

    #[test]
    fn its_code_is_never_that_of_success() {
        let status = Status::new(Code::Ok, "");
        let error = NodeError::new(NodeId::from(2), "a".into(), Outcome::NotSent, status);
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(Status::from(error).code(), Code::Internal);
    }
}
