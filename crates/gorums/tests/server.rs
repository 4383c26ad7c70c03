//! The server beyond order: cancellation, shutdown, interceptors, the connect callback, limits.

mod common;
#[path = "common/log.rs"]
mod log;
#[path = "common/memory.rs"]
mod memory;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, connect, echo, number, within};
use gorums::call::QuorumCall;
use gorums::runtime::{Address, BoxFuture, BoxIo, Listener, Transport};
use gorums::server::{Clients, Incoming, Next, Reply, Roles, interceptor_fn};
use gorums::{
    Client, Code, Configuration, NodeError, Outcome, QuorumError, QuorumErrorKind, ReplySender,
    Server, ServerCtx, ServerError, Status,
};
use log::Log;
use memory::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::Level;

const ECHO: &str = "test.Test.Echo";
const HOLD: &str = "test.Test.Hold";

fn one(server: &TestServer) -> Configuration {
    connect(std::slice::from_ref(server))
}

/// A handler that waits until it is told that nobody waits for it, and counts that.
fn cancellable(started: &Counter, cancelled: &Counter) -> gorums::ServerBuilder {
    let (started, cancelled) = (started.clone(), cancelled.clone());
    echo().unary(HOLD, move |ctx: ServerCtx, request: Number| {
        let (started, cancelled) = (started.clone(), cancelled.clone());
        async move {
            if request.value > 0 {
                ctx.release();
            }
            started.add();
            ctx.cancelled().await;
            assert!(ctx.is_cancelled());
            cancelled.add();
            Ok::<_, Status>(request)
        }
    })
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_the_next_one_is_told_why() {
    let server = TestServer::start(echo().max_connections_per_address(2)).await;
    let (first, second) = (one(&server), one(&server));
    for nodes in [&first, &second] {
        within(nodes.connected(1)).await.expect("there is room");
    }
    let third = one(&server);
    let client = Client::new(&third);
    let call = || within(client.rpc::<_, Number>(&third[0], ECHO, number(3)).send());
    let error = call().await.expect_err("there is no room");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    // Nothing was done, whether the answer comes before the request could be written or after.
    let outcome = error.outcome();
    assert!(
        matches!(outcome, Outcome::NotSent | Outcome::Refused),
        "{error}"
    );
    let message = error.status().message();
    assert!(message.contains("from 127.0.0.1 as may come"), "{message}");
    let client_of_first = Client::new(&first);
    let served = client_of_first.rpc::<_, Number>(&first[0], ECHO, number(1));
    within(served.send()).await.expect("it is served as before");
    // One that goes makes room.
    drop(second);
    within(async { while call().await.is_err() {} }).await;
}

#[tokio::test]
async fn methods_are_for_those_in_their_roles_and_for_nobody_else() {
    let who = |who: &'static str| {
        move |caller: &ServerCtx| caller.connection_metadata().get("who") == Some(who)
    };
    let roles = Roles::new()
        .role("replica", who("replica"))
        .role("client", who("client"))
        .role("anybody", |_| true)
        .method(HOLD, ["replica"])
        .service("test.Test", ["client", "replica"])
        .service("test.Open", ["anybody"]);
    let method = |_: ServerCtx, request: Number| std::future::ready(Ok::<_, Status>(request));
    let builder = echo()
        .unary(HOLD, method)
        .unary("test.Open.Echo", method)
        .unary("test.Closed.Echo", method)
        .interceptor(roles);
    let server = TestServer::start(builder).await;
    let replica_only = "this method is for others: replica";
    let both = "this method is for others: client, replica";
    for (who, refused) in [
        (
            "replica",
            [None, None, None, Some("nobody may call this method")],
        ),
        (
            "client",
            [
                Some(replica_only),
                None,
                None,
                Some("nobody may call this method"),
            ],
        ),
        (
            "mallory",
            [
                Some(replica_only),
                Some(both),
                None,
                Some("nobody may call this method"),
            ],
        ),
    ] {
        let nodes = Configuration::builder()
            .nodes([server.addr.to_string()])
            .metadata("who", who)
            .connect()
            .expect("legal");
        let client = Client::new(&nodes);
        let methods = [HOLD, ECHO, "test.Open.Echo", "test.Closed.Echo"];
        for (method, refused) in methods.into_iter().zip(refused) {
            let reply = within(client.rpc::<_, Number>(&nodes[0], method, number(1)).send()).await;
            let told = reply.map_err(|error| {
                assert_eq!(error.code(), Code::PermissionDenied);
                error.status().message().to_owned()
            });
            assert_eq!(told.err().as_deref(), refused, "{who} {method}");
        }
    }
}

#[test]
fn roles_that_contradict_each_other_are_no_roles() {
    let role = || Roles::new().role("a", |_| true);
    for wrong in [
        (|role: Roles| role.role("a", |_| false)) as fn(Roles) -> Roles,
        |role| role.method("m", ["b"]),
        |role| role.method("m", ["a"]).method("m", ["a"]),
        |role| role.service("s", ["a"]).service("s", ["a"]),
    ] {
        let made = std::panic::catch_unwind(move || wrong(role()));
        assert!(made.is_err());
    }
}

#[tokio::test]
async fn a_caller_that_gave_up_is_told_to_its_handler_and_to_no_other() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let server = TestServer::start(cancellable(&started, &cancelled)).await;
    let all = one(&server);
    let client = Client::new(&all);
    let rpc = |value| client.rpc::<_, Number>(&all[0], HOLD, number(value)).send();
    // Released and moved, released and moved, holding its turn, waiting for its turn.
    let (first, second, third, fourth) = (rpc(1), rpc(2), rpc(0), rpc(0));
    started.reached(3).await;
    drop(first);
    cancelled.reached(1).await;
    drop(third);
    cancelled.reached(2).await;
    // The turn passes on when the handler ends, and the fourth is told at once if it was given up
    // before it began.
    started.reached(4).await;
    drop(fourth);
    cancelled.reached(3).await;
    drop(second);
    cancelled.reached(4).await;
}

#[tokio::test]
async fn a_request_that_was_given_up_while_it_waited_is_handled_as_cancelled() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let server = TestServer::start(cancellable(&started, &cancelled)).await;
    let all = one(&server);
    let client = Client::new(&all);
    let rpc = |method, value| {
        client
            .rpc::<_, Number>(&all[0], method, number(value))
            .send()
    };
    let holding = rpc(HOLD, 0);
    let waiting = rpc(HOLD, 0);
    let last = rpc(ECHO, 7);
    started.reached(1).await;
    drop(waiting);
    drop(holding);
    assert_eq!(within(last).await.expect("up").value, 7);
    assert_eq!((started.get(), cancelled.get()), (2, 2));
}

#[tokio::test]
async fn a_timeout_is_told_to_the_handler() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let server = TestServer::start(cancellable(&started, &cancelled)).await;
    let all = one(&server);
    let client = Client::new(&all);
    within(client.rpc::<_, Number>(&all[0], ECHO, number(0)))
        .await
        .expect("connected");
    let call = client
        .quorum_call::<_, Number>(HOLD, number(1))
        .timeout(Duration::from_millis(50));
    within(call.all()).await.expect_err("it waits for ever");
    // A server that was too slow to start it in time is told all the same.
    cancelled.reached(1).await;
}

#[tokio::test]
async fn a_connection_that_ended_is_told_to_its_handlers_and_their_work_goes_on() {
    let (started, cancelled) = (Counter::new(), Counter::new());
    let server = TestServer::start(cancellable(&started, &cancelled)).await;
    let client_side = tokio::spawn({
        let all = one(&server);
        async move {
            let client = Client::new(&all);
            let calls: Vec<_> = [1, 2, 0, 0]
                .map(|value| client.rpc::<_, Number>(&all[0], HOLD, number(value)).send())
                .into();
            std::future::pending::<()>().await;
            drop(calls);
        }
    });
    started.reached(3).await;
    client_side.abort();
    // The fourth starts when the third ends, as ever.
    cancelled.reached(4).await;
    assert_eq!(started.get(), 4);
}

#[tokio::test]
async fn interceptors_run_in_order_and_in_reverse_order_out() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let logging = |name: &'static str| {
        let log = log.clone();
        interceptor_fn(move |mut incoming: Incoming, next: Next| {
            let log = log.clone();
            async move {
                let mut request: Number = incoming.decode()?;
                log.lock()
                    .expect("not poisoned")
                    .push(format!("{name} in {}", request.value));
                request.value += 1;
                incoming.encode(&request);
                incoming.set_value(name);
                let reply = next.run(incoming).await?;
                let mut message: Number = reply.decode()?;
                log.lock()
                    .expect("not poisoned")
                    .push(format!("{name} out {}", message.value));
                message.value *= 2;
                Ok(Reply::message(&message))
            }
        })
    };
    let server = Server::builder()
        .interceptor(logging("a"))
        .interceptor(logging("b"))
        .unary(ECHO, |ctx: ServerCtx, request: Number| async move {
            // The inner one's value is the one that is seen.
            assert_eq!(ctx.value::<&'static str>(), Some("b"));
            assert_eq!(ctx.value::<u64>(), None);
            Ok::<_, Status>(request)
        });
    let server = TestServer::start(server).await;
    let all = one(&server);
    let reply = within(Client::new(&all).rpc::<_, Number>(&all[0], ECHO, number(10))).await;
    assert_eq!(reply.expect("up").value, 48);
    assert_eq!(
        *log.lock().expect("not poisoned"),
        ["a in 10", "b in 11", "b out 12", "a out 24"]
    );
}

#[tokio::test]
async fn an_interceptor_rejects_releases_and_sees_what_no_handler_does() {
    type Seen = Vec<(String, Option<Code>)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let server = {
        let seen = seen.clone();
        echo().interceptor(move |incoming: Incoming, next: Next| {
            let seen = seen.clone();
            async move {
                let method = incoming.ctx().method().to_owned();
                incoming.ctx().release().await;
                if incoming.ctx().metadata().get("reject").is_some() {
                    return Err(Status::permission_denied("rejected"));
                }
                let result = next.run(incoming).await;
                let code = result.as_ref().err().map(Status::code);
                seen.lock().expect("not poisoned").push((method, code));
                result
            }
        })
    };
    let server = TestServer::start(server).await;
    let all = one(&server);
    let client = Client::new(&all);
    let rejected = client
        .rpc::<_, Number>(&all[0], ECHO, number(1))
        .metadata("reject", "yes");
    assert_eq!(
        within(rejected).await.expect_err("rejected").code(),
        Code::PermissionDenied
    );
    within(client.rpc::<_, Number>(&all[0], "a.B.C", number(1)))
        .await
        .expect_err("unknown");
    within(client.rpc::<String, Number>(&all[0], ECHO, "x".into()))
        .await
        .expect_err("bad");
    within(client.rpc::<_, Number>(&all[0], ECHO, number(1)))
        .await
        .expect("fine");
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        [
            ("a.B.C".to_owned(), Some(Code::Unimplemented)),
            (ECHO.to_owned(), Some(Code::InvalidArgument)),
            (ECHO.to_owned(), None),
        ]
    );
}

#[tokio::test]
async fn the_connect_callback_sees_the_client_sets_values_and_turns_away() {
    #[derive(Clone, PartialEq, Debug)]
    struct Tenant(String);
    let server = Server::builder()
        .on_connect(|connecting| {
            let tenant = connecting.metadata().get("tenant").map(str::to_owned);
            let tenant = tenant.ok_or_else(|| Status::unauthenticated("who are you?"))?;
            assert!(connecting.peer_addr().is_some());
            connecting.set_value(Tenant(tenant));
            Ok(())
        })
        .unary("test.Test.Tenant", |ctx: ServerCtx, (): ()| async move {
            ctx.value::<Tenant>()
                .map(|tenant| tenant.0)
                .ok_or_else(|| Status::internal("no value"))
        });
    let server = TestServer::start(server).await;
    let known = Configuration::builder()
        .nodes([server.addr.to_string()])
        .metadata("tenant", "blue")
        .connect()
        .expect("legal");
    let tenant = Client::new(&known).rpc::<_, String>(&known[0], "test.Test.Tenant", ());
    assert_eq!(within(tenant).await.expect("known"), "blue");
    let unknown = one(&server);
    let error = within(Client::new(&unknown).rpc::<_, String>(&unknown[0], "test.Test.Tenant", ()))
        .await
        .expect_err("turned away");
    assert_eq!(error.code(), Code::Unauthenticated);
    assert_eq!(error.status().message(), "who are you?");
}

#[tokio::test]
async fn a_graceful_shutdown_finishes_what_was_read_and_ignores_idle_clients() {
    let (started, open) = (Counter::new(), Arc::new(Notify::new()));
    let server = {
        let (started, open) = (started.clone(), open.clone());
        echo().unary(HOLD, move |_ctx, request: Number| {
            let (started, open) = (started.clone(), open.clone());
            async move {
                started.add();
                open.notified().await;
                Ok::<_, Status>(request)
            }
        })
    };
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let addr = server.local_addr().to_string();
    let (signal, asked) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(
        async move {
            let _ = asked.await;
        },
        // Longer than the test waits, or a server that idle clients hold up would end in time as
        // well.
        Duration::from_secs(600),
    ));
    let all = Configuration::builder()
        .nodes([&addr])
        .connect()
        .expect("legal");
    let idle = Configuration::builder()
        .nodes([&addr])
        .connect()
        .expect("legal");
    within(Client::new(&idle).rpc::<_, Number>(&idle[0], ECHO, number(1)))
        .await
        .expect("up");
    let client = Client::new(&all);
    let holding = client.rpc::<_, Number>(&all[0], HOLD, number(1)).send();
    let waiting = client.rpc::<_, Number>(&all[0], ECHO, number(2)).send();
    started.reached(1).await;
    // Both requests are with the server: they came in one connection, in this order, and the second
    // is read whatever the first handler does. A round trip on another connection is no proof of
    // that, so the second is allowed to have been cut off, but never to be answered wrongly.
    signal.send(()).expect("the server runs");
    open.notify_one();
    assert_eq!(within(holding).await.expect("it had started").value, 1);
    if let Err(error) = within(waiting).await {
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.status().message(), "the server is shutting down");
    }
    within(serving)
        .await
        .expect("idle clients do not hold it up");
    let error = within(client.rpc::<_, Number>(&all[0], ECHO, number(3)))
        .await
        .expect_err("gone");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unavailable, Outcome::NotSent)
    );
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_does_not_finish_in_time() {
    let started = Counter::new();
    let server = {
        let started = started.clone();
        Server::builder().unary(HOLD, move |_ctx, _request: Number| {
            started.add();
            std::future::pending::<Result<Number, Status>>()
        })
    };
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let addr = server.local_addr().to_string();
    let (signal, asked) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(
        async move {
            let _ = asked.await;
        },
        Duration::from_millis(10),
    ));
    let all = Configuration::builder()
        .nodes([&addr])
        .connect()
        .expect("legal");
    let call = Client::new(&all)
        .rpc::<_, Number>(&all[0], HOLD, number(1))
        .send();
    started.reached(1).await;
    signal.send(()).expect("the server runs");
    within(serving).await.expect("no panic");
    let error = within(call).await.expect_err("cut off");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unavailable, Outcome::Unknown)
    );
}

#[tokio::test]
async fn a_method_that_is_added_twice_and_a_bad_address_are_refused() {
    let twice = echo().unary(ECHO, |_ctx, request: Number| async move {
        Ok::<_, Status>(request)
    });
    let error = twice.bind("127.0.0.1:0").await.expect_err("refused");
    assert!(matches!(&error, ServerError::DuplicateMethod { method } if method == ECHO));
    assert!(error.to_string().contains(ECHO));
    let server = TestServer::start(echo()).await;
    let taken = server.addr.to_string();
    let error = echo().bind(&taken).await.expect_err("the port is taken");
    assert!(error.to_string().contains(&taken), "{error}");
}

#[tokio::test]
async fn at_the_limit_of_running_handlers_the_next_waits_for_one_to_end() {
    let (started, open) = (Counter::new(), Arc::new(Notify::new()));
    let server = {
        let (started, open) = (started.clone(), open.clone());
        Server::builder().concurrency_limit_per_connection(3).unary(
            HOLD,
            move |ctx: ServerCtx, request: Number| {
                let (started, open) = (started.clone(), open.clone());
                async move {
                    ctx.release();
                    started.add();
                    open.notified().await;
                    Ok::<_, Status>(request)
                }
            },
        )
    };
    let server = TestServer::start(server).await;
    let all = one(&server);
    let client = Client::new(&all);
    let calls: Vec<_> = (0..10)
        .map(|value| client.rpc::<_, Number>(&all[0], HOLD, number(value)).send())
        .collect();
    for (ended, call) in (0..).zip(calls) {
        started.reached((3 + ended).min(10)).await;
        assert!(started.get() <= 3 + ended);
        open.notify_one();
        within(call)
            .await
            .expect("handlers are let go in their order");
    }
}

#[tokio::test]
async fn a_new_connection_is_told_where_there_are_enough_and_gets_in_when_one_ends() {
    let server = TestServer::start(echo().max_connections(1)).await;
    let first = one(&server);
    let up = || within(Client::new(&first).rpc::<_, Number>(&first[0], ECHO, number(1)));
    up().await.expect("up");
    let second = one(&server);
    let client = Client::new(&second);
    let call = || within(client.rpc::<_, Number>(&second[0], ECHO, number(2)));
    let error = call().await.expect_err("there is no room");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let message = error.status().message();
    assert!(message.contains("(max_connections)"), "{message}");
    up().await.expect("it is served as before");
    drop(first);
    within(async { while call().await.is_err() {} }).await;
}

#[tokio::test]
async fn who_says_nothing_makes_room() {
    let server = TestServer::start(echo().max_connections(2)).await;
    let mut silent = [
        TcpStream::connect(server.addr).await.expect("it listens"),
        TcpStream::connect(server.addr).await.expect("it listens"),
    ];
    let clients = [one(&server), one(&server)];
    for (client, silent) in clients.iter().zip(&mut silent) {
        let call = || Client::new(client).rpc::<_, Number>(&client[0], ECHO, number(1));
        // Not at once: the silent ones have a while to say something.
        within(async { while call().await.is_err() {} }).await;
        let _ = within(silent.read_to_end(&mut Vec::new())).await;
    }
}

const POLL: &str = "test.Test.Poll";

/// A server that bears clients which send nothing for 30 seconds, and says which there are and how
/// many streams it has taken.
async fn impatient(network: &Network) -> (Clients, Counter) {
    let streams = Counter::new();
    let taken = streams.clone();
    let handlers = echo()
        .transport(network.clone())
        .first_message_timeout(Duration::from_secs(30))
        .on_connect(move |_| {
            taken.add();
            Ok(())
        });
    let server = handlers.bind("a:1").await.expect("a network in memory");
    let clients = server.clients();
    tokio::spawn(server.serve());
    (clients, streams)
}

/// Connects to it, and can be called back by it.
fn callee(network: &Network) -> Configuration {
    let method = |_: ServerCtx, request: Number| std::future::ready(Ok::<_, Status>(request));
    let configuration = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1"])
        .serve(Server::builder().unary(POLL, method));
    configuration.connect().expect("a legal address")
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_cut_off_where_that_is_asked_for() {
    let log = Log::of(Level::INFO);
    let network = Network::new();
    let (_clients, streams) = impatient(&network).await;
    let silent = callee(&network);
    within(silent.connected(1)).await.expect("it is taken");
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(streams.get(), 1);
    // It connects again, since it is to be called back.
    streams.reached(2).await;
    let lasted = began.elapsed().as_secs();
    assert!((30..32).contains(&lasted), "{lasted} s");
    let told = log.told(&["gorums::server", "gorums::client"]);
    let why = "the client has sent nothing on its stream within 30s (ServerBuilder::first_message_timeout)";
    let of_the_server =
        |line: &&String| line.contains("a client was cut off") && line.contains(why);
    let of_the_client = |line: &&String| line.contains("deadline exceeded") && line.contains(why);
    assert!(told.iter().any(|line| of_the_server(&line)), "{told:#?}");
    assert!(told.iter().any(|line| of_the_client(&line)), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_something_may_be_silent_from_then_on() {
    let network = Network::new();
    let (clients, streams) = impatient(&network).await;
    let (caller, called) = (callee(&network), callee(&network));
    let call = Client::new(&caller).rpc::<_, Number>(&caller[0], ECHO, number(1));
    within(call).await.expect("it is up");
    within(called.connected(1)).await.expect("it is up");
    let all = clients.config();
    let call = Client::new(&all).quorum_call::<_, Number>(POLL, number(1));
    let replies = within(call.all().replies()).await;
    assert_eq!(replies.expect("both are called back").len(), 2);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(streams.get(), 2);
}

#[tokio::test]
async fn handlers_can_be_tested_without_a_server() {
    let ctx = gorums::testing::server_ctx();
    ctx.release().await;
    ctx.release();
    assert!(!ctx.is_cancelled());
    let clone = ctx.clone();
    let released = tokio::spawn(async move { clone.release().await });
    within(released).await.expect("no panic");
}

#[tokio::test]
async fn a_method_name_of_any_length_is_answered() {
    let server = TestServer::start(echo()).await;
    let all = one(&server);
    let client = Client::new(&all);
    let name: &'static str = String::leak("x".repeat(2_000_000));
    let error = within(client.rpc::<_, Number>(&all[0], name, number(1)))
        .await
        .expect_err("unknown");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unimplemented, Outcome::Refused)
    );
    within(client.rpc::<_, Number>(&all[0], ECHO, number(1)))
        .await
        .expect("the server lives on");
}

#[tokio::test]
async fn a_mute_connection_does_not_hold_up_a_shutdown() {
    let server = echo().bind("127.0.0.1:0").await.expect("a free port");
    let addr = server.local_addr().socket_addr().expect("it has one");
    let (signal, asked) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(
        async move {
            let _ = asked.await;
        },
        Duration::from_secs(600),
    ));
    let mute = tokio::net::TcpStream::connect(addr)
        .await
        .expect("it listens");
    // A round trip of somebody who connected later: the mute one was accepted.
    let all = Configuration::builder()
        .nodes([addr.to_string()])
        .connect()
        .expect("legal");
    within(Client::new(&all).rpc::<_, Number>(&all[0], ECHO, number(1)))
        .await
        .expect("up");
    signal.send(()).expect("the server runs");
    within(serving).await.expect("no panic");
    drop(mute);
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_closed_although_a_handler_goes_on() {
    let started = Counter::new();
    let server = {
        let started = started.clone();
        Server::builder()
            .keep_alive(Duration::from_millis(20), Duration::from_millis(20))
            .unary(HOLD, move |_ctx, _request: Number| {
                started.add();
                std::future::pending::<Result<Number, Status>>()
            })
    };
    let server = TestServer::start(server).await;
    // A client that falls silent: a host that stops, seen from a second handle of its socket.
    let socket = std::net::TcpStream::connect(server.addr).expect("it listens");
    socket.set_nonblocking(true).expect("a socket");
    let watched = socket.try_clone().expect("a handle");
    let tcp = tokio::net::TcpStream::from_std(socket).expect("a socket");
    let (send_request, mut connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    let request = http::Request::post("http://localhost/stream.Gorums/NodeStream")
        .header("content-type", "application/grpc")
        .body(())
        .expect("legal");
    let mut message = bytes::BytesMut::new();
    // id 1, the method, no payload
    let envelope = [&[0x08, 1, 0x12, HOLD.len() as u8], HOLD.as_bytes()].concat();
    bytes::BufMut::put_u8(&mut message, 0);
    bytes::BufMut::put_u32(&mut message, envelope.len() as u32);
    message.extend_from_slice(&envelope);
    let mut send_request = send_request;
    let (_head, mut stream) = send_request.send_request(request, false).expect("opens");
    stream.send_data(message.freeze(), false).expect("sends");
    tokio::select! {
        () = started.reached(1) => {}
        ended = std::pin::Pin::new(&mut connection) => panic!("the connection ended: {ended:?}"),
    }
    // From here on nobody polls the client's connection, so pings stay unanswered.
    let closed = tokio::task::spawn_blocking(move || {
        watched.set_nonblocking(false).expect("a socket");
        watched
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket");
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut &watched, &mut rest).is_ok()
    });
    assert!(
        within(closed).await.expect("no panic"),
        "the socket was left open"
    );
}

#[tokio::test]
async fn an_error_with_the_code_of_success_reaches_the_caller_as_an_error() {
    const ODD: &str = "test.Test.Odd";
    const ODD_STREAM: &str = "test.Test.OddStream";
    let server = echo()
        .unary(ODD, |_ctx, _: Number| async {
            Err::<Number, _>(Status::new(Code::Ok, "fine, really"))
        })
        .streaming(
            ODD_STREAM,
            |_ctx, _: Number, _: ReplySender<Number>| async {
                Err(Status::new(Code::Ok, "fine, really"))
            },
        );
    let server = TestServer::start(server).await;
    let all = one(&server);
    let client = Client::new(&all);
    let error = within(client.rpc::<_, Number>(&all[0], ODD, number(1))).await;
    let error = error.expect_err("the handler failed");
    let mut replies = client
        .streamed_quorum_call::<_, Number>(ODD_STREAM, number(1))
        .responses();
    let streamed = within(replies.next()).await.expect("one node");
    for error in [
        error,
        streamed.into_result().expect_err("the handler failed"),
    ] {
        assert_eq!(error.outcome(), Outcome::Refused);
        assert_eq!(error.code(), Code::Internal);
        assert!(error.status().message().contains("fine, really"), "{error}");
    }
}

#[tokio::test]
async fn an_error_with_the_code_of_success_never_counts_as_a_reply() {
    const FAIL: &str = "test.Test.Fail";
    const FAIL_LATER: &str = "test.Test.FailLater";
    let odd = || Status::new(Code::Ok, "disk error");
    let (nodes, all) = cluster(3, |_| {
        echo()
            .unary(FAIL, move |_ctx, _: Number| async move {
                Err::<Number, _>(odd())
            })
            .streaming(
                FAIL_LATER,
                move |_ctx, request: Number, replies: ReplySender<Number>| async move {
                    replies.send(request).await?;
                    Err(odd())
                },
            )
            .interceptor(move |incoming: Incoming, next: Next| async move {
                match incoming.ctx().metadata().get("fail") {
                    Some(_) => Err(odd()),
                    None => next.run(incoming).await,
                }
            })
    })
    .await;
    let client = Client::new(&all);
    let is_told = |error: &NodeError| {
        assert_eq!(error.code(), Code::Internal, "{error}");
        assert!(error.status().message().contains("disk error"), "{error}");
    };
    let assert_fails = |error: &QuorumError, kind: QuorumErrorKind| {
        assert_eq!((error.kind(), error.replies()), (kind, 0), "{error}");
        assert!(!error.failures().is_empty());
        error.failures().iter().for_each(is_told);
    };
    // By the handlers, by an interceptor of the nodes, and by what maps replies at the caller.
    let handler = || client.quorum_call::<_, Number>(FAIL, number(1));
    let interceptor = || {
        client
            .quorum_call::<_, Number>(ECHO, number(1))
            .metadata("fail", "")
    };
    let caller = || {
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        call.map_response(move |_, _| Err(odd()))
    };
    for call in [
        &handler as &dyn Fn() -> QuorumCall<Number, Number>,
        &interceptor,
        &caller,
    ] {
        for rule in [1, 2, 3] {
            let error = within(call().threshold(rule)).await.expect_err("all fail");
            assert_fails(&error, QuorumErrorKind::Incomplete);
        }
        let error = within(call().majority().votes(|_| true)).await;
        let error = error.expect_err("nobody says yes");
        assert!(error.yes().is_empty(), "{error}");
        let error = within(call().quorum_fn(|_, replies| (!replies.is_empty()).then_some(())));
        assert_fails(&error.await.expect_err("none"), QuorumErrorKind::NoQuorum);
        let error = within(call().correctable(1).done())
            .await
            .expect_err("none");
        assert_fails(&error, QuorumErrorKind::Incomplete);
        let successes = within(call().responses().successes().by_node()).await;
        assert!(successes.is_empty(), "{successes:?}");
    }
    // The end of a streamed reply is an error, and no end like any other.
    let mut replies = client
        .streamed_quorum_call::<_, Number>(FAIL_LATER, number(1))
        .responses();
    let mut ended = Vec::new();
    while let Some(reply) = within(replies.next()).await {
        ended.extend(reply.into_result().err());
    }
    assert_eq!(ended.len(), nodes.len());
    ended.iter().for_each(is_told);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_by_the_number_that_was_set() {
    const LIMIT: usize = 5_000;
    let server = TestServer::start(echo().max_decoding_message_size(LIMIT)).await;
    let all = one(&server);
    let client = Client::new(&all);
    let of_payload = |bytes: usize| {
        let mut request = number(0);
        // Its key and length take three bytes.
        request.payload = vec![7; bytes - 3].into();
        client.rpc::<_, Number>(&all[0], ECHO, request)
    };
    let largest = within(of_payload(LIMIT)).await.expect("as large as may be");
    assert_eq!(largest.payload.len(), LIMIT - 3);
    // The payload is too large, and the message with its envelope.
    for (bytes, text) in [
        (
            LIMIT + 1,
            "a request of 5001 bytes exceeds the service's limit of 5000 (",
        ),
        (
            LIMIT + 2_000,
            "exceeds the limit of 5000 bytes and 1024 for its envelope (",
        ),
    ] {
        let error = within(of_payload(bytes)).await.expect_err("too large");
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        let message = error.status().message();
        assert!(message.contains(text), "{message}");
        assert!(message.contains("max_decoding_message_size"), "{message}");
    }
}

/// A listener that fails so often at first.
struct Failing {
    errors: usize,
    kind: io::ErrorKind,
    inner: Box<dyn Listener>,
}

impl Listener for Failing {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async {
            if let Some(left) = self.errors.checked_sub(1) {
                self.errors = left;
                return Err(self.kind.into());
            }
            self.inner.accept().await
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.inner.local_addr()
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_connection_does_not_keep_the_next_one_waiting() {
    let cases = [
        (io::ErrorKind::ConnectionAborted, 1_000, Duration::ZERO),
        (io::ErrorKind::OutOfMemory, 4, Duration::from_millis(200)),
    ];
    for (kind, errors, pauses) in cases {
        let network = Network::new();
        let inner = network.listen("node:1").await.expect("nobody listens");
        let listener = Failing {
            errors,
            kind,
            inner,
        };
        let begin = Instant::now();
        let server = echo().with_incoming(listener).expect("legal");
        let server = tokio::spawn(server.serve());
        let all = Configuration::builder().transport(network.clone());
        let all = all.nodes(["node:1"]).connect().expect("legal");
        let call = Client::new(&all).rpc::<_, Number>(&all[0], ECHO, number(1));
        within(call).await.expect("the server is up");
        let waited = begin.elapsed().as_millis();
        assert_eq!(waited, pauses.as_millis(), "{errors} times {kind}");
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_gone_when_the_interval_and_the_timeout_have_passed() {
    let network = Network::new();
    let listener = network.listen("node:1").await.expect("nobody listens");
    let server = echo()
        .stream_timeout(Duration::from_secs(600))
        .keep_alive(Duration::from_secs(60), Duration::from_secs(20));
    let server = server.with_incoming(listener).expect("legal");
    let server = tokio::spawn(server.serve());
    let mut client = network.connect("node:1").await.expect("it listens");
    let begin = Instant::now();
    // The preface of HTTP/2 and empty settings. It answers nothing.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    client.write_all(hello).await.expect("connected");
    let mut told = Vec::new();
    // The connection may end with an error as well.
    let _ = client.read_to_end(&mut told).await;
    assert_eq!(begin.elapsed().as_secs(), 80);
    server.abort();
}
