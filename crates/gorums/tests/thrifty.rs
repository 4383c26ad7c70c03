//! Calls that ask a quorum, and others only where it takes too long.

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Number, number};
use gorums::call::{QuorumCall, Thrifty};
use gorums::quorum::{Majority, QuorumSystem, Quorums, Threshold, Weighted};
use gorums::runtime::{BoxFuture, Clock, SystemClock};
use gorums::testing::Cluster;
use gorums::{
    CancellationToken, Client, Code, Configuration, ConfigurationBuilder, NodeId, Outcome,
    QuorumErrorKind, Server, ServerCtx, Status,
};
use tokio::time::Instant;

const READ: &str = "test.Thrifty.Read";

const MS: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(50);

/// What a node does with a request that it is asked.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Says which node it is.
    Answers,
    AnswersAfter(Duration),
    /// Its answer is of no use.
    SaysNo,
    Fails,
    Hangs,
}

/// Nodes that do as they are told, and note what they are asked.
struct Nodes {
    cluster: Cluster,
    all: Configuration,
    told: Arc<Mutex<Vec<Does>>>,
    asked: Arc<Mutex<Vec<(u32, u64)>>>,
}

/// A clock whose random numbers are odd, with which no call explores.
#[derive(Debug)]
struct Odd(SystemClock);

impl Clock for Odd {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }

    fn wall_clock(&self) -> std::time::SystemTime {
        self.0.wall_clock()
    }

    fn random(&self) -> u64 {
        self.0.random() | 1
    }
}

impl Nodes {
    async fn new(count: u32) -> Self {
        Self::with(count, |builder| builder.clock(Odd(SystemClock))).await
    }

    async fn with(
        count: u32,
        build: impl FnOnce(ConfigurationBuilder) -> ConfigurationBuilder,
    ) -> Self {
        let told = Arc::new(Mutex::new(vec![Does::Answers; count as usize + 1]));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (does, log) = (Arc::clone(&told), Arc::clone(&asked));
        let cluster = Cluster::on_pipes(count, move |me, _| {
            let (does, log) = (Arc::clone(&does), Arc::clone(&log));
            Server::builder().unary(READ, move |ctx: ServerCtx, request: Number| {
                log.lock()
                    .expect("no panic")
                    .push((me.get(), request.value));
                let does = does.lock().expect("no panic")[me.get() as usize];
                async move {
                    ctx.release();
                    match does {
                        Does::Answers => {}
                        Does::AnswersAfter(time) => tokio::time::sleep(time).await,
                        Does::SaysNo => return Ok(number(0)),
                        Does::Fails => return Err(Status::unavailable("it was told to")),
                        Does::Hangs => std::future::pending().await,
                    }
                    Ok(number(me.get().into()))
                }
            })
        });
        let cluster = cluster.await.expect("it serves");
        let all = build(cluster.client()).connect().expect("its nodes");
        all.connected(count as usize).await.expect("none is closed");
        Self {
            cluster,
            all,
            told,
            asked,
        }
    }

    fn tell(&self, node: u32, does: Does) {
        self.told.lock().expect("no panic")[node as usize] = does;
    }

    fn read(&self, value: u64) -> QuorumCall<Number, Number> {
        let client = Client::new(&self.all);
        client.quorum_call(READ, number(value)).idempotent(true)
    }

    /// The nodes that were asked since this was asked last, when all that was sent has come.
    async fn asked(&self) -> Vec<u32> {
        tokio::time::sleep(MS).await;
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        asked.sort_unstable();
        asked.into_iter().map(|(node, _)| node).collect()
    }

    /// Asks each node so often, so that it is known how near they are.
    async fn measure(&self, times: u64) {
        for value in 0..times {
            self.read(value).all().await.expect("all answer");
        }
        self.asked().await;
    }
}

/// Which asks others after a delay, for so many requests.
fn thrifty() -> Thrifty {
    Thrifty::by_latency().after(DELAY).budget(0.0, 100)
}

/// Which asks others where nodes fail.
fn by_failures() -> Thrifty {
    Thrifty::by_latency().after(Duration::MAX).budget(0.0, 0)
}

/// Asks these nodes first, and has a budget of so many requests.
fn first<const N: usize>(nodes: [u32; N], burst: u32) -> Thrifty {
    let thrifty = Thrifty::by_strategy([(nodes, 1.0)]).expect("a quorum with a share");
    thrifty.after(DELAY).budget(0.0, burst)
}

async fn took<T>(call: impl IntoFuture<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let output = call.into_future().await;
    (output, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_asked_of_every_system_and_no_other_node() {
    let nodes = Nodes::new(9).await;
    let grid = Quorums::grid([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).expect("they meet");
    let zones = Quorums::hierarchical([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).expect("they meet");
    let weighted = Weighted::majority([(1, 1), (2, 1), (7, 5), (9, 3)]).expect("legal");
    let systems: [(Box<dyn QuorumSystem>, usize); 7] = [
        (Box::new(Majority), 5),
        (Box::new(Threshold(2)), 2),
        (Box::new(grid.read().clone()), 3),
        (Box::new(grid.write().clone()), 5),
        (Box::new(zones.read().clone()), 4),
        (Box::new(zones.write().clone()), 4),
        // Seven of ten votes take two nodes at the least.
        (Box::new(weighted), 2),
    ];
    for (system, count) in systems {
        for slow in [None, Some([1, 2, 5])] {
            for node in slow.into_iter().flatten() {
                nodes.tell(node, Does::AnswersAfter(20 * MS));
            }
            nodes.measure(10).await;
            let thrifty = by_failures();
            let replies = nodes.read(1).thrifty(thrifty.clone()).quorum(&system);
            let replies = replies.replies().await.expect("a quorum");
            let answered: Vec<u32> = replies.iter().map(|(node, _)| node.get()).collect();
            let asked = nodes.asked().await;
            assert_eq!(
                BTreeSet::from_iter(answered),
                asked.iter().copied().collect()
            );
            assert_eq!(asked.len(), count, "{asked:?}");
            assert_eq!(thrifty.counts().calls, 1);
            assert_eq!(thrifty.counts().saved, 9 - count as u64);
            assert_eq!(thrifty.counts().extra, 0);
            // One that needs none of the slow nodes is there for these.
            let is_avoided = slow.is_some_and(|slow| !slow.iter().any(|one| asked.contains(one)));
            assert_eq!(is_avoided, slow.is_some(), "{asked:?}");
            for node in 1..=9 {
                nodes.tell(node, Does::Answers);
            }
        }
        nodes.measure(200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_passed_by_after_the_delay_and_not_asked_by_the_next_call() {
    let nodes = Nodes::new(3).await;
    nodes.measure(1).await;
    let thrifty = thrifty();
    let read = || nodes.read(1).thrifty(thrifty.clone()).majority().replies();
    nodes.tell(2, Does::Hangs);
    let (replies, time) = took(read()).await;
    let replies = replies.expect("1 and 3");
    assert_eq!(time, DELAY);
    assert!(replies.get(3.into()).is_some());
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    let counts = thrifty.counts();
    assert_eq!((counts.late, counts.extra, counts.explored), (1, 1, 0));
    assert_eq!((counts.rescued, counts.failed, counts.saved), (1, 0, 0));
    // What it took is counted from when it was asked, and not from the beginning of the call.
    let latency = nodes.all[2].latency().expect("it has answered");
    assert!(latency < MS, "{latency:?}");

    let (replies, time) = took(read()).await;
    replies.expect("1 and 3");
    assert_eq!(time, Duration::ZERO);
    let asked = nodes.asked().await;
    assert!(
        asked.starts_with(&[1]) && asked.ends_with(&[3]),
        "{asked:?}"
    );
    assert_eq!(nodes.all[1].pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_is_replaced_at_once() {
    let nodes = Nodes::new(5).await;
    nodes.measure(1).await;
    nodes.tell(2, Does::Fails);
    nodes.tell(3, Does::Fails);
    let thrifty = by_failures();
    let call = nodes.read(1).thrifty(thrifty.clone()).majority().replies();
    let (replies, time) = took(call).await;
    let replies = replies.expect("1, 4 and 5");
    assert_eq!(time, Duration::ZERO);
    let answered: Vec<_> = replies.iter().map(|(node, _)| node.get()).collect();
    assert_eq!(BTreeSet::from_iter(answered), BTreeSet::from([1, 4, 5]));
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    let counts = thrifty.counts();
    assert_eq!((counts.failed, counts.late, counts.extra), (1, 0, 2));
    assert_eq!((counts.rescued, counts.saved), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_no_and_a_reply_that_is_rejected_are_failures() {
    let nodes = Nodes::new(5).await;
    nodes.measure(1).await;
    nodes.tell(1, Does::SaysNo);
    let yes = nodes.read(1).thrifty(by_failures()).majority();
    let yes = yes
        .votes(|reply| reply.value > 0)
        .await
        .expect("three of them");
    assert_eq!(yes.len(), 3);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4]);
    // It is asked first again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mapped = nodes.read(2).thrifty(by_failures());
    let mapped = mapped.map_response(|_, reply: Number| match reply.value {
        0 => Err(Status::aborted("of no use")),
        _ => Ok(reply),
    });
    let replies = mapped.majority().replies().await.expect("three of them");
    assert_eq!(replies.len(), 3);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_quorum_any_more_fails_and_asks_nobody_else() {
    let nodes = Nodes::new(5).await;
    for node in [1, 2, 3] {
        nodes.tell(node, Does::Fails);
    }
    let call = nodes.read(1).thrifty(by_failures()).majority();
    let error = call.await.expect_err("three have failed");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(error.failures().len(), 3);
    assert!(!error.to_string().contains("not waited for"), "{error}");
    assert_eq!(nodes.asked().await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_failed_comes_after_the_others_for_a_second() {
    let nodes = Nodes::new(5).await;
    nodes.measure(1).await;
    nodes.tell(2, Does::Fails);
    let thrifty = by_failures();
    let read = || nodes.read(1).thrifty(thrifty.clone()).majority();
    for asked in [vec![1, 2, 3, 4], vec![1, 3, 4], vec![1, 3, 4]] {
        read().await.expect("three of them");
        assert_eq!(nodes.asked().await, asked);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    read().await.expect("three of them");
    assert_eq!(nodes.asked().await, [1, 2, 3, 4]);
    assert_eq!(thrifty.counts().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_asked_later_may_fail_too() {
    let nodes = Nodes::new(5).await;
    nodes.tell(1, Does::Fails);
    nodes.tell(4, Does::Fails);
    nodes.tell(5, Does::Fails);
    let thrifty = by_failures();
    let call = nodes.read(1).thrifty(thrifty.clone()).majority();
    let (error, time) = took(call).await;
    let error = error.expect_err("only two answer");
    assert_eq!(time, Duration::ZERO);
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Incomplete, 2)
    );
    assert_eq!(error.failures().len(), 3);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    assert_eq!((thrifty.counts().failed, thrifty.counts().rescued), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn each_delay_asks_no_more_than_a_quorum_without_the_silent_takes() {
    let nodes = Nodes::new(7).await;
    for node in [1, 2, 5] {
        nodes.tell(node, Does::Hangs);
    }
    let thrifty = first([1, 2, 3, 4], 100);
    let call = nodes.read(1).thrifty(thrifty.clone()).majority();
    let mut call = Box::pin(call);
    let early = tokio::time::timeout(DELAY + MS, &mut call).await;
    early.expect_err("5 is silent, too");
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5, 6]);
    let (reply, time) = took(call).await;
    reply.expect("3, 4, 6 and 7");
    assert!(time < DELAY);
    assert_eq!(nodes.asked().await, [7]);
    let counts = thrifty.counts();
    assert_eq!((counts.late, counts.extra, counts.saved), (1, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_grid_is_completed_by_the_nodes_that_it_lacks() {
    let nodes = Nodes::new(6).await;
    let grid = Quorums::grid([[1, 2, 3], [4, 5, 6]]).expect("its quorums meet");
    nodes.tell(2, Does::Hangs);
    let thrifty = first([1, 2, 3, 4], 100);
    let write = nodes.read(1).thrifty(thrifty.clone()).quorum(grid.write());
    let (reply, time) = took(write).await;
    reply.expect("the other row");
    assert_eq!(time, DELAY);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(thrifty.counts().extra, 2);
    // A read of a column has another node of the row.
    let thrifty = first([2, 4], 100);
    let read = nodes.read(2).thrifty(thrifty.clone()).quorum(grid.read());
    let (reply, time) = took(read).await;
    reply.expect("1 and 4");
    assert_eq!(time, DELAY);
    assert_eq!(nodes.asked().await, [1, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn without_budget_a_call_waits_for_eight_delays_and_asks_all() {
    let nodes = Nodes::new(5).await;
    nodes.tell(2, Does::Hangs);
    let thrifty = first([1, 2, 3], 1);
    let read = |value| nodes.read(value).thrifty(thrifty.clone()).majority();
    let (paid, time) = took(read(1)).await;
    paid.expect("1, 3 and one more");
    assert_eq!(time, DELAY);
    assert_eq!(nodes.asked().await.len(), 4);
    let (unpaid, time) = took(read(2)).await;
    unpaid.expect("1, 3 and one more");
    assert_eq!(time, 8 * DELAY);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    let counts = thrifty.counts();
    assert_eq!((counts.late, counts.extra, counts.over_budget), (2, 3, 7));
    assert_eq!((counts.saved, counts.rescued), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn without_budget_an_answer_in_time_costs_nothing_more() {
    let nodes = Nodes::new(3).await;
    nodes.tell(2, Does::AnswersAfter(3 * DELAY));
    let thrifty = first([1, 2], 0);
    let (reply, time) = took(nodes.read(1).thrifty(thrifty.clone()).majority()).await;
    reply.expect("1 and 2");
    assert_eq!(time, 3 * DELAY);
    assert_eq!(nodes.asked().await, [1, 2]);
    // It is asked whether there is one after each delay, and the answer comes with the third.
    assert!((2..=3).contains(&thrifty.counts().over_budget));
    assert_eq!((thrifty.counts().extra, thrifty.counts().saved), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_budget_grows_by_its_share_with_each_call() {
    let nodes = Nodes::new(3).await;
    let thrifty = Thrifty::by_strategy([([1, 2], 1.0)]).expect("one");
    // It has earned nothing so far, and a tenth with each call.
    let thrifty = thrifty.after(DELAY).budget(0.1, 0).budget(0.1, 1);
    nodes.tell(2, Does::AnswersAfter(4 * DELAY));
    let mut late = Vec::new();
    for value in 0..22 {
        let (reply, time) = took(nodes.read(value).thrifty(thrifty.clone()).majority()).await;
        reply.expect("1 and 2 or 3");
        if time == DELAY {
            late.push(value);
        }
    }
    // The burst, and then every tenth.
    assert_eq!(late, [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn all_are_asked_when_half_of_the_time_is_over() {
    let nodes = Nodes::new(5).await;
    nodes.tell(1, Does::Hangs);
    nodes.tell(2, Does::Hangs);
    let call = nodes.read(1).thrifty(by_failures()).timeout(200 * MS);
    let (reply, time) = took(call.majority()).await;
    reply.expect("3, 4 and 5");
    assert_eq!(time, 100 * MS);
    nodes.asked().await;
    // The deadline ends the call all the same.
    nodes.tell(3, Does::Hangs);
    let call = nodes.read(2).thrifty(by_failures()).timeout(200 * MS);
    let (error, time) = took(call.majority()).await;
    let error = error.expect_err("two have answered");
    assert_eq!(
        (error.kind(), error.replies()),
        (QuorumErrorKind::Deadline, 2)
    );
    assert_eq!(time, 200 * MS);
    assert_eq!(error.failures().len(), 3);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_refused_whose_method_may_not_be_handled_late() {
    let nodes = Nodes::new(3).await;
    let write = |thrifty| nodes.read(1).idempotent(false).thrifty(thrifty).majority();
    let error = write(thrifty()).await.expect_err("it is refused");
    assert_eq!(error.kind(), QuorumErrorKind::Incomplete);
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert_eq!(error.failures()[0].code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("Thrifty::any_method"), "{error}");
    assert_eq!(nodes.asked().await, []);

    write(thrifty().any_method()).await.expect("it is allowed");
    assert_eq!(nodes.asked().await.len(), 2);
    let all = nodes
        .read(1)
        .idempotent(false)
        .thrifty(thrifty())
        .thrifty(None);
    all.majority().await.expect("all are asked");
    assert_eq!(nodes.asked().await, [1, 2, 3]);

    let in_sessions = Nodes::with(3, |builder| {
        let builder = builder.clock(Odd(SystemClock));
        builder.sessions(Duration::from_secs(1))
    })
    .await;
    let write = in_sessions.read(1).idempotent(false).thrifty(by_failures());
    write.majority().await.expect("each node has it once");
    assert_eq!(in_sessions.asked().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_thrifty_where_it_may_be() {
    let nodes = Nodes::new(3).await;
    let thrifty = by_failures();
    let client = Client::new(&nodes.all).with_thrifty(thrifty.clone());
    let read = |value| client.quorum_call::<_, Number>(READ, number(value));
    let calls = [
        (read(1).idempotent(true), 2),
        (read(2), 3),
        (read(3).idempotent(true).thrifty(None), 3),
    ];
    for (call, count) in calls {
        call.majority().await.expect("two of three");
        assert_eq!(nodes.asked().await.len(), count);
    }
    let replies = read(4).idempotent(true).responses().by_node().await;
    assert_eq!(replies.len(), 3);
    assert_eq!(nodes.asked().await.len(), 3);
    assert_eq!(thrifty.counts().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn terminals_that_count_nodes_ask_as_many() {
    let nodes = Nodes::new(5).await;
    nodes.measure(1).await;
    nodes.tell(1, Does::Fails);
    let read = |value| nodes.read(value).thrifty(by_failures());
    read(1).first().await.expect("the next one");
    assert_eq!(nodes.asked().await, [1, 2]);
    let same = read(2).matching(2, |reply| reply.value > 0);
    same.await.expect("2 and 3");
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    // What no other node says does not count for it.
    let other = read(3).matching(2, |reply| reply.value.min(4));
    assert_eq!(other.await.expect("4 and 5").value, 4);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    let mut levels = read(4).correctable(2);
    let level = levels.reached(2).await.expect("2 and 3").level;
    assert_eq!(level, 2);
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    nodes.tell(1, Does::Answers);
    let replies = read(5).all().replies().await.expect("all answer");
    assert_eq!(replies.len(), 5);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn terminals_that_do_not_tell_have_to_be_told_how_many_to_ask() {
    let nodes = Nodes::new(5).await;
    nodes.measure(1).await;
    let read = |thrifty| nodes.read(1).thrifty(thrifty);
    let error = read(by_failures()).quorum_fn(|_, _| Some(())).await;
    let error = error.expect_err("it is refused").to_string();
    assert!(error.contains("Thrifty::asks"), "{error}");
    let refused = read(by_failures()).responses().by_node().await;
    assert!(refused.values().all(Result::is_err) && refused.len() == 5);
    assert_eq!(nodes.asked().await, []);
    let client = Client::new(&nodes.all);
    let streamed = client.streamed_quorum_call::<_, Number>(READ, number(1));
    let streamed = streamed.idempotent(true).thrifty(by_failures().asks(2));
    let error = streamed.majority().await.expect_err("it is refused");
    assert!(error.to_string().contains("streamed"), "{error}");

    // As many as it says; another one for one that fails; and all where it was not enough.
    let sum = |least: u64| {
        let call = read(by_failures().asks(2));
        call.quorum_fn(move |_, replies| {
            let sum = replies.values().map(|reply| reply.value).sum::<u64>();
            (sum >= least).then_some(sum)
        })
    };
    assert_eq!(sum(3).await.expect("1 and 2"), 3);
    assert_eq!(nodes.asked().await, [1, 2]);
    nodes.tell(1, Does::Fails);
    assert_eq!(sum(5).await.expect("2 and 3"), 5);
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    assert_eq!(sum(14).await.expect("all others"), 14);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    // The node that failed might have changed it.
    let error = sum(15).await.expect_err("no more can come");
    assert_eq!(error.kind(), QuorumErrorKind::NoQuorum);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_replies_one_by_one_has_others_asked_for_more() {
    let nodes = Nodes::new(5).await;
    nodes.tell(2, Does::Fails);
    let thrifty = first([1, 2], 100).asks(2);
    let read = || nodes.read(1).thrifty(thrifty.clone()).responses();
    let two = read().successes().take(2).by_node().await;
    assert_eq!(
        two.into_keys().collect::<Vec<_>>(),
        [1, 3].map(NodeId::from)
    );
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    let all = read().by_node().await;
    assert_eq!(all.len(), 5);
    assert_eq!(nodes.asked().await, [1, 2, 3, 4, 5]);
    nodes.tell(2, Does::Hangs);
    // That it has failed is forgiven by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (two, time) = took(read().take(2).by_node()).await;
    assert_eq!(
        two.into_keys().collect::<Vec<_>>(),
        [1, 3].map(NodeId::from)
    );
    assert_eq!(time, DELAY);
    assert_eq!(nodes.asked().await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_left_out_or_rejected_is_not_asked() {
    let nodes = Nodes::new(5).await;
    nodes.tell(2, Does::Hangs);
    let call = nodes.read(7).thrifty(first([1, 2, 3], 100));
    let call = call.map_request(|node, request| {
        let value = request.value * 10 + u64::from(node.id().get());
        (node.id() != NodeId::from(1)).then(|| number(value))
    });
    let (reply, time) = took(call.majority()).await;
    reply.expect("3, 4 and 5");
    assert_eq!(time, DELAY);
    tokio::time::sleep(MS).await;
    let mut asked = std::mem::take(&mut *nodes.asked.lock().expect("no panic"));
    asked.sort_unstable();
    assert_eq!(asked, [(2, 72), (3, 73), (4, 74), (5, 75)]);

    struct Rejects;
    impl gorums::call::ClientInterceptor for Rejects {
        fn on_request(&self, outgoing: &mut gorums::call::Outgoing<'_>) -> Result<(), Status> {
            outgoing.reject(NodeId::from(3), Status::unavailable("not now"));
            Ok(())
        }
    }
    let client = Client::new(&nodes.all).with_interceptor(Rejects);
    let call = client.quorum_call::<_, Number>(READ, number(1));
    let call = call.idempotent(true).thrifty(by_failures());
    call.threshold(3).await.expect("1, 4 and 5");
    assert_eq!(nodes.asked().await, [1, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_lets_go_of_what_it_has_not_sent() {
    // With more than one call at a time the next one would be refused.
    let nodes = Nodes::with(5, |builder| builder.clock(Odd(SystemClock)).max_calls(1)).await;
    nodes.tell(1, Does::Hangs);
    let thrifty = thrifty().budget(0.0, 0);
    let read = || nodes.read(1).thrifty(thrifty.clone());
    let not_awaited = read().majority();
    assert_eq!(nodes.asked().await, [1, 2, 3]);
    tokio::time::sleep(20 * DELAY).await;
    assert_eq!(nodes.asked().await, []);
    let pending: Vec<_> = nodes.all.iter().map(gorums::Node::pending).collect();
    assert_eq!(pending, [1, 0, 0, 0, 0]);
    drop(not_awaited);

    let token = CancellationToken::new();
    let cancelled = read().cancelled_by(&token).majority();
    let cancelled = tokio::spawn(cancelled);
    assert_eq!(nodes.asked().await.len(), 3);
    token.cancel();
    let error = cancelled
        .await
        .expect("no panic")
        .expect_err("it was cancelled");
    assert_eq!(error.kind(), QuorumErrorKind::Cancelled);
    assert_eq!(error.failures().len(), 1);
    assert_eq!(nodes.asked().await, []);

    // One that was over before it began asks nobody.
    let error = read().cancelled_by(&token).majority().await;
    let error = error.expect_err("it was cancelled");
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert_eq!(error.failures().len(), 5);
    assert_eq!(nodes.asked().await, []);

    let timed = read().timeout(10 * MS).threshold(5);
    timed.await.expect_err("1 is silent");
    nodes.tell(1, Does::Answers);
    read().majority().await.expect("three");
    read().first().await.expect("one");
    let pending: usize = nodes.all.iter().map(gorums::Node::pending).sum();
    assert_eq!(pending, 0);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_not_connected_come_last() {
    let mut nodes = Nodes::new(5).await;
    nodes.measure(3).await;
    for gone in [1, 3] {
        nodes.cluster.stop(gone).await;
    }
    let (two, three) = (nodes.all[0].id(), nodes.all[2].id());
    for id in [two, three] {
        let node = nodes.all.node(id).expect("it is one").clone();
        gorums::testing::eventually("the connection has ended", || !node.state().is_connected())
            .await;
    }
    for picks in [by_failures(), first([1, 2, 3], 0)] {
        nodes
            .read(1)
            .thrifty(picks)
            .majority()
            .await
            .expect("the others");
        assert_eq!(nodes.asked().await, [2, 4, 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_does_not_keep_an_idempotent_call_waiting() {
    let mut nodes = Nodes::new(3).await;
    nodes.tell(1, Does::Hangs);
    let call = nodes
        .read(1)
        .thrifty(first([1, 2], 100))
        .timeout(20 * DELAY);
    let mut call = Box::pin(call.majority());
    let early = tokio::time::timeout(MS, &mut call).await;
    early.expect_err("1 is silent");
    // It is sent again to a node that is not there, until the deadline.
    nodes.cluster.stop(1).await;
    let (reply, time) = took(call).await;
    reply.expect("2 and 3");
    assert!(time < DELAY);
    assert_eq!(nodes.asked().await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_slow_is_found_to_be_fast_again() {
    let nodes = Nodes::with(5, |builder| builder).await;
    for slow in [1, 2] {
        nodes.tell(slow, Does::AnswersAfter(5 * MS));
    }
    nodes.measure(20).await;
    let thrifty = Thrifty::by_latency().after(DELAY);
    let read = |value| nodes.read(value).thrifty(thrifty.clone()).majority();
    read(0).await.expect("3, 4 and 5");
    let asked = nodes.asked().await;
    assert!(asked.ends_with(&[3, 4, 5]), "{asked:?}");
    // The others become slower than these are then.
    for node in 1..=5 {
        nodes.tell(
            node,
            if node > 2 {
                Does::AnswersAfter(2 * MS)
            } else {
                Does::Answers
            },
        );
    }
    let mut calls: u64 = 0;
    while nodes.all[0].latency() > Some(MS) || nodes.all[1].latency() > Some(MS) {
        calls += 1;
        // Some twenty samples of each of the two, of one call of 64 each: never so many.
        assert!(calls < 100_000, "{:?}", nodes.all[0].latency());
        read(calls).await.expect("three");
    }
    nodes.asked().await;
    read(0).await.expect("three");
    assert!(nodes.asked().await.starts_with(&[1, 2]));
    let counts = thrifty.counts();
    assert!(counts.explored > 0 && counts.explored <= counts.extra);
    let allowed = counts.calls / 10 + 10;
    assert!(counts.extra <= allowed, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_learned_from_the_nodes_that_are_asked() {
    let nodes = Nodes::new(5).await;
    let thrifty = Thrifty::by_latency().budget(0.0, 100);
    let read = || nodes.read(1).thrifty(thrifty.clone()).majority();
    // Nothing is known, so it is 10 ms.
    nodes.tell(1, Does::Hangs);
    let (reply, time) = took(read()).await;
    reply.expect("three others");
    assert_eq!(time, 10 * MS);
    nodes.tell(1, Does::AnswersAfter(200 * MS));
    for node in 2..=5 {
        nodes.tell(node, Does::AnswersAfter(20 * MS));
    }
    nodes.measure(40).await;
    for node in 2..=5 {
        nodes.tell(node, Does::AnswersAfter(15 * MS));
    }
    for _ in 0..64 {
        read().await.expect("the four others are faster");
    }
    assert_eq!(thrifty.counts().late, 1);
    // One of those that are asked is slow now; the one that always is does not matter.
    nodes.tell(2, Does::Hangs);
    nodes.tell(3, Does::Hangs);
    let (reply, time) = took(read()).await;
    reply.expect("the one that takes long is there");
    assert_eq!(time, 221 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_now_and_then_does_not_make_the_delay_longer() {
    let nodes = Nodes::new(5).await;
    nodes.tell(1, Does::AnswersAfter(500 * MS));
    for node in 2..=5 {
        nodes.tell(node, Does::AnswersAfter(20 * MS));
    }
    nodes.measure(20).await;
    nodes.tell(1, Does::Answers);
    nodes.measure(40).await;
    // It is the nearest, and a tenth of what is known of it is slow.
    assert!(nodes.all[0].latency() < Some(MS));
    assert_eq!(nodes.all[0].latency_quantile(0.95), Some(500 * MS));
    nodes.tell(1, Does::Hangs);
    let thrifty = Thrifty::by_latency().budget(0.0, 100);
    let (reply, time) = took(nodes.read(1).thrifty(thrifty.clone()).majority()).await;
    reply.expect("2, 3 and 4");
    assert_eq!(time, 41 * MS);
    assert_eq!(nodes.asked().await[0], 1);
}

#[tokio::test(start_paused = true)]
async fn quorums_are_asked_by_their_shares() {
    let nodes = Nodes::new(4).await;
    let shares = [([1, 2], 3.0), ([3, 4], 1.0), ([1, 4], 0.0)];
    let thrifty = Thrifty::by_strategy(shares).expect("two have a share");
    let mut asked = [0u32; 5];
    for value in 0..2_000 {
        let call = nodes.read(value).thrifty(thrifty.clone());
        call.threshold(2).await.expect("both answer");
        for node in nodes.asked().await {
            asked[node as usize] += 1;
        }
    }
    assert_eq!((asked[1], asked[3]), (asked[2], asked[4]));
    assert_eq!(asked[1] + asked[3], 2_000);
    // With a standard deviation of 19 in these 2,000.
    assert!((1_300..1_700).contains(&asked[1]), "{asked:?}");
    for wrong in [vec![], vec![(vec![1u32], -1.0)], vec![(vec![1], f64::NAN)]] {
        Thrifty::by_strategy(wrong).expect_err("no strategy");
    }
    Thrifty::by_strategy([(vec![1u32], 0.0)]).expect_err("no share");
    Thrifty::by_strategy([(Vec::<u32>::new(), 1.0)]).expect_err("no node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_that_end_while_they_widen_leave_nothing_behind() {
    // As many as there are at a time: one that is left would have another one refused.
    let nodes = Nodes::with(5, |builder| builder.max_calls(40)).await;
    for node in 1..=5 {
        nodes.tell(node, Does::AnswersAfter(node * MS));
    }
    let thrifty = Thrifty::by_latency().after(MS).budget(1.0, 1_000);
    let call = |value: u64| {
        let call = nodes.read(value).thrifty(thrifty.clone());
        call.timeout(MS * (value % 7 + 1) as u32)
    };
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40 {
        let calls: Vec<_> = (0..25).map(|number| call(caller + number)).collect();
        callers.spawn(async move {
            for (number, call) in calls.into_iter().enumerate() {
                let token = CancellationToken::new();
                let call = call.cancelled_by(&token).majority();
                let result = match number % 3 {
                    // It ends at its deadline, or before.
                    0 => call.await.map(drop),
                    1 => {
                        let cancel = async {
                            tokio::task::yield_now().await;
                            token.cancel();
                        };
                        tokio::join!(call, cancel).0.map(drop)
                    }
                    _ => {
                        // Dropped where it is not complete.
                        let _ = tokio::time::timeout(MS, call).await;
                        Ok(())
                    }
                };
                if let Err(error) = result {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, QuorumErrorKind::Deadline | QuorumErrorKind::Cancelled),
                        "{error}"
                    );
                }
            }
        });
    }
    let ended = async {
        while let Some(ended) = callers.join_next().await {
            ended.expect("no panic")
        }
    };
    common::within(ended).await;
    let pending: usize = nodes.all.iter().map(gorums::Node::pending).sum();
    assert_eq!(pending, 0);
    let counts = thrifty.counts();
    // Of each call two nodes are held back, of which it has asked some or none.
    assert_eq!(counts.calls, 1_000);
    assert_eq!(counts.saved + counts.extra, 2_000, "{counts:?}");
}

/// Numbers that look random, and are the same in each run.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number ^ (number >> 31)
}

/// What 2,000 reads of a majority of five took, of which 99 % took less, and how many requests they
/// cost. A node takes 1 to 5 ms, and 20 ms for one request of 100; the first one is slow.
async fn reads(thrifty: Thrifty, slow: Slow) -> (Duration, f64) {
    const CALLS: u64 = 2_000;
    let begun = Instant::now();
    let cluster = Cluster::on_pipes(5, move |me, _| {
        Server::builder().unary(READ, move |ctx: ServerCtx, request: Number| async move {
            ctx.release();
            let random = mixed(request.value * 8 + u64::from(me.get()));
            let usual = match random % 100 {
                0 => 20 * MS,
                other => (other % 5 + 1) as u32 * MS,
            };
            let is_stalled = begun.elapsed().as_millis() % 1_000 < 200;
            let more = match slow {
                Slow::Always if me == NodeId::from(1) => 50 * MS,
                Slow::NowAndThen if me == NodeId::from(1) && is_stalled => 200 * MS,
                _ => Duration::ZERO,
            };
            tokio::time::sleep(usual + more).await;
            Ok::<_, Status>(number(request.value))
        })
    });
    let cluster = cluster.await.expect("it serves");
    let nodes = cluster.client().connect().expect("its nodes");
    nodes.connected(5).await.expect("none is closed");
    let client = Client::new(&nodes);
    let mut times = Vec::new();
    for value in 0..CALLS {
        let call = client.quorum_call::<_, Number>(READ, number(value));
        let call = call.idempotent(true).thrifty(thrifty.clone()).majority();
        let (reply, time) = took(call).await;
        reply.expect("three of them");
        times.push(time);
    }
    times.sort_unstable();
    let counts = thrifty.counts();
    let requests = (5 * counts.calls - counts.saved) as f64 / counts.calls as f64;
    (times[times.len() * 99 / 100], requests)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    Never,
    Always,
    NowAndThen,
}

#[tokio::test(start_paused = true)]
async fn one_slow_node_of_five_costs_hedged_reads_little() {
    let alone = || Thrifty::by_latency().after(Duration::MAX).budget(0.0, 0);
    let (well, _) = reads(Thrifty::by_latency(), Slow::Never).await;
    for slow in [Slow::Always, Slow::NowAndThen] {
        let (hedged, requests) = reads(Thrifty::by_latency(), slow).await;
        let (unhedged, fewest) = reads(alone(), slow).await;
        println!(
            "{slow:?}: p99 {hedged:?} for {requests} requests, {unhedged:?} for {fewest}; {well:?}"
        );
        assert!(hedged <= well * 3 / 2, "{slow:?}: {hedged:?} and {well:?}");
        assert!(hedged < unhedged, "{slow:?}: {hedged:?} and {unhedged:?}");
        assert!(requests < fewest * 1.1, "{slow:?}: {requests} and {fewest}");
        assert!((2.99..3.01).contains(&fewest), "{fewest}");
    }
}
