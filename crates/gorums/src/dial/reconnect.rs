//! When to try again to connect.

use std::time::Duration;

use tokio::time::Instant;

use crate::channel::Settings;

/// The first attempts after a good connection was lost may follow each other sooner by so much.
const SOONER: u32 = 16;

/// So long at most a call waits for the pause to end where connections are made and end at once.
const FARTHEST: Duration = Duration::from_secs(1);

/// Grows the pause between attempts, with jitter, and keeps a least distance between any two.
#[derive(Debug)]
pub(crate) struct Reconnect {
    attempt_interval: Duration,
    /// The least distance at present: shorter after a good connection was lost, since a replica
    /// that restarts is often back at once, and twice as long after each attempt that failed.
    distance: Duration,
    /// When the last attempt started.
    started: Instant,
    base: Duration,
    max: Duration,
    /// How many attempts in a row have failed.
    failures: u32,
    /// When a new attempt may start at the earliest.
    allowed: Instant,
    /// When one starts even if no call asks for it.
    due: Instant,
}

impl Reconnect {
    pub(crate) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            attempt_interval: settings.attempt_interval,
            distance: settings.attempt_interval,
            started: now,
            base: settings.backoff_base,
            max: settings.backoff_max,
            failures: 0,
            allowed: now,
            due: now,
        }
    }

    /// An attempt starts.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = now;
        self.allowed = now + self.distance;
    }

    /// The attempt failed.
    pub(crate) fn failed(&mut self, now: Instant, random: u64) {
        self.distance = (2 * self.distance).min(self.attempt_interval);
        self.failures = self.failures.saturating_add(1);
        self.due = now + jittered(self.pause(), random);
    }

    /// The connection that the attempt made is gone again. A first attempt follows at once, and a
    /// peer that accepts connections only to close them is asked ever more seldom, also where calls
    /// ask: it may have too many clients that do.
    pub(crate) fn lost(&mut self, now: Instant, lasted: Duration, random: u64) {
        if lasted > self.max {
            self.failures = 0;
        }
        // A peer that accepts connections is not asked sooner.
        self.allowed = self.started + self.attempt_interval;
        if self.failures == 0 {
            self.due = now;
            self.distance = self.attempt_interval / SOONER;
        } else {
            let pause = self.pause();
            self.due = now + jittered(pause, random);
            let least = now + jittered(pause.min(FARTHEST), random);
            self.allowed = self.allowed.max(least);
            self.distance = self.attempt_interval;
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// A peer answered: the connection is a good one.
    pub(crate) fn proven(&mut self) {
        self.failures = 0;
    }

    /// When the next attempt starts, with or without a call that waits for it.
    pub(crate) fn next(&self, demanded: bool) -> Instant {
        if demanded {
            self.allowed
        } else {
            self.due.max(self.allowed)
        }
    }

    fn pause(&self) -> Duration {
        let factor = 1.6_f64.powi(self.failures.saturating_sub(1).min(64) as i32);
        Duration::try_from_secs_f64(self.base.as_secs_f64() * factor)
            .unwrap_or(self.max)
            .min(self.max)
    }
}

/// Between 80 % and 120 % of a pause, so that the clients of a restarted server do not come back in
/// step.
fn jittered(pause: Duration, random: u64) -> Duration {
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    pause.mul_f64(0.8 + 0.4 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = 1 << 63;

    #[test]
    fn pauses_grow_to_the_maximum_and_start_again_after_success() {
        let settings = Settings::default();
        let now = Instant::now();
        let mut reconnect = Reconnect::new(&settings, now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            reconnect.started(now);
            reconnect.failed(now, MIDDLE);
            pauses.push(reconnect.next(false) - now);
        }
        assert_eq!(pauses[0], settings.backoff_base);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[11], settings.backoff_max);
        reconnect.proven();
        reconnect.failed(now, MIDDLE);
        assert_eq!(reconnect.next(false) - now, settings.backoff_base);
    }

    #[test]
    fn a_call_is_served_early_but_not_more_often_than_the_interval() {
        let settings = Settings::default();
        let now = Instant::now();
        let mut reconnect = Reconnect::new(&settings, now);
        reconnect.started(now);
        for _ in 0..20 {
            reconnect.failed(now, MIDDLE);
        }
        assert_eq!(reconnect.next(true) - now, settings.attempt_interval);
    }

    #[test]
    fn a_lost_connection_is_replaced_at_once_and_a_flapping_one_is_not() {
        let settings = Settings::default();
        let now = Instant::now();
        let mut reconnect = Reconnect::new(&settings, now);
        let second = Duration::from_secs(1);
        let now = now + second;
        reconnect.lost(now, second, MIDDLE);
        assert_eq!(reconnect.next(false), now);
        reconnect.lost(now, second, MIDDLE);
        assert!(reconnect.next(false) > now);
        reconnect.proven();
        reconnect.lost(now, second, MIDDLE);
        assert_eq!(reconnect.next(false), now);
    }

    #[test]
    fn calls_get_a_few_attempts_sooner_after_a_good_connection_was_lost() {
        let settings = Settings::default();
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(&settings, now);
        reconnect.started(now);
        reconnect.proven();
        now += Duration::from_secs(1);
        reconnect.lost(now, Duration::from_secs(1), MIDDLE);
        assert!(reconnect.next(true) <= now);
        let mut sixteenths = Vec::new();
        for _ in 0..7 {
            reconnect.started(now);
            reconnect.failed(now, MIDDLE);
            let next = reconnect.next(true);
            let share = (next - now).div_duration_f64(settings.attempt_interval);
            sixteenths.push((16.0 * share).round() as u32);
            now = next;
        }
        assert_eq!(sixteenths, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_peer_that_answers_and_closes_is_not_asked_sooner() {
        let settings = Settings::default();
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(&settings, now);
        for _ in 0..3 {
            reconnect.started(now);
            reconnect.proven();
            reconnect.lost(now, Duration::ZERO, MIDDLE);
            for demanded in [false, true] {
                assert_eq!(reconnect.next(demanded) - now, settings.attempt_interval);
            }
            now = reconnect.next(true);
        }
    }

    /// The distances of attempts, in milliseconds, of which each makes a connection that ends at
    /// once while calls wait.
    fn distances_of_closed(reconnect: &mut Reconnect) -> Vec<u128> {
        let mut now = Instant::now();
        let mut distances = Vec::new();
        for _ in 0..8 {
            reconnect.started(now);
            reconnect.lost(now, Duration::ZERO, MIDDLE);
            let next = reconnect.next(true);
            assert!(next <= reconnect.next(false));
            distances.push((next - now).as_millis());
            now = next;
        }
        distances
    }

    #[test]
    fn calls_ask_a_peer_that_closes_again_and_again_ever_more_seldom() {
        let settings = Settings::default();
        let mut reconnect = Reconnect::new(&settings, Instant::now());
        let growing = [50, 100, 160, 256, 409, 655, 1000, 1000];
        assert_eq!(distances_of_closed(&mut reconnect), growing);
        // Good connections between bad ones: one has answered, and the other one has lasted.
        reconnect.proven();
        assert_eq!(distances_of_closed(&mut reconnect), growing);
        let now = Instant::now();
        reconnect.started(now);
        let lasted = settings.backoff_max + Duration::from_millis(1);
        reconnect.lost(now + lasted, lasted, MIDDLE);
        assert!(reconnect.next(true) < now + lasted);
        // An attempt that is refused does not make the peer a good one.
        reconnect.started(now);
        reconnect.failed(now, MIDDLE);
        assert_eq!(distances_of_closed(&mut reconnect)[0], 160);
    }

    #[test]
    fn calls_wait_between_the_least_distance_and_the_longest_pause() {
        for (interval, max, distances) in [
            (0, 5_000, [0, 100, 160, 256, 409, 655, 1000, 1000]),
            (0, 150, [0, 100, 150, 150, 150, 150, 150, 150]),
            (3_000, 5_000, [3_000; 8]),
        ] {
            let settings = Settings {
                attempt_interval: Duration::from_millis(interval),
                backoff_max: Duration::from_millis(max),
                ..Settings::default()
            };
            let mut reconnect = Reconnect::new(&settings, Instant::now());
            assert_eq!(distances_of_closed(&mut reconnect), distances);
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0), Duration::from_millis(800));
        assert!(jittered(second, u64::MAX) <= Duration::from_millis(1200));
        assert!(jittered(second, u64::MAX) > Duration::from_millis(1199));
    }
}
