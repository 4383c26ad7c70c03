//! A timer for the task that awaits a call, whatever that runs on.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::{Handle as Runtime, Id};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::channel::Pool;
use crate::runtime::BoxFuture;

/// Ends at one time after the other. The task that awaits a call may have no runtime, one without
/// timers, or another one than before: then the connections' runtime keeps the time.
#[derive(Default)]
pub(super) struct Timer(Option<Started>);

/// When it ends, and the runtime that it was made in, if any.
struct Started {
    at: Instant,
    runtime: Option<Id>,
    sleep: BoxFuture<'static, ()>,
}

impl Timer {
    /// Ready at this time. Never where the connections' runtime is needed for it and has ended, and
    /// all calls with it.
    pub(super) fn poll(&mut self, pool: &Pool, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let runtime = Runtime::try_current().ok().map(|runtime| runtime.id());
        let started = self.0.take();
        // A timer is of the runtime that it was made in.
        let started = started.filter(|started| started.at == at && started.runtime == runtime);
        let started = started.or_else(|| {
            let sleep = sleep(pool, runtime.is_some(), at)?;
            Some(Started { at, runtime, sleep })
        });
        let Some(mut started) = started else {
            return Poll::Pending;
        };
        let polled = started.sleep.as_mut().poll(cx);
        if polled.is_pending() {
            self.0 = Some(started);
        }
        polled
    }
}

/// Ends at that time: in this runtime, if it has what the clock needs, or else in that of the
/// connections. None where that has ended.
fn sleep(pool: &Pool, is_runtime: bool, at: Instant) -> Option<BoxFuture<'static, ()>> {
    if is_runtime && pool.clock.check_runtime().is_ok() {
        return Some(pool.clock.sleep_until(at));
    }
    let clock = Arc::clone(&pool.clock);
    let (mut ended, end) = oneshot::channel();
    pool.runtime()?.spawn(async move {
        let sleep = clock.sleep_until(at);
        tokio::select! {
            biased;
            () = ended.closed() => return,
            () = sleep => {}
        }
        // Nobody waits for it any more, perhaps.
        let _ = ended.send(());
    });
    Some(Box::pin(async move {
        // Where the task was dropped its runtime has ended.
        let _ = end.await;
    }))
}
