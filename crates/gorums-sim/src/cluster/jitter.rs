//! Handlers that are held up now and then, as by threads that have other work.
//!
//! One thread runs its tasks in the order in which they were woken, which hides that a handler that
//! has released its turn runs beside others. A handler that holds its turn loses time and nothing
//! else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gorums::Status;
use gorums::runtime::BoxFuture;
use gorums::server::{Incoming, Interceptor, Next, Reply};
use tokio::time::Sleep;

use super::Random;
use super::world::World;

/// One poll in so many comes late.
const ONE_IN: u64 = 12;
const LATEST: u64 = 12_000;

/// Holds up the handlers of a node.
#[derive(Debug)]
pub(crate) struct Jitter {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
}

impl Interceptor for Jitter {
    fn call(&self, incoming: Incoming, next: Next) -> BoxFuture<'static, Result<Reply, Status>> {
        Box::pin(Jittered {
            handler: Box::pin(next.run(incoming)),
            random: Random::new(self.world.random(self.node)),
            held_up: None,
        })
    }
}

struct Jittered {
    handler: BoxFuture<'static, Result<Reply, Status>>,
    random: Random,
    held_up: Option<Pin<Box<Sleep>>>,
}

impl Future for Jittered {
    type Output = Result<Reply, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.held_up.is_none() && self.random.one_in(ONE_IN) {
            let time = Duration::from_micros(1 + self.random.below(LATEST));
            self.held_up = Some(Box::pin(tokio::time::sleep(time)));
        }
        if let Some(held_up) = &mut self.held_up {
            std::task::ready!(held_up.as_mut().poll(cx));
            self.held_up = None;
        }
        self.handler.as_mut().poll(cx)
    }
}
