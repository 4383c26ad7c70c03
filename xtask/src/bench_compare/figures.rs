//! What both programs measured.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Effort;
use super::case::{Case, Place, Threads};
use crate::command::Cmd;

/// One side of a comparison. Both programs have the same names and units.
#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// With something else that our program measured in the same run.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Comparison {
    pub(super) calls_per_second: f64,
    pub(super) ratio: f64,
}

/// What the two sides are, and where they ran.
#[derive(Debug, Clone, Default)]
pub(super) struct Sides {
    pub(super) date: String,
    pub(super) machine: String,
    pub(super) ours: String,
    pub(super) go: String,
}

/// What our program prints.
#[derive(Deserialize)]
struct Report {
    date: String,
    machine: Machine,
    versions: Versions,
    results: Vec<Figures>,
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

/// Runs our program. Of several results, the last one is what the others are there for.
pub(super) fn ours(command: &Cmd, sides: &mut Sides) -> Result<Figures> {
    let output = command.output()?;
    let report: Report =
        serde_json::from_str(&output).with_context(|| format!("the output of `{command}`"))?;
    let Report {
        date,
        machine: Machine { cpu, cores, system },
        versions,
        mut results,
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
    results
        .pop()
        .with_context(|| format!("`{command}` measured nothing"))
}

/// Runs Go's program.
pub(super) fn go(command: &Cmd, sides: &mut Sides) -> Result<Figures> {
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
    Ok(report.figures)
}

/// Both sides of a case.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) case: Case,
    pub(super) go: Figures,
    /// On all threads that the case is measured on.
    pub(super) ours: Vec<(Threads, Figures)>,
}

impl Compared {
    /// Measures both sides in turn.
    pub(super) fn measure(
        case: Case,
        effort: Effort,
        ours_command: &Cmd,
        go_command: &Cmd,
        sides: &mut Sides,
    ) -> Result<Self> {
        let options = case.options();
        let time = format!("{}s", effort.seconds);
        let mut go_command = go_command
            .clone()
            .args(["-nodes", &options.nodes, "-in-flight", &options.in_flight])
            .args(["-payload", &options.payload, "-duration", &time]);
        let mut ours_command = ours_command
            .clone()
            .args(["quorum-call", "--json", "-", "--nodes", &options.nodes])
            .args(["--in-flight", &options.in_flight])
            .args(["--payload", &options.payload, "--duration", &time]);
        if case.place == Place::Processes {
            go_command = go_command.args(["-processes"]);
            ours_command = ours_command.args(["--processes"]);
        }
        let mut go_runs = Vec::new();
        let mut ours_runs = vec![Vec::new(); case.runtimes().len()];
        for _ in 0..effort.repeats {
            go_runs.push(go(&go_command, sides)?);
            for (threads, runs) in case.runtimes().iter().zip(&mut ours_runs) {
                let command = ours_command.clone();
                let options = threads.options();
                let command = command.args(options.iter().map(String::as_str));
                runs.push(ours(&command, sides)?);
            }
        }
        let ours = case.runtimes().iter().zip(ours_runs);
        Ok(Self {
            case,
            go: median(go_runs)?,
            ours: ours
                .map(|(threads, runs)| Ok((*threads, median(runs)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// Our side, on the threads on which a figure is best.
    pub(super) fn best(&self, better: impl Fn(&Figures) -> f64) -> &(Threads, Figures) {
        let best = self
            .ours
            .iter()
            .max_by(|a, b| better(&a.1).total_cmp(&better(&b.1)));
        best.expect("each case has a runtime")
    }

    pub(super) fn busy(&self) -> bool {
        self.go.busy || self.ours.iter().any(|(_, figures)| figures.busy)
    }

    pub(super) fn header() -> String {
        format!(
            "{:42} {:>13} {:>22} {:>19} {:>21}",
            "", "", "calls/s", "p50 µs", "CPU µs/call"
        )
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = |figures: &Figures| figures.cpu_us_per_call.unwrap_or(f64::NAN);
        let mark = |figures: &Figures| if figures.busy { "*" } else { " " };
        write!(
            f,
            "{:42} {:>13} {:>13}{:9} {:>10.1}{:9} {:>11.2}",
            self.case,
            "Go",
            grouped(self.go.calls_per_second),
            mark(&self.go),
            self.go.latency_us.p50,
            "",
            cpu(&self.go),
        )?;
        for (threads, ours) in &self.ours {
            write!(
                f,
                "\n{:42} {:>13} {:>13}{}{:>7.2}x {:>10.1}{:>8.2}x {:>11.2}{:>8.3}x",
                "",
                threads,
                grouped(ours.calls_per_second),
                mark(ours),
                ours.calls_per_second / self.go.calls_per_second,
                ours.latency_us.p50,
                ours.latency_us.p50 / self.go.latency_us.p50,
                cpu(ours),
                cpu(ours) / cpu(&self.go),
            )?;
        }
        Ok(())
    }
}

/// The run in the middle, by calls per second, with the least time of the processor that a run took
/// for each call: what others do adds to it, and nothing takes from it.
pub(super) fn median(mut runs: Vec<Figures>) -> Result<Figures> {
    ensure!(!runs.is_empty(), "nothing was measured");
    let least =
        |figure: fn(&Figures) -> Option<f64>| runs.iter().filter_map(figure).min_by(f64::total_cmp);
    let (all, client) = (
        least(|run| run.cpu_us_per_call),
        least(|run| run.client_cpu_us_per_call),
    );
    runs.sort_by(|a, b| a.calls_per_second.total_cmp(&b.calls_per_second));
    let mut middle = runs.swap_remove((runs.len() - 1) / 2);
    middle.cpu_us_per_call = all;
    middle.client_cpu_us_per_call = client;
    Ok(middle)
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
    fn the_output_of_both_programs_is_read() {
        let figures = r#""calls_per_second": 5.5, "latency_us": {"p50": 1, "p99": 2.5, "max": 9},
            "cpu_us_per_call": 4, "client_cpu_us_per_call": null, "allocations_per_call": 3, "busy": true"#;
        let go = format!(r#"{{{figures}, "versions": {{"go": "go1.26"}}}}"#);
        let go: GoReport = serde_json::from_str(&go).expect("what Go's program prints");
        assert_eq!(go.versions["go"], "go1.26");
        assert!(go.figures.busy);
        let compared = r#""compared": {"with": "x", "calls_per_second": 11, "ratio": 0.5}"#;
        let ours = format!(
            r#"{{"date": "d", "machine": {{"cpu": "c", "cores": 2, "system": "s"}},
            "versions": {{"gorums": "0.1.0", "commit": null, "rustc": "r"}}, "results": [{{{figures}, {compared}}}]}}"#
        );
        let ours: Report = serde_json::from_str(&ours).expect("what our program prints");
        assert_eq!(ours.results[0].compared.expect("it is there").ratio, 0.5);
    }
}
