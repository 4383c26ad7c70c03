use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;

use super::collect::Collector;
use super::explain::{Explained, Explanation, explain};
use super::replies::Replies;
use super::rule::{Awaiting, Reply, Rule, Verdict};
use crate::error::{Counted, QuorumError, QuorumErrorKind, Status};
use crate::node_id::NodeId;
use crate::quorum::{Bits, QuorumSystem};

/// A call that waits for a quorum of yes votes ([`Quorum::votes`](crate::call::Quorum::votes)). The
/// result are the replies that said yes.
#[must_use = "dropping it gives the call up"]
pub struct Votes<Resp, Q, F>(Awaiting<Resp, Ballot<Resp, Q, F>>);

impl<Resp: Message + Default, Q: QuorumSystem, F: FnMut(&Resp) -> bool> Votes<Resp, Q, F> {
    pub(crate) fn new<R>(
        queued: Awaiting<Resp, R>,
        system: impl FnOnce(R) -> Q,
        is_yes: F,
    ) -> Self {
        Self(queued.with_rule(|rule| Ballot {
            system: system(rule),
            is_yes,
            yes: None,
            no: BTreeMap::new(),
            noes: Bits::default(),
        }))
    }
}

/// Counts votes.
struct Ballot<Resp, Q, F> {
    system: Q,
    is_yes: F,
    yes: Option<Replies<Resp>>,
    no: BTreeMap<NodeId, Resp>,
    /// The nodes that said no, by position.
    noes: Bits,
}

impl<Resp, Q, F> Ballot<Resp, Q, F> {
    /// The call has failed with this.
    fn error(&mut self, call: QuorumError) -> VoteError<Resp> {
        VoteError {
            call,
            yes: self.yes.take().into_iter().flatten().collect(),
            no: std::mem::take(&mut self.no),
        }
    }
}

impl<Resp, Q, F> Ballot<Resp, Q, F>
where
    Resp: Message + Default,
    F: FnMut(&Resp) -> bool,
{
    fn count(&mut self, reply: &mut Reply<'_, Resp>) {
        let part = reply.part;
        // A node's later replies to a streamed call have no second vote.
        if self.noes.contains(part) || reply.collector.answered().contains(part) {
            return;
        }
        let Some(value) = reply.look() else {
            return;
        };
        let configuration = reply.collector.configuration();
        if (self.is_yes)(&value) {
            self.yes
                .get_or_insert_with(|| Replies::new(configuration.clone()))
                .insert(part, value);
            reply.collector.accept(part);
        } else {
            self.no.insert(configuration[part].id(), value);
            self.noes.insert(part);
            reply.collector.refuse(part, Status::aborted("it said no"));
        }
    }
}

impl<Resp, Q, F> Rule<Resp> for Ballot<Resp, Q, F>
where
    Resp: Message + Default,
    Q: QuorumSystem,
    F: FnMut(&Resp) -> bool,
{
    type Output = Replies<Resp>;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::Incomplete;

    const COUNTED: Counted = Counted::Votes;

    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<Replies<Resp>> {
        self.count(&mut reply);
        reply
            .collector
            .is_quorum(&self.system)
            .then(|| Ok(self.yes.take().expect("a quorum is not empty")))
    }

    fn late(&mut self, mut reply: Reply<'_, Resp>) {
        self.count(&mut reply);
    }

    fn hopeless(&self, collector: &Collector<Resp>) -> Option<QuorumErrorKind> {
        if collector.is_possible(&self.system) {
            return None;
        }
        // It is the noes' doing where even the nodes that failed could not have changed it.
        let others = collector.asked().clone().without(&self.noes);
        Some(match collector.would_be_quorum(&self.system, &others) {
            true => QuorumErrorKind::Incomplete,
            false => QuorumErrorKind::NoQuorum,
        })
    }
}

impl<Resp, Q, F> Future for Votes<Resp, Q, F>
where
    Resp: Message + Default,
    Q: QuorumSystem,
    F: FnMut(&Resp) -> bool,
{
    type Output = Result<Replies<Resp>, VoteError<Resp>>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut self.0;
        this.poll(cx).map_err(|call| this.rule.error(call))
    }
}

explain! {
    [Resp: Message + Default, Q: QuorumSystem, F: FnMut(&Resp) -> bool] Votes<Resp, Q, F> => Replies<Resp>
}

impl<Resp, Q, F> Future for Explained<Votes<Resp, Q, F>, Replies<Resp>>
where
    Resp: Message + Default,
    Q: QuorumSystem,
    F: FnMut(&Resp) -> bool,
{
    type Output = Explanation<Result<Replies<Resp>, VoteError<Resp>>>;

    /// # Panics
    /// When polled again after it was ready with the error of a call that was not made.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (Votes(call), watch) = self.parts();
        let explained = call.poll_explained(watch, cx);
        explained
            .map(|explained| explained.map(|result| result.map_err(|error| call.rule.error(error))))
    }
}

impl<Resp, Q, F> fmt::Debug for Votes<Resp, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Votes").finish_non_exhaustive()
    }
}

/// A call that did not get a quorum of yes votes: the failed [`call`](Self::call), and how the
/// nodes voted that had answered by then.
///
/// `?` makes a [`QuorumError`] of it, or a [`Status`] in a handler.
#[derive(Debug, Clone)]
pub struct VoteError<Resp> {
    call: QuorumError,
    yes: BTreeMap<NodeId, Resp>,
    no: BTreeMap<NodeId, Resp>,
}

impl<Resp> VoteError<Resp> {
    /// The call that failed.
    ///
    /// Its [kind](QuorumError::kind) is [`NoQuorum`](QuorumErrorKind::NoQuorum) where the noes
    /// alone decided it, and [`Incomplete`](QuorumErrorKind::Incomplete) where nodes that failed
    /// could have changed it by a yes. A node that said no is one of its
    /// [failures](QuorumError::failures), as *refused*.
    #[must_use]
    pub fn call(&self) -> &QuorumError {
        &self.call
    }

    /// The replies that said yes, by node: where something may have to be taken back.
    #[must_use]
    pub fn yes(&self) -> &BTreeMap<NodeId, Resp> {
        &self.yes
    }

    /// The replies that said no, by node.
    #[must_use]
    pub fn no(&self) -> &BTreeMap<NodeId, Resp> {
        &self.no
    }
}

impl<Resp> fmt::Display for VoteError<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl<Resp: fmt::Debug> Error for VoteError<Resp> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Its text is that of the call.
        self.call.source()
    }
}

impl<Resp> From<VoteError<Resp>> for QuorumError {
    fn from(error: VoteError<Resp>) -> Self {
        error.call
    }
}

impl<Resp> From<VoteError<Resp>> for Status {
    fn from(error: VoteError<Resp>) -> Self {
        error.call.into()
    }
}
