//! What was measured: for people, and for programs.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::Plan;
use crate::latency::{Latencies, Summary};
use crate::load::Load;
use crate::machine::{Machine, Versions};
use crate::servers::{Place, Program};

/// Above so many nanoseconds for a cache line to another core and back, that is worth a word.
const SLOW_CORES: f64 = 1000.0;

/// The layout of the JSON; it grows when a reader would misunderstand what a newer program wrote.
pub(crate) const FORMAT: u32 = 1;

/// What [`Measured::servers`] says of those in the client's process.
const ONE_PROCESS: &str = "one process";

/// What it says of processes in which each thread is a runtime of its own.
const RUNTIME_PER_THREAD: &str = "processes with a runtime per thread";

/// Everything that a command measured, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    /// What a picture calls this run.
    pub(crate) label: Option<String>,
    pub(crate) results: Vec<Measured>,
}

/// One benchmark under one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) benchmark: String,
    /// `one process`, `processes`, `processes with a runtime per thread` or `remote`.
    pub(crate) servers: String,
    pub(crate) nodes: usize,
    pub(crate) quorum: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) in_flight: usize,
    /// Calls a second that were asked for, in an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) threads: usize,
    /// Of each server's process, or in one process those that servers have to themselves; `None`
    /// where they have none, or where it is not known.
    pub(crate) server_threads: Option<usize>,
    /// All connections spoke TLS.
    #[serde(default)]
    pub(crate) tls: bool,
    pub(crate) warm_up_seconds: f64,
    pub(crate) duration_seconds: f64,
    /// Of all runs.
    pub(crate) calls: u64,
    /// Of the median run.
    pub(crate) calls_per_second: f64,
    /// Of all runs.
    pub(crate) latency_us: Summary,
    /// Microseconds of the processor: of everything, and where servers have processes of their own,
    /// of either side.
    pub(crate) cpu_us_per_call: Option<f64>,
    pub(crate) client_cpu_us_per_call: Option<f64>,
    pub(crate) server_cpu_us_per_call: Option<f64>,
    /// Of the client, and of servers in its process.
    pub(crate) allocations_per_call: Option<f64>,
    pub(crate) allocated_bytes_per_call: Option<f64>,
    pub(crate) client_peak_bytes: Option<u64>,
    pub(crate) server_peak_bytes: Option<u64>,
    pub(crate) one_way: Option<OneWay>,
    pub(crate) compared: Option<Comparison>,
    /// The largest of the runs.
    #[serde(default)]
    pub(crate) core_round_trip_ns: Option<f64>,
    /// Others used the processor while one of the runs went on.
    pub(crate) busy: bool,
    pub(crate) runs: Vec<Run>,
}

/// One of the repeated runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) calls: u64,
    /// Calls of an open loop that were due and never made.
    pub(crate) never_made: u64,
    pub(crate) seconds: f64,
    pub(crate) calls_per_second: f64,
    pub(crate) latency_us: Summary,
    pub(crate) cpu_us_per_call: Option<f64>,
    pub(crate) client_cpu_us_per_call: Option<f64>,
    pub(crate) server_cpu_us_per_call: Option<f64>,
    /// Which part of the machine others used meanwhile.
    pub(crate) others_cpu: Option<f64>,
    /// How long a cache line took to another core and back, before the run or after it, whichever
    /// took longer.
    #[serde(default)]
    pub(crate) core_round_trip_ns: Option<f64>,
    /// Of calls that take as long as a timer: how many ended in one of the busiest milliseconds (the
    /// 95th percentile), by the mean. Far above 1 they came in waves.
    #[serde(default)]
    pub(crate) peak_to_mean: Option<f64>,
    pub(crate) busy: bool,
}

/// How one-way messages arrived, as the servers saw it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct OneWay {
    pub(crate) messages: u64,
    pub(crate) mean_us: f64,
    pub(crate) deviation_us: f64,
}

/// The same load on something else, in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) with: String,
    pub(crate) calls_per_second: f64,
    /// Calls per second, by those of what it is compared with.
    pub(crate) ratio: f64,
    /// Time of the processor for each call, in the same way.
    pub(crate) cpu_ratio: Option<f64>,
    /// As [`Run::peak_to_mean`], the largest of its runs.
    #[serde(default)]
    pub(crate) peak_to_mean: Option<f64>,
}

/// What was allocated for each call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocations {
    pub(crate) per_call: f64,
    pub(crate) bytes_per_call: f64,
}

/// The runs of one benchmark, while they are made.
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(crate) runs: Vec<Run>,
    pub(crate) latencies: Latencies,
    pub(crate) one_way: Option<OneWay>,
    pub(crate) allocations: Option<Allocations>,
    pub(crate) client_peak_bytes: Option<u64>,
    pub(crate) server_peak_bytes: Option<u64>,
}

impl Series {
    pub(crate) fn calls_per_second(&self) -> f64 {
        median(self.runs.iter().map(|run| run.calls_per_second))
    }

    /// Of all runs together.
    fn per_call(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let mut total = 0.0;
        let mut calls = 0.0;
        for run in &self.runs {
            total += figure(run)? * run.calls as f64;
            calls += run.calls as f64;
        }
        (calls > 0.0).then(|| total / calls)
    }

    /// Against the same load on something else.
    pub(crate) fn compared(&self, with: &str, other: &Self) -> Comparison {
        let cpu = |series: &Self| series.per_call(|run| run.cpu_us_per_call);
        Comparison {
            with: with.to_owned(),
            calls_per_second: other.calls_per_second(),
            ratio: self.calls_per_second() / other.calls_per_second(),
            cpu_ratio: cpu(self).zip(cpu(other)).map(|(own, other)| own / other),
            peak_to_mean: largest_peak(&other.runs),
        }
    }

    pub(crate) fn finish(
        self,
        benchmark: &str,
        plan: &Plan,
        compared: Option<Comparison>,
    ) -> Result<Measured> {
        let Some(latency_us) = self.latencies.summary() else {
            bail!("no call was made within {:?}", plan.duration);
        };
        let (servers, server_threads) = match &plan.place {
            Place::Here => (ONE_PROCESS, None),
            Place::Apart { threads } => (ONE_PROCESS, Some(*threads)),
            Place::Processes(Program {
                path: None,
                threads,
                runtime_per_thread,
            }) => {
                let servers = if *runtime_per_thread {
                    RUNTIME_PER_THREAD
                } else {
                    "processes"
                };
                (servers, Some(*threads))
            }
            // How many it has is its own affair.
            Place::Processes(_) => ("processes of another program", None),
            Place::Remote(_) => ("remote", None),
        };
        let rate = match plan.load {
            Load::Closed { .. } => None,
            Load::Open { rate, .. } => Some(rate),
        };
        Ok(Measured {
            benchmark: benchmark.to_owned(),
            servers: servers.to_owned(),
            nodes: plan.nodes,
            quorum: plan.quorum,
            payload_bytes: plan.payload,
            in_flight: plan.load.in_flight(),
            rate,
            threads: plan.threads,
            server_threads,
            tls: plan.tls,
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            duration_seconds: plan.duration.as_secs_f64(),
            calls: self.runs.iter().map(|run| run.calls).sum(),
            calls_per_second: self.calls_per_second(),
            latency_us,
            cpu_us_per_call: self.per_call(|run| run.cpu_us_per_call),
            client_cpu_us_per_call: self.per_call(|run| run.client_cpu_us_per_call),
            server_cpu_us_per_call: self.per_call(|run| run.server_cpu_us_per_call),
            allocations_per_call: self.allocations.map(|all| all.per_call),
            allocated_bytes_per_call: self.allocations.map(|all| all.bytes_per_call),
            client_peak_bytes: self.client_peak_bytes,
            server_peak_bytes: self.server_peak_bytes,
            one_way: self.one_way,
            compared,
            core_round_trip_ns: largest_round_trip(&self.runs),
            busy: self.runs.iter().any(|run| run.busy),
            runs: self.runs,
        })
    }
}

fn largest_peak(runs: &[Run]) -> Option<f64> {
    let all = runs.iter().filter_map(|run| run.peak_to_mean);
    all.max_by(f64::total_cmp)
}

fn largest_round_trip(runs: &[Run]) -> Option<f64> {
    let all = runs.iter().filter_map(|run| run.core_round_trip_ns);
    all.max_by(f64::total_cmp)
}

impl Report {
    pub(crate) fn new(results: Vec<Measured>) -> Self {
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        Self {
            format: FORMAT,
            date: now.to_string(),
            machine: Machine::this(),
            versions: Versions::these(),
            label: None,
            results,
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        // A later layout would fail by some field, which says less.
        let format: Format = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not what `gorums-bench --json` writes"))?;
        if format.format != FORMAT {
            bail!(
                "{shown} has format {}, and this program reads {FORMAT}",
                format.format
            );
        }
        serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not what `gorums-bench --json` writes"))
    }

    pub(crate) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data can be written");
        text.push('\n');
        text
    }

    /// A line for each run.
    pub(crate) fn csv(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for measured in &self.results {
            for (number, run) in (1..).zip(&measured.runs) {
                writer.serialize(CsvRow::new(self, measured, number, run))?;
            }
        }
        let bytes = writer.into_inner().context("writing CSV")?;
        String::from_utf8(bytes).context("writing CSV")
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text)
            .expect("a string takes everything");
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{}", self.machine.line())?;
        writeln!(text, "{}", self.versions.line())?;
        for measured in &self.results {
            write!(
                text,
                "\n{measured_title}\n",
                measured_title = measured.title()
            )?;
            writeln!(
                text,
                "  {:>8} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                "", "calls/s", "p50 µs", "p90", "p99", "p99.9", "max", "CPU µs"
            )?;
            if measured.runs.len() > 1 {
                for (number, run) in (1..).zip(&measured.runs) {
                    let name = format!("run {number}");
                    let mark = if run.busy { " busy" } else { "" };
                    row(
                        text,
                        &name,
                        run.calls_per_second,
                        &run.latency_us,
                        run.cpu_us_per_call,
                        mark,
                    )?;
                }
            }
            let mark = if measured.busy { " busy" } else { "" };
            let (rate, latency) = (measured.calls_per_second, &measured.latency_us);
            row(text, "all", rate, latency, measured.cpu_us_per_call, mark)?;
            for line in measured.notes() {
                writeln!(text, "  {line}")?;
            }
        }
        Ok(())
    }
}

impl Measured {
    /// What was measured, and under which load.
    fn title(&self) -> String {
        let load = match self.rate {
            None => format!("{} in flight", self.in_flight),
            Some(rate) => {
                format!(
                    "{} calls/s, at most {} in flight",
                    grouped(rate),
                    self.in_flight
                )
            }
        };
        let (nodes, quorum, payload) = (self.nodes, self.quorum, self.payload_bytes);
        let (name, place) = (&self.benchmark, self.place());
        format!("{name}: {nodes} nodes, quorum {quorum}, {payload} B, {load}; {place}")
    }

    /// The same without the load.
    pub(crate) fn setting(&self) -> String {
        let (nodes, quorum, payload) = (self.nodes, self.quorum, self.payload_bytes);
        format!(
            "{nodes} nodes, quorum {quorum}, {payload} B; {}{}",
            self.place(),
            if self.tls { ", TLS" } else { "" }
        )
    }

    fn place(&self) -> String {
        let threads = |threads: usize| match threads {
            1 => "1 thread".to_owned(),
            more => format!("{more} threads"),
        };
        match self.server_threads {
            Some(servers) if self.servers == ONE_PROCESS => {
                format!("{ONE_PROCESS}, {} + {servers} threads", self.threads)
            }
            Some(servers) if servers != self.threads => {
                format!(
                    "{} of {}, client of {}",
                    self.servers,
                    threads(servers),
                    threads(self.threads)
                )
            }
            Some(_) => format!("{} of {}", self.servers, threads(self.threads)),
            None => format!("{}, {}", self.servers, threads(self.threads)),
        }
    }

    /// What does not fit into the columns.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Some(client), Some(server)) =
            (self.client_cpu_us_per_call, self.server_cpu_us_per_call)
        {
            notes.push(format!(
                "CPU per call: client {client:.2} µs, servers {server:.2} µs"
            ));
        }
        if let (Some(count), Some(bytes)) =
            (self.allocations_per_call, self.allocated_bytes_per_call)
        {
            let whose = match &*self.servers {
                ONE_PROCESS => "client and servers",
                _ => "client",
            };
            notes.push(format!(
                "allocations per call: {count:.2}, {bytes:.0} bytes ({whose})"
            ));
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        match (self.client_peak_bytes, self.server_peak_bytes) {
            (Some(client), Some(servers)) => notes.push(format!(
                "peak memory: client {:.1} MiB, servers {:.1} MiB together",
                mib(client),
                mib(servers)
            )),
            (Some(all), None) => notes.push(format!("peak memory: {:.1} MiB", mib(all))),
            (None, _) => {}
        }
        if let Some(one_way) = &self.one_way {
            notes.push(format!(
                "one way: {} messages arrived after {:.1} µs on average, deviation {:.1} µs",
                one_way.messages, one_way.mean_us, one_way.deviation_us
            ));
        }
        if let Some(compared) = &self.compared {
            let cpu = match compared.cpu_ratio {
                Some(ratio) => format!("; CPU per call {ratio:.2} times"),
                None => String::new(),
            };
            notes.push(format!(
                "{:.3} times {} ({} calls/s in the same run){cpu}",
                compared.ratio,
                compared.with,
                grouped(compared.calls_per_second)
            ));
        }
        if let Some(peak) = largest_peak(&self.runs) {
            let compared = self.compared.as_ref();
            let other = compared.and_then(|other| Some((&other.with, other.peak_to_mean?)));
            let other =
                other.map_or_else(String::new, |(with, peak)| format!("; {with}: {peak:.2}"));
            notes.push(format!(
                "evenness: in the busiest milliseconds {peak:.2} times as many calls ended as on average{other}"
            ));
        }
        let never: u64 = self.runs.iter().map(|run| run.never_made).sum();
        if never > 0 {
            notes.push(format!(
                "{never} calls were due and never made: the rate was too high"
            ));
        }
        // As is usual, it explains nothing. The figure is in the JSON in any case.
        if let Some(nanos) = self.core_round_trip_ns.filter(|nanos| *nanos > SLOW_CORES) {
            notes.push(format!(
                "the cores of this machine were slow to pass memory to each other ({nanos:.0} ns, where some 100 \
                 are usual), which costs threads that share a runtime most: see BENCHMARKING.md"
            ));
        }
        if self.busy {
            let most = self
                .runs
                .iter()
                .filter_map(|run| run.others_cpu)
                .fold(0.0, f64::max);
            notes.push(format!(
                "the machine was busy: others used up to {:.0} % of it",
                most * 100.0
            ));
        }
        notes
    }
}

fn row(
    text: &mut String,
    name: &str,
    rate: f64,
    latency: &Summary,
    cpu: Option<f64>,
    mark: &str,
) -> std::fmt::Result {
    let cpu = cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.2}"));
    writeln!(
        text,
        "  {name:>8} {:>11} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {cpu:>9}{mark}",
        grouped(rate),
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.max,
    )
}

/// With a comma after each thousand.
pub(crate) fn grouped(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
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

/// The middle one, or the lower of the two in the middle; 0 of none.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        count => figures[(count - 1) / 2],
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize)]
struct CsvRow<'a> {
    date: &'a str,
    gorums: &'a str,
    commit: &'a str,
    cpu: &'a str,
    cores: usize,
    benchmark: &'a str,
    servers: &'a str,
    nodes: usize,
    quorum: usize,
    payload_bytes: usize,
    in_flight: usize,
    rate: Option<f64>,
    threads: usize,
    server_threads: Option<usize>,
    tls: bool,
    run: usize,
    calls: u64,
    never_made: u64,
    seconds: f64,
    calls_per_second: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p99_9_us: f64,
    max_us: f64,
    cpu_us_per_call: Option<f64>,
    client_cpu_us_per_call: Option<f64>,
    server_cpu_us_per_call: Option<f64>,
    allocations_per_call: Option<f64>,
    allocated_bytes_per_call: Option<f64>,
    client_peak_bytes: Option<u64>,
    server_peak_bytes: Option<u64>,
    others_cpu: Option<f64>,
    busy: bool,
    core_round_trip_ns: Option<f64>,
}

impl<'a> CsvRow<'a> {
    fn new(report: &'a Report, measured: &'a Measured, run: usize, of: &Run) -> Self {
        Self {
            date: &report.date,
            gorums: &report.versions.gorums,
            commit: report.versions.commit.as_deref().unwrap_or_default(),
            cpu: &report.machine.cpu,
            cores: report.machine.cores,
            benchmark: &measured.benchmark,
            servers: &measured.servers,
            nodes: measured.nodes,
            quorum: measured.quorum,
            payload_bytes: measured.payload_bytes,
            in_flight: measured.in_flight,
            rate: measured.rate,
            threads: measured.threads,
            server_threads: measured.server_threads,
            tls: measured.tls,
            run,
            calls: of.calls,
            never_made: of.never_made,
            seconds: of.seconds,
            calls_per_second: of.calls_per_second,
            mean_us: of.latency_us.mean,
            p50_us: of.latency_us.p50,
            p90_us: of.latency_us.p90,
            p99_us: of.latency_us.p99,
            p99_9_us: of.latency_us.p99_9,
            max_us: of.latency_us.max,
            cpu_us_per_call: of.cpu_us_per_call,
            client_cpu_us_per_call: of.client_cpu_us_per_call,
            server_cpu_us_per_call: of.server_cpu_us_per_call,
            allocations_per_call: measured.allocations_per_call,
            allocated_bytes_per_call: measured.allocated_bytes_per_call,
            client_peak_bytes: measured.client_peak_bytes,
            server_peak_bytes: measured.server_peak_bytes,
            others_cpu: of.others_cpu,
            busy: of.busy,
            core_round_trip_ns: of.core_round_trip_ns,
        }
    }
}

/// Writes to a file, or where it is `-` to standard output.
pub(crate) fn write_to(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Prints; that nobody reads it is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn measured() -> Measured {
        let latency_us = Summary {
            mean: 51.0,
            p50: 50.0,
            p90: 90.0,
            p99: 99.0,
            p99_9: 100.0,
            max: 1234.5,
        };
        let run = |calls_per_second, busy| Run {
            calls: 1000,
            never_made: 0,
            seconds: 2.0,
            calls_per_second,
            latency_us,
            cpu_us_per_call: Some(4.0),
            client_cpu_us_per_call: Some(1.0),
            server_cpu_us_per_call: Some(3.0),
            others_cpu: Some(if busy { 0.25 } else { 0.01 }),
            core_round_trip_ns: Some(if busy { 300.4 } else { 60.0 }),
            peak_to_mean: Some(if busy { 3.5 } else { 1.5 }),
            busy,
        };
        Measured {
            benchmark: "quorum-call".to_owned(),
            servers: "processes".to_owned(),
            nodes: 3,
            quorum: 2,
            payload_bytes: 1024,
            in_flight: 100,
            rate: None,
            threads: 1,
            server_threads: Some(1),
            tls: false,
            warm_up_seconds: 1.0,
            duration_seconds: 2.0,
            calls: 3000,
            calls_per_second: 123_456.0,
            latency_us,
            cpu_us_per_call: Some(4.0),
            client_cpu_us_per_call: Some(1.0),
            server_cpu_us_per_call: Some(3.0),
            allocations_per_call: Some(5.25),
            allocated_bytes_per_call: Some(770.0),
            client_peak_bytes: Some(6 << 20),
            server_peak_bytes: Some(21 << 20),
            one_way: None,
            compared: Some(Comparison {
                with: "the floor".to_owned(),
                calls_per_second: 246_912.0,
                ratio: 0.5,
                cpu_ratio: Some(2.0),
                peak_to_mean: Some(1.25),
            }),
            core_round_trip_ns: Some(300.4),
            busy: true,
            runs: vec![
                run(123_456.0, false),
                run(100_000.0, true),
                run(150_000.0, false),
            ],
        }
    }

    pub(crate) fn report(results: Vec<Measured>) -> Report {
        Report::new(results)
    }

    #[test]
    fn json_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let mut report = report(vec![measured()]);
        report.label = Some("mine".to_owned());
        write_to(&path, &report.json()).expect("writes");
        assert_eq!(Report::read(&path).expect("reads"), report);
    }

    #[test]
    fn another_format_is_refused_by_its_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        for (text, part) in [
            ("{\"format\": 99, \"runs\": 3}", "format 99"),
            ("{\"format\": 1}", "is not what"),
            ("calls: 3", "is not what"),
        ] {
            fs::write(&path, text).expect("writes");
            let error = Report::read(&path).expect_err("is not ours").to_string();
            assert!(error.contains(part), "{error}");
        }
        let missing = Report::read(&folder.path().join("nothing")).expect_err("is not there");
        assert!(missing.to_string().contains("nothing"), "{missing}");
    }

    #[test]
    fn csv_has_a_line_for_each_run() {
        let csv = report(vec![measured(), measured()])
            .csv()
            .expect("plain data");
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 1 + 6);
        let columns: Vec<&str> = lines[0].split(',').collect();
        let of = |line: &str, column: &str| {
            let at = columns.iter().position(|name| *name == column);
            let mut reader = csv::ReaderBuilder::new();
            let mut reader = reader.has_headers(false).from_reader(line.as_bytes());
            let record = reader.records().next().expect("a line").expect("CSV");
            record[at.expect("a column")].to_owned()
        };
        assert_eq!(of(lines[2], "run"), "2");
        assert_eq!(of(lines[2], "calls_per_second"), "100000.0");
        assert_eq!(of(lines[2], "busy"), "true");
        assert_eq!(of(lines[2], "rate"), "");
        assert_eq!(of(lines[2], "benchmark"), "quorum-call");
    }

    #[test]
    fn the_table_says_what_was_measured_and_what_came_of_it() {
        let table = report(vec![measured()]).table();
        for part in [
            "quorum-call: 3 nodes, quorum 2, 1024 B, 100 in flight; processes of 1 thread",
            "run 2     100,000",
            "all     123,456",
            "1234.5",
            "client 1.00 µs, servers 3.00 µs",
            "5.25, 770 bytes (client)",
            "client 6.0 MiB, servers 21.0 MiB",
            "0.500 times the floor (246,912 calls/s in the same run); CPU per call 2.00 times",
            "3.50 times as many calls ended as on average; the floor: 1.25",
            "the machine was busy: others used up to 25 % of it",
        ] {
            assert!(table.contains(part), "{part:?} is missing in\n{table}");
        }
    }

    #[test]
    fn the_title_says_who_has_which_threads() {
        for (servers, threads, server_threads, place) in [
            (ONE_PROCESS, 1, None, "one process, 1 thread"),
            (ONE_PROCESS, 2, None, "one process, 2 threads"),
            (ONE_PROCESS, 1, Some(1), "one process, 1 + 1 threads"),
            (ONE_PROCESS, 1, Some(2), "one process, 1 + 2 threads"),
            ("processes", 1, Some(1), "processes of 1 thread"),
            (
                "processes",
                1,
                Some(2),
                "processes of 2 threads, client of 1 thread",
            ),
            (
                RUNTIME_PER_THREAD,
                2,
                Some(2),
                "processes with a runtime per thread of 2 threads",
            ),
            ("remote", 1, None, "remote, 1 thread"),
        ] {
            let mut one = measured();
            one.servers = servers.to_owned();
            (one.threads, one.server_threads) = (threads, server_threads);
            assert!(one.title().ends_with(&format!("; {place}")), "{place}");
        }
    }

    #[test]
    fn figures_are_those_of_all_runs_and_rates_of_the_median() {
        let mut series = Series::default();
        for (calls, calls_per_second, cpu) in
            [(100, 50.0, 1.0), (300, 150.0, 2.0), (200, 100.0, 4.0)]
        {
            let mut run = measured().runs.remove(0);
            (run.calls, run.calls_per_second, run.cpu_us_per_call) =
                (calls, calls_per_second, Some(cpu));
            series.runs.push(run);
        }
        assert_eq!(series.calls_per_second(), 100.0);
        assert_eq!(
            series.per_call(|run| run.cpu_us_per_call),
            Some(1500.0 / 600.0)
        );
        series.runs[1].cpu_us_per_call = None;
        assert_eq!(series.per_call(|run| run.cpu_us_per_call), None);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0.0, "0"),
            (7.25, "7.2"),
            (123.0, "123"),
            (1234.0, "1,234"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_one() {
        assert_eq!(median([3.0, 1.0, 2.0, 4.0].into_iter()), 2.0);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
