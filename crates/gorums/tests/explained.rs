//! Calls that tell what became of them at each node, and when.

mod common;

use std::time::Duration;

use common::{Number, number};
use gorums::call::{ExplainedNode, Explanation, Fate, QuorumCall, Thrifty};
use gorums::testing::Cluster;
use gorums::{
    Client, Code, Configuration, NodeId, Outcome, QuorumErrorKind, Server, ServerCtx, Status,
};

const AFTER: &str = "test.Test.After";
const MS: Duration = Duration::from_millis(1);

/// Servers that answer with their id after so many milliseconds of it each, and those that refuse.
async fn nodes(each: u64, refusing: &'static [u32]) -> (Cluster, Configuration) {
    let cluster = Cluster::on_pipes(5, move |me, _peers| {
        Server::builder().unary(AFTER, move |ctx: ServerCtx, _: Number| async move {
            ctx.release();
            tokio::time::sleep(MS * me.get() * each as u32).await;
            match refusing.contains(&me.get()) {
                true => Err(Status::not_found("no such key")),
                false => Ok(number(me.get().into())),
            }
        })
    });
    let cluster = cluster.await.expect("it serves");
    let all = cluster.client().connect().expect("its nodes");
    all.connected(5).await.expect("none is closed");
    (cluster, all)
}

fn call(all: &Configuration) -> QuorumCall<Number, Number> {
    Client::new(all).quorum_call(AFTER, number(0))
}

fn fates<T>(explanation: &Explanation<T>) -> Vec<String> {
    let fate = |node: &ExplainedNode| match &node.fate {
        Fate::NotAsked => "not asked".to_owned(),
        Fate::Answered(at) => format!("answered {}", at.as_millis()),
        Fate::Failed(at, error) => format!("failed {} {}", at.as_millis(), error.code()),
        Fate::Late(at) => format!("late {}", at.as_millis()),
        other => format!("{other:?}"),
    };
    explanation.nodes.iter().map(fate).collect()
}

/// What is shown of a node, without its address.
fn line(text: &str, node: usize) -> (char, &str) {
    let line = text.lines().nth(node).expect("a line for each node");
    let (bar, what) = line.rsplit_once("  ").expect("columns");
    let mark = bar.trim_end().chars().next_back().expect("a mark");
    (mark, what)
}

#[tokio::test(start_paused = true)]
async fn it_tells_who_answered_when_and_whose_answer_was_enough() {
    let (cluster, all) = nodes(10, &[2]).await;
    let seen = call(&all).majority().explain().await;
    assert_eq!(seen.result.as_ref().expect("three of five").value, 1);
    assert_eq!(
        fates(&seen),
        [
            "answered 10",
            "failed 20 not found",
            "answered 30",
            "answered 40",
            "late 40"
        ]
    );
    assert_eq!((seen.method, seen.answered()), (AFTER, 3));
    assert_eq!(seen.took.as_millis(), 40);
    assert_eq!(seen.decided_by, Some(4.into()));
    assert_eq!(seen.node(4).expect("there is one").id, NodeId::from(4));
    assert!(seen.node(6).is_none());

    let text = seen.to_string();
    let first = text.lines().next().expect("a heading");
    assert!(first.starts_with("test.Test.After: done after 4"), "{text}");
    assert!(first.ends_with("ms, 3 of 5 nodes answered"), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    let (mark, what) = line(&text, 1);
    assert!(
        mark == '●' && what.starts_with("answered after 1"),
        "{text}"
    );
    let (mark, what) = line(&text, 2);
    assert!(
        mark == '✗' && what.ends_with("ms: not found: no such key"),
        "{text}"
    );
    let (mark, what) = line(&text, 4);
    assert!(
        mark == '◆' && what.ends_with("ms, which was enough"),
        "{text}"
    );
    let (mark, what) = line(&text, 5);
    assert!(mark == '…' && what.starts_with("no answer in 4"), "{text}");
    cluster.end().await;
}

/// The result is that of the same call without an explanation, whatever waits for it.
#[tokio::test(start_paused = true)]
async fn every_call_that_waits_for_a_quorum_can_be_explained() {
    let (cluster, all) = nodes(10, &[]).await;
    let seen = call(&all).majority().replies().explain().await;
    assert_eq!(seen.result.expect("all answer").len(), 3);
    assert_eq!(seen.decided_by, Some(3.into()));

    let newest = call(&all).threshold(2).max_by_key(|reply| reply.value);
    let seen = newest.explain().await;
    assert_eq!(seen.result.expect("all answer").value, 2);
    assert_eq!(seen.decided_by, Some(2.into()));

    let odd = call(&all).majority().votes(|reply| reply.value % 2 == 1);
    let seen = odd.explain().await;
    assert_eq!(
        fates(&seen),
        [
            "answered 10",
            "failed 20 aborted",
            "answered 30",
            "failed 40 aborted",
            "answered 50"
        ]
    );
    assert_eq!(seen.result.expect("1, 3 and 5").len(), 3);
    let small = call(&all).majority().votes(|reply| reply.value < 3);
    let seen = small.explain().await;
    assert_eq!(seen.decided_by, Some(5.into()));
    assert_eq!(seen.result.expect_err("1 and 2").no().len(), 3);

    let same = call(&all).matching(2, |reply| reply.value / 4);
    let seen = same.explain().await;
    assert_eq!(seen.result.expect("1 and 2").value, 1);
    assert_eq!(seen.decided_by, Some(2.into()));

    let fourth =
        |_: &Number, replies: &mut gorums::Replies<Number>| (replies.len() == 4).then_some(());
    let seen = call(&all).quorum_fn(fourth).explain().await;
    seen.result.expect("all answer");
    assert_eq!(seen.decided_by, Some(4.into()));
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_others_are_waited_for_where_that_is_asked_for() {
    let (cluster, all) = nodes(10, &[5]).await;
    for (others, last) in [
        (5, ["late 35", "late 35"]),
        (15, ["answered 40", "late 45"]),
        (1_000, ["answered 40", "failed 50 not found"]),
    ] {
        let explained = call(&all).majority().explain().wait_for_others(MS * others);
        let seen = explained.await;
        seen.result.as_ref().expect("three of five");
        assert_eq!(fates(&seen)[3..], last);
        assert_eq!(seen.took.as_millis(), 30);
        assert_eq!(seen.decided_by, Some(3.into()));
    }
    // For ever, and no longer than there is somebody to wait for.
    let explained = call(&all)
        .majority()
        .explain()
        .wait_for_others(Duration::MAX);
    assert_eq!(explained.await.nodes.len(), 5);
    // No longer than the deadline, and the result stays.
    let in_time = call(&all).timeout(MS * 45).majority().explain();
    let seen = in_time.wait_for_others(MS * 1_000).await;
    seen.result.as_ref().expect("three of five");
    assert_eq!(
        fates(&seen)[3..],
        ["answered 40", "failed 45 deadline exceeded"]
    );
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_tells_which_node_decided_that() {
    let (cluster, all) = nodes(10, &[1, 3, 4]).await;
    let asked =
        call(&all).map_request(|node, request| (node.id().get() != 5).then(|| request.clone()));
    let seen = asked.majority().explain().wait_for_others(MS * 1_000).await;
    let error = seen.result.as_ref().expect_err("one of five");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert_eq!(
        fates(&seen),
        [
            "failed 10 not found",
            "answered 20",
            "failed 30 not found",
            "late 30",
            "not asked"
        ]
    );
    assert_eq!(seen.decided_by, Some(3.into()));
    let text = seen.to_string();
    assert!(text.starts_with("test.Test.After: failed after "), "{text}");
    let (_, what) = line(&text, 3);
    assert!(what.ends_with("there was no way to succeed"), "{text}");
    assert!(text.ends_with("not asked"), "{text}");

    // A deadline is no node's doing.
    let in_time = call(&all).timeout(MS * 15).majority().explain().await;
    let error = in_time.result.as_ref().expect_err("one of five");
    assert_eq!(error.kind(), QuorumErrorKind::Deadline);
    assert_eq!(in_time.decided_by, None);
    let Fate::Failed(at, error) = &in_time.nodes[4].fate else {
        panic!("{in_time}");
    };
    assert_eq!((at.as_millis(), error.outcome()), (15, Outcome::Unknown));
    assert_eq!(error.code(), Code::DeadlineExceeded);

    let impossible = call(&all).threshold(6).explain().await;
    let error = impossible.result.as_ref().expect_err("there are five");
    assert_eq!(error.kind(), QuorumErrorKind::Impossible);
    assert!(impossible.nodes.is_empty() && impossible.took.is_zero());
    assert!(
        impossible.to_string().contains("was not made"),
        "{impossible}"
    );
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_a_thrifty_call_does_not_need_are_not_asked_nor_waited_for() {
    let (cluster, all) = nodes(10, &[]).await;
    // The latencies are known from then on.
    let warm = call(&all).all().await;
    warm.expect("all answer");
    let thrifty = Thrifty::by_latency().after(MS * 1_000);
    let thrifty = call(&all).idempotent(true).thrifty(thrifty);
    let explained = thrifty.majority().explain();
    let seen = explained.wait_for_others(Duration::MAX).await;
    seen.result.as_ref().expect("three of five");
    let asked = fates(&seen);
    let asked = asked.iter().filter(|fate| *fate != "not asked").count();
    // One more where the call explores.
    assert!((3..=4).contains(&asked), "{seen}");
    assert_eq!(seen.answered(), asked, "{seen}");
    assert!(seen.to_string().contains("not asked"), "{seen}");
    cluster.end().await;
}
