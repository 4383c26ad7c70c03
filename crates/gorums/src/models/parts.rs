//! A part is moved by exactly one of those that race for it, and whoever waits hears of it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use loom::thread::JoinHandle;

use super::{
    Gate, Written, call, events, expire, frame, join, lost, nodes, outcome, reply, spawn, take,
};
use crate::channel::{Call, Channel, Early, EventKind, Kind, Unread, WakeAfter};
use crate::error::Outcome;
use crate::sync::block_on;

/// A node, and a call to it whose request is queued.
fn queued(kind: Kind) -> (Vec<Arc<Channel>>, Arc<Call>) {
    let nodes = nodes(1, 4);
    let call = call(1, kind, &nodes);
    call.queue(0, frame(b'a'));
    (nodes, call)
}

/// A node, and a call to it whose request was written.
fn sent(kind: Kind) -> (Vec<Arc<Channel>>, Arc<Call>) {
    let (nodes, call) = queued(kind);
    assert!(take(&nodes[0]));
    (nodes, call)
}

/// The deadline of every call to the node passes.
fn sweeper(node: &Channel) -> JoinHandle<()> {
    let pool = Arc::clone(node.pool());
    spawn(move || expire(&pool))
}

#[test]
fn a_reply_and_the_deadline_end_a_part_once() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::Unary);
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || {
            let written = take(&node);
            (written, written && reply(&node, 1))
        });
        let sweeper = sweeper(&nodes[0]);
        let events = events(&call);
        let (written, counted) = join(io);
        join(sweeper);
        let [event] = &events[..] else {
            panic!("{} events of one part", events.len());
        };
        match outcome(event) {
            None => assert!(counted),
            Some(Outcome::NotSent) => assert!(!written),
            Some(_) => assert!(written && !counted),
        }
        assert_settled(&nodes[0]);
    });
}

#[test]
fn a_loss_a_reply_and_the_deadline_end_a_part_once() {
    super::explore(|| {
        let (nodes, call) = sent(Kind::Unary);
        let node = Arc::clone(&nodes[0]);
        let reader = spawn(move || reply(&node, 1));
        let node = Arc::clone(&nodes[0]);
        let breaking = spawn(move || node.fail_written(Outcome::Unknown, &lost()));
        let sweeper = sweeper(&nodes[0]);
        let events = events(&call);
        let counted = join(reader);
        join(breaking);
        join(sweeper);
        assert_eq!(events.len(), 1);
        assert_eq!(outcome(&events[0]).is_none(), counted);
        assert_settled(&nodes[0]);
    });
}

#[test]
fn nothing_withdrawn_is_written_and_what_was_written_is_cancelled() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::Unary);
        let withdrawn = Gate::default();
        let io = {
            let (node, withdrawn) = (Arc::clone(&nodes[0]), withdrawn.clone());
            spawn(move || {
                let too_late = withdrawn.is_open();
                let written = take(&node);
                assert!(!(too_late && written), "written though withdrawn");
                written
            })
        };
        call.forget();
        withdrawn.open();
        let written = join(io);
        assert!(!take(&nodes[0]));
        assert_eq!(nodes[0].take_notices().cancels.len(), usize::from(written));
        assert_settled(&nodes[0]);
    });
}

#[test]
fn a_completed_call_is_still_written_once_on_whatever_connection() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::Unary);
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || {
            let mut sent = Written::default();
            sent.break_off(&node);
            // The next one does not.
            sent.write(&node);
            sent.requests
        });
        call.complete();
        let requests = join(io);
        assert_eq!(requests, *b"a");
        assert_settled(&nodes[0]);
    });
}

#[test]
fn a_forgotten_call_is_not_written_on_the_next_connection() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::Unary);
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || Written::default().break_off(&node));
        call.forget();
        join(io);
        assert!(nodes[0].outbox().is_empty());
        assert_settled(&nodes[0]);
    });
}

#[test]
fn a_deadline_ends_a_part_while_a_stream_gives_it_back() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::Unary);
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || Written::default().break_off(&node));
        let sweeper = sweeper(&nodes[0]);
        let events = events(&call);
        join(io);
        join(sweeper);
        assert_eq!(events.len(), 1);
        assert!(outcome(&events[0]).is_some());
        assert!(!take(&nodes[0]));
        assert_settled(&nodes[0]);
    });
}

#[test]
fn whoever_waits_for_two_replies_is_woken_by_the_second() {
    super::explore(|| {
        let nodes = nodes(3, 4);
        let call = call(1, Kind::Unary, &nodes);
        for (part, node) in nodes.iter().enumerate() {
            call.queue(part, frame(b'a'));
            assert!(take(node));
        }
        // The third never answers.
        let threads = nodes.clone().into_iter().take(2).map(|node| {
            spawn(move || {
                assert!(reply(&node, 1));
                assert!(!reply(&node, 1), "a second reply does not count");
            })
        });
        let threads: Vec<_> = threads.collect();
        let mut replies = 0;
        block_on(poll_fn(|cx| {
            while replies < 2 {
                // Only replies that were not seen yet count.
                let missing = WakeAfter {
                    replies: 2 - replies,
                    failures: 1,
                };
                match call.poll_event(cx, missing) {
                    Poll::Ready(Some(_)) => replies += 1,
                    Poll::Ready(None) => panic!("the third node is still out"),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        }));
        call.complete();
        threads.into_iter().for_each(|thread| join(thread));
        nodes.iter().for_each(assert_settled);
    });
}

#[test]
fn a_failure_that_decides_the_call_wakes_whoever_waits_for_replies() {
    super::explore(|| {
        let nodes = nodes(3, 4);
        let call = call(1, Kind::Unary, &nodes);
        for (part, node) in nodes.iter().enumerate() {
            call.queue(part, frame(b'a'));
            assert!(take(node));
        }
        let node = Arc::clone(&nodes[0]);
        let reader = spawn(move || assert!(reply(&node, 1)));
        let node = Arc::clone(&nodes[1]);
        let breaking = spawn(move || node.fail_written(Outcome::Unknown, &lost()));
        // All three have to answer; the third never does.
        let all = WakeAfter {
            replies: 3,
            failures: 1,
        };
        block_on(poll_fn(|cx| {
            loop {
                match call.poll_event(cx, all) {
                    Poll::Ready(Some(event)) if outcome(&event).is_some() => {
                        return Poll::Ready(());
                    }
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => panic!("the third node is still out"),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }));
        join(reader);
        join(breaking);
    });
}

#[test]
fn a_deadline_that_passes_while_a_call_is_queued_ends_all_of_its_parts() {
    super::explore(|| {
        let nodes = nodes(2, 4);
        let call = call(1, Kind::Unary, &nodes);
        let observed = nodes.clone();
        let sweeper = spawn(move || {
            expire(observed[0].pool());
            for node in &observed {
                assert!(node.pending() <= 1, "one request was queued at most");
            }
        });
        for part in 0..nodes.len() {
            call.queue(part, frame(b'a'));
        }
        call.settle_deadline();
        let events = events(&call);
        join(sweeper);
        assert_eq!(events.len(), 2);
        for (part, node) in nodes.iter().enumerate() {
            assert_eq!(events.iter().filter(|event| event.part == part).count(), 1);
            assert_settled(node);
            assert!(!take(node));
        }
    });
}

#[test]
fn a_cancelled_call_and_its_deadline_end_its_parts_once() {
    super::explore(|| {
        let nodes = nodes(2, 4);
        let call = call(1, Kind::Unary, &nodes);
        for part in 0..nodes.len() {
            call.queue(part, frame(b'a'));
        }
        assert!(take(&nodes[0]));
        let sweeper = sweeper(&nodes[0]);
        let node = Arc::clone(&nodes[0]);
        let reader = spawn(move || reply(&node, 1));
        call.end_early(Early::Cancelled);
        let events = events(&call);
        join(sweeper);
        let counted = join(reader);
        assert_eq!(events.len(), 2);
        let replies = events.iter().filter(|event| outcome(event).is_none());
        assert_eq!(replies.count(), usize::from(counted));
        nodes.iter().for_each(assert_settled);
    });
}

#[test]
fn a_one_way_part_is_handed_over_or_fails() {
    super::explore(|| {
        let (nodes, call) = queued(Kind::OneWay);
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || {
            let mut sent = Written::default();
            sent.write(&node);
            sent.requests.len()
        });
        let sweeper = sweeper(&nodes[0]);
        let events = events(&call);
        let written = join(io);
        join(sweeper);
        assert_eq!(events.len(), 1);
        match outcome(&events[0]) {
            Some(Outcome::NotSent) => assert_eq!(written, 0),
            _ => assert_eq!(written, 1),
        }
    });
}

#[test]
fn no_reply_of_a_stream_comes_after_its_end() {
    super::explore(|| {
        let (nodes, call) = sent(Kind::Streamed(Unread::default()));
        let (node, streamed) = (Arc::clone(&nodes[0]), Arc::clone(&call));
        let io = spawn(move || {
            reply(&node, 1);
            reply(&node, 1);
            streamed.ended(0, None);
        });
        let sweeper = sweeper(&nodes[0]);
        let mut events = events(&call);
        join(io);
        join(sweeper);
        events.extend(std::iter::from_fn(|| call.try_event()));
        let replies = events
            .iter()
            .take_while(|event| matches!(event.kind, EventKind::Reply(_)))
            .count();
        assert!(replies <= 2);
        assert_eq!(events.len(), replies + 1, "the end is the last");
        assert_settled(&nodes[0]);
    });
}

#[test]
fn the_node_of_a_completed_stream_is_told_unless_it_has_ended() {
    super::explore(|| {
        let (nodes, call) = sent(Kind::Streamed(Unread::default()));
        let streamed = Arc::clone(&call);
        let io = spawn(move || streamed.ended(0, None));
        call.complete();
        join(io);
        let ended = call.try_event().is_some();
        assert_eq!(nodes[0].take_notices().cancels.len(), usize::from(!ended));
        assert_settled(&nodes[0]);
    });
}

/// Nothing is left of the only call.
fn assert_settled(node: &Arc<Channel>) {
    assert_eq!(node.pending(), 0);
    assert_eq!(node.pool().calls.len(), 0);
}
