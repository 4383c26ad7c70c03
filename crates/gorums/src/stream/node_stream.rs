use std::task::{Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::time::Instant;

use super::inbound::{Inbound, Progress};
use super::link::Link;
use super::outbound::Outbound;
use super::poll_flag::noop_context;
use super::session::{Session, Writes};
use crate::bounds::Bound;
use crate::channel::{Channel, StreamId};
use crate::error::{Status, excerpt};
use crate::wire::Batch;

/// How the peer's side of a stream ended.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The peer has no more to say.
    HalfClosed,
    /// The same, within a message.
    Cut,
    /// The stream is broken off.
    Gone(h2::Error),
    /// The peer sent what cannot be read.
    Broken(Status),
}

/// What was handed to `h2` in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    Batch,
    /// Nothing that has bytes, but markers were passed.
    Markers,
    Nothing,
}

/// One gRPC stream, at either end: it moves bytes between `h2` and the two halves, which decide
/// what is read and what is written.
pub(crate) struct NodeStream {
    send: SendStream<Batch>,
    /// None before the peer has answered, and once this end reads no more.
    recv: Option<RecvStream>,
    /// How the peer's side ended while reading paused.
    ended: Option<Result<(), h2::Error>>,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    /// What outlives the stream, where something does.
    pub(crate) session: Option<Box<Session>>,
}

impl NodeStream {
    pub(crate) fn new(send: SendStream<Batch>, recv: Option<RecvStream>, inbound: Inbound) -> Self {
        Self {
            send,
            recv,
            ended: None,
            inbound,
            outbound: Outbound::default(),
            session: None,
        }
    }

    /// The peer has answered, and this is what it sends.
    pub(crate) fn opened(&mut self, recv: RecvStream) {
        self.recv = Some(recv);
    }

    /// Reads what there is, as far as it is taken. Tells how the peer's side ended, once it has,
    /// and whether any bytes came. Where reading pauses, the waker is called when it may go on.
    #[inline]
    pub(crate) fn poll_read(&mut self, waker: &Waker, link: &mut Link) -> (Option<ReadEnd>, bool) {
        let mut heard = false;
        let mut now = None;
        let end = loop {
            match self.read_pushed(waker, &mut now) {
                Ok(Progress::All) => {}
                Ok(Progress::Paused) => {
                    heard |= self.keep_unread();
                    break None;
                }
                Err(status) => break Some(ReadEnd::Broken(status)),
            }
            match self.poll_chunk() {
                Poll::Pending => break None,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.inbound.push(chunk);
                }
                Poll::Ready(Ok(None)) if self.inbound.is_between_messages() => {
                    break Some(ReadEnd::HalfClosed);
                }
                Poll::Ready(Ok(None)) => break Some(ReadEnd::Cut),
                Poll::Ready(Err(error)) => break Some(ReadEnd::Gone(error)),
            }
        };
        if heard || end.is_some() {
            link.heard(self.inbound.take_answered());
        }
        (end, heard)
    }

    #[inline]
    fn read_pushed(
        &mut self,
        waker: &Waker,
        now: &mut Option<Instant>,
    ) -> Result<Progress, Status> {
        let progress = self.inbound.read(waker, now)?;
        if let Some(received) = self.inbound.take_acknowledged()
            && let Some(session) = &mut self.session
            && !session.acknowledge(received)
        {
            return Err(Status::internal(
                "the peer says that it has more messages of the session than there are",
            ));
        }
        let consumed = self.inbound.take_consumed();
        if consumed > 0
            && let Some(recv) = &mut self.recv
        {
            let released = recv.flow_control().release_capacity(consumed);
            released.map_err(|error| h2_status(&error))?;
        }
        Ok(progress)
    }

    /// Takes what has come out of `h2`'s hands, where reading pauses or the stream has ended: what
    /// came before the end is still read. True if anything came.
    pub(crate) fn keep_unread(&mut self) -> bool {
        let mut heard = false;
        while self.ended.is_none() {
            match self.poll_chunk() {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.inbound.keep(&chunk);
                }
                Poll::Ready(Ok(None)) => self.ended = Some(Ok(())),
                Poll::Ready(Err(error)) => self.ended = Some(Err(error)),
            }
        }
        heard
    }

    #[inline]
    fn poll_chunk(&mut self) -> Poll<Result<Option<Bytes>, h2::Error>> {
        if let Some(ended) = self.ended.take() {
            return Poll::Ready(ended.map(|()| None));
        }
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        Poll::Ready(ready!(recv.poll_data(&mut noop_context())).transpose())
    }

    /// What the peer says behind its last message.
    pub(crate) fn poll_trailers(&mut self) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        match &mut self.recv {
            Some(recv) => recv.poll_trailers(&mut noop_context()),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Ready when the peer has reset the stream. What it sent before is still handled.
    pub(crate) fn poll_reset(&mut self) -> Poll<Result<Reason, h2::Error>> {
        let reset = ready!(self.send.poll_reset(&mut noop_context()));
        self.keep_unread();
        Poll::Ready(reset)
    }

    /// Reads no more; what was handed over is still handled.
    pub(crate) fn close_inbound(&mut self) {
        self.recv = None;
        self.ended = None;
        self.inbound.close();
    }

    /// No further request is taken. Where this end calls the peer, it reads on, for the replies, and
    /// where the peer gives credit, for that.
    pub(crate) fn take_no_requests(&mut self) {
        if !self.inbound.take_no_requests() {
            self.close_inbound();
        }
    }

    /// Notes how far the last batch came.
    #[inline]
    pub(crate) fn settle(&mut self, link: &mut Link) {
        self.outbound.settle(link.pings.flushing());
    }

    /// Hands the next batch to `h2`, if there is anything to write and the last one is written and
    /// [settled](Self::settle): answers, and the messages of the channel whose calls the stream
    /// carries.
    #[inline]
    pub(crate) fn write(
        &mut self,
        carried: Option<(&Channel, StreamId)>,
        link: &mut Link,
    ) -> Result<Wrote, h2::Error> {
        if !self.outbound.is_free() {
            return Ok(Wrote::Nothing);
        }
        match &mut self.session {
            None => {
                if let Some(replies) = self.inbound.replies() {
                    self.outbound.push_replies(replies, None);
                }
                if let Some((channel, stream_id)) = carried {
                    self.outbound.push_messages(channel, stream_id, None);
                }
            }
            Some(session) => {
                Self::push_all(&mut self.inbound, &mut self.outbound, session, carried)
            }
        }
        let Some(batch) = self.outbound.next() else {
            if !self.outbound.has_messages() {
                return Ok(Wrote::Nothing);
            }
            self.settle(link);
            return Ok(Wrote::Markers);
        };
        // Followed by a poll of the connection, which flushes it.
        link.flag.set();
        self.send.send_data(batch, false)?;
        Ok(Wrote::Batch)
    }

    /// Puts together what is written next, where there is a session.
    #[inline]
    fn push_all(
        inbound: &mut Inbound,
        outbound: &mut Outbound,
        session: &mut Session,
        carried: Option<(&Channel, StreamId)>,
    ) {
        let (received, bytes) = inbound.of_session();
        if outbound.say(session, received, bytes) {
            inbound.said();
        }
        if outbound.push_rest(session) {
            return;
        }
        let writes = session.writes;
        if let Some(replies) = inbound.replies() {
            let kept = (writes == Writes::Answers).then_some(&mut session.kept);
            outbound.push_replies(replies, kept);
            if session.shorten() {
                replies.has_reached(Bound::KeptAnswers);
            }
        }
        if let Some((channel, stream_id)) = carried {
            let session = (writes == Writes::Messages).then_some(session);
            outbound.push_messages(channel, stream_id, session);
        }
    }

    /// Whether there is more to write of what a session had written on an earlier stream.
    pub(crate) fn has_rest(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.has_rest())
    }

    /// Ends this end's side of the stream, as a client does.
    pub(crate) fn half_close(&mut self, link: &Link) -> Result<(), h2::Error> {
        let last = self.outbound.last();
        link.flag.set();
        self.send.send_data(last, true)
    }

    /// Ends the stream, as a server does. The peer may have reset it meanwhile.
    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap, link: &Link) {
        link.flag.set();
        let _ = self.send.send_trailers(trailers);
    }

    /// The stream is over: what is left of its halves, and of its session.
    pub(crate) fn into_parts(self) -> (Inbound, Outbound, Option<Box<Session>>) {
        let Self {
            send,
            recv,
            inbound,
            outbound,
            session,
            ..
        } = self;
        drop((send, recv));
        (inbound, outbound, session)
    }
}

/// What a connection ends with that HTTP/2 has ended.
pub(crate) fn h2_status(error: &h2::Error) -> Status {
    let text = match error.get_io() {
        Some(io) => io.to_string(),
        // It tells what the peer wrote into its GOAWAY.
        None => excerpt(&format!("HTTP/2: {error}")).into_owned(),
    };
    Status::unavailable(text)
}
