//! Systems in which each process is a server and a client of all, itself included.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, TestServer, number, within};
use gorums::server::HandlerOrder;
use gorums::testing::{self, Peer};
use gorums::{
    Client, Code, Configuration, NodeId, Outcome, Server, ServerBuilder, ServerCtx, ServerError,
    Status,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
/// Asks all peers to echo, and answers with how many did.
const ASK: &str = "test.Test.Ask";
/// The same, with the turn released before.
const RELEASE_AND_ASK: &str = "test.Test.ReleaseAndAsk";
/// Asks a majority and then all.
const ASK_TWICE: &str = "test.Test.AskTwice";
/// Sends a note to all peers.
const TELL: &str = "test.Test.Tell";

/// Asks every peer, itself too.
async fn ask(ctx: &ServerCtx, request: Number) -> Result<Number, Status> {
    let peers = Client::new(ctx.config());
    let call = peers.quorum_call::<Number, Number>(ECHO, request);
    let replies = call.all().replies().await?;
    Ok(number(replies.len() as u64))
}

fn nested(notes: Counter) -> ServerBuilder {
    common::echo()
        .one_way(NOTE, move |_ctx, _: Number| {
            notes.add();
            async {}
        })
        .unary(ASK, |ctx: ServerCtx, request: Number| async move {
            ask(&ctx, request).await
        })
        .unary(
            RELEASE_AND_ASK,
            |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                ask(&ctx, request).await
            },
        )
        .unary(ASK_TWICE, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            let peers = Client::new(ctx.config());
            let call = peers.quorum_call::<Number, Number>(ECHO, request.clone());
            let majority = call.majority().replies().await?.len();
            let all = ask(&ctx, request).await?.value;
            Ok::<_, Status>(number(majority as u64 * 10 + all))
        })
        .unary(TELL, |ctx: ServerCtx, request: Number| async move {
            Client::new(ctx.config()).multicast(NOTE, request).await?;
            Ok::<_, Status>(Number::default())
        })
}

struct System {
    configurations: Vec<Configuration>,
    notes: Vec<Counter>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for System {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn system(order: HandlerOrder) -> System {
    let mut notes = Vec::new();
    let peers = testing::peers(3, |_, _| {
        notes.push(Counter::new());
        nested(notes.last().expect("pushed").clone()).order(order)
    });
    let (mut configurations, mut tasks) = (Vec::new(), Vec::new());
    for peer in peers.await.expect("loopback") {
        configurations.push(peer.configuration);
        tasks.push(tokio::spawn(peer.server.serve()));
    }
    for configuration in &configurations {
        within(configuration.connected(3))
            .await
            .expect("none is closed");
    }
    System {
        configurations,
        notes,
        tasks,
    }
}

/// A configuration of a client that is no peer.
async fn outside(system: &System) -> Configuration {
    let addresses = system.configurations[0].iter().map(|node| node.address());
    let configuration = Configuration::builder()
        .nodes(addresses.map(str::to_owned).collect::<Vec<_>>())
        .connect()
        .expect("legal addresses");
    within(configuration.connected(3))
        .await
        .expect("none is closed");
    configuration
}

async fn all_replies(configuration: &Configuration, method: &'static str) -> Vec<u64> {
    let call = Client::new(configuration).quorum_call::<Number, Number>(method, number(1));
    let replies = within(call.all().replies()).await.expect("all answer");
    replies.values().map(|reply| reply.value).collect()
}

#[tokio::test]
async fn a_connection_of_a_process_to_itself_takes_nobodys_place() {
    let mut peers = testing::peers(1, |_, _| common::echo().max_connections(1))
        .await
        .expect("loopback");
    let Peer {
        configuration: own,
        server,
        ..
    } = peers.remove(0);
    let address = server.local_addr().to_string();
    let serving = tokio::spawn(server.serve());
    assert_eq!(all_replies(&own, ECHO).await, [1]);
    let outside = Configuration::builder().nodes([address]).connect();
    assert_eq!(all_replies(&outside.expect("legal"), ECHO).await, [1]);
    assert_eq!(all_replies(&own, ECHO).await, [1]);
    serving.abort();
}

async fn majority_then_all_500_times() {
    let system = system(HandlerOrder::PerConnection).await;
    for iteration in 0..500 {
        let peers = Client::new(&system.configurations[iteration % 3]);
        let quorum_call = |value| peers.quorum_call::<Number, Number>(ECHO, number(value));
        let value = iteration as u64;
        if iteration % 2 == 0 {
            within(quorum_call(value).majority())
                .await
                .expect("majority");
        } else {
            within(quorum_call(value).first()).await.expect("first");
        }
        let replies = within(quorum_call(value).all().replies())
            .await
            .expect("all");
        assert!(replies.values().all(|reply| reply.value == value));
        assert_eq!(replies.len(), 3);
    }
    assert!(
        system
            .configurations
            .iter()
            .flatten()
            .all(|node| node.pending() == 0)
    );
}

async fn nested_majority_then_all_500_times() {
    let system = system(HandlerOrder::PerConnection).await;
    // Every handler is asked by three peers at once, and asks three.
    for iteration in 0..500 {
        let peers = &system.configurations[iteration % 3];
        assert_eq!(all_replies(peers, ASK_TWICE).await, [23, 23, 23]);
    }
}

#[tokio::test]
async fn majorities_then_all_lose_no_reply_on_one_worker() {
    majority_then_all_500_times().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn majorities_then_all_lose_no_reply() {
    majority_then_all_500_times().await;
}

#[tokio::test]
async fn nested_majorities_then_all_lose_no_reply_on_one_worker() {
    nested_majority_then_all_500_times().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_majorities_then_all_lose_no_reply() {
    nested_majority_then_all_500_times().await;
}

#[tokio::test]
async fn a_client_of_one_peer_has_it_ask_all_with_and_without_release() {
    let system = system(HandlerOrder::PerConnection).await;
    let outside = outside(&system).await;
    // All three at once: each handler holds its turn while the others ask its node.
    assert_eq!(all_replies(&outside, ASK).await, [3, 3, 3]);
    assert_eq!(all_replies(&outside, RELEASE_AND_ASK).await, [3, 3, 3]);
}

#[tokio::test]
async fn a_nested_multicast_reaches_all_peers_and_its_own_node() {
    let system = system(HandlerOrder::PerConnection).await;
    all_replies(&outside(&system).await, TELL).await;
    for notes in &system.notes {
        notes.reached(3).await;
        assert_eq!(notes.get(), 3);
    }
}

#[tokio::test]
async fn a_handler_that_would_wait_for_its_own_turn_is_told_and_others_answer() {
    let system = system(HandlerOrder::PerConnection).await;
    let peers = &system.configurations[0];
    let own = peers.node(1).expect("three peers");
    let ask = Client::new(peers).rpc::<Number, Number>(own, ASK, number(1));
    let error = within(ask)
        .await
        .expect_err("the handler's own node cannot answer");
    let text = error.to_string();
    assert!(
        text.contains("ctx.release() first: this handler holds"),
        "{text}"
    );
    // Its peers answered, and nobody is left waiting.
    assert!(
        text.contains("test.Test.Echo") && text.contains("node 1"),
        "{text}"
    );
    let ask = Client::new(peers).rpc::<Number, Number>(own, RELEASE_AND_ASK, number(1));
    assert_eq!(within(ask).await.expect("released").value, 3);
    // From another node the same request comes through another turn.
    let ask = Client::new(peers).rpc::<Number, Number>(&peers[1], ASK, number(1));
    assert_eq!(within(ask).await.expect("a turn of its own").value, 3);
}

#[tokio::test]
async fn with_one_turn_per_server_every_call_to_itself_needs_a_release() {
    let system = system(HandlerOrder::PerServer).await;
    let outside = outside(&system).await;
    let ask = |method| Client::new(&outside).rpc::<Number, Number>(&outside[0], method, number(1));
    let error = within(ask(ASK)).await.expect_err("the only turn is held");
    assert!(error.to_string().contains("ctx.release()"), "{error}");
    assert_eq!(
        within(ask(RELEASE_AND_ASK)).await.expect("released").value,
        3
    );
    // One-way messages wait for nobody.
    within(ask(TELL)).await.expect("handed over");
    for notes in &system.notes {
        notes.reached(1).await;
    }
}

/// A peer of one, whose configuration has its node only.
async fn alone(describe: impl FnMut(NodeId, &Configuration) -> ServerBuilder) -> Peer {
    let peers = testing::peers(1, describe).await;
    peers.expect("loopback").pop().expect("one")
}

#[tokio::test]
async fn a_refused_call_was_not_sent_and_is_made_by_the_same_handler_after_release() {
    let Peer {
        configuration,
        server,
        ..
    } = alone(|_, _| {
        common::echo().unary(
            "test.Test.Twice",
            |ctx: ServerCtx, request: Number| async move {
                let config = ctx.config();
                let call = move || {
                    Client::new(&config).rpc::<Number, Number>(&config[0], ECHO, request.clone())
                };
                let refused = call().await.expect_err("it holds the turn");
                assert_eq!(refused.outcome(), Outcome::NotSent);
                // A task of its own is not the handler, and waits for a turn that will come.
                let later = call.clone();
                let spawned = tokio::spawn(async move { later().await });
                ctx.release();
                let reply = call().await?;
                let spawned = spawned.await.expect("no panic")?;
                Ok::<_, Status>(number(reply.value + spawned.value))
            },
        )
    })
    .await;
    let serving = tokio::spawn(server.serve());
    let call = Client::new(&configuration).rpc::<Number, Number>(
        &configuration[0],
        "test.Test.Twice",
        number(4),
    );
    assert_eq!(within(call).await.expect("answered").value, 8);
    serving.abort();
}

#[tokio::test]
async fn its_own_node_is_called_without_the_network_and_with_the_same_protocol() {
    let detail = || prost_types::Any {
        type_url: "type.example/detail".into(),
        value: vec![1, 2, 3],
    };
    // Nothing listens there, and nothing needs to.
    let configuration = Configuration::builder()
        .node(7, "192.0.2.1:1")
        .metadata("zone", "north")
        .connect()
        .expect("legal");
    let server = common::echo()
        .peers(7, &configuration)
        .max_decoding_message_size(1024)
        .unary(
            "test.Test.Who",
            move |ctx: ServerCtx, _: Number| async move {
                assert_eq!(ctx.connection_metadata().get("zone"), Some("north"));
                assert_eq!(ctx.metadata().get("key"), Some("value"));
                assert_eq!(ctx.peer_addr(), None);
                assert_eq!(ctx.config().ids().collect::<Vec<_>>(), [NodeId::from(7)]);
                Err::<Number, _>(Status::not_found("nobody").with_details([detail()]))
            },
        );
    let server = TestServer::start(server).await;
    let client = Client::new(&configuration);
    let call = client.rpc::<Number, Number>(&configuration[0], ECHO, number(5));
    assert_eq!(within(call).await.expect("answered").value, 5);
    let call = client.rpc::<Number, Number>(&configuration[0], "test.Test.Who", number(5));
    let error = within(call.metadata("key", "value"))
        .await
        .expect_err("an error");
    assert_eq!(
        (error.code(), error.outcome(), error.status().message()),
        (Code::NotFound, Outcome::Refused, "nobody")
    );
    assert_eq!(error.status().details(), [detail()]);
    let mut large = number(1);
    large.payload = vec![0; 4096].into();
    let call = client.rpc::<Number, Number>(&configuration[0], ECHO, large);
    let error = within(call).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
    let call = client.rpc::<Number, Number>(&configuration[0], "test.Test.None", number(5));
    let error = within(call).await.expect_err("no such method");
    assert_eq!(error.code(), Code::Unimplemented);
    server.stop().await;
    let call = client.rpc::<Number, Number>(&configuration[0], ECHO, number(5));
    let error = within(call).await.expect_err("stopped");
    assert_eq!(error.code(), Code::Unavailable);
    // A new server in its place.
    let server = TestServer::start(common::echo().peers(7, &configuration)).await;
    let call = client.rpc::<Number, Number>(&configuration[0], ECHO, number(6));
    assert_eq!(within(call).await.expect("answered again").value, 6);
    server.stop().await;
}

#[tokio::test]
async fn requests_to_its_own_node_start_in_order_one_turn_after_the_other() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, gate) = (Arc::clone(&seen), Arc::new(Semaphore::new(0)));
    let opens = Arc::clone(&gate);
    let Peer {
        configuration,
        server,
        ..
    } = alone(|_, _| {
        let (log, gate) = (Arc::clone(&log), Arc::clone(&gate));
        Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
            let (log, gate) = (Arc::clone(&log), Arc::clone(&gate));
            async move {
                log.lock().expect("not poisoned").push(request.value);
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        })
    })
    .await;
    let serving = tokio::spawn(server.serve());
    let client = Client::new(&configuration);
    let calls: Vec<_> = (0..100)
        .map(|value| {
            client
                .rpc::<Number, Number>(&configuration[0], ECHO, number(value))
                .send()
        })
        .collect();
    for (value, call) in calls.into_iter().enumerate() {
        assert!(
            seen.lock().expect("not poisoned").len() <= value + 1,
            "one turn"
        );
        opens.add_permits(1);
        assert_eq!(within(call).await.expect("answered").value, value as u64);
    }
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        (0..100).collect::<Vec<_>>()
    );
    serving.abort();
}

/// A peer whose handlers wait does not keep the others from each other.
#[tokio::test]
async fn a_peer_that_does_not_answer_slows_no_majority() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let peers = testing::peers(3, move |me, _| {
        let gate = Arc::clone(&held);
        Server::builder()
            .unary(ECHO, move |_ctx: ServerCtx, request: Number| {
                let gate = Arc::clone(&gate);
                async move {
                    if me == NodeId::from(3) {
                        gate.acquire().await.expect("open").forget();
                    }
                    Ok::<_, Status>(request)
                }
            })
            .unary(ASK, |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                let peers = Client::new(ctx.config());
                let call = peers.quorum_call::<Number, Number>(ECHO, request);
                let replies = call.majority().replies().await?;
                assert!(replies.get(NodeId::from(3)).is_none(), "it is held");
                Ok::<_, Status>(number(replies.len() as u64))
            })
    });
    let peers = peers.await.expect("loopback");
    let configurations: Vec<_> = peers
        .iter()
        .map(|peer| peer.configuration.clone())
        .collect();
    let serving: Vec<_> = peers
        .into_iter()
        .map(|peer| tokio::spawn(peer.server.serve()))
        .collect();
    for iteration in 0..500 {
        let peers = configurations[iteration % 2].select([1, 2]).expect("known");
        assert_eq!(all_replies(&peers, ASK).await, [2, 2]);
    }
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    serving.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn metadata_of_a_request_does_not_flow_into_nested_calls() {
    let peers = testing::peers(2, |_, _| {
        Server::builder()
            .unary(ECHO, |ctx: ServerCtx, _: Number| async move {
                Ok::<_, Status>(number(u64::from(ctx.metadata().get("secret").is_some())))
            })
            .unary(ASK, |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                let config = ctx.config();
                let peers = Client::new(&config);
                let call = || peers.rpc::<Number, Number>(&config[1], ECHO, request.clone());
                let silent = call().await?.value;
                let secret = ctx.metadata().get("secret").unwrap_or_default().to_owned();
                let told = call().metadata("secret", secret).await?.value;
                Ok::<_, Status>(number(10 * silent + told))
            })
    });
    let peers = peers.await.expect("loopback");
    let configuration = peers[0].configuration.clone();
    let serving: Vec<_> = peers
        .into_iter()
        .map(|peer| tokio::spawn(peer.server.serve()))
        .collect();
    let client = Client::new(&configuration);
    let call = client.rpc::<Number, Number>(&configuration[0], ASK, number(1));
    let reply = within(call.metadata("secret", "42"))
        .await
        .expect("answered");
    assert_eq!(reply.value, 1, "only where it was asked to");
    serving.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_server_without_peers_has_an_empty_configuration_and_calls_on_it_fail_at_once() {
    let (_servers, configuration) = common::cluster(1, |_| nested(Counter::new())).await;
    let client = Client::new(&configuration);
    let call = client.rpc::<Number, Number>(&configuration[0], ASK, number(1));
    let error = within(call).await.expect_err("nobody to ask");
    assert!(error.to_string().contains("test.Test.Echo"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_none_of_its_peers_is_refused() {
    let configuration = Configuration::builder()
        .nodes(["127.0.0.1:1", "127.0.0.1:2"])
        .connect()
        .expect("legal");
    let error = Server::builder()
        .peers(5, &configuration)
        .bind("127.0.0.1:0")
        .await
        .expect_err("node 5 is none of them");
    assert!(matches!(error, ServerError::NotAPeer { .. }));
    assert_eq!(
        error.to_string(),
        "this server is to be node 5, and its peers are 1, 2: its own node is one of them"
    );
}

#[tokio::test]
async fn a_graceful_shutdown_ends_its_own_connection_and_finishes_what_was_read() {
    let gate = Arc::new(Semaphore::new(0));
    let started = Counter::new();
    let (held, begun) = (Arc::clone(&gate), started.clone());
    let Peer {
        configuration,
        server,
        ..
    } = alone(move |_, _| {
        let (gate, started) = (Arc::clone(&held), begun.clone());
        Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
            let (gate, started) = (Arc::clone(&gate), started.clone());
            async move {
                started.add();
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        })
    })
    .await;
    let (stop, asked) = tokio::sync::oneshot::channel::<()>();
    let signal = async move {
        let _ = asked.await;
    };
    let grace = Duration::from_secs(600);
    let serving = tokio::spawn(server.serve_with_shutdown(signal, grace));
    let client = Client::new(&configuration);
    let call = client
        .rpc::<Number, Number>(&configuration[0], ECHO, number(9))
        .send();
    started.reached(1).await;
    stop.send(()).expect("it serves");
    gate.add_permits(1);
    assert_eq!(within(call).await.expect("finished").value, 9);
    within(serving).await.expect("no panic");
    let call = client.rpc::<Number, Number>(&configuration[0], ECHO, number(10));
    assert_eq!(
        within(call).await.expect_err("stopped").code(),
        Code::Unavailable
    );
}
