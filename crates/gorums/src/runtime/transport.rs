use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::{Address, AddressError, BoxFuture, Handshake};

/// A connected, reliable, ordered stream of bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The address of the other end, where this is a TCP stream.
    #[doc(hidden)]
    fn peer_addr(&self) -> Option<SocketAddr>;

    /// The same stream with its readiness told by the present runtime, where this is a socket of
    /// the system; others stay where they are.
    #[doc(hidden)]
    fn into_present_runtime(self: Box<Self>) -> io::Result<BoxIo>;

    /// Whether this is a [`Handshake`] that may have yet to be made.
    #[doc(hidden)]
    fn has_handshake(&self) -> bool;

    /// The [`Handshake`], where this is one.
    #[doc(hidden)]
    fn into_handshake(self: Box<Self>) -> Result<Handshake, BoxIo>;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {
    fn peer_addr(&self) -> Option<SocketAddr> {
        let any = self as &dyn Any;
        if let Some(handshake) = any.downcast_ref::<Handshake>() {
            return handshake.peer_addr();
        }
        any.downcast_ref::<TcpStream>()?.peer_addr().ok()
    }

    fn has_handshake(&self) -> bool {
        (self as &dyn Any).is::<Handshake>()
    }

    fn into_handshake(self: Box<Self>) -> Result<Handshake, BoxIo> {
        // Of what is in the box, and not of the box.
        if !(*self).has_handshake() {
            return Err(self);
        }
        let any: Box<dyn Any> = self;
        Ok(*any.downcast().expect("it was asked whether it is one"))
    }

    fn into_present_runtime(self: Box<Self>) -> io::Result<BoxIo> {
        let io: Box<dyn Any> = self;
        let io = match io.downcast::<TcpStream>() {
            Ok(stream) => return Ok(Box::new(TcpStream::from_std(stream.into_std()?)?)),
            Err(io) => io,
        };
        #[cfg(unix)]
        let io = match io.downcast::<UnixStream>() {
            Ok(stream) => return Ok(Box::new(UnixStream::from_std(stream.into_std()?)?)),
            Err(io) => io,
        };
        let io = io.downcast::<T>().expect("that is what it was made of");
        Ok(io)
    }
}

/// A boxed [`Io`].
pub type BoxIo = Box<dyn Io>;

/// Where the connections come from: TCP and unix sockets by default, a simulated network in a
/// simulation.
pub trait Transport: Send + Sync + 'static {
    /// Called in the runtime that is to drive the connections, before there are any. By default it
    /// has what the transport needs.
    ///
    /// # Errors
    /// The runtime lacks something, which the error names.
    fn check_runtime(&self) -> io::Result<()> {
        Ok(())
    }

    /// Connects to an address as it was given to the configuration. A host name is resolved here,
    /// again at every attempt. The library bounds the time that it takes and drops the future then.
    /// A connection that has a handshake to make, or whose peer is known, is a [`Handshake`].
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>>;

    /// Reads an address as users write it: the configuration checks those of its nodes by this, and
    /// two that have the same [canonical form](Address::canonical) are those of one node. By
    /// default they are `host:port` or `unix:/path`; a transport that has addresses of its own
    /// makes them with [`Address::custom`].
    ///
    /// # Errors
    /// The text is no address of this transport.
    fn address(&self, text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    /// Starts to listen on an address, as it was given to the server.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Accepts connections. Dropping it stops listening.
pub trait Listener: Send + 'static {
    /// The next connection, and the peer's IP address where it has one. The future may be dropped
    /// without losing a connection. Nothing else is accepted meanwhile: what is to be read from the
    /// peer first, or awaited otherwise, belongs into a [`Handshake`].
    ///
    /// # Errors
    /// After an error that concerns one connection only, as its kind says ([`ConnectionAborted`],
    /// say, or [`PermissionDenied`]), the server asks for the next one at once. Any other error,
    /// such as too many open files, would come again, so the server pauses for 50 ms.
    ///
    /// [`ConnectionAborted`]: io::ErrorKind::ConnectionAborted
    /// [`PermissionDenied`]: io::ErrorKind::PermissionDenied
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>>;

    /// The address that it listens on, with the port that the system chose if it was asked to.
    ///
    /// # Errors
    /// The operating system does not tell.
    fn local_addr(&self) -> io::Result<Address>;
}

/// Whether this error of [`Listener::accept`] concerns the connection that was to be accepted, and
/// says nothing of the next one. Linux reports errors of the network in this place, too.
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;

    matches!(
        error.kind(),
        Kind::BrokenPipe
            | Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::Interrupted
            | Kind::InvalidData
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::NotConnected
            | Kind::PermissionDenied
            | Kind::TimedOut
            | Kind::UnexpectedEof
    ) || (cfg!(target_os = "linux") && error.raw_os_error().is_some_and(is_of_the_network))
}

/// Linux' numbers for errors of the network that have no [kind](io::ErrorKind): `ENONET`, `EPROTO`,
/// `ENOPROTOOPT` and `EHOSTDOWN`.
fn is_of_the_network(number: i32) -> bool {
    matches!(number, 64 | 71 | 92 | 112)
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn check_runtime(&self) -> io::Result<()> {
        (**self).check_runtime()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        (**self).connect(address)
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        (**self).address(text)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        (**self).listen(address)
    }
}

impl Listener for Box<dyn Listener> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        (**self).accept()
    }

    fn local_addr(&self) -> io::Result<Address> {
        (**self).local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_connection_are_told_from_those_that_come_again() {
        for kind in [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::PermissionDenied,
        ] {
            assert!(concerns_one_connection(&kind.into()), "{kind}");
        }
        for kind in [io::ErrorKind::OutOfMemory, io::ErrorKind::InvalidInput] {
            assert!(!concerns_one_connection(&kind.into()), "{kind}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_s_errors_are_told_apart_by_their_numbers() {
        let error = io::Error::from_raw_os_error;
        // ECONNABORTED, and what accept(2) says to treat like a connection that is not there.
        for number in [103, 1, 64, 71, 92, 100, 101, 112, 113] {
            assert!(concerns_one_connection(&error(number)), "{number}");
        }
        // EMFILE, ENFILE, ENOBUFS, ENOMEM; EBADF and EINVAL are of the listener.
        for number in [24, 23, 105, 12, 9, 22] {
            assert!(!concerns_one_connection(&error(number)), "{number}");
        }
    }
}
