//! What becomes of a node's replies to a streamed call while nobody takes them.

/// How many replies of a node are kept for the caller, and what happens at that bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Unread replies kept per node.
    pub(crate) limit: usize,
    pub(crate) overflow: Overflow,
}

impl Default for Unread {
    fn default() -> Self {
        Self {
            limit: 64,
            overflow: Overflow::DropOldest,
        }
    }
}

/// What happens when a node replies to a streamed call while as many of its replies as are kept
/// have not been taken: see
/// [`QuorumCall::unread_replies`](crate::call::QuorumCall::unread_replies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The node's oldest reply makes room for its newest.
    DropOldest,
    /// The node's part fails with [`ResourceExhausted`](crate::Code::ResourceExhausted): for
    /// callers that must not miss a reply. The replies that are kept are still delivered.
    FailNode,
}
