//! What a server makes of messages, one by one.

use bytes::Bytes;
use prost::Message;

use crate::common::{Number, TestServer, echo};
use crate::raw_client::{RawClient, opened};
use crate::wire::{ECHO, Entry, Envelope, HIGH_BIT, NOTE, envelope, envelope_of_size, framed};

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_the_stream_goes_on() {
    let (_server, _client, mut stream) = opened(echo()).await;
    for method in ["test.Test.None", "/test.Test/Echo", ""] {
        stream.send(&envelope(1, method, 1));
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.method.as_str()), (1, method));
        let message = format!("no handler registered for method {method}");
        assert_eq!(reply.error(), (12, message.as_str()));
    }
    stream.call(2).await;
}

#[tokio::test]
async fn a_payload_that_cannot_be_decoded_is_an_invalid_argument_and_the_stream_goes_on() {
    let (_server, _client, mut stream) = opened(echo()).await;
    // A field that ends before its value.
    let payload = Bytes::from_static(&[0x08]);
    let reason = Number::decode(payload.clone())
        .expect_err("no number")
        .to_string();
    stream.send(&Envelope {
        payload,
        ..envelope(1, ECHO, 0)
    });
    let reply = stream.reply().await;
    let (code, message) = reply.error();
    assert_eq!((reply.id, code), (1, 3));
    assert!(
        message.contains(&reason),
        "{message:?} does not say {reason:?}"
    );
    stream.call(2).await;
}

#[tokio::test]
async fn an_oversized_two_way_request_is_answered_and_the_stream_goes_on() {
    let (_server, _client, mut stream) = opened(echo().max_decoding_message_size(10_000)).await;
    for id in [1, 3] {
        stream.send(&envelope_of_size(id, ECHO, 60_000));
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.method.as_str()), (id, ECHO));
        assert_eq!(reply.error().0, 8);
        stream.call(id + 1).await;
    }
}

#[tokio::test]
async fn an_oversized_two_way_request_with_id_0_is_answered_as_well() {
    let (_server, _client, mut stream) = opened(echo().max_decoding_message_size(10_000)).await;
    stream.send(&envelope_of_size(0, ECHO, 60_000));
    let reply = stream.reply().await;
    assert_eq!((reply.id, reply.error().0), (0, 8));
    stream.call(1).await;
}

#[tokio::test]
async fn an_oversized_one_way_request_ends_the_stream_with_status_8() {
    let builder = echo()
        .max_decoding_message_size(10_000)
        .one_way(NOTE, |_ctx, _request: Number| async {});
    let (_server, _client, mut stream) = opened(builder).await;
    stream.send(&envelope(1, ECHO, 1));
    stream.send(&envelope_of_size(2, NOTE, 60_000));
    stream.send(&envelope(3, ECHO, 3));
    assert_eq!(stream.reply().await.id, 1, "what came before is answered");
    assert_eq!(stream.status().await.0, 8);
}

#[tokio::test]
async fn a_malformed_envelope_ends_the_stream_with_status_13() {
    let server = TestServer::start(echo()).await;
    // A field longer than the message, a method that is no text, a field of another type.
    for malformed in [&[0x2a, 9, 1][..], &[0x12, 1, 0xff], &[0x10, 1]] {
        let mut client = RawClient::connect(server.addr).await;
        let mut stream = client.open().await;
        stream.send(&envelope(1, ECHO, 1));
        stream.send_bytes(framed(malformed));
        stream.send(&envelope(2, ECHO, 2));
        assert_eq!(stream.reply().await.id, 1, "what came before is answered");
        let (status, message) = stream.status().await;
        assert_eq!(status, 13, "{malformed:x?}");
        assert!(message.contains("malformed"));
    }
}

#[tokio::test]
async fn messages_may_be_cut_anywhere_into_frames() {
    let (_server, _client, mut stream) = opened(echo()).await;
    let messages = [
        envelope(1, ECHO, 300),
        envelope(2, ECHO, 0),
        envelope(3, ECHO, 5),
    ];
    let bytes: Vec<u8> = messages.iter().flat_map(Envelope::framed).collect();
    let bytes = Bytes::from(bytes);
    let mut frames: Vec<Vec<Bytes>> = (0..=bytes.len())
        .map(|cut| vec![bytes.slice(..cut), bytes.slice(cut..)])
        .collect();
    frames.push((0..bytes.len()).map(|at| bytes.slice(at..=at)).collect());
    for frames in frames {
        for frame in frames {
            if !frame.is_empty() {
                stream.send_bytes(frame);
            }
        }
        for message in &messages {
            let reply = stream.reply().await;
            assert_eq!((reply.id, reply.number()), (message.id, message.number()));
        }
    }
}

#[tokio::test]
async fn message_id_0_and_ids_used_twice_are_answered_as_usual() {
    let (_server, _client, mut stream) = opened(echo()).await;
    for (id, value) in [(0, 1), (7, 2), (7, 3), (0, 4)] {
        stream.send(&envelope(id, ECHO, value));
    }
    for (id, value) in [(0, 1), (7, 2), (7, 3), (0, 4)] {
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.number()), (id, value));
    }
}

#[tokio::test]
async fn a_reply_has_id_and_method_of_its_request_and_no_metadata() {
    let (_server, _client, mut stream) = opened(echo()).await;
    let entry = |key: &str| Entry {
        key: key.to_owned(),
        value: "of the request".to_owned(),
    };
    for method in [ECHO, "test.Test.Nothing"] {
        let request = Envelope {
            entries: vec![entry("trace"), entry("tenant")],
            ..envelope(77, method, 5)
        };
        stream.send(&request);
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.method.as_str()), (77, method));
        assert_eq!(reply.entries, []);
        // An error has no payload either.
        assert_eq!(reply.payload.is_empty(), reply.status.is_some());
        assert_eq!(reply.status.is_none(), method == ECHO);
    }
}

#[tokio::test]
async fn ids_with_the_high_bit_are_requests_of_clients_that_cannot_be_called() {
    let (_server, _client, mut stream) = opened(echo()).await;
    for id in [HIGH_BIT, HIGH_BIT | 1, u64::MAX] {
        stream.call(id).await;
    }
}
