use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{BoxFuture, requirement};

/// Where the library takes time and randomness from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Called in the runtime that is to drive the connections, before there are any. By default it
    /// has what the clock needs.
    ///
    /// # Errors
    /// The runtime lacks something, which the error names.
    fn check_runtime(&self) -> io::Result<()> {
        Ok(())
    }

    /// The monotonic time: deadlines, backoff, keep-alive and latency are measured with it.
    fn now(&self) -> Instant;

    /// Completes at that time, or at once if it has passed.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// The time of day.
    fn wall_clock(&self) -> SystemTime;

    /// A random number, used for the jitter of reconnecting, to tell servers apart, and for the names of
    /// [sessions](crate::ConfigurationBuilder::sessions): no two clocks may yield the same numbers, and
    /// nobody else is to be able to guess the next ones. One that always yields the same number tells
    /// none apart.
    fn random(&self) -> u64;
}

/// Tokio's clock (which tests can pause), the time of day of the operating system, and random
/// numbers of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn check_runtime(&self) -> io::Result<()> {
        requirement::timers()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self) -> u64 {
        // Made of keys that the operating system has given, and different each time: who sees some cannot
        // tell the next ones.
        RandomState::new().hash_one(())
    }
}

/// The time between two of what happens again and again. A millisecond stands for any shorter one,
/// with which nothing else would happen.
pub(crate) fn paced(duration: Duration) -> Duration {
    bounded(duration).max(Duration::from_millis(1))
}

/// A duration that can be added to any time. Ten years stand for any longer one.
pub(crate) fn bounded(duration: Duration) -> Duration {
    const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    duration.min(TEN_YEARS)
}
