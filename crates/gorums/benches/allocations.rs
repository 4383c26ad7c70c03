//! Allocations per call, of the client and all servers together: `cargo xtask check cost` compares
//! them with the budget in `budget.toml`.
#![allow(missing_docs)]

mod workload;

use allocation_counter::measure;
use workload::{Cluster, Kind};

const CALLS: usize = 1_000;

fn main() {
    for (name, kind) in [
        ("rpc", Kind::Rpc),
        ("quorum_call", Kind::QuorumCall),
        ("multicast", Kind::Multicast),
        ("quorum_call_loaded", Kind::QuorumCallLoaded),
        ("quorum_call_loaded_1k", Kind::QuorumCallLoaded1K),
        (
            "quorum_call_loaded_in_sessions",
            Kind::QuorumCallLoadedInSessions,
        ),
    ] {
        let cluster = Cluster::warm(kind);
        let counted = measure(|| cluster.run(kind, CALLS));
        println!(
            "{name} {:.3} allocations, {:.1} bytes",
            counted.count_total as f64 / CALLS as f64,
            counted.bytes_total as f64 / CALLS as f64
        );
    }
}
