use std::time::Duration;

use gorums::NodeId;

use crate::{Capacities, ReadFraction};

/// How often each quorum is chosen: a share of the reads for each read quorum, and of the writes for
/// each write quorum. It is one of the [`Strategies`](crate::Strategies) of a system.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) capacities: Capacities,
    /// Of reads and of writes.
    pub(crate) choices: [Vec<Choice>; 2],
}

/// A quorum, with how often it is chosen. The shares of all of a kind are 1 together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) quorum: Vec<NodeId>,
    pub(crate) share: f64,
    /// In seconds.
    pub(crate) latency: f64,
}

impl Strategy {
    /// The read quorums that it chooses, each with its share of the reads.
    pub fn reads(&self) -> impl Iterator<Item = (&[NodeId], f64)> {
        self.choices[0]
            .iter()
            .map(|choice| (&choice.quorum[..], choice.share))
    }

    /// The write quorums that it chooses, each with its share of the writes.
    pub fn writes(&self) -> impl Iterator<Item = (&[NodeId], f64)> {
        self.choices[1]
            .iter()
            .map(|choice| (&choice.quorum[..], choice.share))
    }

    /// The read quorum for a number from 0 to 1: where that is random, each is chosen by its share.
    #[must_use]
    pub fn read_at(&self, number: f64) -> &[NodeId] {
        at(&self.choices[0], number)
    }

    /// The write quorum for a number from 0 to 1: where that is random, each is chosen by its share.
    #[must_use]
    pub fn write_at(&self, number: f64) -> &[NodeId] {
        at(&self.choices[1], number)
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

    /// How long an operation takes that is to be expected: until the fastest nodes of its set that
    /// are a quorum have answered. Where no node of the set can be spared, that is its slowest node.
    #[must_use]
    pub fn latency(&self, reads: &ReadFraction) -> Duration {
        Duration::from_secs_f64(self.of_each_operation(reads, |choice| choice.latency))
    }

    /// How many nodes an operation is sent to that is to be expected: what Quoracle calls the network
    /// load.
    #[must_use]
    pub fn network_load(&self, reads: &ReadFraction) -> f64 {
        self.of_each_operation(reads, |choice| choice.quorum.len() as f64)
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
        let [reads, writes] = self.choices.each_ref().map(|choices| -> f64 {
            let with = choices
                .iter()
                .filter(|choice| choice.quorum.contains(&node));
            with.map(|choice| choice.share).sum()
        });
        let [of_reads, of_writes] = self.capacities.of(node);
        share * reads / of_reads + (1.0 - share) * writes / of_writes
    }

    /// What is to be expected of an operation.
    fn of_each_operation(&self, reads: &ReadFraction, cost: impl Fn(&Choice) -> f64) -> f64 {
        let [of_reads, of_writes] = self.choices.each_ref().map(|choices| -> f64 {
            let costs = choices.iter().map(|choice| choice.share * cost(choice));
            costs.sum()
        });
        reads.mean() * of_reads + (1.0 - reads.mean()) * of_writes
    }
}

/// The quorum of the part that a number is in, of parts from 0 to 1 that are as large as the shares.
fn at(choices: &[Choice], number: f64) -> &[NodeId] {
    let mut end = 0.0;
    let choice = choices.iter().find(|choice| {
        end += choice.share;
        number < end
    });
    // The shares may be 1 together but for a rounding.
    let choice = choice.or(choices.last());
    choice.map_or(&[], |choice| &choice.quorum)
}
