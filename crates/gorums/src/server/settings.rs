use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::buffered::Buffered;
use super::clients::Clients;
use super::connect_request::ConnectRequest;
use super::mounted::Mounts;
use super::sessions::Sessions;
use crate::bounds::Counts;
use crate::configuration::Membership;
use crate::error::Status;
use crate::handler::Services;
use crate::log::Throttle;
use crate::node_id::NodeId;
use crate::runtime::{Clock, SharedProof};
use crate::wire::Instance;

/// How much larger than the largest payload a request may be: what an envelope adds at the most,
/// with a little metadata.
pub(crate) const ENVELOPE: usize = 1024;

/// The connect callback.
pub(crate) type OnConnect = dyn Fn(&mut ConnectRequest) -> Result<(), Status> + Send + Sync;

/// Events that clients make happen, by kind.
#[derive(Default)]
pub(crate) struct Throttles {
    /// Clients come.
    pub(crate) arrivals: Throttle,
    /// They go.
    pub(crate) departures: Throttle,
    /// They are turned away.
    pub(crate) refusals: Throttle,
    /// They ask for what there is not. By itself, so that strangers hide no refusal of a client.
    pub(crate) requests: Throttle,
    /// They are cut off.
    pub(crate) cuts: Throttle,
    /// There are too many.
    pub(crate) full: Throttle,
    /// One makes room for another.
    pub(crate) displaced: Throttle,
    /// They make no handshake. By themselves, so that strangers hide no refusal of a client.
    pub(crate) handshakes: Throttle,
}

/// What all connections of a server have in common.
pub(crate) struct ConnectionSettings {
    pub(crate) services: Arc<Services>,
    /// What answers at paths that are not Gorums'.
    pub(super) mounts: Mounts,
    pub(crate) log: Throttles,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_connect: Option<Box<OnConnect>>,
    /// Which node of its peers this server is, and the nodes that handlers call.
    pub(crate) peers: Option<(NodeId, Membership)>,
    pub(crate) clients: Clients,
    /// Which server this is. None where the clock has no random numbers.
    pub(crate) instance: Option<Instance>,
    /// Which node a client has proved to be. Where there is such a rule, no other is believed.
    pub(crate) node_proof: Option<SharedProof>,
    /// Clients are who they say they are.
    pub(crate) trust_claimed_ids: bool,
    /// How long a connection may be without a stream, at its beginning too.
    pub(crate) stream_timeout: Duration,
    /// How long the client of a stream may send nothing on it, where that is limited.
    pub(crate) first_message_timeout: Option<Duration>,
    /// How long the client of a stream may take for a part of a message, in either direction.
    pub(crate) slow_peer_timeout: Duration,
    /// Cancelled when the server shuts down.
    pub(super) stopping: CancellationToken,
    /// What its connections hold.
    pub(super) buffered: Arc<Buffered>,
    /// What outlives the streams of clients that want it.
    pub(super) sessions: Arc<Sessions>,
    /// How long a connection lasts, where there is a bound.
    pub(crate) max_age: Option<Duration>,
    /// How long one may take that winds down by itself.
    pub(crate) grace: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
}

impl ConnectionSettings {
    /// How often the bounds of the server were reached.
    pub(super) fn reached(&self) -> &Arc<Counts> {
        self.services.lane.reached()
    }
}
