//! Instructions per call, those among them that lock memory, and misses of the first caches, counted
//! by Callgrind: `cargo xtask check cost` compares them with the budget in `budget.toml`.
#![allow(missing_docs)]

mod workload;

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
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
#[bench::quorum_call_loaded_1k(Kind::QuorumCallLoaded1K)]
#[bench::quorum_call_loaded_in_sessions(Kind::QuorumCallLoadedInSessions)]
fn thousand_calls((cluster, kind): (Cluster, Kind)) -> Cluster {
    cluster.run(kind, CALLS);
    // Taking it down is no part of a call.
    cluster
}

library_benchmark_group!(name = cost, benchmarks = thousand_calls);

// Caches of one size on every machine: 32 KiB in 8 ways of lines of 64 bytes are those of most.
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args([
        "collect-bus=yes",
        "cache-sim=yes",
        "I1=32768,8,64",
        "D1=32768,8,64",
        "LL=8388608,16,64",
    ])),
    library_benchmark_groups = cost
);
