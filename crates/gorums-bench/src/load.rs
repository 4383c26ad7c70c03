//! The load: how many calls are made, and when.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gorums::{NodeError, QuorumError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::latency::Latencies;

/// What is called.
pub(crate) trait Work: Send + Sync + 'static {
    type Caller: Caller;

    /// One of the callers, by its number from 0 on.
    fn caller(&self, number: usize) -> Self::Caller;

    /// Over how long the callers of a closed loop begin, one evenly after the other. Calls that all
    /// take as long and begin together end together, and the next ones begin together again: they
    /// come in waves, between which nobody has anything to do.
    fn beginning(&self) -> Duration {
        Duration::ZERO
    }
}

/// Makes one call at a time.
pub(crate) trait Caller: Send + 'static {
    /// Makes a call, and checks what came of it.
    fn call(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Why a call did not give what it should.
#[derive(Debug)]
pub(crate) struct CallError(pub(crate) String);

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a call failed: {}", self.0)
    }
}

impl std::error::Error for CallError {}

impl From<QuorumError> for CallError {
    fn from(error: QuorumError) -> Self {
        Self(error.to_string())
    }
}

impl From<NodeError> for CallError {
    fn from(error: NodeError) -> Self {
        Self(error.to_string())
    }
}

/// When calls are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// So many callers, each of which makes its next call when the last one is done.
    Closed { in_flight: usize },
    /// So many calls a second, whether earlier ones are done or not; at most so many of them at a
    /// time. A call that has to wait for one of these places is late from the time when it was due,
    /// so that its latency shows the wait.
    Open { rate: f64, in_flight: usize },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { in_flight } => write!(f, "{in_flight} in flight"),
            Self::Open { rate, .. } => write!(f, "{rate} calls/s"),
        }
    }
}

/// What came of the calls.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    /// Calls that were due and never made, since no place was free. Their latencies are in, as what
    /// they had waited at the end.
    pub(crate) never_made: u64,
    /// From the first call to the end of the last one.
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
    /// How unevenly calls ended, where their callers began evenly: see [`Pulse`].
    pub(crate) peak_to_mean: Option<f64>,
}

/// How many calls ended in each millisecond.
#[derive(Debug)]
struct Pulse {
    start: Instant,
    slots: Vec<AtomicU32>,
}

impl Pulse {
    /// What comes later is not counted.
    const LONGEST: usize = 600_000;

    fn new(start: Instant, duration: Duration) -> Self {
        let slots = usize::try_from(duration.as_millis()).unwrap_or(usize::MAX);
        let slots = (0..slots.min(Self::LONGEST)).map(|_| AtomicU32::new(0));
        Self {
            start,
            slots: slots.collect(),
        }
    }

    fn beat(&self, at: Instant) {
        let slot = usize::try_from((at - self.start).as_millis());
        if let Some(slot) = slot.ok().and_then(|slot| self.slots.get(slot)) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many calls end in one of the busiest milliseconds (the 95th percentile), by the mean. It
    /// is little above 1 where calls come evenly, and a multiple of it where they come in waves.
    fn peak_to_mean(&self) -> Option<f64> {
        let mut counts: Vec<u32> = self
            .slots
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .collect();
        counts.sort_unstable();
        let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / counts.len() as f64;
        let peak = f64::from(*counts.get(counts.len() * 95 / 100)?);
        (mean > 0.0).then(|| peak / mean)
    }
}

impl Load {
    pub(crate) fn in_flight(self) -> usize {
        match self {
            Self::Closed { in_flight } | Self::Open { in_flight, .. } => in_flight,
        }
    }

    /// Makes calls for so long. Those that have begun then are waited for, and count. Ends with the
    /// first call that fails.
    pub(crate) async fn run<W: Work>(
        self,
        work: &W,
        duration: Duration,
    ) -> Result<Outcome, CallError> {
        match self {
            Self::Closed { in_flight } => closed(work, in_flight, duration).await,
            Self::Open { rate, in_flight } => open(work, rate, in_flight, duration).await,
        }
    }
}

async fn closed<W: Work>(
    work: &W,
    in_flight: usize,
    duration: Duration,
) -> Result<Outcome, CallError> {
    let latencies = Latencies::default();
    let mut callers = JoinSet::new();
    let start = Instant::now();
    let end = start + duration;
    let beginning = work.beginning();
    let pulse = (!beginning.is_zero()).then(|| Arc::new(Pulse::new(start, duration)));
    for number in 0..in_flight {
        let mut caller = work.caller(number);
        let mut recorder = latencies.recorder();
        let begin = start + beginning.mul_f64(number as f64 / in_flight as f64);
        let pulse = pulse.clone();
        callers.spawn(async move {
            if pulse.is_some() {
                tokio::time::sleep_until(begin.into()).await;
            }
            // One call at least, however late this caller comes to it.
            let mut now = Instant::now();
            loop {
                caller.call().await?;
                let done = Instant::now();
                recorder.record(done - now);
                if let Some(pulse) = &pulse {
                    pulse.beat(done);
                }
                if done >= end {
                    return Ok(());
                }
                now = done;
            }
        });
    }
    all(callers).await?;
    Ok(Outcome {
        calls: latencies.count(),
        never_made: 0,
        elapsed: start.elapsed(),
        latencies,
        peak_to_mean: pulse.and_then(|pulse| pulse.peak_to_mean()),
    })
}

async fn open<W: Work>(
    work: &W,
    rate: f64,
    in_flight: usize,
    duration: Duration,
) -> Result<Outcome, CallError> {
    let latencies = Latencies::default();
    let mut callers = JoinSet::new();
    // Set when all callers are there, before the first call is due.
    let timetable = Arc::new(OnceLock::new());
    let due = Arc::new(Semaphore::new(0));
    let next = Arc::new(AtomicU64::new(0));
    for number in 0..in_flight {
        let mut caller = work.caller(number);
        let mut recorder = latencies.recorder();
        let (due, next) = (Arc::clone(&due), Arc::clone(&next));
        let timetable = Arc::clone(&timetable);
        callers.spawn(async move {
            // Closed when the time is over.
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let schedule: &Schedule = timetable.wait();
                let at = schedule.due(next.fetch_add(1, Ordering::Relaxed));
                caller.call().await?;
                recorder.record(at.elapsed());
            }
            Ok(())
        });
    }
    let schedule = Schedule::new(rate, duration);
    timetable.get_or_init(|| schedule);
    let pacer = std::thread::spawn(move || schedule.pace(&due));
    let ended = all(callers).await;
    let made = next.load(Ordering::Relaxed);
    let elapsed = schedule.start.elapsed();
    ended?;
    let released = pacer.join().expect("the pacer does not panic");
    let mut recorder = latencies.recorder();
    for number in made..released {
        recorder.record(schedule.end.saturating_duration_since(schedule.due(number)));
    }
    drop(recorder);
    Ok(Outcome {
        calls: made,
        never_made: released.saturating_sub(made),
        elapsed,
        latencies,
        peak_to_mean: None,
    })
}

/// Waits for all callers, or for the first that fails.
async fn all(mut callers: JoinSet<Result<(), CallError>>) -> Result<(), CallError> {
    while let Some(ended) = callers.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(error) => return Err(CallError(error.to_string())),
        }
    }
    Ok(())
}

/// When the calls of an open loop are due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    end: Instant,
    rate: f64,
}

impl Schedule {
    fn new(rate: f64, duration: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            end: start + duration,
            rate,
        }
    }

    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many calls are due until then.
    fn due_until(&self, now: Instant) -> u64 {
        let time = now.min(self.end) - self.start;
        // Truncated on purpose: the first is due at once, and the next when a whole period has
        // passed.
        (time.as_secs_f64() * self.rate) as u64 + 1
    }

    /// Releases each call when it is due, and closes the semaphore at the end. This is a thread of
    /// its own, since timers of the runtime are too coarse. Returns how many were due.
    fn pace(&self, due: &Semaphore) -> u64 {
        precise_sleep();
        let mut released = 0;
        loop {
            let now = Instant::now();
            let until = self.due_until(now);
            if until > released {
                due.add_permits(usize::try_from(until - released).unwrap_or(usize::MAX));
                released = until;
            }
            if now >= self.end || due.is_closed() {
                due.close();
                return released;
            }
            let next = self.due(released).min(self.end);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// Linux rounds the sleeps of a thread up by 50 µs, so that it can bundle them.
fn precise_sleep() {
    #[cfg(target_os = "linux")]
    // Where it is refused, calls are made that much later.
    let _ = nix::sys::prctl::set_timerslack(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each call takes so long.
    struct Sleep(Duration);

    impl Work for Sleep {
        type Caller = Self;

        fn caller(&self, _number: usize) -> Self {
            Self(self.0)
        }
    }

    impl Caller for Sleep {
        async fn call(&mut self) -> Result<(), CallError> {
            // The thread itself, so that one call holds up all others.
            std::thread::sleep(self.0);
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    /// Counts how many calls are made at the same time.
    #[derive(Clone, Default)]
    struct Counted {
        now: Arc<AtomicU64>,
        most: Arc<AtomicU64>,
        made: Arc<AtomicU64>,
    }

    impl Work for Counted {
        type Caller = Self;

        fn caller(&self, _number: usize) -> Self {
            self.clone()
        }
    }

    impl Caller for Counted {
        async fn call(&mut self) -> Result<(), CallError> {
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            self.made.fetch_add(1, Ordering::Relaxed);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.now.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    }

    struct Failing;

    impl Work for Failing {
        type Caller = Self;

        fn caller(&self, _number: usize) -> Self {
            Self
        }
    }

    impl Caller for Failing {
        async fn call(&mut self) -> Result<(), CallError> {
            Err(CallError("no".to_owned()))
        }
    }

    const DURATION: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_closed_loop_keeps_as_many_calls_in_flight_and_no_more() {
        let work = Counted::default();
        let load = Load::Closed { in_flight: 7 };
        let outcome = load.run(&work, DURATION).await.expect("no call fails");
        assert_eq!(work.most.load(Ordering::Relaxed), 7);
        assert_eq!(outcome.calls, work.made.load(Ordering::Relaxed));
        assert_eq!(outcome.latencies.count(), outcome.calls);
        assert!(outcome.elapsed >= DURATION);
    }

    #[tokio::test]
    async fn an_open_loop_makes_the_calls_of_its_rate() {
        let work = Counted::default();
        let load = Load::Open {
            rate: 1000.0,
            in_flight: 1000,
        };
        let outcome = load.run(&work, DURATION).await.expect("no call fails");
        assert_eq!(outcome.calls + outcome.never_made, 101);
        assert_eq!(outcome.calls, work.made.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_a_late_call_waited_is_in_its_latency() {
        // Ten are due in the time that one takes: without the correction all would seem to take 20
        // ms.
        let work = Sleep(Duration::from_millis(20));
        let load = Load::Open {
            rate: 500.0,
            in_flight: 1,
        };
        let outcome = load.run(&work, DURATION).await.expect("no call fails");
        let summary = outcome.latencies.summary().expect("calls were made");
        assert!(
            outcome.never_made > 30,
            "{} were never made",
            outcome.never_made
        );
        assert_eq!(
            outcome.latencies.count(),
            outcome.calls + outcome.never_made
        );
        assert!(summary.max >= 80_000.0, "{summary:?}");
        assert!(summary.p90 >= 2.0 * 20_000.0, "{summary:?}");
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_run() {
        let long = Duration::from_secs(3600);
        for load in [
            Load::Closed { in_flight: 3 },
            Load::Open {
                rate: 10.0,
                in_flight: 3,
            },
        ] {
            let error = load.run(&Failing, long).await.expect_err("calls fail");
            assert_eq!(error.to_string(), "a call failed: no");
        }
    }

    #[test]
    fn waves_are_told_from_an_even_flow() {
        let start = Instant::now();
        let pulse = |every: u64| {
            let pulse = Pulse::new(start, Duration::from_secs(1));
            // A thousand calls, some of which end together.
            for call in 0..1000 {
                pulse.beat(start + Duration::from_millis(call / every * every));
            }
            pulse.peak_to_mean().expect("there were calls")
        };
        assert_eq!(pulse(1), 1.0);
        assert_eq!(pulse(10), 10.0);
        let none = Pulse::new(start, Duration::from_secs(1));
        assert_eq!(none.peak_to_mean(), None);
        // What ends after the time is not counted.
        none.beat(start + Duration::from_secs(2));
        assert_eq!(none.peak_to_mean(), None);
        let short = Pulse::new(start, Duration::from_micros(1));
        assert_eq!(short.peak_to_mean(), None);
    }

    /// Calls that callers begin one after the other.
    struct Even(Arc<AtomicU64>);

    impl Work for Even {
        type Caller = Counted;

        fn caller(&self, number: usize) -> Counted {
            // As many as have a caller yet.
            self.0.fetch_max(number as u64 + 1, Ordering::Relaxed);
            Counted::default()
        }

        fn beginning(&self) -> Duration {
            DURATION / 2
        }
    }

    #[tokio::test]
    async fn callers_that_begin_evenly_all_make_calls() {
        let work = Even(Arc::default());
        let load = Load::Closed { in_flight: 20 };
        let outcome = load.run(&work, DURATION).await.expect("no call fails");
        assert_eq!(work.0.load(Ordering::Relaxed), 20);
        assert!(outcome.calls >= 20);
        assert!(outcome.peak_to_mean.expect("it is looked at") >= 1.0);
        let together = Counted::default();
        let outcome = load.run(&together, DURATION).await.expect("no call fails");
        assert_eq!(outcome.peak_to_mean, None);
    }

    #[test]
    fn calls_are_due_evenly() {
        let schedule = Schedule::new(4.0, Duration::from_secs(1));
        let at = |millis| schedule.start + Duration::from_millis(millis);
        assert_eq!(schedule.due(0), at(0));
        assert_eq!(schedule.due(2), at(500));
        for (millis, due) in [(0, 1), (249, 1), (250, 2), (999, 4), (1000, 5), (9000, 5)] {
            assert_eq!(schedule.due_until(at(millis)), due, "after {millis} ms");
        }
    }
}
