//! A connection that this process has made, and its stream.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::{Connection, ResponseFuture};

use super::suspended::Suspended;
use crate::bounds::Bound;
use crate::channel::{Channel, ServerIdentity, StreamId};
use crate::error::{Code, Outcome, Status};
use crate::log;
use crate::stream::{
    FairIo, Fired, FirstBytes, Inbound, Lasting, Link, NodeStream, Outbound, ReadEnd, Session,
    Timer, Wrote, h2_status, noop_context,
};
use crate::wire::{
    Batch, Control, Features, H2Settings, SessionAnswer, check_response_head, is_turned_away,
    is_unprocessed, stream_ended, trailers_status,
};

/// How many batches are written in one turn of the task before others get theirs.
const BATCHES_PER_TURN: usize = 16;

/// With more bytes than this to write it pays to look at all sockets for replies first: whoever
/// gets them may have more to write.
const WORTH_A_LOOK: usize = 1024;

/// How long a connection may take to end since what was proven of the node holds no more: it winds
/// down, or goes on where the node calls this process over it.
pub(crate) const OVERDUE: Duration = Duration::from_secs(60);

/// Why a connection ended.
pub(super) enum End {
    /// It broke, or the peer ended it.
    Lost(Status),
    /// The peer does not answer.
    Dead,
    /// Nobody holds the node any more.
    Closed,
    /// The node takes no more requests, and goes on to answer those that it has.
    GoingAway,
    /// This process has become a peer since, and the node is to know that.
    Outdated,
    /// What was proven of the node holds no more.
    Unproven,
}

/// A connection whose stream has been asked for.
pub(super) struct Connected {
    /// How often the way to the node had changed when the attempt began.
    pub(super) dial_epoch: usize,
    /// What the peer began with.
    pub(super) first_bytes: FirstBytes,
    /// Where it leads, if that is known.
    pub(super) peer_addr: Option<SocketAddr>,
    pub(super) connection: Connection<FairIo, Batch>,
    pub(super) link: Link,
    /// None once the peer has opened the stream.
    pub(super) head: Option<ResponseFuture>,
    pub(super) stream: NodeStream,
    /// The session that the stream is to carry on. Nothing is written before the node has answered.
    pub(super) resumes: Option<Suspended>,
    /// The node has ended the stream, or has sent what cannot be read: no session goes on.
    pub(super) is_ended: bool,
    /// The node has refused the session that was asked for by its name.
    pub(super) is_refused_by_name: bool,
    /// The stream has not come about, and this is known of all that was written on it.
    pub(super) refused: Option<Outcome>,
    /// Others have run since there was something to write.
    pub(super) gave_way: bool,
    /// All is written, and our side of the stream has ended.
    pub(super) is_half_closed: bool,
    /// The peer calls this process over the stream, and cannot open another one where this one is
    /// dead. So that is noticed also where this process has nothing to say; but a Go server is not
    /// pinged for it, which would object.
    pub(super) is_called: bool,
    /// The peer has sent a message.
    pub(super) has_answered: bool,
    /// What the stream is called since it winds down.
    pub(super) winding_down: Option<StreamId>,
    /// How long what was proven of the node holds, where that is bounded.
    pub(super) lasting: Option<Lasting>,
    /// It winds down, and the node knows nothing of it: this end ends the stream when all is
    /// answered.
    pub(super) ends_by_itself: bool,
}

pub(super) const CLOSED_BY_PEER: &str = "the peer closed the connection";

impl Connected {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<End> {
        for _ in 0..BATCHES_PER_TURN {
            channel.io().register(cx.waker());
            self.link.flag.register(cx.waker());
            let polls = self.link.flag.take();
            let closed = if polls { self.poll_connection() } else { None };
            // The last replies and the end of the connection may have come together.
            if (polls || self.stream.inbound.is_held_up())
                && let Poll::Ready(status) = self.poll_read(cx, channel)
            {
                return Poll::Ready(End::Lost(status));
            }
            if let Some(status) = closed {
                return Poll::Ready(End::Lost(status));
            }
            let winds_down = self.winding_down.is_some();
            if self.stream.inbound.goes_away() && !winds_down {
                return Poll::Ready(End::GoingAway);
            }
            if self.poll_unproven(cx).is_ready() {
                if !winds_down && !self.is_called {
                    return Poll::Ready(End::Unproven);
                }
                self.bound();
            }
            if self.dial_epoch != channel.dial_epoch() && !winds_down {
                return Poll::Ready(End::Outdated);
            }
            self.stream.inbound.register(cx.waker());
            self.stream.settle(&mut self.link);
            self.link.poll_pong();
            // A Go server ends a connection that is pinged often while it has nothing to say.
            let may_ask = winds_down
                || self.link.pings.unheard() == 0
                || channel.features() != Features::default();
            self.link.flush(cx, may_ask);
            if channel.is_closing() && self.close(cx, channel).is_ready() {
                return Poll::Ready(End::Closed);
            }
            if let Poll::Ready(end) = self.poll_timers(cx, channel) {
                return Poll::Ready(end);
            }
            match self.write(cx, channel) {
                Ok(Wrote::Batch | Wrote::Markers) => {}
                Ok(Wrote::Nothing) => {
                    if !self.ends_by_itself || self.end_answered(cx, channel).is_pending() {
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(End::Lost(h2_status(&error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready, once, when what was proven of the node holds no more.
    fn poll_unproven(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.lasting {
            Some(lasting) if self.head.is_none() => {
                ready!(lasting.poll_end(cx));
                self.lasting = None;
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    /// What was proven of the node holds no more, and this end does not wind the connection down: it
    /// does already, or the node calls this process over it and would lose at once what it has called.
    /// It goes on for this time, and no longer: the node may never end it.
    fn bound(&mut self) {
        if !self.link.timers.is_set(Timer::Overdue) {
            let until = self.link.now() + OVERDUE;
            self.link.timers.set(Timer::Overdue, until);
        }
    }

    /// Ends this end's side of the stream, which winds down, when all that was asked on it is answered.
    /// The node ends its own then. Ready where it was done now.
    fn end_answered(&mut self, cx: &Context<'_>, channel: &Arc<Channel>) -> Poll<()> {
        let outbound = &self.stream.outbound;
        if self.is_half_closed
            || outbound.has_messages()
            || !outbound.is_free()
            || !self.stream.inbound.is_answered()
            || channel.awaits_answers(self.stream_id(), cx.waker())
        {
            return Poll::Pending;
        }
        self.is_half_closed = true;
        // Where it cannot be ended so, the connection has ended, which is noticed next.
        let _ = self.stream.half_close(&self.link);
        Poll::Ready(())
    }

    /// Why the connection has ended, if it has.
    fn poll_connection(&mut self) -> Option<Status> {
        match Pin::new(&mut self.connection).poll(&mut self.link.flag.context()) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => Some(Status::unavailable(CLOSED_BY_PEER)),
            Poll::Ready(Err(error)) => Some(h2_status(&error)),
        }
    }

    /// Ready with the reason when the stream has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<Status> {
        if let Some(head) = &mut self.head {
            match ready!(Pin::new(head).poll(&mut noop_context())) {
                Ok(response) => {
                    if let Err(status) = check_response_head(&response) {
                        self.refused = is_turned_away(&response).then_some(Outcome::Refused);
                        self.is_refused_by_name = names_refused(status.code());
                        if self.is_refused_by_name
                            && let Some(suspended) = self.resumes.take()
                        {
                            suspended.lose(status.message(), channel);
                        }
                        return Poll::Ready(status);
                    }
                    // Before any reply is looked at. What was written is with the other node now.
                    let identity = ServerIdentity::of(response.headers(), self.peer_addr);
                    if let Err(status) = channel.identify(identity) {
                        return Poll::Ready(status);
                    }
                    self.head = None;
                    self.link.timers.clear(Timer::NoStream);
                    let features = Features::announced(response.headers());
                    channel.set_features(Some(features));
                    if features != Features::default() {
                        self.link.ping_steadily();
                    }
                    channel.set_last_error(None);
                    self.stream.inbound.set_features(features);
                    self.settle_session(SessionAnswer::read(response.headers()), channel);
                    self.stream.opened(response.into_body());
                    let admission = channel.admit_event();
                    log::event!(
                        admission.is_told => info or debug,
                        target: log::CLIENT,
                        node = channel.id().get(),
                        address = %channel.address(),
                        features = features.names(),
                        left_out = admission.left_out,
                        "connected"
                    );
                }
                Err(error) => {
                    self.refused = is_unprocessed(&error).then_some(Outcome::NotSent);
                    return Poll::Ready(h2_status(&error));
                }
            }
        }
        let (end, heard) = self.stream.poll_read(cx.waker(), &mut self.link);
        // A node that only ever says that it goes away is not a good one.
        self.has_answered |= heard && !self.stream.inbound.goes_away();
        let status = match end {
            None => return Poll::Pending,
            Some(ReadEnd::Broken(status)) => {
                self.is_ended = true;
                return Poll::Ready(status);
            }
            Some(ReadEnd::Gone(error)) => {
                self.is_ended = error.is_reset();
                return Poll::Ready(h2_status(&error));
            }
            Some(ReadEnd::HalfClosed | ReadEnd::Cut) => match ready!(self.stream.poll_trailers()) {
                Ok(trailers) => trailers.as_ref().and_then(trailers_status),
                Err(error) => Some(h2_status(&error)),
            },
        };
        self.is_ended = true;
        let cut = !self.stream.inbound.is_between_messages();
        Poll::Ready(stream_ended(status, cut))
    }

    /// The node has said what it makes of the session that was asked for.
    fn settle_session(&mut self, answer: Option<SessionAnswer>, channel: &Arc<Channel>) {
        if let Some(suspended) = self.resumes.take()
            && let Some((session, received)) = suspended.resume(answer, channel)
        {
            self.stream.inbound.go_on_from(received);
            self.stream.session = Some(session);
            // What is written again wants an answer, or the proof that it came.
            let now = self.link.now();
            self.link.asked(now);
        } else if answer != Some(SessionAnswer::Begun) {
            self.stream.session = None;
        }
    }

    /// Sends the next batch if there is one and the last one is written.
    fn write(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Result<Wrote, h2::Error> {
        if !self.stream.outbound.is_free() || self.is_half_closed || self.resumes.is_some() {
            return Ok(Wrote::Nothing);
        }
        if self.winding_down.is_none() && self.gives_way(cx, channel) {
            return Ok(Wrote::Nothing);
        }
        let carried = Some((&**channel, self.stream_id()));
        let wrote = self.stream.write(carried, &mut self.link)?;
        let outbound = &self.stream.outbound;
        if wrote == Wrote::Batch && outbound.has_messages() {
            // What nobody waits for has not told when it began.
            let asked = outbound.asked().unwrap_or_else(|| self.link.now());
            self.link.asked(asked);
        }
        Ok(wrote)
    }

    /// The node takes no more requests: none is written here any more, which the node is told, and
    /// the replies to those that were are still read.
    pub(super) fn wind_down(&mut self, channel: &Arc<Channel>) {
        self.winding_down = Some(channel.wind_down());
        self.stream.inbound.say(Control::NoneFollow);
    }

    /// The same, where the node is not asked to: what is not answered within this time is lost.
    pub(super) fn end_by_itself(&mut self, channel: &Arc<Channel>) {
        self.wind_down(channel);
        self.ends_by_itself = true;
        self.link
            .timers
            .set(Timer::Overdue, self.link.now() + OVERDUE);
    }

    fn stream_id(&self) -> StreamId {
        self.winding_down.unwrap_or(StreamId::DIALLED)
    }

    /// Whether others run before the next batch is put together. Where more calls are in flight
    /// than are queued, their callers may be about to make the next ones: these come into the same
    /// batch, which spares both sides most of what a batch costs. With one call in flight nobody
    /// waits.
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

    /// The last handle is gone: once all is written, this end's side of the stream ends. Closing
    /// the socket at once could destroy what the node has not read yet; the node answers by ending
    /// its own side. Ready where the stream cannot be ended so.
    fn close(&mut self, cx: &mut Context<'_>, channel: &Channel) -> Poll<()> {
        if !self.link.timers.is_set(Timer::Linger) {
            let until = self.link.now() + channel.pool().settings.linger;
            self.link.timers.set(Timer::Linger, until);
        }
        let outbound = &self.stream.outbound;
        let is_written = !outbound.has_messages() && outbound.is_free();
        if self.is_half_closed
            || !is_written
            || self.resumes.is_some()
            || self.stream.has_rest()
            || (self.winding_down.is_none() && !channel.outbox().is_empty())
            || !self.stream.inbound.is_answered()
        {
            return Poll::Pending;
        }
        self.is_half_closed = true;
        cx.waker().wake_by_ref();
        match self.stream.half_close(&self.link) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>, channel: &Arc<Channel>) -> Poll<End> {
        let owed = self.winding_down.is_some()
            || (self.is_called && channel.features() != Features::default())
            || channel.pending() > 0
            || self.stream.outbound.has_messages()
            || self.link.pings.is_flushing();
        match ready!(self.link.poll_timers(cx, owed)) {
            Fired::Dead => {
                channel.pool().reached.add(Bound::KeepAlive);
                Poll::Ready(End::Dead)
            }
            // Go's servers say nothing before their first message.
            Fired::Timer(Timer::NoStream) => {
                channel.forget_refusal();
                if let Some(suspended) = self.resumes.take() {
                    suspended.resume(None, channel);
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Fired::Timer(Timer::Overdue) if self.winding_down.is_none() => {
                channel.pool().reached.add(Bound::WindingDown);
                Poll::Ready(End::Lost(Status::unavailable(
                    "what was proven of the node holds no more, and the time is over in which it \
                     could still call this process",
                )))
            }
            Fired::Timer(timer) => {
                if timer == Timer::Overdue {
                    channel.pool().reached.add(Bound::WindingDown);
                }
                Poll::Ready(End::Closed)
            }
        }
    }

    /// Whether the peer has opened the stream.
    pub(super) fn is_open(&self) -> bool {
        self.head.is_none()
    }

    /// What is known of requests that were written when the connection has ended without an answer.
    pub(super) fn known_of_requests(&self) -> Outcome {
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

    /// Why the connection has ended, with what its beginning tells of the peer.
    pub(super) fn explained(&self, status: Status) -> Status {
        if self.is_open() {
            status
        } else {
            explained(status, &self.first_bytes)
        }
    }

    /// The connection has broken. What was written is not lost where it has a session: that waits for
    /// another one. Gives back the connection where there is none, to be [given
    /// back](Self::give_back).
    pub(super) fn suspend(mut self, channel: &Arc<Channel>) -> Result<Suspended, Box<Self>> {
        let has_session = self.is_open() && self.stream.session.is_some();
        let is_over = self.is_ended || self.is_half_closed || self.winding_down.is_some();
        if is_over || channel.is_closing() || !(has_session || self.resumes.is_some()) {
            return Err(Box::new(self));
        }
        let resumes = self.resumes.take();
        let (inbound, outbound, session) = self.into_parts();
        channel.suspend();
        // It was not carried on here, and nothing was written.
        if let Some(suspended) = resumes {
            return Ok(suspended);
        }
        let mut session = session.expect("it was looked at");
        session.suspend(outbound);
        let received = inbound.of_session().0;
        Ok(Suspended::new(session, received, channel))
    }

    /// Ends the connection. Messages of which not a byte was written go back to the outbox, unless
    /// the stream wound down; the others are left to fail with an unknown outcome.
    pub(super) fn give_back(self, channel: &Arc<Channel>) {
        let stream_id = self.stream_id();
        let (_inbound, mut outbound, _) = self.into_parts();
        if stream_id == StreamId::DIALLED {
            channel.set_features(None);
        }
        outbound.give_back(channel, stream_id);
    }

    /// Ends the connection: what is left of its stream.
    fn into_parts(self) -> (Inbound, Outbound, Option<Box<Session>>) {
        let Self {
            connection,
            head,
            stream,
            mut link,
            ..
        } = self;
        let parts = stream.into_parts();
        drop((head, connection));
        link.pings.end_flush();
        parts
    }
}

/// Whether a client that is refused with this may get in with a session of another name.
fn names_refused(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied | Code::AlreadyExists | Code::InvalidArgument
    )
}

fn foreign_protocol(first_bytes: &FirstBytes) -> Option<String> {
    first_bytes.foreign_protocol(H2Settings::FRAME)
}

/// The end of a connection whose peer has not answered says what the peer seems to speak where that
/// cannot be HTTP/2, and what it may be where it said nothing at all.
pub(super) fn explained(status: Status, first_bytes: &FirstBytes) -> Status {
    let text = status.message();
    match foreign_protocol(first_bytes) {
        Some(protocol) => Status::unavailable(format!(
            "the peer does not speak HTTP/2, but seems to speak {protocol} ({text})"
        )),
        None if first_bytes.is_empty() && first_bytes.follow_a_handshake() => {
            Status::unavailable(format!(
                "{text}, right after the handshake: the peer may not take what this process showed \
                 of itself in it, and its log says more"
            ))
        }
        None if first_bytes.is_empty() => Status::unavailable(format!(
            "{text}, before the peer had said anything: it may expect TLS, or have no server \
             behind it"
        )),
        None => status,
    }
}
