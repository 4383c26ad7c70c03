//! What becomes of a call when a part of it goes wrong: it ends, with the truth, and holds up
//! nobody.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use common::{Counter, Number, TestServer, cluster, connect, echo, number, within};
use gorums::quorum::Majority;
use gorums::{
    Client, Code, Configuration, Outcome, QuorumErrorKind, Server, ServerBuilder, ServerCtx, Status,
};
use memory::{Network, settle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const ECHO: &str = "test.Test.Echo";
const ASK: &str = "test.Test.Ask";
const FAIL: &str = "test.Test.Fail";
const NOTE: &str = "test.Test.Note";
const RELAY: &str = "test.Test.Relay";

const NODE: &str = "node:1";
/// A payload that HTTP/2 passes on by reference: it is written when the socket takes it.
const LARGE: usize = 1024;

fn large(value: u64) -> Number {
    Number {
        value,
        payload: vec![0; LARGE].into(),
    }
}

/// What a server was asked.
type Log = Arc<Mutex<Vec<u64>>>;

fn taken(log: &Log) -> Vec<u64> {
    std::mem::take(&mut *log.lock().expect("no handler panics with it"))
}

fn noting(log: &Log, network: &Network) -> ServerBuilder {
    let log = Arc::clone(log);
    let note = move |value| log.lock().expect("no handler panics with it").push(value);
    Server::builder()
        .transport(network.clone())
        .unary(ECHO, move |_ctx, request: Number| {
            note(request.value);
            async move { Ok::<_, Status>(number(request.value)) }
        })
        .one_way(NOTE, |_ctx, _: Number| std::future::ready(()))
}

#[tokio::test]
async fn a_call_that_cannot_succeed_any_more_waits_for_nobody() {
    // Two of three refuse, and the third never answers: whoever waits for it waits for ever.
    let (_servers, all) = cluster(3, |index| {
        Server::builder().unary(ASK, move |_ctx, _: Number| async move {
            if index < 2 {
                return Err(Status::aborted("no"));
            }
            std::future::pending::<Result<Number, Status>>().await
        })
    })
    .await;
    let call = || Client::new(&all).quorum_call::<_, Number>(ASK, number(0));
    for (name, result, refusals) in [
        ("majority", within(call().majority()).await, 2..=2),
        ("threshold", within(call().threshold(2)).await, 2..=2),
        ("quorum", within(call().quorum(Majority)).await, 2..=2),
        (
            "matching",
            within(call().matching(2, |r| r.value)).await,
            2..=2,
        ),
        (
            "correctable",
            within(call().correctable(2).done()).await,
            2..=2,
        ),
        ("all", within(call().all()).await, 1..=2),
    ] {
        let error = result.expect_err(name);
        assert_eq!(error.kind(), QuorumErrorKind::Incomplete, "{name}");
        assert!(
            refusals.contains(&error.failures().len()),
            "{name}: {error}"
        );
        for failure in error.failures() {
            assert_eq!(
                (failure.outcome(), failure.code()),
                (Outcome::Refused, Code::Aborted)
            );
            assert!(failure.node().get() < 3, "{name}: {error}");
        }
    }
    assert!(all.iter().all(|node| node.pending() == 0));
}

#[tokio::test]
async fn an_error_that_is_here_comes_before_a_cancellation() {
    let server = echo().unary(FAIL, |_ctx, _: Number| async move {
        Err::<Number, _>(Status::not_found("no"))
    });
    let server = TestServer::start(server).await;
    let all = connect(std::slice::from_ref(&server));
    let client = Client::new(&all);
    let token = CancellationToken::new();
    let rpc = client
        .rpc::<_, Number>(&all[0], FAIL, number(1))
        .cancelled_by(&token)
        .send();
    let quorum = client
        .quorum_call::<_, Number>(FAIL, number(2))
        .cancelled_by(&token)
        .all();
    // Replies come in order: when this one is here, the others are.
    within(client.rpc::<_, Number>(&all[0], ECHO, number(3)))
        .await
        .expect("up");
    token.cancel();
    let error = within(rpc).await.expect_err("refused");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Refused, Code::NotFound)
    );
    let error = within(quorum).await.expect_err("refused");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert_eq!(error.failures()[0].code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_with_a_full_outbox_hangs_nobody() {
    for comes_back in [true, false] {
        let (network, log) = (Network::new(), Log::default());
        let server = TestServer::start_at(noting(&log, &network), NODE).await;
        let all = Configuration::builder()
            .transport(network.clone())
            .nodes([NODE])
            .outbox(10, usize::MAX)
            .connect()
            .expect("a legal address");
        within(all.connected(1)).await.expect("none is closed");
        settle().await;
        let client = Client::new(&all);
        let send = |value| client.rpc::<_, Number>(&all[0], ECHO, large(value)).send();
        network.stall(NODE);
        // The connection takes this one, and cannot write it.
        let with_the_connection = send(0);
        settle().await;
        let queued: Vec<_> = (1..=10).map(send).collect();
        let refused = within(send(11)).await.expect_err("full");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let flush = tokio::spawn({
            let all = all.clone();
            async move { all.flush().await }
        });
        settle().await;
        assert!(!flush.is_finished());
        if !comes_back {
            server.stop().await;
        }
        network.cut(NODE);
        let lost = within(with_the_connection).await.expect_err("it was cut");
        assert_eq!(lost.outcome(), Outcome::Unknown);
        for (call, value) in queued.into_iter().zip(1..) {
            match within(call).await {
                Ok(reply) => assert!(comes_back && reply.value == value),
                Err(error) => assert!(
                    !comes_back && error.outcome() == Outcome::NotSent,
                    "{error}"
                ),
            }
        }
        within(flush).await.expect("no panic");
        assert_eq!(all[0].pending(), 0);
        let expected = if comes_back {
            Vec::from_iter(1..=10)
        } else {
            Vec::new()
        };
        assert_eq!(taken(&log), expected);
        // There is room again.
        let after = within(send(12)).await;
        assert_eq!(
            after.map(|reply| reply.value).map_err(|error| error.code()),
            match comes_back {
                true => Ok(12),
                false => Err(Code::Unavailable),
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_race_a_break_end_and_none_runs_twice() {
    const CALLS: u64 = 10;
    let (network, log) = (Network::new(), Log::default());
    // Odd requests are answered only once the connection they came on is gone.
    let open = Arc::new(watch::Sender::new(true));
    let builder = {
        let (log, open) = (Arc::clone(&log), Arc::clone(&open));
        Server::builder().transport(network.clone()).unary(
            ECHO,
            move |ctx: ServerCtx, request: Number| {
                log.lock().expect("no panic").push(request.value);
                ctx.release();
                let mut open = open.subscribe();
                async move {
                    if request.value % 2 == 1 {
                        let opened = open.wait_for(|open| *open).await;
                        opened.map_err(|_| Status::internal("the test is over"))?;
                    }
                    Ok::<_, Status>(number(request.value))
                }
            },
        )
    };
    let _server = TestServer::start_at(builder, NODE).await;
    let all = Configuration::builder()
        .transport(network.clone())
        .nodes([NODE])
        .connect()
        .expect("a legal address");
    let client = Client::new(&all);
    let send = |value| client.rpc::<_, Number>(&all[0], ECHO, large(value)).send();
    let mut ends: HashMap<(Option<Outcome>, usize), u64> = HashMap::new();
    // The break finds the calls further and further on their way.
    for bytes in (0..12 * LARGE).step_by(LARGE / 10) {
        within(send(0)).await.expect("up");
        settle().await;
        taken(&log);
        open.send_replace(false);
        network.allow(NODE, Some(bytes));
        let mut calls: Vec<_> = (1..=CALLS / 2).map(send).collect();
        settle().await;
        calls.extend((CALLS / 2 + 1..=CALLS).map(send));
        settle().await;
        network.cut(NODE);
        open.send_replace(true);
        let mut results = Vec::new();
        for call in calls {
            results.push(within(call).await.map_err(|error| error.outcome()));
        }
        settle().await;
        let log = taken(&log);
        for (result, value) in results.into_iter().zip(1..) {
            let runs = log.iter().filter(|run| **run == value).count();
            match &result {
                Ok(reply) => assert_eq!((reply.value, runs), (value, 1)),
                Err(outcome) => assert!(*outcome == Outcome::Unknown && runs <= 1, "{runs} runs"),
            }
            *ends.entry((result.err(), runs)).or_default() += 1;
        }
    }
    // Sent in part, sent and handled, and answered on one connection or the other: all were there.
    let unknown = Some(Outcome::Unknown);
    for end in [(None, 1), (unknown, 0), (unknown, 1)] {
        assert!(ends.contains_key(&end), "{ends:?}");
    }
    assert_eq!(all[0].pending(), 0);
}

#[tokio::test]
async fn handlers_that_hold_their_turn_call_all_replicas_their_own_among_them() {
    let configuration: Arc<OnceLock<Configuration>> = Arc::default();
    let noted = Counter::new();
    let (_servers, all) = cluster(3, |_| {
        let (configuration, noted) = (Arc::clone(&configuration), noted.clone());
        echo()
            .one_way(NOTE, move |_ctx, _: Number| {
                noted.add();
                std::future::ready(())
            })
            .unary(RELAY, move |_ctx: ServerCtx, request: Number| {
                let configuration = Arc::clone(&configuration);
                async move {
                    let all = configuration.get().expect("set before the first call");
                    let client = Client::new(all);
                    client.multicast(NOTE, request.clone()).send().await?;
                    let call = || client.quorum_call::<_, Number>(ECHO, request.clone());
                    let first = call().majority().await?.value;
                    let second = call().all().await?.value;
                    let mut sum = first + second;
                    let mut responses = call().responses();
                    while let Some(response) = responses.next().await {
                        sum += response.into_result()?.value;
                    }
                    Ok::<_, Status>(number(sum))
                }
            })
    })
    .await;
    // Apart from the one that the test calls with, as a replica's own is.
    let of_the_replicas = Configuration::builder()
        .nodes(all.iter().map(|node| node.address().to_owned()))
        .connect()
        .expect("legal addresses");
    configuration.set(of_the_replicas).expect("set once");
    let call = Client::new(&all).quorum_call::<_, Number>(RELAY, number(7));
    let replies = within(call.all().replies()).await.expect("all are up");
    assert_eq!(replies.len(), 3);
    // Twice from the quorums, and once from each of three replicas.
    assert!(replies.values().all(|reply| reply.value == 5 * 7));
    noted.reached(9).await;
    assert_eq!(noted.get(), 9);
}

#[tokio::test]
async fn one_way_messages_arrive_once_at_one_three_and_nine_nodes() {
    for nodes in [1, 3, 9] {
        let arrived: Vec<Log> = (0..nodes).map(|_| Log::default()).collect();
        let handled = Counter::new();
        let (_servers, all) = cluster(nodes, |index| {
            let (arrived, handled) = (Arc::clone(&arrived[index]), handled.clone());
            Server::builder().one_way(NOTE, move |_ctx, request: Number| {
                arrived.lock().expect("no panic").push(request.value);
                handled.add();
                std::future::ready(())
            })
        })
        .await;
        let client = Client::new(&all);
        for value in 0..50 {
            within(client.multicast(NOTE, number(4 * value)))
                .await
                .expect("up");
            assert!(
                client
                    .multicast(NOTE, number(4 * value + 1))
                    .detach()
                    .is_empty()
            );
            for node in &all {
                within(client.unicast(node, NOTE, number(4 * value + 2)))
                    .await
                    .expect("up");
                assert!(
                    client
                        .unicast(node, NOTE, number(4 * value + 3))
                        .detach()
                        .is_empty()
                );
            }
        }
        // Nobody is left to send these to.
        let to_nobody = || {
            client
                .multicast(NOTE, number(1000))
                .map_request(|_, _| None)
        };
        within(to_nobody()).await.expect("nothing fails");
        assert!(to_nobody().detach().is_empty());
        within(all.flush()).await;
        handled.reached(200 * nodes as u64).await;
        for arrived in &arrived {
            assert_eq!(taken(arrived), Vec::from_iter(0..200), "{nodes} nodes");
        }
    }
}
