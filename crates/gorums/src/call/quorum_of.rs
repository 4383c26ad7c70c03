use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;

use super::collect::Collector;
use super::replies::Replies;
use super::rule::{Awaiting, Rule};
use crate::channel::WakeAfter;
use crate::error::{QuorumError, QuorumErrorKind};
use crate::quorum::{QuorumSystem, Threshold};

/// A quorum call that was queued. Awaited, it is the *first* reply of the quorum.
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

    /// All replies of the quorum, in place of the first.
    pub fn replies(self) -> QuorumReplies<Resp, Q> {
        let awaiting = self.0;
        QuorumReplies(awaiting.with_rule(|enough| Enough::new(enough.system, Every)))
    }

    /// The reply with the greatest key among those of the quorum, in place of the first; of several
    /// the one that came first.
    pub fn max_by_key<K: Ord, F: FnMut(&Resp) -> K>(self, key: F) -> MaxByKey<Resp, Q, F> {
        let awaiting = self.0;
        MaxByKey(awaiting.with_rule(|enough| Enough::new(enough.system, Greatest { key })))
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
    fn reply(
        &mut self,
        collector: &mut Collector<Resp>,
        part: usize,
        payload: &Bytes,
    ) -> Option<Result<P::Picked, QuorumErrorKind>> {
        self.pick.pick(&mut self.picked, collector, part, payload);
        collector
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

    fn pick(
        &mut self,
        picked: &mut Option<Self::Picked>,
        collector: &mut Collector<Resp>,
        part: usize,
        payload: &Bytes,
    );
}

struct First;

impl<Resp: Message + Default> Pick<Resp> for First {
    type Picked = Resp;

    fn pick(
        &mut self,
        picked: &mut Option<Resp>,
        collector: &mut Collector<Resp>,
        part: usize,
        payload: &Bytes,
    ) {
        if picked.is_none() {
            *picked = collector.take(part, payload);
        } else {
            collector.count(part, payload);
        }
    }
}

struct Every;

impl<Resp: Message + Default> Pick<Resp> for Every {
    type Picked = Replies<Resp>;

    fn pick(
        &mut self,
        picked: &mut Option<Replies<Resp>>,
        collector: &mut Collector<Resp>,
        part: usize,
        payload: &Bytes,
    ) {
        if let Some(reply) = collector.take(part, payload) {
            picked
                .get_or_insert_with(|| Replies::new(collector.configuration().clone()))
                .insert(part, reply);
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

    fn pick(
        &mut self,
        picked: &mut Option<Resp>,
        collector: &mut Collector<Resp>,
        part: usize,
        payload: &Bytes,
    ) {
        let Self { key } = self;
        if let Some(reply) = collector.take(part, payload)
            && picked.as_ref().is_none_or(|best| key(&reply) > key(best))
        {
            *picked = Some(reply);
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
