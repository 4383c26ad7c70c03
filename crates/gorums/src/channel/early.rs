//! Calls that end before all their parts do.

use crate::error::{QuorumErrorKind, Status};

/// What ended a call before its parts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    Deadline,
    Cancelled,
}

impl Early {
    /// The status of a part of which this is all that has become.
    pub(super) fn status(self, part: &str) -> Status {
        match self {
            Self::Deadline => Status::deadline_exceeded(format!("{part} before the deadline")),
            Self::Cancelled => Status::cancelled(format!("{part} before the call was cancelled")),
        }
    }

    /// The status of every part of a call that had ended before anything was queued.
    pub(crate) fn status_at_once(self) -> Status {
        match self {
            Self::Deadline => {
                Status::deadline_exceeded("the deadline had passed before the call began")
            }
            Self::Cancelled => Status::cancelled("the call was cancelled before it began"),
        }
    }
}

impl From<Early> for QuorumErrorKind {
    fn from(early: Early) -> Self {
        match early {
            Early::Deadline => Self::Deadline,
            Early::Cancelled => Self::Cancelled,
        }
    }
}
