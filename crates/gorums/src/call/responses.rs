use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::Message;

use super::collect::{Collector, Step};
use super::state::Interest;
use crate::configuration::NodeId;
use crate::error::{NodeError, QuorumError};

/// What one node answered, or why it did not.
#[derive(Debug)]
pub struct NodeResponse<Resp> {
    /// The node.
    pub node: NodeId,
    /// Its reply, or what happened instead.
    pub result: Result<Resp, NodeError>,
}

/// Every reply and every failure of a call, in the order of arrival: a `Stream`, and
/// [`next`](Self::next) for loops.
///
/// It ends when nothing more can come: every node has answered (for a streamed call: ended its
/// stream) or failed. At the deadline the nodes that are still out come as failures. Dropping it
/// gives the rest up. Where a streamed call's replies are not taken, each node's oldest beyond 64
/// make room for its newest.
#[must_use = "dropping it gives the call up"]
pub struct Responses<Resp> {
    collector: Option<Collector<Resp>>,
    /// How many failures have been handed out.
    told: usize,
}

impl<Resp: Message + Default> Responses<Resp> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>) -> Self {
        Self {
            // A call that only listens is never impossible.
            collector: collector.ok(),
            told: 0,
        }
    }

    /// The next reply or failure; none when nothing more can come. The future may be dropped
    /// without losing a reply.
    pub async fn next(&mut self) -> Option<NodeResponse<Resp>> {
        poll_fn(|cx| self.poll_response(cx)).await
    }

    /// The number of nodes that have neither answered nor failed, for a streamed call: that have not
    /// ended.
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
            let step = ready!(collector.poll_step(cx, |_| Interest::ALL));
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

impl<Resp: Message + Default> Stream for Responses<Resp> {
    type Item = NodeResponse<Resp>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_response(cx)
    }
}

impl<Resp> Unpin for Responses<Resp> {}

impl<Resp> fmt::Debug for Responses<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").finish_non_exhaustive()
    }
}
