//! `cargo xtask check`: everything that CI runs.

mod conformance;
mod cost;
mod events;
mod features;
pub(crate) mod layers;
mod msrv;
mod outside;
mod semver;
mod totals;

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use clap::ValueEnum;
pub(crate) use totals::Totals;

use crate::command::Cmd;
use crate::{bench_compare, interop, loom, sim, tools};

/// Runs everything that CI runs. The tree is never edited.
///
/// Without arguments all steps run, the quick ones first and the tests last, until one fails. Each
/// step shows the commands that it runs, so that they can be repeated by hand. The exit code is 0
/// only where every step that ran succeeded. Where the tests ran, the last line says how many
/// passed and failed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask check                 all steps, up to the first failure
  cargo xtask check --keep-going    all steps, whatever fails
  cargo xtask check fmt clippy      the quick ones")]
pub(crate) struct Args {
    /// The steps to run; all of them where none is named
    #[arg(value_enum, value_name = "STEP")]
    steps: Vec<Step>,

    /// Go on after a failure: with the other steps, packages and test programs
    #[arg(long)]
    keep_going: bool,
}

/// The steps, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting: `cargo fmt --all` mends what this finds
    Fmt,
    /// Spelling, in code and text; _typos.toml names what is right nevertheless (needs typos-cli)
    Typos,
    /// crates/gorums/src is layered: each room imports only what stands below it, and circles of
    /// files are small
    Layers,
    /// Lints of all targets with all features; a warning is a failure
    Clippy,
    /// Each package by itself, with none of its features and with each one alone
    Features,
    /// The API documentation; a warning (a broken link, say) is a failure
    Docs,
    /// Bans, licences and sources of all dependencies, as deny.toml says (needs cargo-deny)
    Deny,
    /// The oldest supported compiler: what the dependencies say they need, and a build with it
    /// where rustup has it
    Msrv,
    /// The public API against that of the last release, as the version promises it (needs
    /// cargo-semver-checks)
    Semver,
    /// What others begin with, outside of this workspace: a crate that `cargo xtask new` makes passes
    /// its tests and lints, the README's crate builds, and the packages can be published
    Outside,
    /// docs/conformance.md names every behaviour, and the tests exist that prove it and what
    /// docs/reliability.md says
    Conformance,
    /// docs/observability.md lists every event that the library logs, and no other
    Events,
    /// Instructions and allocations per call, against their budget (needs valgrind and
    /// gungraun-runner)
    Cost,
    /// Other implementations of the protocol, as `cargo xtask interop` runs them
    Interop,
    /// The Go library's side of the benchmarks: it builds, and its tests pass
    GoBench,
    /// Every order of steps of the threads that share the library's core, with two preemptions:
    /// `cargo xtask loom` goes further
    Loom,
    /// A few hundred seeds of whole clusters in simulation, others for each commit, as
    /// `cargo xtask sim` runs them
    Sim,
    /// All tests, documentation examples among them; those that docs/conformance.md and
    /// docs/reliability.md name have to run
    Test,
}

impl Step {
    fn run(self, report: &mut Report, keep_going: bool) -> Result<()> {
        let cargo = Cmd::cargo;
        match self {
            Self::Fmt => cargo().args(["fmt", "--all", "--check"]).run(),
            Self::Typos => typos(),
            Self::Layers => layers::run(),
            Self::Clippy => cargo()
                .args([
                    "clippy",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--all-features",
                ])
                .args(["--", "-D", "warnings"])
                .run(),
            Self::Features => features::run(keep_going),
            Self::Docs => cargo()
                .args([
                    "doc",
                    "--locked",
                    "--workspace",
                    "--no-deps",
                    "--all-features",
                ])
                .env("RUSTDOCFLAGS", "-D warnings")
                .run(),
            Self::Deny => deny(),
            Self::Msrv => msrv::run(),
            Self::Semver => semver::run(),
            Self::Outside => {
                let totals = report.totals.get_or_insert_default();
                outside::run(totals)
            }
            Self::Conformance => conformance::run(),
            Self::Events => events::run(),
            Self::Cost => cost::run(),
            Self::Interop => {
                let totals = report.totals.get_or_insert_default();
                interop::run_all(&[], totals)
            }
            Self::GoBench => bench_compare::check_go(),
            Self::Loom => {
                let totals = report.totals.get_or_insert_default();
                loom::check(totals)
            }
            Self::Sim => sim::check(),
            Self::Test => test(report, keep_going),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let steps = chosen(&args.steps);
    let mut report = Report::default();
    for (at, &step) in steps.iter().enumerate() {
        println!("\n── {step} ──");
        let start = Instant::now();
        let result = step.run(&mut report, args.keep_going);
        let took = start.elapsed();
        match &result {
            Ok(()) => println!("{step}: ok after {}", seconds(took)),
            Err(error) => println!("{step}: FAILED after {}: {error:#}", seconds(took)),
        }
        let failed = result.is_err();
        report.steps.push((step, took, result));
        if failed && !args.keep_going {
            report.not_run = steps[at + 1..].to_vec();
            break;
        }
    }
    print!("{report}");
    if report.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The named steps, or all, each once and in the order of [`Step`].
fn chosen(named: &[Step]) -> Vec<Step> {
    Step::value_variants()
        .iter()
        .copied()
        .filter(|step| named.is_empty() || named.contains(step))
        .collect()
}

fn deny() -> Result<()> {
    tools::ready("cargo-deny", &Cmd::cargo().args(["deny", "--version"]))?;
    Cmd::cargo()
        .args(["deny", "--locked", "check", "--hide-inclusion-graph"])
        .args(["bans", "licenses", "sources"])
        .run()
}

fn typos() -> Result<()> {
    let typos = Cmd::new("typos");
    tools::ready("typos-cli", &typos.clone().args(["--version"]))?;
    typos.args(["--format", "brief"]).run().context(
        "`typos --write-changes` mends what it is sure of; what is right is named in _typos.toml",
    )
}

/// The test command of the README, with `--locked`.
fn test(report: &mut Report, keep_going: bool) -> Result<()> {
    let mut command = Cmd::cargo().args(["test", "--workspace", "--locked"]);
    if keep_going {
        command = command.args(["--no-fail-fast"]);
    }
    // A snapshot that differs is a failure; insta would also write the new one into the tree.
    let command = command.env("INSTA_UPDATE", "no");
    let mut totals = Totals::default();
    let mut tests = conformance::Tests::default();
    let result = command.run_reading(|line| {
        totals.add(line);
        tests.add(line);
    });
    *report.totals.get_or_insert_default() += totals;
    result?;
    if totals.is_empty() {
        bail!("`{command}` succeeded, but no test ran");
    }
    conformance::check(&tests)
}

/// What was run, what came of it, and how long it took.
#[derive(Default)]
struct Report {
    steps: Vec<(Step, Duration, Result<(), Error>)>,
    not_run: Vec<Step>,
    /// Set where the tests were started.
    totals: Option<Totals>,
}

impl Report {
    fn succeeded(&self) -> bool {
        self.steps.iter().all(|(_, _, result)| result.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n── summary ──")?;
        for (step, took, result) in &self.steps {
            let outcome = if result.is_ok() { "ok" } else { "FAILED" };
            write!(f, "{step:9} {outcome:7} {:>8}", seconds(*took))?;
            match result {
                Ok(()) => writeln!(f)?,
                Err(error) => writeln!(f, "  {error:#}")?,
            }
        }
        for step in &self.not_run {
            writeln!(f, "{step:9} not run")?;
        }
        if !self.not_run.is_empty() {
            writeln!(
                f,
                "stopped at the first failure; --keep-going runs the other steps too"
            )?;
        }
        let total = self.steps.iter().map(|(_, took, _)| *took).sum();
        let verdict = if self.succeeded() {
            "all steps succeeded"
        } else {
            "the check FAILED"
        };
        writeln!(f, "{verdict} after {}", seconds(total))?;
        // Alone and last: CI reads this line to learn whether tests ran.
        match &self.totals {
            Some(totals) => writeln!(f, "{totals}"),
            None => Ok(()),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            steps: vec![(Step::Fmt, Duration::from_millis(1500), Ok(()))],
            ..Report::default()
        }
    }

    #[test]
    fn steps_run_once_and_in_their_own_order() {
        assert_eq!(
            chosen(&[Step::Test, Step::Fmt, Step::Test]),
            [Step::Fmt, Step::Test]
        );
        assert_eq!(chosen(&[]), Step::value_variants());
    }

    #[test]
    fn the_last_line_is_the_number_of_tests() {
        let mut report = report();
        let totals = report.totals.insert(Totals::default());
        totals.add("test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(
            report.to_string().lines().last(),
            Some("7 passed, 0 failed")
        );
    }

    #[test]
    fn a_report_without_tests_counts_none() {
        let text = report().to_string();
        assert_eq!(text.lines().last(), Some("all steps succeeded after 1.5 s"));
    }

    #[test]
    fn a_failure_is_told_with_what_was_left_out() {
        let mut report = report();
        let error = Error::msg("`cargo clippy` failed");
        report
            .steps
            .push((Step::Clippy, Duration::ZERO, Err(error)));
        report.not_run = vec![Step::Docs];
        let text = report.to_string();
        assert!(!report.succeeded());
        for part in [
            "FAILED",
            "`cargo clippy` failed",
            "docs      not run",
            "--keep-going",
        ] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }
}
