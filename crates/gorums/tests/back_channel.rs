//! Servers that call their clients, over the connections that the clients made.

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{Counter, Number, TestServer, echo, number, within};
use gorums::bounds::Bound;
use gorums::runtime::{BoxFuture, Clock, SystemClock};
use gorums::server::Clients;
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, NodeId, Outcome, QuorumErrorKind, Server,
    ServerBuilder, ServerCtx, Status, testing,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
/// Has the server ask all its clients to echo.
const ASK: &str = "test.Test.Ask";

/// A server whose clients can be looked at.
struct Called {
    address: String,
    clients: Clients,
    task: JoinHandle<()>,
}

impl Drop for Called {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Called {
    async fn start(builder: ServerBuilder) -> Self {
        let server = builder.bind("127.0.0.1:0").await.expect("a free port");
        Self {
            address: server.local_addr().to_string(),
            clients: server.clients(),
            task: tokio::spawn(server.serve()),
        }
    }

    fn client(&self) -> ConfigurationBuilder {
        Configuration::builder().nodes([&self.address])
    }

    async fn has(&self, count: usize) -> Configuration {
        let clients = self.clients.wait_for(|clients| clients.len() == count);
        within(clients).await.expect("it serves")
    }
}

fn call(clients: &Configuration, value: u64) -> gorums::call::QuorumCall<Number, Number> {
    Client::new(clients).quorum_call(ECHO, number(value))
}

fn ids(configuration: &Configuration) -> Vec<u32> {
    configuration.ids().map(NodeId::get).collect()
}

#[tokio::test]
async fn a_server_calls_its_clients_which_have_ids_from_2_to_the_20() {
    let server = Called::start(echo()).await;
    assert!(server.clients.config().is_empty());
    let clients: Vec<_> = (0..3)
        .map(|_| server.client().serve(echo()).connect().expect("legal"))
        .collect();
    let config = server.has(3).await;
    assert_eq!(ids(&config), [1 << 20, (1 << 20) + 1, (1 << 20) + 2]);
    for value in 0..100 {
        let replies = within(call(&config, value).all().replies())
            .await
            .expect("all");
        assert_eq!(
            replies
                .values()
                .filter(|reply| reply.value == value)
                .count(),
            3
        );
    }
    // Forward calls go on beside them.
    for client in &clients {
        let reply = within(call(client, 7).majority()).await.expect("it serves");
        assert_eq!(reply.value, 7);
    }
    assert!(
        config
            .iter()
            .all(|node| node.pending() == 0 && node.latency().is_some())
    );
    // Ids are not used again.
    drop(clients);
    server.has(0).await;
    let _client = server.client().serve(echo()).connect().expect("legal");
    assert_eq!(ids(&server.has(1).await), [(1 << 20) + 3]);
}

#[tokio::test]
async fn a_client_without_handlers_is_no_client_to_call() {
    let server = Called::start(echo()).await;
    let plain = server.client().connect().expect("legal");
    within(call(&plain, 1).all()).await.expect("connected");
    assert!(server.clients.config().is_empty());
    let error = within(call(&server.clients.config(), 1).all())
        .await
        .expect_err("nobody");
    assert_eq!(error.kind(), QuorumErrorKind::Impossible);
}

#[tokio::test]
async fn a_method_without_a_handler_is_unimplemented_and_an_error_comes_back_whole() {
    let detail = || prost_types::Any {
        type_url: "type.example/detail".into(),
        value: vec![1, 2, 3],
    };
    let server = Called::start(echo()).await;
    let handlers = Server::builder().unary(ECHO, move |ctx: ServerCtx, _: Number| async move {
        let key = ctx.metadata().get("key").unwrap_or("none").to_owned();
        Err::<Number, _>(Status::not_found(key).with_details([detail()]))
    });
    let _client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let error =
        within(Client::new(&config).rpc::<Number, Number>(&config[0], "test.Test.No", number(1)))
            .await
            .expect_err("no such method");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unimplemented, Outcome::Refused)
    );
    let rpc = Client::new(&config).rpc::<Number, Number>(&config[0], ECHO, number(1));
    let error = within(rpc.metadata("key", "value"))
        .await
        .expect_err("it fails");
    assert_eq!(
        (error.code(), error.status().message()),
        (Code::NotFound, "value")
    );
    assert_eq!(error.status().details(), [detail()]);
}

/// Each client's requests start in order, and hold a turn.
#[tokio::test]
async fn calls_of_a_server_start_in_order_and_release_lets_the_next_one_start() {
    let server = Called::start(echo()).await;
    let (seen, gate) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Semaphore::new(0)),
    );
    let release = Arc::new(AtomicBool::new(false));
    let started = Counter::new();
    let handlers = {
        let (seen, gate, release) = (Arc::clone(&seen), Arc::clone(&gate), Arc::clone(&release));
        let started = started.clone();
        Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
            let (seen, gate, release) =
                (Arc::clone(&seen), Arc::clone(&gate), Arc::clone(&release));
            let started = started.clone();
            async move {
                seen.lock().expect("not poisoned").push(request.value);
                started.add();
                if release.load(Ordering::SeqCst) {
                    ctx.release();
                }
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        })
    };
    let _client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let calls: Vec<_> = (0..50).map(|value| call(&config, value).all()).collect();
    for (value, call) in calls.into_iter().enumerate() {
        started.reached(value as u64 + 1).await;
        assert_eq!(started.get(), value as u64 + 1, "one turn");
        gate.add_permits(1);
        assert_eq!(within(call).await.expect("answered").value, value as u64);
    }
    release.store(true, Ordering::SeqCst);
    let calls: Vec<_> = (50..100).map(|value| call(&config, value).all()).collect();
    started.reached(100).await;
    gate.add_permits(50);
    for call in calls {
        within(call).await.expect("answered");
    }
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        (0..100).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn one_way_messages_of_a_server_arrive_in_order_with_its_other_calls() {
    let server = Called::start(echo()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handlers = echo().one_way(NOTE, move |_ctx, request: Number| {
        log.lock().expect("not poisoned").push(request.value);
        async {}
    });
    let _client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    for value in 0..200 {
        Client::new(&config).multicast(NOTE, number(value)).detach();
    }
    within(call(&config, 1).all()).await.expect("answered");
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        (0..200).collect::<Vec<_>>()
    );
    within(Client::new(&config).multicast(NOTE, number(200)))
        .await
        .expect("handed over");
    within(config.flush()).await;
}

#[tokio::test]
async fn a_client_that_serves_counts_the_bounds_of_its_handlers() {
    let server = Called::start(echo()).await;
    let handlers = echo().max_encoding_message_size(1);
    let client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let error = within(call(&config, 1).all()).await.expect_err("too large");
    assert_eq!(error.failures()[0].code(), Code::ResourceExhausted);
    assert_eq!(client.reached().count(Bound::ReplySent), 1);
}

#[tokio::test]
async fn a_client_that_leaves_fails_its_part_at_once() {
    let server = Called::start(echo()).await;
    let started = Counter::new();
    let begun = started.clone();
    let handlers = Server::builder().unary(ECHO, move |_ctx: ServerCtx, _: Number| {
        begun.add();
        pending::<Result<Number, Status>>()
    });
    let leaving = server.client().serve(handlers).connect().expect("legal");
    server.has(1).await;
    let _staying = server.client().serve(echo()).connect().expect("legal");
    let config = server.has(2).await;
    let waiting = call(&config, 1).all();
    started.reached(1).await;
    drop(leaving);
    let error = within(waiting).await.expect_err("one has left");
    assert_eq!(error.failures().len(), 1);
    assert_eq!(error.failures()[0].outcome(), Outcome::Unknown);
    assert_eq!(
        error.failures()[0].status().message(),
        "the client has left"
    );
    // The configuration that was taken before still has it, and the others answer.
    let error = within(call(&config, 2).all())
        .await
        .expect_err("one has left");
    assert_eq!(error.failures()[0].outcome(), Outcome::NotSent);
    assert_eq!(
        within(call(&config, 3).first())
            .await
            .expect("one is here")
            .value,
        3
    );
    assert_eq!(server.has(1).await.len(), 1);
}

/// Replies never wait for a handler, on either side.
#[tokio::test]
async fn a_handler_calls_back_to_its_own_client_with_and_without_release() {
    handlers_call_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_calls_back_to_its_own_client_on_two_workers() {
    handlers_call_back().await;
}

async fn handlers_call_back() {
    for release in [false, true] {
        let server = Called::start(echo().unary(
            ASK,
            move |ctx: ServerCtx, request: Number| async move {
                if release {
                    ctx.release();
                }
                let all = ctx.client_config();
                let me = ctx.peer_id().expect("it can be called");
                let own = all.select([me]).expect("it is connected");
                let reply = call(&own, request.value).all().await?;
                let replies = call(&all, request.value).all().replies().await?;
                Ok::<_, Status>(number(reply.value * 10 + replies.len() as u64))
            },
        ))
        .await;
        let clients: Vec<_> = (0..3)
            .map(|_| server.client().serve(echo()).connect().expect("legal"))
            .collect();
        server.has(3).await;
        for _ in 0..100 {
            let asks: Vec<_> = clients
                .iter()
                .map(|client| {
                    let client = Client::new(client);
                    client.quorum_call::<Number, Number>(ASK, number(4)).all()
                })
                .collect();
            for ask in asks {
                assert_eq!(within(ask).await.expect("answered").value, 43);
            }
        }
    }
}

/// The handler that answers a server's call calls that server again.
#[tokio::test]
async fn a_call_back_may_call_forward_again() {
    let server = Called::start(
        echo().unary(ASK, |ctx: ServerCtx, request: Number| async move {
            let reply = call(&ctx.client_config(), request.value).all().await?;
            Ok::<_, Status>(reply)
        }),
    )
    .await;
    let own = Arc::new(Mutex::new(None::<Configuration>));
    let inner = Arc::clone(&own);
    let handlers = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        let server = inner
            .lock()
            .expect("not poisoned")
            .clone()
            .expect("set below");
        async move {
            assert_eq!(ctx.peer_id(), Some(NodeId::from(1)), "the node that calls");
            // The server's handler holds its turn while it waits for this one, so that another
            // connection's turn is needed there.
            let reply = call(&server, request.value + 1).all().await?;
            Ok::<_, Status>(reply)
        }
    });
    let second = server.client().connect().expect("legal");
    *own.lock().expect("not poisoned") = Some(second);
    let client = server.client().serve(handlers).connect().expect("legal");
    server.has(1).await;
    let ask = Client::new(&client)
        .quorum_call::<Number, Number>(ASK, number(4))
        .all();
    assert_eq!(within(ask).await.expect("answered").value, 5);
    own.lock().expect("not poisoned").take();
}

#[tokio::test]
async fn a_call_that_is_given_up_is_told_to_the_handler_of_the_client() {
    let server = Called::start(echo()).await;
    let (started, cancelled) = (Counter::new(), Counter::new());
    let (begun, told) = (started.clone(), cancelled.clone());
    let handlers = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        let (begun, told) = (begun.clone(), told.clone());
        async move {
            begun.add();
            ctx.cancelled().await;
            told.add();
            Ok::<_, Status>(request)
        }
    });
    let _client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let waiting = call(&config, 1).all();
    started.reached(1).await;
    drop(waiting);
    cancelled.reached(1).await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_waited_for_until_the_deadline_and_others_answer() {
    let server = Called::start(echo()).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let handlers = Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.expect("open").forget();
            Ok::<_, Status>(request)
        }
    });
    let _silent = server.client().serve(handlers).connect().expect("legal");
    server.has(1).await;
    let _quick = server.client().serve(echo()).connect().expect("legal");
    let config = server.has(2).await;
    let all = call(&config, 1).timeout(Duration::from_millis(1)).all();
    let error = within(all).await.expect_err("one does not answer");
    let silent = error.failure(config[0].id()).expect("it is the first");
    assert_eq!(silent.code(), Code::DeadlineExceeded);
    let first = within(call(&config, 2).first()).await;
    assert_eq!(first.expect("the other one answers").value, 2);
    // What it answers to late is nobody's.
    gate.add_permits(3);
    let replies = within(call(&config, 3).all().replies()).await;
    let replies = replies.expect("both answer");
    assert!(replies.values().all(|reply| reply.value == 3));
    assert!(config.iter().all(|node| node.pending() == 0));
}

#[tokio::test]
async fn streamed_replies_come_back_and_end() {
    let server = Called::start(echo()).await;
    let handlers = Server::builder().streaming(
        "test.Test.Count",
        |_ctx: ServerCtx, request: Number, replies: gorums::ReplySender<Number>| async move {
            for value in 0..request.value {
                replies.send(number(value)).await?;
            }
            Ok(())
        },
    );
    let _client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let call =
        Client::new(&config).streamed_quorum_call::<Number, Number>("test.Test.Count", number(5));
    let mut responses = call.responses();
    let mut values = Vec::new();
    while let Some(response) = within(responses.next()).await {
        values.push(response.into_result().expect("it counts").value);
    }
    assert_eq!(values, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_claimed_id_is_believed_only_where_the_server_was_told_to() {
    let peers = Configuration::builder()
        .nodes(["127.0.0.1:1", "127.0.0.1:2"])
        .connect()
        .expect("legal");
    let who = |trust| {
        echo().peers(1, &peers).trust_claimed_ids(trust).unary(
            "test.Test.Who",
            |ctx: ServerCtx, _: Number| async move {
                let id = ctx.peer_id().map_or(0, NodeId::get);
                Ok::<_, Status>(number(u64::from(id)))
            },
        )
    };
    // Whom the client claims to be, whom the server takes it for, and whether it can be called.
    for (trust, claim, peer_id, callable) in [
        (false, 2, 0, false),
        (false, 7, 0, false),
        (true, 2, 2, false),
        (true, 7, 7, true),
        (true, 1, 0, false),
        (true, 1 << 20, 0, false),
        (true, u32::MAX, 0, false),
    ] {
        let server = Called::start(who(trust)).await;
        // A process that is a node of that id of its own system.
        let own = Configuration::builder()
            .node(claim, "127.0.0.1:1")
            .node(claim / 2 + 100, &server.address)
            .allow_other_ids(true)
            .connect()
            .expect("legal");
        let _serving = TestServer::start(echo().peers(claim, &own)).await;
        let node = own.node(claim / 2 + 100).expect("named above");
        let call = Client::new(node).rpc::<Number, Number>(node, "test.Test.Who", number(0));
        let seen = within(call).await.expect("answered").value;
        assert_eq!(seen, peer_id, "{trust} {claim}");
        let known: Vec<_> = ids(&server.clients.config());
        assert_eq!(
            known,
            if callable { vec![claim] } else { vec![] },
            "{trust} {claim}"
        );
        if callable {
            let clients = server.clients.config();
            assert_eq!(
                within(self::call(&clients, 9).all())
                    .await
                    .expect("served")
                    .value,
                9
            );
        }
    }
}

#[tokio::test]
async fn a_second_connection_of_a_trusted_id_takes_the_place_of_the_first() {
    let server = Called::start(echo().trust_claimed_ids(true)).await;
    let claimant = |value: u64| {
        let own = Configuration::builder()
            .node(5, "127.0.0.1:1")
            .node(6, &server.address)
            .connect()
            .expect("legal");
        let handlers = Server::builder()
            .unary(ECHO, move |_ctx: ServerCtx, _: Number| async move {
                Ok::<_, Status>(number(value))
            });
        (own.clone(), handlers.peers(5, &own))
    };
    let (first, handlers) = claimant(1);
    let _serving = TestServer::start(handlers).await;
    let before = server.has(1).await;
    assert_eq!(
        within(call(&before, 0).all()).await.expect("served").value,
        1
    );
    let (second, handlers) = claimant(2);
    let _also = TestServer::start(handlers).await;
    let after = server.clients.wait_for(|clients| *clients != before);
    let after = within(after).await.expect("it serves");
    assert_eq!(ids(&after), [5]);
    assert_eq!(
        within(call(&after, 0).all()).await.expect("served").value,
        2
    );
    // The first is still called where it is held, and its end does not take the second away.
    assert_eq!(
        within(call(&before, 0).all()).await.expect("served").value,
        1
    );
    drop((first, _serving));
    let gone = async { while call(&before, 0).all().await.is_ok() {} };
    within(gone).await;
    assert_eq!(server.clients.config(), after);
    drop(second);
}

#[tokio::test]
async fn waiting_for_clients_ends_with_the_server_and_changes_are_not_missed() {
    let server = Called::start(echo()).await;
    let clients = server.clients.clone();
    let mut changes = clients.watch();
    assert_eq!(
        changes.next().await.map(|now| now.len()),
        Some(0),
        "at once"
    );
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let clients = clients.clone();
            tokio::spawn(async move { clients.wait_for(|now| now.len() == 2).await })
        })
        .collect();
    let never = {
        let clients = clients.clone();
        tokio::spawn(async move { clients.wait_for(|_| false).await })
    };
    let first = server.client().serve(echo()).connect().expect("legal");
    assert_eq!(within(changes.next()).await.map(|now| now.len()), Some(1));
    let second = server.client().serve(echo()).connect().expect("legal");
    for waiter in waiters {
        let met = within(waiter).await.expect("no panic").expect("it serves");
        assert_eq!(met.len(), 2);
    }
    drop((first, second));
    server.has(0).await;
    // Both left since it was asked last.
    assert_eq!(within(changes.next()).await.map(|now| now.len()), Some(0));
    drop(server);
    let stopped = within(never)
        .await
        .expect("no panic")
        .expect_err("it has stopped");
    assert_eq!(stopped.to_string(), "the server shuts down or has stopped");
    assert_eq!(within(changes.next()).await, None);
}

/// A client whose handlers do nothing holds up neither its own calls nor its replies.
#[tokio::test]
async fn a_flood_of_calls_to_a_blocked_client_costs_nobody_a_reply() {
    flood_a_blocked_client().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_to_a_blocked_client_costs_nobody_a_reply_on_two_workers() {
    flood_a_blocked_client().await;
}

async fn flood_a_blocked_client() {
    let server = Called::start(echo()).await;
    let gate = Arc::new(Semaphore::new(0));
    let noted = Counter::new();
    let (held, notes) = (Arc::clone(&gate), noted.clone());
    let handlers =
        Server::builder()
            .max_waiting_bytes(64 * 1024)
            .one_way(NOTE, move |_ctx, _: Number| {
                let (held, notes) = (Arc::clone(&held), notes.clone());
                async move {
                    held.acquire().await.expect("open").forget();
                    notes.add();
                }
            });
    let client = server.client().serve(handlers).connect().expect("legal");
    let config = server.has(1).await;
    let mut sent = 0;
    // Until the client reads no more, and the outbox is full.
    let mut large = number(0);
    large.payload = vec![0; 16 * 1024].into();
    while Client::new(&config)
        .multicast(NOTE, large.clone())
        .detach()
        .is_empty()
    {
        sent += 1;
        if sent % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    gate.add_permits(sent);
    noted.reached(sent as u64).await;
    for value in 0..100 {
        within(call(&client, value).all()).await.expect("answered");
    }
    assert_eq!(
        server.clients.config(),
        config,
        "the connection is the same"
    );
}

#[tokio::test]
async fn a_client_floods_a_server_whose_handler_calls_it_back() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let noted = Counter::new();
    let notes = noted.clone();
    let server = Called::start(
        Server::builder()
            .max_waiting_bytes(64 * 1024)
            .one_way(NOTE, move |_ctx, _: Number| {
                let notes = notes.clone();
                async move {
                    notes.add();
                }
            })
            .unary(ASK, move |ctx: ServerCtx, request: Number| {
                let held = Arc::clone(&held);
                async move {
                    held.acquire().await.expect("open").forget();
                    Ok::<_, Status>(call(&ctx.client_config(), request.value).all().await?)
                }
            }),
    )
    .await;
    let client = server.client().serve(echo()).connect().expect("legal");
    server.has(1).await;
    let ask = Client::new(&client)
        .quorum_call::<Number, Number>(ASK, number(3))
        .all();
    // More than the server reads while the handler holds its turn.
    let mut large = number(0);
    large.payload = vec![0; 1024].into();
    for _ in 0..128 {
        assert!(
            Client::new(&client)
                .multicast(NOTE, large.clone())
                .detach()
                .is_empty()
        );
    }
    within(client.flush()).await;
    gate.add_permits(1);
    assert_eq!(within(ask).await.expect("the reply is read").value, 3);
    noted.reached(128).await;
}

#[tokio::test]
async fn a_client_calls_nobody_back_once_its_handlers_contradict_each_other() {
    let error = Configuration::builder()
        .nodes(["127.0.0.1:1"])
        .serve(echo().unary(ECHO, |_ctx, request: Number| async move {
            Ok::<_, Status>(request)
        }))
        .connect()
        .expect_err("the method is there twice");
    assert!(error.to_string().contains("test.Test.Echo"), "{error}");
}

/// A client that is called and has its server restarted is called again.
#[tokio::test]
async fn clients_are_found_again_when_a_server_restarts() {
    let server = Called::start(echo()).await;
    let client = server.client().serve(echo()).connect().expect("legal");
    server.has(1).await;
    let address = server.address.clone();
    server.task.abort();
    let stopped = server.clients.wait_for(|_| false);
    assert!(within(stopped).await.is_err());
    let again = loop {
        match echo().bind(&address).await {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let clients = again.clients();
    let _serving = tokio::spawn(again.serve());
    let calls = within(clients.wait_for(|clients| clients.len() == 1))
        .await
        .expect("it serves");
    assert_eq!(
        within(call(&calls, 5).all()).await.expect("answered").value,
        5
    );
    drop(client);
}

/// The clock of the system, but for its numbers, by which it can be told from others.
#[derive(Debug)]
struct Known(u64);

impl Clock for Known {
    fn now(&self) -> tokio::time::Instant {
        SystemClock.now()
    }

    fn sleep_until(&self, at: tokio::time::Instant) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(at)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemClock.wall_clock()
    }

    fn random(&self) -> u64 {
        self.0
    }
}

#[tokio::test]
async fn handlers_have_the_clock_of_their_server_or_of_the_client_that_serves() {
    let draws = |clock: u64| {
        Server::builder()
            .clock(Known(clock))
            .unary(ECHO, |ctx: ServerCtx, _: Number| async move {
                Ok::<_, Status>(number(ctx.clock().random()))
            })
    };
    let server = Called::start(draws(1)).await;
    let client = server.client().serve(draws(2)).connect().expect("legal");
    let clients = server.has(1).await;
    let asked = within(call(&client, 0).all()).await.expect("it serves");
    let asked_back = within(call(&clients, 0).all()).await.expect("it serves");
    assert_eq!((asked.value, asked_back.value), (1, 2));
    // The node of the process itself is served without a connection of its own.
    let mut peers = testing::peers(1, |_, _| draws(3)).await.expect("a port");
    let peer = peers.remove(0);
    tokio::spawn(peer.server.serve());
    let own = within(call(&peer.configuration, 0).all()).await;
    assert_eq!(own.expect("it serves").value, 3);
    // Without a server it is the system's.
    let before = SystemTime::now();
    assert!(testing::server_ctx().clock().wall_clock() >= before);
}
