//! `cargo xtask sim`: the examples as whole clusters in deterministic simulation.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::command::Cmd;

/// Runs the examples as whole clusters in deterministic simulation, in release mode. See
/// `cargo xtask sim --help`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What the program is told
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    // The program says itself why it fails.
    let command = program(&["--release"]).args(args.args.iter().map(String::as_str));
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How many seeds of each scenario a check runs: 740 together, since those with peers have a fifth.
const SEEDS: u64 = 100;

/// A few seeds of each scenario, others for each commit. It is the build of the tests, which is
/// there anyway.
pub(crate) fn check() -> Result<()> {
    let commit = Cmd::new("git").args(["rev-parse", "HEAD"]).output()?;
    let from = first_seed(&commit)?.to_string();
    program(&[])
        .args(["--seeds", &SEEDS.to_string(), "--from", &from])
        .run()
}

fn program(profile: &[&str]) -> Cmd {
    Cmd::cargo()
        .args(["run", "--locked", "-p", "gorums-scenarios"])
        .args(profile.iter().copied())
        .args(["--"])
}

/// Distinct commits have distinct seeds, as good as always.
fn first_seed(commit: &str) -> Result<u64> {
    let digits = commit.get(..10).unwrap_or_default();
    u64::from_str_radix(digits, 16).with_context(|| format!("{commit:?} is not a commit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_follow_from_the_commit() {
        let seed = first_seed("00000000ffaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
        assert_eq!(seed.ok(), Some(255));
        assert!(first_seed("no commit").is_err());
        assert!(first_seed("").is_err());
    }
}
