//! Connections that end at an age: everybody connects again, and no call fails.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Counter, Number, Stoppable, TestServer, number, within};
use gorums::membership::WhileDisconnected;
use gorums::runtime::Transport;
use gorums::{
    Client, Code, Configuration, Outcome, ReplySender, Server, ServerBuilder, ServerCtx, Status,
};
use memory::{Network, settle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
/// Streams so many numbers.
const STREAM: &str = "test.Test.Stream";
/// Is answered when the test says so.
const HOLD: &str = "test.Test.Hold";

/// The shortest that there is.
const AGE: Duration = Duration::from_secs(1);
/// How long a handler takes.
const WORK: Duration = Duration::from_millis(50);
/// How long tests call.
const LOAD: Duration = Duration::from_secs(5);

fn address(id: u32) -> String {
    format!("node-{id}:1")
}

/// Echoes after a while.
async fn echo_late(ctx: ServerCtx, request: Number) -> Result<Number, Status> {
    ctx.release();
    tokio::time::sleep(WORK).await;
    Ok(request)
}

fn service(noted: &Counter) -> ServerBuilder {
    let noted = noted.clone();
    Server::builder()
        .unary(ECHO, echo_late)
        .one_way(NOTE, move |_ctx, _: Number| {
            noted.add();
            std::future::ready(())
        })
        .streaming(
            STREAM,
            |ctx: ServerCtx, request: Number, replies: ReplySender<Number>| async move {
                ctx.release();
                for value in 0..request.value {
                    tokio::time::sleep(WORK).await;
                    // So large that the caller has to give credit again and again.
                    let payload = vec![0; 40_000].into();
                    replies.send(Number { value, payload }).await?;
                }
                Ok::<_, Status>(())
            },
        )
        .max_connection_age(AGE)
}

/// Three replicas, which end connections all the time.
async fn replicas(network: &Network, noted: &Counter) -> Vec<TestServer> {
    let mut servers = Vec::new();
    for id in 1..=3 {
        let server = service(noted).transport(network.clone());
        servers.push(TestServer::start_at(server, &address(id)).await);
    }
    servers
}

fn nodes(network: &Network) -> gorums::ConfigurationBuilder {
    (1..=3)
        .fold(Configuration::builder(), |builder, id| {
            builder.node(id, address(id))
        })
        .transport(network.clone())
}

/// A handler that releases its turn, and answers when the test says so.
fn holding(gate: &Arc<Semaphore>, started: &Counter) -> ServerBuilder {
    let (gate, started) = (Arc::clone(gate), started.clone());
    Server::builder().unary(HOLD, move |ctx: ServerCtx, request: Number| {
        let (gate, started) = (Arc::clone(&gate), started.clone());
        async move {
            ctx.release();
            started.add();
            gate.acquire().await.expect("open").forget();
            Ok::<_, Status>(request)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn connections_are_renewed_with_a_hundred_calls_in_flight_and_none_fails() {
    let network = Network::new();
    let noted = Counter::new();
    let _servers = replicas(&network, &noted).await;
    let all = nodes(&network).connect().expect("legal");
    within(all.connected(3)).await.expect("all are up");
    let client = Client::new(&all);
    let until = Instant::now() + LOAD;
    let mut callers = JoinSet::new();
    for caller in 0..100_u64 {
        let (client, all) = (client.clone(), all.clone());
        callers.spawn(async move {
            let mut sent = 0;
            while Instant::now() < until {
                match caller % 20 {
                    0..10 => {
                        let call = client.quorum_call::<_, Number>(ECHO, number(caller));
                        let replies = call.all().replies().await.expect("no call fails");
                        assert_eq!(replies.len(), 3);
                    }
                    10..14 => {
                        for node in &all {
                            let call = client.rpc::<_, Number>(node, ECHO, number(caller));
                            call.await.expect("no call fails");
                        }
                    }
                    14..18 => {
                        let call = client.rpc::<_, Number>(&all[0], ECHO, number(caller));
                        call.await.expect("no call fails");
                        let note = client.unicast(&all[1], NOTE, number(caller)).send();
                        note.await.expect("no message is lost");
                        sent += 1;
                    }
                    _ => {
                        let call = client.streamed_quorum_call::<_, Number>(STREAM, number(10));
                        let mut replies = call.responses();
                        let mut count = 0;
                        while let Some(reply) = replies.next().await {
                            reply.into_result().expect("no call fails");
                            count += 1;
                        }
                        assert_eq!(count, 30);
                    }
                }
            }
            sent
        });
    }
    let mut sent = 0;
    while let Some(caller) = callers.join_next().await {
        sent += caller.expect("no call fails");
    }
    settle().await;
    assert_eq!(noted.get(), sent, "none is lost, and none comes twice");
    for id in 1..=3 {
        let connections = network.attempts(&address(id)).len() as u64;
        assert!((5..=7).contains(&connections), "{connections}");
    }
}

/// Peers that share one connection for each pair, both of which call over it.
async fn pairs_are_renewed(meanwhile: WhileDisconnected) {
    let network = Network::new();
    let noted = Counter::new();
    let mut processes = Vec::new();
    for id in 1..=3_u32 {
        let peers = nodes(&network)
            .one_stream_per_pair(id, meanwhile)
            .connect()
            .expect("legal");
        let server = service(&noted)
            .peers(id, &peers)
            .trust_claimed_ids(true)
            .transport(network.clone())
            .bind(&address(id))
            .await
            .expect("the network is there");
        processes.push((peers, tokio::spawn(server.serve())));
    }
    for (peers, _) in &processes {
        within(peers.connected(3)).await.expect("all are up");
    }
    let until = Instant::now() + LOAD;
    let mut callers = JoinSet::new();
    for caller in 0..102_u64 {
        let client = Client::new(&processes[caller as usize % 3].0);
        callers.spawn(async move {
            while Instant::now() < until {
                if caller % 20 == 3 {
                    let call = client.streamed_quorum_call::<_, Number>(STREAM, number(10));
                    let mut replies = call.responses();
                    let mut count = 0;
                    while let Some(reply) = replies.next().await {
                        reply.into_result().expect("no call fails");
                        count += 1;
                    }
                    assert_eq!(count, 30);
                } else {
                    let call = client.quorum_call::<_, Number>(ECHO, number(caller));
                    call.all().replies().await.expect("no call fails");
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call fails");
    }
    settle().await;
    for id in 1..=3_u32 {
        let connections = network.attempts(&address(id)).len() as u32;
        let pairs = id - 1;
        let expected = 5 * pairs..=7 * pairs;
        assert!(expected.contains(&connections), "{id}: {connections}");
    }
    for (peers, serving) in processes {
        assert!(peers.iter().all(|node| node.pending() == 0));
        serving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_share_a_connection_renew_it_and_no_call_of_either_fails() {
    pairs_are_renewed(WhileDisconnected::Wait).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_where_calls_do_not_wait_for_a_connection() {
    pairs_are_renewed(WhileDisconnected::FailFast).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_being_called_answers_before_its_connection_ends() {
    let network = Network::new();
    let gate = Arc::new(Semaphore::new(0));
    let started = Counter::new();
    let server = Server::builder()
        .unary(ECHO, echo_late)
        .max_connection_age(AGE)
        .transport(network.clone());
    let server = server.bind("a:1").await.expect("the network is there");
    let clients = server.clients();
    let serving = tokio::spawn(server.serve());
    let own = holding(&gate, &started);
    let all = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1"])
        .serve(own)
        .connect()
        .expect("legal");
    within(all.connected(1)).await.expect("it is up");
    let client = Client::new(&all);
    within(client.rpc::<_, Number>(&all[0], ECHO, number(1)))
        .await
        .expect("it is up");
    let back = Client::new(clients.config());
    let call = back.rpc::<_, Number>(&back.configuration()[0], HOLD, number(7));
    let call = tokio::spawn(call.into_future());
    started.reached(1).await;
    network.attempted("a:1", 2).await;
    within(all.connected(1)).await.expect("it is up");
    tokio::time::sleep(AGE * 5).await;
    gate.add_permits(1);
    let reply = within(call).await.expect("no panic").expect("answered");
    assert_eq!(reply.value, 7);
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_the_time_of_grace_is_cut_off() {
    let network = Network::new();
    let server = Server::builder()
        .unary(HOLD, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            ctx.cancelled().await;
            Ok::<_, Status>(request)
        })
        .max_connection_age(Duration::from_secs(60))
        .connection_grace(Duration::from_secs(30))
        .transport(network.clone());
    let _server = TestServer::start_at(server, "a:1").await;
    let all = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1"])
        .connect()
        .expect("legal");
    let began = Instant::now();
    let call = Client::new(&all).rpc::<_, Number>(&all[0], HOLD, number(1));
    let error = call.await.expect_err("it is cut off");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable),
        "{error}"
    );
    let took = began.elapsed().as_secs();
    assert!((84..=90).contains(&took), "{took} s");
    assert_eq!(network.attempts("a:1").len(), 2, "it has connected again");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_renews_itself_stops_with_its_server() {
    let network = Network::new();
    let (gate, started) = (Arc::new(Semaphore::new(0)), Counter::new());
    let server = holding(&gate, &started)
        .max_connection_age(AGE)
        .transport(network.clone());
    let server = Stoppable::start(server, "a:1").await;
    let all = Configuration::builder()
        .transport(network.clone())
        .nodes(["a:1"])
        .connect()
        .expect("legal");
    let client = Client::new(&all);
    let call = client.rpc::<_, Number>(&all[0], HOLD, number(1)).send();
    started.reached(1).await;
    network.attempted("a:1", 2).await;
    let serving = server.stop();
    settle().await;
    gate.add_permits(1);
    within(call).await.expect("it is answered");
    within(serving).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_stream_that_was_renewed_is_answered_though_its_server_stops() {
    let network = Network::new();
    let (gate, started) = (Arc::new(Semaphore::new(0)), Counter::new());
    let peers = |id| {
        let builder = Configuration::builder().transport(network.clone());
        let builder = (1..=2).fold(builder, |builder, id| builder.node(id, address(id)));
        let builder = builder.one_stream_per_pair(id, WhileDisconnected::Wait);
        builder.connect().expect("legal")
    };
    let (one, two) = (peers(1), peers(2));
    // The second calls back the first, which connects and calls it.
    let back = Client::new(&two);
    let second = Server::builder()
        .unary(ECHO, move |ctx: ServerCtx, request: Number| {
            let back = back.clone();
            async move {
                ctx.release();
                let all = back.configuration().clone();
                let node = all.iter().find(|node| node.id().get() == 1);
                let call = back.rpc::<_, Number>(node.expect("it is one"), HOLD, request);
                call.await.map_err(|error| error.status().clone())
            }
        })
        .peers(2, &two)
        .trust_claimed_ids(true)
        .max_connection_age(AGE)
        .transport(network.clone());
    let second = Stoppable::start(second, &address(2)).await;
    let first = holding(&gate, &started)
        .peers(1, &one)
        .trust_claimed_ids(true)
        .transport(network.clone());
    let _first = TestServer::start_at(first, &address(1)).await;
    within(one.connected(2)).await.expect("both are up");
    let node = one.iter().find(|node| node.id().get() == 2);
    let call = Client::new(&one).rpc::<_, Number>(node.expect("it is one"), ECHO, number(7));
    let call = call.send();
    started.reached(1).await;
    let attempts = network.attempts(&address(2)).len();
    network.attempted(&address(2), attempts + 1).await;
    within(one.connected(2)).await.expect("it is up again");
    settle().await;
    let serving = second.stop();
    settle().await;
    gate.add_permits(1);
    let reply = within(call).await.expect("it is answered");
    assert_eq!(reply.value, 7);
    within(serving).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_client_hears_goaway_and_its_calls_are_answered() {
    let network = Network::new();
    let server = Server::builder()
        .unary(ECHO, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            tokio::time::sleep(AGE * 3).await;
            Ok::<_, Status>(request)
        })
        .max_connection_age(AGE)
        .transport(network.clone());
    let _server = TestServer::start_at(server, "a:1").await;
    let io = network.connect("a:1").await.expect("it listens");
    let began = Instant::now();
    let (mut requests, connection) = within(h2::client::handshake(io)).await.expect("h2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://gorums/test.Test/Echo")
        .header("content-type", "application/grpc")
        .body(())
        .expect("well-formed");
    let (head, mut send) = requests.send_request(request, false).expect("it is up");
    let body = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
    send.send_data(body, true).expect("it is up");
    let mut answer = within(head).await.expect("it is answered");
    let reply = within(answer.body_mut().data()).await.expect("a reply");
    assert_eq!(&reply.expect("it is up")[5..], [8, 1]);
    let trailers = within(answer.body_mut().trailers())
        .await
        .expect("it is up");
    let code = trailers.and_then(|all| all.get("grpc-status").cloned());
    assert_eq!(code.expect("it has one"), "0");
    drop(answer);
    let ended = within(connection).await.expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
    let took = began.elapsed();
    assert!(took < AGE * 4, "it does not wait for the client: {took:?}");
    let refused = std::future::poll_fn(|cx| requests.poll_ready(cx)).await;
    assert!(refused.is_err(), "the connection is over");
}
