//! What a call costs, in instructions and allocations: compared with
//! `crates/gorums/benches/budget.toml`.
//!
//! Both are counted and not timed, in a program whose calls are the same in every run, so they tell
//! the same on a busy machine.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Cmd;
use crate::workspace;

const BUDGET: &str = "crates/gorums/benches/budget.toml";

/// How far above its budget a call may be.
const TOLERANCE: f64 = 0.05;

/// How many calls the benchmark of instructions makes.
const CALLS: f64 = 1_000.0;

pub(super) fn run() -> Result<()> {
    ready()?;
    let budget = fs::read_to_string(workspace::root().join(BUDGET))
        .with_context(|| format!("reading {BUDGET}"))?;
    let budget: Budget = toml::from_str(&budget).with_context(|| format!("reading {BUDGET}"))?;
    let allocations = measure_allocations()?;
    let instructions = measure_instructions()?;
    let mut excesses = Vec::new();
    println!(
        "{:20} {:>14} {:>10} {:>8} {:>8}",
        "per call", "", "measured", "budget", ""
    );
    for (call, limit) in &budget {
        for (what, measured, limit) in [
            (Unit::Instructions, &instructions, limit.instructions),
            (Unit::Allocations, &allocations, limit.allocations),
        ] {
            let measured = *measured.get(call).with_context(|| {
                format!("{BUDGET} names {call}, and no benchmark counts its {what}")
            })?;
            let verdict = Verdict::of(measured, limit);
            println!(
                "{call:20} {:>14} {measured:>10.1} {limit:>8.1} {:>+7.1} %{}",
                what.to_string(),
                verdict.excess * 100.0,
                verdict.note()
            );
            if verdict.is_over() {
                excesses.push(Excess {
                    call,
                    what,
                    percent: verdict.excess * 100.0,
                });
            }
        }
    }
    for call in instructions.keys().chain(allocations.keys()) {
        if !budget.contains_key(call) {
            bail!("{call} has no budget in {BUDGET}");
        }
    }
    if !excesses.is_empty() {
        bail!("{}", explain(&excesses));
    }
    Ok(())
}

type Budget = BTreeMap<String, Limits>;

/// What one call may cost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    instructions: f64,
    allocations: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Instructions,
    Allocations,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
        })
    }
}

/// How a measured cost compares with its budget.
struct Verdict {
    /// As a part of the budget; below 0 where the call is cheaper.
    excess: f64,
}

impl Verdict {
    fn of(measured: f64, limit: f64) -> Self {
        Self {
            excess: measured / limit - 1.0,
        }
    }

    fn is_over(&self) -> bool {
        // A budget of 0 makes it infinite, or not a number where nothing was measured: both are
        // over.
        self.excess.is_nan() || self.excess > TOLERANCE
    }

    fn note(&self) -> &'static str {
        if self.is_over() {
            "  OVER"
        } else if self.excess < -TOLERANCE {
            "  (the budget can be lowered)"
        } else {
            ""
        }
    }
}

/// A cost that has outgrown its budget.
#[derive(Debug)]
struct Excess<'a> {
    call: &'a str,
    what: Unit,
    percent: f64,
}

/// What grew, by how much, and how to find out why.
fn explain(excesses: &[Excess<'_>]) -> String {
    let grown: Vec<_> = excesses
        .iter()
        .map(|excess| {
            let Excess {
                call,
                what,
                percent,
            } = excess;
            format!("the {what} of {call} are {percent:.1} % over their budget")
        })
        .collect();
    let mut text = grown.join("; ");
    if let Some(excess) = excesses.iter().find(|e| e.what == Unit::Instructions) {
        text += &format!(
            "\nprofile instructions: `callgrind_annotate target/gungraun/gorums/instructions/cost/thousand_calls.{0}/callgrind.thousand_calls.{0}.out`",
            excess.call
        );
    }
    if let Some(excess) = excesses.iter().find(|e| e.what == Unit::Allocations) {
        text += &format!(
            "\nprofile allocations: `cargo bench -p gorums --bench instructions -- '*.{0}' --tools=dhat`, then open \
             target/gungraun/gorums/instructions/cost/thousand_calls.{0}/dhat.thousand_calls.{0}.out in valgrind's dh_view.html",
            excess.call
        );
    }
    text += &format!("\na cost that is worth it is written into {BUDGET}");
    text
}

/// Says what is missing before anything is built.
fn ready() -> Result<()> {
    if !Cmd::new("valgrind").args(["--version"]).succeeds() {
        bail!(
            "valgrind is not installed: `apt-get install valgrind`, or what your system has in its place"
        );
    }
    let packages = workspace::all_packages()?;
    let version = packages
        .iter()
        .find(|package| package.name == "gungraun")
        .map(|package| package.version.as_str())
        .context("no package depends on gungraun")?;
    let installed = Cmd::new("gungraun-runner").args(["--version"]);
    let installed = if installed.succeeds() {
        installed.output()?
    } else {
        String::new()
    };
    if installed.trim() != format!("gungraun-runner {version}") {
        bail!(
            "gungraun-runner {version} is not installed: `cargo install --locked gungraun-runner@{version}`"
        );
    }
    Ok(())
}

fn bench(name: &str) -> Cmd {
    Cmd::cargo().args([
        "bench", "--locked", "--quiet", "-p", "gorums", "--bench", name,
    ])
}

/// By call.
fn measure_allocations() -> Result<BTreeMap<String, f64>> {
    let command = bench("allocations");
    println!("$ {command}");
    let mut counted = BTreeMap::new();
    command.run_lines(|line| counted.extend(allocations(line)))?;
    Ok(counted)
}

/// Reads `rpc 14.003 allocations, 1507.8 bytes`.
fn allocations(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_whitespace();
    let (name, count, unit) = (words.next()?, words.next()?, words.next()?);
    (unit == "allocations,").then_some((name.to_owned(), count.parse().ok()?))
}

/// By call.
fn measure_instructions() -> Result<BTreeMap<String, f64>> {
    let command = bench("instructions").args(["--", "--output-format=json"]);
    println!("$ {command}");
    let mut lines = Vec::new();
    command.run_lines(|line| lines.push(line.to_owned()))?;
    lines
        .iter()
        .filter(|line| line.starts_with('{'))
        .map(|line| instructions(line))
        .collect()
}

/// Reads one benchmark's summary.
fn instructions(line: &str) -> Result<(String, f64)> {
    let unreadable = || format!("reading gungraun's summary, which has changed: {line:.200}");
    let summary: serde_json::Value = serde_json::from_str(line).with_context(unreadable)?;
    let name = summary["id"].as_str().with_context(unreadable)?;
    let count = summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"]
        .as_u64()
        .with_context(unreadable)?;
    Ok((name.to_owned(), count as f64 / CALLS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_percent_over_is_over() {
        for (measured, limit, over) in [
            (104.9, 100.0, false),
            (105.1, 100.0, true),
            (50.0, 100.0, false),
            (0.0, 0.0, true),
            (1.0, 0.0, true),
        ] {
            assert_eq!(Verdict::of(measured, limit).is_over(), over, "{measured}");
        }
    }

    #[test]
    fn a_call_that_is_much_cheaper_asks_for_a_lower_budget() {
        assert!(Verdict::of(90.0, 100.0).note().contains("lowered"));
        assert_eq!(Verdict::of(99.0, 100.0).note(), "");
    }

    #[test]
    fn what_the_benchmarks_print_is_read() {
        assert_eq!(
            allocations("rpc 14.003 allocations, 1507.8 bytes"),
            Some(("rpc".to_owned(), 14.003))
        );
        assert_eq!(allocations("warning: something else"), None);
        let line = r#"{"id":"rpc","profiles":[{"data":{"total":{"metrics":{"Ir":{"values":{"new":46358745}}}}}}]}"#;
        let read = instructions(line).expect("a summary");
        assert_eq!(read, ("rpc".to_owned(), 46_358.745));
        assert!(instructions(r#"{"id":"rpc"}"#).is_err());
    }

    #[test]
    fn what_grew_is_named_with_the_way_to_find_out_why() {
        let excess = |what| Excess {
            call: "multicast",
            what,
            percent: 7.25,
        };
        let text = explain(&[excess(Unit::Instructions), excess(Unit::Allocations)]);
        for part in [
            "instructions of multicast are 7.2 % over",
            "allocations of multicast are 7.2 % over",
            "callgrind_annotate",
            "dhat",
            BUDGET,
        ] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }
}
