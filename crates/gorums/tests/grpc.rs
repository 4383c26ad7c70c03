//! Calls of ordinary gRPC clients, each on a stream of its own: by tonic, and by hand.

mod common;
#[path = "common/ordinary.rs"]
mod ordinary;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Counter, Number, Stoppable, TestServer, connect, echo, number, within};
use gorums::server::{HandlerOrder, Health, Incoming, Next, ServingStatus, interceptor_fn};
use gorums::{Client, ReplySender, Server, ServerBuilder, ServerCtx, Status};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, StatusCode};
use ordinary::Ordinary;
use prost::Message;
use raw_client::RawClient;
use tokio::sync::Notify;
use tonic::Code;
use tonic_prost::ProstCodec;
use wire::framed;

const ECHO: &str = "/test.Test/Echo";
const HOLD: &str = "/test.Test/Hold";

async fn served(builder: ServerBuilder) -> (TestServer, Ordinary) {
    let server = TestServer::start(builder).await;
    let client = Ordinary::connect(server.addr).await;
    (server, client)
}

#[tokio::test]
async fn a_method_answers_an_ordinary_call_as_it_answers_one_of_gorums() {
    let builder = echo()
        .unary("test.Test.Who", |ctx: ServerCtx, _: Number| async move {
            assert_eq!(ctx.method(), "test.Test.Who");
            assert_eq!((ctx.peer_id(), ctx.is_cancelled()), (None, false));
            let who = ctx.metadata().get("who").unwrap_or("nobody");
            assert_eq!(ctx.connection_metadata().get("who"), Some(who));
            assert!(ctx.peer_addr().is_some());
            Err::<Number, _>(Status::already_exists(format!("{who}, 100 % größer")))
        })
        .unary("test.Test.Panic", |_: ServerCtx, _: Number| async move {
            panic!("on purpose");
            #[expect(unreachable_code, reason = "the type of the reply")]
            Ok::<Number, Status>(number(0))
        });
    let (server, mut client) = served(builder).await;
    for value in 0..100 {
        let reply = client.call(ECHO, number(value)).await.expect("it echoes");
        assert_eq!(reply.value, value);
    }
    let mut request = tonic::Request::new(number(1));
    request
        .metadata_mut()
        .insert("who", "me".parse().expect("ASCII"));
    let refused = client.request::<Number>("/test.Test/Who", request).await;
    let refused = refused.expect_err("it refuses");
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(refused.message(), "me, 100 % größer");
    let panicked = client.call("/test.Test/Panic", number(1)).await;
    assert_eq!(panicked.expect_err("it panics").code(), Code::Internal);
    for unknown in [
        "/test.Test/Other",
        "/other.Test/Echo",
        "/test.Test.Echo",
        "/test/Test.Echo",
    ] {
        let refused = client.call(unknown, number(1)).await;
        let refused = refused.expect_err("there is none");
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    }
    // One of Gorums is served beside it.
    let nodes = connect(std::slice::from_ref(&server));
    let gorums = Client::new(&nodes);
    let call = gorums.rpc::<_, Number>(&nodes[0], "test.Test.Echo", number(7));
    assert_eq!(within(call.send()).await.expect("it echoes").value, 7);
    assert_eq!(
        client.call(ECHO, number(8)).await.expect("it echoes").value,
        8
    );
}

#[tokio::test]
async fn replies_of_a_streamed_method_are_a_stream_and_come_in_order() {
    const CHUNKS: u64 = 500;
    let builder = Server::builder().streaming(
        "test.Test.Chunks",
        |_: ServerCtx, request: Number, replies: ReplySender<Number>| async move {
            for value in 0..CHUNKS {
                let payload = Bytes::from(vec![value as u8; 10_000]);
                replies.send(Number { value, payload }).await?;
            }
            match request.value {
                0 => Ok(()),
                _ => Err(Status::aborted("behind the last")),
            }
        },
    );
    let (_server, mut client) = served(builder).await;
    for fails in [0, 1] {
        let replies = client.streamed("/test.Test/Chunks", number(fails)).await;
        let mut replies = replies.expect("it is taken");
        for value in 0..CHUNKS {
            let reply = within(replies.message()).await.expect("no error yet");
            let reply = reply.expect("there is more");
            assert_eq!((reply.value, reply.payload.len()), (value, 10_000));
            assert!(reply.payload.iter().all(|&byte| byte == value as u8));
        }
        let end = within(replies.message()).await;
        if fails == 0 {
            assert_eq!(end.expect("it ends well"), None);
        } else {
            let error = end.expect_err("it ends with an error");
            assert_eq!(
                (error.code(), error.message()),
                (Code::Aborted, "behind the last")
            );
        }
    }
}

#[tokio::test]
async fn a_one_way_method_answers_empty_at_once_and_its_handler_goes_on() {
    let (go_on, done) = (Arc::new(Notify::new()), Counter::new());
    let (notified, counted) = (Arc::clone(&go_on), done.clone());
    let builder = Server::builder().one_way("test.Test.Note", move |_: ServerCtx, _: Number| {
        let (notified, counted) = (Arc::clone(&notified), counted.clone());
        async move {
            notified.notified().await;
            counted.add();
        }
    });
    let (_server, mut client) = served(builder).await;
    let request = tonic::Request::new(number(1));
    let reply = client.request::<()>("/test.Test/Note", request).await;
    reply.expect("it is taken");
    assert_eq!(done.get(), 0);
    go_on.notify_one();
    done.reached(1).await;
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheck {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthStatus {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[tokio::test]
async fn health_is_told_to_those_who_ask_and_watch_and_ends_with_the_server() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    let health = Health::new();
    let builder = echo().health(&health);
    let server = Stoppable::start(builder, "127.0.0.1:0").await;
    let mut grpc = Ordinary::connect(&server.address).await.0;
    let asked = |service: &str| {
        tonic::Request::new(HealthCheck {
            service: service.to_owned(),
        })
    };
    let codec = ProstCodec::<HealthCheck, HealthStatus>::default;
    for (service, expected) in [
        ("", Ok(1)),
        ("test.Test", Ok(1)),
        ("grpc.health.v1.Health", Ok(1)),
        ("test.Other", Err(Code::NotFound)),
    ] {
        within(grpc.ready()).await.expect("it is connected");
        let path = PathAndQuery::from_static(CHECK);
        let reply = within(grpc.unary(asked(service), path, codec())).await;
        let status = reply.map(|reply| reply.into_inner().status);
        assert_eq!(status.map_err(|error| error.code()), expected, "{service}");
    }
    let mut watched = Vec::new();
    for (service, now) in [("", 1), ("test.Test", 1), ("test.Other", 3)] {
        within(grpc.ready()).await.expect("it is connected");
        let path = PathAndQuery::from_static(WATCH);
        let replies = within(grpc.server_streaming(asked(service), path, codec())).await;
        let mut replies = replies.expect("it is there").into_inner();
        let reply = within(replies.message()).await.expect("no error");
        assert_eq!(reply.expect("the first").status, now, "{service}");
        watched.push(replies);
    }
    health.set("test.Test", ServingStatus::NotServing);
    health.set("test.Other", ServingStatus::Serving);
    for (number, status) in [(1, 2), (2, 1)] {
        let reply = within(watched[number].message()).await.expect("no error");
        assert_eq!(reply.expect("it has changed").status, status);
    }
    let serving = server.stop();
    for (number, last) in [(0, Some(2)), (1, None), (2, Some(2))] {
        if let Some(status) = last {
            let reply = within(watched[number].message()).await.expect("no error");
            assert_eq!(reply.expect("it has changed").status, status);
        }
        let end = within(watched[number].message()).await;
        assert_eq!(end.expect("it ends well"), None);
    }
    within(serving).await.expect("it ends");
    assert_eq!(health.get(""), Some(ServingStatus::NotServing));
    assert_eq!(health.get("other"), None);
}

/// A handler that waits until it is told to go on, or that nobody waits for it.
fn holding(started: &Counter, go_on: &Arc<Notify>, cancelled: &Counter) -> ServerBuilder {
    let (started, go_on, cancelled) = (started.clone(), Arc::clone(go_on), cancelled.clone());
    echo().unary("test.Test.Hold", move |ctx: ServerCtx, request: Number| {
        let (started, go_on, cancelled) = (started.clone(), Arc::clone(&go_on), cancelled.clone());
        async move {
            started.add();
            tokio::select! {
                () = go_on.notified() => {}
                () = ctx.cancelled() => {
                    cancelled.add();
                }
            }
            Ok::<_, Status>(request)
        }
    })
}

#[tokio::test]
async fn a_caller_that_gives_up_or_is_late_is_told_to_its_handler() {
    let (started, go_on, cancelled) = (Counter::new(), Arc::new(Notify::new()), Counter::new());
    let (_server, client) = served(holding(&started, &go_on, &cancelled)).await;
    let mut of_task = client.clone();
    let given_up = tokio::spawn(async move { of_task.call(HOLD, number(1)).await });
    started.reached(1).await;
    given_up.abort();
    cancelled.reached(1).await;
    // By the server, whose clock it is: the client has no timer of its own.
    let mut raw = RawClient::connect(_server.addr).await;
    let mut request = post(HOLD);
    let value = "20m".parse().expect("ASCII");
    request.headers_mut().insert("grpc-timeout", value);
    let answer = answered(&mut raw, request, framed(&number(1).encode_to_vec())).await;
    assert_eq!(answer.code(), Some("4"), "{answer:?}");
    cancelled.reached(2).await;
}

#[tokio::test]
async fn grpc_timeout_is_the_deadline_that_the_handler_knows() {
    let (told, mut left) = tokio::sync::mpsc::unbounded_channel();
    let builder =
        Server::builder().unary("test.Test.Echo", move |ctx: ServerCtx, request: Number| {
            let _ = told.send((ctx.deadline().is_some(), ctx.time_left()));
            async move { Ok::<_, Status>(request) }
        });
    let (server, _client) = served(builder).await;
    let mut raw = RawClient::connect(server.addr).await;
    for (timeout, most) in [
        (Some("1H"), Some(Duration::from_secs(3600))),
        // Nobody can wait for so long.
        (
            Some("99999999H"),
            Some(Duration::from_secs(10 * 365 * 24 * 3600)),
        ),
        (None, None),
    ] {
        let mut request = post(ECHO);
        if let Some(timeout) = timeout {
            let value = timeout.parse().expect("ASCII");
            request.headers_mut().insert("grpc-timeout", value);
        }
        let answer = answered(&mut raw, request, framed(&number(1).encode_to_vec())).await;
        assert_eq!(answer.code(), Some("0"), "{answer:?}");
        let (has_deadline, left) = within(left.recv()).await.expect("it was called");
        assert_eq!(
            (has_deadline, left.is_some()),
            (most.is_some(), most.is_some())
        );
        if let (Some(left), Some(most)) = (left, most) {
            assert!(left <= most && left > most / 2, "{left:?}");
        }
    }
}

#[tokio::test]
async fn handlers_whose_callers_have_given_up_are_bounded() {
    const BOUND: u64 = 200;
    let (started, go_on) = (Counter::new(), Arc::new(Notify::new()));
    let (counted, notified) = (started.clone(), Arc::clone(&go_on));
    let builder = echo().unary("test.Test.Hold", move |_: ServerCtx, request: Number| {
        let (counted, notified) = (counted.clone(), Arc::clone(&notified));
        async move {
            counted.add();
            notified.notified().await;
            Ok::<_, Status>(request)
        }
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    for number in 1..=BOUND {
        let (head, mut send) = client.request(post(HOLD));
        let body = framed(&common::number(number).encode_to_vec());
        send.send_data(body.into(), true).expect("the stream is up");
        started.reached(number).await;
        send.send_reset(h2::Reason::CANCEL);
        drop(head);
        client.is_read().await;
    }
    let good = framed(&number(4).encode_to_vec());
    let answer = answered(&mut client, post(ECHO), good.clone()).await;
    assert_eq!(answer.code(), Some("8"), "{answer:?}");
    // One that ends makes room for one.
    go_on.notify_one();
    within(async {
        while answered(&mut client, post(ECHO), good.clone()).await.code() != Some("0") {}
    })
    .await;
}

#[tokio::test]
async fn calls_of_one_connection_are_not_ordered_unless_the_server_has_one_turn() {
    for order in [HandlerOrder::PerConnection, HandlerOrder::PerServer] {
        let (started, go_on, cancelled) = (Counter::new(), Arc::new(Notify::new()), Counter::new());
        let builder = holding(&started, &go_on, &cancelled).order(order);
        let (_server, mut client) = served(builder).await;
        let mut of_task = client.clone();
        let held = tokio::spawn(async move { of_task.call(HOLD, number(1)).await });
        started.reached(1).await;
        let mut second = Box::pin(client.call(ECHO, number(2)));
        if order == HandlerOrder::PerConnection {
            assert_eq!(within(&mut second).await.expect("it echoes").value, 2);
            go_on.notify_one();
            within(held).await.expect("no panic").expect("it goes on");
        } else {
            tokio::select! {
                biased;
                reply = &mut second => panic!("it is not its turn: {reply:?}"),
                () = settled(&_server) => {}
            }
            go_on.notify_one();
            within(held).await.expect("no panic").expect("it goes on");
            assert_eq!(within(second).await.expect("it echoes").value, 2);
        }
    }
}

/// Waits until the server has read what has been sent to it before: on a connection of its own, and
/// more than once.
async fn settled(server: &TestServer) {
    let mut client = RawClient::connect(server.addr).await;
    for _ in 0..10 {
        client.is_read().await;
    }
}

#[tokio::test]
async fn interceptors_and_the_connect_callback_see_ordinary_calls() {
    let builder = echo()
        .interceptor(interceptor_fn(
            |incoming: Incoming, next: Next| async move {
                if incoming.ctx().metadata().get("token").is_none() {
                    return Err(Status::unauthenticated("no token"));
                }
                next.run(incoming).await
            },
        ))
        .on_connect(|connecting| match connecting.metadata().get("user") {
            Some("mallory") => Err(Status::permission_denied("not you")),
            _ => Ok(()),
        });
    let (_server, mut client) = served(builder).await;
    let with = |entries: &[(&'static str, &'static str)]| {
        let mut request = tonic::Request::new(number(3));
        for (key, value) in entries {
            request
                .metadata_mut()
                .insert(*key, value.parse().expect("ASCII"));
        }
        request
    };
    for (entries, expected) in [
        (&[][..], Err(Code::Unauthenticated)),
        (&[("token", "t")], Ok(3)),
        (
            &[("token", "t"), ("user", "mallory")],
            Err(Code::PermissionDenied),
        ),
    ] {
        let reply = client.request::<Number>(ECHO, with(entries)).await;
        let reply = reply.map(|reply| reply.value).map_err(|error| error.code());
        assert_eq!(reply, expected, "{entries:?}");
    }
}

#[tokio::test]
async fn a_call_in_flight_outlives_the_limit_without_a_stream_and_a_shutdown() {
    let (started, go_on, cancelled) = (Counter::new(), Arc::new(Notify::new()), Counter::new());
    let builder = holding(&started, &go_on, &cancelled).stream_timeout(Duration::from_millis(100));
    let server = Stoppable::start(builder, "127.0.0.1:0").await;
    let mut client = Ordinary::connect(&server.address).await;
    let held = tokio::spawn(async move { client.call(HOLD, number(5)).await });
    started.reached(1).await;
    // One that is connected later, and does nothing, has had its time.
    let addr = server.address.parse().expect("it has one");
    RawClient::connect(addr).await.closed().await;
    let serving = server.stop();
    go_on.notify_one();
    let reply = within(held)
        .await
        .expect("no panic")
        .expect("it is answered");
    assert_eq!((reply.value, cancelled.get()), (5, 0));
    within(serving).await.expect("it ends");
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://gorums{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("well-formed")
}

/// All that came of a call.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    head: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// The code of gRPC, wherever it is.
    fn code(&self) -> Option<&str> {
        let headers = self.trailers.as_ref().unwrap_or(&self.head);
        headers.get("grpc-status")?.to_str().ok()
    }
}

/// What comes of a request with this body, which ends with it.
async fn answered(client: &mut RawClient, request: Request<()>, body: Vec<u8>) -> Answer {
    let (head, mut send) = client.request(request);
    send.send_data(body.into(), true).expect("the stream is up");
    let (head, mut recv) = within(head).await.expect("it is answered").into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = within(recv.data()).await {
        body.extend_from_slice(&chunk.expect("the stream is up"));
    }
    let trailers = within(recv.trailers()).await.expect("the stream is up");
    Answer {
        status: head.status,
        head: head.headers,
        body,
        trailers,
    }
}

#[tokio::test]
async fn what_is_no_call_is_refused_by_its_status_and_the_connection_goes_on() {
    let server = TestServer::start(echo().max_decoding_message_size(1000)).await;
    let mut client = RawClient::connect(server.addr).await;
    let good = framed(&number(4).encode_to_vec());
    let mut compressed = good.clone();
    compressed[0] = 1;
    let large = framed(&[0; 1001]);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("good", good.clone(), "0"),
        ("compressed", compressed, "12"),
        ("large", large, "8"),
        ("no message", Vec::new(), "3"),
        ("cut", good[..good.len() - 1].to_vec(), "3"),
        ("no number", framed(&[0xff; 3]), "3"),
    ];
    for (what, body, code) in cases {
        let answer = answered(&mut client, post(ECHO), body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.code(), Some(code), "{what}: {answer:?}");
        if what == "good" {
            assert_eq!(answer.body, good);
        }
        if what == "compressed" {
            let accepted = answer.head.get("grpc-accept-encoding");
            assert_eq!(
                accepted.map(|value| value.as_bytes()),
                Some(&b"identity"[..])
            );
        }
    }
    for timeout in ["", "1", "1x", "100000000S", "-1S", "1 S", "S"] {
        let mut request = post(ECHO);
        let value = timeout.parse().expect("ASCII");
        request.headers_mut().insert("grpc-timeout", value);
        let answer = answered(&mut client, request, good.clone()).await;
        assert_eq!(answer.code(), Some("3"), "{timeout:?}: {answer:?}");
    }
    let answer = answered(&mut client, post(ECHO), good.clone()).await;
    assert_eq!((answer.code(), &answer.body), (Some("0"), &good));
}

#[tokio::test]
async fn requests_that_are_not_whole_are_bounded_for_all_calls_of_a_connection() {
    const LIMIT: usize = 100_000;
    let builder = echo()
        .max_waiting_bytes(LIMIT)
        .max_decoding_message_size(LIMIT);
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let part = {
        let mut framed = framed(&vec![0; LIMIT]);
        framed.truncate(30_000);
        Bytes::from(framed)
    };
    let mut begun = Vec::new();
    for _ in 0..4 {
        let (head, mut send) = client.request(post(ECHO));
        send.send_data(part.clone(), false)
            .expect("the stream is up");
        begun.push((Box::pin(head), send));
        client.is_read().await;
    }
    let (last, _send) = begun.pop().expect("there are four");
    let refused = within(last).await.expect("it is answered");
    let code = refused
        .headers()
        .get("grpc-status")
        .map(|code| code.as_bytes());
    assert_eq!(code, Some(&b"8"[..]), "{refused:?}");
    // The others wait for the rest, and make room when they are given up.
    for (head, _) in &mut begun {
        let is_pending = poll_fn(|cx| std::task::Poll::Ready(head.as_mut().poll(cx).is_pending()));
        assert!(is_pending.await);
    }
    drop(begun);
    client.is_read().await;
    // More than there was room for beside them.
    let large = Number {
        value: 4,
        payload: Bytes::from(vec![7; 50_000]),
    };
    let large = framed(&large.encode_to_vec());
    within(async {
        while answered(&mut client, post(ECHO), large.clone())
            .await
            .code()
            != Some("0")
        {}
    })
    .await;
}

#[tokio::test]
async fn the_largest_request_and_the_least_room_for_replies_are_enough() {
    const LARGEST: usize = 4 * 1024 * 1024;
    let (_server, client) = served(echo().max_reply_bytes(1)).await;
    let mut client = Ordinary(client.0.max_decoding_message_size(2 * LARGEST));
    let beside = number(7).encoded_len() + 5;
    for (bytes, expected) in [
        (LARGEST - beside, Ok(())),
        (LARGEST, Err(Code::ResourceExhausted)),
    ] {
        let request = Number {
            value: 7,
            payload: Bytes::from(vec![1; bytes]),
        };
        let reply = client.call(ECHO, request).await;
        let reply = reply.map(|reply| assert_eq!(reply.payload.len(), bytes));
        assert_eq!(reply.map_err(|error| error.code()), expected, "{bytes}");
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_stop_a_server_with_one_turn() {
    let builder = echo()
        .streaming(
            "test.Test.Chunks",
            |_: ServerCtx, _: Number, replies: ReplySender<Number>| async move {
                let payload = Bytes::from(vec![7; 100_000]);
                while replies
                    .send(Number {
                        value: 1,
                        payload: payload.clone(),
                    })
                    .await
                    .is_ok()
                {}
                Ok(())
            },
        )
        .order(HandlerOrder::PerServer);
    let server = TestServer::start(builder).await;
    let mut idle = RawClient::connect(server.addr).await;
    let (head, mut send) = idle.request(post("/test.Test/Chunks"));
    let body = framed(&number(1).encode_to_vec());
    send.send_data(body.into(), true).expect("the stream is up");
    // What comes is never taken.
    let _replies = within(head).await.expect("it is answered");
    let mut client = Ordinary::connect(server.addr).await;
    assert_eq!(
        client.call(ECHO, number(2)).await.expect("it echoes").value,
        2
    );
}

#[tokio::test]
async fn a_request_that_stops_half_way_ends_in_time() {
    let builder = echo().stream_timeout(Duration::from_millis(50));
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    let (head, mut send) = client.request(post(ECHO));
    send.send_data(vec![0, 0, 0].into(), false)
        .expect("the stream is up");
    let answer = within(head).await.expect("it is answered");
    let code = answer
        .headers()
        .get("grpc-status")
        .map(|code| code.as_bytes());
    assert_eq!(code, Some(&b"4"[..]), "{answer:?}");
}

#[tokio::test]
async fn requests_that_are_refused_and_end_behind_that_do_not_end_their_connection() {
    let builder = echo().on_connect(|connecting| match connecting.metadata().get("in") {
        Some(_) => Ok(()),
        None => Err(Status::permission_denied("not you")),
    });
    let server = TestServer::start(builder).await;
    let mut client = RawClient::connect(server.addr).await;
    for (method, code) in [("test.Test.Unknown", 12), (ECHO, 7)] {
        for _ in 0..1_200 {
            let (answer, mut send) = client.request(post(method));
            let answer = within(answer).await.expect("the connection is up");
            assert_eq!(wire::grpc_status(answer.headers()).0, code);
            send.send_data(Bytes::from_static(b"more"), false)
                .expect("it is open");
            send.send_data(Bytes::new(), true).expect("it is open");
        }
    }
    client.ping().await;
}

#[tokio::test]
async fn calls_whose_requests_end_behind_their_answers_do_not_end_their_connection() {
    let server = TestServer::start(echo()).await;
    let mut client = RawClient::connect(server.addr).await;
    let message = Bytes::from(framed(&number(7).encode_to_vec()));
    // `h2` bears a thousand streams of which more comes than it wants.
    for _ in 0..1_200 {
        client.call_and_end_late(post(ECHO), message.clone()).await;
    }
    client.ping().await;
}
