//! What becomes of a client's calls where the server ends the stream or the connection.

use gorums::{Code, Outcome};
use h2::Reason;
use http::Response;
use tokio::io::AsyncWriteExt;

use crate::common::within;
use crate::raw_server::{Goodbye, RawServer, answered, failed};

#[tokio::test]
async fn trailers_fail_written_calls_with_their_status() {
    let server = RawServer::start().await;
    let calls = [server.call(1), server.call(2), server.call(3)];
    let mut peer = server.accept().await;
    let [first, second, third] = calls;
    for value in 1..=3 {
        let request = peer.request().await;
        assert_eq!(request.number(), value);
        if value == 1 {
            peer.send(&request);
        }
    }
    peer.end("8", "too%20much");
    answered(first, 1).await;
    for call in [second, third] {
        let error = failed(call, Outcome::Unknown, Code::ResourceExhausted).await;
        assert_eq!(error.status().message(), "too much");
    }
    assert_eq!(server.node().pending(), 0);
    drop(peer);
    server.is_reached_again().await;
}

#[tokio::test]
async fn an_end_with_status_0_fails_written_calls_too() {
    let server = RawServer::start().await;
    let (call, mut peer, _) = server.called().await;
    peer.end("0", "");
    failed(call, Outcome::Unknown, Code::Unavailable).await;
    server.is_reached_again().await;
}

#[tokio::test]
async fn a_server_that_refuses_the_stream_is_quoted() {
    let server = RawServer::start().await;
    let head = |status: u16, headers: &[(&str, &str)]| {
        let mut head = Response::builder().status(status);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        head.body(()).expect("well-formed")
    };
    let grpc = ("content-type", "application/grpc");
    for (head, code, says) in [
        (head(404, &[]), Code::Unimplemented, "404"),
        (head(401, &[]), Code::Unauthenticated, "401"),
        (head(503, &[grpc]), Code::Unavailable, "503"),
        (head(200, &[]), Code::Unknown, "not gRPC"),
        (
            head(200, &[("content-type", "text/html")]),
            Code::Unknown,
            "not gRPC",
        ),
        (
            head(
                200,
                &[
                    grpc,
                    ("grpc-status", "12"),
                    ("grpc-message", "unknown service"),
                ],
            ),
            Code::Unimplemented,
            "unknown service",
        ),
    ] {
        // The request is written: what becomes of it is not known.
        let (call, mut peer, _) = server.called().await;
        peer.refuse(head);
        let error = failed(call, Outcome::Unknown, code).await;
        assert!(
            error.to_string().contains(says),
            "{error} does not say {says:?}"
        );
        let last = server.node().last_error().expect("it failed");
        assert!(
            last.message().contains(says),
            "{last} does not say {says:?}"
        );
    }
    server.is_reached_again().await;
}

#[tokio::test]
async fn a_reset_by_the_server_fails_written_calls() {
    let server = RawServer::start().await;
    let (call, mut peer, _) = server.called().await;
    peer.respond().send_reset(Reason::INTERNAL_ERROR);
    failed(call, Outcome::Unknown, Code::Unavailable).await;
    server.is_reached_again().await;
}

#[tokio::test]
async fn a_server_that_closes_right_after_accepting_fails_calls_and_is_tried_again() {
    let server = RawServer::start().await;
    let close_all = async || -> () {
        loop {
            drop(server.accept_tcp().await);
        }
    };
    for _ in 0..3 {
        let error = tokio::select! {
            biased;
            () = close_all() => unreachable!("it goes on for ever"),
            reply = within(server.call(1)) => reply.expect_err("the connection was closed"),
        };
        assert_eq!(error.code(), Code::Unavailable);
        assert_ne!(error.outcome(), Outcome::Refused);
    }
    server.is_reached_again().await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_fails_calls() {
    let server = RawServer::start().await;
    let call = server.call(1);
    let mut tcp = server.accept_tcp().await;
    tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .expect("connected");
    let error = within(call).await.expect_err("no HTTP/2");
    assert_eq!(error.code(), Code::Unavailable);
    drop(tcp);
    server.is_reached_again().await;
}

#[tokio::test]
async fn after_a_graceful_goaway_calls_under_way_are_answered() {
    let server = RawServer::start().await;
    let (call, mut peer, request) = server.called().await;
    peer.respond();
    peer.say(Goodbye::Graceful);
    peer.send(&request);
    answered(call, 1).await;
    peer.end("14", "shutting down");
    peer.client_is_gone().await;
    server.is_reached_again().await;
}

#[tokio::test]
async fn a_goaway_with_an_error_fails_written_calls() {
    let server = RawServer::start().await;
    let (call, peer, _) = server.called().await;
    peer.say(Goodbye::Abrupt(Reason::ENHANCE_YOUR_CALM));
    failed(call, Outcome::Unknown, Code::Unavailable).await;
    server.is_reached_again().await;
}
