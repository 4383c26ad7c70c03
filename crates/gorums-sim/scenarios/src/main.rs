//! The examples of this workspace in simulation: `cargo xtask sim --help`.

mod bug;
mod cli;
mod forgiving;
mod ledger;
mod once;
mod order;
mod peers;
mod register;
mod store;
mod volume;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use gorums_sim::{FaultKind, Scenario};

fn main() -> ExitCode {
    cli::run(cli::Args::parse())
}

/// What can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The replicated store: an acknowledged write is never followed by an older read
    Store,
    /// The atomic register: its operations are linearizable
    Register,
    /// The replicated store where replicas lose their data, and get them again from the others
    StoreRejoin,
    /// The atomic register where replicas lose their data, and get them again from the others
    RegisterRejoin,
    /// The library: messages are handled in the order in which they were queued
    Order,
    /// The library: with sessions, a counter and a log have every call once
    Once,
    /// The ledger: with durable sessions, its counter and its log have every call once, over losses of
    /// power too
    Ledger,
    /// Replicas that are peers: dead connections are noticed in time, and the register that they
    /// keep is linearizable
    Peers,
    /// The same, with one stream for each pair of replicas
    Pairs,
}

impl Name {
    fn scenario(self) -> Scenario {
        match self {
            Self::Store => store::scenario(None),
            Self::Register => register::scenario(None),
            Self::StoreRejoin => store::rejoin(None),
            Self::RegisterRejoin => register::rejoin(None),
            Self::Order => order::scenario(None),
            Self::Once => once::scenario(None),
            Self::Ledger => ledger::scenario(None),
            Self::Peers => peers::scenario(peers::Streams::Two, None),
            Self::Pairs => peers::scenario(peers::Streams::One, None),
        }
    }

    /// How many seeds are run of it where none is named and so many are of the others: a fifth of
    /// those with peers, so that a check does not take much longer.
    fn share_of(self, seeds: u64) -> u64 {
        match self {
            Self::Store
            | Self::Register
            | Self::StoreRejoin
            | Self::RegisterRejoin
            | Self::Order
            | Self::Once
            | Self::Ledger => seeds,
            Self::Peers | Self::Pairs => seeds.div_ceil(5),
        }
    }
}

/// What may happen to everybody.
fn faults() -> [FaultKind; 9] {
    [
        FaultKind::Delay,
        FaultKind::Stall,
        FaultKind::Reset,
        FaultKind::Partition,
        FaultKind::OneWayPartition,
        FaultKind::Crash,
        FaultKind::PowerFailure,
        FaultKind::Pause,
        FaultKind::ClockSkew,
    ]
}

/// The same, and what may happen to a disk.
fn faults_with_disks() -> impl Iterator<Item = FaultKind> {
    let disks = [FaultKind::SlowDisk, FaultKind::FailingDisk];
    faults().into_iter().chain(disks)
}

/// What may happen where replicas may lose their data: that as often as all else together.
fn losses() -> impl Iterator<Item = FaultKind> {
    faults_with_disks().flat_map(|other| [other, FaultKind::CrashAndLose])
}
