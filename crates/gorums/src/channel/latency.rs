//! How long a node takes to answer.

// Statistics decide nothing, so these are `std`'s also where every order is explored.
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::runtime::MovingAverage;

/// How many samples are kept, for quantiles to be taken from.
const KEPT: usize = 256;

/// The weight of a new sample in the moving average, as in the Go library: 1/5.
const WEIGHT: u64 = 5;

/// A node's latencies: their moving average, and a ring of the last ones. One task writes. Readers
/// may see some samples that are newer than others, which does no harm: all of them are recent.
pub(crate) struct Latencies {
    average: MovingAverage<WEIGHT>,
    /// In nanoseconds; 0 where no sample has been stored yet.
    samples: Box<[AtomicU64]>,
    /// How many samples there have been.
    count: AtomicUsize,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            average: MovingAverage::default(),
            samples: (0..KEPT).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

impl Latencies {
    /// Only one task calls this, so it loads and stores where several would have to add.
    #[inline]
    pub(crate) fn record(&self, sample: Duration) {
        let sample = self.average.record(sample);
        let count = self.count.load(Ordering::Relaxed);
        self.samples[count % KEPT].store(sample, Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn average(&self) -> Option<Duration> {
        self.average.get()
    }

    /// The least sample that at least this part of all samples does not exceed.
    pub(crate) fn quantile(&self, q: f64) -> Option<Duration> {
        let mut samples: Vec<u64> = self
            .samples
            .iter()
            .map(|sample| sample.load(Ordering::Relaxed))
            .filter(|sample| *sample > 0)
            .collect();
        let q = if q.is_nan() { 0.0 } else { q.clamp(0.0, 1.0) };
        let rank = ((q * samples.len() as f64).ceil() as usize).max(1);
        let index = rank.min(samples.len()).checked_sub(1)?;
        Some(Duration::from_nanos(*samples.select_nth_unstable(index).1))
    }
}
