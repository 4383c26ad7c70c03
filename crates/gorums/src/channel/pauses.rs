//! The methods that an overloaded node does not want to be called by for a while.

// Whoever looks too early sends one call more, so this is `std`'s also where every order is explored.
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use crate::sync::Mutex;

/// Of how many methods pauses are known at a node.
pub(crate) const METHODS: usize = 64;

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

impl Pauses {
    /// No call of this method until then. True where that is news: there was no pause of it.
    pub(super) fn note(&self, method: &str, until: Instant) -> bool {
        if method.len() > LONGEST_NAME {
            return false;
        }
        let mut methods = self.methods.lock();
        let known = methods.iter_mut().find(|known| *known.method == *method);
        if let Some(known) = known {
            known.until = known.until.max(until);
            return false;
        }
        if methods.len() == METHODS
            && let Some(first) = (0..METHODS).min_by_key(|index| methods[*index].until)
        {
            methods.swap_remove(first);
        }
        methods.push(Pause {
            method: method.into(),
            until,
        });
        self.any.store(true, Ordering::Relaxed);
        true
    }

    /// Whether there may be a pause of any method.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Until when no call of this method is sent, if that is later than now.
    #[cold]
    pub(super) fn until(&self, method: &str, now: Instant) -> Option<Instant> {
        let mut methods = self.methods.lock();
        methods.retain(|pause| pause.until > now);
        if methods.is_empty() {
            // Under the lock, as where it is set.
            self.any.store(false, Ordering::Relaxed);
        }
        let pause = methods.iter().find(|pause| *pause.method == *method)?;
        Some(pause.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_are_known_of_so_many_methods_and_those_that_end_first_make_room() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        assert!(!pauses.any());
        for number in 0..=METHODS as u32 {
            // The second ends first.
            let delay = if number == 1 { MS } else { 1_000 * MS };
            assert!(pauses.note(&format!("m{number}"), now + delay));
        }
        let is_paused = |n: usize| pauses.until(&format!("m{n}"), now).is_some();
        let known: Vec<_> = (0..=METHODS).map(is_paused).collect();
        assert_eq!(known.iter().filter(|known| **known).count(), METHODS);
        assert!(!known[1]);
    }

    #[test]
    fn a_pause_becomes_longer_and_never_shorter() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        assert!(pauses.note("m", now + 2 * MS));
        assert!(!pauses.note("m", now + 9 * MS));
        assert!(!pauses.note("m", now + MS));
        assert_eq!(pauses.until("m", now + 8 * MS), Some(now + 9 * MS));
        assert_eq!(pauses.until("other", now), None);
        assert!(pauses.any());
        assert_eq!(pauses.until("m", now + 9 * MS), None);
        assert!(!pauses.any());
    }

    #[test]
    fn nothing_is_kept_of_a_name_that_is_too_long() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        let name = "m".repeat(LONGEST_NAME + 1);
        assert!(!pauses.note(&name, now + MS));
        assert_eq!(pauses.until(&name, now), None);
        assert!(pauses.note(&name[1..], now + MS));
    }
}
