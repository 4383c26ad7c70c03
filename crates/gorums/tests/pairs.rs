//! Peers that share one stream for each pair, which the one with the lower id opens.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, Number, echo, number, within};
use gorums::membership::{Change, NodeAddress, WhileDisconnected};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, ConfigurationError, Node, NodeId, NodeState,
    Outcome, Server, ServerBuilder, ServerCtx, Status, testing,
};
use memory::{Manner, Network, settle};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
/// Asks a majority and then all.
const ASK_TWICE: &str = "test.Test.AskTwice";
/// Has a server ask its caller.
const ASK_BACK: &str = "test.Test.AskBack";

fn address(id: u32) -> String {
    format!("node-{id}:1")
}

fn nodes(network: &Network, count: u32) -> ConfigurationBuilder {
    (1..=count)
        .fold(Configuration::builder(), |builder, id| {
            builder.node(id, address(id))
        })
        .transport(network.clone())
}

/// A process that is node `id`.
struct Process {
    peers: Configuration,
    serving: JoinHandle<()>,
}

impl Process {
    async fn start(
        network: &Network,
        id: u32,
        configuration: ConfigurationBuilder,
        server: ServerBuilder,
    ) -> Self {
        let peers = configuration.connect().expect("legal");
        let server = server
            .peers(id, &peers)
            .trust_claimed_ids(true)
            .transport(network.clone())
            .bind(&address(id))
            .await
            .expect("the network is there");
        Self {
            peers,
            serving: tokio::spawn(server.serve()),
        }
    }

    /// One of so many that share streams.
    async fn sharing(network: &Network, id: u32, count: u32, server: ServerBuilder) -> Self {
        let configuration = nodes(network, count).one_stream_per_pair(id, WhileDisconnected::Wait);
        Self::start(network, id, configuration, server).await
    }

    fn node(&self, id: u32) -> &Node {
        self.peers.node(id).expect("a peer")
    }

    fn echo(&self, id: u32, value: u64) -> gorums::call::Rpc<Number, Number> {
        Client::new(&self.peers).rpc(self.node(id), ECHO, number(value))
    }

    async fn all_echo(&self, value: u64) -> usize {
        let call = Client::new(&self.peers).quorum_call::<Number, Number>(ECHO, number(value));
        let replies = within(call.all().replies()).await.expect("all answer");
        assert!(replies.values().all(|reply| reply.value == value));
        replies.len()
    }

    /// Stops it, and waits until it is gone.
    async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn until(mut happened: impl FnMut() -> bool) {
    within(async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn one_connection_for_each_pair_of(count: u32) {
    let network = Network::new();
    let mut processes = Vec::new();
    for id in 1..=count {
        processes.push(Process::sharing(&network, id, count, echo()).await);
    }
    for process in &processes {
        within(process.peers.connected(count as usize))
            .await
            .expect("none is closed");
        assert_eq!(process.all_echo(u64::from(count)).await, count as usize);
    }
    for process in &processes {
        assert_eq!(process.all_echo(7).await, count as usize);
        assert!(process.peers.iter().all(|node| node.pending() == 0));
    }
    for id in 1..=count {
        let connections = network.attempts(&address(id)).len();
        assert_eq!(connections as u32, id - 1, "those with lower ids");
    }
}

#[tokio::test]
async fn five_peers_call_each_other_over_one_connection_for_each_pair() {
    one_connection_for_each_pair_of(5).await;
}

#[tokio::test]
async fn fifty_peers_call_each_other_over_one_connection_for_each_pair() {
    one_connection_for_each_pair_of(50).await;
}

async fn nested_majority_then_all_500_times() {
    let peers = testing::peers_with(
        3,
        |me, configuration| configuration.one_stream_per_pair(me, WhileDisconnected::Wait),
        |_, _| {
            let ask_twice = |ctx: ServerCtx, request: Number| async move {
                ctx.release();
                let peers = Client::new(ctx.config());
                let call = || peers.quorum_call::<Number, Number>(ECHO, request.clone());
                let majority = call().majority().replies().await?.len();
                let all = call().all().replies().await?.len();
                Ok::<_, Status>(number(majority as u64 * 10 + all as u64))
            };
            echo().unary(ASK_TWICE, ask_twice).trust_claimed_ids(true)
        },
    );
    let (mut configurations, mut tasks) = (Vec::new(), Vec::new());
    for peer in peers.await.expect("loopback") {
        configurations.push(peer.configuration);
        tasks.push(tokio::spawn(peer.server.serve()));
    }
    // Every handler is asked by three peers at once, and asks three.
    for iteration in 0..500 {
        let peers = Client::new(&configurations[iteration % 3]);
        let call = peers.quorum_call::<Number, Number>(ASK_TWICE, number(iteration as u64));
        let replies = within(call.all().replies()).await.expect("all answer");
        let replies: Vec<_> = replies.values().map(|reply| reply.value).collect();
        assert_eq!(replies, [23, 23, 23]);
    }
    let mut nodes = configurations.iter().flatten();
    assert!(nodes.all(|node| node.pending() == 0));
    tasks.iter().for_each(JoinHandle::abort);
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
async fn a_call_before_the_peer_has_connected_fails_at_once_where_it_is_to() {
    let network = Network::new();
    let configuration = nodes(&network, 2).one_stream_per_pair(2, WhileDisconnected::FailFast);
    let second = Process::start(&network, 2, configuration, echo()).await;
    let error = within(second.echo(1, 1))
        .await
        .expect_err("nobody is there");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::Unavailable)
    );
    assert_eq!(
        error.status().message(),
        "node 1 is not connected, and it is the one of the pair that connects (see \
         ConfigurationBuilder::one_stream_per_pair)"
    );
    let note = Client::new(&second.peers).multicast(NOTE, number(1));
    assert_eq!(note.detach().iter().collect::<Vec<_>>(), [NodeId::from(1)]);
    within(second.peers.flush()).await;
    assert_eq!(second.node(1).state(), NodeState::Disconnected);

    let first = Process::sharing(&network, 1, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    assert_eq!(second.all_echo(3).await, 2);

    first.stop().await;
    until(|| second.node(1).state() == NodeState::Disconnected).await;
    let error = within(second.echo(1, 1)).await.expect_err("it has gone");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::Unavailable)
    );
}

#[tokio::test]
async fn calls_wait_for_the_peer_to_connect_and_are_sent_in_their_order() {
    let network = Network::new();
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let calls: Vec<_> = (0..100).map(|value| second.echo(1, value).send()).collect();
    assert_eq!(second.node(1).pending(), 100);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = Server::builder().unary(ECHO, move |ctx: ServerCtx, request: Number| {
        assert_eq!(ctx.peer_id(), Some(NodeId::from(2)));
        log.lock().expect("not poisoned").push(request.value);
        async move { Ok::<_, Status>(request) }
    });
    let _first = Process::sharing(&network, 1, 2, server).await;
    for (value, call) in calls.into_iter().enumerate() {
        assert_eq!(within(call).await.expect("answered").value, value as u64);
    }
    assert_eq!(
        *seen.lock().expect("not poisoned"),
        (0..100).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_peer_is_withdrawn_at_its_deadline_and_bounded_by_the_outbox() {
    let network = Network::new();
    let configuration = nodes(&network, 2)
        .one_stream_per_pair(2, WhileDisconnected::Wait)
        .outbox(1, 1024);
    let second = Process::start(&network, 2, configuration, echo()).await;
    let begun = Instant::now();
    let late = second.echo(1, 1).timeout(Duration::from_secs(30)).send();
    let error = within(second.echo(1, 2)).await.expect_err("one waits");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::ResourceExhausted)
    );
    let error = within(late).await.expect_err("nobody connects");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::NotSent, Code::DeadlineExceeded)
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
    // Nothing was tried from here, however long it took.
    assert!(network.attempts(&address(1)).is_empty());
    assert_eq!(second.node(1).pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_peer_with_the_higher_id_never_connects() {
    let network = Network::new();
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let first = Process::sharing(&network, 1, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    first.stop().await;
    until(|| second.node(1).state() == NodeState::Disconnected).await;
    let call = second.echo(1, 1).timeout(Duration::from_secs(600));
    let error = call.await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(network.attempts(&address(1)).is_empty());
}

#[tokio::test]
async fn whichever_peer_is_restarted_both_directions_work_again() {
    let network = Network::new();
    let mut first = Process::sharing(&network, 1, 2, echo()).await;
    let mut second = Process::sharing(&network, 2, 2, echo()).await;
    for value in 0..20 {
        assert_eq!(
            (first.all_echo(value).await, second.all_echo(value).await),
            (2, 2)
        );
        // In the middle of traffic: what was not answered is told of.
        let calls: Vec<_> = (0..50)
            .flat_map(|value| [first.echo(2, value).send(), second.echo(1, value).send()])
            .collect();
        if value % 2 == 0 {
            first.stop().await;
            first = Process::sharing(&network, 1, 2, echo()).await;
        } else {
            second.stop().await;
            second = Process::sharing(&network, 2, 2, echo()).await;
        }
        for call in calls {
            if let Err(error) = within(call).await {
                assert_eq!(error.code(), Code::Unavailable, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_without_a_call() {
    let network = Network::new();
    let first = Process::sharing(&network, 1, 2, echo()).await;
    let second = Process::sharing(&network, 2, 2, echo()).await;
    for times in 1..20 {
        within(second.peers.connected(2))
            .await
            .expect("none is closed");
        assert_eq!(second.all_echo(1).await, 2);
        network.cut(&address(2));
        network.attempted(&address(2), times + 1).await;
        until(|| second.node(1).last_error().is_none()).await;
    }
    assert_eq!(first.all_echo(1).await, 2);
}

/// A peer that opens another stream does so because the last one is of no use, whatever it looks
/// like from here.
#[tokio::test]
async fn a_second_stream_of_a_peer_takes_the_place_of_the_first_whose_end_changes_nothing() {
    let network = Network::new();
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let named = |name: u64| {
        Server::builder().unary(ECHO, move |_ctx: ServerCtx, _: Number| async move {
            Ok::<_, Status>(number(name))
        })
    };
    let held = Server::builder().unary(ECHO, |_ctx: ServerCtx, _: Number| {
        std::future::pending::<Result<Number, Status>>()
    });
    let old = Process::sharing(&network, 1, 2, held).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    let lost = second.echo(1, 1).send();
    until(|| second.node(1).pending() == 1).await;
    tokio::task::yield_now().await;

    // Another process says that it is node 1, while the first one is still connected.
    let new = Process::sharing(&network, 1, 2, named(8)).await;
    let error = within(lost).await.expect_err("its stream was replaced");
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(
        error.status().message(),
        "the node has opened another stream"
    );
    assert_eq!(within(second.echo(1, 1)).await.expect("answered").value, 8);
    // The first one is still served.
    assert_eq!(within(old.echo(2, 5)).await.expect("answered").value, 5);

    old.stop().await;
    for _ in 0..100 {
        assert_eq!(within(second.echo(1, 1)).await.expect("answered").value, 8);
        assert_eq!(second.node(1).state(), NodeState::Connected);
    }
    drop(new);
}

/// The stream that took its place may be an older one, which the peer has given up and which came
/// late. No other one comes, as long as the peer takes its own for good.
#[tokio::test]
async fn a_stream_whose_place_was_taken_ends_with_the_other_one_so_that_the_peer_opens_another() {
    let network = Network::new();
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let first = Process::sharing(&network, 1, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    let late = Process::sharing(&network, 1, 2, echo()).await;
    within(network.attempted(&address(2), 2)).await;
    within(late.peers.connected(2))
        .await
        .expect("none is closed");
    assert_eq!(within(late.echo(2, 4)).await.expect("answered").value, 4);
    late.stop().await;
    within(network.attempted(&address(2), 3)).await;
    assert_eq!(within(second.echo(1, 5)).await.expect("answered").value, 5);
    assert_eq!(within(first.echo(2, 6)).await.expect("answered").value, 6);
}

#[tokio::test]
async fn calls_over_a_stream_that_was_accepted_are_as_others() {
    let network = Network::new();
    let (notes, cancelled) = (Counter::new(), Counter::new());
    let (noted, given_up) = (notes.clone(), cancelled.clone());
    let server = echo()
        .unary("test.Test.Key", |ctx: ServerCtx, _: Number| async move {
            Err::<Number, _>(Status::not_found(
                ctx.metadata().get("key").unwrap_or("none"),
            ))
        })
        .one_way(NOTE, move |_ctx, _: Number| {
            noted.add();
            async {}
        })
        .unary("test.Test.Wait", move |ctx: ServerCtx, _: Number| {
            let given_up = given_up.clone();
            async move {
                ctx.release();
                ctx.cancelled().await;
                given_up.add();
                Ok::<_, Status>(number(0))
            }
        })
        .streaming(
            "test.Test.Count",
            |_ctx, to: Number, replies: gorums::ReplySender<Number>| async move {
                for value in 0..to.value {
                    replies
                        .send(number(value))
                        .await
                        .map_err(|_| Status::cancelled("gone"))?;
                }
                Ok(())
            },
        );
    let _first = Process::sharing(&network, 1, 2, server).await;
    let second = Process::sharing(&network, 2, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    let client = Client::new(&second.peers);
    let node = second.node(1);
    let rpc = |method: &'static str| client.rpc::<Number, Number>(node, method, number(1));

    let error = within(rpc("test.Test.Key").metadata("key", "value"))
        .await
        .expect_err("an error");
    assert_eq!(
        (error.code(), error.outcome(), error.status().message()),
        (Code::NotFound, Outcome::Refused, "value")
    );
    let error = within(rpc("test.Test.None")).await.expect_err("no method");
    assert_eq!(error.code(), Code::Unimplemented);

    let error = within(rpc("test.Test.Wait").timeout(Duration::from_millis(1)))
        .await
        .expect_err("it waits");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let dropped = rpc("test.Test.Wait").send();
    within(rpc(ECHO)).await.expect("behind it");
    drop(dropped);
    within(rpc(ECHO)).await.expect("behind it");
    cancelled.reached(1).await;

    let one = second.peers.select([1]).expect("known");
    let call =
        Client::new(&one).streamed_quorum_call::<Number, Number>("test.Test.Count", number(50));
    let mut replies = call.responses();
    for value in 0..50 {
        let reply = within(replies.next())
            .await
            .expect("50")
            .into_result()
            .expect("counted");
        assert_eq!(reply.value, value);
    }
    assert!(within(replies.next()).await.is_none());

    for _ in 0..100 {
        let _ = Client::new(&one).multicast(NOTE, number(1)).detach();
    }
    within(one.flush()).await;
    within(rpc(ECHO)).await.expect("behind them");
    assert_eq!(notes.get(), 100);
    assert_eq!(node.pending(), 0);
    assert!(node.last_error().is_none());
    assert!(node.latency().is_some());
}

/// The peer with the lower id is as a server of another kind: it connects to all, and knows of no
/// pairs.
#[tokio::test]
async fn peers_of_which_one_shares_no_streams_call_each_other_both_ways() {
    for sharing in [1, 2] {
        let network = Network::new();
        let other = 3 - sharing;
        let one = Process::sharing(&network, sharing, 2, echo()).await;
        let two = Process::start(&network, other, nodes(&network, 2), echo()).await;
        for value in 0..10 {
            assert_eq!(
                (one.all_echo(value).await, two.all_echo(value).await),
                (2, 2)
            );
        }
        let connections = |id| network.attempts(&address(id)).len();
        match sharing {
            1 => assert!(connections(1) > 0 && connections(2) > 0, "each has its own"),
            _ => assert_eq!((connections(1) > 0, connections(2)), (false, 1)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_on_its_stream_is_found_dead_by_the_nodes_keep_alive() {
    let network = Network::new();
    let _first = Process::sharing(&network, 1, 2, echo()).await;
    let second = Process::sharing(&network, 2, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    settle().await;
    network.set(&address(2), Manner::Silent);
    network.stall(&address(2));
    let begun = Instant::now();
    let error = second.echo(1, 1).await.expect_err("no answer comes");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable)
    );
    // 10 s, up to twice, and 20 s for the ping.
    assert!(
        begun.elapsed() <= Duration::from_secs(41),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(second.node(1).state(), NodeState::Disconnected);
}

/// A process that is stopped, as by SIGSTOP: nothing of it runs.
#[test]
fn a_peer_that_is_paused_does_not_slow_the_others() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (paused, others) = (runtime(), runtime());
    let network = Network::new();
    let (second, third) = others.block_on(async {
        let second = Process::sharing(&network, 2, 3, echo()).await;
        (second, Process::sharing(&network, 3, 3, echo()).await)
    });
    // Both run until the first is connected to both, and from then on it does not run.
    let first = paused.block_on(Process::sharing(&network, 1, 3, echo()));
    while third.node(1).state() != NodeState::Connected
        || second.node(1).state() != NodeState::Connected
    {
        paused.block_on(tokio::task::yield_now());
        others.block_on(tokio::task::yield_now());
    }
    others.block_on(async {
        for value in 0..500 {
            for process in [&second, &third] {
                let peers = Client::new(&process.peers);
                let call = peers.quorum_call::<Number, Number>(ECHO, number(value));
                let replies = within(call.majority().replies()).await.expect("a majority");
                assert!(replies.get(NodeId::from(1)).is_none(), "it is paused");
            }
        }
    });
    // It goes on, and answers.
    let all = others.spawn(async move { third.all_echo(1).await });
    while !all.is_finished() {
        paused.block_on(tokio::task::yield_now());
        others.block_on(tokio::task::yield_now());
    }
    assert_eq!(others.block_on(all).expect("no panic"), 3);
    drop((first, second));
}

/// Many tasks of both processes call, while the stream breaks again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_hangs_while_the_stream_breaks_again_and_again() {
    let network = Network::new();
    let first = Arc::new(Process::sharing(&network, 1, 2, echo()).await);
    let second = Arc::new(Process::sharing(&network, 2, 2, echo()).await);
    let done = Counter::new();
    let mut callers = Vec::new();
    for task in 0..4_u64 {
        let (process, done) = (
            Arc::clone([&first, &second][task as usize % 2]),
            done.clone(),
        );
        callers.push(tokio::spawn(async move {
            let node = 2 - task as u32 % 2;
            let mut answered = 0;
            for value in 0..300 {
                match within(process.echo(node, value)).await {
                    Ok(reply) => {
                        assert_eq!(reply.value, value);
                        answered += 1;
                    }
                    Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error}"),
                }
                done.add();
            }
            answered
        }));
    }
    for breaks in 1..=20 {
        done.reached(breaks * 50).await;
        network.cut(&address(2));
    }
    let mut answered = 0;
    for caller in callers {
        answered += within(caller).await.expect("no panic");
    }
    assert!(answered > 600, "{answered} of 1,200");
    assert_eq!((first.all_echo(1).await, second.all_echo(1).await), (2, 2));
    assert_eq!((second.node(1).pending(), first.node(2).pending()), (0, 0));
}

#[tokio::test]
async fn who_says_that_it_is_the_server_itself_or_nobody_gets_no_calls() {
    let network = Network::new();
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let wrong = Server::builder().unary(ECHO, |_ctx: ServerCtx, _: Number| async {
        Ok::<_, Status>(number(0))
    });
    // Node 2 of another pair of which it is the lower one connects and says so.
    let impostor = Configuration::builder()
        .node(2, address(9))
        .node(3, address(2))
        .transport(network.clone())
        .allow_other_ids(true)
        .one_stream_per_pair(2, WhileDisconnected::Wait);
    let impostor = {
        let peers = impostor.connect().expect("legal");
        let server = wrong
            .peers(2, &peers)
            .trust_claimed_ids(true)
            .transport(network.clone());
        let server = server
            .bind(&address(9))
            .await
            .expect("the network is there");
        (peers, tokio::spawn(server.serve()))
    };
    let call = Client::new(&impostor.0).rpc::<Number, Number>(&impostor.0[1], ECHO, number(4));
    assert_eq!(within(call).await.expect("it is served").value, 4);
    assert_eq!(second.node(1).state(), NodeState::Disconnected);
    assert_eq!(within(second.echo(2, 6)).await.expect("its own").value, 6);
    impostor.1.abort();
}

#[tokio::test]
async fn a_node_that_is_added_later_is_connected_to() {
    let network = Network::new();
    let only_second = Configuration::builder()
        .node(2, address(2))
        .transport(network.clone())
        .one_stream_per_pair(2, WhileDisconnected::Wait);
    let second = Process::start(&network, 2, only_second, echo()).await;
    let first = Process::sharing(&network, 1, 2, echo()).await;
    let both = second
        .peers
        .extend_with_ids([(1, address(1))])
        .expect("legal");
    let call = Client::new(&both).quorum_call::<Number, Number>(ECHO, number(3));
    assert_eq!(within(call.all().replies()).await.expect("both").len(), 2);
    assert_eq!(first.all_echo(3).await, 2);
}

#[tokio::test]
async fn a_server_that_cannot_share_streams_says_what_mends_it() {
    let pairs = |me: u32| {
        Configuration::builder()
            .nodes(["127.0.0.1:1", "127.0.0.1:2"])
            .one_stream_per_pair(me, WhileDisconnected::Wait)
            .connect()
            .expect("legal")
    };
    let error = |server: ServerBuilder| async { server.bind("127.0.0.1:0").await.err() };
    let untrusting = error(Server::builder().peers(2, pairs(2))).await;
    let untrusting = untrusting.expect("refused").to_string();
    assert!(
        untrusting.contains("trust_claimed_ids(true)"),
        "{untrusting}"
    );
    let server = Server::builder().peers(1, pairs(2)).trust_claimed_ids(true);
    let another = error(server).await.expect("refused").to_string();
    assert!(another.contains("that of node 2"), "{another}");
}

#[tokio::test]
async fn two_ids_that_servers_give_to_clients_cannot_share_a_stream_and_one_can() {
    const GIVEN: u32 = 1 << 20;
    let network = Network::new();
    let peers = |me: u32, ids: &[u32]| {
        let nodes = ids.iter().map(|id| (*id, address(*id)));
        nodes
            .fold(Configuration::builder(), |builder, (id, address)| {
                builder.node(id, address)
            })
            .transport(network.clone())
            .one_stream_per_pair(me, WhileDisconnected::Wait)
    };
    let assert_refused = |error: Option<ConfigurationError>| {
        let error = error.expect("nobody could connect").to_string();
        let expected = "nodes 1048576 and 1048577 cannot share a stream";
        assert!(error.contains(expected), "{error}");
    };
    for me in [1, GIVEN, GIVEN + 1] {
        let ids = [1, GIVEN, GIVEN + 1];
        assert_refused(peers(me, &ids).connect().err());
        assert_refused(peers(me, &ids).membership().err());
    }
    for (me, there, other) in [
        (GIVEN, GIVEN, GIVEN + 1),
        (GIVEN + 1, GIVEN + 1, GIVEN),
        (1, GIVEN, GIVEN + 1),
    ] {
        let members = peers(me, &[1, there]).membership().expect("one of them");
        assert_refused(members.apply(Change::insert(other, address(other))).err());
        let list = [1, there, other].map(|id| format!("{id}={}", address(id)));
        let list = list.map(|node| node.parse::<NodeAddress>().expect("legal"));
        assert_refused(members.set(list).err());
        assert_eq!(members.config().len(), 2, "nothing has changed");
    }
    let mut processes = Vec::new();
    for me in [1, GIVEN] {
        processes.push(Process::start(&network, me, peers(me, &[1, GIVEN]), echo()).await);
    }
    for process in &processes {
        assert_eq!(process.all_echo(1).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_until_the_peer_has_what_was_written() {
    let network = Network::new();
    let _first = Process::sharing(&network, 1, 2, echo()).await;
    let second = Process::sharing(&network, 2, 2, echo()).await;
    within(second.peers.connected(2))
        .await
        .expect("none is closed");
    let one = second.peers.select([1]).expect("known");
    settle().await;
    // What the first one says does not come, so nobody knows what it has.
    network.stall(&address(2));
    let _ = Client::new(&one).multicast(NOTE, number(1)).detach();
    let mut flush = std::pin::pin!(one.flush());
    let early = tokio::time::timeout(Duration::from_secs(5), &mut flush).await;
    assert!(early.is_err(), "it cannot know");
    network.allow(&address(2), None);
    flush.await;
}

/// Both have more one-way messages for the other than fit, both handlers are held, and so neither
/// reads nor writes. A reply that somebody begins to wait for may be behind what is not read.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_reply_has_reading_go_on_where_nothing_can_be_written() {
    const HOLD: &str = "test.Test.Hold";
    for waits in [1, 2] {
        let network = Network::new();
        let gate = Arc::new(Semaphore::new(0));
        let server = || {
            let held = Arc::clone(&gate);
            echo().one_way(NOTE, |_ctx, _: Number| async {}).one_way(
                HOLD,
                move |_ctx, _: Number| {
                    let held = Arc::clone(&held);
                    async move { held.acquire().await.expect("open").forget() }
                },
            )
        };
        let first = Process::sharing(&network, 1, 2, server()).await;
        let second = Process::sharing(&network, 2, 2, server()).await;
        within(second.peers.connected(2))
            .await
            .expect("none is closed");
        within(first.peers.connected(2))
            .await
            .expect("none is closed");
        let mut large = number(1);
        large.payload = vec![0; 64 * 1024].into();
        // Some 14 MiB: four wait for their handlers, four are on their way, and the rest is not
        // written.
        let flood = |from: &Process, to: u32| {
            let client = Client::new(&from.peers);
            let _ = client.unicast(from.node(to), HOLD, number(1)).detach();
            for _ in 0..220 {
                let _ = client.unicast(from.node(to), NOTE, large.clone()).detach();
            }
            client.unicast(from.node(to), NOTE, number(2)).send()
        };
        let last_of_first = flood(&first, 2);
        let last_of_second = flood(&second, 1);
        settle().await;
        let (waiting, last_of_other) = match waits {
            1 => (first.echo(2, 3), last_of_second),
            _ => (second.echo(1, 3), last_of_first),
        };
        let waiting = waiting.send();
        tokio::time::timeout(Duration::from_secs(1), last_of_other)
            .await
            .expect("the one who waits reads")
            .expect("written");
        gate.add_permits(2);
        assert_eq!(within(waiting).await.expect("answered").value, 3);
    }
}

/// The server knows itself only; whoever holds the other node is somebody else, who lets it go.
#[tokio::test]
async fn what_is_queued_for_a_node_is_written_after_its_last_handle_was_dropped() {
    let network = Network::new();
    let notes = Counter::new();
    let noted = notes.clone();
    let server = echo().one_way(NOTE, move |_ctx, _: Number| {
        noted.add();
        async {}
    });
    let first = Process::sharing(&network, 1, 2, server).await;
    let both = nodes(&network, 2)
        .one_stream_per_pair(2, WhileDisconnected::Wait)
        .connect()
        .expect("legal");
    let itself = both.select([2]).expect("known");
    let server = echo().peers(2, &itself).trust_claimed_ids(true);
    let server = server.transport(network.clone()).bind(&address(2)).await;
    let serving = tokio::spawn(server.expect("the network is there").serve());
    within(both.connected(2)).await.expect("none is closed");
    for _ in 0..100 {
        let _ = Client::new(&both[0]).multicast(NOTE, number(1)).detach();
    }
    drop(both);
    notes.reached(100).await;
    // The stream is the first one's, who goes on.
    assert_eq!(within(first.echo(2, 3)).await.expect("served").value, 3);
    serving.abort();
}

#[test]
fn when_the_runtime_of_a_node_that_connects_has_ended_calls_to_it_fail() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (ends, lasts) = (runtime(), runtime());
    let peers = ends.block_on(async {
        nodes(&Network::new(), 2)
            .one_stream_per_pair(2, WhileDisconnected::Wait)
            .connect()
            .expect("legal")
    });
    let call = || Client::new(&peers).rpc::<Number, Number>(&peers[0], ECHO, number(1));
    let waits = call().send();
    drop(ends);
    for call in [waits, call().send()] {
        let error = lasts
            .block_on(async { within(call).await })
            .expect_err("nobody connects");
        assert_eq!(
            (error.outcome(), error.code()),
            (Outcome::NotSent, Code::Unavailable)
        );
    }
    assert_eq!(peers[0].state(), NodeState::Closed);
}

/// Asks its caller, a peer that shares a stream or a client that was given handlers.
async fn ask_back(ctx: ServerCtx, request: Number) -> Result<Number, Status> {
    let caller = ctx.peer_id().expect("it can be called");
    let nodes = [ctx.config(), ctx.client_config()];
    let nodes = nodes.into_iter().find(|nodes| nodes.node(caller).is_some());
    let nodes = nodes.expect("it is connected");
    let node = nodes.node(caller).expect("just seen");
    let call = Client::new(&nodes).rpc(node, ECHO, request);
    call.await.map_err(|error| error.status().clone())
}

/// Node 2, which shares a stream with node 1, and winds down when it is told to.
async fn node_2(
    network: &Network,
    server: ServerBuilder,
) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<()>) {
    let peers = nodes(network, 2)
        .one_stream_per_pair(2, WhileDisconnected::Wait)
        .connect()
        .expect("legal");
    let server = server
        .peers(2, &peers)
        .trust_claimed_ids(true)
        .transport(network.clone())
        .bind(&address(2))
        .await
        .expect("the network is there");
    let (stop, asked) = tokio::sync::oneshot::channel();
    let signal = async move {
        let _ = asked.await;
    };
    let serving = server.serve_with_shutdown(signal, Duration::from_secs(600));
    (stop, tokio::spawn(serving))
}

/// How long a client may take to stop to write requests.
const NONE_FOLLOW: Duration = Duration::from_secs(1);

fn client_of_2(network: &Network, handlers: ServerBuilder) -> Configuration {
    let configuration = Configuration::builder().node(2, address(2)).serve(handlers);
    let configuration = configuration.transport(network.clone());
    configuration.connect().expect("legal")
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_the_reply_of_its_caller_while_the_server_shuts_down() {
    for sharing in [true, false] {
        let network = Network::new();
        let (stop, serving) = node_2(&network, echo().unary(ASK_BACK, ask_back)).await;
        let (gate, started) = (Arc::new(Semaphore::new(0)), Counter::new());
        let (held, begun) = (Arc::clone(&gate), started.clone());
        let handlers = Server::builder().unary(ECHO, move |_ctx: ServerCtx, request: Number| {
            let gate = Arc::clone(&held);
            begun.add();
            async move {
                gate.acquire().await.expect("open").forget();
                Ok::<_, Status>(request)
            }
        });
        let (caller, _process) = if sharing {
            let process = Process::sharing(&network, 1, 2, handlers).await;
            (process.peers.select([2]).expect("known"), Some(process))
        } else {
            (client_of_2(&network, handlers), None)
        };
        let client = Client::new(&caller);
        let call = |method, value| {
            let call = client.rpc::<Number, Number>(&caller[0], method, number(value));
            call.send()
        };
        let asked = call(ASK_BACK, 4);
        started.reached(1).await;
        let began = Instant::now();
        stop.send(()).expect("it serves");
        until(|| caller[0].state() != NodeState::Connected).await;
        // No further request is taken, and its caller knows that at once.
        let error = within(call(ECHO, 5)).await.expect_err("it shuts down");
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Unavailable, Outcome::NotSent)
        );
        // Calls to the caller go on over the connection that it had made.
        gate.add_permits(1);
        assert_eq!(within(asked).await.expect("answered").value, 4);
        within(serving).await.expect("no panic");
        assert!(
            Instant::now() - began < NONE_FOLLOW,
            "nothing had to be cut off"
        );
    }
}

/// It has nothing to say any more, while its connection is still there.
#[tokio::test(start_paused = true)]
async fn a_call_to_a_client_fails_as_soon_as_that_has_ended_its_side_of_the_stream() {
    let network = Network::new();
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let ask_back = move |ctx: ServerCtx, request: Number| {
        let failed = failed.clone();
        async move {
            let clients = ctx.client_config();
            let call = Client::new(&clients).rpc::<Number, Number>(&clients[0], ECHO, request);
            let error = call.await.expect_err("its handler does not end");
            let code = error.code();
            let _ = failed.send(error);
            Err::<Number, _>(Status::new(code, "it has left"))
        }
    };
    let (_stop, _serving) = node_2(&network, echo().unary(ASK_BACK, ask_back)).await;
    let started = Counter::new();
    let begun = started.clone();
    let client = client_of_2(
        &network,
        Server::builder().unary(ECHO, move |_ctx: ServerCtx, _: Number| {
            begun.add();
            std::future::pending::<Result<Number, Status>>()
        }),
    );
    let asked = Client::new(&client).rpc::<Number, Number>(&client[0], ASK_BACK, number(4));
    let asked = asked.send();
    started.reached(1).await;
    let began = Instant::now();
    drop((asked, client));
    let error = within(failures.recv()).await.expect("the handler goes on");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::Unavailable, Outcome::Unknown)
    );
    assert_eq!(error.status().message(), "the client has left");
    assert_eq!(Instant::now(), began, "its connection has not ended yet");
}

/// A gate that holds the turn of one direction leaves the other one alone.
#[tokio::test]
async fn each_direction_of_a_shared_stream_has_a_turn_of_its_own() {
    let network = Network::new();
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let started = Counter::new();
    let begun = started.clone();
    let server = echo().unary("test.Test.Hold", move |_ctx: ServerCtx, request: Number| {
        let (gate, begun) = (Arc::clone(&held), begun.clone());
        async move {
            begun.add();
            gate.acquire().await.expect("open").forget();
            Ok::<_, Status>(request)
        }
    });
    let first = Process::sharing(&network, 1, 2, server).await;
    let second = Process::sharing(&network, 2, 2, echo()).await;
    let hold = Client::new(&second.peers).rpc::<Number, Number>(
        second.node(1),
        "test.Test.Hold",
        number(1),
    );
    let (hold, behind) = (hold.send(), second.echo(1, 2).send());
    started.reached(1).await;
    for value in 0..100 {
        assert_eq!(
            within(first.echo(2, value)).await.expect("free").value,
            value
        );
    }
    assert_eq!(second.node(1).pending(), 2);
    gate.add_permits(1);
    within(hold).await.expect("let go");
    assert_eq!(within(behind).await.expect("its turn").value, 2);
}
