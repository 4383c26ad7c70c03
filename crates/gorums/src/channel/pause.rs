//! The pauses that an overloaded node has asked for.
//!
//! A node that sheds a request says when to come back. Until then no call of that method is sent to
//! it, but for those that are written already: what it would shed again is not worth its while. It is
//! asked for by the method, since a node sheds what is less important first.

// Whoever looks too early sends one call more, so this is `std`'s also where every order is explored.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Channel;
use crate::bounds::Bound;
use crate::error::{Code, LONGEST_PAUSE, Status};
use crate::log;
use crate::sync::Mutex;

/// Of how many methods pauses are known at a node.
const METHODS: usize = 64;

/// The longest name of a method that a pause is known of: the node has chosen it.
const LONGEST_NAME: usize = 1024;

/// What becomes of a call at a node that has asked for a pause, since it is overloaded: see
/// [`ServerBuilder::shed`](crate::ServerBuilder::shed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhilePaused {
    /// That node's part of the call fails at once, as [not sent](crate::Outcome::NotSent), with
    /// [`ResourceExhausted`](crate::Code::ResourceExhausted) and how long the pause still is
    /// ([`Status::retry_delay`](crate::Status::retry_delay)). A quorum call goes on with the others.
    #[default]
    Fail,
    /// It waits in the node's outbox until the pause is over, 15 s at the most, within its deadline.
    /// Everything that is called at this node meanwhile waits behind it, whatever the method, since
    /// calls start in the order in which they were made.
    Wait,
}

/// By the method.
#[derive(Default)]
pub(super) struct Pauses {
    /// There are some, or were.
    any: AtomicBool,
    methods: Mutex<Vec<Pause>>,
}

struct Pause {
    method: Box<str>,
    until: Instant,
}

impl Channel {
    /// The node has answered a request of this method with an error, and may want a pause.
    pub(super) fn note_pause(&self, method: &str, status: &Status) {
        if status.code() != Code::ResourceExhausted || method.len() > LONGEST_NAME {
            return;
        }
        let Some(delay) = status.retry_delay() else {
            return;
        };
        let clock = &self.pool().clock;
        let pause = jittered(delay.min(LONGEST_PAUSE), clock.random());
        let until = clock.now() + pause;
        let mut methods = self.pauses().methods.lock();
        let known = methods.iter_mut().find(|known| *known.method == *method);
        if let Some(known) = known {
            known.until = known.until.max(until);
            return;
        }
        if methods.len() == METHODS {
            let first = (0..METHODS).min_by_key(|index| methods[*index].until);
            first.map(|first| methods.swap_remove(first));
        }
        methods.push(Pause {
            method: method.into(),
            until,
        });
        drop(methods);
        self.pauses().any.store(true, Ordering::Relaxed);
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
    pub(super) fn paused_until(&self, method: &str) -> Option<Instant> {
        if self.pauses().any.load(Ordering::Relaxed) {
            self.look_for_pause(method)
        } else {
            None
        }
    }

    #[cold]
    fn look_for_pause(&self, method: &str) -> Option<Instant> {
        let now = self.pool().clock.now();
        let mut methods = self.pauses().methods.lock();
        methods.retain(|pause| pause.until > now);
        if methods.is_empty() {
            // Under the lock: whoever adds one sets it after.
            self.pauses().any.store(false, Ordering::Relaxed);
        }
        let pause = methods.iter().find(|pause| *pause.method == *method)?;
        Some(pause.until)
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

    fn busy(delay: Duration) -> Status {
        Status::resource_exhausted("busy").with_retry_delay(delay)
    }

    #[test]
    fn up_to_half_of_a_pause_is_added_at_random() {
        for (random, expected) in [(0, 100), (1 << 63, 125), (u64::MAX, 149)] {
            assert_eq!(jittered(100 * MS, random).as_millis(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_known_of_so_many_methods_and_those_that_end_first_make_room() {
        let nodes = Configuration::unconnected(1);
        let channel = nodes[0].channel();
        let is_paused = |name: String| channel.paused_until(&name).is_some();
        for number in 0..=METHODS as u32 {
            // The second ends first.
            let delay = if number == 1 { MS } else { 1_000 * MS };
            channel.note_pause(&format!("m{number}"), &busy(delay));
        }
        let known: Vec<_> = (0..=METHODS).map(|n| is_paused(format!("m{n}"))).collect();
        assert_eq!(known.iter().filter(|known| **known).count(), METHODS);
        assert!(!known[1]);
        // What the node says of one that is known makes it longer, and never shorter.
        channel.note_pause("m2", &busy(8_000 * MS));
        channel.note_pause("m2", &busy(MS));
        tokio::time::advance(1_500 * MS).await;
        assert!(!is_paused("m3".to_owned()) && is_paused("m2".to_owned()));
        tokio::time::advance(11_000 * MS).await;
        assert!(!is_paused("m2".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_no_longer_than_may_be_whatever_the_node_says() {
        let nodes = Configuration::unconnected(1);
        let channel = nodes[0].channel();
        channel.note_pause("m", &busy(Duration::from_secs(1_000_000)));
        let until = channel.paused_until("m").expect("it is paused");
        assert!(until <= Instant::now() + LONGEST_PAUSE * 3 / 2);
        let name = "m".repeat(LONGEST_NAME + 1);
        channel.note_pause(&name, &busy(MS));
        assert_eq!(channel.paused_until(&name), None);
        // Other errors ask for nothing.
        let status = Status::unavailable("busy").with_retry_delay(MS);
        channel.note_pause("other", &status);
        channel.note_pause("other", &Status::resource_exhausted("full"));
        assert_eq!(channel.paused_until("other"), None);
    }
}
