//! A node's outbox, and the I/O task that empties it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::{Written, call, events, frame, join, lost, nodes, outcome, spawn, take};
use crate::channel::{Channel, Kind};
use crate::error::Outcome;
use crate::sync::block_on;

/// The I/O task: it sleeps when nothing is queued, and writes until it is done.
fn io(node: &Channel, mut done: impl FnMut(&Written) -> bool) -> Written {
    let mut sent = Written::default();
    block_on(poll_fn(|cx| {
        node.io().register(cx.waker());
        sent.write(node);
        if done(&sent) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    sent
}

#[test]
fn whatever_is_queued_wakes_the_io_task() {
    super::explore(|| {
        let nodes = nodes(1, 4);
        let callers = [(1, b'a'), (2, b'b')].map(|(id, letter)| {
            let call = call(id, Kind::OneWay, &nodes);
            spawn(move || assert!(call.queue(0, frame(letter))))
        });
        let sent = io(&nodes[0], |sent| sent.requests.len() == 2);
        callers.into_iter().for_each(join);
        assert_eq!(sent.requests.len(), 2);
    });
}

#[test]
fn what_is_queued_behind_a_withdrawn_request_wakes_the_io_task() {
    super::explore(|| {
        let nodes = nodes(1, 4);
        let withdrawn = call(1, Kind::OneWay, &nodes);
        let kept = call(2, Kind::OneWay, &nodes);
        let first = spawn(move || {
            withdrawn.queue(0, frame(b'a'));
            withdrawn.forget();
        });
        let second = spawn(move || assert!(kept.queue(0, frame(b'b'))));
        let sent = io(&nodes[0], |sent| sent.requests.contains(&b'b'));
        join(first);
        join(second);
        assert!(sent.requests.len() <= 2);
        assert!(nodes[0].outbox().is_empty());
    });
}

#[test]
fn a_cancellation_wakes_the_io_task() {
    super::explore(|| {
        let nodes = nodes(1, 4);
        let first = call(1, Kind::Unary, &nodes);
        let second = call(2, Kind::Unary, &nodes);
        let caller = spawn(move || {
            first.queue(0, frame(b'a'));
            second.queue(0, frame(b'b'));
            first.forget();
        });
        let sent = io(&nodes[0], |sent| {
            let cancelled = !sent.requests.contains(&b'a') || sent.cancelled == [1];
            sent.requests.contains(&b'b') && cancelled
        });
        join(caller);
        assert!(sent.requests == b"b" || sent.requests == b"ab");
    });
}

#[test]
fn a_full_outbox_refuses_and_never_exceeds_its_bound() {
    super::explore(|| {
        let nodes = nodes(1, 1);
        let calls = [(1, b'a'), (2, b'b')].map(|(id, letter)| {
            let call = call(id, Kind::Unary, &nodes);
            (letter, call)
        });
        let callers = calls.clone().map(|(letter, call)| {
            let node = Arc::clone(&nodes[0]);
            spawn(move || {
                let queued = call.queue(0, frame(letter));
                assert!(node.outbox().len() <= 1);
                queued
            })
        });
        let node = Arc::clone(&nodes[0]);
        let io = spawn(move || io(&node, |_| node.is_closing() && node.outbox().is_empty()));
        let queued = callers.map(join);
        nodes[0].close();
        let sent = join(io);
        assert!(queued.contains(&true), "one found it empty");
        for ((letter, call), queued) in calls.iter().zip(queued) {
            assert_eq!(sent.requests.contains(letter), queued);
            let refused = call.try_event();
            assert_eq!(
                refused.as_ref().and_then(outcome),
                (!queued).then_some(Outcome::NotSent)
            );
        }
    });
}

#[test]
fn what_was_withdrawn_takes_no_room() {
    super::explore(|| {
        let nodes = nodes(1, 2);
        let calls = [1, 2].map(|id| call(id, Kind::Unary, &nodes));
        let io = {
            let node = Arc::clone(&nodes[0]);
            spawn(move || usize::from(take(&node)))
        };
        let callers = calls.map(|call| {
            spawn(move || {
                call.queue(0, frame(b'a'));
                call.forget();
            })
        });
        let written = join(io);
        callers.into_iter().for_each(join);
        assert_eq!(nodes[0].take_notices().cancels.len(), written);
        // There is room again for as many as the outbox holds, and for no more.
        let queued = [3, 4, 5].map(|id| call(id, Kind::Unary, &nodes).queue(0, frame(b'b')));
        assert_eq!(queued, [true, true, false]);
        assert_eq!(nodes[0].outbox().len(), 2);
    });
}

#[test]
fn a_closed_outbox_takes_nothing_and_fails_what_is_queued() {
    super::explore(|| {
        let nodes = nodes(1, 4);
        let written = call(1, Kind::Unary, &nodes);
        written.queue(0, frame(b'a'));
        let queued = call(2, Kind::Unary, &nodes);
        let io = {
            let node = Arc::clone(&nodes[0]);
            spawn(move || {
                let taken = take(&node);
                node.end(&lost());
                taken
            })
        };
        let caller = {
            let queued = Arc::clone(&queued);
            spawn(move || {
                queued.queue(0, frame(b'b'));
                events(&queued)
            })
        };
        let first = events(&written);
        assert!(join(io), "the first was queued");
        let second = join(caller);
        assert_eq!(first.len(), 1);
        assert_eq!(outcome(&first[0]), Some(Outcome::Unknown));
        assert_eq!(second.len(), 1);
        assert_eq!(outcome(&second[0]), Some(Outcome::NotSent));
        assert!(nodes[0].outbox().is_empty());
        assert!(nodes[0].queue(super::message()).is_err());
        assert_eq!((nodes[0].pending(), nodes[0].pool().calls.len()), (0, 0));
    });
}
