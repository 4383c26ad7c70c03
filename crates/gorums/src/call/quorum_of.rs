use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use prost::Message;

use super::collect::{Collector, Step};
use super::replies::Replies;
use crate::error::{QuorumError, QuorumErrorKind};
use crate::quorum::{QuorumSystem, Threshold};

/// A quorum call that was queued. Awaited, it is the *first* reply of the quorum.
///
/// Only that reply is decoded. When the quorum is there, the other nodes' requests are still sent
/// and their replies ignored; a call that is dropped before withdraws what is not written, and tells
/// nodes that understand it that nobody waits.
#[must_use = "dropping it gives the call up"]
pub struct Quorum<Resp, Q = Threshold> {
    gather: Gather<Resp, Q>,
    first: Option<Resp>,
}

/// Waits for a quorum.
struct Gather<Resp, Q> {
    /// Why the call was not made, until that is told.
    collector: Result<Collector<Resp>, Option<QuorumError>>,
    system: Q,
}

impl<Resp: Message + Default, Q: QuorumSystem> Quorum<Resp, Q> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>, system: Q) -> Self {
        Self {
            gather: Gather {
                collector: collector.map_err(Some),
                system,
            },
            first: None,
        }
    }

    /// All replies of the quorum, in place of the first.
    pub fn replies(self) -> QuorumReplies<Resp, Q> {
        let replies = self
            .gather
            .collector
            .as_ref()
            .ok()
            .map(|collector| Replies::new(collector.configuration().clone()));
        QuorumReplies {
            gather: self.gather,
            replies,
        }
    }

    /// The reply with the greatest key among those of the quorum, in place of the first; of several
    /// the one that came first.
    pub fn max_by_key<K: Ord, F: FnMut(&Resp) -> K>(self, key: F) -> MaxByKey<Resp, Q, F> {
        MaxByKey {
            gather: self.gather,
            key,
            best: None,
        }
    }
}

impl<Resp: Message + Default, Q: QuorumSystem> Gather<Resp, Q> {
    /// Ready when the quorum is there or out of reach. Replies go to `take`.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Collector<Resp>, usize, Bytes),
    ) -> Poll<Result<(), QuorumError>> {
        let collector = match &mut self.collector {
            Ok(collector) => collector,
            Err(error) => {
                let error = error
                    .take()
                    .expect("a future is not polled after it was ready");
                return Poll::Ready(Err(error));
            }
        };
        loop {
            match ready!(collector.poll_step(cx, Collector::interest)) {
                Step::Reply(part, payload) => {
                    take(collector, part, payload);
                    if collector.is_quorum(&self.system) {
                        collector.complete();
                        return Poll::Ready(Ok(()));
                    }
                    // A reply that could not be used is a failure.
                    if collector.answered().contains(part) {
                        continue;
                    }
                }
                Step::Out => {}
                Step::End => {
                    return Poll::Ready(Err(collector.error(QuorumErrorKind::Incomplete)));
                }
            }
            if !collector.is_possible(&self.system) {
                return Poll::Ready(Err(collector.error(QuorumErrorKind::Incomplete)));
            }
        }
    }
}

impl<Resp: Message + Default, Q: QuorumSystem> Future for Quorum<Resp, Q> {
    type Output = Result<Resp, QuorumError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { gather, first } = &mut *self;
        ready!(gather.poll(cx, |collector, part, payload| {
            if first.is_none() {
                *first = collector.take(part, &payload);
            } else {
                collector.count(part, &payload);
            }
        }))?;
        let first = first.take().expect("a quorum is not empty");
        Poll::Ready(Ok(first))
    }
}

/// All replies of a quorum, when it is there.
#[must_use = "dropping it gives the call up"]
pub struct QuorumReplies<Resp, Q = Threshold> {
    gather: Gather<Resp, Q>,
    replies: Option<Replies<Resp>>,
}

impl<Resp: Message + Default, Q: QuorumSystem> Future for QuorumReplies<Resp, Q> {
    type Output = Result<Replies<Resp>, QuorumError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { gather, replies } = &mut *self;
        ready!(gather.poll(cx, |collector, part, payload| {
            if let (Some(reply), Some(replies)) = (collector.take(part, &payload), replies.as_mut())
            {
                replies.insert(part, reply);
            }
        }))?;
        let replies = replies
            .take()
            .expect("a quorum that was called has replies");
        Poll::Ready(Ok(replies))
    }
}

/// The greatest reply of a quorum, when it is there.
#[must_use = "dropping it gives the call up"]
pub struct MaxByKey<Resp, Q, F> {
    gather: Gather<Resp, Q>,
    key: F,
    best: Option<Resp>,
}

impl<Resp, K, Q, F> Future for MaxByKey<Resp, Q, F>
where
    Resp: Message + Default,
    K: Ord,
    Q: QuorumSystem,
    F: FnMut(&Resp) -> K,
{
    type Output = Result<Resp, QuorumError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { gather, key, best } = &mut *self;
        ready!(gather.poll(cx, |collector, part, payload| {
            if let Some(reply) = collector.take(part, &payload)
                && best.as_ref().is_none_or(|best| key(&reply) > key(best))
            {
                *best = Some(reply);
            }
        }))?;
        let best = best.take().expect("a quorum is not empty");
        Poll::Ready(Ok(best))
    }
}

// Nothing is pinned inside: the futures can be moved while they are polled.
impl<Resp, Q> Unpin for Quorum<Resp, Q> {}
impl<Resp, Q> Unpin for QuorumReplies<Resp, Q> {}
impl<Resp, Q, F> Unpin for MaxByKey<Resp, Q, F> {}

macro_rules! opaque_debug {
    ($($name:ident<$($parameter:ident),*>),*) => {
        $(impl<$($parameter),*> fmt::Debug for $name<$($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })*
    };
}

opaque_debug!(Quorum<Resp, Q>, QuorumReplies<Resp, Q>, MaxByKey<Resp, Q, F>);
