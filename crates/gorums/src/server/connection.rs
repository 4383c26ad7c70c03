//! A connection that the server has accepted, and its stream.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request as HttpRequest, Response, StatusCode};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::admission::{Full, Seat};
use super::bodies::Rest;
use super::buffered::{Excess, Share};
use super::connect_request::ConnectRequest;
use super::grpc_call::{GrpcCall, RequestBytes};
use super::identity::Claim;
use super::mounted::{Dialect, Mounted, MountedCall};
use super::served_stream::{Callee, End, ServedStream};
use super::sessions::{Carried, Parked, Waiting};
use super::settings::{ConnectionSettings, ENVELOPE};
use super::spread::Place;
use crate::bounds::Bound;
use crate::channel::{Attachment, ServerIdentity, Settings};
use crate::error::{Status, excerpt};
use crate::handler::{ConnectionInfo, Entry, panicked};
use crate::log::{self, Peer, Throttle};
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, BoxIo, Clock, Handshake};
use crate::stream::{
    FairIo, Fired, Inbound, KeepAlive, Lasting, Limit, Link, NodeStream, Opening, Reader, Replies,
    Served, Session, Source, Timer, Writes, shortened,
};
use crate::wire::{
    Batch, ClientId, Features, H2Settings, Instance, NODE_ID, PATH, SessionAnswer, SessionRequest,
    grpc_timeout, is_grpc, response_head, trailers_only,
};

/// How many batches are written in one turn of the task before others get theirs.
const BATCHES_PER_TURN: usize = 16;

/// How long it may take until a connection that is refused, in a handshake or after it, has heard why.
const REFUSING: Duration = Duration::from_secs(1);

/// How many streams of a connection may have ended while handlers of theirs go on.
const UNFINISHED_STREAMS: usize = 8;

/// How many calls of an ordinary gRPC client may be on a connection, with those that it has given
/// up and whose handlers go on, and with requests that a mounted service answers. Those that have
/// just ended may count.
const RUNNING_CALLS: usize = 2 * H2Settings::STREAMS as usize;

/// Why a connection winds down that has lasted as long as one may.
const OLD: &str = "the connection is old, and another one is to take its place";

/// Why one does whose peer would be refused by now.
const NOT_PROVEN: &str = "what was proven of the client holds no more";

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A listener, and this address where there are addresses.
    Outside(Option<SocketAddr>),
    /// This very process.
    Inside,
}

impl Origin {
    /// The other end, of which nothing more is known yet.
    pub(super) fn peer(self) -> Peer {
        match self {
            Self::Outside(address) => Peer {
                address,
                ..Peer::default()
            },
            Self::Inside => Peer {
                is_own: true,
                ..Peer::default()
            },
        }
    }
}

/// What a connection holds while it is served.
#[derive(Default)]
pub(super) struct Admitted {
    /// Where another runtime than that of the server drives it.
    pub(super) place: Option<Place>,
    /// Its place among the connections of the server. One of this very process takes none.
    pub(super) seat: Option<Seat>,
}

/// Answers the first request of a connection with this, and ends it. One that has a handshake to make
/// is ended at once, since that costs more than whoever is refused should.
pub(super) async fn refuse(io: BoxIo, status: Status, clock: Arc<dyn Clock>) {
    if Handshake::is_one(&io) {
        return;
    }
    let limit = clock.sleep_until(clock.now() + REFUSING);
    let refusing = async {
        // Whoever does not come so far knows by the end of the connection.
        let handshake = H2Settings::server().handshake::<FairIo, Batch>(FairIo::new(io));
        let Ok(h2) = handshake.await else { return };
        answer_first(h2, &status).await;
    };
    tokio::select! {
        biased;
        () = refusing => {}
        () = limit => {}
    }
}

/// Answers the first request of a connection with this, and waits for its end.
async fn answer_first(mut h2: Connection<FairIo, Batch>, status: &Status) {
    if let Some(Ok((_, mut respond))) = poll_fn(|cx| h2.poll_accept(cx)).await {
        let _ = respond.send_response(trailers_only(status), true);
    }
    h2.graceful_shutdown();
    while let Some(Ok(_)) = poll_fn(|cx| h2.poll_accept(cx)).await {}
}

/// Serves a connection until it ends, or has wound down after `shutdown`: in the present runtime,
/// also where another one has accepted it because it has a place here.
pub(crate) async fn serve(
    mut io: BoxIo,
    origin: Origin,
    mut admitted: Admitted,
    settings: Arc<ConnectionSettings>,
    mut shutdown: BoxFuture<'static, ()>,
) {
    if let Some(place) = &mut admitted.place {
        io = match io.into_present_runtime() {
            Ok(io) => {
                place.take();
                io
            }
            Err(error) => {
                tell_end_without_stream(origin.peer(), &End::cut(error.to_string()));
                return;
            }
        };
    }
    let clock = Arc::clone(&settings.clock);
    // For the handshake and HTTP/2's first bytes together.
    let mut timeout = clock.sleep_until(clock.now() + settings.stream_timeout);
    let made = tokio::select! {
        biased;
        made = Handshake::made(io) => made,
        () = &mut shutdown => return,
        () = &mut timeout => {
            settings.reached().add(Bound::StreamTimeout);
            let limit = settings.stream_timeout;
            tell_failed_handshake(origin.peer(), &settings, format!("not finished within {limit:?}"));
            return;
        }
    };
    let (io, proven, until) = match made {
        Ok(mut proven) => {
            let until = proven.take_until().map(Lasting::new);
            let (io, values) = proven.into_parts();
            (io, values, until)
        }
        Err(failed) => {
            let is_gone = failed.is_gone();
            let (error, farewell) = failed.into_parts();
            if is_gone {
                tell_end_without_stream(origin.peer(), &End::new(error.to_string()));
            } else {
                tell_failed_handshake(origin.peer(), &settings, error);
            }
            if let Some(farewell) = farewell {
                let limit = clock.sleep_until(clock.now() + REFUSING);
                tokio::select! {
                    biased;
                    () = farewell => {}
                    () = &mut shutdown => {}
                    () = timeout => {}
                    () = limit => {}
                }
            }
            return;
        }
    };
    let (io, first_bytes) = FairIo::remembering(io);
    let builder = H2Settings::server();
    let handshake = builder.handshake::<FairIo, Batch>(io);
    let mut h2 = tokio::select! {
        biased;
        h2 = handshake => match h2 {
            Ok(h2) => h2,
            Err(error) => {
                let mut end = End::of(&error);
                if first_bytes.seem_tls() {
                    end.reason.to_mut().push_str(": the peer seems to speak TLS, which this server does not");
                }
                tell_end_without_stream(origin.peer(), &end);
                return;
            }
        },
        () = &mut shutdown => return,
        () = timeout => {
            settings.reached().add(Bound::StreamTimeout);
            tell_end_without_stream(origin.peer(), &End::cut("it does not speak HTTP/2 in time"));
            return;
        }
    };
    let node = settings.proven_node(origin, &proven).ok().flatten();
    if let Some(seat) = &mut admitted.seat
        && let Err(full) = seat.settle(node)
    {
        if full != Full::Displaced {
            settings.reached().add(Bound::Connections);
            tell_full(origin.peer(), full, &settings.log.full, clock.now());
            let status = full.status();
            let limit = clock.sleep_until(clock.now() + REFUSING);
            tokio::select! {
                biased;
                () = answer_first(h2, &status) => {}
                () = shutdown => {}
                () = limit => {}
            }
        }
        return;
    }
    let keep_alive = KeepAlive::steady(
        settings.keep_alive_interval,
        settings.keep_alive_timeout,
        clock.now(),
    );
    let is_node = node.is_some() || matches!(origin, Origin::Inside);
    let mut connection = ServerConnection {
        link: Link::new(h2.ping_pong(), keep_alive, clock),
        call_bytes: RequestBytes::new(&settings.services),
        share: settings.buffered.share(origin.peer().address, is_node),
        has_said: false,
        silent_until: None,
        calls: JoinSet::new(),
        settings,
        origin,
        proven,
        h2,
        stream: None,
        claiming: None,
        unresumed: None,
        client: None,
        is_told: false,
        is_late: false,
        has_called: false,
        draining: Draining::default(),
        shutdown: Some(shutdown),
        until,
        renewed: None,
        goodbye: false,
    };
    connection.expect_stream();
    connection.expect_age();
    let end = poll_fn(|cx| connection.poll(cx)).await;

    let had_stream = connection.stream.is_some();
    let suspended = connection.suspend_stream(&end);
    connection.leave_stream(&end);
    if !connection.is_told {
        tell_end_without_stream(origin.peer(), &end);
    } else if end.is_cut && !had_stream {
        connection.tell_cut(&end);
    }
    let mut left = Left {
        suspended,
        has_server_turn: connection.settings.services.lane.server_turn.is_some(),
        draining: std::mem::take(&mut connection.draining),
        calls: std::mem::take(&mut connection.calls),
        call_bytes: connection.call_bytes.clone(),
        is_discarded: false,
    };
    let mut share = connection.share.take();
    // Handlers go on, and count as long as their connection did. The socket is closed.
    drop(connection);
    if left.suspended.is_some() {
        // The client needs the place to come back.
        admitted.seat = None;
    }
    poll_fn(|cx| {
        share.attend(cx.waker());
        left.poll(&mut share, cx)
    })
    .await;
}

/// What is left of a connection that has ended.
struct Left {
    /// The session that it carried, until another one does.
    suspended: Option<Waiting>,
    /// The whole server has one turn.
    has_server_turn: bool,
    draining: Draining,
    calls: JoinSet<()>,
    call_bytes: RequestBytes,
    /// What had not started was let go of.
    is_discarded: bool,
}

impl Left {
    /// Ready when all has been handled. What is kept for it counts until then, and is let go of where
    /// that is too much.
    fn poll(&mut self, share: &mut Share, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(suspended) = &mut self.suspended {
            let over = match suspended.poll(cx) {
                // A handler that waits with its reply would keep the turn of the whole server.
                Poll::Pending if self.has_server_turn && suspended.is_full() => {
                    Poll::Ready(suspended.give_up())
                }
                polled => polled,
            };
            if let Poll::Ready(over) = over {
                self.suspended = None;
                self.draining.add(over);
            }
        }
        self.draining.work_off(cx);
        while let Poll::Ready(Some(ended)) = self.calls.poll_join_next(cx) {
            tell_failed_call(ended);
        }
        if self.suspended.is_none() && self.draining.0.is_empty() && self.calls.is_empty() {
            return Poll::Ready(());
        }
        let suspended = self.suspended.as_ref().map_or(0, Waiting::held_bytes);
        let bytes = suspended + self.draining.waiting_bytes() + self.call_bytes.held();
        // Once: lanes that are told so wake this task.
        if share.note(bytes, cx.waker()).is_err() && !self.is_discarded {
            self.is_discarded = true;
            let suspended = self.suspended.take();
            self.draining
                .add(suspended.and_then(|suspended| suspended.give_up()));
            self.draining.discard();
            self.calls.abort_all();
            // What has just been added has nobody to wake.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

struct ServerConnection {
    settings: Arc<ConnectionSettings>,
    origin: Origin,
    /// What the transport has proved of the peer.
    proven: Extensions,
    h2: Connection<FairIo, Batch>,
    link: Link,
    stream: Option<ServedStream>,
    /// The request for a stream that is to carry on a session, until the connection that carries that
    /// has let go of it.
    claiming: Option<Claiming>,
    /// A session that was to go on here, where the stream did not come about.
    unresumed: Option<(Carried, Box<Parked>)>,
    /// Who has opened the stream, and when.
    client: Option<(Peer, Instant)>,
    /// What came of the connection was told, or will be with the end of the stream.
    is_told: bool,
    /// No stream was opened in time.
    is_late: bool,
    /// There were calls of an ordinary gRPC client, or requests for a mounted service.
    has_called: bool,
    draining: Draining,
    /// Calls of an ordinary gRPC client and requests for a mounted service, which are on streams of
    /// their own.
    calls: JoinSet<()>,
    /// What those calls hold of requests.
    call_bytes: RequestBytes,
    /// What is kept for the peer, as a part of what the server keeps for all. It is spared where the
    /// peer is a node, as far as nodes are believed.
    share: Share,
    /// It has sent a message on a stream.
    has_said: bool,
    /// Until when it may send none, from when it has opened its first stream.
    silent_until: Option<Instant>,
    /// None once it was asked for.
    shutdown: Option<BoxFuture<'static, ()>>,
    /// Completes when what was proven of the peer holds no more.
    until: Option<Lasting>,
    /// Why it winds down by itself, where it does: the peer is to connect again.
    renewed: Option<&'static str>,
    /// The peer was told that the connection ends.
    goodbye: bool,
}

/// What clients sent on streams that have ended, until it has been handled.
#[derive(Default)]
struct Draining(Vec<Inbound>);

/// A request that waits for its session.
struct Claiming {
    request: HttpRequest<RecvStream>,
    respond: SendResponse<Batch>,
    let_go: BoxFuture<'static, ()>,
}

impl Draining {
    /// What has come on a stream that has ended is to be handled, if there is any.
    fn add(&mut self, inbound: Option<Inbound>) {
        if let Some(mut inbound) = inbound {
            inbound.leave();
            self.0.push(inbound);
        }
    }

    /// Hands the lanes what they take, and forgets what has been handled.
    fn work_off(&mut self, cx: &mut Context<'_>) {
        self.0
            .retain_mut(|inbound| inbound.poll_work_off(cx).is_pending());
    }

    fn waiting_bytes(&self) -> usize {
        self.0.iter().map(Inbound::waiting_bytes).sum()
    }

    /// Nothing of it is handled that has not started.
    fn discard(&mut self) {
        self.0.iter_mut().for_each(Inbound::discard);
    }
}

impl Drop for Draining {
    /// Where handlers have not ended, the server was stopped.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Inbound::abandon);
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        if let Some((_, mut parked)) = self.unresumed.take() {
            parked.inbound.abandon();
        }
        if let Some(stream) = self.stream.take() {
            self.link.pings.end_flush();
            stream.into_inbound().abandon();
            self.tell_departure(&End::new("the server was stopped"));
        }
    }
}

/// A call's task has ended.
fn tell_failed_call(ended: Result<(), JoinError>) {
    // One is cancelled where too much is kept.
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(
            target: log::SERVER,
            error = %log::text(error),
            "a call's task failed"
        );
    }
}

/// A connection has ended on which no client has opened a stream.
fn tell_end_without_stream(peer: Peer, end: &End) {
    tracing::debug!(
        target: log::SERVER,
        %peer,
        reason = %log::text(&end.reason),
        "a connection ended without a stream"
    );
}

/// A connection gets no place.
pub(super) fn tell_full(peer: Peer, full: Full, warnings: &Throttle, now: Instant) {
    let admission = warnings.admit(now);
    log::event!(
        admission.is_told => warn or debug,
        target: log::SERVER,
        %peer,
        reason = %full,
        left_out = admission.left_out,
        "a connection was refused: there are too many"
    );
}

/// A peer has not made itself known, and is cut off.
fn tell_failed_handshake(peer: Peer, settings: &ConnectionSettings, error: impl fmt::Display) {
    let admission = settings.log.handshakes.admit(settings.clock.now());
    log::event!(
        admission.is_told => warn or debug,
        target: log::SERVER,
        %peer,
        error = %log::text(error),
        left_out = admission.left_out,
        "a handshake failed"
    );
}

impl ServerConnection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..BATCHES_PER_TURN {
            self.link.flag.register(cx.waker());
            let polls = self.link.flag.take();
            if polls && let Poll::Ready(end) = self.poll_accept(cx) {
                return Poll::Ready(end);
            }
            // Before the timers: behind the last call one is set.
            while let Poll::Ready(Some(ended)) = self.calls.poll_join_next(cx) {
                self.end_call(ended);
            }
            if let Poll::Ready(end) = self.poll_timers(cx) {
                return Poll::Ready(end);
            }
            let mut again = false;
            self.draining.work_off(cx);
            if let Some(claiming) = &mut self.claiming
                && claiming.let_go.as_mut().poll(cx).is_ready()
                && let Some(Claiming {
                    request, respond, ..
                }) = self.claiming.take()
            {
                self.accept_stream(request, respond);
            }
            if self.unresumed.is_some() {
                return Poll::Ready(End::new("the client has gone before its session went on"));
            }
            if let Some(stream) = &mut self.stream {
                if stream.is_wanted_elsewhere() {
                    return Poll::Ready(End::new("the client goes on over another connection"));
                }
                stream.register(cx);
                if polls || stream.is_held_up() {
                    stream.poll_read(cx, &mut self.link);
                }
                if polls {
                    // Also where nothing is read at present.
                    let _ = stream.poll_reset();
                }
                again = stream.write(cx, &mut self.link);
                self.link.flush(cx, true);
                if stream.is_broken() {
                    let why = stream.why().cloned();
                    return Poll::Ready(why.unwrap_or_else(|| End::new("the connection broke")));
                }
                if stream.is_over() {
                    self.leave_stream(&End::new("the stream ended"));
                    self.expect_stream();
                    again = true;
                }
            }
            // At once, also where a stream goes on: no other one is opened then.
            if (self.shutdown.is_none() || self.renewed.is_some()) && !self.goodbye {
                self.goodbye = true;
                self.h2.graceful_shutdown();
                self.link.flag.set();
                again = true;
            }
            if !again {
                return self.poll_share();
            }
        }
        cx.waker().wake_by_ref();
        self.poll_share()
    }

    /// Notes what is kept for the peer. Ready where that is too much.
    fn poll_share(&mut self) -> Poll<End> {
        let stream = self.stream.as_ref().map_or(0, ServedStream::held_bytes);
        let bytes = stream + self.draining.waiting_bytes() + self.call_bytes.held();
        match self.share.note(bytes, self.link.flag.context().waker()) {
            Ok(()) => Poll::Pending,
            Err(excess) => Poll::Ready(self.cut_off(bytes, excess)),
        }
    }

    /// Ends the connection, with a word to the peer where that reads, and keeps nothing of what has
    /// come.
    #[cold]
    fn cut_off(&mut self, bytes: usize, Excess { limit }: Excess) -> End {
        self.settings.reached().add(Bound::BufferedBytes);
        let end = End::cut(format!(
            "this server keeps more than {limit} bytes for its connections (max_buffered_bytes), and \
             {bytes} of them for this one"
        ));
        self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = self.h2.poll_accept(&mut self.link.flag.context());
        if let Some(stream) = &mut self.stream {
            stream.discard();
        }
        self.draining.discard();
        self.calls.abort_all();
        end
    }

    /// Accepts what the client opens. Ready with the reason when the connection has ended.
    fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<End> {
        loop {
            match ready!(self.h2.poll_accept(&mut self.link.flag.context())) {
                Some(Ok((request, respond))) => {
                    // A client may open a stream right behind the reset of its last one.
                    if let Some(stream) = &mut self.stream
                        && stream.poll_reset().is_ready()
                    {
                        self.leave_stream(&End::new("the client reset the stream"));
                        self.expect_stream();
                    }
                    self.accept(request, respond);
                }
                ended => {
                    // The last requests and the end of the connection may have come together.
                    if let Some(stream) = &mut self.stream {
                        stream.poll_read(cx, &mut self.link);
                        stream.keep_unread();
                    }
                    return Poll::Ready(match ended {
                        Some(Err(error)) => End::of(&error),
                        _ if self.is_late => End::cut("it opened no stream in time"),
                        _ => End::new("the connection was closed"),
                    });
                }
            }
        }
    }

    /// The stream has ended, for this reason where it has none of its own; what its handlers do has
    /// not.
    fn leave_stream(&mut self, end: &End) {
        if let Some(stream) = self.stream.take() {
            // That this end cut it off is the reason, whatever came before.
            let why = stream.why().filter(|_| !end.is_cut).unwrap_or(end);
            self.tell_departure(why);
            self.link.pings.end_flush();
            let inbound = stream.into_inbound();
            self.has_said |= inbound.has_message();
            self.draining.add(Some(inbound));
        }
    }

    /// The connection has ended, for this reason. What there is of the session that it carries waits
    /// for another one.
    fn suspend_stream(&mut self, end: &End) -> Option<Waiting> {
        let (carried, parked) = match self.stream.take() {
            None => self.unresumed.take()?,
            Some(stream) => match stream.suspend() {
                Ok(suspended) => suspended,
                Err(stream) => {
                    self.stream = Some(*stream);
                    return None;
                }
            },
        };
        let Some(shutdown) = self.shutdown.take() else {
            drop(carried);
            self.draining.add(Some(parked.inbound));
            return None;
        };
        self.link.pings.end_flush();
        self.tell_departure(end);
        let owner = self.share.owner();
        Some(carried.park(parked, owner, &*self.settings.clock, shutdown))
    }

    /// The connection may be without a stream and without calls for a while.
    fn expect_stream(&mut self) {
        if !self.calls.is_empty() {
            return;
        }
        let until = self.link.now() + self.settings.stream_timeout;
        self.link.timers.set(Timer::NoStream, until);
    }

    /// The connection may last for so long, or somewhat shorter: those that came together do not go
    /// together.
    fn expect_age(&mut self) {
        if let (Some(age), Origin::Outside(_)) = (self.settings.max_age, self.origin) {
            let random = self.settings.clock.random();
            let until = self.link.now() + shortened(age, random);
            self.link.timers.set(Timer::Age, until);
        }
    }

    /// Winds down, for this reason, while the server goes on: the peer connects again, and what it has
    /// begun here ends here.
    fn renew(&mut self, why: &'static str) {
        if self.renewed.is_some() || self.shutdown.is_none() {
            return;
        }
        self.renewed = Some(why);
        let until = self.link.now() + self.settings.grace;
        self.link.timers.set(Timer::Overdue, until);
        if let Some(stream) = &mut self.stream {
            stream.renew(why, &mut self.link);
        }
    }

    fn tell_arrival(&mut self, peer: Peer, claims: Option<&str>, features: Features) {
        let now = self.link.now();
        self.client = Some((peer, now));
        self.is_told = true;
        let admission = self.settings.log.arrivals.admit(now);
        log::event!(
            admission.is_told => info or debug,
            target: log::SERVER,
            %peer,
            node = peer.node(),
            claims = claims.map(log::text).map(tracing::field::display),
            features = features.names(),
            left_out = admission.left_out,
            "a client connected"
        );
    }

    /// The client that has opened the stream has gone, or was cut off.
    fn tell_departure(&mut self, end: &End) {
        let Some((peer, since)) = self.client.take() else {
            return;
        };
        let now = self.link.now();
        let lasted = now.saturating_duration_since(since);
        let throttles = &self.settings.log;
        if end.is_cut {
            let admission = throttles.cuts.admit(now);
            log::event!(
                admission.is_told => warn or debug,
                target: log::SERVER,
                %peer,
                node = peer.node(),
                reason = %log::text(&end.reason),
                lasted_ms = log::millis(lasted),
                left_out = admission.left_out,
                "a client was cut off"
            );
        } else {
            let admission = throttles.departures.admit(now);
            log::event!(
                admission.is_told => info or debug,
                target: log::SERVER,
                %peer,
                node = peer.node(),
                reason = %log::text(&end.reason),
                lasted_ms = log::millis(lasted),
                left_out = admission.left_out,
                "a client left"
            );
        }
    }

    /// This end has ended the connection, which carried no stream then.
    fn tell_cut(&self, end: &End) {
        let admission = self.settings.log.cuts.admit(self.link.now());
        log::event!(
            admission.is_told => warn or debug,
            target: log::SERVER,
            peer = %self.origin.peer(),
            reason = %log::text(&end.reason),
            left_out = admission.left_out,
            "a connection was cut off"
        );
    }

    /// Turns a client away with this status.
    fn turn_away(
        &mut self,
        peer: Peer,
        claims: Option<&str>,
        status: &Status,
        recv: RecvStream,
        respond: &mut SendResponse<Batch>,
    ) {
        self.tell_refused_client(peer, claims, status);
        // The peer may be gone already.
        let _ = respond.send_response(trailers_only(status), true);
        self.see_out(recv);
    }

    /// Reads what was refused to its end.
    fn see_out(&mut self, recv: RecvStream) {
        let rest = Rest::of(recv);
        if rest.is_over() {
            return;
        }
        let settings = Arc::clone(&self.settings);
        self.calls.spawn(async move {
            rest.read(&*settings.clock, settings.stream_timeout).await;
        });
    }

    /// A client is turned away.
    fn tell_refused_client(&mut self, peer: Peer, claims: Option<&str>, status: &Status) {
        self.is_told = true;
        let admission = self.settings.log.refusals.admit(self.link.now());
        log::event!(
            admission.is_told => warn or debug,
            target: log::SERVER,
            %peer,
            claims = claims.map(log::text).map(tracing::field::display),
            error = %log::text(status),
            left_out = admission.left_out,
            "a client was refused"
        );
    }

    /// A request is not served.
    fn tell_refused_request(&mut self, reason: &Status) {
        self.is_told = true;
        let admission = self.settings.log.requests.admit(self.link.now());
        log::event!(
            admission.is_told => warn or debug,
            target: log::SERVER,
            peer = %self.origin.peer(),
            error = %log::text(reason),
            left_out = admission.left_out,
            "a request was refused that opens no stream"
        );
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx).is_ready()
        {
            self.shutdown = None;
            if let Some(stream) = &mut self.stream {
                stream.wind_down(&mut self.link);
            }
        }
        if let Some(until) = &mut self.until
            && until.poll_end(cx).is_ready()
        {
            self.until = None;
            self.renew(NOT_PROVEN);
        }
        self.link.poll_pong();
        while let Poll::Ready(fired) = self.link.poll_timers(cx, true) {
            if fired == Fired::Dead {
                self.settings.reached().add(Bound::KeepAlive);
                return Poll::Ready(End::cut(Fired::DEAD));
            }
            if fired == Fired::Timer(Timer::NoMessage) {
                let limit = self.settings.first_message_timeout;
                if let (Some(stream), Some(limit)) = (&mut self.stream, limit) {
                    if stream.end_silent(&self.link, limit) {
                        self.settings.reached().add(Bound::FirstMessage);
                    }
                    cx.waker().wake_by_ref();
                }
                continue;
            }
            if fired == Fired::Timer(Timer::SlowSender) {
                // Nodes may have reasons that this one shares: a disk that hangs, say.
                if let Some(stream) = &mut self.stream
                    && !self.share.is_spared()
                    && stream.ends_slow_sender(&mut self.link, cx.waker())
                {
                    self.settings.reached().add(Bound::SlowSender);
                    cx.waker().wake_by_ref();
                }
                continue;
            }
            if fired == Fired::Timer(Timer::SlowReader) {
                if let Some(stream) = &mut self.stream
                    && !self.share.is_spared()
                    && let Some(end) = stream.slow_reader(&mut self.link, cx.waker())
                {
                    self.settings.reached().add(Bound::SlowReader);
                    self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    let _ = self.h2.poll_accept(&mut self.link.flag.context());
                    return Poll::Ready(end);
                }
                continue;
            }
            if fired == Fired::Timer(Timer::NoneFollow) {
                if let Some(stream) = &mut self.stream {
                    stream.is_late(&mut self.link);
                }
                continue;
            }
            if fired == Fired::Timer(Timer::Age) {
                self.renew(OLD);
                continue;
            }
            if fired == Fired::Timer(Timer::Overdue) {
                self.settings.reached().add(Bound::ConnectionGrace);
                return Poll::Ready(End::cut("it did not wind down in time"));
            }
            // What was answered may still be on its way.
            if self.has_called && !self.is_late {
                self.is_late = true;
                self.h2.graceful_shutdown();
                self.expect_stream();
                self.link.flag.set();
                cx.waker().wake_by_ref();
                continue;
            }
            self.is_late = true;
            self.settings.reached().add(Bound::StreamTimeout);
            self.h2.abrupt_shutdown(Reason::NO_ERROR);
            // The connection says goodbye when it is polled again.
            self.link.flag.set();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// A call of an ordinary gRPC client has ended.
    fn end_call(&mut self, ended: Result<(), JoinError>) {
        tell_failed_call(ended);
        if self.stream.is_none() {
            self.expect_stream();
        }
    }

    /// A call of an ordinary gRPC client.
    fn accept_call(
        &mut self,
        entry: Arc<Entry>,
        request: HttpRequest<RecvStream>,
        mut respond: SendResponse<Batch>,
    ) {
        let (head, recv) = request.into_parts();
        let mut connecting = self.connecting(&head);
        let timeout = match self.let_call_in(&mut connecting, grpc_timeout(&head.headers)) {
            Ok(timeout) => timeout,
            Err(status) => {
                return self.turn_away(connecting.info.peer(), None, &status, recv, &mut respond);
            }
        };
        if let Some(admission) = self.first_call() {
            log::event!(
                admission.is_told => info or debug,
                target: log::SERVER,
                peer = %connecting.info.peer(),
                method = %log::text(&*entry.name),
                left_out = admission.left_out,
                "an ordinary gRPC client calls"
            );
        }
        let call = GrpcCall {
            entry,
            info: Arc::new(connecting.info),
            services: Arc::clone(&self.settings.services),
            clock: Arc::clone(&self.settings.clock),
            timeout,
            patience: self.settings.stream_timeout,
            bytes: self.call_bytes.clone(),
        };
        self.begin_call(call.serve(recv, respond));
    }

    /// A request that a mounted service answers.
    fn accept_mounted(
        &mut self,
        mounted: &dyn Mounted,
        request: HttpRequest<RecvStream>,
        mut respond: SendResponse<Batch>,
    ) {
        let dialect = Dialect::of(&request);
        if let Err(status) = self.check_call() {
            self.tell_refused_request(&status);
            dialect.refuse(&status, &mut respond);
            return self.see_out(request.into_body());
        }
        let (head, recv) = request.into_parts();
        let mut connecting = self.connecting(&head);
        let timeout = match dialect {
            Dialect::Grpc => grpc_timeout(&head.headers),
            Dialect::Http { .. } => Ok(None),
        };
        let let_in = self.let_call_in(&mut connecting, timeout);
        let peer = connecting.info.peer();
        let timeout = match let_in {
            Ok(timeout) => timeout,
            Err(status) => {
                self.tell_refused_client(peer, None, &status);
                dialect.refuse(&status, &mut respond);
                return self.see_out(recv);
            }
        };
        if let Some(admission) = self.first_call() {
            log::event!(
                admission.is_told => info or debug,
                target: log::SERVER,
                %peer,
                path = %log::text(head.uri.path()),
                left_out = admission.left_out,
                "a client asks a mounted service"
            );
        }
        let call = MountedCall {
            request: HttpRequest::from_parts(head, recv),
            respond,
            dialect,
            info: Arc::new(connecting.info),
            clock: Arc::clone(&self.settings.clock),
            timeout,
            patience: self.settings.stream_timeout,
            stopping: self.settings.stopping.clone(),
            expose_panics: self.settings.services.lane.expose_panics,
        };
        self.begin_call(mounted.serve(call));
    }

    /// Whether the client of a request that opens no stream is let in, with how long it waits.
    fn let_call_in(
        &self,
        connecting: &mut ConnectRequest,
        timeout: Result<Option<Duration>, Status>,
    ) -> Result<Option<Duration>, Status> {
        let timeout = timeout?;
        connecting.info.node = self.settings.proven_node(self.origin, &self.proven)?;
        self.ask_on_connect(connecting)?;
        Ok(timeout)
    }

    /// Whether this is the first that is told of the connection, and how.
    fn first_call(&mut self) -> Option<log::Admission> {
        let is_first = !std::mem::replace(&mut self.is_told, true);
        is_first.then(|| self.settings.log.arrivals.admit(self.link.now()))
    }

    /// A request is being answered that opens no stream.
    fn begin_call(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        self.link.timers.clear(Timer::NoStream);
        self.has_called = true;
        self.calls.spawn(call);
    }

    /// What the connect callback is asked about.
    fn connecting(&self, head: &Parts) -> ConnectRequest {
        ConnectRequest {
            info: ConnectionInfo {
                metadata: Metadata::from_headers(&head.headers),
                peer_addr: match self.origin {
                    Origin::Outside(peer_addr) => peer_addr,
                    Origin::Inside => None,
                },
                own: matches!(self.origin, Origin::Inside),
                client: ClientId::read(&head.headers),
                values: self.settings.services.values.clone(),
                proven: self.proven.clone(),
                ..ConnectionInfo::default()
            },
        }
    }

    /// A request on this connection: the one that opens the stream, a call of ordinary gRPC, or one
    /// that we do not serve.
    fn accept(&mut self, request: HttpRequest<RecvStream>, mut respond: SendResponse<Batch>) {
        // Those that have ended make room for this one.
        while let Some(ended) = self.calls.try_join_next() {
            self.end_call(ended);
        }
        let asked = self.asked_for(&request).and_then(|asked| {
            let room = match asked {
                Asked::Stream => self.check_stream(),
                Asked::Call(_) => self.check_call(),
                // Who asks need not speak gRPC, in which others are refused.
                Asked::Mounted(_) => Ok(()),
            };
            room.map_err(Refusal::grpc)?;
            Ok(asked)
        });
        match asked {
            Ok(Asked::Stream) => self.accept_stream(request, respond),
            Ok(Asked::Call(entry)) => self.accept_call(entry, request, respond),
            Ok(Asked::Mounted(mounted)) => self.accept_mounted(&*mounted, request, respond),
            Err(Refusal { response, reason }) => {
                self.tell_refused_request(&reason);
                // The peer may be gone already.
                let _ = respond.send_response(response, true);
                self.see_out(request.into_body());
            }
        }
    }

    /// The request that opens the stream.
    fn accept_stream(
        &mut self,
        request: HttpRequest<RecvStream>,
        mut respond: SendResponse<Batch>,
    ) {
        let wanted = SessionRequest::read(request.headers());
        if let Ok(Some(wanted)) = &wanted
            && let Ok((claim, proven)) = self.claim(request.headers())
            && let Some(let_go) = self.settings.sessions.claim(wanted, claim.node(proven))
        {
            self.claiming = Some(Claiming {
                request,
                respond,
                let_go,
            });
            // It is polled before the task sleeps.
            self.link.flag.context().waker().wake_by_ref();
            return;
        }
        let (head, recv) = request.into_parts();
        let mut connecting = self.connecting(&head);
        let features = Features::announced(&head.headers);
        let claims = head.headers.get(NODE_ID).and_then(|id| id.to_str().ok());
        let asked = self.claim(&head.headers).and_then(|(claim, proven)| {
            connecting.info.node = claim.node(proven);
            self.settings.check_meant(&head)?;
            self.ask_on_connect(&mut connecting)?;
            let wanted = wanted.map_err(|text| {
                Status::invalid_argument(format!("{:?} names no session", excerpt(&text)))
            })?;
            Ok((claim, wanted))
        });
        let (claim, wanted) = match asked {
            Ok(asked) => asked,
            Err(status) => {
                return self.turn_away(connecting.info.peer(), claims, &status, recv, &mut respond);
            }
        };
        // Before the reply, so that a client that has it can be called.
        let instance = Instance::read(&head.headers);
        let (replies, callee) = match self.attach(claim, &mut connecting, features, instance) {
            Ok(attached) => attached,
            Err(status) => {
                return self.turn_away(connecting.info.peer(), claims, &status, recv, &mut respond);
            }
        };
        let session = match wanted {
            None => Ok(None),
            Some(wanted) => self.session_for(wanted, connecting.info.node, features),
        };
        let session = match session {
            Ok(session) => session,
            Err(status) => {
                return self.turn_away(connecting.info.peer(), claims, &status, recv, &mut respond);
            }
        };
        let peer = connecting.info.peer();
        if connecting.info.node.is_some() {
            self.share.spare();
        }
        let mut response = response_head();
        if let Some(instance) = self.settings.instance.filter(|_| features.instance) {
            instance.write(response.headers_mut());
        }
        if let Some(session) = &session {
            session.answer().write(response.headers_mut());
        }
        let Ok(send) = respond.send_response(response, false) else {
            if let Some(Opened::Resumed(carried, parked)) = session {
                self.unresumed = Some((carried, parked));
            }
            return;
        };
        let limit = Limit {
            bytes: self.settings.services.max_decoding,
            envelope: ENVELOPE,
            setting: "ServerBuilder::max_decoding_message_size",
        };
        let channel = callee.as_ref().map(|callee| callee.channel().clone());
        let opening = Opening {
            reader: Reader::new(replies, limit),
            served: Some(Served {
                node_id: 0,
                instance: None,
                source: Source::Held(Arc::clone(&self.settings.services)),
                values: Extensions::new(),
            }),
            info: connecting.info,
            callee: channel,
        };
        let (inbound, session, carried) = match session {
            Some(Opened::Resumed(carried, parked)) => {
                let Parked {
                    mut inbound,
                    session,
                } = *parked;
                inbound.resume(opening);
                (inbound, Some(session), Some(carried))
            }
            begun => {
                let mut inbound = Inbound::new(opening);
                inbound.set_features(features);
                inbound.start_lane();
                match begun {
                    Some(Opened::Begun(carried, session)) => {
                        (inbound, Some(session), Some(carried))
                    }
                    _ => (inbound, None, None),
                }
            }
        };
        self.link.timers.clear(Timer::NoStream);
        if let Some(limit) = self.settings.first_message_timeout
            && !self.share.is_spared()
            && !self.has_said
            && !inbound.has_message()
        {
            let now = self.link.now();
            let until = *self.silent_until.get_or_insert_with(|| now + limit);
            self.link.timers.set(Timer::NoMessage, until);
        }
        self.tell_arrival(peer, claims, features);
        let mut stream = NodeStream::new(send, Some(recv), inbound);
        stream.session = session;
        let limit = self.settings.slow_peer_timeout;
        let stream = ServedStream::new(stream, callee, carried, limit);
        let stream = self.stream.insert(stream);
        if let Some(why) = self.renewed {
            // It was on its way when the peer was told that the connection ends.
            stream.renew(why, &mut self.link);
        }
        if self.shutdown.is_none() {
            // It has waited for its session.
            stream.wind_down(&mut self.link);
        }
    }

    /// What becomes of the session that a client asks for. None where there are none.
    fn session_for(
        &mut self,
        wanted: SessionRequest,
        node: Option<NodeId>,
        features: Features,
    ) -> Result<Option<Opened>, Status> {
        let sessions = &self.settings.sessions;
        if !sessions.are_kept() {
            return Ok(None);
        }
        let task = self.link.flag.context();
        let (carried, parked) = sessions.open(&wanted, node, task.waker())?;
        if let Some(mut parked) = parked {
            let Parked { inbound, session } = &mut *parked;
            if let Some(received) = wanted.received
                && inbound.features() == features
                && session.resume(received, inbound.of_session().0)
            {
                return Ok(Some(Opened::Resumed(carried, parked)));
            }
            // The client does not wait for it any more, and nothing of it is to come behind what is
            // newer.
            parked.inbound.discard();
            self.draining.add(Some(parked.inbound));
        }
        let session = Session::new(Writes::Answers, self.settings.services.max_reply_bytes);
        let session = match wanted.received {
            Some(_) => session.in_place_of_another(),
            None => session,
        };
        Ok(Some(Opened::Begun(carried, Box::new(session))))
    }

    /// Who the client is that opens a stream with these headers, and which node it has proved to be.
    fn claim(&self, headers: &HeaderMap) -> Result<(Claim, Option<NodeId>), Status> {
        let proven = self.settings.proven_node(self.origin, &self.proven)?;
        let claim = match self.origin {
            Origin::Outside(_) => self.settings.classify(headers, proven)?,
            Origin::Inside => self.settings.own_claim(),
        };
        Ok((claim, proven))
    }

    /// Whether the connect callback lets the client in. One that panics does not.
    fn ask_on_connect(&self, connecting: &mut ConnectRequest) -> Result<(), Status> {
        let Some(on_connect) = &self.settings.on_connect else {
            return Ok(());
        };
        let peer = connecting.info.peer();
        // What the callback shares with others is theirs to keep consistent, as with handlers.
        let asked = catch_unwind(AssertUnwindSafe(|| on_connect(connecting)));
        asked.unwrap_or_else(|panic| {
            let text = log::panic_text(&*panic);
            tracing::error!(
                target: log::SERVER,
                %peer,
                panic = %log::text(text),
                "the connect callback panicked"
            );
            let expose = self.settings.services.lane.expose_panics;
            Err(panicked("the connect callback", text, expose))
        })
    }

    /// Has the stream of this client carry calls to it, where it can be called: which of its
    /// messages are replies then, and whom the stream carries calls to.
    fn attach(
        &mut self,
        claim: Claim,
        connecting: &mut ConnectRequest,
        features: Features,
        instance: Option<Instance>,
    ) -> Result<(Replies, Option<Callee>), Status> {
        Ok(match claim {
            Claim::Nobody => (Replies::Never, None),
            Claim::Unproven => (Replies::WithBit, None),
            Claim::Peer(id) => {
                let node = self.settings.that_connects(id);
                let attachment = node.and_then(|node| Attachment::new(node.channel(), features));
                if let Some(attachment) = attachment {
                    let channel = Arc::clone(attachment.channel());
                    let identity = instance.map(ServerIdentity::Instance);
                    if let Err(status) = channel.identify(identity) {
                        drop(attachment);
                        // This tells more than that the stream has ended.
                        channel.set_last_error(Some(status.clone()));
                        return Err(status);
                    }
                    self.keep_alive_for(&channel.pool().settings);
                    (Replies::WithBit, Some(Callee::Peer(attachment)))
                } else {
                    (Replies::WithBit, None)
                }
            }
            Claim::Client(id) => {
                let clients = &self.settings.clients;
                let client = clients.attach(id, connecting.info.peer_addr, features)?;
                connecting.info.callee = Some(client.node().id());
                (Replies::WithBit, Some(Callee::Client(client)))
            }
        })
    }

    /// The stream carries calls for which a node may be silent as long as these settings say, or as
    /// long as a client may, whatever is shorter.
    fn keep_alive_for(&mut self, settings: &Settings) {
        let interval = settings.keep_alive_interval;
        let timeout = settings.keep_alive_timeout;
        self.link.set_keep_alive(KeepAlive::steady(
            interval.min(self.settings.keep_alive_interval),
            timeout.min(self.settings.keep_alive_timeout),
            self.link.now(),
        ));
    }

    /// What a request asks for, if it is for anything here.
    fn asked_for(&self, request: &HttpRequest<RecvStream>) -> Result<Asked, Refusal> {
        let path = request.uri().path();
        let is_stream = path == PATH;
        let entry = match is_stream {
            true => None,
            false => GrpcCall::method(path)
                .and_then(|method| self.settings.services.registry.get(&method).cloned()),
        };
        // A path is Gorums' or another's, whatever the method of HTTP and the type of the content.
        if !is_stream
            && entry.is_none()
            && let Some(mounted) = self.settings.mounts.at(path)
        {
            return Ok(Asked::Mounted(Arc::clone(mounted)));
        }
        if request.method() != Method::POST {
            let reason = format!("HTTP method {}", excerpt(request.method().as_str()));
            return Err(Refusal::http(StatusCode::METHOD_NOT_ALLOWED, reason));
        }
        if !is_grpc(request.headers()) {
            let reason = "the content type is not gRPC".to_owned();
            return Err(Refusal::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        if is_stream {
            return Ok(Asked::Stream);
        }
        entry.map(Asked::Call).ok_or_else(|| {
            Refusal::grpc(Status::unimplemented(format!(
                "unknown path {}: this server serves {PATH}, and methods at /package.Service/Method",
                excerpt(path)
            )))
        })
    }

    fn check_no_shutdown(&self) -> Result<(), Status> {
        match self.shutdown {
            Some(_) => Ok(()),
            None => Err(Status::unavailable("the server is shutting down")),
        }
    }

    /// Whether there is room for another call.
    fn check_call(&self) -> Result<(), Status> {
        self.check_no_shutdown()?;
        let running = self.calls.len();
        if running >= RUNNING_CALLS.min(self.settings.services.lane.max_running) {
            self.settings.reached().add(Bound::OrdinaryCalls);
            return Err(Status::resource_exhausted(format!(
                "handlers of {running} calls of this connection have not finished"
            )));
        }
        Ok(())
    }

    /// Whether there is room for a stream.
    fn check_stream(&self) -> Result<(), Status> {
        if self.stream.is_some() || self.claiming.is_some() {
            return Err(Status::unimplemented(
                "there is a stream on this connection already: a client has one stream per node",
            ));
        }
        self.check_no_shutdown()?;
        let unfinished = self
            .draining
            .0
            .iter()
            .filter(|inbound| !inbound.is_worked_off());
        let unfinished = unfinished.count();
        if unfinished >= UNFINISHED_STREAMS {
            self.settings.reached().add(Bound::UnfinishedStreams);
            return Err(Status::resource_exhausted(format!(
                "handlers of {unfinished} earlier streams of this connection have not finished"
            )));
        }
        let waiting: usize = self.draining.0.iter().map(Inbound::waiting_bytes).sum();
        if waiting >= self.settings.services.max_waiting_bytes {
            self.settings.reached().add(Bound::UnfinishedStreams);
            return Err(Status::resource_exhausted(format!(
                "{waiting} bytes of requests of earlier streams of this connection wait"
            )));
        }
        Ok(())
    }
}

/// The session of a stream that is opened.
enum Opened {
    Begun(Carried, Box<Session>),
    Resumed(Carried, Box<Parked>),
}

impl Opened {
    /// What the client is told.
    fn answer(&self) -> SessionAnswer {
        match self {
            Self::Begun(..) => SessionAnswer::Begun,
            Self::Resumed(_, parked) => SessionAnswer::Resumed {
                received: parked.inbound.of_session().0,
            },
        }
    }
}

/// What a request asks for.
enum Asked {
    /// The stream of a client of Gorums.
    Stream,
    /// The answer of a method, as ordinary gRPC clients do.
    Call(Arc<Entry>),
    /// What a service answers that is no service of Gorums.
    Mounted(Arc<dyn Mounted>),
}

/// Why a request opens no stream.
struct Refusal {
    /// The whole reply to it.
    response: Response<()>,
    reason: Status,
}

impl Refusal {
    fn grpc(reason: Status) -> Self {
        Self {
            response: trailers_only(&reason),
            reason,
        }
    }

    /// For a peer that does not speak gRPC.
    fn http(code: StatusCode, reason: String) -> Self {
        let mut response = Response::new(());
        *response.status_mut() = code;
        Self {
            response,
            reason: Status::unimplemented(reason),
        }
    }
}
