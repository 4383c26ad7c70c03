//! Clusters for tests of services: what can be done to their nodes.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Number, number, within};
use gorums::runtime::Transport;
use gorums::testing::{Cluster, Pipes, Tasks, eventually};
use gorums::{
    Client, Code, Configuration, QuorumErrorKind, Server, ServerBuilder, ServerCtx, ServerError,
    Status,
};
use tokio::sync::Notify;
use tokio::time::Instant;

const ID: &str = "test.Test.Id";
const SECOND: Duration = Duration::from_secs(1);

/// A server that says which node it is.
fn names(me: gorums::NodeId) -> ServerBuilder {
    Server::builder().unary(ID, move |_ctx: ServerCtx, _: Number| async move {
        Ok::<_, Status>(number(me.get().into()))
    })
}

fn who(nodes: &Configuration) -> gorums::call::QuorumCall<Number, Number> {
    Client::new(nodes).quorum_call(ID, number(0))
}

async fn clusters(
    describe: fn(gorums::NodeId) -> ServerBuilder,
) -> [Result<Cluster, ServerError>; 2] {
    [
        Cluster::on_pipes(3, move |me, _| describe(me)).await,
        Cluster::on_loopback(3, move |me, _| describe(me)).await,
    ]
}

#[tokio::test]
async fn a_node_that_was_stopped_is_there_again_when_it_is_started() {
    for cluster in clusters(names).await {
        let mut cluster = cluster.expect("it serves");
        let nodes = cluster.client().connect().expect("its nodes");
        within(nodes.connected(3)).await.expect("none is closed");
        for id in [2, 3, 2] {
            cluster.stop(id).await;
            assert!(!cluster.is_running(id));
            assert!(cluster.peers_of(id).is_none());
            let replies = within(who(&nodes).majority().replies()).await;
            let replies = replies.expect("two of three");
            assert!(replies.get(id.into()).is_none(), "{replies:?}");
            // It does not run, and so there is nothing to stop.
            cluster.stop(id).await;
            cluster.shut_down(id).await;

            cluster.start(id).await.expect("its address is free");
            cluster.start(id).await.expect("it runs");
            assert!(cluster.is_running(id));
            within(nodes.connected(3)).await.expect("none is closed");
            let replies = within(who(&nodes).all().replies()).await.expect("all run");
            assert_eq!(replies.get(id.into()), Some(&number(id.into())));
        }
        cluster.end().await;
    }
}

#[tokio::test]
async fn nodes_call_each_other() {
    for cluster in clusters(names).await {
        let cluster = cluster.expect("it serves");
        for id in 1..=3 {
            let peers = cluster.peers_of(id).expect("it runs");
            within(peers.connected(3)).await.expect("none is closed");
            let replies = within(who(peers).all().replies()).await.expect("all run");
            assert_eq!(replies.len(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_paused_answers_when_it_goes_on() {
    let cluster = Cluster::on_pipes(3, |me, _| names(me)).await;
    let cluster = cluster.expect("it serves");
    let nodes = cluster.client().connect().expect("its nodes");
    nodes.connected(3).await.expect("none is closed");
    cluster.pause(3);
    let majority = who(&nodes).majority().await;
    majority.expect("the others answer");
    let begun = Instant::now();
    let error = who(&nodes).timeout(5 * SECOND).all().await;
    let error = error.expect_err("one is silent");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    assert_eq!(begun.elapsed(), 5 * SECOND);

    let all = tokio::spawn(who(&nodes).all().replies());
    let resumed = async {
        tokio::time::sleep(SECOND).await;
        assert!(!all.is_finished());
        cluster.resume(3);
    };
    resumed.await;
    let replies = all.await.expect("no panic").expect("all answer");
    assert_eq!(replies.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slowed_down_answers_so_late() {
    let cluster = Cluster::on_pipes(3, |me, _| names(me)).await;
    let cluster = cluster.expect("it serves");
    let nodes = cluster.client().connect().expect("its nodes");
    nodes.connected(3).await.expect("none is closed");
    who(&nodes).all().await.expect("all run");
    for delay in [200, 40, 0].map(Duration::from_millis) {
        cluster.delay(2, delay);
        let begun = Instant::now();
        let replies = who(&nodes)
            .majority()
            .replies()
            .await
            .expect("two of three");
        assert!(
            delay.is_zero() || replies.get(2.into()).is_none(),
            "{replies:?}"
        );
        assert_eq!(begun.elapsed(), Duration::ZERO);
        who(&nodes).all().await.expect("all run");
        let took = begun.elapsed();
        // The second request may come while the first is held up, and is read after it.
        assert!(took >= delay && took <= 2 * delay, "{took:?} {delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_late_are_all_there_and_in_order() {
    let cluster = Cluster::on_pipes(1, |_, _| {
        Server::builder().unary(ID, |_ctx: ServerCtx, request: Number| async move {
            Ok::<_, Status>(request)
        })
    });
    let cluster = cluster.await.expect("it serves");
    cluster.delay(1, Duration::from_millis(5));
    let nodes = cluster.client().connect().expect("its nodes");
    let client = Client::new(&nodes);
    let bytes: Vec<u8> = (0..1_000_003u32).map(|byte| byte as u8).collect();
    let payload = bytes::Bytes::from(bytes);
    for value in 0..3 {
        let request = Number {
            value,
            payload: payload.clone(),
        };
        let echo = client.quorum_call::<_, Number>(ID, request.clone()).all();
        assert!(echo.await.expect("it answers") == request, "{value}");
    }
}

#[tokio::test]
async fn a_node_that_shuts_down_ends_what_it_has_begun() {
    let begun = Arc::new(Notify::new());
    let goes_on = Arc::new(Notify::new());
    let (of_handler, by_handler) = (Arc::clone(&goes_on), Arc::clone(&begun));
    let cluster = Cluster::on_pipes(1, move |_, _| {
        let (goes_on, begun) = (Arc::clone(&of_handler), Arc::clone(&by_handler));
        Server::builder().unary(ID, move |_ctx: ServerCtx, request: Number| {
            let (goes_on, begun) = (Arc::clone(&goes_on), Arc::clone(&begun));
            async move {
                begun.notify_one();
                goes_on.notified().await;
                Ok::<_, Status>(request)
            }
        })
    });
    let mut cluster = cluster.await.expect("it serves");
    let nodes = cluster.client().connect().expect("its node");
    let call = tokio::spawn(who(&nodes).all().into_future());
    within(begun.notified()).await;
    let ended = async {
        let shut_down = cluster.shut_down(1);
        goes_on.notify_one();
        shut_down.await;
    };
    within(ended).await;
    assert!(!cluster.is_running(1));
    let reply = within(call)
        .await
        .expect("no panic")
        .expect("it was answered");
    assert_eq!(reply, number(0));
}

#[tokio::test]
async fn what_outlives_a_node_is_outside_of_its_description() {
    let starts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&starts);
    let cluster = Cluster::on_pipes(2, move |me, peers| {
        assert_eq!(peers.len(), 2);
        counted.fetch_add(1, Ordering::Relaxed);
        names(me)
    });
    let mut cluster = cluster.await.expect("it serves");
    cluster.stop(1).await;
    cluster.start(1).await.expect("it serves");
    assert_eq!(starts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_cluster_leaves_no_task_behind_however_its_nodes_end() {
    let before = Tasks::now();
    for round in 0..20 {
        for cluster in clusters(names).await {
            let mut cluster = cluster.expect("it serves");
            let nodes = cluster.client().connect().expect("its nodes");
            within(who(&nodes).all()).await.expect("all run");
            cluster.stop(1).await;
            cluster.shut_down(3).await;
            cluster.pause(2);
            match round % 2 {
                0 => drop(cluster),
                _ => cluster.end().await,
            }
        }
    }
    before.ended().await.expect("nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_found() {
    let before = Tasks::now();
    let left = tokio::spawn(std::future::pending::<()>());
    let found = before.ended().await.expect_err("it is there");
    assert_eq!(found.more(), 1);
    let text = "1 tasks more than before have not ended after 60s";
    assert_eq!(found.to_string(), text);
    left.abort();
    before.ended().await.expect("it has ended");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_so_is_waited_for() {
    let begun = Instant::now();
    eventually("two seconds have passed", || begun.elapsed() >= 2 * SECOND).await;
    assert!(begun.elapsed() < 3 * SECOND);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = ": pigs fly")]
async fn what_is_never_so_is_a_panic() {
    eventually("pigs fly", || false).await;
}

#[tokio::test]
#[should_panic(expected = "there is no node 4: the cluster has 3, with ids from 1")]
async fn a_node_that_is_not_there_is_a_panic() {
    let cluster = Cluster::on_pipes(3, |me, _| names(me)).await;
    cluster.expect("it serves").pause(4);
}

#[tokio::test]
async fn one_server_at_a_time_listens_on_a_pipe() {
    let network = Pipes::default();
    let refused = network.connect("a").await.err().expect("nobody is there");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(refused.to_string(), "nobody listens on the pipe \"a\"");

    let first = network.listen("a").await.expect("it is free");
    assert_eq!(first.local_addr().expect("it has one").as_str(), "a");
    let taken = network
        .clone()
        .listen("a")
        .await
        .err()
        .expect("it is taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    network.listen("b").await.expect("that is another one");

    drop(first);
    let mut second = network.listen("a").await.expect("it is free again");
    let connected = network.connect("a").await;
    connected.expect("somebody listens");
    let (_, peer) = within(second.accept()).await.expect("the connection");
    assert_eq!(peer, None);
}

#[tokio::test]
async fn a_call_says_that_nobody_listens() {
    let nodes = Configuration::builder().transport(Pipes::default());
    let nodes = nodes.nodes(["nowhere"]).connect().expect("legal");
    let error = within(who(&nodes).all())
        .await
        .expect_err("nobody is there");
    let failure = &error.failures()[0];
    assert_eq!(failure.code(), Code::Unavailable);
    assert!(
        failure
            .to_string()
            .contains("nobody listens on the pipe \"nowhere\""),
        "{failure}"
    );
}
