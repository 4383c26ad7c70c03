//! Measures calls of Gorums. `gorums-bench --help` tells what can be measured, and BENCHMARKING.md
//! how to measure it well.

mod args;
mod by_hand;
mod contenders;
mod cores;
mod floor;
mod hedged;
mod latency;
mod library;
mod load;
mod machine;
mod measure;
mod plot;
mod progress;
mod report;
mod scale;
mod secure;
mod serve;
mod servers;
mod service;
mod sweep;
mod theme;
mod usage;

/// What `proto/benchmark.proto` says, in Rust.
mod proto {
    gorums::include_proto!("benchmark");
}

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Calls, Cli, Command, Defaults, Measure, Plan};
use crate::progress::Progress;
use crate::report::{Measured, Report};
use crate::servers::{Place, Program};

/// The exit status where something failed.
const FAILED: u8 = 1;
/// The exit status where the options are wrong.
const WRONG_OPTIONS: u8 = 2;

fn main() -> ExitCode {
    let job = match Job::new(Cli::parse().command) {
        Ok(job) => job,
        Err(error) => {
            eprintln!("gorums-bench: {error:#}");
            return WRONG_OPTIONS.into();
        }
    };
    match job.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gorums-bench: {error:#}");
            FAILED.into()
        }
    }
}

/// A command whose options make sense.
enum Job {
    Measure {
        what: Benchmark,
        plan: Plan,
        output: Measure,
    },
    Thrifty(Plan),
    Sweep(sweep::Job),
    Scale(scale::Job),
    Plot(args::Plot),
    Contenders(args::Contenders),
    Serve(args::Serve),
}

#[derive(Clone, Copy)]
enum Benchmark {
    Calls(Calls),
    Reconnect,
    Connect,
    Isolation,
    Floor,
    Tonic,
}

impl Job {
    fn new(command: Command) -> Result<Self> {
        let (what, output) = match command {
            Command::QuorumCall(output) => (Benchmark::Calls(Calls::QuorumCall), output),
            Command::Multicast(output) => (Benchmark::Calls(Calls::Multicast), output),
            Command::SlowServer(output) => (Benchmark::Calls(Calls::SlowServer), output),
            Command::Rpc(output) => (Benchmark::Calls(Calls::Rpc), output),
            Command::Correctable(output) => (Benchmark::Calls(Calls::Correctable), output),
            Command::Nested(output) => (Benchmark::Calls(Calls::Nested), output),
            Command::Reconnect(output) => (Benchmark::Reconnect, output),
            Command::Connect(output) => (Benchmark::Connect, output),
            Command::Isolation(output) => (Benchmark::Isolation, output),
            Command::Floor(output) => (Benchmark::Floor, output),
            Command::Tonic(output) => (Benchmark::Tonic, output),
            Command::Serve(serve) => return Ok(Self::Serve(serve)),
            Command::Thrifty(options) => {
                let mut plan = options.plan(Defaults::thrifty())?;
                if matches!(plan.place, Place::Remote(_)) {
                    bail!("--remotes: thrifty has servers that are slow, which only its own are");
                }
                if plan.nodes < 2 {
                    bail!("--nodes: thrifty needs two servers at least");
                }
                plan.place = processes(plan.place);
                return Ok(Self::Thrifty(plan));
            }
            Command::Sweep(sweep) => return Ok(Self::Sweep(sweep::Job::new(sweep)?)),
            Command::Scale(scale) => return Ok(Self::Scale(scale::Job::new(scale)?)),
            Command::Contenders(contenders) => return Ok(Self::Contenders(contenders)),
            Command::Plot(plot) => {
                if plot.files.len() > plot::MOST_RUNS {
                    bail!(
                        "more than {} runs in one picture cannot be told apart",
                        plot::MOST_RUNS
                    );
                }
                return Ok(Self::Plot(plot));
            }
        };
        let mut plan = output.options.plan(what.defaults())?;
        what.check(&mut plan)?;
        let standard = |path: &Option<std::path::PathBuf>| path.as_deref() == Some(Path::new("-"));
        if standard(&output.json) && standard(&output.csv) {
            bail!("--json and --csv: standard output takes one of them");
        }
        Ok(Self::Measure { what, plan, output })
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Measure { what, plan, output } => {
                warn_of_debug_build();
                secure::begin(&plan)?;
                let progress = Progress::of(what.time(&plan));
                let results = what.measure(&plan, &progress)?;
                drop(progress);
                let report = Report::new(results);
                let mut table = true;
                if let Some(path) = &output.json {
                    report::write_to(path, &report.json())?;
                    table &= path != Path::new("-");
                }
                if let Some(path) = &output.csv {
                    report::write_to(path, &report.csv()?)?;
                    table &= path != Path::new("-");
                }
                if table {
                    report::print(&report.table())?;
                }
                Ok(())
            }
            Self::Thrifty(plan) => {
                warn_of_debug_build();
                secure::begin(&plan)?;
                hedged::run(&plan)
            }
            Self::Sweep(sweep) => {
                warn_of_debug_build();
                sweep.run()
            }
            Self::Scale(scale) => {
                if !scale.is_row() {
                    warn_of_debug_build();
                }
                scale.run()
            }
            Self::Plot(args::Plot { files, out }) => {
                let read = files.iter().map(|file| Report::read(file));
                let reports = read.collect::<Result<Vec<_>>>()?;
                plot::draw(&reports, &out)?;
                report::print(&format!("{0}.svg and {0}.png\n", out.display()))
            }
            Self::Contenders(args::Contenders {
                file,
                cost,
                latency,
            }) => {
                let contenders = contenders::Contenders::read(&file)?;
                contenders.draw_cost(&cost)?;
                contenders.draw_latency(&latency)
            }
            Self::Serve(serve) => serve::run(&serve),
        }
    }
}

impl Benchmark {
    fn defaults(self) -> Defaults {
        match self {
            // Such a call takes 10 ms.
            Self::Calls(Calls::SlowServer) => Defaults {
                in_flight: 1000,
                ..Defaults::default()
            },
            // What is compared differs by little, and is judged by its medians.
            Self::Isolation => Defaults {
                duration: Duration::from_secs(4),
                repeats: 5,
                ..Defaults::default()
            },
            _ => Defaults::default(),
        }
    }

    /// What a benchmark needs beside what all need.
    fn check(self, plan: &mut Plan) -> Result<()> {
        let remote = matches!(plan.place, Place::Remote(_));
        match self {
            Self::Reconnect if remote => {
                bail!(
                    "--remotes: reconnect ends and starts servers, which it can only where they are its own"
                )
            }
            Self::Isolation if remote => {
                bail!("--remotes: isolation stops a server, which it can only where it is its own")
            }
            Self::Floor if remote => {
                bail!(
                    "--remotes: the floor has a protocol of its own, which remote servers do not speak"
                )
            }
            Self::Tonic if remote => {
                bail!("--remotes: they have the library's service, and no unary calls")
            }
            Self::Floor | Self::Tonic if plan.tls => {
                bail!("--tls: the floor and tonic are measured without it")
            }
            Self::Isolation => {
                // A server in this process cannot be stopped by itself.
                plan.place = processes(plan.place.clone());
                if plan.quorum >= plan.nodes {
                    let (quorum, nodes) = (plan.quorum, plan.nodes);
                    bail!(
                        "--quorum: with one of {nodes} servers stopped there is no quorum of {quorum}"
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn time(self, plan: &Plan) -> Duration {
        match self {
            Self::Calls(calls) => measure::calls_time(calls, plan),
            Self::Reconnect => plan.duration * u32::try_from(plan.repeats).unwrap_or(u32::MAX),
            Self::Connect => measure::connect_time(plan),
            Self::Isolation => measure::isolation_time(plan),
            Self::Floor => measure::floor_time(plan),
            Self::Tonic => measure::by_hand_time(plan),
        }
    }

    fn measure(self, plan: &Plan, progress: &Progress) -> Result<Vec<Measured>> {
        match self {
            Self::Calls(calls) => Ok(vec![measure::calls(calls, plan, progress)?]),
            Self::Reconnect => Ok(vec![measure::reconnect(plan, progress)?]),
            Self::Connect => measure::connect(plan, progress),
            Self::Isolation => measure::isolation(plan, progress),
            Self::Floor => measure::floor(plan, progress),
            Self::Tonic => Ok(vec![measure::by_hand(plan, progress)?]),
        }
    }
}

/// Servers of this program in processes of their own, if they are none yet.
fn processes(place: Place) -> Place {
    match place {
        Place::Here => Place::Processes(Program::own(1)),
        Place::Apart { threads } => Place::Processes(Program::own(threads)),
        Place::Processes(_) | Place::Remote(_) => place,
    }
}

/// A runtime with so many workers; with one, of the thread that uses it.
pub(crate) fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads > 1 {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        Builder::new_current_thread()
    };
    builder
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

fn warn_of_debug_build() {
    if !machine::Versions::these().optimized() {
        eprintln!(
            "gorums-bench: this build is not optimized: its figures mean nothing (cargo build --release)"
        );
    }
}
