//! Every call type, end to end over loopback TCP.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, connect, echo, number, within};
use gorums::{Client, Code, Configuration, Outcome, QuorumErrorKind, Server, Status};

const VALUE: &str = "test.Test.Value";

fn value_server(index: usize) -> gorums::ServerBuilder {
    Server::builder().unary(VALUE, move |_ctx, request: Number| async move {
        Ok::<_, Status>(number(request.value + 10 * (index as u64 + 1)))
    })
}

#[tokio::test]
async fn a_quorum_call_returns_replies_of_a_quorum() {
    let (_servers, configuration) = cluster(3, value_server).await;
    let client = Client::new(&configuration);
    let call = || client.quorum_call::<Number, Number>(VALUE, number(1));
    assert!([11, 21, 31].contains(&within(call().first()).await.expect("up").value));
    assert!([11, 21, 31].contains(&within(call().majority()).await.expect("up").value));
    let replies = within(call().all().replies()).await.expect("all up");
    let mut values: Vec<_> = replies.into_iter().map(|(id, r)| (id.get(), r.value)).collect();
    values.sort_unstable();
    assert_eq!(values, [(1, 11), (2, 21), (3, 31)]);
    let greatest = within(call().all().max_by_key(|r| r.value)).await.expect("up");
    assert_eq!(greatest.value, 31);
    let sum = within(call().quorum_fn(|request, replies| {
        (replies.len() == 3).then(|| request.value + replies.values().map(|r| r.value).sum::<u64>())
    }))
    .await
    .expect("up");
    assert_eq!(sum, 64);
    for id in 1..=3 {
        assert_eq!(configuration.node(id).expect("known").pending(), 0);
        assert!(configuration.node(id).expect("known").latency().is_some());
    }
}
