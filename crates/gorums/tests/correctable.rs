//! Ever better answers, and what becomes of streamed replies that nobody takes.

mod common;

use std::collections::BTreeSet;

use common::{Counter, Number, TestServer, cluster, number, within};
use gorums::call::{Correctable, QuorumCall};
use gorums::{
    CancellationToken, Client, Code, Configuration, Outcome, QuorumErrorKind, Replies, ReplySender,
    Server, ServerBuilder, ServerCtx, Status,
};
use tokio::sync::watch;

const STREAM: &str = "test.Test.Stream";
const UNARY: &str = "test.Test.Unary";
const BURST: &str = "test.Test.Burst";

/// What a node may do of its streamed reply: so many replies, and then end, well or not.
#[derive(Clone)]
struct Script {
    replies: u64,
    end: Option<Result<(), Status>>,
}

/// A node that does what its script says, and goes on when that changes. Reply k of node i is 10·i
/// + k.
struct Nodes {
    scripts: Vec<watch::Sender<Script>>,
    _servers: Vec<TestServer>,
    configuration: Configuration,
    /// Handlers that were told that nobody waits.
    cancelled: Counter,
}

impl Nodes {
    async fn start(n: usize) -> Self {
        let (scripts, receivers): (Vec<_>, Vec<_>) = (0..n)
            .map(|_| {
                watch::channel(Script {
                    replies: 0,
                    end: None,
                })
            })
            .unzip();
        let cancelled = Counter::new();
        let (servers, configuration) = cluster(n, |index| {
            node(index, receivers[index].clone(), cancelled.clone())
        })
        .await;
        Self {
            scripts,
            _servers: servers,
            configuration,
            cancelled,
        }
    }

    fn replies(&self, node: u32, replies: u64) {
        self.scripts[node as usize - 1].send_modify(|script| script.replies = replies);
    }

    fn ends(&self, node: u32, end: Result<(), Status>) {
        self.scripts[node as usize - 1].send_modify(|script| script.end = Some(end));
    }

    fn call(&self) -> QuorumCall<Number, Number> {
        Client::new(&self.configuration).streamed_quorum_call(STREAM, number(0))
    }
}

fn node(index: usize, script: watch::Receiver<Script>, cancelled: Counter) -> ServerBuilder {
    let base = 10 * (index as u64 + 1);
    Server::builder()
        .unary(UNARY, move |_ctx, _: Number| async move {
            Ok::<_, Status>(number(base))
        })
        .streaming(
            BURST,
            |_ctx, request: Number, replies: ReplySender<Number>| async move {
                for step in 1..=request.value {
                    replies.send(number(step)).await?;
                }
                Ok(())
            },
        )
        .streaming(
            STREAM,
            move |ctx: ServerCtx, _: Number, replies: ReplySender<Number>| {
                let (mut script, cancelled) = (script.clone(), cancelled.clone());
                async move {
                    ctx.release();
                    let told = ctx.clone();
                    tokio::spawn(async move {
                        told.cancelled().await;
                        cancelled.add();
                    });
                    let mut sent = 0;
                    loop {
                        let now = script.borrow_and_update().clone();
                        while sent < now.replies {
                            sent += 1;
                            replies.send(number(base + sent)).await?;
                        }
                        if let Some(end) = now.end {
                            return end;
                        }
                        if script.changed().await.is_err() {
                            return Ok(());
                        }
                    }
                }
            },
        )
}

/// All answers of a correctable, as value, level and whether it is the last.
async fn answers(correctable: &mut Correctable<Number>) -> Vec<(u64, usize, bool)> {
    let mut answers = Vec::new();
    while let Some(answer) = within(correctable.changed()).await {
        let answer = answer.expect("an answer");
        answers.push((answer.value.value, answer.level, answer.done));
    }
    answers
}

#[tokio::test]
async fn levels_count_nodes_and_not_messages() {
    let nodes = Nodes::start(3).await;
    let mut answer = nodes.call().correctable(3);
    nodes.replies(1, 3);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let change = within(answer.changed())
            .await
            .expect("not done")
            .expect("an answer");
        seen.push((change.value.value, change.level, change.done));
    }
    assert_eq!(seen, [(11, 1, false), (12, 1, false), (13, 1, false)]);
    nodes.replies(2, 1);
    let change = within(answer.reached(2)).await.expect("a second node");
    assert_eq!(
        (change.value.value, change.level, change.done),
        (21, 2, false)
    );
    nodes.replies(3, 1);
    assert_eq!(answers(&mut answer).await, [(31, 3, true)]);
    assert!(answer.is_done());
}

#[tokio::test]
async fn a_unary_call_gets_better_with_each_node() {
    let nodes = Nodes::start(3).await;
    let client = Client::new(&nodes.configuration);
    let mut answer = client
        .quorum_call::<_, Number>(UNARY, number(0))
        .correctable(3);
    let seen = answers(&mut answer).await;
    let levels: Vec<_> = seen
        .iter()
        .map(|(_, level, done)| (*level, *done))
        .collect();
    assert_eq!(levels, [(1, false), (2, false), (3, true)]);
    let values: BTreeSet<_> = seen.iter().map(|(value, ..)| *value).collect();
    assert_eq!(values, BTreeSet::from([10, 20, 30]));
    let call = client.quorum_call::<_, Number>(UNARY, number(0));
    let last = within(call.correctable(2).done())
        .await
        .expect("two nodes answer");
    assert!(values.contains(&last.value));
}

#[tokio::test]
async fn waiting_for_a_level_after_completion_ends_at_once() {
    let nodes = Nodes::start(3).await;
    for id in 1..=2 {
        nodes.replies(id, 1);
    }
    let mut answer = nodes.call().correctable(2);
    within(answer.reached(2)).await.expect("two nodes answer");
    for level in 0..=7 {
        let last = within(answer.reached(level)).await.expect("it is done");
        assert_eq!((last.level, last.done), (2, true), "waiting for {level}");
    }
    assert_eq!(answer.latest().map(|answer| answer.level), Some(2));
}

#[tokio::test]
async fn it_completes_when_every_replica_has_finished() {
    let nodes = Nodes::start(3).await;
    let mut answer = nodes.call().correctable(3);
    nodes.replies(1, 2);
    nodes.ends(1, Ok(()));
    nodes.replies(2, 1);
    nodes.ends(2, Ok(()));
    within(answer.reached(2)).await.expect("two nodes answer");
    nodes.ends(3, Ok(()));
    let error = within(answer.reached(3))
        .await
        .expect_err("node 3 said nothing");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert_eq!((error.needed(), error.replies()), (Some(3), 2));
    assert!(error.failures().is_empty(), "node 3 ended well: {error}");
    // The failure is told as often as it is asked for, and what was known before stays.
    within(answer.reached(3)).await.expect_err("it has failed");
    assert_eq!(answer.latest().map(|answer| answer.level), Some(2));
    assert!(answer.is_done());
}

#[tokio::test]
async fn a_stream_may_end_with_an_error() {
    let nodes = Nodes::start(3).await;
    let answer = nodes.call().correctable(2);
    nodes.ends(1, Err(Status::data_loss("disk 1")));
    nodes.ends(3, Err(Status::data_loss("disk 3")));
    let error = within(answer.done())
        .await
        .expect_err("two of three failed");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    for (id, message) in [(1, "disk 1"), (3, "disk 3")] {
        let failure = error.failure(id.into()).expect("the node failed");
        assert_eq!(failure.outcome(), Outcome::Refused);
        assert_eq!(
            (failure.code(), failure.status().message()),
            (Code::DataLoss, message)
        );
    }
}

#[tokio::test]
async fn a_function_says_how_good_an_answer_is_and_when_it_is_done() {
    let nodes = Nodes::start(3).await;
    // The sum of the nodes' latest replies; done at 36 = 11 + 25 or more. The level is the sum's
    // tens.
    let mut answer = nodes.call().correctable_fn(|_, replies| {
        let sum: u64 = replies.values().map(|reply| reply.value).sum();
        (sum, sum as usize / 10, sum >= 36)
    });
    nodes.replies(1, 1);
    let first = within(answer.reached(1)).await.expect("an answer");
    assert_eq!((*first.value, first.level), (11, 1));
    nodes.replies(2, 4);
    let third = within(answer.reached(3)).await.expect("an answer");
    assert!(third.level == 3 && !third.done);
    nodes.replies(2, 5);
    assert_eq!(
        within(answer.done())
            .await
            .expect("the function is content"),
        36
    );
}

#[tokio::test]
async fn a_worse_answer_is_passed_over() {
    let nodes = Nodes::start(1).await;
    let levels = [5, 3, 6];
    let mut seen = 0;
    let mut answer = nodes.call().correctable_fn(move |_, _| {
        seen += 1;
        (seen, levels[seen - 1], seen == 3)
    });
    nodes.replies(1, 3);
    let mut told = Vec::new();
    while let Some(change) = within(answer.changed()).await {
        let change = change.expect("an answer");
        told.push((*change.value, change.level));
    }
    assert_eq!(told, [(1, 5), (3, 6)]);
}

#[tokio::test]
async fn a_function_that_is_never_content_fails_when_all_have_ended() {
    let nodes = Nodes::start(2).await;
    let mut answer = nodes
        .call()
        .correctable_fn(|_, replies| (replies.len(), replies.len(), false));
    nodes.replies(1, 1);
    nodes.ends(1, Ok(()));
    nodes.ends(2, Err(Status::aborted("no")));
    assert_eq!(
        within(answer.changed())
            .await
            .map(|a| a.expect("an answer").level),
        Some(1)
    );
    let error = within(answer.changed())
        .await
        .expect("a failure")
        .expect_err("never content");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::NoQuorum, 1)
    );
    assert!(
        within(answer.changed()).await.is_none(),
        "the failure is told once"
    );
    assert_eq!(answer.latest().map(|answer| *answer.value), Some(1));
}

#[tokio::test]
async fn impossible_levels_are_told_at_once() {
    let nodes = Nodes::start(3).await;
    for level in [0, 4] {
        let error = within(nodes.call().correctable(level).done())
            .await
            .expect_err("impossible");
        assert_eq!(error.kind(), QuorumErrorKind::Impossible);
    }
    let call = nodes
        .call()
        .map_request(|node, request| (node.id().get() != 2).then(|| request.clone()));
    let error = within(call.correctable(3).done())
        .await
        .expect_err("a node was left out");
    assert_eq!(error.kind(), QuorumErrorKind::Impossible);
}

#[tokio::test]
async fn a_deadline_ends_it_and_what_is_known_stays() {
    let nodes = Nodes::start(3).await;
    nodes.replies(2, 1);
    let token = CancellationToken::new();
    let mut answer = nodes.call().cancelled_by(&token).correctable(3);
    within(answer.reached(1)).await.expect("node 2 answers");
    token.cancel();
    let error = within(answer.reached(2)).await.expect_err("cancelled");
    assert_eq!(error.kind(), QuorumErrorKind::Cancelled);
    assert_eq!(answer.latest().map(|answer| answer.value.value), Some(21));

    let mut answer = nodes
        .call()
        .timeout(std::time::Duration::from_millis(1))
        .correctable(3);
    let error = loop {
        match within(answer.changed())
            .await
            .expect("it ends with a failure")
        {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_no_answer() {
    let nodes = Nodes::start(1).await;
    let mut answer = nodes.call().correctable_fn(|_, replies| {
        let (_, last) = replies.latest().expect("called for a reply");
        (last.value, last.value as usize, last.value == 15)
    });
    let mut seen = Vec::new();
    for step in 1..=5 {
        // Given up before its time, whatever it had begun.
        tokio::select! {
            biased;
            _ = answer.changed() => unreachable!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        nodes.replies(1, step);
        let change = within(answer.changed())
            .await
            .expect("not done")
            .expect("an answer");
        seen.push(*change.value);
    }
    assert_eq!(seen, [11, 12, 13, 14, 15]);
}

#[tokio::test]
async fn nodes_are_told_when_nobody_waits_any_more() {
    let nodes = Nodes::start(3).await;
    nodes.replies(1, 1);
    let mut answer = nodes.call().correctable(3);
    within(answer.reached(1)).await.expect("node 1 answers");
    drop(answer);
    nodes.cancelled.reached(3).await;
    // Also where it is done, since the nodes would go on for nobody.
    nodes.replies(2, 1);
    within(nodes.call().correctable(2).done())
        .await
        .expect("two nodes answer");
    nodes.cancelled.reached(6).await;
}

/// What is left of so many replies of one node to a correctable that nobody has awaited, and how
/// many were dropped.
async fn untaken(
    nodes: &Nodes,
    replies: u64,
    tell: impl FnOnce(QuorumCall<Number, Number>) -> QuorumCall<Number, Number>,
) -> (Vec<u64>, u64) {
    let client = Client::new(&nodes.configuration);
    let call = client.streamed_quorum_call(BURST, number(replies));
    let mut answer = tell(call).correctable_fn(|_, replies: &mut Replies<Number>| {
        let newest = replies.values().next().cloned().unwrap_or_default();
        (newest, 1, false)
    });
    // Replies come in the order in which they were queued, so those before are here when this is.
    let probe = client
        .quorum_call::<_, Number>(UNARY, number(replies))
        .all();
    within(probe)
        .await
        .expect("an unread call does not block the connection");
    let mut values = Vec::new();
    while let Some(change) = within(answer.changed()).await {
        match change {
            Ok(change) => values.push(change.value.value),
            Err(error) => assert_eq!(error.kind(), QuorumErrorKind::NoQuorum),
        }
    }
    assert!(answer.is_done());
    (values, answer.dropped())
}

#[tokio::test]
async fn unread_replies_make_room_for_newer_ones_are_counted_and_block_nothing() {
    let nodes = Nodes::start(1).await;
    // A number of up to 10,000 takes three bytes, and counts 256 more.
    for (window, kept) in [(None, 64), (Some(3 * 259), 3), (Some(0), 1)] {
        let tell = |call: QuorumCall<Number, Number>| match window {
            Some(bytes) => call.unread_replies(bytes),
            None => call,
        };
        let (values, dropped) = untaken(&nodes, 10_000, tell).await;
        let newest: Vec<u64> = (10_001 - kept..=10_000).collect();
        assert_eq!((values, dropped), (newest, 10_000 - kept));
    }
    let (values, dropped) = untaken(&nodes, 64, |call| call).await;
    assert_eq!((values, dropped), ((1..=64).collect(), 0));
}

#[tokio::test]
async fn what_was_dropped_is_known_before_and_after_the_call_is_done() {
    let nodes = Nodes::start(1).await;
    let client = Client::new(&nodes.configuration);
    let call = client.streamed_quorum_call::<_, Number>(BURST, number(100));
    let mut answer = call.correctable(1);
    let probe = client.quorum_call::<_, Number>(UNARY, number(0)).all();
    within(probe).await.expect("it is up");
    assert_eq!((answer.dropped(), answer.level()), (36, None));
    let first = within(answer.reached(1)).await.expect("a reply");
    assert_eq!((first.value.value, first.done), (37, true));
    assert_eq!(answer.dropped(), 36);
}
