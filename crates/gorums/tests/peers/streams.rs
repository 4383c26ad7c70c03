//! Streamed replies between our side and peers that know no credit, or do not keep to it.

use gorums::responses::Responses;
use gorums::{
    Code, Configuration, NodeError, Replies, ReplySender, Server, ServerBuilder, ServerCtx, Status,
};

use crate::common::{Counter, Number, TestServer, echo, within};
use crate::raw_client::{RawClient, Stream, callable_request, opened};
use crate::raw_server::{RawPeer, RawServer, answered};
use crate::wire::{ECHO, Envelope, envelope};

const STREAM: &str = "test.Test.Stream";
const HOLD: &str = "test.Test.Hold";
/// What a reply costs beside its payload.
const OVERHEAD: usize = 256;
const CREDIT: u32 = 3;
const CANCEL: u32 = 1;
const END: u32 = 2;

/// Streams so many numbers, and counts those that were sent.
fn streaming(sent: &Counter) -> ServerBuilder {
    let sent = sent.clone();
    echo().streaming(
        STREAM,
        move |_ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
            let sent = sent.clone();
            async move {
                for value in 0..request.value {
                    replies
                        .send(Number {
                            value,
                            ..Number::default()
                        })
                        .await?;
                    sent.add();
                }
                Ok::<_, Status>(())
            }
        },
    )
}

/// With a method that has the turn until it is let go.
fn holding(builder: ServerBuilder, hold: &Counter, held: &Counter) -> ServerBuilder {
    let (holding, released) = (hold.clone(), held.clone());
    builder.unary(HOLD, move |_ctx: ServerCtx, request: Number| {
        let (holding, released) = (holding.clone(), released.clone());
        async move {
            holding.add();
            released.reached(1).await;
            Ok::<_, Status>(request)
        }
    })
}

fn credit(id: u64, credit: u64) -> Envelope {
    Envelope {
        id,
        credit,
        control: CREDIT,
        ..Envelope::default()
    }
}

/// A client that announces these features.
async fn announcing(server: &TestServer, features: &str) -> (RawClient, Stream) {
    let mut client = RawClient::connect(server.addr).await;
    let stream = client.announcing(features).await;
    (client, stream)
}

async fn takes(stream: &mut Stream, id: u64, values: std::ops::Range<u64>) {
    for value in values {
        let reply = stream.reply().await;
        assert_eq!((reply.id, reply.number(), reply.control), (id, value, 0));
    }
}

#[tokio::test]
async fn a_client_that_knows_no_credit_gets_all() {
    let sent = Counter::new();
    let (_server, _client, mut stream) = opened(streaming(&sent)).await;
    stream.send(&envelope(7, STREAM, 5_000));
    stream.send(&envelope(8, ECHO, 1));
    takes(&mut stream, 7, 0..5_000).await;
    // It did not give up the turn.
    assert_eq!(stream.reply().await.id, 8);
}

#[tokio::test]
async fn a_client_that_knows_credit_gets_what_it_has_given_credit_for() {
    let sent = Counter::new();
    let server = TestServer::start(streaming(&sent)).await;
    let (_client, mut stream) = announcing(&server, "cancel,stream-end,credit").await;
    stream.send(&envelope(7, STREAM, 200));
    // One goes without any credit.
    takes(&mut stream, 7, 0..1).await;
    stream.call(8).await;
    // Two of them, where numbers below 128 take two bytes: the account is 1 after the first.
    stream.send(&credit(7, OVERHEAD as u64));
    takes(&mut stream, 7, 1..2).await;
    stream.call(9).await;
    stream.send(&credit(7, 2 * (OVERHEAD as u64 + 2)));
    takes(&mut stream, 7, 2..4).await;
    stream.call(10).await;
    // None of these is for a handler that waits for credit.
    for id in [6, 8, u64::MAX, 0] {
        stream.send(&credit(id, u64::MAX));
    }
    stream.send(&credit(7, 0));
    stream.call(11).await;
    assert_eq!(sent.get(), 4);
    for _ in 0..3 {
        stream.send(&credit(7, u64::MAX));
    }
    takes(&mut stream, 7, 4..200).await;
    assert_eq!(stream.reply().await.control, END);
    stream.call(12).await;
}

#[tokio::test]
async fn credit_that_comes_before_the_handler_starts_is_kept_for_it() {
    let sent = Counter::new();
    let (hold, held) = (Counter::new(), Counter::new());
    let server = TestServer::start(holding(streaming(&sent), &hold, &held)).await;
    let (mut client, mut stream) = announcing(&server, "stream-end,credit").await;
    stream.send(&envelope(1, HOLD, 1));
    hold.reached(1).await;
    stream.send(&envelope(7, STREAM, 100));
    stream.send(&credit(7, 1 << 20));
    client.is_read().await;
    held.add();
    assert_eq!(stream.reply().await.id, 1);
    takes(&mut stream, 7, 0..100).await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_what_it_has_asked_for() {
    let sent = Counter::new();
    let server = TestServer::start(streaming(&sent)).await;
    let (_client, mut stream) = announcing(&server, "stream-end,credit").await;
    stream.send(&envelope(7, STREAM, 1_000));
    takes(&mut stream, 7, 0..1).await;
    stream.half_close();
    takes(&mut stream, 7, 1..1_000).await;
    assert_eq!(stream.reply().await.control, END);
    assert_eq!(stream.status().await.0, 0);
}

#[tokio::test]
async fn a_request_with_the_id_of_one_that_waits_for_credit_lets_that_one_go_on() {
    let sent = Counter::new();
    let server = TestServer::start(streaming(&sent)).await;
    let (_client, mut stream) = announcing(&server, "stream-end,credit").await;
    stream.send(&envelope(7, STREAM, 100));
    takes(&mut stream, 7, 0..1).await;
    stream.send(&envelope(7, STREAM, 50));
    stream.half_close();
    two_end(&mut stream).await;
    assert_eq!(sent.get(), 150);
    assert_eq!(stream.status().await.0, 0);
}

#[tokio::test]
async fn of_two_requests_with_one_id_that_start_together_the_second_outlives_the_first() {
    let sent = Counter::new();
    let (hold, held) = (Counter::new(), Counter::new());
    let server = TestServer::start(holding(streaming(&sent), &hold, &held)).await;
    let (mut client, mut stream) = announcing(&server, "stream-end,credit").await;
    stream.send(&envelope(1, HOLD, 1));
    hold.reached(1).await;
    // What the first sends uses up the credit of both.
    stream.send(&envelope(7, STREAM, 1));
    stream.send(&envelope(7, STREAM, 50));
    client.is_read().await;
    held.add();
    assert_eq!(stream.reply().await.id, 1);
    two_end(&mut stream).await;
    assert_eq!(sent.get(), 51);
}

async fn two_end(stream: &mut Stream) {
    let mut ended = 0;
    while ended < 2 {
        ended += u32::from(stream.reply().await.control == END);
    }
}

#[tokio::test]
async fn a_sender_that_waits_for_credit_is_told_when_the_connection_is_cut() {
    let (sent, gone) = (Counter::new(), Counter::new());
    let told = gone.clone();
    let builder = Server::builder().streaming(
        STREAM,
        move |_ctx: ServerCtx, request: Number, replies: ReplySender<Number>| {
            let (sent, told) = (sent.clone(), told.clone());
            async move {
                while replies.send(request.clone()).await.is_ok() {
                    sent.add();
                }
                told.add();
                Ok::<_, Status>(())
            }
        },
    );
    let server = TestServer::start(builder).await;
    for (cut, count) in [(true, 1), (false, 2)] {
        let (client, mut stream) = announcing(&server, "cancel,credit").await;
        stream.send(&envelope(7, STREAM, 1));
        assert_eq!(stream.reply().await.id, 7);
        if cut {
            client.cut();
        } else {
            stream.send(&Envelope {
                id: 7,
                control: CANCEL,
                ..Envelope::default()
            });
        }
        gone.reached(count).await;
    }
}

/// A streamed call of our client, and its request at a server that announces these features.
async fn asked(server: &RawServer, features: &str) -> (Responses<Number>, RawPeer, Envelope) {
    let call = server
        .client()
        .streamed_quorum_call(STREAM, Number::default());
    let responses = call.unread_replies(100_000).responses();
    let mut peer = server.accept().await;
    peer.respond_with(features);
    let request = peer.request().await;
    assert_eq!(request.method, STREAM);
    (responses, peer, request)
}

/// Replies whose payloads take 1,000 bytes each, with what they count beside.
fn chunks(request: &Envelope, count: usize) -> Vec<u8> {
    // A number's payload of 997 bytes, behind its key and its length.
    let mut payload = vec![0x12, 0xe5, 0x07];
    payload.resize(1_000, 7);
    let chunk = Envelope {
        payload: payload.into(),
        ..envelope(request.id, STREAM, 0)
    };
    chunk.framed().repeat(count)
}

const COST: usize = 1_000 + OVERHEAD;

/// Takes so many replies, and then the failure of the node.
async fn fails_behind(mut responses: Responses<Number>, count: usize) -> NodeError {
    for _ in 0..count {
        let response = within(responses.next()).await.expect("not the end");
        response.into_result().expect("a chunk");
    }
    let response = within(responses.next()).await.expect("not the end");
    assert!(within(responses.next()).await.is_none());
    response.into_result().expect_err("too much")
}

/// Waits until the client has read what was sent, by a call that it makes.
async fn has_read(server: &RawServer, peer: &mut RawPeer) {
    let call = server.call(7);
    loop {
        let request = peer.request().await;
        if request.method == ECHO {
            peer.send(&request);
            break;
        }
    }
    answered(call, 7).await;
}

#[tokio::test]
async fn a_server_that_knows_no_credit_fails_openly_at_the_bound_and_answers_other_calls() {
    let server = RawServer::start().await;
    let (responses, mut peer, request) = asked(&server, "").await;
    let kept = (16 * 100_000_usize).div_ceil(COST);
    peer.send_bytes(chunks(&request, kept + 5));
    has_read(&server, &mut peer).await;
    let error = fails_behind(responses, kept).await;
    assert_eq!(error.code(), Code::ResourceExhausted);
    let text = error.status().message();
    assert!(
        text.contains("1600000 bytes") && text.contains("unread_replies"),
        "{text}"
    );
    assert_eq!(server.node().pending(), 0);
}

#[tokio::test]
async fn a_server_that_knows_no_credit_is_read_to_the_end_below_the_bound() {
    let server = RawServer::start().await;
    let (mut responses, mut peer, request) = asked(&server, "stream-end").await;
    // The reader is behind all the time, and not by too much.
    let kept = (16 * 100_000_usize).div_ceil(COST);
    peer.send_bytes(chunks(&request, kept));
    for _ in 0..5 {
        has_read(&server, &mut peer).await;
        for _ in 0..kept / 2 {
            let response = within(responses.next()).await.expect("not the end");
            response.into_result().expect("a chunk");
        }
        peer.send_bytes(chunks(&request, kept / 2));
    }
    let end = Envelope {
        id: request.id,
        control: END,
        ..Envelope::default()
    };
    peer.send(&end);
    for _ in 0..kept {
        let response = within(responses.next()).await.expect("not the end");
        response.into_result().expect("a chunk");
    }
    assert!(within(responses.next()).await.is_none());
}

#[tokio::test]
async fn a_server_that_sends_more_than_its_credit_fails_openly_and_answers_other_calls() {
    let server = RawServer::start().await;
    let (responses, mut peer, request) = asked(&server, "cancel,stream-end,credit").await;
    let given = peer.request().await;
    assert_eq!((given.id, given.control), (request.id, CREDIT));
    assert_eq!(given.credit, 100_000 - 1);
    let kept = 100_000_usize.div_ceil(COST);
    peer.send_bytes(chunks(&request, kept + 1));
    let cancel = peer.request().await;
    assert_eq!((cancel.id, cancel.control), (request.id, CANCEL));
    has_read(&server, &mut peer).await;
    let error = fails_behind(responses, kept).await;
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.status().message().contains("credit"), "{error}");
}

#[tokio::test]
async fn credit_is_given_back_as_replies_are_taken() {
    let server = RawServer::start().await;
    let (mut responses, mut peer, request) = asked(&server, "credit").await;
    assert_eq!(peer.request().await.credit, 100_000 - 1);
    let kept = 100_000_usize.div_ceil(COST);
    peer.send_bytes(chunks(&request, kept));
    for _ in 0..kept {
        let response = within(responses.next()).await.expect("not the end");
        response.into_result().expect("a chunk");
    }
    // Half of the window at a time, or more in one message where the client was slow to write.
    let mut given = 0;
    while kept * COST - given >= 50_000 {
        let more = peer.request().await;
        assert_eq!((more.id, more.control), (request.id, CREDIT));
        assert!(more.credit >= 50_000, "{more:?}");
        given += more.credit as usize;
    }
    has_read(&server, &mut peer).await;
}

#[tokio::test]
async fn a_correctable_holds_nobody_back() {
    let server = RawServer::start().await;
    let call = server
        .client()
        .streamed_quorum_call(STREAM, Number::default());
    let mut answer = call.correctable_fn(|_, _: &mut Replies<Number>| (0_u64, 1, false));
    let mut peer = server.accept().await;
    peer.respond_with("credit");
    let request = peer.request().await;
    let given = peer.request().await;
    assert_eq!((given.id, given.credit), (request.id, i64::MAX as u64));
    peer.send_bytes(chunks(&request, 5_000));
    has_read(&server, &mut peer).await;
    assert_eq!(answer.dropped(), 5_000 - 64);
    assert!(answer.latest().is_some());
}

#[tokio::test]
async fn a_client_that_is_called_back_knows_credit_or_not_like_a_server() {
    let server = echo().bind("127.0.0.1:0").await.expect("a free port");
    let addr = server.local_addr().socket_addr().expect("it is on TCP");
    let clients = server.clients();
    let serving = tokio::spawn(server.serve());
    for features in ["", "credit"] {
        let mut client = RawClient::connect(addr).await;
        let mut request = callable_request("0");
        let value = features.parse().expect("ASCII");
        request.headers_mut().insert("gorums-features", value);
        let mut stream = client.open_with(request).await;
        let called = within(clients.wait_for(|clients| clients.len() == 1))
            .await
            .expect("it serves");
        let call = gorums::Client::new(&called)
            .streamed_quorum_call::<_, Number>(STREAM, Number::default());
        let responses = call.unread_replies(100_000).responses();
        let request = stream.reply().await;
        let windows = if features.is_empty() {
            16
        } else {
            let given = stream.reply().await;
            assert_eq!((given.id, given.control), (request.id, CREDIT));
            1
        };
        let kept = (windows * 100_000_usize).div_ceil(COST);
        stream.send_bytes(chunks(&request, kept + 1));
        // The server has read all of them when it answers.
        stream.send(&envelope(9, ECHO, 9));
        while stream.reply().await.method != ECHO {}
        let error = fails_behind(responses, kept).await;
        assert_eq!(error.code(), Code::ResourceExhausted);
        drop((stream, called));
        client.cut();
        within(clients.wait_for(Configuration::is_empty))
            .await
            .expect("it serves");
    }
    serving.abort();
}
