//! When a connection that says nothing is dead.
//!
//! Pings are sent only while something is owed by the peer, and ever more seldom while it answers
//! pings and nothing else: Go's servers close connections that are pinged more than twice between
//! two of their own messages at less than five minutes' distance.

use std::time::Duration;

/// The factor by which the distance of pings grows, up to [`QUIET`].
const SLOWER: u32 = 6;

/// Above what a Go server allows on any connection.
const QUIET: Duration = Duration::from_secs(330);

#[derive(Debug)]
pub(crate) struct KeepAlive {
    base: Duration,
    interval: Duration,
    timeout: Duration,
    /// The factor by which the distance of pings grows.
    slower: u32,
    heard: bool,
    waiting_for_pong: bool,
}

/// What to do when the timer fires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask again after this long.
    Wait(Duration),
    /// Send a ping, and ask again after this long.
    Ping(Duration),
    /// Nothing is owed: no timer is needed until something is.
    Idle,
    /// The peer is gone.
    Dead,
}

impl KeepAlive {
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            base: interval,
            interval,
            timeout,
            slower: SLOWER,
            heard: true,
            waiting_for_pong: false,
        }
    }

    /// For a server, whose pings no client objects to: at the same distance for ever.
    pub(crate) fn steady(interval: Duration, timeout: Duration) -> Self {
        Self {
            slower: 1,
            ..Self::new(interval, timeout)
        }
    }

    /// How long to wait for the first look after something became owed.
    pub(crate) fn first(&mut self) -> Duration {
        self.heard = true;
        self.interval
    }

    /// A message came.
    pub(crate) fn heard_message(&mut self) {
        self.heard = true;
        self.interval = self.base;
    }

    /// A pong came, or a ping could not be sent because one is on its way.
    pub(crate) fn heard_pong(&mut self) {
        self.heard = true;
        self.waiting_for_pong = false;
        self.interval = (self.interval * self.slower).min(QUIET.max(self.base));
    }

    /// The timer fired.
    pub(crate) fn fired(&mut self, owed: bool) -> Action {
        let heard = std::mem::replace(&mut self.heard, false);
        if heard {
            self.waiting_for_pong = false;
        }
        if self.waiting_for_pong {
            return Action::Dead;
        }
        if !owed {
            return Action::Idle;
        }
        if heard {
            return Action::Wait(self.interval);
        }
        self.waiting_for_pong = true;
        Action::Ping(self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn a_silent_peer_is_pinged_once_and_then_dead() {
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT);
        assert_eq!(keep_alive.first(), INTERVAL);
        assert_eq!(keep_alive.fired(true), Action::Wait(INTERVAL));
        assert_eq!(keep_alive.fired(true), Action::Ping(TIMEOUT));
        assert_eq!(keep_alive.fired(true), Action::Dead);
    }

    #[test]
    fn a_peer_that_only_answers_pings_is_asked_ever_more_seldom() {
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT);
        keep_alive.first();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let Action::Wait(wait) = keep_alive.fired(true) else {
                panic!("something was heard");
            };
            waits.push(wait.as_secs());
            assert_eq!(keep_alive.fired(true), Action::Ping(TIMEOUT));
            keep_alive.heard_pong();
        }
        assert_eq!(waits, [10, 60, 330, 330, 330]);
        keep_alive.heard_message();
        assert_eq!(keep_alive.fired(true), Action::Wait(INTERVAL));
    }

    #[test]
    fn nothing_is_sent_while_nothing_is_owed() {
        let mut keep_alive = KeepAlive::new(INTERVAL, TIMEOUT);
        keep_alive.first();
        assert_eq!(keep_alive.fired(false), Action::Idle);
    }
}
