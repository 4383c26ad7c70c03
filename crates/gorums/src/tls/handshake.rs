use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io};

use http::Extensions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::builder::{H2, TlsBuilder};
use super::error::TlsError;
use super::failure::{explained, refused};
use super::peer::TlsPeer;
use super::stream::Stream;
use super::validity;
use crate::runtime::{
    Address, AddressError, BoxFuture, BoxIo, Handshake, HandshakeError, Listener, Proven, Transport,
};

/// How many bytes are read from a peer that was refused, until it ends its side.
const FAREWELL: u64 = 256 * 1024;

/// TLS over another transport: for clients, for servers, and for those that are both. See the
/// [module](crate::tls).
///
/// A clone shares everything with the one that it was made of, sessions that can be resumed among
/// it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    below: Arc<dyn Transport>,
    /// Where authorities are trusted.
    client: Option<Arc<ClientConfig>>,
    /// Where there is a certificate.
    server: Option<Arc<ServerConfig>>,
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
        client: Option<Arc<ClientConfig>>,
        server: Option<Arc<ServerConfig>>,
        name: Option<ServerName<'static>>,
    ) -> Self {
        Self(Arc::new(Inner {
            below,
            client,
            server,
            name,
        }))
    }

    /// The connections of this listener with TLS on them, for
    /// [`ServerBuilder::with_incoming`](crate::ServerBuilder::with_incoming).
    ///
    /// # Errors
    /// There is no [identity](TlsBuilder::identity).
    pub fn listener<L: Listener>(&self, listener: L) -> Result<TlsListener<L>, TlsError> {
        let config = self.0.server.clone().ok_or(TlsError::NoIdentity)?;
        Ok(TlsListener { listener, config })
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

    fn client(&self, address: &Address) -> Result<&Arc<ClientConfig>, AddressError> {
        self.0.client.as_ref().ok_or_else(|| {
            AddressError::new(
                address.as_str(),
                "no authority is trusted that could have made the certificate of the node: give \
                 it to TlsBuilder::trust",
            )
        })
    }
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
        self.0.below.check_runtime()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            let parsed = self.0.below.address(address).map_err(invalid)?;
            let config = Arc::clone(self.client(&parsed).map_err(invalid)?);
            let name = self.name_of(&parsed).map_err(invalid)?;
            let io = self.0.below.connect(address).await?;
            // Of the stream, and not of the box around it.
            let peer_addr = (*io).peer_addr();
            let handshake = Handshake::new(connect(io, config, name));
            Ok(Box::new(handshake.with_peer_addr(peer_addr)) as BoxIo)
        })
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        let address = self.0.below.address(text)?;
        self.client(&address)?;
        self.name_of(&address)?;
        Ok(address)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let config =
                self.0.server.clone().ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, TlsError::NoIdentity)
                })?;
            let listener = self.0.below.listen(address).await?;
            Ok(Box::new(TlsListener { listener, config }) as Box<dyn Listener>)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("connects", &self.0.client.is_some())
            .field("listens", &self.0.server.is_some())
            .field("server_name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// A listener whose connections begin with TLS, made by [`Tls::listener`]. Each handshake is made in
/// the task of its connection.
pub struct TlsListener<L> {
    listener: L,
    config: Arc<ServerConfig>,
}

impl<L: Listener> Listener for TlsListener<L> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (io, peer) = self.listener.accept().await?;
            let handshake = Handshake::new(accept(io, Arc::clone(&self.config)));
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
    name: ServerName<'static>,
) -> Result<Proven, HandshakeError> {
    let (io, values) = Handshake::made(io).await?.into_parts();
    let stream = TlsConnector::from(config).connect(name, io).await;
    let stream = stream.map_err(explained)?;
    let peer = proven(stream.get_ref().1)?;
    Ok(with_peer(Stream::boxed(stream), values, peer))
}

/// The handshake of a connection that was accepted.
async fn accept(io: BoxIo, config: Arc<ServerConfig>) -> Result<Proven, HandshakeError> {
    let (io, values) = Handshake::made(io).await?.into_parts();
    let accepting = TlsAcceptor::from(config).accept(io).into_fallible();
    let stream = accepting.await.map_err(|(error, io)| {
        // The alert is written.
        HandshakeError::from(explained(error)).with_farewell(farewell(io))
    })?;
    match proven(stream.get_ref().1) {
        Ok(peer) => Ok(with_peer(Stream::boxed(stream), values, peer)),
        Err(error) => {
            Err(HandshakeError::from(error).with_farewell(farewell(Stream::boxed(stream))))
        }
    }
}

/// Who the peer is, of a handshake that has come about; None of a client without a certificate.
fn proven(session: &CommonState) -> io::Result<Option<TlsPeer>> {
    if session.alpn_protocol() != Some(H2) {
        let text = "the peer did not agree to speak HTTP/2: it offers no ALPN protocol h2";
        return Err(refused(text));
    }
    let Some(certificates) = session.peer_certificates() else {
        return Ok(None);
    };
    // A session that is resumed does not look at the certificate again.
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    if is_resumed && certificates.iter().any(|one| validity::check(one).is_err()) {
        return Err(refused(
            "a certificate of the peer has expired since the session began that it resumes",
        ));
    }
    let certificates = certificates.iter().cloned().map(|der| der.into_owned());
    match TlsPeer::of(certificates.collect()) {
        Ok(peer) => Ok(Some(peer)),
        Err(reason) => Err(refused(&format!(
            "the certificate of the peer cannot be read: {reason}"
        ))),
    }
}

fn with_peer(io: BoxIo, values: Extensions, peer: Option<TlsPeer>) -> Proven {
    let proven = Proven::from_parts(io, values);
    match peer {
        Some(peer) => proven.with(peer),
        None => proven,
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
