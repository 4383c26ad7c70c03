//! In a session no call is lost where connections break, none is handled twice, and order holds.

#[path = "common/asked.rs"]
mod asked;
mod common;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use asked::{
    ASK, Asked, ECHO, LARGE, LOST, NODE, NOTE, STREAM, answered, builder, call, connect, failed,
    large,
};
use common::{Counter, Number, TestServer, echo, number, within};
use gorums::bounds::Bound;
use gorums::server::{Answered, AnsweredCalls};
use gorums::{
    Code, ConfigurationBuilder, Outcome, ReplySender, Server, ServerBuilder, ServerCtx, Status,
};
use memory::{Direction, Manner, Network, settle};
use raw_client::{RawClient, stream_request};
use tokio::time::Instant;
use wire::{envelope, envelope_of_size};

const LIMIT: Duration = Duration::from_secs(20);

fn sessions(network: &Network) -> ConfigurationBuilder {
    builder(network).nodes([NODE]).sessions(LIMIT)
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_connection_breaks_is_answered_on_the_next_and_handled_once() {
    let network = Network::new();
    let asked = Asked::new();
    let _server = asked.serve(&network, NODE).await;
    let (all, client) = connect(sessions(&network));
    let calls: Vec<_> = (1..=3)
        .map(|value| call(&client, ASK, value).send())
        .collect();
    asked.count.reached(3).await;
    network.cut(NODE);
    settle().await;
    let later = call(&client, ECHO, 4).send();
    asked.count.reached(4).await;
    network.cut(NODE);
    settle().await;
    asked.open();
    for (call, value) in calls.into_iter().zip(1..) {
        answered(call, value).await;
    }
    answered(later, 4).await;
    assert_eq!(asked.taken(), [1, 2, 3, 4]);
    assert_eq!(all[0].pending(), 0);
}

/// What breaks and when is drawn by lot. Nothing of what the server hears tells that anything does.
#[tokio::test(start_paused = true)]
async fn every_message_is_handled_once_and_in_order_wherever_connections_break() {
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let network = Network::new();
        let asked = Asked::new();
        asked.open();
        let _server = asked.serve(&network, NODE).await;
        let nodes = sessions(&network).keep_alive(Duration::from_secs(1), Duration::from_secs(1));
        let (all, client) = connect(nodes);
        within(call(&client, ECHO, 1)).await.expect("up");
        let mut calls = Vec::new();
        let mut streams = Vec::new();
        let mut notes = Vec::new();
        for value in 2..=300 {
            match random.u8(..10) {
                0..5 => calls.push((call(&client, ECHO, value).send(), value)),
                5..8 => notes.push(client.unicast(&all[0], NOTE, large(value)).send()),
                _ => {
                    let call = client.streamed_quorum_call::<_, Number>(STREAM, large(value));
                    streams.push((call.responses(), value));
                }
            }
            match random.u8(..60) {
                0..3 => network.cut(NODE),
                // Both would let what comes later pass, which no connection does.
                3..5 if seed % 2 == 0 => network.lose(NODE, Direction::ToNode),
                3..5 => network.lose(NODE, Direction::ToClient),
                5 => network.allow(NODE, Some(random.usize(..5 * LARGE))),
                6..30 => settle().await,
                _ => {}
            }
        }
        // Some are held up for good.
        settle().await;
        network.cut(NODE);
        for (call, value) in calls {
            answered(call, value).await;
        }
        for note in notes {
            within(note).await.expect("it is written");
        }
        for (mut replies, value) in streams {
            let mut count = 0;
            while let Some(reply) = within(replies.next()).await {
                let reply = reply.result().expect("it goes on");
                assert_eq!(reply.value, value, "seed {seed}");
                count += 1;
            }
            assert_eq!(count, 1 + value % 2, "seed {seed}: the replies to {value}");
        }
        within(call(&client, ECHO, 301)).await.expect("up");
        assert_eq!(asked.taken(), Vec::from_iter(1..=301), "seed {seed}");
        assert_eq!(all[0].pending(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_started_anew_has_no_session_and_the_error_says_so() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.serve(&network, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let plain = call(&client, ASK, 1).send();
    let idempotent = call(&client, ASK, 2).idempotent(true).send();
    asked.count.reached(2).await;
    server.stop().await;
    network.cut(NODE);
    settle().await;
    let _server = asked.serve(&network, NODE).await;
    let error = within(plain).await.expect_err("nobody knows of it");
    assert_eq!((error.outcome(), error.code()), LOST);
    assert!(
        error.to_string().contains("does not have the session"),
        "{error}"
    );
    asked.open();
    answered(idempotent, 2).await;
    assert_eq!(asked.taken(), [1, 2, 2]);
    // The next session is as good as the first.
    asked.close();
    let asked_before = asked.count.get();
    let next = call(&client, ASK, 3).send();
    asked.count.reached(asked_before + 1).await;
    network.cut(NODE);
    settle().await;
    asked.open();
    answered(next, 3).await;
    assert_eq!(asked.taken(), [3]);
}

/// The handler waits for credit that the caller has given meanwhile.
#[tokio::test(start_paused = true)]
async fn credit_outlasts_attempts_to_connect_that_fail() {
    const REPLIES: u64 = 5_000;
    let network = Network::new();
    let server = Server::builder().transport(network.clone()).streaming(
        STREAM,
        |_, request: Number, replies: ReplySender<Number>| async move {
            for value in 0..REPLIES {
                let payload = request.payload.clone();
                replies.send(Number { value, payload }).await?;
            }
            Ok(())
        },
    );
    let _server = TestServer::start_at(server, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let call = client.streamed_quorum_call::<_, Number>(STREAM, large(1));
    let mut replies = call.responses();
    let mut next = 0;
    let mut take = async |count: u64| {
        for _ in 0..count {
            let reply = within(replies.next()).await.expect("there are more");
            assert_eq!(reply.result().expect("it goes on").value, next);
            next += 1;
        }
    };
    take(10).await;
    // All that there is credit for has come.
    settle().await;
    network.set(NODE, Manner::Flapping);
    network.cut(NODE);
    take(600).await;
    let attempts = network.attempts(NODE).len();
    network.attempted(NODE, attempts + 3).await;
    network.set(NODE, Manner::Normal);
    take(REPLIES - 610).await;
    assert!(within(replies.next()).await.is_none());
}

/// It has sent messages on the stream before.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_and_has_nothing_to_say_may_be_silent() {
    let network = Network::new();
    let asked = Asked::new();
    let limit = Duration::from_secs(1);
    let server = asked.server(&network).first_message_timeout(limit);
    let _server = TestServer::start_at(server, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let held = call(&client, ASK, 1).send();
    asked.count.reached(1).await;
    network.cut(NODE);
    network.attempted(NODE, 2).await;
    tokio::time::sleep(3 * limit).await;
    asked.open();
    answered(held, 1).await;
    assert_eq!(network.attempts(NODE).len(), 2);
}

/// What has not started when a server is stopped never does, also where no connection carries it.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_stopped_starts_nothing_of_a_session_without_a_connection() {
    let network = Network::new();
    let (asked, gate) = (Counter::new(), Arc::new(tokio::sync::Notify::new()));
    let (asks, opens) = (asked.clone(), Arc::clone(&gate));
    let server = Server::builder().transport(network.clone());
    let server = server.unary(ASK, move |_, request: Number| {
        asks.add();
        let opens = Arc::clone(&opens);
        async move {
            opens.notified().await;
            Ok::<_, Status>(request)
        }
    });
    let server = TestServer::start_at(server, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let calls: Vec<_> = (1..=3)
        .map(|value| call(&client, ASK, value).send())
        .collect();
    asked.reached(1).await;
    settle().await;
    network.set(NODE, Manner::Silent);
    network.cut(NODE);
    settle().await;
    server.stop().await;
    gate.notify_waiters();
    settle().await;
    assert_eq!(asked.get(), 1);
    drop(calls);
}

/// What is durable of a service: each call that has had its effect, with its answer.
#[derive(Clone)]
struct Durable {
    network: Network,
    state: Arc<Mutex<State>>,
    /// How many calls have had their effect and no answer, since their handlers are stuck.
    stuck: Counter,
    gets_stuck: fn(u64) -> bool,
}

#[derive(Default)]
struct State {
    count: u64,
    answered: AnsweredCalls<u64>,
    stuck: BTreeSet<u64>,
}

impl Durable {
    /// A service whose call gets stuck that has counted to such a number, the first time.
    fn new(network: &Network, answered: AnsweredCalls<u64>, gets_stuck: fn(u64) -> bool) -> Self {
        let state = State {
            answered,
            ..State::default()
        };
        Self {
            network: network.clone(),
            state: Arc::new(Mutex::new(state)),
            stuck: Counter::new(),
            gets_stuck,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Counts a call, once.
    fn count(&self, ctx: &ServerCtx) -> Result<u64, Status> {
        let call = ctx.keyed_call().expect("the client has sessions");
        let state = &mut *self.state();
        match state.answered.find(call) {
            Answered::Yes(count) => Ok(*count),
            Answered::Forgotten => Err(Status::aborted("forgotten")),
            Answered::No => {
                state.count += 1;
                state.answered.insert(call.key, state.count);
                Ok(state.count)
            }
        }
    }

    async fn serve(&self) -> TestServer {
        let durable = self.clone();
        let server = Server::builder().transport(self.network.clone());
        let server = server.unary(ASK, move |ctx: ServerCtx, _: Number| {
            let durable = durable.clone();
            async move {
                let value = durable.count(&ctx)?;
                // The effect is there, and the answer is lost with the server.
                if (durable.gets_stuck)(value) && durable.state().stuck.insert(value) {
                    durable.stuck.add();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Status>(number(value))
            }
        });
        TestServer::start_at(server, NODE).await
    }

    /// Starts the server anew, and what is durable of it is there.
    async fn restart(&self, server: TestServer) -> TestServer {
        server.stop().await;
        self.network.cut(NODE);
        self.serve().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_keeps_what_it_answers_counts_each_call_once_over_restarts() {
    let network = Network::new();
    let fifth = |value: u64| value.is_multiple_of(5);
    let durable = Durable::new(&network, AnsweredCalls::default(), fifth);
    let mut server = durable.serve().await;
    let (_all, client) = connect(sessions(&network));
    let calls: Vec<_> = (1..=20)
        .map(|value| {
            call(&client, ASK, value)
                .idempotent(true)
                .timeout(LIMIT)
                .send()
        })
        .collect();
    for times in 1..=4 {
        durable.stuck.reached(times).await;
        server = durable.restart(server).await;
    }
    for (call, value) in calls.into_iter().zip(1..) {
        answered(call, value).await;
    }
    assert_eq!(durable.state().count, 20);
}

/// The answer of the first client has gone when it asks for it again.
#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_not_handled_twice_where_its_answer_has_gone() {
    let network = Network::new();
    let durable = Durable::new(&network, AnsweredCalls::new(1, 1), |value| value == 1);
    let server = durable.serve().await;
    let (_first, client) = connect(sessions(&network));
    let (_second, other) = connect(sessions(&network));
    let of = |client| call(client, ASK, 0).idempotent(true).timeout(LIMIT);
    let lost = of(&client).send();
    durable.stuck.reached(1).await;
    answered(of(&other).send(), 2).await;
    let _server = durable.restart(server).await;
    let error = within(lost).await.expect_err("it may have been counted");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Aborted)
    );
    // What it sends for the first time is new, and so is what another one sends again.
    answered(of(&client).send(), 3).await;
    assert_eq!(durable.state().count, 3);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_another_connection_as_long_as_the_client_says() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.serve(&network, NODE).await;
    let (all, client) = connect(sessions(&network));
    let held = call(&client, ASK, 1).send();
    let in_time = call(&client, ASK, 2).timeout(LIMIT / 2).send();
    asked.count.reached(2).await;
    server.stop().await;
    network.cut(NODE);
    let begin = Instant::now();
    let late = within(in_time).await.expect_err("nobody answers");
    assert_eq!(
        (late.outcome(), late.code()),
        (Outcome::Unknown, Code::DeadlineExceeded)
    );
    assert_eq!(begin.elapsed().as_secs(), (LIMIT / 2).as_secs());
    let error = within(held).await.expect_err("nobody answers");
    assert_eq!((error.outcome(), error.code()), LOST);
    assert!(
        error.to_string().contains("ConfigurationBuilder::sessions"),
        "{error}"
    );
    assert_eq!(begin.elapsed().as_secs(), LIMIT.as_secs());
    assert_eq!(all.reached().count(Bound::Session), 1);
    assert_eq!(all[0].pending(), 0);
    let not_sent = within(call(&client, ECHO, 3))
        .await
        .expect_err("it is down");
    assert_eq!(not_sent.outcome(), Outcome::NotSent);
}

/// A server whose handlers wait until they are told that nobody waits for them, how many have begun,
/// and how many were told.
fn waits_to_be_told(network: &Network) -> (ServerBuilder, Counter, Counter) {
    let (begun, told) = (Counter::new(), Counter::new());
    let (begins, tells) = (begun.clone(), told.clone());
    let server = Server::builder().transport(network.clone()).unary(
        ASK,
        move |ctx: ServerCtx, request: Number| {
            let (begins, tells) = (begins.clone(), tells.clone());
            ctx.release();
            async move {
                begins.add();
                ctx.cancelled().await;
                tells.add();
                Ok::<_, Status>(request)
            }
        },
    );
    (server, begun, told)
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_told_that_its_client_has_gone_when_the_session_is_over() {
    let timeout = Duration::from_secs(5);
    for closes in [false, true] {
        let network = Network::new();
        let (server, begun, told) = waits_to_be_told(&network);
        let server = server.session_timeout(timeout);
        let server = server.bind(NODE).await.expect("a network in memory");
        let reached = server.reached();
        let _server = TestServer::of(server);
        let (all, client) = connect(sessions(&network));
        let held = call(&client, ASK, 1).send();
        begun.reached(1).await;
        network.cut(NODE);
        let begin = Instant::now();
        if closes {
            // The end of the client is the end of the session, once it could tell.
            network.attempted(NODE, 2).await;
            settle().await;
            drop((held, client, all));
            told.reached(1).await;
            assert!(begin.elapsed() < timeout, "{:?}", begin.elapsed());
            assert_eq!(reached.count(Bound::SessionTimeout), 0);
        } else {
            network.set(NODE, Manner::Silent);
            told.reached(1).await;
            assert_eq!(begin.elapsed().as_secs(), timeout.as_secs());
            assert_eq!(reached.count(Bound::SessionTimeout), 1);
            drop(held);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_gives_up_meanwhile_is_told_on_the_next_connection() {
    let network = Network::new();
    let (server, begun, told) = waits_to_be_told(&network);
    let _server = TestServer::start_at(server, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let [first, second] = [1, 2].map(|value| call(&client, ASK, value).send());
    begun.reached(2).await;
    network.cut(NODE);
    drop(first);
    settle().await;
    assert_eq!(told.get(), 0, "the session goes on");
    told.reached(1).await;
    network.cut(NODE);
    drop(second);
    told.reached(2).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_node_that_keeps_no_sessions_all_is_as_without_them() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.server(&network).session_timeout(Duration::ZERO);
    let _server = TestServer::start_at(server, NODE).await;
    let (_all, client) = connect(sessions(&network));
    let plain = call(&client, ASK, 1).send();
    let idempotent = call(&client, ASK, 2).idempotent(true).send();
    asked.count.reached(2).await;
    network.cut(NODE);
    assert_eq!(failed(plain).await, LOST);
    asked.open();
    answered(idempotent, 2).await;
    assert_eq!(asked.taken(), [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_client_writes_no_more_than_the_node_has_to_say_that_it_has() {
    let network = Network::new();
    let asked = Asked::new();
    asked.open();
    let _server = asked.serve(&network, NODE).await;
    let (all, client) = connect(sessions(&network).outbox(1_000, 1));
    // Far more than the bound, of messages that are each more than the bound.
    for value in 1..=500 {
        within(client.unicast(&all[0], NOTE, large(value)).send())
            .await
            .expect("it goes on");
        if value % 50 == 0 {
            network.cut(NODE);
        }
    }
    asked.count.reached(500).await;
    assert_eq!(asked.taken(), Vec::from_iter(1..=500));
}

const ID: &str = "000102030405060708090a0b0c0d0e0f";

/// Opens a stream that asks for this session, and says what the server makes of it.
async fn opened(server: &TestServer, session: &str) -> (RawClient, raw_client::Stream, String) {
    let mut client = RawClient::connect(server.addr).await;
    let mut request = stream_request();
    let headers = request.headers_mut();
    headers.insert("gorums-session", session.parse().expect("ASCII"));
    let (stream, headers) = client.answered(request).await;
    let answer = headers
        .get("gorums-session")
        .map(|value| value.to_str().expect("ASCII"));
    (client, stream, answer.unwrap_or("none").to_owned())
}

#[tokio::test]
async fn the_connection_that_comes_last_carries_the_session() {
    let server = TestServer::start(echo()).await;
    let (_first, mut stream, answer) = opened(&server, &format!("{ID};1")).await;
    assert_eq!(answer, "new");
    for id in 1..=3 {
        stream.call(id).await;
    }
    // The end of the first connection has not come to the server.
    let (_second, mut stream, answer) = opened(&server, &format!("{ID};2;2")).await;
    assert_eq!(answer, "resumed;3");
    let again = stream.reply().await;
    assert_eq!((again.id, again.number()), (3, 3));
    stream.call(4).await;
    let (_third, mut stream, answer) = opened(&server, &format!("{ID};3;4")).await;
    assert_eq!(answer, "resumed;4");
    stream.call(5).await;
}

/// A client that has not heard that its session is gone asks for it again, and not for the one that the
/// server began in its place: what it had written in the one before would be handled again.
#[tokio::test]
async fn a_session_that_began_in_the_place_of_another_is_not_taken_for_that() {
    let server = TestServer::start(echo()).await;
    let (_first, _stream, answer) = opened(&server, &format!("{ID};5;0")).await;
    assert_eq!(answer, "new", "the server was started anew");
    let (_second, mut stream, answer) = opened(&server, &format!("{ID};6;0")).await;
    assert_eq!(answer, "new");
    // Who goes on in it has heard that.
    stream.call(1).await;
    let (_third, mut stream, answer) = opened(&server, &format!("{ID};7;0")).await;
    assert_eq!(answer, "resumed;1");
    assert_eq!(stream.reply().await.id, 1);
}

#[tokio::test]
async fn a_session_in_which_nothing_has_come_goes_on() {
    let server = TestServer::start(echo()).await;
    let (_first, _stream, answer) = opened(&server, &format!("{ID};1")).await;
    assert_eq!(answer, "new");
    let (_second, mut stream, answer) = opened(&server, &format!("{ID};2;0")).await;
    assert_eq!(answer, "resumed;0");
    stream.call(1).await;
}

#[tokio::test]
async fn an_end_says_now_and_then_what_it_has() {
    let server = TestServer::start(echo()).await;
    let (_client, mut stream, _) = opened(&server, &format!("{ID};1")).await;
    let mut said = Vec::new();
    for id in 1..=200 {
        stream.send(&envelope(id, ECHO, id));
        loop {
            let reply = stream.reply().await;
            if reply.control == 0 {
                break;
            }
            said.push((reply.id, reply.control, reply.credit));
        }
    }
    assert_eq!(said, [(0, 6, 64), (0, 6, 128), (0, 6, 192)]);
}

#[tokio::test]
async fn who_never_says_what_it_has_cannot_go_on_with_the_session() {
    let server = echo().max_reply_bytes(1).bind("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let reached = server.reached();
    let server = TestServer::of(server);
    let (_first, mut stream, _) = opened(&server, &format!("{ID};1")).await;
    for id in 1..=20 {
        stream.send(&envelope_of_size(id, ECHO, 10_000));
        while stream.reply().await.control != 0 {}
    }
    // The first answers are not there any more; the last ones are.
    assert!(reached.count(Bound::KeptAnswers) > 0);
    let (_second, mut stream, answer) = opened(&server, &format!("{ID};2;19")).await;
    assert_eq!(answer, "resumed;20");
    assert_eq!(stream.reply().await.id, 20);
    let (_third, _stream, answer) = opened(&server, &format!("{ID};3;1")).await;
    assert_eq!(answer, "new");
}

#[tokio::test]
async fn a_session_that_is_named_wrongly_is_refused() {
    let server = TestServer::start(echo()).await;
    let (_client, _stream, _) = opened(&server, &format!("{ID};1")).await;
    for (session, code) in [
        ("x", Code::InvalidArgument),
        (ID, Code::InvalidArgument),
        (
            "000102030405060708090a0b0c0d0e0f;2;-1",
            Code::InvalidArgument,
        ),
        // A later stream has asked for it.
        ("000102030405060708090a0b0c0d0e0f;1", Code::AlreadyExists),
        ("000102030405060708090a0b0c0d0e0f;1;0", Code::AlreadyExists),
    ] {
        let mut client = RawClient::connect(server.addr).await;
        let mut request = stream_request();
        request
            .headers_mut()
            .insert("gorums-session", session.parse().expect("ASCII"));
        let refusal = client.refusal(request).await;
        let status = refusal.headers()["grpc-status"].to_str().expect("ASCII");
        assert_eq!(status, (code as i32).to_string(), "{session}");
    }
    for session in [
        // Nobody knows of it.
        "00000000000000000000000000000001;1;0",
        // It has had no reply.
        "000102030405060708090a0b0c0d0e0f;2;1",
    ] {
        let (_client, mut stream, answer) = opened(&server, session).await;
        assert_eq!(answer, "new", "{session}");
        stream.call(1).await;
    }
}

#[tokio::test]
async fn who_says_to_have_what_was_never_sent_is_cut_off() {
    let server = TestServer::start(echo()).await;
    let (_client, mut stream, _) = opened(&server, &format!("{ID};1")).await;
    stream.call(1).await;
    let mut lie = envelope(0, "", 0);
    lie.payload = Default::default();
    (lie.control, lie.credit) = (6, 2);
    stream.send(&lie);
    let (code, message) = stream.status().await;
    assert_eq!(code, Code::Internal as i32);
    assert!(
        message.contains("more messages of the session"),
        "{message}"
    );
}
