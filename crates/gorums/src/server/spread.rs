//! Connections that are spread over several runtimes.

use std::sync::Arc;
use std::{fmt, io};

use tokio::runtime::Handle;

use crate::log;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Runtimes that drive connections.
#[derive(Clone, Default)]
pub(super) struct Spread(Vec<Driver>);

#[derive(Clone)]
struct Driver {
    runtime: Handle,
    /// Each of its connections holds one.
    share: Arc<Share>,
}

#[derive(Default)]
struct Share {
    /// The runtime has ended.
    ended: AtomicBool,
    /// That has been logged.
    told: AtomicBool,
}

/// The place of a connection at its runtime.
pub(super) struct Place {
    pub(super) runtime: Handle,
    share: Arc<Share>,
    taken: bool,
}

impl Spread {
    pub(super) fn over(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let driver = |runtime| Driver {
            runtime,
            share: Arc::default(),
        };
        Self(runtimes.into_iter().map(driver).collect())
    }

    /// Has this asked in each of the runtimes.
    ///
    /// # Errors
    /// The first that one of them answers.
    pub(super) fn check(&self, check: impl Fn() -> io::Result<()>) -> io::Result<()> {
        self.0.iter().try_for_each(|driver| {
            let _inside = driver.runtime.enter();
            check()
        })
    }

    /// Where the next connection goes: to the runtime that has the fewest, of those the first. None
    /// where connections stay in the runtime of the server, for want of another one that lives.
    pub(super) fn place(&self) -> Option<Place> {
        let living = self.0.iter().filter(|driver| driver.lives());
        let fewest = living.min_by_key(|driver| Arc::strong_count(&driver.share))?;
        Some(Place {
            runtime: fewest.runtime.clone(),
            share: Arc::clone(&fewest.share),
            taken: false,
        })
    }
}

impl Driver {
    /// Whether it may be given a connection, as far as is known.
    fn lives(&self) -> bool {
        let share = &self.share;
        if !share.ended.load(Ordering::Relaxed) {
            return true;
        }
        if !share.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                target: log::SERVER,
                runtime = %self.runtime.id(),
                "a runtime for connections has ended before the server: it gets no more of them"
            );
        }
        false
    }
}

impl Place {
    /// The connection is there, in its runtime.
    pub(super) fn take(&mut self) {
        self.taken = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a runtime drops before it has polled it once came after its end, or after the
        // server's. It would seem to have the fewest connections for ever.
        if !self.taken {
            self.share.ended.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.0.iter().map(|driver| driver.runtime.id());
        f.debug_list().entries(ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_connection_goes_where_there_are_the_fewest() {
        let runtime = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime")
        };
        let runtimes = [runtime(), runtime()];
        let ids = runtimes.each_ref().map(|runtime| runtime.handle().id());
        let spread = Spread::over(runtimes.iter().map(|runtime| runtime.handle().clone()));
        let place = || {
            let mut place = spread.place().expect("there are two");
            place.take();
            place
        };
        let mut places = vec![place(), place(), place(), place()];
        let taken: Vec<_> = places.iter().map(|place| place.runtime.id()).collect();
        assert_eq!(taken, [ids[0], ids[1], ids[0], ids[1]]);
        // Those of the second one end.
        places.remove(3);
        places.remove(1);
        assert_eq!(place().runtime.id(), ids[1]);
        assert!(Spread::default().place().is_none());
    }

    #[test]
    fn a_runtime_that_has_ended_gets_no_more_connections() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let spread = Spread::over([runtime.handle().clone()]);
        drop(runtime);
        let mut place = spread.place().expect("its end is not known");
        let runtime = place.runtime.clone();
        drop(runtime.spawn(async move { place.take() }));
        assert!(spread.place().is_none());
    }
}
