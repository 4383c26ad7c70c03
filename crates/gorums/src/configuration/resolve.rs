use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use futures_core::Stream;

use super::{Change, ConfigurationError, NodeAddress};
use crate::runtime::{Address, AddressError, BoxFuture, Clock, SystemClock, bounded};

/// The least time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

type Found = io::Result<Vec<SocketAddr>>;

/// A host name and a port that are looked up again and again: a stream of changes of the addresses
/// that the name stands for, for [`Membership::follow`](super::Membership::follow).
///
/// Every address is a node; new ones join before old ones leave. The first look is at once. A look
/// that fails, or finds nothing, is an error and changes nothing, so that a name server that is
/// down costs no node.
///
/// The nodes get ids in the order in which this process finds them; other processes may give
/// others. Where ids must agree, list the nodes with their ids.
///
/// It is *not* needed for a node whose own host name will stand for another address: the name of a
/// node is looked up at each attempt to connect.
#[must_use = "a stream does nothing until it is polled"]
pub struct Resolve {
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
        let found: BTreeSet<_> = found.map_err(named)?.into_iter().collect();
        if found.is_empty() {
            let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(named(nothing));
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
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
