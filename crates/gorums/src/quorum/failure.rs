//! How probable it is that there is no quorum, where nodes are down independently of each other.
//!
//! Only probabilities of what fails are added up, never subtracted from one: what is improbable keeps
//! its digits.

use std::collections::BTreeMap;

use super::rule::Rule;
use super::table::{self, Table};

/// The most numbers of votes that are told apart at a time.
const MOST_SUMS: usize = 1 << 16;

/// The most nodes and gates that are looked at where a rule is followed node by node.
const MOST_STEPS: usize = 1 << 22;

/// That something fails, and that it does not: together 1. Each keeps its digits where the other is
/// close to it.
#[derive(Clone, Copy)]
struct Chance {
    down: f64,
    up: f64,
}

/// The probability that the nodes which are up are no quorum. Nodes are down with these
/// probabilities, by position.
///
/// It is known where the rule names no node twice and has few different sums of votes, up to 20
/// nodes, and where few different rules are left as more and more nodes are known, as in grids.
pub(super) fn probability(rule: &Rule, down: &[f64]) -> Option<f64> {
    if rule.is_read_once() {
        Some(of_parts(rule, down)?.down)
    } else if down.len() <= table::MOST_NODES {
        Some(Table::of(rule, down.len()).probability_of_none(down))
    } else {
        node_by_node(rule, down)
    }
}

/// Parts that have no node in common are down independently, too.
fn of_parts(rule: &Rule, down: &[f64]) -> Option<Chance> {
    match rule {
        Rule::Node(node) => Some(Chance {
            down: down[*node],
            up: 1.0 - down[*node],
        }),
        Rule::AtLeast { count, of } => {
            // By how many parts are down.
            let mut chances = vec![1.0];
            for part in of {
                let part = of_parts(part, down)?;
                chances.push(0.0);
                for parts in (0..chances.len()).rev() {
                    let one_more = match parts {
                        0 => 0.0,
                        _ => chances[parts - 1] * part.down,
                    };
                    chances[parts] = chances[parts] * part.up + one_more;
                }
            }
            let (up, down) = chances.split_at(of.len() - count + 1);
            Some(Chance {
                down: down.iter().sum(),
                up: up.iter().sum(),
            })
        }
        Rule::Votes { needed, of } => {
            // By how many votes are up, fewest first; all that are enough are one.
            let mut sums = vec![(0u64, 1.0)];
            for (node, votes) in of {
                let with = sums.iter().map(|(sum, chance)| {
                    let sum = (sum + votes).min(*needed);
                    (sum, chance * (1.0 - down[*node]))
                });
                let without = sums
                    .iter()
                    .map(|(sum, chance)| (*sum, chance * down[*node]));
                sums = added(with.collect(), without.collect());
                if sums.len() > MOST_SUMS {
                    return None;
                }
            }
            let (up, down): (Vec<_>, Vec<_>) = sums.iter().partition(|(sum, _)| sum == needed);
            let [up, down] = [up, down].map(|sums| sums.iter().map(|(_, chance)| chance).sum());
            Some(Chance { down, up })
        }
    }
}

/// Both in order, with the chances of equal sums as one.
fn added(one: Vec<(u64, f64)>, other: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
    let mut both: Vec<(u64, f64)> = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    loop {
        let next = match (one.peek(), other.peek()) {
            (Some(a), Some(b)) if a.0 <= b.0 => one.next(),
            (_, Some(_)) => other.next(),
            (_, None) => one.next(),
        };
        let Some((sum, chance)) = next else {
            return both;
        };
        match both.last_mut() {
            Some((last, chances)) if *last == sum => *chances += chance,
            _ => both.push((sum, chance)),
        }
    }
}

/// What is left of the rule once the first nodes are known is often the same, whichever of them are
/// up: each such rest is gone on with once.
pub(super) fn node_by_node(rule: &Rule, down: &[f64]) -> Option<f64> {
    let mut order = Vec::new();
    rule.add_nodes(&mut order);
    let (mut steps, mut failed) = (0usize, 0.0);
    // In order, so that the same is added up in the same order each time.
    let mut rests = BTreeMap::from([(rule.clone(), 1.0)]);
    for node in order {
        let mut next = BTreeMap::new();
        for (rule, chance) in rests {
            steps += 2 * rule.terms();
            if steps > MOST_STEPS {
                return None;
            }
            for (is_up, part) in [(true, 1.0 - down[node]), (false, down[node])] {
                match rule.given(node, is_up) {
                    Given::Met => {}
                    Given::Unmet => failed += chance * part,
                    Given::Open(rule) => *next.entry(rule).or_insert(0.0) += chance * part,
                }
            }
        }
        rests = next;
    }
    Some(failed)
}

/// What a rule is once it is known of a node whether it is up.
enum Given {
    Met,
    Unmet,
    Open(Rule),
}

impl Rule {
    fn given(&self, node: usize, is_up: bool) -> Given {
        match self {
            Self::Node(this) if *this == node => match is_up {
                true => Given::Met,
                false => Given::Unmet,
            },
            Self::AtLeast { count, of } => {
                let (mut count, mut open) = (*count, Vec::new());
                for part in of {
                    match part.given(node, is_up) {
                        Given::Met if count == 1 => return Given::Met,
                        Given::Met => count -= 1,
                        Given::Unmet => {}
                        Given::Open(part) => open.push(part),
                    }
                }
                match open.len() {
                    parts if parts < count => Given::Unmet,
                    1 => Given::Open(open.remove(0)),
                    _ => Given::Open(Self::AtLeast { count, of: open }),
                }
            }
            // It names no node twice, and is never followed node by node.
            Self::Votes { .. } | Self::Node(_) => Given::Open(self.clone()),
        }
    }

    /// How many nodes and gates it has.
    fn terms(&self) -> usize {
        match self {
            Self::Node(_) => 1,
            Self::AtLeast { of, .. } => 1 + of.iter().map(Self::terms).sum::<usize>(),
            Self::Votes { of, .. } => of.len(),
        }
    }

    /// Adds the nodes that it names, each once, in the order in which it does.
    fn add_nodes(&self, nodes: &mut Vec<usize>) {
        match self {
            Self::Node(node) if nodes.contains(node) => {}
            Self::Node(node) => nodes.push(*node),
            Self::AtLeast { of, .. } => of.iter().for_each(|part| part.add_nodes(nodes)),
            Self::Votes { of, .. } => nodes.extend(of.iter().map(|(node, _)| node)),
        }
    }

    /// The rule whose quorums have a quorum of each.
    pub(super) fn both(&self, other: &Self) -> Self {
        match (self, other) {
            (
                Self::AtLeast { count, of },
                Self::AtLeast {
                    count: others,
                    of: same,
                },
            ) if of == same => Self::AtLeast {
                count: *count.max(others),
                of: of.clone(),
            },
            (
                Self::Votes { needed, of },
                Self::Votes {
                    needed: others,
                    of: same,
                },
            ) if of == same => Self::Votes {
                needed: *needed.max(others),
                of: of.clone(),
            },
            _ if self == other => self.clone(),
            _ => Self::AtLeast {
                count: 2,
                of: vec![self.clone(), other.clone()],
            },
        }
    }
}
