//! How late a replica answers: what the command `delay` sets, and what handlers wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gorums::ServerCtx;

/// How long a replica waits before it answers. Clones share one setting.
#[derive(Debug, Clone, Default)]
pub struct Delay(Arc<AtomicU64>);

impl Delay {
    /// Sets it, to the millisecond, for requests that arrive from now on.
    pub fn set(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    /// What it is set to.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Lets the next request start, and waits, unless the caller goes away.
    pub async fn pass(&self, ctx: &ServerCtx) {
        let delay = self.get();
        if delay.is_zero() {
            return;
        }
        ctx.release();
        tokio::select! {
            biased;
            () = ctx.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
