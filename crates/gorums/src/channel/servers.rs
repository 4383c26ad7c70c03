//! Which servers the nodes of a pool turn out to be: none is counted as two nodes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use http::HeaderMap;

use crate::error::Status;
use crate::runtime::canonical_ip;
use crate::sync::{Mutex, MutexGuard};
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

pub(super) type Owners<Channel> = HashMap<ServerIdentity, Weak<Channel>>;

/// The servers that the nodes of a pool have been, and the node that each is.
///
/// The node that finds a server first is that server, until it is another one, or leaves. So a
/// connection that is lost for a while does not let another node take its place.
pub(crate) struct Servers<Channel> {
    /// Entries are removed when their channel ends, so there are never more than nodes.
    owners: Mutex<Owners<Channel>>,
}

/// What is known of the server that a node is.
pub(super) struct Found<Channel> {
    /// Its last identity that was no other node's.
    pub(super) owned: Option<ServerIdentity>,
    /// The present connection leads there.
    pub(super) is_current: bool,
    /// The node that is the same server, as far as is known.
    pub(super) twin: Weak<Channel>,
    /// Why calls are refused, where that is a reason, and whose connection it was.
    pub(super) refusal: Option<(ServerIdentity, Status)>,
}

impl<Channel> Default for Servers<Channel> {
    fn default() -> Self {
        Self {
            owners: Mutex::default(),
        }
    }
}

impl<Channel> Default for Found<Channel> {
    fn default() -> Self {
        Self {
            owned: None,
            is_current: false,
            twin: Weak::new(),
            refusal: None,
        }
    }
}

impl<Channel> Found<Channel> {
    pub(super) fn refusal(&self) -> Option<&Status> {
        self.refusal.as_ref().map(|(_, status)| status)
    }
}

impl<Channel> Servers<Channel> {
    /// Held over all that is decided, so that only one thread at a time looks at several nodes.
    pub(super) fn lock(&self) -> MutexGuard<'_, Owners<Channel>> {
        self.owners.lock()
    }
}

/// Takes an identity from a channel that has it.
pub(super) fn remove<Channel>(
    owners: &mut Owners<Channel>,
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
