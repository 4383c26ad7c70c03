//! The stream of a client, at the server's end.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clients::Attached;
use super::sessions::{Carried, Parked};
use super::slow_peer::SlowPeer;
use crate::channel::{Attachment, Channel};
use crate::error::Code;
use crate::runtime::BoxFuture;
use crate::stream::{Inbound, Link, NodeStream, ReadEnd, Session, Timer, Wrote, h2_status};
use crate::wire::trailers;

/// How long a client that understands that the server goes away may go on with requests: as good as
/// always it stops within a round trip.
const NONE_FOLLOW: Duration = Duration::from_secs(1);

/// Whom the stream carries calls to.
pub(super) enum Callee {
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

    pub(super) fn channel(&self) -> &Arc<Channel> {
        self.attachment().channel()
    }
}

/// Why a stream or a connection has ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) reason: Cow<'static, str>,
    /// This end did it, because of what the peer did or failed to do.
    pub(super) is_cut: bool,
}

impl End {
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
            is_cut: false,
        }
    }

    /// HTTP/2 says so.
    pub(super) fn of(error: &h2::Error) -> Self {
        Self::new(h2_status(error).message().to_owned())
    }

    pub(super) fn cut(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            is_cut: true,
            ..Self::new(reason)
        }
    }
}

pub(super) struct ServedStream {
    stream: NodeStream,
    /// Where the client can be called back.
    callee: Option<Callee>,
    /// Ready when no stream carries the calls of the peer that has opened this one, where another
    /// one took its place.
    displaced: Option<BoxFuture<'static, ()>>,
    /// Set when no more requests are taken: what the trailers will say once all is written.
    ending: Option<(Code, String)>,
    /// Calls to the client go over another stream first, where it is to open one.
    hands_over: HandsOver,
    is_over: bool,
    /// The client has reset it.
    is_reset: bool,
    /// Why it ends, from when that is known.
    why: Option<End>,
    /// The session that it carries.
    session: Option<Carried>,
    slow_peer: SlowPeer,
}

/// What is waited for before the stream ends that winds down, beside its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandsOver {
    Nothing,
    /// The calls to the client that are written or queued are answered.
    Answers,
    /// The same, and the client has opened another stream, which carries the calls then.
    Calls,
}

impl ServedStream {
    pub(super) fn new(
        stream: NodeStream,
        callee: Option<Callee>,
        session: Option<Carried>,
        slow_peer_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            callee,
            session,
            displaced: None,
            ending: None,
            hands_over: HandsOver::Nothing,
            is_over: false,
            is_reset: false,
            why: None,
            slow_peer: SlowPeer::new(slow_peer_timeout),
        }
    }

    /// Reads what there is, as far as the lane takes it.
    pub(super) fn poll_read(&mut self, cx: &Context<'_>, link: &mut Link) {
        let (end, heard) = self.stream.poll_read(cx.waker(), link);
        if heard && self.stream.inbound.has_message() {
            link.timers.clear(Timer::NoMessage);
        }
        match end {
            None => self.slow_peer.after_read(&self.stream, link, cx.waker()),
            // What was asked is still answered.
            Some(ReadEnd::HalfClosed) => {
                self.note(|| End::new("the client ended the stream"));
                self.end(Code::Ok, "");
            }
            Some(ReadEnd::Cut) => {
                let message = "the stream ended within a message";
                self.note(|| End::cut(message));
                self.end(Code::Internal, message);
            }
            Some(ReadEnd::Gone(error)) => {
                self.is_reset |= error.is_reset();
                self.note(|| End::of(&error));
                self.is_over = true;
            }
            Some(ReadEnd::Broken(status)) => {
                self.note(|| End::cut(status.message().to_owned()));
                self.end(status.code(), status.message());
            }
        }
    }

    /// Notes why the stream ends. The first reason is the one.
    fn note(&mut self, why: impl FnOnce() -> End) {
        self.why.get_or_insert_with(why);
    }

    /// Why the stream has ended, where it was the stream and not the connection.
    pub(super) fn why(&self) -> Option<&End> {
        self.why.as_ref()
    }

    /// Keeps what came before the connection ended. It is bounded by the window, so nothing is left
    /// behind.
    pub(super) fn keep_unread(&mut self) {
        self.stream.keep_unread();
    }

    /// Whether there may be something to read though nothing has come.
    pub(super) fn is_held_up(&self) -> bool {
        self.stream.inbound.is_held_up()
    }

    /// Ready when the client has reset the stream, which is how a Go client ends it. What it sent
    /// before is handled.
    pub(super) fn poll_reset(&mut self) -> Poll<()> {
        self.stream.poll_reset().map(|reset| {
            self.is_reset |= reset.is_ok();
            self.note(|| match reset {
                Ok(_) => End::new("the client reset the stream"),
                Err(error) => End::of(&error),
            });
            self.is_over = true;
        })
    }

    /// Reads no more; when all is answered, the trailers say this. So no reply to a call comes any
    /// more, and the calls fail now: the handlers that wait for them would keep the stream from
    /// ending.
    fn end(&mut self, code: Code, message: &str) {
        self.ending
            .get_or_insert_with(|| (code, message.to_owned()));
        self.stream.close_inbound();
        self.end_calls();
    }

    /// The server shuts down. A client that understands that stops to write requests, and says so:
    /// those that it has written are taken. Of others no more are. Handlers of those that were may
    /// call, and the replies to that are read.
    pub(super) fn wind_down(&mut self, link: &mut Link) {
        if self.ending.is_none() {
            self.say_goodbye("the server is shutting down", link);
        }
        // Who calls clients meanwhile is this server, which ends. But what was written on a stream that
        // carries the calls no more is of handlers on another one, which have their time of grace.
        let carries = (self.callee.as_ref()).is_some_and(|callee| callee.attachment().carries());
        self.hands_over = match self.hands_over {
            HandsOver::Answers | HandsOver::Calls if !carries => HandsOver::Answers,
            _ => HandsOver::Nothing,
        };
    }

    /// This connection winds down, and the server goes on: the same, but the calls to the client are
    /// handed over to the stream that it opens next, where it does so, and those that were written
    /// are answered.
    pub(super) fn renew(&mut self, why: &'static str, link: &mut Link) {
        if self.ending.is_some() {
            return;
        }
        let opens_another = self.say_goodbye(why, link);
        self.hands_over = match &self.callee {
            Some(Callee::Peer(attachment)) if opens_another => {
                attachment.expect_another();
                HandsOver::Calls
            }
            Some(_) => HandsOver::Answers,
            None => HandsOver::Nothing,
        };
    }

    /// Asks the client for no more requests. True if it understands that.
    fn say_goodbye(&mut self, why: &'static str, link: &mut Link) -> bool {
        self.note(|| End::new(why));
        self.ending = Some((Code::Unavailable, why.to_owned()));
        let understands = self.stream.inbound.ask_for_no_more();
        if understands {
            link.timers.set(Timer::NoneFollow, link.now() + NONE_FOLLOW);
        } else {
            self.stream.take_no_requests();
        }
        understands
    }

    /// Whether the calls to the client are where they are to be.
    fn has_handed_over(&self, cx: &Context<'_>) -> bool {
        let Some(callee) = &self.callee else {
            return true;
        };
        let attachment = callee.attachment();
        match self.hands_over {
            HandsOver::Nothing => true,
            HandsOver::Calls if attachment.carries() => false,
            HandsOver::Answers if attachment.carries() => {
                let channel = attachment.channel();
                channel.pending() == 0 && channel.outbox().is_empty()
            }
            HandsOver::Answers | HandsOver::Calls => {
                !self.stream.outbound.has_messages() && !attachment.awaits_answers(cx.waker())
            }
        }
    }

    /// The client has not said in time that no request follows. It may have, behind what is not
    /// read yet.
    pub(super) fn is_late(&mut self, link: &mut Link) {
        if self.is_held_up() {
            link.timers.set(Timer::NoneFollow, link.now() + NONE_FOLLOW);
        } else {
            self.stream.take_no_requests();
        }
    }

    /// The client has sent nothing for too long. True where the stream ends for it.
    pub(super) fn end_silent(&mut self, link: &Link, limit: Duration) -> bool {
        // It may be in what has just come.
        let is_silent = !self.is_held_up();
        if is_silent {
            let message = format!(
                "the client has sent nothing on its stream within {limit:?} \
                 (ServerBuilder::first_message_timeout)"
            );
            self.note(|| End::cut(message.clone()));
            self.end(Code::DeadlineExceeded, &message);
            link.flag.set();
        }
        is_silent
    }

    /// It is time to look whether the client goes on with a message. True where it has not, and the
    /// stream ends.
    pub(super) fn ends_slow_sender(&mut self, link: &mut Link, task: &Waker) -> bool {
        let is_slow = self.slow_peer.is_slow_sender(&self.stream, link, task);
        if is_slow {
            let message = self.slow_peer.sender();
            self.note(|| End::cut(message.clone()));
            self.end(Code::DeadlineExceeded, &message);
            link.flag.set();
        }
        is_slow
    }

    /// It is time to look whether the client takes what is written. Why the connection ends, where it
    /// has not.
    pub(super) fn slow_reader(&mut self, link: &mut Link, task: &Waker) -> Option<End> {
        let is_slow = self.slow_peer.is_slow_reader(&self.stream, link, task);
        is_slow.then(|| End::cut(self.slow_peer.reader()))
    }

    /// The bytes that are kept for the client.
    pub(super) fn held_bytes(&self) -> usize {
        // What waits is written as soon as the last batch is.
        let is_held_back = !self.stream.outbound.is_free();
        let callee = self.callee.as_ref().filter(|_| is_held_back);
        let calls = callee.map_or(0, |callee| callee.channel().outbox().bytes());
        let session = self.stream.session.as_ref();
        let kept = session.map_or(0, |session| session.held_bytes());
        self.stream.inbound.held_bytes(is_held_back) + calls + kept
    }

    /// Whether another connection is to carry the session.
    pub(super) fn is_wanted_elsewhere(&self) -> bool {
        self.session.as_ref().is_some_and(Carried::is_wanted)
    }

    /// The connection has broken. What there is of the session, where that goes on: neither end has
    /// ended the stream.
    pub(super) fn suspend(mut self) -> Result<(Carried, Box<Parked>), Box<Self>> {
        let goes_on = self.ending.is_none() && !self.is_reset && !self.stream.inbound.is_closed();
        let Some(carried) = self.session.take_if(|_| goes_on) else {
            return Err(Box::new(self));
        };
        let (mut inbound, session) = self.into_parts();
        inbound.suspend();
        let session = session.expect("one that is carried has an end here");
        Ok((carried, Box::new(Parked { inbound, session })))
    }

    /// Nothing that has come is handled, but for what has started.
    pub(super) fn discard(&mut self) {
        self.stream.inbound.discard();
    }

    /// Carries no calls any more. What was written last may still be with `h2`.
    fn end_calls(&mut self) {
        self.callee = None;
        self.stream.inbound.end_calls();
    }

    /// Wakes the task when there is something to write, and lets go of a node whose calls this
    /// stream does not carry any more.
    pub(super) fn register(&mut self, cx: &mut Context<'_>) {
        self.stream.inbound.register(cx.waker());
        if let Some(displaced) = &mut self.displaced
            && displaced.as_mut().poll(cx).is_ready()
        {
            self.displaced = None;
            // The other one may have been older, and come late. The peer opens another one where it
            // still uses this one.
            let message = "the stream that took the place of this one has ended";
            self.note(|| End::new(message));
            self.end(Code::Unavailable, message);
        }
        let Some(callee) = &self.callee else {
            return;
        };
        let attachment = callee.attachment();
        let carries = attachment.register(cx.waker());
        if !carries && self.hands_over != HandsOver::Nothing {
            // It is looked at when something is written.
        } else if attachment.channel().is_retired() {
            // The node opens another stream then, which is one of its new address.
            self.end(
                Code::Unavailable,
                "this node is known by another address now",
            );
        } else if !carries || (attachment.is_finished() && !self.stream.outbound.has_messages()) {
            if let Callee::Peer(attachment) = callee
                && !carries
            {
                self.displaced = Some(attachment.channel().until_abandoned());
                // Polled when the task runs again, which it does at once.
                cx.waker().wake_by_ref();
            }
            self.end_calls();
        }
    }

    /// Writes queued replies and calls, and the trailers behind the last. True if it wrote.
    pub(super) fn write(&mut self, cx: &Context<'_>, link: &mut Link) -> bool {
        if self.is_over {
            return false;
        }
        let carried = self.callee.as_ref().map(|callee| {
            let attachment = callee.attachment();
            (&**attachment.channel(), attachment.stream_id())
        });
        self.stream.settle(link);
        match self.stream.write(carried, link) {
            Ok(Wrote::Batch | Wrote::Markers) => return true,
            Ok(Wrote::Nothing) => self.slow_peer.after_write(&self.stream, link, cx.waker()),
            Err(error) => {
                self.note(|| End::of(&error));
                self.is_over = true;
                return true;
            }
        }
        if let Some((code, message)) = &self.ending
            && self.stream.outbound.is_free()
            && self.stream.inbound.is_worked_off()
            && self.stream.inbound.is_answered()
            && self.has_handed_over(cx)
        {
            self.stream.send_trailers(trailers(*code, message), link);
            self.is_over = true;
            return true;
        }
        false
    }

    /// The stream is over: calls to the client fail. What the client sent is left.
    pub(super) fn into_inbound(self) -> Inbound {
        let (mut inbound, _) = self.into_parts();
        inbound.end_calls();
        inbound
    }

    /// The stream is over: what the client sent, and the session. Calls to the client go back, as far
    /// as they were not written.
    fn into_parts(self) -> (Inbound, Option<Box<Session>>) {
        let (inbound, mut outbound, session) = self.stream.into_parts();
        if let Some(callee) = self.callee {
            let attachment = callee.attachment();
            outbound.give_back(attachment.channel(), attachment.stream_id());
        }
        (inbound, session)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it is over because the connection is, and carries a session that goes on.
    pub(super) fn is_broken(&self) -> bool {
        self.is_over && !self.is_reset && self.ending.is_none() && self.session.is_some()
    }
}
