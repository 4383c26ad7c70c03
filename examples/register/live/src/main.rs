//! Three replicas of the register as processes, each behind a proxy that delays, stalls, cuts and
//! half-opens its connections, while they are killed, frozen and started again, and clients read
//! and write. What the clients saw is then checked: it has to be linearizable, and no acknowledged
//! write may be lost.
//!
//! `cargo xtask live` runs it; `--help` tells more.

mod load;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use cluster_live::faults::{self, LeftAlone, NETWORK, Schedule};
use cluster_live::progress::Progress;
use cluster_live::proxy::Proxy;
use cluster_live::tally::{Kind, Tally};
use cluster_live::{REPLICAS, is_replica, run_until_ctrl_c, say};
use cluster_shell::Program;
use cluster_shell::replicas::{Plan, Processes, set_up_all};
use cluster_shell::screen::Notices;
use gorums_sim::history::{History, Recorder, Verdict};
use register::program::Registers;
use tokio::sync::watch;

use crate::load::{Load, Outcomes};

/// What happens to a replica's process.
const PROCESSES: &[Kind] = &[Kind::Kill, Kind::Pause, Kind::KillAll];

/// How much longer than it was told the run goes on where some kind of fault has not fired yet.
const EXTENSION: Duration = Duration::from_secs(60);

/// How long the clients may take to end: longer than any operation.
const ENDING: Duration = Duration::from_secs(10);

/// Runs three replicas of the register as processes under load and faults, and checks what their
/// clients saw.
///
/// Each replica keeps its values on disk, and is reached through a proxy that delays, stalls, cuts
/// and half-opens its connections. The processes are killed (SIGKILL), frozen (SIGSTOP) and started
/// again, also all at once, and all of them at the end, before every register is read once more.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
struct Options {
    /// How long clients read and write.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Chooses which faults happen, how long, and in which order. Without it one is chosen, and
    /// shown.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many clients there are.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// How many registers.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    keys: u32,
    /// Where the history and a picture go when it is not linearizable.
    #[arg(long, value_name = "DIR", default_value = "target/live")]
    report: PathBuf,
}

const AFTER_HELP: &str = "\
The times of faults are the machine's own, so that a seed brings back the same faults and not the same run.

The exit status is 0 if the history is linearizable, no acknowledged write is lost, and faults of every kind have fired.
Ctrl-C ends everything, and checks nothing. A process that is killed survives in its page cache: what is tested is that
it acknowledges nothing that it has not given to the system, not that disks keep what they are given.";

fn main() -> ExitCode {
    // The replicas are this program again.
    if is_replica() {
        return register::program::main();
    }
    let options = Options::parse();
    run_until_ctrl_c(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    say(format_args!(
        "seed {seed}: {} clients, {} registers, {REPLICAS} replicas, {} s",
        options.clients, options.keys, options.seconds
    ));
    let data = tempfile::tempdir().context("a directory for the replicas")?;
    let plan = Plan {
        count: REPLICAS,
        listen: ([127, 0, 0, 1], 0).into(),
        data: Some(data.path().to_owned()),
    };
    set_up_all::<<Registers as Program>::Store>(plan.data.as_deref(), plan.count)?;
    let mut processes = Processes::start(plan, Notices::standard()).await?;
    let tally = Arc::new(Tally::of([NETWORK, PROCESSES].concat()));
    let proxies = Proxy::before_each(&processes, &tally).await?;
    let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
    let recorder = Recorder::new();
    let load = Load::new(options.keys, addresses, recorder.clone());
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (1..=options.clients)
        .map(|client| tokio::spawn(load.clone().run(client, stopped.clone())))
        .collect();

    let begun = Instant::now();
    let schedule = Schedule {
        seed,
        processes: PROCESSES,
        time: Duration::from_secs(options.seconds),
        more: EXTENSION,
        only: None,
        rest: (1000, 6000),
    };
    let (outcomes, fired) = (load.outcomes(), Arc::clone(&tally));
    let progress = Progress::start(move || format!("{outcomes}; {fired}"));
    faults::run(schedule, &mut processes, &LeftAlone, &proxies, &tally).await?;
    drop(progress);
    let took = begun.elapsed();
    for proxy in &proxies {
        proxy.heal();
    }
    faults::restart_all(&mut processes).await?;
    // Whoever listens has gone, if nobody does.
    let _ = stop.send(true);
    for client in clients {
        let ended = tokio::time::timeout(ENDING, client).await;
        ended
            .context("a client does not end")?
            .context("a client has panicked")??;
    }
    let lost = load.read_all().await?;
    processes.end().await;

    let history = recorder.history();
    let checking = Instant::now();
    let verdict = history.linearizable();
    let checked = checking.elapsed();
    let outcomes = load.outcomes();
    say(summary(&outcomes, took, &tally, history.len()));
    say(format_args!(
        "checked in {:.3} s: {}",
        checked.as_secs_f64(),
        text(&verdict)
    ));
    judge(&verdict, &history, &lost, &options.report)?;
    if tally.missing().next().is_some() {
        bail!("not every kind of fault has fired: {tally}");
    }
    Ok(())
}

/// Fails unless all is as it should be, and leaves behind what shows why.
fn judge(verdict: &Verdict, history: &History, lost: &[String], report: &Path) -> Result<()> {
    let violation = match verdict {
        Verdict::Valid if lost.is_empty() => return Ok(()),
        Verdict::Violation(violation) => Some(violation),
        Verdict::Valid | Verdict::Unknown(_) => None,
    };
    fs::create_dir_all(report).with_context(|| format!("{} for the report", report.display()))?;
    let path = report.join("history.jsonl");
    history.write_json_lines(std::io::BufWriter::new(fs::File::create(&path)?))?;
    say(format_args!("the history is in {}", path.display()));
    if let Some(violation) = violation {
        let path = report.join("violation.svg");
        fs::write(&path, history.svg(violation))?;
        say(format_args!("a picture of it is in {}", path.display()));
    }
    if !lost.is_empty() {
        bail!("acknowledged writes are lost: {}", lost.join("; "));
    }
    bail!("{}", text(verdict));
}

fn text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Valid => "linearizable".to_owned(),
        Verdict::Violation(violation) => format!("NOT linearizable: {violation}"),
        Verdict::Unknown(why) => format!("unknown whether it is linearizable: {why}"),
    }
}

fn summary(outcomes: &Outcomes, took: Duration, tally: &Tally, operations: usize) -> String {
    let seconds = took.as_secs_f64();
    let table = tally.table();
    format!(
        "{operations} operations in {seconds:.0} s, {:.0} per second: {outcomes}\nfaults:\n{}",
        operations as f64 / seconds,
        table.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_an_error_and_leaves_the_history_and_a_picture() {
        let directory = tempfile::tempdir().expect("a directory");
        let report = directory.path().join("a/b");
        let recorder = Recorder::new();
        recorder.write(1, "k", "v").ok();
        recorder.read(2, "k").ok(Some("v"));
        let valid = recorder.history();
        judge(&valid.linearizable(), &valid, &[], &report).expect("all is well");
        assert!(!report.exists());

        recorder.read(2, "k").ok(None::<&str>);
        let stale = recorder.history();
        let error = judge(&stale.linearizable(), &stale, &[], &report).expect_err("a stale read");
        assert!(
            error.to_string().starts_with("NOT linearizable: "),
            "{error}"
        );
        let lines = fs::read_to_string(report.join("history.jsonl")).expect("it is there");
        assert_eq!(lines.lines().count(), 3);
        let picture = fs::read_to_string(report.join("violation.svg")).expect("it is there");
        assert!(picture.starts_with("<svg"), "{picture}");
    }

    #[test]
    fn a_write_that_is_lost_is_an_error_whatever_the_history_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = Recorder::new().history();
        let lost = ["r1 has nothing".to_owned()];
        let error = judge(&Verdict::Valid, &history, &lost, directory.path());
        let error = error.expect_err("a write is lost").to_string();
        assert_eq!(error, "acknowledged writes are lost: r1 has nothing");
    }

    #[test]
    fn what_nobody_knows_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let verdict = Verdict::Unknown("too many".to_owned());
        let history = Recorder::new().history();
        let error = judge(&verdict, &history, &[], directory.path());
        assert!(error.is_err());
    }
}
