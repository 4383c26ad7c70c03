//! Connections in Maelstrom's messages: the library's seam for byte streams, on a network that
//! knows only messages, which come late, in any order, or never.
//!
//! A connection has an id, and each message of it a `type`:
//!
//! | type | from | what it says |
//! |---|---|---|
//! | `tunnel_open` | who connects | there is a new connection; with node and port |
//! | `tunnel_opened` | who accepts | it is accepted |
//! | `tunnel_data` | both | bytes, base64, with the number of the piece; the last one has no bytes |
//! | `tunnel_ack` | both | all pieces below this number were read |
//! | `tunnel_reset` | both | there is no such connection, any more or at all |
//!
//! Pieces are put in order by their numbers, and a sender has at most [`WINDOW`] of them on their
//! way. Nothing is sent again: where a piece is not acknowledged for [`STALL`], it or its
//! acknowledgement is lost, and the connection ends as by a reset. What was on its way then has an
//! unknown outcome, as with TCP; the library connects again, and who called decides what to do. So
//! a partition is a stall first, and a reset when it lasts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gorums::CancellationToken;
use gorums::runtime::{Address, BoxFuture, BoxIo, Listener, Transport};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::message::{Message, Outbound, object};

/// How many pieces of one direction may be on their way.
pub const WINDOW: u64 = 64;

/// How long a piece may be on its way before it counts as lost.
pub const STALL: Duration = Duration::from_secs(1);

/// How many bytes a piece has at most.
const PIECE: usize = 16 * 1024;

/// How many bytes wait between the library and a connection, in each direction.
const BUFFER: usize = 64 * 1024;

/// How many connections may wait to be accepted. Others are reset.
const BACKLOG: usize = 64;

/// The port in the addresses of nodes. They have but one.
pub const PORT: u16 = 1;

/// The connections of a node.
#[derive(Debug, Clone)]
pub struct Tunnel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    outbound: Outbound,
    /// The node's own name, which makes the ids of its connections its own.
    me: String,
    opened: AtomicU64,
    connections: Mutex<HashMap<Key, Connection>>,
    /// Where new ones go, when somebody listens.
    accepting: Mutex<Option<mpsc::Sender<BoxIo>>>,
}

/// The other node, and the id of a connection with it.
type Key = (String, String);

/// What the messages of a connection are given to.
#[derive(Debug)]
struct Connection {
    /// Taken when the other side has accepted.
    opened: Option<oneshot::Sender<()>>,
    pieces: mpsc::Sender<Piece>,
    acknowledged: watch::Sender<u64>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Piece {
    number: u64,
    bytes: Vec<u8>,
}

impl Tunnel {
    pub(crate) fn new(me: &str, outbound: Outbound) -> Self {
        Self(Arc::new(Shared {
            outbound,
            me: me.to_owned(),
            opened: AtomicU64::new(0),
            connections: Mutex::default(),
            accepting: Mutex::default(),
        }))
    }

    /// Whether a message is about a connection.
    pub(crate) fn concerns(message: &Message) -> bool {
        message.kind().starts_with("tunnel_")
    }

    /// Says to another node that there is nobody yet who could have a connection, so that it need
    /// not wait.
    pub(crate) async fn refuse(outbound: &Outbound, message: &Message) {
        if let (Some(id), "tunnel_open") = (message.text("connection"), message.kind()) {
            let body = json!({"type": "tunnel_reset", "connection": id});
            outbound.send(&message.src, object(body)).await;
        }
    }

    /// Takes a message that is about a connection.
    pub(crate) async fn deliver(&self, message: &Message) {
        let Some(id) = message.text("connection") else {
            return;
        };
        let key = (message.src.clone(), id.to_owned());
        if message.kind() == "tunnel_open" {
            return self.accept(key).await;
        }
        let known = self.hand_over(&key, message);
        if !known && message.kind() != "tunnel_reset" {
            self.0.send(&key, "tunnel_reset", []).await;
        }
    }

    /// Gives a message to its connection. Whether there is one.
    fn hand_over(&self, key: &Key, message: &Message) -> bool {
        let mut connections = self.0.connections();
        let Some(connection) = connections.get_mut(key) else {
            return false;
        };
        let number = message.body.get("number").and_then(Value::as_u64);
        let taken = match (message.kind(), number) {
            ("tunnel_opened", _) => {
                // Who asked may have given up, which ends the connection in another way.
                let _ = connection.opened.take().map(|opened| opened.send(()));
                true
            }
            ("tunnel_ack", Some(number)) => {
                connection.acknowledged.send_if_modified(|last| {
                    let newer = number > *last;
                    *last = number.max(*last);
                    newer
                });
                true
            }
            ("tunnel_data", Some(number)) => {
                let bytes = STANDARD_NO_PAD.decode(message.text("bytes").unwrap_or_default());
                // There is room for a window. Who sends more does not go by the rules.
                bytes.is_ok_and(|bytes| connection.pieces.try_send(Piece { number, bytes }).is_ok())
            }
            _ => false,
        };
        if !taken {
            connection.end.cancel();
        }
        true
    }

    async fn accept(&self, key: Key) {
        if self.0.connections().contains_key(&key) {
            // The network has doubled the message.
            return;
        }
        let accepting = self.0.accepting().clone();
        match accepting.and_then(|accepting| accepting.try_reserve_owned().ok()) {
            Some(place) => {
                let io = self.0.connect(&key, None);
                self.0.send(&key, "tunnel_opened", []).await;
                place.send(Box::new(io));
            }
            None => self.0.send(&key, "tunnel_reset", []).await,
        }
    }
}

impl Shared {
    /// No code panics while it holds the lock.
    fn connections(&self) -> MutexGuard<'_, HashMap<Key, Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn accepting(&self) -> MutexGuard<'_, Option<mpsc::Sender<BoxIo>>> {
        self.accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn send<const N: usize>(&self, (node, id): &Key, kind: &str, fields: [(&str, Value); N]) {
        let mut body = Map::from_iter(fields.map(|(name, value)| (name.to_owned(), value)));
        body.extend(object(json!({"type": kind, "connection": id})));
        self.outbound.send(node, body).await;
    }

    /// Our end of a new connection, and what carries its bytes.
    fn connect(self: &Arc<Self>, key: &Key, opened: Option<oneshot::Sender<()>>) -> DuplexStream {
        let (near, far) = duplex(BUFFER);
        let (reading, writing) = tokio::io::split(far);
        // The pieces that may be on their way, and the end.
        let (pieces, coming) = mpsc::channel(WINDOW as usize + 1);
        let (acknowledged, acknowledgements) = watch::channel(0);
        let end = CancellationToken::new();
        let connection = Connection {
            opened,
            pieces,
            acknowledged,
            end: end.clone(),
        };
        self.connections().insert(key.clone(), connection);
        let (shared, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move {
            let carried = async {
                tokio::try_join!(
                    send_pieces(&shared, &key, reading, acknowledgements),
                    receive_pieces(&shared, &key, writing, coming),
                )
            };
            let finished = tokio::select! {
                biased;
                () = end.cancelled() => false,
                done = carried => done.is_ok(),
            };
            shared.connections().remove(&key);
            if !finished {
                shared.send(&key, "tunnel_reset", []).await;
            }
        });
        near
    }
}

/// The connection cannot go on.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Sends what the library writes, and then that it has ended, until all of it is acknowledged.
async fn send_pieces(
    shared: &Shared,
    key: &Key,
    mut from: ReadHalf<DuplexStream>,
    mut acknowledgements: watch::Receiver<u64>,
) -> Result<(), Broken> {
    let mut bytes = vec![0; PIECE];
    let (mut next, mut acknowledged) = (0, 0);
    let mut ended = false;
    // When there was news of the oldest piece that is on its way.
    let mut news = Instant::now();
    while !ended || acknowledged < next {
        tokio::select! {
            biased;
            changed = acknowledgements.changed() => {
                changed.map_err(|_| Broken)?;
                acknowledged = *acknowledgements.borrow_and_update();
                if acknowledged > next {
                    return Err(Broken);
                }
                news = Instant::now();
            }
            () = sleep_until(news + STALL), if acknowledged < next => return Err(Broken),
            read = from.read(&mut bytes), if !ended && next < acknowledged + WINDOW => {
                let count = read?;
                ended = count == 0;
                if acknowledged == next {
                    news = Instant::now();
                }
                let text = STANDARD_NO_PAD.encode(&bytes[..count]);
                let fields = [("number", next.into()), ("bytes", text.into())];
                shared.send(key, "tunnel_data", fields).await;
                next += 1;
            }
        }
    }
    Ok(())
}

/// Puts pieces in order, gives them to the library, and acknowledges them when it has them.
async fn receive_pieces(
    shared: &Shared,
    key: &Key,
    mut to: WriteHalf<DuplexStream>,
    mut coming: mpsc::Receiver<Piece>,
) -> Result<(), Broken> {
    let mut next = 0;
    let mut early = BTreeMap::new();
    while let Some(Piece { number, bytes }) = coming.recv().await {
        if number >= next + WINDOW {
            return Err(Broken);
        }
        // What comes twice is known.
        if number >= next {
            early.insert(number, bytes);
        }
        while let Some(bytes) = early.remove(&next) {
            next += 1;
            if bytes.is_empty() {
                to.shutdown().await?;
                shared
                    .send(key, "tunnel_ack", [("number", next.into())])
                    .await;
                return Ok(());
            }
            to.write_all(&bytes).await?;
        }
        shared
            .send(key, "tunnel_ack", [("number", next.into())])
            .await;
    }
    Err(Broken)
}

impl Transport for Tunnel {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let shared = &self.0;
            let node = address.rsplit_once(':').map_or(address, |(node, _)| node);
            if node == shared.me {
                // A server calls itself without a connection, as soon as it is one.
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let number = shared.opened.fetch_add(1, Ordering::Relaxed);
            let key = (node.to_owned(), format!("{}-{number}", shared.me));
            let (opened, accepted) = oneshot::channel();
            let io = shared.connect(&key, Some(opened));
            // Who gives up drops our end, and so the connection ends, too.
            shared.send(&key, "tunnel_open", []).await;
            match accepted.await {
                Ok(()) => Ok(Box::new(io) as BoxIo),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }

    fn listen<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (accepting, incoming) = mpsc::channel(BACKLOG);
            *self.0.accepting() = Some(accepting);
            Ok(Box::new(Incoming(incoming)) as Box<dyn Listener>)
        })
    }
}

/// The connections that other nodes make.
struct Incoming(mpsc::Receiver<BoxIo>);

impl Listener for Incoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(io) => Ok((io, None)),
                // Another listener has taken its place.
                None => std::future::pending().await,
            }
        })
    }

    /// Nodes have names and no addresses; this one stands for the node itself.
    fn local_addr(&self) -> io::Result<Address> {
        Ok(Address::custom("this node"))
    }
}
