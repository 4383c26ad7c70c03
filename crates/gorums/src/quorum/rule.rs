//! Rules over nodes that are named by position: which sets of them are a quorum.

use super::Bits;

/// A monotone rule: whatever contains a quorum is a quorum. No set that is empty is one, and the
/// set of all nodes is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    Node(usize),
    /// At least one of them, and no more than there are.
    AtLeast {
        count: usize,
        of: Vec<Rule>,
    },
    /// Nodes that have so many votes together: at least one, and no more than there are. It is no
    /// part of another rule.
    Votes {
        needed: u64,
        of: Vec<(usize, u64)>,
    },
}

/// Two quorums, by position.
pub(super) type Pair = [Vec<usize>; 2];

impl Rule {
    pub(super) fn at_least(count: usize, of: impl IntoIterator<Item = usize>) -> Self {
        Self::AtLeast {
            count,
            of: of.into_iter().map(Self::Node).collect(),
        }
    }

    pub(super) fn majority(of: Vec<Self>) -> Self {
        Self::AtLeast {
            count: of.len() / 2 + 1,
            of,
        }
    }

    /// Whether these nodes are a quorum. Allocates nothing.
    pub(super) fn is_met(&self, set: &Bits) -> bool {
        match self {
            Self::Node(node) => set.contains(*node),
            Self::AtLeast { count, of } => {
                let met = of.iter().filter(|rule| rule.is_met(set));
                met.take(*count).count() == *count
            }
            Self::Votes { needed, of } => {
                let of = of.iter().filter(|(node, _)| set.contains(*node));
                of.map(|(_, votes)| votes).sum::<u64>() >= *needed
            }
        }
    }

    /// The rule whose quorums are the sets that meet each quorum of this one. Its own dual is this
    /// rule again.
    pub(super) fn dual(&self) -> Self {
        match self {
            Self::Node(node) => Self::Node(*node),
            Self::AtLeast { count, of } => Self::AtLeast {
                count: of.len() - count + 1,
                of: of.iter().map(Self::dual).collect(),
            },
            Self::Votes { needed, of } => Self::Votes {
                needed: sum(of) - needed + 1,
                of: of.clone(),
            },
        }
    }

    /// Whether it names no node twice.
    pub(super) fn is_read_once(&self) -> bool {
        self.is_new_to(&mut Bits::default())
    }

    fn is_new_to(&self, seen: &mut Bits) -> bool {
        match self {
            Self::Node(node) => seen.insert(*node),
            Self::AtLeast { of, .. } => of.iter().all(|rule| rule.is_new_to(seen)),
            Self::Votes { of, .. } => of.iter().all(|(node, _)| seen.insert(*node)),
        }
    }

    /// A smallest quorum. The rule names no node twice, so the parts of a quorum have no node in
    /// common, and the smallest parts make the smallest whole.
    pub(super) fn smallest(&self) -> Vec<usize> {
        match self {
            Self::Node(node) => vec![*node],
            Self::AtLeast { count, of } => {
                let mut parts: Vec<_> = of.iter().map(Self::smallest).collect();
                parts.sort_by_key(Vec::len);
                parts.into_iter().take(*count).flatten().collect()
            }
            Self::Votes { needed, of } => fewest(of, *needed),
        }
    }

    /// The two quorums, of this rule and of the other one, that have the fewest nodes in common,
    /// with how many these are; if both rules have the same shape, and count in it. They name no
    /// node twice.
    ///
    /// Of m parts, k and l of which are needed, k + l - m are in both quorums at least. So it is
    /// those parts in which the fewest nodes are shared, and no more of them than that.
    pub(super) fn fewest_shared(&self, other: &Self) -> Option<(usize, Pair)> {
        match (self, other) {
            (Self::Node(one), Self::Node(two)) if one == two => Some((1, [vec![*one], vec![*two]])),
            (
                Self::AtLeast { count, of },
                Self::AtLeast {
                    count: other,
                    of: others,
                },
            ) if of.len() == others.len() => {
                let both = of.iter().zip(others).enumerate();
                let mut parts = both
                    .map(|(at, (one, two))| Some((at, one.fewest_shared(two)?)))
                    .collect::<Option<Vec<_>>>()?;
                parts.sort_by_key(|(_, (shared, _))| *shared);
                let shared_parts = (count + other).saturating_sub(of.len());
                let mut parts = parts.into_iter();
                let (mut shared, mut pair) = (0, [Vec::new(), Vec::new()]);
                for (_, (part, [one, two])) in parts.by_ref().take(shared_parts) {
                    shared += part;
                    pair[0].extend(one);
                    pair[1].extend(two);
                }
                for (at, _) in parts.by_ref().take(count - shared_parts) {
                    pair[0].extend(of[at].smallest());
                }
                for (at, _) in parts.take(other - shared_parts) {
                    pair[1].extend(others[at].smallest());
                }
                Some((shared, pair))
            }
            _ => None,
        }
    }

    /// How many nodes two quorums of rules over the same votes have in common at least, by what
    /// their votes exceed all votes by. There may be more.
    pub(super) fn shared_by_votes(&self, other: &Self) -> Option<usize> {
        match (self, other) {
            (
                Self::Votes { needed, of },
                Self::Votes {
                    needed: others,
                    of: same,
                },
            ) if of == same => {
                let more = needed.checked_sub(sum(of) - others)?;
                Some(fewest(of, more).len()).filter(|_| more > 0)
            }
            _ => None,
        }
    }

    /// All quorums of which no node can be taken away. Where there are more than `most` it gives up,
    /// as soon as it finds so. The rule names no node twice.
    ///
    /// What is begun here can always be completed, and no two beginnings to the same quorum. So
    /// there never are more of them than there are quorums.
    pub(super) fn minimal_quorums(&self, most: usize) -> Option<Vec<Vec<usize>>> {
        match self {
            Self::Node(node) => Some(vec![vec![*node]]),
            Self::AtLeast { count, of } => {
                // By how many parts they have a quorum of.
                let mut begun = vec![Vec::new(); count + 1];
                begun[0].push(Vec::new());
                for (at, part) in of.iter().enumerate() {
                    let quorums = part.minimal_quorums(most)?;
                    let left = of.len() - at - 1;
                    for parts in (0..*count).rev() {
                        let these = std::mem::take(&mut begun[parts]);
                        for nodes in &these {
                            let with = quorums.iter().map(|more| [&nodes[..], more].concat());
                            begun[parts + 1].extend(with);
                            if begun[parts + 1].len() > most {
                                return None;
                            }
                        }
                        if parts + left >= *count {
                            begun[parts] = these;
                        }
                    }
                }
                begun.pop()
            }
            Self::Votes { .. } => self.resilient_quorums(0, most),
        }
    }

    /// All sets that contain a quorum without any so many of their nodes, and of which no node can
    /// be taken away: of votes, or of nodes that are counted. Where there are more than `most` it
    /// gives up.
    pub(super) fn resilient_quorums(
        &self,
        failures: usize,
        most: usize,
    ) -> Option<Vec<Vec<usize>>> {
        match self {
            Self::AtLeast { count, of }
                if of.iter().all(|part| matches!(part, Self::Node(_))) && self.is_read_once() =>
            {
                let count = count.saturating_add(failures);
                let more = Self::AtLeast {
                    count,
                    of: of.clone(),
                };
                match count <= of.len() {
                    true => more.minimal_quorums(most),
                    false => Some(Vec::new()),
                }
            }
            Self::Node(_) if failures > 0 => Some(Vec::new()),
            Self::Node(_) | Self::AtLeast { .. } if failures == 0 => self.minimal_quorums(most),
            Self::Node(_) | Self::AtLeast { .. } => None,
            Self::Votes { needed, of } => {
                // From the most votes down: the first nodes of a set are those that it must do
                // without, and the last one has the fewest votes of it, and is needed.
                let mut of = of.clone();
                of.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
                let left: Vec<u64> = (0..=of.len()).map(|from| sum(&of[from..])).collect();
                let left = |from: usize| left.get(from).copied().unwrap_or(0);
                let (mut begun, mut whole) = (vec![(failures, 0, Vec::new())], Vec::new());
                for (at, (node, votes)) in of.into_iter().enumerate() {
                    let mut next = Vec::new();
                    for (lost, have, nodes) in begun {
                        let with = [&nodes[..], &[node]].concat();
                        let (less, more) = match lost {
                            0 => (0, have + votes),
                            _ => (lost - 1, have),
                        };
                        let from = |lost: usize| left((at + 1).saturating_add(lost));
                        match more >= *needed {
                            true => whole.push(with),
                            false if more + from(less) >= *needed => next.push((less, more, with)),
                            false => {}
                        }
                        if have + from(lost) >= *needed {
                            next.push((lost, have, nodes));
                        }
                    }
                    begun = next;
                    if begun.len() + whole.len() > most {
                        return None;
                    }
                }
                Some(whole)
            }
        }
    }

    /// A quorum within this one of which no node can be taken away.
    pub(super) fn minimal(&self, quorum: Bits, nodes: usize) -> Vec<usize> {
        let mut quorum = quorum;
        for node in 0..nodes {
            let mut one = Bits::default();
            one.insert(node);
            let less = quorum.clone().without(&one);
            if self.is_met(&less) {
                quorum = less;
            }
        }
        (0..nodes).filter(|node| quorum.contains(*node)).collect()
    }
}

/// The fewest nodes that have so many votes together.
fn fewest(of: &[(usize, u64)], needed: u64) -> Vec<usize> {
    let mut of = of.to_vec();
    of.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    let mut left = needed;
    of.into_iter()
        .map_while(|(node, votes)| {
            let is_needed = left > 0;
            left = left.saturating_sub(votes);
            is_needed.then_some(node)
        })
        .collect()
}

fn sum(of: &[(usize, u64)]) -> u64 {
    of.iter().map(|(_, votes)| votes).sum()
}
