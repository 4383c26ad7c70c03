use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use crate::error::{NodeError, Status};
use crate::metadata::Metadata;
use crate::node_id::NodeId;

/// Sees every call of a client ([`Client::with_interceptor`](crate::Client::with_interceptor)) or
/// of a pool of connections
/// ([`ConfigurationBuilder::interceptor`](crate::ConfigurationBuilder::interceptor)), whatever its
/// type: to log, to count, to add metadata, to leave out nodes, to reject.
///
/// It knows nothing of the messages, so nothing in it can fail on a type; for work on requests and
/// replies there are [`map_request`](crate::call::QuorumCall::map_request) and
/// [`map_response`](crate::call::QuorumCall::map_response).
///
/// The client's interceptors come first, in the order in which they were added, then those of the
/// connections; replies pass them in reverse. Both functions run on the caller's tasks, and keep
/// them waiting for as long as they take. Both do nothing by default.
pub trait ClientInterceptor: Send + Sync + 'static {
    /// A call is about to be queued. Runs once for each call, within its terminal, before anything
    /// is encoded.
    ///
    /// # Errors
    /// With an error nothing is sent, and every node's part fails with it, as *not sent*.
    /// Interceptors further in do not see the call.
    fn on_request(&self, outgoing: &mut Outgoing<'_>) -> Result<(), Status> {
        let _ = outgoing;
        Ok(())
    }

    /// A node answered (`Ok`), took a one-way message (`Ok`), or its part failed. Runs when the
    /// task that awaits the call takes notice: for every reply of a streamed call, and not at all
    /// for what comes after the call completed or was dropped, nor for detached messages. A reply
    /// is not decoded yet.
    ///
    /// `elapsed` is the time from the call's terminal until it happened; of a node that a
    /// [thrifty](crate::call::Thrifty) call asked later, the time since then.
    fn on_response(
        &self,
        node: &Node,
        method: &'static str,
        elapsed: Duration,
        result: Result<(), &NodeError>,
    ) {
        let _ = (node, method, elapsed, result);
    }
}

/// A call on its way out, as a [`ClientInterceptor`] sees it.
pub struct Outgoing<'a> {
    method: &'static str,
    nodes: &'a [Node],
    metadata: Metadata,
    deadline: Option<Instant>,
    /// By position: why a node gets nothing. Empty before the first rejection.
    rejected: Vec<Option<Status>>,
    is_left_out: &'a dyn Fn(usize) -> bool,
}

impl Outgoing<'_> {
    /// The method called, as `package.Service.Method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The nodes that get the request: neither left out by `map_request` nor rejected so far. A
    /// [thrifty](crate::call::Thrifty) call may ask some of them later, or not at all, and those that are
    /// rejected last.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(part, _)| {
                !(self.is_left_out)(*part) && self.rejected.get(*part).is_none_or(Option::is_none)
            })
            .map(|(_, node)| node)
    }

    /// The metadata of the request.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Adds a name and a value to the request's metadata.
    ///
    /// # Errors
    /// [`Metadata`] does not take the key.
    pub fn append_metadata(
        &mut self,
        key: impl AsRef<str>,
        value: impl Into<String>,
    ) -> Result<(), Status> {
        self.metadata.append(key, value)
    }

    /// When the call ends, if it has a timeout or a deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends the call at this time, unless it ends earlier.
    pub fn limit_deadline(&mut self, deadline: impl Into<Instant>) {
        let deadline = deadline.into();
        self.deadline = Some(self.deadline.map_or(deadline, |other| other.min(deadline)));
    }

    /// Sends this node nothing: its part fails at once with this status, as *not sent*, and the
    /// call goes on with the others. False if the call does not go to this node.
    pub fn reject(&mut self, node: NodeId, status: Status) -> bool {
        let part = self.nodes.iter().position(|other| other.id() == node);
        let Some(part) = part.filter(|part| !(self.is_left_out)(*part)) else {
            return false;
        };
        if self.rejected.is_empty() {
            self.rejected = vec![None; self.nodes.len()];
        }
        self.rejected[part].get_or_insert(status);
        true
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("nodes", &self.nodes)
            .field("metadata", &self.metadata)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The interceptors of a client or of a pool, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Option<Arc<[Arc<dyn ClientInterceptor>]>>);

impl Interceptors {
    pub(crate) fn push(&mut self, interceptor: Arc<dyn ClientInterceptor>) {
        let others = self.iter().cloned();
        self.0 = Some(others.chain([interceptor]).collect());
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<dyn ClientInterceptor>> {
        self.0.iter().flat_map(|interceptors| interceptors.iter())
    }

    /// These interceptors, then the inner ones.
    pub(crate) fn then(self, inner: &Self) -> Self {
        match (&self.0, &inner.0) {
            (_, None) => self,
            (None, _) => inner.clone(),
            (Some(outer), Some(inner)) => {
                Self(Some(outer.iter().chain(&**inner).cloned().collect()))
            }
        }
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.iter().count())
    }
}

/// What the interceptors made of a call.
pub(crate) struct Intercepted {
    pub(crate) metadata: Metadata,
    pub(crate) deadline: Option<Instant>,
    /// By position; empty where no node was rejected.
    pub(crate) rejected: Vec<Option<Status>>,
    /// Why one of them rejected the whole call.
    pub(crate) refused: Option<Status>,
    pub(crate) observers: Observers,
}

/// Runs a call through the interceptors. Returns none where there are none.
pub(crate) fn intercept(
    interceptors: Interceptors,
    metadata: &Metadata,
    method: &'static str,
    nodes: &[Node],
    deadline: Option<Instant>,
    is_left_out: &dyn Fn(usize) -> bool,
) -> Option<Intercepted> {
    interceptors.0.as_ref()?;
    let mut outgoing = Outgoing {
        method,
        nodes,
        metadata: metadata.clone(),
        deadline,
        rejected: Vec::new(),
        is_left_out,
    };
    let mut passed = interceptors.iter().count();
    let mut refused = None;
    for (position, interceptor) in interceptors.iter().enumerate() {
        if let Err(status) = interceptor.on_request(&mut outgoing) {
            refused = Some(status);
            passed = position;
            break;
        }
    }
    Some(Intercepted {
        metadata: outgoing.metadata,
        deadline: outgoing.deadline,
        rejected: outgoing.rejected,
        refused,
        observers: Observers {
            interceptors,
            passed,
        },
    })
}

/// The interceptors that are told what became of a call.
#[derive(Default)]
pub(crate) struct Observers {
    interceptors: Interceptors,
    /// How many of them, from the outermost, let the call pass.
    passed: usize,
}

impl Observers {
    pub(crate) fn is_empty(&self) -> bool {
        self.passed == 0
    }

    pub(crate) fn tell(
        &self,
        node: &Node,
        method: &'static str,
        elapsed: Duration,
        result: Result<(), &NodeError>,
    ) {
        let all = self.interceptors.0.as_deref().unwrap_or_default();
        for interceptor in all[..self.passed].iter().rev() {
            interceptor.on_response(node, method, elapsed, result);
        }
    }
}
