//! A node that is silent, in whatever way, costs the others nothing and the client little.
//!
//! Replicas that are to be stopped run in processes of their own, and so does every test that
//! measures memory: this binary starts itself again for both.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, connect, echo, number, within};
use gorums::{
    Client, Code, Configuration, Node, NodeState, Outcome, QuorumErrorKind, Server, Status,
};
use memory::{Manner, Network};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
/// Is never answered.
const HOLD: &str = "test.Test.Hold";

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

// ---- processes

/// Says to this binary that it is a replica, or which test it is to measure.
const ROLE: &str = "GORUMS_TEST_ROLE";
const REPLICA: &str = "replica";
const ADDRESS: &str = "the replica's address: ";

fn has_role(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|given| given == role)
}

/// This binary again, as the test of this name.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a binary"));
    command
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role);
    command
}

/// Runs the body in a process of its own, where it can measure memory.
fn alone(test: &str, body: impl FnOnce()) {
    if has_role(test) {
        body();
    } else {
        let status = again(test, test).status().expect("the process starts");
        assert!(status.success(), "see above");
    }
}

/// A replica in a process of its own, killed when it is dropped.
struct Replica {
    child: Child,
    addr: SocketAddr,
}

impl Replica {
    fn start() -> Self {
        let mut child = again("replica_process", REPLICA)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let stdout = child.stdout.take().expect("it is a pipe");
        let addr = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once(ADDRESS)?.1.parse().ok())
            .expect("it tells its address");
        Self { child, addr }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops it, and waits until it does nothing any more.
    fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it is our child");
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED)
            .expect("it is our child")
            .expect("waiting blocks");
        assert!(status.stopped());
    }

    fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it is our child");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]

fn replica_process() {
    // On its own this is no test: it is the process that the tests start.
    if !has_role(REPLICA) {
        return;
    }
    // Does not outlive the test that started it.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    runtime().block_on(async {
        let server = echo()
            .unary(HOLD, |_ctx, _: Number| {
                std::future::pending::<Result<Number, Status>>()
            })
            .bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let mut stdout = std::io::stdout();
        writeln!(stdout, "\n{ADDRESS}{}", server.local_addr()).expect("the test reads it");
        server.serve().await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn connect_to(replicas: &[Replica]) -> Configuration {
    Configuration::builder()
        .nodes(replicas.iter().map(|replica| replica.addr.to_string()))
        .connect()
        .expect("legal addresses")
}

// ---- memory

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let kib: u64 = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .expect("the line is a number of kB");
    kib * 1024
}

/// What this process has now.
struct Baseline(u64);

impl Baseline {
    fn now() -> Self {
        Self(memory("VmRSS"))
    }

    /// The most that this process has had since, and that it has now, are below the limit.
    fn assert_growth_below(&self, limit: u64) {
        let growth = memory("VmHWM").saturating_sub(self.0);
        println!("memory grew by {} KiB at most", growth / 1024);
        assert!(growth < limit, "{growth} bytes");
    }
}

// ---- silent after it was connected

/// So many majority calls, from so many tasks.
async fn majorities(client: &Client, calls: u64, at_once: u64) {
    let tasks: Vec<_> = (0..at_once)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for value in (task..calls).step_by(at_once as usize) {
                    let call = client.quorum_call::<Number, Number>(ECHO, number(value));
                    let reply = call.majority().await.expect("two of three answer");
                    assert_eq!(reply.value, value);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every call succeeds");
    }
}

#[test]
fn majority_calls_go_on_in_bounded_memory_while_a_replica_is_stopped() {
    alone(
        "majority_calls_go_on_in_bounded_memory_while_a_replica_is_stopped",
        || runtime().block_on(one_of_three_is_stopped()),
    );
}

async fn one_of_three_is_stopped() {
    const CALLS: u64 = 200_000;
    let replicas = [Replica::start(), Replica::start(), Replica::start()];
    let configuration = connect_to(&replicas);
    within(configuration.connected(3))
        .await
        .expect("none is closed");
    let client = Client::new(&configuration);
    let all = |value| {
        client
            .quorum_call::<Number, Number>(ECHO, number(value))
            .all()
    };
    within(all(0)).await.expect("all are up");
    let before = Baseline::now();
    replicas[2].pause();
    majorities(&client, CALLS, 64).await;
    before.assert_growth_below(50 * MIB);
    assert!(configuration.iter().all(|node| node.pending() == 0));
    replicas[2].resume();
    // What was queued for it comes first. It may still be at its bound.
    loop {
        match within(client.rpc::<Number, Number>(&configuration[2], ECHO, number(1))).await {
            Ok(reply) => break assert_eq!(reply.value, 1),
            Err(error) => assert_eq!(error.code(), Code::ResourceExhausted, "{error}"),
        }
        tokio::task::yield_now().await;
    }
    within(all(2)).await.expect("all are up");
    before.assert_growth_below(50 * MIB);
}

/// Calls that nobody answers, so many at a time, each with a timeout of 10 ms.
async fn unanswered(client: &Client, node: &Node, calls: u64, at_once: u64) {
    for round in 0..calls / at_once {
        let handles: Vec<_> = (0..at_once)
            .map(|value| {
                client
                    .rpc::<Number, Number>(node, HOLD, number(round * at_once + value))
                    .timeout(Duration::from_millis(10))
                    .send()
            })
            .collect();
        for handle in handles {
            let error = within(handle).await.expect_err("nobody answers");
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
            // A node that comes to a request too late does not run it, and says so.
            let is_refused = error.outcome() == Outcome::Refused;
            assert!(
                !is_refused || error.to_string().contains("was not run"),
                "{error}"
            );
        }
        assert_eq!(node.pending(), 0);
    }
}

async fn one_never_answers(stopped: bool) {
    let replica = Replica::start();
    let configuration = connect_to(std::slice::from_ref(&replica));
    let client = Client::new(&configuration);
    let node = &configuration[0];
    let answer = || client.rpc::<Number, Number>(node, ECHO, number(1));
    within(answer()).await.expect("up");
    let before = Baseline::now();
    if stopped {
        replica.pause();
    }
    unanswered(&client, node, 100_000, 1000).await;
    before.assert_growth_below(20 * MIB);
    // As a quorum call it is no different.
    let call = client.quorum_call::<Number, Number>(HOLD, number(1));
    let error = within(call.timeout(Duration::from_millis(10)).majority())
        .await
        .expect_err("nobody answers");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    assert_eq!(error.failures()[0].code(), Code::DeadlineExceeded);
    assert_eq!(node.pending(), 0);
    assert_eq!(node.state(), NodeState::Connected);
    if stopped {
        replica.resume();
    }
}

#[test]
fn calls_to_a_node_that_never_answers_end_at_their_deadline_and_leave_nothing() {
    alone(
        "calls_to_a_node_that_never_answers_end_at_their_deadline_and_leave_nothing",
        || runtime().block_on(one_never_answers(false)),
    );
}

#[test]
fn calls_to_a_node_that_does_not_read_end_at_their_deadline_and_leave_nothing() {
    alone(
        "calls_to_a_node_that_does_not_read_end_at_their_deadline_and_leave_nothing",
        || runtime().block_on(one_never_answers(true)),
    );
}

#[tokio::test]
async fn a_slow_replica_delays_neither_the_others_nor_its_own_reading() {
    const CALLS: u64 = 1000;
    let gate = Arc::new(Semaphore::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let done = Counter::new();
    let slow = {
        let (gate, seen, done) = (Arc::clone(&gate), Arc::clone(&seen), done.clone());
        Server::builder().unary(ECHO, move |_ctx, request: Number| {
            let (gate, seen, done) = (Arc::clone(&gate), Arc::clone(&seen), done.clone());
            async move {
                let _open = gate.acquire().await.expect("never closed");
                seen.lock().expect("no panic").push(request.value);
                done.add();
                Ok::<_, Status>(request)
            }
        })
    };
    let servers = [
        TestServer::start(echo()).await,
        TestServer::start(slow).await,
        TestServer::start(echo()).await,
    ];
    let configuration = connect(&servers);
    let client = Client::new(&configuration);
    let mut all = Vec::new();
    for value in 0..CALLS {
        let call = client.quorum_call::<Number, Number>(ECHO, number(value));
        all.push(call.clone().all());
        let reply = within(call.majority()).await.expect("two of three answer");
        assert_eq!(reply.value, value);
    }
    assert_eq!(done.get(), 0, "the slow one has not answered anything");
    gate.add_permits(1);
    done.reached(2 * CALLS).await;
    for (call, value) in all.into_iter().zip(0..) {
        assert_eq!(within(call).await.expect("all answer").value, value);
    }
    let expected: Vec<_> = (0..CALLS).flat_map(|value| [value, value]).collect();
    assert_eq!(*seen.lock().expect("no panic"), expected, "in order");
}

// ---- silent when somebody connects

const HOLE: &str = "c:1";

/// Two servers in memory, and an address that never answers.
async fn black_hole(network: &Network) -> (Vec<TestServer>, Client) {
    network.set(HOLE, Manner::Silent);
    let mut servers = Vec::new();
    for address in ["a:1", "b:1"] {
        let builder = echo().transport(network.clone());
        servers.push(TestServer::start_at(builder, address).await);
    }
    let configuration = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1", "b:1", HOLE])
        .connect_timeout(5 * SECOND)
        .connect()
        .expect("legal addresses");
    (servers, Client::new(&configuration))
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_does_not_delay_the_others() {
    let network = Network::new();
    let (_servers, client) = black_hole(&network).await;
    let begin = Instant::now();
    for value in 0..100 {
        let call = client.quorum_call::<Number, Number>(ECHO, number(value));
        within(call.majority()).await.expect("two of three answer");
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(client.configuration()[2].state(), NodeState::Connecting);
}

#[tokio::test(start_paused = true)]
async fn a_black_holes_part_is_pending_until_the_deadline() {
    let network = Network::new();
    let (_servers, client) = black_hole(&network).await;
    let call = client.quorum_call::<Number, Number>(ECHO, number(1));
    let call = tokio::spawn(call.timeout(SECOND).all());
    tokio::time::sleep(SECOND - Duration::from_millis(1)).await;
    assert_eq!(client.configuration()[2].pending(), 1);
    assert!(!call.is_finished());
    let error = within(call)
        .await
        .expect("no panic")
        .expect_err("one is silent");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Deadline, 2)
    );
    let [failure] = error.failures() else {
        panic!("one failure: {error}");
    };
    assert_eq!(
        (failure.address(), failure.outcome(), failure.code()),
        (HOLE, Outcome::NotSent, Code::DeadlineExceeded)
    );
    assert_eq!(client.configuration()[2].pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_black_holes_part_is_pending_until_the_connect_timeout() {
    let network = Network::new();
    let (_servers, client) = black_hole(&network).await;
    let begin = Instant::now();
    let call = client.quorum_call::<Number, Number>(ECHO, number(1));
    let error = within(call.all()).await.expect_err("one is silent");
    let took = begin.elapsed();
    assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Incomplete, 2)
    );
    let [failure] = error.failures() else {
        panic!("one failure: {error}");
    };
    assert_eq!(
        (failure.address(), failure.outcome(), failure.code()),
        (HOLE, Outcome::NotSent, Code::Unavailable)
    );
}

#[tokio::test]
async fn a_listener_with_a_full_backlog_does_not_delay_the_others() {
    let full = tokio::net::TcpSocket::new_v4().expect("a socket");
    full.bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a free port");
    let full = full.listen(1).expect("a listener");
    let addr = full.local_addr().expect("it is bound");
    // Linux takes one more than was asked for, and then says nothing to those who come.
    let _taken = [
        std::net::TcpStream::connect(addr).expect("there is room"),
        std::net::TcpStream::connect(addr).expect("there is room"),
    ];
    let servers = [
        TestServer::start(echo()).await,
        TestServer::start(echo()).await,
    ];
    let mut addresses: Vec<_> = servers
        .iter()
        .map(|server| server.addr.to_string())
        .collect();
    addresses.push(addr.to_string());
    let configuration = Configuration::builder()
        .nodes(addresses)
        .connect_timeout(600 * SECOND)
        .connect()
        .expect("legal addresses");
    let client = Client::new(&configuration);
    let mut values = HashSet::new();
    for value in 0..1000 {
        let call = client.quorum_call::<Number, Number>(ECHO, number(value));
        values.insert(
            within(call.majority())
                .await
                .expect("two of three answer")
                .value,
        );
    }
    assert_eq!(values.len(), 1000);
    let node = &configuration[2];
    assert_eq!((node.state(), node.pending()), (NodeState::Connecting, 0));
    let call = client.quorum_call::<Number, Number>(ECHO, number(1));
    let error = within(call.timeout(SECOND / 20).all())
        .await
        .expect_err("one is silent");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    let failure = error.failure(node.id()).expect("it has not answered");
    assert_eq!(
        (failure.address(), failure.outcome()),
        (addr.to_string().as_str(), Outcome::NotSent)
    );
}
