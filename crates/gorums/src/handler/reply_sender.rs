use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;

use super::context::ServerCtx;
use super::interceptor::Reply;
use super::reply_queue::{Answer, ReplyQueue};
use crate::error::Status;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Sends the replies of a streamed method. Of no use once its handler has returned.
pub struct ReplySender<Resp> {
    sink: Arc<Sink>,
    response: PhantomData<fn(Resp)>,
}

/// Where one request's replies go.
pub(crate) struct Sink {
    pub(crate) id: u64,
    pub(crate) method: Arc<str>,
    pub(crate) replies: Arc<ReplyQueue>,
    pub(crate) max_encoding: usize,
    /// The handler has returned.
    pub(crate) ended: AtomicBool,
}

/// Where the one reply of a request goes that nobody else gets to see.
pub(crate) struct ReplySlot {
    pub(crate) ctx: ServerCtx,
    pub(crate) replies: Arc<ReplyQueue>,
    pub(crate) id: u64,
    pub(crate) max_encoding: usize,
}

impl ReplySlot {
    /// Encodes a reply straight into the queue. False where it does not belong there, or does not
    /// fit now.
    pub(crate) fn send(&self, reply: &impl Message) -> bool {
        let method = self.ctx.method();
        self.replies
            .try_encode(self.id, method, reply, self.max_encoding)
    }
}

impl<Resp: Message> ReplySender<Resp> {
    pub(crate) fn new(sink: Arc<Sink>) -> Self {
        Self {
            sink,
            response: PhantomData,
        }
    }

    /// Queues a reply; waits while the connection's queue of replies is full.
    ///
    /// # Errors
    /// The connection has ended, or the handler has returned: nobody will read it.
    pub async fn send(&self, reply: Resp) -> Result<(), Gone> {
        if self.sink.ended.load(Ordering::Acquire) {
            return Err(Gone);
        }
        let reply = Reply::message(&reply);
        let Sink {
            id,
            method,
            replies,
            max_encoding,
            ..
        } = &*self.sink;
        if !replies
            .push(*id, method, &Answer::Reply(reply.payload()), *max_encoding)
            .await
        {
            return Err(Gone);
        }
        replies.wake_io();
        // A worker runs the task that it woke last, here the one that writes, when the task that
        // woke it suspends, and no other worker may take it: a handler that goes on to block its
        // thread would hold its own reply back.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Queues a reply if there is room.
    ///
    /// # Errors
    /// The queue is full, and the reply comes back; or nobody will read it.
    pub fn try_send(&self, reply: Resp) -> Result<(), TrySendError<Resp>> {
        if self.sink.ended.load(Ordering::Acquire) {
            return Err(TrySendError::Gone);
        }
        let encoded = Reply::message(&reply);
        let Sink {
            id,
            method,
            replies,
            max_encoding,
            ..
        } = &*self.sink;
        match replies.try_push(
            *id,
            method,
            &Answer::Reply(encoded.payload()),
            *max_encoding,
        ) {
            Some(true) => {
                replies.wake_io();
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
            .field("method", &self.sink.method)
            .finish_non_exhaustive()
    }
}

/// Nobody will read the reply: the connection has ended, or the handler has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "nobody will read the reply: the connection has ended or the handler has returned",
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
            Self::Full(_) => f.write_str("the connection's queue of replies is full"),
            Self::Gone => Gone.fmt(f),
        }
    }
}

impl<Resp: fmt::Debug> Error for TrySendError<Resp> {}
