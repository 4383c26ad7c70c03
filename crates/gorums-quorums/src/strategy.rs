use gorums::NodeId;
use gorums::quorum::{QuorumSets, Quorums};
use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};

use crate::{Capacities, ReadFraction, StrategyError};

/// The most read quorums, and the most write quorums, among which a strategy is looked for. A
/// majority of 13 nodes has 1,716, and one of 15 has 6,435.
pub const MOST_QUORUMS: usize = 2048;

/// How often each quorum is chosen: a share of the reads for each read quorum, and of the writes for
/// each write quorum.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    nodes: Vec<NodeId>,
    capacities: Capacities,
    reads: Shares,
    writes: Shares,
}

/// Quorums, each with how often it is chosen. Together that is 1.
type Shares = Vec<(Vec<NodeId>, f64)>;

impl Strategy {
    /// The strategy with the least load, or with the least that is to be expected where the share of
    /// reads changes: a solution of the linear program whose variables are the shares of all minimal
    /// quorums. Quorums that it never chooses are left out.
    ///
    /// # Errors
    /// There are more than [`MOST_QUORUMS`] minimal quorums of a kind, or it is not known which these
    /// are ([`QuorumSets::minimal_quorums`]); or the program was not solved, which happens with
    /// capacities that are more than six orders of magnitude apart.
    pub fn best(
        system: &Quorums,
        reads: &ReadFraction,
        capacities: &Capacities,
    ) -> Result<Self, StrategyError> {
        let quorums = [
            minimal_quorums(system.read(), "read")?,
            minimal_quorums(system.write(), "write")?,
        ];
        let nodes = system.nodes().to_vec();
        // In units of the greatest capacity, as the solver's tolerances are for numbers around one.
        let rates = nodes.iter().flat_map(|node| capacities.of(*node));
        let unit = rates.fold(0.0, f64::max);

        let mut program = Problem::new(OptimizationDirection::Minimize);
        let shares = quorums.each_ref().map(|quorums| -> Vec<Variable> {
            let shares = quorums.iter();
            shares.map(|_| program.add_var(0.0, (0.0, 1.0))).collect()
        });
        for shares in &shares {
            let all: Vec<_> = shares.iter().map(|share| (*share, 1.0)).collect();
            program.add_constraint(&all[..], ComparisonOp::Eq, 1.0);
        }
        for (share, part) in reads.shares() {
            let load = program.add_var(*part, (0.0, f64::INFINITY));
            for node in &nodes {
                let mut sum = vec![(load, -1.0)];
                let kinds = capacities.of(*node).into_iter().zip([*share, 1.0 - share]);
                for (kind, (rate, share)) in kinds.enumerate() {
                    let chosen = quorums[kind].iter().zip(&shares[kind]);
                    let chosen = chosen.filter(|(quorum, _)| share > 0.0 && quorum.contains(node));
                    sum.extend(chosen.map(|(_, chosen)| (*chosen, share * unit / rate)));
                }
                program.add_constraint(&sum[..], ComparisonOp::Le, 0.0);
            }
        }
        let unsolved =
            |why: String| StrategyError::new(format!("the linear program was not solved: {why}"));
        let solved = program
            .solve()
            .map_err(|error| unsolved(error.to_string()))?;
        let solution = solved
            .into_solution()
            .map_err(|_| unsolved("it was interrupted".to_owned()))?;
        let [reads, writes] = [0, 1].map(|kind: usize| {
            let chosen = shares[kind].iter().map(|share| solution.var_value(*share));
            // The solver's zero may be a little off.
            let chosen = chosen.map(|share| if share > ZERO { share } else { 0.0 });
            normalized(quorums[kind].iter().cloned().zip(chosen))
        });
        Ok(Self {
            nodes,
            capacities: capacities.clone(),
            reads: reads?,
            writes: writes?,
        })
    }

    /// A strategy by hand: read quorums and write quorums of a system, each with a weight in any
    /// unit.
    ///
    /// # Errors
    /// A set is no quorum of the system, a weight is negative or no number, or all weights of a kind
    /// are zero.
    pub fn by_weights(
        system: &Quorums,
        reads: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
        writes: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
        capacities: &Capacities,
    ) -> Result<Self, StrategyError> {
        let reads = normalized(reads)?;
        let writes = normalized(writes)?;
        for (kind, sets, chosen) in [
            ("read", system.read(), &reads),
            ("write", system.write(), &writes),
        ] {
            let mut chosen = chosen.iter().map(|(quorum, _)| quorum);
            if let Some(set) = chosen.find(|set| !sets.is_quorum_of(set.iter().copied())) {
                return Err(StrategyError::new(format!("{set:?} is no {kind} quorum")));
            }
        }
        Ok(Self {
            nodes: system.nodes().to_vec(),
            capacities: capacities.clone(),
            reads,
            writes,
        })
    }

    /// The read quorums that it chooses, each with its share of the reads.
    pub fn reads(&self) -> impl Iterator<Item = (&[NodeId], f64)> {
        self.reads
            .iter()
            .map(|(quorum, share)| (&quorum[..], *share))
    }

    /// The write quorums that it chooses, each with its share of the writes.
    pub fn writes(&self) -> impl Iterator<Item = (&[NodeId], f64)> {
        self.writes
            .iter()
            .map(|(quorum, share)| (&quorum[..], *share))
    }

    /// The load of its busiest node, or what is to be expected of it where the share of reads
    /// changes.
    #[must_use]
    pub fn load(&self, reads: &ReadFraction) -> f64 {
        reads.expected(|share| self.load_at(share))
    }

    /// How many operations the nodes can do together by this strategy, in the unit of their
    /// capacities: as many as its busiest node can take its part in.
    #[must_use]
    pub fn capacity(&self, reads: &ReadFraction) -> f64 {
        reads.expected(|share| 1.0 / self.load_at(share))
    }

    /// The load of a node: how much time it needs for an operation of the whole system. It is zero
    /// for a node that the system does not name.
    #[must_use]
    pub fn node_load(&self, node: impl Into<NodeId>, reads: &ReadFraction) -> f64 {
        let node = node.into();
        reads.expected(|share| self.node_load_at(node, share))
    }

    fn load_at(&self, share: f64) -> f64 {
        let loads = self
            .nodes
            .iter()
            .map(|node| self.node_load_at(*node, share));
        loads.fold(0.0, f64::max)
    }

    fn node_load_at(&self, node: NodeId, share: f64) -> f64 {
        let chosen = |shares: &Shares| -> f64 {
            let with = shares.iter().filter(|(quorum, _)| quorum.contains(&node));
            with.map(|(_, share)| share).sum()
        };
        let [reads, writes] = self.capacities.of(node);
        share * chosen(&self.reads) / reads + (1.0 - share) * chosen(&self.writes) / writes
    }
}

/// What the solver may be off by.
const ZERO: f64 = 1e-7;

fn minimal_quorums(sets: &QuorumSets, kind: &str) -> Result<Vec<Vec<NodeId>>, StrategyError> {
    sets.minimal_quorums(MOST_QUORUMS).ok_or_else(|| {
        StrategyError::new(format!(
            "it is not known which the {kind} quorums are, or there are more than {MOST_QUORUMS}"
        ))
    })
}

/// Shares that are 1 together, of weights; those that are zero are left out.
fn normalized(
    weights: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
) -> Result<Shares, StrategyError> {
    let mut shares: Shares = weights
        .into_iter()
        .filter(|(_, weight)| *weight != 0.0)
        .collect();
    let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
    let is_legal = shares.iter().all(|(_, weight)| *weight > 0.0);
    if !(is_legal && sum.is_finite() && sum > 0.0) {
        return Err(StrategyError::new(
            "the weights of quorums are zero or more, and have a sum to divide by",
        ));
    }
    for (_, share) in &mut shares {
        *share /= sum;
    }
    Ok(shares)
}
