//! What a node's connection is doing, and what becomes of calls meanwhile.

use std::fmt;

/// What a node's connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// An attempt to connect is under way. Calls wait for it.
    Connecting = 0,
    /// There is a connection, on which the peer has begun to speak HTTP/2.
    Connected = 1,
    /// The last attempt failed, the connection broke, or the server shuts down, which still answers
    /// what it was asked before. The next attempt comes after a pause, or
    /// with the next call. Where it is the node that connects
    /// ([`one_stream_per_pair`](crate::ConfigurationBuilder::one_stream_per_pair)): it is not
    /// connected.
    Disconnected = 2,
    /// The connection was closed for good: its runtime has ended.
    Closed = 3,
    /// There is a connection, which is alive, and the node does not answer: most of the others have
    /// answered a call, and this node has not for longer than
    /// [`degraded_after`](crate::ConfigurationBuilder::degraded_after). Its disk or its handlers hang,
    /// perhaps. It is called as before, which costs the others nothing, and is
    /// [`Connected`](Self::Connected) again once it has answered in time for as long.
    Degraded = 4,
}

impl NodeState {
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Connecting,
            1 => Self::Connected,
            2 => Self::Disconnected,
            4 => Self::Degraded,
            _ => Self::Closed,
        }
    }

    /// Whether there is a connection: [`Connected`](Self::Connected) or
    /// [`Degraded`](Self::Degraded).
    #[must_use]
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Connected | Self::Degraded)
    }

    /// The better, the less: how much is to be expected of a node.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Degraded => 1,
            Self::Connecting => 2,
            Self::Disconnected => 3,
            Self::Closed => 4,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Closed => "closed",
            Self::Degraded => "degraded",
        })
    }
}

/// What becomes of calls to a node that connects by itself
/// ([`one_stream_per_pair`](crate::ConfigurationBuilder::one_stream_per_pair)) while it is not
/// connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhileDisconnected {
    /// They wait in the node's outbox, within its [bounds](crate::ConfigurationBuilder::outbox),
    /// and are written in their order when the node has connected. How long is theirs to say: at
    /// its deadline a call that was not written is withdrawn, and without one it waits until its
    /// handle is dropped.
    #[default]
    Wait,
    /// That node's part of the call fails at once, as [not sent](crate::Outcome::NotSent), with
    /// [`Unavailable`](crate::Code::Unavailable). So does what is queued and not written when the
    /// node's stream ends.
    FailFast,
}
