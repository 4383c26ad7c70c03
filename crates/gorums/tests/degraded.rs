//! A node that is connected and does not answer is noticed, and costs the calls to the others nothing.

mod common;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Number, TestServer, number, within};
use gorums::bounds::Bound;
use gorums::{Client, Configuration, Node, NodeState, Server, ServerBuilder, ServerCtx, Status};
use log::Log;
use memory::{Network, settle};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Level;

const WRITE: &str = "test.Disk.Write";
const READ: &str = "test.Disk.Read";
/// Is answered when the test says so, whatever the disk does.
const WAIT: &str = "test.Disk.Wait";

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A disk that hangs, or is slow by so many milliseconds, while the test says so.
#[derive(Clone)]
struct Disk {
    hangs: Arc<watch::Sender<bool>>,
    lag: Arc<AtomicU64>,
}

impl Disk {
    fn new() -> Self {
        Self {
            hangs: Arc::new(watch::Sender::new(false)),
            lag: Arc::default(),
        }
    }

    fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    async fn sync(&self) {
        let mut hangs = self.hangs.subscribe();
        let done = hangs.wait_for(|hangs| !hangs).await;
        done.expect("the disk is here");
        let lag = Duration::from_millis(self.lag.load(Ordering::Relaxed));
        tokio::time::sleep(lag).await;
    }
}

/// How long a disk takes that does not hang: 1 to 5 ms, and 20 ms now and then. The same in each run.
fn next_delay(state: &AtomicU64) -> Duration {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    match (mixed >> 32) % 100 {
        0 => 20 * MS,
        other => (other as u32 % 5 + 1) * MS,
    }
}

/// A replica whose writes wait for its disk: with their turn, or after its release.
fn replica(disk: &Disk, seed: u64, releases: bool, waiting: &Disk) -> ServerBuilder {
    let (disk, waiting) = (disk.clone(), waiting.clone());
    let state = Arc::new(AtomicU64::new(seed));
    Server::builder()
        .unary(WRITE, move |ctx: ServerCtx, request: Number| {
            let (disk, delay) = (disk.clone(), next_delay(&state));
            async move {
                if releases {
                    ctx.release();
                }
                disk.sync().await;
                tokio::time::sleep(delay).await;
                Ok::<_, Status>(number(request.value))
            }
        })
        .unary(READ, |_: ServerCtx, request: Number| async move {
            Ok::<_, Status>(request)
        })
        .unary(WAIT, move |ctx: ServerCtx, request: Number| {
            let waiting = waiting.clone();
            async move {
                ctx.release();
                waiting.sync().await;
                Ok::<_, Status>(request)
            }
        })
}

/// Replicas, the first of which has a disk that may hang.
struct Cluster {
    _servers: Vec<TestServer>,
    all: Configuration,
    network: Network,
    disk: Disk,
    /// Has requests of `WAIT` answered.
    waiting: Disk,
}

impl Cluster {
    async fn start(replicas: usize, releases: bool) -> Self {
        Self::bounded(replicas, releases, 16 * 1024 * 1024).await
    }

    /// The same, with so many bytes in the outbox of each node.
    async fn bounded(replicas: usize, releases: bool, outbox: usize) -> Self {
        let network = Network::new();
        let (disk, waiting) = (Disk::new(), Disk::new());
        let mut servers = Vec::new();
        let addresses: Vec<_> = (0..replicas).map(|index| format!("n{index}:1")).collect();
        for (index, address) in addresses.iter().enumerate() {
            let own = if index == 0 {
                disk.clone()
            } else {
                Disk::new()
            };
            let builder = replica(&own, index as u64, releases, &waiting);
            let builder = builder.transport(network.clone());
            servers.push(TestServer::start_at(builder, address).await);
        }
        let all = Configuration::builder()
            .transport(network.clone())
            .nodes(addresses)
            .outbox(16 * 1024, outbox)
            .connect()
            .expect("legal");
        within(all.connected(replicas))
            .await
            .expect("none is closed");
        Self {
            _servers: servers,
            all,
            network,
            disk,
            waiting,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.all)
    }

    /// Majority calls, one after the other, and how long each took.
    async fn calls(&self, method: &'static str, count: u64, payload: usize) -> Vec<Duration> {
        let client = self.client();
        let mut took = Vec::new();
        for value in 0..count {
            let request = Number {
                value,
                payload: vec![7; payload].into(),
            };
            let began = Instant::now();
            let call = client.quorum_call::<_, Number>(method, request);
            within(call.majority()).await.expect("most are well");
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took
    }

    fn states(&self) -> Vec<NodeState> {
        self.all.iter().map(Node::state).collect()
    }

    /// Waits until the first node is in this state, and tells how long that took.
    async fn first_is(&self, state: NodeState) -> Duration {
        let began = Instant::now();
        let mut watch = self.all.watch(1_000_000 * SECOND, move |all| {
            all.filter(|node| node.state() == state)
        });
        within(async {
            while let Some(those) = watch.next().await {
                if those.contains(&self.all[0]) {
                    return;
                }
            }
        })
        .await;
        began.elapsed()
    }
}

fn p99(took: &[Duration]) -> Duration {
    took[took.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn majority_calls_take_as_long_with_a_node_that_hangs_as_without_it() {
    for releases in [false, true] {
        let healthy = Cluster::start(4, releases).await;
        let alone = healthy.calls(WRITE, 1_000, 0).await;
        let cluster = Cluster::start(5, releases).await;
        cluster.disk.hang(true);
        let with_one_that_hangs = cluster.calls(WRITE, 1_000, 0).await;
        let (alone, with_one) = (p99(&alone), p99(&with_one_that_hangs));
        assert!(
            with_one.as_secs_f64() <= 1.2 * alone.as_secs_f64(),
            "{with_one:?}, and {alone:?} of the healthy nodes alone"
        );
        assert_eq!(cluster.all[0].state(), NodeState::Degraded);
        assert_eq!(cluster.states()[1..], [NodeState::Connected; 4]);
    }
}

/// What the node does not read waits in its outbox, up to the bound.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_node_that_hangs_is_bounded() {
    const MIB: usize = 1024 * 1024;
    let cluster = Cluster::bounded(5, false, MIB).await;
    cluster.disk.hang(true);
    // More than its outbox, its window and what it lets wait have place for.
    let took = cluster.calls(WRITE, 400, 64 * 1024).await;
    assert!(cluster.all.reached().count(Bound::Outbox) > 0);
    assert!(p99(&took) <= 20 * MS, "{:?}", p99(&took));
    assert_eq!(cluster.all[0].pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_degraded_until_it_has_answered_again_for_a_while() {
    let log = Log::of(Level::INFO);
    let cluster = Cluster::start(3, false).await;
    cluster.calls(WRITE, 100, 0).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
    assert!(cluster.all[0].degraded().is_none());
    cluster.disk.hang(true);
    cluster.calls(WRITE, 1, 0).await;
    let behind = cluster.first_is(NodeState::Degraded).await;
    assert!(SECOND <= behind && behind <= SECOND * 3 / 2, "{behind:?}");
    let why = cluster.all[0].degraded().expect("it is").to_string();
    assert!(why.contains(WRITE), "{why}");
    // Its connection is alive, and it is called.
    let pings = tokio::time::sleep(90 * SECOND);
    pings.await;
    assert_eq!(cluster.all[0].state(), NodeState::Degraded);
    assert!(cluster.all[0].state().is_connected());
    within(cluster.all.connected(3)).await.expect("they are");
    // Those that are well come first, and of these the nearest.
    let best = cluster
        .all
        .sort_by(|a, b| Node::by_state(a, b).then_with(|| Node::by_id(a, b)));
    let ids: Vec<_> = best.ids().map(gorums::NodeId::get).collect();
    assert_eq!(ids, [2, 3, 1]);
    cluster.disk.hang(false);
    let calm = cluster.first_is(NodeState::Connected).await;
    assert!(SECOND <= calm && calm <= SECOND * 3 / 2, "{calm:?}");
    cluster.calls(WRITE, 100, 0).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
    assert!(cluster.all[0].degraded().is_none());
    let told: Vec<_> = log.told(&["gorums::client"]);
    let count = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        count("WARN client: degraded: the node is connected"),
        1,
        "{told:#?}"
    );
    assert_eq!(count("INFO client: the node answers again"), 1, "{told:#?}");
}

/// Its reads are answered, and its writes hang: calls of another method say nothing of these.
#[tokio::test(start_paused = true)]
async fn a_node_is_degraded_where_one_method_hangs_and_others_do_not() {
    let cluster = Cluster::start(3, true).await;
    cluster.disk.hang(true);
    cluster.calls(WRITE, 1, 0).await;
    for _ in 0..20 {
        cluster.calls(READ, 1, 0).await;
        tokio::time::sleep(100 * MS).await;
    }
    assert_eq!(cluster.all[0].state(), NodeState::Degraded);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_at_all_nodes_says_nothing_of_any() {
    let cluster = Cluster::start(3, false).await;
    cluster.waiting.hang(true);
    let client = cluster.client();
    let call = || client.quorum_call::<_, Number>(WAIT, number(1));
    let waits = call().majority();
    let first = call().first();
    let none = within(call().timeout(5 * SECOND).majority()).await;
    assert!(none.is_err(), "nobody answers");
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
    cluster.waiting.hang(false);
    within(waits).await.expect("all answer");
    within(first).await.expect("all answer");
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
}

/// One that answers the others' calls, and hangs in one, is not a node that hangs.
#[tokio::test(start_paused = true)]
async fn one_call_that_hangs_at_a_node_that_answers_newer_ones_is_no_sign() {
    let cluster = Cluster::start(3, true).await;
    cluster.disk.hang(true);
    cluster.calls(WRITE, 1, 0).await;
    let client = cluster.client();
    // The node's reply to a newer one comes before any look.
    cluster.disk.hang(false);
    within(client.quorum_call::<_, Number>(WRITE, number(2)).all())
        .await
        .expect("all answer");
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_connection_breaks_is_not_degraded_but_disconnected() {
    let cluster = Cluster::start(3, false).await;
    cluster.disk.hang(true);
    cluster.calls(WRITE, 1, 0).await;
    cluster.first_is(NodeState::Degraded).await;
    cluster.network.cut("n0:1");
    settle().await;
    assert_ne!(cluster.all[0].state(), NodeState::Degraded);
    within(cluster.all.connected(3)).await.expect("it is up");
    // What was asked on the connection before is not owed on this one.
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(cluster.states(), [NodeState::Connected; 3]);
}

/// It would be known of the nearest nodes alone how near they are.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_always_late_has_a_latency() {
    let cluster = Cluster::start(3, true).await;
    cluster.disk.lag.store(100, Ordering::Relaxed);
    cluster.calls(WRITE, 1_000, 0).await;
    let latency = cluster.all[0].latency().expect("it has answered");
    assert!(latency > 100 * MS, "{latency:?}");
    assert_eq!(cluster.all[0].state(), NodeState::Connected);
    let nearest = cluster.all.sort_by(Node::by_latency);
    assert_eq!(nearest[2], cluster.all[0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_knows_which_of_its_handlers_has_run_for_longest() {
    let network = Network::new();
    let (disk, waiting) = (Disk::new(), Disk::new());
    let builder = replica(&disk, 1, false, &waiting).transport(network.clone());
    let server = builder.bind("n0:1").await.expect("it is free");
    let handlers = server.running_handlers();
    let _server = TestServer::of(server);
    let nodes = Configuration::builder()
        .transport(network)
        .nodes(["n0:1"])
        .connect()
        .expect("legal");
    within(nodes.connected(1)).await.expect("it is up");
    let client = Client::new(&nodes);
    let call = |method| client.rpc::<_, Number>(&nodes[0], method, number(1)).send();
    let oldest = || {
        let oldest = handlers.oldest()?;
        Some((oldest.method().to_owned(), oldest.age()))
    };
    assert_eq!((handlers.count(), oldest()), (0, None));
    disk.hang(true);
    waiting.hang(true);
    // The first has released its turn, and the second holds it.
    let waits = call(WAIT);
    // Its caller gives up after a while, and the handler goes on.
    let given_up = client.rpc::<_, Number>(&nodes[0], WAIT, number(1));
    let given_up = given_up.timeout(SECOND / 2).send();
    settle().await;
    assert_eq!(oldest(), Some((WAIT.to_owned(), Duration::ZERO)));
    tokio::time::sleep(SECOND).await;
    let writes = call(WRITE);
    let behind = call(READ);
    settle().await;
    within(given_up).await.expect_err("nobody answers");
    assert_eq!(handlers.count(), 3, "one waits for its turn");
    assert_eq!(oldest(), Some((WAIT.to_owned(), SECOND + MS)));
    tokio::time::sleep(SECOND).await;
    waiting.hang(false);
    within(waits).await.expect("it is answered");
    assert_eq!(oldest(), Some((WRITE.to_owned(), SECOND)));
    disk.hang(false);
    within(writes).await.expect("it is answered");
    within(behind).await.expect("it is answered");
    settle().await;
    assert_eq!((handlers.count(), oldest()), (0, None));
}
