//! The best strategy is the best: no other one has less load, and none could have.
#![allow(missing_docs)]

use gorums::NodeId;
use gorums::quorum::{Expression, QuorumSets, Quorums};
use gorums_quorums::{Capacities, MOST_QUORUMS, ReadFraction, Strategy};
use proptest::prelude::*;
use proptest::strategy::Strategy as Lots;

/// What the solver may be off by, of loads around one.
const OFF: f64 = 1e-5;

/// Systems of nine nodes at the most.
fn systems() -> Vec<Quorums> {
    let node = Expression::node;
    // Of walls that crumble and of paths, in Quoracle's tutorial.
    let walls = node(1) & 2 | node(3) & 4 & 5;
    let paths = node(1) & 2 | node(1) & 3 & 5 | node(4) & 5 | node(4) & 3 & 2;
    let squares = || [[1, 2, 3], [4, 5, 6], [7, 8, 9]];
    let systems = [
        Quorums::majority(1..=5u32),
        Quorums::flexible(1..=6u32, 2, 5),
        Quorums::weighted([(1, 3), (2, 2), (3, 2), (4, 1), (5, 1)]),
        Quorums::grid(squares()),
        Quorums::hierarchical(squares()),
        Quorums::masking(1..=5u32, 1),
        Quorums::from_reads(walls),
        Quorums::from_reads(paths),
    ];
    let legal = systems
        .into_iter()
        .map(|system| system.expect("its quorums meet"));
    legal.collect()
}

fn minimal(sets: &QuorumSets) -> Vec<Vec<NodeId>> {
    sets.minimal_quorums(MOST_QUORUMS).expect("they are few")
}

/// Quorums, each with a weight of these.
fn weighed(sets: &QuorumSets, weights: &[u8]) -> Vec<(Vec<NodeId>, f64)> {
    let weights = weights
        .iter()
        .cycle()
        .map(|weight| f64::from(*weight) + 1.0);
    minimal(sets).into_iter().zip(weights).collect()
}

fn bytes() -> impl Lots<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 9)
}

proptest! {
    #[test]
    fn no_strategy_has_less_load_than_the_best(
        at in 0..8usize,
        percent in 0..=100u8,
        rates in bytes(),
        weights in bytes(),
        prices in bytes(),
    ) {
        let system = &systems()[at];
        let share = f64::from(percent) / 100.0;
        let reads = ReadFraction::of(share).expect("from 0 to 1");
        // Writes take twice as long.
        let rate = |node: NodeId| 0.5 + f64::from(rates[node.get() as usize - 1]) / 256.0;
        let capacities = system.nodes().iter().try_fold(
            Capacities::each(1.0).expect("above zero"),
            |capacities, node| capacities.with_rates(*node, rate(*node), rate(*node) / 2.0),
        );
        let capacities = capacities.expect("above zero");
        let best = Strategy::best(system, &reads, &capacities).expect("it is solved");
        let least = best.load(&reads);

        let [read, write] = [system.read(), system.write()].map(|sets| weighed(sets, &weights));
        let drawn = Strategy::by_weights(system, read, write, &capacities).expect("quorums");
        prop_assert!(least <= drawn.load(&reads) + OFF);

        // Whatever the nodes cost, the cheapest quorums cost no more than the load, as the busiest
        // node is as busy as all of them together, by their prices.
        let price = |node: NodeId| f64::from(prices[node.get() as usize - 1]) + 1.0;
        let sum: f64 = system.nodes().iter().map(|node| price(*node)).sum();
        let cheapest = |sets: &QuorumSets, slower: f64| {
            let costs = minimal(sets).into_iter().map(|quorum| -> f64 {
                let nodes = quorum.into_iter();
                nodes.map(|node| price(node) * slower / rate(node) / sum).sum()
            });
            costs.fold(f64::INFINITY, f64::min)
        };
        let bound = share * cheapest(system.read(), 1.0)
            + (1.0 - share) * cheapest(system.write(), 2.0);
        prop_assert!(least >= bound - OFF, "{least} {bound}");
        for sets in [best.reads().collect::<Vec<_>>(), best.writes().collect()] {
            let shares: f64 = sets.iter().map(|(_, share)| share).sum();
            prop_assert!((shares - 1.0).abs() < OFF);
        }
    }
}
