use std::ops::{BitAnd, BitOr};

use super::QuorumSystemError;
use super::error::check_count;
use super::rule::Rule;
use crate::node_id::NodeId;

/// The most nodes and gates of an expression, a node counted as often as it is named.
pub(super) const MOST_TERMS: usize = 4096;

/// The most gates that are in one another.
const MOST_DEPTH: usize = 64;

/// Which sets of nodes are quorums, as nodes that are put together by *and*, *or* and *so many of*
/// (Whittaker, Charapko, Hellerstein, Howard and Stoica, "Read-Write Quorum Systems Made
/// Practical", PaPoC 2021, where it is a library for Python, Quoracle).
///
/// `a & b` needs a quorum of both, `a | b` one of either. A number or a [`NodeId`] is a node. What
/// is built of it are [`Quorums`](super::Quorums), and that is where a mistake is told: a count of
/// nothing or of more than there is, or an expression of more than 4,096 nodes and gates or of
/// gates more than 64 deep.
///
/// ```
/// use gorums::quorum::{Expression, Quorums};
///
/// # fn main() -> Result<(), gorums::quorum::QuorumSystemError> {
/// let node = Expression::node;
/// // A grid of two rows: a read is of one row, and a write has a node of each.
/// let rows = node(1) & node(2) & node(3) | node(4) & node(5) & node(6);
/// let system = Quorums::from_reads(rows)?;
/// assert!(system.read().is_quorum_of([4, 5, 6]));
/// assert!(system.write().is_quorum_of([1, 6]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Expression {
    kind: Kind,
    terms: usize,
    depth: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    Node(NodeId),
    AtLeast(usize, Vec<Expression>),
    /// It would have been beyond the bounds, and is not kept.
    TooLarge,
}

impl Expression {
    /// One node.
    #[must_use]
    pub fn node(node: impl Into<NodeId>) -> Self {
        Self {
            kind: Kind::Node(node.into()),
            terms: 1,
            depth: 0,
        }
    }

    /// So many of these. It is above zero, and no more than there are.
    #[must_use]
    pub fn at_least<E: Into<Self>>(count: usize, of: impl IntoIterator<Item = E>) -> Self {
        let parts = of.into_iter().map(Into::into);
        Self::gate(parts, |_| count)
    }

    /// More than half of these.
    #[must_use]
    pub fn majority_of<E: Into<Self>>(of: impl IntoIterator<Item = E>) -> Self {
        Self::gate(of.into_iter().map(Into::into), |parts| parts / 2 + 1)
    }

    /// All of these, of which there is one at least.
    #[must_use]
    pub fn all_of<E: Into<Self>>(of: impl IntoIterator<Item = E>) -> Self {
        Self::gate(of.into_iter().map(Into::into), |parts| parts)
    }

    /// Any one of these.
    #[must_use]
    pub fn any_of<E: Into<Self>>(of: impl IntoIterator<Item = E>) -> Self {
        Self::at_least(1, of)
    }

    /// A gate, as far as it is within the bounds: what is beyond them is not kept, so that a mistake
    /// costs neither memory nor stack.
    fn gate(parts: impl Iterator<Item = Self>, count: impl FnOnce(usize) -> usize) -> Self {
        let (mut terms, mut depth, mut of) = (1, 1, Vec::new());
        for part in parts {
            terms += part.terms;
            depth = depth.max(part.depth + 1);
            if terms > MOST_TERMS || depth > MOST_DEPTH || matches!(part.kind, Kind::TooLarge) {
                return Self {
                    kind: Kind::TooLarge,
                    terms: 1,
                    depth: 1,
                };
            }
            of.push(part);
        }
        Self {
            kind: Kind::AtLeast(count(of.len()), of),
            terms,
            depth,
        }
    }

    /// Both as parts of one gate. A gate that says the same is opened: `a & b & c` is one gate.
    fn join(self, other: Self, says_the_same: fn(usize, usize) -> bool) -> Vec<Self> {
        let mut parts = match self.kind {
            Kind::AtLeast(count, of) if !of.is_empty() && says_the_same(count, of.len()) => of,
            _ => vec![self],
        };
        parts.push(other);
        parts
    }

    /// Adds the nodes that it names.
    pub(super) fn add_nodes(&self, nodes: &mut Vec<NodeId>) {
        match &self.kind {
            Kind::Node(node) => nodes.push(*node),
            Kind::AtLeast(_, of) => of.iter().for_each(|part| part.add_nodes(nodes)),
            Kind::TooLarge => {}
        }
    }

    /// The same as a rule, with nodes by position.
    pub(super) fn rule(
        &self,
        position: &impl Fn(NodeId) -> Option<usize>,
    ) -> Result<Rule, QuorumSystemError> {
        match &self.kind {
            Kind::Node(node) => position(*node).map(Rule::Node).ok_or_else(|| {
                QuorumSystemError::new(format!("node {node} is not among the nodes"))
            }),
            Kind::AtLeast(count, of) => {
                check_count(*count, of.len(), "parts of an expression")?;
                let of = of.iter().map(|part| part.rule(position));
                Ok(Rule::AtLeast {
                    count: *count,
                    of: of.collect::<Result<_, _>>()?,
                })
            }
            Kind::TooLarge => Err(QuorumSystemError::new(format!(
                "an expression has more than {MOST_TERMS} nodes and gates, or gates more than \
                 {MOST_DEPTH} deep"
            ))),
        }
    }
}

impl From<NodeId> for Expression {
    fn from(node: NodeId) -> Self {
        Self::node(node)
    }
}

impl From<u32> for Expression {
    fn from(node: u32) -> Self {
        Self::node(node)
    }
}

impl<E: Into<Self>> BitAnd<E> for Expression {
    type Output = Self;

    fn bitand(self, other: E) -> Self {
        Self::all_of(self.join(other.into(), |count, parts| count == parts))
    }
}

impl<E: Into<Self>> BitOr<E> for Expression {
    type Output = Self;

    fn bitor(self, other: E) -> Self {
        Self::any_of(self.join(other.into(), |count, _| count == 1))
    }
}
