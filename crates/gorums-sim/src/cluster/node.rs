use std::sync::Arc;
use std::time::Duration;

use gorums::{Configuration, ConfigurationBuilder, Server, ServerBuilder};

use super::jitter::Jitter;
use super::transport::PORT;
use super::world::{self, World};
use super::{Clock, Disk, File, Random, Transport};
use crate::history::{Recorder, Violation};

/// Shorter than the defaults, so that a run of ten seconds sees a dead connection end.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_millis(700), Duration::from_millis(700));
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// What a replica of a scenario is given when it starts, and when it starts again after a crash.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
    pub(crate) replicas: usize,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) recorder: Recorder,
}

/// What a client of a scenario is given.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
    pub(crate) replicas: usize,
    pub(crate) clock: Clock,
    pub(crate) recorder: Recorder,
    pub(crate) pace: Pace,
}

/// How long clients go on, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The longest pause between two operations, in microseconds.
    pub(crate) longest_pause: u64,
    pub(crate) patience: Duration,
}

impl Replica {
    /// The interval and the timeout of keep-alive in the configurations of replicas and clients. A
    /// server's interval is twice as long.
    pub const KEEP_ALIVE: (Duration, Duration) = KEEP_ALIVE;

    /// Its id, from 1 on.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.node as u32 + 1
    }

    /// How often it has crashed before.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        self.incarnation
    }

    /// The addresses of all replicas, in the order of their ids.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        addresses(self.replicas)
    }

    /// `Server::builder()` on the simulated network, with the node's clock and keep-alive in
    /// proportion to the length of a run. Handlers are held up for some milliseconds now and then,
    /// as by a scheduler with more threads than cores.
    pub fn server(&self) -> ServerBuilder {
        Server::builder()
            .transport(self.transport())
            .clock(self.clock())
            .keep_alive(KEEP_ALIVE.0 * 2, KEEP_ALIVE.1)
            .interceptor(Jitter {
                world: Arc::clone(&self.world),
                node: self.node,
            })
    }

    /// `Configuration::builder()` on the simulated network, with no nodes yet: for a replica that
    /// calls some of the others.
    pub fn configuration(&self) -> ConfigurationBuilder {
        builder(self.transport(), self.clock())
    }

    /// The same with all replicas, this one among them, whose ids are 1, 2, 3 and so on: for one
    /// that is their peer. [`KEEP_ALIVE`](Self::KEEP_ALIVE) is how long one of them may be silent.
    pub fn peers(&self) -> ConfigurationBuilder {
        with_nodes(self.configuration(), self.replicas)
    }

    /// Serves until the replica is killed.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn serve(&self, server: ServerBuilder) -> crate::Result {
        self.bind(server).await?.serve().await;
        Ok(())
    }

    /// Listens where the others expect it, and serves once the result is told to: for a replica that
    /// wants more of its server, such as the clients that it can call.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn bind(&self, server: ServerBuilder) -> crate::Result<Server> {
        Ok(server.bind(&format!("0.0.0.0:{PORT}")).await?)
    }

    /// The simulated network.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::new(&self.world, self.node)
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The node's disk for this type of state.
    #[must_use]
    pub fn disk<T: Default + Send + 'static>(&self) -> Disk<T> {
        Disk::new(&self.world, self.node)
    }

    /// A file on the node's disk, as it was left, or an empty one.
    #[must_use]
    pub fn file(&self, name: &str) -> File {
        File::open(&self.world, self.node, self.incarnation, name)
    }

    /// A random number below a bound, which is not 0. It follows from the seed.
    #[must_use]
    pub fn random_below(&self, bound: u64) -> u64 {
        Random::new(self.world.random(self.node)).below(bound)
    }

    /// The history of the run, where what a replica does is part of what is checked.
    #[must_use]
    pub fn history(&self) -> &Recorder {
        &self.recorder
    }

    /// The run has failed, and these operations show why.
    pub fn report(&self, violation: Violation) {
        self.world.tell(violation);
    }
}

impl Client {
    /// Its id, from 1 on.
    #[must_use]
    pub fn id(&self) -> u32 {
        (self.node - self.replicas) as u32 + 1
    }

    /// The addresses of all replicas, in the order of their ids.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        addresses(self.replicas)
    }

    /// `Configuration::builder()` with all replicas, whose ids are 1, 2, 3 and so on, on the
    /// simulated network, with the node's clock, and with timeouts in proportion to the length of a
    /// run.
    pub fn configuration(&self) -> ConfigurationBuilder {
        with_nodes(builder(self.transport(), self.clock()), self.replicas)
    }

    /// Pauses a while, and says whether there is one more operation to be called: until the run has
    /// lasted as long as it shall, has as many operations as it shall, and its faults are over.
    pub async fn next_operation(&self) -> bool {
        let pause = match self.random_below(4) {
            0 => 0,
            _ => self.random_below(self.pace.longest_pause + 1),
        };
        tokio::time::sleep(Duration::from_micros(pause)).await;
        self.world.runs(self.node).await;
        let mut state = self.world.lock();
        state.operations += usize::from(!state.over);
        !state.over
    }

    /// How long a call may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.pace.patience
    }

    /// The simulated network.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::new(&self.world, self.node)
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A random number below a bound, which is not 0. It follows from the seed.
    #[must_use]
    pub fn random_below(&self, bound: u64) -> u64 {
        Random::new(self.world.random(self.node)).below(bound)
    }

    /// A value that nobody else in this run is given.
    #[must_use]
    pub fn unique_value(&self) -> String {
        format!("v{}", self.world.next_value())
    }

    /// The history of the run. Its times are virtual.
    #[must_use]
    pub fn history(&self) -> &Recorder {
        &self.recorder
    }

    /// The run has failed, and these operations show why.
    pub fn report(&self, violation: Violation) {
        self.world.tell(violation);
    }
}

/// A recorder by the virtual time of the run.
pub(crate) fn recorder() -> Recorder {
    Recorder::with_clock(|| u64::try_from(world::now().as_nanos()).unwrap_or(u64::MAX))
}

fn addresses(replicas: usize) -> Vec<String> {
    (1..=replicas)
        .map(|id| format!("replica-{id}:{PORT}"))
        .collect()
}

fn with_nodes(builder: ConfigurationBuilder, replicas: usize) -> ConfigurationBuilder {
    let addresses = addresses(replicas).into_iter();
    addresses
        .zip(1..)
        .fold(builder, |builder, (address, id)| builder.node(id, address))
}

fn builder(transport: Transport, clock: Clock) -> ConfigurationBuilder {
    Configuration::builder()
        .transport(transport)
        .clock(clock)
        .connect_timeout(CONNECT_TIMEOUT)
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
}
