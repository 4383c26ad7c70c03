use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::Early;
use crate::configuration::Interceptors;
use crate::error::Status;
use crate::metadata::Metadata;

/// The settings that all four call types share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Metadata,
    /// Why the metadata cannot be sent. The call fails with it.
    pub(crate) error: Option<Status>,
    pub(crate) max_encoding: Option<usize>,
    pub(crate) max_decoding: Option<usize>,
    pub(crate) cancellation: Option<CancellationToken>,
    pub(crate) interceptors: Interceptors,
    /// In bytes; none for the default.
    pub(crate) unread: Option<u64>,
}

impl Options {
    /// When the call ends: the earlier of timeout and deadline.
    pub(crate) fn ends(&self, now: Instant) -> Option<Instant> {
        // A timeout too large for the clock is none.
        let timeout = self.timeout.and_then(|timeout| now.checked_add(timeout));
        match (timeout, self.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Why a call that begins now has ended already.
    pub(crate) fn early(&self, deadline: Option<Instant>, now: Instant) -> Option<Early> {
        let cancelled = self.cancellation.as_ref();
        if cancelled.is_some_and(CancellationToken::is_cancelled) {
            Some(Early::Cancelled)
        } else if deadline.is_some_and(|deadline| deadline <= now) {
            Some(Early::Deadline)
        } else {
            None
        }
    }

    pub(crate) fn append(&mut self, key: &str, value: String) {
        if let Err(error) = self.metadata.append(key, value) {
            self.error.get_or_insert(error);
        }
    }
}

/// The methods that all builders have.
macro_rules! options {
    () => {
        /// Ends the call this long after its terminal was called, in place of the client's default.
        /// What is not written then is withdrawn, and the others' outcome is unknown. Without a
        /// timeout or deadline a call waits for as long as a node is silent.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// Ends the call at this time; where there is a timeout too, at the earlier of both.
        pub fn deadline(mut self, deadline: impl Into<tokio::time::Instant>) -> Self {
            self.options.deadline = Some(deadline.into());
            self
        }

        /// Sends a name and a value with the request; several with one name are all sent. With a
        /// key that [`Metadata`](crate::Metadata) does not take the call fails, and nothing is
        /// sent.
        pub fn metadata(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
            self.options.append(key.as_ref(), value.into());
            self
        }

        /// Ends the call when the token is cancelled, as its deadline would: what is not written is
        /// withdrawn, and the others' outcome is unknown. Takes effect where the call is awaited;
        /// detached messages look at the token once, before they are queued. The token is given by
        /// value or by reference. Dropping a call cancels it too, and tells nobody.
        pub fn cancelled_by(
            mut self,
            token: impl std::borrow::Borrow<tokio_util::sync::CancellationToken>,
        ) -> Self {
            self.options.cancellation = Some(token.borrow().clone());
            self
        }
    };
}

pub(crate) use options;
