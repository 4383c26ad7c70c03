//! Calls that a node may handle twice are sent again where their stream breaks, and no others are.

#[path = "common/asked.rs"]
mod asked;
mod common;
#[path = "common/memory.rs"]
mod memory;

use std::future::IntoFuture as _;
use std::time::Duration;

use asked::{
    ASK, Asked, BREAK, ECHO, LARGE, LOST, NODE, STREAM, answered, builder, call, connect, failed,
};
use common::{Number, TestServer, number, within};
use gorums::call::Unary;
use gorums::membership::WhileDisconnected;
use gorums::{Client, Code, Outcome};
use memory::{Network, settle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A deadline that only what is said to run into it runs into.
const LONG: Duration = Duration::from_secs(30);

fn idempotent(client: &Client, value: u64) -> Unary<Number> {
    call(client, ASK, value)
        .idempotent(true)
        .timeout(LONG)
        .send()
}

#[tokio::test(start_paused = true)]
async fn idempotent_calls_survive_a_server_that_is_killed_and_starts_again() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.serve(&network, NODE).await;
    let (all, client) = connect(builder(&network).nodes([NODE]));
    let first = idempotent(&client, 1);
    let plain = call(&client, ASK, 2).timeout(LONG).send();
    let switched_off = call(&client, ASK, 3)
        .idempotent(true)
        .idempotent(false)
        .send();
    let last = idempotent(&client, 4);
    asked.count.reached(4).await;
    server.stop().await;
    network.cut(NODE);
    assert_eq!(failed(plain).await, LOST);
    assert_eq!(failed(switched_off).await, LOST);
    // It is away for longer than a few attempts to connect take.
    network.attempted(NODE, 10).await;
    assert_eq!(all[0].pending(), 2);
    assert_eq!(asked.taken(), [1, 2, 3, 4]);
    asked.open();
    let _server = asked.serve(&network, NODE).await;
    answered(first, 1).await;
    answered(last, 4).await;
    assert_eq!(asked.taken(), [1, 4]);
    assert_eq!(all[0].pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_keeps_its_order_and_comes_before_all_that_is_newer() {
    let network = Network::new();
    let asked = Asked::new();
    let _server = asked.serve(&network, NODE).await;
    let (_all, client) = connect(builder(&network).nodes([NODE]));
    let mut calls: Vec<_> = (1..=3).map(|value| idempotent(&client, value)).collect();
    asked.count.reached(3).await;
    settle().await;
    // Half of the first of these is written, and nothing of the last ones.
    network.allow(NODE, Some(LARGE / 2));
    calls.extend((4..=6).map(|value| idempotent(&client, value)));
    settle().await;
    let plain = |value| call(&client, ASK, value).send();
    calls.extend([plain(7), idempotent(&client, 8)]);
    settle().await;
    assert_eq!(asked.taken(), [1, 2, 3]);
    asked.open();
    network.cut(NODE);
    calls.extend([plain(9), idempotent(&client, 10)]);
    for (call, value) in calls.into_iter().zip(1..) {
        answered(call, value).await;
    }
    assert_eq!(asked.taken(), Vec::from_iter(1..=10));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_without_a_connection_ends_the_call_and_nothing_is_sent() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.serve(&network, NODE).await;
    let (all, client) = connect(builder(&network).nodes([NODE]));
    let begin = Instant::now();
    let limit = Duration::from_secs(7);
    let held = call(&client, ASK, 1).idempotent(true).timeout(limit).send();
    asked.count.reached(1).await;
    server.stop().await;
    network.cut(NODE);
    let error = within(held).await.expect_err("nobody answers");
    assert_eq!(
        (error.outcome(), error.code()),
        (Outcome::Unknown, Code::DeadlineExceeded)
    );
    assert_eq!(error.status().message(), "no answer before the deadline");
    assert_eq!(begin.elapsed().as_secs(), limit.as_secs());
    assert_eq!(all[0].pending(), 0);
    let _server = asked.serve(&network, NODE).await;
    within(call(&client, ECHO, 2)).await.expect("up");
    assert_eq!(asked.taken(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_a_call_is_sent_again_three_times() {
    let network = Network::new();
    let asked = Asked::new();
    let _server = asked.serve(&network, NODE).await;
    let (all, client) = connect(builder(&network).nodes([NODE]));
    let broken = call(&client, BREAK, 1).idempotent(true).send();
    let error = within(broken).await.expect_err("each stream breaks");
    assert_eq!((error.outcome(), error.code()), LOST);
    assert!(error.to_string().contains("reset by the test"), "{error}");
    assert_eq!(asked.taken(), [1; 4]);
    assert_eq!(all[0].pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_failed_attempts_to_connect_count() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.serve(&network, NODE).await;
    let (_all, client) = connect(builder(&network).nodes([NODE]));
    let held = call(&client, ASK, 1).idempotent(true).send();
    asked.count.reached(1).await;
    server.stop().await;
    network.cut(NODE);
    let error = within(held).await.expect_err("nobody is there");
    assert_eq!((error.outcome(), error.code()), LOST);
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert_eq!(network.attempts(NODE).len(), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_each_stream_is_sent_a_call_ever_more_seldom_until_its_deadline() {
    let network = Network::new();
    let asked = Asked::new();
    let _server = asked.serve(&network, NODE).await;
    let (_all, client) = connect(builder(&network).nodes([NODE]));
    let broken = call(&client, BREAK, 1).idempotent(true).timeout(LONG);
    assert_eq!(
        failed(broken.send()).await,
        (Outcome::Unknown, Code::DeadlineExceeded)
    );
    // A second lies between two of them, as soon as that is the pause of the back-off.
    let sent = asked.taken().len();
    assert!((25..=50).contains(&sent), "{sent} in half a minute");
}

#[tokio::test(start_paused = true)]
async fn calls_that_nobody_waits_for_are_not_sent_again() {
    let network = Network::new();
    let (asked, other) = (Asked::new(), Asked::new());
    let mut server = Some(asked.serve(&network, NODE).await);
    other.open();
    let _other = other.serve(&network, "other:1").await;
    let (all, client) = connect(builder(&network).nodes([NODE, "other:1"]));
    for breaks_first in [false, true] {
        let before = asked.count.get();
        let dropped = idempotent(&client, 1);
        let token = CancellationToken::new();
        let cancelled = call(&client, ASK, 2)
            .idempotent(true)
            .cancelled_by(&token)
            .timeout(LONG);
        let cancelled = cancelled.send();
        let complete = client
            .quorum_call::<_, Number>(ASK, number(3))
            .idempotent(true)
            .timeout(LONG);
        let complete = complete.first().into_future();
        asked.count.reached(before + 3).await;
        if breaks_first {
            server.take().expect("it serves").stop().await;
            network.cut(NODE);
            settle().await;
        }
        drop(dropped);
        token.cancel();
        let ended = failed(cancelled).await;
        assert_eq!(ended, (Outcome::Unknown, Code::Cancelled));
        within(complete).await.expect("the other node answers");
        assert_eq!(all[0].pending(), 0, "breaks first: {breaks_first}");
        if breaks_first {
            server = Some(asked.serve(&network, NODE).await);
        } else {
            network.cut(NODE);
        }
        settle().await;
        assert_eq!(asked.taken(), [1, 2, 3]);
        within(call(&client, ECHO, 4)).await.expect("up");
        assert_eq!(asked.taken(), [4], "breaks first: {breaks_first}");
    }
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_call_is_sent_again_only_where_no_reply_has_come() {
    let network = Network::new();
    let asked = Asked::new();
    let _server = asked.serve(&network, NODE).await;
    let (_all, client) = connect(builder(&network).nodes([NODE]));
    let stream = |value| {
        let call = client.streamed_quorum_call::<_, Number>(STREAM, number(value));
        call.idempotent(true).timeout(LONG)
    };
    let mut with_a_reply = stream(1).responses();
    let mut without = stream(2).responses();
    asked.count.reached(2).await;
    let reply = within(with_a_reply.next()).await.expect("the first reply");
    assert_eq!(reply.into_result().expect("a reply").value, 1);
    network.cut(NODE);
    let end = within(with_a_reply.next()).await.expect("it is lost");
    let error = end.into_result().expect_err("it would begin anew");
    assert_eq!((error.outcome(), error.code()), LOST);
    asked.open();
    let reply = within(without.next()).await.expect("the only reply");
    assert_eq!(reply.into_result().expect("sent again").value, 2);
    assert!(within(without.next()).await.is_none());
    assert_eq!(asked.taken(), [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn of_a_quorum_call_the_part_of_the_broken_stream_alone_is_sent_again() {
    let network = Network::new();
    let addresses = ["a:1", "b:1", "c:1"];
    let all_asked = addresses.map(|_| Asked::new());
    let mut servers = Vec::new();
    for (address, asked) in addresses.iter().zip(&all_asked) {
        servers.push(asked.serve(&network, address).await);
    }
    let (_all, client) = connect(builder(&network).nodes(addresses));
    let call = client.quorum_call::<_, Number>(ASK, number(1));
    let call = call.idempotent(true).timeout(LONG).all().replies();
    let call = tokio::spawn(call.into_future());
    for asked in &all_asked {
        asked.count.reached(1).await;
    }
    network.cut("b:1");
    all_asked[1].count.reached(2).await;
    for asked in &all_asked {
        asked.open();
    }
    let replies = within(call).await.expect("no panic");
    assert_eq!(replies.expect("all answer").len(), 3);
    assert_eq!(all_asked.map(|asked| asked.taken().len()), [1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_kept_than_the_outbox_may_hold() {
    for (messages, bytes) in [(2, usize::MAX), (100, 2 * LARGE + LARGE / 2)] {
        let network = Network::new();
        let asked = Asked::new();
        let _server = asked.serve(&network, NODE).await;
        let (all, client) = connect(builder(&network).nodes([NODE]).outbox(messages, bytes));
        within(all.connected(1)).await.expect("none is closed");
        // Whatever becomes of calls, there is room again afterwards.
        for round in 0..4 {
            asked.gate.send_replace(false);
            let mut calls = Vec::new();
            for value in 1..=3 {
                let before = asked.count.get();
                calls.push(idempotent(&client, value));
                asked.count.reached(before + 1).await;
                // It is not in the outbox any more.
                settle().await;
            }
            match round {
                0 => drop(calls),
                1 => {
                    asked.open();
                    for (call, value) in calls.into_iter().zip(1..) {
                        answered(call, value).await;
                    }
                }
                _ => {
                    asked.taken();
                    network.cut(NODE);
                    let last = calls.pop().expect("three calls");
                    assert_eq!(
                        failed(last).await,
                        LOST,
                        "{messages} messages, {bytes} bytes"
                    );
                    asked.open();
                    for (call, value) in calls.into_iter().zip(1..) {
                        answered(call, value).await;
                    }
                    assert_eq!(asked.taken(), [1, 2]);
                }
            }
        }
    }
}

/// The server answers what it has while it shuts down, and newer calls go elsewhere meanwhile.
#[tokio::test(start_paused = true)]
async fn what_a_server_that_shuts_down_cuts_off_is_not_sent_again() {
    let network = Network::new();
    let asked = Asked::new();
    let server = asked.server(&network).bind(NODE).await;
    let server = server.expect("the network is there");
    let stop = CancellationToken::new();
    let grace = Duration::from_secs(1);
    let serving = server.serve_with_shutdown(stop.clone().cancelled_owned(), grace);
    let stopped = tokio::spawn(serving);
    let (_all, client) = connect(builder(&network).nodes([NODE]));
    let held = idempotent(&client, 1);
    asked.count.reached(1).await;
    stop.cancel();
    settle().await;
    let _server = asked.serve(&network, NODE).await;
    within(call(&client, ECHO, 2)).await.expect("up");
    assert_eq!(failed(held).await, LOST);
    within(stopped).await.expect("no panic");
    assert_eq!(asked.taken(), [1, 2]);
}

/// It may never open one again.
#[tokio::test(start_paused = true)]
async fn a_node_that_opens_the_stream_itself_is_sent_calls_with_a_deadline_again() {
    let network = Network::new();
    let asked = Asked::new();
    let mut peers = Vec::new();
    for id in [1, 2] {
        let configuration = builder(&network)
            .node(1, "node-1:1")
            .node(2, "node-2:1")
            .one_stream_per_pair(id, WhileDisconnected::Wait)
            .connect()
            .expect("legal");
        let server = asked
            .server(&network)
            .peers(id, &configuration)
            .trust_claimed_ids(true);
        let server = TestServer::start_at(server, &format!("node-{id}:1")).await;
        peers.push((configuration, server));
    }
    // The node with the lower id opens the stream to this one.
    let two = &peers[1].0;
    within(two.connected(2)).await.expect("none is closed");
    let client = Client::new(two);
    let ask = |value| {
        client
            .rpc::<_, Number>(&two[0], ASK, number(value))
            .idempotent(true)
    };
    let (without, with) = (ask(1).send(), ask(2).timeout(LONG).send());
    let streamed = client
        .streamed_quorum_call::<_, Number>(STREAM, number(4))
        .map_request(|node, request| (node.id() == two[0].id()).then(|| request.clone()))
        .idempotent(true)
        .timeout(LONG);
    let mut streamed = streamed.responses();
    asked.count.reached(3).await;
    network.cut("node-2:1");
    assert_eq!(failed(without).await, LOST);
    let end = within(streamed.next()).await.expect("it is lost");
    assert_eq!(
        end.into_result().expect_err("lost").outcome(),
        Outcome::Unknown
    );
    asked.open();
    answered(with, 2).await;
    assert_eq!(asked.taken(), [1, 2, 4, 2]);
}
