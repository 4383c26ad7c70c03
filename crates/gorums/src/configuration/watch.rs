use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::futures::OwnedNotified;
use tokio::task::JoinHandle;

use super::Configuration;
use crate::runtime::{Clock, SystemClock, bounded};

/// The least time between two looks, but for changes of state.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

type Derive = Box<dyn FnMut(&Configuration) -> Configuration + Send>;

/// A configuration that follows its nodes: see [`Configuration::watch`].
///
/// It is a [`Stream`] that never ends. What it yields is compared with what it yielded before, so
/// however seldom it is asked, the last change is never lost, and what came and went in between is
/// passed over. It holds the nodes of the configuration that is watched, and those that it last
/// yielded.
#[must_use = "it looks only when it is asked"]
pub struct Watch {
    configuration: Configuration,
    derive: Derive,
    interval: Duration,
    last: Option<Configuration>,
    /// None before the first look.
    alarm: Option<Alarm>,
}

impl Watch {
    pub(super) fn new(configuration: Configuration, interval: Duration, derive: Derive) -> Self {
        Self {
            configuration,
            derive,
            interval: bounded(interval).max(MIN_INTERVAL),
            last: None,
            alarm: None,
        }
    }

    /// The first time at once what the function derives; later what it derives as soon as that
    /// differs, in its nodes or in their order, from what was last returned.
    ///
    /// Cancel safe: what a future that was dropped did not return is returned by the next one.
    pub async fn next(&mut self) -> Configuration {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Configuration> {
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.poll(cx));
            }
            // Listening begins before looking, so that no change falls between.
            self.alarm = Some(Alarm::set(&self.configuration, self.interval));
            let derived = (self.derive)(&self.configuration);
            let last = self.last.as_ref();
            if last.is_none_or(|last| last.as_slice() != derived.as_slice()) {
                self.last = Some(derived.clone());
                return Poll::Ready(derived);
            }
        }
    }
}

impl Stream for Watch {
    type Item = Configuration;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Configuration>> {
        self.poll(cx).map(Some)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("configuration", &self.configuration)
            .field("interval", &self.interval)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Rings when the interval is over or the state of a node changes, also while nobody listens.
struct Alarm {
    changes: Vec<Pin<Box<OwnedNotified>>>,
    /// Sleeps in the runtime of the connections: whoever asks may be in none. None where there is no
    /// runtime any more; its nodes are then closed for good.
    timer: Option<JoinHandle<()>>,
}

impl Alarm {
    fn set(configuration: &Configuration, interval: Duration) -> Self {
        let pools = configuration.targets().pools();
        let changes = pools.iter().map(|pool| {
            let mut change = Box::pin(Arc::clone(&pool.state_changed).notified_owned());
            change.as_mut().enable();
            change
        });
        let changes = changes.collect();
        let pool = pools.first();
        let runtime = pool
            .and_then(|pool| pool.runtime())
            .or_else(|| Handle::try_current().ok());
        let clock = pool.map_or_else(
            || Arc::new(SystemClock) as _,
            |pool| Arc::clone(&pool.clock),
        );
        Self {
            changes,
            timer: runtime.map(|runtime| runtime.spawn(sleep(clock, interval))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rings = false;
        for change in &mut self.changes {
            rings |= change.as_mut().poll(cx).is_ready();
        }
        if let Some(timer) = &mut self.timer
            && let Poll::Ready(slept) = Pin::new(timer).poll(cx)
        {
            rings |= slept.is_ok();
            self.timer = None;
        }
        if rings {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

async fn sleep(clock: Arc<dyn Clock>, interval: Duration) {
    let at = clock.now() + interval;
    clock.sleep_until(at).await;
}
