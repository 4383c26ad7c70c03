//! The lane: handlers start in order, one holds the turn, and everybody who waits is woken.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use loom::thread::JoinHandle;

use super::reply_queue::taken;
use super::{Gate, join, spawn};
use crate::error::Status;
use crate::handler::released::ReleasedSet;
use crate::handler::{
    Called, ConnectionInfo, Entry, Incoming, Lane, LaneSettings, Needed, Priority, Reply,
    ReplyQueue, Request, ServerCtx,
};
use crate::metadata::Metadata;
use crate::runtime::SystemClock;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Semaphore, block_on};
use crate::wire::MethodKind;

/// A connection's lane with its task, and replies that the test's thread writes.
struct Connection {
    lane: Arc<Lane>,
    released: Arc<ReleasedSet>,
    replies: Arc<ReplyQueue>,
    task: JoinHandle<()>,
}

struct Bounds {
    running: usize,
    reply_bytes: usize,
    server_turn: Option<Arc<Semaphore>>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            running: 8,
            reply_bytes: usize::MAX,
            server_turn: None,
        }
    }
}

impl Connection {
    /// With requests that have come already.
    fn start(bounds: Bounds, requests: Vec<Request>) -> Self {
        let settings = LaneSettings {
            server_turn: bounds.server_turn,
            max_running: bounds.running,
            ..LaneSettings::unbounded(Arc::new(SystemClock))
        };
        let replies = Arc::new(ReplyQueue::new(bounds.reply_bytes));
        let info = Arc::new(ConnectionInfo::default());
        let (lane, released, task) = Lane::start_with_set(
            Arc::new(settings),
            info,
            Arc::clone(&replies),
            super::FEATURES,
        );
        let mut requests = requests;
        lane.push(&mut requests);
        let task = spawn(move || block_on(task));
        Self {
            lane,
            released,
            replies,
            task,
        }
    }

    /// Writes replies until no handler runs and none waits, as the I/O task does once no more
    /// requests come. The ids of the replies, in order.
    fn end(self) -> Vec<u64> {
        self.end_watched(|_| {})
    }

    /// The same, and tells how many replies were taken before it takes more.
    fn end_watched(self, mut before: impl FnMut(usize)) -> Vec<u64> {
        self.lane.finish();
        let mut ids = Vec::new();
        block_on(poll_fn(|cx| {
            self.replies.io().register(cx.waker());
            let idle = self.lane.is_idle();
            before(ids.len());
            ids.extend(taken(&self.replies));
            if idle && self.replies.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        join(self.task);
        ids
    }
}

fn request<F, Fut>(id: u64, handler: F) -> Request
where
    F: Fn(ServerCtx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let entry = Entry {
        name: "m".into(),
        kind: MethodKind::TwoWay,
        handler: Box::new(move |incoming: Incoming| {
            let handling = handler(incoming.ctx().clone());
            async move {
                drop(incoming);
                handling.await;
                Ok::<_, Status>(Reply::message(&1_u64))
            }
        }),
        max_decoding: None,
        max_encoding: None,
        priority: Priority::default(),
        needed: Needed::default(),
    };
    Request {
        id,
        called: Called::Method(Arc::new(entry)),
        metadata: Metadata::new(),
        payload: Bytes::new(),
        size: 0,
        deadline: None,
        is_resent: false,
        arrived: None,
    }
}

/// Counts the handlers that hold the turn.
#[derive(Clone)]
struct Turns(Arc<Holders>);

struct Holders {
    now: AtomicUsize,
    /// Others held the turn when a handler began: an assertion there would be its reply.
    broken: AtomicUsize,
}

impl Turns {
    fn new() -> Self {
        Self(Arc::new(Holders {
            now: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
        }))
    }

    fn begin(&self) {
        let others = self.0.now.fetch_add(1, Ordering::Relaxed);
        if others > 0 {
            self.0.broken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// All handlers have ended.
    fn assert_exclusive(&self) {
        let broken = self.0.broken.load(Ordering::Relaxed);
        assert_eq!(broken, 0, "two handlers held the turn");
    }
}

#[test]
fn a_handler_that_suspends_with_the_turn_keeps_it() {
    super::explore(|| {
        let (turns, gate) = (Turns::new(), Gate::default());
        let first = {
            let (turns, gate) = (turns.clone(), gate.clone());
            request(1, move |_| {
                let (turns, gate) = (turns.clone(), gate.clone());
                async move {
                    turns.begin();
                    gate.opened().await;
                    turns.end();
                }
            })
        };
        let second = {
            let turns = turns.clone();
            request(2, move |_| {
                let turns = turns.clone();
                async move {
                    turns.begin();
                    turns.end();
                }
            })
        };
        let connection = Connection::start(Bounds::default(), vec![first, second]);
        let opener = spawn(move || gate.open());
        // The reply of a handler that did not release is queued before the next starts.
        assert_eq!(connection.end(), [1, 2]);
        join(opener);
        turns.assert_exclusive();
    });
}

#[test]
fn a_handler_that_released_and_suspends_runs_beside_the_next() {
    super::explore(|| {
        let (turns, gate) = (Turns::new(), Gate::default());
        let first = {
            let (turns, gate) = (turns.clone(), gate.clone());
            request(1, move |ctx| {
                let (turns, gate) = (turns.clone(), gate.clone());
                async move {
                    turns.begin();
                    turns.end();
                    ctx.release();
                    // Only the next handler opens it.
                    gate.opened().await;
                }
            })
        };
        let second = {
            let turns = turns.clone();
            request(2, move |_| {
                let (turns, gate) = (turns.clone(), gate.clone());
                async move {
                    turns.begin();
                    gate.open();
                    turns.end();
                }
            })
        };
        let connection = Connection::start(Bounds::default(), vec![first, second]);
        let mut ids = connection.end();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
        turns.assert_exclusive();
    });
}

/// With a handler that releases, and ends when both gates were opened, one after the other.
fn with_a_released_handler() -> (Connection, [Gate; 2]) {
    let gates = [Gate::default(), Gate::default()];
    let handler = {
        let gates = gates.clone();
        request(1, move |ctx| {
            let [first, second] = gates.clone();
            async move {
                ctx.release();
                first.opened().await;
                second.opened().await;
            }
        })
    };
    let connection = Connection::start(Bounds::default(), vec![handler]);
    (connection, gates)
}

#[test]
fn a_released_handler_is_polled_again_whenever_it_is_woken() {
    super::explore(|| {
        let (connection, gates) = with_a_released_handler();
        gates.iter().for_each(Gate::open);
        assert_eq!(connection.end(), [1]);
    });
}

#[test]
fn a_released_handler_that_awaits_its_release_later_ends_too() {
    super::explore(|| {
        let gate = Gate::default();
        let handler = {
            let gate = gate.clone();
            request(1, move |ctx| {
                let gate = gate.clone();
                async move {
                    ctx.release();
                    gate.opened().await;
                    ctx.release().await;
                }
            })
        };
        let connection = Connection::start(Bounds::default(), vec![handler]);
        gate.open();
        assert_eq!(connection.end(), [1]);
    });
}

#[test]
fn no_wake_up_is_lost_when_another_runner_takes_over() {
    super::explore(|| {
        let (connection, gates) = with_a_released_handler();
        gates[0].open();
        connection.released.take_over();
        gates[1].open();
        assert_eq!(connection.end(), [1]);
    });
}

#[test]
fn a_released_handler_that_blocks_its_thread_is_overtaken() {
    super::explore(|| {
        let (blocks, other, unblock) = (Gate::default(), Gate::default(), Gate::default());
        let first = {
            let (blocks, unblock) = (blocks.clone(), unblock.clone());
            request(1, move |ctx| {
                let (blocks, unblock) = (blocks.clone(), unblock.clone());
                let mut suspended = false;
                async move {
                    ctx.release();
                    poll_fn(|cx| {
                        if std::mem::replace(&mut suspended, true) {
                            return Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    })
                    .await;
                    blocks.open();
                    block_on(unblock.opened());
                }
            })
        };
        let second = {
            let other = other.clone();
            request(2, move |ctx| {
                let (other, unblock) = (other.clone(), unblock.clone());
                async move {
                    ctx.release();
                    other.opened().await;
                    unblock.open();
                }
            })
        };
        let connection = Connection::start(Bounds::default(), vec![first, second]);
        block_on(blocks.opened());
        connection.released.take_over();
        other.open();
        let mut ids = connection.end();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    });
}

#[test]
fn a_release_by_another_task_lets_the_next_handler_start() {
    super::explore(|| {
        let gate = Gate::default();
        let first = {
            let gate = gate.clone();
            request(1, move |ctx| {
                let gate = gate.clone();
                async move {
                    crate::sync::spawn(async move {
                        ctx.release();
                    });
                    gate.opened().await;
                }
            })
        };
        let second = request(2, move |_| {
            let gate = gate.clone();
            async move { gate.open() }
        });
        let connection = Connection::start(Bounds::default(), vec![first, second]);
        let mut ids = connection.end();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    });
}

#[test]
fn requests_that_come_while_the_lane_falls_asleep_are_handled() {
    super::explore(|| {
        let handled = Gate::default();
        let connection = Connection::start(Bounds::default(), Vec::new());
        let second = {
            let handled = handled.clone();
            request(2, move |_| {
                let handled = handled.clone();
                async move { handled.open() }
            })
        };
        for request in [request(1, |_| async {}), second] {
            connection.lane.push(&mut vec![request]);
        }
        // Not by the wake-up of the end.
        block_on(handled.opened());
        assert_eq!(connection.end(), [1, 2]);
    });
}

#[test]
fn a_handler_waits_with_its_reply_and_its_turn_for_room_in_the_queue() {
    super::explore(|| {
        let turns = Turns::new();
        let handler = |id| {
            let turns = turns.clone();
            request(id, move |_| {
                let turns = turns.clone();
                async move {
                    turns.begin();
                    turns.end();
                }
            })
        };
        let bounds = Bounds {
            reply_bytes: 1,
            ..Bounds::default()
        };
        let connection = Connection::start(bounds, vec![handler(1), handler(2), handler(3)]);
        assert_eq!(connection.end(), [1, 2, 3]);
        turns.assert_exclusive();
    });
}

#[test]
fn with_replies_at_their_bound_nothing_starts_and_below_it_the_next_one_does() {
    super::explore(|| {
        let started = Arc::new(AtomicUsize::new(0));
        let handler = |id| {
            let started = Arc::clone(&started);
            request(id, move |ctx| {
                started.fetch_add(1, Ordering::Relaxed);
                ctx.release();
                async {}
            })
        };
        let bounds = Bounds {
            reply_bytes: 1,
            ..Bounds::default()
        };
        let connection = Connection::start(bounds, vec![handler(1), handler(2), handler(3)]);
        let ids = connection.end_watched(|taken| {
            let started = started.load(Ordering::Relaxed);
            assert!(
                started <= taken + 1,
                "{started} started, {taken} were taken"
            );
        });
        assert_eq!(ids, [1, 2, 3]);
    });
}

/// A handler that releases, and ends when the gate is opened.
fn released_until(id: u64, gate: &Gate) -> Request {
    let gate = gate.clone();
    request(id, move |ctx| {
        let gate = gate.clone();
        async move {
            ctx.release();
            gate.opened().await;
        }
    })
}

#[test]
fn a_lane_goes_on_when_replies_that_ended_handlers_held_have_gone() {
    super::explore(|| {
        let gate = Gate::default();
        let bounds = Bounds {
            reply_bytes: 1,
            ..Bounds::default()
        };
        let opens = {
            let gate = gate.clone();
            request(3, move |_| {
                gate.open();
                async {}
            })
        };
        let requests = vec![
            released_until(1, &gate),
            released_until(2, &gate),
            opens,
            request(4, |_| async {}),
        ];
        let mut ids = Connection::start(bounds, requests).end();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4]);
    });
}

#[test]
fn a_lane_that_replies_hold_up_leaves_the_turn_of_the_server_to_others() {
    super::explore(|| {
        let turn = Arc::new(Semaphore::new(1));
        let (released, gate) = (Gate::default(), Gate::default());
        let first = {
            let (released, gate) = (released.clone(), gate.clone());
            request(1, move |ctx| {
                let (released, gate) = (released.clone(), gate.clone());
                async move {
                    ctx.release();
                    released.open();
                    gate.opened().await;
                }
            })
        };
        let second = request(2, |ctx| {
            ctx.release();
            async {}
        });
        let bounds = Bounds {
            reply_bytes: 1,
            server_turn: Some(Arc::clone(&turn)),
            ..Bounds::default()
        };
        let connection = Connection::start(bounds, vec![first, second]);
        block_on(released.opened());
        // The lane may wait for the turn when its replies reach their bound. Nobody takes any.
        for _ in 0..2 {
            let permit = block_on(Arc::clone(&turn).acquire_owned()).expect("open");
            gate.open();
            drop(permit);
        }
        let mut ids = connection.end();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
        assert_eq!(turn.available_permits(), 1);
    });
}

#[test]
fn the_end_of_a_moved_handler_wakes_a_lane_at_its_bound() {
    super::explore(|| {
        let gate = Gate::default();
        let first = {
            let gate = gate.clone();
            request(1, move |ctx| {
                let gate = gate.clone();
                async move {
                    ctx.release();
                    gate.opened().await;
                }
            })
        };
        let bounds = Bounds {
            running: 1,
            ..Bounds::default()
        };
        let second = request(2, |_| async {});
        let connection = Connection::start(bounds, vec![first, second]);
        gate.open();
        assert_eq!(connection.end().len(), 2);
    });
}

#[test]
fn a_request_hears_that_its_caller_gave_up_whenever_it_does() {
    super::explore(|| {
        let request = request(1, |ctx: ServerCtx| async move {
            ctx.release();
            ctx.cancelled().await;
        });
        let connection = Connection::start(Bounds::default(), vec![request]);
        connection.lane.cancel(1);
        assert_eq!(connection.end(), [1]);
    });
}

#[test]
fn handlers_end_when_the_client_has_gone() {
    super::explore(|| {
        let waits = |id| {
            request(id, |ctx: ServerCtx| async move {
                ctx.cancelled().await;
            })
        };
        let bounds = Bounds {
            reply_bytes: 1,
            ..Bounds::default()
        };
        let connection = Connection::start(bounds, vec![request(1, |_| async {}), waits(2)]);
        connection.lane.disconnect();
        assert_eq!(connection.end(), []);
    });
}

#[test]
fn a_client_that_was_held_up_is_read_again_although_the_handler_blocks() {
    super::explore(|| {
        let gate = Gate::default();
        let blocks = {
            let gate = gate.clone();
            request(1, move |_| {
                block_on(gate.opened());
                async {}
            })
        };
        let connection = Connection::start(Bounds::default(), vec![blocks]);
        let mut asked = false;
        block_on(poll_fn(|cx| {
            connection.replies.io().register(cx.waker());
            if connection.lane.waiting_bytes() == 0 {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asked, true) {
                connection.lane.wake_when_below(0);
            }
            Poll::Pending
        }));
        gate.open();
        assert_eq!(connection.end(), [1]);
    });
}

#[test]
fn handlers_of_two_connections_take_turns_under_per_server_order() {
    super::explore(|| {
        let turn = Arc::new(Semaphore::new(1));
        let turns = Turns::new();
        let connections = [1, 2].map(|id| {
            let turns = turns.clone();
            let handler = request(id, move |_| {
                let turns = turns.clone();
                async move {
                    turns.begin();
                    turns.end();
                }
            });
            let bounds = Bounds {
                server_turn: Some(Arc::clone(&turn)),
                ..Bounds::default()
            };
            Connection::start(bounds, vec![handler])
        });
        let ids = connections.map(Connection::end);
        assert_eq!(ids, [[1], [2]]);
        turns.assert_exclusive();
        assert_eq!(turn.available_permits(), 1);
    });
}
