//! Benchmarks: servers are started, warmed up and called, and what that took is looked at.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use gorums::Configuration;

use crate::args::{Calls, Plan};
use crate::by_hand::ByHand;
use crate::floor::Floor;
use crate::latency::Latencies;
use crate::library::{self, Connecting, Library};
use crate::load::{CallError, Caller, Load, Outcome, Work};
use crate::machine::{Activity, busy};
use crate::progress::Progress;
use crate::proto::{StartRequest, StopRequest};
use crate::report::{Allocations, Measured, OneWay, Run, Series};
use crate::secure::Handshakes;
use crate::servers::{Place, Role, Servers};
use crate::service::{Ailment, SLOW, SLOW_CYCLE};
use crate::usage::Usage;
use crate::{cores, runtime};

/// For so long allocations are counted at most.
const COUNTING: Duration = Duration::from_secs(1);

/// Measures one kind of calls. Slow calls are compared with timers.
pub(crate) fn calls(calls: Calls, plan: &Plan, progress: &Progress) -> Result<Measured> {
    let runtime = runtime(plan.threads)?;
    let (mut series, timers) = runtime.block_on(async {
        let mut servers = start(role(calls), plan).await?;
        let configuration = library::connect(servers.addresses(), plan).await?;
        let library = Library::new(calls, &configuration, plan);
        let mut series = Series::default();
        let mut timers = (calls == Calls::SlowServer).then(Series::default);
        warm_up(&library, calls.name(), plan, progress).await?;
        for number in 1..=plan.repeats {
            progress.phase(format_args!("{} {number}/{}", calls.name(), plan.repeats));
            if calls == Calls::Multicast {
                multicast(&mut series, &library, plan, &mut servers).await?;
            } else {
                run(&mut series, &library, plan, &mut servers).await?;
            }
            if let Some(timers) = &mut timers {
                progress.phase(format_args!("timers {number}/{}", plan.repeats));
                run(timers, &Timers, plan, &mut servers).await?;
            }
        }
        anyhow::Ok((series, timers))
    })?;
    progress.phase(format_args!("allocations"));
    let library = async |addresses: &[String]| {
        let configuration = library::connect(addresses, plan).await?;
        anyhow::Ok(Library::new(calls, &configuration, plan))
    };
    series.allocations = Some(count_allocations(plan, role(calls), library)?);
    let compared = timers.map(|timers| series.compared("timers of 10 ms", &timers));
    series.finish(calls.name(), plan, compared)
}

/// How much time [`calls`] takes.
pub(crate) fn calls_time(calls: Calls, plan: &Plan) -> Duration {
    let each = if calls == Calls::SlowServer { 2 } else { 1 };
    plan.warm_up + plan.duration * repeats(plan) * each + COUNTING
}

/// Measures quorum calls that are written by hand on tonic.
pub(crate) fn by_hand(plan: &Plan, progress: &Progress) -> Result<Measured> {
    let runtime = runtime(plan.threads)?;
    let mut series = runtime.block_on(async {
        let mut servers = start(Role::Tonic, plan).await?;
        let client = ByHand::connect(servers.addresses(), plan).await?;
        let mut series = Series::default();
        warm_up(&client, "tonic", plan, progress).await?;
        for number in 1..=plan.repeats {
            progress.phase(format_args!("tonic {number}/{}", plan.repeats));
            run(&mut series, &client, plan, &mut servers).await?;
        }
        anyhow::Ok(series)
    })?;
    progress.phase(format_args!("allocations"));
    let client = async |addresses: &[String]| ByHand::connect(addresses, plan).await;
    series.allocations = Some(count_allocations(plan, Role::Tonic, client)?);
    series.finish("tonic", plan, None)
}

/// How much time [`by_hand`] takes.
pub(crate) fn by_hand_time(plan: &Plan) -> Duration {
    plan.warm_up + plan.duration * repeats(plan) + COUNTING
}

/// Measures quorum calls of the library, and the same work over plain TCP.
pub(crate) fn floor(plan: &Plan, progress: &Progress) -> Result<Vec<Measured>> {
    let runtime = runtime(plan.threads)?;
    let (mut series, mut floors) = runtime.block_on(async {
        let mut servers = start(Role::Library, plan).await?;
        let configuration = library::connect(servers.addresses(), plan).await?;
        let library = Library::new(Calls::QuorumCall, &configuration, plan);
        let mut floor_servers = start(Role::Floor, plan).await?;
        let addresses = floor_servers.addresses();
        let floor = Floor::connect(addresses, plan.quorum, plan.payload, plan.load.in_flight());
        let floor = floor.await.context("the floor's servers")?;
        let mut series = Series::default();
        let mut floors = Series::default();
        warm_up(&floor, "floor", plan, progress).await?;
        warm_up(&library, "quorum-call", plan, progress).await?;
        for number in 1..=plan.repeats {
            progress.phase(format_args!("floor {number}/{}", plan.repeats));
            run(&mut floors, &floor, plan, &mut floor_servers).await?;
            progress.phase(format_args!("quorum-call {number}/{}", plan.repeats));
            run(&mut series, &library, plan, &mut servers).await?;
        }
        anyhow::Ok((series, floors))
    })?;
    // One process made both, so its peak is neither's.
    (series.client_peak_bytes, floors.client_peak_bytes) = (None, None);
    let compared = series.compared("the floor", &floors);
    Ok(vec![
        floors.finish("floor", plan, None)?,
        series.finish("quorum-call", plan, Some(compared))?,
    ])
}

/// How much time [`floor`] takes.
pub(crate) fn floor_time(plan: &Plan) -> Duration {
    (plan.warm_up + plan.duration * repeats(plan)) * 2
}

/// Measures new connections: plain ones, or with TLS those with whole handshakes and those that
/// resume a session.
pub(crate) fn connect(plan: &Plan, progress: &Progress) -> Result<Vec<Measured>> {
    let kinds: &[_] = match plan.tls {
        false => &[("connect", Handshakes::Resumed)],
        true => &[
            ("connect, whole handshakes", Handshakes::Whole),
            ("connect, sessions resumed", Handshakes::Resumed),
        ],
    };
    let runtime = runtime(plan.threads)?;
    let all = runtime.block_on(async {
        let mut servers = start(Role::Library, plan).await?;
        let mut all = Vec::new();
        for (name, handshakes) in kinds {
            let work = Connecting::new(servers.addresses(), *handshakes, plan);
            let mut series = Series::default();
            warm_up(&work, name, plan, progress).await?;
            for number in 1..=plan.repeats {
                progress.phase(format_args!("{name} {number}/{}", plan.repeats));
                run(&mut series, &work, plan, &mut servers).await?;
            }
            all.push((name, series));
        }
        anyhow::Ok(all)
    })?;
    let finished = all.into_iter();
    finished
        .map(|(name, series)| series.finish(name, plan, None))
        .collect()
}

/// How much time [`connect`] takes.
pub(crate) fn connect_time(plan: &Plan) -> Duration {
    let kinds = if plan.tls { 2 } else { 1 };
    (plan.warm_up + plan.duration * repeats(plan)) * kinds
}

/// What [`isolation`] calls the servers that are well, alone.
const OTHERS: &str = "the others alone";

/// What [`isolation`] calls all servers, of which nothing ails any.
const ALL_WELL: &str = "all servers well";

/// What the last of the servers that are called is. The last of these is stopped, so that it cannot
/// be asked what it used.
const LAST: [(&str, Role); 4] = [
    (ALL_WELL, Role::Library),
    ("one slow server", Role::Ailing(Ailment::Slow)),
    (STALLING_DISK, Role::Ailing(Ailment::StallingDisk)),
    ("one server stopped", Role::Library),
];

const STALLING_DISK: &str = "one server with a stalling disk";

/// Measures quorum calls to all servers, with one that is slow, one whose disk stalls, and one that
/// is stopped, and the same calls to the others alone. They take turns: what the machine does
/// meanwhile meets all of them. A server whose disk stalls works for half of the time, as one that
/// is well does, which takes time of the processor: that one is compared with all servers well.
pub(crate) fn isolation(plan: &Plan, progress: &Progress) -> Result<Vec<Measured>> {
    let well = plan.nodes - 1;
    let runtime = runtime(plan.threads)?;
    let (others, ailing) = runtime.block_on(async {
        let mut roles = vec![Role::Library; well];
        roles.extend(LAST.map(|(_, role)| role));
        let mut servers = Servers::start_each(&plan.place, &roles, plan.payload).await?;
        let all = library::connect(servers.addresses(), plan).await?;
        let without = |kept: Option<usize>| {
            let others = (well..all.len()).filter(|node| Some(*node) != kept);
            others.fold(all.clone(), |rest, node| rest.without(all[node].id()))
        };
        let quorum_calls = |kept| Library::new(Calls::QuorumCall, &without(kept), plan);
        let stopped = all.len() - 1;
        let mut situations = vec![(OTHERS, quorum_calls(None), Series::default())];
        for (node, (name, _)) in (well..).zip(LAST) {
            situations.push((name, quorum_calls(Some(node)), Series::default()));
        }
        servers.pause(stopped)?;
        for (name, calls, _) in &situations {
            warm_up(calls, name, plan, progress).await?;
        }
        for number in 1..=plan.repeats {
            for (name, calls, series) in &mut situations {
                progress.phase(format_args!("{name} {number}/{}", plan.repeats));
                run_beside(series, calls, plan, &mut servers, stopped).await?;
            }
        }
        let mut all = situations.into_iter().map(|(_, _, series)| series);
        let others = all.next().context("the others come first")?;
        anyhow::Ok((others, all.collect::<Vec<_>>()))
    })?;
    let mut smaller = plan.clone();
    smaller.nodes = well;
    let compared: Vec<_> = LAST
        .iter()
        .zip(&ailing)
        .map(|((name, _), series)| match *name {
            STALLING_DISK => series.compared(ALL_WELL, &ailing[0]),
            _ => series.compared(OTHERS, &others),
        })
        .collect();
    let title = |name: &str| format!("isolation, {name}");
    let mut results = vec![others.finish(&title(OTHERS), &smaller, None)?];
    for ((name, _), (series, compared)) in LAST.iter().zip(ailing.into_iter().zip(compared)) {
        results.push(series.finish(&title(name), plan, Some(compared))?);
    }
    Ok(results)
}

/// How much time [`isolation`] takes.
pub(crate) fn isolation_time(plan: &Plan) -> Duration {
    let situations = 1 + LAST.len() as u32;
    (plan.warm_up + plan.duration * repeats(plan)) * situations
}

/// Measures how long it takes from the restart of a server to its first reply, with a client that
/// asks all the time.
pub(crate) fn reconnect(plan: &Plan, progress: &Progress) -> Result<Measured> {
    let runtime = runtime(plan.threads)?;
    let series = runtime.block_on(async {
        let mut servers = start(Role::Library, plan).await?;
        let configuration = library::connect(servers.addresses(), plan).await?;
        let mut series = Series::default();
        for number in 1..=plan.repeats {
            progress.phase(format_args!("reconnect {number}/{}", plan.repeats));
            let before = Snapshot::before(&mut servers, usize::MAX)?;
            let outcome = reconnects(&configuration, plan, &mut servers).await?;
            // Servers that were killed have taken their usage with them.
            push(&mut series, &outcome, &before, None)?;
        }
        anyhow::Ok(series)
    })?;
    series.finish("reconnect", plan, None)
}

/// Kills one server after the other and starts it again, for as long as a run takes, and at least
/// once.
async fn reconnects(
    configuration: &Configuration,
    plan: &Plan,
    servers: &mut Servers,
) -> Result<Outcome> {
    let latencies = Latencies::default();
    let mut recorder = latencies.recorder();
    let start = std::time::Instant::now();
    let mut calls = 0;
    for server in (0..configuration.len()).cycle() {
        let node = Configuration::from(&configuration[server]);
        let mut one = plan.clone();
        one.quorum = 1;
        let library = Library::new(Calls::Rpc, &node, &one);
        let mut caller = library.caller(0);
        caller.call().await?;
        servers.kill(server).await?;
        // The client has seen it when a call fails.
        while caller.call().await.is_ok() {}
        servers.restart(server).await?;
        let listening = std::time::Instant::now();
        while let Err(error) = caller.call().await {
            if listening.elapsed() > plan.timeout {
                bail!("no reply within {:?} of the restart: {error}", plan.timeout);
            }
            tokio::task::yield_now().await;
        }
        recorder.record(listening.elapsed());
        calls += 1;
        if start.elapsed() >= plan.duration {
            break;
        }
    }
    drop(recorder);
    Ok(Outcome {
        calls,
        never_made: 0,
        elapsed: start.elapsed(),
        latencies,
        peak_to_mean: None,
    })
}

fn role(calls: Calls) -> Role {
    if calls == Calls::Nested {
        Role::Peers
    } else {
        Role::Library
    }
}

fn repeats(plan: &Plan) -> u32 {
    u32::try_from(plan.repeats).unwrap_or(u32::MAX)
}

async fn start(role: Role, plan: &Plan) -> Result<Servers> {
    Servers::start(&plan.place, role, plan.nodes, plan.payload).await
}

async fn warm_up<W: Work>(work: &W, name: &str, plan: &Plan, progress: &Progress) -> Result<()> {
    progress.phase(format_args!("{name}: warming up"));
    plan.load.run(work, plan.warm_up).await?;
    Ok(())
}

/// Makes one run.
pub(crate) async fn run<W: Work>(
    series: &mut Series,
    work: &W,
    plan: &Plan,
    servers: &mut Servers,
) -> Result<()> {
    run_beside(series, work, plan, servers, usize::MAX).await
}

/// The same, where only so many of the servers can be asked what they have used.
async fn run_beside<W: Work>(
    series: &mut Series,
    work: &W,
    plan: &Plan,
    servers: &mut Servers,
    asked: usize,
) -> Result<()> {
    let before = Snapshot::before(servers, asked)?;
    let outcome = plan.load.run(work, plan.duration).await?;
    let after = Snapshot::after(servers, asked)?;
    push(series, &outcome, &before, Some(&after))
}

/// The same for one-way messages: the run ends when all of them have arrived, and servers tell how
/// long they took.
async fn multicast(
    series: &mut Series,
    library: &Library,
    plan: &Plan,
    servers: &mut Servers,
) -> Result<()> {
    let benchmark = library.benchmark();
    benchmark
        .start_server_benchmark(StartRequest {})
        .all()
        .await
        .context("starting")?;
    let before = Snapshot::before(servers, usize::MAX)?;
    let start = std::time::Instant::now();
    let mut outcome = plan.load.run(library, plan.duration).await?;
    // It is behind all messages, on each connection.
    let seen = benchmark
        .stop_server_benchmark(StopRequest {})
        .all()
        .replies()
        .await;
    let seen = seen.context("the one-way messages have not arrived")?;
    outcome.elapsed = start.elapsed();
    let after = Snapshot::after(servers, usize::MAX)?;
    let messages: u64 = seen.values().map(|one| one.total_ops).sum();
    if messages != outcome.calls * plan.nodes as u64 {
        bail!(
            "{messages} messages arrived of {} to {} servers",
            outcome.calls,
            plan.nodes
        );
    }
    let all = messages as f64;
    let mean = seen
        .values()
        .map(|one| one.latency_avg * one.total_ops as f64)
        .sum::<f64>()
        / all;
    // The spread within each server, and that between them.
    let within =
        |one: &crate::proto::Result| one.latency_var * one.total_ops.saturating_sub(1) as f64;
    let between =
        |one: &crate::proto::Result| (one.latency_avg - mean).powi(2) * one.total_ops as f64;
    let spread: f64 = seen.values().map(|one| within(one) + between(one)).sum();
    series.one_way = Some(OneWay {
        messages,
        mean_us: mean / 1e3,
        deviation_us: (spread / all).sqrt() / 1e3,
    });
    push(series, &outcome, &before, Some(&after))
}

/// What had been used at a time.
struct Snapshot {
    own: Option<Usage>,
    servers: Option<Usage>,
    activity: Option<Activity>,
    core_round_trip_ns: Option<f64>,
}

impl Snapshot {
    /// Right before a run. Asks so many of the servers only.
    fn before(servers: &mut Servers, count: usize) -> Result<Self> {
        // Takes time of the processor, which is none of the run's.
        let core_round_trip_ns = cores::round_trip_ns();
        Ok(Self {
            core_round_trip_ns,
            ..Self::of(servers, count)?
        })
    }

    /// Right after it.
    fn after(servers: &mut Servers, count: usize) -> Result<Self> {
        let snapshot = Self::of(servers, count)?;
        Ok(Self {
            core_round_trip_ns: cores::round_trip_ns(),
            ..snapshot
        })
    }

    fn of(servers: &mut Servers, count: usize) -> Result<Self> {
        let asked = servers.usage(count)?;
        Ok(Self {
            own: Usage::own(),
            servers: asked,
            activity: Activity::now(),
            core_round_trip_ns: None,
        })
    }
}

/// Adds a run to its series. Without an `after` nothing is said of the processor.
fn push(
    series: &mut Series,
    outcome: &Outcome,
    before: &Snapshot,
    after: Option<&Snapshot>,
) -> Result<()> {
    let Some(latency_us) = outcome.latencies.summary() else {
        bail!("no call was made");
    };
    let seconds = outcome.elapsed.as_secs_f64();
    let calls = outcome.calls as f64;
    let spent = |before: Option<Usage>, after: Option<Usage>| {
        before
            .zip(after)
            .map(|(before, after)| after.cpu_ns - before.cpu_ns)
    };
    let own = after.and_then(|after| spent(before.own, after.own));
    let servers = after.and_then(|after| spent(before.servers, after.servers));
    let others_cpu = after.and_then(|after| {
        let (from, to) = before.activity.zip(after.activity)?;
        Some(to.others(&from, own? + servers.unwrap_or(0)))
    });
    let round_trips = [Some(before), after].into_iter().flatten();
    let round_trips = round_trips.filter_map(|snapshot| snapshot.core_round_trip_ns);
    let per_call = |nanos: u64| nanos as f64 / 1e3 / calls;
    // Where servers cannot be asked, theirs is not known.
    let separate = servers.map(|servers| (own, servers));
    series.latencies.add(&outcome.latencies);
    if let Some(after) = after {
        series.client_peak_bytes = after.own.map(|usage| usage.peak_bytes);
        series.server_peak_bytes = after.servers.map(|usage| usage.peak_bytes);
    }
    series.runs.push(Run {
        calls: outcome.calls,
        never_made: outcome.never_made,
        seconds,
        calls_per_second: calls / seconds,
        latency_us,
        cpu_us_per_call: own.map(|own| per_call(own + servers.unwrap_or(0))),
        client_cpu_us_per_call: separate.and_then(|(own, _)| own).map(per_call),
        server_cpu_us_per_call: servers.map(per_call),
        others_cpu,
        core_round_trip_ns: round_trips.max_by(f64::total_cmp),
        peak_to_mean: outcome.peak_to_mean,
        busy: busy(others_cpu),
    });
    Ok(())
}

/// Counts what is allocated for each call: in a pass of its own, so that counting slows nothing
/// else, and on one thread, whose allocations are counted without disturbing others. Servers in
/// this process allocate on that thread as well, for this pass also those with threads of their
/// own.
fn count_allocations<W: Work>(
    plan: &Plan,
    role: Role,
    connect: impl AsyncFn(&[String]) -> Result<W>,
) -> Result<Allocations> {
    let runtime = runtime(1)?;
    let mut plan = plan.clone();
    if matches!(plan.place, Place::Apart { .. }) {
        plan.place = Place::Here;
    }
    let plan = &plan;
    let load = Load::Closed {
        in_flight: plan.load.in_flight().min(1000),
    };
    let (servers, work) = runtime.block_on(async {
        let servers = start(role, plan).await?;
        let work = connect(servers.addresses()).await?;
        // Buffers grow to what they need.
        load.run(&work, COUNTING / 4).await?;
        anyhow::Ok((servers, work))
    })?;
    let mut calls: Result<u64, CallError> = Ok(0);
    let counted = allocation_counter::measure(|| {
        let time = plan.duration.min(COUNTING);
        calls = runtime
            .block_on(load.run(&work, time))
            .map(|outcome| outcome.calls);
    });
    let calls = calls? as f64;
    drop(servers);
    Ok(Allocations {
        per_call: counted.count_total as f64 / calls,
        bytes_per_call: counted.bytes_total as f64 / calls,
    })
}

/// What slow calls are measured against: timers of the same length, and nothing else.
struct Timers;

impl Work for Timers {
    type Caller = Self;

    fn caller(&self, _number: usize) -> Self {
        Self
    }

    fn beginning(&self) -> Duration {
        SLOW_CYCLE
    }
}

impl Caller for Timers {
    async fn call(&mut self) -> Result<(), CallError> {
        tokio::time::sleep(SLOW).await;
        Ok(())
    }
}
