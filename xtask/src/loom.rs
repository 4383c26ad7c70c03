//! `cargo xtask loom`: every order of steps of the threads that share the library's core.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::check::Totals;
use crate::command::Cmd;
use crate::workspace;

/// Explores the orders in which the threads of the core may take their steps.
///
/// crates/gorums/src/models holds small programs of two to five threads on the library's own
/// outbox, calls, table, turn, lane and reply queue. loom runs each of them again and again, in
/// another order every time, with every value that a weakly ordered load may see; a lost wake-up
/// shows as a deadlock. The number of preemptions (a thread is stopped although it could go on)
/// bounds the orders: nearly all races need one or two. Each model is shown with the number of its
/// orders.
///
/// The build has a folder of its own, target/loom, and takes a minute the first time. The exit code
/// is 0 only where every model held in every order that was run, and the last line says how many
/// did.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask loom                               all models, for a minute each at most
  cargo xtask loom lane:: --preemptions 2        those whose name contains this
  cargo xtask loom outbox --seconds 3600         and for as long as it takes
  cargo xtask loom --list                        the names")]
pub(crate) struct Args {
    /// Run only the models whose name contains one of these
    #[arg(value_name = "PART")]
    parts: Vec<String>,

    #[command(flatten)]
    bounds: Bounds,

    /// Print the names of the models and run none
    #[arg(long)]
    list: bool,
}

/// How far each model is explored.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Bounds {
    /// Preemptions in one order
    #[arg(long, value_name = "N", default_value_t = 3)]
    preemptions: usize,

    /// Stop a model after so many seconds; where that cuts it short, it is said
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

impl Bounds {
    /// Those of `cargo xtask check`, for all models: about 30 seconds of one core.
    const CHECK: Self = Self {
        preemptions: 2,
        seconds: 15,
    };

    /// And once more for [`DEEP`]: about 15 seconds.
    const CHECK_DEEP: Self = Self {
        preemptions: 3,
        seconds: 15,
    };
}

/// Models that are small enough to be explored further at every check. A stream that gives a
/// request back while its call is given up needed three preemptions to be found out.
const DEEP: [&str; 4] = ["parts::", "streams::", "table::", "turn::"];

/// What `cargo xtask check` explores.
pub(crate) fn check(totals: &mut Totals) -> Result<()> {
    run_all(&[], Bounds::CHECK, totals)?;
    run_all(&DEEP.map(str::to_owned), Bounds::CHECK_DEEP, totals)
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let mut totals = Totals::default();
    let result = if args.list {
        Models::build().and_then(|models| models.list(&args.parts))
    } else {
        run_all(&args.parts, args.bounds, &mut totals)
    };
    if let Err(error) = &result {
        println!("\nloom: FAILED: {error:#}");
    }
    if !args.list {
        println!("\n{totals}");
    }
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Explores the models, and adds up what came of them. Fails unless every one held.
fn run_all(parts: &[String], bounds: Bounds, totals: &mut Totals) -> Result<()> {
    let models = Models::build();
    // What could not even be built is a failure that the totals show.
    totals.failed += u64::from(models.is_err());
    let models = models?;
    let names = models.names(parts)?;
    if names.is_empty() {
        bail!("no model has such a name: `cargo xtask loom --list` prints them");
    }
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let explored = Mutex::new(Explored::default());
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = models.explore(name, bounds);
                    explored
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(name, width, &result);
                }
            });
        }
    });
    let explored = explored
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    *totals += explored.totals;
    println!(
        "{} orders with at most {} preemptions",
        explored.orders, bounds.preemptions
    );
    if explored.totals.failed > 0 {
        bail!(
            "{} of {} models failed",
            explored.totals.failed,
            names.len()
        );
    }
    Ok(())
}

/// The unit tests of the library, built with loom's locks and atomics in the place of `std`'s.
struct Models {
    program: String,
}

impl Models {
    fn build() -> Result<Self> {
        let target = workspace::target().join("loom");
        let command = Cmd::cargo()
            .args(["test", "--locked", "-p", "gorums", "--lib", "--no-run"])
            .args(["--target-dir", &target.to_string_lossy()])
            // Four times faster, for a few seconds more of building.
            .args(["--config", "profile.dev.package.loom.opt-level=3"])
            .args(["--config", "profile.dev.package.generator.opt-level=3"])
            .args(["--config", "profile.dev.package.gorums.opt-level=1"])
            .rustflags("--cfg gorums_loom");
        println!("$ {command}");
        let mut program = None;
        command
            .args(["--message-format", "json-render-diagnostics"])
            .run_lines(|line| {
                let built: Option<Built> = serde_json::from_str(line).ok();
                program = built.and_then(|built| built.executable).or(program.take());
            })?;
        let program = program.context("cargo did not say which program it built")?;
        Ok(Self { program })
    }

    fn list(&self, parts: &[String]) -> Result<()> {
        for name in self.names(parts)? {
            println!("{name}");
        }
        Ok(())
    }

    fn names(&self, parts: &[String]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        Cmd::new(&self.program)
            .args([PREFIX, "--list", "--format", "terse"])
            .run_lines(|line| {
                let name = line.strip_suffix(": test");
                names.extend(
                    name.and_then(|name| name.strip_prefix(PREFIX))
                        .map(str::to_owned),
                );
            })?;
        names.retain(|name| parts.is_empty() || parts.iter().any(|part| name.contains(part)));
        Ok(names)
    }

    fn explore(&self, name: &str, bounds: Bounds) -> Outcome {
        let command = Cmd::new(&self.program)
            .args(["--exact", &format!("{PREFIX}{name}"), "--nocapture"])
            .env("LOOM_MAX_PREEMPTIONS", bounds.preemptions.to_string())
            .env("LOOM_MAX_DURATION", bounds.seconds.to_string());
        let start = Instant::now();
        let mut output = Vec::new();
        let mut orders = None;
        let result = command.run_collecting(|line| {
            orders = orders.or(Orders::read(line));
            output.push(line.to_owned());
        });
        let failure = match (result, orders) {
            (Ok(()), Some(_)) => None,
            (Ok(()), None) => Some(format!("`{command}` did not say how many orders it ran")),
            (Err(error), _) => Some(format!(
                "{}\n{error:#}\nTo see each step, put LOOM_LOG=trace LOOM_LOCATION=1 before that command.",
                output.join("\n")
            )),
        };
        Outcome {
            orders: orders.unwrap_or_default(),
            took: start.elapsed(),
            failure,
        }
    }
}

/// Where the models are among the unit tests.
const PREFIX: &str = "models::";

/// What cargo says of a program that it built.
#[derive(Deserialize)]
struct Built {
    executable: Option<String>,
}

/// What came of one model.
struct Outcome {
    orders: Orders,
    took: Duration,
    failure: Option<String>,
}

/// The line that a model ends with: `explored 17 orders`, or
/// `explored 17 orders, and there are more`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Orders {
    count: u64,
    cut_short: bool,
}

impl Orders {
    fn read(line: &str) -> Option<Self> {
        let (count, rest) = line.strip_prefix("explored ")?.split_once(" orders")?;
        Some(Self {
            count: count.parse().ok()?,
            cut_short: !rest.is_empty(),
        })
    }
}

/// What came of all models so far.
#[derive(Default)]
struct Explored {
    totals: Totals,
    orders: u64,
}

impl Explored {
    /// Counts a model, and shows it.
    fn add(&mut self, name: &str, width: usize, outcome: &Outcome) {
        self.orders += outcome.orders.count;
        let took = outcome.took.as_secs_f64();
        match &outcome.failure {
            None => {
                self.totals.passed += 1;
                let more = if outcome.orders.cut_short {
                    " and more"
                } else {
                    ""
                };
                println!(
                    "{name:width$} {:>8} orders {took:>6.1} s{more}",
                    outcome.orders.count
                );
            }
            Some(failure) => {
                self.totals.failed += 1;
                println!("{name:width$}           FAILED {took:>6.1} s\n{failure}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_model_says_how_far_it_went() {
        let orders = |count, cut_short| Some(Orders { count, cut_short });
        assert_eq!(Orders::read("explored 17 orders"), orders(17, false));
        assert_eq!(
            Orders::read("explored 4 orders, and there are more"),
            orders(4, true)
        );
        assert_eq!(Orders::read("explored some orders"), None);
        assert_eq!(Orders::read("running 1 test"), None);
    }

    #[test]
    fn a_model_that_fails_is_counted_as_such() {
        let mut explored = Explored::default();
        let outcome = |failure: Option<&str>| Outcome {
            orders: Orders {
                count: 3,
                cut_short: false,
            },
            took: Duration::ZERO,
            failure: failure.map(str::to_owned),
        };
        explored.add("lane::a", 7, &outcome(None));
        explored.add("lane::b", 7, &outcome(Some("deadlock")));
        assert_eq!((explored.totals.passed, explored.totals.failed), (1, 1));
        assert_eq!(explored.orders, 6);
    }
}
