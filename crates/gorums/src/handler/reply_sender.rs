use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;

use super::context::ServerCtx;
use super::credit::Credit;
use super::interceptor::Reply;
use super::reply_queue::{Answer, ReplyQueue};
use crate::error::Status;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::wire::reply_cost;

/// Sends the replies of a streamed method. Of no use once its handler has returned.
pub struct ReplySender<Resp> {
    sink: Arc<Sink>,
    response: PhantomData<fn(Resp)>,
}

/// Where one request's replies go.
pub(crate) struct Sink {
    pub(crate) id: u64,
    pub(crate) ctx: ServerCtx,
    pub(crate) replies: Arc<ReplyQueue>,
    pub(crate) max_encoding: usize,
    /// How much more the caller takes; none where the peer does not know how to say that.
    pub(crate) credit: Option<Arc<Credit>>,
    /// The handler has returned.
    pub(crate) ended: AtomicBool,
}

impl Sink {
    /// The handler has returned. What others still send of its replies is of no use.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        if let Some(credit) = &self.credit {
            credit.wake();
        }
    }

    /// Whether nobody will read a reply.
    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.ctx.is_cancelled()
    }
}

/// Where the one reply of a request goes that nobody else gets to see.
pub(crate) struct ReplySlot {
    pub(crate) ctx: ServerCtx,
    pub(crate) id: u64,
    pub(crate) max_encoding: usize,
}

impl ReplySlot {
    /// Encodes a reply straight into the queue. False where it does not belong there, or does not
    /// fit now.
    pub(crate) fn send(&self, reply: &impl Message) -> bool {
        let Some(replies) = self.ctx.replies() else {
            return false;
        };
        replies.try_encode(self.id, self.ctx.method(), reply, self.max_encoding)
    }
}

impl<Resp: Message> ReplySender<Resp> {
    pub(crate) fn new(sink: Arc<Sink>) -> Self {
        Self {
            sink,
            response: PhantomData,
        }
    }

    /// Queues a reply, and waits until there is room for it: while the caller is behind with those
    /// before, and while the connection's queue of replies is full. The future may be dropped; then
    /// the reply is not sent.
    ///
    /// The caller of [`responses`](crate::call::QuorumCall::responses) is behind where it has not
    /// taken as much as it [lets wait](crate::call::QuorumCall::unread_replies). **A handler that
    /// has to wait for its caller gives up its turn**, as by [`release`](ServerCtx::release): the
    /// client's other requests start meanwhile, and what the handler does from there on is beside
    /// theirs. What has to happen in the order of the requests belongs before the first reply.
    /// Waiting for room in the queue does not give up the turn, unless that is the one of the
    /// [whole server](crate::server::HandlerOrder::PerServer). A client of another kind does not
    /// say how much it takes; its handlers wait for room only.
    ///
    /// # Errors
    /// Nobody will read it: the connection has ended, the caller gave up, or the handler has
    /// returned.
    pub async fn send(&self, reply: Resp) -> Result<(), Gone> {
        let sink = &*self.sink;
        if sink.is_over() {
            return Err(Gone);
        }
        let reply = Reply::message(&reply);
        let payload = reply.payload();
        let taken = match &sink.credit {
            None => None,
            Some(credit) => {
                let cost = reply_cost(payload.len());
                let taken = match credit.ask(cost, &sink.ctx) {
                    Some(taken) => Some(taken),
                    None => credit.take(cost, &sink.ctx, || sink.is_over()).await,
                };
                Some(taken.ok_or(Gone)?)
            }
        };
        let (method, answer) = (sink.ctx.method(), Answer::Reply(payload));
        let (id, limit) = (sink.id, sink.max_encoding);
        let queued = match sink.replies.try_push(id, method, &answer, limit) {
            Some(queued) => queued,
            None => {
                // One reader would stop the server for all.
                if sink.ctx.turn().is_of_server() {
                    sink.ctx.turn().release();
                }
                sink.replies.push(id, method, &answer, limit).await
            }
        };
        if !queued {
            return Err(Gone);
        }
        if let Some(taken) = taken {
            taken.spend();
        }
        sink.replies.wake_io();
        // A worker runs the task that it woke last, here the one that writes, when the task that
        // woke it suspends, and no other worker may take it: a handler that goes on to block its
        // thread would hold its own reply back.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Queues a reply if there is room. Keeps the turn.
    ///
    /// # Errors
    /// The caller is behind, or the queue is full, and the reply comes back; or nobody will read
    /// it.
    pub fn try_send(&self, reply: Resp) -> Result<(), TrySendError<Resp>> {
        let sink = &*self.sink;
        if sink.is_over() {
            return Err(TrySendError::Gone);
        }
        let encoded = Reply::message(&reply);
        let payload = encoded.payload();
        let taken = match &sink.credit {
            None => None,
            Some(credit) => match credit.ask(reply_cost(payload.len()), &sink.ctx) {
                None => return Err(TrySendError::Full(reply)),
                taken => taken,
            },
        };
        let (method, answer) = (sink.ctx.method(), Answer::Reply(payload));
        let queued = sink
            .replies
            .try_push(sink.id, method, &answer, sink.max_encoding);
        match queued {
            Some(true) => {
                if let Some(taken) = taken {
                    taken.spend();
                }
                sink.replies.wake_io();
                Ok(())
            }
            Some(false) => Err(TrySendError::Gone),
            None => Err(TrySendError::Full(reply)),
        }
    }
}

impl<Resp> Clone for ReplySender<Resp> {
    fn clone(&self) -> Self {
        Self {
            sink: Arc::clone(&self.sink),
            response: PhantomData,
        }
    }
}

impl<Resp> fmt::Debug for ReplySender<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplySender")
            .field("method", &self.sink.ctx.method())
            .finish_non_exhaustive()
    }
}

/// Nobody will read the reply: the connection has ended, the caller gave up, or the handler has
/// returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "nobody will read the reply: the connection has ended, the caller gave up, or the handler \
             has returned",
        )
    }
}

impl Error for Gone {}

/// So that `replies.send(…).await?` works in a handler.
impl From<Gone> for Status {
    fn from(gone: Gone) -> Self {
        Status::cancelled(gone.to_string())
    }
}

/// A reply that was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<Resp> {
    /// There is no room now. The reply comes back.
    Full(Resp),
    /// Nobody will read it.
    Gone,
}

impl<Resp> fmt::Display for TrySendError<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str(
                "the caller is behind with the replies before, or the connection's queue of replies is \
                 full",
            ),
            Self::Gone => Gone.fmt(f),
        }
    }
}

impl<Resp: fmt::Debug> Error for TrySendError<Resp> {}
