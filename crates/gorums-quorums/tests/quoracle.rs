//! What Quoracle's tutorial, its paper and its tests compute, and what the literature knows by formula.
//! They are at <https://github.com/mwhittaker/quoracle>, which has the examples of the paper as programs.
#![allow(missing_docs)]

use std::time::Duration;

use gorums::NodeId;
use gorums::quorum::{Expression, Quorums};
use gorums_quorums::{AnalysisError, Capacities, Latencies, ReadFraction, Strategies, Strategy};

/// Two rows of three nodes: reads of a row, writes of a node of each.
fn grid() -> Quorums {
    let node = Expression::node;
    Quorums::from_reads(node(1) & 2 & 3 | node(4) & 5 & 6).expect("a row meets each")
}

fn reads(share: f64) -> ReadFraction {
    ReadFraction::of(share).expect("from 0 to 1")
}

fn one_each() -> Capacities {
    Capacities::each(1.0).expect("above zero")
}

fn best(system: &Quorums, share: f64, capacities: &Capacities) -> Strategy {
    let all = Strategies::of(system).with_capacities(capacities.clone());
    all.least_load(&reads(share)).expect("it is solved")
}

#[track_caller]
fn assert_near(found: f64, published: f64) {
    let off = (found - published).abs() / published;
    assert!(off < 1e-6, "{found} in the place of {published}");
}

#[test]
fn the_resilience_of_the_grid() {
    let grid = grid();
    assert_eq!(grid.read().resilience(), Some(1));
    assert_eq!(grid.write().resilience(), Some(2));
    assert_eq!(grid.resilience(), Some(1));
}

#[test]
fn a_strategy_by_hand_has_the_load_of_its_busiest_node() {
    let quorum = |nodes: &[u32]| nodes.iter().map(|node| NodeId::from(*node)).collect();
    let rows = [(quorum(&[1, 2, 3]), 2.0), (quorum(&[4, 5, 6]), 1.0)];
    let columns = [[1, 4], [2, 5], [3, 6]].map(|column| (quorum(&column), 1.0));
    let strategy = Strategies::of(&grid()).by_weights(rows.clone(), columns);
    let strategy = strategy.expect("they are quorums");
    assert_near(strategy.load(&reads(1.0)), 2.0 / 3.0);
    assert_near(strategy.load(&reads(0.0)), 1.0 / 3.0);
    assert_near(strategy.load(&reads(0.25)), 5.0 / 12.0);
    for node in 1..=3u32 {
        assert_near(strategy.node_load(node, &reads(0.25)), 5.0 / 12.0);
        assert_near(strategy.node_load(node + 3, &reads(0.25)), 1.0 / 3.0);
    }
    // By a number from 0 to 1 each is chosen as often.
    let row = |number: f64| strategy.read_at(number)[0].get();
    assert_eq!([0.0, 0.66, 0.67, 1.0, 2.0].map(row), [1, 1, 4, 4, 4]);
    let column = |number: f64| strategy.write_at(number)[0].get();
    assert_eq!([0.0, 0.34, 0.67, 1.0].map(column), [1, 2, 3, 3]);
    let no_column = [(quorum(&[1, 2]), 1.0)];
    let refused = Strategies::of(&grid()).by_weights(rows, no_column);
    assert!(refused.is_err());
}

#[test]
fn the_best_strategy_of_the_grid() {
    let strategy = best(&grid(), 0.25, &one_each());
    assert_near(strategy.load(&reads(0.25)), 3.0 / 8.0);
    assert_near(strategy.capacity(&reads(0.25)), 8.0 / 3.0);
    let rows: Vec<_> = strategy.reads().collect();
    assert_eq!(rows.len(), 2);
    rows.iter().for_each(|(_, share)| assert_near(*share, 0.5));
    // On other workloads.
    assert_near(strategy.load(&reads(0.0)), 1.0 / 3.0);
    assert_near(strategy.load(&reads(0.5)), 5.0 / 12.0);
    assert_near(strategy.load(&reads(1.0)), 1.0 / 2.0);
}

#[test]
fn a_share_of_reads_that_changes() {
    let changing = ReadFraction::distribution([(0.1, 1.0), (0.75, 1.0)]).expect("legal");
    let strategy = Strategies::of(&grid())
        .least_load(&changing)
        .expect("it is solved");
    // Published as 0.404.
    assert_eq!(format!("{:.3}", strategy.load(&changing)), "0.404");
}

#[test]
fn nodes_of_different_capacity() {
    let slow = [2u32, 4, 6];
    let capacities = slow.iter().try_fold(
        Capacities::each(1000.0).expect("above zero"),
        |capacities, node| capacities.with(*node, 500.0),
    );
    let strategy = best(&grid(), 0.75, &capacities.expect("above zero"));
    assert_near(strategy.load(&reads(0.75)), 0.00075);
    // Published as 1333.
    assert_eq!(strategy.capacity(&reads(0.75)).floor(), 1333.0);
}

#[test]
fn nodes_that_read_faster_than_they_write() {
    let rates = [
        (1u32, 1.0),
        (2, 0.5),
        (3, 1.0),
        (4, 0.5),
        (5, 1.0),
        (6, 0.5),
    ];
    let capacities = rates
        .iter()
        .try_fold(one_each(), |capacities, (node, rate)| {
            capacities.with_rates(*node, 10_000.0 * rate, 1000.0 * rate)
        });
    let capacities = capacities.expect("above zero");
    // Published as 10,000, 3913 and 2000.
    for (share, published) in [(1.0, 10_000.0), (0.5, 3913.0), (0.0, 2000.0)] {
        let strategy = best(&grid(), share, &capacities);
        assert_eq!(strategy.capacity(&reads(share)).round(), published);
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[track_caller]
fn assert_latency(strategy: &Strategy, share: f64, published: f64) {
    assert_near(strategy.latency(&reads(share)).as_secs_f64(), published);
}

/// The second to the fourth example of the paper: a and b can do twice what c and d can.
fn two_by_two() -> (Quorums, Capacities) {
    let node = Expression::node;
    let system = Quorums::from_reads(node(1) & 2 | node(3) & 4).expect("its dual");
    let capacities = [1u32, 2].iter().try_fold(
        Capacities::each_rates(100.0, 50.0).expect("above zero"),
        |capacities, node| capacities.with_rates(*node, 200.0, 100.0),
    );
    (system, capacities.expect("above zero"))
}

#[test]
fn the_capacities_of_the_paper() {
    let majority = Quorums::majority(1..=3u32).expect("legal");
    assert_near(best(&majority, 1.0, &one_each()).capacity(&reads(1.0)), 1.5);
    let (system, capacities) = two_by_two();
    for (share, published) in [(1.0, 300.0), (0.5, 200.0), (0.0, 100.0)] {
        let strategy = best(&system, share, &capacities);
        assert_near(strategy.capacity(&reads(share)), published);
    }
    // With other rows, of a workload that is mostly writes.
    let node = Expression::node;
    let system = Quorums::from_reads(node(1) & 3 | node(2) & 4).expect("its dual");
    let changing = [
        (0.0, 10.0),
        (0.25, 4.0),
        (0.5, 2.0),
        (0.75, 1.0),
        (1.0, 1.0),
    ];
    let changing = ReadFraction::distribution(changing).expect("legal");
    let all = Strategies::of(&system).with_capacities(capacities);
    let strategy = all.least_load(&changing).expect("it is solved");
    // Published as 159.
    assert_eq!(strategy.capacity(&changing).round(), 159.0);
}

#[test]
fn the_resilient_strategies_of_the_paper() {
    let (grid, capacities) = two_by_two();
    let node = Expression::node;
    let pairs = Expression::at_least(2, [node(1), node(2), node(3), node(4)]);
    let pairs = Quorums::from_reads(pairs).expect("its dual");
    for (system, failures, published) in [
        (&grid, 0, 300.0),
        (&pairs, 0, 300.0),
        (&grid, 1, 100.0),
        (&pairs, 1, 200.0),
    ] {
        let all = Strategies::of(system).with_capacities(capacities.clone());
        let strategy = all
            .tolerating(failures)
            .least_load(&reads(1.0))
            .expect("it is solved");
        assert_near(strategy.capacity(&reads(1.0)), published);
    }
}

#[test]
fn the_latencies_of_the_paper() {
    let (system, capacities) = two_by_two();
    let latencies = Latencies::each(seconds(1))
        .with(1, seconds(4))
        .with(2, seconds(4));
    let all = Strategies::of(&system)
        .with_capacities(capacities)
        .with_latencies(latencies);
    let strategy = all.least_load(&reads(1.0)).expect("it is solved");
    assert_near(strategy.capacity(&reads(1.0)), 300.0);
    assert_near(strategy.network_load(&reads(1.0)), 2.0);
    assert_latency(&strategy, 1.0, 3.0);
    let bounded = all
        .with_load_at_most(1.0 / 150.0)
        .with_network_load_at_most(2.0);
    let strategy = bounded.least_latency(&reads(1.0)).expect("it is solved");
    let quorum = |nodes: [u32; 2]| nodes.map(NodeId::from).to_vec();
    let mut chosen: Vec<_> = strategy
        .reads()
        .map(|(quorum, share)| (quorum.to_vec(), share))
        .collect();
    chosen.sort_by(|one, other| one.0.cmp(&other.0));
    let (quorums, shares): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
    assert_eq!(quorums, [quorum([1, 2]), quorum([3, 4])]);
    assert_near(shares[0], 1.0 / 3.0);
    assert_near(shares[1], 2.0 / 3.0);

    // What the search finds best there: any one node.
    let any = Quorums::from_reads(Expression::any_of([1, 2, 3, 4])).expect("its dual");
    let latencies = Latencies::each(seconds(1))
        .with(1, seconds(4))
        .with(2, seconds(4));
    let any = Strategies::of(&any)
        .with_capacities(two_by_two().1)
        .with_latencies(latencies)
        .with_load_at_most(1.0 / 150.0);
    let strategy = any.least_latency(&reads(1.0)).expect("it is solved");
    assert_near(strategy.network_load(&reads(1.0)), 1.0);
    assert_latency(&strategy, 1.0, 1.0);
}

#[test]
fn bounds_on_load_latency_and_network_load_as_in_the_tests_of_quoracle() {
    let node = Expression::node;
    let system = Quorums::from_reads(node(1) & 2 | node(3) & 4).expect("its dual");
    let latencies = (1..=4u32).fold(Latencies::default(), |latencies, node| {
        latencies.with(node, seconds(node.into()))
    });
    let all = Strategies::of(&system)
        .with_capacities(Capacities::each_rates(2.0, 1.0).expect("above zero"))
        .with_latencies(latencies);
    let (only_reads, only_writes) = (reads(1.0), reads(0.0));
    let load = |strategies: &Strategies, reads: &ReadFraction| {
        strategies
            .least_load(reads)
            .expect("it is solved")
            .load(reads)
    };
    let bounded = [
        all.clone(),
        all.clone().with_network_load_at_most(2.0),
        all.clone().with_latency_at_most(seconds(4)),
    ];
    for strategies in &bounded {
        assert_near(load(strategies, &only_reads), 0.25);
        assert_near(load(strategies, &only_writes), 0.5);
    }
    for strategies in [all.clone(), all.clone().with_latency_at_most(seconds(3))] {
        for reads in [&only_reads, &only_writes] {
            let fewest = strategies.least_network_load(reads).expect("it is solved");
            assert_near(fewest.network_load(reads), 2.0);
        }
    }
    let any_load = all.clone().with_load_at_most(1.0);
    let two_nodes = all.clone().with_network_load_at_most(2.0);
    for strategies in [all.clone(), any_load, two_nodes] {
        for (share, published) in [(1.0, 2.0), (0.0, 3.0)] {
            let fastest = strategies
                .least_latency(&reads(share))
                .expect("it is solved");
            assert_latency(&fastest, share, published);
        }
    }
    // Where any node may fail, all four are needed, and the first two that are a quorum are enough.
    let resilient = all.clone().tolerating(1);
    for (share, published, latency) in [(1.0, 0.5, 2.0), (0.0, 1.0, 3.0)] {
        assert_near(load(&resilient, &reads(share)), published);
        let fastest = resilient
            .least_latency(&reads(share))
            .expect("it is solved");
        assert_latency(&fastest, share, latency);
        assert_near(fastest.network_load(&reads(share)), 4.0);
    }
    let second = seconds(1);
    let impossible = [
        all.clone()
            .with_network_load_at_most(1.5)
            .least_load(&only_writes),
        all.clone()
            .with_latency_at_most(second)
            .least_load(&only_writes),
        all.with_load_at_most(0.25)
            .with_latency_at_most(second * 2)
            .least_network_load(&only_reads),
    ];
    for strategy in impossible {
        let error = strategy.expect_err("it is out of bounds").to_string();
        assert!(error.contains("within the bounds"), "{error}");
    }
}

#[test]
fn loads_that_are_known_by_formula() {
    for n in [1u32, 3, 4, 5, 9, 13] {
        // Naor and Wool: of n nodes each is in as many majorities.
        let majority = Quorums::majority(1..=n).expect("legal");
        let needed = f64::from(n / 2 + 1);
        assert_near(
            best(&majority, 0.3, &one_each()).load(&reads(0.3)),
            needed / f64::from(n),
        );
    }
    // Each read is of one node, and each write of all.
    let pair = Quorums::read_one_write_all(1..=5u32).expect("legal");
    for share in [0.0, 0.5, 0.9, 1.0] {
        let load = share / 5.0 + (1.0 - share);
        assert_near(best(&pair, share, &one_each()).load(&reads(share)), load);
    }
    // Cheung et al.: a write of a row and of a column.
    let square = Quorums::grid([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).expect("legal");
    assert_near(best(&square, 0.0, &one_each()).load(&reads(0.0)), 5.0 / 9.0);
    assert_near(best(&square, 1.0, &one_each()).load(&reads(1.0)), 1.0 / 3.0);
    // Kumar: four of nine nodes.
    let zones = Quorums::hierarchical([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).expect("legal");
    assert_near(best(&zones, 0.5, &one_each()).load(&reads(0.5)), 4.0 / 9.0);
}

#[test]
fn what_makes_no_sense_is_told() {
    let majority = Quorums::majority(1..=15u32).expect("legal");
    let strategy = Strategies::of(&majority).least_load(&reads(0.5));
    let least = |strategies: Strategies| strategies.least_load(&reads(0.5)).map(drop);
    let grid = || Strategies::of(&grid());
    let resilient = [NodeId::from(1), NodeId::from(4)];
    let by_hand = grid()
        .tolerating(1)
        .by_weights([], [(resilient.to_vec(), 1.0)]);
    let no_weight = ReadFraction::distribution([(0.5, 0.0)]);
    let errors: [(Result<(), AnalysisError>, &str); 12] = [
        (ReadFraction::of(1.5).map(drop), "from 0 to 1"),
        (ReadFraction::of(f64::NAN).map(drop), "from 0 to 1"),
        (no_weight.map(drop), "no sum"),
        (Capacities::each(0.0).map(drop), "more than zero"),
        (Capacities::each(f64::INFINITY).map(drop), "more than zero"),
        (strategy.map(drop), "more than 2048"),
        (
            least(grid().tolerating(2)),
            "no set of all 6 nodes is a read quorum where any 2",
        ),
        (least(grid().with_load_at_most(0.2)), "within the bounds"),
        (
            least(grid().with_load_at_most(f64::NAN)),
            "a number above zero",
        ),
        (
            least(grid().with_network_load_at_most(0.0)),
            "a number above zero",
        ),
        (
            least(grid().with_network_load_at_most(1.9)),
            "within the bounds",
        ),
        (by_hand.map(drop), "have a sum"),
    ];
    for (result, says) in errors {
        let error = result.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// The five nodes of the paper's case study, and how its workload changes.
fn case_study(system: &Quorums) -> (Strategies, ReadFraction) {
    let capacities = [2u32, 4].iter().try_fold(
        Capacities::each_rates(4000.0, 2000.0).expect("above zero"),
        |capacities, node| capacities.with_rates(*node, 2000.0, 1000.0),
    );
    let latencies = [(1u32, 1), (2, 1), (3, 3), (4, 4), (5, 5)];
    let latencies = latencies
        .iter()
        .fold(Latencies::default(), |latencies, (node, time)| {
            latencies.with(*node, seconds(*time))
        });
    let weights = [
        0.0, 20.0, 30.0, 30.0, 60.0, 100.0, 100.0, 100.0, 20.0, 10.0, 0.0,
    ];
    let tenths = (0..=10u32).map(|tenth| f64::from(tenth) / 10.0);
    let reads = ReadFraction::distribution(tenths.zip(weights)).expect("legal");
    let all = Strategies::of(system)
        .with_capacities(capacities.expect("above zero"))
        .with_latencies(latencies);
    (all, reads)
}

/// What Quoracle computes of the program of its case study (`examples/case_study.py`).
#[test]
fn the_case_study_of_the_paper() {
    let node = Expression::node;
    let paths = node(1) & 2 | node(1) & 3 & 5 | node(4) & 5 | node(4) & 3 & 2;
    let majority = Quorums::majority(1..=5u32);
    let (all, changing) = case_study(majority.as_ref().expect("legal"));
    let uniform = all.uniform().expect("they are few");
    assert_near(uniform.capacity(&changing), 2_291.602_355);
    assert_near(uniform.latency(&changing).as_secs_f64(), 4.5);
    let systems = [
        (majority, 3_666.563_768, 2_749.922_826, 3.238_297_872),
        // A staggered grid.
        (
            Quorums::from_reads(node(1) & 2 | node(3) & 4 & 5),
            4_200.216_121,
            1_374.961_413,
            1.953_191_489,
        ),
        (
            Quorums::from_reads(paths),
            4_124.884_239,
            1_374.961_413,
            2.433_569_740,
        ),
    ];
    for (system, capacity, resilient, latency) in systems {
        let system = system.expect("legal");
        assert!(system.resilience() >= Some(1));
        let (all, changing) = case_study(&system);
        let best = all.least_load(&changing).expect("it is solved");
        assert_near(best.capacity(&changing), capacity);
        // Where any node of a set may fail.
        let best = all.clone().tolerating(1).least_load(&changing);
        assert_near(best.expect("it is solved").capacity(&changing), resilient);
        // The nodes can do 2,000 operations together, still.
        let fastest = all.with_load_at_most(1.0 / 2000.0).least_latency(&changing);
        let fastest = fastest.expect("it is solved");
        assert_near(fastest.latency(&changing).as_secs_f64(), latency);
    }
}
