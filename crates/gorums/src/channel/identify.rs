//! What a channel does with who its server turns out to be.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use super::Channel;
use super::servers::{ServerIdentity, remove};
use crate::error::{Outcome, Status};
use crate::log;
use crate::runtime::canonical_ip;

impl Channel {
    /// A connection to a node has led to this server, as far as it is known. An error where that is
    /// another node, and may not be two: calls to the node are refused from now on, and those that
    /// are queued fail.
    pub(crate) fn identify(
        self: &Arc<Self>,
        identity: Option<ServerIdentity>,
    ) -> Result<(), Status> {
        let before = self.twin();
        let claimed = identity.and_then(|identity| Some((identity, self.claim(identity)?)));
        let Some((identity, twin)) = claimed else {
            self.forget_refusal();
            return Ok(());
        };
        let is_allowed = self.pool().settings.allow_same_server;
        if !before.is_some_and(|before| Arc::ptr_eq(&before, &twin)) {
            tracing::warn!(
                target: log::CLIENT,
                node = self.id().get(),
                address = %self.address(),
                same_as = twin.id().get(),
                same_as_address = %twin.address(),
                refused = !is_allowed,
                "two nodes are one server"
            );
        }
        if is_allowed {
            return Ok(());
        }
        let status = Status::failed_precondition(format!(
            "node {} ({}) is the same server as node {} ({}), which is not counted twice: give it \
             one address, or see ConfigurationBuilder::allow_same_server",
            self.id(),
            self.address(),
            twin.id(),
            twin.address()
        ));
        self.found().refusal = Some((identity, status.clone()));
        let queued = self.outbox().refuse();
        Channel::fail_unwritten(queued, Outcome::NotSent, &status);
        Err(status)
    }

    /// The node whose server this is, if it is another one than the node that has found it; else it
    /// is this node's from now on.
    fn claim(self: &Arc<Self>, identity: ServerIdentity) -> Option<Arc<Self>> {
        let mut owners = self.pool().servers.lock();
        let owner = owners.get(&identity).and_then(Weak::upgrade);
        let owner = owner.filter(|owner| owner.id() != self.id() && !owner.is_closing());
        // When a server restarts, it is another one. Until the node that it was has connected again
        // it is not known that this one has come to be another server.
        let before = self.twin();
        let before = before.filter(|twin| !twin.found().is_current);
        let mut found = self.found();
        if let Some(twin) = owner.or(before) {
            found.twin = Arc::downgrade(&twin);
            // It is not the server that it was, which may by now be the other node: two nodes may
            // have exchanged their servers.
            let last = found.owned.take();
            drop(found);
            remove(&mut owners, last, self);
            return Some(twin);
        }
        found.twin = Weak::new();
        found.is_current = true;
        let last = found.owned.replace(identity);
        drop(found);
        remove(&mut owners, last.filter(|last| *last != identity), self);
        owners.insert(identity, Arc::downgrade(self));
        None
    }

    /// Before anything is written to a node whose calls are refused: an error where its address
    /// tells that it is the other node still.
    pub(crate) fn check_server(&self, address: Option<SocketAddr>) -> Result<(), Status> {
        let refusal = self.found().refusal.clone();
        if let Some((ServerIdentity::At(before), status)) = refusal {
            if address.map(canonical_ip) == Some(before) {
                return Err(status);
            }
            self.forget_refusal();
        }
        Ok(())
    }

    /// Calls to a node are not refused any more: it is another server, or one that does not say.
    pub(crate) fn forget_refusal(&self) {
        if self.found().refusal.take().is_some() {
            self.outbox().accept();
        }
    }

    /// A node has another address from now on: it is the server that it was until it is found to be
    /// another one.
    pub(crate) fn take_server_of(self: &Arc<Self>, from: &Self) {
        let identity = from.found().owned;
        // Their id is the same, so the one does not keep the other from it.
        let _ = self.identify(identity);
    }

    /// A node has come to its end: another one may be the server that it was.
    pub(super) fn release_server(self: &Arc<Self>) {
        let mut owners = self.pool().servers.lock();
        let owned = self.found().owned.take();
        remove(&mut owners, owned, self);
    }

    /// The other node that is the same server, while somebody holds it.
    pub(super) fn twin(&self) -> Option<Arc<Self>> {
        let twin = self.found().twin.upgrade();
        twin.filter(|twin| !twin.is_closing())
    }
}
