//! Calls that count the replies that say yes.

mod common;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use common::{Number, cluster, echo, number, within};
use gorums::call::{QuorumCall, VoteError};
use gorums::quorum::{Both, Majority, ReadWrite, Weighted};
use gorums::{
    Client, Code, Configuration, Outcome, QuorumError, QuorumErrorKind, Replies, ReplySender,
    Server, ServerBuilder, Status,
};
use tokio::sync::Semaphore;

const VOTE: &str = "test.Test.Vote";
const ECHO: &str = "test.Test.Echo";
const STREAM: &str = "test.Test.Stream";

const NO: u64 = 0;
const YES: u64 = 1;

/// Nodes below the value that they are asked with say yes.
fn voter(index: usize) -> ServerBuilder {
    echo().unary(VOTE, move |_ctx, request: Number| async move {
        let yes = (index as u64) < request.value;
        Ok::<_, Status>(number(if yes { YES } else { NO }))
    })
}

fn call(all: &Configuration, method: &'static str, value: u64) -> QuorumCall<Number, Number> {
    Client::new(all).quorum_call(method, number(value))
}

fn is_yes(reply: &Number) -> bool {
    reply.value == YES
}

fn no_of<T>(error: &VoteError<T>) -> Vec<u32> {
    error.no().keys().map(|node| node.get()).collect()
}

fn yes_of<T>(error: &VoteError<T>) -> Vec<u32> {
    error.yes().keys().map(|node| node.get()).collect()
}

type Vote = Pin<Box<dyn Future<Output = Result<Replies<Number>, VoteError<Number>>> + Send>>;

#[tokio::test]
async fn every_rule_that_counts_nodes_counts_votes() {
    type Terminal = fn(QuorumCall<Number, Number>) -> Vote;
    // With how many of the first nodes there is a quorum.
    let rules: [(&str, Terminal, u64); 7] = [
        ("first", |call| Box::pin(call.first().votes(is_yes)), 1),
        (
            "majority",
            |call| Box::pin(call.majority().votes(is_yes)),
            2,
        ),
        (
            "threshold",
            |call| Box::pin(call.threshold(2).votes(is_yes)),
            2,
        ),
        ("all", |call| Box::pin(call.all().votes(is_yes)), 3),
        (
            "weighted",
            |call| {
                let votes = Weighted::majority([(1, 1), (2, 1), (3, 3)]);
                Box::pin(call.quorum(votes.expect("legal")).votes(is_yes))
            },
            3,
        ),
        (
            "write",
            |call| {
                let system = ReadWrite::new(call.configuration(), 1, 3).expect("they meet");
                let write = system.write().clone();
                Box::pin(call.quorum(write).votes(is_yes))
            },
            3,
        ),
        (
            "both",
            |call| Box::pin(call.quorum(Both(Majority, Majority)).votes(is_yes)),
            2,
        ),
    ];
    let (_servers, all) = cluster(3, voter).await;
    for (name, terminal, needed) in rules {
        for yes in 0..=3 {
            let result = within(terminal(call(&all, VOTE, yes))).await;
            if yes >= needed {
                let replies = result.expect("enough say yes");
                assert!(replies.len() as u64 >= needed.min(yes), "{name}, {yes}");
                assert!(replies.values().all(is_yes), "{name}, {yes}");
                continue;
            }
            let error = result.expect_err("too few say yes");
            assert_eq!(
                error.call().kind(),
                QuorumErrorKind::NoQuorum,
                "{name}, {yes}"
            );
            for (node, reply) in error.no() {
                assert!(u64::from(node.get()) > yes && reply.value == NO, "{name}");
                let failure = error.call().failure(*node).expect("a no is a failure");
                assert_eq!(failure.outcome(), Outcome::Refused);
                assert_eq!(failure.status().message(), "it said no");
            }
            assert!(yes_of(&error).iter().all(|node| u64::from(*node) <= yes));
            assert_eq!(error.call().replies(), error.yes().len(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_vote_fails_as_soon_as_yes_is_out_of_reach() {
    let (_servers, all) = cluster(3, |index| match index {
        0 => Server::builder().unary(VOTE, |_ctx, _: Number| {
            std::future::pending::<Result<Number, Status>>()
        }),
        _ => voter(index),
    })
    .await;
    // No deadline: node 1 never answers.
    let error = within(call(&all, VOTE, 0).majority().votes(is_yes))
        .await
        .expect_err("two of three say no");
    assert_eq!(no_of(&error), [2, 3]);
    assert_eq!(error.call().kind(), QuorumErrorKind::NoQuorum);
    assert_eq!(error.call().outcome(), Outcome::Unknown, "node 1 may yet");
    let addresses = [1, 2].map(|index: usize| all[index].address());
    let [two, three] = addresses;
    assert_eq!(
        error.to_string(),
        format!(
            "{VOTE}: no quorum among the replies: 0 of 3 nodes said yes, 2 needed\n  \
             node 2 ({two}): refused: aborted: it said no\n  \
             node 3 ({three}): refused: aborted: it said no"
        )
    );
}

#[tokio::test]
async fn where_all_say_no_the_call_is_refused() {
    let (_servers, all) = cluster(3, voter).await;
    let client = Client::new(&all);
    let mut vote = call(&all, VOTE, 0).majority().votes(is_yes);
    // Replies of a connection come in order: the votes are there before anybody looks at one.
    for node in &all {
        within(client.rpc::<_, Number>(node, ECHO, number(0)))
            .await
            .expect("up");
    }
    let error = within(&mut vote).await.expect_err("all say no");
    assert_eq!(no_of(&error), [1, 2, 3], "the third came too late to count");
    assert_eq!(error.call().outcome(), Outcome::Refused);
}

#[tokio::test]
async fn a_vote_that_comes_too_late_is_in_the_error() {
    let (_servers, all) = cluster(5, voter).await;
    let client = Client::new(&all);
    for yes in 0..3 {
        let vote = call(&all, VOTE, yes).majority().votes(is_yes);
        for node in &all {
            within(client.rpc::<_, Number>(node, ECHO, number(0)))
                .await
                .expect("up");
        }
        let error = within(vote).await.expect_err("a minority says yes");
        let (first, rest): (Vec<u32>, Vec<u32>) = (1..=5).partition(|node| u64::from(*node) <= yes);
        assert_eq!((yes_of(&error), no_of(&error)), (first, rest));
        assert_eq!(error.call().replies() as u64, yes);
    }
}

#[tokio::test]
async fn a_node_that_could_have_changed_the_vote_makes_it_incomplete() {
    let gate = Arc::new(Semaphore::new(0));
    let (_servers, all) = cluster(3, |index| {
        let gate = Arc::clone(&gate);
        Server::builder().unary(VOTE, move |_ctx, _: Number| {
            let gate = Arc::clone(&gate);
            async move {
                match index {
                    0 => {
                        let open = gate.acquire().await;
                        open.expect("never closed").forget();
                        Err(Status::unavailable("unwell"))
                    }
                    1 => Ok(number(NO)),
                    _ => Ok(number(YES)),
                }
            }
        })
    })
    .await;
    let mut seen = 0;
    let vote = call(&all, VOTE, 0).majority().votes(|reply| {
        seen += 1;
        // Node 1 fails when the others have voted.
        gate.add_permits(usize::from(seen == 2));
        is_yes(reply)
    });
    let error = within(vote).await.expect_err("one yes, one no, one failed");
    assert_eq!(error.call().kind(), QuorumErrorKind::Incomplete);
    assert_eq!((yes_of(&error), no_of(&error)), (vec![3], vec![2]));
    let failed: Vec<_> = error
        .call()
        .failures()
        .iter()
        .map(|f| f.node().get())
        .collect();
    assert_eq!(failed, [1, 2]);
}

#[tokio::test]
async fn a_reply_that_is_rejected_is_no_vote() {
    let (_servers, all) = cluster(3, voter).await;
    let vote = call(&all, VOTE, 3)
        .map_response(|node, reply| match node.id().get() {
            1 => Err(Status::data_loss("a bad signature")),
            _ => Ok(reply),
        })
        .all()
        .votes(is_yes);
    let error = within(vote).await.expect_err("node 1 has no vote");
    assert_eq!(error.call().kind(), QuorumErrorKind::Incomplete);
    assert!(error.no().is_empty());
    let failure = error.call().failure(1.into()).expect("it failed");
    assert_eq!(failure.code(), Code::DataLoss);
}

#[tokio::test]
async fn the_first_reply_of_a_streamed_call_is_the_vote_of_its_node() {
    let (_servers, all) = cluster(3, |_| {
        Server::builder().streaming(
            STREAM,
            |_ctx, request: Number, replies: ReplySender<Number>| async move {
                replies.send(number(request.value)).await?;
                replies.send(number(YES - request.value)).await?;
                Ok(())
            },
        )
    })
    .await;
    let call = |first| {
        Client::new(&all)
            .streamed_quorum_call::<_, Number>(STREAM, number(first))
            .all()
            .votes(is_yes)
    };
    let replies = within(call(YES)).await.expect("all say yes first");
    assert_eq!(replies.len(), 3);
    let error = within(call(NO)).await.expect_err("all say no first");
    assert!(error.yes().is_empty() && !error.no().is_empty());
}

#[tokio::test]
async fn a_vote_that_cannot_be_won_is_not_held() {
    let (_servers, all) = cluster(1, voter).await;
    for k in [0, 2] {
        let error = within(call(&all, VOTE, 1).threshold(k).votes(is_yes))
            .await
            .expect_err("no set of nodes is enough");
        assert_eq!(error.call().kind(), QuorumErrorKind::Impossible);
        assert_eq!(error.call().outcome(), Outcome::NotSent);
        assert!(error.yes().is_empty() && error.no().is_empty());
    }
}

#[tokio::test]
async fn a_lost_vote_is_an_error_of_the_call_and_a_status() {
    let (_servers, all) = cluster(1, voter).await;
    let lost = || async { within(call(&all, VOTE, 0).all().votes(is_yes)).await };
    let as_call = async { Ok::<_, QuorumError>(lost().await.map(drop)?) };
    let error = as_call.await.expect_err("it said no");
    assert_eq!(error.kind(), QuorumErrorKind::NoQuorum);
    let as_status = async { Ok::<_, Status>(lost().await.map(drop)?) };
    assert_eq!(
        as_status.await.expect_err("it said no").code(),
        Code::Aborted
    );
    let boxed: Box<dyn Error + Send + Sync> = lost().await.expect_err("it said no").into();
    let node = boxed.source().expect("a node said no");
    assert!(node.to_string().ends_with("refused: aborted: it said no"));
}

#[tokio::test]
async fn a_vote_can_be_awaited_in_another_task() {
    let (_servers, all) = cluster(3, voter).await;
    let vote = tokio::spawn(call(&all, VOTE, 3).majority().votes(is_yes));
    assert!(within(vote).await.expect("no panic").is_ok());
}
