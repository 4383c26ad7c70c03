use std::collections::BTreeSet;
use std::time::Duration;

use super::WhileDisconnected;
use crate::node_id::{DYNAMIC_IDS, NodeId};
use crate::runtime::SharedProof;
use crate::wire::Side;

/// What a pool of connections is told by its builder. The defaults are documented there.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    /// The least time between the starts of two attempts.
    pub(crate) attempt_interval: Duration,
    pub(crate) backoff_base: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) outbox_messages: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) max_calls: usize,
    /// How long a node may be behind the others with an answer.
    pub(crate) degraded_after: Duration,
    pub(crate) max_decoding_message_size: usize,
    /// The bound of the replies to streamed calls that a node has sent and that nobody has taken.
    pub(crate) unread_replies: u64,
    /// How long a connection whose last handle was dropped goes on writing what is queued.
    pub(crate) linger: Duration,
    pub(crate) pairs: Option<Pairs>,
    /// How long calls that were written wait for another connection, in sessions. None: there are none.
    pub(crate) sessions: Option<Duration>,
    /// Two nodes may turn out to be one server.
    pub(crate) allow_same_server: bool,
    /// A server may be another node to its peers than it is here.
    pub(crate) allow_other_ids: bool,
    /// Which node a server has proved to be. Each has to be the one that was dialled.
    pub(crate) node_proof: Option<SharedProof>,
}

/// Two peers use one stream, which the one with the lower id opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs {
    /// Which of the nodes this process is.
    pub(crate) me: NodeId,
    pub(crate) meanwhile: WhileDisconnected,
}

impl Pairs {
    /// Which end of the stream to this node this process is.
    pub(crate) fn side(self, node: NodeId) -> Side {
        if node < self.me {
            Side::Server
        } else {
            Side::Client
        }
    }

    /// Two of these nodes and this process that cannot share a stream, the one with the lower id
    /// first. That one opens it and says who it is, and is not believed where its id is one of
    /// those that servers give.
    pub(crate) fn unable(self, ids: impl IntoIterator<Item = NodeId>) -> Option<[NodeId; 2]> {
        let all = ids.into_iter().chain([self.me]);
        let given: BTreeSet<_> = all.filter(|id| id.get() >= DYNAMIC_IDS).collect();
        let mut given = given.into_iter();
        Some([given.next()?, given.next()?])
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            attempt_interval: Duration::from_millis(50),
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(20),
            outbox_messages: 16 * 1024,
            outbox_bytes: 16 * 1024 * 1024,
            max_calls: 1024 * 1024,
            degraded_after: Duration::from_secs(1),
            max_decoding_message_size: 4 * 1024 * 1024,
            unread_replies: 64 * 1024 * 1024,
            linger: Duration::from_secs(1),
            pairs: None,
            sessions: None,
            allow_same_server: false,
            allow_other_ids: false,
            node_proof: None,
        }
    }
}
