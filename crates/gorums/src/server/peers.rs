//! The peers that are connected.

use std::fmt;
use std::time::Duration;

use super::clients::{Clients, ServerStopped, WaitError, within};
use crate::configuration::{Configuration, Membership, Watch, Watched};
use crate::runtime::BoxFuture;

/// The connected peers of a server, as [`Server::peers`](crate::Server::peers) has them. Clones are
/// about the same server.
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
        let connected = |node: &crate::Node| node.state().is_connected();
        self.membership.config().filter(connected)
    }

    /// All peers, connected or not: what handlers find in
    /// [`ServerCtx::config`](crate::ServerCtx::config).
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Waits until the connected peers are as the predicate wants them, and returns them. It is
    /// asked at once, and again after every change; of changes that come close together perhaps
    /// only after the last.
    ///
    /// # Errors
    /// The peers are not so, and the server shuts down or has stopped: a handler that waits does not
    /// hold up a shutdown.
    pub async fn wait_for(
        &self,
        predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, ServerStopped> {
        let found = self.watch().find(predicate).await;
        found.ok_or_else(ServerStopped::new)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// As for [`wait_for`](Self::wait_for), or the time is over: the error says who was connected then.
    pub async fn wait_for_within(
        &self,
        limit: Duration,
        predicate: impl FnMut(&Configuration) -> bool,
    ) -> Result<Configuration, WaitError> {
        let waiting = self.wait_for(predicate);
        within(&self.clients, limit, waiting, || self.config()).await
    }

    /// Follows the connected peers, until the server shuts down.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }
}

impl fmt::Debug for ConnectedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.config();
        f.debug_tuple("ConnectedPeers").field(&connected).finish()
    }
}

impl Watched for ConnectedPeers {
    fn listen(&self) -> BoxFuture<'static, ()> {
        let changed = self.membership.listen();
        let stopping = self.clients.listen();
        Box::pin(async move {
            tokio::select! {
                () = changed => {}
                () = stopping => {}
            }
        })
    }

    fn has_ended(&self) -> bool {
        self.clients.have_stopped()
    }

    fn look(&mut self) -> Configuration {
        self.config()
    }
}
