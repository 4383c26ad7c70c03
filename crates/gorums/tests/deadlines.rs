//! Deadlines and cancellation go on to the nodes, and from handlers to the calls that they make.

mod common;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/raw_server.rs"]
mod raw_server;
#[path = "common/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{Counter, Number, TestServer, number, within};
use gorums::runtime::{BoxFuture, Clock, SystemClock};
use gorums::{
    CancellationToken, Client, Code, Configuration, Outcome, QuorumError, QuorumErrorKind,
    ReplySender, Server, ServerBuilder, ServerCtx, Status, testing,
};
use memory::{Network, settle};
use raw_client::{opened, stream_request};
use raw_server::RawServer;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use wire::{ECHO, Envelope, HIGH_BIT, NOTE, envelope};

/// Answers with how many milliseconds are left, and 1 more so that none is 0.
const LEFT: &str = "test.Test.Left";
/// Sends the same, once.
const STREAM: &str = "test.Test.Stream";
/// Calls others as the test says, and answers with what they have.
const ASK: &str = "test.Test.Ask";
/// Is answered when the test says so, and keeps its turn.
const HOLD: &str = "test.Test.Hold";

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// What is left, in milliseconds and rounded up, and 1 more; 0 where there is no deadline.
fn left(ctx: &ServerCtx) -> Number {
    assert_eq!(ctx.deadline().is_some(), ctx.time_left().is_some());
    let left = ctx.time_left().map(|left| left.as_micros().div_ceil(1000));
    number(left.map_or(0, |left| left as u64 + 1))
}

/// What that is with so much left, where no time passes on the way.
fn of(left: Duration) -> u64 {
    left.as_millis() as u64 + 1
}

/// Tells what is left to each request, and sends what is left to notes to the test.
fn telling() -> (ServerBuilder, mpsc::UnboundedReceiver<u64>) {
    let (told, notes) = mpsc::unbounded_channel();
    let builder = Server::builder()
        .unary(LEFT, |ctx: ServerCtx, _: Number| async move {
            Ok::<_, Status>(left(&ctx))
        })
        .streaming(
            STREAM,
            |ctx: ServerCtx, _: Number, replies: ReplySender<Number>| async move {
                replies.send(left(&ctx)).await?;
                Ok::<_, Status>(())
            },
        )
        .one_way(NOTE, move |ctx: ServerCtx, _: Number| {
            let _ = told.send(left(&ctx).value);
            std::future::ready(())
        });
    (builder, notes)
}

/// A server at this address of the network, and a client that is connected to it and knows what it
/// understands.
async fn served(network: &Network, builder: ServerBuilder) -> (TestServer, Client) {
    let server = TestServer::start_at(builder.transport(network.clone()), "a:1").await;
    let nodes = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1"])
        .connect()
        .expect("legal");
    within(nodes.connected(1)).await.expect("it is up");
    (server, Client::new(&nodes))
}

#[tokio::test(start_paused = true)]
async fn a_handler_knows_how_much_time_is_left() {
    let network = Network::new();
    let (builder, mut notes) = telling();
    let (_server, client) = served(&network, builder).await;
    let node = &client.configuration()[0];
    for (timeout, expected) in [(Some(SECOND), of(SECOND)), (Some(MS), of(MS)), (None, 0)] {
        macro_rules! timed {
            ($call:expr) => {
                match timeout {
                    Some(timeout) => $call.timeout(timeout),
                    None => $call,
                }
            };
        }
        let rpc = timed!(client.rpc::<_, Number>(node, LEFT, number(1)));
        assert_eq!(within(rpc).await.expect("in time").value, expected);
        let call = timed!(client.quorum_call::<_, Number>(LEFT, number(1)));
        assert_eq!(within(call.all()).await.expect("in time").value, expected);
        let call = timed!(client.streamed_quorum_call::<_, Number>(STREAM, number(1)));
        let mut replies = call.responses();
        let reply = within(replies.next()).await.expect("one comes");
        let reply = reply.into_result().expect("in time");
        assert_eq!(reply.value, expected);
        let call = timed!(client.streamed_quorum_call::<_, Number>(STREAM, number(1)));
        let mut answer = call.correctable(1);
        let answer = within(answer.reached(1)).await.expect("in time");
        assert_eq!(answer.value.value, expected);
        // A timeout of one-way messages is for handing them over.
        macro_rules! timed {
            ($call:expr) => {
                match timeout {
                    Some(timeout) => $call.deadline(Instant::now() + timeout),
                    None => $call,
                }
            };
        }
        let sent = timed!(client.unicast(node, NOTE, number(1)));
        within(sent).await.expect("handed over");
        assert_eq!(within(notes.recv()).await, Some(expected));
        let sent = timed!(client.multicast(NOTE, number(1)));
        within(sent).await.expect("handed over");
        assert_eq!(within(notes.recv()).await, Some(expected));
        let sent = timed!(client.unicast(node, NOTE, number(1)));
        assert!(sent.detach().is_empty());
        assert_eq!(within(notes.recv()).await, Some(expected));
        let sent = timed!(client.multicast(NOTE, number(1)));
        assert!(sent.detach().is_empty());
        assert_eq!(within(notes.recv()).await, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_a_request_waits_to_be_written_is_not_left() {
    let network = Network::new();
    let (builder, _notes) = telling();
    let (_server, client) = served(&network, builder).await;
    let node = client.configuration()[0].clone();
    // More than the connection takes at once: what comes behind it is encoded and waits.
    network.stall("a:1");
    let large = Number {
        value: 1,
        payload: vec![0; 3_000_000].into(),
    };
    let before = client.unicast(&node, "test.Test.Unknown", large).send();
    settle().await;
    let call = client
        .rpc::<_, Number>(&node, LEFT, number(1))
        .timeout(SECOND)
        .send();
    tokio::time::sleep(300 * MS).await;
    network.allow("a:1", None);
    within(before).await.expect("handed over");
    let reply = within(call).await.expect("in time");
    assert_eq!(reply.value, of(700 * MS));
}

/// What a handler does with its request.
type Asking = fn(ServerCtx) -> BoxFuture<'static, Result<Number, Status>>;

/// Two peers. The first does what it is asked, and both tell what is left to the calls that it
/// makes.
struct Peers {
    _servers: [TestServer; 2],
    client: Client,
    /// What was left to notes, at either.
    notes: [mpsc::UnboundedReceiver<u64>; 2],
    /// Requests that the second holds, and those of which it was told that nobody waits.
    held: Counter,
    cancelled: Counter,
}

impl Peers {
    async fn new(ask: Asking) -> Self {
        let network = Network::new();
        let peers = Configuration::builder()
            .transport(network.clone())
            .node(1, "a:1")
            .node(2, "b:1")
            .connect()
            .expect("legal");
        let (builder, others) = telling();
        let (held, cancelled) = (Counter::new(), Counter::new());
        let (holds, told) = (held.clone(), cancelled.clone());
        let builder = builder
            .unary(HOLD, move |ctx: ServerCtx, request: Number| {
                let (holds, told) = (holds.clone(), told.clone());
                async move {
                    ctx.release();
                    holds.add();
                    ctx.cancelled().await;
                    told.add();
                    Ok::<_, Status>(request)
                }
            })
            .transport(network.clone());
        let other = TestServer::start_at(builder, "b:1").await;
        let (builder, own) = telling();
        let builder = builder
            .unary(ASK, move |ctx: ServerCtx, _: Number| {
                ctx.release();
                ask(ctx)
            })
            .peers(1, &peers);
        let (server, client) = served(&network, builder).await;
        within(peers.connected(2)).await.expect("both are up");
        Self {
            _servers: [server, other],
            client,
            notes: [own, others],
            held,
            cancelled,
        }
    }

    fn ask(&self) -> gorums::call::Rpc<Number, Number> {
        let node = &self.client.configuration()[0];
        self.client.rpc(node, ASK, number(1))
    }
}

/// What is left to a call on all peers, whose least is told.
async fn least(call: gorums::call::QuorumCall<Number, Number>) -> Result<Number, Status> {
    let replies = call.all().replies().await?;
    assert_eq!(replies.len(), 2);
    let mut values = replies.values().map(|reply| reply.value);
    let first = values.next().unwrap_or_default();
    assert!(values.all(|value| value == first), "the same at both");
    Ok(number(first))
}

fn left_at(
    peers: impl std::borrow::Borrow<Configuration>,
) -> gorums::call::QuorumCall<Number, Number> {
    Client::new(peers.borrow()).quorum_call(LEFT, number(1))
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_handler_has_the_earlier_deadline_of_its_own_and_its_callers() {
    // With a second left to the caller, and where it has no deadline.
    let asked: [(Asking, [u64; 2]); 9] = [
        (
            |ctx| Box::pin(least(left_at(ctx.config()))),
            [of(SECOND), 0],
        ),
        (
            |ctx| Box::pin(least(left_at(ctx.config()).timeout(300 * MS))),
            [of(300 * MS), of(300 * MS)],
        ),
        (
            |ctx| Box::pin(least(left_at(ctx.config()).timeout(5 * SECOND))),
            [of(SECOND), of(5 * SECOND)],
        ),
        (
            |ctx| Box::pin(least(left_at(ctx.config()).independent())),
            [0, 0],
        ),
        (
            |ctx| Box::pin(least(left_at(ctx.config().independent()))),
            [0, 0],
        ),
        (
            |ctx| Box::pin(least(left_at(ctx.config().independent()).within(&ctx))),
            [of(SECOND), 0],
        ),
        // What is made of the configuration inherits, too.
        (
            |ctx| {
                let peers = ctx.config().select([2, 1]).expect("known");
                let peers = peers.filter(|_| true).sort_by(gorums::Node::by_id);
                Box::pin(least(left_at(peers)))
            },
            [of(SECOND), 0],
        ),
        (
            |ctx| {
                let peers = ctx.config();
                let call = Client::new(&peers).rpc(&peers[1], LEFT, number(1));
                Box::pin(async move { Ok(call.await?) })
            },
            [of(SECOND), 0],
        ),
        // A node by itself knows nothing of the request.
        (
            |ctx| {
                let node = ctx.config()[1].clone();
                let call = Client::new(&node).rpc(&node, LEFT, number(1));
                Box::pin(async move { Ok(call.await?) })
            },
            [0, 0],
        ),
    ];
    for (ask, expected) in asked {
        let peers = Peers::new(ask).await;
        let timed = within(peers.ask().timeout(SECOND)).await;
        let timed = timed.expect("in time").value;
        let untimed = within(peers.ask()).await.expect("answered").value;
        assert_eq!([timed, untimed], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_way_messages_of_a_handler_inherit_where_that_is_asked_for() {
    let mut peers = Peers::new(|ctx| {
        let client = Client::new(ctx.config());
        assert!(client.multicast(NOTE, number(1)).detach().is_empty());
        let node = &client.configuration()[1];
        assert!(client.unicast(node, NOTE, number(1)).detach().is_empty());
        let within = client.multicast(NOTE, number(1)).within(&ctx);
        assert!(within.detach().is_empty());
        Box::pin(async { Ok(number(0)) })
    })
    .await;
    within(peers.ask().timeout(SECOND)).await.expect("answered");
    for (notes, expected) in peers
        .notes
        .iter_mut()
        .zip([&[0, of(SECOND)][..], &[0, 0, of(SECOND)]])
    {
        for expected in expected {
            assert_eq!(within(notes.recv()).await, Some(*expected));
        }
    }
}

/// Waits for a reply that does not come, and answers with how that ended.
fn held_up(
    ctx: ServerCtx,
    call: gorums::call::QuorumCall<Number, Number>,
) -> BoxFuture<'static, Result<Number, Status>> {
    Box::pin(async move {
        let error: QuorumError = call.first().await.expect_err("nobody answers");
        *HOW.lock().expect("no panic") = Some((error.kind(), ctx.is_cancelled()));
        Ok(number(0))
    })
}

/// How the last call of [`held_up`] ended. Tests that look take turns.
static HOW: Mutex<Option<(QuorumErrorKind, bool)>> = Mutex::new(None);
static TURN: Semaphore = Semaphore::const_new(1);

fn hold_at_the_other(ctx: &ServerCtx) -> gorums::call::QuorumCall<Number, Number> {
    let other = ctx.config().select([2]).expect("known");
    Client::new(other).quorum_call(HOLD, number(1))
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_handler_is_cancelled_with_the_request() {
    let _turn = TURN.acquire().await.expect("open");
    let peers = Peers::new(|ctx| {
        let call = hold_at_the_other(&ctx);
        held_up(ctx, call)
    })
    .await;
    let call = peers.ask().send();
    peers.held.reached(1).await;
    drop(call);
    peers.cancelled.reached(1).await;
    settle().await;
    let how = HOW.lock().expect("no panic").take();
    assert_eq!(how, Some((QuorumErrorKind::Cancelled, true)));
    // By the token of its own as ever, where there is one, too.
    let peers = Peers::new(|ctx| {
        let token = CancellationToken::new();
        let call = hold_at_the_other(&ctx).cancelled_by(&token);
        tokio::spawn(async move {
            tokio::time::sleep(SECOND).await;
            token.cancel();
        });
        held_up(ctx, call)
    })
    .await;
    within(peers.ask()).await.expect("answered");
    let how = HOW.lock().expect("no panic").take();
    assert_eq!(how, Some((QuorumErrorKind::Cancelled, false)));
    // And at the deadline.
    let peers = Peers::new(|ctx| {
        let call = hold_at_the_other(&ctx);
        held_up(ctx, call)
    })
    .await;
    let error = within(peers.ask().timeout(SECOND)).await.expect_err("late");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    peers.cancelled.reached(1).await;
    settle().await;
    assert!(HOW.lock().expect("no panic").take().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_independent_call_goes_on_when_the_caller_has_given_up() {
    let peers = Peers::new(|ctx| {
        let call = hold_at_the_other(&ctx).independent();
        Box::pin(async move {
            let _ = call.first().await;
            Ok(number(0))
        })
    })
    .await;
    let call = peers.ask().send();
    peers.held.reached(1).await;
    drop(call);
    settle().await;
    assert_eq!(peers.cancelled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_leaves_behind_inherits_nothing() {
    let peers = Peers::new(|ctx| {
        let peers = ctx.config();
        // It keeps the context as well.
        let kept = ctx.clone();
        tokio::spawn(async move {
            tokio::time::sleep(5 * SECOND).await;
            let left = least(left_at(&peers))
                .await
                .expect("no deadline has passed");
            assert!(
                Client::new(&peers)
                    .multicast(NOTE, left)
                    .detach()
                    .is_empty()
            );
            drop(kept);
        });
        Box::pin(async { Ok(number(0)) })
    })
    .await;
    within(peers.ask().timeout(SECOND)).await.expect("answered");
    let Peers {
        notes: [mut own, _others],
        ..
    } = peers;
    assert_eq!(within(own.recv()).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_passes_before_its_turn_is_not_run() {
    let network = Network::new();
    let (gate, started, ran) = (Arc::new(Semaphore::new(0)), Counter::new(), Counter::new());
    let builder = holding(&gate, &started, &ran);
    let (_server, client) = served(&network, builder).await;
    let node = &client.configuration()[0];
    let holds = client.rpc::<_, Number>(node, HOLD, number(1)).send();
    started.reached(1).await;
    let begun = Instant::now();
    let late = client
        .rpc::<_, Number>(node, ECHO, number(2))
        .timeout(100 * MS);
    let late = late.send();
    let sent = client
        .unicast(node, NOTE, number(3))
        .deadline(begun + 100 * MS);
    within(sent).await.expect("handed over");
    let in_time = client
        .rpc::<_, Number>(node, ECHO, number(4))
        .timeout(SECOND);
    let in_time = in_time.send();
    let error = within(late).await.expect_err("it waits for its turn");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
    assert!(
        begun.elapsed() < 200 * MS,
        "the caller was told at its deadline"
    );
    assert_eq!(ran.get(), 0);
    gate.add_permits(1);
    within(holds).await.expect("answered");
    assert_eq!(within(in_time).await.expect("in time").value, 4);
    assert_eq!(ran.get(), 1);
}

/// The node's answer may come before the caller has looked at its clock.
#[tokio::test]
async fn a_call_that_the_node_finds_late_ends_at_its_deadline() {
    let clock = Leaping::default();
    let server = RawServer::start_with(|builder| builder.clock(clock.clone())).await;
    let node = server.node();
    let first = server.call(1);
    let mut peer = server.accept().await;
    peer.echo_with("stream-end,deadline").await;
    within(first).await.expect("answered");
    let late = |request: Envelope| Envelope {
        status: Some(wire::WireStatus {
            code: 4,
            message: "not run".into(),
            ..wire::WireStatus::default()
        }),
        payload: bytes::Bytes::new(),
        ..request
    };
    for (has_passed, kind) in [
        (true, QuorumErrorKind::Deadline),
        // One of an earlier deadline of the node's own, say.
        (false, QuorumErrorKind::Incomplete),
    ] {
        let call = server.client().quorum_call::<_, Number>(ECHO, number(2));
        let call = call.timeout(600 * SECOND).all();
        let call = tokio::spawn(call.into_future());
        let request = peer.request().await;
        if has_passed {
            clock.0.fetch_add(601, Ordering::SeqCst);
        }
        peer.send(&late(request));
        let error = within(call).await.expect("no panic").expect_err("late");
        assert_eq!(error.kind(), kind, "{error}");
        let failure = error.failure(node.id()).expect("it failed");
        assert_eq!(failure.outcome(), Outcome::Refused);
    }
    assert_eq!(node.pending(), 0);
}

/// Holds, and counts what else runs.
fn holding(gate: &Arc<Semaphore>, started: &Counter, ran: &Counter) -> ServerBuilder {
    let (gate, started) = (Arc::clone(gate), started.clone());
    let counted = [ran.clone(), ran.clone(), ran.clone()];
    let [echoed, noted, streamed] = counted;
    Server::builder()
        .unary(HOLD, move |_: ServerCtx, request: Number| {
            let gate = Arc::clone(&gate);
            started.add();
            async move {
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        })
        .unary(ECHO, move |_: ServerCtx, request: Number| {
            echoed.add();
            std::future::ready(Ok::<_, Status>(request))
        })
        .one_way(NOTE, move |_: ServerCtx, _: Number| {
            noted.add();
            std::future::ready(())
        })
        .streaming(
            STREAM,
            move |_: ServerCtx, request: Number, replies: ReplySender<Number>| {
                streamed.add();
                async move {
                    replies.send(request).await?;
                    Ok::<_, Status>(())
                }
            },
        )
}

/// Goes on as time does, and by leaps of the test.
#[derive(Debug, Clone, Default)]
struct Leaping(Arc<AtomicU64>);

impl Leaping {
    fn ahead(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Leaping {
    fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(at - self.ahead())
    }

    fn wall_clock(&self) -> SystemTime {
        SystemClock.wall_clock()
    }

    fn random(&self) -> u64 {
        SystemClock.random()
    }
}

fn timed(time_left: u64, id: u64, method: &str) -> Envelope {
    Envelope {
        time_left: Some(time_left),
        ..envelope(id, method, id)
    }
}

const MINUTE: u64 = 60_000_000;

#[tokio::test]
async fn a_request_that_is_not_run_is_answered_and_a_one_way_message_is_dropped() {
    let (gate, started, ran) = (Arc::new(Semaphore::new(0)), Counter::new(), Counter::new());
    let clock = Leaping::default();
    let builder = holding(&gate, &started, &ran).clock(clock.clone());
    let server = TestServer::start(builder).await;
    let mut client = raw_client::RawClient::connect(server.addr).await;
    let mut stream = client.announcing("stream-end,deadline").await;
    stream.send(&envelope(1, HOLD, 1));
    stream.send(&timed(MINUTE, 2, ECHO));
    stream.send(&timed(MINUTE, 3, STREAM));
    stream.send(&timed(MINUTE, 4, NOTE));
    stream.send(&timed(MINUTE, 5, "test.Test.Unknown"));
    stream.send(&timed(100 * MINUTE, 6, ECHO));
    started.reached(1).await;
    client.is_read().await;
    clock.0.store(61, Ordering::SeqCst);
    gate.add_permits(1);
    assert_eq!(stream.reply().await.id, 1);
    for (id, control) in [(2, 0), (3, 2), (5, 0)] {
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.control), (id, control));
        let (code, text) = reply.error();
        assert_eq!(code, 4, "{text}");
        assert!(text.contains("was not run"), "{text}");
    }
    assert_eq!(stream.reply().await.id, 6);
    assert_eq!(ran.get(), 1);
}

#[tokio::test]
async fn whatever_a_peer_says_of_its_time_is_borne() {
    const YEAR: u64 = 365 * 24 * 60 * MINUTE / 1000;
    let (builder, _notes) = telling();
    let server = TestServer::start(builder).await;
    let mut client = raw_client::RawClient::connect(server.addr).await;
    let mut stream = client.announcing("deadline").await;
    for (id, (time_left, expected)) in (1..).zip([
        (None, 0..=0),
        // As if it were not there.
        (Some(0), 0..=0),
        (Some(MINUTE), 1..=60_001),
        (Some(u64::MAX), 9 * YEAR..=11 * YEAR),
        (Some(i64::MIN as u64), 9 * YEAR..=11 * YEAR),
        (Some(i64::MAX as u64), 9 * YEAR..=11 * YEAR),
    ]) {
        stream.send(&Envelope {
            time_left,
            ..envelope(id, LEFT, 1)
        });
        let reply = stream.reply().await;
        let value = reply.number();
        assert!(expected.contains(&value), "{time_left:?}: {value}");
    }
    // It may have passed by the time that it is looked at, which is no reason to fail otherwise.
    stream.send(&timed(1, 7, LEFT));
    let reply = stream.reply().await;
    assert_eq!(reply.id, 7);
    assert!(reply.status.is_none_or(|status| status.code == 4));
}

#[tokio::test]
async fn what_a_peer_says_that_does_not_announce_it_is_ignored() {
    let (builder, _notes) = telling();
    let (_server, _client, mut stream) = opened(builder).await;
    for (id, time_left) in [(1, 1), (2, MINUTE)] {
        stream.send(&timed(time_left, id, LEFT));
        assert_eq!(stream.reply().await.number(), 0);
    }
}

#[tokio::test]
async fn a_node_is_told_the_time_that_is_left_once_it_has_announced_that_it_takes_it() {
    for (features, is_told) in [
        ("cancel,deadline", true),
        ("cancel,credit", false),
        ("", false),
    ] {
        let server = RawServer::start().await;
        let node = server.node();
        let call = || {
            let call = server.client().rpc::<_, Number>(&node, ECHO, number(1));
            call.timeout(Duration::from_secs(60)).send()
        };
        // It is written before the node has said anything.
        let first = call();
        let mut peer = server.accept().await;
        assert_eq!(peer.echo_with(features).await.time_left, None);
        within(first).await.expect("answered");
        let second = call();
        let request = peer.echo().await;
        within(second).await.expect("answered");
        match request.time_left {
            Some(left) => assert!(is_told && left > 0 && left <= MINUTE, "{left}"),
            None => assert!(!is_told, "{features}"),
        }
        // Nobody waits for ever, and nothing is told of it.
        let third = server.call(3);
        assert_eq!(peer.echo().await.time_left, None);
        within(third).await.expect("answered");
        let fourth = server
            .client()
            .multicast(NOTE, number(1))
            .deadline(Instant::now() + SECOND * 60);
        within(fourth).await.expect("handed over");
        assert_eq!(peer.request().await.time_left.is_some(), is_told);
    }
}

#[tokio::test]
async fn calls_of_a_server_to_its_clients_have_deadlines_too() {
    let server = Server::builder().unary(ASK, |ctx: ServerCtx, request: Number| async move {
        ctx.release();
        let clients = Client::new(ctx.client_config());
        let call = clients.quorum_call::<_, Number>(ECHO, request);
        Ok::<_, Status>(call.first().await?)
    });
    let server = TestServer::start(server).await;
    let mut client = raw_client::RawClient::connect(server.addr).await;
    let mut request = stream_request();
    let headers = request.headers_mut();
    headers.insert("gorums-node-id", "0".parse().expect("ASCII"));
    headers.insert("gorums-features", "cancel,deadline".parse().expect("ASCII"));
    let mut stream = client.open_with(request).await;
    stream.send(&timed(MINUTE, 1, ASK));
    let back = stream.reply().await;
    assert_ne!(back.id & HIGH_BIT, 0);
    let left = back.time_left.expect("inherited");
    assert!(left > 0 && left <= MINUTE, "{left}");
    // The caller gives up, and so does its handler.
    stream.send(&Envelope {
        id: 1,
        control: 1,
        ..Envelope::default()
    });
    let told = stream.reply().await;
    let told = match told.control {
        0 => stream.reply().await,
        _ => told,
    };
    assert_eq!((told.id, told.control), (back.id, 1));
}

#[tokio::test]
async fn a_context_of_no_connection_has_no_deadline() {
    let ctx = testing::server_ctx();
    assert_eq!((ctx.deadline(), ctx.time_left()), (None, None));
}
