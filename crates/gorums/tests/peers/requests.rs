//! What a client sends.

use bytes::Bytes;
use http::Method;
use prost::Message;

use crate::common::{Number, number, within};
use crate::raw_server::{RawServer, TOKEN, answered};
use crate::wire::{ECHO, NOTE, PATH, envelope};

#[tokio::test]
async fn the_request_head_is_as_documented() {
    let server = RawServer::start_with(|builder| {
        let builder = builder.metadata("Cluster", "blue");
        builder.metadata("cluster", "green")
    })
    .await;
    let peer = server.accept().await;
    assert_eq!(peer.head.method, Method::POST);
    let uri = format!("http://{}{PATH}", server.addr());
    assert_eq!(peer.head.uri.to_string(), uri);
    let mut headers: Vec<_> = peer
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .filter(|(name, _)| !["user-agent", TOKEN].contains(name))
        .collect();
    headers.sort_unstable();
    let expected = [
        ("cluster", "blue"),
        ("cluster", "green"),
        ("content-type", "application/grpc"),
        (
            "gorums-features",
            "cancel,stream-end,credit,instance,kind,going-away,deadline",
        ),
        ("te", "trailers"),
    ];
    assert_eq!(headers, expected);
    let user_agent = peer.head.headers["user-agent"].to_str().expect("ASCII");
    assert!(user_agent.starts_with("gorums-rust/"), "{user_agent}");
}

#[tokio::test]
async fn calls_do_not_wait_for_the_response_head() {
    let server = RawServer::start().await;
    let calls = [server.call(1), server.call(2)];
    let mut peer = server.accept().await;
    let first = peer.request().await;
    let second = peer.request().await;
    assert_eq!((first.number(), second.number()), (1, 2));
    // The head comes with the first reply, as from a Go server.
    for (request, call) in [first, second].into_iter().zip(calls) {
        assert_eq!(request.method, ECHO);
        peer.send(&request);
        answered(call, request.number()).await;
    }
}

#[tokio::test]
async fn one_way_calls_need_no_response_head_at_all() {
    let server = RawServer::start().await;
    let client = server.client();
    // HTTP/2's settings are all that it says.
    let mut peer = server.accept().await;
    for value in 0..10 {
        let unicast = client.unicast(&server.node(), NOTE, number(value));
        within(unicast).await.expect("handed over");
        let multicast = client.multicast(NOTE, number(value));
        within(multicast).await.expect("handed over");
        assert_eq!(peer.request().await.number(), value);
        assert_eq!(peer.request().await.number(), value);
    }
}

#[tokio::test]
async fn a_streamed_call_to_a_server_that_marks_no_end_has_its_replies_and_goes_on() {
    let server = RawServer::start().await;
    let call = server
        .client()
        .streamed_quorum_call::<_, Number>(ECHO, number(1));
    let mut responses = call.responses();
    let mut peer = server.accept().await;
    let request = peer.request().await;
    // An empty reply is a reply: only servers that say so end a stream with one.
    for value in [1, 0, 3] {
        peer.send(&envelope(request.id, ECHO, value));
        let response = within(responses.next()).await.expect("it goes on");
        assert_eq!(response.into_result().expect("a reply").value, value);
    }
    assert_eq!(responses.outstanding(), 1);
    drop(responses);
    assert_eq!(server.node().pending(), 0);
    // It is not told either, since it would not understand: the next that it hears is a call.
    let call = server.call(2);
    let request = peer.echo().await;
    assert_eq!((request.method.as_str(), request.number()), (ECHO, 2));
    answered(call, 2).await;
}

#[tokio::test]
async fn large_requests_pass_a_small_window() {
    let server = RawServer::start().await;
    let request = Number {
        value: 1,
        payload: Bytes::from(vec![7; 1_000_000]),
    };
    let call = server
        .client()
        .rpc::<Number, Number>(&server.node(), ECHO, request.clone())
        .send();
    let mut peer = server.accept().await;
    let received = peer.request().await;
    assert_eq!(Number::decode(received.payload.clone()), Ok(request));
    peer.send(&envelope(received.id, ECHO, 2));
    answered(call, 2).await;
}
