//! Which faults happen, and when.

use std::time::Duration;

use anyhow::{Result, bail};
use cluster_shell::command::Action;
use cluster_shell::replicas::{Condition, Processes, ReplicaError};
use fastrand::Rng;
use tokio::time::{Instant, interval};

use crate::REPLICAS;
use crate::proxy::{Proxy, Weather};
use crate::tally::{Kind, Tally};

/// How often the schedule looks whether something is to begin or to end.
const TICK: Duration = Duration::from_millis(50);

/// What happens to connections.
pub const NETWORK: &[Kind] = &[Kind::Delay, Kind::Stall, Kind::Cut, Kind::HalfOpen];

/// What may happen to each replica and to [its connections](NETWORK), and how often.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Chooses what happens, how long, and in which order.
    pub seed: u64,
    /// What happens to a process or its disk. That all are [killed](Kind::KillAll) at once, one of
    /// them decides.
    pub processes: &'static [Kind],
    /// How long this goes on.
    pub time: Duration,
    /// How much longer it goes on at the most where something of this has not fired yet.
    pub more: Duration,
    /// The only replica to which anything happens; none for all.
    pub only: Option<u32>,
    /// How many milliseconds pass between two faults of a process, at least and at most.
    pub rest: (u64, u64),
}

/// Who can do something to the disks of replicas.
pub trait Disks {
    /// Spoils the disk of a replica in this way from now on.
    ///
    /// # Errors
    ///
    /// Where that cannot be done.
    fn spoil(&self, id: u32, kind: Kind) -> Result<()>;

    /// Makes the disk of a replica well again.
    ///
    /// # Errors
    ///
    /// Where that cannot be done.
    fn heal(&self, id: u32) -> Result<()>;
}

/// Disks that nobody does anything to.
#[derive(Debug, Clone, Copy)]
pub struct LeftAlone;

impl Disks for LeftAlone {
    fn spoil(&self, _: u32, kind: Kind) -> Result<()> {
        bail!("nobody can make {kind:?} happen here")
    }

    fn heal(&self, _: u32) -> Result<()> {
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
    /// Its disk is spoilt.
    SpoiltUntil(Instant),
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
    rest: (u64, u64),
}

/// Whom faults happen to.
struct Cluster<'a, D> {
    processes: &'a mut Processes,
    disks: &'a D,
    tally: &'a Tally,
}

/// Kinds in random order: first each of them once, so that none is missing, and then any.
struct Sequence {
    rng: Rng,
    kinds: Vec<Kind>,
    first: Vec<Kind>,
}

impl Sequence {
    fn new(seed: u64, kinds: Vec<Kind>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut first = kinds.clone();
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

/// Makes faults happen as long as the schedule says. Disks are well then; what is happening to processes
/// and connections goes on: see [`settle`].
///
/// # Errors
///
/// Where a replica cannot be killed, frozen or started: it has ended by itself, perhaps. Where a disk
/// cannot be spoilt or healed.
pub async fn run(
    schedule: Schedule,
    processes: &mut Processes,
    disks: &impl Disks,
    proxies: &[Proxy],
    tally: &Tally,
) -> Result<()> {
    let begun = Instant::now();
    let is_over = || {
        let all_fired = [schedule.processes, NETWORK].map(|kinds| tally.have_fired(kinds));
        let more = match all_fired {
            [true, true] => Duration::ZERO,
            _ => schedule.more,
        };
        begun.elapsed() >= schedule.time + more
    };
    let mut seeds = Rng::with_seed(schedule.seed);
    let mut fates: Vec<_> = (1..=REPLICAS)
        .map(|id| {
            let kinds = schedule.processes.iter().copied();
            // One replica decides when all are killed.
            let kinds = kinds.filter(|kind| id == 1 || *kind != Kind::KillAll);
            let mut of_process = Sequence::new(seeds.u64(..), kinds.collect());
            let mut of_network = Sequence::new(seeds.u64(..), NETWORK.to_vec());
            Fate {
                id,
                process: Process::Up(of_process.after(500, 2000)),
                network: Network::Fair(of_network.after(200, 1000)),
                of_process,
                of_network,
                rest: schedule.rest,
            }
        })
        .collect();
    let mut cluster = Cluster {
        processes,
        disks,
        tally,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !is_over() {
        ticks.tick().await;
        let mut all = false;
        let all_fates = fates.iter_mut().zip(proxies);
        let chosen = all_fates.filter(|(fate, _)| schedule.only.is_none_or(|id| id == fate.id));
        for (fate, proxy) in chosen {
            all |= fate.step_process(&mut cluster).await?;
            fate.step_network(proxy);
        }
        if all {
            for fate in &mut fates {
                fate.kill(&mut cluster).await?;
            }
            tally.add(Kind::KillAll);
        }
    }
    for fate in &fates {
        if let Process::SpoiltUntil(_) = fate.process {
            disks.heal(fate.id)?;
        }
    }
    Ok(())
}

impl Fate {
    /// Begins or ends what is due. Whether all replicas are to be killed.
    async fn step_process(&mut self, cluster: &mut Cluster<'_, impl Disks>) -> Result<bool> {
        let now = Instant::now();
        match self.process {
            Process::Up(until) if now >= until => match self.of_process.next() {
                Kind::KillAll => return Ok(true),
                Kind::Pause => {
                    cluster.processes.act(self.id, Action::Pause).await?;
                    self.process = Process::PausedUntil(self.of_process.after(200, 3000));
                    cluster.tally.add(Kind::Pause);
                }
                kind @ (Kind::StalledDisk | Kind::FullDisk) => {
                    cluster.disks.spoil(self.id, kind)?;
                    self.process = Process::SpoiltUntil(self.of_process.after(200, 3000));
                }
                _ => {
                    self.kill(cluster).await?;
                    cluster.tally.add(Kind::Kill);
                }
            },
            Process::PausedUntil(until) if now >= until => {
                cluster.processes.act(self.id, Action::Resume).await?;
                self.rest();
            }
            Process::DownUntil(until) if now >= until => {
                cluster.processes.act(self.id, Action::Start).await?;
                self.rest();
            }
            Process::SpoiltUntil(until) if now >= until => {
                cluster.disks.heal(self.id)?;
                self.rest();
            }
            _ => {}
        }
        Ok(false)
    }

    fn rest(&mut self) {
        let (least, most) = self.rest;
        self.process = Process::Up(self.of_process.after(least, most));
    }

    /// Kills the process, also one that is frozen or has a spoilt disk, unless it is down already.
    async fn kill(&mut self, cluster: &mut Cluster<'_, impl Disks>) -> Result<()> {
        match self.process {
            Process::DownUntil(_) => return Ok(()),
            Process::SpoiltUntil(_) => cluster.disks.heal(self.id)?,
            Process::Up(_) | Process::PausedUntil(_) => {}
        }
        cluster.processes.act(self.id, Action::Stop).await?;
        self.process = Process::DownUntil(self.of_process.after(50, 1500));
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

/// Fails where the process of a replica has ended and nobody here has told it to.
async fn has_not_failed(processes: &mut Processes, id: u32) -> Result<()> {
    match processes.condition(id).await {
        Some(Condition::Ended(status)) => bail!("replica {id} has ended by itself: {status}"),
        Some(_) | None => Ok(()),
    }
}

/// Ends what a schedule has left behind: proxies let all pass, and all processes run.
///
/// # Errors
///
/// Where a replica cannot be resumed or started, or has ended by itself.
pub async fn settle(processes: &mut Processes, proxies: &[Proxy]) -> Result<()> {
    proxies.iter().for_each(Proxy::heal);
    for id in 1..=REPLICAS {
        has_not_failed(processes, id).await?;
        match processes.act(id, Action::Resume).await {
            Err(ReplicaError::NotPaused(_) | ReplicaError::Stopped(_)) => {}
            done => done?,
        }
        match processes.act(id, Action::Start).await {
            Err(ReplicaError::Running(_)) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Kills all replicas at once, and starts them again.
///
/// # Errors
///
/// Where one cannot be killed or started, or has ended by itself before.
pub async fn restart_all(processes: &mut Processes) -> Result<()> {
    for id in 1..=REPLICAS {
        has_not_failed(processes, id).await?;
    }
    for action in [Action::Stop, Action::Start] {
        for id in 1..=REPLICAS {
            // Those that are down already are not killed.
            match processes.act(id, action).await {
                Err(ReplicaError::Stopped(_)) => {}
                done => done?,
            }
        }
    }
    Ok(())
}
