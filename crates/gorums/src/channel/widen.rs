//! Calls that ask some of their nodes at first, and others later.
//!
//! A node that is not asked has a part that is idle: nothing is queued, pending or owed. The call stays
//! open for it all the same, in the tables too, so that the last failure of those that were asked is
//! not its end. Whoever waits for the call asks the others; whatever ends it lets go of them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Call;
use crate::error::Status;

/// What is to be sent to nodes, by position, or why nothing can be.
pub(crate) type Requests = Vec<(usize, Result<Bytes, Status>)>;

impl Call {
    /// Asks nodes that were not asked: queues the frame of each part, or fails the part that has
    /// none. With `is_last` no more are asked after these.
    ///
    /// # Errors
    /// The requests, where the call has ended early: nothing is done.
    pub(crate) fn widen(
        self: &Arc<Self>,
        requests: Requests,
        is_last: bool,
        now: Instant,
    ) -> Result<(), Requests> {
        {
            let mut progress = self.progress();
            if !progress.may_widen {
                return Err(requests);
            }
            progress.open += requests.len();
            if is_last {
                progress.close_held();
            }
        }
        for (part, frame) in requests {
            // Before it is queued: its reply may come at once.
            if let Some(asked_later) = &self.asked_later {
                asked_later.note(part, now);
            }
            match frame {
                Ok(frame) => {
                    self.queue(part, frame);
                }
                Err(status) => self.fail_at_once(part, &status),
            }
        }
        self.settle_deadline();
        Ok(())
    }

    /// When the node of this part was asked.
    #[inline]
    pub(crate) fn asked_at(&self, part: usize) -> Instant {
        let later = self.asked_later.as_ref();
        later
            .and_then(|asked_later| asked_later.since(part))
            .unwrap_or(self.started())
    }
}
