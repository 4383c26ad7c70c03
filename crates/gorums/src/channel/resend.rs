//! Requests that are written again where their stream breaks before they are answered.
//!
//! The frame of such a request is kept from when it is taken for writing until its part is over, and
//! whoever takes it out of the call, under the call's lock, counts it off the node's bound. When the
//! stream breaks, the frames go back to the front of the outbox in the order in which they were
//! written, so that nothing newer comes before them.

use std::sync::Arc;

use super::kept::{Kept, RESENDS, Resending};
use super::progress::Progress;
use super::{Call, Channel, OutMessage, Ticket};
use crate::bounds::Bound;
use crate::error::{Outcome, Status};
use crate::log;
use crate::wire::Side;

impl Call {
    /// The request is about to be written, for the first time or again. False if it was withdrawn.
    /// The outbox of the node, whose lock is held, counts the requests that are kept.
    #[inline]
    pub(super) fn take_for_writing(
        &self,
        message: &OutMessage,
        part: usize,
        places: &mut u64,
    ) -> bool {
        if self.resending == Resending::Never {
            self.parts.take_for_writing(part)
        } else {
            self.keep_and_take(message, part, places)
        }
    }

    fn keep_and_take(&self, message: &OutMessage, part: usize, places: &mut u64) -> bool {
        *places += 1;
        let kept = Kept {
            frame: message.frame.clone(),
            place: *places,
            tries: message.tries,
        };
        // Kept before the part is taken: whoever ends the part from then on lets go of it.
        self.keep(part, kept);
        let is_taken = self.parts.take_for_writing(part);
        // It was withdrawn, or is written for nobody.
        if !is_taken || !self.parts.is_sent(part) {
            self.let_go(part);
        }
        is_taken
    }

    fn keep(&self, part: usize, kept: Kept) {
        let channel = self.channel(part);
        let mut progress = self.progress();
        let total = channel.kept_total();
        if total.has_room(kept.frame.len(), &channel.pool().settings) {
            total.add(&kept);
            let before = progress.kept[part].replace(kept);
            debug_assert!(before.is_none(), "a part is written once at a time");
        } else {
            channel.pool().reached.add(Bound::Kept);
        }
    }

    fn take_kept(&self, part: usize) -> Option<Kept> {
        let mut progress = self.progress();
        self.take_kept_of(&mut progress, part)
    }

    /// The same, of a call whose lock is held.
    pub(super) fn take_kept_of(&self, progress: &mut Progress, part: usize) -> Option<Kept> {
        // Empty in calls of which nothing is kept.
        let kept = progress.kept.get_mut(part)?.take()?;
        self.channel(part).kept_total().remove(&kept);
        Some(kept)
    }

    /// The request is not to be written again.
    #[inline]
    pub(super) fn let_go(&self, part: usize) {
        if self.resending != Resending::Never {
            self.take_kept(part);
        }
    }

    /// The message was not written after all. False if nobody wants it any more.
    #[inline]
    pub(crate) fn take_back(&self, message: &OutMessage, part: usize) -> bool {
        self.let_go(part);
        if message.tries == 0 {
            self.parts.take_back(part)
        } else {
            self.parts.write_again(part)
        }
    }

    /// The stream broke after the request was written, and the outcome is what is known of it.
    /// Returns the request, with its place among those that were written, where it is to be written
    /// again. Otherwise the part has failed.
    pub(super) fn lost_or_again(
        self: &Arc<Self>,
        part: usize,
        outcome: Outcome,
        status: &Status,
    ) -> Option<(u64, OutMessage)> {
        let kept = match self.resending {
            Resending::Never => None,
            Resending::UntilDeadline | Resending::Counted => self.take_kept(part),
        };
        let Some(Kept {
            frame,
            place,
            tries,
        }) = kept
        else {
            self.lost(part, outcome, status);
            return None;
        };
        // What is known of this try says nothing of those before.
        let outcome = if tries == 0 {
            outcome
        } else {
            Outcome::Unknown
        };
        if outcome == Outcome::Unknown
            && self.may_try_again(part, tries)
            && self.parts.write_again(part)
        {
            let mut progress = self.progress();
            if !progress.again.contains(&part) {
                progress.again.push(part);
            }
            drop(progress);
            let ticket = Ticket {
                call: Arc::clone(self),
                part,
            };
            let mut message = OutMessage::new(frame, Some(ticket));
            message.tries = tries.saturating_add(1);
            return Some((place, message));
        }
        self.lost(part, outcome, status);
        None
    }

    /// Whether the request was to be written again, so that the node may have handled it before.
    pub(super) fn was_sent_again(&self, part: usize) -> bool {
        self.resending != Resending::Never && self.progress().again.contains(&part)
    }

    /// Whether the request may be tried once more, which has been tried again so often.
    pub(super) fn may_try_again(&self, part: usize, tries: u8) -> bool {
        match (self.resending, self.channel(part).side()) {
            (Resending::Never, _) => false,
            (Resending::UntilDeadline, Side::Client) => true,
            // The last replies of the stream before may come when this one has begun.
            (Resending::UntilDeadline, Side::Server) => !self.is_streamed(),
            (Resending::Counted, Side::Client) => tries < RESENDS,
            // It may never open a stream again.
            (Resending::Counted, Side::Server) => false,
        }
    }
}

impl Channel {
    /// The stream broke: requests that were written on it will have no answer. The outcome is what is
    /// known of them. Those that may be written again go to the front of the outbox, before anything
    /// else is taken out of it; what is left of the others fails.
    pub(crate) fn fail_written(self: &Arc<Self>, outcome: Outcome, status: &Status) {
        let mut again = Vec::new();
        for call in self.pool().calls.all() {
            if self.is_winding_down_with(call.id()) {
                continue;
            }
            if let Some(part) = call.targets().position_of(self) {
                again.extend(call.lost_or_again(part, outcome, status));
            }
        }
        if again.is_empty() {
            return;
        }
        again.sort_unstable_by_key(|(place, _)| *place);
        let again: Vec<_> = again.into_iter().map(|(_, message)| message).collect();
        let calls = again.len();
        let refused = self.outbox().push_again(again);
        if refused.is_empty() {
            tracing::debug!(
                target: log::CLIENT,
                node = self.id().get(),
                address = %self.address(),
                calls,
                error = %log::text(status),
                "idempotent calls wait to be sent again"
            );
        }
        Self::fail_unwritten(refused, Outcome::Unknown, status);
    }
}
