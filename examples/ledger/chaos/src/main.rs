//! Three ledgers as processes, each behind a proxy, with many calls in flight: they are killed, frozen
//! and upgraded, their connections fail, and so do their disks. What the clients were told is then
//! compared with what the replicas have: nothing acknowledged may be lost, and nothing be there twice.
//!
//! `cargo xtask chaos` runs it; `--help` tells more.

mod check;
mod disks;
mod load;
mod memory;
mod noted;
mod parts;
mod phases;
mod replica;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cluster_live::{is_replica, run_until_ctrl_c};

/// Runs three replicas of the ledger as processes under load and all faults, and checks what their
/// clients were told.
///
/// Each replica keeps its counter, its log and its answers on disk, and is reached through a proxy that
/// delays, stalls, cuts and half-opens its connections, or lets them go nowhere. The processes are killed
/// (SIGKILL), frozen (SIGSTOP), and started again, also all at once; their disks stall and are full. After
/// each round of that they are upgraded one by one, and no call of a majority may fail then.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
struct Options {
    /// How long clients call. Upgrades and checks take a little more.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Chooses which faults happen, how long, and in which order. Without it one is chosen, and
    /// shown.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many clients there are at a time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    clients: u32,
    /// How many calls are in flight, of all of them.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calls: u32,
    /// Where the summary goes, and what is wrong.
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    report: PathBuf,
}

const AFTER_HELP: &str = "\
The times of faults are the machine's own, so that a seed brings back the same faults and not the same run.

The exit status is 0 if no reply contradicts what the replicas have at the end, no call of a majority has failed while
less than a majority was in trouble, and faults of every kind have fired; in a run of 300 seconds or more also if the
memory of each replica has returned to its level, and the calls' p99 with one replica in a black hole is at most twice
what it is without that replica. Where it is not 0 the replicas' files are kept, and named.
Ctrl-C ends everything, and checks nothing. A process that is killed survives in its page cache: that disks keep what
they are given is not tested here.";

fn main() -> ExitCode {
    // The replicas are this program again.
    if is_replica() {
        return replica::main();
    }
    run_until_ctrl_c(phases::run(Options::parse()))
}
