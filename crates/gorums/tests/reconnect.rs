//! Connections that come and go: what calls see of it, and how often a client asks.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, connect, echo, number, within};
use gorums::call::Unary;
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeError, NodeState, Outcome,
    QuorumErrorKind, Server, ServerBuilder, Status,
};
use memory::{Manner, Network, settle};
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
/// Is not answered before the caller has gone.
const HOLD: &str = "test.Test.Hold";
const NOTE: &str = "test.Test.Note";

const NODE: &str = "node:1";
const SECOND: Duration = Duration::from_secs(1);
/// The default of `ConfigurationBuilder::attempt_interval`.
const INTERVAL: Duration = Duration::from_millis(50);
/// A payload that HTTP/2 passes on by reference: it is written when the socket takes it.
const LARGE: usize = 1024;

/// What a server was asked, in order.
#[derive(Clone)]
struct Log {
    values: Arc<Mutex<Vec<u64>>>,
    count: Counter,
}

impl Log {
    fn new() -> Self {
        Self {
            values: Arc::default(),
            count: Counter::new(),
        }
    }

    fn add(&self, value: u64) {
        self.values.lock().expect("no panic").push(value);
        self.count.add();
    }

    fn values(&self) -> Vec<u64> {
        self.values.lock().expect("no panic").clone()
    }
}

/// A server that notes what it is asked.
fn noting(log: &Log) -> ServerBuilder {
    let (echoed, held, noted) = (log.clone(), log.clone(), log.clone());
    Server::builder()
        .unary(ECHO, move |_ctx, request: Number| {
            echoed.add(request.value);
            async move { Ok::<_, Status>(number(request.value)) }
        })
        .unary(HOLD, move |ctx, request: Number| {
            held.add(request.value);
            ctx.release();
            async move {
                ctx.cancelled().await;
                Ok::<_, Status>(request)
            }
        })
        .one_way(NOTE, move |_ctx, request: Number| {
            noted.add(request.value);
            std::future::ready(())
        })
}

fn large(value: u64) -> Number {
    Number {
        value,
        payload: vec![0; LARGE].into(),
    }
}

async fn serve(network: &Network, address: &str, builder: ServerBuilder) -> TestServer {
    TestServer::start_at(builder.transport(network.clone()), address).await
}

fn builder(network: &Network) -> ConfigurationBuilder {
    Configuration::builder().transport(network.clone())
}

/// A client of one node in memory.
fn alone(network: &Network) -> (Configuration, Client) {
    let configuration = builder(network)
        .nodes([NODE])
        .connect()
        .expect("a legal address");
    let client = Client::new(&configuration);
    (configuration, client)
}

fn send(client: &Client, method: &'static str, request: Number) -> Unary<Number> {
    let node = client.configuration()[0].clone();
    client.rpc::<Number, Number>(&node, method, request).send()
}

async fn failure(call: Unary<Number>) -> NodeError {
    within(call).await.expect_err("the call fails")
}

// ---- replicas that restart

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn majority_calls_go_on_while_replicas_restart_in_turn() {
    const TASKS: usize = 8;
    let (mut servers, configuration) = cluster(3, |_| echo()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let progress: Vec<Counter> = (0..TASKS).map(|_| Counter::new()).collect();
    let tasks: Vec<_> = progress
        .iter()
        .map(|done| {
            let client = Client::new(&configuration);
            let (stop, done) = (Arc::clone(&stop), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let value = done.get();
                    let call = client.quorum_call::<Number, Number>(ECHO, number(value));
                    let reply = call.majority().await.expect("two of three are up");
                    assert_eq!(reply.value, value);
                    done.add();
                }
            })
        })
        .collect();
    // A call that is under way now, and the next one, are over.
    let all_go_on = async || {
        for done in &progress {
            done.reached(done.get() + 2).await;
        }
    };
    let client = Client::new(&configuration);
    for round in 0..9 {
        all_go_on().await;
        let victim = round % 3;
        let node = &configuration[victim];
        let addr = servers[victim].addr.to_string();
        let call = |value| within(client.rpc::<Number, Number>(node, ECHO, number(value)));
        servers.remove(victim).stop().await;
        // The client has noticed once a call has failed.
        call(1).await.expect_err("the server is gone");
        all_go_on().await;
        servers.insert(victim, TestServer::start_at(echo(), &addr).await);
        let reply = call(2).await.expect("the server is back");
        assert_eq!(reply.value, 2);
        assert_eq!(node.state(), NodeState::Connected);
        assert!(node.last_error().is_none());
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        within(task).await.expect("every majority call succeeds");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_resolved_at_each_attempt() {
    let network = Network::new();
    let log = Log::new();
    let server = serve(&network, NODE, noting(&log)).await;
    let (_configuration, client) = alone(&network);
    within(send(&client, ECHO, number(1))).await.expect("up");
    server.stop().await;
    settle().await;
    // Behind the name there is another server now.
    let other = Log::new();
    let _server = serve(&network, NODE, noting(&other)).await;
    within(send(&client, ECHO, number(2))).await.expect("up");
    assert_eq!((log.values(), other.values()), (vec![1], vec![2]));
    assert!(network.attempts(NODE).len() >= 2);
}

#[tokio::test]
async fn host_names_are_resolved() {
    let server = TestServer::start(echo()).await;
    let configuration = Configuration::builder()
        .nodes([format!("localhost:{}", server.addr.port())])
        .connect()
        .expect("a legal address");
    let client = Client::new(&configuration);
    let reply = within(send(&client, ECHO, number(1))).await;
    assert_eq!(reply.expect("localhost is an address of ours").value, 1);
}

// ---- connecting

#[tokio::test(start_paused = true)]
async fn while_connecting_a_call_waits_for_the_connection() {
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let log = Log::new();
    let _server = serve(&network, NODE, noting(&log)).await;
    let (configuration, client) = alone(&network);
    let calls: Vec<_> = (1..=3)
        .map(|value| send(&client, ECHO, number(value)))
        .collect();
    tokio::time::sleep(SECOND).await;
    assert_eq!(configuration[0].state(), NodeState::Connecting);
    assert_eq!(configuration[0].pending(), 3);
    network.set(NODE, Manner::Normal);
    for (call, value) in calls.into_iter().zip(1..) {
        assert_eq!(within(call).await.expect("connected").value, value);
    }
    assert_eq!(log.values(), [1, 2, 3]);
    assert_eq!(network.attempts(NODE).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_connecting_a_call_ends_at_its_deadline() {
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let (configuration, client) = alone(&network);
    let begin = Instant::now();
    let node = &configuration[0];
    let call = client
        .rpc::<Number, Number>(node, ECHO, number(1))
        .timeout(SECOND);
    let error = failure(call.send()).await;
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::DeadlineExceeded)
    );
    let took = begin.elapsed();
    assert!(took >= SECOND && took < 2 * SECOND, "{took:?}");
    assert_eq!(node.pending(), 0);
    assert_eq!(node.state(), NodeState::Connecting);
}

#[tokio::test(start_paused = true)]
async fn while_connecting_a_call_without_deadline_ends_with_the_attempt() {
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let configuration = builder(&network)
        .nodes([NODE])
        .connect_timeout(3 * SECOND)
        .connect()
        .expect("a legal address");
    let client = Client::new(&configuration);
    let begin = Instant::now();
    let first = send(&client, ECHO, number(1));
    tokio::time::sleep(SECOND).await;
    // This one came later, and waits no longer.
    let second = send(&client, ECHO, number(2));
    for call in [first, second] {
        let error = failure(call).await;
        assert_eq!(
            (error.outcome(), error.code()),
            (Outcome::NotSent, Code::Unavailable)
        );
        assert!(error.status().message().contains("3s"), "{error}");
    }
    let took = begin.elapsed();
    assert!(took >= 3 * SECOND && took < 4 * SECOND, "{took:?}");
}

// ---- refused

/// What is at the address accepts connections, and never says anything.
async fn is_not_connected(address: &str) {
    let limit = Duration::from_millis(300);
    let nodes = gorums::Configuration::builder()
        .nodes([address])
        .connect_timeout(limit)
        .connect()
        .expect("legal");
    let mut connected = Box::pin(nodes.connected(1));
    for _ in 0..3 {
        let client = Client::new(&nodes);
        let error = failure(client.rpc(&nodes[0], ECHO, number(1)).send()).await;
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        assert_eq!(
            error.status().message(),
            "no connection within 300ms, before the peer had said anything: it may expect TLS, or \
             have no server behind it"
        );
        assert_ne!(nodes[0].state(), NodeState::Connected);
        let waits = poll_fn(|cx| Poll::Ready(connected.as_mut().poll(cx).is_pending()));
        assert!(waits.await, "nobody is connected");
    }
}

#[tokio::test]
async fn what_accepts_connections_and_says_nothing_is_not_connected() {
    // The system accepts for it, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it has one").to_string();
    is_not_connected(&address).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_unix_socket_that_says_nothing_is_not_connected() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let name = format!("gorums-silent-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("it is short");
    let _silent = UnixListener::bind_addr(&address).expect("a free name");
    is_not_connected(&format!("unix:@{name}")).await;
}

#[tokio::test]
async fn a_refused_part_fails_and_names_the_address_and_the_cause() {
    let server = TestServer::start(echo()).await;
    let addr = server.addr.to_string();
    server.stop().await;
    let configuration = Configuration::builder()
        .node(7, addr.clone())
        .connect()
        .expect("a legal address");
    let error = failure(send(&Client::new(&configuration), ECHO, number(1))).await;
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::Unavailable)
    );
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("node 7 ({addr}): not sent: ")),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    let last = configuration[0].last_error().expect("it is kept");
    assert_eq!(last.message(), error.status().message());
}

#[tokio::test(start_paused = true)]
async fn a_refused_part_fails_at_once_and_delays_nobody() {
    let network = Network::new();
    let addresses = ["a:1", "b:1", "c:1"];
    let mut servers = Vec::new();
    for address in &addresses[..2] {
        servers.push(serve(&network, address, echo()).await);
    }
    let configuration = builder(&network)
        .nodes(addresses)
        .connect()
        .expect("legal addresses");
    let client = Client::new(&configuration);
    let call = || client.quorum_call::<Number, Number>(ECHO, number(1));
    let begin = Instant::now();
    within(call().majority()).await.expect("two are up");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let error = within(call().all()).await.expect_err("one is not");
    // The call asks for an attempt of its own, which has to keep its distance from the last.
    assert!(begin.elapsed() <= 2 * INTERVAL, "{:?}", begin.elapsed());
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    let [failure] = error.failures() else {
        panic!("one failure: {error}");
    };
    assert_eq!(
        (failure.address(), failure.outcome()),
        ("c:1", Outcome::NotSent)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_during_a_refused_attempt_gets_one_of_its_own() {
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let (_configuration, client) = alone(&network);
    let before = send(&client, ECHO, number(1));
    // This one is queued when the attempt begins, the next one is not.
    network.attempted(NODE, 1).await;
    let during = send(&client, ECHO, number(2));
    network.set(NODE, Manner::Normal);
    assert_eq!(failure(before).await.outcome(), Outcome::NotSent);
    let _server = serve(&network, NODE, echo()).await;
    let reply = within(during)
        .await
        .expect("the server was there for its attempt");
    assert_eq!(reply.value, 2);
    assert_eq!(network.attempts(NODE).len(), 2);
}

// ---- backing off

/// A client whose node has refused it so often that it pauses for seconds.
async fn backing_off(network: &Network) -> (Configuration, Client) {
    let (configuration, client) = alone(network);
    network.attempted(NODE, 12).await;
    settle().await;
    assert_eq!(configuration[0].state(), NodeState::Disconnected);
    (configuration, client)
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_for_the_pause_to_end() {
    let network = Network::new();
    let (_configuration, client) = backing_off(&network).await;
    let _server = serve(&network, NODE, echo()).await;
    let begin = Instant::now();
    within(send(&client, ECHO, number(1))).await.expect("up");
    assert!(begin.elapsed() <= INTERVAL, "{:?}", begin.elapsed());
    assert_eq!(network.attempts(NODE).len(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_for_one_attempt_only() {
    let network = Network::new();
    let (_configuration, client) = backing_off(&network).await;
    let calls: Vec<_> = (0..100)
        .map(|value| send(&client, ECHO, number(value)))
        .collect();
    for call in calls {
        assert_eq!(failure(call).await.outcome(), Outcome::NotSent);
    }
    settle().await;
    assert_eq!(network.attempts(NODE).len(), 13);
}

#[tokio::test(start_paused = true)]
async fn calls_ask_for_attempts_at_their_least_distance() {
    let network = Network::new();
    let (_configuration, client) = backing_off(&network).await;
    for value in 0..50 {
        failure(send(&client, ECHO, number(value))).await;
    }
    let attempts = network.attempts(NODE);
    assert_eq!(attempts.len(), 12 + 50);
    for pair in attempts.windows(2) {
        let distance = pair[1] - pair[0];
        assert!(distance >= INTERVAL, "{distance:?}");
    }
}

/// Each pause is longer than the last, up to the greatest.
fn assert_pauses_grow(attempts: &[Instant]) {
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first attempt after a lost connection follows at once, and jitter ends the growth a
    // little before the greatest pause.
    for pair in pauses.windows(2).skip(1) {
        assert!(pair[1] > pair[0] || pair[1] >= 4 * SECOND, "{pauses:?}");
    }
    for pause in &pauses {
        assert!(*pause >= INTERVAL && *pause <= 6 * SECOND, "{pauses:?}");
    }
    assert!(
        pauses.last().is_some_and(|pause| *pause >= 4 * SECOND),
        "{pauses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_is_asked_ever_more_seldom() {
    let network = Network::new();
    let _keep = alone(&network);
    network.attempted(NODE, 15).await;
    assert_pauses_grow(&network.attempts(NODE));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_accepts_and_closes_is_asked_ever_more_seldom() {
    let network = Network::new();
    network.set(NODE, Manner::Flapping);
    let _keep = alone(&network);
    network.attempted(NODE, 15).await;
    assert_pauses_grow(&network.attempts(NODE));
}

#[tokio::test(start_paused = true)]
async fn calls_ask_a_node_that_accepts_and_closes_ever_more_seldom_and_not_for_ever() {
    let network = Network::new();
    network.set(NODE, Manner::Flapping);
    let (_configuration, client) = alone(&network);
    let begin = Instant::now();
    while begin.elapsed() < 10 * SECOND {
        failure(send(&client, ECHO, number(1))).await;
    }
    let attempts = network.attempts(NODE);
    assert!(attempts.len() <= 20, "{} attempts", attempts.len());
    // Nobody waits for longer than for the longest of these pauses.
    for pair in attempts.windows(2) {
        assert!(pair[1] - pair[0] <= SECOND.mul_f64(1.2), "{attempts:?}");
    }
    network.set(NODE, Manner::Normal);
    let _server = serve(&network, NODE, echo()).await;
    let begin = Instant::now();
    within(send(&client, ECHO, number(1))).await.expect("up");
    assert!(begin.elapsed() <= SECOND.mul_f64(1.2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_turns_the_client_away_is_asked_ever_more_seldom() {
    let network = Network::new();
    let builder = echo().on_connect(|_| Err(Status::permission_denied("not you")));
    let _server = serve(&network, NODE, builder).await;
    let (configuration, _client) = alone(&network);
    network.attempted(NODE, 15).await;
    assert_pauses_grow(&network.attempts(NODE));
    let error = configuration[0].last_error().expect("it was turned away");
    assert_eq!(
        (error.code(), error.message()),
        (Code::PermissionDenied, "not you")
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_node_that_accepts_and_closes_fails() {
    let network = Network::new();
    network.set(NODE, Manner::Flapping);
    let (_configuration, client) = alone(&network);
    let error = failure(send(&client, ECHO, number(1))).await;
    assert_eq!(error.code(), Code::Unavailable);
    let hint = "before the peer had said anything: it may expect TLS";
    assert!(error.to_string().contains(hint), "{error}");
    assert!(network.attempts(NODE).len() <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_node_that_turns_the_client_away_fails_with_its_status() {
    let network = Network::new();
    let builder = echo().on_connect(|_| Err(Status::permission_denied("not you")));
    let _server = serve(&network, NODE, builder).await;
    let (_configuration, client) = alone(&network);
    let error = failure(send(&client, ECHO, number(1))).await;
    assert_eq!(error.code(), Code::PermissionDenied);
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(error.status().message(), "not you");
}

// ---- broken streams

/// A node that has seen one call, 0, and does not read.
async fn stalled(network: &Network) -> (TestServer, Log, Configuration, Client, Unary<Number>) {
    let log = Log::new();
    let server = serve(network, NODE, noting(&log)).await;
    let (configuration, client) = alone(network);
    let held = send(&client, HOLD, number(0));
    log.count.reached(1).await;
    settle().await;
    network.stall(NODE);
    (server, log, configuration, client, held)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_written_fails_with_an_unknown_outcome() {
    let network = Network::new();
    let (_server, _log, configuration, _client, held) = stalled(&network).await;
    network.cut(NODE);
    let error = failure(held).await;
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable)
    );
    assert!(error.to_string().contains("reset by the test"), "{error}");
    assert_eq!(configuration[0].pending(), 0);
}

/// Queues calls 1 to 6: three of them the connection has taken, as one batch, and the other three
/// wait behind it. Of the first a few bytes may be on their way.
async fn two_batches(client: &Client) -> Vec<Unary<Number>> {
    let mut calls: Vec<_> = (1..=3)
        .map(|value| send(client, ECHO, large(value)))
        .collect();
    settle().await;
    calls.extend((4..=6).map(|value| send(client, ECHO, large(value))));
    settle().await;
    calls
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_not_written_are_sent_on_the_next_connection_in_order() {
    let network = Network::new();
    let (_server, log, _configuration, client, _held) = stalled(&network).await;
    let mut calls = two_batches(&client).await;
    network.cut(NODE);
    assert_eq!(failure(calls.remove(0)).await.outcome(), Outcome::Unknown);
    // What is queued now comes after what was queued before.
    calls.push(send(&client, ECHO, large(7)));
    for (call, value) in calls.into_iter().zip(2..) {
        assert_eq!(within(call).await.expect("sent again").value, value);
    }
    assert_eq!(log.values(), [0, 2, 3, 4, 5, 6, 7]);
    assert_eq!(network.attempts(NODE).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_not_written_wait_for_the_next_attempt_only() {
    let network = Network::new();
    let (server, log, _configuration, client, _held) = stalled(&network).await;
    let mut calls = two_batches(&client).await;
    server.stop().await;
    network.cut(NODE);
    assert_eq!(failure(calls.remove(0)).await.outcome(), Outcome::Unknown);
    for call in calls {
        let error = failure(call).await;
        assert_eq!(
            (error.outcome(), error.code()),
            (Outcome::NotSent, Code::Unavailable)
        );
        assert!(error.to_string().contains("connection refused"), "{error}");
    }
    assert_eq!(network.attempts(NODE).len(), 2);
    assert_eq!(log.values(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_written_in_part_has_an_unknown_outcome() {
    let network = Network::new();
    let (_server, log, _configuration, client, _held) = stalled(&network).await;
    let mut calls = two_batches(&client).await;
    // The whole of the first, and half of the second.
    network.allow(NODE, Some(LARGE + LARGE / 2));
    settle().await;
    network.cut(NODE);
    for call in calls.drain(..2) {
        assert_eq!(failure(call).await.outcome(), Outcome::Unknown);
    }
    for (call, value) in calls.into_iter().zip(3..) {
        assert_eq!(within(call).await.expect("sent again").value, value);
    }
    assert_eq!(log.values(), [0, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_replaced_at_once_without_any_call() {
    let network = Network::new();
    let (_server, _log, configuration, _client, _held) = stalled(&network).await;
    tokio::time::sleep(SECOND).await;
    let begin = Instant::now();
    network.cut(NODE);
    network.attempted(NODE, 2).await;
    within(configuration.connected(1))
        .await
        .expect("none is closed");
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_fails_the_parts_of_its_own_node_only() {
    let network = Network::new();
    let logs: Vec<_> = (0..3).map(|_| Log::new()).collect();
    let addresses = ["a:1", "b:1", "c:1"];
    let mut servers = Vec::new();
    for (address, log) in addresses.iter().zip(&logs) {
        servers.push(serve(&network, address, noting(log)).await);
    }
    let configuration = builder(&network)
        .nodes(addresses)
        .connect()
        .expect("legal addresses");
    let client = Client::new(&configuration);
    let mut responses = client
        .quorum_call::<Number, Number>(HOLD, number(1))
        .responses();
    for log in &logs {
        log.count.reached(1).await;
    }
    settle().await;
    network.cut("b:1");
    let response = within(responses.next()).await.expect("one failed");
    let error = response.into_result().expect_err("it was cut");
    assert_eq!(
        (error.address(), error.outcome()),
        ("b:1", Outcome::Unknown)
    );
    settle().await;
    assert_eq!(responses.outstanding(), 2);
    let pending: Vec<_> = configuration.iter().map(|node| node.pending()).collect();
    assert_eq!(pending, [1, 0, 1]);
}

// ---- one connection for each node, for as long as somebody holds it

/// Counts connections that begin and that end.
fn counting(begun: &Counter, ended: &Counter, builder: ServerBuilder) -> ServerBuilder {
    struct End(Counter);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.add();
        }
    }
    let (begun, ended) = (begun.clone(), ended.clone());
    builder.on_connect(move |connecting| {
        begun.add();
        connecting.set_value(Arc::new(End(ended.clone())));
        Ok(())
    })
}

#[tokio::test]
async fn configurations_made_from_one_share_its_connections() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let (_servers, all) = cluster(3, |_| counting(&begun, &ended, echo())).await;
    let some = all.select([1, 3]).expect("known");
    let parts = [
        all.clone(),
        some.clone(),
        all.without(2),
        some.union(&all).expect("the same nodes"),
        some.with(&all[1]).expect("the same nodes"),
        all.filter(|node| node.id().get() == 2),
        Configuration::from(&all[0]),
    ];
    drop(all);
    for part in &parts {
        let client = Client::new(part);
        let call = client.quorum_call::<Number, Number>(ECHO, number(1));
        within(call.all()).await.expect("up");
        let call = client.rpc::<Number, Number>(&part[0], ECHO, number(2));
        within(call).await.expect("up");
    }
    assert_eq!((begun.get(), ended.get()), (3, 0));
    drop(parts);
    // The part that is left keeps its two connections.
    ended.reached(1).await;
    let call = Client::new(&some).quorum_call::<Number, Number>(ECHO, number(1));
    within(call.all()).await.expect("up");
    drop(some);
    ended.reached(3).await;
    assert_eq!(begun.get(), 3);
}

#[tokio::test]
async fn a_dropped_configuration_writes_what_is_queued_and_closes_its_connections() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let log = Log::new();
    let (_servers, configuration) = cluster(1, |_| counting(&begun, &ended, noting(&log))).await;
    let client = Client::new(&configuration);
    for value in 0..1000 {
        assert!(client.multicast(NOTE, large(value)).detach().is_empty());
    }
    drop((client, configuration));
    ended.reached(1).await;
    assert_eq!(log.values(), Vec::from_iter(0..1000));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_dropped_while_it_connects_writes_what_is_queued() {
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let (begun, ended) = (Counter::new(), Counter::new());
    let log = Log::new();
    let _server = serve(&network, NODE, counting(&begun, &ended, noting(&log))).await;
    let (configuration, client) = alone(&network);
    for value in 0..10 {
        assert!(client.multicast(NOTE, number(value)).detach().is_empty());
    }
    network.attempted(NODE, 1).await;
    drop((client, configuration));
    settle().await;
    network.set(NODE, Manner::Normal);
    ended.reached(1).await;
    assert_eq!(log.values(), Vec::from_iter(0..10));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_configuration_does_not_try_to_connect_any_more() {
    let network = Network::new();
    let (configuration, client) = backing_off(&network).await;
    drop((configuration, client));
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(network.attempts(NODE).len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_configuration_does_not_wait_for_a_silent_node() {
    let network = Network::new();
    let (begun, ended) = (Counter::new(), Counter::new());
    let log = Log::new();
    let _server = serve(&network, NODE, counting(&begun, &ended, noting(&log))).await;
    let (configuration, client) = alone(&network);
    within(send(&client, ECHO, number(0))).await.expect("up");
    network.stall(NODE);
    assert!(client.multicast(NOTE, large(1)).detach().is_empty());
    drop((client, configuration));
    let begin = Instant::now();
    ended.reached(1).await;
    assert!(begin.elapsed() <= 2 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_call_keeps_its_connections() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let log = Log::new();
    let (_servers, configuration) = cluster(1, |_| counting(&begun, &ended, noting(&log))).await;
    let held = send(&Client::new(&configuration), HOLD, number(1));
    let answered = send(&Client::new(&configuration), ECHO, number(2));
    drop(configuration);
    assert_eq!(within(answered).await.expect("up").value, 2);
    assert_eq!(ended.get(), 0);
    drop(held);
    ended.reached(1).await;
}

#[tokio::test(start_paused = true)]
async fn connected_waits_for_so_many_nodes_at_once() {
    let network = Network::new();
    let addresses = ["a:1", "b:1", "c:1"];
    let configuration = builder(&network)
        .nodes(addresses)
        .connect()
        .expect("legal addresses");
    within(configuration.connected(0))
        .await
        .expect("none is closed");
    let mut servers = Vec::new();
    for (address, count) in addresses.iter().zip(1..) {
        let waiting = {
            let configuration = configuration.clone();
            tokio::spawn(async move { configuration.connected(count).await })
        };
        tokio::time::sleep(10 * SECOND).await;
        assert!(!waiting.is_finished(), "{} nodes are connected", count - 1);
        servers.push(serve(&network, address, echo()).await);
        let waited = within(waiting).await.expect("no panic");
        waited.expect("none is closed");
    }
    // More than there are means all.
    within(configuration.connected(9))
        .await
        .expect("none is closed");
    drop(servers.pop());
    settle().await;
    within(configuration.connected(2))
        .await
        .expect("none is closed");
    let third = tokio::time::timeout(10 * SECOND, configuration.connected(3)).await;
    assert!(third.is_err(), "one is down again");
}

// ---- a client whose runtime ends

/// Connects in a runtime of its own, which ends when it is dropped.
fn elsewhere(servers: &[TestServer]) -> (tokio::runtime::Runtime, Configuration) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let guard = runtime.enter();
    let configuration = connect(servers);
    drop(guard);
    (runtime, configuration)
}

/// Ends the runtime, which winds down beside this test.
async fn end(runtime: tokio::runtime::Runtime, configuration: &Configuration) {
    runtime.shutdown_background();
    while configuration[0].state() != NodeState::Closed {
        tokio::task::yield_now().await;
    }
}

async fn assert_calls_fail(configuration: &Configuration) {
    let client = Client::new(configuration);
    let node = &configuration[0];
    let error = failure(send(&client, ECHO, number(1))).await;
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::Unavailable)
    );
    let call = client.quorum_call::<Number, Number>(ECHO, number(1));
    let error = within(call.majority()).await.expect_err("closed");
    assert_eq!(error.kind(), QuorumErrorKind::Closed);
    let refused = client.multicast(NOTE, number(1)).detach();
    assert_eq!(Vec::from_iter(refused.iter()), [node.id()]);
    within(client.multicast(NOTE, number(1)))
        .await
        .expect_err("closed");
    assert_eq!((node.state(), node.pending()), (NodeState::Closed, 0));
}

#[tokio::test]
async fn when_the_runtime_has_ended_calls_fail() {
    let servers = [TestServer::start(echo()).await];
    let (runtime, configuration) = elsewhere(&servers);
    within(configuration.connected(1))
        .await
        .expect("none is closed");
    end(runtime, &configuration).await;
    assert_calls_fail(&configuration).await;
}

#[tokio::test]
async fn when_the_runtime_ends_calls_that_wait_fail() {
    let log = Log::new();
    let servers = [TestServer::start(noting(&log)).await];
    let (runtime, configuration) = elsewhere(&servers);
    let held = send(&Client::new(&configuration), HOLD, number(1));
    log.count.reached(1).await;
    runtime.shutdown_background();
    let error = failure(held).await;
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable)
    );
}

#[tokio::test]
async fn waiting_for_nodes_that_never_come_fails_once_they_are_closed() {
    let servers = [TestServer::start(echo()).await];
    let (runtime, closed) = elsewhere(&servers);
    within(closed.connected(1)).await.expect("it is up");
    // Those that are not closed are waited for beside it.
    let down = Configuration::builder().node(2, "127.0.0.1:1").connect();
    let both = closed.union(&down.expect("legal")).expect("two ids");
    let waiting = tokio::spawn({
        let both = both.clone();
        async move { both.connected(2).await }
    });
    end(runtime, &closed).await;
    let error = within(waiting).await.expect("no panic");
    let text = format!(
        "2 of 2 nodes will never be connected at once, since the connections of 1 are closed for \
         good: {}",
        closed[0]
    );
    assert_eq!(error.expect_err("it is closed").to_string(), text);
    let error = within(closed.connected(1)).await.expect_err("it is closed");
    assert!(error.to_string().starts_with("1 of 1 nodes"), "{error}");
    within(closed.connected(0)).await.expect("none is needed");
    let mut one = Box::pin(both.connected(1));
    let pending = poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "the other one may come");
}

#[tokio::test]
async fn when_the_runtime_has_ended_flush_returns() {
    let servers = [TestServer::start(echo()).await];
    let (runtime, configuration) = elsewhere(&servers);
    within(configuration.connected(1))
        .await
        .expect("none is closed");
    end(runtime, &configuration).await;
    within(configuration.flush()).await;
}

#[test]
fn when_the_runtime_never_ran_calls_fail() {
    let never = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let configuration = {
        let _guard = never.enter();
        Configuration::builder()
            .nodes(["127.0.0.1:1"])
            .connect()
            .expect("a legal address")
    };
    drop(never);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(assert_calls_fail(&configuration));
}

// ---- time of its own

/// Tells the library another time than the system's.
#[derive(Debug, Default)]
struct Shifted(AtomicU64);

impl gorums::runtime::Clock for Shifted {
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn sleep_until(&self, at: Instant) -> gorums::runtime::BoxFuture<'static, ()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(tokio::time::sleep_until(at - Duration::from_secs(3600)))
    }

    fn wall_clock(&self) -> std::time::SystemTime {
        std::time::SystemTime::UNIX_EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn time_and_jitter_come_from_the_clock_that_was_given() {
    let network = Network::new();
    let configuration = builder(&network)
        .nodes([NODE])
        .clock(Shifted::default())
        .connect()
        .expect("a legal address");
    network.attempted(NODE, 4).await;
    let pauses: Vec<_> = network
        .attempts(NODE)
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    // A random number of 0 makes every pause a fifth shorter; tokio's timers count milliseconds.
    assert_eq!(pauses, [80, 128, 205]);
    let client = Client::new(&configuration);
    network.set(NODE, Manner::Silent);
    let call = client
        .rpc::<Number, Number>(&configuration[0], ECHO, number(1))
        .timeout(SECOND);
    let begin = Instant::now();
    assert_eq!(failure(call.send()).await.code(), Code::DeadlineExceeded);
    let took = begin.elapsed();
    assert!(took >= SECOND && took < 2 * SECOND, "{took:?}");
}
