//! What is kept of requests that may be written again, and for how long that is tried.

use bytes::Bytes;
use tokio::time::Instant;

use super::Settings;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How often a request of a call without a deadline is tried again. An attempt to connect that fails
/// counts as one try.
pub(crate) const RESENDS: u8 = 3;

/// Whether a call's request is written again where its stream breaks before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resending {
    /// Nobody has said that a node may handle it twice.
    Never,
    /// As often as a stream breaks before the deadline.
    UntilDeadline,
    /// [`RESENDS`] times.
    Counted,
}

impl Resending {
    pub(crate) fn of(is_idempotent: bool, deadline: Option<Instant>) -> Self {
        match (is_idempotent, deadline) {
            (false, _) => Self::Never,
            (true, Some(_)) => Self::UntilDeadline,
            (true, None) => Self::Counted,
        }
    }
}

/// A request that was written and not answered.
pub(super) struct Kept {
    pub(super) frame: Bytes,
    /// Its place among those that were written to the node.
    pub(super) place: u64,
    /// How often it had been tried again when it was written.
    pub(super) tries: u8,
}

/// How much is kept of the requests to one node. As much as its outbox may hold is the most, and
/// what is beyond that is not sent again.
#[derive(Default)]
pub(super) struct KeptTotal {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl KeptTotal {
    /// Whether one more of this size may be kept, within the bounds of the node's outbox.
    pub(super) fn has_room(&self, len: usize, settings: &Settings) -> bool {
        let messages = self.messages.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        // As in the outbox, a message that alone exceeds the bound is taken where there is no other.
        messages == 0
            || (messages < settings.outbox_messages
                && bytes.saturating_add(len) <= settings.outbox_bytes)
    }

    pub(super) fn add(&self, kept: &Kept) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(kept.frame.len(), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, kept: &Kept) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(kept.frame.len(), Ordering::Relaxed);
    }
}
