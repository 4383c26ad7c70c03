//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::Load;
use crate::servers::{Place, Program};

/// Measures calls of Gorums: how many, how fast, and at what cost.
///
/// Each command starts its servers, warms up, makes calls for a while, and prints calls per second,
/// percentiles of their latency, and what a call costs: time of the processor, allocations, memory.
/// On a terminal a bar shows how far it is.
///
/// Figures of a busy machine say little. Whether others used the processor meanwhile is looked at
/// (on Linux) and marked. The figures per call suffer least from it.
#[derive(Debug, Parser)]
#[command(
    name = "gorums-bench",
    version,
    after_help = "Examples:
  gorums-bench quorum-call
      Three servers in this process, 100 calls in flight.
  gorums-bench quorum-call --processes --payload 1KiB
      Each server in a process of its own.
  gorums-bench quorum-call --server-threads 1
      The servers in this process, in a thread of their own.
  gorums-bench rpc --in-flight 1 --threads 1
      The latency of one call at a time.
  gorums-bench quorum-call --rate 50000
      50,000 calls a second, whether earlier ones are done or not.
  gorums-bench floor --repeats 5
      Against plain TCP, in the same run.
  gorums-bench tonic --processes
      What one would write without this library.
  gorums-bench sweep --out sweep
      Latency over throughput: sweep.svg, sweep.png, sweep.json.
  gorums-bench scale clients
      What connections cost: 10, 100 and 1,000 clients of a server.
  gorums-bench connect --tls --processes --nodes 1 --in-flight 1
      What a handshake costs a server.
  gorums-bench serve --listen 10.0.0.1:8080
      A server for --remotes, which may also be the Go library's.

Exit codes: 0 measured, 1 something failed (a call, say), 2 the options are wrong."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quorum calls: a request to all servers, done with the replies of a quorum
    QuorumCall(Measure),
    /// One-way messages to all servers, done when they are handed to every connection; servers tell
    /// how long they took
    Multicast(Measure),
    /// Quorum calls whose handlers let the next request start and answer after 10 ms; also against
    /// a bare timer loop
    SlowServer(Measure),
    /// Requests to one server each, in turn
    Rpc(Measure),
    /// Correctable calls: done when as many servers as the quorum have answered, with an answer
    /// after each
    Correctable(Measure),
    /// Quorum calls whose handlers make a quorum call of their own, to a majority of all servers
    Nested(Measure),
    /// How long it takes from the restart of a server to its first reply
    Reconnect(Measure),
    /// New connections, each with one call; with --tls those with whole handshakes, and those that
    /// resume a session
    Connect(Measure),
    /// Quorum calls with one server stopped (not ended: silent), slow, or with a stalling disk,
    /// each against the same calls to the others alone; --processes always
    Isolation(Measure),
    /// Quorum calls that ask all servers, a quorum only, or others after a delay: with all servers
    /// well, one slow, and one with a stalling disk; --processes always
    Thrifty(Options),
    /// Quorum calls of the library against the same work over plain TCP with length prefixes, in
    /// the same run
    Floor(Measure),
    /// Quorum calls that are written by hand on tonic: a unary call to each server, the first
    /// majority, a deadline
    Tonic(Measure),
    /// Raises the load step by step and draws latency over throughput
    Sweep(Sweep),
    /// What a call and a connection cost as one thing grows: the tables of docs/scaling.md
    ///
    /// Prints a Markdown table with a row for each value. Servers have processes of their own, all
    /// processes one thread, and the clients of each row a process of their own, so that no row has
    /// the memory of another. Takes about a minute.
    Scale(Scale),
    /// Draws sweeps over one another
    Plot(Plot),
    /// Draws what bench-compare has measured
    #[command(hide = true)]
    Contenders(Contenders),
    /// Serves, for a client elsewhere
    Serve(Serve),
}

/// The benchmarks that are made of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Calls {
    QuorumCall,
    Multicast,
    SlowServer,
    Rpc,
    Correctable,
    Nested,
}

impl Calls {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QuorumCall => "quorum-call",
            Self::Multicast => "multicast",
            Self::SlowServer => "slow-server",
            Self::Rpc => "rpc",
            Self::Correctable => "correctable",
            Self::Nested => "nested",
        }
    }
}

/// What is measured, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Servers [default: 3, or as many as --remotes; 5 for thrifty]
    #[arg(short, long, value_name = "COUNT")]
    nodes: Option<usize>,

    /// Replies that a call waits for [default: a majority]
    #[arg(short, long, value_name = "COUNT")]
    quorum: Option<usize>,

    /// Calls in flight: as many as that all the time, or with --rate at most as many
    /// [default: 100; 1,000 for slow-server; 10,000 with --rate]
    #[arg(short, long, value_name = "COUNT")]
    in_flight: Option<usize>,

    /// Calls a second, whether earlier ones are done or not. Latency counts from when a call was
    /// due, so that a call that has to wait for its turn shows it [default for thrifty: 1000]
    #[arg(short, long, value_name = "CALLS")]
    rate: Option<f64>,

    /// Bytes in each request and each reply: 1000, 64KiB, 1MiB
    #[arg(short, long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub(crate) payload: usize,

    /// How long to measure, each time [default: 5s; 4s for isolation]
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// How long to make the same calls before that
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    /// How often to measure; the calls per second are those of the median
    /// [default: 1; 5 for isolation]
    #[arg(long, value_name = "COUNT")]
    repeats: Option<usize>,

    /// Worker threads of the client, and of servers on its runtime; 0 or 1 is a runtime of the
    /// current thread alone
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) threads: usize,

    /// Start each server in a process of its own
    #[arg(long, conflicts_with = "remotes")]
    processes: bool,

    /// The same of the servers: in this process, of a runtime that all of them have to themselves,
    /// in threads of its own [default: none, they are on the client's runtime]; with --processes,
    /// of each one [default: 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "remotes")]
    server_threads: Option<usize>,

    /// Each thread of a server is a runtime of its own, over which its connections are spread
    #[arg(long, requires = "processes", conflicts_with = "server_program")]
    runtime_per_thread: bool,

    /// Speak TLS, each end with the same certificate, made for this
    #[arg(long, conflicts_with_all = ["remotes", "server_program"])]
    tls: bool,

    /// A program whose servers take the orders of this one: go-bench
    #[arg(long, value_name = "PROGRAM", requires = "processes", hide = true)]
    server_program: Option<PathBuf>,

    /// Call servers that run elsewhere: `gorums-bench serve`, or the Go library's benchmark
    #[arg(
        long,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        conflicts_with = "nodes"
    )]
    remotes: Vec<String>,

    /// A call that takes longer has failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// What is measured, and where the figures go.
#[derive(Debug, Clone, Args)]
pub(crate) struct Measure {
    #[command(flatten)]
    pub(crate) options: Options,

    /// Write the figures as JSON to a file, or to standard output (-) in place of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the figures as CSV, a line for each run, to a file, or to standard output (-) in place
    /// of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// What to call
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Calls::QuorumCall)]
    pub(crate) benchmark: Calls,

    /// The steps: calls in flight, or with --rates calls a second [default: 1,2,4,8,…,1024]
    #[arg(long, value_name = "LOAD,…", value_delimiter = ',')]
    steps: Vec<f64>,

    /// The steps are calls a second, made whether earlier ones are done or not
    #[arg(long, requires = "steps")]
    rates: bool,

    /// Where the pictures and the figures go: NAME.svg, NAME.png, NAME.json
    #[arg(short, long, value_name = "NAME", default_value = "sweep")]
    pub(crate) out: PathBuf,

    /// What the pictures call this run
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gorums-bench scale replicas
      3 to 50 servers, 100 calls in flight.
  gorums-bench scale payload --values 1KiB,1MiB
      Three servers, payloads of these sizes.
  gorums-bench scale nodes --json nodes.json
      One client of up to 1,000 nodes.

With many clients or nodes, raise the limit of open files first: ulimit -n 4096. \
Memory is told on Linux, and `nodes` works there only: one process plays all nodes. It listens on all addresses of this machine, of \
which the client takes 127.0.0.1, 127.0.0.2 and so on.")]
pub(crate) struct Scale {
    /// What grows
    #[arg(value_enum)]
    pub(crate) axis: Axis,

    /// The steps [default: replicas 3,5,10,20,50; in-flight 1,10,100,1000,10000;
    /// payload 16KiB,64KiB,256KiB,1MiB,4MiB,16MiB; clients 10,100,1000; nodes 50,200,1000]
    #[arg(long, value_name = "VALUE,…", value_delimiter = ',')]
    pub(crate) values: Vec<String>,

    /// Calls in flight; of clients, those that call at once
    /// [default: 100 for replicas and clients, 2 for payload, 1 and then 20 for nodes]
    #[arg(short, long, value_name = "COUNT")]
    pub(crate) in_flight: Option<usize>,

    /// How long to measure each value
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// How long to make the same calls before that
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    /// Threads of each server's process
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) server_threads: usize,

    /// Each of them is a runtime of its own, over which a server's connections are spread
    #[arg(long)]
    pub(crate) runtime_per_thread: bool,

    /// Write the figures as JSON to a file, or to standard output (-) in place of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Measure one value in this process, and print it for the program that has started this one
    #[arg(long, hide = true)]
    pub(crate) row: bool,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Axis {
    /// Servers, each in a process of its own
    Replicas,
    /// Calls in flight, to three servers
    InFlight,
    /// Bytes of each request and each reply, with three servers
    Payload,
    /// Clients of one server, each with a connection of its own
    Clients,
    /// Nodes of one client, all of them in one process
    Nodes,
}

#[derive(Debug, Args)]
pub(crate) struct Plot {
    /// What sweeps have written
    #[arg(value_name = "FILE.json", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Where the pictures go: NAME.svg, NAME.png
    #[arg(short, long, value_name = "NAME", default_value = "plot")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Contenders {
    /// What bench-compare has written
    pub(crate) file: PathBuf,

    /// Where calls per second and CPU per call go, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) cost: PathBuf,

    /// Where latency over throughput goes, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) latency: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) listen: String,

    /// Worker threads; 0 or 1 is a runtime of the current thread alone
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) threads: usize,

    /// Each thread is a runtime of its own, over which the connections are spread
    #[arg(long)]
    pub(crate) runtime_per_thread: bool,

    /// The largest payload that clients send
    #[arg(short, long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub(crate) payload: usize,

    /// Which of the peers this is, from 1 on; nested calls need peers
    #[arg(long, value_name = "NUMBER", requires = "peers")]
    pub(crate) id: Option<u32>,

    /// The addresses of all servers, this one among them
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', requires = "id")]
    pub(crate) peers: Vec<String>,

    /// The other program's end of this one's standard input and output says what to do
    #[arg(long, hide = true)]
    pub(crate) child: bool,
}

/// What holds where nobody says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) in_flight: usize,
    pub(crate) duration: Duration,
    pub(crate) repeats: usize,
    pub(crate) nodes: usize,
    /// Calls a second; none for so many in flight.
    pub(crate) rate: Option<f64>,
}

impl Defaults {
    /// Of calls that ask a quorum only. A server that stalls has others wait that are not made where
    /// each caller waits for its last call.
    pub(crate) fn thrifty() -> Self {
        Self {
            nodes: 5,
            rate: Some(1_000.0),
            ..Self::default()
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            in_flight: 100,
            duration: Duration::from_secs(5),
            repeats: 1,
            nodes: 3,
            rate: None,
        }
    }
}

/// Options that make sense together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// All connections speak TLS.
    pub(crate) tls: bool,
    pub(crate) nodes: usize,
    pub(crate) quorum: usize,
    pub(crate) load: Load,
    pub(crate) payload: usize,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) repeats: usize,
    pub(crate) threads: usize,
    pub(crate) timeout: Duration,
}

impl Options {
    /// Checks what the parser cannot.
    pub(crate) fn plan(&self, defaults: Defaults) -> Result<Plan> {
        let duration = self.duration.unwrap_or(defaults.duration);
        let repeats = self.repeats.unwrap_or(defaults.repeats);
        let nodes = match (self.nodes, self.remotes.len()) {
            (Some(nodes), _) => nodes,
            (None, 0) => defaults.nodes,
            (None, remotes) => remotes,
        };
        if !(1..=1000).contains(&nodes) {
            bail!("--nodes: between 1 and 1000, not {nodes}");
        }
        let quorum = self.quorum.unwrap_or(nodes / 2 + 1);
        if !(1..=nodes).contains(&quorum) {
            bail!("--quorum: between 1 and the number of servers ({nodes}), not {quorum}");
        }
        let load = match self.rate.or(defaults.rate) {
            None => Load::Closed {
                in_flight: self.in_flight.unwrap_or(defaults.in_flight),
            },
            Some(rate) => {
                if !(0.001..=1e8).contains(&rate) {
                    bail!("--rate: between 0.001 and 100,000,000 calls a second, not {rate}");
                }
                let in_flight = self.in_flight.unwrap_or(10_000);
                Load::Open { rate, in_flight }
            }
        };
        if !(1..=1_000_000).contains(&load.in_flight()) {
            bail!(
                "--in-flight: between 1 and 1,000,000, not {}",
                load.in_flight()
            );
        }
        if self.payload > 32 << 20 {
            bail!("--payload: 32 MiB at most");
        }
        let day = Duration::from_secs(24 * 3600);
        if duration < Duration::from_millis(1) || duration > day {
            bail!("--duration: between 1 ms and a day");
        }
        if self.warm_up > day {
            bail!("--warm-up: a day at most");
        }
        if !(1..=1000).contains(&repeats) {
            bail!("--repeats: between 1 and 1000, not {repeats}");
        }
        for (name, threads) in [
            ("--threads", self.threads),
            ("--server-threads", self.server_threads.unwrap_or(1)),
        ] {
            if threads > 1024 {
                bail!("{name}: 1024 at most, not {threads}");
            }
        }
        if self.timeout.is_zero() {
            bail!("--timeout: with no time at all every call fails");
        }
        let place = if !self.remotes.is_empty() {
            Place::Remote(self.remotes.clone())
        } else if self.processes {
            Place::Processes(Program {
                path: self.server_program.clone(),
                threads: self.server_threads.unwrap_or(1).max(1),
                runtime_per_thread: self.runtime_per_thread,
            })
        } else if let Some(threads) = self.server_threads {
            Place::Apart {
                threads: threads.max(1),
            }
        } else {
            Place::Here
        };
        Ok(Plan {
            place,
            tls: self.tls,
            nodes,
            quorum,
            load,
            payload: self.payload,
            duration,
            warm_up: self.warm_up,
            repeats,
            threads: self.threads.max(1),
            timeout: self.timeout,
        })
    }
}

impl Sweep {
    /// The loads of the steps, in the order in which they come.
    pub(crate) fn loads(&self, plan: &Plan) -> Result<Vec<Load>> {
        if matches!(plan.load, Load::Open { .. }) {
            bail!("--rate: a sweep takes --rates and --steps");
        }
        if self.steps.is_empty() {
            return Ok((0..=10)
                .map(|step| Load::Closed {
                    in_flight: 1 << step,
                })
                .collect());
        }
        let mut loads = Vec::new();
        for &step in &self.steps {
            let mut options = self.options.clone();
            if self.rates {
                options.rate = Some(step);
            } else {
                if step.fract() != 0.0 || step < 1.0 {
                    bail!("--steps: {step} is no number of calls in flight");
                }
                // No number of calls in flight that is allowed is too large for this.
                options.in_flight = Some(step as usize);
            }
            loads.push(options.plan(Defaults::default())?.load);
        }
        Ok(loads)
    }
}

/// A number of bytes, or of KiB or MiB.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        other => return Err(format!("{other:?} is no unit: B, KiB or MiB")),
    };
    let number: usize = number.parse().map_err(|error| format!("{error}"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "too much".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(args: &[&str]) -> Result<Plan> {
        let words = ["gorums-bench", "quorum-call"].iter().chain(args);
        match Cli::try_parse_from(words)?.command {
            Command::QuorumCall(measure) => measure.options.plan(Defaults::default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_parser_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_three_servers_are_called_by_a_hundred() {
        let plan = plan(&[]).expect("the defaults are sound");
        assert_eq!((plan.nodes, plan.quorum), (3, 2));
        assert_eq!(plan.load, Load::Closed { in_flight: 100 });
        assert_eq!(plan.place, Place::Here);
    }

    #[test]
    fn remote_servers_are_counted() {
        let plan = plan(&["--remotes", "a:1,b:2,c:3,d:4,e:5"]).expect("sound");
        assert_eq!((plan.nodes, plan.quorum), (5, 3));
    }

    #[test]
    fn servers_with_threads_have_them_apart_or_in_their_processes() {
        for (args, place) in [
            (&["--server-threads", "2"][..], Place::Apart { threads: 2 }),
            (&["--server-threads", "0"], Place::Apart { threads: 1 }),
            (
                &["--server-threads", "2", "--processes"],
                Place::Processes(Program::own(2)),
            ),
            (
                &[
                    "--server-threads",
                    "2",
                    "--processes",
                    "--runtime-per-thread",
                ],
                Place::Processes(Program {
                    runtime_per_thread: true,
                    ..Program::own(2)
                }),
            ),
            (&["--processes"], Place::Processes(Program::own(1))),
        ] {
            assert_eq!(plan(args).expect("sound").place, place, "{args:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (args, part) in [
            (&["--nodes", "0"][..], "--nodes"),
            (&["--nodes", "1001"], "--nodes"),
            (&["--quorum", "4"], "--quorum"),
            (&["--quorum", "0"], "--quorum"),
            (&["--in-flight", "0"], "--in-flight"),
            (&["--rate", "0"], "--rate"),
            (&["--rate", "NaN"], "--rate"),
            (&["--payload", "33MiB"], "--payload"),
            (&["--payload", "3 furlongs"], "furlongs"),
            (&["--payload", "99999999999999999999"], "--payload"),
            (&["--duration", "0s"], "--duration"),
            (&["--duration", "soon"], "--duration"),
            (&["--repeats", "0"], "--repeats"),
            (&["--threads", "9999"], "--threads"),
            (&["--timeout", "0s"], "--timeout"),
            (&["--processes", "--remotes", "a:1"], "--remotes"),
            (&["--nodes", "3", "--remotes", "a:1"], "--remotes"),
            (&["--server-threads", "9999"], "--server-threads"),
            (&["--server-threads", "2", "--remotes", "a:1"], "--remotes"),
        ] {
            let error = plan(args).expect_err("makes no sense").to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("7", 7),
            ("12B", 12),
            ("1KiB", 1024),
            ("2 MiB", 2 << 20),
            ("3K", 3072),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn the_examples_of_the_help_can_be_pasted_at_any_width_from_80_columns_on() {
        let scale = Cli::command().find_subcommand("scale").cloned();
        for command in [Cli::command(), scale.expect("there is one")] {
            let after = command.get_after_help().expect("it has examples");
            let after = after.to_string();
            for width in [80, 100, 120] {
                let help = command.clone().term_width(width).render_help().to_string();
                let is_command =
                    |line: &&str| line.starts_with("  ") && !line.starts_with("      ");
                for line in after.lines().filter(is_command) {
                    assert!(help.lines().any(|shown| shown == line), "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_sweep_takes_its_steps_or_doubles() {
        let sweep = |args: &[&str]| -> Result<Vec<Load>> {
            let words = ["gorums-bench", "sweep"].iter().chain(args);
            match Cli::try_parse_from(words)?.command {
                Command::Sweep(sweep) => sweep.loads(&sweep.options.plan(Defaults::default())?),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sweep(&[]).expect("sound").len(), 11);
        let loads = sweep(&["--steps", "3,5"]).expect("sound");
        assert_eq!(
            loads,
            [Load::Closed { in_flight: 3 }, Load::Closed { in_flight: 5 }]
        );
        let loads = sweep(&["--steps", "2.5", "--rates"]).expect("sound");
        assert_eq!(
            loads,
            [Load::Open {
                rate: 2.5,
                in_flight: 10_000
            }]
        );
        for wrong in [
            &["--steps", "2.5"][..],
            &["--steps", "0"],
            &["--rates"],
            &["--rate", "5"],
        ] {
            assert!(sweep(wrong).is_err(), "{wrong:?}");
        }
    }
}
