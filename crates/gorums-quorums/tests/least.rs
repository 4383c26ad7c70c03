//! The best strategy is the best: no other one has less load, and none could have.
#![allow(missing_docs)]

use std::time::Duration;

use gorums::NodeId;
use gorums::quorum::{Expression, QuorumSets, Quorums};
use gorums_quorums::{Capacities, Latencies, MOST_QUORUMS, ReadFraction, Strategies};
use proptest::prelude::*;

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

fn bytes() -> impl Strategy<Value = Vec<u8>> {
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
        let all = Strategies::of(system).with_capacities(capacities);
        let best = all.least_load(&reads).expect("it is solved");
        let least = best.load(&reads);

        let [read, write] = [system.read(), system.write()].map(|sets| weighed(sets, &weights));
        let drawn = all.by_weights(read, write).expect("quorums");
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

    #[test]
    fn no_strategy_within_the_same_bounds_is_faster_or_has_less_load(
        at in 0..8usize,
        percent in 0..=100u8,
        millis in bytes(),
        weights in bytes(),
    ) {
        let system = &systems()[at];
        let reads = ReadFraction::of(f64::from(percent) / 100.0).expect("from 0 to 1");
        let latencies = system.nodes().iter().fold(Latencies::default(), |latencies, node| {
            let millis = millis[node.get() as usize - 1];
            latencies.with(*node, Duration::from_millis(millis.into()))
        });
        let all = Strategies::of(system).with_latencies(latencies);
        let [read, write] = [system.read(), system.write()].map(|sets| weighed(sets, &weights));
        let drawn = all.by_weights(read, write).expect("quorums");
        let (load, latency) = (drawn.load(&reads), drawn.latency(&reads));
        let near = |found: f64, bound: f64| found <= bound + OFF;
        let seconds = |of: &gorums_quorums::Strategy| of.latency(&reads).as_secs_f64();

        // The drawn one is within its own bounds, so the best is no worse, and within them, too.
        let fastest = all.clone().with_load_at_most(load + OFF).least_latency(&reads);
        let fastest = fastest.expect("the drawn one");
        prop_assert!(near(seconds(&fastest), latency.as_secs_f64()));
        prop_assert!(near(fastest.load(&reads), load + OFF));
        let idlest = all.clone().with_latency_at_most(latency + Duration::from_micros(1));
        let idlest = idlest.least_load(&reads).expect("the drawn one");
        prop_assert!(near(idlest.load(&reads), load));
        prop_assert!(near(seconds(&idlest), latency.as_secs_f64() + OFF));
        let fewest = all.clone().with_network_load_at_most(drawn.network_load(&reads) + OFF);
        let fewest = fewest.least_load(&reads).expect("the drawn one");
        prop_assert!(near(fewest.network_load(&reads), drawn.network_load(&reads) + OFF));
        prop_assert!(near(fewest.load(&reads), load));

        // Without bounds none is faster than the fastest quorum of each kind.
        let quickest = |sets: &QuorumSets| {
            let slowest = |quorum: Vec<NodeId>| {
                let millis = quorum.iter().map(|node| millis[node.get() as usize - 1]);
                f64::from(millis.max().expect("it has nodes")) / 1e3
            };
            minimal(sets).into_iter().map(slowest).fold(f64::INFINITY, f64::min)
        };
        let share = f64::from(percent) / 100.0;
        let bound = share * quickest(system.read()) + (1.0 - share) * quickest(system.write());
        let fastest = all.least_latency(&reads).expect("it is solved");
        prop_assert!((seconds(&fastest) - bound).abs() <= OFF);
    }

    #[test]
    fn sets_of_a_resilient_strategy_have_a_quorum_whichever_nodes_fail(
        at in 0..8usize,
        percent in 0..=100u8,
        failures in 0..=3usize,
    ) {
        let system = &systems()[at];
        let reads = ReadFraction::of(f64::from(percent) / 100.0).expect("from 0 to 1");
        let best = Strategies::of(system).tolerating(failures).least_load(&reads);
        // All nodes are such a set, if any is.
        prop_assert_eq!(best.is_ok(), system.resilience() >= Some(failures));
        let Ok(best) = best else {
            return Ok(());
        };
        let plain = Strategies::of(system).least_load(&reads).expect("it is solved");
        prop_assert!(plain.load(&reads) <= best.load(&reads) + OFF);
        let sides = [
            (system.read(), best.reads().collect::<Vec<_>>()),
            (system.write(), best.writes().collect()),
        ];
        for (sets, chosen) in sides {
            for (set, _) in chosen {
                for failed in 0..1u32 << set.len() {
                    let left = (0..set.len()).filter(|at| failed & 1 << at == 0);
                    if failed.count_ones() as usize <= failures {
                        prop_assert!(sets.is_quorum_of(left.map(|at| set[at])));
                    }
                }
            }
        }
    }
}
