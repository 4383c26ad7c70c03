//! How a streamed reply is held back by its caller.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::context::ServerCtx;
use crate::sync::{Mutex, Notify};
use crate::wire::{FIRST_CREDIT, NO_BOUND};

/// What the caller of one request still takes of its replies.
///
/// A reply is sent where any credit is left, and takes all that it costs: so one reply is always
/// sent whole, and the next ones wait until the caller has given back more than it took.
pub(crate) struct Credit {
    balance: Mutex<Balance>,
    given: Notify,
}

struct Balance {
    /// In bytes; below 0 after a reply that cost more than there was.
    left: i64,
    /// A reply has found nothing left, and nothing was given since.
    is_missed: bool,
}

/// No credit was left for a reply.
#[derive(Debug)]
pub(crate) struct UsedUp {
    /// No other reply has found this before, since credit was given last.
    pub(crate) is_news: bool,
}

impl Credit {
    /// What a call begins with before its caller has said anything.
    pub(crate) fn new() -> Self {
        Self {
            balance: Mutex::new(Balance {
                left: FIRST_CREDIT as i64,
                is_missed: false,
            }),
            given: Notify::new(),
        }
    }

    /// The caller takes so much more. A peer may say any number.
    pub(crate) fn give(&self, bytes: u64) {
        let bytes = bytes.min(NO_BOUND) as i64;
        {
            let mut balance = self.balance.lock();
            balance.left = balance.left.saturating_add(bytes);
            balance.is_missed = false;
        }
        self.given.notify_waiters();
    }

    /// Whoever waits looks again whether anybody will read its reply.
    pub(crate) fn wake(&self) {
        self.given.notify_waiters();
    }

    /// Takes what a reply costs, if there is any credit left.
    pub(crate) fn try_take(&self, cost: u64) -> Result<Taken<'_>, UsedUp> {
        let mut balance = self.balance.lock();
        if balance.left <= 0 {
            let is_news = !std::mem::replace(&mut balance.is_missed, true);
            return Err(UsedUp { is_news });
        }
        let cost = cost.min(NO_BOUND) as i64;
        balance.left = balance.left.saturating_sub(cost);
        Ok(Taken {
            credit: self,
            cost,
            is_spent: false,
        })
    }

    /// The same for a handler. Where there is none, it may be behind requests for which reading has
    /// paused, and whoever reads has to know that it is missed.
    pub(crate) fn ask(&self, cost: u64, ctx: &ServerCtx) -> Option<Taken<'_>> {
        match self.try_take(cost) {
            Ok(taken) => Some(taken),
            Err(used_up) => {
                if let (true, Some(replies)) = (used_up.is_news, ctx.replies()) {
                    replies.wake_io();
                }
                None
            }
        }
    }

    /// Whether no reply may be sent before the caller gives more.
    pub(crate) fn is_used_up(&self) -> bool {
        self.balance.lock().left <= 0
    }

    /// Whether there is a reply that may not be sent before the caller gives more.
    pub(crate) fn is_missed(&self) -> bool {
        let balance = self.balance.lock();
        balance.left <= 0 && balance.is_missed
    }

    /// Waits for credit, unless `is_over`. The turn is given up where there is none now: the caller
    /// may be slow, and its other calls must not wait for that.
    pub(crate) async fn take(
        &self,
        cost: u64,
        ctx: &ServerCtx,
        is_over: impl Fn() -> bool,
    ) -> Option<Taken<'_>> {
        let mut cancelled = pin!(ctx.cancelled());
        loop {
            let mut given = pin!(self.given.notified());
            // Listening begins before looking, so that no change falls between.
            given.as_mut().enable();
            if is_over() {
                return None;
            }
            if let Some(taken) = self.ask(cost, ctx) {
                return Some(taken);
            }
            drop(ctx.release());
            poll_fn(|cx| {
                if cancelled.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                given.as_mut().poll(cx)
            })
            .await;
        }
    }
}

/// Credit that was taken for a reply. It goes back where the reply is not sent after all.
pub(crate) struct Taken<'a> {
    credit: &'a Credit,
    cost: i64,
    is_spent: bool,
}

impl Taken<'_> {
    /// The reply was queued.
    pub(crate) fn spend(mut self) {
        self.is_spent = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.is_spent {
            self.credit.give(self.cost.unsigned_abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::handler::ConnectionInfo;
    use crate::metadata::Metadata;

    fn ctx() -> ServerCtx {
        let info = Arc::new(ConnectionInfo::default());
        ServerCtx::new("m".into(), Metadata::new(), info, None)
    }

    #[test]
    fn a_reply_goes_while_any_credit_is_left_and_takes_all_that_it_costs() {
        let credit = Credit::new();
        let taken = credit.try_take(1_000).expect("the first");
        taken.spend();
        assert!(!credit.is_missed(), "nobody has asked for it");
        assert!(credit.try_take(1).err().expect("used up").is_news);
        assert!(!credit.try_take(1).err().expect("used up").is_news);
        assert!(credit.is_missed());
        credit.give(998);
        assert!(!credit.is_missed());
        let used_up = credit.try_take(1).err().expect("nothing is left yet");
        assert!(used_up.is_news && credit.is_missed());
        credit.give(2);
        assert!(credit.try_take(1).is_ok() && !credit.is_missed());
        // It was not sent, so it costs nothing.
        credit.try_take(1).expect("given back").spend();
        assert!(credit.try_take(1).is_err());
    }

    #[test]
    fn any_number_that_a_peer_says_is_borne() {
        let credit = Credit::new();
        for bytes in [u64::MAX, u64::MAX, 0, NO_BOUND] {
            credit.give(bytes);
        }
        for _ in 0..10 {
            credit
                .try_take(1 << 40)
                .expect("there is no end of it")
                .spend();
        }
        credit.give(u64::MAX);
        credit.give(u64::MAX);
        assert!(credit.try_take(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_credit_has_given_up_the_turn_and_goes_on_when_there_is_some() {
        let (credit, ctx) = (Credit::new(), ctx());
        credit.try_take(100).expect("the first").spend();
        let mut waiting = pin!(credit.take(1, &ctx, || false));
        let waited = tokio::time::timeout(Duration::from_secs(1), waiting.as_mut()).await;
        assert!(waited.is_err() && ctx.turn().is_released());
        credit.give(100);
        assert!(waiting.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_credit_is_told_when_nobody_reads_any_more() {
        let (credit, ctx) = (Credit::new(), ctx());
        credit.try_take(100).expect("the first").spend();
        let mut waiting = pin!(credit.take(1, &ctx, || ctx.is_cancelled()));
        let waited = tokio::time::timeout(Duration::from_secs(1), waiting.as_mut()).await;
        assert!(waited.is_err());
        ctx.cancel();
        assert!(waiting.await.is_none());
    }
}
