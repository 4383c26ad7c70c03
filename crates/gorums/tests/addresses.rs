//! Where nodes are: one server is one node, whatever its addresses, and unix sockets are addresses
//! like others.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{Counter, Number, TestServer, echo, number, within};
use gorums::membership::{Change, NodeAddress, Watch, WhileDisconnected};
use gorums::runtime::{BoxFuture, Clock, SystemClock};
use gorums::server::{Incoming, Next, interceptor_fn};
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, Node, NodeId, NodeState, Outcome,
    QuorumErrorKind, Server, ServerBuilder, ServerCtx, Status,
};
use memory::Network;
use tokio::time::Instant;

const ECHO: &str = "test.Test.Echo";
const SECOND: Duration = Duration::from_secs(1);

fn on(network: &Network) -> ConfigurationBuilder {
    Configuration::builder().transport(network.clone())
}

async fn majority(nodes: &Configuration) -> Result<usize, gorums::QuorumError> {
    let call = Client::new(nodes).quorum_call::<_, Number>(ECHO, number(1));
    within(call.majority().replies())
        .await
        .map(|replies| replies.len())
}

async fn state(node: &Node, state: NodeState) {
    let mut watch = Configuration::from(node).watch(SECOND, move |node| {
        node.filter(|node| node.state() == state)
    });
    while within(watch.next())
        .await
        .expect("it never ends")
        .is_empty()
    {}
}

/// A clock without randomness: its servers cannot be told apart by a number.
#[derive(Debug)]
struct NoRandom;

impl Clock for NoRandom {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(at)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemClock.wall_clock()
    }

    fn random(&self) -> u64 {
        7
    }
}

/// Waits until one of the nodes is refused as the same server as another one, and returns both.
async fn refused(nodes: &Configuration) -> (Node, Node) {
    let mut watch: Watch = nodes.watch(Duration::from_millis(1), |nodes| {
        nodes.filter(|node| {
            node.same_server_as().is_some() && node.state() == NodeState::Disconnected
        })
    });
    loop {
        let now = within(watch.next()).await.expect("it never ends");
        if let Some(node) = now.iter().next() {
            let other = node.same_server_as().expect("it was refused");
            return (
                node.clone(),
                nodes.node(other).expect("one of them").clone(),
            );
        }
    }
}

// ---- one server is one node

#[tokio::test]
async fn a_server_with_two_addresses_is_no_majority_of_two() {
    let server = TestServer::start(echo()).await;
    let port = server.addr.port();
    // Two addresses of this machine that no text can tell to be one place.
    let nodes = Configuration::builder()
        .nodes([format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")])
        .connect()
        .expect("their texts differ");
    let error = majority(&nodes).await.expect_err("there is one server");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete, "{error}");
    let (second, first) = refused(&nodes).await;
    assert_eq!(first.same_server_as(), None);
    let status = second.last_error().expect("it was refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        format!(
            "{second} is the same server as {first}, which is not counted twice: give it one \
             address, or see ConfigurationBuilder::allow_same_server"
        )
    );
    // From now on its calls fail at once, and nothing of them is sent.
    let error = majority(&nodes).await.expect_err("there is one server");
    let failure = error.failure(second.id()).expect("it failed");
    assert_eq!(failure.outcome(), Outcome::NotSent, "{failure}");
    assert_eq!(failure.status().message(), status.message());
    let alone = nodes.select([first.id()]).expect("known");
    assert_eq!(majority(&alone).await.expect("it answers"), 1);
}

#[tokio::test]
async fn it_counts_as_two_where_that_is_allowed_and_the_nodes_tell() {
    let server = TestServer::start(echo()).await;
    let port = server.addr.port();
    let nodes = Configuration::builder()
        .nodes([format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")])
        .allow_same_server(true)
        .connect()
        .expect("their texts differ");
    assert_eq!(majority(&nodes).await.expect("both answer"), 2);
    let same: Vec<_> = nodes.iter().filter_map(Node::same_server_as).collect();
    assert_eq!(same.len(), 1, "one is the same as the other: {same:?}");
}

#[tokio::test]
async fn two_servers_of_one_process_are_two_nodes() {
    let servers = [
        TestServer::start(echo()).await,
        TestServer::start(echo()).await,
    ];
    let nodes = common::connect(&servers);
    assert_eq!(majority(&nodes).await.expect("both answer"), 2);
    assert!(nodes.iter().all(|node| node.same_server_as().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_the_same_server_stays_refused_when_that_restarts() {
    let network = Network::new();
    let server = TestServer::start_at(echo().transport(network.clone()), "a:1").await;
    network.alias("b:1", "a:1");
    let nodes = on(&network).nodes(["a:1", "b:1"]).connect().expect("legal");
    let (second, first) = refused(&nodes).await;
    server.stop().await;
    state(&first, NodeState::Disconnected).await;
    let _server = TestServer::start_at(echo().transport(network.clone()), "a:1").await;
    // It is another server now, but only the node that it was before gets it.
    for _ in 0..5 {
        let error = majority(&nodes).await.expect_err("there is one server");
        let failure = error.failure(second.id()).expect("it failed");
        assert_eq!(
            failure.status().code(),
            Code::FailedPrecondition,
            "{failure}"
        );
        tokio::time::sleep(10 * SECOND).await;
    }
    assert_eq!(first.state(), NodeState::Connected);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_another_server_in_the_end_is_connected() {
    let network = Network::new();
    let _a = TestServer::start_at(echo().transport(network.clone()), "a:1").await;
    network.alias("b:1", "a:1");
    let nodes = on(&network).nodes(["a:1"]).connect().expect("legal");
    within(nodes.connected(1)).await.expect("none is closed");
    let nodes = nodes.extend(["b:1"]).expect("another address");
    let (second, _) = refused(&nodes).await;
    let _b = TestServer::start_at(echo().transport(network.clone()), "b:1").await;
    network.forget_alias("b:1");
    within(nodes.connected(2)).await.expect("none is closed");
    within(async {
        while second.same_server_as().is_some() {
            tokio::time::sleep(SECOND).await;
        }
    })
    .await;
    assert_eq!(majority(&nodes).await.expect("both answer"), 2);
    assert!(second.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn nodes_whose_addresses_are_exchanged_are_both_connected_again() {
    let network = Network::new();
    let _a = TestServer::start_at(echo().transport(network.clone()), "a:1").await;
    let _b = TestServer::start_at(echo().transport(network.clone()), "b:1").await;
    network.alias("x:1", "a:1");
    network.alias("y:1", "b:1");
    let nodes = on(&network).nodes(["x:1", "y:1"]).connect().expect("legal");
    assert_eq!(majority(&nodes).await.expect("both answer"), 2);
    network.alias("x:1", "b:1");
    network.alias("y:1", "a:1");
    network.cut("a:1");
    network.cut("b:1");
    state(&nodes[0], NodeState::Disconnected).await;
    within(async {
        while majority(&nodes).await.is_err() {
            tokio::time::sleep(SECOND).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_the_place_of_one_that_nobody_holds_any_more() {
    let network = Network::new();
    let _a = TestServer::start_at(echo().transport(network.clone()), "a:1").await;
    network.alias("b:1", "a:1");
    let _c = TestServer::start_at(echo().transport(network.clone()), "c:1").await;
    let mut nodes = on(&network).nodes(["c:1", "a:1"]).connect().expect("legal");
    within(nodes.connected(2)).await.expect("none is closed");
    nodes = nodes.without(2);
    nodes = nodes.extend(["b:1"]).expect("another address");
    within(nodes.connected(2)).await.expect("none is closed");
    assert_eq!(majority(&nodes).await.expect("both answer"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_for_a_node_that_is_refused_fails_and_is_sent_to_nobody() {
    let network = Network::new();
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&handled);
    let server = Server::builder().transport(network.clone()).unary(
        ECHO,
        move |_: ServerCtx, request: Number| {
            seen.lock().expect("no panic").push(request.value);
            async move { Ok::<_, Status>(request) }
        },
    );
    let _server = TestServer::start_at(server, "a:1").await;
    network.alias("b:1", "a:1");
    let nodes = on(&network).nodes(["a:1"]).connect().expect("legal");
    within(nodes.connected(1)).await.expect("none is closed");
    let nodes = nodes.extend(["b:1"]).expect("another address");
    let (second, first) = refused(&nodes).await;
    let client = Client::new(&nodes);
    for value in 1..=100 {
        let error = within(client.rpc::<_, Number>(&second, ECHO, number(value)))
            .await
            .expect_err("refused");
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
    }
    let last = within(client.rpc::<_, Number>(&first, ECHO, number(101)));
    last.await.expect("it answers");
    assert_eq!(*handled.lock().expect("no panic"), [101]);
}

fn peer(network: &Network, me: u32, nodes: &Configuration) -> ServerBuilder {
    echo()
        .transport(network.clone())
        .trust_claimed_ids(true)
        .peers(me, nodes)
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_own_address_is_listed_under_another_id_does_not_count_twice() {
    let network = Network::new();
    network.alias("b:1", "a:1");
    // Otherwise the server turns away who takes it for another node.
    let nodes = on(&network).nodes(["a:1", "b:1"]).allow_other_ids(true);
    let nodes = nodes.connect().expect("legal");
    let _server = TestServer::start_at(peer(&network, 1, &nodes), "a:1").await;
    let (second, first) = refused(&nodes).await;
    assert_eq!((first.id().get(), second.id().get()), (1, 2));
    let error = majority(&nodes).await.expect_err("there is one server");
    assert_eq!(
        error.failure(2.into()).expect("it failed").status().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_and_is_connected_to_under_another_id_is_one_node() {
    let network = Network::new();
    // To 2, the nodes 1, which connects to it, and 3, which it connects to, are one server.
    let of_2 = on(&network)
        .node(1, "a:1")
        .node(2, "b:1")
        .node(3, "also-a:1")
        .one_stream_per_pair(2, WhileDisconnected::Wait)
        .allow_other_ids(true)
        .connect()
        .expect("legal");
    network.alias("also-a:1", "a:1");
    let _two = TestServer::start_at(peer(&network, 2, &of_2), "b:1").await;
    let of_1 = on(&network)
        .node(1, "a:1")
        .node(2, "b:1")
        .one_stream_per_pair(1, WhileDisconnected::Wait)
        .connect()
        .expect("legal");
    let _one = TestServer::start_at(peer(&network, 1, &of_1), "a:1").await;
    let others = of_2.without(2);
    let (second, _) = refused(&others).await;
    assert!(others.contains(&second));
    majority(&others).await.expect_err("there is one server");
    assert_eq!(majority(&of_2).await.expect("two of three"), 2);
}

// ---- a server is the node that it is listed as

/// Two peers at `a:1` and `b:1`, which count what they handle, and how much that is.
async fn two_peers(network: &Network) -> (Vec<TestServer>, Counter) {
    let handled = Counter::new();
    let mut servers = Vec::new();
    for (me, address) in [(1, "a:1"), (2, "b:1")] {
        let nodes = on(network).node(1, "a:1").node(2, "b:1");
        let nodes = nodes.connect().expect("legal");
        let server = peer(network, me, &nodes).interceptor({
            let handled = handled.clone();
            interceptor_fn(move |incoming: Incoming, next: Next| {
                handled.add();
                next.run(incoming)
            })
        });
        servers.push(TestServer::start_at(server, address).await);
    }
    (servers, handled)
}

#[tokio::test]
async fn a_server_that_is_another_node_is_written_nothing_and_the_error_says_which() {
    let network = Network::new();
    let (_servers, handled) = two_peers(&network).await;
    let swapped = || on(&network).node(1, "b:1").node(2, "a:1");
    let nodes = swapped().connect().expect("the texts are legal");
    for _ in 0..3 {
        let call = Client::new(&nodes).quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.all()).await.expect_err("both are another");
        let failure = error.failure(NodeId::from(1)).or(error.failures().first());
        let failure = failure.expect("a node has failed");
        assert_eq!(failure.outcome(), Outcome::Refused, "{failure}");
        assert_eq!(failure.code(), Code::FailedPrecondition, "{failure}");
        let expected = match failure.node().get() {
            1 => "the server at b:1 is node 2, and was connected to as node 1",
            _ => "the server at a:1 is node 1, and was connected to as node 2",
        };
        assert!(failure.to_string().contains(expected), "{failure}");
        let last = nodes.node(failure.node()).and_then(Node::last_error);
        assert!(last.expect("it was refused").message().contains(expected));
    }
    assert_eq!(handled.get(), 0, "nothing reaches the wrong replica");
    let allowed = swapped().allow_other_ids(true).connect().expect("legal");
    let counted = on(&network).nodes(["b:1", "a:1"]).connect().expect("legal");
    for nodes in [allowed, counted] {
        assert_eq!(majority(&nodes).await.expect("its ids are its own"), 2);
    }
}

#[tokio::test]
async fn ids_that_agree_or_that_nobody_knows_are_connected_to() {
    let network = Network::new();
    let (_servers, _) = two_peers(&network).await;
    let agree = on(&network).node(2, "b:1").node(1, "a:1");
    assert_eq!(
        majority(&agree.connect().expect("legal"))
            .await
            .expect("both"),
        2
    );
    // A server that is no peer does not know its id.
    let server = echo().transport(network.clone());
    let _alone = TestServer::start_at(server, "c:1").await;
    let alone = on(&network).node(7, "c:1").connect().expect("legal");
    assert_eq!(majority(&alone).await.expect("it answers"), 1);
}

#[tokio::test]
async fn a_node_whose_address_is_mended_is_connected_to() {
    let network = Network::new();
    let (_servers, handled) = two_peers(&network).await;
    let members = on(&network).node(1, "b:1").node(2, "a:1").membership();
    let members = members.expect("the texts are legal");
    majority(&members.config())
        .await
        .expect_err("both are another");
    let mended = NodeAddress::list("1=a:1, 2=b:1").expect("legal");
    members.set(mended).expect("legal");
    assert_eq!(majority(&members.config()).await.expect("both"), 2);
    assert!(handled.get() >= 2);
}

#[tokio::test]
async fn nodes_without_ids_that_come_back_are_not_taken_to_have_chosen_theirs() {
    let network = Network::new();
    let (_servers, _) = two_peers(&network).await;
    let members = on(&network).membership().expect("it may be empty");
    let join = |address: &str| members.apply(Change::Insert(address.parse().expect("legal")));
    for address in ["b:1", "a:1"] {
        join(address).expect("it is new");
    }
    members
        .apply(Change::Remove(1.into()))
        .expect("it is there");
    join("b:1").expect("it comes back");
    assert_eq!(members.config()[1].id().get(), 1);
    assert_eq!(majority(&members.config()).await.expect("both"), 2);
}

// ---- interfaces

/// With glibc. `lo` is the loopback interface of every Linux, which has no link-local address:
/// nobody can be reached there, but the name is known.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[tokio::test]
async fn the_interface_of_a_link_local_address_is_found_by_its_name() {
    use gorums::runtime::{Tcp, Transport};

    let error = async |address| {
        let connected = within(Tcp.connect(address)).await;
        connected.err().expect("nobody is there").to_string()
    };
    let unknown = error("[fe80::1%gorums-none]:9").await;
    assert!(unknown.contains("lookup"), "{unknown}");
    let known = error("[fe80::1%lo]:9").await;
    assert!(!known.contains("lookup"), "{known}");
    assert_eq!(known, error("[fe80::1%1]:9").await, "lo is the first");
}

// ---- servers that do not say who they are

#[tokio::test]
async fn servers_that_do_not_say_who_they_are_are_told_by_where_connections_lead() {
    // A clock without randomness gives a server no number.
    let server = TestServer::start(echo().clock(NoRandom)).await;
    let port = server.addr.port();
    let nodes = Configuration::builder()
        .nodes([format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")])
        .connect()
        .expect("their texts differ");
    let error = majority(&nodes).await.expect_err("there is one server");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete, "{error}");
    refused(&nodes).await;
    majority(&nodes).await.expect_err("there is one server");
}

// ---- unix sockets

#[cfg(unix)]
mod unix {
    use std::io::ErrorKind;
    use std::path::PathBuf;

    use gorums::ServerError;
    use gorums::membership::NodeAddress;

    use super::*;

    /// A folder for sockets, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("gorums-{}-{test}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder for the test");
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn address(&self, name: &str) -> String {
            format!("unix:{}", self.path(name).display())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A server whose end can be waited for.
    struct Serving(tokio::task::JoinHandle<()>);

    async fn serve(builder: ServerBuilder, address: &str) -> Serving {
        let server = builder.bind(address).await.expect("it can be listened on");
        assert_eq!(server.local_addr().to_string(), address);
        assert_eq!(server.local_addr().port(), None);
        Serving(tokio::spawn(server.serve()))
    }

    impl Serving {
        async fn stop(self) {
            self.0.abort();
            let _ = self.0.await;
        }
    }

    async fn listens(address: &str) -> Result<Server, String> {
        echo().bind(address).await.map_err(|error| {
            let ServerError::Listen(cause) = &error else {
                panic!("{error}");
            };
            assert_eq!(cause.kind(), ErrorKind::AddrInUse);
            error.to_string()
        })
    }

    #[tokio::test]
    async fn calls_go_over_unix_sockets_beside_tcp() {
        let folder = Folder::new("calls");
        let address = folder.address("a");
        let server = Server::builder().unary(ECHO, |ctx: ServerCtx, mut request: Number| {
            request.value += u64::from(ctx.peer_addr().is_some());
            async move { Ok::<_, Status>(request) }
        });
        let _unix = serve(server, &address).await;
        let tcp = TestServer::start(echo()).await;
        let nodes = NodeAddress::list(&format!("1={address}, 2={}", tcp.addr)).expect("legal");
        let nodes = Configuration::builder()
            .addresses(nodes)
            .connect()
            .expect("legal");
        assert_eq!(nodes[0].address(), address);
        let call = Client::new(&nodes).quorum_call::<_, Number>(ECHO, number(7));
        let replies = within(call.all().replies()).await.expect("both answer");
        assert!(
            replies.values().all(|reply| reply.value == 7),
            "no peer has an address"
        );
    }

    #[tokio::test]
    async fn a_server_that_restarts_on_its_path_is_connected_to_again() {
        let folder = Folder::new("restart");
        let address = folder.address("a");
        let nodes = Configuration::builder()
            .nodes([&*address])
            .connect()
            .expect("legal");
        for _ in 0..3 {
            let server = serve(echo(), &address).await;
            within(nodes.connected(1)).await.expect("none is closed");
            assert_eq!(majority(&nodes).await.expect("it answers"), 1);
            server.stop().await;
            assert!(!folder.path("a").exists(), "its file is removed");
            state(&nodes[0], NodeState::Disconnected).await;
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced_and_nothing_else_is() {
        let folder = Folder::new("stale");
        let address = folder.address("a");
        // A process that is killed leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(folder.path("a")).expect("a socket"));
        let server = listens(&address).await.expect("nobody listens there");
        let taken = listens(&address).await.expect_err("somebody listens there");
        assert!(taken.contains(&address), "{taken}");
        drop(server);
        std::fs::write(folder.path("a"), "kept").expect("a file");
        listens(&address).await.expect_err("it is no socket");
        assert_eq!(
            std::fs::read(folder.path("a")).expect("it is there"),
            b"kept"
        );
    }

    #[tokio::test]
    async fn a_server_leaves_the_socket_of_its_successor() {
        let folder = Folder::new("successor");
        let address = folder.address("a");
        let first = listens(&address).await.expect("it is free");
        std::fs::remove_file(folder.path("a")).expect("it is there");
        let _second = listens(&address).await.expect("it is free");
        drop(first);
        assert!(folder.path("a").exists());
        let connected = tokio::net::UnixStream::connect(folder.path("a"));
        within(connected).await.expect("the second one listens");
    }

    #[tokio::test]
    async fn a_path_with_two_names_is_one_node() {
        let folder = Folder::new("names");
        std::os::unix::fs::symlink(&folder.0, folder.path("link")).expect("a link");
        let [address, other] = [folder.address("a"), folder.address("link/a")];
        let error = Configuration::builder()
            .nodes([&*address, &*other])
            .connect()
            .expect_err("one place");
        assert_eq!(
            error.to_string(),
            format!("nodes 1 and 2 have the same address {other}")
        );
    }

    #[tokio::test]
    async fn peers_share_streams_over_unix_sockets() {
        let folder = Folder::new("peers");
        let [a, b] = [folder.address("a"), folder.address("b")];
        let mut all = Vec::new();
        for (me, address) in [(1, &a), (2, &b)] {
            let nodes = Configuration::builder()
                .nodes([&*a, &*b])
                .one_stream_per_pair(me, WhileDisconnected::Wait)
                .connect()
                .expect("legal");
            let server = echo().trust_claimed_ids(true).peers(me, &nodes);
            all.push((serve(server, address).await, nodes));
        }
        for (_, nodes) in &all {
            let call = Client::new(nodes).quorum_call::<_, Number>(ECHO, number(1));
            assert_eq!(
                within(call.all().replies())
                    .await
                    .expect("both answer")
                    .len(),
                2
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_abstract_name_leaves_no_file() {
        let address = format!("unix:@gorums-{}", std::process::id());
        let server = serve(echo(), &address).await;
        let nodes = Configuration::builder()
            .nodes([&*address])
            .connect()
            .expect("legal");
        assert_eq!(majority(&nodes).await.expect("it answers"), 1);
        let (_, name) = address.split_once('@').expect("it is abstract");
        for file in [name.to_owned(), format!("@{name}")] {
            assert!(!std::path::Path::new(&file).exists(), "{file}");
        }
        listens(&address).await.expect_err("somebody listens there");
        server.stop().await;
        drop(listens(&address).await.expect("it is free again"));
    }
}
