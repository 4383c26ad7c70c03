//! What is logged: each thing that happens once, with its target, its level and its fields.

mod common;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;

use std::time::Duration;

use common::{Number, TestServer, connect, echo, number, within};
use gorums::membership::{Change, NodeAddress};
use gorums::server::{Incoming, Next, interceptor_fn};
use gorums::{
    CancellationToken, Client, Code, Configuration, ConfigurationBuilder, NodeError, NodeState,
    Outcome, ReplySender, Server, ServerBuilder, ServerCtx, Status,
};
use log::Log;
use memory::{Manner, Network, settle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::Level;

const ECHO: &str = "test.Test.Echo";
const PANIC: &str = "test.Test.Panic";
const NODE: &str = "a:1";

const CLIENT: &str = "gorums::client";
const SERVER: &str = "gorums::server";
const HANDLER: &str = "gorums::handler";
const CALL: &str = "gorums::call";
const MEMBERSHIP: &str = "gorums::membership";

const SECOND: Duration = Duration::from_secs(1);

async fn serve(network: &Network, builder: ServerBuilder) -> TestServer {
    TestServer::start_at(builder.transport(network.clone()), NODE).await
}

fn builder(network: &Network) -> ConfigurationBuilder {
    Configuration::builder()
        .transport(network.clone())
        .nodes([NODE])
}

/// A client of the node, connected or not.
fn alone(network: &Network) -> Client {
    Client::new(builder(network).connect().expect("a legal address"))
}

async fn call(client: &Client, method: &'static str) -> Result<Number, NodeError> {
    let node = &client.configuration()[0];
    within(client.rpc(node, method, number(1))).await
}

// ---- connections

#[tokio::test(start_paused = true)]
async fn a_connection_is_told_once_at_each_end_and_so_is_its_end() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let server = serve(&network, echo()).await;
    let client = alone(&network);
    call(&client, ECHO).await.expect("up");
    settle().await;
    assert_eq!(
        log.told(&[CLIENT, SERVER]),
        [
            "INFO server: listening address=127.0.0.1:1",
            "INFO server: a client connected peer=unknown features=cancel,stream-end,credit,instance,kind,going-away,deadline",
            "INFO client: connected node=1 address=a:1 features=cancel,stream-end,credit,instance,kind,going-away,deadline",
        ]
    );
    network.cut(NODE);
    settle().await;
    within(client.configuration().connected(1))
        .await
        .expect("none is closed");
    settle().await;
    assert_eq!(
        log.told(&[CLIENT, SERVER]),
        [
            "INFO client: lost node=1 address=a:1 error=unavailable: connection reset by the test \
             lasted_ms=N retry_ms=N",
            "INFO server: a client left peer=unknown reason=stream closed because of a broken pipe \
             lasted_ms=N",
            "INFO server: a client connected peer=unknown features=cancel,stream-end,credit,instance,kind,going-away,deadline",
            "INFO client: connected node=1 address=a:1 features=cancel,stream-end,credit,instance,kind,going-away,deadline",
        ]
    );
    drop(client);
    settle().await;
    assert_eq!(
        log.told(&[CLIENT, SERVER]),
        ["INFO server: a client left peer=unknown reason=the client ended the stream lasted_ms=N"]
    );
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_refused_as_another_ones_server_is_told_once() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let _server = serve(&network, echo()).await;
    network.alias("b:1", NODE);
    let nodes = builder(&network).nodes(["b:1"]).connect();
    let nodes = nodes.expect("their texts differ");
    // One of node 1, and three of node 2.
    network.attempted(NODE, 4).await;
    settle().await;
    let told: Vec<_> = log
        .told(&[CLIENT])
        .into_iter()
        .filter(|event| event.contains("node=2"))
        .collect();
    let [twins, refused] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(twins.starts_with("WARN client: two nodes are one server node=2 "));
    assert!(refused.starts_with("INFO client: cannot connect node=2 address=b:1 "));
    drop(nodes);
}

#[tokio::test(start_paused = true)]
async fn of_attempts_that_fail_one_after_the_other_only_the_first_is_more_than_a_detail() {
    let log = Log::of(Level::DEBUG);
    let network = Network::new();
    let client = alone(&network);
    network.attempted(NODE, 3).await;
    settle().await;
    let failed = "client: cannot connect node=1 address=a:1 error=unavailable: connection refused \
                  retry_ms=N";
    let connecting = "DEBUG client: connecting node=1 address=a:1";
    assert_eq!(
        log.told(&[CLIENT]),
        [
            connecting,
            &format!("INFO {failed}"),
            connecting,
            &format!("DEBUG {failed}"),
            connecting,
            &format!("DEBUG {failed}"),
        ]
    );
    let _server = serve(&network, echo()).await;
    within(client.configuration().connected(1))
        .await
        .expect("none is closed");
    settle().await;
    log.take();
    network.set(NODE, Manner::Flapping);
    network.cut(NODE);
    network.attempted(NODE, 6).await;
    settle().await;
    let told = log.told(&[CLIENT]);
    assert!(told[0].starts_with("INFO client: lost"), "{told:?}");
    assert_eq!(told[1], connecting);
    assert!(
        told[2].starts_with("INFO client: cannot connect"),
        "{told:?}"
    );
    drop(client);
    settle().await;
    let told = log.told(&[CLIENT]);
    let closed = "DEBUG client: closed: nobody holds the node any more node=1 address=a:1";
    assert_eq!(told.last().map(String::as_str), Some(closed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_turned_away_is_told_at_both_ends_and_its_call_is_refused() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let refusing =
        echo().on_connect(|_| Err(Status::unauthenticated("no token\nINFO all is well")));
    let _server = serve(&network, refusing).await;
    let client = alone(&network);
    let error = call(&client, ECHO).await.expect_err("refused");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Refused, Code::Unauthenticated)
    );
    let text = r"unauthenticated: no token\nINFO all is well";
    assert_eq!(
        log.told(&[CLIENT, SERVER])[1..],
        [
            format!("WARN server: a client was refused peer=unknown error={text}"),
            format!("WARN client: refused by the node node=1 address=a:1 error={text} retry_ms=N"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_again_and_again_does_not_fill_the_log() {
    let log = Log::of(Level::DEBUG);
    let network = Network::new();
    let _server = serve(&network, echo().on_connect(|_| Err(Status::aborted("no")))).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(alone(&network));
    }
    settle().await;
    clients.clear();
    settle().await;
    let told = log.told(&[SERVER]);
    let of = |level| {
        let line = format!("{level} server: a client was refused peer=unknown error=aborted: no");
        told.iter().filter(|told| **told == line).count()
    };
    assert_eq!((of("WARN"), of("DEBUG"), told.len()), (10, 90, 101));
    tokio::time::sleep(10 * SECOND).await;
    let _client = alone(&network);
    settle().await;
    assert_eq!(
        log.told(&[SERVER]),
        ["WARN server: a client was refused peer=unknown error=aborted: no left_out=90"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_no_ping_is_told_as_such() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let stuck = echo().unary("test.Test.Stuck", |_ctx, _: Number| async move {
        std::future::pending::<Result<Number, Status>>().await
    });
    let _server = serve(&network, stuck.keep_alive(Duration::MAX, Duration::MAX)).await;
    let nodes = builder(&network).keep_alive(SECOND, SECOND).connect();
    let client = Client::new(nodes.expect("a legal address"));
    within(client.configuration().connected(1))
        .await
        .expect("none is closed");
    let node = &client.configuration()[0];
    let stuck = client.rpc::<_, Number>(node, "test.Test.Stuck", number(1));
    let stuck = stuck.send();
    settle().await;
    log.take();
    network.take(NODE, false);
    let error = within(stuck).await.expect_err("dead");
    assert_eq!(error.outcome(), Outcome::Unknown);
    settle().await;
    assert_eq!(
        log.told(&[CLIENT])[..1],
        ["WARN client: lost: the node does not answer node=1 address=a:1 lasted_ms=N retry_ms=N"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_cut_off_and_told_as_such() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let _server = serve(&network, echo().keep_alive(SECOND, SECOND)).await;
    let client = alone(&network);
    call(&client, ECHO).await.expect("up");
    log.take();
    // What the client writes is not taken, its pongs among them.
    network.stall(NODE);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(
        log.told(&[SERVER])[0],
        "WARN server: a client was cut off peer=unknown reason=the peer did not answer a \
         keep-alive ping lasted_ms=N"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_says_when_it_begins_and_how_it_ends() {
    let slow = || {
        echo().unary("test.Test.Slow", |_ctx, request: Number| async move {
            tokio::time::sleep(Duration::from_millis(request.value)).await;
            Ok::<_, Status>(request)
        })
    };
    for (takes, end) in [
        (500, "INFO server: drained address=127.0.0.1:1 took_ms=N"),
        (
            5_000,
            "WARN server: handlers did not finish within the grace period address=127.0.0.1:1 \
             connections=1",
        ),
    ] {
        let log = Log::of(Level::INFO);
        let network = Network::new();
        let server = slow().transport(network.clone()).bind(NODE).await;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = server.expect("free").serve_with_shutdown(stopped, SECOND);
        let serving = tokio::spawn(serving);
        let client = alone(&network);
        let node = &client.configuration()[0];
        let slow = client.rpc::<_, Number>(node, "test.Test.Slow", number(takes));
        let slow = slow.send();
        settle().await;
        log.take();
        stop.cancel();
        within(serving).await.expect("no panic");
        drop(slow);
        let told = log.told(&[SERVER]);
        assert_eq!(
            told[0],
            "INFO server: shutting down address=127.0.0.1:1 connections=1 grace_ms=N"
        );
        assert!(told.iter().any(|told| told == end), "{told:?}");
        let left = |told: &&String| told.contains("a client left");
        assert_eq!(told.iter().filter(left).count(), 1, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_stopped_at_once_tells_of_its_clients() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let server = serve(&network, echo()).await;
    let client = alone(&network);
    call(&client, ECHO).await.expect("up");
    log.take();
    server.stop().await;
    assert_eq!(
        log.told(&[SERVER]),
        ["INFO server: a client left peer=unknown reason=the server was stopped lasted_ms=N"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_with_as_many_connections_as_there_may_be_says_so() {
    let log = Log::of(Level::WARN);
    let network = Network::new();
    let _server = serve(&network, echo().max_connections(1)).await;
    let _clients = [alone(&network), alone(&network)];
    settle().await;
    let told = log.told(&[SERVER]);
    let refused = "WARN server: a connection was refused: there are too many peer=unknown reason=as \
                   many connections as there may be (max_connections)";
    assert!(told.iter().any(|line| line == refused), "{told:?}");
}

#[tokio::test]
async fn peers_that_speak_something_else_are_told_by_their_addresses() {
    let log = Log::of(Level::DEBUG);
    let server = TestServer::start(echo()).await;
    let mut tcp = TcpStream::connect(server.addr).await.expect("it listens");
    let peer = tcp.local_addr().expect("connected");
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: gorums\r\n\r\n")
        .await
        .expect("connected");
    let mut answer = Vec::new();
    let _ = within(tcp.read_to_end(&mut answer)).await;
    let told = log.told(&[SERVER]);
    let [_listening, ended] = &told[..] else {
        panic!("two lines: {told:?}");
    };
    let expected = format!("DEBUG server: a connection ended without a stream peer={peer} reason=");
    assert!(ended.starts_with(&expected), "{ended}");

    let tcp = TcpStream::connect(server.addr).await.expect("it listens");
    let peer = tcp.local_addr().expect("connected");
    let handshake = h2::client::handshake(tcp);
    let (requests, connection) = within(handshake).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.expect("HTTP/2");
    let request = http::Request::post("http://gorums/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(())
        .expect("well-formed");
    let (answer, _) = requests.send_request(request, true).expect("connected");
    within(answer).await.expect("answered");
    let request = http::Request::get("http://gorums/").body(());
    let (answer, _) = requests
        .send_request(request.expect("well-formed"), true)
        .expect("connected");
    within(answer).await.expect("answered");
    drop(requests);
    within(connection).await.expect("no panic").expect("closed");
    let refused = "WARN server: a request was refused that opens no stream";
    let told = log.told(&[SERVER]);
    assert_eq!(
        told[..2],
        [
            format!(
                "{refused} peer={peer} error=unimplemented: unknown path \
                 /grpc.health.v1.Health/Check: this server serves /stream.Gorums/NodeStream, \
                 and methods at /package.Service/Method"
            ),
            format!("{refused} peer={peer} error=unimplemented: HTTP method GET"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn who_a_client_claims_to_be_is_told_and_so_is_who_it_is_taken_for() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let _server = serve(&network, echo()).await;
    // It has no id of its own, and gets one.
    let nodes = builder(&network).serve(Server::builder()).connect();
    let nodes = nodes.expect("a legal address");
    within(nodes.connected(1)).await.expect("none is closed");
    settle().await;
    assert_eq!(
        log.told(&[SERVER])[1],
        "INFO server: a client connected peer=node 1048576 node=1048576 claims=0 \
         features=cancel,stream-end,credit,instance,kind,going-away,deadline"
    );
}

// ---- handlers

/// A server of which everything panics that a user may write.
fn panicking() -> ServerBuilder {
    Server::builder()
        .unary(PANIC, |_ctx, request: Number| async move {
            assert!(request.value > 1, "secret {}", request.value);
            Ok::<_, Status>(request)
        })
        .unary("test.Test.AfterRelease", |ctx: ServerCtx, _: Number| {
            ctx.release();
            async move {
                tokio::task::yield_now().await;
                if ctx.is_cancelled() {
                    return Ok(number(1));
                }
                panic!("secret 1")
            }
        })
        .streaming(
            "test.Test.Stream",
            |_ctx, _: Number, _replies: ReplySender<Number>| async move { panic!("secret 1") },
        )
        .one_way("test.Test.Note", |_ctx, _: Number| async {
            panic!("secret 1")
        })
        .unary("test.Test.AtOnce", |_ctx, request: Number| {
            assert!(request.value > 1, "secret 1");
            std::future::ready(Ok::<_, Status>(request))
        })
        .interceptor(interceptor_fn(
            |incoming: Incoming, next: Next| async move {
                assert!(
                    incoming.ctx().method() != "test.Test.Intercepted",
                    "secret 1"
                );
                next.run(incoming).await
            },
        ))
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_logged_with_its_request_and_the_caller_gets_a_fixed_text() {
    for expose in [false, true] {
        let log = Log::of(Level::ERROR);
        let network = Network::new();
        let _server = serve(&network, panicking().expose_panics(expose)).await;
        let client = alone(&network);
        let text = match expose {
            false => "the handler panicked",
            true => "the handler panicked: secret 1",
        };
        for method in [
            PANIC,
            "test.Test.AfterRelease",
            "test.Test.AtOnce",
            "test.Test.Intercepted",
        ] {
            let error = call(&client, method).await.expect_err("it panics");
            assert_eq!(
                (error.code(), error.outcome()),
                (Code::Internal, Outcome::Refused)
            );
            assert_eq!(error.status().message(), text);
            assert_eq!(
                log.told(&[HANDLER]),
                [format!(
                    "ERROR handler: a handler panicked method={method} peer=unknown call=N \
                     panic=secret 1"
                )]
            );
        }
        let stream = client.streamed_quorum_call::<_, Number>("test.Test.Stream", number(1));
        let error = within(stream.majority()).await.expect_err("it panics");
        assert_eq!(error.failures()[0].status().message(), text);
        assert_eq!(log.told(&[HANDLER]).len(), 1);
        let node = &client.configuration()[0];
        let note = client.unicast(node, "test.Test.Note", number(1));
        within(note.send()).await.expect("written");
        settle().await;
        assert_eq!(log.told(&[HANDLER]).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_client_that_serves_is_logged_there_with_the_node_that_called() {
    let log = Log::of(Level::ERROR);
    let network = Network::new();
    let server =
        Server::builder().unary("test.Test.Back", |ctx: ServerCtx, _: Number| async move {
            ctx.release();
            let client = Client::new(ctx.client_config());
            let node = &client.configuration()[0];
            let error = client.rpc::<_, Number>(node, PANIC, number(1)).await;
            Err::<Number, _>(error.expect_err("it panics").status().clone())
        });
    let _server = serve(&network, server).await;
    let nodes = builder(&network).serve(panicking()).connect();
    let client = Client::new(nodes.expect("a legal address"));
    let error = call(&client, "test.Test.Back").await.expect_err("it fails");
    assert_eq!(error.status().message(), "the handler panicked");
    assert_eq!(
        log.told(&[HANDLER]),
        [format!(
            "ERROR handler: a handler panicked method={PANIC} peer=node 1 node=1 call=N \
             panic=secret 1"
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn a_connect_callback_that_panics_turns_the_client_away() {
    for (expose, text) in [
        (false, "the connect callback panicked"),
        (true, "the connect callback panicked: secret"),
    ] {
        let log = Log::of(Level::ERROR);
        let network = Network::new();
        let builder = echo().on_connect(|_| panic!("secret"));
        let _server = serve(&network, builder.expose_panics(expose)).await;
        let client = alone(&network);
        let error = call(&client, ECHO).await.expect_err("refused");
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Internal, Outcome::Refused)
        );
        assert_eq!(error.status().message(), text);
        assert_eq!(
            log.told(&[SERVER])[0],
            "ERROR server: the connect callback panicked peer=unknown panic=secret"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_logs_is_within_a_span_that_names_its_request() {
    let noisy = || {
        Server::builder().unary("test.Test.Noisy", |ctx: ServerCtx, request: Number| {
            tracing::info!(target: "test", "at once");
            async move {
                tracing::info!(target: "test", "polled");
                ctx.release();
                tokio::task::yield_now().await;
                tracing::info!(target: "test", "released");
                Ok::<_, Status>(request)
            }
        })
    };
    for (level, spans) in [
        (
            Level::DEBUG,
            vec!["handler method=test.Test.Noisy peer=unknown call=N"],
        ),
        (Level::INFO, vec![]),
    ] {
        let log = Log::of(level);
        let network = Network::new();
        let _server = serve(&network, noisy()).await;
        call(&alone(&network), "test.Test.Noisy").await.expect("up");
        let own = log.own();
        let texts: Vec<_> = own.iter().map(|line| &line.text[..]).collect();
        assert_eq!(texts, ["at once", "polled", "released"]);
        for line in own {
            assert_eq!(line.spans, spans, "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_too_late_for_their_turn_are_told() {
    let log = Log::of(Level::WARN);
    let network = Network::new();
    let builder = Server::builder()
        .unary(ECHO, |_: ServerCtx, request: Number| async move {
            tokio::time::sleep(SECOND).await;
            Ok::<_, Status>(request)
        })
        .one_way("test.Test.Note", |_: ServerCtx, _: Number| async {});
    let _server = serve(&network, builder).await;
    let client = alone(&network);
    let node = &client.configuration()[0];
    // The node has said what it understands.
    call(&client, ECHO).await.expect("up");
    let before = client.rpc::<_, Number>(node, ECHO, number(1)).send();
    let late = client.rpc::<_, Number>(node, ECHO, number(2));
    let late = late.timeout(SECOND / 2).send();
    let note = client.unicast(node, "test.Test.Note", number(3));
    let note = note.deadline(tokio::time::Instant::now() + SECOND / 2);
    within(note).await.expect("handed over");
    within(late).await.expect_err("it is late");
    assert!(log.told(&[HANDLER]).is_empty(), "its turn has not come");
    within(before).await.expect("answered");
    settle().await;
    let line = |method| {
        format!(
            "WARN handler: a request was not run: its deadline had passed before its turn \
             method=test.Test.{method} peer=unknown call=N"
        )
    };
    assert_eq!(log.told(&[HANDLER]), [line("Echo"), line("Note")]);
}

#[tokio::test(start_paused = true)]
async fn requests_and_replies_that_are_not_taken_are_told() {
    let log = Log::of(Level::WARN);
    let network = Network::new();
    let _server = serve(&network, echo().max_decoding_message_size(100)).await;
    let client = alone(&network);
    let node = &client.configuration()[0];
    let large = Number {
        value: 1,
        payload: vec![0; 10_000].into(),
    };
    let refused = client.rpc::<_, Number>(node, ECHO, large.clone());
    within(refused).await.expect_err("too large");
    let told = log.told(&[HANDLER]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(
            "WARN handler: a request was refused method=test.Test.Echo peer=unknown call=N \
             error=resource exhausted: a message of 10"
        ),
        "{told:?}"
    );
    drop(client);
    let network = Network::new();
    let _server = serve(&network, echo()).await;
    let nodes = builder(&network).max_decoding_message_size(100).connect();
    let client = Client::new(nodes.expect("a legal address"));
    let useless = client.rpc::<_, Number>(&client.configuration()[0], ECHO, large);
    within(useless).await.expect_err("too large");
    let told = log.told(&[CLIENT]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(
            "WARN client: a reply is of no use node=1 address=a:1 method=test.Test.Echo call=N \
             error=resource exhausted: a message of 10"
        ),
        "{told:?}"
    );
}

// ---- calls

#[tokio::test(start_paused = true)]
async fn every_call_is_told_once_with_what_became_of_it() {
    let log = Log::of(Level::DEBUG);
    let network = Network::new();
    let server = echo()
        .unary("test.Test.Fail", |_ctx, _: Number| async {
            Err::<Number, _>(Status::not_found("no such key"))
        })
        .unary("test.Test.Stuck", |ctx: ServerCtx, _: Number| async move {
            ctx.release();
            std::future::pending::<Result<Number, Status>>().await
        });
    let _server = serve(&network, server).await;
    let client = alone(&network);
    call(&client, ECHO).await.expect("up");
    assert_eq!(
        log.told(&[CALL]),
        [
            "DEBUG call: a call is complete method=test.Test.Echo call=N nodes=1 failures=0 took_ms=N"
        ]
    );
    let failed = "DEBUG call: a node failed method=test.Test.Fail call=N node=1 address=a:1 \
                  outcome=refused error=not found: no such key";
    call(&client, "test.Test.Fail").await.expect_err("it fails");
    assert_eq!(
        log.told(&[CALL]),
        [
            failed,
            "DEBUG call: a call failed method=test.Test.Fail call=N nodes=1 failures=1 took_ms=N \
             error=node 1 (a:1): refused: not found: no such key",
        ]
    );
    let quorum = client.quorum_call::<_, Number>("test.Test.Fail", number(1));
    within(quorum.majority()).await.expect_err("it fails");
    let told = log.told(&[CALL]);
    assert_eq!(told[0], failed);
    assert!(
        told[1].contains("a call failed") && told[1].contains("out of reach"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
    let node = &client.configuration()[0];
    let stuck = || client.rpc::<_, Number>(node, "test.Test.Stuck", number(1));
    let given_up = stuck().send();
    settle().await;
    drop(given_up);
    assert_eq!(
        log.told(&[CALL]),
        [
            "DEBUG call: a call was given up method=test.Test.Stuck call=N nodes=1 failures=0 \
             took_ms=N"
        ]
    );
    let late = stuck().timeout(SECOND);
    within(late).await.expect_err("late");
    let told = log.told(&[CALL]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("deadline exceeded"), "{told:?}");
    let token = CancellationToken::new();
    let cancelled = stuck().cancelled_by(&token).send();
    token.cancel();
    within(cancelled).await.expect_err("cancelled");
    let told = log.told(&[CALL]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("a call failed"), "{told:?}");
    assert!(told[1].contains("cancelled"), "{told:?}");
    // All that could come has come: nothing was given up.
    let mut responses = client
        .quorum_call::<_, Number>("test.Test.Fail", number(1))
        .responses();
    while within(responses.next()).await.is_some() {}
    drop(responses);
    let told = log.told(&[CALL]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("a call is complete"), "{told:?}");
    assert!(told[1].contains("failures=1"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_has_the_same_id_in_the_logs_of_both_ends() {
    let log = Log::of(Level::TRACE);
    let network = Network::new();
    let _server = serve(&network, panicking()).await;
    call(&alone(&network), PANIC).await.expect_err("it panics");
    let lines = log.take();
    let of = |target| {
        let lines = lines.iter().filter(move |line| line.target == target);
        lines.map(|line| line.call).collect::<Vec<_>>()
    };
    let panic = of(HANDLER);
    assert!(matches!(panic[..], [Some(_)]), "{lines:?}");
    // It begins, its node fails, it fails.
    assert_eq!(of(CALL), [panic[0]; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_bounds_of_a_client_are_told_when_they_are_reached() {
    let log = Log::of(Level::WARN);
    let network = Network::new();
    network.set(NODE, Manner::Silent);
    let nodes = builder(&network).outbox(2, usize::MAX).max_calls(3);
    let client = Client::new(nodes.connect().expect("a legal address"));
    let node = &client.configuration()[0];
    let send = || client.rpc::<_, Number>(node, ECHO, number(1)).send();
    let calls = [send(), send()];
    assert_eq!(log.told(&[CLIENT, CALL]), [""; 0]);
    let third = send();
    assert_eq!(
        log.told(&[CLIENT, CALL]),
        ["WARN client: the outbox is full node=1 address=a:1"]
    );
    within(third).await.expect_err("full");
    let other = builder(&network).max_calls(2).connect();
    let other = Client::new(other.expect("a legal address"));
    let node = &other.configuration()[0];
    let send = || other.rpc::<_, Number>(node, ECHO, number(1)).send();
    let others = [send(), send(), send()];
    assert_eq!(
        log.told(&[CLIENT, CALL]),
        ["WARN call: too many calls wait for replies method=test.Test.Echo max_calls=2"]
    );
    drop((calls, others));
}

// ---- membership

#[tokio::test(start_paused = true)]
async fn nodes_that_come_and_go_are_told() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let members = Configuration::builder()
        .transport(network.clone())
        .membership()
        .expect("legal");
    members.apply(Change::insert(3, "c:1")).expect("new");
    members.apply(Change::insert(3, "c:1")).expect("known");
    members.apply(Change::Remove(3.into())).expect("there");
    members.apply(Change::Remove(3.into())).expect("gone");
    assert_eq!(
        log.told(&[MEMBERSHIP]),
        [
            "INFO membership: a node joined node=3 address=c:1",
            "INFO membership: a node left node=3 address=c:1",
        ]
    );
    log.take();
    let list = |addresses: &[&str]| {
        let nodes = addresses.iter().map(|address| address.parse());
        nodes
            .collect::<Result<Vec<NodeAddress>, _>>()
            .expect("legal")
    };
    members.set(list(&["1=a:1", "2=b:1"])).expect("new");
    members.set(list(&["1=a:1", "2=d:1"])).expect("moved");
    assert_eq!(
        log.told(&[MEMBERSHIP]),
        [
            "INFO membership: a node joined node=1 address=a:1",
            "INFO membership: a node joined node=2 address=b:1",
            "INFO membership: a node joined node=2 address=d:1",
            "INFO membership: a node left node=2 address=b:1",
        ]
    );
}

#[tokio::test]
async fn a_client_over_tcp_is_told_by_its_address() {
    let log = Log::of(Level::INFO);
    let server = TestServer::start(echo()).await;
    let nodes = connect(std::slice::from_ref(&server));
    within(nodes.connected(1)).await.expect("none is closed");
    call(&Client::new(&nodes), ECHO).await.expect("up");
    assert_eq!(nodes[0].state(), NodeState::Connected);
    let told = log.told(&[CLIENT, SERVER]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[1].starts_with("INFO server: a client connected peer=127.0.0.1:"),
        "{told:?}"
    );
    let address = server.addr;
    assert_eq!(
        told[2],
        format!(
            "INFO client: connected node=1 address={address} features=cancel,stream-end,credit,instance,kind,going-away,deadline"
        )
    );
}
