//! What a client makes of replies, one by one.

use bytes::Bytes;
use gorums::{Code, NodeState, Outcome};
use prost_types::Any;

use crate::raw_server::{RawServer, answered, failed};
use crate::wire::{ECHO, Envelope, HIGH_BIT, WireStatus, envelope, envelope_of_size, framed};

#[tokio::test]
async fn replies_with_unknown_ids_and_second_replies_are_ignored() {
    let server = RawServer::start().await;
    let calls: Vec<_> = (0..3).map(|value| server.call(value)).collect();
    let mut peer = server.accept().await;
    for call in calls {
        let request = peer.request().await;
        for id in [0, request.id + 1000, !HIGH_BIT] {
            peer.send(&envelope(id, ECHO, 99));
        }
        peer.send(&request);
        peer.send(&envelope(request.id, ECHO, 99));
        peer.send(&envelope(request.id, ECHO, 99));
        answered(call, request.number()).await;
    }
    assert_eq!(server.node().pending(), 0);
    assert_eq!(server.node().state(), NodeState::Connected);
}

#[tokio::test]
async fn a_reply_of_another_method_fails_its_call_only() {
    let server = RawServer::start().await;
    let (first, mut peer, request) = server.called().await;
    let second = server.call(2);
    peer.send(&envelope(request.id, "test.Test.Other", 1));
    let error = failed(first, Outcome::Unknown, Code::Internal).await;
    let text = error.to_string();
    assert!(
        text.contains(ECHO) && text.contains("test.Test.Other"),
        "{text}"
    );
    peer.echo().await;
    answered(second, 2).await;
}

#[tokio::test]
async fn an_error_reply_arrives_whole() {
    let server = RawServer::start().await;
    let (call, mut peer, request) = server.called().await;
    let details = vec![
        Any {
            type_url: "type.googleapis.com/test.Detail".to_owned(),
            value: vec![1, 2, 3],
        },
        Any::default(),
    ];
    peer.send(&Envelope {
        status: Some(WireStatus {
            code: 5,
            message: "abc\u{fc}".to_owned(),
            details: details.clone(),
        }),
        ..envelope(request.id, ECHO, 0)
    });
    let error = failed(call, Outcome::Refused, Code::NotFound).await;
    assert_eq!(error.status().message(), "abc\u{fc}");
    assert_eq!(error.status().details(), details);
}

#[tokio::test]
async fn a_status_with_code_0_is_success() {
    let server = RawServer::start().await;
    let (call, mut peer, mut reply) = server.called().await;
    reply.status = Some(WireStatus::default());
    peer.send(&reply);
    answered(call, 1).await;
}

#[tokio::test]
async fn replies_may_be_cut_and_joined_anywhere() {
    let server = RawServer::start().await;
    let mut accepted = None;
    for cut in 0.. {
        let calls: Vec<_> = (0..3).map(|value| server.call(value)).collect();
        if accepted.is_none() {
            accepted = Some(server.accept().await);
        }
        let peer = accepted.as_mut().expect("accepted");
        let mut bytes = Vec::new();
        for _ in 0..3 {
            bytes.extend(peer.request().await.framed());
        }
        let mut bytes = Bytes::from(bytes);
        let end = cut >= bytes.len();
        let first = bytes.split_to(cut.min(bytes.len()));
        for frame in [first, bytes] {
            if !frame.is_empty() {
                peer.send_bytes(frame);
            }
        }
        for (value, call) in (0..).zip(calls) {
            answered(call, value).await;
        }
        if end {
            return;
        }
    }
}

#[tokio::test]
async fn a_reply_above_the_limit_fails_its_call_only() {
    let server = RawServer::start_with(|builder| builder.max_decoding_message_size(10_000)).await;
    let (first, mut peer, request) = server.called().await;
    let second = server.call(2);
    peer.send(&envelope_of_size(request.id, ECHO, 60_000));
    let error = failed(first, Outcome::Unknown, Code::ResourceExhausted).await;
    assert!(error.to_string().contains("10000"), "{error}");
    peer.echo().await;
    answered(second, 2).await;
}

#[tokio::test]
async fn a_malformed_reply_ends_the_connection_and_fails_written_calls() {
    let server = RawServer::start().await;
    let (call, mut peer, _) = server.called().await;
    peer.send_bytes(framed(&[0x2a, 9, 1]));
    let error = failed(call, Outcome::Unknown, Code::Internal).await;
    assert!(error.to_string().contains("malformed"), "{error}");
    server.is_reached_again().await;
}
