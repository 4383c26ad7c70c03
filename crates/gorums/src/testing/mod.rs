//! For tests of services: contexts without a server, clusters whose nodes are stopped, paused and slowed
//! down, and a look for what was left behind.
//!
//! - [`server_ctx`] calls a handler as a function.
//! - [`Cluster`] has servers and clients in one process, on [`Pipes`] or on loopback. On pipes tokio's
//!   paused time works, so that a test of timeouts and pauses takes no time.
//! - [`eventually`] waits for something that no event tells of, and [`Tasks`] finds tasks that do not
//!   end.
//! - [`peers`] makes the parts of a system, for tests that want to put them together themselves.
//!
//! The crate gorums-sim goes further: it runs clusters under faults from a seed, and checks histories.

mod cluster;
mod gate;
mod peers;
mod pipes;
mod waiting;

use std::sync::Arc;

use http::Extensions;

pub use self::cluster::Cluster;
pub use self::gate::{Gate, Gated};
pub use self::peers::{Peer, peers, peers_with};
pub use self::pipes::Pipes;
pub use self::waiting::{Tasks, TasksLeft, eventually};
use crate::configuration::{Configuration, Membership};
use crate::handler::{ConnectionInfo, ServerCtx};
use crate::metadata::Metadata;
use crate::server::Peers;

/// A context as a handler would get it, of no connection.
#[must_use]
pub fn server_ctx() -> ServerCtx {
    server_ctx_with(Metadata::new(), None)
}

/// A context whose caller sent this metadata, at a server with these peers
/// ([`ServerCtx::config`]).
#[must_use]
pub fn server_ctx_with(metadata: Metadata, peers: Option<Configuration>) -> ServerCtx {
    let mut values = Extensions::new();
    values.insert(Peers::Known {
        peers: peers.map(Membership::from),
        clients: None,
    });
    let connection = ConnectionInfo {
        values,
        ..ConnectionInfo::default()
    };
    ServerCtx::new("test".into(), metadata, Arc::new(connection), None)
}
