//! `cargo xtask live`: the register's replicas as processes, under load and faults.

use std::process::ExitCode;

use anyhow::Result;

use crate::command::Cmd;

/// Runs three replicas of the register as processes under load and faults, and checks what their
/// clients saw.
///
/// Their connections are delayed, stalled, cut and half-opened by proxies, and the processes
/// killed, frozen and started again. The history has to be linearizable, and no acknowledged write
/// may be lost; else the history and a picture of what is wrong are left in target/live, and the
/// exit code is not 0. The build has debug assertions. A short run is among the tests.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask live                        ten minutes
  cargo xtask live --seconds 60 --seed 7  a minute, with the faults of this seed")]
pub(crate) struct Args {
    /// How long clients read and write
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,

    /// Chooses the faults; without it one is chosen, and shown
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("live: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let seconds = args.seconds.to_string();
    let seed = args.seed.map(|seed| seed.to_string());
    let command = ["run", "--locked", "--quiet", "-p", "register-live", "--"];
    let mut cargo = Cmd::cargo().args(command).args(["--seconds", &seconds]);
    if let Some(seed) = &seed {
        cargo = cargo.args(["--seed", seed]);
    }
    cargo.run()
}
