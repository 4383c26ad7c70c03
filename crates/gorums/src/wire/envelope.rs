//! `stream.Message`, the envelope of every request and reply, read without copying and written with
//! the application message straight into place.
//!
//! | field | number | type |
//! |---|---|---|
//! | message_seq_no | 1 | uint64 |
//! | method | 2 | string |
//! | status | 3 | google.rpc.Status |
//! | entry | 4 | repeated { key = 1, value = 2 } |
//! | payload | 5 | bytes |
//! | resent | 12 | bool, ours, sent only by clients that have told who they are |
//! | time_left | 13 | uint64, ours, sent only to peers that announced it |
//! | credit | 14 | uint64, ours, sent only to peers that announced it |
//! | control | 15 | uint32, ours, sent only to peers that announced it |

use crate::error::Status;
use crate::metadata::Metadata;

pub(super) const ID: u32 = 1;
pub(super) const METHOD: u32 = 2;
pub(super) const STATUS: u32 = 3;
pub(super) const ENTRY: u32 = 4;
pub(super) const PAYLOAD: u32 = 5;
pub(super) const RESENT: u32 = 12;
pub(super) const TIME_LEFT: u32 = 13;
pub(super) const CREDIT: u32 = 14;
pub(super) const CONTROL: u32 = 15;

/// The bit of a message id that marks calls of a server.
pub(crate) const SERVER_INITIATED: u64 = 1 << 63;

/// What a frame means beyond the original protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A request or a reply, as in the original.
    Message,
    /// The caller gave up; nobody reads a reply.
    Cancel,
    /// The last frame of a streamed reply, which carries a status and no payload.
    End,
    /// The caller takes so many more bytes of a streamed reply.
    Credit,
    /// This end takes no further requests than the peer has written by now.
    GoingAway,
    /// The answer to that: no request follows.
    NoneFollow,
    /// This end has so many messages of the session.
    Received,
    /// Something that this version does not know.
    Unknown,
}

impl Control {
    pub(super) fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Message,
            1 => Self::Cancel,
            2 => Self::End,
            3 => Self::Credit,
            4 => Self::GoingAway,
            5 => Self::NoneFollow,
            6 => Self::Received,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Message | Self::Unknown => 0,
            Self::Cancel => 1,
            Self::End => 2,
            Self::Credit => 3,
            Self::GoingAway => 4,
            Self::NoneFollow => 5,
            Self::Received => 6,
        }
    }
}

/// An envelope, borrowed from the frame that it came in.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: u64,
    pub(crate) method: &'a str,
    pub(crate) status: Option<Status>,
    pub(crate) metadata: Vec<(&'a str, &'a str)>,
    pub(crate) payload: &'a [u8],
    pub(crate) control: Control,
    /// Of a request: how long its caller waits from when it was written, in microseconds. None is 0.
    pub(crate) time_left: u64,
    /// Of a request: it was written before, and not answered.
    pub(crate) is_resent: bool,
    /// With [`Control::Credit`] and [`Control::Received`].
    pub(crate) credit: u64,
    /// What there is too much of. Such a message is refused, and the next ones are read.
    pub(crate) excess: Option<String>,
}

impl Envelope<'_> {
    pub(crate) fn metadata(&self) -> Metadata {
        Metadata::received(self.metadata.iter().copied())
    }
}
