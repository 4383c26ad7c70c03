//! The futures of handlers, and the blocks of the heap that they are in.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::sync::ReusableBoxFuture;

use super::interceptor::{Incoming, Reply};
use crate::error::Status;
use crate::runtime::BoxFuture;

/// What a method does with a request.
pub(crate) trait Handler: Send + Sync {
    /// Starts it, in a block of its own.
    fn start(&self, incoming: Incoming) -> BoxFuture<'static, Result<Reply, Status>>;

    /// Starts it, in the block of one that has ended where there is one that fits.
    fn start_in(&self, incoming: Incoming, spare: Option<Block>) -> HandlerFuture;
}

impl<F, Fut> Handler for F
where
    F: Fn(Incoming) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Reply, Status>> + Send + 'static,
{
    fn start(&self, incoming: Incoming) -> BoxFuture<'static, Result<Reply, Status>> {
        Box::pin(self(incoming))
    }

    fn start_in(&self, incoming: Incoming, spare: Option<Block>) -> HandlerFuture {
        let future = self(incoming);
        if size_of::<Fut>() > LARGEST_BLOCK {
            return HandlerFuture::Once(Box::pin(future));
        }
        HandlerFuture::Again(match spare {
            None => Block::new(future),
            Some(mut block) => {
                block.set(future);
                block
            }
        })
    }
}

/// A handler that was started.
pub(crate) enum HandlerFuture {
    /// Its block is for the next handler when it has ended.
    Again(Block),
    /// Its block is freed with it.
    Once(BoxFuture<'static, Result<Reply, Status>>),
}

/// A block of the heap for the futures of handlers, one after the other. Those of one method are as
/// large as each other, so a connection that calls the same method needs none for each request.
pub(crate) type Block = ReusableBoxFuture<'static, Result<Reply, Status>>;

/// The largest block that is kept for the next handler, one at each connection.
const LARGEST_BLOCK: usize = 4096;

impl HandlerFuture {
    /// The block of a handler that has ended, which has dropped all that was in it.
    #[inline]
    pub(super) fn into_block(self) -> Option<Block> {
        match self {
            Self::Again(block) => Some(block),
            Self::Once(_) => None,
        }
    }
}

impl Future for HandlerFuture {
    type Output = Result<Reply, Status>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Again(block) => block.poll(cx),
            Self::Once(future) => future.as_mut().poll(cx),
        }
    }
}
