//! What a server does not run while it is overloaded.
//!
//! Overload is seen by how long requests have waited when their turn comes, as in CoDel (Nichols and
//! Jacobson, "Controlling Queue Delay"): a burst makes some of them wait, and is over; where each has
//! waited longer than the target for a while, more comes than can be done. What is shed then is what
//! has waited longest, since its caller is likely to have given up, and the least important of that
//! first: of each priority there is a time from which it is not worth running.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{LONGEST_PAUSE, Status};
use crate::runtime::{MovingAverage, paced};

/// The weight of a new sample in what a method needs: 1/8.
const WEIGHT: u64 = 8;

/// When a server is overloaded, and sheds requests: see [`ServerBuilder::shed`].
///
/// [`ServerBuilder::shed`]: crate::ServerBuilder::shed
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    target: Duration,
    interval: Duration,
}

impl Shedding {
    /// A connection is overloaded where its requests wait longer than this for their turn, for half a
    /// second; see [`for_longer_than`](Self::for_longer_than). A millisecond at least.
    #[must_use]
    pub fn waiting(target: Duration) -> Self {
        Self {
            target: paced(target),
            ..Self::default()
        }
    }

    /// For how long each request has to have waited longer than the target before any is shed: bursts
    /// that are worked off sooner are let pass. Default: 500 ms; a millisecond at least.
    #[must_use]
    pub fn for_longer_than(mut self, interval: Duration) -> Self {
        self.interval = paced(interval);
        self
    }

    /// How long a request may have waited while there is overload.
    fn allowance(&self, priority: Priority) -> Duration {
        self.target.saturating_mul(match priority {
            Priority::Low => 1,
            Priority::Normal => 2,
            Priority::High => 4,
        })
    }
}

/// 100 ms, for 500 ms.
impl Default for Shedding {
    fn default() -> Self {
        Self {
            target: Duration::from_millis(100),
            interval: Duration::from_millis(500),
        }
    }
}

/// How important a method is where a server [sheds](crate::ServerBuilder::shed) requests: how long
/// one of it may have waited before it is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Shed first: work in the background, what can be done later.
    Low,
    /// Shed where that is not enough. Twice as long as one of low priority.
    #[default]
    Normal,
    /// Shed last: what the others depend on. Four times as long as one of low priority.
    High,
}

/// Why a request is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The deadline of its caller has passed.
    Late,
    /// There is overload, and it has waited for so long.
    Shed(Duration),
}

impl Refusal {
    /// What its caller is told.
    pub(super) fn status(self) -> Status {
        match self {
            Self::Late => Status::deadline_exceeded(
                "the deadline had passed before the request had its turn, and it was not run",
            ),
            // What has come since has to wait as long.
            Self::Shed(waited) => Status::resource_exhausted(format!(
                "the server is overloaded: the request was not run, having waited for {} ms",
                waited.as_millis()
            ))
            .with_retry_delay(waited.min(LONGEST_PAUSE)),
        }
    }
}

/// A request whose turn has come.
pub(super) struct Candidate<'a> {
    pub(super) now: Instant,
    /// How long it has waited.
    pub(super) waited: Duration,
    pub(super) deadline: Option<Instant>,
    pub(super) priority: Priority,
    pub(super) needed: &'a Needed,
    /// So much waits that reading has paused.
    pub(super) is_at_bound: bool,
}

/// Whether the requests of a connection are too many to be done.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// Since when each has waited longer than the target.
    above_since: Option<Instant>,
    is_overloaded: bool,
}

impl Overload {
    /// Why this one is not run, if it is not.
    pub(super) fn judge(&mut self, shedding: &Shedding, of: &Candidate<'_>) -> Option<Refusal> {
        let is_over = if self.is_overloaded {
            // Shedding keeps the wait about the target: half of it, and there is none to be shed.
            of.waited < shedding.target / 2
        } else {
            of.waited < shedding.target
        };
        if is_over {
            *self = Self::default();
            return None;
        }
        let since = *self.above_since.get_or_insert(of.now);
        let lasted = of.now.saturating_duration_since(since);
        self.is_overloaded |= of.is_at_bound || lasted >= shedding.interval;
        if !self.is_overloaded {
            return None;
        }
        let time_left = of
            .deadline
            .map(|deadline| deadline.saturating_duration_since(of.now));
        let cannot_be_met = time_left.is_some_and(|left| left < of.needed.lately());
        let is_old = of.waited > shedding.allowance(of.priority);
        (cannot_be_met || is_old).then_some(Refusal::Shed(of.waited))
    }
}

/// How long the handlers of a method have taken lately, from their start to their reply, as a moving
/// average. Measured only where there is shedding.
#[derive(Debug, Default)]
pub(crate) struct Needed(MovingAverage<WEIGHT>);

impl Needed {
    /// One has taken so long.
    pub(super) fn note(&self, took: Duration) {
        self.0.record(took);
    }

    fn lately(&self) -> Duration {
        self.0.get().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Requests of one connection, one after the other.
    struct Turns {
        overload: Overload,
        begin: Instant,
        needed: Needed,
    }

    impl Turns {
        fn new() -> Self {
            Self {
                overload: Overload::default(),
                begin: Instant::now(),
                needed: Needed::default(),
            }
        }

        /// Whether one of this priority is shed that has its turn after so many milliseconds, and has
        /// waited for so many.
        fn sheds(&mut self, at: u32, waited: u32, priority: Priority) -> bool {
            self.judge(at, waited, priority, None, false)
        }

        fn judge(
            &mut self,
            at: u32,
            waited: u32,
            priority: Priority,
            left: Option<u32>,
            is_at_bound: bool,
        ) -> bool {
            let now = self.begin + at * MS;
            let candidate = Candidate {
                now,
                waited: waited * MS,
                deadline: left.map(|left| now + left * MS),
                priority,
                needed: &self.needed,
                is_at_bound,
            };
            let refusal = self.overload.judge(&Shedding::default(), &candidate);
            assert!(refusal.is_none_or(|why| why == Refusal::Shed(waited * MS)));
            refusal.is_some()
        }
    }

    use Priority::{High, Low, Normal};

    #[test]
    fn a_burst_that_is_worked_off_is_let_pass() {
        let mut turns = Turns::new();
        for at in 0..499 {
            assert!(!turns.sheds(at, 2_000, Low), "{at}");
        }
        assert!(!turns.sheds(499, 99, Low));
        assert!(!turns.sheds(500, 2_000, Low), "it is another one");
    }

    #[test]
    fn what_has_waited_longest_is_shed_the_least_important_first_until_little_waits() {
        let mut turns = Turns::new();
        assert!(!turns.sheds(0, 150, Low));
        for (at, waited, priority, expected) in [
            (500, 101, Low, true),
            (501, 100, Low, false),
            (502, 200, Normal, false),
            (503, 201, Normal, true),
            (504, 400, High, false),
            (505, 401, High, true),
            (506, 50, Low, false),
            // Still overloaded.
            (507, 101, Low, true),
            (508, 49, Low, false),
            (509, 1_000, Low, false),
        ] {
            assert_eq!(turns.sheds(at, waited, priority), expected, "{at}");
        }
    }

    #[test]
    fn what_cannot_be_done_in_time_is_shed_however_short_it_has_waited() {
        let mut turns = Turns::new();
        turns.needed.note(80 * MS);
        assert!(!turns.judge(0, 100, High, Some(79), false), "no overload");
        assert!(turns.judge(500, 100, High, Some(79), false));
        assert!(!turns.judge(501, 100, High, Some(80), false));
        for _ in 0..100 {
            turns.needed.note(10 * MS);
        }
        assert!(!turns.judge(502, 100, High, Some(79), false));
        assert!(turns.judge(503, 100, High, Some(9), false));
    }

    #[test]
    fn there_is_overload_at_once_where_reading_has_paused() {
        let mut turns = Turns::new();
        assert!(!turns.judge(0, 99, Low, None, true), "nothing waits long");
        assert!(turns.judge(1, 101, Low, None, true));
    }

    #[test]
    fn a_pause_is_as_long_as_the_wait_and_no_longer_than_may_be() {
        for (waited, expected) in [(150 * MS, 150 * MS), (100_000 * MS, LONGEST_PAUSE)] {
            let status = Refusal::Shed(waited).status();
            assert_eq!(status.retry_delay(), Some(expected));
        }
    }
}
