//! Which reply a call returns, what becomes of one that is not what was expected, and calls of
//! nobody.

mod common;

use std::sync::Arc;

use common::{Number, TestServer, cluster, echo, number, within};
use gorums::{Client, Code, Outcome, QuorumErrorKind, Server, Status};
use tokio::sync::Semaphore;

const ECHO: &str = "test.Test.Echo";
const GATED: &str = "test.Test.Gated";

#[tokio::test]
async fn the_reply_of_a_call_is_the_one_that_came_first() {
    let gates: [Arc<Semaphore>; 4] = std::array::from_fn(|_| Arc::new(Semaphore::new(0)));
    let (_servers, all) = cluster(4, |index| {
        let gate = Arc::clone(&gates[index]);
        echo().unary(GATED, move |_ctx, _: Number| {
            let gate = Arc::clone(&gate);
            async move {
                let open = gate.acquire().await;
                open.expect("never closed").forget();
                Ok::<_, Status>(number(index as u64 + 1))
            }
        })
    })
    .await;
    let client = Client::new(&all);
    let call = || client.quorum_call::<_, Number>(GATED, number(0));
    for first in 0..4 {
        let calls = [
            call().first(),
            call().majority(),
            call().threshold(2),
            call().all(),
        ];
        for gate in (0..4).map(|turn| (first + turn) % 4) {
            gates[gate].add_permits(calls.len());
            // Replies of a connection come in order: when this one is here, those before are, too.
            let probe = client.rpc::<_, Number>(&all[gate], ECHO, number(0));
            within(probe).await.expect("up");
        }
        for call in calls {
            let reply = within(call).await.expect("all nodes answer");
            assert_eq!(reply.value, first as u64 + 1);
        }
    }
}

#[tokio::test]
async fn a_reply_of_another_type_is_a_failure_of_its_node() {
    let (_servers, all) = cluster(3, |index| match index {
        1 => Server::builder().unary(ECHO, |_ctx, _: Number| async move {
            Ok::<_, Status>("two".to_owned())
        }),
        _ => echo(),
    })
    .await;
    let client = Client::new(&all);
    let error = within(client.rpc::<_, Number>(&all[1], ECHO, number(1))).await;
    let error = error.expect_err("text is no number");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Internal, Outcome::Unknown)
    );
    assert!(error.to_string().contains("cannot be decoded"), "{error}");
    let call = || client.quorum_call::<_, Number>(ECHO, number(1));
    within(call().majority().replies())
        .await
        .expect("two are enough");
    let error = within(call().all().replies())
        .await
        .expect_err("all are needed");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    let failure = error.failure(2.into()).expect("it is named");
    assert_eq!(failure.code(), Code::Internal);
}

#[tokio::test]
async fn calls_of_no_nodes_are_impossible() {
    let server = TestServer::start(echo()).await;
    let all = common::connect(std::slice::from_ref(&server));
    let client = Client::new(all.without(1));
    let call = || client.quorum_call::<Number, Number>(ECHO, number(1));
    for result in [
        within(call().first()).await,
        within(call().majority()).await,
        within(call().all()).await,
        within(call().threshold(0)).await,
        within(call().matching(1, |reply| reply.value)).await,
        within(call().correctable(1).done()).await,
    ] {
        let error = result.expect_err("nobody can answer");
        assert_eq!(
            (error.kind(), error.nodes()),
            (QuorumErrorKind::Impossible, 0)
        );
    }
    // A function might have accepted no reply at all, but is not asked without one.
    for result in [
        within(call().quorum_fn(|_, _| Some(number(9)))).await,
        within(call().correctable_fn(|_, _| (number(9), 1, true)).done()).await,
    ] {
        assert_eq!(
            result.expect_err("no reply").kind(),
            QuorumErrorKind::NoQuorum
        );
    }
    assert!(within(call().responses().next()).await.is_none());
    // Everybody got it.
    within(client.multicast(ECHO, number(1)))
        .await
        .expect("nobody refused");
    assert!(client.multicast(ECHO, number(1)).detach().is_empty());
}
