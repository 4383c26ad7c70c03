use std::collections::HashMap;

use super::{NodeSet, QuorumSystem, QuorumSystemError};
use crate::configuration::Configuration;
use crate::node_id::NodeId;

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First;

/// More than half of the configuration called: ⌊n/2⌋ + 1. Any two majorities of the same
/// configuration share a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Majority;

/// Every node of the configuration called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct All;

/// This many nodes. Two sets of `k` nodes out of `n` share a node only where `2k > n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold(pub usize);

macro_rules! counting {
    ($($system:ty => |$self:ident, $total:ident| $count:expr),* $(,)?) => {
        $(impl QuorumSystem for $system {
            fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
                self.count(set.total()).is_some_and(|count| count > 0 && set.len() >= count)
            }

            fn count(&$self, $total: usize) -> Option<usize> {
                Some($count)
            }
        })*
    };
}

counting! {
    First => |self, _total| 1,
    Majority => |self, total| total / 2 + 1,
    All => |self, total| total,
    Threshold => |self, _total| self.0,
}

/// A quorum of both systems: of the old and the new configuration during a change of membership
/// (joint consensus), say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Both<A, B>(pub A, pub B);

impl<A: QuorumSystem, B: QuorumSystem> QuorumSystem for Both<A, B> {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        self.0.is_quorum(set) && self.1.is_quorum(set)
    }
}

/// Nodes whose votes together exceed half of all votes (Gifford, 1979). Any two such sets share a
/// node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    votes: HashMap<NodeId, u64>,
    needed: u64,
}

impl Weighted {
    /// A majority of the votes. Nodes without an entry have none.
    ///
    /// # Errors
    /// There are no votes at all, their sum overflows, or a node is named twice.
    pub fn majority<N: Into<NodeId>>(
        votes: impl IntoIterator<Item = (N, u64)>,
    ) -> Result<Self, QuorumSystemError> {
        let mut by_node = HashMap::new();
        let mut sum: u64 = 0;
        for (node, votes) in votes {
            let node = node.into();
            if by_node.insert(node, votes).is_some() {
                return Err(QuorumSystemError::new(format!(
                    "node {node} has votes twice"
                )));
            }
            sum = sum
                .checked_add(votes)
                .ok_or_else(|| QuorumSystemError::new("the sum of all votes overflows"))?;
        }
        if sum == 0 {
            return Err(QuorumSystemError::new(
                "no node has a vote: no set could be a quorum",
            ));
        }
        Ok(Self {
            votes: by_node,
            needed: sum / 2 + 1,
        })
    }
}

impl QuorumSystem for Weighted {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        let votes: u64 = set
            .iter()
            .map(|node| self.votes.get(&node.id()).copied().unwrap_or(0))
            .sum();
        votes >= self.needed
    }
}

/// Read quorums of R nodes and write quorums of W nodes, such that every read quorum meets every
/// write quorum and any two write quorums meet: `R + W > n` and `2W > n` (Gifford, 1979).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadWrite {
    read: ReadQuorum,
    write: WriteQuorum,
}

/// The read quorums of a [`ReadWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadQuorum(AtLeast);

/// The write quorums of a [`ReadWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteQuorum(AtLeast);

/// At least `count` of these nodes. They are named, so that a call on a part of the configuration
/// cannot do with fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AtLeast {
    nodes: Vec<NodeId>,
    count: usize,
}

impl ReadWrite {
    /// The quorums of this configuration.
    ///
    /// # Errors
    /// `R + W ≤ n` or `2W ≤ n`: two quorums could miss each other; or R or W is above n.
    pub fn new(
        configuration: &Configuration,
        read: usize,
        write: usize,
    ) -> Result<Self, QuorumSystemError> {
        let n = configuration.len();
        if read > n || write > n {
            return Err(QuorumSystemError::new(format!(
                "quorums of {read} and {write} nodes in a configuration of {n}"
            )));
        }
        if read + write <= n {
            return Err(QuorumSystemError::new(format!(
                "a read quorum of {read} and a write quorum of {write} can miss each other among \
                 {n} nodes: R + W must exceed {n}"
            )));
        }
        if 2 * write <= n {
            return Err(QuorumSystemError::new(format!(
                "two write quorums of {write} can miss each other among {n} nodes: 2W must \
                 exceed {n}"
            )));
        }
        let at_least = |count| AtLeast {
            nodes: configuration.ids().collect(),
            count,
        };
        Ok(Self {
            read: ReadQuorum(at_least(read)),
            write: WriteQuorum(at_least(write)),
        })
    }

    /// The read quorums.
    #[must_use]
    pub fn read(&self) -> &ReadQuorum {
        &self.read
    }

    /// The write quorums.
    #[must_use]
    pub fn write(&self) -> &WriteQuorum {
        &self.write
    }
}

impl AtLeast {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        self.nodes.iter().filter(|id| set.contains(**id)).count() >= self.count
    }
}

impl QuorumSystem for ReadQuorum {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        self.0.is_quorum(set)
    }
}

impl QuorumSystem for WriteQuorum {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        self.0.is_quorum(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Configuration;
    use crate::quorum::Bits;

    /// Every subset of n nodes that the system calls a quorum, as bit masks.
    fn quorums(configuration: &Configuration, system: &impl QuorumSystem) -> Vec<u32> {
        (0..1u32 << configuration.len())
            .filter(|mask| {
                let nodes = 0..configuration.len();
                let bits: Bits = nodes.filter(|index| mask & (1 << index) != 0).collect();
                system.is_quorum(&NodeSet::new(configuration, &bits))
            })
            .collect()
    }

    fn assert_monotone(configuration: &Configuration, system: &impl QuorumSystem) {
        let quorums = quorums(configuration, system);
        for quorum in &quorums {
            for index in 0..configuration.len() {
                assert!(quorums.contains(&(quorum | 1 << index)));
            }
        }
    }

    #[test]
    fn rules_are_monotone_and_count_what_they_say() {
        for n in 1..=5 {
            let configuration = Configuration::unconnected(n);
            let smallest = |system: &dyn QuorumSystem| {
                assert_monotone(&configuration, &system);
                quorums(&configuration, &system)
                    .iter()
                    .map(|q| q.count_ones() as usize)
                    .min()
            };
            assert_eq!(smallest(&First), Some(1));
            assert_eq!(smallest(&Majority), Some(n / 2 + 1));
            assert_eq!(smallest(&All), Some(n));
            assert_eq!(smallest(&Threshold(n + 1)), None);
            assert_eq!(smallest(&Threshold(0)), None);
            assert_eq!(smallest(&Both(Majority, Threshold(n))), Some(n));
        }
    }

    #[test]
    fn weighted_majorities_meet() {
        let configuration = Configuration::unconnected(4);
        let system = Weighted::majority([(1, 3), (2, 1), (3, 1), (4, 0)]).expect("legal");
        assert_monotone(&configuration, &system);
        let quorums = quorums(&configuration, &system);
        assert!(quorums.contains(&0b0001), "three of five votes");
        assert!(!quorums.contains(&0b1110), "two of five votes");
        for a in &quorums {
            assert!(quorums.iter().all(|b| a & b != 0));
        }
        assert!(Weighted::majority([(1, 0)]).is_err());
        assert!(Weighted::majority([(1, 1), (1, 1)]).is_err());
        assert!(Weighted::majority([(1, u64::MAX), (2, 1)]).is_err());
    }

    #[test]
    fn read_and_write_quorums_meet_or_are_refused() {
        for n in 1..=5 {
            let configuration = Configuration::unconnected(n);
            for read in 0..=n + 1 {
                for write in 0..=n + 1 {
                    let legal = read <= n && write <= n && read + write > n && 2 * write > n;
                    match ReadWrite::new(&configuration, read, write) {
                        Err(_) => assert!(!legal, "n={n} R={read} W={write}"),
                        Ok(system) => {
                            assert!(legal, "n={n} R={read} W={write}");
                            for w in quorums(&configuration, system.write()) {
                                for other in quorums(&configuration, system.write())
                                    .into_iter()
                                    .chain(quorums(&configuration, system.read()))
                                {
                                    assert!(w & other != 0, "n={n} R={read} W={write}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
