//! What a node asks for that is overloaded, and what becomes of calls until it is over.
//!
//! A node that sheds a request says when to come back. Until then no call of that method is sent to
//! it, but for those that are written already: it would shed them, too. It is asked for by the method,
//! since a node sheds what is less important first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Channel;
use crate::bounds::Bound;
use crate::error::{Code, LONGEST_PAUSE, Status};
use crate::log;

impl Channel {
    /// The node has answered a request of this method with an error, and may want a pause.
    pub(super) fn note_pause(&self, method: &str, status: &Status) {
        if status.code() != Code::ResourceExhausted {
            return;
        }
        let Some(delay) = status.retry_delay() else {
            return;
        };
        let clock = &self.pool().clock;
        let pause = jittered(delay.min(LONGEST_PAUSE), clock.random());
        if !self.pauses().note(method, clock.now() + pause) {
            return;
        }
        let admission = self.admit_event();
        log::event!(
            admission.is_told => info or debug,
            target: log::CLIENT,
            node = self.id().get(),
            address = %self.address(),
            method = %log::text(method),
            pause_ms = log::millis(pause),
            left_out = admission.left_out,
            "the node is overloaded, and is not called for a while"
        );
    }

    /// Until when no call of this method is sent to the node.
    #[inline]
    pub(crate) fn paused_until(&self, method: &str) -> Option<Instant> {
        if !self.pauses().any() {
            return None;
        }
        self.pauses().until(method, self.pool().clock.now())
    }

    /// Why a call is not sent that does not wait for the end of a pause.
    #[cold]
    pub(super) fn refuse_paused(&self, method: &str, until: Instant) -> Status {
        self.pool().reached.add(Bound::Pause);
        let left = until.saturating_duration_since(self.pool().clock.now());
        Status::resource_exhausted(format!(
            "the node is overloaded, and has asked for no call of {method} for {} ms more",
            left.as_millis()
        ))
        .with_retry_delay(left)
    }

    /// Has everything in the outbox wait until this time.
    #[cold]
    pub(super) fn hold_until(self: &Arc<Self>, until: Instant) {
        // Where the runtime has ended, nothing is written any more.
        let Some(runtime) = self.pool().runtime() else {
            return;
        };
        if !self.outbox().hold_until(until) {
            return;
        }
        let clock = Arc::clone(&self.pool().clock);
        let channel = Arc::downgrade(self);
        let mut until = Some(until);
        runtime.spawn(async move {
            while let Some(at) = until {
                clock.sleep_until(at).await;
                let Some(channel) = channel.upgrade() else {
                    return;
                };
                until = channel.outbox().end_hold(clock.now());
                if until.is_none() {
                    channel.io().wake();
                }
            }
        });
    }
}

/// Up to half as long again, so that those who were sent away together do not come back together.
fn jittered(delay: Duration, random: u64) -> Duration {
    let half = u64::try_from(delay.as_nanos() / 2).unwrap_or(u64::MAX);
    let more = (u128::from(half) * u128::from(random)) >> 64;
    delay + Duration::from_nanos(u64::try_from(more).unwrap_or(half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Configuration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn up_to_half_of_a_pause_is_added_at_random() {
        for (random, expected) in [(0, 100), (1 << 63, 125), (u64::MAX, 149)] {
            assert_eq!(jittered(100 * MS, random).as_millis(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_no_longer_than_may_be_whatever_the_node_says() {
        let nodes = Configuration::unconnected(1);
        let channel = nodes[0].channel();
        let status = Status::resource_exhausted("busy");
        channel.note_pause("m", &status.clone().with_retry_delay(1_000_000_000 * MS));
        let until = channel.paused_until("m").expect("it is paused");
        assert!(until <= Instant::now() + LONGEST_PAUSE * 3 / 2);
        // Other errors ask for nothing.
        channel.note_pause("other", &status);
        channel.note_pause("other", &Status::unavailable("busy").with_retry_delay(MS));
        assert_eq!(channel.paused_until("other"), None);
    }
}
