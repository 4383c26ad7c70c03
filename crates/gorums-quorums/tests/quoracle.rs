//! What Quoracle's tutorial computes, and what the literature knows by formula.
//! The tutorial is <https://github.com/mwhittaker/quoracle#readme>.
#![allow(missing_docs)]

use gorums::NodeId;
use gorums::quorum::{Expression, Quorums};
use gorums_quorums::{Capacities, ReadFraction, Strategy, StrategyError};

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
    Strategy::best(system, &reads(share), capacities).expect("it is solved")
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
    let strategy = Strategy::by_weights(&grid(), rows.clone(), columns, &one_each());
    let strategy = strategy.expect("they are quorums");
    assert_near(strategy.load(&reads(1.0)), 2.0 / 3.0);
    assert_near(strategy.load(&reads(0.0)), 1.0 / 3.0);
    assert_near(strategy.load(&reads(0.25)), 5.0 / 12.0);
    for node in 1..=3u32 {
        assert_near(strategy.node_load(node, &reads(0.25)), 5.0 / 12.0);
        assert_near(strategy.node_load(node + 3, &reads(0.25)), 1.0 / 3.0);
    }
    let no_column = [(quorum(&[1, 2]), 1.0)];
    let refused = Strategy::by_weights(&grid(), rows, no_column, &one_each());
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
    let strategy = Strategy::best(&grid(), &changing, &one_each()).expect("it is solved");
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
    let strategy = Strategy::best(&majority, &reads(0.5), &one_each());
    let no_weight = ReadFraction::distribution([(0.5, 0.0)]);
    let errors: [(Result<(), StrategyError>, &str); 6] = [
        (ReadFraction::of(1.5).map(drop), "from 0 to 1"),
        (ReadFraction::of(f64::NAN).map(drop), "from 0 to 1"),
        (no_weight.map(drop), "no sum"),
        (Capacities::each(0.0).map(drop), "more than zero"),
        (Capacities::each(f64::INFINITY).map(drop), "more than zero"),
        (strategy.map(drop), "more than 2048"),
    ];
    for (result, says) in errors {
        let error = result.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}
