//! What can be made of the responses of a call.

mod common;

use common::{Counter, Number, TestServer, cluster, number, within};
use futures_core::Stream;
use gorums::{
    Client, Code, Configuration, NodeId, ReplySender, Server, ServerBuilder, ServerCtx, Status,
};

const VALUE: &str = "test.Test.Value";
const STREAM: &str = "test.Test.Stream";
const SOME: &str = "test.Test.Some";

/// Node i has the value 10·i. Odd nodes answer `SOME`, even ones fail, and node 5 is silent.
fn node(index: usize, cancelled: Counter) -> ServerBuilder {
    let id = index as u64 + 1;
    Server::builder()
        .unary(VALUE, move |_ctx, _: Number| async move {
            Ok::<_, Status>(number(10 * id))
        })
        .unary(SOME, move |ctx: ServerCtx, _: Number| {
            let cancelled = cancelled.clone();
            async move {
                ctx.release();
                match id {
                    5 => {
                        ctx.cancelled().await;
                        cancelled.add();
                        Err(Status::cancelled("nobody waits"))
                    }
                    id if id % 2 == 0 => Err(Status::aborted("even")),
                    id => Ok(number(10 * id)),
                }
            }
        })
        .streaming(
            STREAM,
            move |_ctx, _: Number, replies: ReplySender<Number>| async move {
                for step in 1..=3 {
                    replies.send(number(10 * id + step)).await?;
                }
                Ok(())
            },
        )
}

async fn five() -> (Vec<TestServer>, Configuration, Client, Counter) {
    let cancelled = Counter::new();
    let (servers, configuration) = cluster(5, |index| node(index, cancelled.clone())).await;
    let client = Client::new(&configuration);
    (servers, configuration, client, cancelled)
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> Vec<u32> {
    ids.into_iter().map(|id| id.get()).collect()
}

#[tokio::test]
async fn all_are_collected_by_node() {
    let (_servers, _all, client, _) = five().await;
    let all = within(
        client
            .quorum_call::<_, Number>(VALUE, number(0))
            .responses()
            .by_node(),
    )
    .await;
    assert_eq!(ids(all.keys()), [1, 2, 3, 4, 5]);
    for (node, reply) in all {
        assert_eq!(
            reply.expect("no node fails").value,
            10 * u64::from(node.get())
        );
    }
}

#[tokio::test]
async fn failures_are_collected_with_their_nodes() {
    let (_servers, all, client, _) = five().await;
    let client = client.on(all.without(5));
    let all = within(
        client
            .quorum_call::<_, Number>(SOME, number(0))
            .responses()
            .by_node(),
    )
    .await;
    assert_eq!(ids(all.keys()), [1, 2, 3, 4]);
    for (node, reply) in all {
        match node.get() % 2 {
            1 => assert_eq!(
                reply.expect("odd nodes answer").value,
                10 * u64::from(node.get())
            ),
            _ => assert_eq!(reply.expect_err("even nodes fail").code(), Code::Aborted),
        }
    }
}

#[tokio::test]
async fn an_aggregate_of_the_successes_alone() {
    let (_servers, all, client, _) = five().await;
    let client = client.on(all.without(5));
    let mut successes = client
        .quorum_call::<_, Number>(SOME, number(0))
        .responses()
        .successes();
    let mut sum = 0;
    while let Some((_, reply)) = within(successes.next()).await {
        sum += reply.value;
    }
    assert_eq!(sum, 10 + 30);
    assert!(within(successes.next()).await.is_none(), "the end stays");
}

#[tokio::test]
async fn a_filter_keeps_what_its_function_accepts() {
    let (_servers, _all, client, _) = five().await;
    let call = || {
        client
            .quorum_call::<_, Number>(VALUE, number(0))
            .responses()
    };
    let some = within(
        call()
            .filter(|response| response.node().get() != 2)
            .by_node(),
    )
    .await;
    assert_eq!(ids(some.keys()), [1, 3, 4, 5]);
    let some = call()
        .successes()
        .filter(|(_, reply)| reply.value > 20)
        .filter(|(node, _)| node.get() < 5);
    assert_eq!(ids(within(some.by_node()).await.keys()), [3, 4]);
}

#[tokio::test]
async fn the_first_n_and_the_rest_is_forgotten() {
    let (_servers, all, client, cancelled) = five().await;
    let call = || client.quorum_call::<_, Number>(SOME, number(0)).responses();
    let mut two = call().successes().take(2);
    let mut seen = Vec::new();
    while let Some((node, _)) = within(two.next()).await {
        seen.push(node);
    }
    seen.sort();
    assert_eq!(ids(&seen), [1, 3]);
    // Two are all that can come of the successes, and node 5 is told that nobody waits.
    cancelled.reached(1).await;
    let pending: usize = all.iter().map(|node| node.pending()).sum();
    assert_eq!(pending, 0, "`two` is still here, and waits for nothing");
    drop(two);

    let none = within(call().take(0).by_node()).await;
    assert!(none.is_empty());
    let more = within(
        client
            .quorum_call::<_, Number>(VALUE, number(0))
            .responses()
            .take(9)
            .by_node(),
    )
    .await;
    assert_eq!(more.len(), 5);
}

#[tokio::test]
async fn of_a_streamed_call_the_last_reply_of_each_node_is_collected() {
    let (_servers, _all, client, _) = five().await;
    let call = || {
        client
            .streamed_quorum_call::<_, Number>(STREAM, number(0))
            .responses()
            .successes()
    };
    let last = within(call().by_node()).await;
    assert_eq!(ids(last.keys()), [1, 2, 3, 4, 5]);
    assert!(
        last.iter()
            .all(|(node, reply)| reply.value == 10 * u64::from(node.get()) + 3),
        "{last:?}"
    );
    // The first of one node, and the nodes' streams end with it.
    let first = within(call().filter(|(node, _)| node.get() == 4).take(1).by_node()).await;
    assert_eq!(
        first.values().map(|reply| reply.value).collect::<Vec<_>>(),
        [41]
    );
}

#[tokio::test]
async fn adaptors_are_streams() {
    fn items<S: Stream>(_: &S) -> std::marker::PhantomData<S::Item> {
        std::marker::PhantomData
    }
    let (_servers, _all, client, _) = five().await;
    let call = client
        .quorum_call::<_, Number>(VALUE, number(0))
        .responses();
    let narrow = call.successes().filter(|_| true).take(1);
    let _: std::marker::PhantomData<(NodeId, Number)> = items(&narrow);
    assert_eq!(within(narrow.by_node()).await.len(), 1);
}
