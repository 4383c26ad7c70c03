//! What a client sends on its stream, on its way to the lane.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

use super::quiet;
use crate::channel::{Channel, deliver, skipped};
use crate::error::{Status, excerpt};
use crate::handler::{Answer, Entry, Lane, Registry, ReplyQueue, Request, Services, Taken};
use crate::wire::{Control, Decoder, Envelope, Incoming as Frame, SERVER_INITIATED, peek_id};

/// How the client's side of a stream ended.
pub(crate) enum InputEnd {
    /// The client has no more to say, and listens.
    HalfClosed,
    /// The same, within a message.
    Cut,
    /// The client has gone.
    Gone,
    /// The client sent what cannot be read.
    Broken(Status),
}

/// What a client says of itself that concerns what it sends.
pub(crate) enum Caller {
    /// It never answers: ids with the server's bit are requests as well.
    Plain,
    /// It answers calls of the server, and this one makes none to it.
    Ignored,
    /// It answers calls that this channel makes.
    Callable(Arc<Channel>),
}

/// Reads requests and hands them to the lane, as far as it takes them.
pub(crate) struct Input {
    /// None once the client has ended its side, or we read no more.
    recv: Option<RecvStream>,
    decoder: Decoder,
    /// Bytes of the current chunk that the client may not send anew yet.
    unreleased: usize,
    /// What came while reading paused. `h2` would keep each frame in the buffer that it was read
    /// into, and a peer may make these many and large.
    unread: BytesMut,
    /// How the client's side ended while reading paused.
    ended: Option<Result<(), ()>>,
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
    /// The client has gone, and what it sent before is still read.
    left: bool,
    /// The lane gets no more.
    done: bool,
    caller: Caller,
    lane: Arc<Lane>,
    replies: Arc<ReplyQueue>,
    /// The method of the last request.
    last: Option<Arc<Entry>>,
    /// Read and not handed to the lane yet.
    requests: Vec<Request>,
    /// What these cost.
    read_bytes: usize,
    /// What the requests cost that the lane had when it was last asked.
    at_the_lane: usize,
}

impl Input {
    pub(crate) fn new(
        recv: RecvStream,
        max_decoding: usize,
        caller: Caller,
        lane: Arc<Lane>,
        replies: Arc<ReplyQueue>,
    ) -> Self {
        Self {
            recv: Some(recv),
            decoder: Decoder::new(max_decoding),
            unreleased: 0,
            unread: BytesMut::new(),
            ended: None,
            chunk_left: 0,
            carried: 0,
            has_request: false,
            answers_wait: false,
            paused: false,
            left: false,
            done: false,
            caller,
            lane,
            replies,
            last: None,
            requests: Vec::new(),
            read_bytes: 0,
            at_the_lane: 0,
        }
    }

    /// Whether there may be something to read though nothing has come.
    pub(crate) fn is_held_up(&self) -> bool {
        self.paused || self.answers_wait
    }

    /// Reads what there is, as far as the lane takes it: whether anything came, and how the client's
    /// side ended where it did.
    pub(crate) fn poll_read(&mut self, settings: &Services) -> (bool, Option<InputEnd>) {
        let mut heard = false;
        let end = loop {
            match self.read_chunk(settings) {
                Ok(true) => {}
                Ok(false) => {
                    heard |= self.keep_unread();
                    break None;
                }
                Err(status) => break Some(InputEnd::Broken(status)),
            }
            match self.poll_chunk() {
                Poll::Pending => break None,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.take_chunk(chunk);
                }
                Poll::Ready(Ok(None)) if self.decoder.is_between_messages() => {
                    break Some(InputEnd::HalfClosed);
                }
                Poll::Ready(Ok(None)) => break Some(InputEnd::Cut),
                Poll::Ready(Err(())) => break Some(InputEnd::Gone),
            }
        };
        self.hand_over();
        (heard || end.is_some(), end)
    }

    /// Takes what has come out of `h2`'s hands while reading is paused, or for ever. What is kept is
    /// bounded by the window: none of it may be sent anew before it has been read.
    pub(crate) fn keep_unread(&mut self) -> bool {
        let mut heard = false;
        while self.ended.is_none() {
            match self.poll_chunk() {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(chunk))) => {
                    heard = true;
                    self.unread.extend_from_slice(&chunk);
                }
                Poll::Ready(Ok(None)) => self.ended = Some(Ok(())),
                Poll::Ready(Err(())) => self.ended = Some(Err(())),
            }
        }
        heard
    }

    /// No further request is taken; what was handed over is still handled. Where this server calls the
    /// client, it reads on, for the replies.
    pub(crate) fn take_no_requests(&mut self) {
        if matches!(self.caller, Caller::Callable(_)) {
            self.done = true;
            self.lane.finish();
        } else {
            self.close();
        }
    }

    /// No more is read; what was handed over is still handled.
    pub(crate) fn close(&mut self) {
        self.recv = None;
        // A message that is not complete never will be.
        self.decoder = Decoder::new(0);
        self.unread = BytesMut::new();
        self.ended = None;
        self.done = true;
        self.lane.finish();
    }

    /// The client has gone. What it sent before is read all the same, by
    /// [`poll_work_off`](Self::poll_work_off).
    pub(crate) fn leave(&mut self) {
        self.recv = None;
        self.left = true;
        self.lane.leave();
    }

    /// No reply to a call of this server comes any more.
    pub(crate) fn ends_calls(&mut self) {
        if matches!(self.caller, Caller::Callable(_)) {
            self.caller = Caller::Ignored;
        }
    }

    /// Goes on to read what was left, as far as the lane takes it. Ready when all of it has been
    /// handled.
    pub(crate) fn poll_work_off(&mut self, cx: &mut Context<'_>, settings: &Services) -> Poll<()> {
        self.replies.io().register(cx.waker());
        if !self.done {
            // Nobody would be told of a message that cannot be read.
            let all = self.read_chunk(settings).unwrap_or(true);
            self.hand_over();
            if all {
                self.close();
            }
        }
        if self.is_worked_off() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether nothing is left to be handled.
    pub(crate) fn is_worked_off(&self) -> bool {
        self.done && self.lane.is_idle()
    }

    /// The bytes that wait to be handled.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.unread.len() + self.lane.waiting_bytes()
    }

    /// The server was stopped: what has not started never will.
    pub(crate) fn abandon(&mut self) {
        self.requests.clear();
        self.lane.abandon();
    }

    fn hand_over(&mut self) {
        self.lane.push(&mut self.requests);
        self.read_bytes = 0;
        self.at_the_lane = self.lane.waiting_bytes();
    }

    fn take_chunk(&mut self, chunk: Bytes) {
        if std::mem::take(&mut self.has_request) {
            self.carried += self.chunk_left;
        }
        self.chunk_left = chunk.len();
        self.unreleased = chunk.len();
        self.decoder.push(chunk);
    }

    fn poll_chunk(&mut self) -> Poll<Result<Option<Bytes>, ()>> {
        if let Some(ended) = self.ended.take() {
            return Poll::Ready(ended.map(|()| None));
        }
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        match ready!(recv.poll_data(&mut quiet())) {
            None => Poll::Ready(Ok(None)),
            Some(Ok(chunk)) => Poll::Ready(Ok(Some(chunk))),
            Some(Err(error)) => {
                tracing::debug!(error = %excerpt(&error.to_string()), "stream ended");
                Poll::Ready(Err(()))
            }
        }
    }

    /// Takes the messages out of the current chunk. False where the lane has enough; an error ends
    /// the stream.
    fn read_chunk(&mut self, settings: &Services) -> Result<bool, Status> {
        if self.recv.is_none() && !self.left {
            return Ok(true);
        }
        let limit = settings.max_waiting_bytes;
        self.at_the_lane = self.lane.waiting_bytes();
        self.answers_wait = self.answers_wait && self.replies.is_full();
        loop {
            // Several frames may have come at once, of which the lane has nothing yet.
            let waiting = self.at_the_lane + self.read_bytes;
            self.paused = if self.paused {
                waiting > limit / 2
            } else {
                waiting >= limit
            };
            // Replies wait for no handler.
            if self.paused && self.may_pause() {
                self.hand_over();
                self.lane.wake_when_below(limit / 2);
                return Ok(false);
            }
            // The next batch of replies makes room, and this task takes it.
            if self.answers_wait {
                return Ok(false);
            }
            if let Some(frame) = self.decoder.next()? {
                if let Some(mut request) = self.read_frame(&frame, waiting, settings)? {
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
        waiting: usize,
        settings: &Services,
    ) -> Result<Option<Request>, Status> {
        let last = self.last.take();
        let read = self.read_like(frame, waiting, settings, last.as_ref());
        self.last = match &read {
            Ok(Some(Request { entry, .. })) if !is_same(entry.as_ref(), last.as_ref()) => {
                entry.clone()
            }
            _ => last,
        };
        read
    }

    /// A frame that is likely to be of the same method as the last request.
    fn read_like(
        &mut self,
        frame: &Frame,
        waiting: usize,
        settings: &Services,
        last: Option<&Arc<Entry>>,
    ) -> Result<Option<Request>, Status> {
        let registry = &settings.registry;
        let frame = match frame {
            Frame::Message(frame) => frame,
            Frame::Oversized { head, len } => {
                let status = Status::resource_exhausted(format!(
                    "a message of {len} bytes exceeds the limit of {} \
                     (ServerBuilder::max_decoding_message_size)",
                    settings.max_decoding
                ));
                let (id, method) = peek_id(head).ok_or_else(|| status.clone())?;
                if !self.is_reply(id) {
                    if self.done {
                        return Ok(None);
                    }
                    return self.reject(id, method, &status, registry);
                }
                if let Caller::Callable(channel) = &self.caller {
                    skipped(channel, id & !SERVER_INITIATED, status);
                }
                return Ok(None);
            }
        };
        let likely = last.map_or("", |last| &*last.name);
        let envelope = Envelope::decode_like(frame, likely).map_err(|error| {
            Status::internal(format!("a malformed message from the client: {error}"))
        })?;
        let id = envelope.id;
        if self.is_reply(id) {
            if let Caller::Callable(channel) = &self.caller {
                // The clock by which the call began.
                let now = channel.pool().clock.now();
                deliver(channel, id & !SERVER_INITIATED, &envelope, frame, now);
            }
            return Ok(None);
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
        if self.done {
            return Ok(None);
        }
        if let Some(status) = settings.too_many_wait(waiting) {
            return self.reject(id, envelope.method, &status, registry);
        }
        match Request::read(&envelope, frame, registry, last) {
            Taken::Request(request) => Ok(Some(request)),
            Taken::Refused(status) => self.reject(id, envelope.method, &status, registry),
        }
    }

    /// Whether a message with this id answers a call of this server.
    fn is_reply(&self, id: u64) -> bool {
        !matches!(self.caller, Caller::Plain) && id & SERVER_INITIATED != 0
    }

    fn may_pause(&self) -> bool {
        match &self.caller {
            Caller::Callable(channel) => channel.may_pause_reading(),
            Caller::Plain | Caller::Ignored => true,
        }
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
        if registry.is_one_way(method) {
            return Err(status.clone());
        }
        self.replies
            .push_unbounded(id, method, &Answer::Error(status));
        self.answers_wait = self.replies.is_full();
        Ok(None)
    }
}

fn is_same(one: Option<&Arc<Entry>>, other: Option<&Arc<Entry>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.hand_over();
        self.lane.disconnect();
    }
}
