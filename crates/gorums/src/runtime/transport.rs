use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use super::BoxFuture;

/// A connected, reliable, ordered stream of bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed [`Io`].
pub type BoxIo = Box<dyn Io>;

/// Where the connections come from: TCP by default, a simulated network in a simulation.
pub trait Transport: Send + Sync + 'static {
    /// Connects to an address as it was given to the configuration. A host name is resolved here,
    /// again at every attempt. The library bounds the time that it takes and drops the future then.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>>;

    /// Starts to listen on an address.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Accepts connections. Dropping it stops listening.
pub trait Listener: Send + 'static {
    /// The next connection, and the peer's address where it has one. The future may be dropped
    /// without losing a connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>>;

    /// The address that it listens on, with the port that the system chose if it was asked to.
    ///
    /// # Errors
    /// The operating system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for Box<dyn Listener> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        (**self).accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        (**self).local_addr()
    }
}
