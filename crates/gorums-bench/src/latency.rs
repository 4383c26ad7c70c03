//! Latencies: recorded at little cost, told as percentiles.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What is longer counts as this long.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many latencies a caller keeps to itself before it takes the lock.
const KEPT: usize = 64;

/// All latencies of a run, in nanoseconds, to three digits. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Arc<Mutex<Histogram<u64>>>);

impl Default for Latencies {
    fn default() -> Self {
        let longest = nanos(LONGEST);
        let histogram = Histogram::new_with_bounds(1, longest, 3).expect("the bounds are sound");
        Self(Arc::new(Mutex::new(histogram)))
    }
}

impl Latencies {
    /// For one caller.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder {
            all: self.clone(),
            kept: Vec::with_capacity(KEPT),
        }
    }

    /// Adds those of another run.
    pub(crate) fn add(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            let other = other.with(|histogram| histogram.clone());
            self.with(|all| all.add(&other).expect("all have the same bounds"));
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.with(|histogram| histogram.len())
    }

    /// Their percentiles; `None` where there are no latencies.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        self.with(|histogram| {
            (!histogram.is_empty()).then(|| Summary {
                mean: histogram.mean() / 1e3,
                p50: micros(histogram.value_at_quantile(0.5)),
                p90: micros(histogram.value_at_quantile(0.9)),
                p99: micros(histogram.value_at_quantile(0.99)),
                p99_9: micros(histogram.value_at_quantile(0.999)),
                max: micros(histogram.max()),
            })
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Histogram<u64>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes the latencies of one caller, and hands them on by the dozen. Those that it has are handed
/// on when it is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    all: Latencies,
    kept: Vec<u64>,
}

impl Recorder {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.kept.push(nanos(latency).max(1));
        if self.kept.len() == KEPT {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let kept = &mut self.kept;
        self.all.with(|all| {
            for nanos in kept.drain(..) {
                all.saturating_record(nanos);
            }
        });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(latencies: impl IntoIterator<Item = Duration>) -> Latencies {
        let all = Latencies::default();
        let mut recorder = all.recorder();
        for latency in latencies {
            recorder.record(latency);
        }
        drop(recorder);
        all
    }

    /// To three digits.
    fn assert_near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= expected / 1000.0,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn percentiles_are_those_of_known_data() {
        // 1 µs to 10 ms, each once, in an order that is not theirs.
        let all = of((0..10_000).map(|i| Duration::from_micros((i * 7919) % 10_000 + 1)));
        let summary = all.summary().expect("there are latencies");
        assert_eq!(all.count(), 10_000);
        assert_near(summary.mean, 5_000.5);
        assert_near(summary.p50, 5_000.0);
        assert_near(summary.p90, 9_000.0);
        assert_near(summary.p99, 9_900.0);
        assert_near(summary.p99_9, 9_990.0);
        assert_near(summary.max, 10_000.0);
    }

    #[test]
    fn runs_are_added_up() {
        let all = of([Duration::from_micros(1); 3]);
        all.add(&of([Duration::from_micros(9); 1]));
        let summary = all.summary().expect("there are latencies");
        assert_eq!(all.count(), 4);
        assert_near(summary.mean, 3.0);
        assert_near(summary.max, 9.0);
    }

    #[test]
    fn a_recorder_hands_everything_on_when_it_is_dropped() {
        let all = Latencies::default();
        let mut recorder = all.recorder();
        for _ in 0..=KEPT {
            recorder.record(Duration::from_micros(1));
        }
        assert_eq!(all.count(), KEPT as u64);
        drop(recorder);
        assert_eq!(all.count(), KEPT as u64 + 1);
    }

    #[test]
    fn without_latencies_there_are_no_percentiles() {
        assert_eq!(of([]).summary(), None);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let all = of([LONGEST * 2]);
        assert_near(all.summary().expect("one").max, LONGEST.as_micros() as f64);
    }
}
