//! What a connection has beside its stream, the same at both ends: whether the peer lives, and when
//! to look.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::PingPong;
use tokio::time::Instant;

use super::keep_alive::{Action, KeepAlive};
use super::pings::Pings;
use super::poll_flag::PollFlag;
use super::timers::{Timer, Timers};
use crate::runtime::Clock;

pub(crate) struct Link {
    pub(crate) flag: PollFlag,
    pub(crate) pings: Pings,
    pub(crate) timers: Timers,
    keep_alive: KeepAlive,
    /// When the last ping was sent.
    pinged: Option<Instant>,
    clock: Arc<dyn Clock>,
}

/// What happened to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    /// The peer did not answer a keep-alive ping.
    Dead,
    /// Another timer is due.
    Timer(Timer),
}

impl Fired {
    /// Why a connection ends whose peer is [`Dead`](Self::Dead).
    pub(crate) const DEAD: &'static str = "the peer did not answer a keep-alive ping";
}

impl Link {
    pub(crate) fn new(
        ping_pong: Option<PingPong>,
        keep_alive: KeepAlive,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            flag: PollFlag::default(),
            pings: Pings::new(ping_pong),
            timers: Timers::default(),
            keep_alive,
            pinged: None,
            clock,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Looks after the peer by other rules from now on.
    pub(crate) fn set_keep_alive(&mut self, keep_alive: KeepAlive) {
        self.keep_alive = keep_alive;
        self.timers.set(Timer::KeepAlive, self.keep_alive.due());
    }

    /// The peer does not object to pings.
    pub(crate) fn ping_steadily(&mut self) {
        if self.keep_alive.become_steady() && self.timers.is_set(Timer::KeepAlive) {
            self.timers.set(Timer::KeepAlive, self.keep_alive.due());
        }
    }

    /// Something that was asked for at this time was written.
    #[inline]
    pub(crate) fn asked(&mut self, at: Instant) {
        // The answer to a ping that was sent before proves nothing of it, however long it has waited.
        let behind = self.pinged.map(|pinged| pinged + Duration::from_nanos(1));
        self.keep_alive
            .asked(behind.map_or(at, |behind| at.max(behind)));
    }

    /// The peer has sent something, and the answer to what was asked at this time.
    #[inline]
    pub(crate) fn heard(&mut self, asked: Option<Instant>) {
        self.pings.heard_message();
        if let Some(asked) = asked {
            self.keep_alive.heard_answer(asked);
        }
        if self.keep_alive.heard() && self.timers.is_set(Timer::KeepAlive) {
            self.timers.set(Timer::KeepAlive, self.keep_alive.due());
        }
    }

    /// Listens for pongs.
    #[inline]
    pub(crate) fn poll_pong(&mut self) {
        if self.pings.poll_pong()
            && let Some(sent) = self.pinged.take()
            && self.keep_alive.heard_pong(sent)
            && self.timers.is_set(Timer::KeepAlive)
        {
            self.timers.set(Timer::KeepAlive, self.keep_alive.due());
        }
    }

    /// Asks the peer whether it has what was written, for those who flush.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>, may_ask: bool) {
        self.pings.flush(cx, &self.flag, may_ask);
        self.note_ping();
    }

    /// Notes when a ping was sent, if one was.
    #[inline]
    fn note_ping(&mut self) {
        if self.pinged.is_none() && self.pings.is_on_its_way() {
            self.pinged = Some(self.clock.now());
        }
    }

    /// Ready when the peer is dead or another timer is due. Pings the peer while it owes something.
    #[inline]
    pub(crate) fn poll_timers(&mut self, cx: &mut Context<'_>, owed: bool) -> Poll<Fired> {
        if owed {
            self.keep_alive.owe();
        }
        if self.keep_alive.owes() && !self.timers.is_set(Timer::KeepAlive) {
            let first = self.keep_alive.first(self.clock.now());
            self.timers.set(Timer::KeepAlive, first);
        }
        loop {
            let timer = std::task::ready!(self.timers.poll(cx, &*self.clock));
            if timer != Timer::KeepAlive {
                return Poll::Ready(Fired::Timer(timer));
            }
            match self.keep_alive.fired(self.clock.now()) {
                Action::Wait(at) => self.timers.set(Timer::KeepAlive, at),
                Action::Ping(at) => {
                    self.pings.send(cx, &self.flag);
                    self.note_ping();
                    self.timers.set(Timer::KeepAlive, at);
                }
                Action::Idle => {}
                Action::Dead => return Poll::Ready(Fired::Dead),
            }
        }
    }
}
