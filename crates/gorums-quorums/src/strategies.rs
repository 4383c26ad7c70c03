use std::time::Duration;

use gorums::NodeId;
use gorums::quorum::{QuorumSets, Quorums};
use microlp::{ComparisonOp, Error, OptimizationDirection, Problem, Variable};

use crate::strategy::Choice;
use crate::{AnalysisError, Capacities, Latencies, ReadFraction, Strategy};

/// The most read quorums, and the most write quorums, among which a strategy is looked for. A
/// majority of 13 nodes has 1,716, and one of 15 has 6,435.
pub const MOST_QUORUMS: usize = 2048;

/// What the solver may be off by.
const ZERO: f64 = 1e-7;

/// The strategies of a quorum system, among which the best one is looked for: by what its nodes can
/// do and how fast they are, and within bounds.
///
/// ```
/// use std::time::Duration;
///
/// use gorums::quorum::{Expression, Quorums};
/// use gorums_quorums::{Capacities, Latencies, ReadFraction, Strategies};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Expression::node;
/// let rows = node(1) & 2 | node(3) & 4;
/// let system = Quorums::from_reads(rows)?;
/// // The second row is nearer, and can do half as much.
/// let near = Duration::from_secs(1);
/// let latencies = Latencies::each(Duration::from_secs(4)).with(3, near).with(4, near);
/// let capacities = Capacities::each(200.0)?.with(3, 100.0)?.with(4, 100.0)?;
/// let all = Strategies::of(&system)
///     .with_capacities(capacities)
///     .with_latencies(latencies);
///
/// let reads = ReadFraction::of(1.0)?;
/// let busiest = all.least_load(&reads)?;
/// assert_eq!(busiest.capacity(&reads).round(), 300.0);
/// assert_eq!(busiest.latency(&reads).as_millis(), 3000);
/// // With half of that, most reads can be of the near row.
/// let near = all.with_load_at_most(1.0 / 150.0).least_latency(&reads)?;
/// assert_eq!(near.latency(&reads).as_millis(), 2000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Strategies {
    system: Quorums,
    capacities: Capacities,
    latencies: Latencies,
    failures: usize,
    most_load: Option<f64>,
    most_latency: Option<Duration>,
    most_network_load: Option<f64>,
}

/// What a strategy has the least of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objective {
    Load,
    Latency,
    NetworkLoad,
}

impl Strategies {
    /// All of this system, whose nodes can do one operation each, and answer at once.
    pub fn of(system: &Quorums) -> Self {
        Self {
            system: system.clone(),
            capacities: Capacities::default(),
            latencies: Latencies::default(),
            failures: 0,
            most_load: None,
            most_latency: None,
            most_network_load: None,
        }
    }

    /// What the nodes can do.
    pub fn with_capacities(self, capacities: Capacities) -> Self {
        Self { capacities, ..self }
    }

    /// How fast the nodes are.
    pub fn with_latencies(self, latencies: Latencies) -> Self {
        Self { latencies, ..self }
    }

    /// Only those that choose sets which contain a quorum whichever `failures` of their nodes fail:
    /// no operation has to be sent to others where so many do not answer. They are called f-resilient
    /// in Quoracle. Looked at are the minimal sets of this kind; in a greater one the first quorum may
    /// be faster.
    pub fn tolerating(self, failures: usize) -> Self {
        Self { failures, ..self }
    }

    /// Only those with no more load, in the unit of 1 / capacity.
    pub fn with_load_at_most(self, load: f64) -> Self {
        Self {
            most_load: Some(load),
            ..self
        }
    }

    /// Only those with no more latency, as [`Strategy::latency`] has it.
    pub fn with_latency_at_most(self, latency: Duration) -> Self {
        Self {
            most_latency: Some(latency),
            ..self
        }
    }

    /// Only those that send an operation to no more nodes, as [`Strategy::network_load`] has it.
    pub fn with_network_load_at_most(self, nodes: f64) -> Self {
        Self {
            most_network_load: Some(nodes),
            ..self
        }
    }

    /// The one with the least load, or with the least that is to be expected where the share of reads
    /// changes, and so with the greatest capacity for a single share of reads: a solution of the linear
    /// program whose variables are the shares of all minimal quorums. Quorums that it never chooses are
    /// left out.
    ///
    /// # Errors
    /// No strategy is within the bounds, or a bound is no number; there are more than
    /// [`MOST_QUORUMS`] minimal quorums of a kind, or it is not known which these are
    /// ([`QuorumSets::resilient_quorums`]); or the program was not solved, which happens with
    /// capacities that are more than six orders of magnitude apart.
    pub fn least_load(&self, reads: &ReadFraction) -> Result<Strategy, AnalysisError> {
        self.least(Objective::Load, reads)
    }

    /// The one with the least latency.
    ///
    /// # Errors
    /// As for [`least_load`](Self::least_load).
    pub fn least_latency(&self, reads: &ReadFraction) -> Result<Strategy, AnalysisError> {
        self.least(Objective::Latency, reads)
    }

    /// The one that sends operations to the fewest nodes.
    ///
    /// # Errors
    /// As for [`least_load`](Self::least_load).
    pub fn least_network_load(&self, reads: &ReadFraction) -> Result<Strategy, AnalysisError> {
        self.least(Objective::NetworkLoad, reads)
    }

    /// The one that chooses each minimal quorum as often as any other, whatever the bounds.
    ///
    /// # Errors
    /// There are too many quorums, or none, as for [`least_load`](Self::least_load).
    pub fn uniform(&self) -> Result<Strategy, AnalysisError> {
        let [reads, writes] = self.quorums()?;
        let equal = |quorums: Vec<Vec<NodeId>>| quorums.into_iter().map(|quorum| (quorum, 1.0));
        Ok(self.strategy([normalized(equal(reads))?, normalized(equal(writes))?]))
    }

    /// One by hand: read quorums and write quorums of the system, each with a weight in any unit,
    /// whatever the bounds.
    ///
    /// # Errors
    /// A set is no quorum of the system, or none where so many nodes fail as are to be tolerated; a
    /// weight is negative or no number, or all weights of a kind are zero.
    pub fn by_weights(
        &self,
        reads: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
        writes: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
    ) -> Result<Strategy, AnalysisError> {
        let shares = [normalized(reads)?, normalized(writes)?];
        for ((kind, sets), shares) in self.kinds().into_iter().zip(&shares) {
            let minimal = match self.failures {
                0 => None,
                _ => Some(self.quorums_of(kind, sets)?),
            };
            let is_quorum = |set: &Vec<NodeId>| match &minimal {
                None => sets.is_quorum_of(set.iter().copied()),
                Some(minimal) => minimal
                    .iter()
                    .any(|minimal| minimal.iter().all(|node| set.contains(node))),
            };
            if let Some((set, _)) = shares.iter().find(|(set, _)| !is_quorum(set)) {
                return Err(AnalysisError::new(format!(
                    "{set:?} is no {kind} quorum{}",
                    self.where_nodes_fail()
                )));
            }
        }
        Ok(self.strategy(shares))
    }

    fn least(&self, objective: Objective, reads: &ReadFraction) -> Result<Strategy, AnalysisError> {
        self.check_bounds()?;
        let quorums = self.quorums()?;
        let latencies = [0, 1].map(|kind: usize| -> Vec<f64> {
            let (_, sets) = self.kinds()[kind];
            let quorums = quorums[kind].iter();
            quorums
                .map(|quorum| self.latency_of(sets, quorum))
                .collect()
        });
        // In units of the greatest figure, as the solver's tolerances are for numbers around one.
        let slowest = latencies.iter().flatten().copied().fold(0.0, f64::max);
        let second = if slowest > 0.0 { slowest } else { 1.0 };
        let nodes = self.system.nodes();
        let rates = nodes.iter().flat_map(|node| self.capacities.of(*node));
        let rate = rates.fold(0.0, f64::max);

        let mut program = Problem::new(OptimizationDirection::Minimize);
        let mean = reads.mean();
        let part_of = [mean, 1.0 - mean];
        let latency = |kind: usize, at: usize| part_of[kind] * latencies[kind][at] / second;
        let size = |kind: usize, at: usize| part_of[kind] * quorums[kind][at].len() as f64;
        let shares = [0, 1].map(|kind: usize| -> Vec<Variable> {
            let shares = (0..quorums[kind].len()).map(|at| {
                let cost = match objective {
                    Objective::Load => 0.0,
                    Objective::Latency => latency(kind, at),
                    Objective::NetworkLoad => size(kind, at),
                };
                program.add_var(cost, (0.0, 1.0))
            });
            shares.collect()
        });
        for shares in &shares {
            let all: Vec<_> = shares.iter().map(|share| (*share, 1.0)).collect();
            program.add_constraint(&all[..], ComparisonOp::Eq, 1.0);
        }
        let each = |cost: &dyn Fn(usize, usize) -> f64| -> Vec<(Variable, f64)> {
            let kinds = shares.iter().enumerate();
            let costs = kinds.flat_map(|(kind, shares)| {
                let shares = shares.iter().enumerate();
                shares.map(move |(at, share)| (*share, cost(kind, at)))
            });
            costs.filter(|(_, cost)| *cost > 0.0).collect()
        };
        if let Some(most) = self.most_latency {
            let most = most.as_secs_f64() / second;
            program.add_constraint(&each(&latency)[..], ComparisonOp::Le, most);
        }
        if let Some(most) = self.most_network_load {
            program.add_constraint(&each(&size)[..], ComparisonOp::Le, most);
        }
        if objective == Objective::Load || self.most_load.is_some() {
            let mut expected = Vec::new();
            for (share, part) in reads.shares() {
                let cost = if objective == Objective::Load {
                    *part
                } else {
                    0.0
                };
                let load = program.add_var(cost, (0.0, f64::INFINITY));
                expected.push((load, *part));
                for node in nodes {
                    let rates = self.capacities.of(*node);
                    let times = [share * rate / rates[0], (1.0 - share) * rate / rates[1]];
                    let mut sum = each(&|kind, at| match quorums[kind][at].contains(node) {
                        true => times[kind],
                        false => 0.0,
                    });
                    sum.push((load, -1.0));
                    program.add_constraint(&sum[..], ComparisonOp::Le, 0.0);
                }
            }
            if let Some(most) = self.most_load {
                program.add_constraint(&expected[..], ComparisonOp::Le, most * rate);
            }
        }
        let unsolved =
            |why: String| AnalysisError::new(format!("the linear program was not solved: {why}"));
        let solved = program.solve().map_err(|error| match error {
            Error::Infeasible => AnalysisError::new(format!(
                "no strategy{} is within the bounds",
                self.where_nodes_fail()
            )),
            error => unsolved(error.to_string()),
        })?;
        let solution = solved
            .into_solution()
            .map_err(|_| unsolved("it was interrupted".to_owned()))?;
        let chosen = |quorums: Vec<Vec<NodeId>>, shares: &[Variable]| {
            let chosen = shares.iter().map(|share| solution.var_value(*share));
            // The solver's zero may be a little off.
            let chosen = chosen.map(|share| if share > ZERO { share } else { 0.0 });
            normalized(quorums.into_iter().zip(chosen))
        };
        let [reads, writes] = quorums;
        Ok(self.strategy([chosen(reads, &shares[0])?, chosen(writes, &shares[1])?]))
    }

    fn check_bounds(&self) -> Result<(), AnalysisError> {
        for (what, bound) in [
            ("load", self.most_load),
            ("network load", self.most_network_load),
        ] {
            if let Some(bound) = bound.filter(|bound| !(bound.is_finite() && *bound > 0.0)) {
                return Err(AnalysisError::new(format!(
                    "a bound on the {what} is a number above zero, and not {bound}"
                )));
            }
        }
        Ok(())
    }

    fn kinds(&self) -> [(&'static str, &QuorumSets); 2] {
        [("read", self.system.read()), ("write", self.system.write())]
    }

    /// The read quorums and the write quorums that are chosen among.
    fn quorums(&self) -> Result<[Vec<Vec<NodeId>>; 2], AnalysisError> {
        let [(read, reads), (write, writes)] = self.kinds();
        Ok([
            self.quorums_of(read, reads)?,
            self.quorums_of(write, writes)?,
        ])
    }

    fn quorums_of(&self, kind: &str, sets: &QuorumSets) -> Result<Vec<Vec<NodeId>>, AnalysisError> {
        let quorums = sets.resilient_quorums(self.failures, MOST_QUORUMS);
        let quorums = quorums.ok_or_else(|| {
            AnalysisError::new(format!(
                "it is not known which the {kind} quorums are{}, or there are more than \
                 {MOST_QUORUMS}",
                self.where_nodes_fail()
            ))
        })?;
        if quorums.is_empty() {
            return Err(AnalysisError::new(format!(
                "no set of all {} nodes is a {kind} quorum{}",
                self.system.nodes().len(),
                self.where_nodes_fail()
            )));
        }
        Ok(quorums)
    }

    fn where_nodes_fail(&self) -> String {
        match self.failures {
            0 => String::new(),
            1 => " where any node of it fails".to_owned(),
            many => format!(" where any {many} nodes of it fail"),
        }
    }

    /// In seconds. The first nodes to answer are a quorum from some node on.
    fn latency_of(&self, sets: &QuorumSets, quorum: &[NodeId]) -> f64 {
        let mut nodes: Vec<_> = quorum
            .iter()
            .map(|node| (self.latencies.of(*node), *node))
            .collect();
        nodes.sort_unstable();
        let counts: Vec<usize> = (1..=nodes.len()).collect();
        let too_few = counts.partition_point(|count| {
            let first = nodes[..*count].iter().map(|(_, node)| *node);
            !sets.is_quorum_of(first)
        });
        let last = nodes.get(too_few).map(|(latency, _)| *latency);
        last.unwrap_or_default().as_secs_f64()
    }

    fn strategy(&self, [reads, writes]: [Shares; 2]) -> Strategy {
        let choices = |sets: &QuorumSets, shares: Shares| -> Vec<Choice> {
            let choices = shares.into_iter().map(|(quorum, share)| Choice {
                latency: self.latency_of(sets, &quorum),
                quorum,
                share,
            });
            choices.collect()
        };
        Strategy {
            nodes: self.system.nodes().to_vec(),
            capacities: self.capacities.clone(),
            choices: [
                choices(self.system.read(), reads),
                choices(self.system.write(), writes),
            ],
        }
    }
}

/// Quorums, each with how often it is chosen. Together that is 1.
type Shares = Vec<(Vec<NodeId>, f64)>;

/// Shares that are 1 together, of weights; those that are zero are left out.
fn normalized(
    weights: impl IntoIterator<Item = (Vec<NodeId>, f64)>,
) -> Result<Shares, AnalysisError> {
    let mut shares: Shares = weights
        .into_iter()
        .filter(|(_, weight)| *weight != 0.0)
        .collect();
    let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
    let is_legal = shares.iter().all(|(_, weight)| *weight > 0.0);
    if !(is_legal && sum.is_finite() && sum > 0.0) {
        return Err(AnalysisError::new(
            "the weights of quorums are zero or more, and have a sum to divide by",
        ));
    }
    for (_, share) in &mut shares {
        *share /= sum;
    }
    Ok(shares)
}
