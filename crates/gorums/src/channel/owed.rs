//! An answer that a node owes, and what is made of how long it does.
//!
//! A node may be up and read, answer pings, and do nothing: its disk hangs, a handler does, its machine
//! swaps. No connection breaks by that, and no call notices: the other nodes are enough. What tells is
//! that the others have answered a call which this one has not. That is true of every call for a
//! moment, so one at a time is looked at again: while an answer is owed, no other is noted.
//!
//! What is compared is the same call at the same time. So it takes no bound for how long a method may
//! take, or a node may be away, but for how long it may be behind the others. One call that hangs is
//! not a node that does: a newer call of the same method that is answered shows that.

// What is read without the lock says whether it is worth to take it, so it is `std`'s also where every
// order is explored.
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Status;
use crate::sync::Mutex;

/// What one node owes.
#[derive(Default)]
pub(super) struct Owed {
    /// The id of the call whose answer is owed; 0 where none is.
    id: AtomicU64,
    is_degraded: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    /// Why the node is degraded, and since when.
    degraded: Option<(Status, Instant)>,
    /// Since when a degraded node has answered in time.
    calm: Option<Instant>,
    /// It is among those that are looked at.
    is_watched: bool,
}

struct Answer {
    id: u64,
    method: &'static str,
    /// When the node was asked.
    began: Instant,
    /// When it was first looked at.
    seen: Option<Instant>,
}

/// What a look has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is owed, and it need not be looked at.
    Fine,
    /// It is to be looked at again.
    Same,
    /// The node has become degraded: it has not answered a call of this method for so long.
    Degraded(&'static str, Duration),
    /// It has answered again for long enough, after so long.
    Recovered(Duration),
}

impl Owed {
    /// The other nodes have answered this call. True where the node is to be looked at from now on.
    pub(super) fn owe(&self, id: u64, method: &'static str, began: Instant) -> bool {
        if self.id.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let mut state = self.state.lock();
        if state.answer.is_some() {
            return false;
        }
        state.answer = Some(Answer {
            id,
            method,
            began,
            seen: None,
        });
        self.id.store(id, Ordering::Relaxed);
        !std::mem::replace(&mut state.is_watched, true)
    }

    /// Since when an answer is owed, if one is.
    pub(super) fn since(&self) -> Option<Instant> {
        if self.id.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let state = self.state.lock();
        state.answer.as_ref().map(|answer| answer.began)
    }

    /// Whether an answer to this call tells something of the one that is owed: it is that one, or a
    /// newer one.
    #[inline]
    pub(super) fn concerns(&self, id: u64) -> bool {
        let owed = self.id.load(Ordering::Relaxed);
        owed != 0 && id >= owed
    }

    /// The node has answered this call of this method. When it began, where it is the one that was
    /// owed.
    #[cold]
    pub(super) fn answered(&self, id: u64, method: &str) -> Option<Instant> {
        let mut state = self.state.lock();
        let owed = state.answer.as_ref()?;
        let is_owed = owed.id == id;
        if !is_owed && (id < owed.id || owed.method != method) {
            return None;
        }
        let began = is_owed.then_some(owed.began);
        self.clear(&mut state);
        began
    }

    /// Nothing that was asked is answered any more: the stream has ended. That the node was degraded is
    /// past, as the next stream may be one of another process.
    pub(super) fn lost(&self) {
        let mut state = self.state.lock();
        self.clear(&mut state);
        (state.degraded, state.calm) = (None, None);
        self.is_degraded.store(false, Ordering::Relaxed);
    }

    fn clear(&self, state: &mut State) {
        state.answer = None;
        self.id.store(0, Ordering::Relaxed);
    }

    /// Whether the node is degraded.
    pub(super) fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Relaxed)
    }

    /// Why it is.
    pub(super) fn why(&self) -> Option<Status> {
        let state = self.state.lock();
        state.degraded.as_ref().map(|(status, _)| status.clone())
    }

    /// Looks whether an answer has been owed for as long as the limit. A node that is degraded is so
    /// until it has owed none for longer than half of the limit, for the time of the limit.
    pub(super) fn look(&self, now: Instant, is_connected: bool, limit: Duration) -> Look {
        let mut state = self.state.lock();
        if !is_connected {
            self.clear(&mut state);
            state.is_watched = false;
            return Look::Fine;
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let owed = state.answer.as_mut().map(|answer| {
            let seen = *answer.seen.get_or_insert(now);
            (answer.method, since(seen), since(answer.began))
        });
        let behind = owed.map_or(Duration::ZERO, |(_, behind, _)| behind);
        if let Some((_, became)) = &state.degraded {
            let became = *became;
            if behind > limit / 2 {
                state.calm = None;
                return Look::Same;
            }
            let calm = *state.calm.get_or_insert(now);
            if since(calm) < limit {
                return Look::Same;
            }
            (state.degraded, state.calm) = (None, None);
            self.is_degraded.store(false, Ordering::Relaxed);
            return Look::Recovered(since(became));
        }
        let Some((method, behind, waited)) = owed else {
            state.is_watched = false;
            return Look::Fine;
        };
        if behind < limit {
            return Look::Same;
        }
        let status = Status::unavailable(format!(
            "the node is connected, and has not answered a call of {method} for {} ms that others have \
             answered",
            waited.as_millis()
        ));
        state.degraded = Some((status, now));
        self.is_degraded.store(true, Ordering::Relaxed);
        Look::Degraded(method, waited)
    }
}

/// The channels of a pool that are looked at.
pub(super) struct Watched<T>(Mutex<Watch<T>>);

struct Watch<T> {
    channels: Vec<Weak<T>>,
    /// Somebody looks.
    has_task: bool,
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self(Mutex::new(Watch {
            channels: Vec::new(),
            has_task: false,
        }))
    }
}

impl<T> Watched<T> {
    /// Adds one. True where somebody has to begin to look.
    pub(super) fn add(&self, channel: Weak<T>) -> bool {
        let mut watch = self.0.lock();
        watch.channels.push(channel);
        !std::mem::replace(&mut watch.has_task, true)
    }

    /// Those that are looked at now.
    pub(super) fn all(&self) -> Vec<Weak<T>> {
        self.0.lock().channels.clone()
    }

    /// Keeps these among those that were looked at, and those that came meanwhile. False where nobody
    /// has to look any more.
    pub(super) fn keep(&self, looked_at: usize, kept: Vec<Weak<T>>) -> bool {
        let mut watch = self.0.lock();
        watch.channels.splice(..looked_at, kept);
        watch.has_task = !watch.channels.is_empty();
        watch.has_task
    }

    /// Whoever looked has gone.
    pub(super) fn end(&self) {
        self.0.lock().has_task = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_millis(1_000);
    const ID: u64 = 400;

    /// A node, and when it is looked at.
    struct Node {
        owed: Owed,
        begin: Instant,
    }

    impl Node {
        fn new() -> Self {
            Self {
                owed: Owed::default(),
                begin: Instant::now(),
            }
        }

        /// One that became degraded at the beginning, and owes nothing.
        fn degraded() -> Self {
            let node = Self::new();
            let before = node.begin - LIMIT;
            assert!(node.owed.owe(ID, "m", before));
            assert_eq!(node.owed.look(before, true, LIMIT), Look::Same);
            let look = node.look(0);
            assert_eq!(look, Look::Degraded("m", LIMIT));
            node.owed.answered(ID, "m");
            node
        }

        fn look(&self, at: u32) -> Look {
            self.owed.look(self.begin + at * MS, true, LIMIT)
        }
    }

    #[test]
    fn a_node_is_degraded_that_has_not_answered_what_others_have() {
        let node = Node::new();
        assert!(node.owed.owe(ID, "m", node.begin - 300 * MS));
        assert!(!node.owed.owe(ID + 4, "m", node.begin), "one at a time");
        assert_eq!(node.look(0), Look::Same);
        assert_eq!(node.look(999), Look::Same);
        assert!(!node.owed.is_degraded() && node.owed.why().is_none());
        assert_eq!(node.look(1_000), Look::Degraded("m", 1_300 * MS));
        assert!(node.owed.is_degraded());
        let why = node.owed.why().expect("it is").to_string();
        assert!(why.contains("a call of m for 1300 ms"), "{why}");
        assert_eq!(node.look(9_000), Look::Same, "told once");
    }

    #[test]
    fn an_answer_in_time_is_the_end_of_it_and_tells_how_long_it_took() {
        let node = Node::new();
        assert!(node.owed.owe(ID, "m", node.begin));
        assert_eq!(node.look(0), Look::Same);
        assert!(node.owed.concerns(ID) && !node.owed.concerns(ID - 4));
        assert_eq!(node.owed.answered(ID, ""), Some(node.begin));
        assert!(!node.owed.concerns(ID));
        assert_eq!(node.look(2_000), Look::Fine);
        // It is to be looked at anew.
        assert!(node.owed.owe(ID + 4, "m", node.begin));
        assert_eq!(node.look(2_000), Look::Same);
        assert_eq!(node.look(2_999), Look::Same);
    }

    #[test]
    fn one_call_that_hangs_is_not_a_node_that_does() {
        for (id, method, is_over) in [
            (ID + 4, "m", true),
            (ID + 4, "other", false),
            (ID - 4, "m", false),
        ] {
            let node = Node::new();
            assert!(node.owed.owe(ID, "m", node.begin));
            assert_eq!(node.look(0), Look::Same);
            assert_eq!(node.owed.answered(id, method), None);
            let look = node.look(1_000);
            assert_eq!(look == Look::Fine, is_over, "{id} {method}: {look:?}");
        }
    }

    #[test]
    fn a_degraded_node_has_to_answer_in_time_for_a_while() {
        let node = Node::degraded();
        assert_eq!(node.look(0), Look::Same);
        assert_eq!(node.look(900), Look::Same);
        assert!(!node.owed.owe(ID + 4, "m", node.begin), "it is looked at");
        assert_eq!(node.look(901), Look::Same);
        // Half of the limit is too long now.
        assert_eq!(node.look(1_402), Look::Same);
        assert_eq!(node.owed.answered(ID + 4, "m"), Some(node.begin));
        assert_eq!(node.look(1_500), Look::Same);
        assert!(node.owed.is_degraded());
        assert_eq!(node.look(2_499), Look::Same);
        assert_eq!(node.look(2_500), Look::Recovered(2_500 * MS));
        assert!(!node.owed.is_degraded() && node.owed.why().is_none());
        assert_eq!(node.look(2_600), Look::Fine);
    }

    #[test]
    fn what_was_asked_on_a_stream_that_ended_is_not_owed() {
        let node = Node::new();
        assert!(node.owed.owe(ID, "m", node.begin));
        node.owed.lost();
        assert_eq!(node.look(5_000), Look::Fine);
        let node = Node::degraded();
        node.owed.lost();
        assert!(!node.owed.is_degraded() && node.owed.why().is_none());
        assert!(!node.owed.owe(ID, "m", node.begin), "it is looked at");
        assert_eq!(node.owed.look(node.begin, false, LIMIT), Look::Fine);
        assert!(node.owed.owe(ID, "m", node.begin), "to be looked at anew");
    }

    #[test]
    fn somebody_looks_as_long_as_there_is_anything_to_look_at() {
        let (one, other) = (std::sync::Arc::new(1), std::sync::Arc::new(2));
        let weak = std::sync::Arc::downgrade;
        let watched = Watched::default();
        assert!(watched.add(weak(&one)));
        let looked_at = watched.all();
        assert!(!watched.add(weak(&other)));
        // The other one came meanwhile.
        assert!(watched.keep(looked_at.len(), Vec::new()));
        let looked_at = watched.all();
        assert_eq!(looked_at[0].upgrade(), Some(other));
        assert!(!watched.keep(looked_at.len(), Vec::new()));
        assert!(watched.add(weak(&one)));
        watched.end();
        assert!(watched.add(weak(&one)));
    }
}
