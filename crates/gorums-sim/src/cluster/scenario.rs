use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::fault::{self, Fault, Links};
use super::run::{self, Options};
use super::{Client, FaultKind, Random, Replica, Run};
use crate::Result;
use crate::history::{History, Verdict};
use crate::replay::FaultSet;

pub(crate) type Program<N> = Arc<dyn Fn(N) -> Pin<Box<dyn Future<Output = Result>>> + Send + Sync>;

/// What runs in a cluster, and how its history is judged. All else follows from a seed.
#[derive(Clone)]
pub struct Scenario {
    pub(crate) name: String,
    pub(crate) replicas: RangeInclusive<usize>,
    pub(crate) clients: RangeInclusive<usize>,
    pub(crate) operations: usize,
    pub(crate) duration: Duration,
    pub(crate) kinds: Vec<FaultKind>,
    pub(crate) links: Links,
    pub(crate) replica: Option<Program<Replica>>,
    pub(crate) client: Option<Program<Client>>,
    pub(crate) check: Arc<dyn Fn(&History) -> Verdict + Send + Sync>,
}

impl Scenario {
    /// Three to five replicas, three to five clients, at least a hundred operations and ten
    /// seconds, with all faults but [`CrashAndLose`](FaultKind::CrashAndLose) and those of disks,
    /// and a check for linearizability.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            replicas: 3..=5,
            clients: 3..=5,
            operations: 100,
            duration: Duration::from_secs(10),
            kinds: vec![
                FaultKind::Delay,
                FaultKind::Stall,
                FaultKind::Reset,
                FaultKind::Partition,
                FaultKind::OneWayPartition,
                FaultKind::Crash,
                FaultKind::PowerFailure,
                FaultKind::Pause,
                FaultKind::ClockSkew,
            ],
            links: Links::OfClients,
            replica: None,
            client: None,
            check: Arc::new(History::linearizable),
        }
    }

    /// What a replica does, until it is killed. It is called again when the replica starts again;
    /// what is to be there then has to be on its [disk](Replica::disk). If it ends by itself, the
    /// run fails, unless its disk did.
    #[must_use]
    pub fn replica<F, Fut>(mut self, program: F) -> Self
    where
        F: Fn(Replica) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result> + 'static,
    {
        self.replica = Some(Arc::new(move |node| Box::pin(program(node))));
        self
    }

    /// What a client does, mostly while [`next_operation`](Client::next_operation) says so. Its
    /// error fails the run.
    #[must_use]
    pub fn client<F, Fut>(mut self, program: F) -> Self
    where
        F: Fn(Client) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result> + 'static,
    {
        self.client = Some(Arc::new(move |node| Box::pin(program(node))));
        self
    }

    /// How the history is judged.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&History) -> Verdict + Send + Sync + 'static) -> Self {
        self.check = Arc::new(check);
        self
    }

    /// The kinds of faults to choose from. A run that would have none of them has no faults.
    #[must_use]
    pub fn faults(mut self, kinds: impl IntoIterator<Item = FaultKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Replicas call each other: what happens to one link may happen to one between two replicas,
    /// and has to have an effect there. Without it, it happens between a replica and a client.
    #[must_use]
    pub fn replicas_are_peers(mut self) -> Self {
        self.links = Links::OfAll;
        self
    }

    /// How many replicas there are: at least one, at most a hundred.
    #[must_use]
    pub fn replicas(mut self, replicas: RangeInclusive<usize>) -> Self {
        self.replicas = replicas;
        self
    }

    /// How many clients there are: at least one, at most a hundred.
    #[must_use]
    pub fn clients(mut self, clients: RangeInclusive<usize>) -> Self {
        self.clients = clients;
        self
    }

    /// How many operations there are at least, of all clients together.
    #[must_use]
    pub fn operations(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }

    /// How long a run lasts at least, in virtual time.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The faults of a seed, in the order in which they begin.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Vec<Fault> {
        let (replicas, clients) = self.sizes(seed);
        let mut random = Random::of(seed, 2);
        fault::plan(self, &mut random, replicas, clients)
    }

    /// Whether a seed has these faults.
    ///
    /// # Errors
    ///
    /// Which one it does not have.
    pub fn has_faults(&self, seed: u64, faults: &FaultSet) -> std::result::Result<(), String> {
        let planned = self.plan(seed).len();
        match faults.places().iter().find(|at| **at >= planned) {
            None => Ok(()),
            Some(unknown) => Err(format!(
                "seed {seed} of {} has no fault {unknown}: its {planned} faults are numbered from 0 on",
                self.name
            )),
        }
    }

    /// One run.
    ///
    /// # Panics
    ///
    /// Where the scenario has no replica, no client, or none or more than a hundred of either.
    #[must_use]
    pub fn run(&self, seed: u64) -> Run {
        self.run_with(seed, &Options::default())
    }

    /// One run with some of the faults only, by their places in the [plan](Self::plan).
    #[must_use]
    pub fn run_with_faults(&self, seed: u64, faults: &[usize]) -> Run {
        self.run_with(
            seed,
            &Options {
                faults: Some(faults.to_vec()),
                ..Options::default()
            },
        )
    }

    /// One run that also notes what happens, line by line: [`Run::trace`].
    #[must_use]
    pub fn run_traced(&self, seed: u64, faults: Option<&[usize]>) -> Run {
        self.run_with(
            seed,
            &Options {
                faults: faults.map(<[usize]>::to_vec),
                trace: true,
            },
        )
    }

    pub(crate) fn run_with(&self, seed: u64, options: &Options) -> Run {
        run::run(self, seed, options)
    }

    /// The numbers of replicas and clients.
    pub(crate) fn sizes(&self, seed: u64) -> (usize, usize) {
        let mut random = Random::of(seed, 1);
        (random.within(&self.replicas), random.within(&self.clients))
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .field("replicas", &self.replicas)
            .field("clients", &self.clients)
            .field("operations", &self.operations)
            .field("duration", &self.duration)
            .field("faults", &self.kinds)
            .finish_non_exhaustive()
    }
}
