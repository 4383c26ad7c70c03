//! Calls whose quorums are those of a system that is a value: grids, zones, expressions.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Number, cluster, number, within};
use gorums::call::QuorumCall;
use gorums::quorum::{Expression, QuorumSets, Quorums};
use gorums::{Client, Configuration, QuorumError, QuorumErrorKind, Server, ServerBuilder, Status};

const ASK: &str = "test.Test.Ask";

/// What a node does with a request: it answers, or fails; with any other sign it is silent.
const ANSWERS: char = '+';
const FAILS: char = '-';

fn node(index: usize) -> ServerBuilder {
    counted(index, &Arc::default())
}

fn counted(index: usize, asked: &Arc<AtomicUsize>) -> ServerBuilder {
    let asked = Arc::clone(asked);
    Server::builder().unary(ASK, move |ctx, request: Number| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            ctx.release();
            match char::from(request.payload[index]) {
                ANSWERS => Ok(number(index as u64 + 1)),
                FAILS => Err(Status::aborted("it was told to")),
                _ => std::future::pending().await,
            }
        }
    })
}

/// The nodes do what is said of each, in their order; spaces are for the eye.
fn ask(all: &Configuration, each: &str) -> QuorumCall<Number, Number> {
    let each: String = each.split_whitespace().collect();
    let request = Number {
        payload: each.into_bytes().into(),
        ..Number::default()
    };
    Client::new(all).quorum_call(ASK, request)
}

/// Which nodes were the quorum.
async fn quorum(
    all: &Configuration,
    each: &str,
    system: &QuorumSets,
) -> Result<Vec<u32>, QuorumError> {
    let replies = within(ask(all, each).quorum(system).replies()).await?;
    let mut nodes: Vec<_> = replies.iter().map(|(node, _)| node.get()).collect();
    nodes.sort_unstable();
    Ok(nodes)
}

fn kind(result: Result<Vec<u32>, QuorumError>) -> QuorumErrorKind {
    result.expect_err("there is no quorum").kind()
}

#[tokio::test]
async fn a_grid_reads_of_each_row_and_writes_a_row_and_of_each() {
    let (_servers, all) = cluster(6, node).await;
    let grid = Quorums::grid([[1, 2, 3], [4, 5, 6]]).expect("its quorums meet");
    let read = |each| quorum(&all, each, grid.read());
    let write = |each| quorum(&all, each, grid.write());

    assert_eq!(read(".+. ..+").await.expect("one of each row"), [2, 6]);
    assert_eq!(read("--- +++").await.expect("a row"), [4, 5, 6]);
    assert_eq!(write("-.+ +++").await.expect("both"), [3, 4, 5, 6]);
    // The silent nodes never have to answer for it to be clear.
    assert_eq!(kind(read("--- -..").await), QuorumErrorKind::Incomplete);
    assert_eq!(kind(write("-.. .-.").await), QuorumErrorKind::Incomplete);
    assert_eq!(kind(write("--- +++").await), QuorumErrorKind::Incomplete);

    // Its nodes are named: of a part of them it takes no less.
    let part = all.without(1);
    assert_eq!(
        quorum(&part, ".+. +++", grid.write()).await.expect("a row"),
        [2, 4, 5, 6]
    );
}

#[tokio::test]
async fn zones_bear_the_loss_of_one_and_of_one_node_of_each_other() {
    let (_servers, all) = cluster(9, node).await;
    let zones = Quorums::hierarchical([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).expect("they meet");
    let write = |each| quorum(&all, each, zones.write());

    assert_eq!(write("-++ +-+ ---").await.expect("two zones"), [2, 3, 4, 6]);
    assert_eq!(write("++. ... .++").await.expect("two"), [1, 2, 8, 9]);
    // A majority of all nodes is none of the zones.
    assert_eq!(
        kind(write("+++ +-- +--").await),
        QuorumErrorKind::Incomplete
    );
    assert_eq!(
        kind(write("... --. .--").await),
        QuorumErrorKind::Incomplete
    );
}

#[tokio::test]
async fn nothing_is_sent_where_the_nodes_called_have_no_quorum() {
    let asked = Arc::default();
    let (_servers, all) = cluster(6, |index| counted(index, &asked)).await;
    let grid = Quorums::grid([[1, 2, 3], [4, 5, 6]]).expect("its quorums meet");
    let part = all.without(1).without(5);
    let refused = quorum(&part, "++++++", grid.write()).await;
    assert_eq!(kind(refused), QuorumErrorKind::Impossible);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // Nodes that the system does not name do not count.
    let other = Quorums::majority([1, 2, 77, 78, 79]).expect("legal");
    let refused = quorum(&all, "++++++", other.read()).await;
    assert_eq!(kind(refused), QuorumErrorKind::Impossible);
}

#[tokio::test]
async fn votes_and_functions_go_by_a_system() {
    let (_servers, all) = cluster(5, node).await;
    let node = Expression::node;
    let reads = node(1) & 2 | Expression::majority_of([3, 4, 5]);
    let system = Quorums::from_reads(reads).expect("its quorums meet");

    let call = ask(&all, "+++.+").quorum(system.write());
    let yes = within(call.votes(|reply| reply.value != 2)).await;
    let yes = yes.expect("one of the two, and two of the three");
    let mut voters: Vec<_> = yes.iter().map(|(node, _)| node.get()).collect();
    voters.sort_unstable();
    assert_eq!(voters, [1, 3, 5]);
    // With two noes, what is silent cannot change it.
    let call = ask(&all, "++...").quorum(system.write());
    let lost = within(call.votes(|reply| reply.value > 2)).await;
    let lost = lost.expect_err("neither of the two");
    assert_eq!(lost.call().kind(), QuorumErrorKind::NoQuorum);

    let reads = system.read().clone();
    let call = ask(&all, "+..++").quorum_fn(move |_, replies| {
        let counted = allocation_counter::measure(|| {
            let _ = replies.is_quorum(&reads);
        });
        let is_quorum = replies.is_quorum(&reads);
        is_quorum.then_some((replies.len(), counted.count_total))
    });
    let (replies, allocations) = within(call).await.expect("4 and 5");
    assert!((2..=3).contains(&replies));
    assert_eq!(allocations, 0);
}
