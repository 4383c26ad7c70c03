use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{BoxFuture, BoxIo, Io};

/// A connection that has a handshake to make before it carries anything, TLS say, by which it learns
/// who the peer is.
///
/// A [`Transport`](super::Transport) hands it on as any other connection, and so does a
/// [`Listener`](super::Listener). The library makes the handshake: of a connection that was accepted
/// in the connection's own task, so that it holds up no other one, within
/// [`stream_timeout`](crate::ServerBuilder::stream_timeout) and counted by
/// [`max_connections`](crate::ServerBuilder::max_connections); of one to a node within
/// [`connect_timeout`](crate::ConfigurationBuilder::connect_timeout). Where the time is over, the
/// handshake is dropped. A node whose handshake fails has been sent nothing: its parts of calls are
/// [not sent](crate::Outcome::NotSent).
///
/// What the handshake [proved](Proven::with) of the peer is what the server's
/// [connect callback](crate::server::ConnectRequest::proven), its interceptors and its handlers find
/// with [`ServerCtx::proven`](crate::ServerCtx::proven), and so do those of a client that serves.
///
/// ```
/// use gorums::runtime::{BoxIo, Handshake, Proven};
/// use tokio::io::AsyncReadExt;
///
/// #[derive(Clone)]
/// struct Tenant(u8);
///
/// /// The first byte of a connection says whose it is.
/// fn with_tenant(mut io: BoxIo) -> BoxIo {
///     Box::new(Handshake::new(async move {
///         let tenant = io.read_u8().await?;
///         Ok(Proven::new(io).with(Tenant(tenant)))
///     }))
/// }
/// # let _ = with_tenant;
/// ```
///
/// A handshake can also be read and written like the connection that comes of it: then it is made
/// first, and what it proves is lost. So a transport that surrounds the connections of another one
/// leaves no handshake out; with [`made`](Self::made) and [`Proven::map_io`] it keeps what was proven,
/// too.
pub struct Handshake {
    peer_addr: Option<SocketAddr>,
    state: State,
}

enum State {
    Begun(BoxFuture<'static, Result<Proven, HandshakeError>>),
    Made(BoxIo),
    Failed,
}

impl Handshake {
    /// A connection that this future makes ready.
    pub fn new(
        handshake: impl Future<Output = Result<Proven, HandshakeError>> + Send + 'static,
    ) -> Self {
        Self {
            peer_addr: None,
            state: State::Begun(Box::pin(handshake)),
        }
    }

    /// One whose peer is known already, by the credentials that a unix socket has, say.
    #[must_use]
    pub fn done(proven: Proven) -> Self {
        Self::new(std::future::ready(Ok(proven)))
    }

    /// With the address of the peer. By this a client notices that two of its nodes are one server.
    #[must_use]
    pub fn with_peer_addr(mut self, address: Option<SocketAddr>) -> Self {
        self.peer_addr = address;
        self
    }

    /// The address of the peer, where that is known.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// Makes the handshake of a connection, where it has one to make. A transport that has another
    /// one below it begins with this. Dropping the future ends the connection.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn made(io: BoxIo) -> Result<Proven, HandshakeError> {
        match <dyn Io>::into_handshake(io) {
            Err(io) => Ok(Proven::new(io)),
            Ok(handshake) => match handshake.state {
                State::Begun(begun) => begun.await,
                State::Made(io) => Ok(Proven::new(io)),
                State::Failed => Err(failed_before().into()),
            },
        }
    }

    /// Whether there is one to make.
    pub(crate) fn is_one(io: &BoxIo) -> bool {
        (**io).has_handshake()
    }

    /// What comes of it, to be read and written.
    fn poll_made(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut BoxIo>> {
        if let State::Begun(begun) = &mut self.state {
            self.state = match ready!(begun.as_mut().poll(cx)) {
                Ok(proven) => State::Made(proven.io),
                Err(failed) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(failed.error));
                }
            };
        }
        Poll::Ready(match &mut self.state {
            State::Made(io) => Ok(io),
            State::Begun(_) | State::Failed => Err(failed_before()),
        })
    }
}

fn failed_before() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the handshake has failed")
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("peer_addr", &self.peer_addr)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Handshake {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = ready!(self.poll_made(cx))?;
        Pin::new(io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Handshake {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let io = ready!(self.poll_made(cx))?;
        Pin::new(io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = ready!(self.poll_made(cx))?;
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = ready!(self.poll_made(cx))?;
        Pin::new(io).poll_shutdown(cx)
    }
}

/// A connection, and what was proven of its peer.
pub struct Proven {
    io: BoxIo,
    known: Known,
}

/// What was proven.
#[derive(Default)]
pub(crate) struct Known {
    values: Extensions,
    /// Ready when it does not hold any more.
    until: Option<BoxFuture<'static, ()>>,
}

impl Known {
    #[cfg(feature = "tls")]
    pub(crate) fn with_io(self, io: BoxIo) -> Proven {
        Proven { io, known: self }
    }
}

impl Proven {
    /// A connection of whose peer nothing is known.
    #[must_use]
    pub fn new(io: BoxIo) -> Self {
        let known = Known::default();
        Self { io, known }
    }

    /// With this value, which says what was proven: there is one of each type at the most, and the
    /// last one counts.
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.known.values.insert(value);
        self
    }

    /// What was proven, of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.known.values.get()
    }

    /// Holds until this future completes, at which a certificate expires, say, or is revoked: a server
    /// winds the connection down then, without the loss of a call, as it does with one that is
    /// [old](crate::ServerBuilder::max_connection_age). So does a client, unless the node may call it
    /// over the connection: then it goes on for 60 s, and ends with what is not answered by then. Where
    /// one is given already, the connection ends with the first of the two.
    #[must_use]
    pub fn lasting(mut self, until: impl Future<Output = ()> + Send + 'static) -> Self {
        self.known.until = Some(match self.known.until.take() {
            None => Box::pin(until),
            Some(other) => Box::pin(async move {
                tokio::select! {
                    biased;
                    () = other => {}
                    () = until => {}
                }
            }),
        });
        self
    }

    /// With the connection in something else that is read and written, of which the same is proven.
    #[must_use]
    pub fn map_io(self, map: impl FnOnce(BoxIo) -> BoxIo) -> Self {
        Self {
            io: map(self.io),
            known: self.known,
        }
    }

    /// The connection, and what is to be [put](Known::with_io) to what becomes of it.
    #[cfg(feature = "tls")]
    pub(crate) fn without_io(self) -> (BoxIo, Known) {
        (self.io, self.known)
    }

    /// A connection of whose peer these values say what was proven.
    #[cfg(feature = "tower")]
    pub(crate) fn from_parts(io: BoxIo, values: Extensions) -> Self {
        let until = None;
        Self {
            io,
            known: Known { values, until },
        }
    }

    /// The connection, and what was proven.
    pub(crate) fn into_parts(self) -> (BoxIo, Extensions) {
        (self.io, self.known.values)
    }

    /// Completes when what was proven holds no more, where that may be.
    pub(crate) fn take_until(&mut self) -> Option<BoxFuture<'static, ()>> {
        self.known.until.take()
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven")
            .field("values", &self.known.values.len())
            .finish_non_exhaustive()
    }
}

/// Why a handshake failed. It comes of any [`io::Error`], so that `?` makes it.
///
/// A server logs it, with the address of the peer: at DEBUG where the kind of the error says that
/// the peer has gone ([`UnexpectedEof`], [`ConnectionReset`], [`ConnectionAborted`],
/// [`BrokenPipe`]), as whoever looks whether a port is open does, and as a warning otherwise.
///
/// [`UnexpectedEof`]: io::ErrorKind::UnexpectedEof
/// [`ConnectionReset`]: io::ErrorKind::ConnectionReset
/// [`ConnectionAborted`]: io::ErrorKind::ConnectionAborted
/// [`BrokenPipe`]: io::ErrorKind::BrokenPipe
pub struct HandshakeError {
    error: io::Error,
    farewell: Option<BoxFuture<'static, ()>>,
}

impl HandshakeError {
    /// With what is to be done before the connection is closed. A server does it within what is left
    /// of [`stream_timeout`](crate::ServerBuilder::stream_timeout).
    ///
    /// Where something has come that nobody has read, the system resets a connection that is closed,
    /// and the peer may never read why. So whoever refuses a peer that may be writing ends its own
    /// side, and reads until the peer has ended the other.
    #[must_use]
    pub fn with_farewell(mut self, farewell: impl Future<Output = ()> + Send + 'static) -> Self {
        self.farewell = Some(Box::pin(farewell));
        self
    }

    /// Whether the peer has gone, and nobody has refused anything.
    pub(crate) fn is_gone(&self) -> bool {
        use io::ErrorKind as Kind;

        matches!(
            self.error.kind(),
            Kind::UnexpectedEof
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe
        )
    }

    pub(crate) fn into_parts(self) -> (io::Error, Option<BoxFuture<'static, ()>>) {
        (self.error, self.farewell)
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            farewell: None,
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(failed: HandshakeError) -> Self {
        failed.error
    }
}

impl fmt::Debug for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandshakeError").field(&self.error).finish()
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Name(&'static str);

    fn pipe() -> (BoxIo, BoxIo) {
        let (ours, theirs) = tokio::io::duplex(64);
        (Box::new(ours), Box::new(theirs))
    }

    /// Reads a byte, and knows the peer then.
    fn reading(mut io: BoxIo) -> BoxIo {
        Box::new(Handshake::new(async move {
            match io.read_u8().await? {
                1 => Ok(Proven::new(io).with(Name("one"))),
                other => Err(io::Error::other(format!("not {other}")).into()),
            }
        }))
    }

    #[tokio::test]
    async fn a_handshake_is_made_once_and_tells_what_it_proved() {
        let (ours, mut theirs) = pipe();
        let io = reading(ours);
        assert!(Handshake::is_one(&io));
        theirs.write_all(&[1, 2]).await.expect("there is room");
        let proven = Handshake::made(io).await.expect("it is one");
        assert_eq!(proven.get::<Name>(), Some(&Name("one")));
        let (mut io, _) = proven.into_parts();
        assert!(!Handshake::is_one(&io));
        assert_eq!(io.read_u8().await.expect("what follows"), 2);
    }

    #[tokio::test]
    async fn a_connection_without_one_stays_as_it_is() {
        let (ours, _theirs) = pipe();
        assert!(!Handshake::is_one(&ours));
        let proven = Handshake::made(ours).await.expect("there is none");
        assert_eq!(proven.get::<Name>(), None);
    }

    #[tokio::test]
    async fn who_reads_and_writes_a_handshake_makes_it_first() {
        let (ours, mut theirs) = pipe();
        let mut io = reading(ours);
        theirs.write_all(&[1, 2]).await.expect("there is room");
        assert_eq!(io.read_u8().await.expect("behind the handshake"), 2);
        io.write_u8(3).await.expect("there is room");
        assert_eq!(theirs.read_u8().await.expect("as written"), 3);

        let (ours, mut theirs) = pipe();
        let mut io = reading(ours);
        theirs.write_all(&[7]).await.expect("there is room");
        let refused = io.write_u8(3).await.expect_err("it is not 1");
        assert_eq!(refused.to_string(), "not 7");
        let again = io.read_u8().await.expect_err("it stays so");
        assert_eq!(again.kind(), io::ErrorKind::NotConnected);
    }
}
