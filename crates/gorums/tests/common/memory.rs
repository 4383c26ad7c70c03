//! A network in memory, for tests with a paused clock: it tells who tried to connect and when, and
//! its connections can be held up and cut.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use gorums::runtime::{Address, BoxFuture, BoxIo, Listener, Transport};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What is on its way in one direction at most.
const IN_FLIGHT: usize = 64 * 1024;

/// How an address answers those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// With a server if there is one there; otherwise the connection is refused.
    Normal,
    /// Not at all, until the manner changes.
    Silent,
    /// The connection is made, and ends at once from the other side.
    Flapping,
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToNode,
    ToClient,
}

#[derive(Clone)]
pub struct Network {
    hosts: Arc<Mutex<HashMap<String, Host>>>,
    /// Other addresses, and those that they lead to.
    aliases: Arc<Mutex<HashMap<String, String>>>,
    /// Counts changes of any kind.
    changed: Arc<watch::Sender<u64>>,
}

struct Host {
    manner: Manner,
    server: Option<mpsc::UnboundedSender<DuplexStream>>,
    links: Vec<Arc<Link>>,
    attempts: Vec<Instant>,
}

impl Network {
    pub fn new() -> Self {
        Self {
            hosts: Arc::default(),
            aliases: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    fn change<R>(&self, address: &str, change: impl FnOnce(&mut Host) -> R) -> R {
        let result = {
            let mut hosts = lock(&self.hosts);
            change(hosts.entry(address.to_owned()).or_insert_with(|| Host {
                manner: Manner::Normal,
                server: None,
                links: Vec::new(),
                attempts: Vec::new(),
            }))
        };
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// From now on this address leads where the other one does.
    pub fn alias(&self, address: &str, to: &str) {
        lock(&self.aliases).insert(address.to_owned(), to.to_owned());
    }

    pub fn forget_alias(&self, address: &str) {
        lock(&self.aliases).remove(address);
    }

    pub fn set(&self, address: &str, manner: Manner) {
        self.change(address, |host| host.manner = manner);
    }

    /// Whether a server listens at this address.
    pub fn is_served(&self, address: &str) -> bool {
        let hosts = lock(&self.hosts);
        let host = hosts.get(address);
        let server = host.and_then(|host| host.server.as_ref());
        server.is_some_and(|server| !server.is_closed())
    }

    /// When clients tried to connect to this address.
    pub fn attempts(&self, address: &str) -> Vec<Instant> {
        self.change(address, |host| host.attempts.clone())
    }

    /// Waits until clients have tried so often.
    pub async fn attempted(&self, address: &str, times: usize) {
        let mut changed = self.changed.subscribe();
        super::common::within(async {
            loop {
                changed.mark_unchanged();
                if lock(&self.hosts)
                    .get(address)
                    .is_some_and(|host| host.attempts.len() >= times)
                {
                    return;
                }
                changed.changed().await.expect("the network is here");
            }
        })
        .await;
    }

    /// From now on nothing that the client writes is taken: the node does not read.
    pub fn stall(&self, address: &str) {
        self.allow(address, Some(0));
    }

    /// So many bytes more are taken of what the client writes; all of them, if none is given.
    pub fn allow(&self, address: &str, bytes: Option<usize>) {
        self.change(address, |host| {
            for link in &host.links {
                lock(&link.0).allowed = bytes;
                link.wake();
            }
        });
    }

    /// Whether the client takes what the node writes.
    pub fn take(&self, address: &str, takes: bool) {
        self.change(address, |host| {
            for link in &host.links {
                lock(&link.0).takes_nothing = !takes;
                link.wake();
            }
        });
    }

    /// From now on what the client writes, or what the node writes, is taken and lost; so is, of the
    /// node, that it has closed the connection.
    pub fn lose(&self, address: &str, direction: Direction) {
        self.change(address, |host| {
            for link in &host.links {
                lock(&link.0).lost = Some(direction);
                link.wake();
            }
        });
    }

    /// Breaks the connections that there are.
    pub fn cut(&self, address: &str) {
        self.change(address, |host| {
            for link in host.links.drain(..) {
                lock(&link.0).cut = true;
                link.wake();
            }
        });
    }

    /// Forgets who has tried to connect to this address, and connections that are no more.
    pub fn forget(&self, address: &str) {
        self.change(address, |host| {
            host.attempts = Vec::new();
            host.links.retain(|link| Arc::strong_count(link) > 1);
            host.links.shrink_to_fit();
        });
    }

    async fn connected(&self, address: &str) -> io::Result<BoxIo> {
        let mut changed = self.changed.subscribe();
        self.change(address, |host| host.attempts.push(Instant::now()));
        loop {
            changed.mark_unchanged();
            if let Some(io) = self.answer(address) {
                return io;
            }
            changed.changed().await.expect("the network is here");
        }
    }

    fn answer(&self, address: &str) -> Option<io::Result<BoxIo>> {
        let mut hosts = lock(&self.hosts);
        let host = hosts.get_mut(address).expect("there was an attempt");
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let (ours, theirs) = tokio::io::duplex(IN_FLIGHT);
        let link = Arc::new(Link::default());
        match host.manner {
            Manner::Silent => return None,
            Manner::Flapping => lock(&link.0).flapped = Some(theirs),
            Manner::Normal => {
                let server = host.server.as_ref();
                if server.is_none_or(|server| server.send(theirs).is_err()) {
                    return Some(Err(refused()));
                }
            }
        }
        host.links.push(Arc::clone(&link));
        Some(Ok(Box::new(Wire { io: ours, link })))
    }
}

impl Transport for Network {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let leads_to = lock(&self.aliases).get(address).cloned();
            self.connected(leads_to.as_deref().unwrap_or(address)).await
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let (server, incoming) = mpsc::unbounded_channel();
        self.change(address, |host| host.server = Some(server));
        Box::pin(async move { Ok(Box::new(Incoming(incoming)) as Box<dyn Listener>) })
    }
}

struct Incoming(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Incoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            let io = self.0.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(io) as BoxIo, None))
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)).into())
    }
}

/// What a test does to a connection.
#[derive(Default)]
struct Link(Mutex<Conditions>);

#[derive(Default)]
struct Conditions {
    allowed: Option<usize>,
    takes_nothing: bool,
    lost: Option<Direction>,
    cut: bool,
    /// The other end, of a connection that ended at once.
    flapped: Option<DuplexStream>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Link {
    fn wake(&self) {
        let (reader, writer) = {
            let mut conditions = lock(&self.0);
            (conditions.reader.take(), conditions.writer.take())
        };
        [reader, writer].into_iter().flatten().for_each(Waker::wake);
    }
}

/// The client's end of a connection.
struct Wire {
    io: DuplexStream,
    link: Arc<Link>,
}

fn reset() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "connection reset by the test",
    )
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let lost = {
            let mut conditions = lock(&self.link.0);
            if conditions.cut {
                return Poll::Ready(Err(reset()));
            }
            if conditions.flapped.is_some() {
                return Poll::Ready(Ok(()));
            }
            conditions.reader = Some(cx.waker().clone());
            if conditions.takes_nothing {
                return Poll::Pending;
            }
            conditions.lost == Some(Direction::ToClient)
        };
        loop {
            let before = buf.filled().len();
            std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            if !lost {
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() == before {
                return Poll::Pending;
            }
            buf.set_filled(before);
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, link } = &mut *self;
        let mut conditions = lock(&link.0);
        if conditions.cut {
            return Poll::Ready(Err(reset()));
        }
        let len = conditions.allowed.unwrap_or(usize::MAX).min(buf.len());
        if len == 0 && !buf.is_empty() {
            conditions.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if conditions.lost == Some(Direction::ToNode) {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(io).poll_write(cx, &buf[..len]);
        if let (Poll::Ready(Ok(written)), Some(allowed)) = (&written, &mut conditions.allowed) {
            *allowed -= written;
        }
        written
    }

    // As a socket does.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("nothing panics while it holds the lock")
}

/// Lets everything happen that can happen without more time. Only with a paused clock.
pub async fn settle() {
    // The clock goes on only when every task waits.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
