use std::error::Error;
use std::fmt;

use super::{Code, NodeError, Status};
use crate::configuration::NodeId;

/// Why a call on a configuration failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuorumErrorKind {
    /// So many nodes failed that the rest cannot make a quorum.
    Incomplete,
    /// All nodes that can answer have answered, and the quorum function or the matching rule
    /// accepted no set of their replies.
    NoQuorum,
    /// The call's timeout or deadline passed first.
    Deadline,
    /// A one-way call could not be handed to every node.
    SendFailure,
    /// The configuration's connections were closed.
    Closed,
    /// No set of replies could ever be a quorum: a threshold of zero or above the number of nodes,
    /// or a rule that needs a node that was left out. Nothing was sent.
    Impossible,
}

/// A failed call on a configuration: why, and what happened at each node.
///
/// Its text is a head line and one line for each node that failed. One pointer wide.
pub struct QuorumError(Box<QuorumFailure>);

/// The contents of a [`QuorumError`], for the calls that make one.
#[derive(Debug, Clone)]
pub(crate) struct QuorumFailure {
    pub(crate) kind: QuorumErrorKind,
    pub(crate) method: &'static str,
    pub(crate) nodes: usize,
    /// How many replies were needed, for rules that count.
    pub(crate) needed: Option<usize>,
    pub(crate) replies: usize,
    pub(crate) failures: Vec<NodeError>,
    /// Nobody answers: what counts as a reply is that a node's connection took the message.
    pub(crate) one_way: bool,
}

impl QuorumError {
    /// Why the call failed.
    #[must_use]
    pub fn kind(&self) -> QuorumErrorKind {
        self.0.kind
    }

    /// The method called, as `package.Service.Method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.0.method
    }

    /// The number of nodes in the configuration called.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.0.nodes
    }

    /// How many replies the call needed, where its rule is a number.
    #[must_use]
    pub fn needed(&self) -> Option<usize> {
        self.0.needed
    }

    /// The number of nodes that had answered with success when the call failed; for a one-way call,
    /// the number of nodes that it was handed to.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.0.replies
    }

    /// What happened at each node that failed, in the order in which they did.
    #[must_use]
    pub fn failures(&self) -> &[NodeError] {
        &self.0.failures
    }

    /// What happened at this node, if it failed.
    #[must_use]
    pub fn failure(&self, node: NodeId) -> Option<&NodeError> {
        self.0.failures.iter().find(|error| error.node() == node)
    }
}

impl From<QuorumFailure> for QuorumError {
    fn from(failure: QuorumFailure) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Debug for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumError")
            .field("kind", &self.0.kind)
            .field("method", &self.0.method)
            .field("nodes", &self.0.nodes)
            .field("needed", &self.0.needed)
            .field("replies", &self.0.replies)
            .field("failures", &self.0.failures)
            .finish()
    }
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuorumFailure {
            kind,
            method,
            nodes,
            needed,
            replies,
            failures,
            one_way,
        } = &*self.0;
        let needed = needed.map_or(String::new(), |needed| format!(", {needed} needed"));
        match kind {
            QuorumErrorKind::Incomplete => write!(
                f,
                "{method}: a quorum is out of reach: {replies} of {nodes} nodes answered{needed}"
            ),
            QuorumErrorKind::NoQuorum => write!(
                f,
                "{method}: no quorum among the replies: {replies} of {nodes} nodes answered{needed}"
            ),
            QuorumErrorKind::Deadline if *one_way => {
                write!(
                    f,
                    "{method}: deadline exceeded: sent to {replies} of {nodes} nodes"
                )
            }
            QuorumErrorKind::Deadline => write!(
                f,
                "{method}: deadline exceeded: {replies} of {nodes} nodes answered{needed}"
            ),
            QuorumErrorKind::SendFailure => {
                write!(f, "{method}: sent to {replies} of {nodes} nodes")
            }
            QuorumErrorKind::Closed => write!(
                f,
                "{method}: the configuration is closed: {replies} of {nodes} nodes answered{needed}"
            ),
            QuorumErrorKind::Impossible => write!(
                f,
                "{method}: no quorum is possible in this configuration of {nodes} nodes{needed}"
            ),
        }?;
        for failure in failures {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

impl Error for QuorumError {
    /// The first node's failure.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .failures
            .first()
            .map(|failure| failure as &(dyn Error + 'static))
    }
}

/// So that `?` works in a handler that makes quorum calls.
impl From<QuorumError> for Status {
    fn from(error: QuorumError) -> Self {
        let code = match error.kind() {
            QuorumErrorKind::Deadline => Code::DeadlineExceeded,
            QuorumErrorKind::NoQuorum => Code::Aborted,
            QuorumErrorKind::Impossible => Code::FailedPrecondition,
            QuorumErrorKind::Incomplete
            | QuorumErrorKind::SendFailure
            | QuorumErrorKind::Closed => Code::Unavailable,
        };
        Status::new(code, error.to_string()).with_source(error)
    }
}
