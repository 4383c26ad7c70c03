//! Calls with any number of failed nodes, and many calls one after the other and at once.

mod common;

use std::collections::BTreeSet;

use common::{Counter, Number, TestServer, cluster, echo, number, within};
use gorums::call::{Quorum, QuorumCall};
use gorums::quorum::Threshold;
use gorums::{Client, Configuration, Outcome, QuorumErrorKind, Server, Status};

const ECHO: &str = "test.Test.Echo";
const PUT: &str = "test.Test.Put";

/// Three nodes, of which so many are down, and what the others count of one-way messages.
async fn three(failed: usize) -> (Vec<TestServer>, Configuration, Counter) {
    let put = Counter::new();
    let server = || {
        let put = put.clone();
        echo().one_way(PUT, move |_ctx, _: Number| {
            let put = put.clone();
            async move {
                put.add();
            }
        })
    };
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for index in 0..3 {
        if index < failed {
            // A port that nobody listens at any more.
            let server = Server::builder().bind("127.0.0.1:0").await;
            addresses.push(server.expect("a free port").local_addr().to_string());
        } else {
            let server = TestServer::start(server()).await;
            addresses.push(server.addr.to_string());
            servers.push(server);
        }
    }
    let all = Configuration::builder()
        .nodes(addresses)
        .connect()
        .expect("legal addresses");
    within(all.connected(3 - failed))
        .await
        .expect("none is closed");
    (servers, all, put)
}

#[tokio::test]
async fn a_quorum_call_bears_as_many_failed_nodes_as_its_rule_allows() {
    type Terminal = fn(QuorumCall<Number, Number>) -> Quorum<Number, Threshold>;
    let terminals: [(&str, Terminal, usize); 4] = [
        ("first", QuorumCall::first, 1),
        ("threshold", |call| call.threshold(2), 2),
        ("majority", QuorumCall::majority, 2),
        ("all", QuorumCall::all, 3),
    ];
    for failed in 0..=3 {
        let (_servers, all, _) = three(failed).await;
        for (name, terminal, needed) in terminals {
            let call = Client::new(&all).quorum_call(ECHO, number(7));
            let result = within(terminal(call)).await;
            if failed <= 3 - needed {
                assert_eq!(
                    result.expect("enough nodes answer").value,
                    7,
                    "{name}, {failed} failed"
                );
                continue;
            }
            let error = result.expect_err("too few nodes answer");
            assert_eq!(
                error.kind(),
                QuorumErrorKind::Incomplete,
                "{name}, {failed} failed"
            );
            assert_eq!(error.needed(), Some(needed));
            // It fails with the first node that is one too many, and tells those it knows of.
            assert!(
                error.failures().len() > 3 - needed && error.failures().len() <= failed,
                "{error}"
            );
            for failure in error.failures() {
                assert!(failure.node().get() as usize <= failed, "{error}");
                assert_eq!(failure.outcome(), Outcome::NotSent);
            }
            // Also where the call failed before it knew that the last one is down, too.
            if failed == 3 {
                assert_eq!(error.outcome(), Outcome::NotSent, "{name}: {error}");
            }
        }
        // With nothing to stop at, every failed node is named.
        let responses = Client::new(&all)
            .quorum_call::<_, Number>(ECHO, number(7))
            .responses();
        let responses = within(responses.by_node()).await;
        assert_eq!(
            responses
                .values()
                .filter(|response| response.is_err())
                .count(),
            failed
        );
    }
}

#[tokio::test]
async fn a_multicast_fails_with_every_node_that_did_not_take_it() {
    for failed in 0..=3 {
        let (_servers, all, put) = three(failed).await;
        let client = Client::new(&all);
        let result = within(client.multicast(PUT, number(1)).send()).await;
        if failed == 0 {
            result.expect("all nodes took it");
        } else {
            let error = result.expect_err("some nodes are down");
            assert_eq!(error.kind(), QuorumErrorKind::SendFailure);
            assert_eq!(
                (error.failures().len(), error.replies()),
                (failed, 3 - failed)
            );
            let at_nobody = failed == 3;
            assert_eq!(error.outcome() == Outcome::NotSent, at_nobody, "{error}");
        }
        // One that nobody waits for is taken, whatever becomes of it.
        assert!(client.multicast(PUT, number(1)).detach().is_empty());
        put.reached(2 * (3 - failed as u64)).await;
    }
}

#[tokio::test]
async fn detached_multicasts_leave_nothing_behind() {
    let (_servers, all, put) = three(0).await;
    for value in 0..1_000 {
        assert!(
            Client::new(&all)
                .multicast(PUT, number(value))
                .detach()
                .is_empty()
        );
    }
    put.reached(3_000).await;
    assert!(all.iter().all(|node| node.pending() == 0));
}

#[tokio::test]
async fn calls_one_after_the_other_lose_no_reply() {
    let (_servers, all) = cluster(3, |_| echo()).await;
    let client = Client::new(&all);
    for value in 0..500 {
        let call = || client.quorum_call::<_, Number>(ECHO, number(value));
        assert_eq!(
            within(call().majority()).await.expect("a majority").value,
            value
        );
        assert_eq!(within(call().all()).await.expect("all").value, value);
        assert_eq!(within(call().first()).await.expect("one").value, value);
        assert_eq!(within(call().all().replies()).await.expect("all").len(), 3);
    }
}

#[tokio::test]
async fn calls_at_once_have_their_own_replies() {
    let (_servers, all) = cluster(3, |_| echo()).await;
    let client = Client::new(&all);
    let rpcs: Vec<_> = (0..1_000)
        .map(|value| client.rpc::<_, Number>(&all[0], ECHO, number(value)).send())
        .collect();
    let first = client
        .quorum_call::<_, Number>(ECHO, number(5_000))
        .majority();
    let second = client.quorum_call::<_, Number>(ECHO, number(6_000)).all();
    assert_eq!(within(second).await.expect("all").value, 6_000);
    assert_eq!(within(first).await.expect("a majority").value, 5_000);
    let mut seen = BTreeSet::new();
    for (value, rpc) in rpcs.into_iter().enumerate() {
        let reply = within(rpc).await.expect("a reply").value;
        assert_eq!(reply, value as u64);
        seen.insert(reply);
    }
    assert_eq!(seen.len(), 1_000);
}

#[tokio::test]
async fn calls_at_once_need_no_room_to_wait() {
    let smallest = || echo().max_waiting_bytes(0).max_reply_bytes(0);
    let (_servers, all) = cluster(1, |_| smallest()).await;
    let client = Client::new(&all);
    let calls: Vec<_> = (0..16)
        .map(|value| client.rpc::<_, Number>(&all[0], ECHO, number(value)).send())
        .collect();
    for (value, call) in calls.into_iter().enumerate() {
        assert_eq!(within(call).await.expect("a reply").value, value as u64);
    }
}

#[tokio::test]
async fn a_quorum_function_that_is_not_given_all_replies_has_not_refused_them() {
    for failed in 0..=3 {
        let (_servers, all, _) = three(failed).await;
        let client = Client::new(&all);
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.quorum_fn(|_, _| None::<()>)).await;
        let error = error.expect_err("it is never content");
        let expected = match failed {
            0 => QuorumErrorKind::NoQuorum,
            _ => QuorumErrorKind::Incomplete,
        };
        assert_eq!((error.kind(), error.replies()), (expected, 3 - failed));
    }
}

#[tokio::test]
async fn a_call_fails_though_a_node_never_answers() {
    let (_servers, all) = cluster(3, |index| {
        Server::builder().unary(ECHO, move |_ctx, request: Number| async move {
            match index {
                0 => std::future::pending().await,
                1 if request.value == 1 => Ok(request),
                _ => Err(Status::aborted("unwilling")),
            }
        })
    })
    .await;
    let client = Client::new(&all);
    let call = |value| client.quorum_call::<_, Number>(ECHO, number(value));
    // No deadline: only that it cannot succeed any more ends them.
    for (error, needed, replies) in [
        (within(call(0).majority()).await, 2, 0),
        (within(call(1).all()).await, 3, 1),
        (within(call(0).matching(2, |reply| reply.value)).await, 2, 0),
        (within(call(0).correctable(2).done()).await, 2, 0),
    ] {
        let error = error.expect_err("the silent node alone is not enough");
        assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
        assert_eq!(error.needed(), Some(needed));
        assert!(error.replies() <= replies, "{error}");
        assert!(error.failure(1.into()).is_none(), "{error}");
        assert!(!error.failures().is_empty());
    }
}
