use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::Message;

use super::collect::{Collector, Step};
use super::replies::Replies;
use crate::channel::WakeAfter;
use crate::error::{QuorumError, QuorumErrorKind};

/// A call whose replies are judged by a function, when that accepts them.
#[must_use = "dropping it gives the call up"]
pub struct QuorumFn<Req, Resp, F> {
    collector: Result<Collector<Resp>, Option<QuorumError>>,
    replies: Option<Replies<Resp>>,
    request: Req,
    f: F,
}

impl<Req, Resp: Message + Default, F> QuorumFn<Req, Resp, F> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>, request: Req, f: F) -> Self {
        let replies = collector
            .as_ref()
            .ok()
            .map(|collector| Replies::new(collector.configuration().clone()));
        Self {
            collector: collector.map_err(Some),
            replies,
            request,
            f,
        }
    }
}

impl<T, Req, Resp, F> Future for QuorumFn<Req, Resp, F>
where
    Resp: Message + Default,
    F: FnMut(&Req, &mut Replies<Resp>) -> Option<T>,
{
    type Output = Result<T, QuorumError>;

    /// # Panics
    /// When polled again after it was ready with an error.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            collector,
            replies,
            request,
            f,
        } = &mut *self;
        let (collector, replies) = match (collector, replies) {
            (Ok(collector), Some(replies)) => (collector, replies),
            (Err(error), _) => {
                let error = error
                    .take()
                    .expect("a future is not polled after it was ready");
                return Poll::Ready(Err(error));
            }
            (Ok(_), None) => unreachable!("a call that was made has replies"),
        };
        loop {
            match ready!(collector.poll_step(cx, |_| WakeAfter::ANY)) {
                Step::Reply(part, payload) => {
                    if let Some(reply) = collector.take(part, &payload) {
                        replies.insert(part, reply);
                        if let Some(result) = f(request, replies) {
                            collector.complete();
                            return Poll::Ready(Ok(result));
                        }
                    }
                }
                Step::Out => {}
                Step::End => {
                    return Poll::Ready(Err(collector.error(QuorumErrorKind::NoQuorum)));
                }
            }
        }
    }
}

/// A call whose replies are judged by the quorum function that was set before
/// ([`QuorumCall::judge`](crate::QuorumCall::judge)), when that accepts them.
pub type Decision<Req, Resp> =
    QuorumFn<Req, Resp, Box<dyn FnMut(&Req, &mut Replies<Resp>) -> Option<Resp> + Send + Sync>>;

/// A call that waits for equal replies, when there are enough.
#[must_use = "dropping it gives the call up"]
pub struct Matching<Resp, K, F> {
    collector: Result<Collector<Resp>, Option<QuorumError>>,
    needed: usize,
    key: F,
    /// The keys so far, with their first reply and the number of nodes that gave it.
    groups: Vec<(K, Resp, usize)>,
}

impl<Resp, K, F> Matching<Resp, K, F> {
    pub(crate) fn new(
        collector: Result<Collector<Resp>, QuorumError>,
        needed: usize,
        key: F,
    ) -> Self {
        Self {
            collector: collector.map_err(Some),
            needed,
            key,
            groups: Vec::new(),
        }
    }
}

impl<Resp, K, F> Future for Matching<Resp, K, F>
where
    Resp: Message + Default,
    K: Eq,
    F: FnMut(&Resp) -> K,
{
    type Output = Result<Resp, QuorumError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            collector,
            needed,
            key,
            groups,
        } = &mut *self;
        let collector = match collector {
            Ok(collector) => collector,
            Err(error) => {
                let error = error
                    .take()
                    .expect("a future is not polled after it was ready");
                return Poll::Ready(Err(error));
            }
        };
        loop {
            match ready!(collector.poll_step(cx, |_| WakeAfter::ANY)) {
                // A node's later replies to a streamed call have no second vote.
                Step::Reply(part, payload) if !collector.answered().contains(part) => {
                    if let Some(reply) = collector.take(part, &payload) {
                        let key = key(&reply);
                        let group = match groups.iter().position(|(k, ..)| *k == key) {
                            Some(group) => group,
                            None => {
                                groups.push((key, reply, 0));
                                groups.len() - 1
                            }
                        };
                        groups[group].2 += 1;
                        if groups[group].2 >= *needed {
                            collector.complete();
                            return Poll::Ready(Ok(groups.swap_remove(group).1));
                        }
                    }
                }
                Step::Reply(..) | Step::Out => {}
                Step::End => {
                    return Poll::Ready(Err(collector.error(QuorumErrorKind::NoQuorum)));
                }
            }
            let most = groups.iter().map(|(_, _, count)| *count).max().unwrap_or(0);
            let settled = (0..collector.configuration().len())
                .filter(|part| {
                    collector.out().contains(*part) || collector.answered().contains(*part)
                })
                .count();
            if most + collector.configuration().len() - settled < *needed {
                let kind = if collector.failures().is_empty() {
                    QuorumErrorKind::NoQuorum
                } else {
                    QuorumErrorKind::Incomplete
                };
                return Poll::Ready(Err(collector.error(kind)));
            }
        }
    }
}

impl<Req, Resp, F> Unpin for QuorumFn<Req, Resp, F> {}
impl<Resp, K, F> Unpin for Matching<Resp, K, F> {}

impl<Req: fmt::Debug, Resp, F> fmt::Debug for QuorumFn<Req, Resp, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumFn")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl<Resp, K, F> fmt::Debug for Matching<Resp, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matching")
            .field("needed", &self.needed)
            .finish_non_exhaustive()
    }
}
