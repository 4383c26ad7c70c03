//! Requests that wait to be written: how many there may be, and which of them are withdrawn.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, number, within};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeError, Outcome, QuorumErrorKind, Server,
    ServerCtx, Status,
};
use memory::{Network, settle};
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
/// Is not answered before the caller has gone.
const HOLD: &str = "test.Test.Hold";
/// The same at the last server, and the others answer at once.
const LATE: &str = "test.Test.Late";
const NOTE: &str = "test.Test.Note";

const ADDRESSES: [&str; 3] = ["a:1", "b:1", "c:1"];
/// The one that does not read.
const SLOW: &str = ADDRESSES[2];
const SECOND: Duration = Duration::from_secs(1);
/// A payload that HTTP/2 passes on by reference: it is written when the socket takes it.
const LARGE: usize = 1024;

/// Three servers in memory, and a client of them.
struct World {
    network: Network,
    /// What the last of them was asked, in order.
    log: Arc<Mutex<Vec<u64>>>,
    asked: Counter,
    /// The requests of which the last of them heard that nobody waits for them any more.
    told: Arc<Mutex<Vec<u64>>>,
    heard: Counter,
    configuration: Configuration,
    client: Client,
    servers: Vec<TestServer>,
}

impl World {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(set: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder) -> Self {
        let network = Network::new();
        let (log, asked) = (Arc::<Mutex<Vec<u64>>>::default(), Counter::new());
        let (told, heard) = (Arc::<Mutex<Vec<u64>>>::default(), Counter::new());
        let mut servers = Vec::new();
        for address in ADDRESSES {
            let note = {
                let (log, asked) = (Arc::clone(&log), asked.clone());
                move |value| {
                    if address == SLOW {
                        log.lock().expect("no panic").push(value);
                        asked.add();
                    }
                }
            };
            let tell = {
                let (told, heard) = (Arc::clone(&told), heard.clone());
                move |value| {
                    if address == SLOW {
                        told.lock().expect("no panic").push(value);
                        heard.add();
                    }
                }
            };
            let echoed = note.clone();
            let hold = {
                let note = note.clone();
                move |ctx: ServerCtx, request: Number, wait: bool| {
                    note(request.value);
                    ctx.release();
                    let tell = tell.clone();
                    async move {
                        if wait {
                            ctx.cancelled().await;
                            tell(request.value);
                        }
                        Ok::<_, Status>(request)
                    }
                }
            };
            let late = hold.clone();
            let builder = Server::builder()
                .transport(network.clone())
                .unary(ECHO, move |_ctx, request: Number| {
                    echoed(request.value);
                    async move { Ok::<_, Status>(number(request.value)) }
                })
                .unary(HOLD, move |ctx, request| hold(ctx, request, true))
                .unary(LATE, move |ctx, request| {
                    late(ctx, request, address == SLOW)
                })
                .one_way(NOTE, move |_ctx, request: Number| {
                    note(request.value);
                    std::future::ready(())
                });
            servers.push(TestServer::start_at(builder, address).await);
        }
        let builder = Configuration::builder()
            .transport(network.clone())
            .nodes(ADDRESSES);
        let configuration = set(builder).connect().expect("legal addresses");
        within(configuration.connected(3))
            .await
            .expect("none is closed");
        settle().await;
        Self {
            network,
            log,
            asked,
            told,
            heard,
            client: Client::new(&configuration),
            configuration,
            servers,
        }
    }

    /// The last server does not read from now on, and its connection has a request, 0, that it
    /// cannot write: what is queued now waits in the outbox.
    async fn stall(&self) {
        self.network.stall(SLOW);
        let refused = self.client.multicast(NOTE, large(0)).detach();
        assert!(refused.is_empty());
        settle().await;
    }

    fn quorum_call(
        &self,
        method: &'static str,
        value: u64,
    ) -> gorums::call::QuorumCall<Number, Number> {
        self.client.quorum_call(method, large(value))
    }

    /// What the last server was asked once it has read everything.
    async fn read_all(&self) -> Vec<u64> {
        self.network.allow(SLOW, None);
        settle().await;
        let log = self.log.lock().expect("no panic");
        log.clone()
    }

    fn told(&self) -> Vec<u64> {
        self.told.lock().expect("no panic").clone()
    }
}

fn large(value: u64) -> Number {
    Number {
        value,
        payload: vec![0; LARGE].into(),
    }
}

fn assert_full(error: &NodeError) {
    assert_eq!(error.address(), SLOW);
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::ResourceExhausted),
        "{error}"
    );
    assert!(error.status().message().contains("outbox"), "{error}");
}

// ---- the bound

#[tokio::test(start_paused = true)]
async fn at_the_bound_in_messages_the_part_of_that_node_fails_at_once() {
    let world = World::with(|builder| builder.outbox(10, usize::MAX)).await;
    world.stall().await;
    let begin = Instant::now();
    for value in 1..=10 {
        let call = world.quorum_call(ECHO, value);
        within(call.majority()).await.expect("two of three read");
    }
    let error = within(world.quorum_call(ECHO, 11).all())
        .await
        .expect_err("one of three is full");
    assert_eq!(
        (error.kind(), error.failures().len()),
        (QuorumErrorKind::Incomplete, 1)
    );
    assert_full(&error.failures()[0]);
    let reply = within(world.quorum_call(ECHO, 12).majority()).await;
    assert_eq!(reply.expect("the others are not full").value, 12);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(world.read_all().await, Vec::from_iter(0..=10));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_in_bytes_the_part_of_that_node_fails_at_once() {
    let world = World::with(|builder| builder.outbox(usize::MAX, 10 * LARGE)).await;
    world.stall().await;
    let begin = Instant::now();
    // With its envelope each takes a little more than its payload.
    for value in 1..=9 {
        let call = world.quorum_call(ECHO, value);
        within(call.majority()).await.expect("two of three read");
    }
    let error = within(world.quorum_call(ECHO, 10).all())
        .await
        .expect_err("one of three is full");
    assert_full(&error.failures()[0]);
    // A small one still has room.
    let call = world.client.quorum_call::<Number, Number>(ECHO, number(11));
    within(call.majority()).await.expect("two of three read");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(world.read_all().await, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_outbox_takes_a_message_above_the_bound() {
    let world = World::with(|builder| builder.outbox(10, 16)).await;
    world.stall().await;
    within(world.quorum_call(ECHO, 1).majority())
        .await
        .expect("two of three read");
    let error = within(world.quorum_call(ECHO, 2).all())
        .await
        .expect_err("full");
    assert_full(&error.failures()[0]);
    assert_eq!(world.read_all().await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_there_is_room_again_once_the_node_reads() {
    let world = World::with(|builder| builder.outbox(10, usize::MAX)).await;
    world.stall().await;
    for value in 1..=11 {
        let call = world.quorum_call(ECHO, value);
        within(call.majority()).await.expect("two of three read");
    }
    assert_eq!(world.read_all().await, Vec::from_iter(0..=10));
    within(world.quorum_call(ECHO, 12).all())
        .await
        .expect("all read");
}

#[tokio::test(start_paused = true)]
async fn withdrawn_requests_make_room() {
    let world = World::with(|builder| builder.outbox(10, usize::MAX)).await;
    world.stall().await;
    for round in 1..=5 {
        let calls: Vec<_> = (0..10)
            .map(|value| world.quorum_call(ECHO, 10 * round + value).all())
            .collect();
        drop(calls);
    }
    let call = world.quorum_call(ECHO, 1).all();
    assert_eq!(world.read_all().await, [0, 1]);
    within(call).await.expect("all read");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_a_detached_message_tells_which_node_refused() {
    let world = World::with(|builder| builder.outbox(10, usize::MAX)).await;
    world.stall().await;
    for value in 1..=10 {
        assert!(
            world
                .client
                .multicast(NOTE, large(value))
                .detach()
                .is_empty()
        );
        settle().await;
    }
    let node = &world.configuration[2];
    let refused = world.client.multicast(NOTE, large(11)).detach();
    assert_eq!(Vec::from_iter(refused.iter()), [node.id()]);
    let refused = world.client.unicast(node, NOTE, large(12)).detach();
    assert_eq!(Vec::from_iter(refused.iter()), [node.id()]);
    assert_eq!(world.read_all().await, Vec::from_iter(0..=10));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_a_waiting_multicast_names_the_node() {
    let world = World::with(|builder| builder.outbox(10, usize::MAX)).await;
    world.stall().await;
    for value in 1..=10 {
        assert!(
            world
                .client
                .multicast(NOTE, large(value))
                .detach()
                .is_empty()
        );
        settle().await;
    }
    let error = within(world.client.multicast(NOTE, large(11)))
        .await
        .expect_err("one of three is full");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::SendFailure, 2)
    );
    assert_full(&error.failures()[0]);
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_calls_a_call_fails_at_once() {
    let world = World::with(|builder| builder.max_calls(10)).await;
    let held: Vec<_> = (0..10)
        .map(|value| world.quorum_call(HOLD, value).all())
        .collect();
    let error = within(world.quorum_call(ECHO, 10).majority())
        .await
        .expect_err("too many calls");
    for failure in error.failures() {
        assert_eq!(
            (failure.outcome(), failure.code()),
            (Outcome::NotSent, Code::ResourceExhausted)
        );
    }
    drop(held);
    within(world.quorum_call(ECHO, 11).all())
        .await
        .expect("there is room");
    assert!(world.configuration.iter().all(|node| node.pending() == 0));
}

// ---- completing and forgetting

#[tokio::test(start_paused = true)]
async fn a_call_that_reached_its_quorum_is_still_sent_to_the_others() {
    let world = World::new().await;
    world.stall().await;
    for value in 1..=100 {
        let call = world.quorum_call(ECHO, value);
        within(call.majority()).await.expect("two of three read");
    }
    assert_eq!(
        world.configuration[2].pending(),
        0,
        "nobody waits for these"
    );
    assert_eq!(world.read_all().await, Vec::from_iter(0..=100));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_before_its_quorum_is_withdrawn_where_it_is_not_written() {
    let world = World::new().await;
    world.stall().await;
    let dropped = world.quorum_call(HOLD, 1).all();
    let kept = world.quorum_call(ECHO, 2).all();
    assert_eq!(world.configuration[2].pending(), 2);
    drop(dropped);
    assert_eq!(world.configuration[2].pending(), 1);
    assert_eq!(world.read_all().await, [0, 2]);
    within(kept).await.expect("all read");
    assert!(
        world.told().is_empty(),
        "what was never sent is not cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_passed_is_withdrawn_where_it_is_not_written() {
    let world = World::new().await;
    world.stall().await;
    let error = within(world.quorum_call(HOLD, 1).timeout(SECOND).all())
        .await
        .expect_err("nobody answers");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    let outcomes: Vec<_> = error
        .failures()
        .iter()
        .map(|failure| (failure.address(), failure.outcome(), failure.code()))
        .collect();
    let late = Code::DeadlineExceeded;
    assert_eq!(
        outcomes,
        [
            ("a:1", Outcome::Unknown, late),
            ("b:1", Outcome::Unknown, late),
            ("c:1", Outcome::NotSent, late),
        ]
    );
    assert_eq!(world.read_all().await, [0]);
    assert!(world.configuration.iter().all(|node| node.pending() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_when_a_call_that_was_written_is_dropped() {
    let world = World::new().await;
    let call = world.quorum_call(HOLD, 1).majority();
    world.asked.reached(1).await;
    settle().await;
    assert!(world.told().is_empty());
    drop(call);
    world.heard.reached(1).await;
    assert_eq!(world.told(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_when_the_deadline_of_a_written_call_passed() {
    let world = World::new().await;
    let node = &world.configuration[2];
    let call = world.client.rpc::<Number, Number>(node, HOLD, number(1));
    let error = within(call.timeout(SECOND))
        .await
        .expect_err("nobody answers");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::DeadlineExceeded)
    );
    world.heard.reached(1).await;
    assert_eq!(world.told(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_not_told_of_a_call_that_reached_its_quorum() {
    let world = World::new().await;
    within(world.quorum_call(LATE, 1).majority())
        .await
        .expect("two of three answer");
    world.asked.reached(1).await;
    within(world.quorum_call(ECHO, 2).all())
        .await
        .expect("the connection is in order");
    settle().await;
    assert!(world.told().is_empty());
    // It hears of the end of the connection.
    drop((world.configuration, world.client));
    world.heard.reached(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_multicast_is_withdrawn_where_it_is_not_written() {
    let world = World::new().await;
    world.stall().await;
    drop(world.client.multicast(NOTE, large(1)).send());
    assert!(world.client.multicast(NOTE, large(2)).detach().is_empty());
    assert_eq!(world.read_all().await, [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_detached_message_is_withdrawn_at_its_deadline() {
    let world = World::new().await;
    world.stall().await;
    let late = world.client.multicast(NOTE, large(1)).timeout(SECOND);
    assert!(late.detach().is_empty());
    let early = world.client.multicast(NOTE, large(2)).timeout(10 * SECOND);
    assert!(early.detach().is_empty());
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(world.read_all().await, [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let world = World::new().await;
    let call = world.quorum_call(ECHO, 1).deadline(Instant::now());
    let error = within(call.majority()).await.expect_err("too late");
    assert_eq!(
        (error.kind(), error.failures().len()),
        (QuorumErrorKind::Deadline, 3)
    );
    for failure in error.failures() {
        assert_eq!(
            (failure.outcome(), failure.code()),
            (Outcome::NotSent, Code::DeadlineExceeded)
        );
    }
    assert!(world.read_all().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_and_timing_out_leave_the_connection_alone() {
    let world = World::new().await;
    for value in 0..100 {
        drop(world.quorum_call(HOLD, value).all());
        let call = world
            .quorum_call(HOLD, value)
            .timeout(Duration::from_millis(1));
        within(call.majority()).await.expect_err("nobody answers");
    }
    within(world.quorum_call(ECHO, 1).all()).await.expect("up");
    for address in ADDRESSES {
        assert_eq!(world.network.attempts(address).len(), 1);
    }
}

// ---- waiting for the hand-over

#[tokio::test(start_paused = true)]
async fn a_multicast_waits_for_the_slowest_node() {
    let world = World::new().await;
    world.stall().await;
    let call = tokio::spawn(world.client.multicast(NOTE, large(1)).send());
    tokio::time::sleep(10 * SECOND).await;
    assert!(!call.is_finished());
    assert_eq!(world.read_all().await, [0, 1]);
    within(call).await.expect("no panic").expect("all took it");
}

#[tokio::test(start_paused = true)]
async fn a_multicast_to_a_node_that_does_not_read_ends_at_its_timeout_and_names_it() {
    let world = World::new().await;
    world.stall().await;
    let begin = Instant::now();
    let error = within(world.client.multicast(NOTE, large(1)).timeout(SECOND))
        .await
        .expect_err("one does not read");
    let took = begin.elapsed();
    assert!(took >= SECOND && took < 2 * SECOND, "{took:?}");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Deadline, 2)
    );
    let [failure] = error.failures() else {
        panic!("one failure: {error}");
    };
    assert_eq!(
        (failure.address(), failure.outcome(), failure.code()),
        (SLOW, Outcome::NotSent, Code::DeadlineExceeded)
    );
    assert_eq!(world.read_all().await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_multicast_that_the_connection_cannot_write_has_an_unknown_outcome() {
    let world = World::new().await;
    world.network.stall(SLOW);
    let error = within(world.client.multicast(NOTE, large(1)).timeout(SECOND))
        .await
        .expect_err("one does not read");
    let [failure] = error.failures() else {
        panic!("one failure: {error}");
    };
    assert_eq!(
        (failure.address(), failure.outcome()),
        (SLOW, Outcome::Unknown)
    );
    // It was with the connection, and could not be taken back.
    assert_eq!(world.read_all().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_unicast_to_a_node_that_does_not_read_ends_at_its_timeout() {
    let world = World::new().await;
    world.stall().await;
    let node = &world.configuration[2];
    let error = within(world.client.unicast(node, NOTE, large(1)).timeout(SECOND))
        .await
        .expect_err("it does not read");
    assert_eq!(
        (error.address(), error.outcome(), error.code()),
        (SLOW, Outcome::NotSent, Code::DeadlineExceeded)
    );
}

#[tokio::test(start_paused = true)]
async fn the_text_of_a_multicast_that_timed_out_says_how_many_nodes_took_it() {
    let world = World::new().await;
    world.stall().await;
    let error = within(world.client.multicast(NOTE, large(1)).timeout(SECOND))
        .await
        .expect_err("one does not read");
    let text = error.to_string();
    assert!(text.contains("sent to 2 of 3"), "{text}");
    assert!(
        !text.contains("answered"),
        "nobody answers a multicast: {text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_read_fails_a_multicast_when_keep_alive_finds_it_dead() {
    let world = World::with(|builder| builder.keep_alive(SECOND, SECOND)).await;
    world.stall().await;
    let begin = Instant::now();
    let error = within(world.client.multicast(NOTE, large(1)))
        .await
        .map(|()| begin.elapsed());
    // What was not written is sent on the next connection, which reads.
    let took = error.expect("handed over at last");
    assert!(took >= SECOND && took < 10 * SECOND, "{took:?}");
    assert_eq!(world.read_all().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn flush_waits_until_everything_is_with_the_connections() {
    let world = World::new().await;
    world.stall().await;
    for value in 1..=1000 {
        assert!(
            world
                .client
                .multicast(NOTE, large(value))
                .detach()
                .is_empty()
        );
    }
    let flush = {
        let configuration = world.configuration.clone();
        tokio::spawn(async move { configuration.flush().await })
    };
    tokio::time::sleep(10 * SECOND).await;
    assert!(!flush.is_finished());
    world.network.allow(SLOW, None);
    within(flush).await.expect("no panic");
    world.asked.reached(1001).await;
    assert_eq!(world.read_all().await, Vec::from_iter(0..=1000));
}

#[tokio::test(start_paused = true)]
async fn flush_of_nothing_returns_at_once() {
    let world = World::new().await;
    let begin = Instant::now();
    within(world.configuration.flush()).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_a_node_that_is_down() {
    let mut world = World::new().await;
    world.servers.pop();
    settle().await;
    assert!(world.client.multicast(NOTE, large(1)).detach().is_empty());
    let begin = Instant::now();
    within(world.configuration.flush()).await;
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn flush_goes_through_a_full_outbox() {
    let world = World::with(|builder| builder.outbox(2, usize::MAX)).await;
    world.stall().await;
    for value in 1..=2 {
        assert!(
            world
                .client
                .multicast(NOTE, large(value))
                .detach()
                .is_empty()
        );
        settle().await;
    }
    let flush = {
        let configuration = world.configuration.clone();
        tokio::spawn(async move { configuration.flush().await })
    };
    settle().await;
    assert_eq!(world.read_all().await, [0, 1, 2]);
    within(flush).await.expect("no panic");
}
