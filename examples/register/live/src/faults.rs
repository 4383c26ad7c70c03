//! Which faults happen, and when.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use cluster_shell::command::Action;
use cluster_shell::replicas::Processes;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::REPLICAS;
use crate::proxy::{Proxy, Weather};

/// How often the schedule looks whether something is to begin or to end.
const TICK: Duration = Duration::from_millis(50);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Delay,
    Stall,
    Cut,
    HalfOpen,
    Kill,
    KillAll,
    Pause,
}

/// How many faults have fired: those of a proxy when they have touched bytes or a connection.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; Kind::ALL.len()]);

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Delay,
        Self::Stall,
        Self::Cut,
        Self::HalfOpen,
        Self::Kill,
        Self::KillAll,
        Self::Pause,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Delay => "delays",
            Self::Stall => "stalls",
            Self::Cut => "cuts",
            Self::HalfOpen => "half-opens",
            Self::Kill => "kills",
            Self::KillAll => "kills of all",
            Self::Pause => "pauses",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Delay => "delays: what passed a proxy came late",
            Self::Stall => "stalls: bytes were held back, in both directions",
            Self::Cut => "cuts: the connections of a replica were closed",
            Self::HalfOpen => {
                "half-opens: one side of a connection was closed, and the other not told"
            }
            Self::Kill => "kills: SIGKILL to a replica, which was started again",
            Self::KillAll => "kills of all: SIGKILL to all replicas at once",
            Self::Pause => "pauses: SIGSTOP and SIGCONT to a replica",
        }
    }
}

impl Tally {
    pub(crate) fn add(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn all_fired(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.count(*kind) > 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", self.count(kind), kind.name())?;
        }
        Ok(())
    }
}

/// What is happening to a replica's process.
#[derive(Debug, Clone, Copy)]
enum Process {
    /// Nothing until then.
    Up(Instant),
    DownUntil(Instant),
    PausedUntil(Instant),
}

/// What is happening to its connections.
#[derive(Debug, Clone, Copy)]
enum Network {
    /// Nothing until then.
    Fair(Instant),
    BadUntil(Instant),
}

/// What comes next for one replica. Each has a sequence of its own, whatever the times are.
struct Fate {
    id: u32,
    process: Process,
    network: Network,
    of_process: Sequence,
    of_network: Sequence,
}

/// Kinds in random order: first each of them once, so that none is missing, and then any.
struct Sequence {
    rng: Rng,
    kinds: &'static [Kind],
    first: Vec<Kind>,
}

impl Sequence {
    fn new(seed: u64, kinds: &'static [Kind]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut first = kinds.to_vec();
        rng.shuffle(&mut first);
        Self { rng, kinds, first }
    }

    fn next(&mut self) -> Kind {
        let any = self.kinds[self.rng.usize(..self.kinds.len())];
        self.first.pop().unwrap_or(any)
    }

    /// So many milliseconds from now.
    fn after(&mut self, least: u64, most: u64) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.u64(least..=most))
    }
}

/// Makes faults happen until it is told to finish.
///
/// # Errors
///
/// Where a replica cannot be killed, frozen or started: it has ended by itself, perhaps.
pub(crate) async fn run(
    seed: u64,
    processes: &mut Processes,
    proxies: &[Proxy],
    tally: &Tally,
    finished: watch::Receiver<bool>,
) -> Result<()> {
    let mut seeds = Rng::with_seed(seed);
    let mut fates: Vec<_> = (1..=REPLICAS)
        .map(|id| {
            // One replica decides when all are killed.
            let kinds: &[_] = match id {
                1 => &[Kind::Kill, Kind::Pause, Kind::KillAll],
                _ => &[Kind::Kill, Kind::Pause],
            };
            let mut of_process = Sequence::new(seeds.u64(..), kinds);
            let mut of_network = Sequence::new(
                seeds.u64(..),
                &[Kind::Delay, Kind::Stall, Kind::Cut, Kind::HalfOpen],
            );
            Fate {
                id,
                process: Process::Up(of_process.after(500, 2000)),
                network: Network::Fair(of_network.after(200, 1000)),
                of_process,
                of_network,
            }
        })
        .collect();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*finished.borrow() {
        ticks.tick().await;
        let mut all = false;
        for (fate, proxy) in fates.iter_mut().zip(proxies) {
            all |= fate.step_process(processes, tally).await?;
            fate.step_network(proxy);
        }
        if all {
            for fate in &mut fates {
                fate.kill(processes).await?;
            }
            tally.add(Kind::KillAll);
        }
    }
    Ok(())
}

impl Fate {
    /// Begins or ends what is due. Whether all replicas are to be killed.
    async fn step_process(&mut self, processes: &mut Processes, tally: &Tally) -> Result<bool> {
        let now = Instant::now();
        match self.process {
            Process::Up(until) if now >= until => match self.of_process.next() {
                Kind::KillAll => return Ok(true),
                Kind::Pause => {
                    processes.act(self.id, Action::Pause).await?;
                    self.process = Process::PausedUntil(self.of_process.after(200, 3000));
                    tally.add(Kind::Pause);
                }
                _ => {
                    self.kill(processes).await?;
                    tally.add(Kind::Kill);
                }
            },
            Process::PausedUntil(until) if now >= until => {
                processes.act(self.id, Action::Resume).await?;
                self.process = Process::Up(self.of_process.after(1000, 6000));
            }
            Process::DownUntil(until) if now >= until => {
                processes.act(self.id, Action::Start).await?;
                self.process = Process::Up(self.of_process.after(1000, 6000));
            }
            _ => {}
        }
        Ok(false)
    }

    /// Kills the process, also one that is frozen, unless it is down already.
    async fn kill(&mut self, processes: &mut Processes) -> Result<()> {
        if !matches!(self.process, Process::DownUntil(_)) {
            processes.act(self.id, Action::Stop).await?;
            self.process = Process::DownUntil(self.of_process.after(50, 1500));
        }
        Ok(())
    }

    fn step_network(&mut self, proxy: &Proxy) {
        let now = Instant::now();
        match self.network {
            Network::Fair(until) if now >= until => {
                let delay = Duration::from_millis(self.of_network.rng.u64(5..=150));
                let weather = match self.of_network.next() {
                    Kind::Delay => Weather::late(delay),
                    Kind::Stall => Weather::stalled(),
                    Kind::Cut => return self.instant(proxy, Proxy::cut),
                    _ => return self.instant(proxy, Proxy::half_open),
                };
                proxy.set(weather);
                self.network = Network::BadUntil(self.of_network.after(300, 3000));
            }
            Network::BadUntil(until) if now >= until => {
                proxy.heal();
                self.network = Network::Fair(self.of_network.after(300, 2500));
            }
            _ => {}
        }
    }

    /// A fault that takes no time.
    fn instant(&mut self, proxy: &Proxy, fault: impl FnOnce(&Proxy)) {
        fault(proxy);
        self.network = Network::Fair(self.of_network.after(300, 2500));
    }
}

/// Kills all replicas at once, and starts them again.
pub(crate) async fn restart_all(processes: &mut Processes) -> Result<()> {
    for action in [Action::Stop, Action::Start] {
        for id in 1..=REPLICAS {
            // Those that are down already are not killed.
            match processes.act(id, action).await {
                Err(cluster_shell::replicas::ReplicaError::Stopped(_)) => {}
                done => done?,
            }
        }
    }
    Ok(())
}
