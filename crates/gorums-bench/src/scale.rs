//! `gorums-bench scale`: what a call and a connection cost as one thing grows.
//!
//! Each row is measured by a process of its own, which this one starts with the same command and
//! `--row`: neither the peak of the memory nor what an earlier row has left to the allocator is
//! then in the figures of a later one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::{self, Axis, Calls, Plan};
use crate::library::{self, Library, LibraryCaller};
use crate::load::{CallError, Caller, Load, Work};
use crate::progress::Progress;
use crate::report::{self, Measured, Series, grouped};
use crate::servers::{Place, Program, Servers};
use crate::usage::Usage;
use crate::{measure, runtime};

/// How long connections are looked at while nobody calls.
const IDLE: Duration = Duration::from_secs(2);

/// Files that a process has open beside those that grow: standard streams, what the runtime has,
/// and some to spare.
const OTHER_FILES: u64 = 64;

/// An axis and rows that make sense.
pub(crate) struct Job {
    args: args::Scale,
    rows: Vec<Cell>,
}

/// Where on the axis a row is, and how many calls are in flight there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    value: usize,
    in_flight: usize,
}

impl Job {
    pub(crate) fn new(args: args::Scale) -> Result<Self> {
        let axis = args.axis;
        if axis == Axis::Nodes && !cfg!(target_os = "linux") {
            bail!(
                "nodes: one process plays all of them, at the addresses 127.0.0.1, 127.0.0.2, …, and only Linux has these without \
                 setting them up"
            );
        }
        if axis == Axis::InFlight && args.in_flight.is_some() {
            bail!("--in-flight: it is the axis; --values says which");
        }
        let values = if args.values.is_empty() {
            axis.default_values().to_vec()
        } else {
            let values = args.values.iter().map(|text| axis.value(text));
            values.collect::<Result<_>>()?
        };
        let mut rows = Vec::new();
        for value in values {
            let in_flights = match (axis, args.in_flight) {
                (Axis::InFlight, _) => vec![value],
                (_, Some(in_flight)) => vec![in_flight],
                (Axis::Replicas | Axis::Clients, None) => vec![100],
                (Axis::Payload, None) => vec![2],
                (Axis::Nodes, None) => vec![1, 20],
            };
            for in_flight in in_flights {
                // Each client has one call at a time.
                let most = match axis {
                    Axis::Clients => value,
                    _ => usize::MAX,
                };
                let cell = Cell {
                    value,
                    in_flight: in_flight.min(most),
                };
                // What the options of the other commands refuse is refused here, too.
                plan(&args, cell)?;
                rows.push(cell);
            }
        }
        if args.row && rows.len() != 1 {
            bail!("--row: one value, and one number of calls in flight");
        }
        Ok(Self { args, rows })
    }

    /// Whether another process of this program waits for one row.
    pub(crate) fn is_row(&self) -> bool {
        self.args.row
    }

    /// Measures each row, and prints them. Those that were measured are told even where a later one
    /// fails.
    pub(crate) fn run(self) -> Result<()> {
        let axis = self.args.axis;
        if self.args.row {
            let row = measure_row(&self.args, self.rows[0])?;
            let line = serde_json::to_string(&row).context("writing JSON")?;
            return report::print(&format!("{line}\n"));
        }
        let most = self.rows.iter().map(|cell| axis.open_files(cell.value));
        check_open_files(most.max().unwrap_or(0))?;
        let each = self.args.warm_up + self.args.duration + IDLE;
        let progress = Progress::of(each * u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        let mut rows = Vec::new();
        let mut failure = None;
        for &cell in &self.rows {
            let what = format!("{} {}", axis.shown(cell.value), axis.name());
            progress.phase(&what);
            match in_a_process(&self.args, cell) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    failure = Some(error.context(format!("measuring {what}")));
                    break;
                }
            }
        }
        drop(progress);
        if !rows.is_empty() {
            // Without results: they are in the rows.
            let report::Report {
                date,
                machine,
                versions,
                ..
            } = report::Report::new(Vec::new());
            let head = format!("{}\n{}\n", machine.line(), versions.line());
            let table = table(axis, &rows);
            if let Some(path) = &self.args.json {
                let report = Report {
                    format: report::FORMAT,
                    date,
                    machine,
                    versions,
                    axis: axis.name().to_owned(),
                    rows,
                };
                let mut text = serde_json::to_string_pretty(&report).context("writing JSON")?;
                text.push('\n');
                report::write_to(path, &text)?;
            }
            if self.args.json.as_deref() != Some(Path::new("-")) {
                report::print(&format!("{head}\n{table}"))?;
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Self::Replicas => "replicas",
            Self::InFlight => "in-flight",
            Self::Payload => "payload",
            Self::Clients => "clients",
            Self::Nodes => "nodes",
        }
    }

    fn default_values(self) -> &'static [usize] {
        match self {
            Self::Replicas => &[3, 5, 10, 20, 50],
            Self::InFlight => &[1, 10, 100, 1_000, 10_000],
            Self::Payload => &[16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20],
            Self::Clients => &[10, 100, 1_000],
            Self::Nodes => &[50, 200, 1_000],
        }
    }

    /// A value as it was typed.
    fn value(self, text: &str) -> Result<usize> {
        let most = match self {
            Self::Replicas | Self::Nodes => 1_000,
            Self::InFlight => 1_000_000,
            Self::Clients => 10_000,
            Self::Payload => {
                let size = args::size(text).map_err(|why| anyhow::anyhow!("--values: {why}"))?;
                if !(1..=32 << 20).contains(&size) {
                    bail!("--values: payloads are of 1 byte to 32 MiB, not {text}");
                }
                return Ok(size);
            }
        };
        match text.parse() {
            Ok(value) if (1..=most).contains(&value) => Ok(value),
            _ => bail!(
                "--values: {} are between 1 and {}, not {text}",
                self.name(),
                grouped(most as f64)
            ),
        }
    }

    fn shown(self, value: usize) -> String {
        match self {
            Self::Payload if value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
            Self::Payload if value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
            Self::Payload => format!("{value} B"),
            _ => grouped(value as f64),
        }
    }

    /// How many files a process has open for a value, at most.
    fn open_files(self, value: usize) -> u64 {
        let growing = match self {
            // Two pipes and a connection, and all of them again while allocations are counted.
            Self::Replicas => 6 * value,
            Self::Clients | Self::Nodes => value,
            Self::InFlight | Self::Payload => 0,
        };
        growing as u64 + OTHER_FILES
    }
}

/// What a row measures, in the terms of the other commands.
fn plan(args: &args::Scale, cell: Cell) -> Result<Plan> {
    if !(1..=1_000_000).contains(&cell.in_flight) {
        bail!(
            "--in-flight: between 1 and 1,000,000, not {}",
            cell.in_flight
        );
    }
    let day = Duration::from_secs(24 * 3600);
    if args.duration < Duration::from_millis(1) || args.duration > day {
        bail!("--duration: between 1 ms and a day");
    }
    if args.warm_up > day {
        bail!("--warm-up: a day at most");
    }
    if !(1..=1024).contains(&args.server_threads) {
        bail!(
            "--server-threads: between 1 and 1024, not {}",
            args.server_threads
        );
    }
    let nodes = match args.axis {
        Axis::Replicas | Axis::Nodes => cell.value,
        Axis::InFlight | Axis::Payload => 3,
        Axis::Clients => 1,
    };
    Ok(Plan {
        place: Place::Processes(Program {
            runtime_per_thread: args.runtime_per_thread,
            ..Program::own(args.server_threads)
        }),
        tls: false,
        nodes,
        quorum: nodes / 2 + 1,
        load: Load::Closed {
            in_flight: cell.in_flight,
        },
        payload: match args.axis {
            Axis::Payload => cell.value,
            _ => 0,
        },
        duration: args.duration,
        warm_up: args.warm_up,
        repeats: 1,
        threads: 1,
        timeout: Duration::from_secs(30),
    })
}

/// A row, measured by another process of this program.
fn in_a_process(args: &args::Scale, cell: Cell) -> Result<Row> {
    let program = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new(program);
    command.args(["scale", args.axis.name(), "--row"]);
    command.args(["--values", &cell.value.to_string()]);
    if args.axis != Axis::InFlight {
        command.args(["--in-flight", &cell.in_flight.to_string()]);
    }
    command.args(["--server-threads", &args.server_threads.to_string()]);
    command.args(args.runtime_per_thread.then_some("--runtime-per-thread"));
    for (name, time) in [("--duration", args.duration), ("--warm-up", args.warm_up)] {
        let time = humantime::format_duration(time).to_string();
        command.args([name, &time]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.context("the process of a row cannot be started")?;
    let output = child.wait_with_output().context("waiting for a row")?;
    if !output.status.success() {
        bail!("its process ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("its process has not printed a row")
}

fn measure_row(args: &args::Scale, cell: Cell) -> Result<Row> {
    #[cfg(target_os = "linux")]
    // Whoever waits for the row may be killed.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;

    let plan = plan(args, cell)?;
    let (measured, connections) = match args.axis {
        Axis::Replicas | Axis::InFlight | Axis::Payload => {
            let measured = measure::calls(Calls::QuorumCall, &plan, &Progress::none())?;
            (measured, None)
        }
        Axis::Clients | Axis::Nodes => {
            let (measured, connections) = connections(args.axis, &plan, cell)?;
            (measured, Some(connections))
        }
    };
    Ok(Row {
        value: cell.value,
        measured,
        connections,
    })
}

/// Measures as many connections to one process: while nobody calls, and then with calls.
fn connections(axis: Axis, plan: &Plan, cell: Cell) -> Result<(Measured, Connections)> {
    let runtime = runtime(plan.threads)?;
    runtime.block_on(async {
        let mut servers = one_server(axis, plan)?;
        let unconnected = Used::now(&mut servers)?;
        let clients = clients(axis, plan, cell, servers.addresses()).await?;
        let connected = Used::now(&mut servers)?;
        tokio::time::sleep(IDLE.min(plan.duration)).await;
        let idle = Used::now(&mut servers)?;
        plan.load.run(&clients, plan.warm_up).await?;
        let mut series = Series::default();
        measure::run(&mut series, &clients, plan, &mut servers).await?;
        let called = Used::now(&mut servers)?;
        let count = cell.value as f64;
        let side = |side: fn(&Used) -> Option<Usage>| Side {
            idle_bytes: grown(side(&unconnected), side(&idle)).map(|bytes| bytes / count),
            called_bytes: grown(side(&unconnected), side(&called)).map(|bytes| bytes / count),
            idle_cpu: spent(side(&connected), side(&idle))
                .map(|time| time.as_secs_f64() / (idle.at - connected.at).as_secs_f64()),
        };
        let connections = Connections {
            client: side(|used| used.client),
            server: side(|used| used.server),
        };
        let measured = series.finish("quorum-call", plan, None)?;
        Ok((measured, connections))
    })
}

/// One process, which is one server, or all nodes.
fn one_server(axis: Axis, plan: &Plan) -> Result<Servers> {
    let Place::Processes(program) = &plan.place else {
        bail!("servers of a row have processes of their own");
    };
    let listen = match axis {
        Axis::Nodes => "0.0.0.0:0",
        _ => "127.0.0.1:0",
    };
    Servers::one_process(program, listen, plan.payload)
}

/// What calls the process: many clients of one node, or one of many.
async fn clients(axis: Axis, plan: &Plan, cell: Cell, server: &[String]) -> Result<Clients> {
    let mut clients = Vec::new();
    if axis == Axis::Nodes {
        let port = server
            .first()
            .and_then(|address| address.rsplit(':').next());
        let port = port.context("where the server listens")?;
        let addresses: Vec<String> = (0..cell.value)
            .map(|number| format!("127.0.{}.{}:{port}", number / 250, number % 250 + 1))
            .collect();
        let configuration = library::connect(&addresses, plan).await?;
        clients.push(Library::new(Calls::QuorumCall, &configuration, plan));
    } else {
        for _ in 0..cell.value {
            let configuration = library::connect(server, plan).await?;
            clients.push(Library::new(Calls::QuorumCall, &configuration, plan));
        }
    }
    Ok(Clients {
        clients,
        callers: cell.in_flight,
    })
}

/// Clients whose calls are made in turn, by as many callers as are in flight.
struct Clients {
    clients: Vec<Library>,
    callers: usize,
}

impl Work for Clients {
    type Caller = InTurn;

    /// No two callers have the same client, unless there are more callers than clients.
    fn caller(&self, number: usize) -> InTurn {
        let first = number % self.clients.len();
        let own = self.clients.iter().skip(first).step_by(self.callers);
        InTurn {
            callers: own.map(|client| client.caller(number)).collect(),
            turn: 0,
        }
    }
}

struct InTurn {
    callers: Vec<LibraryCaller>,
    turn: usize,
}

impl Caller for InTurn {
    async fn call(&mut self) -> Result<(), CallError> {
        let turn = self.turn % self.callers.len();
        self.turn += 1;
        self.callers[turn].call().await
    }
}

/// What both sides have used by a time.
struct Used {
    at: std::time::Instant,
    client: Option<Usage>,
    server: Option<Usage>,
}

impl Used {
    fn now(servers: &mut Servers) -> Result<Self> {
        Ok(Self {
            server: servers.usage(usize::MAX)?,
            client: Usage::own(),
            at: std::time::Instant::now(),
        })
    }
}

/// By how many bytes a process has grown; it may also have become smaller.
fn grown(before: Option<Usage>, after: Option<Usage>) -> Option<f64> {
    Some(after?.resident_bytes? as f64 - before?.resident_bytes? as f64)
}

fn spent(before: Option<Usage>, after: Option<Usage>) -> Option<Duration> {
    Some(Duration::from_nanos(after?.cpu_ns - before?.cpu_ns))
}

/// What standard limits of the system have to allow.
#[cfg(unix)]
fn check_open_files(needed: u64) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
    // The type differs between systems.
    #[allow(clippy::useless_conversion)]
    enough_open_files(needed, u64::from(soft), u64::from(hard))
}

/// No such limit.
#[cfg(not(unix))]
fn check_open_files(_needed: u64) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn enough_open_files(needed: u64, soft: u64, hard: u64) -> Result<()> {
    if needed <= soft {
        return Ok(());
    }
    let administrator = if needed > hard {
        format!(" (the hard limit is {hard}, and only an administrator raises that one)")
    } else {
        String::new()
    };
    bail!(
        "a process will have up to {needed} files and connections open, and may have {soft}: first `ulimit -n {needed}`{administrator}, \
         or smaller --values"
    );
}

/// Everything that was measured along an axis, and on what.
#[derive(Debug, Serialize)]
struct Report {
    format: u32,
    date: String,
    machine: crate::machine::Machine,
    versions: crate::machine::Versions,
    axis: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    /// Where on the axis it is: how many, or bytes of payload.
    value: usize,
    measured: Measured,
    /// What connections cost, where the axis is their number.
    connections: Option<Connections>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Connections {
    client: Side,
    server: Side,
}

/// One side of the connections; what the system does not tell is not known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Side {
    /// Resident bytes for each connection, before the first call.
    idle_bytes: Option<f64>,
    /// The same after calls.
    called_bytes: Option<f64>,
    /// Seconds of the processor in each second without calls, for all connections together.
    idle_cpu: Option<f64>,
}

/// For a page: Markdown.
fn table(axis: Axis, rows: &[Row]) -> String {
    let columns: &[&str] = match axis {
        Axis::Replicas => &[
            "replicas",
            "client, µs per call",
            "per replica",
            "servers together, µs per call",
            "per replica",
            "client allocations per call",
        ],
        Axis::InFlight => &[
            "in flight",
            "client, µs per call",
            "servers together, µs per call",
            "client allocations per call",
            "peak memory of the client, MiB",
        ],
        Axis::Payload => &[
            "payload",
            "in flight",
            "client, µs per call",
            "servers together, µs per call",
            "all, µs per KiB",
        ],
        Axis::Clients => &[
            "clients",
            "calling at once",
            "client, µs per call",
            "server, µs per call",
            "server, KiB per connection, idle",
            "after calls",
            "client, KiB per connection and pool, idle",
            "after calls",
            "server, idle, CPU ms per s",
        ],
        Axis::Nodes => &[
            "replicas",
            "in flight",
            "client, µs per call",
            "per replica",
            "client, KiB per replica, idle",
            "after calls",
            "client, idle, CPU ms per s",
        ],
    };
    let mut text = line(columns.iter().map(|column| (*column).to_owned()));
    text += &line(columns.iter().map(|_| "---".to_owned()));
    for row in rows {
        let mut cells = cells(axis, row);
        if row.measured.busy {
            cells[0] += " *";
        }
        text += &line(cells.into_iter());
    }
    if rows.iter().any(|row| row.measured.busy) {
        text += "\n\\* Others used the machine meanwhile: times of the processor are then too long, and memory and allocations are right.\n";
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.collect();
    format!("| {} |\n", cells.join(" | "))
}

fn cells(axis: Axis, row: &Row) -> Vec<String> {
    let measured = &row.measured;
    let value = axis.shown(row.value);
    let in_flight = grouped(measured.in_flight as f64);
    let client = measured.client_cpu_us_per_call;
    let servers = measured.server_cpu_us_per_call;
    let per = |figure: Option<f64>, count: f64| shown(figure.map(|figure| figure / count));
    let count = row.value as f64;
    let allocations = shown(measured.allocations_per_call);
    let kib = |bytes: Option<f64>| shown(bytes.map(|bytes| bytes / 1024.0));
    let side = |side: fn(&Connections) -> Side| row.connections.as_ref().map(side);
    let idle = |side: Option<Side>| kib(side.and_then(|side| side.idle_bytes));
    let called = |side: Option<Side>| kib(side.and_then(|side| side.called_bytes));
    let idle_cpu =
        |side: Option<Side>| shown(side.and_then(|side| side.idle_cpu).map(|cpu| cpu * 1e3));
    let (client_side, server_side) = (side(|both| both.client), side(|both| both.server));
    match axis {
        Axis::Replicas => vec![
            value,
            shown(client),
            per(client, count),
            shown(servers),
            per(servers, count),
            allocations,
        ],
        Axis::InFlight => {
            let peak = measured.client_peak_bytes.map(|bytes| bytes as f64);
            let peak = per(peak, f64::from(1 << 20));
            vec![value, shown(client), shown(servers), allocations, peak]
        }
        Axis::Payload => {
            let all = per(measured.cpu_us_per_call, count / 1024.0);
            vec![value, in_flight, shown(client), shown(servers), all]
        }
        Axis::Clients => vec![
            value,
            in_flight,
            shown(client),
            shown(servers),
            idle(server_side),
            called(server_side),
            idle(client_side),
            called(client_side),
            idle_cpu(server_side),
        ],
        Axis::Nodes => vec![
            value,
            in_flight,
            shown(client),
            per(client, count),
            idle(client_side),
            called(client_side),
            idle_cpu(client_side),
        ],
    }
}

/// With as many digits as say something.
fn shown(figure: Option<f64>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(figure) if figure.abs() < 1.0 => format!("{figure:.2}"),
        Some(figure) if figure.abs() < 100.0 => format!("{figure:.1}"),
        Some(figure) => grouped(figure.round()),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn row(value: usize) -> Row {
        let side = Side {
            idle_bytes: Some(25.0 * 1024.0),
            called_bytes: Some(32.5 * 1024.0),
            idle_cpu: Some(0.002),
        };
        let measured = Measured {
            in_flight: 20,
            client_cpu_us_per_call: Some(1_700.0),
            server_cpu_us_per_call: None,
            busy: false,
            ..report::tests::measured()
        };
        Row {
            value,
            measured,
            connections: Some(Connections {
                client: side,
                server: side,
            }),
        }
    }

    #[test]
    fn a_row_tells_what_a_call_costs_for_each_of_what_grows() {
        let text = table(Axis::Nodes, &[row(1_000)]);
        let last = text.lines().last();
        let expected = "| 1,000 | 20 | 1,700 | 1.7 | 25.0 | 32.5 | 2.0 |";
        assert_eq!(last, Some(expected), "{text}");
    }

    #[test]
    fn every_row_has_the_columns_of_its_table_and_says_where_a_figure_is_unknown() {
        for &axis in Axis::value_variants() {
            let text = table(axis, &[row(10), row(2048)]);
            let columns: Vec<usize> = text.lines().map(|line| line.split('|').count()).collect();
            assert!(columns.iter().all(|&count| count == columns[0]), "{text}");
            assert_eq!(columns.len(), 4, "{text}");
            assert_eq!(text.contains("–"), axis != Axis::Nodes, "{text}");
        }
    }

    #[test]
    fn a_busy_machine_is_marked_in_the_row_and_explained_below() {
        let mut busy = row(10);
        busy.measured.busy = true;
        let text = table(Axis::Clients, &[row(1), busy]);
        assert!(
            text.contains("| 10 * |") && text.contains("| 1 |"),
            "{text}"
        );
        assert!(text.contains("\\* Others used the machine"), "{text}");
    }

    #[test]
    fn payloads_are_shown_in_the_unit_that_fits() {
        for (bytes, text) in [(1000, "1000 B"), (16 << 10, "16 KiB"), (4 << 20, "4 MiB")] {
            assert_eq!(Axis::Payload.shown(bytes), text);
        }
    }

    #[test]
    fn default_values_are_allowed() {
        for &axis in Axis::value_variants() {
            for &value in axis.default_values() {
                assert_eq!(axis.value(&value.to_string()).expect("allowed"), value);
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn too_few_open_files_say_what_to_type() {
        enough_open_files(1_024, 1_024, 4_096).expect("just enough");
        let error = enough_open_files(1_064, 1_024, 4_096).expect_err("too few");
        let text = error.to_string();
        assert!(text.contains("`ulimit -n 1064`"), "{text}");
        assert!(!text.contains("administrator"), "{text}");
        let error = enough_open_files(5_000, 1_024, 4_096).expect_err("too few");
        assert!(error.to_string().contains("administrator"), "{error}");
    }
}
