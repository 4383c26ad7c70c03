//! Servers that answer within those of tonic and axum: the same streams and calls as over a port.
#![cfg(feature = "tower")]

mod common;
#[path = "common/handlers.rs"]
mod handlers;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/ordinary.rs"]
mod ordinary;
#[path = "common/raw_client.rs"]
mod raw_client;
#[path = "common/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{Number, TestServer, echo, number, within};
use gorums::runtime::Evidence;
use gorums::server::{Health, ServingStatus};
use gorums::tower::{GorumsService, PeerInfo, ResponseBody};
use gorums::{
    Client, Code, Configuration, NodeId, NodeState, Outcome, ReplySender, Server, ServerBuilder,
    ServerCtx, Status,
};
use handlers::{HOLD, Handlers, NOTE, WAIT};
use http::{Request, Response};
use http_body::Body;
use mounted::{ABOVE, Mounted, with_address};
use ordinary::Ordinary;
use prost::Message;
use raw_client::{RawClient, callable_request, stream_request};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tower_service::Service;

const ECHO: &str = "test.Test.Echo";
const ECHO_PATH: &str = "/test.Test/Echo";
const STREAM: &str = "test.Test.Stream";
const ASK: &str = "test.Test.Ask";

/// All handlers, by which the tests of this file find out what happens.
fn builder(handlers: &Handlers) -> ServerBuilder {
    handlers
        .add_to(echo())
        .streaming(
            STREAM,
            |_: ServerCtx, request: Number, replies: ReplySender<Number>| async move {
                for value in 0..request.value {
                    let payload = vec![value as u8; 10_000].into();
                    replies.send(Number { value, payload }).await?;
                }
                Ok::<_, Status>(())
            },
        )
        .unary(ASK, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            let clients = Client::new(ctx.client_config());
            let call = clients.quorum_call::<_, Number>(ECHO, request);
            let replies = call.all().replies().await?;
            Ok::<_, Status>(number(replies.values().map(|reply| reply.value).sum()))
        })
}

async fn three(make: impl Fn(usize) -> ServerBuilder) -> (Vec<Mounted>, Configuration) {
    let mut servers = Vec::new();
    for index in 0..3 {
        servers.push(Mounted::start(make(index)).await);
    }
    let nodes = connected(servers.iter().map(|server| server.addr)).await;
    (servers, nodes)
}

async fn connected(addresses: impl IntoIterator<Item = SocketAddr>) -> Configuration {
    let addresses = addresses.into_iter().map(|address| address.to_string());
    let nodes = Configuration::builder().nodes(addresses).connect();
    let nodes = nodes.expect("legal addresses");
    within(nodes.connected(nodes.len()))
        .await
        .expect("they serve");
    nodes
}

async fn echoes(nodes: &Configuration, value: u64) {
    let call = Client::new(nodes).quorum_call::<_, Number>(ECHO, number(value));
    let replies = within(call.all().replies()).await.expect("all answer");
    assert_eq!(replies.len(), nodes.len());
    assert!(replies.values().all(|reply| reply.value == value));
}

#[tokio::test]
async fn three_nodes_within_servers_of_tonic_answer_beside_its_own_service() {
    let health = Health::new();
    let (servers, nodes) = three(|_| echo().health(&health)).await;
    for value in 0..200 {
        echoes(&nodes, value).await;
    }
    let mut ordinary = Ordinary::connect(servers[1].addr).await;
    let above = ordinary.call(ABOVE, number(7)).await.expect("tonic's own");
    assert_eq!(above.value, 8);
    let echoed = ordinary.call(ECHO_PATH, number(7)).await.expect("ours");
    assert_eq!(echoed.value, 7);
    for unknown in ["/test.Test/Other", "/other.Other/Echo", "/nothing"] {
        let refused = ordinary.call(unknown, number(1)).await;
        let refused = refused.expect_err("there is none");
        assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused}");
    }
    let check = ordinary
        .call("/grpc.health.v1.Health/Check", Number::default())
        .await;
    let serving = check.expect("it has one").value;
    assert_eq!(serving, ServingStatus::Serving as u64);
    echoes(&nodes, 1).await;
}

#[tokio::test]
async fn a_stream_comes_with_its_address_and_metadata_and_a_call_with_its_own() {
    let who = |ctx: ServerCtx, _: Number| async move {
        let from = ctx.peer_addr().expect("tonic knows it");
        assert!(from.ip().is_loopback());
        let who = ctx.connection_metadata().get("who").unwrap_or("nobody");
        Err::<Number, _>(Status::already_exists(format!("{who}, 100 % größer")))
    };
    let server = Mounted::start(Server::builder().unary(ECHO, who)).await;
    let nodes = Configuration::builder()
        .nodes([server.addr.to_string()])
        .metadata("who", "me")
        .connect()
        .expect("legal");
    let call = Client::new(&nodes).rpc::<_, Number>(&nodes[0], ECHO, number(1));
    let refused = within(call).await.expect_err("it refuses");
    let expected = (Code::AlreadyExists, "me, 100 % größer");
    assert_eq!((refused.code(), refused.status().message()), expected);

    let mut ordinary = Ordinary::connect(server.addr).await;
    let mut request = tonic::Request::new(number(1));
    let value = "you".parse().expect("ASCII");
    request.metadata_mut().insert("who", value);
    let refused = ordinary.request::<Number>(ECHO_PATH, request).await;
    let refused = refused.expect_err("it refuses");
    let expected = (tonic::Code::AlreadyExists, "you, 100 % größer");
    assert_eq!((refused.code(), refused.message()), expected);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_ordinary_call_is_told_and_its_handler_hears_of_the_end() {
    let handlers = Handlers::new();
    let (service, server) = builder(&handlers).into_service().expect("it is sound");
    let serving = tokio::spawn(server.serve());
    let body = wire::framed(&number(1).encode_to_vec());
    let request = Request::post("/test.Test/Wait")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "20S")
        .body(String::from_utf8(body).expect("small numbers"))
        .expect("well-formed");
    let begin = tokio::time::Instant::now();
    let mut late = oneshot(service, request).await;
    let trailers = within(poll_fn(|cx| Pin::new(late.body_mut()).poll_frame(cx))).await;
    let trailers = trailers.expect("trailers").expect("it is not cut off");
    let trailers = trailers.into_trailers().expect("nobody answers");
    let (code, message) = wire::grpc_status(&trailers);
    assert_eq!(code, Code::DeadlineExceeded as i32, "{message}");
    assert_eq!(begin.elapsed(), Duration::from_secs(20));
    handlers.gone.reached(1).await;
    serving.abort();
}

#[tokio::test]
async fn a_caller_that_gives_up_ends_the_stream_of_its_call() {
    let handlers = Handlers::new();
    let server = Mounted::start(builder(&handlers)).await;
    let mut ordinary = Ordinary::connect(server.addr).await;
    let call = tokio::spawn(async move {
        let call = ordinary.call("/test.Test/Wait", number(1));
        call.await
    });
    handlers.started.reached(1).await;
    call.abort();
    handlers.gone.reached(1).await;
    // One that opened a stream, as well: by a reset, and with its connection.
    for cut in [false, true] {
        let mut raw = RawClient::connect(server.addr).await;
        let mut stream = raw.open().await;
        stream.send(&wire::envelope(1, WAIT, 1));
        handlers.started.reached(2 + u64::from(cut)).await;
        match cut {
            true => raw.cut(),
            false => stream.reset(),
        }
        handlers.gone.reached(2 + u64::from(cut)).await;
    }
}

#[tokio::test]
async fn a_request_that_ends_behind_its_answer_is_read_to_its_end() {
    let server = Mounted::start(echo()).await;
    let mut raw = RawClient::connect(server.addr).await;
    let message = Bytes::from(wire::framed(&number(7).encode_to_vec()));
    // A server of HTTP/2 that lets go of requests before their ends is ended by `h2` in time.
    for _ in 0..1_200 {
        let request = Request::post(format!("http://gorums{ECHO_PATH}"));
        let request = request.header("content-type", "application/grpc");
        let request = request.body(()).expect("well-formed");
        raw.call_and_end_late(request, message.clone()).await;
    }
    raw.ping().await;
}

#[tokio::test]
async fn clients_are_called_back_over_the_streams_that_they_opened() {
    let server = Mounted::start(builder(&Handlers::new())).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Configuration::builder()
            .nodes([server.addr.to_string()])
            .serve(echo());
        clients.push(client.connect().expect("legal"));
    }
    let all = server.clients.wait_for(|clients| clients.len() == 3);
    let all = within(all).await.expect("it serves");
    echoes(&all, 5).await;
    let call = Client::new(&clients[0]).rpc::<_, Number>(&clients[0][0], ASK, number(7));
    assert_eq!(within(call).await.expect("all answer").value, 21);
    drop(clients);
    let none = server.clients.wait_for(Configuration::is_empty);
    within(none).await.expect("it serves");
}

#[tokio::test]
async fn streamed_replies_come_in_order_and_wait_for_their_reader() {
    const CHUNKS: u64 = 2_000;
    let (servers, nodes) = three(|_| builder(&Handlers::new())).await;
    let call = Client::new(&nodes).streamed_quorum_call::<_, Number>(STREAM, number(CHUNKS));
    let mut replies = call.responses();
    // 60 MB, of which nobody reads any while the others come.
    let mut next = [0; 3];
    while let Some(reply) = within(replies.next()).await {
        let index = nodes
            .ids()
            .position(|id| id == reply.node())
            .expect("known");
        let reply = reply.into_result().expect("it streams");
        assert_eq!(reply.value, next[index]);
        next[index] += 1;
    }
    assert_eq!(next, [CHUNKS; 3]);
    // And to an ordinary client, which reads nothing until another call was answered.
    let mut ordinary = Ordinary::connect(servers[0].addr).await;
    let mut replies = ordinary
        .streamed("/test.Test/Stream", number(CHUNKS))
        .await
        .expect("it streams");
    ordinary
        .call(ECHO_PATH, number(1))
        .await
        .expect("beside it");
    for value in 0..CHUNKS {
        let reply = within(replies.message()).await.expect("it streams");
        assert_eq!(reply.expect("there are more").value, value);
    }
    let end = within(replies.message()).await.expect("it streams");
    assert_eq!(end, None);
}

#[tokio::test]
async fn messages_of_some_megabytes_pass_in_both_directions() {
    const BYTES: usize = 3 << 20;
    let (servers, nodes) = three(|_| echo()).await;
    let big = |value: u64| Number {
        value,
        payload: Bytes::from(vec![value as u8; BYTES]),
    };
    for value in 0..10 {
        let call = Client::new(&nodes).quorum_call::<_, Number>(ECHO, big(value));
        let replies = within(call.all().replies()).await.expect("all answer");
        assert!(replies.values().all(|reply| *reply == big(value)));
    }
    let mut ordinary = Ordinary::connect(servers[0].addr).await;
    let echoed = ordinary.call(ECHO_PATH, big(1)).await.expect("it echoes");
    assert_eq!(echoed, big(1));
    // One that is too large is the server's to refuse.
    let huge = Number {
        value: 1,
        payload: Bytes::from(vec![1; 5 << 20]),
    };
    let refused = ordinary.call(ECHO_PATH, huge).await.expect_err("too large");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
}

#[tokio::test]
async fn handlers_start_in_order_and_one_that_has_released_lets_the_next_start() {
    let handlers = Handlers::new();
    let server = Mounted::start(builder(&handlers)).await;
    let nodes = connected([server.addr]).await;
    let client = Client::new(&nodes);
    let hold = |value| {
        client
            .rpc::<_, Number>(&nodes[0], HOLD, number(value))
            .send()
    };
    // The first two release; the third does not, and the fourth waits for it.
    let calls = [1, 3, 2, 5].map(hold);
    handlers.started.reached(3).await;
    assert_eq!(*handlers.order.lock().expect("no panic"), [1, 3, 2]);
    handlers.gate.add_permits(4);
    for (call, value) in calls.into_iter().zip([1, 3, 2, 5]) {
        assert_eq!(within(call).await.expect("it answers").value, value);
    }
    let calls: Vec<_> = (0..1_000).map(|value| hold(2 * value + 1)).collect();
    handlers.gate.add_permits(1_000);
    for call in calls {
        within(call).await.expect("it answers");
    }
    let order = handlers.order.lock().expect("no panic").split_off(4);
    assert!(order.is_sorted());
}

#[tokio::test]
async fn one_way_messages_are_handled_though_their_client_leaves_at_once() {
    const NOTES: u64 = 5_000;
    let handlers = Handlers::new();
    let server = Mounted::start(builder(&handlers)).await;
    let nodes = connected([server.addr]).await;
    let client = Client::new(&nodes);
    for value in 1..NOTES {
        let sent = client.unicast(&nodes[0], NOTE, number(value)).detach();
        assert!(sent.is_empty());
    }
    let last = client.unicast(&nodes[0], NOTE, number(NOTES)).send();
    within(last).await.expect("it is written");
    drop((client, nodes));
    handlers.noted.reached(NOTES).await;
}

#[tokio::test]
async fn a_shutdown_finishes_calls_and_clients_come_back_when_there_is_another_server() {
    let handlers = Handlers::new();
    let server = Mounted::start(builder(&handlers)).await;
    let address = server.addr.to_string();
    let nodes = connected([server.addr]).await;
    let client = Client::new(&nodes);
    let node = &nodes[0];
    let held: Vec<_> = (0..3)
        .map(|value| client.rpc::<_, Number>(node, HOLD, number(value)).send())
        .collect();
    let mut ordinary = Ordinary::connect(server.addr).await;
    let called = tokio::spawn(async move { ordinary.call("/test.Test/Hold", number(9)).await });
    handlers.started.reached(2).await;
    server.stop();
    within(async {
        while node.state() == NodeState::Connected {
            tokio::task::yield_now().await;
        }
    })
    .await;
    handlers.gate.add_permits(4);
    for (value, call) in held.into_iter().enumerate() {
        let reply = within(call).await.expect("what was asked is answered");
        assert_eq!(reply.value, value as u64);
    }
    let reply = within(called)
        .await
        .expect("no panic")
        .expect("it is answered");
    assert_eq!(reply.value, 9);
    within(server.stopped()).await;

    let server = Mounted::start_at(builder(&handlers), &address).await;
    within(nodes.connected(1)).await.expect("it is back");
    echoes(&nodes, 3).await;
    drop(server);
}

#[tokio::test]
async fn the_server_around_it_goes_on_when_it_has_shut_down() {
    let server = Mounted::start(builder(&Handlers::new())).await;
    let nodes = connected([server.addr]).await;
    let mut ordinary = Ordinary::connect(server.addr).await;
    ordinary
        .call(ECHO_PATH, number(1))
        .await
        .expect("it serves");
    server.stop_inner();
    let stopped = server.clients.wait_for(|_| false);
    within(stopped).await.expect_err("it has stopped");
    let refused = ordinary.call(ECHO_PATH, number(1)).await;
    let refused = refused.expect_err("it has shut down");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("stopped"), "{refused}");
    let above = ordinary.call(ABOVE, number(1)).await.expect("tonic serves");
    assert_eq!(above.value, 2);
    let call = Client::new(&nodes).rpc::<_, Number>(&nodes[0], ECHO, number(1));
    let error = within(call).await.expect_err("it has shut down");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert_ne!(error.outcome(), Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn what_is_under_way_when_it_is_stopped_at_once_ends_as_unavailable() {
    let handlers = Handlers::new();
    let server = Mounted::start(builder(&handlers)).await;
    let nodes = connected([server.addr]).await;
    let call = Client::new(&nodes).rpc::<_, Number>(&nodes[0], WAIT, number(1));
    let call = call.send();
    let mut ordinary = Ordinary::connect(server.addr).await;
    let called = tokio::spawn(async move { ordinary.call("/test.Test/Wait", number(9)).await });
    handlers.started.reached(2).await;
    server.serving.abort();
    let error = within(call).await.expect_err("it was stopped");
    let what = (error.code(), error.outcome());
    assert_eq!(what, (Code::Unavailable, Outcome::Unknown), "{error}");
    let error = within(called).await.expect("no panic");
    let error = error.expect_err("it was stopped");
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
}

#[tokio::test]
async fn one_mounted_peer_and_two_with_ports_call_each_other() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
    }
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("it listens"))
        .collect();
    let peers = |me: u32| {
        let nodes = Configuration::builder().nodes(addresses.iter().map(SocketAddr::to_string));
        let nodes = nodes.connect().expect("legal");
        let builder =
            echo()
                .peers(me, &nodes)
                .unary(ASK, |ctx: ServerCtx, request: Number| async move {
                    ctx.release();
                    let peers = Client::new(ctx.config());
                    let call = peers.quorum_call::<_, Number>(ECHO, request);
                    let replies = call.all().replies().await?;
                    Ok::<_, Status>(number(replies.len() as u64))
                });
        (builder, nodes)
    };
    let mut listeners = listeners.into_iter();
    let mut next = || listeners.next().expect("there are three");
    let (builder, own) = peers(1);
    let (service, server) = builder.into_service().expect("it is sound");
    let routes = Routes::default().into_axum_router();
    let routes = routes.fallback_service(with_address(service));
    let around = tonic::transport::Server::builder();
    let mounted = Mounted::with(next(), server, routes.into(), around);
    let (mut plain, mut nodes) = (Vec::new(), vec![own]);
    for me in [2, 3] {
        let (builder, own) = peers(me);
        drop(next());
        let addr = addresses[me as usize - 1].to_string();
        plain.push(TestServer::start_at(builder, &addr).await);
        nodes.push(own);
    }
    let all = mounted
        .peers
        .as_ref()
        .expect("it is one")
        .wait_for(|peers| peers.len() == 3);
    within(all).await.expect("it serves");
    for nodes in &nodes {
        within(nodes.connected(3)).await.expect("they serve");
    }
    let client = connected(addresses).await;
    for value in 0..50 {
        let call = Client::new(&client).quorum_call::<_, Number>(ASK, number(value));
        let replies = within(call.all().replies()).await.expect("all answer");
        assert!(replies.values().all(|reply| reply.value == 3));
    }
}

#[tokio::test]
async fn a_claimed_id_is_believed_where_the_server_is_told_to() {
    for trust in [false, true] {
        let server = Mounted::start(echo().trust_claimed_ids(trust)).await;
        let mut raw = RawClient::connect(server.addr).await;
        let _stream = raw.open_with(callable_request("7")).await;
        let ids: Vec<_> = server.clients.config().ids().map(NodeId::get).collect();
        let expected: &[u32] = if trust { &[7] } else { &[] };
        assert_eq!(ids, expected);
    }
}

/// What a layer has proved: that the request comes from this node.
#[derive(Clone)]
struct Proved(u32);

/// A layer that believes a header. One of yours does not.
#[derive(Clone)]
struct Verifying(GorumsService);

impl<B> Service<Request<B>> for Verifying
where
    B: http_body::Body + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = <GorumsService as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(proof) = request.headers().get("proof") {
            let id = proof.to_str().ok().and_then(|id| id.parse().ok());
            let info = PeerInfo::new().with(Proved(id.expect("a number")));
            request.extensions_mut().insert(info);
        }
        self.0.call(request)
    }
}

#[tokio::test]
async fn what_a_layer_has_proved_decides_who_a_client_is() {
    let builder = echo()
        .node_proof(|evidence: Evidence<'_>| {
            Ok(evidence
                .get::<Proved>()
                .map(|proved| NodeId::from(proved.0)))
        })
        .unary(ASK, |ctx: ServerCtx, _: Number| async move {
            let proved = ctx.proven::<Proved>().map_or(0, |proved| proved.0.into());
            assert_eq!(ctx.peer_id().map_or(0, |id| id.get().into()), proved);
            Ok::<_, Status>(number(proved))
        });
    let (service, server) = builder.into_service().expect("it is sound");
    let routes = Routes::default().into_axum_router();
    let routes = routes.fallback_service(Verifying(service));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let around = tonic::transport::Server::builder();
    let server = Mounted::with(listener, server, routes.into(), around);

    let with_proof = |mut request: Request<()>, proof: &str| {
        let proof = proof.parse().expect("ASCII");
        request.headers_mut().insert("proof", proof);
        request
    };
    let mut raw = RawClient::connect(server.addr).await;
    let _stream = raw.open_with(with_proof(callable_request("7"), "7")).await;
    let ids: Vec<_> = server.clients.config().ids().map(NodeId::get).collect();
    assert_eq!(ids, [7]);
    for request in [
        with_proof(callable_request("8"), "7"),
        callable_request("8"),
        with_proof(stream_request(), "2000000"),
    ] {
        let refused = raw.refusal(request).await;
        let status = &refused.headers()["grpc-status"];
        assert_eq!(status, &(Code::PermissionDenied as u32).to_string());
    }
    let mut ordinary = Ordinary::connect(server.addr).await;
    for (proof, expected) in [(None, 0), (Some("5"), 5)] {
        let mut request = tonic::Request::new(number(1));
        if let Some(proof) = proof {
            let proof = proof.parse().expect("ASCII");
            request.metadata_mut().insert("proof", proof);
        }
        let reply = ordinary.request::<Number>("/test.Test/Ask", request).await;
        assert_eq!(reply.expect("it answers").value, expected);
    }
}

/// Connections within the process, as a server of tonic takes them.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl futures_core::Stream for Pipes {
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|pipe| pipe.map(Ok))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_is_left_by_the_keep_alive_of_the_server_around_it() {
    let (service, server) = echo().into_service().expect("it is sound");
    let clients = server.clients();
    let serving = tokio::spawn(server.serve());
    let routes = Routes::default()
        .into_axum_router()
        .fallback_service(service);
    let (pipes, incoming) = mpsc::channel(1);
    let around = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(routes.into())
        .serve_with_incoming(Pipes(incoming));
    let around = tokio::spawn(around);
    let begin = tokio::time::Instant::now();
    let mut streams = Vec::new();
    let mut connections = Vec::new();
    for is_silent in [false, true] {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        pipes.send(theirs).await.expect("it serves");
        let (mut requests, mut connection) = h2::client::handshake(ours).await.expect("HTTP/2");
        let (answer, send) = requests
            .send_request(callable_request("0"), false)
            .expect("the connection is up");
        let answered = tokio::select! {
            answered = answer => answered.expect("it is let in"),
            _ = &mut connection => panic!("the connection is up"),
        };
        streams.push((requests, send, answered));
        // From now on the silent one reads and answers nothing, pings neither.
        connections.push(tokio::spawn(async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
            let _ = connection.await;
        }));
    }
    assert_eq!(clients.config().len(), 2);
    let one = clients.wait_for(|clients| clients.len() == 1);
    let one = within(one).await.expect("it serves");
    // The other one has answered, for as long.
    assert!(begin.elapsed() >= Duration::from_secs(15));
    assert_eq!(one.ids().map(NodeId::get).collect::<Vec<_>>(), [1 << 20]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(clients.config().len(), 1);
    for task in connections {
        task.abort();
    }
    around.abort();
    serving.abort();
}

#[tokio::test]
async fn requests_count_as_connections_from_their_address() {
    let handlers = Handlers::new();
    let builder = builder(&handlers).max_connections_per_address(2);
    let server = Mounted::start(builder).await;
    let first = connected([server.addr]).await;
    let mut ordinary = Ordinary::connect(server.addr).await;
    let mut other = ordinary.clone();
    let held = tokio::spawn(async move { other.call("/test.Test/Hold", number(1)).await });
    handlers.started.reached(1).await;
    let refused = ordinary.call(ECHO_PATH, number(1)).await;
    let refused = refused.expect_err("there are two");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    handlers.gate.add_permits(1);
    let held = within(held).await.expect("no panic");
    held.expect("it is answered");
    echoes(&first, 1).await;
}

async fn oneshot(mut service: GorumsService, request: Request<String>) -> Response<ResponseBody> {
    let answered = service.call(request).await;
    answered.unwrap_or_else(|never| match never {})
}

fn grpc_status(response: &Response<ResponseBody>) -> (&str, &str) {
    let text = |name| {
        let value: Option<&http::HeaderValue> = response.headers().get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    };
    (text("grpc-status"), text("grpc-message"))
}

fn post(path: &str) -> Request<String> {
    let request = Request::post(path).header("content-type", "application/grpc");
    request.body(String::new()).expect("well-formed")
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_server_that_does_not_serve_yet_and_then_is_told_so() {
    let (service, server) = echo().into_service().expect("it is sound");
    // The first has the place in which one waits to be taken.
    let waits = tokio::spawn(oneshot(service.clone(), post("/nothing/Here")));
    tokio::task::yield_now().await;
    let late = within(oneshot(service.clone(), post("/nothing/Here"))).await;
    let (code, message) = grpc_status(&late);
    assert_eq!(code, "14");
    assert!(message.contains("Server::serve"), "{message}");
    let serving = tokio::spawn(server.serve());
    let answered = within(waits).await.expect("no panic");
    assert_eq!(grpc_status(&answered).0, "12");
    serving.abort();
    let _ = serving.await;
    let gone = within(oneshot(service, post("/nothing/Here"))).await;
    assert_eq!(grpc_status(&gone), ("14", "the server has stopped"));
}

#[tokio::test]
async fn what_is_not_grpc_gets_a_status_of_http_and_no_request_ends_the_server() {
    let (service, server) = echo().into_service().expect("it is sound");
    let serving = tokio::spawn(server.serve());
    let with = |method: &str, uri: &str, headers: &[(&'static str, &str)]| {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(String::from("text")).expect("well-formed")
    };
    let grpc = ("content-type", "application/grpc");
    for (request, code) in [
        (with("GET", "/", &[]), 405),
        (with("GET", "http://host/path?query", &[grpc]), 405),
        (with("CONNECT", "host:80", &[]), 405),
        (with("OPTIONS", "*", &[]), 405),
        (with("POST", ECHO_PATH, &[]), 415),
        (
            with("POST", ECHO_PATH, &[("content-type", "text/html")]),
            415,
        ),
        (
            with("POST", ECHO_PATH, &[grpc, ("connection", "close")]),
            200,
        ),
        (
            with("POST", ECHO_PATH, &[grpc, ("te", "gzip"), ("host", "a b")]),
            200,
        ),
        (
            with("POST", ECHO_PATH, &[grpc, ("transfer-encoding", "chunked")]),
            200,
        ),
        (
            with(
                "POST",
                ECHO_PATH,
                &[grpc, ("upgrade", "h2c"), ("host", "a")],
            ),
            200,
        ),
    ] {
        let told = format!("{request:?}");
        let answered = within(oneshot(service.clone(), request)).await;
        assert_eq!(answered.status().as_u16(), code, "{told}");
    }
    assert!(!serving.is_finished());
    serving.abort();
}

#[test]
fn outside_of_a_runtime_a_request_is_answered_with_what_is_missing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (service, _server) = runtime
        .expect("a runtime")
        .block_on(async { echo().into_service() })
        .expect("it is sound");
    let mut answered = Box::pin(oneshot(service, post(ECHO_PATH)));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(answered) = answered.as_mut().poll(&mut cx) else {
        panic!("it waits");
    };
    let (code, message) = grpc_status(&answered);
    assert_eq!(code, "13");
    assert!(message.contains("tokio"), "{message}");
}

#[tokio::test]
async fn it_is_mounted_in_a_server_of_axum_as_in_one_of_tonic() {
    let builder = echo().unary(ASK, |ctx: ServerCtx, _: Number| async move {
        let port = ctx.peer_addr().map_or(0, |address| address.port());
        Ok::<_, Status>(number(port.into()))
    });
    let (service, server) = builder.into_service().expect("it is sound");
    let service = service.peer_info(|extensions| {
        let from = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        PeerInfo::new().with_addr(from.map(|from| from.0))
    });
    let routes = axum::Router::new().fallback_service(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it listens");
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let around = tokio::spawn(async { axum::serve(listener, routes).await });
    let serving = tokio::spawn(server.serve());
    let nodes = connected([addr]).await;
    for value in 0..50 {
        echoes(&nodes, value).await;
    }
    let call = Client::new(&nodes).rpc::<_, Number>(&nodes[0], ASK, number(1));
    assert_ne!(within(call).await.expect("it answers").value, 0);
    let mut ordinary = Ordinary::connect(addr).await;
    let echoed = ordinary.call(ECHO_PATH, number(7)).await;
    assert_eq!(echoed.expect("it echoes").value, 7);
    around.abort();
    serving.abort();
}

#[tokio::test]
async fn a_server_that_cannot_serve_is_no_service() {
    let error = echo().unary(ECHO, |_: ServerCtx, request: Number| async move {
        Ok::<_, Status>(request)
    });
    let error = error.into_service().expect_err("it is there twice");
    assert!(error.to_string().contains("added twice"), "{error}");
}

#[cfg(feature = "tls")]
#[path = "common/certs.rs"]
mod certs;

#[cfg(feature = "tls")]
#[tokio::test]
async fn certificates_that_the_server_around_it_has_verified_are_proof_of_ids() {
    use gorums::tls::{NodeUris, TlsPeer};
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    let node = certs::Authority::new("ours").node(7).certificate;
    let node = CertificateDer::from_pem_slice(node.as_bytes()).expect("PEM");
    let peer = TlsPeer::of_verified([node]).expect("a certificate");
    assert_eq!(peer.uris().collect::<Vec<_>>(), [certs::uri(7)]);
    for wrong in [&[][..], &[&b"text"[..]]] {
        let error = TlsPeer::of_verified(wrong).expect_err("there is none");
        assert!(
            error.to_string().contains("the chain of the peer"),
            "{error}"
        );
    }
    let builder = echo().node_proof(NodeUris::of("test"));
    let (service, server) = builder.into_service().expect("it is sound");
    let service = service.peer_info(move |_| PeerInfo::new().with(peer.clone()));
    let routes = Routes::default()
        .into_axum_router()
        .fallback_service(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let around = tonic::transport::Server::builder();
    let server = Mounted::with(listener, server, routes.into(), around);
    let mut raw = RawClient::connect(server.addr).await;
    let _stream = raw.open_with(callable_request("7")).await;
    let ids: Vec<_> = server.clients.config().ids().map(NodeId::get).collect();
    assert_eq!(ids, [7]);
    let refused = raw.refusal(callable_request("8")).await;
    assert_eq!(refused.headers()["grpc-status"], "7");
}
