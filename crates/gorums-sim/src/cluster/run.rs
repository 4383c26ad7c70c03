use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime};

use turmoil::Sim;

use super::clock::EPOCH;
use super::contents::Contents;
use super::fault::{Fault, FaultKind, node_name};
use super::node::{Client, Pace, Replica, recorder};
use super::world::{Skew, World};
use super::{Clock, Random, Scenario};
use crate::history::{History, Recorder, Verdict, Violation};
use crate::replay::Files;

/// One step of the simulation. What is sent in one arrives in a later one, so that no effect is
/// before its cause.
const TICK: Duration = Duration::from_millis(5);
const MIN_LATENCY: Duration = Duration::from_millis(5);
const MAX_LATENCY: Duration = Duration::from_millis(50);

/// How long a replica whose program has ended is down.
const RESTART: Duration = Duration::from_millis(400);

/// How many times its length a run may take before it is given up.
const PATIENCE: u32 = 6;

/// What became of one seed.
#[derive(Debug)]
pub struct Run {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) clients: usize,
    pub(crate) faults: Vec<(usize, Fault, bool)>,
    pub(crate) history: History,
    pub(crate) operations: usize,
    pub(crate) hash: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) virtual_time: Duration,
    pub(crate) real_time: Duration,
    pub(crate) failure: Option<Failure>,
}

/// Why a run has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The history is not as it should be.
    Violation(Violation),
    /// Nobody knows whether it is.
    Unknown(String),
    /// A replica or a client ended when it should not have, or with an error, or never.
    Ended(String),
    /// These faults were to happen and had no effect, by their places in the plan.
    NotFired(Vec<usize>),
    /// It tested less than the scenario asks for: clients ended before they had begun all
    /// operations, or before its time was over.
    TooLittle(String),
    /// A second run of the same seed was another one, and this is where two of them differ.
    NotTheSame(String),
}

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The faults that happen, by their places in the plan; all of them where it is not said.
    pub(crate) faults: Option<Vec<usize>>,
    pub(crate) trace: bool,
}

pub(crate) fn run(scenario: &Scenario, seed: u64, options: &Options) -> Run {
    same_size_of_ids();
    let begin = Instant::now();
    let (replicas, clients) = scenario.sizes(seed);
    assert!(
        (1..=100).contains(&replicas) && (1..=100).contains(&clients),
        "a scenario has one to a hundred replicas and clients"
    );
    let plan = scenario.plan(seed);
    let world = World::new(seed, replicas + clients, plan.len(), options.trace);
    let recorder = recorder();
    let mut sim = turmoil::Builder::new()
        .rng_seed(Random::of(seed, 3).next())
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .tick_duration(TICK)
        .min_message_latency(MIN_LATENCY)
        .max_message_latency(MAX_LATENCY)
        .simulation_duration(Duration::MAX)
        .tcp_capacity(1024)
        .enable_random_order()
        .build();
    add_replicas(scenario, &mut sim, &world, &recorder, replicas);
    add_clients(scenario, &mut sim, &world, &recorder, replicas, clients);
    let mut driver = Driver {
        world: &world,
        replicas,
        nodes: replicas + clients,
        faults: plan
            .iter()
            .enumerate()
            .filter(|(at, _)| {
                options
                    .faults
                    .as_ref()
                    .is_none_or(|chosen| chosen.contains(at))
            })
            .map(|(at, fault)| (at, fault.clone(), Phase::Waiting))
            .collect(),
        links: BTreeMap::new(),
        restarts: BTreeMap::new(),
        excused: vec![false; replicas],
    };
    let ended = drive(scenario, &mut sim, &mut driver);
    let virtual_time = sim.elapsed();
    let faults: Vec<_> = driver
        .faults
        .drain(..)
        .map(|(at, fault, _)| (at, fault))
        .collect();
    world.end();
    drop(sim);

    let history = recorder.history();
    let mut state = world.lock();
    for operation in history.operations() {
        let end = operation.end.unwrap_or(u64::MAX);
        state.trace.add_text(
            Duration::from_nanos(operation.start),
            &format_args!("{operation} {end}"),
        );
    }
    let faults: Vec<_> = faults
        .into_iter()
        .map(|(at, fault)| (at, fault, state.fired[at]))
        .collect();
    let not_fired: Vec<_> = faults
        .iter()
        .filter(|(_, _, fired)| !fired)
        .map(|(at, ..)| *at)
        .collect();
    let failure = match (ended, state.told.take()) {
        (_, Some(violation)) => Some(Failure::Violation(violation)),
        (Err(why), None) => Some(Failure::Ended(why)),
        (Ok(()), None) => match (scenario.check)(&history) {
            Verdict::Violation(violation) => Some(Failure::Violation(violation)),
            Verdict::Unknown(why) => Some(Failure::Unknown(why)),
            Verdict::Valid if !not_fired.is_empty() => Some(Failure::NotFired(not_fired)),
            Verdict::Valid => too_little(scenario, state.operations, virtual_time),
        },
    };
    Run {
        seed,
        replicas,
        clients,
        faults,
        operations: state.operations,
        hash: state.trace.hash(),
        lines: state.trace.take_lines(),
        history,
        virtual_time,
        real_time: begin.elapsed(),
        failure,
    }
}

/// Clients that end by themselves may end too early.
fn too_little(scenario: &Scenario, operations: usize, time: Duration) -> Option<Failure> {
    let enough = operations >= scenario.operations && time >= scenario.duration;
    (!enough).then(|| {
        Failure::TooLittle(format!(
            "the clients ended after {operations} operations and {:.1} s, and the scenario asks for {} and {:.1} s",
            time.as_secs_f64(),
            scenario.operations,
            scenario.duration.as_secs_f64()
        ))
    })
}

/// Ids of messages are counted through the life of the process, and take more bytes the larger they
/// are. So that a run does not depend on what the process did before, they start where they have
/// the size that they keep for the next sixty million. An id is four times the number of its call.
fn same_size_of_ids() {
    const FOUR_BYTES: usize = 1 << 19;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // In a runtime of its own, since a configuration needs one.
        let count = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("the system has what a runtime needs");
            let _context = runtime.enter();
            let node = gorums::Configuration::builder().nodes(["localhost:1"]);
            let node = node.connect().expect("the address is well formed");
            let nobody = gorums::Client::new(node.filter(|_| false));
            let message = nobody.multicast("Nobody.Listens", ());
            for _ in 0..FOUR_BYTES / 2 {
                // A message to nobody takes an id.
                message.clone().detach();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(count);
            scope.spawn(count);
        });
    });
}

fn add_replicas(
    scenario: &Scenario,
    sim: &mut Sim<'_>,
    world: &Arc<World>,
    recorder: &Recorder,
    replicas: usize,
) {
    let program = scenario
        .replica
        .clone()
        .expect("the scenario says what a replica does");
    for node in 0..replicas {
        let (program, world, recorder) =
            (Arc::clone(&program), Arc::clone(world), recorder.clone());
        sim.host(node_name(node, replicas), move || {
            let mut state = world.lock();
            let incarnation = state.nodes[node].incarnation;
            state.nodes[node].incarnation += 1;
            drop(state);
            let replica = Replica {
                world: Arc::clone(&world),
                node,
                replicas,
                incarnation,
                clock: Clock::new(&world, node),
                recorder: recorder.clone(),
            };
            let running = program(replica);
            let world = Arc::clone(&world);
            async move {
                let ended = running.await.map_err(|error| error.to_string());
                world.lock().nodes[node].ended = Some(ended);
                // Until it is killed, with all that it has started.
                std::future::pending().await
            }
        });
    }
}

fn add_clients(
    scenario: &Scenario,
    sim: &mut Sim<'_>,
    world: &Arc<World>,
    recorder: &Recorder,
    replicas: usize,
    clients: usize,
) {
    let program = scenario
        .client
        .clone()
        .expect("the scenario says what a client does");
    let micros = scenario.duration.as_micros() as u64 * clients as u64;
    let pace = Pace {
        // An operation takes about as long as a pause, and there is room for half as many again.
        longest_pause: micros / (scenario.operations as u64 * 3 / 2).max(1),
        patience: scenario.duration / 10,
    };
    for node in replicas..replicas + clients {
        let client = Client {
            world: Arc::clone(world),
            node,
            replicas,
            clock: Clock::new(world, node),
            recorder: recorder.clone(),
            pace,
        };
        sim.client(node_name(node, replicas), program(client));
    }
}

/// Steps until all clients have ended.
fn drive(scenario: &Scenario, sim: &mut Sim<'_>, driver: &mut Driver<'_>) -> Result<(), String> {
    loop {
        let now = sim.elapsed();
        driver.faults(sim, now, now >= scenario.duration * 3);
        driver.replicas(sim, now)?;
        let over = now >= scenario.duration
            && driver
                .faults
                .iter()
                .all(|(.., phase)| *phase == Phase::Done);
        if over {
            let mut state = driver.world.lock();
            state.over = state.operations >= scenario.operations;
        }
        if sim.step().map_err(|error| error.to_string())? {
            return Ok(());
        }
        if now > scenario.duration * PATIENCE {
            return Err(format!(
                "clients are still there after {:.1} s",
                now.as_secs_f64()
            ));
        }
    }
}

/// Begins and ends faults.
struct Driver<'a> {
    world: &'a Arc<World>,
    replicas: usize,
    nodes: usize,
    faults: Vec<(usize, Fault, Phase)>,
    /// What the network is told about each pair of nodes, where it differs from a good link.
    links: BTreeMap<(usize, usize), Link>,
    /// When replicas start again, and which fault has killed them.
    restarts: BTreeMap<usize, (Duration, Option<usize>)>,
    /// Replicas whose disk has failed: they may end.
    excused: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Active(Duration),
    Done,
}

/// From the node with the smaller number to the other one, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Link {
    lost_there: bool,
    lost_back: bool,
    held: bool,
    latency: Option<Duration>,
}

impl Driver<'_> {
    fn faults(&mut self, sim: &mut Sim<'_>, now: Duration, give_up: bool) {
        let mut links = false;
        for at in 0..self.faults.len() {
            let (number, fault, phase) = self.faults[at].clone();
            let next = match phase {
                Phase::Waiting if now >= fault.start && self.can_begin(&fault, now) => {
                    self.note(number, now, true);
                    links |= fault.kind.is_of_links();
                    self.begin(sim, number, &fault);
                    Phase::Active(now + fault.length)
                }
                Phase::Active(until) if now >= until && (give_up || self.fired(number)) => {
                    self.note(number, now, false);
                    links |= fault.kind.is_of_links();
                    self.end(sim, number, &fault);
                    Phase::Done
                }
                Phase::Active(until) => {
                    if fault.kind == FaultKind::Reset && !self.fired(number) {
                        self.world.reset(fault.node, number);
                    }
                    Phase::Active(until)
                }
                Phase::Waiting if give_up => Phase::Done,
                phase => phase,
            };
            self.faults[at].2 = next;
        }
        if links {
            self.update_links(sim);
        }
    }

    /// A replica can be killed when it runs.
    fn can_begin(&self, fault: &Fault, now: Duration) -> bool {
        !fault.kind.kills()
            || self
                .victims(fault)
                .any(|node| !self.restarts.contains_key(&node))
                && !self.lurks(fault, now)
    }

    /// A loss of power shows little when nothing is written. So most of them wait for that, but not
    /// for ever.
    fn lurks(&self, fault: &Fault, now: Duration) -> bool {
        if fault.kind != FaultKind::PowerFailure || now >= fault.start + fault.length {
            return false;
        }
        let comes = match fault.how % 4 {
            0 => None,
            1 => {
                let unsynced = |file: &mut Contents| file.is_unsynced(now);
                self.world.any_file(0..self.replicas, unsynced)
            }
            _ => {
                let grows = |file: &mut Contents| file.grows(now);
                self.world.any_file(0..self.replicas, grows)
            }
        };
        comes == Some(false)
    }

    /// The replicas that a fault kills, if it does.
    fn victims(&self, fault: &Fault) -> std::ops::Range<usize> {
        match fault.kind {
            FaultKind::PowerFailure => 0..self.replicas,
            _ => fault.node..fault.node + 1,
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, number: usize, fault: &Fault) {
        let node = fault.node;
        match fault.kind {
            FaultKind::Crash | FaultKind::PowerFailure | FaultKind::CrashAndLose => {
                for node in self.victims(fault) {
                    if let Entry::Vacant(restart) = self.restarts.entry(node) {
                        // It comes back with the end of the fault.
                        restart.insert((Duration::MAX, Some(number)));
                        self.kill(sim, node, fault.kind);
                    } else if fault.kind == FaultKind::PowerFailure {
                        // It is down, and loses what it had not synced before.
                        self.world.crash_files(node, sim.elapsed(), true);
                    }
                }
                self.world.lock().fire(number);
            }
            FaultKind::Reset => self.world.reset(node, number),
            FaultKind::Pause => self.world.pause(node, number),
            FaultKind::ClockSkew => {
                let mut random = Random::new(fault.how);
                let skew = Skew {
                    fault: number,
                    rate: random.pick(&[500, 800, 950, 1050, 1250, 2000]),
                    offset: random.below(10_000_001) as i64 - 5_000_000,
                };
                self.world.lock().nodes[node].skews.push(skew);
            }
            FaultKind::SlowDisk => self.world.slow_disk(node, number, true),
            FaultKind::FailingDisk => {
                self.excused[node] = true;
                self.world.failing_disk(node, number, true);
            }
            FaultKind::Delay
            | FaultKind::Stall
            | FaultKind::Partition
            | FaultKind::OneWayPartition => {
                self.world.begin_link_fault(number, node, fault.peer);
            }
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, number: usize, fault: &Fault) {
        let node = fault.node;
        match fault.kind {
            FaultKind::Crash | FaultKind::PowerFailure | FaultKind::CrashAndLose => {
                if fault.kind == FaultKind::CrashAndLose {
                    self.world.lose_disks(node);
                }
                for node in self.victims(fault) {
                    let waits = self.restarts.get(&node);
                    if waits.is_some_and(|(_, by)| *by == Some(number)) {
                        self.restarts.remove(&node);
                        sim.bounce(node_name(node, self.replicas));
                    }
                }
            }
            FaultKind::Reset => {}
            FaultKind::Pause => self.world.resume(node, number),
            FaultKind::ClockSkew => {
                let mut state = self.world.lock();
                let skews = &mut state.nodes[node].skews;
                skews.retain(|skew| skew.fault != number);
            }
            FaultKind::SlowDisk => self.world.slow_disk(node, number, false),
            FaultKind::FailingDisk => self.world.failing_disk(node, number, false),
            FaultKind::Delay
            | FaultKind::Stall
            | FaultKind::Partition
            | FaultKind::OneWayPartition => self.world.end_link_fault(number),
        }
    }

    /// Replicas that have ended, and those that are to start again.
    fn replicas(&mut self, sim: &mut Sim<'_>, now: Duration) -> Result<(), String> {
        for node in 0..self.replicas {
            let ended = self.world.lock().nodes[node].ended.take();
            if let Some(ended) = ended {
                let name = node_name(node, self.replicas);
                let how = ended.err();
                if !self.excused[node] {
                    return Err(match how {
                        Some(error) => format!("{name} ended: {error}"),
                        None => format!("{name} ended"),
                    });
                }
                self.kill(sim, node, FaultKind::Crash);
                self.restarts.insert(node, (now + RESTART, None));
            }
        }
        let due = self.restarts.iter().filter(|(_, (at, _))| *at <= now);
        let due: Vec<usize> = due.map(|(node, _)| *node).collect();
        for node in due {
            self.restarts.remove(&node);
            sim.bounce(node_name(node, self.replicas));
        }
        Ok(())
    }

    fn kill(&self, sim: &mut Sim<'_>, node: usize, by: FaultKind) {
        self.world.dying(node, true);
        sim.crash(node_name(node, self.replicas));
        self.world.dying(node, false);
        let power = by == FaultKind::PowerFailure;
        self.world.crash_files(node, sim.elapsed(), power);
        // It may have ended in the step before.
        self.world.lock().nodes[node].ended = None;
    }

    fn fired(&self, number: usize) -> bool {
        self.world.lock().fired[number]
    }

    fn note(&self, number: usize, now: Duration, begins: bool) {
        let what = if begins { "begins" } else { "ends" };
        self.world
            .lock()
            .trace
            .add_text(now, &format_args!("fault {number} {what}"));
    }

    /// Tells the network what all link faults together make of each link.
    fn update_links(&mut self, sim: &Sim<'_>) {
        let mut links: BTreeMap<(usize, usize), Link> = BTreeMap::new();
        let active = self.faults.iter().filter(|(_, fault, phase)| {
            fault.kind.is_of_links() && matches!(phase, Phase::Active(_))
        });
        for (_, fault, _) in active {
            let node = fault.node;
            for other in (0..self.nodes).filter(|other| *other != node) {
                if fault.peer.is_some_and(|peer| peer != other) {
                    continue;
                }
                let link = links.entry((node.min(other), node.max(other))).or_default();
                let sends = fault.how % 2 == 0;
                match fault.kind {
                    FaultKind::Stall => link.held = true,
                    FaultKind::Delay => {
                        let latency = Random::new(fault.how).micros(100_000..=600_000);
                        link.latency = link.latency.max(Some(latency));
                    }
                    FaultKind::OneWayPartition if sends == (node < other) => link.lost_there = true,
                    FaultKind::OneWayPartition => link.lost_back = true,
                    _ => (link.lost_there, link.lost_back) = (true, true),
                }
            }
        }
        for a in 0..self.nodes {
            for b in a + 1..self.nodes {
                let old = self.links.get(&(a, b)).copied().unwrap_or_default();
                let new = links.get(&(a, b)).copied().unwrap_or_default();
                if old != new {
                    let names = (node_name(a, self.replicas), node_name(b, self.replicas));
                    set_link(sim, (&names.0, &names.1), old, new);
                }
            }
        }
        self.links = links;
    }
}

fn set_link(sim: &Sim<'_>, (a, b): (&str, &str), old: Link, new: Link) {
    if old.latency != new.latency {
        sim.set_link_latency(a, b, new.latency.unwrap_or(MIN_LATENCY));
        if new.latency.is_none() {
            sim.set_link_max_message_latency(a, b, MAX_LATENCY);
        }
    }
    let state = |link: Link| (link.lost_there, link.lost_back, link.held);
    if state(old) == state(new) {
        return;
    }
    // What is held stays so only where the link goes on to be.
    match state(new) {
        (false, false, true) => sim.hold(a, b),
        (false, false, false) => sim.release(a, b),
        // The network cannot hold one direction and lose the other.
        (true, true, _) | (_, _, true) => sim.partition(a, b),
        (true, false, false) => {
            sim.release(a, b);
            sim.partition_oneway(a, b);
        }
        (false, true, false) => {
            sim.release(a, b);
            sim.partition_oneway(b, a);
        }
    }
}

impl FaultKind {
    fn is_of_links(self) -> bool {
        matches!(
            self,
            Self::Delay | Self::Stall | Self::Partition | Self::OneWayPartition
        )
    }

    fn kills(self) -> bool {
        matches!(self, Self::Crash | Self::PowerFailure | Self::CrashAndLose)
    }
}

impl Run {
    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many replicas there were.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// How many clients there were.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// The faults that were to happen, each with its place in the [plan](Scenario::plan), and
    /// whether it had an effect.
    pub fn faults(&self) -> impl Iterator<Item = (usize, &Fault, bool)> {
        self.faults
            .iter()
            .map(|(at, fault, fired)| (*at, fault, *fired))
    }

    /// How many faults had an effect.
    #[must_use]
    pub fn faults_fired(&self) -> usize {
        self.faults.iter().filter(|(.., fired)| *fired).count()
    }

    /// How many operations clients began.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// What clients did and saw.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A hash of all that was sent, when and by whom, of all faults, and of the history.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// What happened, line by line, if it was [noted](Scenario::run_traced).
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.lines
    }

    /// How long the run took for those in it.
    #[must_use]
    pub fn virtual_time(&self) -> Duration {
        self.virtual_time
    }

    /// How long it took for us.
    #[must_use]
    pub fn real_time(&self) -> Duration {
        self.real_time
    }

    /// Why it has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The timeline of the violation, if there is one.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        match &self.failure {
            Some(Failure::Violation(violation)) => Some(self.history.svg(violation)),
            _ => None,
        }
    }

    /// Writes the timeline and the history of a violation into files by this name, in the folder
    /// `gorums-sim` below that of what is built, or else of temporary files. None where there is no
    /// violation.
    #[must_use]
    pub fn write_files(&self, name: &str) -> Option<Files> {
        Files::write(name, self)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} replicas, {} clients, {} operations, {:.1} s of virtual time",
            self.seed,
            self.replicas,
            self.clients,
            self.operations,
            self.virtual_time.as_secs_f64()
        )?;
        for (at, fault, fired) in self.faults() {
            let fired = if fired { "" } else { ", without effect" };
            writeln!(f, "  fault {at}: {fault}{fired}")?;
        }
        match &self.failure {
            None => writeln!(f, "  passed"),
            Some(Failure::Violation(violation)) => {
                writeln!(f, "  FAILED: {violation}")?;
                for (number, at) in violation.operations().iter().enumerate() {
                    let operation = &self.history.operations()[*at];
                    let start = seconds(operation.start);
                    write!(f, "    {:>2}: {start:>11} to ", number + 1)?;
                    match operation.end {
                        Some(end) => write!(f, "{:>11}", seconds(end))?,
                        None => write!(f, "{:>11}", "?")?,
                    }
                    writeln!(f, "  {operation}")?;
                }
                Ok(())
            }
            Some(failure) => writeln!(f, "  FAILED: {failure}"),
        }
    }
}

fn seconds(nanos: u64) -> String {
    format!("{:.6} s", Duration::from_nanos(nanos).as_secs_f64())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => violation.fmt(f),
            Self::Unknown(why) => write!(f, "nobody knows whether the history is right: {why}"),
            Self::Ended(why) | Self::TooLittle(why) => f.write_str(why),
            Self::NotFired(faults) => write!(f, "faults without an effect: {faults:?}"),
            Self::NotTheSame(where_) => {
                write!(f, "a second run of this seed was not the same: {where_}")
            }
        }
    }
}
