//! Every call type, end to end over loopback TCP: what it returns, and how it fails.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, connect, echo, number, within};
use gorums::call::QuorumCall;
use gorums::quorum::{Both, Majority, ReadWrite, Weighted};
use gorums::{
    Client, Code, Configuration, Node, NodeId, Outcome, QuorumError, QuorumErrorKind, ReplySender,
    Server, ServerBuilder, Status,
};

const VALUE: &str = "test.Test.Value";
const SILENT: &str = "test.Test.Silent";
const FAIL: &str = "test.Test.Fail";
const STREAM: &str = "test.Test.Stream";
const PUT: &str = "test.Test.Put";

/// Node i answers with 10·i more than was asked.
fn values(index: usize) -> ServerBuilder {
    Server::builder()
        .unary(VALUE, move |_ctx, request: Number| async move {
            Ok::<_, Status>(number(request.value + 10 * (index as u64 + 1)))
        })
        .unary(SILENT, |_ctx, _request: Number| {
            std::future::pending::<Result<Number, Status>>()
        })
        .unary(FAIL, move |_ctx, request: Number| async move {
            // The nodes below the value fail.
            if (index as u64) < request.value {
                Err(Status::aborted(format!("node {} is unwilling", index + 1)))
            } else {
                Ok(request)
            }
        })
        .streaming(
            STREAM,
            move |_ctx, request: Number, replies: ReplySender<Number>| async move {
                for step in 1..=request.value {
                    replies
                        .send(number(100 * (index as u64 + 1) + step))
                        .await?;
                }
                if index == 2 {
                    return Err(Status::data_loss("the third stream breaks"));
                }
                Ok(())
            },
        )
}

fn call(
    configuration: &Configuration,
    method: &'static str,
    value: u64,
) -> QuorumCall<Number, Number> {
    Client::new(configuration).quorum_call(method, number(value))
}

fn node(configuration: &Configuration, id: u32) -> &Node {
    configuration.node(id).expect("the node exists")
}

/// The ids of the nodes that failed.
fn failed(error: &QuorumError) -> Vec<u32> {
    let mut ids: Vec<_> = error.failures().iter().map(|e| e.node().get()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_quorum_call_returns_a_reply_of_its_quorum() {
    let (_servers, all) = cluster(3, values).await;
    for reply in [
        within(call(&all, VALUE, 1).first()).await,
        within(call(&all, VALUE, 1).majority()).await,
        within(call(&all, VALUE, 1).threshold(2)).await,
        within(call(&all, VALUE, 1).all()).await,
        within(call(&all, VALUE, 1).quorum(Both(Majority, Majority))).await,
    ] {
        assert!([11, 21, 31].contains(&reply.expect("all nodes are up").value));
    }
}

#[tokio::test]
async fn all_replies_of_a_quorum_can_be_had() {
    let (_servers, all) = cluster(3, values).await;
    let replies = within(call(&all, VALUE, 1).all().replies())
        .await
        .expect("up");
    assert_eq!((replies.len(), replies.is_empty()), (3, false));
    assert_eq!(replies.get(NodeId::from(2)).map(|r| r.value), Some(21));
    assert!(replies.latest().is_some() && replies.is_quorum(&Majority));
    let mut values: Vec<_> = replies
        .into_iter()
        .map(|(id, r)| (id.get(), r.value))
        .collect();
    values.sort_unstable();
    assert_eq!(values, [(1, 11), (2, 21), (3, 31)]);
    let majority = within(call(&all, VALUE, 1).majority().replies())
        .await
        .expect("up");
    assert_eq!(majority.len(), 2);
}

#[tokio::test]
async fn the_greatest_reply_of_a_quorum_is_returned() {
    let (_servers, all) = cluster(3, values).await;
    let reply = within(call(&all, VALUE, 1).all().max_by_key(|reply| reply.value)).await;
    assert_eq!(reply.expect("up").value, 31);
}

#[tokio::test]
async fn a_quorum_function_sees_request_and_replies_and_may_move_them() {
    let (_servers, all) = cluster(3, values).await;
    let sum = within(call(&all, VALUE, 1).quorum_fn(|request, replies| {
        (replies.len() == 3)
            .then(|| request.value + replies.drain().map(|(_, reply)| reply.value).sum::<u64>())
    }));
    assert_eq!(sum.await.expect("up"), 64);
    // Failing by content is a result of the function's own.
    let refused = within(call(&all, VALUE, 1).quorum_fn(|_, _| Some(Err::<(), _>("preempted"))));
    assert_eq!(refused.await.expect("accepted"), Err("preempted"));
}

#[tokio::test]
async fn a_quorum_function_that_accepts_nothing_ends_when_all_have_answered() {
    let (_servers, all) = cluster(3, values).await;
    let error = within(call(&all, FAIL, 1).quorum_fn(|_, _| None::<()>))
        .await
        .expect_err("nothing is accepted");
    assert_eq!(error.kind(), QuorumErrorKind::NoQuorum);
    assert_eq!((error.replies(), failed(&error)), (2, vec![1]));
}

#[tokio::test]
async fn matching_replies_outvote_the_others() {
    let (_servers, all) = cluster(3, values).await;
    let same = within(call(&all, VALUE, 5).matching(2, |reply| reply.value > 20)).await;
    assert!([25, 35].contains(&same.expect("nodes 2 and 3 agree").value));
    let error = within(call(&all, VALUE, 5).matching(2, |reply| reply.value))
        .await
        .expect_err("no two agree");
    assert_eq!(error.kind(), QuorumErrorKind::NoQuorum);
    let error = within(call(&all, FAIL, 2).matching(2, |reply| reply.value))
        .await
        .expect_err("two refuse");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
}

#[tokio::test]
async fn responses_come_one_by_one_with_their_nodes() {
    let (_servers, all) = cluster(3, values).await;
    let mut responses = call(&all, FAIL, 1).responses();
    let mut nodes = Vec::new();
    assert_eq!(responses.outstanding(), 3);
    while let Some(response) = within(responses.next()).await {
        assert_eq!(response.result().is_err(), response.node().get() == 1);
        nodes.push(response.node().get());
        assert_eq!(responses.outstanding(), 3 - nodes.len());
    }
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3]);
    assert!(within(responses.next()).await.is_none());
}

#[tokio::test]
async fn a_streamed_call_delivers_every_reply_and_how_each_stream_ended() {
    let (_servers, all) = cluster(3, values).await;
    let client = Client::new(&all);
    let mut responses = client
        .streamed_quorum_call::<_, Number>(STREAM, number(3))
        .responses();
    let mut replies = Vec::new();
    let mut errors = Vec::new();
    while let Some(response) = within(responses.next()).await {
        match response.into_result() {
            Ok(reply) => replies.push(reply.value),
            Err(error) => errors.push((error.node().get(), error.outcome(), error.code())),
        }
    }
    for base in [100, 200, 300] {
        let of_node: Vec<_> = replies
            .iter()
            .copied()
            .filter(|v| v / 100 * 100 == base)
            .collect();
        assert_eq!(of_node, [base + 1, base + 2, base + 3], "in order");
    }
    assert_eq!(errors, [(3, Outcome::Refused, Code::DataLoss)]);
}

#[tokio::test]
async fn a_streamed_call_counts_nodes_and_not_messages() {
    let (_servers, all) = cluster(3, values).await;
    let client = Client::new(&all);
    let replies = within(
        client
            .streamed_quorum_call::<_, Number>(STREAM, number(5))
            .all()
            .replies(),
    )
    .await
    .expect("every node answers");
    assert_eq!(replies.len(), 3);
    // No reply at all, and two streams that ended well: no quorum can come any more.
    let error = within(
        client
            .streamed_quorum_call::<_, Number>(STREAM, number(0))
            .majority(),
    )
    .await
    .expect_err("nobody answers");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Incomplete, 0)
    );
}

#[tokio::test]
async fn a_streamed_call_that_is_read_late_has_every_reply_and_blocks_nobody() {
    let (_servers, all) = cluster(2, values).await;
    let client = Client::new(&all);
    let mut unread = client
        .streamed_quorum_call::<_, Number>(STREAM, number(1000))
        .responses();
    // Calls on the same connections go on.
    for _ in 0..50 {
        within(call(&all, VALUE, 1).all()).await.expect("up");
    }
    let (mut count, mut last) = (0, [0; 3]);
    while let Some(response) = within(unread.next()).await {
        count += 1;
        let node = response.node().get() as usize;
        let value = response.into_result().expect("both end well").value;
        assert!(value > last[node], "in order");
        last[node] = value;
    }
    assert_eq!(count, 2 * 1000);
    assert_eq!(last[1..], [100 + 1000, 200 + 1000]);
}

#[tokio::test]
async fn a_call_fails_as_soon_as_it_cannot_succeed_and_names_each_node() {
    let (_servers, all) = cluster(4, values).await;
    // Two of four refuse; the two others never have to answer for that to be clear.
    let error = within(call(&all, FAIL, 2).all())
        .await
        .expect_err("all are needed");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert!(!error.failures().is_empty());
    let error = within(call(&all, FAIL, 2).majority())
        .await
        .expect_err("three are needed");
    assert_eq!((error.nodes(), error.needed()), (4, Some(3)));
    assert_eq!(failed(&error), [1, 2]);
    let first = error.failure(NodeId::from(1)).expect("node 1 failed");
    assert_eq!(
        (first.outcome(), first.code()),
        (Outcome::Refused, Code::Aborted)
    );
    assert_eq!(first.address(), node(&all, 1).address());
    let text = error.to_string();
    assert!(
        text.contains("3 needed") && text.contains("node 2 (127.0.0.1:"),
        "{text}"
    );
    assert!(
        text.contains("refused: aborted: node 1 is unwilling"),
        "{text}"
    );
    assert_eq!(Status::from(error).code(), Code::Unavailable);
}

#[tokio::test]
async fn a_majority_succeeds_with_a_minority_failing() {
    let (_servers, all) = cluster(3, values).await;
    within(call(&all, FAIL, 1).majority())
        .await
        .expect("two of three are willing");
    within(call(&all, FAIL, 2).first())
        .await
        .expect("one is willing");
    let error = within(call(&all, FAIL, 3).first())
        .await
        .expect_err("none is");
    assert_eq!(failed(&error), [1, 2, 3]);
}

#[tokio::test]
async fn the_deadline_is_the_cause_where_it_ended_the_call() {
    let (_servers, all) = cluster(3, values).await;
    let error = within(
        call(&all, SILENT, 0)
            .timeout(Duration::from_millis(20))
            .majority(),
    )
    .await
    .expect_err("nobody answers");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    assert_eq!(failed(&error), [1, 2, 3]);
    for failure in error.failures() {
        assert_eq!(failure.code(), Code::DeadlineExceeded);
        assert_eq!(failure.outcome(), Outcome::Unknown);
    }
    assert_eq!(Status::from(error).code(), Code::DeadlineExceeded);
    assert!(all.iter().all(|node| node.pending() == 0));

    let client = Client::new(&all).with_timeout(Duration::from_millis(20));
    let error = within(client.rpc::<_, Number>(node(&all, 1), SILENT, number(0)))
        .await
        .expect_err("it does not answer");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing() {
    let handled = Counter::new();
    let server = {
        let handled = handled.clone();
        echo().one_way(PUT, move |_ctx, _request: Number| {
            handled.add();
            std::future::ready(())
        })
    };
    let server = TestServer::start(server).await;
    let all = connect(std::slice::from_ref(&server));
    within(all.connected(1)).await.expect("none is closed");
    let past = tokio::time::Instant::now();
    let client = Client::new(&all);
    let error = within(
        client
            .rpc::<_, Number>(&all[0], PUT, number(0))
            .deadline(past),
    )
    .await
    .expect_err("too late");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::NotSent)
    );
    let error = within(client.multicast(PUT, number(0)).deadline(past))
        .await
        .expect_err("too late");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    assert_eq!(
        client
            .multicast(PUT, number(0))
            .deadline(past)
            .detach()
            .len(),
        1
    );
    let sent = within(client.multicast(PUT, number(0)));
    sent.await.expect("in time");
    handled.reached(1).await;
    assert_eq!(handled.get(), 1);
}

#[tokio::test]
async fn impossible_calls_are_refused_at_once_and_send_nothing() {
    let handled = Counter::new();
    let (_servers, all) = cluster(3, |_| {
        let handled = handled.clone();
        Server::builder().unary(VALUE, move |_ctx, request: Number| {
            handled.add();
            async move { Ok::<_, Status>(request) }
        })
    })
    .await;
    let leave_out_one = |call: QuorumCall<Number, Number>| {
        call.map_request(|node, request| (node.id().get() != 1).then(|| request.clone()))
    };
    for result in [
        within(call(&all, VALUE, 1).threshold(0)).await,
        within(call(&all, VALUE, 1).threshold(4)).await,
        within(leave_out_one(call(&all, VALUE, 1)).all()).await,
        within(leave_out_one(call(&all, VALUE, 1)).threshold(3)).await,
        within(call(&all, VALUE, 1).matching(4, |r| r.value)).await,
        within(call(&all.without(1).without(2).without(3), VALUE, 1).majority()).await,
    ] {
        let error = result.expect_err("impossible");
        assert_eq!(error.kind(), QuorumErrorKind::Impossible, "{error}");
    }
    assert_eq!(handled.get(), 0);
    // A node that is left out stays in the denominator.
    within(leave_out_one(call(&all, VALUE, 1)).majority())
        .await
        .expect("two of three");
    assert_eq!(handled.get(), 2);
}

#[tokio::test]
async fn each_node_gets_its_own_request() {
    let (_servers, all) = cluster(3, values).await;
    let replies = within(
        call(&all, VALUE, 1)
            .map_request(|node, request| Some(number(request.value + u64::from(node.id().get()))))
            // Maps what the first one made.
            .map_request(|node, request| {
                (node.id().get() != 2).then(|| number(request.value * 100))
            })
            .threshold(2)
            .replies(),
    )
    .await
    .expect("two are called");
    let mut values: Vec<_> = replies
        .into_iter()
        .map(|(id, r)| (id.get(), r.value))
        .collect();
    values.sort_unstable();
    assert_eq!(values, [(1, 210), (3, 430)]);
}

#[tokio::test]
async fn a_reply_that_the_caller_rejects_is_a_failure_of_its_node() {
    let (_servers, all) = cluster(3, values).await;
    let odd = |call: QuorumCall<Number, Number>| {
        call.map_response(|node, reply| {
            if node.id().get() == 1 {
                Err(Status::permission_denied("not from you"))
            } else {
                Ok(number(reply.value + 1))
            }
        })
        .map_response(|_, reply| Ok(number(reply.value * 2)))
    };
    let replies = within(odd(call(&all, VALUE, 0)).majority().replies())
        .await
        .expect("two");
    let mut values: Vec<_> = replies.values().map(|reply| reply.value).collect();
    values.sort_unstable();
    assert_eq!(values, [42, 62]);
    let error = within(odd(call(&all, VALUE, 0)).all())
        .await
        .expect_err("one is rejected");
    let failure = error.failure(NodeId::from(1)).expect("rejected");
    assert_eq!(failure.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn rules_over_the_whole_configuration_hold_for_calls_on_a_part() {
    let (_servers, all) = cluster(3, values).await;
    let part = all.without(3);
    let system = ReadWrite::new(&all, 2, 2).expect("they meet");
    within(call(&part, VALUE, 1).quorum(system.read()))
        .await
        .expect("both of the part");
    let weighted = Weighted::majority([(1, 1), (2, 1), (3, 3)]).expect("votes");
    within(call(&all, VALUE, 1).quorum(&weighted))
        .await
        .expect("node 3 is enough");
    let error = within(call(&part, VALUE, 1).quorum(weighted))
        .await
        .expect_err("it is missing");
    assert_eq!(error.kind(), QuorumErrorKind::Impossible);
}

#[tokio::test]
async fn an_rpc_returns_the_reply_or_the_status_whole() {
    let detail = prost_types::Any {
        type_url: "type.example/detail".into(),
        value: vec![1, 2, 3],
    };
    let server = {
        let detail = detail.clone();
        echo().unary(FAIL, move |_ctx, _request: Number| {
            let detail = detail.clone();
            async move {
                Err::<Number, _>(
                    Status::failed_precondition("größer als 1 %").with_details([detail]),
                )
            }
        })
    };
    let server = TestServer::start(server).await;
    let all = connect(std::slice::from_ref(&server));
    let client = Client::new(&all);
    let reply = within(client.rpc::<_, Number>(&all[0], "test.Test.Echo", number(7))).await;
    assert_eq!(reply.expect("up").value, 7);
    let error = within(client.rpc::<_, Number>(&all[0], FAIL, number(7)))
        .await
        .expect_err("fails");
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(error.status().message(), "größer als 1 %");
    assert_eq!(error.status().details(), [detail]);
}

#[tokio::test]
async fn unknown_methods_and_bad_payloads_and_panics_are_answered() {
    let server = echo().unary("test.Test.Panic", |_ctx, request: Number| async move {
        assert!(request.value > 1, "value {} is too small", request.value);
        Ok::<_, Status>(request)
    });
    let server = TestServer::start(server).await;
    let all = connect(std::slice::from_ref(&server));
    let client = Client::new(&all);
    let rpc = |method, value| {
        client
            .rpc::<_, Number>(&all[0], method, number(value))
            .send()
    };
    let error = within(rpc("test.Test.Nothing", 1))
        .await
        .expect_err("unknown");
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(
        error.status().message(),
        "no handler registered for method test.Test.Nothing"
    );
    let bad = client.rpc::<String, Number>(&all[0], "test.Test.Echo", "text".into());
    let error = within(bad).await.expect_err("field 1 is a number");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error.status().message().contains("cannot be decoded"),
        "{error}"
    );
    let error = within(rpc("test.Test.Panic", 1)).await.expect_err("panics");
    assert_eq!(error.code(), Code::Internal);
    assert_eq!(error.status().message(), "the handler panicked");
    // The connection and the server live on.
    assert_eq!(
        within(rpc("test.Test.Panic", 2))
            .await
            .expect("lives")
            .value,
        2
    );
}

#[tokio::test]
async fn one_way_messages_arrive_once_at_each_node_and_in_its_own_form() {
    let arrived: Vec<Arc<Mutex<Vec<u64>>>> = (0..3).map(|_| Arc::default()).collect();
    let handled = Counter::new();
    let (_servers, all) = cluster(3, |index| {
        let (arrived, handled) = (arrived[index].clone(), handled.clone());
        Server::builder().one_way(PUT, move |_ctx, request: Number| {
            arrived.lock().expect("not poisoned").push(request.value);
            handled.add();
            std::future::ready(())
        })
    })
    .await;
    let client = Client::new(&all);
    for value in 0..50 {
        within(client.multicast(PUT, number(value)))
            .await
            .expect("up");
        assert!(
            client
                .multicast(PUT, number(100 + value))
                .detach()
                .is_empty()
        );
        within(client.unicast(node(&all, 2), PUT, number(200 + value)))
            .await
            .expect("up");
        assert!(
            client
                .unicast(node(&all, 3), PUT, number(300 + value))
                .detach()
                .is_empty()
        );
    }
    within(client.multicast(PUT, number(0)).map_request(|node, _| {
        let id = node.id().get();
        (id != 2).then(|| number(1000 + u64::from(id)))
    }))
    .await
    .expect("up");
    within(client.multicast(PUT, number(0)).map_request(|_, _| None))
        .await
        .expect("nobody");
    within(all.flush()).await;
    handled.reached(50 * 8 + 2).await;
    for (index, arrived) in arrived.iter().enumerate() {
        let id = index as u64 + 1;
        let mut expected: Vec<u64> = (0..50)
            .flat_map(|value| match id {
                1 => vec![value, 100 + value],
                _ => vec![value, 100 + value, 100 * id + value],
            })
            .collect();
        if id != 2 {
            expected.push(1000 + id);
        }
        assert_eq!(
            *arrived.lock().expect("not poisoned"),
            expected,
            "node {id}"
        );
    }
    assert!(all.iter().all(|node| node.pending() == 0));
}

#[tokio::test]
async fn a_multicast_that_some_nodes_refuse_names_them() {
    let (mut servers, all) = cluster(3, |_| {
        Server::builder().one_way(PUT, |_ctx, _request: Number| std::future::ready(()))
    })
    .await;
    servers.remove(1).stop().await;
    let client = Client::new(&all).with_timeout(Duration::from_secs(30));
    // The first may still be written to the connection that is just breaking.
    let error = loop {
        match within(client.multicast(PUT, number(1))).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), QuorumErrorKind::SendFailure);
    assert_eq!(
        (error.nodes(), error.replies(), failed(&error)),
        (3, 2, vec![2])
    );
}

#[tokio::test]
async fn messages_above_a_limit_fail_and_say_which() {
    let server = TestServer::start(echo().max_decoding_message_size(1000)).await;
    let all = connect(std::slice::from_ref(&server));
    let client = Client::new(&all);
    let large = || Number {
        value: 1,
        payload: vec![7; 5000].into(),
    };
    let method = "test.Test.Echo";
    let error = within(client.rpc::<_, Number>(&all[0], method, large()))
        .await
        .expect_err("large");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::ResourceExhausted, Outcome::Refused)
    );
    let own = client.clone().with_max_encoding_message_size(100);
    let error = within(own.rpc::<_, Number>(&all[0], method, large()))
        .await
        .expect_err("large");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::ResourceExhausted, Outcome::NotSent)
    );
    let small = client.with_max_decoding_message_size(1);
    let error = within(small.rpc::<_, Number>(&all[0], method, number(1)))
        .await
        .expect_err("large");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::ResourceExhausted, Outcome::Unknown)
    );
    let reply = within(Client::new(&all).rpc::<_, Number>(&all[0], method, number(3))).await;
    assert_eq!(reply.expect("the connection lives on").value, 3);
}

#[tokio::test]
async fn large_payloads_arrive_whole() {
    let (_servers, all) = cluster(3, |_| echo()).await;
    let client = Client::new(&all);
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let calls: Vec<_> = (0..5)
        .map(|value| {
            let request = Number {
                value,
                payload: payload.clone().into(),
            };
            client
                .quorum_call::<_, Number>("test.Test.Echo", request)
                .all()
                .replies()
        })
        .collect();
    for (value, call) in (0..).zip(calls) {
        for (_, reply) in within(call).await.expect("up") {
            assert!(reply.value == value && reply.payload == payload);
        }
    }
}

#[tokio::test]
async fn metadata_reaches_the_handler_with_request_and_connection() {
    type Seen = (Vec<String>, Option<String>, bool);
    let seen: Arc<Mutex<Option<Seen>>> = Arc::default();
    let server = {
        let seen = seen.clone();
        Server::builder().unary(VALUE, move |ctx: gorums::ServerCtx, request: Number| {
            let of_request = ctx.metadata().get_all("Trace").map(str::to_owned).collect();
            let of_connection = ctx.connection_metadata().get("tenant").map(str::to_owned);
            let has_address = ctx.peer_addr().is_some_and(|addr| addr.ip().is_loopback());
            *seen.lock().expect("not poisoned") = Some((of_request, of_connection, has_address));
            async move { Ok::<_, Status>(request) }
        })
    };
    let server = TestServer::start(server).await;
    let all = Configuration::builder()
        .nodes([server.addr.to_string()])
        .metadata("Tenant", "blue")
        .connect()
        .expect("legal");
    within(
        call(&all, VALUE, 1)
            .metadata("trace", "a")
            .metadata("TRACE", "ü")
            .all(),
    )
    .await
    .expect("up");
    let seen = seen.lock().expect("not poisoned").take();
    let expected = (
        vec!["a".to_owned(), "ü".to_owned()],
        Some("blue".to_owned()),
        true,
    );
    assert_eq!(seen, Some(expected));
    let error = within(call(&all, VALUE, 1).metadata("trace-bin", "x").all())
        .await
        .expect_err("cannot travel");
    assert!(error.to_string().contains("trace-bin"), "{error}");
}

#[tokio::test]
async fn handles_can_be_collected_and_moved() {
    let (_servers, all) = cluster(3, values).await;
    let client = Client::new(&all);
    fn unpin<F: Future + Unpin + Send + 'static>(future: F) -> F {
        future
    }
    let quorum = unpin(call(&all, VALUE, 1).majority());
    let newest = unpin(call(&all, VALUE, 1).majority().max_by_key(|r| r.value));
    let replies = unpin(call(&all, VALUE, 1).all().replies());
    let rpc = unpin(client.rpc::<_, Number>(&all[0], VALUE, number(1)).send());
    let by_function = unpin(call(&all, VALUE, 1).quorum_fn(|_, r| (r.len() > 1).then_some(())));
    let (quorum, newest, replies, rpc, by_function) =
        within(async { tokio::join!(quorum, newest, replies, rpc, by_function) }).await;
    assert!(quorum.is_ok() && newest.is_ok() && replies.is_ok() && rpc.is_ok());
    assert!(by_function.is_ok());
}

#[tokio::test]
async fn a_client_for_one_node_calls_that_node() {
    let (_servers, all) = cluster(3, values).await;
    let client = Client::new(node(&all, 2));
    let reply = within(client.quorum_call::<_, Number>(VALUE, number(0)).all()).await;
    assert_eq!(reply.expect("up").value, 20);
    let other = client.on(all.without(2));
    let replies = within(
        other
            .quorum_call::<_, Number>(VALUE, number(0))
            .all()
            .replies(),
    )
    .await;
    assert_eq!(replies.expect("up").len(), 2);
}

#[tokio::test]
async fn nodes_of_two_pools_can_be_called_together() {
    let servers = [
        TestServer::start(values(0)).await,
        TestServer::start(values(1)).await,
    ];
    let one = Configuration::builder()
        .node(1, servers[0].addr.to_string())
        .connect()
        .expect("legal");
    let two = Configuration::builder()
        .node(2, servers[1].addr.to_string())
        .connect()
        .expect("legal");
    let both = one.union(&two).expect("different ids");
    for _ in 0..100 {
        let replies = within(call(&both, VALUE, 0).all().replies())
            .await
            .expect("up");
        assert_eq!(replies.len(), 2);
    }
    let error = within(
        call(&both, SILENT, 0)
            .timeout(Duration::from_millis(10))
            .all(),
    )
    .await
    .expect_err("silent");
    assert_eq!(failed(&error), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_at_any_moment_is_the_cause() {
    let (_servers, all) = cluster(3, values).await;
    let client = Client::new(&all);
    for round in 0..3000 {
        let timeout = Duration::from_micros(round % 60);
        let rpc = client
            .rpc::<_, Number>(&all[0], VALUE, number(0))
            .timeout(timeout);
        if let Err(error) = within(rpc).await {
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        }
        if let Err(error) = within(call(&all, VALUE, 0).timeout(timeout).all()).await {
            assert_eq!(error.kind(), QuorumErrorKind::Deadline, "{error}");
            assert!(!error.failures().is_empty());
        }
    }
    assert!(all.iter().all(|node| node.pending() == 0));
}

#[tokio::test]
async fn durations_of_any_length_are_taken() {
    let server = TestServer::start(
        echo()
            .stream_timeout(Duration::MAX)
            .keep_alive(Duration::MAX, Duration::MAX),
    )
    .await;
    let all = Configuration::builder()
        .nodes([server.addr.to_string()])
        .connect_timeout(Duration::MAX)
        .keep_alive(Duration::MAX, Duration::MAX)
        .backoff(Duration::MAX, Duration::MAX)
        .attempt_interval(Duration::ZERO)
        .connect()
        .expect("legal");
    let client = Client::new(&all).with_timeout(Duration::MAX);
    let reply = within(client.rpc::<_, Number>(&all[0], "test.Test.Echo", number(1))).await;
    assert_eq!(reply.expect("up").value, 1);
}

#[tokio::test]
async fn what_was_flushed_is_handled_although_the_client_is_gone() {
    let handled = Counter::new();
    let server = {
        let handled = handled.clone();
        Server::builder().one_way(PUT, move |_ctx, _request: Number| {
            handled.add();
            std::future::ready(())
        })
    };
    let server = TestServer::start(server).await;
    for round in 1..=20 {
        // A client process that does one thing and exits: its runtime ends with everything on it.
        let addr = server.addr.to_string();
        let client = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let all = Configuration::builder()
                    .nodes([addr])
                    .connect()
                    .expect("legal");
                assert!(
                    Client::new(&all)
                        .multicast(PUT, number(1))
                        .detach()
                        .is_empty()
                );
                within(all.flush()).await;
            });
        });
        handled.reached(round).await;
        tokio::task::spawn_blocking(|| client.join().expect("no panic"))
            .await
            .expect("no panic");
    }
}
