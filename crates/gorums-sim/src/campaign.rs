//! Many seeds.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use crate::cluster::{Failure, Fault, FaultKind, Run, Scenario};
use crate::replay::{self, FaultSet, Files};

/// One seed in so many is run twice.
const TWICE: u64 = 20;

/// Runs of one scenario with many seeds.
///
/// ```
/// # use gorums_sim::{Campaign, Scenario};
/// # let scenario = Scenario::new("empty").faults([]).operations(0)
/// #     .replica(|node| async move { node.serve(node.server()).await })
/// #     .client(|client| async move { while client.next_operation().await {} Ok(()) });
/// let report = Campaign::new(&scenario).seeds(1..=4).jobs(2).run(|_| {});
/// assert!(report.failed().is_none(), "{report}");
/// ```
///
/// What is printed ends with what failed: the seed, its faults, the operations that cannot be, where
/// a picture of them was written, and the command that runs that seed again. On a terminal, how far
/// a campaign is shows on standard error while it takes longer than two seconds.
///
/// Where the environment variable `GORUMS_SIM_SEED` is a seed, each campaign of the program runs
/// that one in the place of its own; with `GORUMS_SIM_FAULTS`, numbers with commas between them or
/// `none`, it has only these of its faults.
pub struct Campaign<'a> {
    scenario: &'a Scenario,
    seeds: Vec<u64>,
    jobs: usize,
    /// Of the seeds' faults only these.
    faults: Option<FaultSet>,
    command: Option<Box<Command<'a>>>,
}

type Command<'a> = dyn Fn(u64, Option<&FaultSet>) -> String + 'a;

/// How far a campaign is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Seeds that have been run.
    pub done: usize,
    /// All seeds.
    pub seeds: usize,
    /// Since the beginning.
    pub elapsed: Duration,
}

/// What came of a campaign.
#[derive(Debug)]
pub struct Report {
    scenario: String,
    seeds: usize,
    twice: usize,
    operations: u64,
    virtual_time: Duration,
    elapsed: Duration,
    fired: BTreeMap<FaultKind, u64>,
    least: Option<Least>,
    failed: Option<Failed>,
}

/// The least of each number that any seed of a campaign had, the failed one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Least {
    /// Replicas.
    pub replicas: usize,
    /// Clients.
    pub clients: usize,
    /// Operations that clients began.
    pub operations: usize,
    /// Virtual time, of one run.
    pub virtual_time: Duration,
    /// Faults that had an effect.
    pub faults_fired: usize,
}

/// The first seed that failed, and how few of its faults it takes.
#[derive(Debug)]
pub struct Failed {
    run: Run,
    planned: usize,
    shrunk: Option<FaultSet>,
    files: Option<Files>,
    /// The command that runs it again.
    again: String,
}

impl<'a> Campaign<'a> {
    /// Runs of a scenario: with no seeds yet, on all cores.
    #[must_use]
    pub fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            seeds: Vec::new(),
            jobs: thread::available_parallelism().map_or(1, Into::into),
            faults: None,
            command: None,
        }
    }

    /// The seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.seeds = seeds.into_iter().collect();
        self
    }

    /// How many run at once; at least one.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// How the report says that a seed is run again, with some of its faults or all of them, where
    /// it is not by the environment variables and `cargo test`.
    #[must_use]
    pub fn command(mut self, command: impl Fn(u64, Option<&FaultSet>) -> String + 'a) -> Self {
        self.command = Some(Box::new(command));
        self
    }

    /// Runs the seeds in their order until one fails, and shrinks that one. `progress` is called
    /// after each seed, by whichever thread has run it.
    ///
    /// # Panics
    ///
    /// Where `GORUMS_SIM_SEED` is no seed, or `GORUMS_SIM_FAULTS` no faults of it. As for
    /// [`Scenario::run`].
    pub fn run(mut self, progress: impl Fn(Progress) + Sync) -> Report {
        match replay::asked_for() {
            Ok(None) => {}
            Ok(Some((seed, faults))) => (self.seeds, self.faults) = (vec![seed], faults),
            Err(why) => panic!("{why}"),
        }
        if let Some(faults) = &self.faults {
            for seed in &self.seeds {
                self.scenario
                    .has_faults(*seed, faults)
                    .unwrap_or_else(|why| panic!("{why}"));
            }
        }
        let mut report = Runs {
            scenario: self.scenario,
            seeds: &self.seeds,
            faults: self.faults.as_ref(),
        }
        .all(self.jobs, progress);
        if let Some(failed) = &mut report.failed {
            let faults = failed.shrunk.as_ref().or(self.faults.as_ref());
            let seed = failed.run.seed();
            failed.again = match &self.command {
                Some(command) => command(seed, faults),
                None => replay::command(seed, faults),
            };
            failed.files = Files::write(self.scenario.name(), &failed.run);
        }
        report
    }
}

/// The runs of a campaign.
struct Runs<'a> {
    scenario: &'a Scenario,
    seeds: &'a [u64],
    faults: Option<&'a FaultSet>,
}

impl Runs<'_> {
    fn all(&self, jobs: usize, progress: impl Fn(Progress) + Sync) -> Report {
        let begin = Instant::now();
        let line = ProgressLine::new(self.scenario.name());
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let report = Mutex::new(Report {
            scenario: self.scenario.name().to_owned(),
            seeds: 0,
            twice: 0,
            operations: 0,
            virtual_time: Duration::ZERO,
            elapsed: Duration::ZERO,
            fired: BTreeMap::new(),
            least: None,
            failed: None,
        });
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&seed) = self.seeds.get(at) else {
                    return;
                };
                let (run, twice) = self.one(seed);
                let mut report = report.lock().expect("no thread panics with the lock");
                report.add(&run, twice);
                let now = Progress {
                    done: report.seeds,
                    seeds: self.seeds.len(),
                    elapsed: begin.elapsed(),
                };
                line.show(now);
                progress(now);
                if run.failure().is_some() {
                    stop.store(true, Ordering::Relaxed);
                    // Seeds that were begun later may have ended earlier.
                    let position =
                        |run: &Run| self.seeds.iter().position(|seed| *seed == run.seed());
                    let first = report
                        .failed
                        .as_ref()
                        .is_none_or(|failed| position(&run) < position(&failed.run));
                    if first {
                        let planned = run.faults().count();
                        report.failed = Some(Failed {
                            run,
                            planned,
                            shrunk: None,
                            files: None,
                            again: String::new(),
                        });
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        let mut report = report.into_inner().expect("no thread panics with the lock");
        report.elapsed = begin.elapsed();
        line.clear();
        if let Some(failed) = &mut report.failed {
            self.shrink(failed);
        }
        report
    }

    /// Runs a seed, some of them twice. Which ones follows from the seed, so that a replay does the
    /// same.
    fn one(&self, seed: u64) -> (Run, bool) {
        let once = || match self.faults {
            None => self.scenario.run(seed),
            Some(faults) => self.scenario.run_with_faults(seed, faults.places()),
        };
        let mut run = once();
        let twice = seed.is_multiple_of(TWICE);
        if twice && run.failure.is_none() && once().trace_hash() != run.trace_hash() {
            run.failure = Some(Failure::NotTheSame(self.difference(seed)));
        }
        (run, twice)
    }

    /// The first line in which two traces of a seed differ.
    fn difference(&self, seed: u64) -> String {
        let [one, other] = [(); 2].map(|()| {
            let faults = self.faults.map(FaultSet::places);
            self.scenario.run_traced(seed, faults)
        });
        let (one, other) = (one.trace(), other.trace());
        let at = one.iter().zip(other).position(|(one, other)| one != other);
        let at = at.unwrap_or(one.len().min(other.len()));
        match (one.get(at), other.get(at)) {
            (None, None) => "two more were the same".to_owned(),
            (one, other) => {
                let text =
                    |line: Option<&String>| line.map_or("the end", |line| line.trim()).to_owned();
                format!("line {}: {}, and then {}", at + 1, text(one), text(other))
            }
        }
    }

    /// Leaves out faults one by one while the run still fails in the same way.
    fn shrink(&self, failed: &mut Failed) {
        let kind = |run: &Run| run.failure().map(std::mem::discriminant);
        if matches!(
            failed.run.failure(),
            Some(Failure::NotTheSame(_) | Failure::NotFired(_) | Failure::TooLittle(_))
        ) {
            return;
        }
        let mut kept: Vec<usize> = failed.run.faults().map(|(at, ..)| at).collect();
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.remove(at);
            let run = self.scenario.run_with_faults(failed.run.seed(), &fewer);
            if kind(&run) == kind(&failed.run) {
                failed.run = run;
                kept = fewer;
            } else {
                at += 1;
            }
        }
        failed.shrunk = (kept.len() < failed.planned).then(|| kept.into());
    }
}

/// How far a campaign is, on a terminal.
struct ProgressLine<'a> {
    name: &'a str,
    /// When it was last shown, since the beginning; none without a terminal.
    last: Option<Mutex<Duration>>,
}

impl<'a> ProgressLine<'a> {
    /// How long a campaign is without it.
    const SILENT: Duration = Duration::from_secs(2);
    const EVERY: Duration = Duration::from_millis(500);

    fn new(name: &'a str) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            name,
            last: terminal.then(Mutex::default),
        }
    }

    fn show(&self, now: Progress) {
        let Some(last) = &self.last else { return };
        let mut last = last.lock().expect("no thread panics with the lock");
        if now.elapsed < Self::SILENT || now.elapsed < *last + Self::EVERY {
            return;
        }
        *last = now.elapsed;
        // Not by a macro, whose output the test harness would keep. Where nobody reads it, nobody
        // misses it.
        let rate = now.done as f64 / now.elapsed.as_secs_f64();
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{}: {} of {} seeds, {rate:.1} per second",
            self.name,
            now.done,
            now.seeds
        );
    }

    fn clear(self) {
        let shown = self.last.and_then(|last| last.into_inner().ok());
        if shown.is_some_and(|last| !last.is_zero()) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Report {
    fn add(&mut self, run: &Run, twice: bool) {
        self.seeds += 1;
        self.twice += usize::from(twice);
        self.operations += run.operations() as u64;
        self.virtual_time += run.virtual_time() * if twice { 2 } else { 1 };
        for (_, fault, fired) in run.faults() {
            *self.fired.entry(fault.kind).or_default() += u64::from(fired);
        }
        let least = Least::of(run);
        self.least = Some(self.least.map_or(least, |known| known.min(least)));
    }

    /// The first seed that failed.
    #[must_use]
    pub fn failed(&self) -> Option<&Failed> {
        self.failed.as_ref()
    }

    /// How many seeds were run.
    #[must_use]
    pub fn seeds(&self) -> usize {
        self.seeds
    }

    /// How many operations clients began.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// How many faults had an effect, by kind.
    #[must_use]
    pub fn faults_fired(&self) -> &BTreeMap<FaultKind, u64> {
        &self.fired
    }

    /// The least of each number that any seed had; `None` where none was run.
    #[must_use]
    pub fn least(&self) -> Option<Least> {
        self.least
    }

    /// The virtual time of all runs, of those that were made twice both.
    #[must_use]
    pub fn virtual_time(&self) -> Duration {
        self.virtual_time
    }

    /// How long the campaign took.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl Least {
    fn of(run: &Run) -> Self {
        Self {
            replicas: run.replicas(),
            clients: run.clients(),
            operations: run.operations(),
            virtual_time: run.virtual_time(),
            faults_fired: run.faults_fired(),
        }
    }

    fn min(self, other: Self) -> Self {
        Self {
            replicas: self.replicas.min(other.replicas),
            clients: self.clients.min(other.clients),
            operations: self.operations.min(other.operations),
            virtual_time: self.virtual_time.min(other.virtual_time),
            faults_fired: self.faults_fired.min(other.faults_fired),
        }
    }
}

impl fmt::Display for Least {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} replicas, {} clients, {} operations, {:.1} s of virtual time, {} faults",
            self.replicas,
            self.clients,
            self.operations,
            self.virtual_time.as_secs_f64(),
            self.faults_fired
        )
    }
}

impl Failed {
    /// The run, with the fewest faults with which it failed in this way.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// How many faults the seed has.
    #[must_use]
    pub fn planned(&self) -> usize {
        self.planned
    }

    /// The faults that it takes, by their places in the plan, if those are not all.
    #[must_use]
    pub fn shrunk(&self) -> Option<&[usize]> {
        self.shrunk.as_ref().map(FaultSet::places)
    }

    /// The picture and the history that were written; none where there is no violation.
    #[must_use]
    pub fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.again
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "{}: {} seeds in {seconds:.1} s, {:.1} seeds/s, {} of them twice",
            self.scenario,
            self.seeds,
            self.seeds as f64 / seconds,
            self.twice
        )?;
        writeln!(
            f,
            "  {} operations, {:.0} s of virtual time, {:.0} times real time",
            self.operations,
            self.virtual_time.as_secs_f64(),
            self.virtual_time.as_secs_f64() / seconds
        )?;
        if let Some(least) = self.least {
            writeln!(f, "  at least, in each seed: {least}")?;
        }
        write!(f, "  faults:")?;
        for (at, (kind, count)) in self.fired.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma} {count} {kind}")?;
        }
        if self.fired.is_empty() {
            write!(f, " none")?;
        }
        writeln!(f)?;
        self.failed.iter().try_for_each(|failed| failed.fmt(f))
    }
}

/// The seed, its faults, why it failed, the operations that show it, and how to see it again.
impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.run.fmt(f)?;
        match &self.shrunk {
            None => writeln!(f, "  it takes all {} faults", self.planned)?,
            Some(faults) => {
                let kept = faults.places().len();
                writeln!(f, "  shrunk from {} faults to {kept}", self.planned)?;
            }
        }
        self.files.iter().try_for_each(|files| files.fmt(f))?;
        writeln!(f, "  again: {}", self.again)
    }
}

impl fmt::Debug for Campaign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Campaign")
            .field("scenario", &self.scenario)
            .field("seeds", &self.seeds)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

impl Fault {
    /// What happens to whom.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.name
    }
}
