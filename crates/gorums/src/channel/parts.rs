//! The states of a call's parts.
//!
//! A call has a *part* at each node. Whoever moves a part from one state to the next, with a
//! compare-and-swap, owns what follows from it: so no reply is counted twice, and no request that
//! was withdrawn is written.
//!
//! ```text
//!            queued ──taken by the writer──► sent ──reply, error, loss, hand-over──► done
//!              │                              │ ▲
//!              │                              │ └──taken by the writer──┐
//!              │                              ├──the stream broke──► again ──whatever ends it──► done
//!              ├──withdrawn, refused──► done  ├──the call was forgotten──► done
//!              │                              └──the call ended──► sent orphan
//!              └──the call ended──► orphan ──written──► sent orphan
//! ```
//!
//! Only parts of calls that may be handled twice are written again.

use PartState::{Again, Done, Idle, Orphan, Queued, Sent, SentOrphan};

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::many;

/// How far a call has come at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PartState {
    /// The node was left out, refused the message at once, or is not reached yet.
    Idle,
    Queued,
    /// Queued, in a call that nobody waits for any more: it is still to be written.
    Orphan,
    Sent,
    Done,
    /// With the writer, in a call that nobody waits for any more: if it is not written after all,
    /// it is an orphan again.
    SentOrphan,
    /// Queued once more, since the stream broke on which it was written. What the node has made of
    /// it is unknown.
    Again,
}

impl PartState {
    #[inline]
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Idle,
            1 => Queued,
            2 => Orphan,
            3 => Sent,
            4 => Done,
            5 => SentOrphan,
            6 => Again,
            _ => return None,
        })
    }
}

/// The states by position. Those of a few nodes lie in the call itself.
pub(crate) enum Parts {
    Few([AtomicU8; FEW], usize),
    Many(Box<[AtomicU8]>),
}

const FEW: usize = many(8, 0);

impl Parts {
    pub(super) fn new(count: usize) -> Self {
        let idle = || AtomicU8::new(Idle as u8);
        if count <= FEW {
            Self::Few(std::array::from_fn(|_| idle()), count)
        } else {
            Self::Many((0..count).map(|_| idle()).collect())
        }
    }

    #[inline]
    fn states(&self) -> &[AtomicU8] {
        match self {
            Self::Few(states, count) => &states[..*count],
            Self::Many(states) => states,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.states().len()
    }

    #[inline]
    fn load(&self, part: usize) -> Option<PartState> {
        PartState::from_number(self.states()[part].load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, part: usize, state: PartState) {
        self.states()[part].store(state as u8, Ordering::Release);
    }

    /// False, and nothing is changed, where the part is not in the state `from`.
    #[inline]
    fn shift(&self, part: usize, from: PartState, to: PartState) -> bool {
        self.states()[part]
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Moves a part on from whatever state it is in, and says which that was; none where nothing
    /// follows. The writer may take a part out and give it back meanwhile, so to try one state
    /// after the other could miss it in both.
    #[inline]
    fn move_on(
        &self,
        part: usize,
        next: impl Fn(PartState) -> Option<PartState>,
    ) -> Option<PartState> {
        self.states()[part]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| {
                let next = next(PartState::from_number(number)?)?;
                Some(next as u8)
            })
            .ok()
            .and_then(PartState::from_number)
    }

    #[inline]
    pub(super) fn is_sent(&self, part: usize) -> bool {
        self.load(part) == Some(Sent)
    }

    /// Whether the request was written, in a call that nobody waits for any more.
    #[inline]
    pub(super) fn is_sent_orphan(&self, part: usize) -> bool {
        self.load(part) == Some(SentOrphan)
    }

    /// Whether the request is still to be written.
    #[inline]
    pub(crate) fn is_queued(&self, part: usize) -> bool {
        matches!(self.load(part), Some(Queued | Orphan | Again))
    }

    /// The request is about to be queued.
    #[inline]
    pub(super) fn begin(&self, part: usize) {
        self.store(part, Queued);
    }

    /// The part is done before its request was queued.
    pub(super) fn fail_at_once(&self, part: usize) {
        self.store(part, Done);
    }

    /// The request is about to be written. False if it was withdrawn.
    #[inline]
    pub(crate) fn take_for_writing(&self, part: usize) -> bool {
        self.shift(part, Queued, Sent)
            || self.shift(part, Orphan, SentOrphan)
            || self.shift(part, Again, Sent)
    }

    /// The request was not written after all. False if nobody wants it any more.
    #[inline]
    pub(crate) fn take_back(&self, part: usize) -> bool {
        self.shift(part, Sent, Queued) || self.shift(part, SentOrphan, Orphan)
    }

    /// The request, which was written once, is to be written again. False if nobody waits for it any
    /// more.
    #[inline]
    pub(super) fn write_again(&self, part: usize) -> bool {
        self.shift(part, Sent, Again)
    }

    /// A part whose request was written is done. False if it was before, or never was written.
    #[inline]
    pub(super) fn finish(&self, part: usize) -> bool {
        self.shift(part, Sent, Done)
    }

    /// The request will not be written. Says which state the part was in, queued or again; none where
    /// nobody waits to hear of it.
    pub(super) fn refuse(&self, part: usize) -> Option<PartState> {
        let was = self.move_on(part, |state| {
            matches!(state, Queued | Orphan | Again).then_some(Done)
        })?;
        (was != Orphan).then_some(was)
    }

    /// Nobody wants the part any more, nor its request to be written. Says which state it was in,
    /// queued, sent or again; none where it was done.
    #[inline]
    pub(super) fn abandon(&self, part: usize) -> Option<PartState> {
        self.move_on(part, |state| {
            matches!(state, Queued | Sent | Again).then_some(Done)
        })
    }

    /// Nobody waits for the part any more, but its request is still written, though not again. Says
    /// which state it was in, queued, sent or again; none where it was done.
    #[inline]
    pub(super) fn complete(&self, part: usize, is_streamed: bool) -> Option<PartState> {
        self.move_on(part, |state| match state {
            Queued => Some(Orphan),
            Sent if is_streamed => Some(Done),
            Sent => Some(SentOrphan),
            Again => Some(Done),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_found_by_its_number_and_no_other_number_is_one() {
        for state in [Idle, Queued, Orphan, Sent, Done, SentOrphan, Again] {
            assert_eq!(PartState::from_number(state as u8), Some(state));
        }
        assert_eq!(PartState::from_number(7), None);
    }
}
