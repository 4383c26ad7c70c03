//! The caller's version of a service and the node's differ in how a method is answered.

mod common;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use common::{Counter, Number, cluster, echo, number, within};
use gorums::{
    Client, Code, Configuration, Node, NodeError, Outcome, QuorumErrorKind, ReplySender, Server,
    ServerBuilder, ServerCtx, Status,
};
use raw_client::opened;
use wire::{ECHO, NOTE, envelope};

const STREAM: &str = "test.Test.Stream";
/// More than any caller takes without giving credit.
const MANY: u64 = 20_000;

/// A method of each kind. Counts the handlers that have ended.
fn each_kind(ended: &Counter) -> ServerBuilder {
    let (noted, echoed, streamed) = (ended.clone(), ended.clone(), ended.clone());
    Server::builder()
        .one_way(NOTE, move |_ctx, _: Number| {
            noted.add();
            std::future::ready(())
        })
        .unary(ECHO, move |_ctx, request: Number| {
            echoed.add();
            std::future::ready(Ok::<_, Status>(request))
        })
        .streaming(
            STREAM,
            move |_ctx, request: Number, replies: ReplySender<Number>| {
                let streamed = streamed.clone();
                async move {
                    for value in 0..request.value {
                        replies.send(number(value)).await?;
                    }
                    streamed.add();
                    Ok::<_, Status>(())
                }
            },
        )
}

async fn asked(client: &Client, node: &Node, method: &'static str) -> Result<Number, NodeError> {
    within(client.rpc::<_, Number>(node, method, number(1))).await
}

/// A call that was refused since its method is answered so at the node.
#[track_caller]
fn is_refused(error: &NodeError, method: &str, answer: &str) {
    assert_eq!(error.outcome(), Outcome::Refused, "{error}");
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    let text = format!("{method} has {answer} at this node");
    assert!(error.status().message().contains(&text), "{error}");
}

#[tokio::test]
async fn a_call_that_the_node_would_answer_otherwise_is_refused_by_name() {
    let ended = Counter::new();
    let (_servers, all) = cluster(1, |_| each_kind(&ended)).await;
    let client = Client::new(&all);
    let error = asked(&client, &all[0], NOTE).await.expect_err("no reply");
    is_refused(&error, NOTE, "no reply");
    let error = asked(&client, &all[0], STREAM).await.expect_err("many");
    is_refused(&error, STREAM, "a stream of replies");
    for (method, answer) in [(NOTE, "no reply"), (ECHO, "one reply")] {
        let call = client.streamed_quorum_call::<_, Number>(method, number(1));
        let mut responses = call.responses();
        let response = within(responses.next()).await.expect("the node's part");
        let error = response.into_result().expect_err("not streamed");
        is_refused(&error, method, answer);
        assert!(within(responses.next()).await.is_none());
    }
    assert_eq!(ended.get(), 0, "no handler was started");
    assert_eq!(all[0].pending(), 0);
    assert_eq!(
        asked(&client, &all[0], ECHO).await.expect("echoed").value,
        1
    );
}

#[tokio::test]
async fn a_quorum_call_of_what_has_become_one_way_fails() {
    let ended = Counter::new();
    let (_servers, all) = cluster(3, |index| match index {
        // The third is not upgraded yet.
        0 | 1 => each_kind(&ended),
        _ => Server::builder().unary(NOTE, |_ctx, request: Number| async move {
            Ok::<_, Status>(request)
        }),
    })
    .await;
    let call = || Client::new(&all).quorum_call::<_, Number>(NOTE, number(1));
    let error = within(call().majority()).await.expect_err("two refuse");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete, "{error}");
    for failure in error.failures() {
        is_refused(failure, NOTE, "no reply");
    }
    assert_eq!(within(call().first()).await.expect("the third").value, 1);
}

#[tokio::test]
async fn replies_to_a_one_way_call_are_dropped_and_the_handler_ends() {
    let ended = Counter::new();
    let (_servers, all) = cluster(1, |_| each_kind(&ended)).await;
    let client = Client::new(&all);
    for (method, value) in [(ECHO, 1), (STREAM, MANY)] {
        let before = ended.get();
        within(client.unicast(&all[0], method, number(value)).send())
            .await
            .expect("handed over");
        ended.reached(before + 1).await;
        let echoed = asked(&client, &all[0], ECHO).await;
        assert_eq!(echoed.expect("echoed").value, 1);
    }
    assert_eq!(all[0].pending(), 0);
}

#[tokio::test]
async fn a_client_that_is_called_refuses_as_a_server_does() {
    let server = Server::builder().bind("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let (address, clients) = (server.local_addr().to_string(), server.clients());
    let serving = tokio::spawn(server.serve());
    let ended = Counter::new();
    let _client = Configuration::builder()
        .nodes([&address])
        .serve(each_kind(&ended))
        .connect()
        .expect("legal");
    let called = within(clients.wait_for(|clients| clients.len() == 1)).await;
    let called = called.expect("it serves");
    let client = Client::new(&called);
    let error = asked(&client, &called[0], NOTE)
        .await
        .expect_err("no reply");
    is_refused(&error, NOTE, "no reply");
    assert_eq!(
        asked(&client, &called[0], ECHO)
            .await
            .expect("echoed")
            .value,
        1
    );
    serving.abort();
}

/// Nothing in the requests of a Go client says what it expects.
#[tokio::test]
async fn a_client_that_does_not_say_what_it_expects_is_served_by_the_servers_version() {
    let notes = Counter::new();
    let noted = notes.clone();
    let builder = echo().one_way(NOTE, move |_ctx: ServerCtx, _: Number| {
        noted.add();
        std::future::ready(())
    });
    let (_server, _client, mut stream) = opened(builder).await;
    for id in 4..8 {
        stream.send(&envelope(id, NOTE, 1));
        stream.call(id).await;
    }
    notes.reached(4).await;
}
