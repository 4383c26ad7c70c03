//! The I/O task of a connection, on the server's side: it accepts the stream, has its requests read
//! for the lane, and writes the replies that are queued.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request as HttpRequest, Response, StatusCode};

use super::clients::{Attached, Clients, DYNAMIC_IDS};
use super::connect_request::Connecting;
use crate::channel::{Attachment, Settings};
use crate::configuration::{Membership, Node};
use crate::error::{Code, Status, excerpt};
use crate::handler::{ConnectionInfo, Lane, ReplyQueue, Services};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, BoxIo, Clock};
use crate::stream::{
    Action, Bell, Caller, FairIo, Input, InputEnd, KeepAlive, Pings, Writer, quiet,
};
use crate::wire::{
    Batch, Features, H2Settings, NODE_ID, PATH, is_grpc, response_head, trailers, trailers_only,
};

/// How many batches are written in one turn of the task before others get theirs.
const BATCHES_PER_TURN: usize = 16;

/// How many streams of a connection may have ended while handlers of theirs go on.
const UNFINISHED_STREAMS: usize = 8;

/// The connect callback.
pub(crate) type OnConnect = dyn Fn(&mut Connecting) -> Result<(), Status> + Send + Sync;

/// What all connections of a server have in common.
pub(crate) struct ConnectionSettings {
    pub(crate) services: Arc<Services>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_connect: Option<Box<OnConnect>>,
    /// Which node of its peers this server is, and the nodes that handlers call.
    pub(crate) peers: Option<(NodeId, Membership)>,
    pub(crate) clients: Clients,
    /// Clients are who they say they are.
    pub(crate) trust_claimed_ids: bool,
    /// How long a connection may be without a stream, at its beginning too.
    pub(crate) stream_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
}

impl ConnectionSettings {
    /// Who this process is to itself.
    fn own_claim(&self) -> Claim {
        let peers = self.peers.as_ref();
        peers.map_or(Claim::Nobody, |(me, _)| Claim::Peer(*me))
    }

    /// Who a client is that says this of itself.
    fn classify(&self, headers: &HeaderMap) -> Claim {
        let Some(claim) = headers.get(NODE_ID) else {
            return Claim::Nobody;
        };
        let id = claim.to_str().ok().and_then(|text| text.parse().ok());
        let id = match id {
            None | Some(0) => return Claim::Client(None),
            Some(id) => NodeId::from(id),
        };
        let is_own = self.peers.as_ref().is_some_and(|(me, _)| *me == id);
        if !self.trust_claimed_ids || is_own || id.get() >= DYNAMIC_IDS {
            return Claim::Unproven;
        }
        let peers = self.peers.as_ref();
        let is_peer = peers.is_some_and(|(_, peers)| peers.config().node(id).is_some());
        if is_peer || self.that_connects(id).is_some() {
            return Claim::Peer(id);
        }
        Claim::Client(Some(id))
    }

    /// The node with this id that is called over the stream that it opens, if there is one.
    fn that_connects(&self, id: NodeId) -> Option<Node> {
        let (_, peers) = self.peers.as_ref()?;
        let members = peers.members();
        members.iter().find_map(|members| members.that_connects(id))
    }
}

/// Who a client says it is.
enum Claim {
    /// It cannot be called back.
    Nobody,
    /// It has an id, and nobody vouches for it.
    Unproven,
    /// A node of the server's configuration, which is called there, over a stream that this process
    /// opened or over this one.
    Peer(NodeId),
    /// It can be called back, by this id or by one that the server gives it.
    Client(Option<NodeId>),
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A listener, and this address where there are addresses.
    Outside(Option<SocketAddr>),
    /// This very process.
    Inside,
}

/// Serves a connection until it ends, or has wound down after `shutdown`.
pub(crate) async fn serve(
    io: BoxIo,
    origin: Origin,
    settings: Arc<ConnectionSettings>,
    mut shutdown: BoxFuture<'static, ()>,
) {
    let clock = Arc::clone(&settings.clock);
    let timeout = clock.sleep_until(clock.now() + settings.stream_timeout);
    let builder = H2Settings::server();
    let handshake = builder.handshake::<FairIo, Batch>(FairIo::new(io));
    let mut h2 = tokio::select! {
        biased;
        h2 = handshake => match h2 {
            Ok(h2) => h2,
            Err(error) => {
                tracing::debug!(%error, ?origin, "no HTTP/2 from this peer");
                return;
            }
        },
        () = &mut shutdown => return,
        () = timeout => {
            tracing::debug!(?origin, "the peer connected and sent nothing");
            return;
        }
    };
    let pings = Pings::new(h2.ping_pong());
    let mut keep_alive = KeepAlive::steady(
        settings.keep_alive_interval,
        settings.keep_alive_timeout,
        clock.now(),
    );
    let first_look = keep_alive.first(clock.now());
    let mut served = Served {
        keep_alive_timer: clock.sleep_until(first_look),
        no_stream: Some(clock.sleep_until(clock.now() + settings.stream_timeout)),
        settings,
        origin,
        h2,
        bell: Bell::default(),
        stream: None,
        left: Left::default(),
        pings,
        keep_alive,
        shutdown: Some(shutdown),
        goodbye: false,
    };
    let end = poll_fn(|cx| served.poll(cx)).await;

    tracing::debug!(?origin, reason = end, "connection ended");
    served.leave_stream();
    let mut left = std::mem::take(&mut served.left);
    let settings = Arc::clone(&served.settings);
    // Handlers go on, and count as long as their connection did. The socket is closed.
    drop(served);
    poll_fn(|cx| {
        left.work_off(cx, &settings.services);
        if left.0.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

struct Served {
    settings: Arc<ConnectionSettings>,
    origin: Origin,
    h2: Connection<FairIo, Batch>,
    bell: Bell,
    stream: Option<NodeStream>,
    pings: Pings,
    keep_alive: KeepAlive,
    keep_alive_timer: BoxFuture<'static, ()>,
    /// The streams that have ended, as long as handlers of theirs go on.
    left: Left,
    /// Runs while there is no stream.
    no_stream: Option<BoxFuture<'static, ()>>,
    /// None once it was asked for.
    shutdown: Option<BoxFuture<'static, ()>>,
    /// The peer was told that the connection ends.
    goodbye: bool,
}

/// What clients sent on streams that have ended, until it has been handled.
#[derive(Default)]
struct Left(Vec<Input>);

impl Left {
    /// Hands the lanes what they take, and forgets what has been handled.
    fn work_off(&mut self, cx: &mut Context<'_>, services: &Services) {
        self.0
            .retain_mut(|input| input.poll_work_off(cx, services).is_pending());
    }
}

impl Drop for Left {
    /// Where handlers have not ended, the server was stopped.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Input::abandon);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.pings.end_flush();
            stream.end_calls().abandon();
        }
    }
}

impl Served {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        for _ in 0..BATCHES_PER_TURN {
            self.bell.register(cx.waker());
            let answered = self.bell.answer();
            loop {
                if !answered {
                    break;
                }
                match self.h2.poll_accept(&mut self.bell.context()) {
                    Poll::Pending => break,
                    Poll::Ready(ended @ (None | Some(Err(_)))) => {
                        // The last requests and the end of the connection may have come together.
                        // What came is bounded by the window, so nothing is left behind.
                        if let Some(stream) = &mut self.stream {
                            stream.poll_read(&self.settings.services);
                            stream.input.keep_unread();
                        }
                        return Poll::Ready(match ended {
                            Some(Err(error)) => {
                                let error = error.to_string();
                                tracing::debug!(error = %excerpt(&error), "connection failed");
                                "failed"
                            }
                            _ => "closed",
                        });
                    }
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        // A client may open a stream right behind the reset of its last one.
                        if let Some(stream) = &mut self.stream
                            && stream.poll_reset().is_ready()
                        {
                            self.leave_stream();
                        }
                        self.accept(request, respond);
                    }
                }
            }
            if let Poll::Ready(reason) = self.poll_timers(cx) {
                return Poll::Ready(reason);
            }
            let mut again = false;
            self.left.work_off(cx, &self.settings.services);
            if let Some(stream) = &mut self.stream {
                stream.register(cx);
                if (answered || stream.input.is_held_up())
                    && stream.poll_read(&self.settings.services)
                {
                    let now = self.settings.clock.now();
                    if self.keep_alive.heard_message(now) {
                        self.keep_alive_timer =
                            self.settings.clock.sleep_until(self.keep_alive.due());
                        again = true;
                    }
                }
                if answered {
                    // Also where nothing is read at present.
                    let _ = stream.poll_reset();
                }
                again |= stream.write(&self.bell, &mut self.pings);
                self.pings.flush(cx, &self.bell, true);
                if stream.is_over() {
                    self.leave_stream();
                    self.no_stream = Some(self.after(self.settings.stream_timeout));
                    again = true;
                }
            }
            if self.shutdown.is_none() && !self.goodbye && self.stream.is_none() {
                self.goodbye = true;
                self.h2.graceful_shutdown();
                self.bell.ring();
                again = true;
            }
            if !again {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The stream has ended; what its handlers do has not.
    fn leave_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.pings.end_flush();
            let mut input = stream.end_calls();
            input.leave();
            self.left.0.push(input);
        }
    }

    fn after(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = &self.settings.clock;
        clock.sleep_until(clock.now() + duration)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx).is_ready()
        {
            self.shutdown = None;
            if let Some(stream) = &mut self.stream {
                stream.wind_down();
            }
        }
        if let Some(no_stream) = &mut self.no_stream
            && no_stream.as_mut().poll(cx).is_ready()
        {
            self.h2.abrupt_shutdown(Reason::NO_ERROR);
            self.no_stream = None;
            // The connection says goodbye when it is polled again.
            self.bell.ring();
            cx.waker().wake_by_ref();
        }
        if self.pings.poll_pong() {
            let clock = &self.settings.clock;
            if self.keep_alive.heard_pong(clock.now()) {
                self.keep_alive_timer = clock.sleep_until(self.keep_alive.due());
            }
        }
        while self.keep_alive_timer.as_mut().poll(cx).is_ready() {
            let clock = &self.settings.clock;
            let at = match self.keep_alive.fired(clock.now(), true) {
                Action::Wait(at) => at,
                Action::Ping(at) => {
                    self.pings.send(cx, &self.bell);
                    at
                }
                Action::Idle | Action::Dead => {
                    return Poll::Ready("the peer did not answer a keep-alive ping");
                }
            };
            self.keep_alive_timer = clock.sleep_until(at);
        }
        Poll::Pending
    }

    /// A request on this connection: the one that opens the stream, or one that we do not serve.
    fn accept(&mut self, request: HttpRequest<RecvStream>, mut respond: SendResponse<Batch>) {
        let refusal = self.refusal(&request);
        if let Some(refusal) = refusal {
            // The peer may be gone already.
            let _ = respond.send_response(refusal, true);
            return;
        }
        let (head, recv) = request.into_parts();
        let mut connecting = Connecting {
            info: ConnectionInfo {
                metadata: Metadata::from_headers(&head.headers),
                peer_addr: match self.origin {
                    Origin::Outside(peer_addr) => peer_addr,
                    Origin::Inside => None,
                },
                own: matches!(self.origin, Origin::Inside),
                values: self.settings.services.values.clone(),
                ..ConnectionInfo::default()
            },
        };
        let features = Features::announced(&head.headers);
        let claim = match self.origin {
            Origin::Outside(_) => self.settings.classify(&head.headers),
            Origin::Inside => self.settings.own_claim(),
        };
        connecting.info.peer_id = match claim {
            Claim::Peer(id) | Claim::Client(Some(id)) => Some(id),
            Claim::Nobody | Claim::Unproven | Claim::Client(None) => None,
        };
        if let Some(on_connect) = &self.settings.on_connect
            && let Err(status) = on_connect(&mut connecting)
        {
            let _ = respond.send_response(trailers_only(&status), true);
            return;
        }
        // Before the reply, so that a client that has it can be called.
        let mut attached = None;
        let caller = match claim {
            Claim::Nobody => Caller::Plain,
            Claim::Unproven => Caller::Ignored,
            Claim::Peer(id) => {
                let node = self.settings.that_connects(id);
                match node.and_then(|node| Attachment::new(node.channel(), features)) {
                    Some(attachment) => {
                        let channel = Arc::clone(attachment.channel());
                        self.keep_alive_for(&channel.pool().settings);
                        attached = Some(Callee::Peer(attachment));
                        Caller::Callable(channel)
                    }
                    None => Caller::Ignored,
                }
            }
            Claim::Client(id) => {
                let clients = &self.settings.clients;
                match clients.attach(id, connecting.info.peer_addr, features) {
                    Ok(client) => {
                        connecting.info.peer_id = Some(client.node().id());
                        let channel = Arc::clone(client.node().channel());
                        attached = Some(Callee::Client(client));
                        Caller::Callable(channel)
                    }
                    Err(status) => {
                        let _ = respond.send_response(trailers_only(&status), true);
                        return;
                    }
                }
            }
        };
        let Ok(send) = respond.send_response(response_head(), false) else {
            return;
        };
        let replies = Arc::new(ReplyQueue::new(self.settings.services.max_reply_bytes));
        let (lane, task) = Lane::start(
            Arc::clone(&self.settings.services.lane),
            Arc::new(connecting.info),
            Arc::clone(&replies),
            features.stream_end,
        );
        tokio::spawn(task);
        self.no_stream = None;
        self.stream = Some(NodeStream {
            input: Input::new(
                recv,
                self.settings.services.max_decoding,
                caller,
                lane,
                Arc::clone(&replies),
            ),
            send,
            writer: Writer::default(),
            attached,
            replies,
            ending: None,
            over: false,
        });
    }

    /// The stream carries calls for which a node may be silent as long as these settings say, or as
    /// long as a client may, whatever is shorter.
    fn keep_alive_for(&mut self, settings: &Settings) {
        let interval = settings.keep_alive_interval;
        let timeout = settings.keep_alive_timeout;
        self.keep_alive = KeepAlive::steady(
            interval.min(self.settings.keep_alive_interval),
            timeout.min(self.settings.keep_alive_timeout),
            self.settings.clock.now(),
        );
        self.keep_alive_timer = self.settings.clock.sleep_until(self.keep_alive.due());
    }

    /// What is wrong with a request, as the whole reply to it.
    fn refusal(&self, request: &HttpRequest<RecvStream>) -> Option<Response<()>> {
        if request.method() != Method::POST || !is_grpc(request.headers()) {
            let mut response = Response::new(());
            *response.status_mut() = if request.method() != Method::POST {
                StatusCode::METHOD_NOT_ALLOWED
            } else {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            };
            return Some(response);
        }
        let path = request.uri().path();
        if path != PATH {
            return Some(trailers_only(&Status::unimplemented(format!(
                "unknown path {}: this server serves {PATH}",
                excerpt(path)
            ))));
        }
        if self.stream.is_some() {
            return Some(trailers_only(&Status::unimplemented(
                "there is a stream on this connection already: a client has one stream per node",
            )));
        }
        if self.shutdown.is_none() {
            return Some(trailers_only(&Status::unavailable(
                "the server is shutting down",
            )));
        }
        let unfinished = self.left.0.iter().filter(|input| !input.is_worked_off());
        let unfinished = unfinished.count();
        if unfinished >= UNFINISHED_STREAMS {
            return Some(trailers_only(&Status::resource_exhausted(format!(
                "handlers of {unfinished} earlier streams of this connection have not finished"
            ))));
        }
        let waiting: usize = self.left.0.iter().map(Input::waiting_bytes).sum();
        if waiting >= self.settings.services.max_waiting_bytes {
            return Some(trailers_only(&Status::resource_exhausted(format!(
                "{waiting} bytes of requests of earlier streams of this connection wait"
            ))));
        }
        None
    }
}

/// Whom the stream carries calls to.
enum Callee {
    Client(Attached),
    Peer(Attachment),
}

impl Callee {
    fn attachment(&self) -> &Attachment {
        match self {
            Self::Client(client) => client.attachment(),
            Self::Peer(attachment) => attachment,
        }
    }
}

/// The stream of a client.
struct NodeStream {
    input: Input,
    send: SendStream<Batch>,
    writer: Writer,
    /// Where the client can be called back.
    attached: Option<Callee>,
    replies: Arc<ReplyQueue>,
    /// Set when no more requests are taken: what the trailers will say once all is written.
    ending: Option<(Code, String)>,
    over: bool,
}

impl NodeStream {
    /// Reads what there is, as far as the lane takes it. True if anything came.
    fn poll_read(&mut self, services: &Services) -> bool {
        let (heard, end) = self.input.poll_read(services);
        match end {
            None => {}
            // What was asked is still answered.
            Some(InputEnd::HalfClosed) => self.end(Code::Ok, ""),
            Some(InputEnd::Cut) => self.end(Code::Internal, "the stream ended within a message"),
            Some(InputEnd::Gone) => self.over = true,
            Some(InputEnd::Broken(status)) => self.end(status.code(), status.message()),
        }
        heard
    }

    /// Ready when the client has reset the stream, which is how a Go client ends it. What it sent
    /// before is handled.
    fn poll_reset(&mut self) -> Poll<()> {
        let reset = ready!(self.send.poll_reset(&mut quiet()));
        tracing::debug!(?reset, "stream reset");
        self.input.keep_unread();
        self.over = true;
        Poll::Ready(())
    }

    /// Reads no more; when all is answered, the trailers say this. So no reply to a call comes any
    /// more, and the calls fail now: the handlers that wait for them would keep the stream from ending.
    fn end(&mut self, code: Code, message: &str) {
        self.ending
            .get_or_insert_with(|| (code, message.to_owned()));
        self.input.close();
        self.let_go();
    }

    /// The server shuts down: no more requests are taken. Handlers of those that were may call, and
    /// the replies to that are read.
    fn wind_down(&mut self) {
        if self.ending.is_none() {
            let message = "the server is shutting down".to_owned();
            self.ending = Some((Code::Unavailable, message));
            self.input.take_no_requests();
        }
    }

    /// Carries no calls any more. What was written last may still be with `h2`.
    fn let_go(&mut self) {
        self.attached = None;
        self.input.ends_calls();
    }

    /// Wakes the task when there is something to write, and lets go of a node whose calls this stream
    /// does not carry any more.
    fn register(&mut self, cx: &mut Context<'_>) {
        self.replies.io().register(cx.waker());
        let Some(callee) = &self.attached else {
            return;
        };
        let attachment = callee.attachment();
        let carries = attachment.register(cx.waker());
        if !carries || (attachment.is_finished() && !self.writer.has_messages()) {
            self.let_go();
        }
    }

    /// Writes queued replies and calls, and the trailers behind the last. True if it wrote.
    fn write(&mut self, bell: &Bell, pings: &mut Pings) -> bool {
        if self.over || !self.writer.is_free() {
            return false;
        }
        self.writer.settle(pings.flushing());
        self.writer.push_replies(&self.replies);
        if let Some(callee) = &self.attached {
            let attachment = callee.attachment();
            self.writer
                .push_messages(attachment.channel(), attachment.carrier());
        }
        if let Some(batch) = self.writer.next() {
            // Followed by a poll of the connection, which flushes it.
            bell.ring();
            if self.send.send_data(batch, false).is_err() {
                self.over = true;
            }
            return true;
        }
        self.writer.settle(pings.flushing());
        if let Some((code, message)) = &self.ending
            && self.input.is_worked_off()
            && self.replies.is_empty()
        {
            bell.ring();
            // The peer may have reset the stream meanwhile.
            let _ = self.send.send_trailers(trailers(*code, message));
            self.over = true;
            return true;
        }
        false
    }

    /// The stream is over: calls to the client fail. What the client sent is left.
    fn end_calls(self) -> Input {
        let Self {
            mut input,
            send,
            mut writer,
            attached,
            ..
        } = self;
        drop(send);
        input.ends_calls();
        if let Some(callee) = attached {
            let attachment = callee.attachment();
            writer.give_back(attachment.channel(), attachment.carrier());
        }
        input
    }

    fn is_over(&self) -> bool {
        self.over
    }
}
