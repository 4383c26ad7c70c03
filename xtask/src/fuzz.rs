//! `cargo xtask fuzz`: inputs that nobody thought of, found by what they reach.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::interrupt::{INTERRUPTED, interrupted, watch_for_interrupt};
use crate::workspace;

/// Looks for inputs that break a promise of the code that reads bytes of peers, of files and of
/// persons.
///
/// Each target of the crate in the folder fuzz gets inputs that are like those in fuzz/corpus. One
/// that reaches code which none has reached before is kept in target/fuzz/corpus, and the next ones
/// are made of it, now and when the command is run again. libFuzzer does this; the marks in the
/// code by which it sees what is reached are those of the stable compiler. A target that panics,
/// takes ten seconds for one input or 2 GiB of memory has failed. Its input is kept in
/// target/fuzz/failed, and the next target gets its time.
///
/// The build has a folder of its own, target/fuzz/build, takes some minutes the first time, and
/// needs a C++ compiler. The exit code is 0 where no target failed, 1 where one did or could not be
/// built, and 130 after Ctrl-C, which ends the run with a summary of what there is.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                        all targets, for ten minutes each
  cargo xtask fuzz inbound --minutes 60   one of them for an hour
  cargo xtask fuzz --list                 the names
  cargo run -p gorums-fuzz -- inbound target/fuzz/failed/inbound-crash-0123
                                          an input that failed, once more")]
pub(crate) struct Args {
    /// Run only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How long each of them runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,

    /// Print the names of the targets and run none
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match run_all(args) {
        Ok(End::Good) => ExitCode::SUCCESS,
        Ok(End::Interrupted) => ExitCode::from(INTERRUPTED),
        Ok(End::Failed) => ExitCode::FAILURE,
        // The build hears of it, too, and fails.
        Err(_) if interrupted() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("fuzz: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How all of it ends.
enum End {
    Good,
    Interrupted,
    Failed,
}

fn run_all(args: &Args) -> Result<End> {
    let known = targets()?;
    if args.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(End::Good);
    }
    if let Some(other) = args.targets.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no target {other:?}; there are {}",
            known.join(", ")
        );
    }
    let chosen = match args.targets.is_empty() {
        true => known,
        false => args.targets.clone(),
    };
    watch_for_interrupt()?;
    let program = build()?;
    let time = Duration::from_secs(args.minutes * 60);
    let mut found = Vec::new();
    for target in chosen {
        if interrupted() {
            break;
        }
        found.push(look(&program, target, time)?);
    }
    println!("\n── summary ──");
    found.iter().for_each(|found| println!("{found}"));
    let failed = found.iter().filter(|found| found.failure.is_some());
    Ok(match (failed.count(), interrupted()) {
        (1.., _) => End::Failed,
        (0, true) => End::Interrupted,
        (0, false) => End::Good,
    })
}

/// The names of all targets, each of which has a folder of inputs.
fn targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("fuzz/corpus");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// What tells the compiler to mark the code: counters of what is reached, and what is compared.
const MARKS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds the program with marks, and says where it is.
fn build() -> Result<String> {
    let version = Cmd::new("rustc").args(["-vV"]).output()?;
    let mut lines = version.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it runs on")?;
    let folder = folder("build")?;
    Cmd::cargo()
        .args([
            "build",
            "--locked",
            "-p",
            "gorums-fuzz",
            "--bin",
            "gorums-fuzz",
        ])
        .args(["--profile", "fuzz"])
        // Where a target is named, the flags are not those of build scripts, which have no counters.
        .args(["--target", host])
        .args(["--target-dir", &folder.to_string_lossy()])
        .rustflags(&format!("{} --cfg gorums_fuzz", MARKS.join(" ")))
        .run()?;
    let program = folder.join(host).join("fuzz/gorums-fuzz");
    Ok(program.to_string_lossy().into_owned())
}

/// A folder below that of all runs.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("fuzz").join(name);
    let made = fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
    made.with_context(|| folder.display().to_string())
}

/// How often progress is told.
const TELL: Duration = Duration::from_secs(15);

/// Lets one target run.
fn look(program: &str, target: String, time: Duration) -> Result<Found> {
    let reached = folder(&format!("corpus/{target}"))?;
    let failed = folder("failed")?;
    let kept = format!("fuzz/corpus/{target}");
    let prefix = failed.join(format!("{target}-"));
    let command = Cmd::new(program)
        .args([&*reached.to_string_lossy(), &kept])
        .args([&*format!("-max_total_time={}", time.as_secs())])
        .args([&*format!("-artifact_prefix={}", prefix.display())])
        // Such a long time is a hang, on a machine that is busy as well.
        .args(["-timeout=60", "-report_slow_units=60"])
        .args(["-rss_limit_mb=2048", "-max_len=4096"])
        .args(["-print_final_stats=1"])
        .env("GORUMS_FUZZ_TARGET", &target)
        .env("RUST_BACKTRACE", "1");
    println!("\n$ {command}");
    let mut found = Found {
        target,
        ..Found::default()
    };
    let start = Instant::now();
    let mut told = start;
    let mut last = Vec::new();
    let result = command.run_collecting(|line| {
        found.read(line);
        // Of a failure everything is shown.
        if Status::read(line).is_none() {
            last.push(line.to_owned());
        }
        found.took = start.elapsed();
        if told.elapsed() >= TELL && found.status.is_some() {
            println!("{found}");
            told = Instant::now();
        }
    });
    found.took = start.elapsed();
    match (result, &found.failure) {
        (_, Some(input)) => {
            println!("{}", last.join("\n"));
            println!(
                "\nThe input is kept. To run it again, and to keep it for good when it is mended:\n  \
                 cargo run -p gorums-fuzz -- {target} {input}\n  \
                 cp {input} fuzz/corpus/{target}/NAME",
                target = found.target
            );
        }
        (Err(error), None) if !interrupted() => {
            println!("{}", last.join("\n"));
            return Err(error);
        }
        (_, None) => println!("{found}"),
    }
    Ok(found)
}

/// What came of one target.
#[derive(Default)]
struct Found {
    target: String,
    took: Duration,
    status: Option<Status>,
    /// Where the input is that it failed with.
    failure: Option<String>,
}

/// A line in which libFuzzer tells how far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Status {
    /// How many inputs were run.
    inputs: u64,
    /// How many places in the code they have reached.
    places: u64,
}

impl Status {
    fn read(line: &str) -> Option<Self> {
        let (inputs, rest) = line.strip_prefix('#')?.split_once(char::is_whitespace)?;
        let mut words = rest.split_whitespace();
        words.find(|word| *word == "cov:")?;
        Some(Self {
            inputs: inputs.parse().ok()?,
            places: words.next()?.parse().ok()?,
        })
    }
}

impl Found {
    fn read(&mut self, line: &str) {
        self.status = Status::read(line).or(self.status);
        if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.failure = Some(input.trim().to_owned());
        }
        // With those since the last line of the other kind.
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:")
            && let (Some(status), Ok(count)) = (&mut self.status, count.trim().parse())
        {
            status.inputs = count;
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { inputs, places } = self.status.unwrap_or_default();
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{:12} {:>4} min {:>2} s {inputs:>11} inputs {:>7.0} /s {places:>6} places reached",
            self.target,
            self.took.as_secs() / 60,
            self.took.as_secs() % 60,
            inputs as f64 / seconds.max(0.001),
        )?;
        match &self.failure {
            Some(input) => write!(f, "  FAILED: {input}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_stands_in_lines_of_libfuzzer() {
        let line = "#3082\tREDUCE cov: 11 ft: 12 corp: 4/28b lim: 21 exec/s: 0 rss: 27Mb L: 10/10";
        let expected = Status {
            inputs: 3082,
            places: 11,
        };
        assert_eq!(Status::read(line), Some(expected));
        assert_eq!(Status::read("#2\tINITED exec/s: 0 rss: 30Mb"), None);
        assert_eq!(Status::read("INFO: seed corpus: files: 5"), None);
    }

    #[test]
    fn an_input_that_failed_is_told_with_where_it_is() {
        let mut found = Found {
            target: "frames".to_owned(),
            ..Found::default()
        };
        found.read("#8\tpulse  cov: 3 ft: 3 corp: 1/1b exec/s: 4 rss: 27Mb");
        found.read("stat::number_of_executed_units: 12");
        assert!(found.to_string().ends_with("3 places reached"), "{found}");
        found.read("artifact_prefix='./'; Test unit written to /t/frames-crash-04");
        assert_eq!(found.failure.as_deref(), Some("/t/frames-crash-04"));
        let told = found.to_string();
        assert!(told.contains("12 inputs"), "{told}");
        assert!(told.ends_with("FAILED: /t/frames-crash-04"), "{told}");
    }

    #[test]
    fn the_folders_of_inputs_name_the_targets() {
        let names = targets().expect("a folder");
        assert!(names.iter().any(|name| name == "inbound"), "{names:?}");
    }
}
