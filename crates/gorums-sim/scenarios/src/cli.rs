//! The command.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gorums_sim::{Campaign, FaultSet, Least, Report, Scenario};

use crate::Name;
use crate::bug::Bug;

/// Runs the examples as whole clusters in deterministic simulation, and checks what their clients
/// saw.
///
/// Each seed is a cluster of three to five replicas and three to five clients with a hundred
/// operations or more in ten seconds of virtual time, during which three to six faults happen. One
/// seed in twenty is run twice, and both runs have to be the same. The first seed that fails ends
/// the run with exit code 1; its command, its faults, as few as it takes, and a picture of the
/// operations that cannot be are printed.
#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask sim",
    after_help = "Examples:
  cargo xtask sim --seeds 1000                       a thousand seeds of each scenario
  cargo xtask sim --scenario register --seed 17      one seed again, and what happened in it
  cargo xtask sim --planted                          mistakes, each of which has to be found"
)]
pub(crate) struct Args {
    /// How many seeds of each scenario; where none is named, a fifth as many of peers and pairs
    #[arg(long, default_value_t = 100, value_name = "N", conflicts_with = "seed")]
    seeds: u64,

    /// The first of them
    #[arg(
        long,
        default_value_t = 1,
        value_name = "SEED",
        conflicts_with = "seed"
    )]
    from: u64,

    /// What is simulated; all of it where nothing is named
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Name>,

    /// One seed, and what happens in it
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Of that seed's faults only these, by their numbers; `none` for none
    #[arg(long, value_name = "N,N,…", requires = "seed")]
    faults: Option<FaultSet>,

    /// Write the trace of that seed to a file: what is sent, when and by whom
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,

    /// How many seeds run at once; as many as there are cores where it is not said
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Plant a mistake, or each in turn where none is named, and look for a seed that finds it
    #[arg(long, value_enum, value_name = "BUG", num_args = 0..=1, conflicts_with = "scenario")]
    planted: Option<Option<Bug>>,
}

pub(crate) fn run(args: Args) -> ExitCode {
    match try_run(&args) {
        Ok(code) => code,
        Err(error) => {
            // Where nobody reads the results any more, nobody needs to be told.
            if error.kind() != io::ErrorKind::BrokenPipe {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &Args) -> io::Result<ExitCode> {
    let passed = match (&args.planted, args.seed) {
        (None, None) => campaigns(args)?,
        (None, Some(seed)) => {
            let mut passed = true;
            for name in names(args) {
                let scenario = name.scenario();
                passed &= replay(args, &scenario, seed)?;
            }
            passed
        }
        (Some(Some(bug)), Some(seed)) => replay(args, &bug.scenario(), seed)?,
        (Some(None), Some(_)) => {
            return Err(io::Error::other(
                "--planted needs the name of a bug beside --seed",
            ));
        }
        (Some(bug), None) => planted(args, *bug)?,
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn names(args: &Args) -> Vec<Name> {
    if args.scenario.is_empty() {
        Name::value_variants().to_vec()
    } else {
        args.scenario.clone()
    }
}

/// All seeds of each scenario, until one fails.
fn campaigns(args: &Args) -> io::Result<bool> {
    let mut seeds = 0;
    let mut elapsed = Duration::ZERO;
    let mut virtual_time = Duration::ZERO;
    for name in names(args) {
        let scenario = name.scenario();
        let seeds_of_it = match args.scenario[..] {
            [] => name.share_of(args.seeds),
            _ => args.seeds,
        };
        let report = campaign(args, "--scenario", &scenario, seeds_of_it);
        writeln!(io::stdout(), "{report}")?;
        if report.failed().is_some() {
            return Ok(false);
        }
        if !report.least().is_none_or(is_enough) {
            writeln!(io::stdout(), "FAILED: a seed had less than {LEAST}")?;
            return Ok(false);
        }
        seeds += report.seeds();
        elapsed += report.elapsed();
        virtual_time += report.virtual_time();
    }
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    writeln!(
        io::stdout(),
        "{seeds} seeds passed in {seconds:.1} s, {:.1} seeds/s, {:.0} times real time",
        seeds as f64 / seconds,
        virtual_time.as_secs_f64() / seconds
    )?;
    Ok(true)
}

/// What each seed has at least.
const LEAST: &str =
    "3 replicas, 3 clients, 100 operations, 10 s of virtual time or 3 faults with an effect";

fn is_enough(least: Least) -> bool {
    least.replicas >= 3
        && least.clients >= 3
        && least.operations >= 100
        && least.virtual_time >= Duration::from_secs(10)
        && least.faults_fired >= 3
}

/// Each mistake has to be found.
fn planted(args: &Args, bug: Option<Bug>) -> io::Result<bool> {
    let bugs = bug.map_or(Bug::value_variants().to_vec(), |bug| vec![bug]);
    let mut found = true;
    for bug in bugs {
        let scenario = bug.scenario();
        let name = bug.name();
        let report = campaign(args, "--planted", &scenario, args.seeds.max(1000));
        match report.failed() {
            None => {
                found = false;
                writeln!(
                    io::stdout(),
                    "{name}: NOT FOUND in {} seeds\n",
                    report.seeds()
                )?;
            }
            Some(failed) => {
                writeln!(
                    io::stdout(),
                    "{name}: found after {} seeds, {:.1} s",
                    failed.run().seed() - args.from + 1,
                    report.elapsed().as_secs_f64()
                )?;
                writeln!(io::stdout(), "{failed}")?;
            }
        }
    }
    Ok(found)
}

/// `option` names the scenario on the command line.
fn campaign(args: &Args, option: &str, scenario: &Scenario, seeds: u64) -> Report {
    let last = args.from.saturating_add(seeds);
    let campaign = Campaign::new(scenario).seeds(args.from..last);
    let campaign = match args.jobs {
        Some(jobs) => campaign.jobs(jobs),
        None => campaign,
    };
    let again = |seed, faults: Option<&FaultSet>| {
        let command = format!("cargo xtask sim {option} {} --seed {seed}", scenario.name());
        match faults {
            Some(faults) => format!("{command} --faults {faults}"),
            None => command,
        }
    };
    campaign.command(again).run(|_| {})
}

/// One seed, with all that can be said about it.
fn replay(args: &Args, scenario: &Scenario, seed: u64) -> io::Result<bool> {
    if let Some(faults) = &args.faults {
        let known = scenario.has_faults(seed, faults);
        known.map_err(io::Error::other)?;
    }
    let chosen = args.faults.as_ref().map(FaultSet::places);
    let run = match &args.trace {
        None => match chosen {
            None => scenario.run(seed),
            Some(chosen) => scenario.run_with_faults(seed, chosen),
        },
        Some(_) => scenario.run_traced(seed, chosen),
    };
    write!(io::stdout(), "{}, {run}", scenario.name())?;
    if let Some(path) = &args.trace {
        let mut text = run.trace().join("\n");
        text.push('\n');
        fs::write(path, text)?;
        writeln!(io::stdout(), "  trace: {}", path.display())?;
    }
    if let Some(files) = run.write_files(scenario.name()) {
        write!(io::stdout(), "{files}")?;
    }
    Ok(run.failure().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least(scenario: &Scenario) -> Least {
        let report = Campaign::new(scenario).seeds([1]).run(|_| {});
        assert!(report.failed().is_none(), "{report}");
        report.least().expect("a seed was run")
    }

    #[test]
    fn a_seed_of_each_scenario_is_enough() {
        for name in Name::value_variants() {
            let least = least(&name.scenario());
            assert!(is_enough(least), "{name:?}: {least}");
        }
    }

    #[test]
    fn a_sync_that_is_missing_is_found_within_a_hundred_seeds() {
        for bug in [Bug::StoreNoCommitSync, Bug::StoreUnsyncedGrowth] {
            found_within_a_hundred_seeds(bug);
        }
    }

    #[test]
    fn a_replica_that_answers_without_its_data_is_found_within_a_hundred_seeds() {
        for bug in [Bug::StoreAnswersWithoutData, Bug::AnswersWithoutData] {
            found_within_a_hundred_seeds(bug);
        }
    }

    #[test]
    fn a_ledger_that_has_a_call_twice_is_found_within_a_hundred_seeds() {
        for bug in [Bug::LedgerForgetsAnswers, Bug::LedgerAnswersLate] {
            found_within_a_hundred_seeds(bug);
        }
    }

    fn found_within_a_hundred_seeds(bug: Bug) {
        let report = Campaign::new(&bug.scenario()).seeds(1..=100).run(|_| {});
        let failed = report.failed().unwrap_or_else(|| panic!("{bug:?}"));
        assert!(failed.run().failure().is_some(), "{failed}");
    }

    #[test]
    fn a_seed_with_less_of_anything_is_not_enough() {
        let order = || Name::Order.scenario();
        for scenario in [
            order().replicas(2..=2),
            order().clients(2..=2),
            order().duration(Duration::from_secs(2)),
            order().faults([]),
        ] {
            let least = least(&scenario);
            assert!(!is_enough(least), "{least}");
        }
        let mut few = least(&order());
        few.operations = 99;
        assert!(!is_enough(few), "{few}");
    }
}
