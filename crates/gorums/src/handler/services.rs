use std::fmt;
use std::sync::Arc;

use http::Extensions;

use super::lane::LaneSettings;
use super::registry::Registry;
use crate::error::Status;
use crate::log::Throttle;

/// How many bytes of requests may wait beyond the bound where a reply is expected that may be
/// behind them. A window full of the smallest messages is about that.
const BEYOND: usize = 64 * 1024 * 1024;

/// The handlers of one server, or of one client that serves, and the bounds that they run within.
pub(crate) struct Services {
    pub(crate) registry: Registry,
    pub(crate) lane: Arc<LaneSettings>,
    pub(crate) max_decoding: usize,
    /// The bound of the requests of a connection that were read and not started.
    pub(crate) max_waiting_bytes: usize,
    /// The bound of the replies of a connection that are not written.
    pub(crate) max_reply_bytes: usize,
    /// What handlers find set on every connection.
    pub(crate) values: Extensions,
    /// Of requests that no handler gets.
    pub(crate) refusals: Throttle,
}

/// What the requests cost that wait for their handlers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) bytes: usize,
    pub(crate) read_for: ReadFor,
}

/// What may be behind the requests, for which reading goes on where they are too many.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadFor {
    /// Replies to the calls of this end.
    Replies,
    /// Credit, without which no handler goes on.
    Credit,
}

impl Services {
    /// Why no further request is taken where reading goes on at the bound.
    pub(crate) fn too_many_wait(&self, waiting: Waiting) -> Option<Status> {
        let Waiting { bytes, read_for } = waiting;
        let (beyond, why) = match read_for {
            ReadFor::Replies => (BEYOND, ""),
            ReadFor::Credit => (
                0,
                ", and none starts before replies of the calls that are streamed are taken",
            ),
        };
        (bytes >= self.max_waiting_bytes.saturating_add(beyond)).then(|| {
            Status::resource_exhausted(format!(
                "{bytes} bytes of requests wait for their handlers{why}"
            ))
        })
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.registry).finish()
    }
}
