//! Systems whose nodes come and go: by hand, by a stream of changes, and by a name; and waiting for
//! those that are connected.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Number, TestServer, echo, number, within};
use futures_core::Stream;
use gorums::membership::{
    Change, Family, Membership, NodeAddress, Resolve, Watch, WhileDisconnected,
};
use gorums::server::WaitError;
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, Node, NodeId, NodeState, Outcome,
    QuorumErrorKind, Server, ServerBuilder, ServerCtx, Status,
};
use memory::{Manner, Network, settle};
use tokio::sync::mpsc;

const ECHO: &str = "test.Test.Echo";
/// Is answered with the ids of the peers of the moment, as decimal digits.
const PEERS: &str = "test.Test.Peers";
/// Is answered with how many of the peers echo.
const ASK: &str = "test.Test.Ask";

const SECOND: Duration = Duration::from_secs(1);

fn builder(network: &Network) -> ConfigurationBuilder {
    Configuration::builder().transport(network.clone())
}

async fn serve(network: &Network, address: &str) -> TestServer {
    TestServer::start_at(echo().transport(network.clone()), address).await
}

fn node(text: &str) -> NodeAddress {
    text.parse().expect("legal")
}

fn insert(text: &str) -> Change {
    Change::Insert(node(text))
}

fn ids(configuration: &Configuration) -> Vec<u32> {
    configuration.ids().map(NodeId::get).collect()
}

fn refused(members: &Membership, change: Change) -> String {
    let before = members.config();
    let error = members.apply(change).expect_err("refused");
    assert_eq!(members.config(), before);
    let last = members.last_error().expect("there is one").to_string();
    assert_eq!(last, error.to_string());
    last
}

/// A stream that a test feeds.
struct Fed(mpsc::UnboundedReceiver<Result<Change, String>>);

impl Stream for Fed {
    type Item = Result<Change, String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

// ---- nodes that come and go

#[tokio::test(start_paused = true)]
async fn calls_go_to_the_nodes_of_the_moment_and_configurations_stay_as_they_were() {
    let network = Network::new();
    let mut servers = Vec::new();
    for address in ["a:1", "b:1", "c:1"] {
        servers.push(serve(&network, address).await);
    }
    let members = builder(&network).membership().expect("it may be empty");
    let nobody = Client::new(members.config()).quorum_call::<_, Number>(ECHO, number(1));
    assert!(nobody.all().await.is_err());
    for (address, expected) in [("1=a:1", 1), ("2=b:1", 2), ("3=c:1", 3)] {
        members.apply(insert(address)).expect("it is new");
        let call = Client::new(members.config()).quorum_call::<_, Number>(ECHO, number(1));
        assert_eq!(
            within(call.all().replies())
                .await
                .expect("all answer")
                .len(),
            expected
        );
    }
    let before = members.config();
    members
        .apply(Change::Remove(2.into()))
        .expect("it is there");
    assert_eq!(
        (ids(&members.config()), ids(&before)),
        (vec![1, 3], vec![1, 2, 3])
    );
    let call = Client::new(&before).quorum_call::<_, Number>(ECHO, number(1));
    assert_eq!(
        within(call.all().replies())
            .await
            .expect("all answer")
            .len(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_a_node_that_has_left_ends_when_nobody_holds_it() {
    let network = Network::new();
    let connected = Arc::new(());
    let token = Arc::clone(&connected);
    let server = echo()
        .transport(network.clone())
        .on_connect(move |connecting| {
            connecting.set_value(Arc::clone(&token));
            Ok(())
        });
    let _server = TestServer::start_at(server, "b:1").await;
    let members = builder(&network)
        .nodes(["a:1", "b:1"])
        .membership()
        .expect("legal");
    settle().await;
    let before = members.config();
    assert_eq!(before[1].state(), NodeState::Connected);
    // The test's, the callback's and the connection's.
    assert_eq!(Arc::strong_count(&connected), 3);
    members
        .apply(Change::RemoveAddress("B:1".into()))
        .expect("it is there");
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(Arc::strong_count(&connected), 3, "somebody holds it");
    drop(before);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(Arc::strong_count(&connected), 2);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_never_another_address() {
    let network = Network::new();
    let members = builder(&network).membership().expect("it may be empty");
    for text in ["1=a:1", "b:1", "c:1"] {
        members.apply(insert(text)).expect("it is new");
    }
    for id in 1..=3 {
        members
            .apply(Change::Remove(id.into()))
            .expect("it is there");
    }
    assert!(members.config().is_empty());
    // Nobody gets the ids of those that have left, and they get them back.
    members.apply(insert("d:1")).expect("it is new");
    assert_eq!(
        refused(&members, insert("2=e:1")),
        "node 2 (e:1): this id was that of b:1, and stays so: give another one"
    );
    members.apply(insert("C:1")).expect("it was there");
    members.apply(insert("1=a:1")).expect("it was there");
    let config = members.config();
    let nodes = config.iter().map(|node| (node.id().get(), node.address()));
    assert_eq!(
        nodes.collect::<Vec<_>>(),
        [(4, "d:1"), (3, "C:1"), (1, "a:1")]
    );
}

#[tokio::test(start_paused = true)]
async fn changes_that_say_what_is_so_change_nothing_and_contradictions_are_named() {
    let network = Network::new();
    let members = builder(&network)
        .node(1, "a:1")
        .node(2, "b:1")
        .membership()
        .expect("legal");
    let before = members.config();
    for change in [
        insert("1=a:1"),
        insert("A:1"),
        Change::Remove(7.into()),
        Change::RemoveAddress("z:1".into()),
    ] {
        members.apply(change).expect("it is so");
        assert_eq!(members.config(), before);
        assert!(members.last_error().is_none());
    }
    for (change, expected) in [
        (insert("1=z:1"), "node 1 is a:1 and z:1"),
        (insert("3=a:1"), "nodes 1 and 3 have the same address a:1"),
        (insert("z"), "there is no port"),
        (Change::insert(0, "z:1"), "node 0 (z:1)"),
    ] {
        let error = refused(&members, change);
        assert!(error.contains(expected), "{error}");
    }
    let nothing = Membership::from(before.filter(|_| false));
    assert!(
        nothing.apply(insert("a:1")).is_err(),
        "there is no pool to join"
    );
    let fixed = Membership::from(&before);
    fixed.apply(insert("c:1")).expect("it is new");
    assert_eq!(
        (ids(&fixed.config()), ids(&members.config())),
        (vec![1, 2, 3], vec![1, 2])
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_membership_calls_the_nodes_of_the_moment() {
    let network = Network::new();
    let _a = serve(&network, "a:1").await;
    let _b = serve(&network, "b:1").await;
    let members = builder(&network)
        .nodes(["a:1"])
        .membership()
        .expect("legal");
    let client = Client::new(&members);
    let replies = || async {
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        within(call.all().replies())
            .await
            .expect("all answer")
            .len()
    };
    assert_eq!((replies().await, client.configuration().len()), (1, 1));
    members.apply(insert("b:1")).expect("it is new");
    assert_eq!((replies().await, client.configuration().len()), (2, 2));
    // Of a call, its nodes are those that there were when it was made.
    let call = client.quorum_call::<_, Number>(ECHO, number(1));
    members
        .apply(Change::Remove(1.into()))
        .expect("it is there");
    assert_eq!(
        within(call.all().replies())
            .await
            .expect("all answer")
            .len(),
        2
    );
    assert_eq!(replies().await, 1);
    let fixed = client.on(members.config());
    members.apply(insert("a:1")).expect("it was there");
    assert_eq!(
        (ids(&fixed.configuration()), ids(&client.configuration())),
        (vec![2], vec![2, 1])
    );
}

// ---- lists, and nodes that move

fn list(text: &str) -> Vec<NodeAddress> {
    NodeAddress::list(text).expect("legal")
}

async fn all_echo(nodes: &Configuration) -> Vec<u32> {
    let call = Client::new(nodes).quorum_call::<_, Number>(ECHO, number(1));
    let replies = within(call.all().replies()).await.expect("all answer");
    replies.iter().map(|(id, _)| id.get()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_is_made_the_membership_in_one_change() {
    let network = Network::new();
    let members = builder(&network)
        .nodes(["a:1", "b:1", "c:1"])
        .membership()
        .expect("legal");
    let before = members.config();
    let mut watch = members.watch(Duration::MAX, Configuration::clone);
    assert_eq!(next(&mut watch).await, [1, 2, 3]);
    members.set(list("5=e:1, C:1, 1=a:1, d:1")).expect("legal");
    let now = members.config();
    assert_eq!(ids(&now), [5, 3, 1, 6]);
    assert_eq!((&now[1], &now[2]), (&before[2], &before[0]), "they stay");
    assert_eq!(next(&mut watch).await, [5, 3, 1, 6], "all at once");
    members
        .set(list("5=e:1, 3=c:1, a:1, 6=d:1"))
        .expect("it is so");
    assert_eq!(members.config().as_slice(), now.as_slice());
    // A node that left has its id again.
    members.set(list("b:1, 3=c:1")).expect("legal");
    assert_eq!(ids(&members.config()), [2, 3]);
    for (nodes, expected) in [
        (vec![], "at least one node"),
        (list("1=a:1, 1=b:1"), "node 1 is a:1 and b:1"),
        (
            list("1=a:1, 2=A:01"),
            "nodes 1 and 2 have the same address A:01",
        ),
        (list("1=a"), "there is no port"),
    ] {
        let error = refused(&members, Change::Set(nodes));
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_takes_no_call_of_its_old_address_with_it() {
    let network = Network::new();
    let _other = serve(&network, "b:1").await;
    let _old = serve(&network, "a:1").await;
    let members = builder(&network)
        .nodes(["a:1", "b:1"])
        .membership()
        .expect("legal");
    within(members.config().connected(2))
        .await
        .expect("none is closed");
    let before = members.config();
    let client = Client::new(&before);
    network.stall("a:1");
    // More than the network takes: the first is written in part, and the second waits.
    let large = Number {
        value: 1,
        payload: vec![0; 3 << 20].into(),
    };
    let written = client.rpc::<_, Number>(&before[0], ECHO, large.clone());
    let written = tokio::spawn(written.into_future());
    settle().await;
    let queued = client.rpc::<_, Number>(&before[0], ECHO, large);
    let queued = tokio::spawn(queued.into_future());
    settle().await;
    let new = Server::builder().transport(network.clone()).unary(
        ECHO,
        |_: ServerCtx, mut request: Number| {
            request.value += 10;
            async move { Ok::<_, Status>(request) }
        },
    );
    let _new = TestServer::start_at(new, "z:1").await;
    members
        .apply(Change::Move(1.into(), "z:1".into()))
        .expect("it is there");
    for (call, outcome) in [(written, Outcome::Unknown), (queued, Outcome::NotSent)] {
        let error = within(call).await.expect("no panic").expect_err("it moved");
        assert_eq!(error.outcome(), outcome, "{error}");
        assert_eq!(error.status().message(), "node 1 (a:1) has moved to z:1");
    }
    assert_eq!(before[0].state(), NodeState::Closed);
    let later = client.rpc::<_, Number>(&before[0], ECHO, number(1)).await;
    let later = later.expect_err("it moved");
    assert_eq!(later.outcome(), Outcome::NotSent);
    assert_eq!(later.status().message(), "node 1 (a:1) has moved to z:1");
    let now = members.config();
    assert_eq!((ids(&now), now[0].address()), (vec![1, 2], "z:1"));
    assert_eq!(now[1], before[1], "the other one stays");
    let reply = within(client.rpc::<_, Number>(&now[0], ECHO, number(1))).await;
    assert_eq!(reply.expect("it answers").value, 11);
    network.take("a:1", true);
    network.allow("a:1", None);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(before[0].state(), NodeState::Closed, "for good");
    assert!(
        before[0]
            .last_error()
            .expect("it moved")
            .message()
            .contains("z:1")
    );
}

#[tokio::test(start_paused = true)]
async fn nodes_exchange_addresses_and_come_back_elsewhere() {
    let network = Network::new();
    let mut servers = Vec::new();
    for address in ["a:1", "b:1", "c:1"] {
        servers.push(serve(&network, address).await);
    }
    let members = builder(&network)
        .nodes(["a:1", "b:1"])
        .membership()
        .expect("legal");
    within(members.config().connected(2))
        .await
        .expect("none is closed");
    members.set(list("1=b:1, 2=a:1")).expect("legal");
    assert_eq!(all_echo(&members.config()).await.len(), 2);
    // An address that is another id's from now on, while somebody holds the one before.
    let before = members.config();
    members.set(list("1=b:1, 3=a:1")).expect("legal");
    assert_eq!(before[1].state(), NodeState::Closed);
    assert_eq!(all_echo(&members.config()).await.len(), 2);
    // It is there already, whatever its address was before.
    members.apply(insert("a:1")).expect("it is there");
    assert_eq!(ids(&members.config()), [1, 3]);
    // One that has left.
    members
        .apply(Change::Move(2.into(), "c:1".into()))
        .expect("it was there");
    assert_eq!(ids(&members.config()), [1, 3, 2]);
    assert_eq!(all_echo(&members.config()).await.len(), 3);
    let unknown = refused(&members, Change::Move(9.into(), "d:1".into()));
    assert_eq!(unknown, "there is no node 9; the nodes are 1, 3, 2");
    let taken = refused(&members, Change::Move(2.into(), "a:1".into()));
    assert!(taken.contains("the same address a:1"), "{taken}");
    // Its old address is nobody's.
    members
        .apply(Change::Remove(2.into()))
        .expect("it is there");
    members.apply(insert("c:1")).expect("it was there");
    assert_eq!(ids(&members.config()), [1, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_left_moves_though_somebody_holds_it() {
    let network = Network::new();
    let mut servers = Vec::new();
    for address in ["a:1", "b:1", "c:1"] {
        servers.push(serve(&network, address).await);
    }
    for change in [
        Change::Move(2.into(), "c:1".into()),
        Change::Set(list("1=a:1, 2=c:1")),
        // Its address is another node's.
        Change::Set(list("1=a:1, 3=b:1")),
    ] {
        let members = builder(&network)
            .nodes(["a:1", "b:1"])
            .membership()
            .expect("legal");
        let before = members.config();
        members
            .apply(Change::Remove(2.into()))
            .expect("it is there");
        assert_eq!(all_echo(&before).await.len(), 2, "it lives on");
        let named = match change {
            Change::Set(_) => refused(&members, insert("3=b:1")),
            _ => refused(&members, insert("2=c:1")),
        };
        assert!(named.contains("b:1"), "{named}");
        members
            .apply(change.clone())
            .expect("the list says where it is");
        assert_eq!(all_echo(&members.config()).await.len(), 2, "{change:?}");
        assert_eq!(before[1].state(), NodeState::Closed, "{change:?}");
        // Of the others nothing is wrong, and the one that moved is not the whole call's end.
        let client = Client::new(&before);
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.all()).await.expect_err("one has moved");
        assert_eq!(error.kind(), QuorumErrorKind::Incomplete, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_membership_of_the_same_connections_is_not_moved() {
    let network = Network::new();
    let _servers = (serve(&network, "a:1").await, serve(&network, "b:1").await);
    let all = builder(&network)
        .nodes(["a:1", "b:1"])
        .connect()
        .expect("legal");
    let first = Membership::from(all.select([1]).expect("known"));
    let error = refused(&first, Change::Set(list("1=a:1, 2=c:1")));
    assert!(error.contains("2") && error.contains("b:1"), "{error}");
    assert_eq!(all_echo(&all).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_moves_itself_and_its_peers() {
    let network = Network::new();
    let members = builder(&network)
        .nodes(["a:1", "b:1"])
        .membership()
        .expect("legal");
    let _one = TestServer::start_at(peer(&network, 1, &members), "a:1").await;
    let _two = serve(&network, "z:1").await;
    assert_eq!(
        refused(&members, Change::Set(list("2=b:1"))),
        "node 1 is this server itself, which cannot leave its own peers: stop it instead"
    );
    members.set(list("1=y:1, 2=z:1")).expect("legal");
    assert_eq!(all_echo(&members.config()).await.len(), 2);
    assert!(
        network.attempts("y:1").is_empty(),
        "it stays in its process"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_by_itself_moves_and_connects_again() {
    let network = Network::new();
    let nodes = |me| {
        builder(&network)
            .nodes(["a:1", "b:1"])
            .one_stream_per_pair(me, WhileDisconnected::Wait)
            .membership()
            .expect("legal")
    };
    let (of_1, of_2) = (nodes(1), nodes(2));
    let _one = TestServer::start_at(peer(&network, 1, &of_1).trust_claimed_ids(true), "a:1").await;
    let _two = TestServer::start_at(peer(&network, 2, &of_2).trust_claimed_ids(true), "b:1").await;
    within(of_2.config().connected(2))
        .await
        .expect("none is closed");
    of_2.set(list("1=also-a:1, 2=b:1")).expect("legal");
    assert_eq!(all_echo(&of_2.config()).await.len(), 2);
    assert_eq!(all_echo(&of_1.config()).await.len(), 2);
}

async fn next(watch: &mut Watch) -> Vec<u32> {
    ids(&within(watch.next()).await.expect("it never ends"))
}

#[tokio::test(start_paused = true)]
async fn a_watch_looks_again_when_nodes_join_and_leave() {
    let network = Network::new();
    let members = builder(&network)
        .node(1, "a:1")
        .membership()
        .expect("legal");
    let mut watch = members.watch(Duration::from_secs(1_000_000), Configuration::clone);
    assert_eq!(next(&mut watch).await, [1]);
    let waiting = tokio::spawn(async move { (next(&mut watch).await, watch) });
    tokio::task::yield_now().await;
    members.apply(insert("2=b:1")).expect("it is new");
    let (now, mut watch) = within(waiting).await.expect("no panic");
    assert_eq!(now, [1, 2]);
    // Also what happens while nobody asks.
    members
        .apply(Change::Remove(1.into()))
        .expect("it is there");
    members.apply(insert("3=c:1")).expect("it is new");
    assert_eq!(next(&mut watch).await, [2, 3]);
}

// ---- streams of changes

#[tokio::test(start_paused = true)]
async fn a_stream_is_followed_and_what_is_wrong_with_it_costs_no_node() {
    let network = Network::new();
    let members = builder(&network).membership().expect("it may be empty");
    let (feed, fed) = mpsc::unbounded_channel();
    let following = tokio::spawn(members.follow(Fed(fed)));
    let send = |item| feed.send(item).expect("it is followed");
    send(Ok(insert("1=a:1")));
    send(Ok(insert("2=b:1")));
    settle().await;
    assert_eq!(ids(&members.config()), [1, 2]);
    for (item, expected) in [
        (
            Err("the registry is down".to_owned()),
            "the registry is down",
        ),
        (Ok(insert("2=c:1")), "node 2 is b:1 and c:1"),
    ] {
        send(item);
        settle().await;
        assert_eq!(ids(&members.config()), [1, 2]);
        let error = members.last_error().expect("it is told").to_string();
        assert!(error.contains(expected), "{error}");
    }
    send(Ok(Change::Remove(1.into())));
    settle().await;
    assert_eq!(ids(&members.config()), [2]);
    assert!(members.last_error().is_none());
    drop(feed);
    within(following).await.expect("it ends with the stream");
    assert_eq!(ids(&members.config()), [2]);
}

#[tokio::test(start_paused = true)]
async fn following_ends_when_nobody_holds_the_membership() {
    let network = Network::new();
    let members = builder(&network).membership().expect("it may be empty");
    let (feed, fed) = mpsc::unbounded_channel();
    let following = tokio::spawn(members.follow(Fed(fed)));
    feed.send(Ok(insert("1=a:1"))).expect("it is followed");
    settle().await;
    let other = members.clone();
    drop(members);
    settle().await;
    assert!(!following.is_finished());
    drop(other);
    within(following).await.expect("it ends");
    assert!(feed.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_pending_does_not_keep_the_thread() {
    struct Failing;
    impl Stream for Failing {
        type Item = Result<Change, &'static str>;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(Some(Err("no")))
        }
    }
    let network = Network::new();
    let members = builder(&network).membership().expect("it may be empty");
    let following = tokio::spawn(members.follow(Failing));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(members.last_error().is_some());
    drop(members);
    following.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_and_a_look_that_fails_costs_no_node() {
    let network = Network::new();
    let members = builder(&network).membership().expect("it may be empty");
    let found: Arc<Mutex<io::Result<Vec<&str>>>> =
        Arc::new(Mutex::new(Ok(vec!["10.0.0.2:1", "10.0.0.1:1"])));
    let finds = |result| *found.lock().expect("no panic") = result;
    let name = Resolve::new("replicas.example:1", 10 * SECOND).expect("a name and a port");
    let name = name.lookup({
        let found = Arc::clone(&found);
        move |name| {
            assert_eq!(&*name, "replicas.example:1");
            let found = match &*found.lock().expect("no panic") {
                Ok(found) => Ok(found.iter().map(|it| it.parse().expect("legal")).collect()),
                Err(error) => Err(io::Error::from(error.kind())),
            };
            std::future::ready(found)
        }
    });
    tokio::spawn(members.follow(name));
    let nodes = || {
        let config = members.config();
        let nodes = config
            .iter()
            .map(|node| (node.id().get(), node.address().to_owned()));
        nodes.collect::<Vec<_>>()
    };
    let expected = |nodes: &[(u32, &str)]| {
        let nodes = nodes
            .iter()
            .map(|(id, address)| (*id, (*address).to_owned()));
        nodes.collect::<Vec<_>>()
    };
    settle().await;
    assert_eq!(nodes(), expected(&[(1, "10.0.0.1:1"), (2, "10.0.0.2:1")]));
    finds(Ok(vec!["10.0.0.2:1", "10.0.0.3:1"]));
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(nodes().len(), 2, "it was not time yet");
    assert_eq!(nodes()[0].0, 1);
    tokio::time::sleep(SECOND).await;
    let now = expected(&[(2, "10.0.0.2:1"), (3, "10.0.0.3:1")]);
    assert_eq!(nodes(), now);
    for (result, reason) in [
        (
            Err(io::ErrorKind::TimedOut.into()),
            "replicas.example:1: timed out",
        ),
        (Ok(vec![]), "replicas.example:1: the name has no address"),
    ] {
        finds(result);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(nodes(), now);
        let error = members.last_error().expect("it is told").to_string();
        assert!(error.contains(reason), "{error}");
    }
    // One that was there before.
    finds(Ok(vec!["10.0.0.1:1", "10.0.0.3:1"]));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(nodes(), expected(&[(3, "10.0.0.3:1"), (1, "10.0.0.1:1")]));
}

#[tokio::test(start_paused = true)]
async fn the_nodes_of_a_name_are_of_one_family_unless_it_is_told_otherwise() {
    const V4: [&str; 2] = ["10.0.0.1:1", "10.0.0.2:1"];
    const V6: [&str; 2] = ["[fd00::1]:1", "[fd00::2]:1"];
    const MIXED: [&str; 5] = [V6[0], V4[0], "[::ffff:10.0.0.1]:1", V4[1], V6[1]];
    const ALL: [&str; 4] = [V4[0], V4[1], V6[0], V6[1]];
    type Texts = &'static [&'static str];
    type Look = (Texts, Result<Texts, &'static str>);
    let cases: [(Family, Vec<Look>); 4] = [
        (
            Family::First,
            vec![
                (&MIXED, Ok(&V6)),
                // The order changes; some of the family are left; and then none is.
                (&[V4[0], V4[1], V6[1]], Ok(&[V6[1]])),
                (&V4, Ok(&V4)),
                (&MIXED, Ok(&V4)),
            ],
        ),
        (
            Family::V4,
            vec![
                (&MIXED, Ok(&V4)),
                (&V6, Err("the name has no IPv4 address")),
            ],
        ),
        (
            Family::V6,
            vec![
                (&MIXED, Ok(&V6)),
                (&V4, Err("the name has no IPv6 address")),
            ],
        ),
        (Family::Both, vec![(&MIXED, Ok(&ALL)), (&V4, Ok(&V4))]),
    ];
    for (family, looks) in cases {
        let members = builder(&Network::new()).membership();
        let members = members.expect("it may be empty");
        let found: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let name = Resolve::new("replicas.example:1", SECOND).expect("a name and a port");
        let name = name.family(family).lookup({
            let found = Arc::clone(&found);
            move |_| std::future::ready(Ok(found.lock().expect("no panic").clone()))
        });
        let mut name = Some(name);
        for (look, expected) in looks {
            let look = look.iter().map(|it| it.parse().expect("legal"));
            *found.lock().expect("no panic") = look.collect();
            if let Some(name) = name.take() {
                tokio::spawn(members.follow(name));
            }
            tokio::time::sleep(2 * SECOND).await;
            match expected {
                Ok(expected) => {
                    let config = members.config();
                    let mut nodes: Vec<_> = config.iter().map(Node::address).collect();
                    nodes.sort_unstable();
                    assert_eq!(nodes, expected, "{family:?}");
                }
                Err(reason) => {
                    let error = members.last_error().expect("it is told").to_string();
                    assert!(error.contains(reason), "{error}");
                    assert_eq!(members.config().len(), 2, "it costs no node");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_name_of_this_machine_is_found_by_the_system() {
    let members = Configuration::builder()
        .membership()
        .expect("it may be empty");
    let name = Resolve::new("localhost:9", SECOND).expect("a name and a port");
    let mut watch = members.watch(Duration::from_millis(50), Configuration::clone);
    tokio::spawn(members.follow(name));
    let mut found = members.config();
    while found.is_empty() {
        found = within(watch.next()).await.expect("it never ends");
    }
    for node in &found {
        assert!(
            ["127.0.0.1:9", "[::1]:9"].contains(&node.address()),
            "{node:?}"
        );
    }
    assert!(Resolve::new("localhost", SECOND).is_err());
}

// ---- servers whose peers come and go

/// A peer: its handlers tell of the peers of the moment, and call them.
fn peer(network: &Network, me: u32, members: &Membership) -> ServerBuilder {
    echo()
        .transport(network.clone())
        .peers(me, members)
        .unary(PEERS, |ctx: ServerCtx, _: Number| async move {
            let ids = ctx
                .config()
                .ids()
                .fold(0, |ids, id| 10 * ids + u64::from(id.get()));
            Ok::<_, Status>(number(ids))
        })
        .unary(ASK, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            let peers = Client::new(ctx.config());
            let call = peers.quorum_call::<_, Number>(ECHO, request);
            let replies = call.all().replies().await?;
            Ok::<_, Status>(number(replies.len() as u64))
        })
}

#[tokio::test(start_paused = true)]
async fn handlers_call_the_peers_of_the_moment_on_a_connection_that_is_older() {
    let network = Network::new();
    let members = builder(&network)
        .node(1, "a:1")
        .membership()
        .expect("legal");
    let _first = TestServer::start_at(peer(&network, 1, &members), "a:1").await;
    let _second = serve(&network, "b:1").await;
    let client = builder(&network).nodes(["a:1"]).connect().expect("legal");
    let ask = async |method| {
        let call = Client::new(&client).rpc::<_, Number>(&client[0], method, number(1));
        within(call).await.expect("it answers").value
    };
    assert_eq!((ask(PEERS).await, ask(ASK).await), (1, 1));
    members.apply(insert("2=b:1")).expect("it is new");
    assert_eq!((ask(PEERS).await, ask(ASK).await), (12, 2));
    members
        .apply(Change::Remove(2.into()))
        .expect("it is there");
    assert_eq!((ask(PEERS).await, ask(ASK).await), (1, 1));
    let error = refused(&members, Change::Remove(1.into()));
    assert_eq!(
        error,
        "node 1 is this server itself, which cannot leave its own peers: stop it instead"
    );
    assert!(refused(&members, Change::RemoveAddress("a:1".into())).contains("itself"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_shares_its_stream_as_those_that_were_there_do() {
    let network = Network::new();
    let member = |me: u32| {
        let builder = builder(&network).one_stream_per_pair(me, WhileDisconnected::Wait);
        builder
            .node(me, format!("{me}:1"))
            .membership()
            .expect("legal")
    };
    let (first, second) = (member(1), member(2));
    let server = |me, members| peer(&network, me, members).trust_claimed_ids(true);
    let _first = TestServer::start_at(server(1, &first), "1:1").await;
    let _second = TestServer::start_at(server(2, &second), "2:1").await;
    second.apply(insert("1=1:1")).expect("it is new");
    first.apply(insert("2=2:1")).expect("it is new");
    for members in [&first, &second] {
        let call = Client::new(members.config()).quorum_call::<_, Number>(ASK, number(1));
        let replies = within(call.all().replies()).await.expect("all answer");
        assert!(
            replies.values().all(|reply| reply.value == 2),
            "{replies:?}"
        );
    }
    assert_eq!(network.attempts("2:1").len(), 1);
    assert_eq!(network.attempts("1:1").len(), 0, "the other one connects");
    // It has to be one of them itself.
    let error = builder(&network).one_stream_per_pair(1, WhileDisconnected::Wait);
    assert!(error.membership().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_one_of_its_members_is_refused() {
    let network = Network::new();
    let members = builder(&network)
        .node(1, "a:1")
        .membership()
        .expect("legal");
    let error = peer(&network, 2, &members)
        .bind("b:1")
        .await
        .expect_err("refused");
    assert!(
        error.to_string().contains("this server is to be node 2"),
        "{error}"
    );
}

// ---- waiting for those that are connected

/// Server 1 of two, and its membership. The other one is not there.
async fn alone(network: &Network) -> (Server, Membership) {
    network.set("b:1", Manner::Silent);
    let members = builder(network)
        .node(1, "a:1")
        .node(2, "b:1")
        .membership()
        .expect("legal");
    let server = peer(network, 1, &members).bind("a:1").await.expect("legal");
    (server, members)
}

#[tokio::test(start_paused = true)]
async fn peers_are_waited_for_whether_they_are_there_already_or_come() {
    let network = Network::new();
    let (server, members) = alone(&network).await;
    let peers = server.peers().expect("it has some");
    let _serving = tokio::spawn(server.serve());
    let own = within(peers.wait_for(|now| now.contains(&members.config()[0]))).await;
    assert_eq!(ids(&own.expect("it serves")), [1]);
    // Met already: at once.
    let begun = tokio::time::Instant::now();
    let met = peers
        .wait_for_within(Duration::ZERO, |now| now.len() == 1)
        .await;
    assert_eq!(ids(&met.expect("it is so")), [1]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Met later, by five at once.
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let peers = peers.clone();
            tokio::spawn(async move {
                peers
                    .wait_for_within(1000 * SECOND, |now| now.len() == 3)
                    .await
            })
        })
        .collect();
    settle().await;
    let _second = serve(&network, "b:1").await;
    network.set("b:1", Manner::Normal);
    let _third = serve(&network, "c:1").await;
    // A peer that joins later is one of them.
    members.apply(insert("3=c:1")).expect("it is new");
    for waiter in waiters {
        let met = within(waiter).await.expect("no panic");
        assert_eq!(ids(&met.expect("they came")), [1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_peers_in_vain_ends_at_the_deadline_and_says_who_is_there() {
    let network = Network::new();
    let (server, _members) = alone(&network).await;
    let (peers, clients) = (server.peers().expect("it has some"), server.clients());
    let _serving = tokio::spawn(server.serve());
    settle().await;
    let begun = tokio::time::Instant::now();
    let error = peers
        .wait_for_within(3 * SECOND, |now| now.len() == 2)
        .await;
    let error = error.expect_err("the other one is not there");
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert!(matches!(error, WaitError::Deadline { .. }));
    assert_eq!(error.to_string(), "waited for 3s in vain: connected are 1");
    assert_eq!(Status::from(error).code(), Code::DeadlineExceeded);
    let error = clients
        .wait_for_within(3 * SECOND, |now| now.len() == 1)
        .await;
    let error = error.expect_err("there are none");
    assert_eq!(
        error.to_string(),
        "waited for 3s in vain: nobody is connected"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_server() {
    let network = Network::new();
    let (server, members) = alone(&network).await;
    let (peers, clients) = (server.peers().expect("it has some"), server.clients());
    let serving = tokio::spawn(server.serve());
    let waiting = {
        let peers = peers.clone();
        tokio::spawn(async move { peers.wait_for_within(1000 * SECOND, |_| false).await })
    };
    settle().await;
    serving.abort();
    let stopped = within(waiting)
        .await
        .expect("no panic")
        .expect_err("it has stopped");
    assert!(matches!(stopped, WaitError::Stopped));
    assert_eq!(stopped.to_string(), "the server shuts down or has stopped");
    let none = peers.wait_for(|now| now.is_empty()).await;
    assert_eq!(none.expect("what is so already").len(), 0);
    let client = clients.wait_for_within(SECOND, |now| now.len() == 1).await;
    assert!(matches!(client, Err(WaitError::Stopped)));
    assert_eq!(ids(&members.config()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_last_change_of_the_connected_peers_is_never_missed() {
    let network = Network::new();
    let (server, members) = alone(&network).await;
    let peers = server.peers().expect("it has some");
    let mut changes = peers.watch();
    let serving = tokio::spawn(server.serve());
    let mut now = within(changes.next()).await.expect("it serves");
    while ids(&now) != [1] {
        now = within(changes.next()).await.expect("it serves");
    }
    // A call that is dropped loses nothing, and neither does one that comes late.
    assert!(tokio::time::timeout(SECOND, changes.next()).await.is_err());
    for round in 0..20 {
        let address = format!("c:{}", round + 1);
        let _server = serve(&network, &address).await;
        members
            .apply(Change::insert(10 + round, &*address))
            .expect("it is new");
        assert_eq!(
            within(changes.next()).await.map(|now| ids(&now)),
            Some(vec![1, 10 + round])
        );
        members
            .apply(Change::Remove((10 + round).into()))
            .expect("it is there");
        settle().await;
        assert_eq!(
            within(changes.next()).await.map(|now| ids(&now)),
            Some(vec![1])
        );
    }
    serving.abort();
    let last = within(changes.next()).await.map(|now| ids(&now));
    assert_eq!(last, Some(vec![]), "it has called itself, too");
    assert_eq!(within(changes.next()).await, None);
    assert_eq!(within(changes.next()).await, None, "and stays so");
}

// ---- a file of nodes

#[cfg(feature = "toml")]
mod file {
    use gorums::membership::NodeFile;

    use super::*;

    fn file(addresses: &[&str]) -> String {
        let nodes = addresses.iter().enumerate();
        let nodes = nodes.map(|(index, address)| {
            format!("[[node]]\nid = {}\naddress = \"{address}\"\n", index + 1)
        });
        nodes.collect()
    }

    #[tokio::test]
    async fn a_file_is_followed_and_what_is_wrong_with_it_costs_no_node() {
        let dir = std::env::temp_dir().join(format!("gorums-nodes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for the test");
        let path = dir.join("nodes.toml");
        let write = |text: &str| {
            let new = dir.join("new.toml");
            std::fs::write(&new, text).expect("a file for the test");
            std::fs::rename(&new, &path).expect("the same folder");
        };
        let network = Network::new();
        let members = builder(&network)
            .nodes(["a:1", "b:1"])
            .membership()
            .expect("legal");
        let mut watch = members.watch(Duration::MAX, Configuration::clone);
        assert_eq!(next(&mut watch).await, [1, 2]);
        let following = NodeFile::new(&path, Duration::from_millis(100));
        let following = tokio::spawn(members.follow(following));
        let error = async |expected: &str| {
            within(async {
                loop {
                    let error = members.last_error().map(|error| error.to_string());
                    if error.as_ref().is_some_and(|error| error.contains(expected)) {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(ids(&members.config()), [1, 2]);
        };
        error("nodes.toml").await;
        for (text, expected) in [
            ("", "there is no node"),
            ("[[node", "line 1"),
            ("[[node]]\naddress = \"a\"", "there is no port"),
            (
                "[[node]]\nid = 1\naddress = \"a:1\"\n[[node]]\naddress = \"b:1\"",
                "1 of 2",
            ),
        ] {
            write(text);
            error(expected).await;
        }
        write(&file(&["a:1", "z:1", "c:1"]));
        assert_eq!(next(&mut watch).await, [1, 2, 3]);
        assert_eq!(members.config()[1].address(), "z:1");
        assert!(members.last_error().is_none());
        // By hand, and back again.
        members
            .apply(Change::Remove(3.into()))
            .expect("it is there");
        within(async { while next(&mut watch).await != [1, 2, 3] {} }).await;
        write(&file(&["a:1"]));
        assert_eq!(next(&mut watch).await, [1]);
        let read = NodeFile::read(&path).expect("legal");
        assert_eq!(read, list("1=a:1"));
        assert!(NodeFile::read(&dir).is_err(), "it is no file");
        drop((members, watch));
        within(following).await.expect("it ends");
        std::fs::remove_dir_all(&dir).expect("the folder was made above");
    }
}
