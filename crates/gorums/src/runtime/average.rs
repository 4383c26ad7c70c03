use std::time::Duration;

// Statistics decide nothing that has an order, so this is `std`'s also where every order is explored.
use std::sync::atomic::{AtomicU64, Ordering};

/// A moving average of durations, in which a new sample has the weight 1 / `WEIGHT`.
///
/// It is loaded and stored where several tasks would have to add: of samples that come at once one may
/// be lost, which does no harm.
#[derive(Debug, Default)]
pub(crate) struct MovingAverage<const WEIGHT: u64> {
    /// In nanoseconds; 0 before the first sample.
    nanos: AtomicU64,
}

impl<const WEIGHT: u64> MovingAverage<WEIGHT> {
    /// Adds a sample, and returns it in nanoseconds: 1 at the least.
    #[inline]
    pub(crate) fn record(&self, sample: Duration) -> u64 {
        let sample = u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX).max(1);
        let old = self.nanos.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            (old - old / WEIGHT).saturating_add(sample / WEIGHT)
        };
        self.nanos.store(new.max(1), Ordering::Relaxed);
        sample
    }

    /// None before the first sample.
    pub(crate) fn get(&self) -> Option<Duration> {
        let nanos = self.nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }
}
