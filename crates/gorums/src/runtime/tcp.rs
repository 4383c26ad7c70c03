use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::unix::invalid;
use super::{Address, AddressError, BoxFuture, BoxIo, Listener, Transport};
use crate::log;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// TCP without Nagle's delay: the addresses are `host:port`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let (host, port) = read(address)?;
            let stream = TcpStream::connect((&*host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(TcpAcceptor::bind(address).await?) as Box<dyn Listener>) },
        )
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TcpAcceptor(TcpListener);

impl TcpAcceptor {
    /// Listens on an address, with `SO_REUSEADDR`, so that a server can take its port again right
    /// after it was stopped.
    ///
    /// # Errors
    /// The address cannot be resolved, or the system refuses it; the error names the address.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        let (host, port) = read(address).map_err(|error| named(address, &error))?;
        let candidates = lookup_host((&*host, port))
            .await
            .map_err(|error| named(address, &error))?;
        for candidate in candidates {
            match Self::listen_on(candidate) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(named(address, &last))
    }

    fn listen_on(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket.listen(BACKLOG)?))
    }
}

impl From<TcpListener> for TcpAcceptor {
    fn from(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Listener for TcpAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            loop {
                let (stream, peer) = self.0.accept().await?;
                match stream.set_nodelay(true) {
                    Ok(()) => return Ok((Box::new(stream) as BoxIo, Some(peer))),
                    // On some systems this is how one learns that the peer has gone meanwhile.
                    Err(error) => tracing::debug!(
                        target: log::SERVER,
                        %error,
                        "a connection was gone before it was accepted"
                    ),
                }
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr().map(Into::into)
    }
}

/// The host, without brackets, and the port.
fn read(address: &str) -> io::Result<(String, u16)> {
    let address: Address = address.parse().map_err(invalid)?;
    let (host, port) = address.host_and_port().ok_or_else(|| {
        let reason = "TCP has another form of address; expected host:port";
        invalid(AddressError::new(address.as_str(), reason))
    })?;
    Ok((host.to_owned(), port))
}

pub(super) fn named(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}
