use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::runtime::{BoxFuture, Clock};

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The next look at whether the peer lives.
    KeepAlive,
    /// The connection has been without a stream for as long as it may be.
    NoStream,
    /// The peer has sent nothing on its stream for as long as it may.
    NoMessage,
    /// The next look at whether the peer goes on with a message.
    SlowSender,
    /// The next look at whether the peer takes what is written.
    SlowReader,
    /// The peer was asked to write no more requests, and has not said that none follows.
    NoneFollow,
    /// The last handle is gone, and what is queued has had its time to be written.
    Linger,
    /// The connection has lasted as long as one may.
    Age,
    /// It winds down by itself, and what is left of it has had its time to finish.
    Overdue,
}

const ALL: [Timer; 9] = [
    Timer::KeepAlive,
    Timer::NoStream,
    Timer::NoMessage,
    Timer::SlowSender,
    Timer::SlowReader,
    Timer::NoneFollow,
    Timer::Linger,
    Timer::Age,
    Timer::Overdue,
];

/// The timers of one connection. They share one sleep of the clock, which ends at the earliest: a
/// timer that is put off costs nothing until then.
#[derive(Default)]
pub(crate) struct Timers {
    due: [Option<Instant>; ALL.len()],
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Timers {
    /// Sets a timer, or sets it to another time.
    #[inline]
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.due[timer as usize] = Some(at);
    }

    #[inline]
    pub(crate) fn clear(&mut self, timer: Timer) {
        self.due[timer as usize] = None;
    }

    #[inline]
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.due[timer as usize].is_some()
    }

    /// When the next timer is due.
    #[inline]
    fn next(&self) -> Option<Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// Ready with a timer that is due, which is cleared; otherwise the task is woken when the next
    /// one is.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, clock: &dyn Clock) -> Poll<Timer> {
        loop {
            let Some(next) = self.next() else {
                return Poll::Pending;
            };
            let sleep = match &mut self.sleep {
                Some((at, sleep)) if *at <= next => sleep,
                sleep => {
                    let (_, sleep) = sleep.insert((next, clock.sleep_until(next)));
                    sleep
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let (at, _) = self.sleep.take().expect("it was polled");
            if let Some(timer) = ALL
                .into_iter()
                .find(|timer| self.due[*timer as usize].is_some_and(|due| due <= at))
            {
                self.clear(timer);
                return Poll::Ready(timer);
            }
        }
    }
}
