use std::fmt;
use std::sync::{Arc, OnceLock};

use super::error::{Shown, check_count};
use super::expression::Expression;
use super::failure;
use super::rule::{Pair, Rule};
use super::table::{self, Table};
use super::{Bits, NodeSet, QuorumSystem, QuorumSystemError};
use crate::node_id::NodeId;

/// A quorum system as a value: named nodes, and which sets of them are read quorums and which are
/// write quorums. Every read quorum has a node in common with every write quorum.
///
/// It is made by one of the families below, or of two [`Expression`]s, and is refused where two of
/// its quorums miss each other: the error [has them](QuorumSystemError::quorums). How it is known
/// that none do, says [`proof`](Self::proof). More can be asked of it: that quorums have more nodes
/// in common ([`with_overlap`](Self::with_overlap)), that two write quorums meet as well
/// ([`with_write_overlap`](Self::with_write_overlap)), that nodes may fail
/// ([`tolerating`](Self::tolerating)).
///
/// | made by | a read quorum | a write quorum |
/// |---|---|---|
/// | [`read_one_write_all`](Self::read_one_write_all) | any node | all nodes |
/// | [`majority`](Self::majority), [`threshold`](Self::threshold), [`all`](Self::all) | more than half, k or all nodes | the same |
/// | [`flexible`](Self::flexible) | R nodes | W nodes |
/// | [`weighted`](Self::weighted), [`weighted_thresholds`](Self::weighted_thresholds) | nodes with so many votes | the same, or other |
/// | [`grid`](Self::grid) | a node of each row, or a row | a row, and a node of each row |
/// | [`hierarchical`](Self::hierarchical) | of more than half of the groups, more than half of each | the same |
/// | [`dissemination`](Self::dissemination), [`masking`](Self::masking) | so many nodes that liars are outnumbered | the same |
/// | [`new`](Self::new), [`from_reads`](Self::from_reads), [`from_writes`](Self::from_writes) | by an expression | by an expression |
///
/// The nodes are named, so a call on a part of the configuration cannot do with fewer, and nodes
/// that the system does not name do not count. It is cheap to clone, and belongs to no
/// configuration:
///
/// ```
/// use gorums::quorum::Quorums;
///
/// # fn main() -> Result<(), gorums::quorum::QuorumSystemError> {
/// // Two rows of three nodes.
/// let system = Quorums::grid([[1, 2, 3], [4, 5, 6]])?;
/// assert!(system.read().is_quorum_of([2, 6]));
/// assert!(system.write().is_quorum_of([1, 2, 3, 6]));
/// assert!(system.write().can_still_become_one([1, 2], [3]));
/// assert!(!system.write().can_still_become_one([1, 2], [3, 4]));
/// assert_eq!(system.read().resilience(), Some(3));
/// assert_eq!(system.write().resilience(), Some(1));
/// # Ok(())
/// # }
/// ```
///
/// In a call it is `call.quorum(system.read())` or `call.quorum(system.write())`.
#[derive(Debug, Clone)]
pub struct Quorums {
    read: QuorumSets,
    write: QuorumSets,
    /// Of a read quorum and a write quorum.
    shared: Shared,
    /// Of two write quorums.
    shared_by_writes: Shared,
    proof: Proof,
}

/// How it is known that quorums have nodes in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// By a formula of the family, at any size.
    Formula,
    /// By a look at all sets of its nodes, of which there are so many: 2²⁰ at the most, for 20
    /// nodes.
    Enumeration {
        /// How many sets there are.
        sets: u64,
    },
    /// It is not known. Something was asked of more than 20 nodes that no formula tells: of an
    /// expression, or of votes. Nothing has been found wrong with it.
    Unproven,
}

impl Proof {
    /// What is known of both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unproven, _) | (_, Self::Formula) => self,
            (_, Self::Unproven) | (Self::Formula, _) => other,
            _ => self,
        }
    }
}

/// How many nodes two quorums have in common.
#[derive(Debug, Clone)]
struct Shared {
    /// So many at least.
    least: usize,
    proof: Proof,
    /// Two that have no more than these, if such are known.
    fewest: Option<Pair>,
}

impl Quorums {
    /// Reads of any one node, and writes of all.
    ///
    /// # Errors
    /// There is no node, or one is named twice.
    pub fn read_one_write_all<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
    ) -> Result<Self, QuorumSystemError> {
        let nodes = Nodes::distinct(nodes)?;
        let all = nodes.len();
        Self::counting(nodes, 1, all)
    }

    /// All nodes, for reads and for writes.
    ///
    /// # Errors
    /// There is no node, or one is named twice.
    pub fn all<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
    ) -> Result<Self, QuorumSystemError> {
        let nodes = Nodes::distinct(nodes)?;
        let all = nodes.len();
        Self::counting(nodes, all, all)
    }

    /// More than half of the nodes, for reads and for writes.
    ///
    /// # Errors
    /// There is no node, or one is named twice.
    pub fn majority<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
    ) -> Result<Self, QuorumSystemError> {
        let nodes = Nodes::distinct(nodes)?;
        let majority = nodes.len() / 2 + 1;
        Self::counting(nodes, majority, majority)
    }

    /// This many nodes, for reads and for writes: more than half of them.
    ///
    /// # Errors
    /// Two such sets can miss each other, `k` is above the number of nodes, or a node is named
    /// twice.
    pub fn threshold<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
        k: usize,
    ) -> Result<Self, QuorumSystemError> {
        Self::counting(Nodes::distinct(nodes)?, k, k)
    }

    /// Reads of R nodes and writes of W, with R + W above n: flexible quorums (Howard, Malkhi and
    /// Spiegelman, "Flexible Paxos", OPODIS 2016). Two writes may miss each other unless 2W is above
    /// n, too, as Gifford has it (1979): add [`with_write_overlap(1)`](Self::with_write_overlap).
    ///
    /// # Errors
    /// A read quorum and a write quorum can miss each other, R or W is zero or above the number of
    /// nodes, or a node is named twice.
    pub fn flexible<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
        read: usize,
        write: usize,
    ) -> Result<Self, QuorumSystemError> {
        Self::counting(Nodes::distinct(nodes)?, read, write)
    }

    /// Nodes that have more than half of all votes, for reads and for writes (Gifford, "Weighted
    /// Voting for Replicated Data", SOSP 1979).
    ///
    /// # Errors
    /// There are no votes at all, their sum overflows, or a node is named twice.
    pub fn weighted<N: Into<NodeId>>(
        votes: impl IntoIterator<Item = (N, u64)>,
    ) -> Result<Self, QuorumSystemError> {
        Self::by_votes(votes, |all| [all / 2 + 1; 2])
    }

    /// Reads of nodes with R votes and writes of nodes with W. They meet where R + W is above the
    /// number of votes; with less they are compared set by set, up to 20 nodes.
    ///
    /// # Errors
    /// A read quorum and a write quorum can miss each other, R or W is zero or more than all votes,
    /// the sum of all votes overflows, or a node is named twice.
    pub fn weighted_thresholds<N: Into<NodeId>>(
        votes: impl IntoIterator<Item = (N, u64)>,
        read: u64,
        write: u64,
    ) -> Result<Self, QuorumSystemError> {
        Self::by_votes(votes, |_| [read, write])
    }

    /// A grid, row by row: writes of a row and a node of each row, and reads of a node of each row
    /// (Cheung, Ammar and Ahamad, "The Grid Protocol", IEEE TKDE 1992, with rows for its columns).
    /// A whole row meets each write as well, so it is a read quorum, too. Two writes meet. In a
    /// square of n nodes a read needs √n of them, and a write 2√n - 1.
    ///
    /// # Errors
    /// There is no node, the rows are not of the same length, or a node is named twice.
    pub fn grid<N: Into<NodeId>, R: IntoIterator<Item = N>>(
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Self, QuorumSystemError> {
        let (nodes, rows) = Nodes::grouped(rows)?;
        // There is one, as there is a node.
        let columns = rows[0].len();
        if let Some(row) = rows.iter().find(|row| row.len() != columns) {
            return Err(QuorumSystemError::new(format!(
                "a grid has rows of {columns} and of {} nodes",
                row.len()
            )));
        }
        let of_each = |count: fn(usize) -> usize| -> Vec<Rule> {
            let rows = rows.iter();
            rows.map(|row| Rule::at_least(count(row.len()), row.iter().copied()))
                .collect()
        };
        let any_row = Rule::AtLeast {
            count: 1,
            of: of_each(|nodes| nodes),
        };
        let of_each_row = Rule::AtLeast {
            count: rows.len(),
            of: of_each(|_| 1),
        };
        let both = vec![any_row, of_each_row];
        let write = Rule::AtLeast { count: 2, of: both };
        let read = write.dual();
        // The row, and the nodes of a column that are in the other rows.
        let row_and_column = |row: usize, column: usize| -> Vec<usize> {
            let others = (0..rows.len()).filter(|other| *other != row);
            let others = others.map(|other| rows[other][column]);
            rows[row].iter().copied().chain(others).collect()
        };
        let column: Vec<_> = rows.iter().map(|row| row[0]).collect();
        let column_or_row = match columns {
            1 => rows[0].clone(),
            _ => column.clone(),
        };
        let (other_row, other_column) = (1.min(rows.len() - 1), 1.min(columns - 1));
        let writes = [
            row_and_column(0, 0),
            row_and_column(other_row, other_column),
        ];
        let formula = |least, fewest| Shared {
            least,
            proof: Proof::Formula,
            fewest: Some(fewest),
        };
        let in_common = writes[0].iter().filter(|node| writes[1].contains(node));
        let shared_by_writes = formula(in_common.count(), writes.clone());
        // Each is the other's dual: the fewest nodes that block one are a smallest quorum of the
        // other.
        let smallest_read = match column.len() < columns {
            true => column,
            false => rows[0].clone(),
        };
        let smallest_write = writes[0].clone();
        // A column, and a row with nodes of another column; or, of a single column, a row of it.
        let shared = formula(1, [column_or_row, row_and_column(0, other_column)]);
        Ok(Self {
            read: QuorumSets::of_family(
                &nodes,
                read,
                smallest_write.clone(),
                smallest_read.clone(),
            ),
            write: QuorumSets::of_family(&nodes, write, smallest_read, smallest_write),
            shared,
            shared_by_writes,
            proof: Proof::Formula,
        })
    }

    /// Groups of nodes, such as zones, regions or racks: of more than half of the groups, more than
    /// half of the nodes of each, for reads and for writes (Kumar, "Hierarchical Quorum Consensus",
    /// IEEE Transactions on Computers 1991). Of nine nodes in three groups four are enough. Groups
    /// need not be of the same size; for more levels, or other counts, write an [`Expression`].
    ///
    /// # Errors
    /// There is no group, one is empty, or a node is named twice.
    #[doc(alias = "zones")]
    pub fn hierarchical<N: Into<NodeId>, G: IntoIterator<Item = N>>(
        groups: impl IntoIterator<Item = G>,
    ) -> Result<Self, QuorumSystemError> {
        let (nodes, groups) = Nodes::grouped(groups)?;
        let groups = groups
            .into_iter()
            .map(|group| Rule::majority(group.into_iter().map(Rule::Node).collect()));
        let rule = Rule::majority(groups.collect());
        Self::of_rules(nodes, rule.clone(), rule)
    }

    /// Nodes of which f may lie, for data that prove who wrote them, as by a signature: any two
    /// quorums have f + 1 nodes in common, one of which is honest, and there is a quorum without the
    /// liars. It takes n ≥ 3f + 1 nodes, and quorums of ⌈(n + f + 1) / 2⌉ (Malkhi and Reiter,
    /// "Byzantine Quorum Systems", Distributed Computing 1998: a dissemination quorum system).
    ///
    /// # Errors
    /// There are too few nodes, or one is named twice.
    pub fn dissemination<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
        f: usize,
    ) -> Result<Self, QuorumSystemError> {
        Self::byzantine(Nodes::distinct(nodes)?, f, f)
    }

    /// Nodes of which f may lie, for any data: any two quorums have 2f + 1 nodes in common, so that
    /// honest nodes outnumber liars there, and there is a quorum without the liars. It takes
    /// n ≥ 4f + 1 nodes, and quorums of ⌈(n + 2f + 1) / 2⌉ (Malkhi and Reiter, 1998: a masking
    /// quorum system). A value that f + 1 nodes of a quorum say is an honest one's.
    ///
    /// # Errors
    /// There are too few nodes, or one is named twice.
    pub fn masking<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
        f: usize,
    ) -> Result<Self, QuorumSystemError> {
        Self::byzantine(Nodes::distinct(nodes)?, f, f.saturating_mul(2))
    }

    /// Read quorums and write quorums by an expression each, over all nodes that either names.
    /// Two writes may miss each other: see [`with_write_overlap`](Self::with_write_overlap).
    ///
    /// That each read meets each write is known by a formula where both name each node once and
    /// count in the same groups, or where one is what the other one leaves; otherwise by a look at
    /// all sets of up to 20 nodes. With more nodes it is [unproven](Proof::Unproven). A look at all
    /// sets of 20 nodes asks each node and gate of an expression some 16,000 times: expressions of
    /// thousands of them take their time, once. What is found takes 128 KiB for each of the two.
    ///
    /// # Errors
    /// A read quorum and a write quorum miss each other, or an expression is illegal.
    pub fn new(
        reads: impl Into<Expression>,
        writes: impl Into<Expression>,
    ) -> Result<Self, QuorumSystemError> {
        let (reads, writes) = (reads.into(), writes.into());
        let nodes = Nodes::named_by(&[&reads, &writes]);
        let read = nodes.rule(&reads)?;
        let write = nodes.rule(&writes)?;
        Self::of_rules(nodes, read, write)
    }

    /// Read quorums by an expression, and for write quorums all sets that meet each of them.
    ///
    /// # Errors
    /// The expression is illegal.
    pub fn from_reads(reads: impl Into<Expression>) -> Result<Self, QuorumSystemError> {
        let reads = reads.into();
        let nodes = Nodes::named_by(&[&reads]);
        let read = nodes.rule(&reads)?;
        let write = read.dual();
        Self::of_rules(nodes, read, write)
    }

    /// Write quorums by an expression, and for read quorums all sets that meet each of them.
    ///
    /// # Errors
    /// The expression is illegal.
    pub fn from_writes(writes: impl Into<Expression>) -> Result<Self, QuorumSystemError> {
        let writes = writes.into();
        let nodes = Nodes::named_by(&[&writes]);
        let write = nodes.rule(&writes)?;
        let read = write.dual();
        Self::of_rules(nodes, read, write)
    }

    fn counting(nodes: Nodes, read: usize, write: usize) -> Result<Self, QuorumSystemError> {
        let n = nodes.len();
        for count in [read, write] {
            check_count(count, n, "nodes")?;
        }
        let [read, write] = [read, write].map(|count| Rule::at_least(count, 0..n));
        Self::of_rules(nodes, read, write)
    }

    fn by_votes<N: Into<NodeId>>(
        votes: impl IntoIterator<Item = (N, u64)>,
        needed: impl FnOnce(u64) -> [u64; 2],
    ) -> Result<Self, QuorumSystemError> {
        let votes: Vec<(NodeId, u64)> = votes
            .into_iter()
            .map(|(node, votes)| (node.into(), votes))
            .collect();
        let nodes = Nodes::distinct(votes.iter().map(|(node, _)| *node))?;
        let all = votes
            .iter()
            .try_fold(0u64, |sum, (_, votes)| sum.checked_add(*votes))
            .ok_or_else(|| QuorumSystemError::new("the sum of all votes overflows"))?;
        let of: Vec<_> = votes
            .into_iter()
            .filter_map(|(node, votes)| Some((nodes.position(node)?, votes)))
            .collect();
        let needed = needed(all);
        for count in needed {
            check_count(count, all, "votes")?;
        }
        let [read, write] = needed.map(|needed| Rule::Votes {
            needed,
            of: of.clone(),
        });
        Self::of_rules(nodes, read, write)
    }

    /// Quorums that have more nodes in common than `lies`, and of which one is left where any f
    /// nodes fail.
    fn byzantine(nodes: Nodes, f: usize, lies: usize) -> Result<Self, QuorumSystemError> {
        let n = nodes.len();
        let Some(honest) = n.checked_sub(f).filter(|honest| *honest > 0) else {
            return Err(QuorumSystemError::new(format!(
                "{f} of {n} nodes may lie: no honest one is left"
            )));
        };
        // With too few nodes these are the honest ones alone, and it is refused for what two such
        // sets have in common.
        let quorum = honest.min(n.saturating_add(lies) / 2 + 1);
        Self::counting(nodes, quorum, quorum)?
            .with_overlap(lies.saturating_add(1))?
            .with_write_overlap(lies.saturating_add(1))
    }

    fn of_rules(nodes: Nodes, read: Rule, write: Rule) -> Result<Self, QuorumSystemError> {
        let read = QuorumSets::new(&nodes, read);
        let write = QuorumSets::new(&nodes, write);
        let shared = Shared::of(&read, &write);
        let system = Self {
            shared_by_writes: Shared::of(&write, &write),
            proof: shared.proof,
            shared,
            read,
            write,
        };
        system.with_overlap(1)
    }

    /// The same, which is refused unless every read quorum has so many nodes in common with every
    /// write quorum. For nodes of which f may lie that is f + 1, or 2f + 1: see
    /// [`dissemination`](Self::dissemination) and [`masking`](Self::masking).
    ///
    /// # Errors
    /// Two quorums, which the error has, have fewer in common. Where neither is known, it is
    /// [unproven](Proof::Unproven) from here on.
    pub fn with_overlap(mut self, nodes: usize) -> Result<Self, QuorumSystemError> {
        self.shared = self
            .shared
            .proven(&self.read, &self.write, ["read", "write"], nodes)?;
        self.proof = self.proof.and(self.shared.proof_of(nodes));
        Ok(self)
    }

    /// The same, which is refused unless any two write quorums have so many nodes in common. One is
    /// what a protocol needs in which the later of two writes must learn of the other one.
    ///
    /// # Errors
    /// Two write quorums, which the error has, have fewer in common. Where neither is known, it is
    /// [unproven](Proof::Unproven) from here on.
    pub fn with_write_overlap(mut self, nodes: usize) -> Result<Self, QuorumSystemError> {
        self.shared_by_writes =
            self.shared_by_writes
                .proven(&self.write, &self.write, ["write", "write"], nodes)?;
        self.proof = self.proof.and(self.shared_by_writes.proof_of(nodes));
        Ok(self)
    }

    /// The same, which is refused unless so many nodes may fail, any of them, and there still is a
    /// read quorum and a write quorum.
    ///
    /// # Errors
    /// The failure of fewer nodes, or as many, which the text names, leaves none. Where neither is
    /// known, it is [unproven](Proof::Unproven) from here on.
    pub fn tolerating(mut self, failures: usize) -> Result<Self, QuorumSystemError> {
        for (kind, sets) in [("read", &self.read), ("write", &self.write)] {
            match sets.blocking() {
                Some(nodes) if nodes.len() <= failures => {
                    return Err(QuorumSystemError::new(format!(
                        "without the nodes {} there is no {kind} quorum, and {failures} may fail",
                        Shown(&nodes)
                    )));
                }
                Some(_) => {}
                None => self.proof = Proof::Unproven,
            }
        }
        Ok(self)
    }

    /// The read quorums, for `call.quorum(system.read())`.
    #[must_use]
    pub fn read(&self) -> &QuorumSets {
        &self.read
    }

    /// The write quorums, for `call.quorum(system.write())`.
    #[must_use]
    pub fn write(&self) -> &QuorumSets {
        &self.write
    }

    /// The nodes that it names, by id.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        self.read.nodes()
    }

    /// How it is known that it keeps all that was asked of it.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// How many nodes a read quorum and a write quorum have in common at least, as far as that is
    /// known: zero where it is [unproven](Proof::Unproven). It is exact but for weighted systems,
    /// where it is what their votes tell; [`with_overlap`](Self::with_overlap) looks closer.
    #[must_use]
    pub fn overlap(&self) -> usize {
        self.shared.least
    }

    /// How many nodes two write quorums have in common at least, as far as that is known: zero where
    /// two can miss each other, and where nothing is known. It is exact where
    /// [`overlap`](Self::overlap) is.
    #[must_use]
    pub fn write_overlap(&self) -> usize {
        self.shared_by_writes.least
    }

    /// How many nodes may fail, any of them, such that there still is a read quorum and a write
    /// quorum: the smaller [resilience](QuorumSets::resilience) of the two.
    #[must_use]
    pub fn resilience(&self) -> Option<usize> {
        Some(self.read.resilience()?.min(self.write.resilience()?))
    }

    /// How probable it is that there is no read quorum, or no write quorum: as
    /// [of one kind](QuorumSets::failure_probability), and known where that is.
    #[must_use]
    pub fn failure_probability(&self, down: impl Fn(NodeId) -> f64) -> Option<f64> {
        let both = self.read.rule().both(self.write.rule());
        failure::probability(&both, &self.read.0.nodes.down(down)?)
    }
}

impl Shared {
    /// What is known of a quorum of each.
    fn of(one: &QuorumSets, other: &QuorumSets) -> Self {
        let (a, b, nodes) = (one.rule(), other.rule(), one.nodes().len());
        let formula = |least, fewest| Self {
            least,
            proof: Proof::Formula,
            fewest,
        };
        if let Some(least) = a.shared_by_votes(b) {
            return formula(least, None);
        }
        if a.is_read_once()
            && b.is_read_once()
            && let Some((least, fewest)) = a.fewest_shared(b)
        {
            return formula(least, Some(fewest));
        }
        if *a == b.dual() {
            // A quorum of one without one of its nodes is none, so what is left out then, with that
            // node, meets each quorum of its own kind: it is a quorum of the other.
            let fewest = a.minimal(Bits::all(nodes), nodes);
            let rest = Bits::all(nodes).without(&fewest[1..].iter().copied().collect());
            let other = b.minimal(rest, nodes);
            return formula(1, Some([fewest, other]));
        }
        if nodes <= table::MOST_NODES {
            return Self::enumerated(one, other);
        }
        // Two quorums that miss each other are often found at once, where there are any.
        let all = Bits::all(nodes);
        let apart = |one: &Rule, other: &Rule| {
            let quorum = one.minimal(all.clone(), nodes);
            let rest = all.clone().without(&quorum.iter().copied().collect());
            other
                .is_met(&rest)
                .then(|| [quorum, other.minimal(rest, nodes)])
        };
        let found = apart(a, b).or_else(|| apart(b, a).map(|[other, one]| [one, other]));
        Self {
            least: 0,
            proof: Proof::Unproven,
            fewest: found,
        }
    }

    fn enumerated(one: &QuorumSets, other: &QuorumSets) -> Self {
        let rules = [one.rule(), other.rule()];
        let (least, fewest) = table::fewest_shared(rules, [one.table(), other.table()]);
        let sets = 1 << one.nodes().len();
        Self {
            least,
            proof: Proof::Enumeration { sets },
            fewest: Some(fewest),
        }
    }

    /// The same, with a closer look where that is needed, unless it is known to be fewer nodes.
    fn proven(
        self,
        one: &QuorumSets,
        other: &QuorumSets,
        kinds: [&str; 2],
        promised: usize,
    ) -> Result<Self, QuorumSystemError> {
        if self.least >= promised {
            return Ok(self);
        }
        let nodes = one.nodes().len();
        let known = match self.fewest {
            None if nodes <= table::MOST_NODES => Self::enumerated(one, other),
            _ => self,
        };
        match &known.fewest {
            Some(pair) if known.least < promised => {
                let pair = [0, 1].map(|at| one.names(&pair[at]));
                Err(QuorumSystemError::apart(kinds, pair, promised))
            }
            _ => Ok(known),
        }
    }

    fn proof_of(&self, promised: usize) -> Proof {
        match self.least >= promised {
            true => self.proof,
            false => Proof::Unproven,
        }
    }
}

/// The read quorums or the write quorums of [`Quorums`]. It is a [`QuorumSystem`], for
/// `call.quorum(…)`.
///
/// A call asks at each reply and at each failure. Nothing is allocated for that with up to 64
/// nodes, as long as the configuration has no more than 64 either.
#[derive(Clone)]
pub struct QuorumSets(Arc<Sets>);

#[derive(Debug)]
struct Sets {
    nodes: Nodes,
    rule: Rule,
    /// The fewest nodes without which there is no quorum, if that is known.
    blocking: Option<Vec<usize>>,
    /// A smallest quorum, where the family tells.
    smallest: Option<Vec<usize>>,
    /// Which sets are quorums, where that was needed.
    table: OnceLock<Table>,
}

impl QuorumSets {
    fn new(nodes: &Nodes, rule: Rule) -> Self {
        let table = OnceLock::new();
        let blocking = match rule.is_read_once() {
            // What blocks a quorum meets all of them.
            true => Some(rule.dual().smallest()),
            false if nodes.len() <= table::MOST_NODES => {
                let table = table.get_or_init(|| Table::of(&rule, nodes.len()));
                Some(table::fewest_blocking(table))
            }
            false => None,
        };
        Self(Arc::new(Sets {
            nodes: nodes.clone(),
            rule,
            blocking,
            smallest: None,
            table,
        }))
    }

    fn of_family(nodes: &Nodes, rule: Rule, blocking: Vec<usize>, smallest: Vec<usize>) -> Self {
        Self(Arc::new(Sets {
            nodes: nodes.clone(),
            rule,
            blocking: Some(blocking),
            smallest: Some(smallest),
            table: OnceLock::new(),
        }))
    }

    /// Which sets are quorums. It has no more than [`MOST_NODES`](table::MOST_NODES) nodes.
    fn table(&self) -> &Table {
        let Sets {
            nodes, rule, table, ..
        } = &*self.0;
        table.get_or_init(|| Table::of(rule, nodes.len()))
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.0.rule
    }

    fn names(&self, positions: &[usize]) -> Vec<NodeId> {
        let mut names: Vec<_> = positions.iter().map(|at| self.nodes()[*at]).collect();
        names.sort_unstable();
        names
    }

    /// The nodes of the system, by id.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.0.nodes.0
    }

    /// Whether these nodes are a quorum, or contain one. Nodes that the system does not name do not
    /// count.
    #[must_use]
    pub fn is_quorum_of<N: Into<NodeId>>(&self, nodes: impl IntoIterator<Item = N>) -> bool {
        self.0.rule.is_met(&self.0.nodes.bits(nodes))
    }

    /// Whether a quorum can still come about where these nodes have answered, and those have failed:
    /// whether there is one without the nodes that have failed and have not answered. Calls fail as
    /// soon as this is false.
    #[must_use]
    pub fn can_still_become_one<N: Into<NodeId>, M: Into<NodeId>>(
        &self,
        answered: impl IntoIterator<Item = N>,
        failed: impl IntoIterator<Item = M>,
    ) -> bool {
        let nodes = &self.0.nodes;
        let out = nodes.bits(failed).without(&nodes.bits(answered));
        self.0.rule.is_met(&Bits::all(nodes.len()).without(&out))
    }

    /// How many nodes may fail, any of them, such that there still is a quorum. It is exact, and
    /// known for all families, and for expressions that name each node once or have no more than 20
    /// nodes.
    #[must_use]
    pub fn resilience(&self) -> Option<usize> {
        // One node at least: the set of all nodes is a quorum.
        Some(self.0.blocking.as_ref()?.len() - 1)
    }

    /// A quorum of the fewest nodes, by id. Others may be as small. It is known where
    /// [resilience](Self::resilience) is.
    #[must_use]
    pub fn smallest(&self) -> Option<Vec<NodeId>> {
        let rule = self.rule();
        let smallest = match &self.0.smallest {
            Some(known) => known.clone(),
            None if rule.is_read_once() => rule.smallest(),
            None if self.nodes().len() <= table::MOST_NODES => table::smallest(self.table()),
            None => return None,
        };
        Some(self.names(&smallest))
    }

    /// All minimal quorums, each by id: those of which no node can be taken away. `None` where there
    /// are more than `most`, and for expressions and grids of more than 20 nodes, unless they name
    /// each node once.
    #[must_use]
    pub fn minimal_quorums(&self, most: usize) -> Option<Vec<Vec<NodeId>>> {
        let quorums = match self.rule().is_read_once() {
            true => self.rule().minimal_quorums(most),
            false => self.resilient_by_table(0, most),
        };
        self.at_most(most, quorums)
    }

    /// All minimal sets that contain a quorum whichever `failures` of their nodes fail, each by id:
    /// of a call to one of them the quorum is there although so many do not answer. There is none
    /// where even all nodes are no such set. `None` where there are more than `most`, and beyond 20
    /// nodes for all but nodes and votes that are counted.
    #[must_use]
    pub fn resilient_quorums(&self, failures: usize, most: usize) -> Option<Vec<Vec<NodeId>>> {
        if failures == 0 {
            return self.minimal_quorums(most);
        }
        let quorums = match self.rule().resilient_quorums(failures, most) {
            None => self.resilient_by_table(failures, most),
            known => known,
        };
        self.at_most(most, quorums)
    }

    fn resilient_by_table(&self, failures: usize, most: usize) -> Option<Vec<Vec<usize>>> {
        let is_small = self.nodes().len() <= table::MOST_NODES;
        is_small.then(|| table::minimal_quorums(&self.table().without_any(failures), most))
    }

    fn at_most(&self, most: usize, quorums: Option<Vec<Vec<usize>>>) -> Option<Vec<Vec<NodeId>>> {
        let quorums = quorums.filter(|quorums| quorums.len() <= most)?;
        Some(quorums.iter().map(|quorum| self.names(quorum)).collect())
    }

    /// How probable it is that there is no quorum, where each node is down with a probability of its
    /// own, independently of the others. Small probabilities are as exact as others.
    ///
    /// `None` where a probability is no number from 0 to 1, and where it is not known: beyond 20
    /// nodes for votes with more than 65,536 different sums, and for expressions that name nodes
    /// several times, unless they are grids or as regular.
    #[must_use]
    pub fn failure_probability(&self, down: impl Fn(NodeId) -> f64) -> Option<f64> {
        failure::probability(self.rule(), &self.0.nodes.down(down)?)
    }

    /// The fewest nodes whose failure leaves no quorum, by id: one more than its
    /// [resilience](Self::resilience). Other sets may be as small.
    #[must_use]
    pub fn blocking(&self) -> Option<Vec<NodeId>> {
        Some(self.names(self.0.blocking.as_ref()?))
    }
}

impl QuorumSystem for QuorumSets {
    fn is_quorum(&self, set: &NodeSet<'_>) -> bool {
        let nodes = self.nodes().iter().enumerate();
        let members = nodes.filter(|(_, node)| set.contains(**node));
        let members: Bits = members.map(|(position, _)| position).collect();
        self.0.rule.is_met(&members)
    }
}

impl fmt::Debug for QuorumSets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumSets")
            .field("nodes", &self.nodes())
            .field("rule", self.rule())
            .finish_non_exhaustive()
    }
}

/// The nodes of a system, by id. A rule names them by their position here.
#[derive(Debug, Clone)]
struct Nodes(Arc<[NodeId]>);

impl Nodes {
    /// These nodes, each of which is named once.
    fn distinct<N: Into<NodeId>>(
        nodes: impl IntoIterator<Item = N>,
    ) -> Result<Self, QuorumSystemError> {
        let mut nodes: Vec<NodeId> = nodes.into_iter().map(Into::into).collect();
        nodes.sort_unstable();
        if let Some(twice) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(QuorumSystemError::new(format!(
                "node {} is named twice",
                twice[0]
            )));
        }
        match nodes.is_empty() {
            true => Err(QuorumSystemError::new("a quorum system has no node")),
            false => Ok(Self(nodes.into())),
        }
    }

    /// The nodes of these groups, each of which is named once, and the groups by position. There is
    /// a group, and none is empty.
    fn grouped<N: Into<NodeId>, G: IntoIterator<Item = N>>(
        groups: impl IntoIterator<Item = G>,
    ) -> Result<(Self, Vec<Vec<usize>>), QuorumSystemError> {
        let groups: Vec<Vec<NodeId>> = groups
            .into_iter()
            .map(|group| group.into_iter().map(Into::into).collect())
            .collect();
        if groups.iter().any(Vec::is_empty) {
            return Err(QuorumSystemError::new("a row or group has no node"));
        }
        let nodes = Self::distinct(groups.iter().flatten().copied())?;
        let groups = groups
            .iter()
            .map(|group| group.iter().filter_map(|id| nodes.position(*id)).collect())
            .collect();
        Ok((nodes, groups))
    }

    /// The nodes that these expressions name.
    fn named_by(expressions: &[&Expression]) -> Self {
        let mut nodes = Vec::new();
        for expression in expressions {
            expression.add_nodes(&mut nodes);
        }
        nodes.sort_unstable();
        nodes.dedup();
        // Whatever is wrong with an expression that names none is told when it becomes a rule.
        Self(nodes.into())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn position(&self, node: NodeId) -> Option<usize> {
        self.0.binary_search(&node).ok()
    }

    fn rule(&self, expression: &Expression) -> Result<Rule, QuorumSystemError> {
        expression.rule(&|node| self.position(node))
    }

    /// How probable it is that each is down, by position, where these are probabilities.
    fn down(&self, down: impl Fn(NodeId) -> f64) -> Option<Vec<f64>> {
        let down = self.0.iter().map(|node| down(*node));
        down.map(|down| (0.0..=1.0).contains(&down).then_some(down))
            .collect()
    }

    fn bits<N: Into<NodeId>>(&self, nodes: impl IntoIterator<Item = N>) -> Bits {
        let nodes = nodes.into_iter().map(Into::into);
        nodes.filter_map(|node| self.position(node)).collect()
    }
}
