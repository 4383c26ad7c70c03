use std::fmt;
use std::time::Duration;

use super::{Random, Scenario};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// What a node sends or is sent takes 100 to 600 ms.
    Delay,
    /// Nothing that a node sends or is sent arrives until the fault ends; then all of it does.
    Stall,
    /// The streams of a node break, at both ends.
    Reset,
    /// What a node sends or is sent is lost, and nothing is sent again: a stream that has lost
    /// something stays silent.
    Partition,
    /// The same in one direction.
    OneWayPartition,
    /// A replica is killed, and starts again later with what is on its disk.
    Crash,
    /// All replicas are killed at once, and start again later with what is on their disks.
    PowerFailure,
    /// A replica is killed, and starts again later with an empty disk. Few protocols bear it.
    CrashAndLose,
    /// A node stands still, as after SIGSTOP: it neither reads, writes nor wakes up, while its
    /// streams stay open.
    Pause,
    /// A node's clock runs at half to twice its speed, and its time of day jumps by up to 5 s.
    ClockSkew,
    /// Each access of a replica to its disk takes 50 to 500 ms.
    SlowDisk,
    /// A replica's disk answers with errors; a write may be on it nevertheless. A replica that ends
    /// for it starts again.
    FailingDisk,
}

/// One thing that goes wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When it begins, from the beginning of the run.
    pub start: Duration,
    /// How long it lasts at least. It goes on until it has had an effect.
    pub length: Duration,
    /// To whom it happens: replicas first, then clients.
    pub(crate) node: usize,
    /// The other end of the only link that it happens to, where it is not to all of the node's.
    pub(crate) peer: Option<usize>,
    /// A number that says how strong it is, or in which direction.
    pub(crate) how: u64,
    pub(crate) name: String,
}

/// Which links there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Between each client and each replica.
    OfClients,
    /// Between replicas, too.
    OfAll,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Delay,
        Self::Stall,
        Self::Reset,
        Self::Partition,
        Self::OneWayPartition,
        Self::Crash,
        Self::PowerFailure,
        Self::CrashAndLose,
        Self::Pause,
        Self::ClockSkew,
        Self::SlowDisk,
        Self::FailingDisk,
    ];

    /// Its name, as it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Stall => "stall",
            Self::Reset => "reset",
            Self::Partition => "partition",
            Self::OneWayPartition => "one-way partition",
            Self::Crash => "crash",
            Self::PowerFailure => "power failure",
            Self::CrashAndLose => "crash and lose",
            Self::Pause => "pause",
            Self::ClockSkew => "clock skew",
            Self::SlowDisk => "slow disk",
            Self::FailingDisk => "failing disk",
        }
    }

    /// Whether it happens to replicas only.
    fn of_replicas(self) -> bool {
        matches!(
            self,
            Self::Crash
                | Self::PowerFailure
                | Self::CrashAndLose
                | Self::SlowDisk
                | Self::FailingDisk
        )
    }

    /// Whether it may happen to one link of a node.
    fn of_links(self) -> bool {
        matches!(
            self,
            Self::Delay | Self::Stall | Self::Partition | Self::OneWayPartition
        )
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, self.name)?;
        if self.kind == FaultKind::Reset {
            return write!(f, " at {:.3} s", self.start.as_secs_f64());
        }
        write!(
            f,
            " from {:.3} s, {:.3} s or longer",
            self.start.as_secs_f64(),
            self.length.as_secs_f64()
        )
    }
}

/// Three to six faults of these kinds within the first two thirds of the time, in the order of
/// their starts.
pub(crate) fn plan(
    scenario: &Scenario,
    random: &mut Random,
    replicas: usize,
    clients: usize,
) -> Vec<Fault> {
    let kinds = &scenario.kinds[..];
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = 3 + random.below(4);
    let micros = scenario.duration.as_micros() as u64;
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let kind = random.pick(kinds);
            let nodes = if kind.of_replicas() {
                replicas
            } else {
                replicas + clients
            };
            let node = random.below(nodes as u64) as usize;
            let peer = (kind.of_links() && random.one_in(2)).then(|| match node < replicas {
                true if scenario.links == Links::OfAll => {
                    let other = random.below((replicas + clients - 1) as u64) as usize;
                    other + usize::from(other >= node)
                }
                true => replicas + random.below(clients as u64) as usize,
                false => random.below(replicas as u64) as usize,
            });
            let name = match peer {
                None if kind == FaultKind::PowerFailure => "all replicas".to_owned(),
                None => node_name(node, replicas),
                Some(peer) => format!(
                    "the link from {} to {}",
                    node_name(node, replicas),
                    node_name(peer, replicas)
                ),
            };
            Fault {
                kind,
                start: random.micros(micros / 20..=micros * 2 / 3),
                length: random.micros(micros / 50..=micros / 5),
                node,
                peer,
                how: random.next(),
                name,
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.start);
    faults
}

pub(crate) fn node_name(node: usize, replicas: usize) -> String {
    match node.checked_sub(replicas) {
        None => format!("replica-{}", node + 1),
        Some(client) => format!("client-{}", client + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Which pairs of nodes faults of one link happen to, of three replicas and two clients.
    fn pairs(scenario: &Scenario) -> BTreeSet<(usize, usize)> {
        let mut random = Random::of(1, 2);
        let plans = (0..500).flat_map(|_| plan(scenario, &mut random, 3, 2));
        plans
            .filter_map(|fault| Some((fault.node, fault.peer?)))
            .collect()
    }

    #[test]
    fn one_link_is_of_a_client_unless_replicas_are_peers() {
        let scenario = Scenario::new("links").faults([FaultKind::Partition]);
        let all = || (0..5).flat_map(|a| (0..5).map(move |b| (a, b)));
        let of_clients: BTreeSet<_> = all().filter(|(a, b)| (*a < 3) != (*b < 3)).collect();
        assert_eq!(pairs(&scenario), of_clients);
        let of_all: BTreeSet<_> = all()
            .filter(|(a, b)| a != b && (*a < 3 || *b < 3))
            .collect();
        assert_eq!(pairs(&scenario.replicas_are_peers()), of_all);
    }
}
