//! Hostile clients of our server.

use std::time::Duration;

use gorums::Status;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Number, TestServer, echo, within};
use crate::foe::{Foe, GoodClient};
use crate::frames::*;
use crate::raw_client::RawClient;

const HOLD: &str = "test.Test.Hold";

#[tokio::test]
async fn broken_http_2_ends_the_connection_with_the_reason_and_the_others_are_served() {
    let server = TestServer::start(echo()).await;
    let good = GoodClient::connect(server.addr);
    let settings_of = |name, value| settings(&[(name, value)]);
    let request = header_block(&REQUEST);
    let opened_and_reset = |count: u32| -> Vec<u8> {
        let streams = (1..=count).map(|n| 2 * n + 1);
        streams
            .flat_map(|id| [headers(id, END_STREAM, &REQUEST), reset(id, 8)].concat())
            .collect()
    };
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        ("DATA of no stream", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (
            "DATA of a stream that was not opened",
            frame(DATA, 0, 7, b"x"),
            PROTOCOL_ERROR,
        ),
        (
            "headers of no stream",
            headers(0, 0, &REQUEST),
            PROTOCOL_ERROR,
        ),
        (
            "headers of a stream of the server's",
            headers(2, 0, &REQUEST),
            PROTOCOL_ERROR,
        ),
        (
            "a reset of a stream that was not opened",
            reset(9, 8),
            PROTOCOL_ERROR,
        ),
        ("a reset of no stream", reset(0, 8), PROTOCOL_ERROR),
        (
            "a reset of three bytes",
            frame(RST_STREAM, 0, 1, &[0; 3]),
            PROTOCOL_ERROR,
        ),
        (
            "a ping of seven bytes",
            frame(PING, 0, 0, &[0; 7]),
            PROTOCOL_ERROR,
        ),
        (
            "a ping of a stream",
            frame(PING, 0, 1, &[0; 8]),
            PROTOCOL_ERROR,
        ),
        (
            "settings of five bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            PROTOCOL_ERROR,
        ),
        (
            "settings of a stream",
            frame(SETTINGS, 0, 1, &[]),
            PROTOCOL_ERROR,
        ),
        (
            "an acknowledgement with settings",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            PROTOCOL_ERROR,
        ),
        (
            "a window above 2^31",
            settings_of(INITIAL_WINDOW_SIZE, 1 << 31),
            PROTOCOL_ERROR,
        ),
        (
            "a frame size of 1",
            settings_of(MAX_FRAME_SIZE, 1),
            PROTOCOL_ERROR,
        ),
        ("a window update of 0", window_update(0, 0), PROTOCOL_ERROR),
        (
            "a window that overflows",
            window_update(0, u32::MAX >> 1),
            FLOW_CONTROL_ERROR,
        ),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, b""),
            PROTOCOL_ERROR,
        ),
        (
            "headers that something else interrupts",
            [frame(HEADERS, 0, 3, &request), ping()].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "headers without end",
            [
                frame(HEADERS, 0, 3, &request),
                frame(CONTINUATION, 0, 3, &header_block(&[("a", "b")])).repeat(10_000),
            ]
            .concat(),
            ENHANCE_YOUR_CALM,
        ),
        (
            "headers that are none",
            frame(HEADERS, END_HEADERS, 3, &[0xff; 50]),
            PROTOCOL_ERROR,
        ),
        (
            "a promise",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            PROTOCOL_ERROR,
        ),
        (
            "a priority of four bytes",
            frame(PRIORITY, 0, 1, &[0; 4]),
            PROTOCOL_ERROR,
        ),
        (
            "more padding than frame",
            frame(DATA, PADDED, 1, &[200, 1, 2]),
            PROTOCOL_ERROR,
        ),
        (
            "a frame that is too large",
            frame_head(2 << 20, DATA, 0, 1),
            FRAME_SIZE_ERROR,
        ),
        (
            "a goodbye of four bytes",
            frame(GOAWAY, 0, 0, &[0; 4]),
            PROTOCOL_ERROR,
        ),
        (
            "empty frames without end",
            data(b"").repeat(10_000),
            ENHANCE_YOUR_CALM,
        ),
        (
            "streams opened and reset",
            opened_and_reset(10_000),
            ENHANCE_YOUR_CALM,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let mut foe = Foe::open(server.addr).await;
        foe.send(&bytes).await;
        let told = foe.ended().await;
        // What is still on its way when a connection is closed may cost the peer its last frame.
        if told.is_some_and(|told| told != expected) || (told.is_none() && bytes.len() < 100_000) {
            wrong.push((name, told, expected));
        }
        good.is_served().await;
    }
    assert!(wrong.is_empty(), "what, told, expected: {wrong:#?}");
}

#[tokio::test]
async fn what_exceeds_the_window_ends_the_stream() {
    let builder = echo().max_waiting_bytes(1).unary(HOLD, |_ctx, _: Number| {
        std::future::pending::<Result<Number, Status>>()
    });
    let server = TestServer::start(builder).await;
    let good = GoodClient::connect(server.addr);
    let mut foe = Foe::open(server.addr).await;
    foe.is_read().await;
    // The second one waits, and nothing behind it is read.
    for method in [HOLD, ECHO] {
        let request = data(&envelope(1, method, 1).framed());
        foe.send_data(&request).await;
        foe.is_read().await;
    }
    let mut left = foe.window();
    while left > 0 {
        let bytes = left.min(1 << 20);
        foe.send_data(&data(&vec![7; bytes])).await;
        left -= bytes;
    }
    foe.is_read().await;
    assert_eq!(foe.window(), 0);
    foe.send(&data(b"x")).await;
    let ended = loop {
        let frame = foe.read().await.expect("the server says why");
        if [RST_STREAM, GOAWAY].contains(&frame.kind) {
            break reason(&frame);
        }
    };
    assert_eq!(ended, FLOW_CONTROL_ERROR);
    good.is_served().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_2_are_refused() {
    // What could still become a client has that long.
    let builder = echo().stream_timeout(Duration::from_millis(100));
    let server = TestServer::start(builder).await;
    let good = GoodClient::connect(server.addr);
    let mut client_hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    client_hello.resize(517, 7);
    let mut cases = vec![
        client_hello,
        b"SSH-2.0-OpenSSH_9.6\r\n".repeat(2),
        b"POST /stream.Gorums/NodeStream HTTP/1.1\r\nHost: gorums\r\n\r\n".to_vec(),
        [PREFACE, &[0xff; 100]].concat(),
        [PREFACE, &ping()].concat(),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..100 {
        let len = rng.usize(24..5_000);
        cases.push(std::iter::repeat_with(|| rng.u8(..)).take(len).collect());
    }
    for bytes in cases {
        let mut foe = Foe::connect(server.addr).await;
        foe.send(&bytes).await;
        foe.ended().await;
    }
    good.is_served().await;
}

#[tokio::test]
async fn a_peer_that_stops_in_the_middle_is_disconnected() {
    let builder = echo()
        .keep_alive(Duration::from_millis(20), Duration::from_millis(20))
        .stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    let good = GoodClient::connect(server.addr);
    let message = data(&envelope(1, ECHO, 1).framed());
    // Within the head of a frame, within a frame, within a message, and behind one.
    for end in [4, 12, message.len()] {
        let mut foe = Foe::open(server.addr).await;
        foe.send(&message[..end]).await;
        foe.ended().await;
    }
    let mut foe = Foe::open(server.addr).await;
    foe.send(&data(&envelope(1, ECHO, 1).framed()[..10])).await;
    foe.ended().await;
    // Before there is a stream.
    for hello in [
        PREFACE.to_vec(),
        [PREFACE.to_vec(), settings(&[])].concat(),
        [
            PREFACE.to_vec(),
            settings(&[]),
            frame_head(100, HEADERS, 0, 1),
        ]
        .concat(),
        [
            PREFACE.to_vec(),
            settings(&[]),
            frame(HEADERS, 0, 1, &header_block(&REQUEST)),
        ]
        .concat(),
    ] {
        let mut foe = Foe::connect(server.addr).await;
        foe.send(&hello).await;
        foe.ended().await;
    }
    good.is_served().await;
}

#[tokio::test]
async fn a_socket_that_is_half_closed_is_closed() {
    let server = TestServer::start(echo()).await;
    let message = data(&envelope(1, ECHO, 1).framed());
    for end in [0, 4, 12, message.len()] {
        let mut foe = Foe::open(server.addr).await;
        foe.send(&message[..end]).await;
        foe.io.shutdown().await.expect("connected");
        foe.ended().await;
    }
}

#[tokio::test]
async fn headers_above_the_limit_are_refused_with_http_status_431() {
    let server = TestServer::start(echo()).await;
    let long = "x".repeat(17_000);
    let tcp = TcpStream::connect(server.addr).await.expect("it listens");
    let (mut requests, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = |value: &str| {
        Request::post(format!("http://gorums{PATH}"))
            .header("content-type", "application/grpc")
            .header("x-long", value)
            .body(())
            .expect("well-formed")
    };
    let (head, _) = requests.send_request(request(&long), true).expect("up");
    assert_eq!(within(head).await.expect("answered").status(), 431);
    // The connection goes on.
    let (head, _) = requests.send_request(request(""), true).expect("up");
    assert_eq!(within(head).await.expect("answered").status(), 200);
}

#[tokio::test]
async fn messages_that_are_broken_end_the_stream_with_a_status() {
    let server = TestServer::start(echo()).await;
    let good = GoodClient::connect(server.addr);
    let compressed = [&[1], &envelope(1, ECHO, 1).framed()[1..]].concat();
    let flagged = [&[2], &envelope(1, ECHO, 1).framed()[1..]].concat();
    let oversized = [&[0, 0xff, 0xff, 0xff, 0xff], &[0x48, 1].repeat(200)[..]].concat();
    for (bytes, code, says) in [
        (compressed, 12, "compress"),
        (flagged, 13, "flag 2"),
        (
            framed(&[0x22, 3, 0x0a, 1, 0xff]),
            13,
            "metadata key is not UTF-8",
        ),
        (
            framed(&[0x22, 3, 0x12, 1, 0xff]),
            13,
            "metadata value is not UTF-8",
        ),
        (framed(&[0x22, 2, 0x0a, 9]), 13, "malformed"),
        (framed(&[0x1a, 2, 0x08, 0x80]), 13, "the status"),
        (framed(&[0x1a, 3, 0x12, 1, 0xff]), 13, "the status"),
        (framed(&[0x0b]), 13, "wire type 3"),
        (framed(&[0x08, 0xff]), 13, "varint"),
        (framed(&[0xff; 11]), 13, "malformed"),
        (
            framed(&[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            13,
            "4294967295 bytes",
        ),
        // Nobody knows whom to answer.
        (oversized, 8, "max_decoding_message_size"),
    ] {
        let mut stream = RawClient::connect(server.addr).await.open().await;
        stream.send(&envelope(1, ECHO, 1));
        stream.send_bytes(bytes);
        let reply = stream.reply().await;
        assert_eq!(reply.id, 1);
        let (status, message) = stream.status().await;
        assert_eq!(status, code, "{message}");
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    }
    good.is_served().await;
}

#[tokio::test]
async fn the_long_name_of_an_unknown_method_is_cut_in_the_text_of_the_answer() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open().await;
    let name = "ä".repeat(50_000);
    stream.send(&envelope(9, &name, 1));
    let reply = stream.reply().await;
    assert_eq!(reply.method, name, "the caller finds its call by it");
    let status = reply.status.expect("an error");
    assert_eq!(status.code, 12);
    assert!(status.message.contains("ää…"), "{}", status.message);
    assert!(status.message.len() < 400, "{}", status.message);
}

#[tokio::test]
async fn a_message_of_4_gib_is_answered_before_it_has_come() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open().await;
    let message = Envelope {
        payload: vec![7; 1_000].into(),
        ..envelope(9, ECHO, 0)
    };
    let mut claimed = message.framed();
    claimed[1..5].fill(0xff);
    stream.send_bytes(claimed);
    let reply = stream.reply().await;
    let status = reply.status.expect("an error");
    assert_eq!((reply.id, status.code), (9, 8));
    assert!(status.message.contains("4294967295"), "{}", status.message);
    stream.half_close();
    assert_eq!(stream.status().await.0, 13, "it ended within the message");
}

#[tokio::test]
async fn metadata_and_details_without_end_are_answered_and_the_stream_goes_on() {
    let builder = echo().one_way(NOTE, |_ctx, _request: Number| async {});
    let server = TestServer::start(builder).await;
    let mut stream = RawClient::connect(server.addr).await.open().await;
    let entries = |id, method| Envelope {
        entries: vec![Entry::default(); 5_000],
        ..envelope(id, method, 1)
    };
    let details = Envelope {
        status: Some(WireStatus {
            code: 3,
            message: String::new(),
            details: vec![prost_types::Any::default(); 5_000],
        }),
        ..envelope(2, ECHO, 1)
    };
    for (request, says) in [
        (entries(1, ECHO), "4096 entries"),
        (details, "1024 details"),
    ] {
        stream.send(&request);
        let reply = stream.reply().await;
        let status = reply.status.expect("an error");
        assert_eq!((reply.id, status.code), (request.id, 8));
        assert!(status.message.contains(says), "{}", status.message);
    }
    stream.send(&envelope(3, ECHO, 1));
    let reply = stream.reply().await;
    assert_eq!((reply.id, reply.status), (3, None));
    // A one-way message cannot be answered.
    stream.send(&entries(4, NOTE));
    assert_eq!(stream.status().await.0, 8);
}

#[tokio::test]
async fn what_a_client_has_no_business_to_send_is_ignored() {
    let server = TestServer::start(echo()).await;
    let mut stream = RawClient::connect(server.addr).await.open().await;
    for control in [1, 2, 3, 4, 5, u32::MAX] {
        for id in [0, 1, 7, u64::MAX] {
            // Cancellations of nothing, ends of nothing, and what no version knows.
            let message = Envelope {
                control,
                ..envelope(id, ECHO, 1)
            };
            stream.send(&message);
        }
    }
    // A status and fields that nobody knows, in a request.
    let status = WireStatus {
        code: 99,
        message: "no".to_owned(),
        details: Vec::new(),
    };
    let request = Envelope {
        status: Some(status),
        ..envelope(8, ECHO, 5)
    };
    stream.send(&request);
    let reply = stream.reply().await;
    assert_eq!((reply.id, reply.status), (8, None));
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_the_reading_of_what_they_answer_back() {
    let builder = echo()
        .max_decoding_message_size(100)
        .max_reply_bytes(10_000);
    let server = TestServer::start(builder).await;
    let mut foe = Foe::open_with(server.addr, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let oversized = Envelope {
        payload: vec![7; 2_000].into(),
        ..envelope(1, ECHO, 0)
    };
    let bytes = data(&oversized.framed().repeat(100));
    let mut sent = 0;
    while foe.may_send(bytes.len()).await {
        foe.send_data(&bytes).await;
        sent += bytes.len();
        assert!(
            sent < 16 << 20,
            "{sent} bytes, and no answer to them is read"
        );
    }
    foe.is_read().await;
    GoodClient::connect(server.addr).is_served().await;
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_answered_all_the_same() {
    let server = TestServer::start(echo()).await;
    let mut foe = Foe::open(server.addr).await;
    let goodbye = go_away(0, 0);
    foe.send(&[goodbye, data(&envelope(1, ECHO, 1).framed())].concat())
        .await;
    loop {
        let frame = read_frame(&mut foe.io).await.expect("the server goes on");
        if frame.kind == DATA {
            let reply: Envelope = prost::Message::decode(&frame.payload[5..]).expect("a reply");
            assert_eq!(reply.id, 1);
            return;
        }
    }
}

#[tokio::test]
async fn floods_that_nobody_reads_the_answers_of_leave_the_others_served() {
    let server = TestServer::start(echo()).await;
    let good = GoodClient::connect(server.addr);
    let settings = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    let unknown_path: Vec<(&str, &str)> = REQUEST
        .into_iter()
        .map(|(name, value)| (name, if name == ":path" { "/none" } else { value }))
        .collect();
    let requests: Vec<u8> = (1..10_000)
        .flat_map(|n| headers(2 * n + 1, END_STREAM, &unknown_path))
        .collect();
    let cancels = data(
        &Envelope {
            control: 1,
            ..envelope(5, "", 0)
        }
        .framed(),
    );
    let mut floods = Vec::new();
    for flood in [
        ping().repeat(10_000),
        settings.repeat(10_000),
        window_update(1, 1).repeat(10_000),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(10_000),
        frame(0x77, 0, 0, &[0; 1_000]).repeat(1_000),
        go_away(0, 0).repeat(10_000),
        data(&envelope(1, ECHO, 1).framed()).repeat(1_000),
        cancels.repeat(1_000),
        requests,
    ] {
        let mut foe = Foe::open(server.addr).await;
        floods.push(tokio::spawn(async move {
            // Until the server has had enough, or takes no more.
            while foe.io.write_all(&flood).await.is_ok() {}
            std::future::pending::<()>().await;
        }));
    }
    good.is_served().await;
    floods.iter().for_each(|flood| flood.abort());
}
