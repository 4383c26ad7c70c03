use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use http::Extensions;
use prost::Message;
use tokio::io::DuplexStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::accept::Server;
use tokio_util::sync::CancellationToken;

use super::admission::Limits;
#[cfg(test)]
use super::admission::UNSETTLED;
use super::buffered::Buffered;
use super::clients::Clients;
use super::connect_request::ConnectRequest;
use super::context::{HandlerClock, Peers};
use super::descriptors;
#[cfg(feature = "tower")]
use super::gorums_service::GorumsService;
use super::health::Health;
use super::mounted::Mounts;
use super::sessions::{self, Sessions};
use super::settings::{ConnectionSettings, OnConnect, Throttles};
use super::spread::Spread;
use crate::bounds::Counts;
use crate::channel::{Pool, ServerIdentity, Settings};
use crate::configuration::{Interceptors, Members, Membership};
use crate::error::Status;
use crate::handler::{
    Interceptor, LaneSettings, Lanes, Passage, Priority, Registry, ReplySender, ServerCtx, Service,
    Services, Shedding,
};
use crate::log::{self, Throttle};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{
    Address, Clock, InProcess, Listener, NodeProof, SharedProof, Sockets, SystemClock, Transport,
    bounded, has_sockets, paced,
};
use crate::stream::{Served, Source};
use crate::sync::Semaphore;
use crate::wire::Instance;

/// How many connections there may be where nobody says otherwise.
const CONNECTIONS: usize = 16 * 1024;

/// How long a connection may take to wind down where nobody says otherwise.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// How many connections an address may have where nobody says otherwise, however few there may be
/// in all.
const LEAST_PER_ADDRESS: usize = 256;

/// How many bytes all connections may hold together.
const BUFFERED: usize = 512 * 1024 * 1024;

/// How many connections a node may have that has proved which one it is.
const PER_NODE: usize = 16;

/// How long a client may take for a part of a message where nobody says otherwise.
pub(crate) const SLOW_PEER: Duration = Duration::from_secs(120);

/// Whose turns exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HandlerOrder {
    /// One turn for each connection: handlers of one client start in order, those of different
    /// clients run side by side. State that they share needs a lock.
    #[default]
    PerConnection,
    /// One turn for the whole server: of all handlers at most one runs that has not released.
    /// Clients take turns in the order in which their requests come to the front.
    PerServer,
}

/// Describes a [`Server`].
#[must_use = "nothing happens before `serve` or `bind`"]
pub struct ServerBuilder {
    registry: Registry,
    order: HandlerOrder,
    interceptors: Vec<Arc<dyn Interceptor>>,
    expose_panics: bool,
    on_connect: Option<Box<OnConnect>>,
    peers: Option<(NodeId, Membership)>,
    node_proof: Option<SharedProof>,
    trust_claimed_ids: bool,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    spread: Spread,
    health: Option<Health>,
    pub(super) mounts: Mounts,
    #[cfg(feature = "reflection")]
    pub(super) reflection: super::reflection::Reflection,
    /// None where nobody has asked for a bound.
    max_connections: Option<usize>,
    /// How many connections are told at once why they are refused.
    refusals: usize,
    max_connections_per_address: Option<usize>,
    max_connections_per_node: usize,
    max_running: usize,
    max_decoding: usize,
    max_encoding: usize,
    max_waiting_bytes: usize,
    max_reply_bytes: usize,
    max_buffered_bytes: usize,
    stream_timeout: Duration,
    first_message_timeout: Option<Duration>,
    slow_peer_timeout: Duration,
    max_age: Option<Duration>,
    grace: Duration,
    session_timeout: Duration,
    keep_alive: (Duration, Duration),
    shedding: Option<Shedding>,
    /// By the full name of a method or a service.
    priorities: Vec<(String, Priority)>,
}

/// Everything that a running server needs.
pub(crate) struct Parts {
    pub(crate) connection: Arc<ConnectionSettings>,
    pub(super) limits: Limits,
    pub(super) refusals: usize,
    pub(super) spread: Spread,
    /// Told of the shutdown.
    pub(super) health: Option<Health>,
    /// Where connections of this process to its own node arrive.
    pub(crate) arrivals: Option<mpsc::Receiver<DuplexStream>>,
}

#[cfg(test)]
impl ServerBuilder {
    /// How many connections there may be, how many of them of which nothing is known and of one node,
    /// and how many released handlers of each.
    pub(crate) fn counts(&self) -> [usize; 4] {
        [
            self.connections(),
            UNSETTLED,
            self.max_connections_per_node,
            self.max_running,
        ]
    }

    /// How many bytes may wait of requests and of replies, how many a request may have, and how many may
    /// be kept for all connections.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        [
            self.max_waiting_bytes,
            self.max_reply_bytes,
            self.max_decoding,
            self.max_buffered_bytes,
        ]
    }
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::default(),
            order: HandlerOrder::default(),
            interceptors: Vec::new(),
            expose_panics: false,
            on_connect: None,
            peers: None,
            node_proof: None,
            trust_claimed_ids: false,
            transport: Arc::new(Sockets),
            clock: Arc::new(SystemClock),
            spread: Spread::default(),
            health: None,
            mounts: Mounts::default(),
            #[cfg(feature = "reflection")]
            reflection: super::reflection::Reflection::default(),
            max_connections: None,
            refusals: descriptors::REFUSALS,
            max_connections_per_address: None,
            max_connections_per_node: PER_NODE,
            max_running: 1024,
            max_decoding: 4 * 1024 * 1024,
            max_encoding: u32::MAX as usize,
            max_waiting_bytes: 4 * 1024 * 1024,
            max_reply_bytes: 4 * 1024 * 1024,
            max_buffered_bytes: BUFFERED,
            stream_timeout: Duration::from_secs(10),
            first_message_timeout: None,
            slow_peer_timeout: SLOW_PEER,
            max_age: None,
            grace: GRACE,
            session_timeout: sessions::TIMEOUT,
            keep_alive: (Duration::from_secs(60), Duration::from_secs(20)),
            shedding: None,
            priorities: Vec::new(),
        }
    }

    /// Whose turns exclude each other. Default: [`HandlerOrder::PerConnection`].
    pub fn order(mut self, order: HandlerOrder) -> Self {
        self.order = order;
        self
    }

    /// Adds the methods of a generated server.
    pub fn add_service(mut self, service: impl Service) -> Self {
        service.register(&mut self.registry);
        self.registry.limits(None, None);
        self
    }

    /// Adds a service if there is one.
    pub fn add_optional_service(self, service: Option<impl Service>) -> Self {
        match service {
            Some(service) => self.add_service(service),
            None => self,
        }
    }

    /// Adds a method with one reply by its full name, `package.Service.Method`.
    pub fn unary<Req, Resp, F, Fut>(mut self, method: &str, handler: F) -> Self
    where
        Req: Message + Default + 'static,
        Resp: Message + 'static,
        F: Fn(ServerCtx, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Resp, Status>> + Send + 'static,
    {
        self.registry.unary(method, handler);
        self
    }

    /// Adds a method without a reply by its full name.
    pub fn one_way<Req, F, Fut>(mut self, method: &str, handler: F) -> Self
    where
        Req: Message + Default + 'static,
        F: Fn(ServerCtx, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.registry.one_way(method, handler);
        self
    }

    /// Adds a method with any number of replies by its full name.
    pub fn streaming<Req, Resp, F, Fut>(mut self, method: &str, handler: F) -> Self
    where
        Req: Message + Default + 'static,
        Resp: Message + 'static,
        F: Fn(ServerCtx, Req, ReplySender<Resp>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.registry.streaming(method, handler);
        self
    }

    /// Surrounds all handlers with an interceptor; the first that is added is outermost.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Whether a caller whose handler panics, or whose interceptor or [connect
    /// callback](Self::on_connect) does, is told what the panic says. Default: no, since that may
    /// be about other callers' data or the inside of the server: the caller gets
    /// [`Internal`](crate::Code::Internal) with a fixed text, and the panic is in the log, at level
    /// error, with the method, the peer and the id of the call.
    pub fn expose_panics(mut self, expose: bool) -> Self {
        self.expose_panics = expose;
        self
    }

    /// Is called for every client that connects, before its first request: it sees the client's
    /// metadata and address, may set values that handlers find with [`ServerCtx::value`], and turns
    /// the client away by returning an error, with which its calls are
    /// [refused](crate::Outcome::Refused). Runs on the connection's I/O task: it must be quick.
    pub fn on_connect(
        mut self,
        callback: impl Fn(&mut ConnectRequest) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        self.on_connect = Some(Box::new(callback));
        self
    }

    /// Makes the server a peer: it is the node `me` of this configuration, and its handlers find
    /// the configuration in [`ServerCtx::config`].
    ///
    /// From [`bind`](Self::bind) on, calls to the node `me` of this configuration and of all that
    /// share its connections stay in this process. They go over a pair of pipes, and nothing else
    /// is different from calls to other nodes: the same bytes, bounds and order, a connection and a
    /// turn of its own. Its address is not used, and need not be the one that the server listens
    /// on. Where the server has stopped, calls to it fail as those to any node that is down; a new
    /// server in its place is given the same configuration.
    ///
    /// Peers that come and go are a [`Membership`], which can be given in place of a configuration:
    /// handlers then find the one of the moment, and its own node cannot leave it.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use gorums::{Client, Configuration, Server, ServerCtx, Status};
    ///
    /// let peers = Configuration::builder()
    ///     .node(1, "10.0.0.1:8080")
    ///     .node(2, "10.0.0.2:8080")
    ///     .node(3, "10.0.0.3:8080")
    ///     .connect()?;
    /// Server::builder()
    ///     .peers(2, &peers)
    ///     .unary("demo.Greeter.Greet", |_ctx: ServerCtx, name: String| async move {
    ///         Ok::<_, Status>(format!("hello {name}"))
    ///     })
    ///     .unary("demo.Greeter.GreetAll", |ctx: ServerCtx, name: String| async move {
    ///         ctx.release(); // the next request need not wait for the peers
    ///         let peers = Client::new(ctx.config());
    ///         let call = peers.quorum_call::<String, String>("demo.Greeter.Greet", name);
    ///         let replies = call.all().replies().await?;
    ///         Ok::<_, Status>(replies.values().cloned().collect::<Vec<_>>().join(", "))
    ///     })
    ///     .serve("0.0.0.0:8080")
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn peers(mut self, me: impl Into<NodeId>, peers: impl Into<Membership>) -> Self {
        self.peers = Some((me.into(), peers.into()));
        self
    }

    /// Whether a client that says which node it is is believed. Default: no, and who claims to be a
    /// node is anonymous: it has no [`peer_id`](ServerCtx::peer_id) and cannot be called back.
    ///
    /// Anybody who can connect can claim any id. Believe it where only peers can connect. Even then
    /// nobody is this server itself, or has an id from 2^20 on: those are given by the server.
    pub fn trust_claimed_ids(mut self, trust: bool) -> Self {
        self.trust_claimed_ids = trust;
        self
    }

    /// Which node a client has proved to be, by TLS say ([`tls::NodeUris`](crate::tls::NodeUris)).
    /// Then a client that says which node it is has to prove it, and nothing else is believed,
    /// whatever [`trust_claimed_ids`](Self::trust_claimed_ids) says. Default: none.
    ///
    /// Refused with [`PermissionDenied`](crate::Code::PermissionDenied), which is logged with its
    /// address, is a client that claims to be a node and has not proved to be that one, that claims
    /// the id of this server itself or one of those that it gives (from 2^20 on), or that the rule
    /// refuses: of another cluster, say. That concerns ordinary gRPC calls, too. Who claims nothing
    /// has the id that it has proved ([`ServerCtx::peer_id`]), where it has proved one. The process'
    /// own node, to which there is no transport, has nothing to prove.
    pub fn node_proof(mut self, proof: impl NodeProof) -> Self {
        self.node_proof = Some(SharedProof::new(proof));
        self
    }

    /// How many connections of others there may be, those among them whose handshake is not finished.
    /// Default: 16,384.
    ///
    /// At the bound one that does not speak HTTP/2 yet, or is in its handshake, makes room for the next
    /// one: of those that have had 250 ms the oldest from the address from which most of them come;
    /// where none has, the newest from that address, unless the next one comes from there, too. Where
    /// there is none such, the next one is refused: told
    /// [`ResourceExhausted`](crate::Code::ResourceExhausted) in the place of a stream, and closed; where
    /// more than 64 are being told that (fewer where descriptors are few), and where there is a
    /// handshake to make first, as with TLS, it is closed at once. Of those that do not speak HTTP/2 yet
    /// there are never more than 1,024. A warning is logged.
    ///
    /// With a [`node_proof`](Self::node_proof) a quarter of all places is kept for nodes: who has proved
    /// to be one gets in, however many others come.
    ///
    /// [`bind`](Self::bind) lowers it to what the process has descriptors for (`ulimit -n`), less two
    /// for each of its [`peers`](Self::peers) and 128 for all else. Where more were asked for here, that
    /// is logged as a warning.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections.max(1));
        self
    }

    /// How many of them may come from one address: of IPv6 from one network of 64 bits. Connections
    /// without an address, as those of unix sockets, do not count. Default: a quarter of
    /// [`max_connections`](Self::max_connections), and 256 at least.
    ///
    /// At the bound the next one is refused as at [`max_connections`](Self::max_connections). One that
    /// proves to be a node ([`node_proof`](Self::node_proof)) does not count; to prove that, it is let
    /// in first. Where many clients share an address, behind a proxy say, raise it.
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.max_connections_per_address = Some(connections.max(1));
        self
    }

    /// How many connections there may be of a node that has proved which one it is
    /// ([`node_proof`](Self::node_proof)). At the bound the next one is told
    /// [`ResourceExhausted`](crate::Code::ResourceExhausted) in the place of a stream, and closed. Default:
    /// 16, since a node that loses its connections opens others before the old ones are known to be
    /// dead.
    pub fn max_connections_per_node(mut self, connections: usize) -> Self {
        self.max_connections_per_node = connections.max(1);
        self
    }

    /// How many there may be from one address.
    pub(crate) fn per_address(&self) -> usize {
        let quarter = self.connections() / 4;
        self.max_connections_per_address
            .unwrap_or(quarter.max(LEAST_PER_ADDRESS))
    }

    /// How many handlers of one connection may run at once after they released their turn. At the
    /// bound no further request of that connection starts until one ends. Those that wait for the
    /// reader of a streamed reply ([`ReplySender::send`]) are among them. Default: 1,024.
    ///
    /// A client that takes no replies can have this server make one reply from each of these
    /// handlers beyond [`max_reply_bytes`](Self::max_reply_bytes): lower it where replies are large
    /// and clients are not trusted. A connection gets no more than this many replies in the time
    /// that a handler takes: raise it where handlers wait long, such as for nodes that are far
    /// away.
    pub fn concurrency_limit_per_connection(mut self, handlers: usize) -> Self {
        self.max_running = handlers.max(1);
        self
    }

    /// The largest payload of a request that is taken, of services that do not say otherwise. With
    /// its envelope and its metadata a request may have 1 KiB more. A larger one is skipped and
    /// answered with [`ResourceExhausted`](crate::Code::ResourceExhausted); where it is one-way,
    /// the client's stream ends with that status. Default: 4 MiB.
    pub fn max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.max_decoding = bytes;
        self
    }

    /// The largest reply that is sent, envelope included, of services that do not say otherwise. In
    /// place of a larger one the caller gets [`ResourceExhausted`](crate::Code::ResourceExhausted).
    /// Default: no limit but the wire's 4 GiB.
    pub fn max_encoding_message_size(mut self, bytes: usize) -> Self {
        self.max_encoding = bytes;
        self
    }

    /// How many bytes of requests may be read from a connection before their handlers start. At the
    /// bound reading pauses, and flow control holds the client back. Default: 4 MiB, and 256 bytes
    /// count for each request beside its own. Where every handler that may run waits for the reader
    /// of its streamed reply, which reading has to go on for, further requests are refused with
    /// [`ResourceExhausted`](crate::Code::ResourceExhausted) instead.
    pub fn max_waiting_bytes(mut self, bytes: usize) -> Self {
        self.max_waiting_bytes = bytes.max(1);
        self
    }

    /// How many bytes of replies may wait to be written to a connection, those among them that
    /// handlers have returned and that wait for room. At the bound no further request of that
    /// connection starts; handlers that run already wait with their reply, and keep their turn if
    /// they have it. So what waits is more than this by one reply from each handler that ran when
    /// the bound was reached, of which there are
    /// [`concurrency_limit_per_connection`](Self::concurrency_limit_per_connection) at most.
    /// Default: 4 MiB.
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.max_reply_bytes = bytes.max(1);
        self
    }

    /// Has the server answer requests with [`ResourceExhausted`](crate::Code::ResourceExhausted) in the
    /// place of running them while it is overloaded. Default: it does not, and what is too much waits,
    /// at the server and, by flow control, at its clients.
    ///
    /// There is overload where each request of a connection has waited longer than the target of the
    /// [`Shedding`] for its turn, for the interval of it, or where one has and
    /// [`max_waiting_bytes`](Self::max_waiting_bytes) was reached; and there is none any more from the
    /// first on that has waited less than half of the target. In between a request is shed when its
    /// turn comes that
    ///
    /// 1. has less time left, until its caller's [deadline](ServerCtx::deadline), than its method has
    ///    needed lately, or
    /// 2. has waited longer than the target where its [priority](Self::priority) is low, than twice
    ///    the target where it is normal, and than four times where it is high.
    ///
    /// So the oldest go first, of those the least important ones, and of each priority none that is
    /// more important than what it takes to have the others wait no longer. It is answered in its
    /// place in the order of requests, and the order of those that are run is what it was. One-way
    /// messages are never shed, since nobody would hear of it.
    ///
    /// The answer asks for a pause, as long as the request has waited and 10 s at the most
    /// ([`Status::retry_delay`]). Clients of this library obey: until then, and up to half as long
    /// again, they send no call of this method to this node, as
    /// [`while_paused`](crate::call::Rpc::while_paused) says.
    ///
    /// What is shed is counted ([`Bound::Shed`](crate::bounds::Bound::Shed)), and logged as a warning.
    pub fn shed(mut self, shedding: Shedding) -> Self {
        self.shedding = Some(shedding);
        self
    }

    /// How important a method is, by its full name, `package.Service.Method`, or all of a service, by
    /// `package.Service`, where requests are [shed](Self::shed). What is said of a method counts more
    /// than what is said of its service. Default: [`Priority::Normal`]. Where nothing of this name is
    /// added, the server cannot serve: [`ServerError::UnknownPriority`].
    pub fn priority(mut self, name: impl Into<String>, priority: Priority) -> Self {
        self.priorities.push((name.into(), priority));
        self
    }

    /// How many bytes may be kept for all connections together: requests that have not started, what
    /// has come of others, and replies and calls that wait to be written. Where there are more,
    /// connections are ended until there are not: the one for which most is kept, of those from the
    /// address for whose connections most is. Its peer is told `ENHANCE_YOUR_CALM` by HTTP/2, a warning
    /// is logged, and its requests that have not started never do. Connections of nodes count and are not
    /// ended, where nodes prove who they are ([`node_proof`](Self::node_proof)) or are believed
    /// ([`trust_claimed_ids`](Self::trust_claimed_ids)). Default: 512 MiB.
    ///
    /// Not counted are 64 KiB for each connection, what a [service that is mounted](Self::fallback) has
    /// not read and what waits of its answers, and what handlers that run have.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// How long a client may send no message on streams, from when it has opened the first one of its
    /// connection. Then the stream ends with
    /// [`DeadlineExceeded`](crate::Code::DeadlineExceeded), and the connection if no other one is opened
    /// in time ([`stream_timeout`](Self::stream_timeout)). A client that has sent a message, be it a
    /// request or a reply, may be silent from then on; so may nodes, where they prove who they are or are
    /// believed. Default: as long as it likes, since a client may be there to be called back alone.
    pub fn first_message_timeout(mut self, timeout: Duration) -> Self {
        self.first_message_timeout = Some(bounded(timeout));
        self
    }

    /// In which time a client has to go on with what it does on its stream: to send 64 KiB of a message
    /// that it has begun, or the rest of it, and to take 64 KiB of what is written to it, or all of it.
    /// One that does not is cut off, within twice this time, however well it answers pings: it would
    /// keep what the server holds for it for as long as it likes. The stream of a slow sender ends with
    /// [`DeadlineExceeded`](crate::Code::DeadlineExceeded), and the connection of a slow reader with
    /// `ENHANCE_YOUR_CALM`; what came whole is still handled. Default: 120 s, so that less than 5 kbit/s
    /// is too slow.
    ///
    /// A client whose requests wait for their turn here is not to blame for that, and is not cut off. One
    /// that reads nothing since it serves this server's calls and has too much to do
    /// ([`max_waiting_bytes`](Self::max_waiting_bytes) at its end) for so long is. Nodes are not, where
    /// they prove who they are ([`node_proof`](Self::node_proof)) or are believed
    /// ([`trust_claimed_ids`](Self::trust_claimed_ids)).
    pub fn slow_peer_timeout(mut self, timeout: Duration) -> Self {
        self.slow_peer_timeout = paced(timeout);
        self
    }

    /// How long a connection may be without a stream, from its first byte on. Where it begins with a
    /// [handshake](crate::runtime::Handshake), that and the first bytes of HTTP/2 have the same time
    /// together, before. Default: 10 s.
    pub fn stream_timeout(mut self, timeout: Duration) -> Self {
        self.stream_timeout = bounded(timeout);
        self
    }

    /// How long a connection lasts at the most. Default: as long as its client likes. A second at the
    /// least.
    ///
    /// After that, or up to a tenth sooner, so that those that came together do not all go together, the
    /// server winds the connection down, as it does with all when it [shuts
    /// down](Server::serve_with_shutdown): it asks the client for no more requests, and answers
    /// those that it has. The client connects again at once, and what it calls meanwhile waits for
    /// that. No call fails: neither those of the client nor, where the server calls it over the same
    /// connection as a peer ([`one_stream_per_pair`](crate::ConfigurationBuilder::one_stream_per_pair)),
    /// those of the server. A client that is called back is another one when it has connected again,
    /// unless it has an id of its own. An ordinary gRPC client hears `GOAWAY`. Clients of the Go library
    /// cannot be told: what they send from then on is dropped, and their calls end with the stream.
    ///
    /// With certificates that are [exchanged](crate::tls::Tls::reload) this is how long a client goes on
    /// by one that it has no more.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_age = Some(bounded(age).max(Duration::from_secs(1)));
        self
    }

    /// How long a connection may take that winds down while the server goes on, because it is
    /// [old](Self::max_connection_age) or what was [proven](crate::runtime::Proven::lasting) of its
    /// client holds no more. What is left then is cut off: calls that are not answered end with an
    /// [unknown outcome](crate::Outcome::Unknown). Default: 60 s.
    pub fn connection_grace(mut self, grace: Duration) -> Self {
        self.grace = bounded(grace);
        self
    }

    /// How long the session of a client is kept whose connection has broken
    /// ([`ConfigurationBuilder::sessions`](crate::ConfigurationBuilder::sessions)): the handlers that
    /// run go on, requests that have come are handled in their turn, and the answers wait for the next
    /// connection of the client. Default: 60 s. With zero there are no sessions.
    ///
    /// While it is kept the session takes no place of a connection, and what it holds counts as what
    /// connections hold ([`max_buffered_bytes`](Self::max_buffered_bytes)). No more than 1,024 are kept
    /// so, and then the one that has waited longest is given up. With
    /// [`HandlerOrder::PerServer`] one is also given up where a handler of it waits with its answer,
    /// since that would keep the turn of the whole server. A client that
    /// takes more than [`max_reply_bytes`](Self::max_reply_bytes) of answers and does not say that it
    /// has them cannot resume its session.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = bounded(timeout);
        self
    }

    /// A client that has answered nothing for the interval is pinged; if it does not answer within
    /// the timeout, its connection ends, also where it still sends requests: it gets no answers
    /// then. So a dead connection ends at most the sum of both after the client's last answer,
    /// whether or not anything is sent over it. Default: 60 s and 20 s; a millisecond at least, each.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = (paced(interval), paced(timeout));
        self
    }

    /// Where listeners come from. Default: [`Sockets`].
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Arc::new(transport);
        self
    }

    /// Where time comes from, for handlers too ([`ServerCtx::clock`]), and the random number by which
    /// peers tell this server from others. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Tells whether its services can be called to whoever asks by `grpc.health.v1.Health`, and when
    /// it shuts down that none can. Interceptors and the connect callback see such calls as all
    /// others.
    pub fn health(mut self, health: &Health) -> Self {
        self.health = Some(health.clone());
        self.add_service(health.clone())
    }

    /// Spreads the connections over these runtimes: each new one goes to that with the fewest, and
    /// stays there with its handlers. Default: all are driven by the runtime in which the server
    /// serves.
    ///
    /// With a runtime of one thread on each core, what a connection touches stays on one core, nothing
    /// is woken across cores, and an idle runtime costs less; in return a core whose connections have
    /// nothing to do does not help the others. Measure before you do it (`gorums-bench
    /// --runtime-per-thread`): docs/scaling.md has figures of two cores, where calls got no cheaper.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), gorums::ServerError> {
    /// use gorums::{Server, ServerCtx, Status};
    /// use tokio::runtime::Builder;
    ///
    /// let runtimes = (0..4).map(|core| {
    ///     let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    ///     let handle = runtime.handle().clone();
    ///     std::thread::Builder::new()
    ///         .name(format!("connections {core}"))
    ///         .spawn(move || runtime.block_on(std::future::pending::<()>()))
    ///         .expect("a thread");
    ///     handle
    /// });
    /// Server::builder()
    ///     .unary("demo.Echo.Say", |_: ServerCtx, text: String| async move {
    ///         Ok::<_, Status>(text)
    ///     })
    ///     .runtimes(runtimes)
    ///     .serve("0.0.0.0:8080")
    ///     .await
    /// # }
    /// ```
    ///
    /// A socket is registered with the runtime that it goes to. One below a
    /// [`Handshake`](crate::runtime::Handshake), TLS say, stays with the one that has accepted it, and
    /// each read wakes its task from there.
    ///
    /// The runtime in which the server serves still accepts, and drives the connections that the
    /// server makes itself; it may be among them. Each is to live as long as the server: where one
    /// ends, its connections end with it, and so does the next one that it is given, which is logged
    /// as an error; after that the others have its share.
    pub fn runtimes(mut self, runtimes: impl IntoIterator<Item = Handle>) -> Self {
        self.spread = Spread::over(runtimes);
        self
    }

    /// Listens on an address, `host:port` or `unix:/path` (see
    /// [`Address`](crate::runtime::Address)), and serves once the result is told to: between the two the
    /// system accepts clients, which are connected when the server serves, and wait for that no longer
    /// than their `connect_timeout`.
    ///
    /// The file of a unix socket is removed when the server stops; one that a server has left which
    /// was killed is replaced.
    ///
    /// # Errors
    /// The runtime lacks timers or I/O, the address cannot be listened on, a method was added twice, the server is not one of its
    /// [`peers`](Self::peers), or cannot share their streams as they are configured to; or the descriptors for its reflection are
    /// not those of what it serves.
    pub async fn bind(mut self, address: &str) -> Result<Server, ServerError> {
        self.complete_registry()?;
        self.mount_reflection()?;
        let transport = || self.transport.check_runtime();
        self.runtimes_are_fit(transport, transport)?;
        self.fit_descriptors();
        let listener = self
            .transport
            .listen(address)
            .await
            .map_err(ServerError::Listen)?;
        self.with_listener(listener)
    }

    /// Listens on an address and serves for ever: [`bind`](Self::bind) and [`Server::serve`] in
    /// one. Dropping the future stops the server at once: connections end, and requests that have
    /// not started never do.
    ///
    /// # Errors
    /// The runtime lacks timers or I/O, the address cannot be listened on, a method was added twice, the server is not one of its
    /// [`peers`](Self::peers), or cannot share their streams as they are configured to; or the descriptors for its reflection are
    /// not those of what it serves.
    pub async fn serve(self, address: &str) -> Result<(), ServerError> {
        self.bind(address).await?.serve().await;
        Ok(())
    }

    /// Serves the connections of a listener once the result is told to. Clients that come before that
    /// are connected when the server serves, and wait for it no longer than their `connect_timeout`.
    ///
    /// The listener is taken as it is, and [`transport`](Self::transport) has no part in it: one whose
    /// connections are to begin with TLS comes from [`Tls::listener`](crate::tls::Tls::listener).
    ///
    /// # Errors
    /// The runtime lacks timers, a method was added twice, the server is not one of its
    /// [`peers`](Self::peers), the listener does not know its address, or the descriptors for the
    /// server's reflection are not those of what it serves.
    pub fn with_incoming(mut self, listener: impl Listener) -> Result<Server, ServerError> {
        self.complete_registry()?;
        self.mount_reflection()?;
        // Here the listener has what it needs; its sockets move to the runtimes that they are spread
        // over.
        self.runtimes_are_fit(|| Ok(()), has_sockets)?;
        self.with_listener(Box::new(listener))
    }

    /// Makes a service of tower of it, to be mounted within another server, as that of tonic or axum,
    /// in the place of an address to listen on. Its requests are served once the [`Server`] is told
    /// to serve, which is also what shuts it down
    /// ([`serve_with_shutdown`](Server::serve_with_shutdown)) and knows its
    /// [clients](Server::clients) and [peers](Server::peers).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use gorums::tower::PeerInfo;
    /// use gorums::{Server, ServerCtx, Status};
    /// use tokio::sync::watch;
    /// use tonic::service::Routes;
    /// use tonic::transport::server::TcpConnectInfo;
    ///
    /// let (service, server) = Server::builder()
    ///     .unary("demo.Echo.Say", |_: ServerCtx, text: String| async move {
    ///         Ok::<_, Status>(text)
    ///     })
    ///     .into_service()?;
    /// let service = service.peer_info(|extensions| {
    ///     let tcp = extensions.get::<TcpConnectInfo>();
    ///     PeerInfo::new().with_addr(tcp.and_then(TcpConnectInfo::remote_addr))
    /// });
    ///
    /// // Services of tonic are added to the routes as always; ours gets what they leave.
    /// let routes = Routes::default().into_axum_router().fallback_service(service);
    ///
    /// // The streams of Gorums do not end by themselves: tell both servers to shut down.
    /// let (stop, stopped) = watch::channel(false);
    /// let told = || {
    ///     let mut stopped = stopped.clone();
    ///     async move { drop(stopped.wait_for(|stop| *stop).await) }
    /// };
    /// let serving = tokio::spawn(server.serve_with_shutdown(told(), Duration::from_secs(5)));
    /// let around = tonic::transport::Server::builder()
    ///     .http2_keepalive_interval(Some(Duration::from_secs(60)))
    ///     .add_routes(Routes::from(routes))
    ///     .serve_with_shutdown("127.0.0.1:0".parse()?, told());
    /// # stop.send(true)?;
    /// around.await?;
    /// serving.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Address, TLS, the handshake, HTTP/2's windows and frames, and keep-alive are the business of
    /// the server around it: [`keep_alive`](Self::keep_alive) is answered within the process, so
    /// have that server ping its clients, and [`transport`](Self::transport) has no part in it. What
    /// that server knows of a client, [`PeerInfo`](crate::tower::PeerInfo) hands on. All else is as
    /// with a port: the same streams, order, bounds, features and statuses.
    ///
    /// # Errors
    /// The runtime lacks timers, a method was added twice, or the server is not one of its
    /// [`peers`](Self::peers), or cannot share their streams as they are configured to.
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub fn into_service(self) -> Result<(GorumsService, Server), ServerError> {
        let clock = Arc::clone(&self.clock);
        let (service, arrivals) = GorumsService::new(clock, self.stream_timeout);
        let server = self.with_incoming(arrivals)?;
        Ok((service, server))
    }

    /// Lowers the bound of connections to what the system gives descriptors for.
    fn fit_descriptors(&mut self) {
        let nodes = self
            .peers
            .as_ref()
            .map_or(0, |(_, peers)| peers.config().len());
        let fitted = descriptors::fitted(self.connections(), nodes);
        self.refusals = fitted.refusals;
        let fitted = fitted.connections;
        if let Some(wanted) = self.max_connections.filter(|wanted| fitted < *wanted) {
            tracing::warn!(
                target: log::SERVER,
                connections = fitted,
                wanted,
                "fewer connections may be than were asked for: there are too few descriptors"
            );
        }
        self.max_connections = Some(fitted);
    }

    fn connections(&self) -> usize {
        self.max_connections.unwrap_or(CONNECTIONS)
    }

    /// Whether this runtime has what the clock needs and this, and those for connections what the
    /// clock needs and that.
    fn runtimes_are_fit(
        &self,
        here: impl Fn() -> io::Result<()>,
        spread: impl Fn() -> io::Result<()>,
    ) -> Result<(), ServerError> {
        let clock = || self.clock.check_runtime();
        let fit = clock().and_then(|()| here());
        fit.and_then(|()| self.spread.check(|| clock().and_then(|()| spread())))
            .map_err(ServerError::Runtime)
    }

    /// Nothing is added to what is served.
    fn complete_registry(&mut self) -> Result<(), ServerError> {
        if let Some(method) = self.registry.duplicates().first() {
            return Err(ServerError::DuplicateMethod {
                method: method.as_ref().to_owned(),
            });
        }
        let mut priorities = std::mem::take(&mut self.priorities);
        // What is said of a method counts more than what is said of its service.
        priorities.sort_by_key(|(name, _)| name.len());
        for (name, priority) in priorities {
            if !self.registry.prioritize(&name, priority) {
                return Err(ServerError::UnknownPriority { name });
            }
        }
        Ok(())
    }

    /// Has reflection tell of all that was added, where it is to tell.
    fn mount_reflection(&mut self) -> Result<(), ServerError> {
        #[cfg(feature = "reflection")]
        std::mem::take(&mut self.reflection).mount(&self.registry, &mut self.mounts)?;
        Ok(())
    }

    fn with_listener(self, listener: Box<dyn Listener>) -> Result<Server, ServerError> {
        let local_addr = listener.local_addr().map_err(ServerError::Listen)?;
        let server = self.listening(listener, local_addr.clone())?;
        tracing::info!(target: log::SERVER, address = %local_addr, "listening");
        Ok(server)
    }

    fn listening(
        self,
        listener: Box<dyn Listener>,
        local_addr: Address,
    ) -> Result<Server, ServerError> {
        let refusals = self.refusals;
        let limits = Limits {
            all: self.connections(),
            per_address: self.per_address(),
            per_node: self.max_connections_per_node,
            nodes_prove: self.node_proof.is_some(),
        };
        let spread = self.spread.clone();
        let health = self.health.clone();
        if let Some(health) = &health {
            health.know(self.registry.services());
        }
        let (connection, arrivals) = match self.peers.clone() {
            None => (Arc::new(self.settings(None)), None),
            Some((me, peers)) => {
                let (connection, arrivals) = self.among_peers(me, &peers)?;
                (connection, Some(arrivals))
            }
        };
        let parts = Parts {
            connection,
            limits,
            refusals,
            spread,
            health,
            arrivals,
        };
        Ok(Server::new(listener, local_addr, parts))
    }

    /// The settings of a server that is one of these nodes, which know it from now on, and where its
    /// connections to itself arrive.
    fn among_peers(
        self,
        me: NodeId,
        membership: &Membership,
    ) -> Result<(Arc<ConnectionSettings>, mpsc::Receiver<DuplexStream>), ServerError> {
        let configuration = membership.config();
        let own = configuration
            .node(me)
            .ok_or_else(|| ServerError::NotAPeer {
                me,
                known: configuration.ids().collect(),
            })?;
        for members in membership.members() {
            let settings = &members.pool().settings;
            if let Some(pairs) = settings.pairs {
                if pairs.me != me {
                    let of = pairs.me;
                    return Err(ServerError::PairsOfAnother { me, of });
                }
                if !self.trust_claimed_ids && self.node_proof.is_none() {
                    return Err(ServerError::PairsWithoutTrust { me });
                }
            }
            let at_client = settings.node_proof.is_some();
            if at_client != self.node_proof.is_some() {
                return Err(ServerError::ProofAtOneEnd { at_client });
            }
        }
        membership.set_own(me);
        let (in_process, arrivals) = InProcess::new();
        let connection = Arc::new(self.settings(Some(in_process.clone())));
        let services = Arc::downgrade(&connection.services);
        let mut values = Extensions::new();
        values.insert(Peers::OfServer(services.clone()));
        values.insert(HandlerClock(Arc::clone(&connection.clock)));
        for members in membership.members() {
            members.serving().set(Served {
                node_id: me.get(),
                instance: connection
                    .instance
                    .filter(|_| members.pool().settings.pairs.is_some()),
                source: Source::OfServer(services.clone()),
                values: values.clone(),
            });
        }
        own.channel().set_in_process(in_process);
        let identity = connection.instance.map(ServerIdentity::Instance);
        // The number is new, so no other node is this server yet.
        let _ = own.channel().identify(identity);
        for node in &configuration {
            node.channel().connect_anew();
        }
        Ok((connection, arrivals))
    }

    /// What serves calls to a client, without a listener.
    pub(crate) fn into_served(mut self) -> Result<Served, ServerError> {
        self.complete_registry()?;
        let peers = self.peers.clone().map(|(_, peers)| peers);
        let services = self.into_services(None, None, peers, Arc::default());
        Ok(Served {
            node_id: 0,
            instance: None,
            values: services.values.clone(),
            source: Source::Held(Arc::new(services)),
        })
    }

    fn settings(mut self, in_process: Option<InProcess>) -> ConnectionSettings {
        let pool = Pool::new(
            Settings::default(),
            Metadata::new(),
            Arc::clone(&self.clock),
            Arc::clone(&self.transport),
        );
        let clients = Clients::new(Members::new(pool, Interceptors::default(), None));
        let peers = self.peers.clone();
        let all = peers.as_ref().map(|(_, peers)| peers.clone());
        let reached = Arc::<Counts>::default();
        ConnectionSettings {
            instance: Instance::new(self.clock.random(), self.clock.random()),
            clock: Arc::clone(&self.clock),
            log: Throttles::default(),
            mounts: std::mem::take(&mut self.mounts),
            on_connect: self.on_connect.take(),
            node_proof: self.node_proof.clone(),
            trust_claimed_ids: self.trust_claimed_ids,
            stream_timeout: self.stream_timeout,
            first_message_timeout: self.first_message_timeout,
            slow_peer_timeout: self.slow_peer_timeout,
            buffered: Buffered::new(self.max_buffered_bytes),
            sessions: Sessions::new(self.session_timeout, Arc::clone(&reached)),
            stopping: CancellationToken::new(),
            max_age: self.max_age,
            grace: self.grace,
            keep_alive_interval: self.keep_alive.0,
            keep_alive_timeout: self.keep_alive.1,
            services: Arc::new(self.into_services(in_process, Some(clients.clone()), all, reached)),
            peers,
            clients,
        }
    }

    fn into_services(
        self,
        in_process: Option<InProcess>,
        clients: Option<Clients>,
        peers: Option<Membership>,
        reached: Arc<Counts>,
    ) -> Services {
        let server_turn = match self.order {
            HandlerOrder::PerConnection => None,
            HandlerOrder::PerServer => Some(Arc::new(Semaphore::new(1))),
        };
        let mut values = Extensions::new();
        values.insert(Peers::Known { peers, clients });
        values.insert(HandlerClock(Arc::clone(&self.clock)));
        Services {
            max_decoding: self.registry.max_decoding(self.max_decoding),
            registry: self.registry,
            lane: Arc::new(LaneSettings {
                passage: Arc::new(Passage {
                    interceptors: self.interceptors.into(),
                    max_decoding: self.max_decoding,
                    reached,
                }),
                expose_panics: self.expose_panics,
                server_turn,
                max_encoding: self.max_encoding,
                max_running: self.max_running,
                in_process,
                clock: self.clock,
                late: Throttle::default(),
                shedding: self.shedding,
                sheds: Throttle::default(),
                lanes: Lanes::default(),
            }),
            max_waiting_bytes: self.max_waiting_bytes,
            max_reply_bytes: self.max_reply_bytes,
            values,
            refusals: Throttle::default(),
        }
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("registry", &self.registry)
            .field("order", &self.order)
            .field("interceptors", &self.interceptors.len())
            .finish_non_exhaustive()
    }
}

/// Why a server cannot serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on; the error names it.
    Listen(io::Error),
    /// The tokio runtime lacks what connections need; the error says what, and what to do.
    Runtime(io::Error),
    /// A method was added twice.
    DuplicateMethod {
        /// The full name.
        method: String,
    },
    /// A [priority](ServerBuilder::priority) is of no method or service that was added.
    UnknownPriority {
        /// The name that was given.
        name: String,
    },
    /// The descriptors for reflection (`ServerBuilder::reflection`) cannot be used.
    BadDescriptors {
        /// What is wrong with them.
        problem: String,
    },
    /// The descriptors for reflection (`ServerBuilder::reflection`) lack some of what is served.
    MissingDescriptors {
        /// The full names of the methods, and of services of the fallback.
        missing: Vec<String>,
    },
    /// The server is to be a peer ([`ServerBuilder::peers`]) that the configuration does not have.
    NotAPeer {
        /// The server's own id.
        me: NodeId,
        /// The ids that the configuration has.
        known: Vec<NodeId>,
    },
    /// The server's peers share streams
    /// ([`one_stream_per_pair`](crate::ConfigurationBuilder::one_stream_per_pair)) with another
    /// node than the one that the server is.
    PairsOfAnother {
        /// The server's own id.
        me: NodeId,
        /// The node whose streams are shared.
        of: NodeId,
    },
    /// The server's peers share streams, and it believes nobody who says that it is one of them
    /// ([`trust_claimed_ids`](ServerBuilder::trust_claimed_ids)).
    PairsWithoutTrust {
        /// The server's own id.
        me: NodeId,
    },
    /// Nodes are to prove who they are to the server and not to its
    /// [`peers`](ServerBuilder::peers), or the other way round: `node_proof` was given to one of the
    /// two alone. Peers call each other over connections of both.
    ProofAtOneEnd {
        /// It was given to the configuration of the peers.
        at_client: bool,
    },
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) | Self::Runtime(error) => error.fmt(f),
            Self::DuplicateMethod { method } => {
                write!(
                    f,
                    "the method {method} was added twice: a server has one handler for each"
                )
            }
            Self::UnknownPriority { name } => write!(
                f,
                "a priority was given to {name}, and no method or service of this name was added: name \
                 it as package.Service or package.Service.Method"
            ),
            Self::BadDescriptors { problem } => write!(
                f,
                "the descriptors for reflection cannot be used: {problem}; give it the constant \
                 FILE_DESCRIPTOR_SET of generated code, or what `protoc --include_imports \
                 --descriptor_set_out=FILE` writes"
            ),
            Self::MissingDescriptors { missing } => write!(
                f,
                "reflection has no descriptor of {}: give it those of each package that is served, the \
                 constant FILE_DESCRIPTOR_SET of its generated code",
                missing.join(", ")
            ),
            Self::NotAPeer { me, known } => {
                write!(f, "this server is to be node {me}, and its peers are ")?;
                let ids: Vec<_> = known.iter().map(NodeId::to_string).collect();
                write!(f, "{}: its own node is one of them", ids.join(", "))
            }
            Self::PairsOfAnother { me, of } => write!(
                f,
                "one stream per pair: the configuration is that of node {of}, and this server is to \
                 be node {me}: name the same id in both places"
            ),
            Self::ProofAtOneEnd { at_client } => {
                let (has, lacks) = match at_client {
                    true => ("the configuration of its peers", "the server"),
                    false => ("the server", "the configuration of its peers"),
                };
                write!(
                    f,
                    "node_proof was given to {has} and not to {lacks}: peers call each other over \
                     connections of both, so give it to both"
                )
            }
            Self::PairsWithoutTrust { me } => write!(
                f,
                "one stream per pair: peers with ids below {me} are called over the streams that they \
                 open, and this server believes nobody who says which node it is: where only peers can \
                 connect, set trust_claimed_ids(true); where they prove it, by TLS say, set node_proof"
            ),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) | Self::Runtime(error) => Some(error),
            Self::DuplicateMethod { .. }
            | Self::UnknownPriority { .. }
            | Self::BadDescriptors { .. }
            | Self::MissingDescriptors { .. }
            | Self::NotAPeer { .. }
            | Self::PairsOfAnother { .. }
            | Self::PairsWithoutTrust { .. }
            | Self::ProofAtOneEnd { .. } => None,
        }
    }
}
