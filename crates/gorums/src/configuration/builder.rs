use std::sync::Arc;
use std::time::Duration;

use super::members::Wanted;
use super::{
    ClientInterceptor, Configuration, ConfigurationError, Interceptors, Members, Membership,
    NodeAddress,
};
use crate::channel::{Pairs, Pool, Settings, WhileDisconnected};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{
    Clock, NodeProof, SharedProof, Sockets, SystemClock, Transport, bounded, paced,
};
use crate::stream::Served;

/// Attempts that nobody asks for do not come sooner after each other: each takes the processor for
/// some tenths of a millisecond.
const LEAST_BACKOFF: Duration = Duration::from_millis(10);

/// Describes a [`Configuration`]: its nodes and how to reach them.
#[must_use = "nothing happens before `connect`"]
pub struct ConfigurationBuilder {
    nodes: Vec<(Option<NodeId>, String)>,
    settings: Settings,
    metadata: Metadata,
    interceptors: Interceptors,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    served: Option<Served>,
    /// The first mistake, which `connect` returns.
    error: Option<ConfigurationError>,
}

impl Configuration {
    /// Describes a configuration to connect to.
    pub fn builder() -> ConfigurationBuilder {
        ConfigurationBuilder::new()
    }
}

impl ConfigurationBuilder {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            settings: Settings::default(),
            metadata: Metadata::new(),
            interceptors: Interceptors::default(),
            transport: Arc::new(Sockets),
            clock: Arc::new(SystemClock),
            served: None,
            error: None,
        }
    }

    /// Adds nodes by address, `host:port` or `unix:/path` (see
    /// [`Address`](crate::runtime::Address)). Each gets the next id: 1 for the first, or one more
    /// than the greatest id so far. Host names are resolved at each attempt to connect.
    pub fn nodes<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.nodes
            .extend(addresses.into_iter().map(|address| (None, address.into())));
        self
    }

    /// Adds a node with this id, 1 or more, and address.
    pub fn node(mut self, id: impl Into<NodeId>, address: impl Into<String>) -> Self {
        self.nodes.push((Some(id.into()), address.into()));
        self
    }

    /// Adds nodes with and without ids, as [`node`](Self::node) and [`nodes`](Self::nodes) do.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = NodeAddress>) -> Self {
        let addresses = addresses.into_iter();
        self.nodes
            .extend(addresses.map(|NodeAddress { id, address }| (id, address)));
        self
    }

    /// Adds the nodes of a TOML file. Needs the feature `toml`.
    ///
    /// ```toml
    /// [[node]]
    /// id = 1                      # for all nodes or for none: then they count from 1
    /// address = "10.0.0.1:8080"
    /// ```
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has no node, or has an unknown key.
    #[cfg(feature = "toml")]
    #[cfg_attr(docsrs, doc(cfg(feature = "toml")))]
    pub fn file(self, path: impl AsRef<std::path::Path>) -> Result<Self, ConfigurationError> {
        Ok(self.addresses(super::file::read(path.as_ref())?))
    }

    /// Sends a name and a value with every connection that is made, as an HTTP/2 header. All of
    /// them together have 15 KiB at most, of which each takes 32 bytes beside its key and value.
    /// Where that is exceeded, or the key is none that [`Metadata`](crate::Metadata) takes, or the
    /// value has other characters than visible ASCII and blanks, [`connect`](Self::connect) says
    /// so.
    pub fn metadata(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
        if let Err(status) = self.metadata.append(key, value) {
            self.error
                .get_or_insert(ConfigurationError::Metadata(status));
        }
        self
    }

    /// Adds an interceptor, which sees every call to these nodes, whatever the client. It comes
    /// after those that were added before, and after those of the client.
    pub fn interceptor(mut self, interceptor: impl ClientInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// How much may wait to be written to a node: messages, and bytes. At the bound that node's
    /// part of a call fails at once, as not sent. Default: 16,384 messages and 16 MiB. A single
    /// message above the bound in bytes is taken by an empty outbox.
    ///
    /// As much again is kept of the node's requests that were written, are not answered and may be
    /// [sent again](crate::call::Rpc::idempotent); those beyond it are not sent again.
    pub fn outbox(mut self, messages: usize, bytes: usize) -> Self {
        self.settings.outbox_messages = messages.max(1);
        self.settings.outbox_bytes = bytes;
        self
    }

    /// How long a node may be behind the others until it is [`Degraded`](crate::NodeState::Degraded):
    /// most of the nodes of a call have answered it, and so has the node no newer call of the method.
    /// Noticed up to a quarter of this later. A node that is degraded is so until it has owed no answer
    /// for longer than half of this, for as long as this. Default: 1 s; a millisecond at least.
    ///
    /// What is compared are two-way calls to three nodes or more that are complete, or whose deadline
    /// has passed, when most of the nodes have answered. Calls to one node say nothing of it: what its
    /// handlers wait for may take any time.
    pub fn degraded_after(mut self, behind: Duration) -> Self {
        self.settings.degraded_after = paced(behind);
        self
    }

    /// How many calls may wait for replies at once, on all nodes together. At the bound calls fail
    /// at once, as not sent. Default: 1,048,576.
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.settings.max_calls = calls.max(1);
        self
    }

    /// The largest reply that is taken, envelope included. A larger one is skipped, and fails its
    /// node's part. Default: 4 MiB.
    pub fn max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.settings.max_decoding_message_size = bytes;
        self
    }

    /// How many bytes of the replies to streamed calls may wait at a node's channel while nobody
    /// takes them, of all calls together. Default: 64 MiB.
    ///
    /// Each call takes its [window](crate::call::QuorumCall::unread_replies) from this when it is
    /// queued, and never more than a quarter of what is left; a call that began with less gets the
    /// rest when others have ended. A call that finds nothing left goes on with one reply at a
    /// time, which is not counted here. So no call waits for the reader of another one.
    pub fn unread_replies(mut self, bytes: usize) -> Self {
        self.settings.unread_replies = bytes as u64;
        self
    }

    /// How long an attempt to connect may take, its [handshake](crate::runtime::Handshake) included,
    /// until the node has begun to speak. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = bounded(timeout);
        self
    }

    /// Which node a server has proved to be, by TLS say ([`tls::NodeUris`](crate::tls::NodeUris)).
    /// Then each node has to prove that it is the one with the id under which it is called here, so
    /// that the ids are those of the cluster. Default: none.
    ///
    /// A connection to another node, or to one that has proved nothing, ends before anything is
    /// sent: calls fail for it as [not sent](crate::Outcome::NotSent), with
    /// [`PermissionDenied`](crate::Code::PermissionDenied), and the next attempt follows as after any
    /// failure. The process' own node, to which there is no transport, has nothing to prove.
    pub fn node_proof(mut self, proof: impl NodeProof) -> Self {
        self.settings.node_proof = Some(SharedProof::new(proof));
        self
    }

    /// The pause after a failed attempt to connect, and what it grows to by a factor of 1.6 for
    /// each further one; with 20 % jitter either way. 10 ms at least, each. Default: 100 ms and 5 s.
    /// A call does not wait for the pause to end, unless connections are made and end at once: see
    /// [`attempt_interval`](Self::attempt_interval).
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.settings.backoff_base = bounded(base).max(LEAST_BACKOFF);
        self.settings.backoff_max = bounded(max.max(base)).max(LEAST_BACKOFF);
        self
    }

    /// The least time between the starts of two attempts to connect to a node, however many calls
    /// ask for one. A millisecond at least. Default: 50 ms.
    ///
    /// Calls may ask sooner for the first few attempts after a lost connection on which the node
    /// had answered, or which was the first or lasted longer than the longest pause of
    /// [`backoff`](Self::backoff), since a node that restarts is often back at once. The second
    /// attempt then comes after a sixteenth of this at the earliest, and the least time doubles
    /// with each that fails.
    ///
    /// After the second of several connections that are none of these, and each further one, calls
    /// wait for the pause to end, though not for more than 1 s: the node may have too many clients.
    pub fn attempt_interval(mut self, interval: Duration) -> Self {
        self.settings.attempt_interval = paced(interval);
        self
    }

    /// When a node that owes an answer has answered nothing for the interval, it is pinged; when it
    /// does not answer that within the timeout, the connection is dead, whatever else comes from
    /// the node. It owes an answer, or the proof that it got a message, until it has answered what
    /// was sent later, also where the call that wanted it has given up, and where it was one-way. So
    /// a dead connection is noticed at most the sum of both after the first message that it loses.
    /// Where the node may call this process over the connection ([`serve`](Self::serve),
    /// [`one_stream_per_pair`](Self::one_stream_per_pair)), it always owes an answer: a connection
    /// that is dead is noticed also where nothing is sent. Default: 10 s and 20 s; a millisecond at
    /// least, each. The timeout has to be longer than what is under way takes to be sent: on a slow
    /// network, messages of some MiB take a while.
    ///
    /// A Go server owes an answer only for what it is sent. One that answers pings and nothing else
    /// is pinged after six intervals and then every 330 s, since it closes connections that are
    /// pinged more often. So after a minute or more of one-way messages alone, or of one long call,
    /// a dead connection to it is noticed only 330 s and the timeout later, by calls as well.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.settings.keep_alive_interval = paced(interval);
        self.settings.keep_alive_timeout = paced(timeout);
        self
    }

    /// Gives each node a session, which outlives a connection that breaks: no call is lost by that, and
    /// none is handled twice, whether or not that would do harm. Default: there are none, and calls that
    /// were written and not answered when a connection breaks end with an [unknown
    /// outcome](crate::Outcome::Unknown), or are sent again where their methods are idempotent.
    ///
    /// In a session the node keeps what it has answered until this client has it, and the client what
    /// it has written until the node has that. On the next connection each writes what the other one
    /// does not have, before anything newer, so that order holds as well: for calls with one reply, for
    /// streamed replies, for one-way messages and for cancellations. A handler is not told that the
    /// connection broke. A call whose deadline passes meanwhile ends then, as ever.
    ///
    /// A call waits for that up to `limit` from the end of the connection. After this, or where the
    /// node says that it does not have the session any more, because it was started anew or has given it
    /// up ([`ServerBuilder::session_timeout`](crate::ServerBuilder::session_timeout)), the calls end as
    /// they do without sessions, and the error says that the session is over: nothing is handled a
    /// second time in silence. The next calls begin another session.
    ///
    /// A call that is not written yet does not wait: it fails as *not sent* with the next attempt to
    /// connect, as without sessions. Calls of a node to this client
    /// ([`serve`](Self::serve)) belong to no session, and neither do those over a stream that the node
    /// has opened ([`one_stream_per_pair`](Self::one_stream_per_pair)). What is sent on a connection
    /// that [winds down](crate::ServerBuilder::max_connection_age) is lost where that breaks. With a
    /// node of the Go library, or one that keeps no sessions, everything is as without them.
    ///
    /// What the node has not said to have is bounded by [`outbox`](Self::outbox) once more: no request
    /// is written beyond that. In a session all this costs a copy of each message that is short.
    pub fn sessions(mut self, limit: Duration) -> Self {
        self.settings.sessions = Some(bounded(limit));
        self
    }

    /// Has these handlers serve the nodes' requests. An error is returned by
    /// [`connect`](Self::connect).
    pub(crate) fn served(mut self, served: Result<Served, ConfigurationError>) -> Self {
        match served {
            Ok(served) => self.served = Some(served),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// Has each pair of peers share one stream, and with it one connection, for the calls of both.
    /// This process is the node `me`. Default: each peer connects to every other one, two streams
    /// for a pair.
    ///
    /// Of two peers the one with the lower id connects, and connects again when the stream has
    /// broken, whether or not it has anything to say. The one with the higher id never does: its
    /// calls go over the stream that the other one opened, and until there is one they wait or
    /// fail, as `meanwhile` says. Such a node is [`Connected`](crate::NodeState::Connected) while
    /// there is one. Everything else is as with a stream of its own: order, turns, metadata,
    /// deadlines, cancellation. When the node opens another stream, it takes the place of the one
    /// before.
    ///
    /// Every peer is set up so, and its server gets the nodes with
    /// [`ServerBuilder::peers`](crate::ServerBuilder::peers), under the same id. A peer that
    /// connects says which node it is, and the server must have been told to believe that
    /// ([`trust_claimed_ids`](crate::ServerBuilder::trust_claimed_ids)): anybody who can connect
    /// can claim to be a peer, and then gets the calls to it. A server's own id, and the ids that
    /// it gives to clients, from 2^20 on, are never believed. So of all the nodes at most one has
    /// such an id: two are refused by [`connect`](Self::connect), and where the second one joins
    /// later.
    ///
    /// A peer that does not share streams connects to all. Calls to it go over its stream where it
    /// has the lower id, and over one that this process opens where it has the higher one, so both
    /// directions work, provided that the lower one of a pair says who it is: a client of the Go
    /// library does where it was given its server. Nodes that join a [`Membership`] later share
    /// streams like the others; those that are added by [`extend`](Configuration::extend) are
    /// connected to, whatever their ids.
    ///
    /// Replies over a stream that was accepted are bounded by the server's
    /// [`max_decoding_message_size`](crate::ServerBuilder::max_decoding_message_size). While such a
    /// stream carries calls, its peer is pinged by the shorter times of both keep-alives.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use gorums::{Configuration, Server, membership::WhileDisconnected};
    ///
    /// let me = 2;
    /// let peers = Configuration::builder()
    ///     .node(1, "10.0.0.1:8080") // connects to this process
    ///     .node(2, "10.0.0.2:8080")
    ///     .node(3, "10.0.0.3:8080") // is connected to
    ///     .one_stream_per_pair(me, WhileDisconnected::Wait)
    ///     .connect()?;
    /// Server::builder()
    ///     .peers(me, &peers)
    ///     .trust_claimed_ids(true)
    ///     .serve("0.0.0.0:8080")
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn one_stream_per_pair(
        mut self,
        me: impl Into<NodeId>,
        meanwhile: WhileDisconnected,
    ) -> Self {
        self.settings.pairs = Some(Pairs {
            me: me.into(),
            meanwhile,
        });
        self
    }

    /// Whether two nodes may turn out to be one and the same server. Default: no.
    ///
    /// Two addresses may lead to one server, as two names of a machine do. Counted as two nodes,
    /// that server alone could be a majority of three. So the node that reaches it first is that
    /// server, and the other one is not connected: its calls fail as not sent, with
    /// [`FailedPrecondition`](crate::Code::FailedPrecondition), and its
    /// [`last_error`](crate::Node::last_error) names both. Of its first calls, which were written
    /// before the server had said who it is, the outcome is unknown; their replies count for
    /// nothing. That lasts until its address leads to another server, or the other node is no
    /// longer held; where a server restarts, it stays the node that it was.
    ///
    /// Each [`Server`](crate::Server) is one of its own, also where a process has several. Servers
    /// of the Go library do not say who they are: of these it is known where connections lead to
    /// one IP address and port. Nodes of different pools are not compared.
    ///
    /// Where it is allowed, [`Node::same_server_as`](crate::Node::same_server_as) tells it. In
    /// either case there is a `tracing` event (warn, target `gorums::configuration`).
    pub fn allow_same_server(mut self, allow: bool) -> Self {
        self.settings.allow_same_server = allow;
        self
    }

    /// Whether a server may be another node to its own peers than it is here. Default: no.
    ///
    /// A node's id and address are a pair that everybody lists alike. A server that is a peer
    /// ([`ServerBuilder::peers`](crate::ServerBuilder::peers)) knows its id, and turns away who
    /// takes it for another node, before it has looked at any request: calls are
    /// [refused](crate::Outcome::Refused) with
    /// [`FailedPrecondition`](crate::Code::FailedPrecondition), which names both ids and the
    /// address, and so does the node's [`last_error`](crate::Node::last_error). So where two
    /// addresses of a list are exchanged, nothing reaches the wrong replica.
    ///
    /// Ids that are counted here alone ([`nodes`](Self::nodes), [`Configuration::extend`], nodes
    /// without ids of a [`Membership`]) are not compared, but for those of a process that is a peer
    /// itself; neither is a server that is no peer, or one of the Go library. Allow it for a client
    /// of several systems, which numbers their nodes by itself.
    pub fn allow_other_ids(mut self, allow: bool) -> Self {
        self.settings.allow_other_ids = allow;
        self
    }

    /// Where connections come from. Default: [`Sockets`].
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Arc::new(transport);
        self
    }

    /// Where time and randomness come from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts to connect to all nodes, and does not wait: a node that is down makes no error. More
    /// nodes can be added later: see [`Configuration::extend`].
    ///
    /// # Errors
    /// There are no nodes; an id is 0; two nodes have one id or one address; a text is no address;
    /// metadata cannot be sent; a method was added twice to the handlers; this process is none of
    /// the nodes whose streams it is to [share](Self::one_stream_per_pair), or two of them cannot
    /// be shared, because of their ids; or there is no tokio runtime here, or one without timers or
    /// I/O. The error names the culprit.
    pub fn connect(self) -> Result<Configuration, ConfigurationError> {
        if self.error.is_none() && self.nodes.is_empty() {
            return Err(ConfigurationError::Empty);
        }
        let (members, wanted) = self.finish()?;
        let pairs = members.pool().settings.pairs;
        members
            .join(&[], &wanted, pairs)
            .map(Configuration::from_nodes)
    }

    /// As [`connect`](Self::connect), and nodes may come and go later. There need not be any at
    /// first.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), but for having no nodes.
    pub fn membership(self) -> Result<Membership, ConfigurationError> {
        let (members, wanted) = self.finish()?;
        let pairs = members.pool().settings.pairs;
        let nodes = members.join(&[], &wanted, pairs)?;
        Ok(Membership::new(
            Some(members),
            Configuration::from_nodes(nodes),
        ))
    }

    /// Makes what the nodes have in common, and lists those that are to join.
    fn finish(mut self) -> Result<(Arc<Members>, Vec<Wanted>), ConfigurationError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.metadata
            .write_headers(&mut http::HeaderMap::new())
            .map_err(ConfigurationError::Metadata)?;
        let wanted = std::mem::take(&mut self.nodes);
        let wanted = wanted.into_iter().map(Wanted::from).collect();
        Ok((self.members(), wanted))
    }

    pub(crate) fn members(self) -> Arc<Members> {
        let pool = Pool::new(self.settings, self.metadata, self.clock, self.transport);
        Members::new(pool, self.interceptors, self.served)
    }
}

impl std::fmt::Debug for ConfigurationBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigurationBuilder")
            .field("nodes", &self.nodes)
            .field("settings", &self.settings)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(builder: ConfigurationBuilder) -> String {
        builder.connect().expect_err("refused").to_string()
    }

    fn builder() -> ConfigurationBuilder {
        Configuration::builder()
    }

    #[test]
    fn wrong_input_is_refused_and_the_culprit_named() {
        for (builder, expected) in [
            (builder(), "at least one node"),
            (builder().node(0, "a:1"), "node 0 (a:1)"),
            (
                builder().node(3, "a:1").node(3, "b:1"),
                "id 3: node 3 is a:1 and b:1",
            ),
            (
                builder().node(1, "a:1").node(2, "A:1"),
                "nodes 1 and 2 have the same address A:1",
            ),
            (
                builder().nodes(["localhost:1", "127.0.0.1:1"]),
                "nodes 1 and 2 have the same address 127.0.0.1:1",
            ),
            (builder().nodes(["a"]), "\"a\": there is no port"),
            (builder().nodes([":1"]), "there is no host"),
            (builder().nodes(["a:x"]), "not a number"),
            (builder().nodes(["a:0"]), "port 0"),
            (builder().nodes(["a:65536"]), "not a number"),
            (builder().nodes(["::1:80"]), "in brackets"),
            (builder().nodes(["[::g]:80"]), "not an IPv6 address"),
            (builder().nodes(["a b:80"]), "character"),
            (
                builder().nodes(["[::1]:1", "[0:0::1]:01"]),
                "nodes 1 and 2 have the same address [0:0::1]:01",
            ),
            (
                builder()
                    .nodes(["a:1", "b:1"])
                    .one_stream_per_pair(3, WhileDisconnected::Wait),
                "this process is to be node 3, and the nodes are 1, 2",
            ),
            (
                builder()
                    .nodes(["a:1"])
                    .one_stream_per_pair(0, WhileDisconnected::FailFast),
                "this process is to be node 0",
            ),
            (
                builder()
                    .node(1, "a:1")
                    .node(1 << 20, "b:1")
                    .node((1 << 20) + 7, "c:1")
                    .one_stream_per_pair(1, WhileDisconnected::Wait),
                "nodes 1048576 and 1048583 cannot share a stream",
            ),
            (builder().nodes(["a:1"]).metadata("x-bin", "1"), "x-bin"),
            (builder().nodes(["a:1"]).metadata("x", "ü"), "visible ASCII"),
        ] {
            let error = error(builder);
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn without_a_runtime_there_is_an_error_and_no_panic() {
        assert!(error(builder().nodes(["a:1"])).contains("tokio"));
    }

    #[cfg(feature = "toml")]
    #[test]
    fn a_file_is_read_or_the_mistake_is_found() {
        let dir = std::env::temp_dir().join(format!("gorums-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for the test");
        let path = dir.join("nodes.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file for the test");
            builder().file(&path)
        };
        let read_nodes = |text: &str| read(text).map(|builder| builder.nodes);
        let nodes = read_nodes(
            "[[node]]\nid = 2\naddress = \"a:1\"\n[[node]]\nid = 1\naddress = \"b:1\"\n",
        )
        .expect("legal");
        assert_eq!(
            nodes,
            [
                (Some(NodeId::from(2)), "a:1".to_owned()),
                (Some(NodeId::from(1)), "b:1".to_owned())
            ]
        );
        for (text, expected) in [
            ("", "there is no node"),
            ("[[node]]\nadress = \"a:1\"", "adress"),
            ("[[node]]\naddress = 1", "line 2"),
            (
                "[[node]]\nid = 1\naddress = \"a:1\"\n[[node]]\naddress = \"b:1\"",
                "1 of 2 nodes",
            ),
        ] {
            let error = read_nodes(text).expect_err("refused").to_string();
            assert!(error.contains("nodes.toml"), "{error}");
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
        }
        let missing = builder().file(dir.join("none.toml")).expect_err("missing");
        assert!(missing.to_string().contains("none.toml"), "{missing}");
        std::fs::remove_dir_all(&dir).expect("the folder was made above");
    }
}
