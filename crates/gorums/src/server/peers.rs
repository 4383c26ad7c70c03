//! The peers that are connected.

use std::fmt;
use std::time::Duration;

use super::clients::{Clients, ServerStopped, WaitError, within};
use crate::channel::NodeState;
use crate::configuration::{Configuration, Membership};

/// The connected peers of a server, as [`Server::peers`](super::Server::peers) has them. Clones are about
/// the same server.
///
/// Its own node is one of them while the server runs.
#[derive(Clone)]
pub struct ConnectedPeers {
    membership: Membership,
    /// These know when the server stops.
    clients: Clients,
}

impl ConnectedPeers {
    pub(super) fn new(membership: Membership, clients: Clients) -> Self {
        Self {
            membership,
            clients,
        }
    }

    /// The peers that are connected now. Empty where there are none, and calls on it fail at once.
    #[must_use]
    pub fn config(&self) -> Configuration {
        let connected = |node: &crate::Node| node.state() == NodeState::Connected;
        self.membership.config().filter(connected)
    }

    /// All peers, connected or not: what handlers find in [`ServerCtx::config`](crate::ServerCtx::config).
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Waits until the connected peers are as the predicate wants them, and returns them. It is asked at
    /// once, and again after every change; of changes that come close together perhaps only after the
    /// last.
    ///
    /// # Errors
    /// The server has stopped.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, ServerStopped> {
        loop {
            // Listening begins before looking, so that no change falls between.
            let changed = self.membership.listen();
            let mut stopping = self.clients.follow();
            if self.clients.have_stopped() {
                return Err(ServerStopped::new());
            }
            let config = self.config();
            if predicate(&config) {
                return Ok(config);
            }
            tokio::select! {
                () = changed => {}
                // Its sender is here.
                _ = stopping.changed() => {}
            }
        }
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// The server has stopped, or the time is over: the error says who was connected then.
    pub async fn wait_for_within(
        &self,
        limit: Duration,
        predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, WaitError> {
        let waiting = self.wait_for(predicate);
        within(&self.clients, limit, waiting, || self.config()).await
    }

    /// Follows the connected peers: see [`PeerChanges::next`].
    #[must_use]
    pub fn changes(&self) -> PeerChanges {
        PeerChanges {
            peers: self.clone(),
            last: None,
        }
    }
}

impl fmt::Debug for ConnectedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.config();
        f.debug_tuple("ConnectedPeers").field(&connected).finish()
    }
}

/// What becomes of a server's connected peers, as [`ConnectedPeers::changes`] makes it.
#[derive(Debug)]
pub struct PeerChanges {
    peers: ConnectedPeers,
    last: Option<Configuration>,
}

impl PeerChanges {
    /// The peers that are connected, at once, and from then on each time they differ from those that
    /// were returned last: changes while nobody asks come as one, and the last is never missed. None once
    /// the server has stopped. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Option<Configuration> {
        let last = self.last.as_ref();
        let differs = |config: &Configuration| last != Some(config);
        let config = self.peers.wait_for(differs).await.ok()?;
        self.last = Some(config.clone());
        Some(config)
    }
}
