//! Instructions per call, counted by Callgrind: `cargo xtask check cost` compares them with the
//! budget in `budget.toml`.
#![allow(missing_docs)]

mod workload;

use gungraun::{library_benchmark, library_benchmark_group, main};
use workload::{Cluster, Kind};

/// How many calls are counted. `cargo xtask` knows this number from the name of each benchmark.
const CALLS: usize = 1_000;

fn prepare(kind: Kind) -> (Cluster, Kind) {
    (Cluster::warm(kind), kind)
}

#[library_benchmark(setup = prepare)]
#[bench::rpc(Kind::Rpc)]
#[bench::quorum_call(Kind::QuorumCall)]
#[bench::multicast(Kind::Multicast)]
#[bench::quorum_call_loaded(Kind::QuorumCallLoaded)]
fn thousand_calls((cluster, kind): (Cluster, Kind)) -> Cluster {
    cluster.run(kind, CALLS);
    // Taking it down is no part of a call.
    cluster
}

library_benchmark_group!(name = cost, benchmarks = thousand_calls);

main!(library_benchmark_groups = cost);
