//! A server that shuts down while handlers run: its clients know at once, and lose nothing that
//! could be saved.

mod common;
#[path = "common/handlers.rs"]
mod handlers;
#[path = "common/memory.rs"]
mod memory;

use std::sync::{Arc, OnceLock};

use common::{Counter, GRACE, Number, Stoppable, number, within};
use gorums::server::Clients;
use gorums::{
    Client, Code, Configuration, Node, NodeState, Outcome, ReplySender, Server, ServerBuilder,
    ServerCtx, Status,
};
use handlers::{HOLD, Handlers, NOTE, WAIT};
use memory::{Network, settle};
use tokio::sync::oneshot;
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
/// Streams so many numbers, each when its caller has room for it.
const STREAM: &str = "test.Test.Stream";

/// Held and other handlers, those among them that echo and stream.
struct All {
    held: Handlers,
    echoed: Counter,
}

impl std::ops::Deref for All {
    type Target = Handlers;

    fn deref(&self) -> &Handlers {
        &self.held
    }
}

impl All {
    fn new() -> Self {
        Self {
            held: Handlers::new(),
            echoed: Counter::new(),
        }
    }

    fn builder(&self) -> ServerBuilder {
        let echoed = self.echoed.clone();
        let builder = Server::builder()
            .unary(ECHO, move |_ctx, request: Number| {
                echoed.add();
                std::future::ready(Ok::<_, Status>(request))
            })
            .streaming(
                STREAM,
                |_ctx, request: Number, replies: ReplySender<Number>| async move {
                    for value in 0..request.value {
                        let payload = vec![0; 1_000].into();
                        replies.send(Number { value, payload }).await?;
                    }
                    Ok::<_, Status>(())
                },
            );
        self.held.add_to(builder)
    }
}

fn rpc(
    client: &Client,
    node: &Node,
    method: &'static str,
    value: u64,
) -> gorums::call::Unary<Number> {
    client.rpc(node, method, number(value)).send()
}

/// Waits until the node is known to have gone, or to go away.
async fn is_away(node: &Node) {
    within(async {
        while node.state() == NodeState::Connected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn calls_made_while_a_server_shuts_down_are_not_sent_at_once() {
    for released in [1, 2] {
        let handlers = All::new();
        let server = Stoppable::start(handlers.builder(), "127.0.0.1:0").await;
        let all = Configuration::builder().nodes([&server.address]).connect();
        let all = all.expect("legal");
        let (client, node) = (Client::new(&all), &all[0]);
        within(rpc(&client, node, ECHO, 1)).await.expect("up");
        let mut held = rpc(&client, node, HOLD, released);
        handlers.started.reached(1).await;
        let serving = server.stop();
        is_away(node).await;
        assert!(node.last_error().is_some());

        let notes: Vec<_> = (0..100)
            .map(|value| client.unicast(node, NOTE, number(value)).send())
            .collect();
        for note in notes {
            let error = within(note).await.expect_err("nobody takes it");
            assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        }
        let error = within(rpc(&client, node, ECHO, 2)).await.expect_err("away");
        assert_eq!(
            (error.outcome(), error.code()),
            (Outcome::NotSent, Code::Unavailable),
            "{error}"
        );
        let call = client.quorum_call::<_, Number>(ECHO, number(3));
        let error = within(call.majority()).await.expect_err("away");
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        // All of this while the handler goes on.
        assert!(now(&mut held).await.is_none());
        assert_eq!(node.pending(), 1);
        handlers.gate.add_permits(1);
        let reply = within(held).await.expect("it was taken");
        assert_eq!(reply.value, released);
        within(serving).await.expect("no panic");
        assert_eq!((handlers.noted.get(), handlers.echoed.get()), (0, 1));
        assert_eq!(node.pending(), 0);
    }
}

/// What a call has come to, if it has ended.
async fn now<F: Future + Unpin>(call: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        ended = call => Some(ended),
        () = std::future::ready(()) => None,
    }
}

/// Every message that was handed over is handled, and no other one.
#[tokio::test]
async fn messages_that_race_a_shutdown_are_handled_or_not_sent() {
    let handlers = All::new();
    let server = Stoppable::start(handlers.builder(), "127.0.0.1:0").await;
    let all = Configuration::builder().nodes([&server.address]).connect();
    let all = all.expect("legal");
    let (client, node) = (Client::new(&all), all[0].clone());
    within(rpc(&client, &node, ECHO, 0)).await.expect("up");
    let caller = tokio::spawn(async move {
        let (mut handed_over, mut answered) = (0, 0);
        loop {
            let notes: Vec<_> = (0..50)
                .map(|value| client.unicast(&node, NOTE, number(value)).send())
                .collect();
            let call = rpc(&client, &node, ECHO, 1);
            let mut was_refused = false;
            for note in notes {
                match within(note).await {
                    Ok(()) => handed_over += 1,
                    Err(error) => {
                        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
                        was_refused = true;
                    }
                }
            }
            match within(call).await {
                Ok(_) => answered += 1,
                Err(error) => assert_eq!(error.outcome(), Outcome::NotSent, "{error}"),
            }
            if was_refused {
                return (handed_over, answered);
            }
        }
    });
    handlers.noted.reached(500).await;
    let serving = server.stop();
    let (handed_over, answered) = within(caller).await.expect("no panic");
    within(serving).await.expect("no panic");
    assert_eq!(handlers.noted.get(), handed_over);
    assert_eq!(handlers.echoed.get(), 1 + answered);
}

/// A handler that waits for a client which never comes is told that none will.
#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_clients_does_not_hold_up_a_shutdown() {
    let network = Network::new();
    let (clients, started) = (Arc::new(OnceLock::<Clients>::new()), Counter::new());
    let builder = {
        let (clients, started) = (Arc::clone(&clients), started.clone());
        Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
            let (clients, started) = (Arc::clone(&clients), started.clone());
            async move {
                ctx.release();
                let clients = clients.get().expect("the server has started");
                let now = clients.wait_for(|now| now.len() == 1).await;
                assert_eq!(now.expect("one is there").len(), 1);
                started.add();
                let more = clients.wait_for(|now| now.len() > 1).await;
                let stopped = more.expect_err("there is one client");
                // Who is there is known all the same.
                let now = clients.wait_for(|now| now.len() == 1).await;
                assert_eq!(now.expect("it has not left").len(), 1);
                assert_eq!(request.value, 1);
                Err::<Number, _>(Status::unavailable(stopped.to_string()))
            }
        })
    };
    let server = builder.transport(network.clone()).bind("node:1").await;
    let server = server.expect("a network in memory");
    assert!(clients.set(server.clients()).is_ok());
    let (stop, asked) = oneshot::channel::<()>();
    let signal = async move { asked.await.expect("it is told") };
    let serving = tokio::spawn(server.serve_with_shutdown(signal, GRACE));
    let all = Configuration::builder()
        .transport(network.clone())
        .nodes(["node:1"])
        .serve(Server::builder())
        .connect()
        .expect("legal");
    within(all.connected(1)).await.expect("it is up");
    let client = Client::new(&all);
    let call = rpc(&client, &all[0], ECHO, 1);
    started.reached(1).await;
    let began = Instant::now();
    stop.send(()).expect("it serves");
    let error = within(call).await.expect_err("none has come");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.to_string().contains("shuts down"), "{error}");
    within(serving).await.expect("no panic");
    assert!(began.elapsed() < GRACE / 2, "{:?}", began.elapsed());
}

/// Three replicas are restarted in turn, under their addresses, while each has a handler that runs
/// long. The next process listens as soon as the one before has begun to shut down.
#[tokio::test(start_paused = true)]
async fn a_rolling_restart_loses_no_call_that_could_be_saved() {
    let network = Network::new();
    let address = |id: u32| format!("node:{id}");
    let handlers = All::new();
    let start = || handlers.builder().transport(network.clone());
    let mut servers = Vec::new();
    let mut builder = Configuration::builder().transport(network.clone());
    for id in 1..=3 {
        servers.push(Some(Stoppable::start(start(), &address(id)).await));
        builder = builder.node(id, address(id));
    }
    let all = builder.connect().expect("legal");
    within(all.connected(3)).await.expect("all are up");
    let client = Client::new(&all);
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (background, calls) = (client.clone(), Counter::new());
    let (nodes, counted) = (all.clone(), calls.clone());
    // What is not sent is tried again, and nothing else.
    let caller = tokio::spawn(async move {
        let mut repeated = 0_u64;
        while stopped.try_recv().is_err() {
            let call = background.quorum_call::<_, Number>(ECHO, number(1));
            call.majority().await.expect("two of three are up");
            for node in &nodes {
                while let Err(error) = rpc(&background, node, ECHO, 2).await {
                    assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
                    repeated += 1;
                    tokio::task::yield_now().await;
                }
            }
            counted.add();
        }
        repeated
    });
    for (index, server) in servers.iter_mut().enumerate() {
        let node = &all[index];
        let before = handlers.started.get();
        let mut held = rpc(&client, node, HOLD, 1);
        handlers.started.reached(before + 1).await;
        let old = server.take().expect("not stopped yet");
        let serving = old.stop();
        is_away(node).await;
        *server = Some(Stoppable::start(start(), &address(index as u32 + 1)).await);
        // The node is called again over another connection, beside the one that winds down.
        within(all.connected(3)).await.expect("all are up");
        let count = calls.get();
        calls.reached(count + 10).await;
        assert!(now(&mut held).await.is_none());
        handlers.gate.add_permits(1);
        let reply = within(held).await.expect("the old process answers");
        assert_eq!(reply.value, 1);
        within(serving).await.expect("no panic");
    }
    stop.send(()).expect("it calls");
    within(caller).await.expect("no call is lost");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_hears_of_credit_and_of_callers_that_give_up() {
    const NODE: &str = "node:1";
    let network = Network::new();
    let handlers = All::new();
    let start = || handlers.builder().transport(network.clone());
    let server = Stoppable::start(start(), NODE).await;
    let builder = Configuration::builder().node(1, NODE);
    let all = builder.transport(network.clone()).connect().expect("legal");
    let (client, node) = (Client::new(&all), &all[0]);
    let waiting = rpc(&client, node, WAIT, 1);
    handlers.started.reached(1).await;
    // More than a caller has room for.
    let count = 3_000;
    let call = client.streamed_quorum_call::<_, Number>(STREAM, number(count));
    let mut responses = call.responses();
    within(responses.next()).await.expect("it has begun");
    let serving = server.stop();
    is_away(node).await;
    // What follows is for the connection that winds down, and not for the next one.
    let _next = Stoppable::start(start(), NODE).await;
    within(all.connected(1)).await.expect("all are up");
    for value in 1..count {
        let response = within(responses.next()).await.expect("it goes on");
        assert_eq!(response.into_result().expect("a reply").value, value);
    }
    assert!(within(responses.next()).await.is_none());
    drop(waiting);
    handlers.gone.reached(1).await;
    within(serving).await.expect("no panic");
    within(rpc(&client, node, ECHO, 1)).await.expect("the next");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_while_it_winds_down_takes_its_own_calls_with_it() {
    const NODE: &str = "node:1";
    let network = Network::new();
    let handlers = All::new();
    let start = || handlers.builder().transport(network.clone());
    let server = Stoppable::start(start(), NODE).await;
    let builder = Configuration::builder().node(1, NODE);
    let all = builder.transport(network.clone()).connect().expect("legal");
    let (client, node) = (Client::new(&all), &all[0]);
    let old = rpc(&client, node, HOLD, 1);
    handlers.started.reached(1).await;
    let serving = server.stop();
    is_away(node).await;
    let next = Stoppable::start(start(), NODE).await;
    within(all.connected(1)).await.expect("all are up");
    let new = rpc(&client, node, HOLD, 1);
    handlers.started.reached(2).await;
    // The old process dies.
    serving.abort();
    let error = within(old).await.expect_err("its connection broke");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(node.pending(), 1);
    handlers.gate.add_permits(2);
    assert_eq!(within(new).await.expect("another connection").value, 1);
    // And the other way round.
    let old = rpc(&client, node, HOLD, 3);
    handlers.started.reached(3).await;
    let serving = next.stop();
    is_away(node).await;
    let next = Stoppable::start(start(), NODE).await;
    within(all.connected(1)).await.expect("all are up");
    let new = rpc(&client, node, WAIT, 1);
    handlers.started.reached(4).await;
    next.serving.abort();
    let error = within(new).await.expect_err("its connection broke");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    handlers.gate.add_permits(1);
    assert_eq!(within(old).await.expect("answered").value, 3);
    within(serving).await.expect("no panic");
    settle().await;
    assert_eq!(node.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_meanwhile_leaves_nothing_behind() {
    const NODE: &str = "node:1";
    let network = Network::new();
    let handlers = All::new();
    let server = Stoppable::start(handlers.builder().transport(network.clone()), NODE).await;
    let builder = Configuration::builder().node(1, NODE);
    let all = builder.transport(network.clone()).connect().expect("legal");
    let waiting = rpc(&Client::new(&all), &all[0], WAIT, 1);
    handlers.started.reached(1).await;
    let serving = server.stop();
    is_away(&all[0]).await;
    drop((waiting, all));
    // It is told that nobody waits, or that its client has gone.
    handlers.gone.reached(1).await;
    within(serving).await.expect("no panic");
}
