//! Plays Maelstrom's side: its network, which delays, loses and cuts off, and the clients of its
//! workloads.

mod network;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use network::{Network, Workbench};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Longer than anything takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn echo_says_what_it_was_told() {
    let bench = Workbench::start(1).await;
    for echo in [json!("hello"), json!({"a": [1, null]}), json!(35)] {
        let answer = bench.ask("n1", json!({"type": "echo", "echo": echo})).await;
        assert_eq!(answer["type"], "echo_ok");
        assert_eq!(answer["echo"], echo);
    }
}

/// Waits until every node answers a read with these numbers.
async fn everywhere(bench: &Workbench, field: &str, expected: &BTreeSet<u64>) {
    let begun = Instant::now();
    for node in bench.nodes() {
        loop {
            let answer = bench.ask(&node, json!({"type": "read"})).await;
            assert_eq!(answer["type"], "read_ok");
            let found = answer[field].as_array().expect("a list").iter();
            let found: BTreeSet<_> = found.map(|one| one.as_u64().expect("a number")).collect();
            if &found == expected {
                break;
            }
            assert!(found.is_subset(expected), "{found:?}");
            assert!(
                begun.elapsed() < PATIENCE,
                "{node} has {found:?} of {expected:?}"
            );
        }
    }
}

async fn topology(bench: &Workbench) {
    for node in bench.nodes() {
        let topology = json!({"n1": ["n2"], "n2": ["n1", "n3"], "n3": ["n2"]});
        let answer = bench
            .ask(&node, json!({"type": "topology", "topology": topology}))
            .await;
        assert_eq!(answer["type"], "topology_ok");
    }
}

#[tokio::test]
async fn what_is_broadcast_at_any_node_is_read_at_all() {
    let bench = Workbench::start(3).await;
    topology(&bench).await;
    let mut expected = BTreeSet::new();
    for (number, node) in (0..30u64).zip(bench.nodes().into_iter().cycle()) {
        let answer = bench
            .ask(&node, json!({"type": "broadcast", "message": number}))
            .await;
        assert_eq!(answer["type"], "broadcast_ok");
        expected.insert(number);
    }
    everywhere(&bench, "messages", &expected).await;
}

#[tokio::test]
async fn what_is_broadcast_during_a_partition_and_losses_arrives_after_it() {
    let bench = Workbench::start(3).await;
    topology(&bench).await;
    bench.network.partition(&[&["n1"], &["n2", "n3"]]);
    let mut expected = BTreeSet::new();
    for (number, node) in (0..10u64).zip(bench.nodes().into_iter().cycle()) {
        bench
            .ask(&node, json!({"type": "broadcast", "message": number}))
            .await;
        expected.insert(number);
    }
    // n2 and n3 have what the other one got, and nothing of n1.
    let begun = Instant::now();
    let of_two: BTreeSet<u64> = expected
        .iter()
        .copied()
        .filter(|number| number % 3 != 0)
        .collect();
    loop {
        let answer = bench.ask("n2", json!({"type": "read"})).await;
        let found = answer["messages"].as_array().expect("a list").iter();
        let found: BTreeSet<_> = found.filter_map(Value::as_u64).collect();
        assert!(found.is_subset(&of_two), "{found:?}");
        if found == of_two {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    bench.network.heal();
    bench.network.lose_between_nodes(0.02);
    for (number, node) in (10..20u64).zip(bench.nodes().into_iter().cycle()) {
        bench
            .ask(&node, json!({"type": "broadcast", "message": number}))
            .await;
        expected.insert(number);
    }
    everywhere(&bench, "messages", &expected).await;
    assert!(bench.network.lost() > 0);
}

#[tokio::test]
async fn elements_of_a_growing_set_are_read_at_all_nodes() {
    let bench = Workbench::start(5).await;
    let mut expected = BTreeSet::new();
    for (number, node) in (0..40u64).zip(bench.nodes().into_iter().cycle()) {
        // Some twice.
        let answer = bench
            .ask(&node, json!({"type": "add", "element": number / 2}))
            .await;
        assert_eq!(answer["type"], "add_ok");
        expected.insert(number / 2);
    }
    everywhere(&bench, "value", &expected).await;
}

#[tokio::test]
async fn registers_are_read_written_and_compared_and_set_at_any_node() {
    let bench = Workbench::start(3).await;
    let script = [
        (
            "n1",
            json!({"type": "read", "key": 7}),
            json!({"type": "error", "code": 20}),
        ),
        (
            "n1",
            json!({"type": "write", "key": 7, "value": 3}),
            json!({"type": "write_ok"}),
        ),
        (
            "n2",
            json!({"type": "read", "key": 7}),
            json!({"type": "read_ok", "value": 3}),
        ),
        (
            "n3",
            json!({"type": "cas", "key": 7, "from": 3, "to": 4}),
            json!({"type": "cas_ok"}),
        ),
        (
            "n1",
            json!({"type": "cas", "key": 7, "from": 3, "to": 5}),
            json!({"type": "error", "code": 22}),
        ),
        (
            "n1",
            json!({"type": "read", "key": 7}),
            json!({"type": "read_ok", "value": 4}),
        ),
        (
            "n2",
            json!({"type": "cas", "key": 8, "from": 0, "to": 1}),
            json!({"type": "error", "code": 20}),
        ),
        (
            "n2",
            json!({"type": "cas", "key": 8, "from": 0, "to": 1, "create_if_not_exists": true}),
            json!({"type": "cas_ok"}),
        ),
        (
            "n3",
            json!({"type": "read", "key": 8}),
            json!({"type": "read_ok", "value": 1}),
        ),
        (
            "n3",
            json!({"type": "read", "key": "7"}),
            json!({"type": "error", "code": 20}),
        ),
    ];
    for (node, request, expected) in script {
        let answer = bench.ask(node, request.clone()).await;
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(answer.get(field), Some(value), "{request} got {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_node_without_a_majority_says_that_it_has_done_nothing_and_the_others_go_on() {
    let bench = Workbench::start(3).await;
    let write = |value: u64| json!({"type": "write", "key": 1, "value": value});
    assert_eq!(bench.ask("n1", write(1)).await["type"], "write_ok");
    bench.network.partition(&[&["n1"], &["n2", "n3"]]);
    assert_eq!(bench.ask("n1", write(2)).await["code"], 11);
    assert_eq!(bench.ask("n2", write(3)).await["type"], "write_ok");
    bench.network.heal();
    let begun = Instant::now();
    loop {
        let answer = bench.ask("n1", json!({"type": "read", "key": 1})).await;
        if answer["type"] == "read_ok" {
            assert_eq!(answer["value"], 3);
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
    }
}

#[tokio::test]
async fn writes_that_one_node_is_sent_at_once_are_all_acknowledged() {
    let bench = Arc::new(Workbench::start(1).await);
    let asking = (0..20u64).map(|value| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let write = json!({"type": "write", "key": 1, "value": value});
            bench.ask("n1", write).await
        })
    });
    for answer in asking.collect::<Vec<_>>() {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer["type"], "write_ok", "{answer:?}");
    }
}

/// A read changes nothing, so that it can be said for sure that a failed one did not.
#[tokio::test]
async fn the_outcome_of_a_read_is_never_unknown_however_many_contend() {
    let bench = Arc::new(Workbench::start(5).await);
    let clients = bench.nodes().into_iter().map(|node| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            for _ in 0..30 {
                let answer = bench.ask(&node, json!({"type": "read", "key": 1})).await;
                assert!(answer["code"] == 20 || answer["code"] == 11, "{answer:?}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
}

/// Each client adds one to a number by compare-and-set. What was acknowledged is in it, once; what
/// is unknown at most once.
#[tokio::test]
async fn no_increment_is_lost_or_done_twice_though_clients_contend_and_the_network_loses_messages()
{
    let bench = Arc::new(Workbench::start(5).await);
    let write = json!({"type": "write", "key": "n", "value": 0});
    assert_eq!(bench.ask("n1", write).await["type"], "write_ok");
    bench.network.lose_between_nodes(0.01);
    let (done, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients = bench.nodes().into_iter().map(|node| {
        let (bench, done, unknown) = (Arc::clone(&bench), Arc::clone(&done), Arc::clone(&unknown));
        tokio::spawn(async move {
            for _ in 0..8 {
                let found = bench.ask(&node, json!({"type": "read", "key": "n"})).await;
                let Some(number) = found.get("value").and_then(Value::as_u64) else {
                    continue;
                };
                let cas = json!({"type": "cas", "key": "n", "from": number, "to": number + 1});
                let answer = bench.ask(&node, cas).await;
                match (
                    answer["type"].as_str(),
                    answer.get("code").and_then(Value::as_u64),
                ) {
                    (Some("cas_ok"), _) => done.fetch_add(1, Ordering::Relaxed),
                    (_, Some(0)) => unknown.fetch_add(1, Ordering::Relaxed),
                    (_, Some(11 | 22)) => continue,
                    _ => panic!("{answer:?}"),
                };
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    bench.network.lose_between_nodes(0.0);
    let begun = Instant::now();
    let number = loop {
        let answer = bench.ask("n3", json!({"type": "read", "key": "n"})).await;
        match answer.get("value").and_then(Value::as_u64) {
            Some(number) => break number,
            None => assert!(begun.elapsed() < PATIENCE, "{answer:?}"),
        }
    };
    let (done, unknown) = (
        done.load(Ordering::Relaxed),
        unknown.load(Ordering::Relaxed),
    );
    assert!(done > 0);
    assert!(
        (done..=done + unknown).contains(&number),
        "{done} done, {unknown} unknown: {number}"
    );
}

#[tokio::test]
async fn bytes_arrive_in_order_though_messages_do_not() {
    let bench = Workbench::start(3).await;
    bench.network.delay_between_nodes(Duration::from_millis(20));
    // A dozen pieces in each connection.
    let value = "v".repeat(200_000);
    let write = json!({"type": "write", "key": 1, "value": value});
    assert_eq!(bench.ask("n1", write).await["type"], "write_ok");
    let answer = bench.ask("n2", json!({"type": "read", "key": 1})).await;
    assert!(
        answer.get("value") == Some(&value.into()),
        "{:?}",
        answer.get("code")
    );
    assert!(bench.network.overtaken() > 0);
}

#[tokio::test]
async fn requests_that_cannot_be_understood_are_refused_with_their_code() {
    let bench = Workbench::start(1).await;
    for (request, code) in [
        (json!({"type": "txn", "txn": []}), 10),
        (json!({}), 10),
        (json!({"type": "echo"}), 12),
        (json!({"type": "write", "key": 1}), 12),
        (json!({"type": "cas", "key": 1, "from": 1}), 12),
        (json!({"type": "broadcast"}), 12),
    ] {
        let answer = bench.ask("n1", request.clone()).await;
        assert_eq!(answer["type"], "error", "{request}");
        assert_eq!(answer["code"], code, "{request}");
    }
}

#[tokio::test]
async fn what_comes_before_init_is_refused_and_an_init_that_makes_no_sense_ends_the_node() {
    let network = Network::new();
    let ended = network.add_node("n1");
    let answer = network.ask("n1", json!({"type": "echo", "echo": 1})).await;
    assert_eq!(answer["code"], 11);
    network.send(
        "n1",
        json!({"type": "init", "msg_id": 1, "node_id": "n1", "node_ids": ["n2"]}),
    );
    let error = ended.await.expect("no panic").expect_err("it cannot be");
    assert_eq!(error.to_string(), "node_id is not one of node_ids");
}
