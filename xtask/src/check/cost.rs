//! What a call costs, in instructions, those among them that lock memory, misses of the first caches,
//! and allocations: compared with `crates/gorums/benches/budget.toml`.
//!
//! All are counted and not timed, in a program whose calls are the same in every run, so they tell
//! the same on a busy machine.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Cmd;
use crate::workspace;

const BUDGET: &str = "crates/gorums/benches/budget.toml";

/// How many calls the benchmark of instructions makes.
const CALLS: f64 = 1_000.0;

pub(super) fn run() -> Result<()> {
    ready()?;
    let budget = fs::read_to_string(workspace::root().join(BUDGET))
        .with_context(|| format!("reading {BUDGET}"))?;
    let budget: Budget = toml::from_str(&budget).with_context(|| format!("reading {BUDGET}"))?;
    let measured = measure()?;
    let mut excesses = Vec::new();
    println!(
        "{:24} {:>19} {:>10} {:>8} {:>8}",
        "per call", "", "measured", "budget", ""
    );
    for (call, limits) in &budget {
        for unit in Unit::ALL {
            let limit = *limits
                .get(&unit)
                .with_context(|| format!("{BUDGET} has no {unit} of {call}"))?;
            let measured = *measured.get(&(call.clone(), unit)).with_context(|| {
                format!("{BUDGET} names {call}, and no benchmark counts its {unit}")
            })?;
            let verdict = Verdict::of(measured, limit, unit.tolerance());
            println!(
                "{call:24} {:>19} {measured:>10.1} {limit:>8.1} {:>+7.1} %{}",
                unit.to_string(),
                verdict.excess * 100.0,
                verdict.note()
            );
            if verdict.is_over() {
                excesses.push(Excess {
                    call,
                    unit,
                    percent: verdict.excess * 100.0,
                });
            }
        }
    }
    for (call, _) in measured.keys() {
        if !budget.contains_key(call) {
            bail!("{call} has no budget in {BUDGET}");
        }
    }
    if !excesses.is_empty() {
        bail!("{}", explain(&excesses));
    }
    Ok(())
}

/// What one call of each kind may cost.
type Budget = BTreeMap<String, BTreeMap<Unit, f64>>;

/// What calls of each kind cost.
type Measured = BTreeMap<(String, Unit), f64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Instructions,
    /// Instructions that lock memory.
    Locked,
    /// Instructions that the first cache did not have.
    InstructionMisses,
    /// Data that the first cache did not have, read or written.
    DataMisses,
    Allocations,
}

impl Unit {
    const ALL: [Self; 5] = [
        Self::Instructions,
        Self::Locked,
        Self::InstructionMisses,
        Self::DataMisses,
        Self::Allocations,
    ];

    /// The events of Callgrind that count it.
    fn events(self) -> &'static [&'static str] {
        match self {
            Self::Instructions => &["Ir"],
            Self::Locked => &["Ge"],
            Self::InstructionMisses => &["I1mr"],
            Self::DataMisses => &["D1mr", "D1mw"],
            Self::Allocations => &[],
        }
    }

    /// How far above its budget a call may be. Where code and data lie moves the misses.
    fn tolerance(self) -> f64 {
        match self {
            Self::InstructionMisses => 0.5,
            Self::DataMisses => 0.25,
            _ => 0.05,
        }
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Instructions => "instructions",
            Self::Locked => "locked instructions",
            Self::InstructionMisses => "instruction misses",
            Self::DataMisses => "data misses",
            Self::Allocations => "allocations",
        })
    }
}

/// How a measured cost compares with its budget.
struct Verdict {
    /// As a part of the budget; below 0 where the call is cheaper.
    excess: f64,
    tolerance: f64,
}

impl Verdict {
    fn of(measured: f64, limit: f64, tolerance: f64) -> Self {
        Self {
            excess: measured / limit - 1.0,
            tolerance,
        }
    }

    fn is_over(&self) -> bool {
        // A budget of 0 makes it infinite, or not a number where nothing was measured: both are
        // over.
        self.excess.is_nan() || self.excess > self.tolerance
    }

    fn note(&self) -> &'static str {
        if self.is_over() {
            "  OVER"
        } else if self.excess < -self.tolerance {
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
    unit: Unit,
    percent: f64,
}

/// What grew, by how much, and how to find out why.
fn explain(excesses: &[Excess<'_>]) -> String {
    let grown: Vec<_> = excesses
        .iter()
        .map(|excess| {
            let Excess {
                call,
                unit,
                percent,
            } = excess;
            format!("the {unit} of {call} are {percent:.1} % over their budget")
        })
        .collect();
    let mut text = grown.join("; ");
    if let Some(excess) = excesses.iter().find(|e| e.unit != Unit::Allocations) {
        text += &format!(
            "\nprofile: `callgrind_annotate target/gungraun/gorums/instructions/cost/thousand_calls.{0}/callgrind.thousand_calls.{0}.out`",
            excess.call
        );
    }
    if let Some(excess) = excesses.iter().find(|e| e.unit == Unit::Allocations) {
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

fn measure() -> Result<Measured> {
    let mut measured = Measured::new();
    let command = bench("allocations");
    println!("$ {command}");
    command.run_lines(|line| {
        if let Some((call, count)) = allocations(line) {
            measured.insert((call, Unit::Allocations), count);
        }
    })?;
    let command = bench("instructions").args(["--", "--output-format=json"]);
    println!("$ {command}");
    let mut lines = Vec::new();
    command.run_lines(|line| lines.push(line.to_owned()))?;
    for line in lines.iter().filter(|line| line.starts_with('{')) {
        measured.extend(counted(line)?);
    }
    Ok(measured)
}

/// Reads `rpc 14.003 allocations, 1507.8 bytes`.
fn allocations(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_whitespace();
    let (name, count, unit) = (words.next()?, words.next()?, words.next()?);
    (unit == "allocations,").then_some((name.to_owned(), count.parse().ok()?))
}

/// Reads one benchmark's summary.
fn counted(line: &str) -> Result<Measured> {
    let unreadable = || format!("reading gungraun's summary, which has changed: {line:.200}");
    let summary: serde_json::Value = serde_json::from_str(line).with_context(unreadable)?;
    let name = summary["id"].as_str().with_context(unreadable)?;
    let metrics = &summary["profiles"][0]["data"]["total"]["metrics"];
    let mut counted = Measured::new();
    for unit in Unit::ALL {
        if unit.events().is_empty() {
            continue;
        }
        let counts = unit
            .events()
            .iter()
            .map(|event| metrics[event]["values"]["new"].as_u64());
        let count: u64 = counts.sum::<Option<u64>>().with_context(unreadable)?;
        counted.insert((name.to_owned(), unit), count as f64 / CALLS);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_tolerance_over_is_over() {
        for (measured, limit, tolerance, over) in [
            (104.9, 100.0, 0.05, false),
            (105.1, 100.0, 0.05, true),
            (120.0, 100.0, 0.25, false),
            (50.0, 100.0, 0.05, false),
            (0.0, 0.0, 0.05, true),
            (1.0, 0.0, 0.05, true),
        ] {
            let verdict = Verdict::of(measured, limit, tolerance);
            assert_eq!(verdict.is_over(), over, "{measured}");
        }
    }

    #[test]
    fn a_call_that_is_much_cheaper_asks_for_a_lower_budget() {
        assert!(Verdict::of(90.0, 100.0, 0.05).note().contains("lowered"));
        assert_eq!(Verdict::of(99.0, 100.0, 0.05).note(), "");
    }

    #[test]
    fn what_the_benchmarks_print_is_read() {
        assert_eq!(
            allocations("rpc 14.003 allocations, 1507.8 bytes"),
            Some(("rpc".to_owned(), 14.003))
        );
        assert_eq!(allocations("warning: something else"), None);
        let line = r#"{"id":"rpc","profiles":[{"data":{"total":{"metrics":{
            "Ir":{"values":{"new":46358745}},"Ge":{"values":{"new":180000}},
            "I1mr":{"values":{"new":163000}},"D1mr":{"values":{"new":100000}},
            "D1mw":{"values":{"new":18000}}}}}}]}"#;
        let read = counted(line).expect("a summary");
        let read: Vec<_> = read
            .iter()
            .map(|((call, unit), count)| (call.as_str(), *unit, *count))
            .collect();
        assert_eq!(
            read,
            [
                ("rpc", Unit::Instructions, 46_358.745),
                ("rpc", Unit::Locked, 180.0),
                ("rpc", Unit::InstructionMisses, 163.0),
                ("rpc", Unit::DataMisses, 118.0),
            ]
        );
        assert!(counted(r#"{"id":"rpc"}"#).is_err());
    }

    #[test]
    fn what_grew_is_named_with_the_way_to_find_out_why() {
        let excess = |unit| Excess {
            call: "multicast",
            unit,
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
