//! `cargo xtask bench-compare`: this library and the Go library, measured side by side.

mod case;
mod figures;
mod goals;
mod page;
mod picture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use case::{Case, Place, Threads};
use figures::{Compared, Figures, Sides};
use goals::Goals;

use crate::command::Cmd;
use crate::workspace;

/// Measures this library and the Go library side by side, and writes docs/benchmarks.md with a
/// picture beside it.
///
/// The Go library is its published module, driven by interop/go-bench; Go has to be there. This
/// library is driven by gorums-bench. Both make the same quorum calls, to servers in the same
/// process or in processes of their own, with the same number of calls in flight. They are measured
/// in turn, so that what the machine does meanwhile meets both. Our side is measured on a runtime
/// of the current thread, and where servers are in the same process also on one with two workers,
/// and with the client and the servers on two runtimes of one thread each.
///
/// Others on the machine spoil the figures. Where they used the processor meanwhile, that is
/// marked. Ratios suffer less than figures do, and time of the processor for each call less than
/// calls per second.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench-compare              everything, three times each: about half an hour
  cargo xtask bench-compare --quick      what the goals are about, once, without a picture: a few minutes
  cargo xtask bench-compare --check      and fail where a goal is not reached

Exit codes: 0 measured, 1 something failed, or with --check a goal was not reached.")]
pub(crate) struct Args {
    /// Measure what the goals are about only, once each and shortly
    #[arg(long)]
    quick: bool,

    /// Fail where a goal is not reached, and name it
    #[arg(long)]
    check: bool,

    /// Where the page goes; with --quick it is written only where this is given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const GO_BENCH: &str = "interop/go-bench";

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Effort {
    repeats: usize,
    seconds: u32,
}

const FULL: Effort = Effort {
    repeats: 3,
    seconds: 3,
};
const QUICK: Effort = Effort {
    repeats: 1,
    seconds: 2,
};

/// Everything that was measured.
struct Results {
    effort: Effort,
    compared: Vec<Compared>,
    floors: Vec<Floor>,
    isolation: Figures,
    /// On all threads that it is measured on.
    slow_servers: Vec<(Threads, Figures)>,
    mixed: Mixed,
    sides: Sides,
}

/// This library against plain TCP, both on the same threads of one process.
struct Floor {
    payload: usize,
    threads: Threads,
    figures: Figures,
}

/// Go and this library in one system: three servers, each in a process of its own, 100 calls in
/// flight, 0 B. Go is the program of the interoperability tests here, on grpc-go, since the
/// library's published module speaks an older protocol.
struct Mixed {
    go_on_go: Figures,
    go_on_ours: Figures,
    ours_on_go: Figures,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match compare(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nbench-compare: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn compare(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let effort = if args.quick { QUICK } else { FULL };
    let (ours, go) = build()?;
    let results = measure(effort, Case::all(args.quick), &ours, &go)?;
    let goals = Goals::of(&results);
    println!("\n{goals}");
    let page = match (&args.out, args.quick) {
        (Some(path), _) => Some(path.clone()),
        (None, false) => Some(workspace::root().join("docs/benchmarks.md")),
        (None, true) => None,
    };
    if let Some(path) = page {
        let drawing = path.with_extension("svg");
        if !args.quick {
            picture::draw(&drawing, effort, &ours, &go)?;
        }
        let shown = drawing.file_name().filter(|_| !args.quick);
        let text = page::write(&results, &goals, shown.and_then(|name| name.to_str()));
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("\nwritten: {}", path.display());
    }
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    if results.busy() {
        println!("the machine was busy: what is marked with * says little");
    }
    let short = goals.short();
    if args.check && !short.is_empty() {
        println!("\nbench-compare: not reached: {}", short.join("; "));
        return Ok(false);
    }
    Ok(true)
}

/// Builds both programs.
fn build() -> Result<(Cmd, Cmd)> {
    Cmd::cargo()
        .args(["build", "--locked", "--release", "-p", "gorums-bench"])
        .run()?;
    let ours = format!(
        "{}/release/gorums-bench{}",
        workspace::target().display(),
        std::env::consts::EXE_SUFFIX
    );
    Ok((Cmd::new(ours), build_go()?))
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

fn measure(effort: Effort, cases: Vec<Case>, ours: &Cmd, go: &Cmd) -> Result<Results> {
    let count = cases.len();
    let runs: usize = cases.iter().map(|case| 1 + case.runtimes().len()).sum();
    // Each run warms up, and ours counts allocations after it.
    let seconds = runs * effort.repeats * (effort.seconds as usize + 1);
    println!(
        "\n{count} comparisons, about {} minutes",
        seconds.div_ceil(60)
    );
    println!("{}", Compared::header());
    let mut sides = Sides::default();
    let mut compared = Vec::new();
    for case in cases {
        let one = Compared::measure(case, effort, ours, go, &mut sides)
            .with_context(|| case.to_string())?;
        println!("{one}");
        compared.push(one);
    }
    let repeats = effort.repeats.to_string();
    let time = format!("{}s", effort.seconds);
    let alone = |args: &[&str]| {
        let command = ours.clone().args(args.iter().copied());
        let command = command.args(["--repeats", &repeats, "--duration", &time, "--json", "-"]);
        figures::ours(&command, &mut Sides::default())
    };
    println!("\nGo and this library in one system");
    let mixed = Mixed::measure(effort, ours, go)?;
    println!("\nthis library alone: the floor, isolation, slow servers");
    let on = |args: &[&str], threads: Threads| {
        let options = threads.options();
        let options = options.iter().map(String::as_str);
        let args: Vec<&str> = args.iter().copied().chain(options).collect();
        alone(&args)
    };
    let mut floors = Vec::new();
    for payload in [0, 1024] {
        for threads in [Threads::ONE, Threads::ONE_AND_ONE] {
            floors.push(Floor {
                payload,
                threads,
                figures: on(&["floor", "--payload", &payload.to_string()], threads)?,
            });
        }
    }
    let slow_servers = [Threads::ONE, Threads::ONE_AND_ONE]
        .map(|threads| Ok((threads, on(&["slow-server"], threads)?)));
    Ok(Results {
        effort,
        compared,
        floors,
        isolation: alone(&["isolation"])?,
        slow_servers: slow_servers.into_iter().collect::<Result<_>>()?,
        mixed,
        sides,
    })
}

impl Mixed {
    fn measure(effort: Effort, ours: &Cmd, go: &Cmd) -> Result<Self> {
        let time = format!("{}s", effort.seconds);
        let own_go = go.clone().args(["-peer", "-duration", &time]);
        let go_on_ours = own_go.clone().args(["-server-program", ours.program()]);
        let ours_on_go = ours
            .clone()
            .args(["quorum-call", "--json", "-", "--duration", &time])
            .args(["--processes", "--server-program", go.program()]);
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..effort.repeats {
            let unnoted = &mut Sides::default();
            runs[0].push(figures::go(&own_go, unnoted)?);
            runs[1].push(figures::go(&go_on_ours, unnoted)?);
            runs[2].push(figures::ours(&ours_on_go, unnoted)?);
        }
        let [go_on_go, go_on_ours, ours_on_go] = runs.map(figures::median);
        Ok(Self {
            go_on_go: go_on_go?,
            go_on_ours: go_on_ours?,
            ours_on_go: ours_on_go?,
        })
    }

    fn all(&self) -> [(&'static str, &Figures); 3] {
        [
            ("Go client, Go servers", &self.go_on_go),
            ("Go client, our servers", &self.go_on_ours),
            ("our client, Go servers", &self.ours_on_go),
        ]
    }
}

impl Results {
    /// What was measured of a case.
    fn of(&self, place: Place, in_flight: usize, payload: usize) -> Option<&Compared> {
        self.compared.iter().find(|compared| {
            let case = compared.case;
            case.nodes == 3
                && case.place == place
                && case.in_flight == in_flight
                && case.payload == payload
        })
    }

    /// The floor of a payload on the threads on which this library makes more calls per second.
    fn floor(&self, payload: usize) -> Option<&Floor> {
        let floors = self.floors.iter().filter(|floor| floor.payload == payload);
        let rate = |floor: &Floor| floor.figures.calls_per_second;
        floors.max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }

    /// Slow servers on the threads on which this library makes more calls per second.
    fn slow_server(&self) -> Option<&(Threads, Figures)> {
        let rate = |of: &(Threads, Figures)| of.1.calls_per_second;
        let all = self.slow_servers.iter();
        all.max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }

    fn busy(&self) -> bool {
        let slow = self.slow_servers.iter().map(|(_, figures)| figures);
        let floors = self.floors.iter().map(|floor| &floor.figures);
        let mixed = self.mixed.all().map(|(_, figures)| figures);
        let mut alone = floors.chain([&self.isolation]).chain(slow).chain(mixed);
        self.compared.iter().any(Compared::busy) || alone.any(|figures| figures.busy)
    }
}
