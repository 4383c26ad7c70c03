use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use futures_core::Stream;

use super::{Change, ConfigurationError, NodeAddress};
use crate::runtime::{Address, AddressError, BoxFuture, Clock, SystemClock, bounded, canonical_ip};

/// The least time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

type Found = io::Result<Vec<SocketAddr>>;

/// Which addresses of a name are nodes. A name does not tell which of its IPv4 and IPv6 addresses
/// are one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Family {
    /// Those of the family of the address that the system's resolver puts first, which is one that
    /// this host can reach, as far as it knows. It stays that family as long as the name has any
    /// address of it.
    #[default]
    First,
    /// The IPv4 addresses.
    V4,
    /// The IPv6 addresses.
    V6,
    /// All. Where a host has two, its server is two nodes, of which the second is
    /// [refused](crate::ConfigurationBuilder::allow_same_server); but both count when a majority is
    /// reckoned. For names of which each host has one address.
    Both,
}

/// A host name and a port that are looked up again and again: a stream of changes of the addresses
/// that the name stands for, for [`Membership::follow`](super::Membership::follow).
///
/// Every address of one family, IPv4 or IPv6, is a node: a host that has both would be two nodes of
/// one server ([`family`](Self::family)). New ones join before old ones leave. The first look is at
/// once. A look that fails, or finds nothing, is an error and changes nothing, so that a name
/// server that is down costs no node.
///
/// The nodes get ids in the order in which this process finds them; other processes may give
/// others. Where ids must agree, list the nodes with their ids.
///
/// It is *not* needed for a node whose own host name will stand for another address: the name of a
/// node is looked up at each attempt to connect.
#[must_use = "a stream does nothing until it is polled"]
pub struct Resolve {
    family: Family,
    name: Arc<str>,
    interval: Duration,
    lookup: Arc<dyn Fn(Arc<str>) -> BoxFuture<'static, Found> + Send + Sync>,
    clock: Arc<dyn Clock>,
    /// None before the first look.
    looking: Option<BoxFuture<'static, Found>>,
    known: BTreeSet<SocketAddr>,
    changes: VecDeque<Change>,
}

impl Resolve {
    /// Looks up this name, `host:port`, at this interval, 100 ms at least.
    ///
    /// # Errors
    /// The name is not `host:port`.
    pub fn new(name: &str, interval: Duration) -> Result<Self, ConfigurationError> {
        let address: Address = name.parse()?;
        address.check_connectable()?;
        if address.port().is_none() {
            let reason = "there is no name to look up; expected host:port";
            return Err(AddressError::new(name, reason).into());
        }
        let name = address.as_str();
        Ok(Self {
            family: Family::default(),
            name: name.into(),
            interval: bounded(interval).max(MIN_INTERVAL),
            lookup: Arc::new(|name| {
                Box::pin(async move { Ok(tokio::net::lookup_host(&*name).await?.collect()) })
            }),
            clock: Arc::new(SystemClock),
            looking: None,
            known: BTreeSet::new(),
            changes: VecDeque::new(),
        })
    }

    /// Replaces the system's resolver.
    pub fn lookup<F>(mut self, lookup: impl Fn(Arc<str>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.lookup = Arc::new(move |name| Box::pin(lookup(name)));
        self
    }

    /// Which addresses are nodes. Default: [`Family::First`].
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Where time comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Looks the name up after a pause.
    fn look_after(&self, pause: Duration) -> BoxFuture<'static, Found> {
        let lookup = Arc::clone(&self.lookup);
        let name = Arc::clone(&self.name);
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            if !pause.is_zero() {
                clock.sleep_until(clock.now() + pause).await;
            }
            lookup(name).await
        })
    }

    fn found(&mut self, found: Found) -> io::Result<()> {
        let named =
            |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", self.name));
        // An IPv4 address within IPv6 is an IPv4 address.
        let all: Vec<_> = found
            .map_err(named)?
            .into_iter()
            .map(canonical_ip)
            .collect();
        let is_v4 = match self.family {
            // What is known is of one family.
            Family::First => {
                let last = self.known.first().map(SocketAddr::is_ipv4);
                let stays = last.filter(|last| all.iter().any(|one| one.is_ipv4() == *last));
                stays.or_else(|| all.first().map(SocketAddr::is_ipv4))
            }
            Family::V4 => Some(true),
            Family::V6 => Some(false),
            Family::Both => None,
        };
        let is_wanted = |one: &SocketAddr| is_v4.is_none_or(|is_v4| one.is_ipv4() == is_v4);
        let found: BTreeSet<_> = all.into_iter().filter(is_wanted).collect();
        if found.is_empty() {
            let nothing = match self.family {
                Family::First | Family::Both => "the name has no address",
                Family::V4 => "the name has no IPv4 address",
                Family::V6 => "the name has no IPv6 address",
            };
            return Err(named(io::Error::new(io::ErrorKind::NotFound, nothing)));
        }
        let joined = found.difference(&self.known).map(|address| {
            Change::Insert(NodeAddress {
                id: None,
                address: address.to_string(),
            })
        });
        self.changes.extend(joined);
        let left = self.known.difference(&found);
        self.changes
            .extend(left.map(|address| Change::RemoveAddress(address.to_string())));
        self.known = found;
        Ok(())
    }
}

impl Stream for Resolve {
    type Item = io::Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(change) = this.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            let looking = this.looking.take();
            let mut looking = looking.unwrap_or_else(|| this.look_after(Duration::ZERO));
            let Poll::Ready(found) = looking.as_mut().poll(cx) else {
                this.looking = Some(looking);
                return Poll::Pending;
            };
            this.looking = Some(this.look_after(this.interval));
            if let Err(error) = this.found(found) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl fmt::Debug for Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolve")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("family", &self.family)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
