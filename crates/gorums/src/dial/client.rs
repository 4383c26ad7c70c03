//! The I/O task of a node: it connects, writes what is queued, reads replies to their calls, and
//! connects again.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::{Connection, ResponseFuture};
use h2::{RecvStream, SendStream};

use super::Serving;
use super::reconnect::Reconnect;
use crate::channel::{Carrier, Channel, NodeState};
use crate::error::{Outcome, Status, excerpt};
use crate::handler::ReplyQueue;
use crate::runtime::BoxFuture;
use crate::stream::{
    Action, Bell, Callbacks, FairIo, FirstBytes, KeepAlive, Pings, Served, Writer, quiet,
};
use crate::wire::{
    Batch, Decoder, Features, H2Settings, Side, check_response_head, is_turned_away,
    is_unprocessed, request_head, stream_ended, trailers_status,
};

/// How many batches are written in one turn of the task before others get theirs.
const BATCHES_PER_TURN: usize = 16;

/// So many bytes to write cost more than to look at all sockets for replies first, whose callers may
/// have more to write.
const WORTH_A_LOOK: usize = 1024;

/// Why a connection ended.
enum End {
    /// It broke, or the peer ended it.
    Lost(Status),
    /// Nobody holds the node any more.
    Closed,
}

/// Keeps a node until its last handle is dropped, and connected where it does not connect itself.
pub(crate) fn run(channel: Arc<Channel>, serving: Arc<Serving>) -> BoxFuture<'static, ()> {
    if channel.side() == Side::Server {
        return Box::pin(keep(channel));
    }
    let closed = close_on_drop(&channel);
    Box::pin(async move {
        let _closed = closed;
        keep_connected(channel, &serving).await;
    })
}

async fn keep_connected(channel: Arc<Channel>, serving: &Serving) {
    let clock = Arc::clone(&channel.pool().clock);
    let mut reconnect = Reconnect::new(&channel.pool().settings, clock.now());
    loop {
        channel.set_state(NodeState::Connecting);
        reconnect.started(clock.now());
        channel.outbox().begin_attempt();
        match connect(&channel, serving.get()).await {
            Ok(mut connected) => {
                let since = clock.now();
                channel.set_state(NodeState::Connected);
                let end = poll_fn(|cx| connected.poll(cx, &channel)).await;
                if connected.answered {
                    reconnect.proven();
                }
                let written = connected.known_of_requests();
                let protocol = connected.foreign_protocol();
                connected.give_back(&channel);
                match end {
                    End::Closed => return,
                    End::Lost(status) => {
                        let status = naming_protocol(status, protocol);
                        let now = clock.now();
                        reconnect.lost(now, now - since, clock.random());
                        channel.set_last_error(Some(status.clone()));
                        channel.set_state(NodeState::Disconnected);
                        channel.fail_written_as(written, &status);
                        // What this connection was made for has had its attempt; the rest waits for
                        // the next.
                        let failed = channel.outbox().fail_attempt();
                        // Where the node has refused the stream, it has refused these as well.
                        let unwritten = match written {
                            Outcome::Refused => Outcome::Refused,
                            Outcome::NotSent | Outcome::Unknown => Outcome::NotSent,
                        };
                        Channel::fail_unwritten_as(failed, unwritten, &status);
                    }
                }
            }
            Err(Failed {
                status,
                reached,
                timed_out,
            }) => {
                if reached {
                    reconnect.lost(clock.now(), Duration::ZERO, clock.random());
                } else {
                    reconnect.failed(clock.now(), clock.random());
                }
                channel.set_last_error(Some(status.clone()));
                channel.set_state(NodeState::Disconnected);
                // A call that came during an attempt that was refused at once may have come after
                // the server did: it gets an attempt of its own. One that has waited for a silent
                // peer has waited enough.
                let failed = if timed_out {
                    channel.outbox().drain()
                } else {
                    channel.outbox().fail_attempt()
                };
                Channel::fail_unwritten(failed, &status);
            }
        }
        if pause(&channel, &reconnect).await.is_break() {
            return;
        }
    }
}

/// Keeps a node that opens its streams itself, until its last handle is dropped.
fn keep(channel: Arc<Channel>) -> impl Future<Output = ()> + Send {
    let closed = close_on_drop(&channel);
    async move {
        let _closed = closed;
        while !channel.is_closing() {
            channel.let_go().notified().await;
        }
        // What is queued is still written, for a while.
        let pool = channel.pool();
        let mut linger = pool
            .clock
            .sleep_until(pool.clock.now() + pool.settings.linger);
        while channel.state() == NodeState::Connected {
            tokio::select! {
                biased;
                () = channel.let_go().notified() => {}
                () = &mut linger => return,
            }
        }
    }
}

/// Closes the channel with its task, which may also end because its runtime does, even before it has
/// begun.
fn close_on_drop(channel: &Arc<Channel>) -> impl Drop + Send + use<> {
    CloseOnDrop(Arc::clone(channel))
}

struct CloseOnDrop(Arc<Channel>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let channel = &self.0;
        channel.set_state(NodeState::Closed);
        let status = Status::unavailable("the connection is closed");
        let unwritten = channel.outbox().close();
        Channel::fail_unwritten(unwritten, &status);
        channel.fail_written(&status);
    }
}

/// Waits until the next attempt is due, or a call asks for one. Break where the channel is closed.
async fn pause(channel: &Arc<Channel>, reconnect: &Reconnect) -> std::ops::ControlFlow<()> {
    let clock = &channel.pool().clock;
    let ways = channel.ways();
    loop {
        let demanded = !channel.outbox().is_empty();
        if channel.is_closing() {
            return std::ops::ControlFlow::Break(());
        }
        let at = reconnect.next(demanded);
        if at <= clock.now() || ways != channel.ways() {
            return std::ops::ControlFlow::Continue(());
        }
        let mut sleep = clock.sleep_until(at);
        poll_fn(|cx| {
            channel.io().register(cx.waker());
            if channel.is_closing()
                || channel.outbox().is_empty() == demanded
                || ways != channel.ways()
            {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }
}

/// An attempt that failed.
struct Failed {
    status: Status,
    /// There was a connection, which has ended.
    reached: bool,
    timed_out: bool,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self {
            status,
            reached: false,
            timed_out: false,
        }
    }
}

async fn connect(channel: &Arc<Channel>, served: Option<Served>) -> Result<Connected, Failed> {
    let pool = channel.pool();
    let limit = pool.settings.connect_timeout;
    let timeout = pool.clock.sleep_until(pool.clock.now() + limit);
    let closing = poll_fn(|cx| {
        channel.io().register(cx.waker());
        if channel.is_closing() && channel.outbox().is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    tokio::select! {
        biased;
        result = open(channel, served) => result,
        () = closing => Err(Status::unavailable("the connection is closed").into()),
        () = timeout => Err(Failed {
            status: Status::unavailable(format!("no connection within {limit:?}")),
            reached: false,
            timed_out: true,
        }),
    }
}

async fn open(channel: &Arc<Channel>, served: Option<Served>) -> Result<Connected, Failed> {
    let pool = channel.pool();
    let unavailable = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    let ways = channel.ways();
    let node_id = served.as_ref().map(|served| served.node_id);
    let request = request_head(channel.address(), &pool.metadata, node_id)?;
    let io = match channel.door() {
        Some(door) => door.connect().await,
        None => pool.transport.connect(channel.address()).await,
    };
    let io = io.map_err(|error| unavailable(&error).with_source(error))?;
    let (io, first_bytes) = FairIo::remembering(io);
    let ended = |error: h2::Error| Failed {
        status: naming_protocol(h2_status(&error), foreign_protocol(&first_bytes)),
        reached: true,
        timed_out: false,
    };
    let (send_request, mut connection) = H2Settings::client()
        .handshake::<FairIo, Batch>(io)
        .await
        .map_err(ended)?;
    let mut send_request = send_request.ready().await.map_err(ended)?;
    let (head, send) = send_request.send_request(request, false).map_err(ended)?;
    let ping_pong = connection.ping_pong();
    Ok(Connected {
        ways,
        first_bytes,
        refused: None,
        connection,
        bell: Bell::default(),
        send,
        head: Some(head),
        recv: None,
        decoder: Decoder::new(pool.settings.max_decoding_message_size),
        paused: false,
        unreleased: 0,
        writer: Writer::default(),
        gave_way: false,
        callbacks: Callbacks::new(served),
        keep_alive: KeepAlive::new(
            pool.settings.keep_alive_interval,
            pool.settings.keep_alive_timeout,
            pool.clock.now(),
        ),
        keep_alive_timer: None,
        pings: Pings::new(ping_pong),
        closing: None,
        half_closed: false,
        answered: false,
    })
}

/// An open stream.
struct Connected {
    /// How often the way to the node had changed when the attempt began.
    ways: usize,
    /// What the peer began with.
    first_bytes: FirstBytes,
    /// The stream has not come about, and this is known of all that was written on it.
    refused: Option<Outcome>,
    connection: Connection<FairIo, Batch>,
    bell: Bell,
    send: SendStream<Batch>,
    head: Option<ResponseFuture>,
    recv: Option<RecvStream>,
    decoder: Decoder,
    /// Reading goes on when what the node asks has been worked off.
    paused: bool,
    /// Bytes of the current chunk that the node may not send anew yet.
    unreleased: usize,
    writer: Writer,
    /// Others have run since there was something to write.
    gave_way: bool,
    /// Serves what the node asks of this client.
    callbacks: Callbacks,
    keep_alive: KeepAlive,
    keep_alive_timer: Option<BoxFuture<'static, ()>>,
    pings: Pings,
    /// Set once the last handle is dropped: until when queued messages are still written, and the
    /// node is given time to read them.
    closing: Option<BoxFuture<'static, ()>>,
    /// All is written, and our side of the stream has ended.
    half_closed: bool,
    /// The peer has answered a call.
    answered: bool,
}

impl Connected {
    fn poll(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<End> {
        for _ in 0..BATCHES_PER_TURN {
            channel.io().register(cx.waker());
            self.bell.register(cx.waker());
            let answered = self.bell.answer();
            let closed = if answered {
                match Pin::new(&mut self.connection).poll(&mut self.bell.context()) {
                    Poll::Pending => None,
                    Poll::Ready(Ok(())) => {
                        Some(Status::unavailable("the peer closed the connection"))
                    }
                    Poll::Ready(Err(error)) => Some(h2_status(&error)),
                }
            } else {
                None
            };
            // The last replies and the end of the connection may have come together.
            if (answered || self.paused)
                && let Poll::Ready(status) = self.poll_read(cx, channel)
            {
                return Poll::Ready(End::Lost(status));
            }
            if let Some(status) = closed {
                return Poll::Ready(End::Lost(status));
            }
            if self.ways != channel.ways() {
                let status = Status::unavailable(
                    "the connection was made before this process became a peer",
                );
                return Poll::Ready(End::Lost(status));
            }
            self.callbacks.register(cx.waker());
            self.writer.settle(self.pings.flushing());
            self.poll_ping(cx, channel);
            if let Poll::Ready(end) = self.poll_timers(cx, channel) {
                return Poll::Ready(end);
            }
            match self.write(cx, channel) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(status) => return Poll::Ready(End::Lost(status)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready with the reason when the stream has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<Status> {
        if let Some(head) = &mut self.head {
            match ready!(Pin::new(head).poll(&mut quiet())) {
                Ok(response) => {
                    if let Err(status) = check_response_head(&response) {
                        self.refused = is_turned_away(&response).then_some(Outcome::Refused);
                        return Poll::Ready(status);
                    }
                    self.head = None;
                    channel.set_features(Some(Features::announced(response.headers())));
                    channel.set_last_error(None);
                    self.recv = Some(response.into_body());
                }
                Err(error) => {
                    self.refused = is_unprocessed(&error).then_some(Outcome::NotSent);
                    return Poll::Ready(h2_status(&error));
                }
            }
        }
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        let mut now = None;
        loop {
            let now = *now.get_or_insert_with(|| channel.pool().clock.now());
            // What the node asks waits in a bounded place, and replies wait for no handler.
            self.paused = loop {
                if self.callbacks.is_full(cx.waker()) && channel.may_pause_reading() {
                    break true;
                }
                match self.decoder.next() {
                    Ok(None) => break false,
                    Ok(Some(incoming)) => {
                        if let Err(status) = self.callbacks.take(channel, &incoming, now) {
                            return Poll::Ready(status);
                        }
                    }
                    Err(status) => return Poll::Ready(status),
                }
            };
            self.callbacks.hand_over();
            if self.paused {
                return Poll::Pending;
            }
            let unreleased = std::mem::take(&mut self.unreleased);
            if let Err(error) = recv.flow_control().release_capacity(unreleased) {
                return Poll::Ready(h2_status(&error));
            }
            match ready!(recv.poll_data(&mut quiet())) {
                Some(Ok(chunk)) => {
                    if self.keep_alive.heard_message(now) {
                        // It is set anew where something is owed.
                        self.keep_alive_timer = None;
                    }
                    self.answered = true;
                    self.pings.heard_message();
                    self.unreleased = chunk.len();
                    self.decoder.push(chunk);
                }
                Some(Err(error)) => return Poll::Ready(h2_status(&error)),
                None => {
                    let trailers = ready!(recv.poll_trailers(&mut quiet()));
                    let status = match trailers {
                        Ok(trailers) => trailers.as_ref().and_then(trailers_status),
                        Err(error) => Some(h2_status(&error)),
                    };
                    let cut = !self.decoder.is_between_messages();
                    return Poll::Ready(stream_ended(status, cut));
                }
            }
        }
    }

    /// Asks the peer whether it has what was written, for those who flush, and listens for pongs.
    fn poll_ping(&mut self, cx: &mut Context<'_>, channel: &Channel) {
        if self.pings.poll_pong() {
            let now = channel.pool().clock.now();
            if self.keep_alive.heard_pong(now) {
                self.keep_alive_timer =
                    Some(channel.pool().clock.sleep_until(self.keep_alive.due()));
            }
        }
        // A Go server ends a connection that is pinged often while it has nothing to say.
        let may_ask = channel.understands_us() || self.pings.unheard() == 0;
        self.pings.flush(cx, &self.bell, may_ask);
    }

    /// Sends the next batch if there is one and the last one is written. True if it did.
    fn write(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Result<bool, Status> {
        if !self.writer.is_free() || self.half_closed {
            return Ok(false);
        }
        if self.gives_way(cx, channel) {
            return Ok(false);
        }
        if let Some(replies) = self.callbacks.replies() {
            self.writer.push_replies(replies);
        }
        self.writer.push_messages(channel, Carrier::DIALLED);
        let Some(batch) = self.writer.next() else {
            // Only markers without bytes, if anything at all.
            let markers = self.writer.has_messages();
            self.writer.settle(self.pings.flushing());
            return Ok(markers);
        };
        // Followed by a poll of the connection, which flushes it.
        self.bell.ring();
        self.send
            .send_data(batch, false)
            .map_err(|error| h2_status(&error))?;
        Ok(true)
    }

    /// Whether others run before the next batch is put together. Where more calls are in flight than
    /// are queued, their callers may be about to make the next ones: these come into the same batch,
    /// which spares both sides most of what a batch costs. With one call in flight nobody waits.
    fn gives_way(&mut self, cx: &mut Context<'_>, channel: &Channel) -> bool {
        let (queued, bytes) = {
            let outbox = channel.outbox();
            (outbox.len(), outbox.bytes())
        };
        self.gave_way = !self.gave_way && queued > 0 && channel.pending() > queued;
        if !self.gave_way {
            return false;
        }
        if bytes < WORTH_A_LOOK {
            cx.waker().wake_by_ref();
        } else {
            // Woken when all that are ready have run, and sockets have been looked at.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        true
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<End> {
        if channel.is_closing() {
            let pool = channel.pool();
            let linger = self.closing.get_or_insert_with(|| {
                pool.clock
                    .sleep_until(pool.clock.now() + pool.settings.linger)
            });
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Closed);
            }
            // Closing the socket at once could destroy what the node has not read yet: our side of
            // the stream ends, and the node answers by ending its own.
            let written = !self.writer.has_messages() && self.writer.is_free();
            if !self.half_closed
                && written
                && channel.outbox().is_empty()
                && self.callbacks.replies().is_none_or(ReplyQueue::is_empty)
            {
                self.half_closed = true;
                let last = self.writer.last();
                self.bell.ring();
                if self.send.send_data(last, true).is_err() {
                    return Poll::Ready(End::Closed);
                }
                cx.waker().wake_by_ref();
            }
        }
        let owed = channel.pending() > 0 || self.writer.has_messages() || self.pings.is_flushing();
        loop {
            let clock = &channel.pool().clock;
            let Some(timer) = &mut self.keep_alive_timer else {
                if !owed {
                    return Poll::Pending;
                }
                let first = self.keep_alive.first(clock.now());
                self.keep_alive_timer = Some(clock.sleep_until(first));
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            self.keep_alive_timer = match self.keep_alive.fired(clock.now(), owed) {
                Action::Wait(at) => Some(clock.sleep_until(at)),
                Action::Idle => None,
                Action::Ping(at) => {
                    self.pings.send(cx, &self.bell);
                    Some(clock.sleep_until(at))
                }
                Action::Dead => {
                    return Poll::Ready(End::Lost(Status::unavailable(
                        "the peer did not answer a keep-alive ping",
                    )));
                }
            };
            if self.keep_alive_timer.is_none() {
                return Poll::Pending;
            }
        }
    }

    /// What is known of requests that were written when the connection has ended without an answer.
    fn known_of_requests(&self) -> Outcome {
        if self.foreign_protocol().is_some() {
            return Outcome::NotSent;
        }
        self.refused.unwrap_or(Outcome::Unknown)
    }

    /// What the peer seems to speak, where that cannot be HTTP/2.
    fn foreign_protocol(&self) -> Option<String> {
        // Whoever has answered with headers of HTTP/2 speaks it.
        self.head
            .as_ref()
            .and_then(|_| foreign_protocol(&self.first_bytes))
    }

    /// Ends the connection. Messages of which not a byte was written go back to the outbox; the
    /// others are left to fail with an unknown outcome.
    fn give_back(self, channel: &Arc<Channel>) {
        let Self {
            connection,
            send,
            head,
            recv,
            mut writer,
            mut pings,
            ..
        } = self;
        drop((send, head, recv, connection));
        pings.end_flush();
        channel.set_features(None);
        writer.give_back(channel, Carrier::DIALLED);
    }
}

fn foreign_protocol(first_bytes: &FirstBytes) -> Option<String> {
    first_bytes.foreign_protocol(H2Settings::FRAME)
}

/// The end of a connection says what the peer seems to speak where that cannot be HTTP/2.
fn naming_protocol(status: Status, protocol: Option<String>) -> Status {
    match protocol {
        None => status,
        Some(protocol) => Status::unavailable(format!(
            "the peer does not speak HTTP/2, but seems to speak {protocol} ({})",
            status.message()
        )),
    }
}

pub(crate) fn h2_status(error: &h2::Error) -> Status {
    let text = match error.get_io() {
        Some(io) => io.to_string(),
        // It tells what the peer wrote into its GOAWAY.
        None => excerpt(&format!("HTTP/2: {error}")).into_owned(),
    };
    Status::unavailable(text)
}
