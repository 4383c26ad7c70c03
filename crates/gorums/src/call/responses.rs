use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message;

use super::collect::{Collector, Step};
use crate::channel::WakeAfter;
use crate::error::{NodeError, QuorumError};
use crate::node_id::NodeId;

/// What one node answered, or why it did not.
#[derive(Debug, Clone)]
pub struct NodeResponse<Resp> {
    node: NodeId,
    result: Result<Resp, NodeError>,
}

impl<Resp> NodeResponse<Resp> {
    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its reply, or what happened instead.
    pub fn result(&self) -> Result<&Resp, &NodeError> {
        self.result.as_ref()
    }

    /// Its reply, or what happened instead, by value.
    pub fn into_result(self) -> Result<Resp, NodeError> {
        self.result
    }
}

/// Every reply and every failure of a call, in the order of arrival: a `Stream`, and
/// [`next`](Self::next) for loops.
///
/// It ends when nothing more can come: every node has answered (for a streamed call: ended its
/// stream) or failed. At the deadline the nodes that are still out come as failures. Dropping it
/// gives the rest up.
///
/// Of a streamed call every reply comes, and those of a node in the order in which it sent them. A
/// node whose replies are not taken is held back, within
/// [`unread_replies`](crate::call::QuorumCall::unread_replies); neither its connection nor any other
/// call waits for that. One that cannot be held back, since it does not know how, fails openly.
///
/// [`successes`](Self::successes), [`filter`](Self::filter) and [`take`](Self::take) narrow it
/// down, in any order; [`by_node`](Self::by_node) collects. All of them are streams, so the methods
/// of `futures::StreamExt` and `tokio_stream::StreamExt` work too.
///
/// ```no_run
/// # async fn f(call: gorums::call::QuorumCall<String, String>) {
/// // The first two nodes that answered with something, by node. The others are given up.
/// let answers = call
///     .responses()
///     .successes()
///     .filter(|(_, answer)| !answer.is_empty())
///     .take(2)
///     .by_node()
///     .await;
/// # }
/// ```
#[must_use = "dropping it gives the call up"]
pub struct Responses<Resp> {
    collector: Option<Collector<Resp>>,
    /// How many failures have been handed out.
    told: usize,
}

/// The successes of a [`Responses`], with their nodes.
#[must_use = "dropping it gives the call up"]
pub struct Successes<Resp>(Responses<Resp>);

/// The items that a function accepts.
#[must_use = "dropping it gives the call up"]
pub struct Filter<S, F> {
    source: S,
    keep: F,
}

/// The first `n` items. The rest is given up at once.
#[must_use = "dropping it gives the call up"]
#[derive(Debug)]
pub struct Take<S> {
    source: Option<S>,
    left: usize,
}

/// An item of [`Responses`], or of a stream made of one: a node, and what it answered. It is named
/// in bounds, and is no part of the public API: nobody else implements it.
pub trait OfNode {
    /// The reply, or the reply or failure.
    type Value;

    /// The node and the value.
    fn into_pair(self) -> (NodeId, Self::Value);
}

impl<Resp> OfNode for NodeResponse<Resp> {
    type Value = Result<Resp, NodeError>;

    fn into_pair(self) -> (NodeId, Self::Value) {
        (self.node, self.result)
    }
}

impl<Resp> OfNode for (NodeId, Resp) {
    type Value = Resp;

    fn into_pair(self) -> Self {
        self
    }
}

/// The methods of all these streams. As an extension trait they would clash with `StreamExt`.
macro_rules! adaptors {
    ($item:ty) => {
        /// The next item; none when nothing more can come. The future may be dropped without losing
        /// a reply.
        pub async fn next(&mut self) -> Option<$item> {
            poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
        }

        /// The items that the function accepts.
        pub fn filter<P: FnMut(&$item) -> bool>(self, keep: P) -> Filter<Self, P> {
            Filter { source: self, keep }
        }

        /// The first `n` items. When they have been handed out the rest is given up: what is not
        /// written is withdrawn, and replies are ignored.
        pub fn take(self, n: usize) -> Take<Self> {
            Take {
                source: (n > 0).then_some(self),
                left: n,
            }
        }

        /// Waits for all items and collects them by node. Of several of a node the last one stays.
        pub async fn by_node(mut self) -> BTreeMap<NodeId, <$item as OfNode>::Value> {
            let mut all = BTreeMap::new();
            while let Some(item) = self.next().await {
                let (node, value) = item.into_pair();
                all.insert(node, value);
            }
            all
        }
    };
}

impl<Resp: Message + Default> Responses<Resp> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>) -> Self {
        Self {
            // A call that only listens is never impossible.
            collector: collector.ok(),
            told: 0,
        }
    }

    adaptors!(NodeResponse<Resp>);

    /// The replies alone, with their nodes. It ends when nothing more can come.
    pub fn successes(self) -> Successes<Resp> {
        Successes(self)
    }

    /// The number of nodes that have neither answered nor failed; in a streamed call, of those that
    /// have not ended. Nodes that a [thrifty](crate::call::Thrifty) call has not asked are among them.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.collector.as_ref().map_or(0, |collector| {
            let unary = !collector.is_streamed();
            (0..collector.configuration().len())
                .filter(|part| {
                    !(collector.out().contains(*part)
                        || unary && collector.answered().contains(*part))
                })
                .count()
        })
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeResponse<Resp>>> {
        let Some(collector) = &mut self.collector else {
            return Poll::Ready(None);
        };
        loop {
            let step = match collector.poll_step(cx, WakeAfter::ANY) {
                Poll::Ready(step) => step,
                // Whoever takes the replies says when there are enough.
                Poll::Pending if collector.may_widen() && collector.poll_widen(cx, &|_| false) => {
                    continue;
                }
                Poll::Pending => return Poll::Pending,
            };
            if let Step::Reply(part, payload) = &step
                && let Some(reply) = collector.take(*part, payload)
            {
                return Poll::Ready(Some(NodeResponse {
                    node: collector.configuration()[*part].id(),
                    result: Ok(reply),
                }));
            }
            if let Some(error) = collector.failures().get(self.told) {
                self.told += 1;
                return Poll::Ready(Some(NodeResponse {
                    node: error.node(),
                    result: Err(error.clone()),
                }));
            }
            if let Step::End = step {
                collector.complete();
                self.collector = None;
                return Poll::Ready(None);
            }
        }
    }
}

impl<Resp: Message + Default> Successes<Resp> {
    adaptors!((NodeId, Resp));
}

impl<S: Stream<Item: OfNode> + Unpin, F: FnMut(&S::Item) -> bool> Filter<S, F> {
    adaptors!(S::Item);
}

impl<S: Stream<Item: OfNode> + Unpin> Take<S> {
    adaptors!(S::Item);
}

impl<Resp: Message + Default> Stream for Responses<Resp> {
    type Item = NodeResponse<Resp>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_response(cx)
    }
}

impl<Resp: Message + Default> Stream for Successes<Resp> {
    type Item = (NodeId, Resp);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(response) = ready!(self.0.poll_response(cx)) {
            if let Ok(reply) = response.result {
                return Poll::Ready(Some((response.node, reply)));
            }
        }
        Poll::Ready(None)
    }
}

impl<S: Stream + Unpin, F: FnMut(&S::Item) -> bool> Stream for Filter<S, F> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(item) = ready!(Pin::new(&mut self.source).poll_next(cx)) {
            if (self.keep)(&item) {
                return Poll::Ready(Some(item));
            }
        }
        Poll::Ready(None)
    }
}

impl<S: Stream + Unpin> Stream for Take<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let item = ready!(Pin::new(source).poll_next(cx));
        self.left -= 1;
        if self.left == 0 || item.is_none() {
            self.source = None;
        }
        Poll::Ready(item)
    }
}

// The function is never pinned, and the source is `Unpin`.
impl<S: Unpin, F> Unpin for Filter<S, F> {}

impl<Resp> fmt::Debug for Responses<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").finish_non_exhaustive()
    }
}

impl<Resp> fmt::Debug for Successes<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successes").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Filter<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
