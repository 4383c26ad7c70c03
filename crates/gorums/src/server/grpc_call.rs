//! Calls of ordinary gRPC clients: each has a stream of HTTP/2 of its own, and is handled by what
//! handles the requests of a Gorums stream.
//!
//! A call has a lane of its own, with one request. So calls are not ordered among each other,
//! whatever connection they share, unless the whole server has one turn; interceptors, bounds,
//! release, panics and cancellation are as elsewhere. What the lane's queue has of answers is put
//! into the frames of gRPC here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::Instant;

use super::bodies::{Rest, poll_send};
use crate::bounds::Bound;
use crate::error::{Code, Status};
use crate::handler::{Called, ConnectionInfo, Entry, Lane, ReplyQueue, Request, Services};
use crate::runtime::{Clock, bounded};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::wire::{
    Batch, BatchBuilder, BatchSlot, Control, Decoder, Envelope, Features, Frame, H2Settings,
    MethodKind, PREFIX, grpc_head, trailers, trailers_only,
};

/// Replies up to this size are copied behind their prefix.
const SMALL: usize = 4096;

/// The id of a request that is the only one of its lane.
const ID: u64 = 1;

/// What the peer of a lane is told beyond replies: the end of those of a streamed method.
const FEATURES: Features = Features {
    cancel: false,
    stream_end: true,
    credit: false,
    instance: false,
    kind: false,
    going_away: false,
    deadline: false,
};

/// The bytes of requests that the calls of one connection hold, all of them together.
#[derive(Debug, Clone)]
pub(super) struct RequestBytes {
    all: Arc<AtomicUsize>,
    /// What they hold of answers, which is not bounded here.
    answers: Arc<AtomicUsize>,
    limit: usize,
}

impl RequestBytes {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            all: Arc::default(),
            answers: Arc::default(),
            // One call alone may have the largest request that there is.
            limit: services
                .max_waiting_bytes
                .max(services.max_decoding.saturating_add(PREFIX)),
        }
    }

    /// What all of them hold, of answers too.
    pub(super) fn held(&self) -> usize {
        self.all.load(Ordering::Relaxed) + self.answers.load(Ordering::Relaxed)
    }

    /// For a call that holds none yet.
    fn of_call(&self) -> CallBytes {
        CallBytes {
            held: Held::nothing(&self.all),
            limit: self.limit,
        }
    }
}

/// What one call holds of a sum, until this is dropped.
struct Held {
    of: Arc<AtomicUsize>,
    own: usize,
}

impl Held {
    fn nothing(of: &Arc<AtomicUsize>) -> Self {
        Self {
            of: Arc::clone(of),
            own: 0,
        }
    }

    /// It holds so much now. Returns the sum.
    fn set(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.own, bytes);
        // As good as one step for everybody else: what is wrapped around is unwrapped.
        let change = bytes.wrapping_sub(before);
        let sum = self.of.fetch_add(change, Ordering::Relaxed);
        sum.wrapping_add(change)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What one call holds of requests.
struct CallBytes {
    held: Held,
    limit: usize,
}

impl CallBytes {
    /// Holds more.
    ///
    /// # Errors
    /// All calls together would hold too much.
    fn add(&mut self, bytes: usize) -> Result<(), Status> {
        let limit = self.limit;
        if self.held.set(self.held.own + bytes) <= limit {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "the requests of this connection that are being read or handled have more than {limit} bytes"
        )))
    }
}

/// A call whose head has come, and whose client was let in.
pub(super) struct GrpcCall {
    pub(super) entry: Arc<Entry>,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) services: Arc<Services>,
    pub(super) clock: Arc<dyn Clock>,
    /// The caller's.
    pub(super) timeout: Option<Duration>,
    /// How long the next part of the request may take to come.
    pub(super) patience: Duration,
    pub(super) bytes: RequestBytes,
}

impl GrpcCall {
    /// The name of the method at this path, as handlers are registered.
    pub(super) fn method(path: &str) -> Option<String> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        // One path for each method, for whoever looks at paths.
        (!service.is_empty() && !method.is_empty() && !method.contains(['/', '.']))
            .then(|| format!("{service}.{method}"))
    }

    /// Answers the call, and waits until its handler has ended: that goes on where the caller has
    /// given up or its connection has ended, and is told so. Dropped, it abandons a request that has
    /// not started.
    pub(super) async fn serve(self, mut recv: RecvStream, mut respond: SendResponse<Batch>) {
        let until = self
            .timeout
            .map(|timeout| self.clock.now() + bounded(timeout));
        let mut deadline = pin!(passed(&*self.clock, until));
        let mut bytes = self.bytes.of_call();
        let read = tokio::select! {
            biased;
            read = self.read(&mut recv, &mut bytes) => read,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            () = &mut deadline => Err(late()),
        };
        // Where the peer has gone meanwhile, there is nobody to tell.
        let payload = match read {
            Ok(payload) => payload,
            Err(status) => {
                let _ = respond.send_response(trailers_only(&status), true);
                drop(bytes);
                return Rest::of(recv).read(&*self.clock, self.patience).await;
            }
        };
        let Ok(send) = respond.send_response(grpc_head(), false) else {
            return;
        };
        let running = Running::start(&self, payload, until);
        let mut rest = Rest::of(recv);
        let mut answers = Answers::new(send, self.entry.kind, &self.bytes);
        let answered = poll_fn(|cx| {
            let _ = rest.poll(cx);
            answers.poll(cx, &running.replies)
        });
        let end = tokio::select! {
            biased;
            end = answered => end,
            () = &mut deadline => End::Told(Err(late())),
        };
        let is_answered = matches!(end, End::Told(Ok(())));
        if let End::Told(result) = end {
            answers.end(result);
        }
        drop(answers);
        if !is_answered {
            running.lane.leave();
        }
        let ended = poll_fn(|cx| {
            let _ = rest.poll(cx);
            running.poll_ended(cx)
        });
        ended.await;
        drop((running, bytes));
        rest.read(&*self.clock, self.patience).await;
    }

    /// The one message of the call.
    async fn read(&self, recv: &mut RecvStream, bytes: &mut CallBytes) -> Result<Bytes, Status> {
        let limit = self.services.max_decoding;
        let mut decoder = Decoder::new(limit);
        loop {
            let until = self.clock.now() + self.patience;
            let chunk = tokio::select! {
                biased;
                chunk = recv.data() => chunk,
                () = self.clock.sleep_until(until) => {
                    let text = "the request stopped before it was whole";
                    return Err(Status::deadline_exceeded(text));
                }
            };
            let Some(chunk) = chunk else {
                let text = "the call ended without a request";
                return Err(Status::invalid_argument(text));
            };
            let chunk = chunk.map_err(|error| Status::cancelled(error.to_string()))?;
            if let Err(status) = bytes.add(chunk.len()) {
                self.services.lane.reached().add(Bound::OrdinaryCalls);
                return Err(status);
            }
            let len = chunk.len();
            decoder.push(chunk);
            // What is held is bounded, whatever may be sent anew.
            let _ = recv.flow_control().release_capacity(len);
            match decoder.next()? {
                None => {}
                Some(Frame::Message(payload)) => return Ok(payload),
                Some(Frame::Oversized { len, .. }) => {
                    self.services.lane.reached().add(Bound::RequestReceived);
                    return Err(Status::resource_exhausted(format!(
                        "the request has {len} bytes, and {limit} are the most \
                         (ServerBuilder::max_decoding_message_size)"
                    )));
                }
            }
        }
    }
}

/// Waits until the caller's deadline, where it has set one.
pub(super) async fn passed(clock: &dyn Clock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a call ends with whose time has passed.
pub(super) fn late() -> Status {
    Status::deadline_exceeded("the call's grpc-timeout has passed")
}

/// The chunk as what `h2` takes.
pub(super) fn batch_of(chunk: Bytes) -> Batch {
    let mut batch = BatchBuilder::default();
    batch.push_chunk(chunk);
    batch.finish(&BatchSlot::default())
}

/// A call whose request is at its lane.
struct Running {
    lane: Arc<Lane>,
    replies: Arc<ReplyQueue>,
}

impl Running {
    fn start(call: &GrpcCall, payload: Bytes, deadline: Option<Instant>) -> Self {
        let services = &call.services;
        // All calls of a connection together may have as much as a stream.
        let replies = Arc::new(ReplyQueue::new(
            (services.max_reply_bytes / H2Settings::STREAMS as usize).max(1),
        ));
        let metadata = call.info.metadata.clone();
        let (lane, task) = Lane::start(
            Arc::clone(&services.lane),
            Arc::clone(&call.info),
            Arc::clone(&replies),
            FEATURES,
        );
        tokio::spawn(task);
        lane.push(&mut vec![Request {
            id: ID,
            called: Called::Method(Arc::clone(&call.entry)),
            metadata,
            size: payload.len(),
            payload,
            deadline,
            is_resent: false,
            arrived: None,
        }]);
        lane.finish();
        Self { lane, replies }
    }

    /// Ready when its handler has ended.
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.replies.io().register(cx.waker());
        if self.lane.is_idle() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Running {
    /// Where the handler has not ended, the server was stopped.
    fn drop(&mut self) {
        self.lane.abandon();
    }
}

/// How a call ends.
enum End {
    /// The caller is told, behind the replies.
    Told(Result<(), Status>),
    /// The caller has given up, or its connection has ended.
    Gone,
}

/// What is written to the caller.
struct Answers {
    send: SendStream<Batch>,
    kind: MethodKind,
    /// Takes replies out of what the lane has queued.
    decoder: Decoder,
    queued: BatchBuilder,
    /// Frames that wait for room.
    frames: VecDeque<Bytes>,
    /// What comes behind those.
    end: Option<Result<(), Status>>,
    held: Held,
}

impl Answers {
    fn new(send: SendStream<Batch>, kind: MethodKind, bytes: &RequestBytes) -> Self {
        let mut answers = Self {
            send,
            kind,
            decoder: Decoder::new(u32::MAX as usize),
            queued: BatchBuilder::default(),
            frames: VecDeque::new(),
            end: None,
            held: Held::nothing(&bytes.answers),
        };
        if kind == MethodKind::OneWay {
            answers.put(Bytes::new());
            answers.end = Some(Ok(()));
        }
        answers
    }

    /// Writes what the lane has queued. Ready when all was written, or nobody reads it.
    fn poll(&mut self, cx: &mut Context<'_>, replies: &ReplyQueue) -> Poll<End> {
        let end = self.poll_queued(cx, replies);
        let frames: usize = self.frames.iter().map(Bytes::len).sum();
        self.held.set(frames + replies.bytes());
        end
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>, replies: &ReplyQueue) -> Poll<End> {
        if self.send.poll_reset(cx).is_ready() {
            return Poll::Ready(End::Gone);
        }
        replies.io().register(cx.waker());
        loop {
            if !ready!(self.poll_write(cx)) {
                return Poll::Ready(End::Gone);
            }
            if let Some(result) = self.end.take() {
                return Poll::Ready(End::Told(result));
            }
            match self.decoder.next() {
                Ok(Some(Frame::Message(frame))) => self.take(&frame),
                Ok(None) => {
                    replies.take(&mut self.queued, None);
                    if self.queued.is_empty() {
                        return Poll::Pending;
                    }
                    let mut queued = self.queued.finish(&BatchSlot::default());
                    let queued = queued.copy_to_bytes(queued.remaining());
                    self.decoder.push(queued);
                }
                // The queue has whole frames of this version.
                Ok(Some(Frame::Oversized { .. })) | Err(_) => {
                    self.end = Some(Err(Status::internal("an answer is no message")));
                }
            }
        }
    }

    /// Writes the frames, as far as flow control lets it. False where nobody reads them.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while let Some(frame) = self.frames.front_mut() {
            if !ready!(poll_send(&mut self.send, frame, batch_of, cx)) {
                return Poll::Ready(false);
            }
            self.frames.pop_front();
        }
        Poll::Ready(true)
    }

    /// Takes what a frame of the lane's queue says.
    fn take(&mut self, frame: &Bytes) {
        let envelope = match Envelope::decode_like(frame, "") {
            Ok(envelope) => envelope,
            Err(error) => {
                self.end = Some(Err(Status::internal(error)));
                return;
            }
        };
        match (envelope.control, envelope.status) {
            (Control::Message, None) => {
                self.put(frame.slice_ref(envelope.payload));
                if self.kind == MethodKind::TwoWay {
                    self.end = Some(Ok(()));
                }
            }
            (Control::Message | Control::End, Some(status)) => self.end = Some(Err(status)),
            (Control::End, None) => self.end = Some(Ok(())),
            // Said to peers that have a stream of Gorums.
            _ => {}
        }
    }

    /// Puts a message behind the others.
    fn put(&mut self, payload: Bytes) {
        let mut frame = BytesMut::with_capacity(PREFIX);
        frame.put_u8(0);
        // A reply is never larger than the envelope that it came in.
        frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        if payload.len() <= SMALL {
            frame.extend_from_slice(&payload);
            self.frames.push_back(frame.freeze());
        } else {
            self.frames.extend([frame.freeze(), payload]);
        }
    }

    fn end(&mut self, result: Result<(), Status>) {
        // Within a message there is no place for trailers.
        if !self.frames.is_empty() {
            self.send.send_reset(Reason::CANCEL);
            return;
        }
        let trailers = match &result {
            Ok(()) => trailers(Code::Ok, ""),
            Err(status) => trailers(status.code(), status.message()),
        };
        // Where the peer has gone meanwhile, there is nobody to tell.
        let _ = self.send.send_trailers(trailers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_service_and_a_method() {
        assert_eq!(
            GrpcCall::method("/storage.Storage/Read").as_deref(),
            Some("storage.Storage.Read")
        );
        for path in [
            "",
            "/",
            "/a",
            "/a/",
            "//b",
            "/a/b/c",
            "a/b",
            "/storage/Storage.Read",
        ] {
            assert_eq!(GrpcCall::method(path), None, "{path:?}");
        }
    }
}
