use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, CommonState, HandshakeKind};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::builder::TlsBuilder;
use super::error::TlsError;
use super::exchange::Exchange;
use super::failure::{explained, refused};
use super::material::{H2, Material};
use super::peer::TlsPeer;
use super::pem::Pem;
use super::sources::Sources;
use super::standing::until_refused;
use super::stream::Stream;
use crate::runtime::{
    Address, AddressError, BoxFuture, BoxIo, Clock, Handshake, HandshakeError, Listener, Proven,
    Transport,
};

/// How many bytes are read from a peer that was refused, until it ends its side.
const FAREWELL: u64 = 256 * 1024;

/// TLS over another transport: for clients, for servers, and for those that are both. See the
/// [module](crate::tls).
///
/// A clone shares everything with the one that it was made of: sessions that can be resumed, and
/// certificates, which can be exchanged while all of them are in use.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    below: Arc<dyn Transport>,
    exchange: Arc<Exchange>,
    /// What all nodes are called.
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Describes one.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::new()
    }

    pub(super) fn new(
        below: Arc<dyn Transport>,
        exchange: Arc<Exchange>,
        name: Option<ServerName<'static>>,
    ) -> Self {
        Self(Arc::new(Inner {
            below,
            exchange,
            name,
        }))
    }

    /// Reads again what was given, and takes it over, for all clones: connections that are made or
    /// accepted from now on are made with what the files have now, and no session is resumed that was
    /// made before. Connections that stand go on; those with peers that would be refused now are wound
    /// down within 5 s. True if anything has changed, which is logged; what has not is left as it is.
    ///
    /// This blocks the thread while files are read: in a task, have
    /// [`spawn_blocking`](tokio::task::spawn_blocking) do it. [`TlsBuilder::reload_every`] does it by
    /// itself.
    ///
    /// # Errors
    /// What there is now cannot be used: see [`TlsError`], which names the file. All stays as it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.exchange().apply()
    }

    /// Exchanges what was given for something else, by values or other files. What is not named
    /// stays, and is read again.
    ///
    /// ```no_run
    /// # fn run(tls: gorums::tls::Tls, old: String, new: String) -> Result<(), gorums::tls::TlsError> {
    /// use gorums::tls::Pem;
    ///
    /// // The first step from one authority to another: both are trusted.
    /// tls.exchange().trust([Pem::value(old), Pem::value(new)]).apply()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn exchange(&self) -> TlsExchange<'_> {
        TlsExchange {
            of: &self.0.exchange,
            identity: None,
            roots: None,
            revocation: None,
        }
    }

    /// The connections of this listener with TLS on them, for
    /// [`ServerBuilder::with_incoming`](crate::ServerBuilder::with_incoming).
    ///
    /// # Errors
    /// There is no [identity](TlsBuilder::identity).
    pub fn listener<L: Listener>(&self, listener: L) -> Result<TlsListener<L>, TlsError> {
        let exchange = Arc::clone(&self.0.exchange);
        if exchange.present().server.is_none() {
            return Err(TlsError::NoIdentity);
        }
        Ok(TlsListener { listener, exchange })
    }

    /// What the certificate of the node with this address is to name.
    fn name_of(&self, address: &Address) -> Result<ServerName<'static>, AddressError> {
        if let Some(name) = &self.0.name {
            return Ok(name.clone());
        }
        let host = address.host_and_port().map(|(host, _)| host);
        host.and_then(server_name).ok_or_else(|| {
            AddressError::new(
                address.as_str(),
                "there is no host name or IP address in it that a certificate could have: give \
                 TlsBuilder::server_name",
            )
        })
    }
}

/// Nobody can be dialled.
fn untrusting(address: &Address) -> AddressError {
    AddressError::new(
        address.as_str(),
        "no authority is trusted that could have made the certificate of the node: give it to \
         TlsBuilder::trust",
    )
}

/// A host as certificates have it, of an address or by itself.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    // Neither the dot of a name that is whole nor the interface of an address is in a certificate.
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host.split_once('%').map_or(host, |(ip, _)| ip);
    ServerName::try_from(host.to_owned()).ok()
}

impl Transport for Tls {
    fn check_runtime(&self) -> io::Result<()> {
        self.0.below.check_runtime()?;
        if self.0.exchange.is_watched() {
            self.0.exchange.clock().check_runtime()?;
            self.0.exchange.keep_watch();
        }
        Ok(())
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            self.0.exchange.keep_watch();
            let parsed = self.0.below.address(address).map_err(invalid)?;
            let name = self.name_of(&parsed).map_err(invalid)?;
            let io = self.0.below.connect(address).await?;
            // Of the stream, and not of the box around it.
            let peer_addr = (*io).peer_addr();
            let mut present = self.0.exchange.follow();
            let material = Arc::clone(&present.borrow_and_update());
            let config = material.client.clone();
            let config = config.ok_or_else(|| invalid(untrusting(&parsed)))?;
            let clock = Arc::clone(self.0.exchange.clock());
            let handshake = Handshake::new(connect(io, config, material, present, name, clock));
            Ok(Box::new(handshake.with_peer_addr(peer_addr)) as BoxIo)
        })
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        let address = self.0.below.address(text)?;
        if self.0.exchange.present().client.is_none() {
            return Err(untrusting(&address));
        }
        self.name_of(&address)?;
        Ok(address)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            if self.0.exchange.present().server.is_none() {
                let missing = TlsError::NoIdentity;
                return Err(io::Error::new(io::ErrorKind::InvalidInput, missing));
            }
            let listener = self.0.below.listen(address).await?;
            let exchange = Arc::clone(&self.0.exchange);
            Ok(Box::new(TlsListener { listener, exchange }) as Box<dyn Listener>)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.0.exchange.present();
        f.debug_struct("Tls")
            .field("connects", &present.client.is_some())
            .field("listens", &present.server.is_some())
            .field("server_name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// What is to take the place of what was given to a [`TlsBuilder`], all of it or nothing. Made by
/// [`Tls::exchange`].
#[must_use = "nothing happens before `apply`"]
pub struct TlsExchange<'a> {
    of: &'a Exchange,
    identity: Option<(Pem, Pem)>,
    roots: Option<Vec<Pem>>,
    revocation: Option<Vec<Pem>>,
}

impl TlsExchange<'_> {
    /// Another certificate of this process and its key, as for [`TlsBuilder::identity`].
    pub fn identity(mut self, certificates: Pem, key: Pem) -> Self {
        self.identity = Some((certificates, key));
        self
    }

    /// These authorities in the place of all that were trusted, as for [`TlsBuilder::trust`].
    pub fn trust(mut self, roots: impl IntoIterator<Item = Pem>) -> Self {
        self.roots = Some(roots.into_iter().collect());
        self
    }

    /// These revocation lists in the place of all that there were, as for
    /// [`TlsBuilder::revocation`].
    pub fn revocation(mut self, lists: impl IntoIterator<Item = Pem>) -> Self {
        self.revocation = Some(lists.into_iter().collect());
        self
    }

    /// Takes it over, as [`Tls::reload`] does: true if anything has changed. This blocks the thread
    /// while files are read.
    ///
    /// # Errors
    /// It cannot be used: see [`TlsError`]. All stays as it was.
    pub fn apply(self) -> Result<bool, TlsError> {
        let Self {
            of,
            identity,
            roots,
            revocation,
        } = self;
        let exchanged = of.take(|before| Sources {
            identity: identity.or(before.identity),
            roots: roots.unwrap_or(before.roots),
            revocation: revocation.unwrap_or(before.revocation),
        })?;
        if let Some(exchanged) = &exchanged {
            exchanged.tell(&**of.clock());
        }
        Ok(exchanged.is_some())
    }
}

impl fmt::Debug for TlsExchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsExchange")
            .field("identity", &self.identity)
            .field("roots", &self.roots)
            .field("revocation", &self.revocation)
            .finish_non_exhaustive()
    }
}

/// A listener whose connections begin with TLS, made by [`Tls::listener`]. Each handshake is made in
/// the task of its connection.
pub struct TlsListener<L> {
    listener: L,
    exchange: Arc<Exchange>,
}

impl<L: Listener> Listener for TlsListener<L> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            self.exchange.keep_watch();
            let (io, peer) = self.listener.accept().await?;
            let handshake = Handshake::new(accept(io, Arc::clone(&self.exchange)));
            Ok((Box::new(handshake.with_peer_addr(peer)) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug> fmt::Debug for TlsListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// The handshake of a connection that this process has made.
async fn connect(
    io: BoxIo,
    config: Arc<ClientConfig>,
    made_with: Arc<Material>,
    present: watch::Receiver<Arc<Material>>,
    name: ServerName<'static>,
    clock: Arc<dyn Clock>,
) -> Result<Proven, HandshakeError> {
    let below = Handshake::made(io).await?;
    let (io, below) = below.without_io();
    let connector = TlsConnector::from(config);
    let stream = connector.connect(name.clone(), io).await;
    let stream = stream.map_err(explained)?;
    let is_taken = move |material: &Material, chain: &[CertificateDer<'_>], now: SystemTime| {
        material.takes_node(&name, chain, now)
    };
    let now = clock.wall_clock();
    let peer = proven(stream.get_ref().1, |chain| is_taken(&made_with, chain, now))?;
    drop(made_with);
    let proven = below.with_io(Stream::boxed(stream));
    let Some((peer, chain)) = peer else {
        return Ok(proven);
    };
    Ok(proven
        .with(peer)
        .lasting(until_refused(present, chain, clock, is_taken)))
}

/// The handshake of a connection that was accepted.
async fn accept(io: BoxIo, exchange: Arc<Exchange>) -> Result<Proven, HandshakeError> {
    let mut present = exchange.follow();
    let clock = Arc::clone(exchange.clock());
    drop(exchange);
    let (io, below) = Handshake::made(io).await?.without_io();
    let made_with = Arc::clone(&present.borrow_and_update());
    let config = made_with.server.clone();
    let config = config.ok_or_else(|| refused("this process has no certificate any more"))?;
    let accepting = TlsAcceptor::from(config).accept(io).into_fallible();
    let stream = accepting.await.map_err(|(error, io)| {
        // The alert is written.
        HandshakeError::from(explained(error)).with_farewell(farewell(io))
    })?;
    let now = clock.wall_clock();
    let proven = proven(stream.get_ref().1, |chain| {
        made_with.takes_client(chain, now)
    });
    drop(made_with);
    match proven {
        Ok(peer) => {
            let proven = below.with_io(Stream::boxed(stream));
            Ok(match peer {
                Some((peer, chain)) => proven.with(peer).lasting(until_refused(
                    present,
                    chain,
                    clock,
                    Material::takes_client,
                )),
                None => proven,
            })
        }
        Err(error) => {
            Err(HandshakeError::from(error).with_farewell(farewell(Stream::boxed(stream))))
        }
    }
}

/// Who the peer is, of a handshake that has come about, and its certificates; None of a client
/// without one. `is_taken` says whether a whole handshake would take them.
fn proven(
    session: &CommonState,
    is_taken: impl FnOnce(&[CertificateDer<'static>]) -> bool,
) -> io::Result<Option<(TlsPeer, Vec<CertificateDer<'static>>)>> {
    if session.alpn_protocol() != Some(H2) {
        let text = "the peer did not agree to speak HTTP/2: it offers no ALPN protocol h2";
        return Err(refused(text));
    }
    let Some(certificates) = session.peer_certificates() else {
        return Ok(None);
    };
    let certificates = certificates.iter().cloned().map(|der| der.into_owned());
    let certificates: Vec<_> = certificates.collect();
    // A session that is resumed does not look at the certificates again. They have been since nothing
    // was exchanged, so nothing but time can have made them bad ones. Of those that nobody needs to
    // get to an authority, which may have expired long ago, no more is asked than at the first time.
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    if is_resumed && !is_taken(&certificates) {
        return Err(refused(
            "a certificate of the peer has expired since the session began that it resumes",
        ));
    }
    match TlsPeer::of(certificates.clone()) {
        Ok(peer) => Ok(Some((peer, certificates))),
        Err(reason) => Err(refused(&format!(
            "the certificate of the peer cannot be read: {reason}"
        ))),
    }
}

/// Ends this side, and reads until the peer has ended the other. If the connection were closed at
/// once, what the peer still writes would reset it, and the peer could lose the alert.
async fn farewell(mut io: BoxIo) {
    if io.shutdown().await.is_ok() {
        // Whatever ends it is the end.
        let _ = tokio::io::copy(&mut io.take(FAREWELL), &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_certificates_have() {
        for (host, name) in [
            ("localhost", Some("localhost")),
            ("node-1.example.com.", Some("node-1.example.com")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("fe80::1%2", Some("fe80::1")),
            ("", None),
            ("a b", None),
            ("host:80", None),
        ] {
            let found = server_name(host).map(|name| name.to_str().into_owned());
            assert_eq!(found.as_deref(), name, "{host:?}");
        }
    }
}
