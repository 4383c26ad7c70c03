use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use gorums::runtime::{Address, BoxFuture, BoxIo, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::world::{Shared, World};

/// The port of every replica.
pub(crate) const PORT: u16 = 7000;

/// The network of a simulation, as one node sees it.
#[derive(Debug, Clone)]
pub struct Transport {
    world: Arc<World>,
    node: usize,
}

impl Transport {
    pub(crate) fn new(world: &Arc<World>, node: usize) -> Self {
        Self {
            world: Arc::clone(world),
            node,
        }
    }

    fn stream(&self, io: TcpStream, peer: usize) -> BoxIo {
        let (id, io) = self.world.open_stream(self.node, peer, io);
        Box::new(Stream {
            io,
            world: Arc::clone(&self.world),
            node: self.node,
            peer,
            id,
        })
    }
}

impl gorums::runtime::Transport for Transport {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            self.world.runs(self.node).await;
            let unknown = || io::Error::new(io::ErrorKind::NotFound, "no node of the simulation");
            let (host, _) = address.rsplit_once(':').ok_or_else(unknown)?;
            let peer = node_of(turmoil::lookup(host)).ok_or_else(unknown)?;
            self.world.touches(self.node, peer, "connect", 0);
            let stream = TcpStream::connect(address).await?;
            self.world.runs(self.node).await;
            Ok(self.stream(stream, peer))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let transport = self.clone();
            let listener = Accepting {
                listener,
                transport,
            };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

/// Which node has an address: turmoil gives them out in the order in which the nodes are made.
fn node_of(address: std::net::IpAddr) -> Option<usize> {
    match address {
        std::net::IpAddr::V4(address) => usize::from(address.octets()[3]).checked_sub(1),
        std::net::IpAddr::V6(_) => None,
    }
}

struct Accepting {
    listener: TcpListener,
    transport: Transport,
}

impl Listener for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            self.transport.world.runs(self.transport.node).await;
            let node = node_of(peer.ip()).expect("only nodes of the simulation connect");
            Ok((self.transport.stream(stream, node), Some(peer)))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.listener.local_addr().map(Into::into)
    }
}

/// One end of a connection, which can be reset, and which waits while its node stands still.
struct Stream {
    io: Shared,
    world: Arc<World>,
    node: usize,
    peer: usize,
    id: u64,
}

impl Stream {
    fn poll_ready(&self, cx: &Context<'_>, reads: bool) -> Poll<io::Result<()>> {
        if self.world.poll_runs(self.node, cx).is_pending() {
            return Poll::Pending;
        }
        if self.world.stream_broken(self.id, cx, reads) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.io.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(io) => poll(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_ready(cx, true))?;
        self.with(|io| io.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_ready(cx, false))?;
        let written = std::task::ready!(self.with(|io| io.poll_write(cx, bytes)))?;
        self.world.touches(self.node, self.peer, "data", written);
        Poll::Ready(Ok(written))
    }

    /// One segment, however many pieces the bytes come in.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.iter().copied())
            .collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_ready(cx, false))?;
        self.with(|io| io.poll_shutdown(cx))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.world.close_stream(self.id);
    }
}
