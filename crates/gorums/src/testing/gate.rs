//! A way between a process and its sockets that can be closed, and made long.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::runtime::{Address, AddressError, BoxFuture, BoxIo, Listener, Transport};

/// Opens and closes the way between a process and its sockets. Clones are the same gate.
///
/// While it is closed, a listener behind it accepts nothing, and connections read and write nothing. To
/// the other side it looks like a process that got SIGSTOP: connections stay open, and what is sent
/// to it fills the buffers of the system.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<State>>);

/// How a gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    is_open: bool,
    delay: Duration,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State {
            is_open: true,
            delay: Duration::ZERO,
        })))
    }

    /// Lets nothing pass from now on, in neither direction.
    pub fn close(&self) {
        self.0.send_modify(|state| state.is_open = false);
    }

    /// Lets everything pass that has been waiting, and what comes after it.
    pub fn open(&self) {
        self.0.send_modify(|state| state.is_open = true);
    }

    /// Whether it lets bytes pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.borrow().is_open
    }

    /// Lets bytes that come in from now on be read so late, by the time of the runtime. What goes out is
    /// not held up. A quarter of a megabyte at most is read at once, and the next bytes after that.
    pub fn delay(&self, delay: Duration) {
        self.0.send_modify(|state| state.delay = delay);
    }

    /// The same listener, and with it the connections that it accepts, behind this gate.
    #[must_use]
    pub fn guard<L>(&self, listener: L) -> Gated<L> {
        Gated {
            state: self.0.subscribe(),
            inner: listener,
        }
    }
}

/// How many bytes are late at once, at most.
const LATE: usize = 256 << 10;

/// A [`Listener`] or a [`Transport`] behind a [`Gate`].
pub struct Gated<T> {
    state: watch::Receiver<State>,
    inner: T,
}

impl<T> fmt::Debug for Gated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl<L: Listener> Listener for Gated<L> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            loop {
                opened(&mut self.state).await;
                tokio::select! {
                    biased;
                    () = closed(&mut self.state) => {}
                    accepted = self.inner.accept() => {
                        let (io, peer) = accepted?;
                        let io = GatedIo::new(io, self.state.clone());
                        return Ok((Box::new(io) as BoxIo, peer));
                    }
                }
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        self.inner.local_addr()
    }
}

impl<T: Transport> Transport for Gated<T> {
    fn check_runtime(&self) -> io::Result<()> {
        self.inner.check_runtime()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            opened(&mut self.state.clone()).await;
            let io = self.inner.connect(address).await?;
            Ok(Box::new(GatedIo::new(io, self.state.clone())) as BoxIo)
        })
    }

    fn address(&self, text: &str) -> Result<Address, AddressError> {
        self.inner.address(text)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = self.inner.listen(address).await?;
            let state = self.state.clone();
            Ok(Box::new(Gated { state, inner }) as Box<dyn Listener>)
        })
    }
}

/// A connection behind a gate.
struct GatedIo<I> {
    io: I,
    reading: Passage,
    writing: Passage,
    /// What was read, and is late.
    late: Option<Late>,
    /// Where that is read to, once anything is late.
    room: Vec<u8>,
}

/// Bytes that may be read when this has completed.
struct Late {
    bytes: Vec<u8>,
    taken: usize,
    time: BoxFuture<'static, ()>,
}

impl<I> GatedIo<I> {
    fn new(io: I, state: watch::Receiver<State>) -> Self {
        Self {
            io,
            reading: Passage::new(state.clone()),
            writing: Passage::new(state),
            late: None,
            room: Vec::new(),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for GatedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.reading.poll_open(cx));
        let this = &mut *self;
        let late = match &mut this.late {
            Some(late) => late,
            None => {
                let delay = this.reading.state.borrow().delay;
                if delay.is_zero() {
                    return Pin::new(&mut this.io).poll_read(cx, buf);
                }
                this.room.resize(LATE, 0);
                let mut read = ReadBuf::new(&mut this.room);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
                this.late.insert(Late {
                    bytes: read.filled().to_vec(),
                    taken: 0,
                    time: Box::pin(tokio::time::sleep(delay)),
                })
            }
        };
        if late.taken == 0 {
            ready!(late.time.as_mut().poll(cx));
        }
        let rest = &late.bytes[late.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        late.taken += count;
        if late.taken == late.bytes.len() {
            this.late = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for GatedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.writing.poll_open(cx));
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.writing.poll_open(cx));
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writing.poll_open(cx));
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writing.poll_open(cx));
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One direction of a connection.
struct Passage {
    state: watch::Receiver<State>,
    /// Completes when the gate opens. Exists while this direction waits at a closed gate.
    opening: Option<BoxFuture<'static, ()>>,
}

impl Passage {
    fn new(state: watch::Receiver<State>) -> Self {
        Self {
            state,
            opening: None,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(opening) = &mut self.opening {
                ready!(opening.as_mut().poll(cx));
                self.opening = None;
            }
            if self.state.borrow().is_open {
                return Poll::Ready(());
            }
            let mut state = self.state.clone();
            self.opening = Some(Box::pin(async move { opened(&mut state).await }));
        }
    }
}

/// Waits until the gate is open. If its replica is gone nothing opens it any more, and the
/// connection is about to end.
async fn opened(state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| state.is_open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the gate is closed.
async fn closed(state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| !state.is_open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair(gate: &Gate) -> (GatedIo<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64);
        (GatedIo::new(near, gate.0.subscribe()), far)
    }

    fn is_pending<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        future.poll(&mut cx).is_pending()
    }

    #[tokio::test]
    async fn an_open_gate_lets_bytes_pass_in_both_directions() {
        let gate = Gate::new();
        let (mut near, mut far) = pair(&gate);
        let mut bytes = [0; 4];
        far.write_all(b"ping").await.expect("room");
        near.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"ping");
        near.write_all(b"pong").await.expect("room");
        far.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"pong");
    }

    #[tokio::test]
    async fn a_closed_gate_holds_reads_and_writes_until_it_opens() {
        let gate = Gate::new();
        let (near, mut far) = pair(&gate);
        let (mut read, mut write) = tokio::io::split(near);
        gate.close();
        assert!(!gate.is_open());
        far.write_all(b"ping").await.expect("room");
        let mut reading = tokio::spawn(async move {
            let mut bytes = [0; 4];
            read.read_exact(&mut bytes).await.map(|_| bytes)
        });
        let mut writing = tokio::spawn(async move { write.write_all(b"pong").await });
        // On this runtime of one thread, both tasks run until they wait.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(is_pending(Pin::new(&mut reading)));
        assert!(is_pending(Pin::new(&mut writing)));

        gate.open();
        assert_eq!(&reading.await.expect("no panic").expect("bytes"), b"ping");
        writing.await.expect("no panic").expect("room");
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"pong");
    }

    #[tokio::test]
    async fn a_read_that_was_waiting_when_the_gate_closed_waits_on() {
        let gate = Gate::new();
        let (mut near, mut far) = pair(&gate);
        let mut byte = [0; 1];
        let mut reading = std::pin::pin!(near.read_exact(&mut byte));
        assert!(is_pending(reading.as_mut()));
        gate.close();
        far.write_all(b"x").await.expect("room");
        assert!(is_pending(reading.as_mut()));
        gate.open();
        reading.await.expect("a byte");
    }

    #[tokio::test]
    async fn a_closed_gate_accepts_nothing_until_it_opens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let gate = Gate::new();
        let mut gated = gate.guard(crate::runtime::TcpAcceptor::from(listener));
        {
            let mut accepting = gated.accept();
            assert!(is_pending(accepting.as_mut()));
            gate.close();
            // The system takes the connection, the replica does not.
            let _stream = tokio::net::TcpStream::connect(address)
                .await
                .expect("a connection");
            assert!(is_pending(accepting.as_mut()));
            gate.open();
            accepting.await.expect("the connection that waited");
        }
        assert_eq!(gated.local_addr().expect("an address"), address.into());
    }

    #[tokio::test]
    async fn a_waiting_accept_can_be_given_up_without_losing_a_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let gate = Gate::new();
        let mut gated = gate.guard(crate::runtime::TcpAcceptor::from(listener));
        assert!(is_pending(gated.accept().as_mut()));
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("a connection");
        let (_, peer) = gated.accept().await.expect("the connection");
        assert_eq!(peer, stream.local_addr().ok());
    }
}
