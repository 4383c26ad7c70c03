//! How probable it is that there is no quorum.
#![allow(missing_docs)]

use std::time::Duration;

use gorums::quorum::{Expression, QuorumSystemError, Quorums};
use gorums_quorums::{AnalysisError, FailureProbability, FaultCurve, Faults};

const NOW: Duration = Duration::ZERO;
const DAY: Duration = Duration::from_secs(86_400);

fn constant(probability: f64) -> FaultCurve {
    FaultCurve::constant(probability).expect("from 0 to 1")
}

fn failure(system: Result<Quorums, QuorumSystemError>, faults: &Faults) -> FailureProbability {
    let system = system.expect("its quorums meet");
    faults.failure(&system, NOW).expect("it is known")
}

fn either(failure: &FailureProbability) -> f64 {
    failure.either.expect("it is known")
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    let off = (found - expected).abs() / expected;
    assert!(off < 1e-9, "{found} in the place of {expected}");
}

#[test]
fn majorities_fail_as_often_as_more_than_half_of_their_nodes_do() {
    let faults = Faults::each(constant(0.01));
    let three = failure(Quorums::majority(1..=3u32), &faults);
    let expected = 3.0 * 0.01f64.powi(2) * 0.99 + 0.01f64.powi(3);
    for found in [three.reads, three.writes, either(&three)] {
        assert_near(found, expected);
    }
    // What is improbable is as exact: three of five nodes, at one in a million each.
    let rare = Faults::each(constant(1e-6));
    let five = failure(Quorums::majority(1..=5u32), &rare);
    let (down, up) = (1e-6f64, 1.0 - 1e-6f64);
    let expected = 10.0 * down.powi(3) * up.powi(2) + 5.0 * down.powi(4) * up + down.powi(5);
    assert_near(five.writes, expected);
}

#[test]
fn a_node_of_its_own_curve_counts_by_it() {
    let faults = Faults::each(constant(0.0))
        .with(2, constant(1.0))
        .with(3, constant(0.25));
    let pair = failure(Quorums::flexible(1..=3u32, 1, 3), &faults);
    assert!(pair.reads == 0.0 && pair.writes == 1.0 && either(&pair) == 1.0);
    let two = failure(Quorums::majority(1..=3u32), &faults);
    assert_near(either(&two), 0.25);
    // Votes are worth what their nodes are.
    let votes = failure(Quorums::weighted([(1, 1), (2, 1), (3, 3)]), &faults);
    assert_near(votes.reads, 0.25);
}

#[test]
fn reads_and_writes_fail_together_or_not() {
    // Two rows of two: a read is of a row, and a write has a node of each.
    let node = Expression::node;
    let rows = Quorums::from_reads(node(1) & 2 | node(3) & 4);
    let found = failure(rows, &Faults::each(constant(0.1)));
    let whole = 0.9f64 * 0.9;
    assert_near(found.reads, (1.0 - whole) * (1.0 - whole));
    assert_near(found.writes, 1.0 - 0.99 * 0.99);
    // Both are there where a row is whole, and the other one is not down.
    assert_near(either(&found), 1.0 - (2.0 * whole * 0.99 - whole * whole));
}

#[test]
fn twenty_nodes_are_looked_at_set_by_set_and_more_are_counted() {
    let faults = Faults::each(constant(0.05));
    // A ring, each node of which is in two of the pairs, of which one is enough.
    let pairs = (1..=20u32).map(|node| Expression::all_of([node, node % 20 + 1]));
    let ring = failure(Quorums::from_reads(Expression::any_of(pairs)), &faults);
    assert!(ring.reads < ring.writes && ring.writes <= either(&ring));
    // No two nodes side by side are up: of the first node down, and of it up with both beside it down.
    let none_of_a_line = |nodes: usize| {
        let step = |(down, up): (f64, f64), _| (0.05 * (down + up), 0.95 * down);
        let (down, up) = (0..nodes).fold((1.0, 0.0), step);
        down + up
    };
    assert_near(
        ring.reads,
        0.05 * none_of_a_line(19) + 0.95 * 0.05 * 0.05 * none_of_a_line(17),
    );
    let many = failure(Quorums::majority(1..=101u32), &faults);
    assert!(either(&many) > 0.0 && either(&many) < 1e-30);
    // What a read and a write need together is known of fewer: here of none of a row of rows.
    let rows = (0..250u32).map(|row| Expression::all_of((1..=7).map(move |node| row * 7 + node)));
    let rows = failure(Quorums::from_reads(Expression::any_of(rows)), &faults);
    assert_near(rows.reads, (1.0 - 0.95f64.powi(7)).powi(250));
    assert_near(rows.writes, -(250.0 * (-0.05f64.powi(7)).ln_1p()).exp_m1());
    assert_eq!(rows.either, None);
    let zones = (0..25u32).map(|zone| (1..=5).map(move |node| zone * 5 + node));
    let zones = failure(Quorums::hierarchical(zones), &faults);
    let zone = failure(Quorums::majority(1..=5u32), &faults).reads;
    let of_zones = failure(Quorums::majority(1..=25u32), &Faults::each(constant(zone)));
    assert_near(zones.reads, of_zones.reads);
}

#[test]
fn curves_rise_as_they_are_known_to() {
    let year = 365 * DAY;
    let exponential = FaultCurve::exponential(4 * year).expect("legal");
    assert_near(exponential.at(year), 1.0 - (-0.25f64).exp());
    assert_near(
        exponential.at(Duration::from_nanos(1)),
        1e-9 / (4 * year).as_secs_f64(),
    );
    for shape in [0.5, 1.0, 3.0] {
        let curve = FaultCurve::weibull(year, shape).expect("legal");
        assert_near(curve.at(year), 1.0 - (-1.0f64).exp());
        assert_near(curve.at(year / 2), 1.0 - (-0.5f64.powf(shape)).exp());
        assert!(curve.at(NOW) == 0.0 && curve.at(Duration::MAX) == 1.0);
    }
    let repaired = FaultCurve::repaired(99 * DAY, DAY).expect("legal");
    assert_near(repaired.at(100 * year), 0.01);
    assert!(repaired.at(NOW) == 0.0 && repaired.at(DAY) < 0.01);
    // A system of nodes that are not repaired is worse from day to day.
    let faults = Faults::each(exponential);
    let system = Quorums::majority(1..=5u32).expect("legal");
    let fails = (0..8).map(|years| either(&faults.failure(&system, years * year).expect("known")));
    assert!(fails.collect::<Vec<_>>().is_sorted());
    assert_near(faults.node(3, year), exponential.at(year));
}

#[test]
fn what_makes_no_sense_is_told() {
    // Each of a hundred gates has four of a hundred nodes, each of which is in four.
    let gates = (1..=100u32).map(|gate| {
        let nodes = [7, 31, 57, 83].map(|step| gate * step % 101);
        Expression::all_of(nodes)
    });
    let tangled = Quorums::from_reads(Expression::any_of(gates)).expect("its dual");
    let unknown = Faults::each(constant(0.1)).failure(&tangled, NOW);
    let errors: [(Result<(), AnalysisError>, &str); 7] = [
        (FaultCurve::constant(1.1).map(drop), "from 0 to 1"),
        (FaultCurve::constant(f64::NAN).map(drop), "from 0 to 1"),
        (FaultCurve::exponential(NOW).map(drop), "above zero"),
        (FaultCurve::weibull(DAY, 0.0).map(drop), "shape"),
        (FaultCurve::weibull(DAY, f64::INFINITY).map(drop), "shape"),
        (FaultCurve::repaired(DAY, NOW).map(drop), "above zero"),
        (unknown.map(drop), "up to 20 nodes"),
    ];
    for (result, says) in errors {
        let error = result.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}
