use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::context::ServerCtx;
use super::registry::Entry;
use super::reply_sender::{ReplySlot, Sink};
use crate::bounds::{Bound, Counts};
use crate::error::{Status, excerpt};
use crate::runtime::BoxFuture;

/// Surrounds the handlers of all methods: it sees every request before its handler does, and every
/// reply after.
///
/// Interceptors run within the turn of their request, the one that was added first outermost. They
/// may change the request or the reply, reject with a status, delay, release the turn, or answer
/// without the handler. Requests of unknown methods and requests that cannot be decoded pass
/// through them too. Every function from [`Incoming`] and [`Next`] to a future is one.
pub trait Interceptor: Send + Sync + 'static {
    /// Handles a request, usually by [`next.run(incoming)`](Next::run) and something around it.
    fn call(&self, incoming: Incoming, next: Next) -> BoxFuture<'static, Result<Reply, Status>>;
}

impl<F, Fut> Interceptor for F
where
    F: Fn(Incoming, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Status>> + Send + 'static,
{
    fn call(&self, incoming: Incoming, next: Next) -> BoxFuture<'static, Result<Reply, Status>> {
        Box::pin(self(incoming, next))
    }
}

/// An interceptor from a closure: helps the compiler to find the closure's types.
pub fn interceptor_fn<F, Fut>(f: F) -> F
where
    F: Fn(Incoming, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Status>> + Send + 'static,
{
    f
}

/// A request, not decoded yet.
pub struct Incoming {
    ctx: ServerCtx,
    payload: Bytes,
    /// Where a streamed method sends its replies.
    sink: Option<Arc<Sink>>,
    /// Where the reply of a method with one reply goes, if only the handler gets to see it.
    slot: Option<ReplySlot>,
}

impl Incoming {
    pub(crate) fn new(
        ctx: ServerCtx,
        payload: Bytes,
        sink: Option<Arc<Sink>>,
        slot: Option<ReplySlot>,
    ) -> Self {
        Self {
            ctx,
            payload,
            sink,
            slot,
        }
    }

    /// What the handler will know of the request; also the way to release the turn.
    #[must_use]
    pub fn ctx(&self) -> &ServerCtx {
        &self.ctx
    }

    /// The request as bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The request as a message.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::Code::InvalidArgument) with the reason, where the bytes are not
    /// such a message.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.payload.clone()).map_err(|error| undecodable(&self.ctx, &error))
    }

    /// The request as a message with its context. The rest is dropped.
    pub(crate) fn into_message<M: Message + Default>(self) -> Result<(ServerCtx, M), Status> {
        match M::decode(self.payload) {
            Ok(message) => Ok((self.ctx, message)),
            Err(error) => Err(undecodable(&self.ctx, &error)),
        }
    }

    /// Puts another request in its place.
    pub fn encode(&mut self, message: &impl Message) {
        self.payload = message.encode_to_vec().into();
    }

    /// Sets a value that the handler finds with [`ServerCtx::value`].
    pub fn set_value<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.ctx.set_value(value);
    }

    pub(crate) fn sink(&self) -> Option<Arc<Sink>> {
        self.sink.clone()
    }

    pub(crate) fn take_slot(&mut self) -> Option<ReplySlot> {
        self.slot.take()
    }
}

#[cold]
fn undecodable(ctx: &ServerCtx, error: &prost::DecodeError) -> Status {
    Status::invalid_argument(format!(
        "the request of {} cannot be decoded: {error}",
        excerpt(ctx.method())
    ))
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("ctx", &self.ctx)
            .field("payload", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A handler's reply, encoded; empty for one-way and streamed methods.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    payload: Bytes,
    /// It has been queued already.
    queued: bool,
}

impl Reply {
    /// A reply of this message.
    #[must_use]
    pub fn message(message: &impl Message) -> Self {
        Self {
            payload: message.encode_to_vec().into(),
            queued: false,
        }
    }

    /// A reply of this message, encoded straight into the slot if it can be.
    pub(crate) fn send(slot: Option<&ReplySlot>, message: &impl Message) -> Self {
        if slot.is_some_and(|slot| slot.send(message)) {
            Self {
                payload: Bytes::new(),
                queued: true,
            }
        } else {
            Self::message(message)
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.queued
    }

    /// The reply of a one-way or streamed method.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The reply as bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The reply as a message.
    ///
    /// # Errors
    /// [`Internal`](crate::Code::Internal) with the reason, where the bytes are not such a message.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.payload.clone())
            .map_err(|error| Status::internal(format!("the reply cannot be decoded: {error}")))
    }
}

/// What every request of a server passes on the way to its handler.
pub(crate) struct Passage {
    pub(crate) interceptors: Box<[Arc<dyn Interceptor>]>,
    /// The largest request of a service that does not say otherwise.
    pub(crate) max_decoding: usize,
    /// How often the bounds of the server were reached.
    pub(crate) reached: Arc<Counts>,
}

impl Passage {
    /// Whether nothing is between a request of so many bytes and its handler.
    pub(super) fn is_open(&self, entry: &Entry, bytes: usize) -> bool {
        self.interceptors.is_empty() && bytes <= entry.limit(self.max_decoding)
    }
}

/// The interceptors that come after this one, and the handler.
pub struct Next {
    passage: Arc<Passage>,
    position: usize,
    entry: Option<Arc<Entry>>,
}

impl Next {
    pub(super) fn new(passage: Arc<Passage>, entry: Option<Arc<Entry>>) -> Self {
        Self {
            passage,
            position: 0,
            entry,
        }
    }

    /// Handles the request.
    ///
    /// # Errors
    /// What the handler, or an interceptor on the way, answered; or there is no handler, or the
    /// request is too large or cannot be decoded.
    pub async fn run(self, incoming: Incoming) -> Result<Reply, Status> {
        self.start(incoming).await
    }

    pub(crate) fn start(mut self, incoming: Incoming) -> BoxFuture<'static, Result<Reply, Status>> {
        if let Some(interceptor) = self.passage.interceptors.get(self.position).cloned() {
            self.position += 1;
            return interceptor.call(incoming, self);
        }
        let refused = match &self.entry {
            None => Status::unimplemented(format!(
                "no handler registered for method {}",
                excerpt(incoming.ctx.method())
            )),
            Some(entry) => {
                let limit = entry.limit(self.passage.max_decoding);
                if incoming.payload.len() <= limit {
                    return entry.handler.start(incoming);
                }
                self.passage.reached.add(Bound::RequestReceived);
                Status::resource_exhausted(format!(
                    "a request of {} bytes exceeds the service's limit of {limit} \
                     (max_decoding_message_size)",
                    incoming.payload.len()
                ))
            }
        };
        Box::pin(std::future::ready(Err(refused)))
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field(
                "interceptors",
                &(self.passage.interceptors.len() - self.position),
            )
            .finish_non_exhaustive()
    }
}
