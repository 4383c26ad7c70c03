//! Which servers the nodes of a pool turn out to be: none is counted as two nodes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use http::HeaderMap;

use super::Channel;
use crate::error::{Outcome, Status};
use crate::runtime::canonical_ip;
use crate::sync::Mutex;
use crate::wire::Instance;

/// What tells a server from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ServerIdentity {
    /// It has said who it is.
    Instance(Instance),
    /// It has not, and this is the address that the connection has led to.
    At(SocketAddr),
}

impl ServerIdentity {
    /// Who a server is that has answered with these headers at this address.
    pub(crate) fn of(headers: &HeaderMap, address: Option<SocketAddr>) -> Option<Self> {
        Instance::read(headers)
            .map(Self::Instance)
            .or(address.map(canonical_ip).map(Self::At))
    }
}

/// The servers that the nodes of a pool have been, and the node that each is.
///
/// The node that finds a server first is that server, until it is another one, or leaves. So a
/// connection that is lost for a while does not let another node take its place.
#[derive(Default)]
pub(crate) struct Servers {
    /// Entries are removed when their channel ends, so there are never more than nodes.
    owners: Mutex<HashMap<ServerIdentity, Weak<Channel>>>,
}

/// What is known of the server that a node is.
#[derive(Default)]
pub(super) struct Found {
    /// Its last identity that was no other node's.
    owned: Option<ServerIdentity>,
    /// The present connection leads there.
    is_current: bool,
    /// The node that is the same server, as far as is known.
    twin: Weak<Channel>,
    /// Why calls are refused, where that is a reason, and whose connection it was.
    refusal: Option<(ServerIdentity, Status)>,
}

impl Found {
    pub(super) fn refusal(&self) -> Option<&Status> {
        self.refusal.as_ref().map(|(_, status)| status)
    }

    pub(super) fn twin(&self) -> Option<Arc<Channel>> {
        self.twin.upgrade().filter(|twin| !twin.is_closing())
    }

    pub(super) fn connection_lost(&mut self) {
        self.is_current = false;
    }
}

impl Servers {
    /// A connection to a node has led to this server, as far as it is known. An error where that is
    /// another node, and may not be two: calls to the node are refused from now on, and those that are queued fail.
    pub(crate) fn identify(
        &self,
        channel: &Arc<Channel>,
        identity: Option<ServerIdentity>,
    ) -> Result<(), Status> {
        let before = channel.found().twin();
        let claimed =
            identity.and_then(|identity| Some((identity, self.claim(channel, identity)?)));
        let Some((identity, twin)) = claimed else {
            self.forget_refusal(channel);
            return Ok(());
        };
        let is_allowed = channel.pool().settings.allow_same_server;
        if !before.is_some_and(|before| Arc::ptr_eq(&before, &twin)) {
            tracing::warn!(
                target: "gorums::configuration",
                node = channel.id().get(),
                address = %channel.address(),
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
            channel.id(),
            channel.address(),
            twin.id(),
            twin.address()
        ));
        channel.found().refusal = Some((identity, status.clone()));
        let queued = channel.outbox().refuse();
        Channel::fail_unwritten(queued, Outcome::NotSent, &status);
        Err(status)
    }

    /// The node whose server this is, if it is another one than the node that has found it; else it
    /// is this node's from now on.
    fn claim(&self, channel: &Arc<Channel>, identity: ServerIdentity) -> Option<Arc<Channel>> {
        // Held over all, so that only one thread at a time looks at more than one node.
        let mut owners = self.owners.lock();
        let owner = owners.get(&identity).and_then(Weak::upgrade);
        let owner = owner.filter(|owner| owner.id() != channel.id() && !owner.is_closing());
        // When a server restarts, it is another one. Until the node that it was has connected again
        // it is not known that this one has come to be another server.
        let before = channel.found().twin();
        let before = before.filter(|twin| !twin.found().is_current);
        let mut found = channel.found();
        if let Some(twin) = owner.or(before) {
            found.twin = Arc::downgrade(&twin);
            return Some(twin);
        }
        found.twin = Weak::new();
        found.is_current = true;
        let last = found.owned.replace(identity);
        drop(found);
        remove(&mut owners, last.filter(|last| *last != identity), channel);
        owners.insert(identity, Arc::downgrade(channel));
        None
    }

    /// Before anything is written to a node whose calls are refused: an error where its address
    /// tells that it is the other node still.
    pub(crate) fn check(
        &self,
        channel: &Channel,
        address: Option<SocketAddr>,
    ) -> Result<(), Status> {
        let refusal = channel.found().refusal.clone();
        if let Some((ServerIdentity::At(before), status)) = refusal {
            if address.map(canonical_ip) == Some(before) {
                return Err(status);
            }
            self.forget_refusal(channel);
        }
        Ok(())
    }

    /// Calls to a node are not refused any more: it is another server, or one that does not say.
    pub(crate) fn forget_refusal(&self, channel: &Channel) {
        if channel.found().refusal.take().is_some() {
            channel.outbox().accept();
        }
    }

    /// A node has another address from now on: it is the server that it was until it is found to be
    /// another one.
    pub(crate) fn hand_over(&self, from: &Arc<Channel>, to: &Arc<Channel>) {
        let identity = from.found().owned;
        // Their id is the same, so the one does not keep the other from it.
        let _ = self.identify(to, identity);
    }

    /// A node has come to its end: another one may be the server that it was.
    pub(super) fn release(&self, channel: &Arc<Channel>) {
        let mut owners = self.owners.lock();
        let owned = channel.found().owned.take();
        remove(&mut owners, owned, channel);
    }
}

fn remove(
    owners: &mut HashMap<ServerIdentity, Weak<Channel>>,
    identity: Option<ServerIdentity>,
    channel: &Arc<Channel>,
) {
    if let Some(identity) = identity
        && owners
            .get(&identity)
            .is_some_and(|owner| std::ptr::eq(owner.as_ptr(), Arc::as_ptr(channel)))
    {
        owners.remove(&identity);
    }
}
