//! Systems as they are typed: a family and its numbers, or an expression.

use anyhow::{Context, Result, anyhow, bail};
use gorums::NodeId;
use gorums::quorum::{QuorumSystemError, Quorums};

use crate::expression;
use crate::names::Names;

/// The most nodes of a family.
const MOST_NODES: u32 = 1000;

pub(crate) struct System {
    pub(crate) quorums: Quorums,
    pub(crate) names: Names,
    /// As it was typed.
    pub(crate) title: String,
}

impl System {
    /// A system that holds, or why it does not.
    pub(crate) fn parse(
        words: &[String],
        writes: Option<&str>,
        write_overlap: usize,
    ) -> Result<Self> {
        let title = words.join(" ");
        let (family, numbers) = words.split_first().context("no system is named")?;
        let mut system = match Family::of(family) {
            Some(family) if writes.is_none() => Self::family(family, numbers)?,
            Some(_) => {
                bail!("--writes: {family} says already what a write is; it is for an expression")
            }
            None => Self::expressions(&title, writes)?,
        };
        system.title = match writes {
            None => title,
            Some(writes) => format!("{title}, writes {writes}"),
        };
        if write_overlap > 0 {
            let names = system.names;
            let quorums = system.quorums.with_write_overlap(write_overlap);
            system.quorums =
                quorums.map_err(|error| explained(&error, &names, ["write", "write"]))?;
            system.names = names;
        }
        Ok(system)
    }

    fn family(family: &Family, numbers: &[String]) -> Result<Self> {
        let usage = || {
            format!(
                "it is `{} {}`, as in `{}`",
                family.name, family.takes, family.example
            )
        };
        let (count, quorums) = (family.make)(numbers).with_context(usage)?;
        let names = Names::numbers(count);
        let quorums = quorums.map_err(|error| explained(&error, &names, ["read", "write"]))?;
        Ok(Self {
            quorums,
            names,
            title: String::new(),
        })
    }

    fn expressions(reads: &str, writes: Option<&str>) -> Result<Self> {
        let mut names = Names::default();
        let mut parse = |what: &str, text: &str| {
            expression::parse(text, &mut names).map_err(|mistake| {
                let families: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
                let hint = match what {
                    "" => format!(
                        "\nIt is an expression, or begins with one of {}.",
                        families.join(", ")
                    ),
                    _ => String::new(),
                };
                anyhow!("{what}{mistake}{hint}")
            })
        };
        let read = parse("", reads)?;
        let quorums = match writes {
            None => Quorums::from_reads(read),
            Some(writes) => Quorums::new(read, parse("--writes: ", writes)?),
        };
        let quorums = quorums.map_err(|error| explained(&error, &names, ["read", "write"]))?;
        Ok(Self {
            quorums,
            names,
            title: String::new(),
        })
    }
}

/// The two quorums that miss each other, by the names of their nodes.
fn explained(error: &QuorumSystemError, names: &Names, kinds: [&str; 2]) -> anyhow::Error {
    let Some([one, other]) = error.quorums() else {
        return anyhow!("no such system: {error}");
    };
    let shared: Vec<NodeId> = one
        .iter()
        .filter(|node| other.contains(node))
        .copied()
        .collect();
    let how = match shared.len() {
        0 => "miss each other".to_owned(),
        _ => format!("have only {} in common", names.set(&shared)),
    };
    anyhow!(
        "this is no quorum system: the {} quorum {} and the {} quorum {} {how}",
        kinds[0],
        names.set(one),
        kinds[1],
        names.set(other)
    )
}

/// How many nodes it has, and the system.
type Made = (u32, Result<Quorums, QuorumSystemError>);

struct Family {
    name: &'static str,
    takes: &'static str,
    example: &'static str,
    make: fn(&[String]) -> Result<Made>,
}

impl Family {
    fn of(word: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == word)
    }
}

const FAMILIES: [Family; 10] = [
    Family {
        name: "majority",
        takes: "N",
        example: "majority 5",
        make: |numbers| {
            let [n] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::majority(1..=n)))
        },
    },
    Family {
        name: "threshold",
        takes: "N K",
        example: "threshold 5 4",
        make: |numbers| {
            let [n, k] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::threshold(1..=n, k as usize)))
        },
    },
    Family {
        name: "flexible",
        takes: "N R W",
        example: "flexible 5 2 4",
        make: |numbers| {
            let [n, r, w] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::flexible(1..=n, r as usize, w as usize)))
        },
    },
    Family {
        name: "read-one",
        takes: "N",
        example: "read-one 5",
        make: |numbers| {
            let [n] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::read_one_write_all(1..=n)))
        },
    },
    Family {
        name: "all",
        takes: "N",
        example: "all 3",
        make: |numbers| {
            let [n] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::all(1..=n)))
        },
    },
    Family {
        name: "weighted",
        takes: "VOTES,… [R W]",
        example: "weighted 3,1,1,1,1",
        make: |numbers| {
            let (votes, needed) = numbers.split_first().context("the votes are missing")?;
            let votes = list(votes)?;
            let n = count(votes.len() as u64)?;
            let votes = (1..=n).zip(votes);
            match needed {
                [] => Ok((n, Quorums::weighted(votes))),
                _ => {
                    let [r, w] = whole(needed)?;
                    Ok((n, Quorums::weighted_thresholds(votes, r, w)))
                }
            }
        },
    },
    Family {
        name: "grid",
        takes: "ROWSxCOLUMNS",
        example: "grid 2x3",
        make: |numbers| {
            let (n, rows) = groups(numbers)?;
            Ok((n, Quorums::grid(rows)))
        },
    },
    Family {
        name: "zones",
        takes: "ZONESxNODES, or NODES,… of each",
        example: "zones 3x3",
        make: |numbers| {
            let (n, zones) = groups(numbers)?;
            Ok((n, Quorums::hierarchical(zones)))
        },
    },
    Family {
        name: "dissemination",
        takes: "N F",
        example: "dissemination 4 1",
        make: |numbers| {
            let [n, f] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::dissemination(1..=n, f as usize)))
        },
    },
    Family {
        name: "masking",
        takes: "N F",
        example: "masking 5 1",
        make: |numbers| {
            let [n, f] = whole(numbers)?;
            let n = count(n)?;
            Ok((n, Quorums::masking(1..=n, f as usize)))
        },
    },
];

/// So many whole numbers.
fn whole<const N: usize>(numbers: &[String]) -> Result<[u64; N]> {
    let parsed = numbers.iter().map(|number| {
        let parsed = number.parse::<u32>().map(u64::from);
        parsed.with_context(|| format!("{number:?} is no whole number that is below 2³²"))
    });
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    let given = parsed.len();
    parsed
        .try_into()
        .map_err(|_| anyhow!("the count of numbers is {N}, and not {given}"))
}

fn list(numbers: &str) -> Result<Vec<u64>> {
    let numbers: Vec<String> = numbers
        .split(',')
        .map(|number| number.trim().to_owned())
        .collect();
    let parsed = numbers.iter().map(|number| {
        let [number] = whole(std::slice::from_ref(number))?;
        Ok(number)
    });
    parsed.collect()
}

fn count(nodes: u64) -> Result<u32> {
    match u32::try_from(nodes) {
        Ok(nodes) if nodes <= MOST_NODES => Ok(nodes),
        _ => bail!("{nodes} nodes are more than {MOST_NODES}"),
    }
}

/// `3x4`, or `4,4,4`: how many nodes there are, and the groups of them.
fn groups(numbers: &[String]) -> Result<(u32, Vec<Vec<u32>>)> {
    let [text] = numbers else {
        bail!("it is one word, and not {}", numbers.len());
    };
    let sizes = match text.split_once('x') {
        Some((groups, of)) => {
            let [groups, of] = whole(&[groups.to_owned(), of.to_owned()])?;
            count(groups.saturating_mul(of.max(1)))?;
            vec![of; groups as usize]
        }
        None => list(text)?,
    };
    let n = sizes
        .iter()
        .fold(0u64, |sum, size| sum.saturating_add(*size));
    let n = count(n)?;
    let mut next = 1;
    let groups = sizes.into_iter().map(|size| {
        // The sum is small, and so is each.
        let from = next;
        next += size as u32;
        (from..next).collect()
    });
    Ok((n, groups.collect()))
}
