use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;

use super::collect::Collector;
use super::explain::explain_as_is;
use super::replies::Replies;
use super::rule::{Awaiting, Reply, Rule, Verdict};
use super::votes::Votes;
use crate::channel::WakeAfter;
use crate::error::{QuorumError, QuorumErrorKind};
use crate::quorum::{QuorumSystem, Threshold};

/// A quorum call that was queued. Awaited, it is the *first* reply of the quorum.
///
/// Every success counts, whatever it says; [`votes`](Self::votes) counts the replies that say yes.
///
/// Only that reply is decoded. When the quorum is there, the other nodes' requests are still sent
/// and their replies ignored; a call that is dropped before withdraws what is not written, and
/// tells nodes that understand it that nobody waits.
#[must_use = "dropping it gives the call up"]
pub struct Quorum<Resp, Q = Threshold>(Awaiting<Resp, Enough<Q, First, Resp>>);

/// All replies of a quorum, when it is there.
#[must_use = "dropping it gives the call up"]
pub struct QuorumReplies<Resp, Q = Threshold>(Awaiting<Resp, Enough<Q, Every, Replies<Resp>>>);

/// The greatest reply of a quorum, when it is there.
#[must_use = "dropping it gives the call up"]
pub struct MaxByKey<Resp, Q, F>(Awaiting<Resp, Enough<Q, Greatest<F>, Resp>>);

impl<Resp: Message + Default, Q: QuorumSystem> Quorum<Resp, Q> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>, system: Q) -> Self {
        Self(Awaiting::new(collector, Enough::new(system, First)))
    }

    /// Waits for a quorum of *yes* votes: of nodes with a reply for which the function is true. It
    /// goes with every terminal that counts nodes. Returns the replies that said yes, by node.
    ///
    /// Fails as soon as so many have said no, or have failed, that a quorum of yes votes is out of
    /// reach; the error has the replies that said no, and those that said yes. The first reply of a
    /// node to a streamed call is its vote. The function runs on the awaiting task, once for each
    /// node.
    ///
    /// ```no_run
    /// # use gorums::call::QuorumCall;
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct Grant { #[prost(bool, tag = "1")] granted: bool, #[prost(string, tag = "2")] holder: String }
    /// # async fn f(acquire: QuorumCall<String, Grant>) {
    /// match acquire.majority().votes(|reply| reply.granted).await {
    ///     Ok(grants) => println!("the lock is ours at {} nodes", grants.len()),
    ///     Err(error) => {
    ///         for (node, reply) in error.no() {
    ///             println!("node {node} has granted it to {}", reply.holder);
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[doc(alias = "majority_of")]
    #[doc(alias = "accepting")]
    pub fn votes<F: FnMut(&Resp) -> bool>(self, is_yes: F) -> Votes<Resp, Q, F> {
        Votes::new(self.0, |enough| enough.system, is_yes)
    }

    /// All replies of the quorum, in place of the first.
    pub fn replies(self) -> QuorumReplies<Resp, Q> {
        QuorumReplies(self.0.with_rule(|enough| Enough::new(enough.system, Every)))
    }

    /// The reply with the greatest key among those of the quorum, in place of the first; of several
    /// the one that came first.
    pub fn max_by_key<K: Ord, F: FnMut(&Resp) -> K>(self, key: F) -> MaxByKey<Resp, Q, F> {
        MaxByKey(
            self.0
                .with_rule(|enough| Enough::new(enough.system, Greatest { key })),
        )
    }
}

/// Waits for a quorum.
struct Enough<Q, P, T> {
    system: Q,
    pick: P,
    picked: Option<T>,
}

impl<Q, P, T> Enough<Q, P, T> {
    fn new(system: Q, pick: P) -> Self {
        Self {
            system,
            pick,
            picked: None,
        }
    }
}

impl<Resp: Message + Default, Q, P> Rule<Resp> for Enough<Q, P, P::Picked>
where
    Q: QuorumSystem,
    P: Pick<Resp>,
{
    type Output = P::Picked;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::Incomplete;

    fn wake_after(collector: &Collector<Resp>) -> WakeAfter {
        collector.wake_after()
    }

    #[inline]
    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<P::Picked> {
        self.pick.pick(&mut self.picked, &mut reply);
        reply
            .collector
            .is_quorum(&self.system)
            .then(|| Ok(self.picked.take().expect("a quorum is not empty")))
    }

    fn hopeless(&self, collector: &Collector<Resp>) -> Option<QuorumErrorKind> {
        (!collector.is_possible(&self.system)).then_some(QuorumErrorKind::Incomplete)
    }
}

/// What is kept of the replies until there is a quorum.
trait Pick<Resp> {
    type Picked;

    fn pick(&mut self, picked: &mut Option<Self::Picked>, reply: &mut Reply<'_, Resp>);
}

struct First;

impl<Resp: Message + Default> Pick<Resp> for First {
    type Picked = Resp;

    fn pick(&mut self, picked: &mut Option<Resp>, reply: &mut Reply<'_, Resp>) {
        if picked.is_none() {
            *picked = reply.take();
        } else {
            reply.count();
        }
    }
}

struct Every;

impl<Resp: Message + Default> Pick<Resp> for Every {
    type Picked = Replies<Resp>;

    fn pick(&mut self, picked: &mut Option<Replies<Resp>>, reply: &mut Reply<'_, Resp>) {
        if let Some(value) = reply.take() {
            picked
                .get_or_insert_with(|| Replies::new(reply.collector.configuration().clone()))
                .insert(reply.part, value);
        }
    }
}

struct Greatest<F> {
    key: F,
}

impl<Resp, K, F> Pick<Resp> for Greatest<F>
where
    Resp: Message + Default,
    K: Ord,
    F: FnMut(&Resp) -> K,
{
    type Picked = Resp;

    fn pick(&mut self, picked: &mut Option<Resp>, reply: &mut Reply<'_, Resp>) {
        let Self { key } = self;
        if let Some(value) = reply.take()
            && picked.as_ref().is_none_or(|best| key(&value) > key(best))
        {
            *picked = Some(value);
        }
    }
}

macro_rules! futures {
    ($($name:ident<$($parameter:ident),*> => $output:ty $(where $key:ident, $f:ident)?;)*) => {
        $(impl<$($parameter, )* $($key)?> Future for $name<$($parameter),*>
        where
            Resp: Message + Default,
            Q: QuorumSystem,
            $($key: Ord, $f: FnMut(&Resp) -> $key,)?
        {
            type Output = Result<$output, QuorumError>;

            /// # Panics
            /// When polled again after it was ready.
            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                self.0.poll(cx)
            }
        }

        impl<$($parameter),*> fmt::Debug for $name<$($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })*
    };
}

futures! {
    Quorum<Resp, Q> => Resp;
    QuorumReplies<Resp, Q> => Replies<Resp>;
    MaxByKey<Resp, Q, F> => Resp where K, F;
}

explain_as_is! {
    [Resp: Message + Default, Q: QuorumSystem] Quorum<Resp, Q> => Resp;
    [Resp: Message + Default, Q: QuorumSystem] QuorumReplies<Resp, Q> => Replies<Resp>;
    [Resp: Message + Default, Q: QuorumSystem, K: Ord, F: FnMut(&Resp) -> K] MaxByKey<Resp, Q, F> => Resp;
}
