//! The replies of a connection that wait to be written.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, Bytes};
use loom::thread::JoinHandle;

use super::{join, read_envelope, spawn};
use crate::handler::{Answer, ReplyQueue};
use crate::sync::block_on;
use crate::wire::{BatchBuilder, BatchSlot};

/// Takes what is queued, and tells whose replies they are.
pub(super) fn taken(replies: &ReplyQueue) -> Vec<u64> {
    let mut builder = BatchBuilder::default();
    replies.take(&mut builder, None);
    if builder.is_empty() {
        return Vec::new();
    }
    let slot = BatchSlot::default();
    let mut batch = builder.finish(&slot);
    let mut ids = Vec::new();
    while batch.has_remaining() {
        ids.push(read_envelope(&mut batch).0);
    }
    ids
}

/// The I/O task, until it has written so many replies.
fn written(replies: &ReplyQueue, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    block_on(poll_fn(|cx| {
        replies.io().register(cx.waker());
        ids.extend(taken(replies));
        if ids.len() == count {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    ids
}

/// A handler's reply; true if it was queued.
fn push(replies: &ReplyQueue, id: u64) -> bool {
    let payload = Bytes::new();
    let queued = block_on(replies.push(id, "m", &Answer::Reply(&payload), usize::MAX));
    // The lane's task has come to its end.
    replies.wake_io();
    queued
}

#[test]
fn handlers_that_wait_for_room_are_woken_when_there_is() {
    super::explore(|| {
        // Full with one reply.
        let replies = Arc::new(ReplyQueue::new(1));
        assert!(push(&replies, 1));
        let handlers = [2, 3].map(|id| {
            let replies = Arc::clone(&replies);
            spawn(move || push(&replies, id))
        });
        let mut ids = written(&replies, 3);
        assert!(handlers.into_iter().all(join));
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
        assert!(replies.is_empty());
    });
}

#[test]
fn a_handler_that_waits_for_room_wakes_the_io_task() {
    super::explore(|| {
        let replies = Arc::new(ReplyQueue::new(1));
        let handler = {
            let replies = Arc::clone(&replies);
            spawn(move || {
                let payload = Bytes::new();
                block_on(async {
                    // One after the other, with nothing in between that wakes.
                    for id in [1, 2] {
                        let answer = Answer::Reply(&payload);
                        assert!(replies.push(id, "m", &answer, usize::MAX).await);
                    }
                });
                replies.wake_io();
            })
        };
        assert_eq!(written(&replies, 2), [1, 2]);
        join(handler);
    });
}

#[test]
fn a_handler_that_waits_for_room_goes_on_when_the_connection_ends() {
    super::explore(|| {
        let replies = Arc::new(ReplyQueue::new(1));
        let handlers = [1, 2].map(|id| {
            let replies = Arc::clone(&replies);
            spawn(move || push(&replies, id))
        });
        replies.close();
        let queued = handlers.map(join);
        assert!(queued != [true, true], "there was room for one");
        assert!(replies.is_empty());
        assert!(!push(&replies, 3));
    });
}

/// The lane, which waits until it may start a handler.
fn lane(replies: &Arc<ReplyQueue>) -> JoinHandle<()> {
    let replies = Arc::clone(replies);
    spawn(move || block_on(poll_fn(|cx| replies.poll_below_bound(cx))))
}

#[test]
fn the_lane_is_woken_when_what_is_queued_and_what_ended_handlers_hold_leave_the_bound() {
    super::explore(|| {
        let replies = Arc::new(ReplyQueue::new(1));
        assert!(push(&replies, 1));
        let handler = {
            let replies = Arc::clone(&replies);
            spawn(move || {
                let payload = Bytes::from_static(b"held");
                let answer = Answer::Reply(&payload);
                block_on(replies.push_last(2, "m", &answer, usize::MAX));
                replies.wake_io();
            })
        };
        let lane = lane(&replies);
        assert_eq!(written(&replies, 2), [1, 2]);
        join(lane);
        join(handler);
    });
}

#[test]
fn the_lane_is_woken_when_the_connection_ends() {
    super::explore(|| {
        let replies = Arc::new(ReplyQueue::new(1));
        assert!(push(&replies, 1));
        let lane = lane(&replies);
        replies.close();
        join(lane);
    });
}

#[test]
fn a_full_queue_is_told_from_one_with_room() {
    super::explore(|| {
        let replies = Arc::new(ReplyQueue::new(1));
        assert!(push(&replies, 1));
        let handler = {
            let replies = Arc::clone(&replies);
            spawn(move || {
                let payload = Bytes::new();
                replies.try_push(2, "m", &Answer::Reply(&payload), usize::MAX)
            })
        };
        let first = taken(&replies);
        let queued = join(handler);
        let second = taken(&replies);
        match queued {
            // Never both at once.
            Some(true) => assert_eq!((first, second), (vec![1], vec![2])),
            Some(false) => panic!("it is not closed"),
            None => assert_eq!((first, second), (vec![1], vec![])),
        }
        assert!(!replies.is_full());
    });
}
