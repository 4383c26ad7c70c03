//! The lanes of one server, and which of their handlers has run for longest.
//!
//! Nothing is noted of a handler when it starts or ends. Whoever asks takes down which handlers run, and
//! finds at the next look which of them still do.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::lane::{Lane, LaneSettings};
use crate::sync::Mutex;

/// Lanes of connections that are gone are forgotten when there are this many more than there were.
const MORE: usize = 64;

/// The lanes that there are.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<State>);

#[derive(Default)]
struct State {
    lanes: Vec<Weak<Lane>>,
    /// When there are as many, those that are gone are forgotten.
    forget_at: usize,
}

impl Lanes {
    pub(super) fn add(&self, lane: &Arc<Lane>) {
        let mut state = self.0.lock();
        if state.lanes.len() >= state.forget_at {
            state.lanes.retain(|lane| lane.strong_count() > 0);
            state.forget_at = 2 * state.lanes.len() + MORE;
        }
        state.lanes.push(Arc::downgrade(lane));
    }

    fn all(&self) -> Vec<Arc<Lane>> {
        let state = self.0.lock();
        state.lanes.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The handlers of a server that run now. Clones are the same.
///
/// A disk that hangs, or a lock that is never given back, shows in handlers that do not end, also where
/// nobody calls any more. What that means is known to the service alone: one that waits for something
/// to happen may run for ever. So a service that knows looks now and then, and tells others by its
/// [`Health`](crate::server::Health):
///
/// ```no_run
/// # async fn run() -> Result<(), gorums::ServerError> {
/// use std::time::Duration;
///
/// use gorums::Server;
/// use gorums::server::{Health, ServingStatus};
///
/// let health = Health::new();
/// let server = Server::builder().health(&health).bind("0.0.0.0:8080").await?;
/// let handlers = server.running_handlers();
/// tokio::spawn(async move {
///     loop {
///         tokio::time::sleep(Duration::from_secs(1)).await;
///         let hangs = handlers.oldest().is_some_and(|oldest| oldest.age() > Duration::from_secs(5));
///         let status = if hangs { ServingStatus::NotServing } else { ServingStatus::Serving };
///         health.set("", status);
///     }
/// });
/// server.serve().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RunningHandlers(Arc<LaneSettings>);

impl RunningHandlers {
    pub(crate) fn of(settings: Arc<LaneSettings>) -> Self {
        Self(settings)
    }

    /// How many there are: those that have their turn, and those that have released it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lanes.all().iter().map(|lane| lane.running()).sum()
    }

    /// The one that has run for longest, as far as is known: its age counts from when this first found
    /// it running, so ask again and again. None where none runs.
    ///
    /// It looks at every handler that runs, so ask once in a second, and not for each call.
    #[must_use]
    pub fn oldest(&self) -> Option<OldestHandler> {
        let now = self.0.clock.now();
        let lanes = self.0.lanes.all();
        let oldest = lanes.iter().filter_map(|lane| lane.oldest(now));
        let (since, method) = oldest.min_by_key(|(since, _)| *since)?;
        Some(OldestHandler {
            method,
            age: now.saturating_duration_since(since),
        })
    }
}

impl fmt::Debug for RunningHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        f.debug_struct("RunningHandlers")
            .field("count", &count)
            .finish_non_exhaustive()
    }
}

/// The handler that has run for longest: see [`RunningHandlers::oldest`].
#[derive(Debug, Clone)]
pub struct OldestHandler {
    method: String,
    age: Duration,
}

impl OldestHandler {
    /// The method, as `package.Service.Method`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// For how long it is known to run.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl Lane {
    /// How many handlers run.
    fn running(&self) -> usize {
        let state = self.state();
        state.running + usize::from(state.current.is_some())
    }

    /// The handler that was found first of those that run, when that was, and its method.
    fn oldest(&self, now: Instant) -> Option<(Instant, String)> {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.found);
        let mut found = Vec::with_capacity(state.moved.len() + 1);
        let moved = state
            .moved
            .iter()
            .filter_map(|(id, all)| Some((id, all.first()?)));
        let current = state.current.iter().map(|(id, ctx)| (id, ctx));
        let mut oldest: Option<(Instant, String)> = None;
        for (id, ctx) in moved.chain(current) {
            let since = before.remove(id).unwrap_or(now);
            if oldest.as_ref().is_none_or(|(oldest, _)| since < *oldest) {
                oldest = Some((since, ctx.method().to_owned()));
            }
            found.push((*id, since));
        }
        state.found = found.into_iter().collect();
        oldest
    }
}
