//! `cargo xtask bench-compare`: this library, the Go library and calls by hand on tonic, measured
//! side by side.

mod case;
mod figures;
mod goals;
mod job;
mod page;
mod picture;
mod record;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use figures::{Figures, both_ways, grouped, ratio};
use goals::Goals;
use job::Job;
use record::{Record, Results, Run};
use serde::{Deserialize, Serialize};

use crate::command::Cmd;
use crate::interrupt::{INTERRUPTED, interrupted, watch_for_interrupt};
use crate::workspace;

/// Measures this library, the Go library and quorum calls written by hand on tonic side by side, and
/// writes docs/benchmarks.md with pictures beside it.
///
/// All make the same quorum calls, to servers in the same process or in processes of their own, with
/// the same payload and the same number of calls in flight. They are measured in turn, in rounds: in
/// each round every contender runs each case once, one right after the other, so that what the machine
/// does meanwhile meets all of them. A figure is that of the round in the middle, by calls per second,
/// with the least CPU per call of all rounds, and each ratio is told both ways.
///
/// The Go library is its published module, driven by interop/go-bench; Go has to be there. The others
/// are driven by gorums-bench: tonic with a channel for each server, a unary call to each, the first
/// majority, and a deadline. Both are measured on a runtime of the current thread, and where servers
/// are in the same process also on one with two workers, and with the client and the servers on two
/// runtimes of one thread each. This library is also measured against plain TCP, with one server that
/// is stopped, slow, or has a stalling disk, and with servers that take 10 ms.
///
/// Every run is kept in a file as soon as it is made. Ctrl-C ends the measurement and shows what there
/// is; --from makes the page of such a file.
///
/// Others on the machine spoil the figures. Where they used the processor meanwhile, that is marked.
/// Ratios suffer less than figures do, and time of the processor for each call less than calls per
/// second.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench-compare
      Everything, in three rounds: about an hour. Writes the page and its pictures.
  cargo xtask bench-compare --quick
      What the goals and the pictures are about, in one round: a few minutes.
  cargo xtask bench-compare --quick --only tonic,ours --only processes
      What has tonic or ours in its name, and processes. No Go is needed.
  cargo xtask bench-compare --only isolation --rounds 1
      Isolation alone.
  cargo xtask bench-compare --list
      The names, and how long each takes.
  cargo xtask bench-compare --from target/bench-compare/results.json
      The page and its pictures once more, without measuring.
  cargo xtask bench-compare --check
      And fail where a goal is not reached.

The page is written after a whole measurement, or where --out or --from says so.

Exit codes: 0 measured, 1 something failed, or with --check a goal was not reached, 130 ended by Ctrl-C.")]
pub(crate) struct Args {
    /// Measure what the goals and the pictures are about only, in one round and shortly
    #[arg(long)]
    quick: bool,

    /// Run only what has one of these words in its name; of several --only all must hold
    #[arg(long, value_name = "WORD,…")]
    only: Vec<String>,

    /// How many rounds [default: 3, or 1 with --quick]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// How long each run is measured, after a second to warm up [default: 3, or 2 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,

    /// Print what would be run, and for how long, and end
    #[arg(long)]
    list: bool,

    /// Fail where a goal is not reached, and name it
    #[arg(long)]
    check: bool,

    /// Where every run is kept
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/bench-compare/results.json"
    )]
    results: PathBuf,

    /// Make the page of the runs in such a file, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "rounds", "seconds", "list"])]
    from: Option<PathBuf>,

    /// Where the page goes [default: docs/benchmarks.md]; with --quick or --only it is written only
    /// where this is given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const GO_BENCH: &str = "interop/go-bench";

/// The folder of the pictures, beside the page.
const PICTURES: &str = "pictures";

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Effort {
    rounds: usize,
    seconds: u32,
}

const FULL: Effort = Effort {
    rounds: 3,
    seconds: 3,
};
const QUICK: Effort = Effort {
    rounds: 1,
    seconds: 2,
};

/// What is run.
struct Programs {
    ours: Cmd,
    go: Option<Cmd>,
}

/// How it ended.
enum End {
    Well,
    Short,
    Interrupted,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match compare(args) {
        Ok(End::Well) => ExitCode::SUCCESS,
        Ok(End::Short) => ExitCode::FAILURE,
        Ok(End::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            println!("\nbench-compare: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<End> {
    let start = Instant::now();
    if let Some(path) = &args.from {
        let record = Record::read(path)?;
        let page = args.out.clone().unwrap_or_else(standard_page);
        return finish(args, &record, Some(&page), &build_ours()?);
    }
    let base = if args.quick { QUICK } else { FULL };
    let effort = Effort {
        rounds: args.rounds.map_or(base.rounds, |rounds| rounds as usize),
        seconds: args.seconds.unwrap_or(base.seconds),
    };
    let mut jobs = Job::all(args.quick);
    jobs.retain(|job| job.is_among(&args.only));
    if jobs.is_empty() {
        bail!("--only: nothing has such a name; --list prints the names");
    }
    if args.list {
        list(&jobs, effort);
        return Ok(End::Well);
    }
    let programs = build(&jobs)?;
    let mut record = Record::new(effort);
    record.sides.tonic = tonic()?;
    let measured = measure(&jobs, effort, &programs, &mut record, &args.results);
    let interrupted = interrupted();
    let failed = match measured {
        // Ctrl-C ends the program that measures, too.
        Err(_) if interrupted => Vec::new(),
        measured => measured?,
    };
    let whole = !args.quick && args.only.is_empty() && !interrupted;
    let page = match &args.out {
        Some(path) if !interrupted => Some(path.clone()),
        _ => whole.then(standard_page),
    };
    let end = finish(args, &record, page.as_deref(), &programs.ours)?;
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    println!(
        "every run is kept in {0}: `cargo xtask bench-compare --from {0}` makes the page of it",
        args.results.display()
    );
    if interrupted {
        let (made, all) = (record.runs.len(), jobs.len() * effort.rounds);
        println!("ended by Ctrl-C after {made} of {all} runs");
        return Ok(End::Interrupted);
    }
    if !failed.is_empty() {
        println!(
            "\nbench-compare: these runs failed, and are not in the figures:\n  {}",
            failed.join("\n  ")
        );
        return Ok(End::Short);
    }
    Ok(end)
}

fn standard_page() -> PathBuf {
    workspace::root().join("docs/benchmarks.md")
}

/// Shows what was measured, and writes the page of it.
fn finish(args: &Args, record: &Record, page: Option<&Path>, ours: &Cmd) -> Result<End> {
    let results = Results::of(record);
    let goals = Goals::of(&results);
    println!("\n{}\n\n{goals}", summary(&results));
    if let Some(path) = page {
        let folder = path.with_file_name(PICTURES);
        let data = workspace::target().join("bench-compare/pictures.json");
        let drawn = picture::draw(&results, &folder, &data, ours)?;
        let (cost, latency) = (
            format!("{PICTURES}/{}", picture::COST),
            format!("{PICTURES}/{}", picture::LATENCY),
        );
        let pictures = drawn.map(|()| page::Pictures {
            cost: &cost,
            latency: &latency,
        });
        let text = page::write(&results, &goals, pictures);
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("\nwritten: {}", path.display());
    }
    if results.busy() {
        println!("\nthe machine was busy: what is marked with * says little");
    }
    let short = goals.short();
    if args.check && !short.is_empty() {
        println!("\nbench-compare: not reached: {}", short.join("; "));
        return Ok(End::Short);
    }
    Ok(End::Well)
}

fn list(jobs: &[Job], effort: Effort) {
    for job in jobs {
        println!("{:3} s  {job}", job.seconds(effort));
    }
    println!("\n{}", outlook(jobs, effort));
}

/// How much there is to be done.
fn outlook(jobs: &[Job], effort: Effort) -> String {
    let seconds: u32 = jobs.iter().map(|job| job.seconds(effort)).sum();
    let seconds = seconds as usize * effort.rounds;
    let counted = |count: usize, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    };
    format!(
        "{} in each of {}: about {}",
        counted(jobs.len(), "run"),
        counted(effort.rounds, "round"),
        counted(seconds.div_ceil(60), "minute")
    )
}

/// How many runs may fail one after the other until nothing more is expected of the next.
const FAILURES_IN_A_ROW: usize = 5;

/// Runs everything in rounds, until it is done or interrupted, and keeps each run at once. Returns the
/// runs that failed: what has been measured in an hour is not given up for one of them, but for several
/// in a row.
fn measure(
    jobs: &[Job],
    effort: Effort,
    programs: &Programs,
    record: &mut Record,
    file: &Path,
) -> Result<Vec<String>> {
    watch_for_interrupt()?;
    let (mut failed, mut in_a_row) = (Vec::new(), 0);
    println!("\n{}; Ctrl-C keeps what there is", outlook(jobs, effort));
    for round in 1..=effort.rounds {
        println!("\nround {round} of {}", effort.rounds);
        for &job in jobs {
            if interrupted() {
                return Ok(failed);
            }
            let results = match job.run(effort, programs, &mut record.sides) {
                Ok(results) => results,
                Err(error) if in_a_row + 1 < FAILURES_IN_A_ROW => {
                    in_a_row += 1;
                    println!("  {job}: FAILED: {error:#}");
                    failed.push(format!("{job}, round {round}"));
                    continue;
                }
                Err(error) => return Err(error).with_context(|| job.to_string()),
            };
            in_a_row = 0;
            for result in &results {
                let name = match results.len() {
                    1 => job.to_string(),
                    _ => format!("{job}: {}", result.name),
                };
                println!("  {name:68} {}", line(&result.figures));
            }
            record.runs.push(Run {
                round,
                job,
                results,
            });
            record.write(file)?;
        }
    }
    Ok(failed)
}

fn line(figures: &Figures) -> String {
    let cpu = figures.cpu_us_per_call;
    format!(
        "{:>11} calls/s{} {:>9.1} µs {:>9} µs CPU",
        grouped(figures.calls_per_second),
        if figures.busy { "*" } else { " " },
        figures.latency_us.p50,
        cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.2}")),
    )
}

/// Each case with its contenders, and how those compare both ways.
fn summary(results: &Results) -> String {
    let mut lines = Vec::new();
    for compared in &results.compared {
        lines.push(compared.case.to_string());
        for (contender, figures) in compared.all() {
            lines.push(format!("  {:22} {}", contender, line(figures)));
        }
        let [go, tonic, ours] = compared.fastest();
        for (own, other) in [(ours, go), (ours, tonic), (tonic, go)] {
            let Some(((by, own), (on, other))) = own.zip(other) else {
                continue;
            };
            let rate = |figures: &Figures| Some(figures.calls_per_second);
            let cpu = |figures: &Figures| figures.cpu_us_per_call;
            for (what, of) in [
                ("calls/s", &rate as &dyn Fn(&Figures) -> Option<f64>),
                ("CPU", &cpu),
            ] {
                if let Some((there, back)) = both_ways(of(own), of(other)) {
                    let (there, back) = (ratio(there), ratio(back));
                    lines.push(format!(
                        "    {what:8} ({by}) ÷ ({on}) = {there}, and back {back}"
                    ));
                }
            }
        }
    }
    let alone = results
        .floors
        .iter()
        .map(|floor| {
            let name = format!(
                "the floor, {}: {}",
                case::size(floor.payload),
                floor.threads
            );
            (name, &floor.figures)
        })
        .chain(results.isolation.iter().map(|(name, figures)| {
            let name = format!("isolation: {name}");
            (name, figures)
        }))
        .chain(results.slow_servers.iter().map(|(threads, figures)| {
            let name = format!("slow servers against timers: {threads}");
            (name, figures)
        }));
    for (name, figures) in alone {
        lines.push(format!("{name:44} {}", line(figures)));
        if let Some(compared) = figures.compared
            && let Some((there, back)) = both_ways(Some(compared.ratio), Some(1.0))
        {
            let (there, back) = (ratio(there), ratio(back));
            let other = grouped(compared.calls_per_second);
            lines.push(format!(
                "    calls/s  ours ÷ the other's {other} = {there}, and back {back}"
            ));
        }
    }
    lines.join("\n")
}

/// The version of tonic that is built.
fn tonic() -> Result<String> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }

    let path = workspace::root().join("Cargo.lock");
    let text = std::fs::read_to_string(&path).context("reading Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("reading Cargo.lock")?;
    let mut packages = lock.package.into_iter();
    let tonic = packages.find(|package| package.name == "tonic");
    let tonic = tonic.context("Cargo.lock has no tonic")?;
    Ok(format!(
        "tonic {}, FuturesUnordered of unary calls",
        tonic.version
    ))
}

/// Builds the programs of these jobs.
fn build(jobs: &[Job]) -> Result<Programs> {
    Ok(Programs {
        ours: build_ours()?,
        go: jobs
            .iter()
            .any(|job| job.needs_go())
            .then(build_go)
            .transpose()?,
    })
}

fn build_ours() -> Result<Cmd> {
    Cmd::cargo()
        .args(["build", "--locked", "--release", "-p", "gorums-bench"])
        .run()?;
    let ours = format!(
        "{}/release/gorums-bench{}",
        workspace::target().display(),
        std::env::consts::EXE_SUFFIX
    );
    Ok(Cmd::new(ours))
}

/// Builds Go's program.
fn build_go() -> Result<Cmd> {
    if !Cmd::new("go").args(["version"]).succeeds() {
        bail!("there is no Go: install 1.25 or later from go.dev/dl");
    }
    let program = format!(
        "{}/interop/go-bench{}",
        workspace::target().display(),
        std::env::consts::EXE_SUFFIX
    );
    go(&["build", "-o", &program, "."]).run().context(
        "the modules that go.sum names are downloaded once, from the proxy that `go env GOPROXY` names",
    )?;
    Ok(Cmd::new(program))
}

/// Checks that Go's program builds, and does what it should.
pub(crate) fn check_go() -> Result<()> {
    build_go()?;
    go(&["vet", "./..."]).run()?;
    go(&["test", "./..."]).run()?;
    let wrong = Cmd::new("gofmt").args(["-l", GO_BENCH]).output()?;
    if !wrong.is_empty() {
        bail!("`gofmt -w` mends these files:\n{wrong}");
    }
    Ok(())
}

/// A command of Go's in the folder of its program. A Go that is too old for the library's module
/// gets a newer one by itself.
fn go(args: &[&str]) -> Cmd {
    let args = args.iter().copied();
    Cmd::new("go").args(["-C", GO_BENCH]).args(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_each_ratio_both_ways() {
        let text = summary(&record::tests::results(8.0));
        let cpu = "CPU      (ours, 1 thread) ÷ (tonic, 1 thread) = 0.250, and back 4.00";
        assert!(text.contains(cpu), "{text}");
        let calls = "calls/s  (ours, 1 thread) ÷ (Go) = 8.00, and back 0.125";
        assert!(text.contains(calls), "{text}");
        let floor = "calls/s  ours ÷ the other's 20,000 = 0.400, and back 2.50";
        assert!(text.contains(floor), "{text}");
    }

    #[test]
    fn the_version_of_tonic_is_told() {
        let version = tonic().expect("it is in Cargo.lock");
        assert!(version.starts_with("tonic 0."), "{version}");
    }

    #[test]
    fn it_is_told_how_long_everything_takes() {
        let all = outlook(&Job::all(false), FULL);
        assert!(all.contains("in each of 3 rounds"), "{all}");
        let quick = outlook(&Job::all(true), QUICK);
        assert!(quick.contains("in each of 1 round: about"), "{quick}");
    }
}
