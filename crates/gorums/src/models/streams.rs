//! Streams that a node opens one after the other, of which the last carries its calls.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::{FEATURES, Still, Written, call, frame, join, pool, spawn};
use crate::channel::{Attachment, Channel, Kind};
use crate::node_id::NodeId;
use crate::sync::block_on;
use crate::wire::Side;

/// A node that opens its streams itself, and has opened one.
fn node_with_a_stream() -> (Arc<Channel>, Attachment) {
    let pool = pool(Still, 4);
    let node = Channel::new(NodeId::from(1), "node".into(), pool, Side::Server);
    let node = Arc::new(node);
    let first = Attachment::new(&node, FEATURES).expect("open");
    (node, first)
}

#[test]
fn what_a_stream_gives_back_neither_comes_late_nor_keeps_its_successor_asleep() {
    super::explore(|| {
        let (node, first) = node_with_a_stream();
        let nodes = [Arc::clone(&node)];
        // Nobody waits for it, so it is not lost with the stream.
        let complete = call(1, Kind::Unary, &nodes);
        complete.queue(0, frame(b'a'));
        complete.complete();
        let breaking = {
            let node = Arc::clone(&node);
            spawn(move || {
                let mut sent = Written::default();
                sent.writer.push_messages(&node, first.stream_id(), None);
                drop(sent.writer.next());
                sent.writer.give_back(&node, first.stream_id());
                drop(first);
            })
        };
        let second = Attachment::new(&node, FEATURES).expect("open");
        let caller = {
            let call = call(2, Kind::OneWay, &nodes);
            spawn(move || assert!(call.queue(0, frame(b'b'))))
        };
        let mut sent = Written::default();
        block_on(poll_fn(|cx| {
            assert!(second.register(cx.waker()));
            sent.write_on(&node, second.stream_id());
            if sent.requests.contains(&b'b') {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        join(breaking);
        join(caller);
        assert!(sent.requests == b"b" || sent.requests == b"ab");
        assert!(node.outbox().is_empty());
    });
}
