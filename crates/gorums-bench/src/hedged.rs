//! What thrifty calls save, and what hedging costs and saves where one server is not well.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use gorums::Configuration;
use gorums::call::{Thrifty, ThriftyCounts};

use crate::args::Plan;
use crate::latency::{Latencies, Summary};
use crate::library;
use crate::load::{CallError, Caller, Work};
use crate::progress::Progress;
use crate::proto::Echo;
use crate::proto::benchmark_client::BenchmarkClient;
use crate::servers::{Role, Servers};
use crate::service::Ailment;
use crate::{report, runtime};

/// What the last server is.
const LAST: [(&str, Role); 3] = [
    ("all well", Role::Library),
    ("one slow", Role::Ailing(Ailment::Slow)),
    (
        "one with a stalling disk",
        Role::Ailing(Ailment::StallingDisk),
    ),
];

/// Which servers a call asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    All,
    /// A quorum, and no others as long as none fails.
    Quorum,
    /// A quorum, and others after the delay.
    Hedged,
}

impl Asks {
    const EACH: [Self; 3] = [Self::All, Self::Quorum, Self::Hedged];

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Quorum => "thrifty alone",
            Self::Hedged => "thrifty and hedged",
        }
    }

    fn thrifty(self) -> Option<Thrifty> {
        match self {
            Self::All => None,
            Self::Quorum => Some(Thrifty::by_latency().after(Duration::MAX).budget(0.0, 0)),
            Self::Hedged => Some(Thrifty::by_latency()),
        }
    }
}

/// The calls that are measured.
#[derive(Clone)]
struct Reads(Arc<Shared>);

struct Shared {
    benchmark: BenchmarkClient,
    thrifty: Option<Thrifty>,
    quorum: usize,
    payload: Bytes,
}

impl Work for Reads {
    type Caller = Self;

    fn caller(&self, _: usize) -> Self {
        self.clone()
    }
}

impl Caller for Reads {
    async fn call(&mut self) -> Result<(), CallError> {
        let shared = &*self.0;
        let request = Echo {
            payload: shared.payload.clone(),
        };
        let call = shared.benchmark.quorum_call(request).idempotent(true);
        let call = call.thrifty(shared.thrifty.clone());
        let reply = call.threshold(shared.quorum).await?;
        library::check(&reply, &shared.payload)
    }
}

/// What was measured of one kind of calls.
#[derive(Default)]
struct Row {
    calls: u64,
    elapsed: Duration,
    latencies: Latencies,
    counts: ThriftyCounts,
}

impl Row {
    fn summary(&self) -> Result<Summary> {
        self.latencies.summary().context("no call was made")
    }

    fn requests(&self, nodes: usize) -> f64 {
        let asked = (self.counts.calls * nodes as u64).saturating_sub(self.counts.saved);
        match self.counts.calls {
            0 => nodes as f64,
            calls => asked as f64 / calls as f64,
        }
    }
}

/// How much time [`run`] takes.
pub(crate) fn time(plan: &Plan) -> Duration {
    let repeats = u32::try_from(plan.repeats).unwrap_or(u32::MAX);
    let kinds = (LAST.len() * Asks::EACH.len()) as u32;
    (plan.warm_up + plan.duration * repeats) * kinds
}

/// Measures each kind of calls with each kind of servers. They take turns: what the machine does
/// meanwhile meets all of them. Prints a table, and what hedging has reached by the project's goal.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let progress = Progress::of(time(plan));
    let rows = runtime(plan.threads)?.block_on(measure(plan, &progress))?;
    drop(progress);
    report::print(&table(plan, &rows)?)
}

async fn measure(plan: &Plan, progress: &Progress) -> Result<Vec<Row>> {
    let well = plan.nodes - 1;
    let mut roles = vec![Role::Library; well];
    roles.extend(LAST.map(|(_, role)| role));
    let servers = Servers::start_each(&plan.place, &roles, plan.payload).await?;
    let mut each = Vec::new();
    for (last, (name, _)) in (well..).zip(LAST) {
        let last = std::slice::from_ref(&servers.addresses()[last]);
        let addresses = [&servers.addresses()[..well], last].concat();
        for asks in Asks::EACH {
            // Each has learned from its own calls alone how near the servers are.
            let nodes = library::connect(&addresses, plan).await?;
            let reads = reads(&nodes, asks, plan);
            progress.phase(format_args!("{name}, {}: warming up", asks.name()));
            plan.load.run(&reads, plan.warm_up).await?;
            each.push((format!("{name}, {}", asks.name()), reads, Row::default()));
        }
    }
    for number in 1..=plan.repeats {
        for (name, reads, row) in &mut each {
            progress.phase(format_args!("{name} {number}/{}", plan.repeats));
            let counts = || reads.0.thrifty.as_ref().map(Thrifty::counts);
            let before = counts().unwrap_or_default();
            let outcome = plan.load.run(reads, plan.duration).await?;
            let after = counts().unwrap_or_default();
            row.calls += outcome.calls;
            row.elapsed += outcome.elapsed;
            row.latencies.add(&outcome.latencies);
            row.counts.calls += after.calls - before.calls;
            row.counts.saved += after.saved - before.saved;
            row.counts.extra += after.extra - before.extra;
            row.counts.rescued += after.rescued - before.rescued;
        }
    }
    Ok(each.into_iter().map(|(_, _, row)| row).collect())
}

fn reads(nodes: &Configuration, asks: Asks, plan: &Plan) -> Reads {
    Reads(Arc::new(Shared {
        benchmark: BenchmarkClient::new(nodes).with_timeout(plan.timeout),
        thrifty: asks.thrifty(),
        quorum: plan.quorum,
        payload: vec![0; plan.payload].into(),
    }))
}

/// A row for each kind of servers and of calls, in their order.
fn table(plan: &Plan, rows: &[Row]) -> Result<String> {
    let mut text = format!(
        "{} servers, quorums of {}, {}, {} B\n\n",
        plan.nodes, plan.quorum, plan.load, plan.payload
    );
    text.push_str(
        "| servers | asked | calls/s | p50 µs | p99 µs | p99.9 µs | requests per call | extra | rescued |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let kinds = LAST
        .iter()
        .flat_map(|(name, _)| Asks::EACH.map(|asks| (*name, asks)));
    for ((name, asks), row) in kinds.clone().zip(rows) {
        let Summary {
            p50, p99, p99_9, ..
        } = row.summary()?;
        let rate = row.calls as f64 / row.elapsed.as_secs_f64();
        let requests = row.requests(plan.nodes);
        let (extra, rescued) = (row.counts.extra, row.counts.rescued);
        writeln!(
            text,
            "| {name} | {} | {rate:.0} | {p50:.0} | {p99:.0} | {p99_9:.0} | {requests:.3} | {extra} | {rescued} |",
            asks.name()
        )?;
    }
    text.push('\n');
    let row = |name: &str, asks: Asks| {
        let at = kinds.clone().position(|kind| kind == (name, asks));
        at.and_then(|at| rows.get(at)).context("each has a row")
    };
    for (name, _) in &LAST[1..] {
        let well = row(LAST[0].0, Asks::Hedged)?.summary()?.p99;
        let hedged = row(name, Asks::Hedged)?;
        let alone = row(name, Asks::Quorum)?.requests(plan.nodes);
        writeln!(
            text,
            "{name}: hedged, the p99 is {:.2} × that with all well, at {:+.1} % requests against thrifty alone",
            hedged.summary()?.p99 / well,
            (hedged.requests(plan.nodes) / alone - 1.0) * 100.0
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn the_table_compares_hedged_calls_with_those_to_servers_that_are_well() {
        let cli = Cli::parse_from(["gorums-bench", "thrifty"]);
        let Command::Thrifty(options) = cli.command else {
            panic!("another command");
        };
        let plan = options.plan(crate::Defaults::thrifty()).expect("legal");
        assert_eq!((plan.nodes, plan.quorum), (5, 3));
        let rows: Vec<_> = (1..=9)
            .map(|number| {
                let mut row = Row {
                    calls: 100,
                    elapsed: Duration::from_secs(1),
                    ..Row::default()
                };
                row.counts.calls = 100;
                // Of five, two are saved by the second and 1.9 by the third kind.
                row.counts.saved = [190, 0, 200][number % 3];
                let mut recorder = row.latencies.recorder();
                recorder.record(Duration::from_micros(100 * number as u64));
                drop(recorder);
                row
            })
            .collect();
        let text = table(&plan, &rows).expect("all have latencies");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 16, "{text}");
        assert!(lines[5].starts_with("| all well | thrifty alone | 100 |"));
        assert!(lines[5].contains("| 3.000 |"), "{text}");
        let last =
            "one with a stalling disk: hedged, the p99 is 3.00 × that with all well, at +3.3 %";
        assert!(lines[15].starts_with(last), "{text}");
    }
}
