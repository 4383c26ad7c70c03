//! The I/O task of a connection, on the server's side: it reads requests for the lane and writes
//! the replies that are queued.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Method, Request as HttpRequest, Response, StatusCode};

use super::context::{Connecting, ConnectionInfo};
use super::lane::{Lane, LaneSettings, Request};
use super::registry::{MethodKind, Registry};
use super::reply_queue::{Answer, ReplyQueue};
use crate::connection::keep_alive::{Action, KeepAlive};
use crate::error::{Code, Status};
use crate::metadata::Metadata;
use crate::runtime::{BoxFuture, BoxIo, Clock, FairIo};
use crate::wire::{
    Batch, BatchBuilder, BatchSlot, Control, Decoder, Envelope, Features, H2Settings,
    Incoming as Frame, NODE_ID, PATH, SERVER_INITIATED, is_grpc, peek_id, response_head, trailers,
    trailers_only,
};

/// How many batches are written in one turn of the task before others get theirs.
const BATCHES_PER_TURN: usize = 16;

/// How many streams of a connection may have ended while handlers of theirs go on.
const UNFINISHED_STREAMS: usize = 8;

/// What an entry of metadata costs beside its bytes.
const ENTRY: usize = 64;

/// The connect callback.
pub(crate) type OnConnect = dyn Fn(&mut Connecting) -> Result<(), Status> + Send + Sync;

/// What all connections of a server have in common.
pub(crate) struct ConnectionSettings {
    pub(crate) registry: Registry,
    pub(crate) lane: Arc<LaneSettings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_connect: Option<Box<OnConnect>>,
    pub(crate) max_decoding: usize,
    /// The bound of the requests that were read and not started.
    pub(crate) max_waiting_bytes: usize,
    /// The bound of the replies that are not written.
    pub(crate) max_reply_bytes: usize,
    /// How long a connection may be without a stream, at its beginning too.
    pub(crate) stream_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
}

/// Serves a connection until it ends, or has wound down after `shutdown`.
pub(crate) async fn serve(
    io: BoxIo,
    peer_addr: Option<SocketAddr>,
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
                tracing::debug!(%error, ?peer_addr, "no HTTP/2 from this peer");
                return;
            }
        },
        () = &mut shutdown => return,
        () = timeout => {
            tracing::debug!(?peer_addr, "the peer connected and sent nothing");
            return;
        }
    };
    let ping_pong = h2.ping_pong();
    let mut keep_alive =
        KeepAlive::steady(settings.keep_alive_interval, settings.keep_alive_timeout);
    let first_look = keep_alive.first();
    let mut served = Served {
        keep_alive_timer: clock.sleep_until(clock.now() + first_look),
        no_stream: Some(clock.sleep_until(clock.now() + settings.stream_timeout)),
        settings,
        peer_addr,
        h2,
        stream: None,
        left: Left::default(),
        ping_pong,
        keep_alive,
        shutdown: Some(shutdown),
        goodbye: false,
    };
    let end = poll_fn(|cx| served.poll(cx)).await;

    tracing::debug!(?peer_addr, reason = end, "connection ended");
    served.leave_stream();
    let left = std::mem::take(&mut served.left);
    // Handlers go on, and count as long as their connection did. The socket is closed.
    drop(served);
    for lane in &left.0 {
        lane.idle().await;
    }
}

struct Served {
    settings: Arc<ConnectionSettings>,
    peer_addr: Option<SocketAddr>,
    h2: Connection<FairIo, Batch>,
    stream: Option<NodeStream>,
    ping_pong: Option<PingPong>,
    keep_alive: KeepAlive,
    keep_alive_timer: BoxFuture<'static, ()>,
    /// The lanes of streams that have ended, as long as handlers run in them.
    left: Left,
    /// Runs while there is no stream.
    no_stream: Option<BoxFuture<'static, ()>>,
    /// None once it was asked for.
    shutdown: Option<BoxFuture<'static, ()>>,
    /// The peer was told that the connection ends.
    goodbye: bool,
}

/// Lanes whose stream has ended.
#[derive(Default)]
struct Left(Vec<Arc<Lane>>);

impl Drop for Left {
    /// Where handlers have not ended, the server was stopped.
    fn drop(&mut self) {
        self.0.iter().for_each(|lane| lane.abandon());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.requests.clear();
            stream.lane.abandon();
        }
    }
}

impl Served {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        for _ in 0..BATCHES_PER_TURN {
            loop {
                match self.h2.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(ended @ (None | Some(Err(_)))) => {
                        // The last requests and the end of the connection may have come together.
                        // What came is bounded by the window, so nothing is left behind.
                        if let Some(stream) = &mut self.stream {
                            stream.read_all(cx, &self.settings);
                        }
                        return Poll::Ready(match ended {
                            Some(Err(error)) => {
                                tracing::debug!(%error, "connection failed");
                                "failed"
                            }
                            _ => "closed",
                        });
                    }
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        // A client may open a stream right behind the reset of its last one.
                        if let Some(stream) = &mut self.stream
                            && stream.poll_reset(cx, &self.settings).is_ready()
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
            if let Some(stream) = &mut self.stream {
                stream.replies.io().register(cx.waker());
                if stream.poll_read(cx, &self.settings) {
                    self.keep_alive.heard_message();
                }
                // Also where nothing is read at present.
                let _ = stream.poll_reset(cx, &self.settings);
                again = stream.write();
                if stream.is_over() {
                    self.leave_stream();
                    self.no_stream = Some(self.after(self.settings.stream_timeout));
                    again = true;
                }
            }
            if self.shutdown.is_none() && !self.goodbye && self.stream.is_none() {
                self.goodbye = true;
                self.h2.graceful_shutdown();
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
            self.left.0.retain(|lane| !lane.is_idle());
            self.left.0.push(Arc::clone(&stream.lane));
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
                stream.end(Code::Unavailable, "the server is shutting down");
            }
        }
        if let Some(no_stream) = &mut self.no_stream
            && no_stream.as_mut().poll(cx).is_ready()
        {
            self.h2.abrupt_shutdown(Reason::NO_ERROR);
            self.no_stream = None;
            // The connection says goodbye when it is polled again.
            cx.waker().wake_by_ref();
        }
        if let Some(ping_pong) = &mut self.ping_pong
            && let Poll::Ready(Ok(_)) = ping_pong.poll_pong(cx)
        {
            self.keep_alive.heard_pong();
        }
        while self.keep_alive_timer.as_mut().poll(cx).is_ready() {
            let wait = match self.keep_alive.fired(true) {
                Action::Wait(wait) => wait,
                Action::Ping(wait) => {
                    if let Some(ping_pong) = &mut self.ping_pong
                        && ping_pong.send_ping(Ping::opaque()).is_ok()
                    {
                        // The connection writes it when it is polled again.
                        cx.waker().wake_by_ref();
                    }
                    wait
                }
                Action::Idle | Action::Dead => {
                    return Poll::Ready("the peer did not answer a keep-alive ping");
                }
            };
            self.keep_alive_timer = self.after(wait);
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
                peer_addr: self.peer_addr,
                ..ConnectionInfo::default()
            },
        };
        if let Some(on_connect) = &self.settings.on_connect
            && let Err(status) = on_connect(&mut connecting)
        {
            let _ = respond.send_response(trailers_only(&status), true);
            return;
        }
        let Ok(send) = respond.send_response(response_head(), false) else {
            return;
        };
        let features = Features::announced(&head.headers);
        let replies = Arc::new(ReplyQueue::new(self.settings.max_reply_bytes));
        let (lane, task) = Lane::start(
            Arc::clone(&self.settings.lane),
            Arc::new(connecting.info),
            Arc::clone(&replies),
            features.stream_end,
        );
        tokio::spawn(task);
        self.no_stream = None;
        self.stream = Some(NodeStream {
            recv: Some(recv),
            send,
            decoder: Decoder::new(self.settings.max_decoding),
            unreleased: 0,
            unread: BytesMut::new(),
            input_ended: None,
            chunk_left: 0,
            carried: 0,
            has_request: false,
            answers_wait: false,
            paused: false,
            read_all: false,
            has_node_id: head.headers.contains_key(NODE_ID),
            slot: BatchSlot::default(),
            builder: BatchBuilder::default(),
            lane,
            replies,
            requests: Vec::new(),
            read_bytes: 0,
            ending: None,
            over: false,
        });
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
                "unknown path {path}: this server serves {PATH}"
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
        let unfinished = self.left.0.iter().filter(|lane| !lane.is_idle()).count();
        if unfinished >= UNFINISHED_STREAMS {
            return Some(trailers_only(&Status::resource_exhausted(format!(
                "handlers of {unfinished} earlier streams of this connection have not finished"
            ))));
        }
        None
    }
}

/// The stream of a client.
struct NodeStream {
    /// None once the client has ended its side, or we read no more.
    recv: Option<RecvStream>,
    send: SendStream<Batch>,
    decoder: Decoder,
    /// Bytes of the current chunk that the client may not send anew yet.
    unreleased: usize,
    /// What came while reading paused. `h2` would keep each frame in the buffer that it was read
    /// into, and a peer may make these many and large.
    unread: BytesMut,
    /// How the client's side ended while reading paused.
    input_ended: Option<Result<(), ()>>,
    /// How much of the current chunk is in no request so far.
    chunk_left: usize,
    /// What such chunks of which requests were made had besides. A request keeps the whole chunk, so
    /// this counts as well, with the next request.
    carried: usize,
    /// A request keeps the current chunk.
    has_request: bool,
    /// The I/O task has answered requests itself, and the queue of replies is full.
    answers_wait: bool,
    /// The lane has enough to do: nothing is read before it has worked some of it off.
    paused: bool,
    /// The connection has ended: what came is read whatever the lane has to do.
    read_all: bool,
    /// The client can be called back, so ids with the server's bit are replies.
    has_node_id: bool,
    slot: BatchSlot,
    builder: BatchBuilder,
    lane: Arc<Lane>,
    replies: Arc<ReplyQueue>,
    /// Read and not handed to the lane yet.
    requests: Vec<Request>,
    /// What these cost.
    read_bytes: usize,
    /// Set when no more is read: what the trailers will say once all is written.
    ending: Option<(Code, String)>,
    over: bool,
}

impl NodeStream {
    /// Reads what there is, as far as the lane takes it. True if anything came.
    fn poll_read(&mut self, cx: &mut Context<'_>, settings: &ConnectionSettings) -> bool {
        let mut heard = false;
        let status = loop {
            match self.read_chunk(settings) {
                Ok(true) => {}
                Ok(false) => {
                    heard |= self.keep_unread(cx);
                    break None;
                }
                Err(status) => break Some(status),
            }
            match self.poll_chunk(cx) {
                Poll::Pending => break None,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.take_chunk(chunk);
                }
                Poll::Ready(Ok(None)) => {
                    // Half-closed: what was asked is still answered.
                    let cut = !self.decoder.is_between_messages();
                    self.hand_over();
                    if cut {
                        self.end(Code::Internal, "the stream ended within a message");
                    } else {
                        self.end(Code::Ok, "");
                    }
                    return true;
                }
                Poll::Ready(Err(())) => {
                    self.hand_over();
                    self.over = true;
                    self.recv = None;
                    return true;
                }
            }
        };
        self.hand_over();
        if let Some(status) = status {
            self.end(status.code(), status.message());
        }
        heard
    }

    fn hand_over(&mut self) {
        self.lane.push(&mut self.requests);
        self.read_bytes = 0;
    }

    /// Reads all that has come, whatever the lane has to do: the peer will send no more.
    fn read_all(&mut self, cx: &mut Context<'_>, settings: &ConnectionSettings) {
        self.read_all = true;
        self.poll_read(cx, settings);
    }

    /// Ready when the client has reset the stream, which is how a Go client ends it. What it sent
    /// before is handled.
    fn poll_reset(&mut self, cx: &mut Context<'_>, settings: &ConnectionSettings) -> Poll<()> {
        let reset = ready!(self.send.poll_reset(cx));
        tracing::debug!(?reset, "stream reset");
        self.read_all(cx, settings);
        self.over = true;
        Poll::Ready(())
    }

    /// Takes what has come out of `h2`'s hands while reading is paused. What is kept is bounded by
    /// the window: none of it may be sent anew before it has been read.
    fn keep_unread(&mut self, cx: &mut Context<'_>) -> bool {
        let mut heard = false;
        while self.input_ended.is_none() {
            match self.poll_chunk(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.unread.extend_from_slice(&chunk);
                }
                Poll::Ready(Ok(None)) => self.input_ended = Some(Ok(())),
                Poll::Ready(Err(())) => self.input_ended = Some(Err(())),
            }
        }
        heard
    }

    fn take_chunk(&mut self, chunk: Bytes) {
        if std::mem::take(&mut self.has_request) {
            self.carried += self.chunk_left;
        }
        self.chunk_left = chunk.len();
        self.unreleased = chunk.len();
        self.decoder.push(chunk);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ()>> {
        if let Some(ended) = self.input_ended.take() {
            return Poll::Ready(ended.map(|()| None));
        }
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        match ready!(recv.poll_data(cx)) {
            None => Poll::Ready(Ok(None)),
            Some(Ok(chunk)) => Poll::Ready(Ok(Some(chunk))),
            Some(Err(error)) => {
                tracing::debug!(%error, "stream ended");
                Poll::Ready(Err(()))
            }
        }
    }

    /// Takes the messages out of the current chunk. False where the lane has enough; an error ends
    /// the stream.
    fn read_chunk(&mut self, settings: &ConnectionSettings) -> Result<bool, Status> {
        if self.recv.is_none() {
            return Ok(true);
        }
        let limit = settings.max_waiting_bytes;
        let at_the_lane = self.lane.waiting_bytes();
        self.answers_wait = self.answers_wait && self.replies.is_full();
        loop {
            // Several frames may have come at once, of which the lane has nothing yet.
            let waiting = at_the_lane + self.read_bytes;
            self.paused = if self.paused {
                waiting > limit / 2
            } else {
                waiting >= limit
            };
            if self.paused && !self.read_all {
                self.hand_over();
                self.lane.wake_when_below(limit / 2);
                return Ok(false);
            }
            // The next batch of replies makes room, and this task takes it.
            if self.answers_wait && !self.read_all {
                return Ok(false);
            }
            if let Some(frame) = self.decoder.next()? {
                if let Some(mut request) = self.read_frame(&frame, settings)? {
                    self.chunk_left = self.chunk_left.saturating_sub(request.size);
                    request.size += std::mem::take(&mut self.carried);
                    self.has_request = true;
                    self.read_bytes += request.cost();
                    self.requests.push(request);
                }
                continue;
            }
            if let Some(recv) = &mut self.recv {
                let unreleased = std::mem::take(&mut self.unreleased);
                recv.flow_control()
                    .release_capacity(unreleased)
                    .map_err(|error| Status::internal(error.to_string()))?;
            }
            if self.unread.is_empty() {
                return Ok(true);
            }
            let unread = std::mem::take(&mut self.unread).freeze();
            self.take_chunk(unread);
        }
    }

    fn read_frame(
        &mut self,
        frame: &Frame,
        settings: &ConnectionSettings,
    ) -> Result<Option<Request>, Status> {
        let registry = &settings.registry;
        let frame = match frame {
            Frame::Message(frame) => frame,
            Frame::Oversized { head, len } => {
                let status = Status::resource_exhausted(format!(
                    "a request of {len} bytes exceeds the limit of {} (max_decoding_message_size)",
                    settings.max_decoding
                ));
                let (id, method) = peek_id(head).ok_or_else(|| status.clone())?;
                return self.reject(id, method, &status, registry);
            }
        };
        let envelope = Envelope::decode(frame).map_err(|error| {
            Status::internal(format!("a malformed message from the client: {error}"))
        })?;
        if let Some(excess) = &envelope.excess {
            let status = Status::resource_exhausted(format!("the request has {excess}"));
            return self.reject(envelope.id, envelope.method, &status, registry);
        }
        match envelope.control {
            Control::Message => {}
            Control::Cancel => {
                self.hand_over();
                self.lane.cancel(envelope.id);
                return Ok(None);
            }
            Control::End | Control::Unknown => return Ok(None),
        }
        if self.has_node_id && envelope.id & SERVER_INITIATED != 0 {
            // An answer to a call that this server never made.
            return Ok(None);
        }
        let entry = registry.get(envelope.method).cloned();
        // The name of a method that nobody registered is copied.
        let name = match &entry {
            Some(_) => 0,
            None => envelope.method.len(),
        };
        Ok(Some(Request {
            id: envelope.id,
            method: match &entry {
                Some(entry) => Arc::clone(&entry.name),
                None => envelope.method.into(),
            },
            entry,
            // A request that waits keeps its whole frame, whatever is in it.
            size: frame.len() + name + ENTRY * envelope.metadata.len(),
            metadata: envelope.metadata(),
            payload: frame.slice_ref(envelope.payload),
        }))
    }

    /// Turns a request away that is not taken. A two-way request is answered. A one-way message
    /// cannot be, and is not lost in silence: the stream ends.
    fn reject(
        &mut self,
        id: u64,
        method: &str,
        status: &Status,
        registry: &Registry,
    ) -> Result<Option<Request>, Status> {
        if registry
            .get(method)
            .is_some_and(|entry| entry.kind == MethodKind::OneWay)
        {
            return Err(status.clone());
        }
        self.replies
            .push_unbounded(id, method, &Answer::Error(status));
        self.answers_wait = self.replies.is_full();
        Ok(None)
    }

    /// Reads no more; when all is answered, the trailers say this.
    fn end(&mut self, code: Code, message: &str) {
        if self.ending.is_none() {
            self.ending = Some((code, message.to_owned()));
            self.recv = None;
            self.unread = BytesMut::new();
            self.input_ended = None;
            self.lane.finish();
        }
    }

    /// Writes queued replies, and the trailers behind the last. True if it wrote.
    fn write(&mut self) -> bool {
        if self.over || !self.slot.is_free() {
            return false;
        }
        self.replies.take(&mut self.builder);
        if !self.builder.is_empty() {
            let batch = self.builder.finish(&self.slot);
            if self.send.send_data(batch, false).is_err() {
                self.over = true;
            }
            return true;
        }
        if let Some((code, message)) = &self.ending
            && self.lane.is_idle()
            && self.replies.is_empty()
        {
            // The peer may have reset the stream meanwhile.
            let _ = self.send.send_trailers(trailers(*code, message));
            self.over = true;
            return true;
        }
        false
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

impl Drop for NodeStream {
    fn drop(&mut self) {
        self.hand_over();
        self.lane.disconnect();
    }
}
