use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::error::Status;
use crate::node_id::{DYNAMIC_IDS, NodeId};
use crate::runtime::AddressError;

/// Why a configuration cannot be made. The text names the culprit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// There are no nodes.
    Empty,
    /// The id 0 is reserved.
    ZeroId {
        /// The address that came with it.
        address: String,
    },
    /// What stands before `=` is not an id.
    BadId {
        /// What stands there.
        id: String,
    },
    /// Two nodes have one id.
    DuplicateId {
        /// The id.
        id: NodeId,
        /// Both addresses.
        addresses: [String; 2],
    },
    /// Two nodes have one address.
    DuplicateAddress {
        /// The address.
        address: String,
        /// Both ids.
        ids: [NodeId; 2],
    },
    /// An address has a form that the [`Transport`](crate::runtime::Transport) does not take.
    BadAddress(AddressError),
    /// No node has this id.
    UnknownNode {
        /// The id.
        id: NodeId,
        /// The ids that there are.
        known: Vec<NodeId>,
    },
    /// Connection metadata cannot be sent.
    Metadata(Status),
    /// The handlers for calls back to this client contradict each other.
    Handlers {
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read or is not what is expected. Only with the feature `toml` are files
    /// read.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where they are known.
        reason: String,
    },
    /// All ids up to the greatest are used up, so that this node can only be given one by hand.
    NoMoreIds {
        /// The node's address.
        address: String,
    },
    /// This process is to be one of each pair of nodes
    /// ([`one_stream_per_pair`](super::ConfigurationBuilder::one_stream_per_pair)), and is none of
    /// the nodes.
    NotOfAPair {
        /// The process' own id.
        me: NodeId,
        /// The ids that there are.
        known: Vec<NodeId>,
    },
    /// Two nodes cannot share a stream
    /// ([`one_stream_per_pair`](super::ConfigurationBuilder::one_stream_per_pair)): both ids are
    /// among those that servers give to clients, from 2^20 on.
    NoCommonStream {
        /// Both ids, the lower one first.
        nodes: [NodeId; 2],
    },
    /// The id was that of a node at another address, and stays that node's.
    UsedId {
        /// The id.
        id: NodeId,
        /// Who is to have it.
        address: String,
        /// Who had it.
        before: String,
    },
    /// A server cannot leave its own peers.
    OwnNode {
        /// The server's own id.
        me: NodeId,
    },
    /// A membership has as many nodes as there may be.
    TooManyNodes {
        /// How many these are.
        most: usize,
    },
    /// A stream of membership changes has failed.
    Discovery {
        /// What it says.
        reason: String,
    },
    /// An empty configuration was to be extended: it has no connections to share.
    NothingToExtend,
    /// Nodes were to be connected outside a tokio runtime, which drives the connections.
    NoRuntime,
    /// The tokio runtime lacks what connections need.
    Runtime {
        /// What it lacks, and what to do.
        reason: String,
    },
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a configuration needs at least one node"),
            Self::UsedId {
                id,
                address,
                before,
            } => write!(
                f,
                "node {id} ({address}): this id was that of {before}, and stays so: give another \
                 one"
            ),
            Self::OwnNode { me } => write!(
                f,
                "node {me} is this server itself, which cannot leave its own peers: stop it instead"
            ),
            Self::TooManyNodes { most } => {
                write!(f, "there are {most} nodes, and there may not be more")
            }
            Self::Discovery { reason } => write!(f, "membership changes: {reason}"),
            Self::ZeroId { address } => write!(f, "node 0 ({address}): ids start at 1"),
            Self::BadId { id } => write!(f, "{id:?} is not an id, which is a number from 1"),
            Self::DuplicateId {
                id,
                addresses: [a, b],
            } if a == b => write!(f, "node {id} ({a}) is named twice"),
            Self::DuplicateId {
                id,
                addresses: [a, b],
            } => write!(f, "two nodes have the id {id}: node {id} is {a} and {b}"),
            Self::DuplicateAddress {
                address,
                ids: [a, b],
            } => write!(f, "nodes {a} and {b} have the same address {address}"),
            Self::BadAddress(error) => error.fmt(f),
            Self::UnknownNode { id, known } => {
                write!(f, "there is no node {id}; the nodes are {}", list(known))
            }
            Self::NotOfAPair { me, known } => {
                let known = list(known);
                write!(
                    f,
                    "one stream per pair: this process is to be node {me}, and the nodes are \
                     {known}: its own node is one of them"
                )
            }
            Self::NoCommonStream { nodes: [a, b] } => write!(
                f,
                "one stream per pair: nodes {a} and {b} cannot share a stream: ids from \
                 {DYNAMIC_IDS} on are given by servers to their clients, and whoever claims one is \
                 not believed: of each pair, give one node a lower id"
            ),
            Self::Metadata(status) => f.write_str(status.message()),
            Self::Handlers { reason } | Self::Runtime { reason } => f.write_str(reason),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::NoMoreIds { address } => {
                write!(f, "{address}: no id is left after {}; name one", u32::MAX)
            }
            Self::NothingToExtend => f.write_str(
                "an empty configuration has no connections to share: extend one that has nodes, \
                 or connect a new one",
            ),
            Self::NoRuntime => f.write_str(
                "connections are driven by a tokio runtime: call connect or extend within one \
                 (in #[tokio::main], or after Runtime::enter)",
            ),
        }
    }
}

fn list(ids: &[NodeId]) -> String {
    let ids: Vec<_> = ids.iter().map(NodeId::to_string).collect();
    ids.join(", ")
}

impl From<AddressError> for ConfigurationError {
    fn from(error: AddressError) -> Self {
        Self::BadAddress(error)
    }
}

impl Error for ConfigurationError {}
