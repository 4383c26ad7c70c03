//! The task that ends calls at their deadlines.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Still, call, epoch, events, frame, join, node, outcome, pool, spawn, take};
use crate::channel::{Call, Kind, Targets};
use crate::runtime::{BoxFuture, Clock};
use crate::sync::{Mutex, block_on};

/// Time that goes on to whenever somebody sleeps until, up to an hour from the start: what is due
/// later never comes.
#[derive(Debug)]
struct Passing(Arc<Mutex<Instant>>);

const HOUR: Duration = Duration::from_secs(3600);

impl Passing {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(epoch())))
    }
}

impl Clock for Passing {
    fn now(&self) -> Instant {
        *self.0.lock()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let now = Arc::clone(&self.0);
        Box::pin(async move {
            if at > epoch() + HOUR {
                return std::future::pending().await;
            }
            let mut now = now.lock();
            *now = at.max(*now);
        })
    }

    fn wall_clock(&self) -> SystemTime {
        Still.wall_clock()
    }

    fn random(&self) -> u64 {
        0
    }
}

#[test]
fn every_call_ends_at_its_deadline_whenever_it_comes() {
    super::explore(|| {
        let pool = pool(Passing::new(), 4);
        let sweep = pool.sweep();
        let sweeper = spawn(move || block_on(sweep));
        let nodes = [node(1, &pool)];
        drop(pool);
        // One that comes while the sweeper looks for others has the same deadline as they.
        let other = {
            let nodes = nodes.clone();
            spawn(move || {
                let call = call(2, Kind::Unary, &nodes);
                call.queue(0, frame(b'b'));
                call.settle_deadline();
                assert_eq!(events(&call).len(), 1);
            })
        };
        let call = call(1, Kind::Unary, &nodes);
        call.queue(0, frame(b'a'));
        call.settle_deadline();
        let events = events(&call);
        assert_eq!(events.len(), 1);
        assert!(outcome(&events[0]).is_some());
        join(other);
        assert_eq!(nodes[0].pool().calls.len(), 0);
        // What is withdrawn before it lies in the outbox stays there for the I/O task to pass over.
        assert!(!take(&nodes[0]));
        drop((call, nodes));
        join(sweeper);
    });
}

#[test]
fn an_earlier_deadline_wakes_a_sweeper_that_waits_for_a_later_one() {
    super::explore(|| {
        let pool = pool(Passing::new(), 4);
        let nodes = [node(1, &pool)];
        let later = Arc::new(Call::new(
            1,
            "m",
            Kind::Unary,
            Targets::new(nodes.iter().cloned()),
            1,
            epoch(),
        ));
        let registered = pool.register(&later, Some(epoch() + 2 * HOUR));
        assert_eq!(registered, Ok(true));
        let sweep = pool.sweep();
        let sweeper = spawn(move || block_on(sweep));
        drop(pool);
        let call = call(2, Kind::Unary, &nodes);
        call.queue(0, frame(b'a'));
        call.settle_deadline();
        assert_eq!(events(&call).len(), 1);
        assert_eq!(nodes[0].pool().calls.len(), 1, "the other is not due");
        later.forget();
        assert!(!take(&nodes[0]));
        drop((call, later, nodes));
        join(sweeper);
    });
}
