//! When a connection whose peer does not answer is dead.
//!
//! What a peer sends by itself shows that its messages come, and not that it gets ours: one
//! direction of a connection can be lost alone. Only a reply or the answer to a ping shows both.
//!
//! A peer is pinged while it owes something. What was written is owed, an answer to it or the proof
//! that it came, until the peer has answered what was asked later or a ping that was sent later: a
//! reply to an older request, such as one of a stream of them, was perhaps under way when the
//! direction to the peer was lost. It is owed also where nobody waits for an answer, or nobody does
//! any more. A peer of another library is pinged ever more seldom while it answers pings
//! and sends nothing else: Go's servers close connections that are pinged more than twice between
//! two of their own messages at less than five minutes' distance.

use std::time::Duration;

use tokio::time::Instant;

/// The factor by which the distance of pings grows after the first answer, before it is [`QUIET`].
const SLOWER: u32 = 6;

/// Above what a Go server allows on any connection. It ends one with the third ping that comes
/// sooner after the one before, and does not count the first: so there are two shorter distances.
const QUIET: Duration = Duration::from_secs(330);

/// A peer is dead once it has owed something and proved nothing for the interval and the timeout,
/// and neither sooner nor later: each is counted from a moment at which something happened, and not
/// from one at which a timer fired. A ping that is not answered within the timeout is the end,
/// whatever else comes.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    base: Duration,
    interval: Duration,
    timeout: Duration,
    /// The distance of pings does not grow.
    is_steady: bool,
    /// The peer has all that was written until then, or owed nothing before.
    proven: Instant,
    /// When the last of what was written was asked for.
    asked: Option<Instant>,
    /// It owes something, or did when somebody still waited for it, and has not proved since that it
    /// came.
    owes: bool,
    /// When it was pinged, until it answers that.
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
    /// For a peer that may be a Go server.
    pub(crate) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            base: interval,
            interval,
            timeout,
            is_steady: false,
            proven: now,
            asked: None,
            owes: false,
            pinged: None,
        }
    }

    /// For a peer that does not object to pings: at the same distance for ever.
    pub(crate) fn steady(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            is_steady: true,
            ..Self::new(interval, timeout, now)
        }
    }

    /// The peer turns out not to object to pings. True where the timer is set to a later time than
    /// [`due`](Self::due).
    #[must_use]
    pub(crate) fn become_steady(&mut self) -> bool {
        self.is_steady = true;
        self.heard()
    }

    /// Something became owed, and no timer is set. The time of the first look.
    pub(crate) fn first(&mut self, now: Instant) -> Instant {
        self.proven = now;
        self.due()
    }

    /// Something is owed.
    #[inline]
    pub(crate) fn owe(&mut self) {
        self.owes = true;
    }

    /// Something that was asked for at this time was written. It is owed.
    #[inline]
    pub(crate) fn asked(&mut self, at: Instant) {
        self.asked = self.asked.max(Some(at));
        self.owes = true;
    }

    /// Whether anything is.
    #[inline]
    pub(crate) fn owes(&self) -> bool {
        self.owes
    }

    /// The time of the next look. The timer has to be set to it where something came that says so.
    pub(crate) fn due(&self) -> Instant {
        match self.pinged {
            Some(pinged) => pinged + self.timeout,
            None => self.proven + self.interval,
        }
    }

    /// Something came that the peer may have sent by itself. True where the timer is set to a later
    /// time than [`due`](Self::due).
    #[must_use]
    pub(crate) fn heard(&mut self) -> bool {
        std::mem::replace(&mut self.interval, self.base) > self.base && self.pinged.is_none()
    }

    /// The answer came to what was asked at this time.
    #[inline]
    pub(crate) fn heard_answer(&mut self, asked: Instant) {
        self.proven = self.proven.max(asked);
        self.owes &= Some(asked) < self.asked;
    }

    /// The answer came to a ping that was sent at this time. True where the timer is set to another
    /// time than [`due`](Self::due).
    #[must_use]
    pub(crate) fn heard_pong(&mut self, sent: Instant) -> bool {
        self.heard_answer(sent);
        let longest = QUIET.max(self.base);
        if !self.is_steady {
            self.interval = if self.interval > self.base {
                longest
            } else {
                (self.base * SLOWER).min(longest)
            };
        }
        self.pinged.take().is_some()
    }

    /// The timer fired.
    pub(crate) fn fired(&mut self, now: Instant) -> Action {
        let is_due = self.due() <= now;
        if self.pinged.is_some() && is_due {
            return Action::Dead;
        }
        if self.pinged.is_none() && !self.owes {
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
    const SECOND: Duration = Duration::from_secs(1);

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
                self.keep_alive.owe();
                match self.keep_alive.fired(self.at) {
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
            if self.keep_alive.heard() {
                self.at = self.keep_alive.due();
            }
        }

        fn reply(&mut self, seconds: f64) {
            self.message(seconds);
            self.keep_alive.heard_answer(self.at(seconds));
        }

        fn pong(&mut self, seconds: f64) {
            self.run_until(seconds);
            let sent = self.pings.last().expect("it was pinged");
            if self.keep_alive.heard_pong(self.at(*sent)) {
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
    fn a_peer_is_dead_interval_and_timeout_after_its_last_answer_whenever_that_came() {
        for make in [KeepAlive::new, KeepAlive::steady] {
            for last in [0.5, 5.0, 9.9] {
                let mut timer = Timer::start(make);
                timer.reply(last);
                timer.run_until(100.0);
                assert_eq!(timer.dead, Some(last + 30.0));
            }
            // One that has answered nothing but pings for a while.
            let mut timer = Timer::start(make);
            for _ in 0..3 {
                let answered = (timer.at - timer.begin).as_secs_f64();
                timer.pong(answered + 0.5);
            }
            let last = (timer.at - timer.begin).as_secs_f64() - 5.5;
            timer.reply(last);
            timer.run_until(last + 100.0);
            assert_eq!(timer.dead, Some(last + 30.0));
        }
    }

    #[test]
    fn a_ping_that_is_not_answered_is_the_end_whatever_else_comes() {
        for make in [KeepAlive::new, KeepAlive::steady] {
            let mut timer = Timer::start(make);
            for half_seconds in 1..100 {
                timer.message(f64::from(half_seconds) / 2.0);
            }
            assert_eq!((timer.pings, timer.dead), (vec![10.0], Some(30.0)));
            // A reply that was under way when the direction to the peer was lost.
            let mut timer = Timer::start(make);
            timer.reply(10.5);
            timer.reply(29.5);
            timer.run_until(100.0);
            assert_eq!((timer.pings, timer.dead), (vec![10.0], Some(30.0)));
        }
    }

    #[test]
    fn what_is_owed_stays_owed_when_nobody_waits_for_it_any_more() {
        let begin = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT, begin);
        // Calls that give up after a second, one every eight seconds.
        let mut at = keep_alive.first(begin);
        keep_alive.owe();
        assert_eq!(at, begin + INTERVAL);
        let Action::Ping(next) = keep_alive.fired(at) else {
            panic!("nothing has been heard of it");
        };
        at = next;
        assert_eq!(keep_alive.fired(at), Action::Dead);
        assert_eq!(at, begin + INTERVAL + TIMEOUT);
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
        let mut timer = Timer::start(KeepAlive::new);
        assert!(!timer.keep_alive.become_steady());
        assert_eq!(distances(&mut timer), [10.0; 5]);
        // What it has grown to is undone.
        let mut timer = Timer::start(KeepAlive::new);
        distances(&mut timer);
        assert!(timer.keep_alive.become_steady());
        assert_eq!(timer.keep_alive.due(), timer.keep_alive.proven + INTERVAL);
    }

    #[test]
    fn a_go_server_is_never_pinged_too_often() {
        for millis in [1, 100, 1_000, 5_000, 10_000, 60_000, 400_000] {
            let (mut now, begin) = (Instant::now(), Instant::now());
            let mut keep_alive = KeepAlive::new(Duration::from_millis(millis), TIMEOUT, begin);
            let mut at = keep_alive.first(now);
            let (mut last, mut strikes) = (None, 0);
            for _ in 0..20 {
                now = at;
                keep_alive.asked(now);
                at = match keep_alive.fired(now) {
                    Action::Wait(at) => at,
                    Action::Ping(at) => {
                        let distance = last.map(|last| now - last);
                        strikes += usize::from(distance.is_some_and(|d| d < 300 * SECOND));
                        last = Some(now);
                        if keep_alive.heard_pong(now) {
                            keep_alive.due()
                        } else {
                            at
                        }
                    }
                    action => panic!("{action:?}"),
                };
            }
            assert!(last.is_some() && strikes <= 2, "{millis} ms: {strikes}");
        }
    }

    #[test]
    fn an_answer_proves_nothing_of_what_was_asked_since() {
        let begin = Instant::now();
        let second = |seconds| begin + Duration::from_secs(seconds);
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT, begin);
        let first = keep_alive.first(begin);
        keep_alive.asked(second(1));
        keep_alive.asked(second(3));
        // As it comes on and on to one call where replies are streamed.
        for _ in 0..3 {
            keep_alive.heard_answer(second(1));
        }
        assert_eq!(keep_alive.fired(first), Action::Wait(second(11)));
        assert_eq!(keep_alive.fired(second(11)), Action::Ping(second(31)));
        keep_alive.heard_answer(second(1));
        assert_eq!(keep_alive.fired(second(31)), Action::Dead);
        // One to the last of it proves all.
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT, begin);
        keep_alive.asked(second(1));
        keep_alive.asked(second(3));
        keep_alive.heard_answer(second(3));
        assert!(!keep_alive.owes());
        // A ping proves what was written before it was sent.
        keep_alive.asked(second(20));
        assert_eq!(keep_alive.fired(second(21)), Action::Ping(second(41)));
        keep_alive.asked(second(22));
        assert!(keep_alive.heard_pong(second(21)));
        assert!(keep_alive.owes());
        assert_eq!(keep_alive.due(), second(21) + 6 * INTERVAL);
    }

    #[test]
    fn nothing_is_sent_while_nothing_is_owed() {
        let now = Instant::now();
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT, now);
        let first = keep_alive.first(now);
        keep_alive.owe();
        keep_alive.heard_answer(now + INTERVAL / 2);
        assert_eq!(keep_alive.fired(first), Action::Idle);
        // The time begins anew with the next call.
        let later = now + 100 * INTERVAL;
        assert_eq!(keep_alive.first(later), later + INTERVAL);
    }
}
