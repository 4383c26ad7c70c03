//! Random systems, all of whose answers are compared with a look at all sets; and large ones.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::rule::Rule;
use super::table::Table;
use super::*;
use crate::configuration::Configuration;
use crate::node_id::NodeId;

/// Systems of more nodes are not compared set by set.
const MOST: usize = 9;

/// What a system is made of. Nodes are numbers from zero.
#[derive(Debug, Clone)]
enum Made {
    Flexible(usize, usize, usize),
    Majority(usize),
    ReadOne(usize),
    All(usize),
    Weighted(Vec<u64>),
    WeightedThresholds(Vec<u64>, u64, u64),
    Grid(usize, usize),
    Groups(Vec<usize>),
    Dissemination(usize, usize),
    Masking(usize, usize),
    Both(Tree, Tree),
    FromReads(Tree),
    FromWrites(Tree),
}

#[derive(Debug, Clone)]
enum Tree {
    Node(usize),
    Of(usize, Vec<Tree>),
}

/// The name of a node: neither in the order of numbers, nor one after the other.
fn name(node: usize) -> u32 {
    [52, 11, 98, 7, 31, 60, 2, 77, 45][node]
}

fn names(nodes: impl IntoIterator<Item = usize>) -> Vec<u32> {
    nodes.into_iter().map(name).collect()
}

/// The nodes of a set, which is a number whose bits they are.
fn nodes_of(set: usize) -> impl Iterator<Item = usize> {
    (0..MOST).filter(move |node| set & 1 << node != 0)
}

fn set_of(nodes: &[NodeId]) -> usize {
    (0..MOST)
        .filter(|node| nodes.contains(&NodeId::from(name(*node))))
        .fold(0, |set, node| set | 1 << node)
}

fn size(set: usize) -> usize {
    set.count_ones() as usize
}

impl Tree {
    fn is_met(&self, set: usize) -> bool {
        match self {
            Self::Node(node) => set & 1 << node != 0,
            Self::Of(count, of) => of.iter().filter(|tree| tree.is_met(set)).count() >= *count,
        }
    }

    fn expression(&self) -> Expression {
        match self {
            Self::Node(node) => Expression::node(name(*node)),
            Self::Of(count, of) => Expression::at_least(*count, of.iter().map(Self::expression)),
        }
    }

    fn nodes(&self) -> usize {
        match self {
            Self::Node(node) => 1 << node,
            Self::Of(_, of) => of.iter().fold(0, |set, tree| set | tree.nodes()),
        }
    }
}

/// The groups of a system, as sets.
fn groups(sizes: &[usize]) -> Vec<usize> {
    let mut from = 0;
    let groups = sizes.iter().map(|size| {
        from += size;
        (from - size..from).fold(0, |set, node| set | 1 << node)
    });
    groups.collect()
}

impl Made {
    fn build(&self) -> Result<Quorums, QuorumSystemError> {
        let n = |n: &usize| names(0..*n);
        let votes = |votes: &[u64]| {
            let votes = votes.iter().enumerate();
            votes
                .map(|(node, votes)| (name(node), *votes))
                .collect::<Vec<_>>()
        };
        let grouped = |sizes: &[usize]| {
            let groups = groups(sizes);
            groups
                .into_iter()
                .map(|group| names(nodes_of(group)))
                .collect::<Vec<_>>()
        };
        match self {
            Self::Flexible(all, r, w) if r == w => Quorums::threshold(n(all), *r),
            Self::Flexible(all, r, w) => Quorums::flexible(n(all), *r, *w),
            Self::Majority(all) => Quorums::majority(n(all)),
            Self::ReadOne(all) => Quorums::read_one_write_all(n(all)),
            Self::All(all) => Quorums::all(n(all)),
            Self::Weighted(of) => Quorums::weighted(votes(of)),
            Self::WeightedThresholds(of, r, w) => Quorums::weighted_thresholds(votes(of), *r, *w),
            Self::Grid(rows, columns) => Quorums::grid(grouped(&vec![*columns; *rows])),
            Self::Groups(sizes) => Quorums::hierarchical(grouped(sizes)),
            Self::Dissemination(all, f) => Quorums::dissemination(n(all), *f),
            Self::Masking(all, f) => Quorums::masking(n(all), *f),
            Self::Both(read, write) => Quorums::new(read.expression(), write.expression()),
            Self::FromReads(read) => Quorums::from_reads(read.expression()),
            Self::FromWrites(write) => Quorums::from_writes(write.expression()),
        }
    }

    /// All nodes.
    fn nodes(&self) -> usize {
        match self {
            Self::Flexible(n, ..)
            | Self::Majority(n)
            | Self::ReadOne(n)
            | Self::All(n)
            | Self::Dissemination(n, _)
            | Self::Masking(n, _) => (1 << n) - 1,
            Self::Weighted(votes) | Self::WeightedThresholds(votes, ..) => (1 << votes.len()) - 1,
            Self::Grid(rows, columns) => (1 << (rows * columns)) - 1,
            Self::Groups(sizes) => (1 << sizes.iter().sum::<usize>()) - 1,
            Self::Both(read, write) => read.nodes() | write.nodes(),
            Self::FromReads(tree) | Self::FromWrites(tree) => tree.nodes(),
        }
    }

    /// Whether a set is a read quorum, and whether it is a write quorum, by the definition.
    fn has(&self, set: usize) -> [bool; 2] {
        let votes = |of: &[u64], set: usize| -> u64 {
            let of = of.iter().enumerate();
            of.map(|(node, votes)| votes * (set >> node & 1) as u64)
                .sum()
        };
        match self {
            Self::Flexible(_, r, w) => [size(set) >= *r, size(set) >= *w],
            Self::Majority(n) => [2 * size(set) > *n; 2],
            Self::ReadOne(n) => [set != 0, size(set) == *n],
            Self::All(n) => [size(set) == *n; 2],
            Self::Weighted(of) => [2 * votes(of, set) > of.iter().sum(); 2],
            Self::WeightedThresholds(of, r, w) => [votes(of, set) >= *r, votes(of, set) >= *w],
            Self::Grid(rows, columns) => {
                let rows = groups(&vec![*columns; *rows]);
                let row = rows.iter().any(|row| set & row == *row);
                let of_each = rows.iter().all(|row| set & row != 0);
                [row || of_each, row && of_each]
            }
            Self::Groups(sizes) => {
                let groups = groups(sizes).into_iter();
                let majorities = groups.filter(|group| 2 * size(set & group) > size(*group));
                [2 * majorities.count() > sizes.len(); 2]
            }
            // The smallest quorums that share enough.
            Self::Dissemination(n, f) => [2 * size(set) > n + f; 2],
            Self::Masking(n, f) => [2 * size(set) > n + 2 * f; 2],
            Self::Both(read, write) => [read.is_met(set), write.is_met(set)],
            Self::FromReads(read) => {
                let misses = read.is_met(self.nodes() & !set);
                [read.is_met(set), !misses]
            }
            Self::FromWrites(write) => {
                let misses = write.is_met(self.nodes() & !set);
                [!misses, write.is_met(set)]
            }
        }
    }

    /// How many nodes of a read quorum and a write quorum have to be shared, and how many may fail.
    fn promises(&self) -> (usize, usize) {
        match self {
            Self::Dissemination(_, f) => (f + 1, *f),
            Self::Masking(_, f) => (2 * f + 1, *f),
            _ => (1, 0),
        }
    }
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let node = (0..MOST).prop_map(Tree::Node);
    node.prop_recursive(3, 24, 5, |inner| {
        let of = proptest::collection::vec(inner, 1..=5);
        of.prop_flat_map(|of| (1..=of.len()).prop_map(move |count| Tree::Of(count, of.clone())))
    })
}

fn any_system() -> impl Strategy<Value = Made> {
    let n = 1..=MOST;
    let of_n = |n: usize| (1..=n, 1..=n).prop_map(move |(r, w)| Made::Flexible(n, r, w));
    let votes = || proptest::collection::vec(0..6u64, 1..=MOST);
    let legal = |votes: &Vec<u64>| votes.iter().sum::<u64>() > 0;
    let weighted = votes().prop_filter("there are votes", legal);
    let thresholds = weighted.clone().prop_flat_map(|votes| {
        let all = votes.iter().sum::<u64>();
        (1..=all, 1..=all).prop_map(move |(r, w)| Made::WeightedThresholds(votes.clone(), r, w))
    });
    let grid = (1..=4usize, 1..=4usize).prop_filter("few nodes", |(r, c)| r * c <= MOST);
    let groups = proptest::collection::vec(1..=4usize, 1..=5)
        .prop_filter("few nodes", |sizes| sizes.iter().sum::<usize>() <= MOST);
    prop_oneof![
        2 => n.clone().prop_flat_map(of_n),
        1 => n.clone().prop_map(Made::Majority),
        1 => n.clone().prop_map(Made::ReadOne),
        1 => n.clone().prop_map(Made::All),
        1 => weighted.prop_map(Made::Weighted),
        2 => thresholds,
        2 => grid.prop_map(|(rows, columns)| Made::Grid(rows, columns)),
        2 => groups.prop_map(Made::Groups),
        1 => (n.clone(), 0..4usize).prop_map(|(n, f)| Made::Dissemination(n, f)),
        1 => (n, 0..4usize).prop_map(|(n, f)| Made::Masking(n, f)),
        4 => (any_tree(), any_tree()).prop_map(|(r, w)| Made::Both(r, w)),
        2 => any_tree().prop_map(Made::FromReads),
        2 => any_tree().prop_map(Made::FromWrites),
    ]
}

/// What a look at all sets tells.
struct Looked {
    nodes: usize,
    /// Which sets are read quorums, and write quorums.
    has: [Vec<bool>; 2],
    /// The fewest nodes that a read quorum and a write quorum share, and two write quorums.
    shared: [usize; 2],
    resilience: [Option<usize>; 2],
}

fn look(made: &Made) -> Looked {
    let nodes = made.nodes();
    let sets = || (0..1 << MOST).filter(move |set| set & !nodes == 0);
    let has = [0, 1].map(|kind| {
        (0..1 << MOST)
            .map(|set| made.has(set & nodes)[kind])
            .collect()
    });
    let quorums = [0, 1].map(|kind: usize| {
        let has: &Vec<bool> = &has[kind];
        sets().filter(|set| has[*set]).collect::<Vec<_>>()
    });
    let shared = [0, 1].map(|kind: usize| {
        let pairs = quorums[kind].iter();
        let shared = pairs.flat_map(|one| quorums[1].iter().map(move |other| size(one & other)));
        shared.min().unwrap_or(0)
    });
    let resilience = [0, 1].map(|kind: usize| {
        let blocking = sets().filter(|out| !has[kind][nodes & !out]);
        blocking.map(size).min()?.checked_sub(1)
    });
    Looked {
        nodes,
        has,
        shared,
        resilience,
    }
}

/// Two quorums of these kinds are an argument against the promise.
fn assert_apart(
    error: &QuorumSystemError,
    looked: &Looked,
    kinds: [usize; 2],
    promised: usize,
) -> TestCaseResult {
    let Some([one, other]) = error.quorums() else {
        return Err(TestCaseError::fail(format!("{error} has no quorums")));
    };
    let [one, other] = [one, other].map(set_of);
    prop_assert!(looked.has[kinds[0]][one], "{error}");
    prop_assert!(looked.has[kinds[1]][other], "{error}");
    prop_assert!(size(one & other) < promised, "{error}");
    Ok(())
}

fn agrees(made: &Made, lots: &[(usize, usize)]) -> TestCaseResult {
    let looked = look(made);
    let (promised, failures) = made.promises();
    let system = match made.build() {
        Ok(system) => system,
        Err(error) => {
            // Of the Byzantine families the quorums without f nodes are shown, as none are legal.
            if promised == 1 && failures == 0 {
                prop_assert!(looked.shared[0] < promised, "{error}");
                assert_apart(&error, &looked, [0, 1], promised)?;
            } else {
                let n = size(looked.nodes);
                prop_assert!(n < failures + promised + failures, "{error}");
                if let Some([one, other]) = error.quorums().map(|both| both.map(set_of)) {
                    prop_assert_eq!([size(one), size(other)], [n - failures; 2]);
                    prop_assert!(size(one & other) < promised, "{}", error);
                } else {
                    prop_assert!(failures >= n, "{error}");
                }
            }
            return Ok(());
        }
    };
    prop_assert!(looked.shared[0] >= promised);
    prop_assert!(looked.resilience >= [Some(failures); 2]);
    prop_assert_ne!(system.proof(), Proof::Unproven);
    is_told_the_same(&system, &looked, lots)?;

    // What is in common, of a read and a write and of two writes.
    let by_votes = matches!(made, Made::Weighted(_) | Made::WeightedThresholds(..));
    for (known, looked) in [
        (system.overlap(), looked.shared[0]),
        (system.write_overlap(), looked.shared[1]),
    ] {
        match by_votes {
            true => prop_assert!(known <= looked, "{known} {looked}"),
            false => prop_assert_eq!(known, looked),
        }
    }
    prop_assert!(system.overlap() > 0);
    for promised in 0..=MOST {
        match system.clone().with_overlap(promised) {
            Ok(_) => prop_assert!(looked.shared[0] >= promised),
            Err(error) => assert_apart(&error, &looked, [0, 1], promised)?,
        }
        match system.clone().with_write_overlap(promised) {
            Ok(_) => prop_assert!(looked.shared[1] >= promised),
            Err(error) => assert_apart(&error, &looked, [1, 1], promised)?,
        }
    }
    Ok(())
}

/// Which sets are quorums, what can become one, and how many nodes may fail.
fn is_told_the_same(system: &Quorums, looked: &Looked, lots: &[(usize, usize)]) -> TestCaseResult {
    let sides = [system.read(), system.write()];
    let configuration = Configuration::unconnected(100);
    for set in 0..1 << MOST {
        let position = |node| configuration.position(NodeId::from(name(node)));
        let bits: Bits = nodes_of(set).filter_map(position).collect();
        let in_a_call = NodeSet::new(&configuration, &bits);
        for (side, has) in sides.iter().zip(&looked.has) {
            prop_assert_eq!(side.is_quorum_of(names(nodes_of(set))), has[set]);
            prop_assert_eq!(side.is_quorum(&in_a_call), has[set]);
        }
    }
    for (answered, failed) in lots {
        let (answered, failed) = (answered & looked.nodes, failed & looked.nodes);
        for (side, has) in sides.iter().zip(&looked.has) {
            let mut outcomes = (0..1 << MOST).filter(|set| {
                set & answered == answered && set & failed & !answered == 0 && has[*set]
            });
            let [answered, failed] = [answered, failed].map(|set| names(nodes_of(set)));
            prop_assert_eq!(
                side.can_still_become_one(answered, failed),
                outcomes.next().is_some()
            );
        }
    }
    let smaller = looked.resilience[0].min(looked.resilience[1]);
    prop_assert_eq!(sides.map(QuorumSets::resilience), looked.resilience);
    prop_assert_eq!(system.resilience(), smaller);
    for (side, has) in sides.iter().zip(&looked.has) {
        let blocking = set_of(&side.blocking().expect("it is known"));
        prop_assert!(!has[looked.nodes & !blocking]);
        prop_assert_eq!(size(blocking), side.resilience().expect("it is known") + 1);
    }
    for (side, has) in sides.iter().zip(&looked.has) {
        let minimal = (0..1 << MOST).filter(|set| {
            let inside = set & !looked.nodes == 0 && has[*set];
            inside && nodes_of(*set).all(|node| !has[set & !(1 << node)])
        });
        let minimal: Vec<usize> = minimal.collect();
        let fewest = minimal.iter().map(|set| size(*set)).min();
        let smallest = set_of(&side.smallest().expect("it is known"));
        prop_assert!(has[smallest] && Some(size(smallest)) == fewest);
        let told = side.minimal_quorums(minimal.len()).expect("so many");
        let mut told: Vec<_> = told.iter().map(|quorum| set_of(quorum)).collect();
        told.sort_unstable();
        prop_assert_eq!(&told, &minimal);
        prop_assert!(side.minimal_quorums(minimal.len() - 1).is_none());
    }
    for failures in 0..=MOST {
        let tolerated = system.clone().tolerating(failures);
        prop_assert_eq!(tolerated.is_ok(), Some(failures) <= smaller);
    }
    is_as_resilient(system, looked)?;
    fails_as_often(system, looked, lots)
}

/// A set without its failed nodes, of which there are no more than these.
fn left_of(set: usize, failures: usize) -> impl Iterator<Item = usize> {
    let failed = (0..=set).filter(move |failed| failed & !set == 0 && size(*failed) <= failures);
    failed.map(move |failed| set & !failed)
}

/// Which sets contain a quorum whichever of their nodes fail.
fn is_as_resilient(system: &Quorums, looked: &Looked) -> TestCaseResult {
    for (side, has) in [system.read(), system.write()].iter().zip(&looked.has) {
        for failures in 1..=3 {
            let sets = (0..1 << MOST).filter(|set| set & !looked.nodes == 0);
            let resilient: Vec<usize> = sets
                .filter(|set| left_of(*set, failures).all(|left| has[left]))
                .collect();
            let is_minimal = |set: &usize| {
                let mut smaller = nodes_of(*set).map(|node| set & !(1 << node));
                !smaller.any(|smaller| resilient.binary_search(&smaller).is_ok())
            };
            let minimal: Vec<usize> = resilient.iter().copied().filter(is_minimal).collect();
            let told = side.resilient_quorums(failures, minimal.len());
            let told = told.expect("so many");
            let mut told: Vec<_> = told.iter().map(|quorum| set_of(quorum)).collect();
            told.sort_unstable();
            prop_assert_eq!(&told, &minimal);
            if let Some(fewer) = minimal.len().checked_sub(1) {
                prop_assert!(side.resilient_quorums(failures, fewer).is_none());
            }
        }
    }
    Ok(())
}

/// How probable it is that there is no quorum, where the nodes are down with any probabilities.
fn fails_as_often(system: &Quorums, looked: &Looked, lots: &[(usize, usize)]) -> TestCaseResult {
    // Some nodes are never down, some are always, and most are now and then.
    let chance = |node: usize| match lots[node % lots.len()].0 % 7 {
        0 => 0.0,
        1 => 1.0,
        more => more as f64 * 0.01 + node as f64 * 0.001,
    };
    let down = |id: NodeId| chance(nodes_of(set_of(&[id])).next().expect("it is named"));
    let probability = |set: usize| -> f64 {
        let nodes = nodes_of(looked.nodes).map(|node| match set >> node & 1 {
            0 => chance(node),
            _ => 1.0 - chance(node),
        });
        nodes.product()
    };
    let [read, write, both] = [[0, 0], [1, 1], [0, 1]].map(|kinds: [usize; 2]| -> f64 {
        let sets = (0..1 << MOST).filter(|set| set & !looked.nodes == 0);
        let none = sets.filter(|set| !kinds.iter().all(|kind| looked.has[*kind][*set]));
        none.map(probability).sum()
    });
    let rules = [system.read().rule(), system.write().rule()];
    let told = [
        (
            system.read().failure_probability(down),
            read,
            rules[0].clone(),
        ),
        (
            system.write().failure_probability(down),
            write,
            rules[1].clone(),
        ),
        (
            system.failure_probability(down),
            both,
            rules[0].both(rules[1]),
        ),
    ];
    for (told, looked, rule) in told {
        // Small ones are as exact as others, whatever way they are known by.
        let nodes = system.nodes();
        let chances: Vec<f64> = nodes.iter().map(|id| down(*id)).collect();
        let by_table = Table::of(&rule, nodes.len()).probability_of_none(&chances);
        let node_by_node = match rule {
            Rule::Votes { .. } => None,
            _ => failure::node_by_node(&rule, &chances),
        };
        for told in [
            told.expect("it is known"),
            by_table,
            node_by_node.unwrap_or(looked),
        ] {
            prop_assert!((told - looked).abs() <= looked * 1e-9, "{told} {looked}");
        }
    }
    for wrong in [-0.1, 1.1, f64::NAN] {
        prop_assert!(system.failure_probability(|_| wrong).is_none());
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_systems_agree_with_a_look_at_all_sets(
        made in any_system(),
        lots in proptest::collection::vec((0..1usize << MOST, 0..1usize << MOST), 8),
    ) {
        agrees(&made, &lots)?;
    }

    #[test]
    fn what_is_known_by_formula_is_found_set_by_set(made in any_system()) {
        let Ok(system) = made.build() else {
            return Ok(());
        };
        let nodes = system.nodes().len();
        let [read, write] = [system.read().rule(), system.write().rule()];
        let tables = [read, write].map(|rule| Table::of(rule, nodes));
        let (shared, _) = table::fewest_shared([read, write], tables.each_ref());
        prop_assert!(shared >= system.overlap() && shared > 0);
        for (at, side) in [system.read(), system.write()].into_iter().enumerate() {
            let rule = side.rule();
            let blocking = table::fewest_blocking(&tables[at]).len();
            prop_assert_eq!(side.resilience(), blocking.checked_sub(1));
            prop_assert_eq!(&rule.dual().dual(), rule);
        }
    }
}

#[test]
fn families_are_proven_by_formula_at_any_size() {
    let thousand = || 1..=1000u32;
    let grouped = || (0..10u32).map(|group| (0..100).map(move |node| group * 100 + node));
    let legal = "its quorums meet";
    let systems = [
        ("majority", Quorums::majority(thousand()), 2, 2, 499),
        ("all", Quorums::all(thousand()), 1000, 1000, 0),
        (
            "read one",
            Quorums::read_one_write_all(thousand()),
            1,
            1000,
            0,
        ),
        (
            "flexible",
            Quorums::flexible(thousand(), 100, 910),
            10,
            820,
            90,
        ),
        (
            "weighted",
            Quorums::weighted(thousand().map(|id| (id, 3))),
            1,
            1,
            499,
        ),
        ("grid", Quorums::grid(grouped()), 1, 2, 9),
        // Six groups, of 51 nodes each, of which two groups are shared, with two nodes each.
        ("groups", Quorums::hierarchical(grouped()), 4, 4, 249),
        (
            "signed",
            Quorums::dissemination(thousand(), 333),
            334,
            334,
            333,
        ),
        ("masking", Quorums::masking(thousand(), 249), 500, 500, 250),
    ];
    for (family, system, shared, shared_by_writes, resilience) in systems {
        let system = system.expect(legal);
        assert_eq!(system.proof(), Proof::Formula, "{family}");
        assert_eq!(system.nodes().len(), 1000, "{family}");
        assert_eq!(system.overlap(), shared, "{family}");
        assert_eq!(system.write_overlap(), shared_by_writes, "{family}");
        assert_eq!(system.resilience(), Some(resilience), "{family}");
    }
    let apart = Quorums::threshold(thousand(), 500).expect_err("two halves");
    let [one, other] = apart.quorums().expect("it has them");
    assert_eq!((one.len(), other.len()), (500, 500));
    assert!(one.iter().all(|node| !other.contains(node)));
    assert!(apart.to_string().len() < 300, "{apart}");
}

/// Of so many nodes any two in a row, each of which is named twice.
fn ring(nodes: u32) -> Expression {
    let node = Expression::node;
    Expression::any_of((0..nodes).map(|at| node(at) & node((at + 1) % nodes)))
}

#[test]
fn expressions_are_looked_at_set_by_set_up_to_twenty_nodes() {
    // Each write has one of any two neighbours, which two expressions say differently.
    let every_other = |nodes: u32| {
        let node = Expression::node;
        Expression::all_of((0..nodes).map(|at| node((at + 1) % nodes) | node(at)))
    };
    for nodes in [19, 20] {
        let apart = Quorums::new(ring(nodes), every_other(nodes) | 99);
        let apart = apart.expect_err("node 99 is in no read");
        assert!(apart.quorums().is_some(), "{apart}");
    }
    let system = Quorums::new(ring(20), every_other(20) & ring(20)).expect("they meet");
    assert_eq!(system.proof(), Proof::Enumeration { sets: 1 << 20 });
    assert_eq!((system.overlap(), system.resilience()), (1, Some(1)));

    // One node more, and only what is dual by its form is known.
    let system = Quorums::new(ring(21), every_other(21) & ring(21)).expect("nothing is found");
    assert_eq!(system.proof(), Proof::Unproven);
    assert_eq!((system.overlap(), system.resilience()), (0, None));
    let system = Quorums::from_reads(ring(1000)).expect("they meet");
    assert_eq!((system.proof(), system.overlap()), (Proof::Formula, 1));
    let apart = system.clone().with_overlap(2).expect_err("they share one");
    assert!(apart.quorums().is_some(), "{apart}");
    assert_eq!(
        system.tolerating(1).expect("nothing is found").proof(),
        Proof::Unproven
    );

    // Groups that say each node once are counted, whatever their size.
    let groups = |of: usize, each: usize| {
        let group =
            move |at: u32| Expression::at_least(each, (0..9).map(move |node| at * 9 + node));
        Expression::at_least(of, (0..9).map(group))
    };
    let system = Quorums::new(groups(2, 4), groups(8, 7)).expect("they meet");
    assert_eq!((system.proof(), system.overlap()), (Proof::Formula, 2));
    let apart = Quorums::new(groups(2, 4), groups(7, 7)).expect_err("no group is shared");
    assert!(apart.quorums().is_some(), "{apart}");
}

#[test]
fn a_closer_look_finds_what_votes_do_not_tell() {
    // Two of three nodes, by votes of which three are half: two nodes are shared by no formula.
    let system = Quorums::weighted_thresholds([(1, 2), (2, 2), (3, 2)], 5, 4).expect("legal");
    assert_eq!((system.proof(), system.overlap()), (Proof::Formula, 2));
    // Fewer than the votes ask for, and still no two quorums miss each other.
    let system = Quorums::weighted_thresholds([(1, 3), (2, 1)], 2, 2).expect("node 1 is in all");
    assert_eq!(system.proof(), Proof::Enumeration { sets: 4 });
    let apart = Quorums::weighted_thresholds((1..=30).map(|id| (id, 7)), 100, 100);
    let apart = apart.expect_err("fifteen nodes are enough");
    assert!(apart.quorums().is_some(), "{apart}");
    let many = || (1..=30).map(|id| (id, 7));
    let system = Quorums::weighted_thresholds(many(), 106, 105).expect("more than all votes");
    let system = system.with_overlap(2).expect("nothing is found");
    assert_eq!(system.proof(), Proof::Unproven);
}

#[test]
fn what_makes_no_sense_is_told() {
    let none: [u32; 0] = [];
    let nested = |depth: usize| {
        (0..depth).fold(Expression::node(1), |inner, at| match at % 2 {
            0 => inner & 2,
            _ => inner | 3,
        })
    };
    for (wrong, says) in [
        (Quorums::majority(none), "no node"),
        (Quorums::majority([1, 2, 1]), "node 1 is named twice"),
        (Quorums::threshold([1, 2], 0), "0 of 2"),
        (Quorums::threshold([1, 2], 3), "3 of 2"),
        (Quorums::flexible([1, 2, 3], 0, 3), "0 of 3"),
        (Quorums::grid([vec![1, 2], vec![3]]), "2 and of 1"),
        (Quorums::grid([vec![1], vec![]]), "has no node"),
        (Quorums::hierarchical([[1, 2], [2, 3]]), "2 is named twice"),
        (Quorums::weighted([(1, 0)]), "0 votes"),
        (Quorums::weighted([(1, u64::MAX), (2, 1)]), "overflows"),
        (
            Quorums::dissemination([1, 2, 3], 1),
            "1 of 2 nodes in common",
        ),
        (Quorums::masking([1, 2, 3, 4], 1), "2 of 3 nodes in common"),
        (Quorums::masking([1], usize::MAX), "no honest one"),
        (Quorums::from_reads(Expression::any_of(none)), "1 of 0"),
        (Quorums::from_reads(Expression::all_of(none) & 1), "0 of 0"),
        (Quorums::from_reads(Expression::at_least(0, [1])), "0 of 1"),
        (
            Quorums::from_reads(Expression::at_least(3, [1, 2])),
            "3 of 2",
        ),
        (
            Quorums::from_reads(Expression::any_of(0..)),
            "more than 4096",
        ),
        (Quorums::from_reads(nested(1_000_000)), "64 deep"),
        (
            Quorums::new(1, 2),
            "read quorum {1} and the write quorum {2} miss",
        ),
    ] {
        let error = wrong.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(Quorums::from_reads(nested(64)).is_ok());
}

#[test]
fn nothing_is_allocated_for_what_a_reply_asks_up_to_64_nodes() {
    let ids = || 1..=64u32;
    let rows = || (0..8).map(|row| (1..=8).map(move |node| row * 8 + node));
    let configuration = Configuration::unconnected(64);
    let systems = [
        Quorums::majority(ids()),
        Quorums::weighted(ids().map(|id| (id, u64::from(id)))),
        Quorums::grid(rows()),
        Quorums::hierarchical(rows()),
        Quorums::masking(ids(), 15),
        Quorums::from_writes(ring(64)),
    ];
    for system in systems {
        let system = system.expect("its quorums meet");
        let measured = allocation_counter::measure(|| {
            for side in [system.read(), system.write()] {
                let mut answered = Bits::default();
                let mut became = None;
                for position in 0..64 {
                    answered.insert(position);
                    if side.is_quorum(&NodeSet::new(&configuration, &answered)) {
                        became.get_or_insert(position);
                    }
                }
                assert!(became.is_some() && side.can_still_become_one(ids(), ids()));
                assert!(!side.can_still_become_one([0; 0], ids()));
            }
        });
        assert_eq!(measured.count_total, 0, "{system:?}");
    }
}

#[test]
fn more_than_64_nodes_are_told_apart() {
    let configuration = Configuration::unconnected(200);
    let system = Quorums::majority(1..=200u32).expect("legal");
    let with = |positions: std::ops::Range<usize>| {
        let members: Bits = positions.collect();
        system
            .write()
            .is_quorum(&NodeSet::new(&configuration, &members))
    };
    assert!(with(99..200) && !with(100..200) && with(0..101) && !with(30..130));
    assert!(!system.read().can_still_become_one([0; 0], 1..=100u32));
    assert!(system.read().can_still_become_one([0; 0], 1..=99u32));
    assert!(system.read().can_still_become_one([100u32], 1..=100u32));
}

#[test]
fn how_often_large_systems_fail_is_known_by_formula() {
    let (ids, one_in_ten) = (|| 1..=1000u32, |_: NodeId| 0.1);
    let known = |system: Result<Quorums, QuorumSystemError>| {
        let system = system.expect("its quorums meet");
        let sides = [system.read(), system.write()];
        let [read, write] = sides.map(|side| side.failure_probability(one_in_ten).expect("known"));
        let both = system.failure_probability(one_in_ten).expect("known");
        let least = read.max(write);
        assert!(least * (1.0 - 1e-9) <= both && both <= (read + write) * (1.0 + 1e-9));
        [read, write]
    };
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-9;
    let [read, write] = known(Quorums::read_one_write_all(ids()));
    // It is less than any number that there is.
    assert_eq!(read, 0.0);
    assert!(near(write, 1.0 - 0.9f64.powi(1000)));
    // Each of them has one vote, which is as if they were counted.
    let votes = ids().map(|id| (id, 1));
    let [counted, weighed] = [Quorums::majority(ids()), Quorums::weighted(votes)].map(known);
    assert!(near(counted[0], weighed[0]) && counted[0] < 1e-200 && counted[0] > 0.0);
    // A row of a grid is whole, or all of it is down, independently of the others.
    let rows = (0..10u32).map(|row| (1..=10).map(move |node| row * 10 + node));
    let [read, write] = known(Quorums::grid(rows));
    let (whole, down) = (0.9f64.powi(10), 0.1f64.powi(10));
    let none_down = 1.0 - (1.0 - down).powi(10);
    assert!((write - none_down - (1.0 - whole - down).powi(10)).abs() < 1e-12);
    let no_whole = (1.0 - whole).powi(10);
    assert!((read - no_whole + (1.0 - whole - down).powi(10)).abs() < 1e-12);
    // Nothing is as regular of nodes that each take part in four of a hundred gates.
    let gates = (1..=100u32).map(|gate| {
        let nodes = [7, 31, 57, 83].map(|step| gate * step % 101);
        Expression::all_of(nodes)
    });
    let tangled = Quorums::from_reads(Expression::any_of(gates)).expect("its dual");
    assert_eq!(tangled.read().failure_probability(one_in_ten), None);
}

#[test]
fn sets_that_may_lose_nodes_are_known_for_what_is_counted_at_any_size() {
    let all = |system: &Quorums, failures| system.write().resilient_quorums(failures, 2000);
    let pair = Quorums::flexible(1..=40u32, 3, 38).expect("legal");
    let write = all(&pair, 1).expect("it is counted");
    assert!(write.len() == 40 && write.iter().all(|quorum| quorum.len() == 39));
    assert_eq!(all(&pair, 3), Some(Vec::new()));
    assert_eq!(all(&pair, usize::MAX), Some(Vec::new()));
    // Two large ones and forty small ones: without the largest, the rest has to have enough.
    let votes = (1..=42u32).map(|id| (id, if id < 3 { 30 } else { 1 }));
    let weighted = Quorums::weighted_thresholds(votes, 61, 70).expect("legal");
    let write = all(&weighted, 1).expect("they are few");
    assert_eq!(write, [(1..=42).map(NodeId::from).collect::<Vec<_>>()]);
    let zones = (0..9u32).map(|zone| (1..=3).map(move |node| zone * 3 + node));
    let zones = Quorums::hierarchical(zones).expect("legal");
    assert_eq!(all(&zones, 1), None);
}
