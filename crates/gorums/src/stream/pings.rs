//! The pings of a connection: whether the peer lives, and whether it has what was written.

use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use super::poll_flag::{PollFlag, noop_context};
use crate::channel::Ticket;

/// One ping at a time is on its way.
pub(crate) struct Pings {
    ping_pong: Option<PingPong>,
    on_its_way: bool,
    /// Pings since the peer's last message.
    unheard: u32,
    /// Markers that were passed: all before them is written. Done when the peer has it.
    flushing: Vec<Ticket>,
    /// How many of these the ping on its way was sent for.
    asked: usize,
}

impl Pings {
    pub(crate) fn new(ping_pong: Option<PingPong>) -> Self {
        Self {
            ping_pong,
            on_its_way: false,
            unheard: 0,
            flushing: Vec::new(),
            asked: 0,
        }
    }

    /// Pings since the peer's last message.
    pub(crate) fn unheard(&self) -> u32 {
        self.unheard
    }

    /// The peer has sent a message.
    pub(crate) fn heard_message(&mut self) {
        self.unheard = 0;
    }

    /// Whether a ping has no answer yet.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.on_its_way
    }

    /// True when a pong came: the peer has all that was written before its ping.
    pub(crate) fn poll_pong(&mut self) -> bool {
        let Some(ping_pong) = &mut self.ping_pong else {
            return false;
        };
        let Poll::Ready(Ok(_)) = ping_pong.poll_pong(&mut noop_context()) else {
            return false;
        };
        self.on_its_way = false;
        let asked = std::mem::take(&mut self.asked);
        hand_over(self.flushing.drain(..asked));
        true
    }

    /// Asks the peer whether it has what was written, for those who flush. Where it is not to be
    /// asked, they are done.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>, flag: &PollFlag, may_ask: bool) {
        if self.flushing.is_empty() || self.on_its_way {
            return;
        }
        if may_ask && self.send(cx, flag) {
            self.asked = self.flushing.len();
        } else {
            self.end_flush();
        }
    }

    /// Sends a ping, unless one is on its way. False where none could be sent.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, flag: &PollFlag) -> bool {
        if let Some(ping_pong) = &mut self.ping_pong
            && !self.on_its_way
            && ping_pong.send_ping(Ping::opaque()).is_ok()
        {
            self.on_its_way = true;
            self.unheard += 1;
            // The connection writes it when it is polled again.
            flag.set();
            cx.waker().wake_by_ref();
        }
        self.on_its_way
    }

    /// Those who flush.
    pub(crate) fn flushing(&mut self) -> &mut Vec<Ticket> {
        &mut self.flushing
    }

    pub(crate) fn is_flushing(&self) -> bool {
        !self.flushing.is_empty()
    }

    /// All before these markers was written; whether the peer has it cannot be known any more.
    pub(crate) fn end_flush(&mut self) {
        self.asked = 0;
        hand_over(self.flushing.drain(..));
    }
}

fn hand_over(markers: impl Iterator<Item = Ticket>) {
    for marker in markers {
        marker.call.handed_over(marker.part);
    }
}
