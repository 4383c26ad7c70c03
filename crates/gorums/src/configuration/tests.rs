use super::*;
use crate::error::{Code, Counted, Outcome, QuorumErrorKind, QuorumFailure, Status};
use crate::wire::Side;

impl Configuration {
    /// A configuration of this many nodes, with ids from 1, that never connect.
    pub(crate) fn unconnected(nodes: usize) -> Self {
        let members = Configuration::builder().members();
        Self::from_nodes((1..=nodes).map(|id| {
            Node::new(
                Side::Client,
                NodeId::from(id as u32),
                format!("node-{id}:1").into(),
                Arc::clone(&members),
            )
        }))
    }
}

fn ids(configuration: &Configuration) -> Vec<u32> {
    configuration.ids().map(NodeId::get).collect()
}

#[test]
fn parts_keep_the_order_and_the_connections() {
    let all = Configuration::unconnected(5);
    let odd = all.filter(|node| node.id().get() % 2 == 1);
    assert_eq!(ids(&odd), [1, 3, 5]);
    assert_eq!(ids(&all.difference(&odd)), [2, 4]);
    assert_eq!(ids(&all.without(3)), [1, 2, 4, 5]);
    assert_eq!(ids(&odd.intersection(&all.without(1))), [3, 5]);
    let some = all.select([4, 1]).expect("known");
    assert_eq!(ids(&some), [4, 1]);
    let union = some.union(&odd).expect("the same nodes");
    assert_eq!(ids(&union), [4, 1, 3, 5]);
    assert_eq!(union[0], all[3], "the very same node");
    let sorted = union.sort_by(|a, b| b.id().cmp(&a.id()));
    assert_eq!(ids(&sorted), [5, 4, 3, 1]);
    assert_eq!(sorted, union, "equal as a set");
    assert_ne!(sorted, all);
    assert_eq!(ids(&odd.with(&all[1]).expect("new id")), [1, 3, 5, 2]);
}

#[test]
fn what_is_made_of_a_configuration_leaves_it_as_it_is() {
    let all = Configuration::unconnected(4);
    let (front, back) = (
        all.select([1, 2, 3]).expect("known"),
        all.select([2, 3, 4]).expect("known"),
    );
    assert_eq!(all.union(&front).expect("the same nodes"), all);
    assert_eq!(front.union(&all).expect("the same nodes"), all);
    let both = front.union(&back).expect("the same nodes");
    assert_eq!(ids(&both), [1, 2, 3, 4], "no node twice");
    let with = front.with(&all[0]).and_then(|same| same.with(&all[0]));
    assert_eq!(ids(&with.expect("the same node")), [1, 2, 3]);
    assert_eq!(ids(&front.without(2)), [1, 3]);
    assert_eq!(ids(&front.without(7)), [1, 2, 3], "there is no such node");
    assert_eq!(ids(&back.difference(&front)), [4]);
    assert!(front.difference(&all).is_empty());
    assert_eq!(ids(&front.sort_by(|a, b| Node::by_id(b, a))), [3, 2, 1]);
    assert_eq!((ids(&front), ids(&back)), (vec![1, 2, 3], vec![2, 3, 4]));
    assert_eq!(ids(&all), [1, 2, 3, 4]);
}

#[test]
fn an_empty_configuration_is_one_of_no_nodes() {
    let all = Configuration::unconnected(2);
    let empty = all.filter(|_| false);
    assert_eq!((empty.len(), empty.is_empty()), (0, true));
    assert!(empty.ids().next().is_none() && empty.as_slice().is_empty());
    assert!(empty.node(1).is_none() && !empty.contains(&all[0]));
    assert_eq!(empty, all.without(1).without(2));
    assert_ne!(empty, all);
    assert_ne!(all, empty);
    assert_eq!(empty.union(&all).expect("no id clashes"), all);
    assert_eq!(all.union(&empty).expect("no id clashes"), all);
    assert!(empty.union(&empty).expect("no id clashes").is_empty());
    assert_eq!(ids(&empty.with(&all[1]).expect("no id clashes")), [2]);
    assert!(empty.without(1).is_empty() && empty.difference(&all).is_empty());
    assert!(empty.intersection(&all).is_empty());
    assert!(empty.sort_by(Node::by_latency).is_empty());
    assert!(empty.without_errors(&failed(&all)).is_empty());
    assert!(empty.extend::<&str>([]).expect("a clone").is_empty());
    let error = empty.extend(["a:1"]).expect_err("there is no pool");
    assert!(error.to_string().contains("empty configuration"), "{error}");
}

#[test]
fn sorting_is_stable() {
    let all = Configuration::unconnected(40);
    let parity = |node: &Node| node.id().get() % 2;
    let sorted = all.sort_by(|a, b| parity(a).cmp(&parity(b)));
    let expected: Vec<u32> = (1..=20)
        .map(|id| 2 * id)
        .chain((0..20).map(|id| 2 * id + 1))
        .collect();
    assert_eq!(ids(&sorted), expected);
    let backwards =
        sorted.sort_by(|a, b| parity(b).cmp(&parity(a)).then_with(|| Node::by_id(b, a)));
    let expected: Vec<u32> = (1..=40)
        .rev()
        .filter(|id| id % 2 == 1)
        .chain((1..=40).rev().filter(|id| id % 2 == 0))
        .collect();
    assert_eq!(ids(&backwards), expected);
    assert_eq!(ids(&all.sort_by(|_, _| Ordering::Equal)), ids(&all));
    assert_eq!(ids(&backwards.sort_by(Node::by_id)), ids(&all));
}

#[test]
fn a_comparator_that_contradicts_itself_loses_no_node() {
    let all = Configuration::unconnected(200);
    let answers = [Ordering::Less, Ordering::Equal, Ordering::Greater];
    let mut seed = 1_u32;
    let random = |_: &Node, _: &Node| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        answers[(seed >> 16) as usize % 3]
    };
    for sorted in [
        all.sort_by(random),
        all.sort_by(|_, _| Ordering::Less),
        all.sort_by(|_, _| Ordering::Greater),
        // Stone, paper, scissors.
        all.sort_by(|a, b| {
            answers[(3 + a.id().get() as usize % 3 - b.id().get() as usize % 3) % 3]
        }),
    ] {
        assert_eq!((sorted.len(), &sorted), (200, &all));
    }
}

/// An error of a call on these nodes, each of which failed with another code.
fn failed<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> QuorumError {
    let codes = [Code::Unavailable, Code::Internal, Code::NotFound]
        .into_iter()
        .cycle();
    let failures: Vec<_> = nodes
        .into_iter()
        .zip(codes)
        .map(|(node, code)| {
            node.channel()
                .error(Outcome::Refused, Status::new(code, "no"))
        })
        .collect();
    QuorumError::from(QuorumFailure {
        kind: QuorumErrorKind::Incomplete,
        method: "test.Test.Call",
        nodes: 3,
        asked: 3,
        withdrawn: 0,
        needed: None,
        replies: 0,
        failures,
        counted: Counted::Replies,
    })
}

#[test]
fn nodes_that_failed_in_a_call_are_left_out() {
    let all = Configuration::unconnected(4);
    let three = all.without(4);
    let error = failed(&three);
    assert_eq!(ids(&all.without_errors(&error)), [4]);
    assert_eq!(ids(&three.without_errors(&error)), []);
    assert_eq!(ids(&all.without_errors(&failed([&all[1]]))), [1, 3, 4]);
    assert_eq!(ids(&all.without_errors(&failed([]))), [1, 2, 3, 4]);
    let without = |codes: &[Code]| {
        ids(&all.without_failed(&error, |failure| codes.contains(&failure.code())))
    };
    assert_eq!(without(&[Code::Internal]), [1, 3, 4]);
    assert_eq!(without(&[Code::NotFound, Code::Unavailable]), [2, 4]);
    assert_eq!(without(&[Code::Aborted]), [1, 2, 3, 4]);
}

#[test]
fn a_node_with_the_id_of_one_that_failed_is_another_one_at_another_address() {
    let all = Configuration::unconnected(2);
    let members = Arc::clone(all[0].members());
    let old = Node::new(Side::Client, NodeId::from(2), "elsewhere:1".into(), members);
    assert_eq!(ids(&all.without_errors(&failed([&old]))), [1, 2]);
}

#[test]
fn two_nodes_with_one_id_do_not_mix() {
    let (a, b) = (Configuration::unconnected(2), Configuration::unconnected(2));
    assert!(!a.contains(&b[0]));
    assert!(a.intersection(&b).is_empty());
    assert_eq!(ids(&a.difference(&b)), [1, 2]);
    let error = a.union(&b).expect_err("ids clash");
    assert!(error.to_string().contains("node 1"), "{error}");
}

#[test]
fn selecting_what_is_not_there_names_it() {
    let all = Configuration::unconnected(2);
    let error = all.select([1, 7]).expect_err("no node 7");
    assert!(error.to_string().contains('7'), "{error}");
    assert!(all.select([1, 1]).is_err());
    assert!(all.select::<u32>([]).expect("nothing").is_empty());
}

#[test]
fn nodes_are_found_in_large_configurations() {
    let all = Configuration::unconnected(100).sort_by(|a, b| b.id().cmp(&a.id()));
    for id in 1..=100 {
        assert_eq!(all.node(id).map(|node| node.id().get()), Some(id));
    }
    assert!(all.node(101).is_none());
}
