//! All sets of a few nodes at once: a bit for each says whether it is a quorum.

use std::ops::Range;

use super::rule::{Pair, Rule};

/// The most nodes of which all sets are looked at: 2²⁰ sets, a table of 128 KiB. A table asks each
/// node and gate of a rule once for 64 sets, 16,384 times, and a system makes one for its reads and one
/// for its writes, where it needs them. Two rules are compared by one table more for each node that their quorums have in common,
/// 21 at most.
pub(super) const MOST_NODES: usize = 20;

/// In which of the 64 sets of six nodes each of them is.
const IN: [u64; 6] = [
    0xaaaa_aaaa_aaaa_aaaa,
    0xcccc_cccc_cccc_cccc,
    0xf0f0_f0f0_f0f0_f0f0,
    0xff00_ff00_ff00_ff00,
    0xffff_0000_ffff_0000,
    0xffff_ffff_0000_0000,
];

/// A count in binary has so many digits at the most: 4096 parts are the most of a rule.
const DIGITS: usize = 13;

/// Which sets are quorums of a rule. A set is a number whose bits are its nodes; its own bit is in
/// the word that the bits from the seventh on name. With fewer than six nodes the word repeats.
#[derive(Debug, Clone)]
pub(super) struct Table {
    nodes: usize,
    words: Vec<u64>,
}

impl Table {
    /// All sets of so many nodes, [`MOST_NODES`] at most.
    pub(super) fn of(rule: &Rule, nodes: usize) -> Self {
        let words = 1 << nodes.saturating_sub(6);
        Self {
            nodes,
            words: (0..words).map(|at| word(rule, at)).collect(),
        }
    }

    fn has(&self, set: usize) -> bool {
        self.words[set >> 6] & 1 << (set & 63) != 0
    }

    /// Also the sets that one node more would make a quorum.
    fn with_one_more(&self) -> Self {
        let mut more = self.clone();
        for node in 0..self.nodes {
            for at in 0..self.words.len() {
                more.words[at] |= match IN.get(node) {
                    Some(with) => (self.words[at] & with) >> (1 << node),
                    None if at & 1 << (node - 6) == 0 => self.words[at | 1 << (node - 6)],
                    None => 0,
                };
            }
        }
        more
    }

    /// Only the sets that are in it without any one of their nodes, too.
    fn without_any_one(&self) -> Self {
        let mut fewer = self.clone();
        for node in 0..self.nodes {
            for at in 0..self.words.len() {
                fewer.words[at] &= match IN.get(node) {
                    Some(with) => {
                        let without = self.words[at] & !with;
                        without | without << (1 << node)
                    }
                    None => self.words[at & !(1 << (node - 6))],
                };
            }
        }
        fewer
    }

    /// Only the sets that are in it without any so many of their nodes, too.
    pub(super) fn without_any(&self, nodes: usize) -> Self {
        // Without all its nodes no set is left in it.
        let nodes = nodes.min(self.nodes);
        (0..nodes).fold(self.clone(), |table, _| table.without_any_one())
    }

    /// How probable it is that the nodes which are not down are no set of this table. Each is down
    /// with a probability, independently of the others.
    pub(super) fn probability_of_none(&self, down: &[f64]) -> f64 {
        let low = self.nodes.min(6);
        let probability = |set: usize, nodes: Range<usize>| -> f64 {
            let nodes = nodes.map(|node| match set & 1 << node {
                0 => down[node],
                _ => 1.0 - down[node],
            });
            nodes.product()
        };
        let lows: Vec<f64> = (0..1 << low).map(|set| probability(set, 0..low)).collect();
        let words = self.words.iter().enumerate();
        let none = words.map(|(at, word)| {
            let lows = lows.iter().enumerate();
            let none = lows.filter(|(set, _)| word & 1 << set == 0);
            let none: f64 = none.map(|(_, probability)| probability).sum();
            none * probability(at << 6, low..self.nodes)
        });
        none.sum()
    }

    /// A set that is in this table, and the nodes that are not in the set, as a set in the other
    /// table.
    fn beside(&self, other: &Self) -> Option<usize> {
        // The words of the other sets, and the bits in each, come in the reverse order.
        let both = self.words.iter().zip(other.words.iter().rev());
        both.enumerate().find_map(|(at, (one, two))| {
            let both = one & two.reverse_bits();
            (both != 0).then(|| at << 6 | both.trailing_zeros() as usize)
        })
    }

    /// The two quorums, one of each table, that have the fewest nodes in common, with how many.
    pub(super) fn fewest_shared(&self, other: &Self) -> (usize, [usize; 2]) {
        let all = (1 << self.nodes) - 1;
        // Each has the sets that so many more nodes make a quorum.
        let mut tables = vec![self.clone()];
        loop {
            let last = &tables[tables.len() - 1];
            if let Some(set) = last.beside(other) {
                let fewer = tables.iter().rev().skip(1);
                let one = fewer.fold(set, |set, table| {
                    let mut bigger = (0..self.nodes).map(|node| set | 1 << node);
                    bigger.find(|bigger| table.has(*bigger)).unwrap_or(set)
                });
                return (tables.len() - 1, [one, all & !set]);
            }
            let next = last.with_one_more();
            tables.push(next);
        }
    }

    /// The fewest nodes without which there is no quorum.
    pub(super) fn fewest_blocking(&self) -> usize {
        let all = (1 << self.nodes) - 1;
        let sizes = (0..=6).map(|size| {
            let sets = (0..64u32).filter(|set| set.count_ones() == size);
            sets.fold(0u64, |mask, set| mask | 1 << set)
        });
        let sizes: Vec<u64> = sizes.collect();
        let mask = match self.nodes {
            0..6 => (1 << (1 << self.nodes)) - 1,
            _ => u64::MAX,
        };
        // The greatest set that is no quorum: the nodes that it lacks are the fewest.
        let words = self.words.iter().enumerate();
        let largest = words.filter_map(|(at, word)| {
            let without = !word & mask;
            let in_size = sizes.iter().rev().map(|size| without & size);
            let found = in_size.into_iter().find(|sets| *sets != 0)?;
            Some(at << 6 | found.trailing_zeros() as usize)
        });
        let largest = largest.max_by_key(|set| set.count_ones());
        all & !largest.unwrap_or(0)
    }
}

/// The 64 sets at once whose bits from the seventh on are `at`.
fn word(rule: &Rule, at: usize) -> u64 {
    match rule {
        Rule::Node(node) => match IN.get(*node) {
            Some(with) => *with,
            None if at & 1 << (node - 6) != 0 => u64::MAX,
            None => 0,
        },
        Rule::AtLeast { count: 1, of } => of.iter().fold(0, |any, rule| any | word(rule, at)),
        Rule::AtLeast { count, of } if *count == of.len() => {
            of.iter().fold(u64::MAX, |all, rule| all & word(rule, at))
        }
        Rule::AtLeast { count, of } => {
            let mut digits = [0; DIGITS];
            for rule in of {
                let mut carry = word(rule, at);
                for digit in &mut digits {
                    (*digit, carry) = (*digit ^ carry, *digit & carry);
                    if carry == 0 {
                        break;
                    }
                }
            }
            // From the highest digit down: the counts that are above it already, and that are not
            // below it yet.
            let (above, equal) =
                (0..DIGITS)
                    .rev()
                    .fold((0, u64::MAX), |(above, equal), at| match count & 1 << at {
                        0 => (above | equal & digits[at], equal & !digits[at]),
                        _ => (above, equal & digits[at]),
                    });
            above | equal
        }
        Rule::Votes { needed, of } => (0..64).fold(0, |word, low| {
            let set = at << 6 | low;
            let of = of.iter().filter(|(node, _)| set & 1 << node != 0);
            let votes: u64 = of.map(|(_, votes)| votes).sum();
            word | u64::from(votes >= *needed) << low
        }),
    }
}

/// The two quorums with the fewest nodes in common, of which no node can be taken away, and how
/// many they share.
pub(super) fn fewest_shared(rules: [&Rule; 2], tables: [&Table; 2]) -> (usize, Pair) {
    let (shared, sets) = tables[0].fewest_shared(tables[1]);
    let nodes = tables[0].nodes;
    let minimal = |at: usize| rules[at].minimal(nodes_of(sets[at], nodes).collect(), nodes);
    (shared, [0, 1].map(minimal))
}

/// The fewest nodes without which there is no quorum.
pub(super) fn fewest_blocking(table: &Table) -> Vec<usize> {
    nodes_of(table.fewest_blocking(), table.nodes).collect()
}

/// A quorum of the fewest nodes.
pub(super) fn smallest(table: &Table) -> Vec<usize> {
    let quorums = (0..1usize << table.nodes).filter(|set| table.has(*set));
    // The set of all nodes is one.
    let smallest = quorums.min_by_key(|set| set.count_ones());
    nodes_of(smallest.unwrap_or(0), table.nodes).collect()
}

/// The quorums of which no node can be taken away: all of them, or one more than `most`.
pub(super) fn minimal_quorums(table: &Table, most: usize) -> Vec<Vec<usize>> {
    let nodes = table.nodes;
    let quorums = (0..1usize << nodes).filter(|set| {
        let mut smaller = nodes_of(*set, nodes).map(|node| set & !(1 << node));
        table.has(*set) && !smaller.any(|smaller| table.has(smaller))
    });
    quorums
        .take(most.saturating_add(1))
        .map(|set| nodes_of(set, nodes).collect())
        .collect()
}

fn nodes_of(set: usize, nodes: usize) -> impl Iterator<Item = usize> {
    (0..nodes).filter(move |node| set & 1 << node != 0)
}
