use std::time::Duration;

use gorums::NodeId;

use crate::AnalysisError;
use crate::per_node::PerNode;

/// Which share of all operations are reads: a number, or several, each of which is so for a part of
/// the time.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadFraction(Vec<(f64, f64)>);

impl ReadFraction {
    /// This share, from 0 to 1.
    ///
    /// # Errors
    /// It is no number from 0 to 1.
    pub fn of(share: f64) -> Result<Self, AnalysisError> {
        Self::distribution([(share, 1.0)])
    }

    /// Shares, each with a weight: how much of the time it is so, in any unit.
    ///
    /// # Errors
    /// A share is no number from 0 to 1, a weight is negative or no number, or all weights are zero.
    pub fn distribution(
        shares: impl IntoIterator<Item = (f64, f64)>,
    ) -> Result<Self, AnalysisError> {
        let shares: Vec<_> = shares.into_iter().collect();
        for (share, weight) in &shares {
            if !(0.0..=1.0).contains(share) {
                return Err(AnalysisError::new(format!(
                    "a share of reads is a number from 0 to 1, and not {share}"
                )));
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                return Err(AnalysisError::new(format!(
                    "the weight of a share of reads is zero or more, and not {weight}"
                )));
            }
        }
        let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
        if !(sum.is_finite() && sum > 0.0) {
            return Err(AnalysisError::new(
                "the weights of the shares of reads have no sum to divide by",
            ));
        }
        let shares = shares.into_iter();
        Ok(Self(
            shares
                .map(|(share, weight)| (share, weight / sum))
                .collect(),
        ))
    }

    /// Shares of reads, each with its part of the time.
    pub(crate) fn shares(&self) -> &[(f64, f64)] {
        &self.0
    }

    /// The share of reads that is to be expected.
    pub(crate) fn mean(&self) -> f64 {
        self.expected(|share| share)
    }

    /// What is to be expected of something that depends on the share of reads.
    pub(crate) fn expected(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.0.iter().map(|(share, part)| part * of(*share)).sum()
    }
}

/// How many reads, or writes, each node can do in a unit of time. A node that does both does each at
/// its own pace.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacities(PerNode<[f64; 2]>);

impl Capacities {
    /// Each node can do as many operations, whatever they are. With one it is the load of which the
    /// literature speaks.
    ///
    /// # Errors
    /// It is not above zero, or no number.
    pub fn each(operations: f64) -> Result<Self, AnalysisError> {
        Self::each_rates(operations, operations)
    }

    /// Each node can do so many reads, or so many writes.
    ///
    /// # Errors
    /// One of them is not above zero, or no number.
    pub fn each_rates(reads: f64, writes: f64) -> Result<Self, AnalysisError> {
        Ok(Self(PerNode::each(checked(reads, writes)?)))
    }

    /// This node can do so many operations, whatever they are.
    ///
    /// # Errors
    /// It is not above zero, or no number.
    pub fn with(self, node: impl Into<NodeId>, operations: f64) -> Result<Self, AnalysisError> {
        self.with_rates(node, operations, operations)
    }

    /// This node can do so many reads, or so many writes.
    ///
    /// # Errors
    /// One of them is not above zero, or no number.
    pub fn with_rates(
        self,
        node: impl Into<NodeId>,
        reads: f64,
        writes: f64,
    ) -> Result<Self, AnalysisError> {
        let rates = checked(reads, writes)?;
        Ok(Self(self.0.with(node.into(), rates)))
    }

    /// The reads and the writes that a node can do.
    pub(crate) fn of(&self, node: NodeId) -> [f64; 2] {
        self.0.of(node)
    }
}

impl Default for Capacities {
    /// One operation for each node.
    fn default() -> Self {
        Self(PerNode::each([1.0, 1.0]))
    }
}

fn checked(reads: f64, writes: f64) -> Result<[f64; 2], AnalysisError> {
    match [reads, writes]
        .iter()
        .find(|rate| !rate.is_normal() || **rate < 0.0)
    {
        None => Ok([reads, writes]),
        Some(rate) => Err(AnalysisError::new(format!(
            "a node can do more than zero operations, and not {rate}"
        ))),
    }
}

/// How long each node takes to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies(PerNode<Duration>);

impl Latencies {
    /// Each node takes as long.
    #[must_use]
    pub fn each(latency: Duration) -> Self {
        Self(PerNode::each(latency))
    }

    /// This node takes so long.
    #[must_use]
    pub fn with(self, node: impl Into<NodeId>, latency: Duration) -> Self {
        Self(self.0.with(node.into(), latency))
    }

    pub(crate) fn of(&self, node: NodeId) -> Duration {
        self.0.of(node)
    }
}

impl Default for Latencies {
    /// Each node answers at once.
    fn default() -> Self {
        Self::each(Duration::ZERO)
    }
}
