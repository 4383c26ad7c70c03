//! Quorum rules as values: which sets of nodes are a quorum.
//!
//! [`Quorums`] names its nodes, and is proven when it is built. [`Majority`], [`Threshold`] and the
//! like count the nodes of whichever configuration is called. For both it is
//! [`call.quorum(…)`](crate::call::QuorumCall::quorum).

mod error;
mod expression;
mod failure;
mod node_set;
mod quorums;
mod rule;
mod systems;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use error::QuorumSystemError;
pub use expression::Expression;
pub(crate) use node_set::Bits;
pub use node_set::NodeSet;
pub use quorums::{Proof, QuorumSets, Quorums};
pub use systems::{
    All, Both, First, Majority, ReadQuorum, ReadWrite, Threshold, Weighted, WriteQuorum,
};

/// Decides which sets of nodes are a quorum.
///
/// The rule must be *monotone*: whatever contains a quorum is a quorum. Calls rely on it: they ask
/// again after each reply, and give up as soon as even all nodes that have not failed would not be
/// a quorum.
///
/// A set is always a subset of the configuration that was called; [`NodeSet::total`] is the size of
/// that configuration, nodes left out by `map_request` included.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no quorum system: pass a type of `gorums::quorum`, as in \
               `quorum(Weighted::majority(votes)?)`",
    label = "no rule that says which nodes are a quorum",
    note = "for a number of nodes there is `threshold(k)`, for a function of the replies \
            `quorum_fn(f)`"
)]
pub trait QuorumSystem: Send + Sync {
    /// Whether these nodes are a quorum.
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool;

    /// How many nodes make a quorum of a configuration of this size, if that is all that counts.
    /// Calls with such a rule are woken once, when enough replies are there.
    fn count(&self, total: usize) -> Option<usize> {
        let _ = total;
        None
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {
        $(impl<Q: QuorumSystem + ?Sized> QuorumSystem for $pointer {
            fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
                (**self).is_quorum(set)
            }

            fn count(&self, total: usize) -> Option<usize> {
                (**self).count(total)
            }
        })*
    };
}

forward!(&Q, Box<Q>, Arc<Q>);
