//! Connections of which one direction is lost: whoever gets no answers finds out in the time that its
//! keep-alive says, whatever else comes in and however short its calls are.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::time::Duration;

use common::{Number, echo, number, within};
use gorums::membership::WhileDisconnected;
use gorums::server::Clients;
use gorums::{Client, Code, Configuration, ConfigurationBuilder, Outcome, Server, ServerCtx};
use memory::{Direction, Network};
use tokio::time::{Instant, sleep};

const ECHO: &str = "test.Test.Echo";
const NOTE: &str = "test.Test.Note";
const NODE: &str = "node:1";

const INTERVAL: Duration = Duration::from_millis(700);
const TIMEOUT: Duration = Duration::from_millis(400);

fn nodes(network: &Network) -> ConfigurationBuilder {
    let builder = Configuration::builder().node(1, NODE);
    builder
        .transport(network.clone())
        .keep_alive(INTERVAL, TIMEOUT)
}

async fn serve(network: &Network, server: gorums::ServerBuilder) -> Server {
    let server = server.transport(network.clone()).bind(NODE).await;
    server.expect("the network is there")
}

#[tokio::test(start_paused = true)]
async fn calls_that_give_up_early_do_not_hide_a_dead_node() {
    let network = Network::new();
    tokio::spawn(serve(&network, echo()).await.serve());
    let nodes = nodes(&network).connect().expect("legal");
    within(nodes.connected(1)).await.expect("none is closed");
    let client = Client::new(&nodes);
    let call = async || {
        let call = client.rpc::<Number, Number>(&nodes[0], ECHO, number(1));
        call.timeout(Duration::from_millis(100)).await
    };
    call().await.expect("it answers");
    network.lose(NODE, Direction::ToNode);
    let begun = Instant::now();
    // Longer apart than the interval: at no look is a call under way.
    while network.attempts(NODE).len() == 1 {
        call().await.expect_err("nothing gets there");
        assert!(begun.elapsed() < INTERVAL + TIMEOUT + Duration::from_secs(1));
        sleep(Duration::from_millis(900)).await;
    }
    let reconnected = network.attempts(NODE)[1] - begun;
    assert!(
        reconnected <= INTERVAL + TIMEOUT + Duration::from_millis(200),
        "{reconnected:?}"
    );
    within(nodes.connected(1)).await.expect("none is closed");
    call().await.expect("the new connection is good");
}

/// A server and a client that serves it, each as the other one sees it.
async fn called_back(network: &Network) -> (Clients, Configuration) {
    let server = serve(network, echo()).await;
    let clients = server.clients();
    tokio::spawn(server.serve());
    let nodes = nodes(network).serve(echo()).connect().expect("legal");
    within(clients.wait_for(|clients| clients.len() == 1))
        .await
        .expect("it comes");
    (clients, nodes)
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_node_do_not_hide_that_it_gets_none() {
    let network = Network::new();
    let (clients, nodes) = called_back(&network).await;
    network.lose(NODE, Direction::ToNode);
    let begun = Instant::now();
    let call = Client::new(&nodes)
        .rpc::<Number, Number>(&nodes[0], ECHO, number(1))
        .send();
    let notes = async {
        let client = Client::new(clients.config());
        loop {
            client.multicast(NOTE, number(1)).detach();
            sleep(Duration::from_millis(50)).await;
        }
    };
    let error = tokio::select! {
        answer = call => answer.expect_err("it never got there"),
        () = notes => unreachable!("it has no end"),
    };
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable)
    );
    assert_eq!(begun.elapsed(), INTERVAL + TIMEOUT);
}

/// Two peers that share a stream, which the first has opened, in the order of their ids.
async fn pair(network: &Network) -> [Configuration; 2] {
    let mut peers = Vec::new();
    for id in 1..=2u32 {
        let address = |id: u32| format!("node-{id}:1");
        let both = (1..=2).fold(Configuration::builder(), |builder, id| {
            builder.node(id, address(id))
        });
        let both = both
            .transport(network.clone())
            .keep_alive(INTERVAL, TIMEOUT);
        let both = both.one_stream_per_pair(id, WhileDisconnected::Wait);
        let both = both.connect().expect("legal");
        let server = echo().peers(id, &both).trust_claimed_ids(true);
        let server = server.transport(network.clone()).bind(&address(id)).await;
        tokio::spawn(server.expect("the network is there").serve());
        peers.push(both);
    }
    for peers in &peers {
        within(peers.connected(2)).await.expect("none is closed");
    }
    peers.try_into().expect("two")
}

/// How long it takes until the node is connected to anew, whose connection is lost in this direction
/// now.
async fn until_reconnected(network: &Network, node: &str, direction: Direction) -> Duration {
    let attempts = network.attempts(node).len();
    network.lose(node, direction);
    let begun = Instant::now();
    network.attempted(node, attempts + 1).await;
    begun.elapsed()
}

/// The longest that it may take: a new attempt may wait a little.
const NOTICED: Duration = INTERVAL
    .saturating_add(TIMEOUT)
    .saturating_add(Duration::from_millis(110));

/// Messages to a node that nobody answers, without end.
async fn note(nodes: &Configuration, node: u32) {
    let client = Client::new(nodes);
    let node = nodes.node(node).expect("one of them");
    loop {
        client.unicast(node, NOTE, number(1)).detach();
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_sent_one_way_messages_alone_is_found_dead() {
    let network = Network::new();
    tokio::spawn(serve(&network, echo()).await.serve());
    let nodes = nodes(&network).connect().expect("legal");
    within(nodes.connected(1)).await.expect("none is closed");
    // One that is answered before does not count as the answer.
    let call = Client::new(&nodes).rpc::<Number, Number>(&nodes[0], ECHO, number(1));
    call.await.expect("it answers");
    let noticed = tokio::select! {
        noticed = until_reconnected(&network, NODE, Direction::ToNode) => noticed,
        () = note(&nodes, 1) => unreachable!("it has no end"),
    };
    assert!(noticed <= NOTICED, "{noticed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_sent_one_way_messages_alone_is_found_dead_on_the_stream_of_the_pair() {
    for direction in [Direction::ToNode, Direction::ToClient] {
        let network = Network::new();
        let [first, second] = pair(&network).await;
        let notes = async {
            match direction {
                Direction::ToNode => note(&first, 2).await,
                Direction::ToClient => note(&second, 1).await,
            }
        };
        let noticed = tokio::select! {
            noticed = until_reconnected(&network, "node-2:1", direction) => noticed,
            () = notes => unreachable!("it has no end"),
        };
        assert!(noticed <= NOTICED, "{direction:?}: {noticed:?}");
    }
}

/// The one with the higher id cannot connect, whatever it has to say.
#[tokio::test(start_paused = true)]
async fn a_peer_that_has_nothing_to_say_connects_anew_for_the_other_one() {
    let network = Network::new();
    let [first, second] = pair(&network).await;
    let noticed = until_reconnected(&network, "node-2:1", Direction::ToClient).await;
    // The pings of both count from their last answers.
    assert!(noticed <= NOTICED, "{noticed:?}");
    within(second.connected(2)).await.expect("none is closed");
    let node = second.node(1).expect("a peer");
    let call = Client::new(&second).rpc::<Number, Number>(node, ECHO, number(1));
    call.await.expect("the new connection is good");
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_serves_and_has_nothing_to_say_connects_anew_for_its_server() {
    let network = Network::new();
    let (_clients, nodes) = called_back(&network).await;
    let noticed = until_reconnected(&network, NODE, Direction::ToClient).await;
    assert!(noticed <= NOTICED, "{noticed:?}");
    drop(nodes);
}

#[tokio::test(start_paused = true)]
async fn replies_that_are_streamed_for_an_earlier_call_do_not_hide_a_dead_node() {
    const COUNT: &str = "test.Test.Count";
    let network = Network::new();
    let server = echo().streaming(
        COUNT,
        |ctx: ServerCtx, request: Number, replies| async move {
            ctx.release();
            loop {
                replies.send(request.clone()).await?;
                sleep(Duration::from_millis(50)).await;
            }
        },
    );
    tokio::spawn(serve(&network, server).await.serve());
    let nodes = nodes(&network).connect().expect("legal");
    let client = Client::new(&nodes);
    let call = client.streamed_quorum_call::<Number, Number>(COUNT, number(1));
    let mut counted = call.responses();
    within(counted.next()).await.expect("it counts");
    let calls = async {
        loop {
            let call = client.rpc::<Number, Number>(&nodes[0], ECHO, number(1));
            let _ = call.timeout(Duration::from_millis(100)).await;
            sleep(Duration::from_millis(900)).await;
        }
    };
    let counts = async { while counted.next().await.is_some() {} };
    let noticed = async {
        tokio::select! {
            noticed = until_reconnected(&network, NODE, Direction::ToNode) => noticed,
            () = calls => unreachable!("it has no end"),
        }
    };
    let (noticed, ()) = tokio::join!(noticed, counts);
    assert!(noticed <= NOTICED, "{noticed:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_peer_do_not_hide_that_it_gets_none_on_the_stream_of_the_pair() {
    let network = Network::new();
    let [first, second] = &pair(&network).await;
    // The first has opened the stream to the second.
    network.lose("node-2:1", Direction::ToClient);
    let begun = Instant::now();
    let node = second.node(1).expect("a peer");
    let call = Client::new(second)
        .rpc::<Number, Number>(node, ECHO, number(1))
        .send();
    let error = tokio::select! {
        answer = call => answer.expect_err("it never got there"),
        () = note(first, 2) => unreachable!("it has no end"),
    };
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::Unavailable)
    );
    assert!(
        begun.elapsed() <= INTERVAL + TIMEOUT,
        "{:?}",
        begun.elapsed()
    );
    // A new connection takes its place.
    within(network.attempted("node-2:1", 2)).await;
}
