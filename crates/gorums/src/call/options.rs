use std::time::Duration;

use tokio::time::Instant;

use crate::error::Status;
use crate::metadata::Metadata;

/// What all four call types can be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Metadata,
    /// Metadata that cannot be sent: the call fails with it.
    pub(crate) error: Option<Status>,
    pub(crate) max_encoding: Option<usize>,
    pub(crate) max_decoding: Option<usize>,
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
        /// key that [`Metadata`](crate::Metadata) does not take the call fails, and nothing is sent.
        pub fn metadata(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
            self.options.append(key.as_ref(), value.into());
            self
        }
    };
}

pub(crate) use options;
