//! `cargo xtask chaos`: the ledger's replicas as processes, under load and all faults.

use std::process::ExitCode;

use crate::live::{Length, exit};

/// Runs three replicas of the ledger as processes with 1,000 calls in flight while everything fails, and
/// checks what their clients were told.
///
/// Their connections are delayed, stalled, cut, half-opened and swallowed by proxies, the processes
/// killed, frozen, started again and upgraded one by one, and their disks stall and are full. No reply may
/// contradict what the replicas have at the end, no call of a majority may fail while only one replica is in trouble,
/// the memory of the replicas has to return to its level, and the p99 of calls with one replica in a black
/// hole may be at most twice what it is without that replica; else what is wrong is shown and left in
/// target/chaos, and the exit code is not 0. Ctrl-C ends it. The build is a release build. A short run is
/// among the tests.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask chaos                        ten minutes
  cargo xtask chaos --seconds 60 --seed 7  a minute, with the faults of this seed; memory and p99 are
                                           only shown, which runs of 300 seconds or more judge")]
pub(crate) struct Args {
    #[command(flatten)]
    length: Length,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit(
        "chaos",
        args.length.start(&["--release", "-p", "ledger-chaos"]),
    )
}
