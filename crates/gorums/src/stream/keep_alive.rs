//! When a connection that says nothing is dead.
//!
//! Pings are sent only while something is owed by the peer, and ever more seldom while it answers
//! pings and nothing else: Go's servers close connections that are pinged more than twice between
//! two of their own messages at less than five minutes' distance.

use std::time::Duration;

use tokio::time::Instant;

/// The factor by which the distance of pings grows, up to [`QUIET`].
const SLOWER: u32 = 6;

/// Above what a Go server allows on any connection.
const QUIET: Duration = Duration::from_secs(330);

/// After the last message a peer is dead once the interval and the timeout have passed, and neither
/// sooner nor later: each is counted from the moment at which the peer was heard, and not from one
/// at which a timer fired.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    base: Duration,
    interval: Duration,
    timeout: Duration,
    /// The factor by which the distance of pings grows.
    slower: u32,
    /// When the peer was last heard, or began to owe something.
    heard: Instant,
    /// When it was pinged, until it is heard.
    pinged: Option<Instant>,
}

/// What to do when the timer fires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask again at this time.
    Wait(Instant),
    /// Send a ping, and ask again at this time.
    Ping(Instant),
    /// Nothing is owed: no timer is needed until something is.
    Idle,
    /// The peer is gone.
    Dead,
}

impl KeepAlive {
    pub(crate) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            base: interval,
            interval,
            timeout,
            slower: SLOWER,
            heard: now,
            pinged: None,
        }
    }

    /// For a server, whose pings no client objects to: at the same distance for ever.
    pub(crate) fn steady(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            slower: 1,
            ..Self::new(interval, timeout, now)
        }
    }

    /// Something became owed. The time of the first look.
    pub(crate) fn first(&mut self, now: Instant) -> Instant {
        self.heard = now;
        self.due()
    }

    /// The time of the next look. The timer has to be set to it where something was heard that says
    /// so.
    pub(crate) fn due(&self) -> Instant {
        match self.pinged {
            Some(pinged) => pinged + self.timeout,
            None => self.heard + self.interval,
        }
    }

    /// A message came. True where the timer is set to another time than [`due`](Self::due), and
    /// perhaps to a later one.
    #[must_use]
    pub(crate) fn heard_message(&mut self, now: Instant) -> bool {
        self.heard = now;
        let was_slower = self.interval > self.base;
        self.interval = self.base;
        self.pinged.take().is_some() || was_slower
    }

    /// A pong came. True as for a message.
    #[must_use]
    pub(crate) fn heard_pong(&mut self, now: Instant) -> bool {
        self.heard = now;
        self.interval = (self.interval * self.slower).min(QUIET.max(self.base));
        self.pinged.take().is_some()
    }

    /// The timer fired.
    pub(crate) fn fired(&mut self, now: Instant, owed: bool) -> Action {
        let is_due = self.due() <= now;
        if self.pinged.is_some() && is_due {
            return Action::Dead;
        }
        if self.pinged.is_none() && !owed {
            return Action::Idle;
        }
        if !is_due {
            return Action::Wait(self.due());
        }
        self.pinged = Some(now);
        Action::Ping(self.due())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A connection's timer, whose time passes as it is told to.
    struct Timer {
        keep_alive: KeepAlive,
        begin: Instant,
        at: Instant,
        /// When pings were sent, in seconds from the beginning.
        pings: Vec<f64>,
        /// The same for the end.
        dead: Option<f64>,
    }

    impl Timer {
        fn start(make: fn(Duration, Duration, Instant) -> KeepAlive) -> Self {
            let begin = Instant::now();
            let mut keep_alive = make(INTERVAL, TIMEOUT, begin);
            Self {
                at: keep_alive.first(begin),
                keep_alive,
                begin,
                pings: Vec::new(),
                dead: None,
            }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.begin + Duration::from_secs_f64(seconds)
        }

        /// The timer fires as often as it is due until then.
        fn run_until(&mut self, seconds: f64) {
            let until = self.at(seconds);
            while self.at <= until && self.dead.is_none() {
                let now = (self.at - self.begin).as_secs_f64();
                match self.keep_alive.fired(self.at, true) {
                    Action::Wait(at) => {
                        assert!(at > self.at, "it would fire for ever");
                        self.at = at;
                    }
                    Action::Ping(at) => {
                        self.pings.push(now);
                        self.at = at;
                    }
                    Action::Dead => self.dead = Some(now),
                    Action::Idle => panic!("something is owed"),
                }
            }
        }

        fn message(&mut self, seconds: f64) {
            self.run_until(seconds);
            if self.keep_alive.heard_message(self.at(seconds)) {
                self.at = self.keep_alive.due();
            }
        }

        fn pong(&mut self, seconds: f64) {
            self.run_until(seconds);
            if self.keep_alive.heard_pong(self.at(seconds)) {
                self.at = self.keep_alive.due();
            }
        }
    }

    #[test]
    fn a_silent_peer_is_pinged_once_and_then_dead() {
        let mut timer = Timer::start(KeepAlive::new);
        timer.run_until(100.0);
        assert_eq!((timer.pings, timer.dead), (vec![10.0], Some(30.0)));
    }

    #[test]
    fn a_peer_is_dead_interval_and_timeout_after_its_last_message_whenever_that_came() {
        for make in [KeepAlive::new, KeepAlive::steady] {
            // Within the first interval, at its end, while a ping is on its way, and long after.
            for last in [0.5, 9.5, 10.0, 10.5, 20.5, 29.5] {
                let mut timer = Timer::start(make);
                timer.message(last);
                timer.run_until(100.0);
                assert_eq!(timer.pings.last(), Some(&(last + 10.0)));
                assert_eq!(timer.dead, Some(last + 30.0));
            }
            // One that has answered nothing but pings for a while.
            let mut timer = Timer::start(make);
            for _ in 0..3 {
                let answered = (timer.at - timer.begin).as_secs_f64();
                timer.pong(answered + 0.5);
            }
            let last = (timer.at - timer.begin).as_secs_f64() - 5.5;
            timer.message(last);
            timer.run_until(last + 100.0);
            assert_eq!(timer.dead, Some(last + 30.0));
        }
    }

    #[test]
    fn a_peer_that_only_answers_pings_is_asked_ever_more_seldom() {
        let distances = |timer: &mut Timer| {
            let mut distances = Vec::new();
            let mut last = 0.0;
            for _ in 0..5 {
                let ping = (timer.at - timer.begin).as_secs_f64();
                timer.pong(ping);
                distances.push(ping - last);
                last = ping;
            }
            distances
        };
        let mut timer = Timer::start(KeepAlive::new);
        assert_eq!(distances(&mut timer), [10.0, 60.0, 330.0, 330.0, 330.0]);
        // A server's are not.
        let mut timer = Timer::start(KeepAlive::steady);
        assert_eq!(distances(&mut timer), [10.0; 5]);
    }

    #[test]
    fn nothing_is_sent_while_nothing_is_owed() {
        let now = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT, now);
        let first = keep_alive.first(now);
        assert_eq!(keep_alive.fired(first, false), Action::Idle);
        // The time begins anew with the next call.
        let later = now + 100 * INTERVAL;
        assert_eq!(keep_alive.first(later), later + INTERVAL);
    }
}
