use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;

use super::collect::Collector;
use super::explain::explain_as_is;
use super::replies::Replies;
use super::rule::{Awaiting, Reply, Rule, Verdict};
use crate::error::{QuorumError, QuorumErrorKind};

/// A call that waits until a quorum function accepts its replies. The function is the caller's
/// ([`QuorumCall::quorum_fn`](crate::call::QuorumCall::quorum_fn)), or was set before
/// ([`QuorumCall::with_quorum_fn`](crate::call::QuorumCall::with_quorum_fn)).
#[must_use = "dropping it gives the call up"]
pub struct QuorumFn<
    Req,
    Resp,
    F = Box<dyn FnMut(&Req, &mut Replies<Resp>) -> Option<Resp> + Send + Sync>,
>(Awaiting<Resp, Accepted<Req, Resp, F>>);

/// Waits until a function accepts the replies.
struct Accepted<Req, Resp, F> {
    request: Req,
    replies: Replies<Resp>,
    f: F,
}

impl<Req, Resp, F> QuorumFn<Req, Resp, F> {
    pub(crate) fn new(
        collector: Result<Collector<Resp>, QuorumError>,
        request: Req,
        replies: Replies<Resp>,
        f: F,
    ) -> Self {
        let rule = Accepted {
            request,
            replies,
            f,
        };
        Self(Awaiting::new(collector, rule))
    }
}

impl<T, Req, Resp, F> Rule<Resp> for Accepted<Req, Resp, F>
where
    Resp: Message + Default,
    F: FnMut(&Req, &mut Replies<Resp>) -> Option<T>,
{
    type Output = T;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::NoQuorum;

    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<T> {
        let value = reply.take()?;
        self.replies.insert(reply.part, value);
        (self.f)(&self.request, &mut self.replies).map(Ok)
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
        self.0.poll(cx)
    }
}

/// A call that waits for equal replies, when there are enough.
#[must_use = "dropping it gives the call up"]
pub struct Matching<Resp, K, F>(Awaiting<Resp, Equal<Resp, K, F>>);

/// Waits until enough replies have the same key.
struct Equal<Resp, K, F> {
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
        let rule = Equal {
            needed,
            key,
            groups: Vec::new(),
        };
        Self(Awaiting::new(collector, rule))
    }
}

impl<Resp, K, F> Rule<Resp> for Equal<Resp, K, F>
where
    Resp: Message + Default,
    K: Eq,
    F: FnMut(&Resp) -> K,
{
    type Output = Resp;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::NoQuorum;

    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<Resp> {
        // A node's later replies to a streamed call have no second vote.
        if reply.collector.answered().contains(reply.part) {
            return None;
        }
        let value = reply.take()?;
        let Self {
            needed,
            key,
            groups,
        } = self;
        let key = key(&value);
        let group = match groups.iter().position(|(k, ..)| *k == key) {
            Some(group) => group,
            None => {
                groups.push((key, value, 0));
                groups.len() - 1
            }
        };
        groups[group].2 += 1;
        if groups[group].2 >= *needed {
            return Some(Ok(groups.swap_remove(group).1));
        }
        // A reply that differs from the others can put the number out of reach.
        self.hopeless(reply.collector).map(Err)
    }

    fn hopeless(&self, collector: &Collector<Resp>) -> Option<QuorumErrorKind> {
        let most = self.groups.iter().map(|(_, _, count)| *count).max();
        let total = collector.configuration().len();
        let (out, answered) = (collector.out(), collector.answered());
        let open = (0..total).filter(|part| !out.contains(*part) && !answered.contains(*part));
        let most = most.unwrap_or(0);
        // It is the replies' doing where even the nodes that failed could not have changed it.
        let others = collector.asked().clone().without(answered).len();
        (most + open.count() < self.needed).then(|| match most + others < self.needed {
            true => QuorumErrorKind::NoQuorum,
            false => QuorumErrorKind::Incomplete,
        })
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
        self.0.poll(cx)
    }
}

impl<Req: fmt::Debug, Resp, F> fmt::Debug for QuorumFn<Req, Resp, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumFn")
            .field("request", &self.0.rule.request)
            .finish_non_exhaustive()
    }
}

impl<Resp, K, F> fmt::Debug for Matching<Resp, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matching")
            .field("needed", &self.0.rule.needed)
            .finish_non_exhaustive()
    }
}

explain_as_is! {
    [T, Req, Resp: Message + Default, F: FnMut(&Req, &mut Replies<Resp>) -> Option<T>] QuorumFn<Req, Resp, F> => T;
    [Resp: Message + Default, K: Eq, F: FnMut(&Resp) -> K] Matching<Resp, K, F> => Resp;
}
