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
    #[command(flatten)]
    length: Length,
}

/// How long a run of processes under load is, and what happens in it.
#[derive(clap::Args)]
pub(crate) struct Length {
    /// How long clients call
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,

    /// Chooses the faults; without it one is chosen, and shown
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit("live", args.length.start(&["-p", "register-live"]))
}

/// Says what is wrong, if anything.
pub(crate) fn exit(name: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Length {
    /// Builds the program that these options of Cargo name, and runs it.
    pub(crate) fn start(&self, program: &[&str]) -> Result<()> {
        let seconds = self.seconds.to_string();
        let seed = self.seed.map(|seed| seed.to_string());
        let mut cargo = Cmd::cargo()
            .args(["run", "--locked", "--quiet"])
            .args(program.iter().copied())
            .args(["--", "--seconds", &seconds]);
        if let Some(seed) = &seed {
            cargo = cargo.args(["--seed", seed]);
        }
        cargo.run()
    }
}
