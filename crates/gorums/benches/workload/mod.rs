//! What both benchmarks run: a client and three servers in one process, on one thread, connected by
//! pipes in memory, at a time that stands still. Nothing is left to chance, so what a call costs is
//! the same in every run.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gorums::runtime::{Address, BoxFuture, BoxIo, Clock, Listener, Transport};
use gorums::{Client, Configuration, Node, Server, Status};
use prost::Message;
use tokio::io::DuplexStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a pipe holds in each direction: more than all calls that are in flight take.
const PIPE: usize = 1024 * 1024;

const ECHO: &str = "cost.Cost.Echo";
const NOTE: &str = "cost.Cost.Note";

/// The request and the reply.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// The calls that have a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One call to one node at a time.
    Rpc,
    /// One quorum call to three nodes at a time, which waits for two.
    QuorumCall,
    /// One multicast to three nodes at a time, awaited until it is handed over.
    Multicast,
    /// Quorum calls as above, a hundred at a time.
    QuorumCallLoaded,
    /// The same, with 1 KiB each way.
    QuorumCallLoaded1K,
    /// As `QuorumCallLoaded`, in sessions.
    QuorumCallLoadedInSessions,
}

impl Kind {
    /// What a request carries.
    fn data(self) -> Bytes {
        Bytes::from_static(match self {
            Self::QuorumCallLoaded1K => &[7; 1024],
            _ => b"sixteen bytes .",
        })
    }

    /// How many calls are in flight at once.
    fn in_flight(self) -> usize {
        match self {
            Self::QuorumCallLoaded
            | Self::QuorumCallLoaded1K
            | Self::QuorumCallLoadedInSessions => 100,
            Self::Rpc | Self::QuorumCall | Self::Multicast => 1,
        }
    }
}

/// A cluster that has made enough calls for all its tables and buffers to have their size.
pub(crate) struct Cluster {
    runtime: Runtime,
    client: Client,
    node: Node,
}

impl Cluster {
    /// A cluster that is ready for this kind of call.
    pub(crate) fn warm(kind: Kind) -> Self {
        let runtime = Builder::new_current_thread()
            .build()
            .expect("a runtime without I/O asks nothing of the system");
        let configuration = runtime.block_on(connect(kind));
        let cluster = Self {
            node: configuration[0].clone(),
            client: Client::new(configuration),
            runtime,
        };
        cluster.run(kind, 1_000);
        cluster
    }

    /// Makes so many calls, and waits for all of them.
    pub(crate) fn run(&self, kind: Kind, calls: usize) {
        self.runtime.block_on(async {
            let mut callers = JoinSet::new();
            for _ in 0..kind.in_flight() {
                let (client, node) = (self.client.clone(), self.node.clone());
                callers.spawn(async move {
                    for _ in 0..calls / kind.in_flight() {
                        call(&client, &node, kind).await;
                    }
                });
            }
            callers.join_all().await;
        });
    }
}

async fn call(client: &Client, node: &Node, kind: Kind) {
    let request = Payload { data: kind.data() };
    match kind {
        Kind::Rpc => {
            let call = client.rpc::<_, Payload>(node, ECHO, request);
            drop(call.await.expect("the node is up"));
        }
        Kind::QuorumCall
        | Kind::QuorumCallLoaded
        | Kind::QuorumCallLoaded1K
        | Kind::QuorumCallLoadedInSessions => {
            let call = client.quorum_call::<_, Payload>(ECHO, request);
            drop(call.majority().await.expect("all nodes are up"));
        }
        Kind::Multicast => {
            let call = client.multicast(NOTE, request);
            call.await.expect("all nodes are up");
        }
    }
}

/// Three servers, and connections to all of them.
async fn connect(kind: Kind) -> Configuration {
    let network = Network::default();
    let addresses = ["one:1", "two:2", "three:3"];
    for address in addresses {
        let server = Server::builder()
            .transport(network.clone())
            .clock(Still)
            .unary(ECHO, |_ctx, request: Payload| async move {
                Ok::<_, Status>(request)
            })
            .one_way(NOTE, |_ctx, _request: Payload| async {})
            .bind(address)
            .await
            .expect("nobody listens there");
        tokio::spawn(server.serve());
    }
    let mut builder = Configuration::builder()
        .nodes(addresses)
        .transport(network)
        .clock(Still);
    if kind == Kind::QuorumCallLoadedInSessions {
        builder = builder.sessions(Duration::from_secs(60));
    }
    let configuration = builder.connect().expect("legal addresses");
    configuration
        .connected(addresses.len())
        .await
        .expect("none is closed");
    configuration
}

/// Listeners in memory, by address.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>>);

impl Network {
    fn listeners(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<DuplexStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Network {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxIo>> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let sent = match self.listeners().get(address) {
            Some(listener) => listener.send(theirs).is_ok(),
            None => false,
        };
        Box::pin(std::future::ready(if sent {
            Ok(Box::new(ours) as BoxIo)
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        }))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners().insert(address.to_owned(), sender);
        let listener: Box<dyn Listener> = Box::new(Incoming(receiver));
        Box::pin(std::future::ready(Ok(listener)))
    }
}

struct Incoming(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Incoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxIo, Option<SocketAddr>)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok((Box::new(stream) as BoxIo, None)),
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> io::Result<Address> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)).into())
    }
}

/// A time that stands still: no timer ever fires, whatever the machine does meanwhile.
#[derive(Debug, Clone, Copy)]
struct Still;

impl Still {
    fn epoch() -> Instant {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }
}

impl Clock for Still {
    fn now(&self) -> Instant {
        Self::epoch()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        if at <= Self::epoch() {
            Box::pin(std::future::ready(()))
        } else {
            Box::pin(std::future::pending())
        }
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&self) -> u64 {
        // One after the other: names that are made of them have to differ.
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed)
    }
}
