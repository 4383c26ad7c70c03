//! A server with more to do than it can sheds the least of it, and its clients give it the pause that
//! it asks for.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, number, within};
use gorums::bounds::Bound;
use gorums::call::{AdaptiveLimit, WhilePaused};
use gorums::server::{Priority, Shedding};
use gorums::{
    Client, Code, Configuration, NodeError, Outcome, Server, ServerBuilder, ServerCtx, ServerError,
    Status,
};
use memory::{Network, settle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

const LOW: &str = "test.Work.Low";
const NORMAL: &str = "test.Work.Normal";
const HIGH: &str = "test.Work.High";
const NOTE: &str = "test.Work.Note";
/// Refuses, and says when to come back.
const BUSY: &str = "test.Busy.Busy";
const ECHO: &str = "test.Test.Echo";

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How long each request needs, with its turn.
const NEEDED: Duration = Duration::from_millis(50);

/// The requests that were run, in this order.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<u64>>>);

impl Ran {
    fn add(&self, value: u64) {
        self.0.lock().expect("no panic").push(value);
    }

    fn values(&self) -> Vec<u64> {
        self.0.lock().expect("no panic").clone()
    }
}

/// A server that takes its time.
fn working(ran: &Ran) -> ServerBuilder {
    let mut builder = Server::builder();
    for method in [LOW, NORMAL, HIGH] {
        let ran = ran.clone();
        builder = builder.unary(method, move |_: ServerCtx, request: Number| {
            let ran = ran.clone();
            async move {
                ran.add(request.value);
                tokio::time::sleep(NEEDED).await;
                Ok::<_, Status>(request)
            }
        });
    }
    let ran = ran.clone();
    builder.one_way(NOTE, move |_: ServerCtx, request: Number| {
        let ran = ran.clone();
        async move {
            ran.add(request.value);
            tokio::time::sleep(NEEDED).await;
        }
    })
}

/// The same, that sheds by priority.
fn shedding(ran: &Ran) -> ServerBuilder {
    working(ran)
        .shed(Shedding::default())
        .priority("test.Work", Priority::Low)
        .priority(HIGH, Priority::High)
        .priority(NORMAL, Priority::Normal)
}

async fn connected(network: &Network, addresses: &[&str]) -> Configuration {
    let nodes = Configuration::builder()
        .transport(network.clone())
        .nodes(addresses.iter().copied())
        .connect()
        .expect("legal");
    within(nodes.connected(addresses.len()))
        .await
        .expect("none is closed");
    nodes
}

/// What became of a call, and how long that took.
struct Ended {
    method: &'static str,
    value: u64,
    result: Result<Number, NodeError>,
    took: Duration,
}

/// Calls that are made one after the other, each at its time. What becomes of them is in the order
/// in which it was told.
async fn calls(
    network: &Network,
    every: Duration,
    count: u64,
    method: impl Fn(u64) -> &'static str,
) -> Vec<Ended> {
    let client = Client::new(connected(network, &["a:1"]).await);
    let ended = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for value in 0..count {
        let method = method(value);
        let node = &client.configuration()[0];
        let call = client.rpc::<_, Number>(node, method, number(value)).send();
        let (began, ended) = (Instant::now(), Arc::clone(&ended));
        tasks.spawn(async move {
            let result = call.await;
            let took = began.elapsed();
            ended.lock().expect("no panic").push(Ended {
                method,
                value,
                result,
                took,
            });
        });
        tokio::time::sleep(every).await;
    }
    within(tasks.join_all()).await;
    let mut ended = ended.lock().expect("no panic");
    std::mem::take(&mut *ended)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shed_where_nobody_asked_for_it() {
    let network = Network::new();
    let ran = Ran::default();
    let builder = working(&ran).transport(network.clone());
    let _server = TestServer::start_at(builder, "a:1").await;
    let ended = calls(&network, Duration::ZERO, 100, |_| LOW).await;
    assert!(ended.iter().all(|ended| ended.result.is_ok()));
    assert_eq!(ran.values(), (0..100).collect::<Vec<_>>());
}

/// A hundred requests that come at once. All have waited for longer than any may when there has been
/// overload for long enough.
#[tokio::test(start_paused = true)]
async fn what_is_shed_is_answered_in_its_place_and_says_when_to_come_back() {
    let network = Network::new();
    let ran = Ran::default();
    let builder = shedding(&ran).transport(network.clone());
    let server = builder.bind("a:1").await.expect("it is free");
    let reached = server.reached();
    let _server = TestServer::of(server);
    let ended = calls(&network, Duration::ZERO, 100, |_| NORMAL).await;
    let answered: Vec<_> = ended.iter().map(|ended| ended.value).collect();
    assert_eq!(answered, (0..100).collect::<Vec<_>>());
    // Each waits 50 ms longer than the one before: 100 ms since the third, and for 500 ms with the
    // thirteenth.
    assert_eq!(ran.values(), (0..12).collect::<Vec<_>>());
    for ended in &ended {
        match &ended.result {
            Ok(reply) => assert_eq!(reply.value, ended.value),
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::Refused);
                assert_eq!(error.code(), Code::ResourceExhausted);
                assert_eq!(error.status().retry_delay(), Some(12 * NEEDED));
            }
        }
    }
    assert_eq!(reached.count(Bound::Shed), 88);
}

/// Half as much more than can be done: a third of it is of high priority, and the others are not.
#[tokio::test(start_paused = true)]
async fn the_least_important_is_shed_first_and_the_others_go_on_as_before() {
    let network = Network::new();
    let ran = Ran::default();
    let builder = shedding(&ran).transport(network.clone());
    let _server = TestServer::start_at(builder, "a:1").await;
    let method = |value: u64| if value.is_multiple_of(3) { HIGH } else { LOW };
    let ended = calls(&network, NEEDED * 2 / 3, 600, method).await;
    let of = |method: &str| -> Vec<&Ended> {
        let ended = ended.iter();
        ended.filter(|ended| ended.method == method).collect()
    };
    let failed = |method: &str| {
        let ended = of(method).into_iter();
        ended.filter(|ended| ended.result.is_err()).count()
    };
    assert_eq!((of(HIGH).len(), failed(HIGH)), (200, 0));
    assert!(failed(LOW) > 100, "{}", failed(LOW));
    // They would wait for ten seconds at the end.
    let longest = of(HIGH).iter().map(|ended| ended.took).max();
    assert!(longest < Some(SECOND), "{longest:?}");
    let ran = ran.values();
    assert!(ran.is_sorted(), "in the order in which they were called");
}

#[tokio::test(start_paused = true)]
async fn one_way_messages_are_not_shed() {
    let network = Network::new();
    let ran = Ran::default();
    let builder = shedding(&ran).transport(network.clone());
    let _server = TestServer::start_at(builder, "a:1").await;
    let client = Client::new(connected(&network, &["a:1"]).await);
    for value in 0..100 {
        let sent = client.multicast(NOTE, number(value)).detach();
        assert!(sent.is_empty());
    }
    let last = client.rpc::<_, Number>(&client.configuration()[0], HIGH, number(100));
    let shed = within(last).await.expect_err("it has waited for 5 s");
    assert_eq!(shed.status().retry_delay(), Some(5 * SECOND));
    assert_eq!(ran.values(), (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_in_the_time_that_is_left_is_shed_first() {
    let network = Network::new();
    let ran = Ran::default();
    let builder = shedding(&ran).transport(network.clone());
    let _server = TestServer::start_at(builder, "a:1").await;
    let client = Client::new(connected(&network, &["a:1"]).await);
    let node = &client.configuration()[0];
    let call = |method, value: u64| client.rpc::<_, Number>(node, method, number(value));
    // Until the 12th there is no overload. The last two are looked at after 600 ms.
    let others: Vec<_> = (0..12).map(|value| call(NORMAL, value).send()).collect();
    tokio::time::sleep(450 * MS).await;
    let hopeless = call(NORMAL, 12).timeout(199 * MS).send();
    let in_time = call(NORMAL, 13).timeout(201 * MS).send();
    let error = within(hopeless).await.expect_err("49 ms are left");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    within(in_time).await.expect("51 ms are left");
    for other in others {
        within(other).await.expect("it was before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_priority_of_nothing_is_an_error() {
    for name in ["test.Work.Lo", "test.Other", "test.Work.Low.x", ""] {
        let network = Network::new();
        let builder = working(&Ran::default()).transport(network);
        let error = builder.priority(name, Priority::High).bind("a:1").await;
        let error = error.expect_err("there is none");
        assert!(
            matches!(&error, ServerError::UnknownPriority { name: of } if of == name),
            "{error}"
        );
    }
}

/// What came of calls.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    done: u32,
    late: u32,
    not_sent: u32,
}

/// Many callers, who each give up after 100 ms, call a node that can do four things of 10 ms at a time.
/// How few calls it may have, by the limit, was noted after a while; and what came of the calls since.
async fn too_many_callers(limit: Option<&AdaptiveLimit>) -> Load {
    let network = Network::new();
    let seats = Arc::new(Semaphore::new(4));
    let server = Server::builder().transport(network.clone()).unary(
        NORMAL,
        move |ctx: ServerCtx, request: Number| {
            let seats = Arc::clone(&seats);
            ctx.release();
            async move {
                let _seat = seats.acquire().await.expect("open");
                tokio::time::sleep(10 * MS).await;
                Ok::<_, Status>(request)
            }
        },
    );
    let _server = TestServer::start_at(server, "a:1").await;
    let builder = Configuration::builder().transport(network).nodes(["a:1"]);
    let builder = match limit {
        Some(limit) => builder.interceptor(limit.clone()),
        None => builder,
    };
    let all = builder.connect().expect("legal");
    within(all.connected(1)).await.expect("it is up");
    let client = Client::new(&all);
    let (began, counted) = (Instant::now(), 5 * SECOND);
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        callers.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < 2 * counted {
                let node = &client.configuration()[0];
                let call = client.rpc::<_, Number>(node, NORMAL, number(1));
                let result = call.timeout(100 * MS).await;
                let (count, pause) = match result {
                    Ok(_) => (&mut load.done, false),
                    Err(error) if error.outcome() == Outcome::NotSent => (&mut load.not_sent, true),
                    Err(_) => (&mut load.late, false),
                };
                *count += u32::from(began.elapsed() > counted);
                if pause {
                    tokio::time::sleep(10 * MS).await;
                }
            }
            load
        });
    }
    let mut sum = Load::default();
    while let Some(load) = callers.join_next().await {
        let load = load.expect("no panic");
        sum.done += load.done;
        sum.late += load.late;
        sum.not_sent += load.not_sent;
    }
    let reached = all.reached().count(Bound::AdaptiveLimit);
    assert_eq!(reached > 0, limit.is_some(), "{reached}");
    sum
}

#[tokio::test(start_paused = true)]
async fn clients_that_limit_themselves_ask_a_node_no_more_than_it_can_do() {
    let without = too_many_callers(None).await;
    let limit = AdaptiveLimit::new(1..=1000).slower_than(50 * MS);
    let with = too_many_callers(Some(&limit)).await;
    println!(
        "{without:?} without, {with:?} with a limit of {}",
        limit.of(1)
    );
    // 20 of these take 50 ms.
    assert!((4..=40).contains(&limit.of(1)), "{}", limit.of(1));
    // It does 400 in a second, for five seconds.
    assert!(with.done >= 1900, "{with:?}");
    assert!(with.late * 10 < with.done, "{with:?}");
    assert!(without.late > without.done, "{without:?}");
}

/// Asks for a pause of a second, and counts how often it was called; and echoes.
fn busy(called: &Counter) -> ServerBuilder {
    let called = called.clone();
    common::echo().unary(BUSY, move |_: ServerCtx, _: Number| {
        called.add();
        let status = Status::resource_exhausted("busy").with_retry_delay(SECOND);
        std::future::ready(Err::<Number, _>(status))
    })
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_asked_for_a_pause_is_not_called_before_it_is_over() {
    let network = Network::new();
    let called = Counter::new();
    let builder = busy(&called).transport(network.clone());
    let _server = TestServer::start_at(builder, "a:1").await;
    let client = Client::new(connected(&network, &["a:1"]).await);
    let node = &client.configuration()[0];
    let call = || client.rpc::<_, Number>(node, BUSY, number(1)).into_future();
    let began = Instant::now();
    let refused = within(call()).await.expect_err("it is busy");
    assert_eq!(refused.outcome(), Outcome::Refused);
    let paused = within(call()).await.expect_err("it has asked for a pause");
    assert_eq!(paused.outcome(), Outcome::NotSent);
    assert_eq!(paused.code(), Code::ResourceExhausted);
    let left = paused.status().retry_delay().expect("it says for how long");
    assert!(SECOND <= left && left <= SECOND * 3 / 2, "{left:?}");
    assert_eq!(client.configuration().reached().count(Bound::Pause), 1);
    // Other methods are called, and one-way messages are sent.
    let echo = client.rpc::<_, Number>(node, ECHO, number(7));
    assert_eq!(within(echo).await.expect("it is up").value, 7);
    tokio::time::sleep(left - MS).await;
    assert_eq!(
        within(call()).await.expect_err("not yet").outcome(),
        Outcome::NotSent
    );
    assert_eq!(called.get(), 1);
    tokio::time::sleep(2 * MS).await;
    let again = within(call()).await.expect_err("it is busy still");
    assert_eq!((again.outcome(), called.get()), (Outcome::Refused, 2));
    assert!(began.elapsed() >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_end_of_a_pause_keeps_its_place() {
    let network = Network::new();
    let (called, ran) = (Counter::new(), Ran::default());
    let notes = ran.clone();
    let builder = busy(&called).one_way(NOTE, move |_: ServerCtx, request: Number| {
        notes.add(request.value);
        std::future::ready(())
    });
    let _server = TestServer::start_at(builder.transport(network.clone()), "a:1").await;
    let client = Client::new(connected(&network, &["a:1"]).await);
    let node = &client.configuration()[0];
    let call = || client.rpc::<_, Number>(node, BUSY, number(1));
    let note = |value: u64| drop(client.unicast(node, NOTE, number(value)).detach());
    within(call()).await.expect_err("it is busy");
    note(1);
    settle().await;
    assert_eq!(ran.values(), [1], "a pause alone holds nothing up");
    let began = Instant::now();
    let waits = call().while_paused(WhilePaused::Wait).send();
    note(2);
    let too_late = call().while_paused(WhilePaused::Wait).timeout(SECOND / 2);
    let error = within(too_late).await.expect_err("the pause is longer");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::DeadlineExceeded)
    );
    assert_eq!((called.get(), ran.values()), (1, vec![1]));
    let refused = within(waits).await.expect_err("it is busy");
    assert_eq!((refused.outcome(), called.get()), (Outcome::Refused, 2));
    let waited = began.elapsed();
    assert!(SECOND <= waited && waited < 2 * SECOND, "{waited:?}");
    settle().await;
    assert_eq!(ran.values(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_call_goes_on_with_the_nodes_that_want_no_pause() {
    let network = Network::new();
    let called = Counter::new();
    let mut servers = Vec::new();
    for address in ["a:1", "b:1", "c:1"] {
        let builder = match address {
            "c:1" => busy(&called),
            _ => Server::builder().unary(BUSY, |_: ServerCtx, request: Number| async move {
                Ok::<_, Status>(request)
            }),
        };
        servers.push(TestServer::start_at(builder.transport(network.clone()), address).await);
    }
    let client = Client::new(connected(&network, &["a:1", "b:1", "c:1"]).await);
    let call = || client.quorum_call::<_, Number>(BUSY, number(1));
    // It may have its majority before the third has answered, which counts all the same.
    within(call().majority()).await.expect("two of three");
    settle().await;
    for _ in 0..10 {
        within(call().majority()).await.expect("two of three");
        let error = within(call().all()).await.expect_err("one wants a pause");
        let failures = error.failures();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].outcome(), Outcome::NotSent);
    }
    assert_eq!(called.get(), 1);
}

/// One of ten clients asks for as much as it can, and is held back, or loses its connection where it
/// makes the server hold too much. The others do not notice.
#[tokio::test(start_paused = true)]
async fn a_greedy_client_has_no_more_than_its_share() {
    const MIB: usize = 1024 * 1024;
    for (all_may_hold, is_cut) in [(64 * MIB, false), (2 * MIB, true)] {
        let network = Network::new();
        let builder = working(&Ran::default()).transport(network.clone());
        let server = builder.max_buffered_bytes(all_may_hold).bind("a:1").await;
        let server = server.expect("it is free");
        let reached = server.reached();
        let _server = TestServer::of(server);
        let greedy = Client::new(connected(&network, &["a:1"]).await);
        let mut others = Vec::new();
        for _ in 0..9 {
            others.push(Client::new(connected(&network, &["a:1"]).await));
        }
        let large = Number {
            value: 1,
            payload: vec![7; 64 * 1024].into(),
        };
        let asked = greedy.configuration().clone();
        let asking = tokio::spawn(async move {
            loop {
                let refused = greedy.multicast(NOTE, large.clone()).detach();
                // Held back: its own outbox is full.
                if !refused.is_empty() {
                    tokio::time::sleep(MS).await;
                }
            }
        });
        let mut calls = tokio::task::JoinSet::new();
        for client in others {
            calls.spawn(async move {
                for value in 0..40 {
                    let node = &client.configuration()[0];
                    let began = Instant::now();
                    let call = client.rpc::<_, Number>(node, NORMAL, number(value));
                    call.await.expect("it does nothing wrong");
                    assert!(began.elapsed() <= NEEDED + MS, "{:?}", began.elapsed());
                }
            });
        }
        within(calls.join_all()).await;
        asking.abort();
        assert_eq!(
            reached.count(Bound::BufferedBytes) > 0,
            is_cut,
            "{reached:?}"
        );
        assert!(asked.reached().count(Bound::Outbox) > 0);
        assert_eq!(
            reached.count(Bound::WaitingBytes) > 0,
            !is_cut,
            "{reached:?}"
        );
    }
}
