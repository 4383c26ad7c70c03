//! Configurations that live: what is known of their nodes, and nodes that come and go while calls
//! run.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{Counter, Number, TestServer, cluster, echo, number, within};
use futures_core::Stream;
use gorums::membership::Watch;
use gorums::{
    Client, Code, Configuration, ConfigurationBuilder, ConfigurationError, Node, NodeId, NodeState,
    ReplySender, ServerBuilder, ServerCtx, Status,
};
use memory::{Network, settle};
use tokio::sync::Barrier;

const ECHO: &str = "test.Test.Echo";
/// Is answered after so many milliseconds as the request says.
const SLOW: &str = "test.Test.Slow";
/// Is refused after so many milliseconds as the request says.
const FAIL: &str = "test.Test.Fail";
/// Answers twice: at once, and after so many milliseconds as the request says.
const STREAM: &str = "test.Test.Stream";
const NOTE: &str = "test.Test.Note";
/// Answers with the number of the `token` that came with the connection.
const TOKEN: &str = "test.Test.Token";

const SECOND: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(1_000_000);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A server with all of these methods.
fn server() -> ServerBuilder {
    echo()
        .unary(SLOW, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            tokio::time::sleep(millis(request.value)).await;
            Ok::<_, Status>(request)
        })
        .unary(FAIL, |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            tokio::time::sleep(millis(request.value)).await;
            Err::<Number, _>(Status::not_found("no"))
        })
        .streaming(
            STREAM,
            |ctx: ServerCtx, request: Number, replies: ReplySender<Number>| async move {
                ctx.release();
                replies.send(number(0)).await?;
                tokio::time::sleep(millis(request.value)).await;
                replies.send(number(1)).await?;
                Ok(())
            },
        )
        .one_way(NOTE, |_ctx, _request: Number| std::future::ready(()))
        .unary(TOKEN, |ctx: ServerCtx, _request: Number| async move {
            let token = ctx.connection_metadata().get("token");
            let token = token.and_then(|token| token.parse().ok());
            token
                .map(number)
                .ok_or_else(|| Status::unauthenticated("no token"))
        })
}

async fn serve(network: &Network, address: &str, builder: ServerBuilder) -> TestServer {
    TestServer::start_at(builder.transport(network.clone()), address).await
}

fn builder(network: &Network) -> ConfigurationBuilder {
    Configuration::builder().transport(network.clone())
}

/// Servers at these addresses, and a configuration of them.
async fn living<const N: usize>(addresses: [&str; N]) -> (Network, Vec<TestServer>, Configuration) {
    let network = Network::new();
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(serve(&network, address, server()).await);
    }
    let configuration = builder(&network).nodes(addresses).connect();
    let configuration = configuration.expect("legal addresses");
    within(configuration.connected(N))
        .await
        .expect("none is closed");
    (network, servers, configuration)
}

fn ids(configuration: &Configuration) -> Vec<u32> {
    configuration.ids().map(NodeId::get).collect()
}

async fn call(node: &Node, method: &'static str, value: u64) -> Result<u64, Code> {
    let call = Client::new(node).rpc::<_, Number>(node, method, number(value));
    within(call)
        .await
        .map(|reply| reply.value)
        .map_err(|error| error.code())
}

/// All nodes answer.
async fn assert_all_answer(configuration: &Configuration) {
    let call = Client::new(configuration).quorum_call::<_, Number>(ECHO, number(9));
    let reply = within(call.all()).await;
    assert_eq!(reply.expect("all are up").value, 9);
}

fn connected(all: &Configuration) -> Configuration {
    all.filter(|node| node.state() == NodeState::Connected)
}

/// Counts connections that begin and that end.
fn counting(begun: &Counter, ended: &Counter) -> ServerBuilder {
    struct End(Counter);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.add();
        }
    }
    let (begun, ended) = (begun.clone(), ended.clone());
    server().on_connect(move |connecting| {
        begun.add();
        connecting.set_value(Arc::new(End(ended.clone())));
        Ok(())
    })
}

// ---- what is known of a node

#[tokio::test(start_paused = true)]
async fn the_latency_is_that_of_replies_and_of_nothing_else() {
    let (_network, _servers, all) = living(["a:1"]).await;
    let node = &all[0];
    assert_eq!((node.latency(), node.latency_quantile(0.5)), (None, None));
    call(node, SLOW, 50).await.expect("up");
    let first = node.latency().expect("it has answered");
    assert!(first >= millis(50) && first < millis(60), "{first:?}");
    // None of these is a sample.
    assert_eq!(call(node, FAIL, 1000).await, Err(Code::NotFound));
    let client = Client::new(&all);
    within(client.unicast(node, NOTE, number(0)))
        .await
        .expect("up");
    let streamed = client.streamed_quorum_call::<_, Number>(STREAM, number(1000));
    let mut replies = streamed.responses();
    for _ in 0..2 {
        let reply = within(replies.next()).await.expect("two replies");
        reply.into_result().expect("up");
    }
    let dropped = client.rpc::<_, Number>(node, SLOW, number(1000)).send();
    settle().await;
    drop(dropped);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(node.latency(), Some(first));
    assert_eq!(node.latency_quantile(0.0), Some(first));
    assert_eq!(node.latency_quantile(1.0), Some(first));
    // And this is.
    call(node, SLOW, 100).await.expect("up");
    let average = node.latency().expect("it has answered");
    assert!(average >= millis(60) && average < millis(70), "{average:?}");
    let greatest = node.latency_quantile(1.0).expect("it has answered");
    assert!(greatest >= millis(100) && greatest < millis(110));
    assert_eq!(node.latency_quantile(0.5), Some(first));
}

#[tokio::test(start_paused = true)]
async fn the_nearest_nodes_come_first() {
    let (_network, _servers, all) = living(["a:1", "b:1", "c:1", "d:1"]).await;
    for (node, delay) in all.iter().zip([30, 20, 10]) {
        call(node, SLOW, delay).await.expect("up");
    }
    assert_eq!(ids(&all.sort_by(Node::by_latency)), [3, 2, 1, 4]);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_cleared_when_the_node_works_again() {
    let network = Network::new();
    let nodes = ["a:1", "b:1"];
    let all = builder(&network).nodes(nodes).connect().expect("legal");
    let _b = serve(&network, "b:1", server()).await;
    network.attempted("a:1", 2).await;
    let error = all[0].last_error().expect("nobody is there");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("refused"), "{error}");
    let a = serve(&network, "a:1", server()).await;
    call(&all[0], ECHO, 1).await.expect("up");
    assert!(all[0].last_error().is_none());
    // An error that the node answers with is none of its connection.
    assert_eq!(call(&all[0], FAIL, 1).await, Err(Code::NotFound));
    assert!(all[0].last_error().is_none());
    // It does not take a call.
    a.stop().await;
    network.cut("a:1");
    settle().await;
    assert!(all[0].last_error().is_some());
    assert_eq!(ids(&all.sort_by(Node::by_last_error)), [2, 1]);
    let _a = serve(&network, "a:1", server()).await;
    within(all.connected(2)).await.expect("none is closed");
    settle().await;
    assert!(all[0].last_error().is_none());
    assert_eq!(ids(&all.sort_by(Node::by_last_error)), [1, 2]);
}

// ---- sets of nodes

#[tokio::test(start_paused = true)]
async fn a_configuration_has_the_nodes_that_it_was_given() {
    let network = Network::new();
    let listed = builder(&network).nodes(["a:1", "b:1", "c:1"]).connect();
    let listed = listed.expect("legal addresses");
    assert_eq!((listed.len(), ids(&listed)), (3, vec![1, 2, 3]));
    let named = builder(&network).node(7, "a:1").node(3, "b:1").connect();
    let named = named.expect("legal addresses");
    assert_eq!(ids(&named), [7, 3]);
    assert_eq!(named.node(3).map(Node::address), Some("b:1"));
    assert_eq!(named[0].to_string(), "node 7 (a:1)");
}

#[tokio::test]
async fn calls_on_parts_need_a_majority_of_the_part() {
    let (_servers, c1) = cluster(6, |_| server()).await;
    let c2 = c1.without(1).without(2);
    let c3 = c2.union(&c1.select([1]).expect("known")).expect("one pool");
    let c4 = c1.difference(&c2);
    for (configuration, expected) in [
        (&c1, vec![1, 2, 3, 4, 5, 6]),
        (&c2, vec![3, 4, 5, 6]),
        (&c3, vec![3, 4, 5, 6, 1]),
        (&c4, vec![1, 2]),
    ] {
        assert_eq!(ids(configuration), expected);
        let call = Client::new(configuration).quorum_call::<_, Number>(ECHO, number(5));
        let replies = within(call.majority().replies()).await.expect("all are up");
        assert!(replies.len() > expected.len() / 2);
        assert!(replies.values().all(|reply| reply.value == 5));
        let answered = |node: &Node| replies.get(node.id()).is_some();
        assert_eq!(
            configuration.iter().filter(|node| answered(node)).count(),
            replies.len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_without_the_nodes_that_failed() {
    let (_network, mut servers, all) = living(["a:1", "b:1", "c:1"]).await;
    servers.remove(1).stop().await;
    settle().await;
    let call = |on: &Configuration| {
        let call = Client::new(on).quorum_call::<_, Number>(ECHO, number(1));
        within(call.all().into_future())
    };
    let error = call(&all).await.expect_err("one is down");
    let rest = all.without_errors(&error);
    assert_eq!(ids(&rest), [1, 3]);
    call(&rest).await.expect("both are up");
    assert_eq!(
        all.without_failed(&error, |failure| failure.code() == Code::NotFound),
        all
    );
}

// ---- watching

async fn next(watch: &mut Watch) -> Vec<u32> {
    ids(&within(watch.next()).await.expect("it never ends"))
}

#[tokio::test(start_paused = true)]
async fn a_watch_follows_nodes_that_go_down_and_come_back() {
    let (network, mut servers, all) = living(["a:1", "b:1", "c:1"]).await;
    let mut watch = all.watch(NEVER, connected);
    assert_eq!(next(&mut watch).await, [1, 2, 3]);
    servers.remove(1).stop().await;
    assert_eq!(next(&mut watch).await, [1, 3]);
    servers.push(serve(&network, "b:1", server()).await);
    // As a stream, too.
    let next = within(poll_fn(|cx| Pin::new(&mut watch).poll_next(cx))).await;
    assert_eq!(ids(&next.expect("it never ends")), [1, 2, 3]);
    let nothing = tokio::time::timeout(100 * SECOND, watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_holds_its_nodes_and_ends_when_it_is_dropped() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let network = Network::new();
    let _server = serve(&network, "a:1", counting(&begun, &ended)).await;
    let all = builder(&network).nodes(["a:1"]).connect().expect("legal");
    within(all.connected(1)).await.expect("none is closed");
    let looks = Counter::new();
    let mut watch = all.watch(SECOND, {
        let looks = looks.clone();
        move |all| {
            looks.add();
            all.clone()
        }
    });
    assert_eq!(within(watch.next()).await, Some(all.clone()));
    drop(all);
    assert!(
        tokio::time::timeout(10 * SECOND, watch.next())
            .await
            .is_err()
    );
    assert_eq!(ended.get(), 0);
    drop(watch);
    ended.reached(1).await;
    let so_far = looks.get();
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(looks.get(), so_far);
}

/// Drives a future without any runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// Runs this on a thread that belongs to no runtime.
async fn outside<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        assert!(tokio::runtime::Handle::try_current().is_err());
        let _ = tell.send(f());
    });
    within(told).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_can_be_asked_outside_a_runtime() {
    let (_network, _servers, all) = living(["a:1", "b:1"]).await;
    let looks = Counter::new();
    let mut watch = all.watch(millis(1), {
        let looks = looks.clone();
        move |all| {
            if looks.add() < 5 {
                all.without(2)
            } else {
                all.clone()
            }
        }
    });
    let (first, second) =
        outside(move || block_on(async { (watch.next().await, watch.next().await) })).await;
    let ids = |next: Option<Configuration>| ids(&next.expect("it never ends"));
    assert_eq!((ids(first), ids(second)), (vec![1], vec![1, 2]));
    assert_eq!(looks.get(), 5);
}

/// Connects in a runtime of its own.
fn elsewhere(builder: ConfigurationBuilder) -> (tokio::runtime::Runtime, Configuration) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let guard = runtime.enter();
    let configuration = builder.connect().expect("legal addresses");
    drop(guard);
    (runtime, configuration)
}

async fn closed(node: &Node) {
    while node.state() != NodeState::Closed {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_watch_outlives_the_runtime_of_its_nodes() {
    let server = TestServer::start(server()).await;
    let addresses = [server.addr.to_string()];
    let (runtime, all) = elsewhere(Configuration::builder().nodes(addresses));
    within(all.connected(1)).await.expect("none is closed");
    let mut watch = all.watch(millis(1), connected);
    assert_eq!(next(&mut watch).await, [1]);
    runtime.shutdown_background();
    assert_eq!(next(&mut watch).await, []);
    closed(&all[0]).await;
    // Asked by whoever has no runtime either: there is nothing to come, and no panic.
    outside(move || {
        let mut next = pin!(watch.next());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(next.as_mut().poll(&mut cx).is_pending());
    })
    .await;
}

// ---- nodes that come

#[tokio::test(start_paused = true)]
async fn nodes_are_added_by_address_or_with_ids() {
    let (network, _servers, all) = living(["a:1", "b:1"]).await;
    let four = all.extend(["c:1", "d:1"]).expect("legal addresses");
    assert_eq!(ids(&four), [1, 2, 3, 4]);
    assert_eq!(ids(&all), [1, 2], "it stays as it was");
    let more = all
        .extend_with_ids([(9, "e:1"), (7, "f:1")])
        .expect("legal");
    assert_eq!(ids(&more), [1, 2, 9, 7]);
    let next = more.extend(["g:1"]).expect("legal address");
    assert_eq!(
        ids(&next),
        [1, 2, 9, 7, 10],
        "after the greatest of the pool"
    );
    let same = all
        .extend::<String>([])
        .expect("nothing is wrong with nothing");
    assert_eq!(ids(&same), [1, 2]);
    let same = all.extend_with_ids::<u32, String>([]).expect("nor here");
    assert_eq!(ids(&same), [1, 2]);
    // The nodes that are shared are the very same ones.
    assert_eq!(four.intersection(&next), all);
    let _servers = [
        serve(&network, "c:1", server()).await,
        serve(&network, "d:1", server()).await,
    ];
    within(four.connected(4)).await.expect("none is closed");
    assert_all_answer(&four).await;
}

#[tokio::test(start_paused = true)]
async fn an_added_node_has_what_its_pool_has() {
    let network = Network::new();
    let _servers = [
        serve(&network, "a:1", server()).await,
        serve(&network, "b:1", server()).await,
    ];
    let all = builder(&network)
        .nodes(["a:1"])
        .metadata("token", "17")
        .max_decoding_message_size(100)
        .connect()
        .expect("legal");
    let both = all.extend(["b:1"]).expect("legal");
    assert_eq!(call(&both[1], TOKEN, 0).await, Ok(17));
    let large = Number {
        value: 1,
        payload: vec![0; 200].into(),
    };
    let client = Client::new(&both);
    let error = within(client.rpc::<_, Number>(&both[1], ECHO, large).send()).await;
    let error = error.expect_err("too large a reply");
    assert_eq!(error.code(), Code::ResourceExhausted);
    // A deadline is the pool's work.
    let late = client
        .rpc::<_, Number>(&both[1], SLOW, number(10_000))
        .timeout(SECOND)
        .send();
    assert_eq!(
        within(late).await.expect_err("late").code(),
        Code::DeadlineExceeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_pool_has_is_taken_as_it_is() {
    let (network, _servers, all) = living(["a:1", "localhost:2"]).await;
    let three = all.extend_with_ids([(5, "c:1")]).expect("legal");
    for again in [
        all.extend(["C:1"]),
        all.extend_with_ids([(5, "c:1")]),
        all.extend(["a:1", "c:1"]),
        all.extend_with_ids([(2, "127.0.0.1:2"), (5, "c:1")]),
        three.extend(["127.0.0.1:2"]),
    ] {
        let again = again.expect("the same nodes");
        assert_eq!(again, three);
        assert_eq!(ids(&again), [1, 2, 5]);
    }
    let mixed = all.select([1]).and_then(|one| one.extend(["d:1", "c:1"]));
    assert_eq!(ids(&mixed.expect("legal")), [1, 6, 5]);
    settle().await;
    assert_eq!(network.attempts("a:1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn wrong_nodes_are_refused_and_none_is_added() {
    let (network, _servers, all) = living(["a:1", "localhost:2"]).await;
    let six = all.extend_with_ids([(6, "c:1")]).expect("legal");
    let with_ids = |nodes: &[(u32, &str)]| all.extend_with_ids(nodes.iter().copied());
    for (result, expected) in [
        (with_ids(&[(0, "x:1")]), "node 0 (x:1): ids start at 1"),
        (
            with_ids(&[(1, "x:1")]),
            "two nodes have the id 1: node 1 is a:1 and x:1",
        ),
        (
            with_ids(&[(9, "a:1")]),
            "nodes 1 and 9 have the same address a:1",
        ),
        (
            with_ids(&[(9, "A:1")]),
            "nodes 1 and 9 have the same address A:1",
        ),
        (
            with_ids(&[(9, "127.0.0.1:2")]),
            "nodes 2 and 9 have the same address 127.0.0.1:2",
        ),
        // Of a node that only another configuration of the pool has.
        (
            with_ids(&[(6, "x:1")]),
            "two nodes have the id 6: node 6 is c:1 and x:1",
        ),
        (
            with_ids(&[(9, "c:1")]),
            "nodes 6 and 9 have the same address c:1",
        ),
        (
            with_ids(&[(8, "x:1"), (8, "y:1")]),
            "two nodes have the id 8: node 8 is x:1 and y:1",
        ),
        (
            with_ids(&[(8, "x:1"), (9, "x:1")]),
            "nodes 8 and 9 have the same address x:1",
        ),
        (
            with_ids(&[(8, "x:1"), (8, "x:1")]),
            "node 8 (x:1) is named twice",
        ),
        (
            with_ids(&[(1, "a:1"), (1, "a:1")]),
            "node 1 (a:1) is named twice",
        ),
        (all.extend(["a:1", "a:1"]), "node 1 (a:1) is named twice"),
        (
            all.extend(["x:1", "x:1"]),
            "nodes 7 and 8 have the same address x:1",
        ),
        (
            with_ids(&[(8, "x:1"), (9, "y")]),
            "address \"y\": there is no port; expected host:port or unix:/path",
        ),
        (
            all.extend(["x:1", "y:0"]),
            "address \"y:0\": port 0 cannot be connected to",
        ),
    ] {
        assert_eq!(result.expect_err(expected).to_string(), expected);
    }
    settle().await;
    assert!(network.attempts("x:1").is_empty());
    // Neither ids nor addresses were taken.
    let next = all.extend(["x:1"]).expect("legal");
    assert_eq!(ids(&next), [1, 2, 7]);
    drop(six);
}

#[tokio::test]
async fn without_a_runtime_new_nodes_are_an_error_and_known_ones_are_not() {
    let (_network, _servers, all) = living(["a:1", "b:1"]).await;
    let (error, known, all) = outside(move || {
        let one = all.select([1]).expect("known");
        (all.extend(["c:1"]), one.extend(["b:1"]), all)
    })
    .await;
    let error = error.expect_err("there is no runtime");
    assert!(matches!(error, ConfigurationError::NoRuntime), "{error}");
    assert_eq!(known.expect("no new node"), all);
    let three = all.extend(["c:1"]).expect("here is one");
    assert_eq!(ids(&three), [1, 2, 3], "no id was used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_can_be_extended_at_the_same_time() {
    const TASKS: u32 = 8;
    let (_network, _servers, all) = living(["a:1"]).await;
    let barrier = Arc::new(Barrier::new(TASKS as usize));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (all, barrier) = (all.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let listed = all.extend([format!("listed-{task}:1"), format!("listed-{task}:2")]);
                // Far apart: the others get ids after the greatest.
                let named = all.extend_with_ids([(1000 * (task + 1), format!("named-{task}:1"))]);
                let shared = all.extend(["shared:1"]);
                [listed, named, shared].map(|result| result.expect("no id and no address is taken"))
            })
        })
        .collect();
    let mut extended = Vec::new();
    for task in tasks {
        extended.push(within(task).await.expect("no panic"));
    }
    let mut together = all.clone();
    for [listed, named, shared] in &extended {
        assert_eq!((listed.len(), named.len(), shared.len()), (3, 2, 2));
        assert_eq!(shared, &extended[0][2], "one node for all");
        for part in [listed, named, shared] {
            together = together.union(part).expect("no id is there twice");
        }
    }
    assert_eq!(together.len(), 1 + 3 * TASKS as usize + 1);
}

// ---- nodes that go

#[tokio::test(start_paused = true)]
async fn the_address_of_a_node_that_has_left_can_be_used_again() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let (network, _servers, all) = living(["a:1"]).await;
    let _b = serve(&network, "b:1", counting(&begun, &ended)).await;
    let with = |id: u32| all.extend_with_ids([(id, "b:1")]);
    let first = with(2).expect("it is free");
    within(first.connected(2)).await.expect("none is closed");
    let node = first[1].clone();
    drop(first);
    assert!(with(3).is_err(), "somebody holds the node");
    drop(node);
    let second = with(3).expect("it is free again");
    assert_eq!(ids(&second), [1, 3]);
    assert_all_answer(&second).await;
    ended.reached(1).await;
    // An id can be used again, too, but is not given again.
    let b = second.select([3]).expect("known");
    drop(second);
    let third = all.extend_with_ids([(2, "c:1")]).expect("it is free again");
    assert_eq!(ids(&third), [1, 2]);
    drop((b, third));
    assert_eq!(ids(&all.extend(["d:1"]).expect("legal")), [1, 4]);
    assert_all_answer(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_node_that_nobody_else_holds_is_answered() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let (network, _servers, all) = living(["a:1"]).await;
    let _b = serve(&network, "b:1", counting(&begun, &ended)).await;
    let both = all.extend(["b:1"]).expect("legal");
    let slow = Client::new(&both).quorum_call::<_, Number>(SLOW, number(10_000));
    let slow = slow.all();
    drop(both);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(ended.get(), 0);
    assert!(
        all.extend_with_ids([(3, "b:1")]).is_err(),
        "the call holds the node"
    );
    within(slow).await.expect("both answer");
    ended.reached(1).await;
    assert_eq!(begun.get(), 1);
}

#[tokio::test]
async fn dropping_one_configuration_leaves_others_their_connections() {
    let (begun, ended) = (Counter::new(), Counter::new());
    let network = Network::new();
    let addresses = ["a:1", "b:1", "c:1", "d:1"];
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(serve(&network, address, counting(&begun, &ended)).await);
    }
    let two = builder(&network).nodes(["a:1", "b:1"]).connect();
    let two = two.expect("legal addresses");
    let three = two.extend(["c:1"]).expect("legal");
    let others = three.without(1).extend(["d:1"]).expect("legal");
    within(three.connected(3)).await.expect("none is closed");
    within(others.connected(3)).await.expect("none is closed");
    for configuration in [&two, &three, &others] {
        assert_all_answer(configuration).await;
    }
    // The one that all come from goes first.
    drop(two);
    assert_all_answer(&three).await;
    assert_all_answer(&others).await;
    drop(three);
    ended.reached(1).await;
    assert_all_answer(&others).await;
    assert_eq!((begun.get(), ended.get()), (4, 1));
    drop(others);
    ended.reached(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_nodes_come_and_go() {
    const ROUNDS: u32 = 40;
    const CALLS: u64 = 10;
    let (begun, ended) = (Counter::new(), Counter::new());
    let noted = Counter::new();
    let (network, _servers, all) = living(["a:1", "b:1", "c:1"]).await;
    let _d = {
        let noted = noted.clone();
        let server = counting(&begun, &ended).one_way("test.Test.Count", move |_ctx, _: Number| {
            noted.add();
            std::future::ready(())
        });
        serve(&network, "d:1", server).await
    };
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (all, stop) = (all.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_all_answer(&all).await;
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let larger = all.extend(["d:1"]).expect("nobody has that address");
        assert_eq!(ids(&larger), [1, 2, 3, 4 + round]);
        let smaller = larger.without(1);
        let refused = Client::new(&larger[3])
            .multicast("test.Test.Count", number(0))
            .detach();
        assert!(refused.is_empty());
        let calls: Vec<_> = (0..CALLS)
            .flat_map(|value| {
                [&larger, &smaller, &all].map(|configuration| {
                    let client = Client::new(configuration);
                    let call = client.quorum_call::<_, Number>(ECHO, number(value));
                    (value, call.all().replies())
                })
            })
            .collect();
        // Half of the calls are all that holds the node now.
        drop((larger, smaller));
        for (value, call) in calls {
            let replies = within(call).await.expect("all are up");
            assert!(replies.values().all(|reply| reply.value == value));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        within(caller).await.expect("no call was lost");
    }
    noted.reached(ROUNDS.into()).await;
    ended.reached(ROUNDS.into()).await;
    assert_eq!((begun.get(), noted.get()), (ROUNDS.into(), ROUNDS.into()));
    assert_all_answer(&all).await;
}

// ---- nodes of several runtimes

/// The first runtime of a pool ends, and a call to a node in another one has a deadline.
async fn assert_deadlines_hold(extend_first: bool) {
    let server = TestServer::start(server()).await;
    let silent = server.addr.to_string();
    let (runtime, first) = elsewhere(Configuration::builder().nodes(["127.0.0.1:1"]));
    let extend = || first.extend([&silent]).expect("legal");
    let early = extend_first.then(extend);
    // Once more where the first nodes are: that is no runtime to go on in when it has ended.
    let also = extend_first.then(|| {
        let _inside = runtime.enter();
        first.extend(["127.0.0.1:2"]).expect("legal")
    });
    runtime.shutdown_background();
    closed(&first[0]).await;
    let both = early.unwrap_or_else(extend);
    assert_eq!(call(&both[1], ECHO, 3).await, Ok(3));
    let late = Client::new(&both)
        .rpc::<_, Number>(&both[1], SLOW, number(1_000_000))
        .timeout(millis(20))
        .send();
    let error = within(late).await.expect_err("the deadline passes");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    drop(also);
}

#[tokio::test]
async fn deadlines_hold_when_the_first_runtime_ends_after_a_node_was_added() {
    assert_deadlines_hold(true).await;
}

#[tokio::test]
async fn deadlines_hold_when_the_first_runtime_ends_before_a_node_is_added() {
    assert_deadlines_hold(false).await;
}

#[tokio::test]
async fn a_node_that_was_closed_with_its_runtime_can_be_added_anew() {
    let server = TestServer::start(server()).await;
    let address = server.addr.to_string();
    let (runtime, all) = elsewhere(Configuration::builder().nodes(["127.0.0.1:1", &address]));
    runtime.shutdown_background();
    closed(&all[0]).await;
    closed(&all[1]).await;
    let one = all.select([1]).expect("known");
    let again = one.extend([&address]).expect("no living node has it");
    assert_eq!(ids(&again), [1, 3]);
    assert_eq!(call(&again[1], ECHO, 4).await, Ok(4));
}
