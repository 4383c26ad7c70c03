//! What both programs measured.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::command::Cmd;

/// What a program measured. All have the same names and units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) calls_per_second: f64,
    pub(super) latency_us: Latency,
    /// Not known on every system.
    pub(super) cpu_us_per_call: Option<f64>,
    pub(super) client_cpu_us_per_call: Option<f64>,
    pub(super) allocations_per_call: Option<f64>,
    /// Of our program: how long a cache line took to another core and back.
    pub(super) core_round_trip_ns: Option<f64>,
    pub(super) busy: bool,
    pub(super) compared: Option<Comparison>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// With something else that our program measured in the same run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) calls_per_second: f64,
    /// Calls per second, by those of the other.
    pub(super) ratio: f64,
    /// Time of the processor for each call, in the same way.
    pub(super) cpu_ratio: Option<f64>,
}

/// Figures, and what a program calls what it measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    #[serde(rename = "benchmark")]
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What the contenders are, and where they ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sides {
    pub(super) date: String,
    pub(super) machine: String,
    pub(super) ours: String,
    pub(super) tonic: String,
    pub(super) go: String,
}

/// What our program prints.
#[derive(Deserialize)]
struct Report {
    date: String,
    machine: Machine,
    versions: Versions,
    results: Vec<Named>,
}

#[derive(Deserialize)]
struct Machine {
    cpu: String,
    cores: usize,
    system: String,
}

#[derive(Deserialize)]
struct Versions {
    gorums: String,
    commit: Option<String>,
    rustc: String,
}

/// What Go's program prints.
#[derive(Deserialize)]
struct GoReport {
    versions: BTreeMap<String, String>,
    #[serde(flatten)]
    figures: Figures,
}

/// Runs our program.
pub(super) fn ours(command: &Cmd, sides: &mut Sides) -> Result<Vec<Named>> {
    let output = command.output()?;
    let report: Report =
        serde_json::from_str(&output).with_context(|| format!("the output of `{command}`"))?;
    let Report {
        date,
        machine: Machine { cpu, cores, system },
        versions,
        results,
    } = report;
    let Versions {
        gorums,
        commit,
        rustc,
    } = versions;
    let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    sides.date = date;
    sides.machine = format!("{cpu}, {cores} cores, {system}");
    sides.ours = format!("gorums {gorums}{commit}, {rustc}");
    ensure!(!results.is_empty(), "`{command}` measured nothing");
    Ok(results)
}

/// Runs Go's program.
pub(super) fn go(command: &Cmd, sides: &mut Sides) -> Result<Vec<Named>> {
    let output = command.output()?;
    let report: GoReport =
        serde_json::from_str(&output).with_context(|| format!("the output of `{command}`"))?;
    let version = |name: &str| report.versions.get(name).map_or("unknown", String::as_str);
    sides.go = format!(
        "github.com/relab/gorums {}, grpc-go {}, {}",
        version("github.com/relab/gorums"),
        version("google.golang.org/grpc"),
        version("go")
    );
    Ok(vec![Named {
        name: QUORUM_CALL.to_owned(),
        figures: report.figures,
    }])
}

/// What our program calls quorum calls, and Go's measures.
pub(super) const QUORUM_CALL: &str = "quorum-call";

/// The run in the middle, by calls per second, with the least time of the processor that a run took
/// for each call: what others do adds to it, and nothing takes from it. Ratios within a run are
/// those in the middle of all runs.
pub(super) fn median(mut runs: Vec<Figures>) -> Result<Figures> {
    ensure!(!runs.is_empty(), "nothing was measured");
    let least =
        |figure: fn(&Figures) -> Option<f64>| runs.iter().filter_map(figure).min_by(f64::total_cmp);
    let (all, client) = (
        least(|run| run.cpu_us_per_call),
        least(|run| run.client_cpu_us_per_call),
    );
    let compared = |figure: fn(Comparison) -> Option<f64>| {
        let all = runs.iter().filter_map(|run| run.compared.and_then(figure));
        in_the_middle(all.collect())
    };
    let comparison = (|| {
        Some(Comparison {
            calls_per_second: compared(|one| Some(one.calls_per_second))?,
            ratio: compared(|one| Some(one.ratio))?,
            cpu_ratio: compared(|one| one.cpu_ratio),
        })
    })();
    runs.sort_by(|a, b| a.calls_per_second.total_cmp(&b.calls_per_second));
    let mut middle = runs.swap_remove((runs.len() - 1) / 2);
    middle.cpu_us_per_call = all;
    middle.client_cpu_us_per_call = client;
    middle.compared = comparison;
    Ok(middle)
}

/// Of an even number, the lower of the two in the middle.
fn in_the_middle(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len().checked_sub(1)? / 2).copied()
}

/// A ratio in both directions: how many times the other, and how many times that is this. `None`
/// where one of the two is not known.
pub(super) fn both_ways(own: Option<f64>, other: Option<f64>) -> Option<(f64, f64)> {
    let (own, other) = own.zip(other)?;
    Some((own / other, other / own))
}

/// As many digits as say something.
pub(super) fn ratio(ratio: f64) -> String {
    let digits = match ratio {
        ratio if ratio < 2.0 => 3,
        ratio if ratio < 20.0 => 2,
        _ => 1,
    };
    format!("{ratio:.digits$}")
}

/// With a comma after each thousand.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn figures(calls_per_second: f64, p50: f64, cpu: f64) -> Figures {
        Figures {
            calls_per_second,
            latency_us: Latency {
                p50,
                p99: 3.0 * p50,
            },
            cpu_us_per_call: Some(cpu),
            client_cpu_us_per_call: Some(cpu / 2.0),
            allocations_per_call: Some(7.0),
            core_round_trip_ns: Some(60.0),
            busy: false,
            compared: None,
        }
    }

    #[test]
    fn the_run_in_the_middle_is_told_with_the_least_time_of_the_processor() {
        let runs = vec![
            figures(300.0, 1.0, 5.0),
            figures(100.0, 2.0, 4.0),
            figures(200.0, 3.0, 6.0),
        ];
        let middle = median(runs).expect("there are runs");
        assert_eq!(middle.calls_per_second, 200.0);
        assert_eq!(middle.latency_us.p50, 3.0);
        assert_eq!(middle.cpu_us_per_call, Some(4.0));
        assert_eq!(middle.client_cpu_us_per_call, Some(2.0));
        assert!(median(Vec::new()).is_err());
    }

    #[test]
    fn ratios_within_runs_have_a_middle_of_their_own() {
        let run = |rate: f64, ratio: f64, cpu_ratio| Figures {
            compared: Some(Comparison {
                calls_per_second: rate / ratio,
                ratio,
                cpu_ratio,
            }),
            ..figures(rate, 1.0, 1.0)
        };
        let runs = vec![
            run(100.0, 0.5, Some(2.0)),
            run(300.0, 0.7, None),
            run(200.0, 0.9, Some(4.0)),
        ];
        let middle = median(runs).expect("there are runs");
        assert_eq!(middle.calls_per_second, 200.0);
        let compared = middle.compared.expect("all have it");
        assert_eq!(compared.ratio, 0.7);
        // Of two, the lower one.
        assert_eq!(compared.cpu_ratio, Some(2.0));
        let without = median(vec![figures(1.0, 1.0, 1.0)]).expect("there is one");
        assert_eq!(without.compared, None);
    }

    #[test]
    fn ratios_go_both_ways() {
        assert_eq!(both_ways(Some(8.0), Some(2.0)), Some((4.0, 0.25)));
        assert_eq!(both_ways(None, Some(2.0)), None);
        assert_eq!(both_ways(Some(2.0), None), None);
        for (number, text) in [(0.25, "0.250"), (4.0, "4.00"), (31.94, "31.9")] {
            assert_eq!(ratio(number), text);
        }
    }

    #[test]
    fn the_output_of_both_programs_is_read() {
        let figures = r#""calls_per_second": 5.5, "latency_us": {"p50": 1, "p99": 2.5, "max": 9},
            "cpu_us_per_call": 4, "client_cpu_us_per_call": null, "allocations_per_call": 3, "busy": true"#;
        let go = format!(r#"{{{figures}, "versions": {{"go": "go1.26"}}}}"#);
        let go: GoReport = serde_json::from_str(&go).expect("what Go's program prints");
        assert_eq!(go.versions["go"], "go1.26");
        assert!(go.figures.busy);
        let compared = r#""benchmark": "floor", "compared": {"with": "x", "calls_per_second": 11, "ratio": 0.5}"#;
        let ours = format!(
            r#"{{"date": "d", "machine": {{"cpu": "c", "cores": 2, "system": "s"}},
            "versions": {{"gorums": "0.1.0", "commit": null, "rustc": "r"}}, "results": [{{{figures}, {compared}}}]}}"#
        );
        let ours: Report = serde_json::from_str(&ours).expect("what our program prints");
        let Named { name, figures } = &ours.results[0];
        assert_eq!(name, "floor");
        assert_eq!(figures.compared.expect("it is there").ratio, 0.5);
    }
}
