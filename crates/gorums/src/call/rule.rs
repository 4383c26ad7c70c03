//! Waiting for a call, and the rule that says when its replies are enough.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use prost::Message;

use super::collect::{Collector, Step};
use crate::channel::WakeAfter;
use crate::error::{Counted, QuorumError, QuorumErrorKind};

/// Makes a result of the replies to a call.
pub(crate) trait Rule<Resp: Message + Default> {
    type Output;

    /// Why the call fails when nothing more can come.
    const EXHAUSTED: QuorumErrorKind;

    /// What the nodes are counted by.
    const COUNTED: Counted = Counted::Replies;

    /// What the waiting task has to be woken for.
    fn wake_after(_: &Collector<Resp>) -> WakeAfter {
        WakeAfter::ANY
    }

    /// Takes a reply. Returns a result, or why there can be none, as soon as either is known.
    fn reply(&mut self, reply: Reply<'_, Resp>) -> Verdict<Self::Output>;

    /// Takes a reply to a call that has failed, for its error.
    fn late(&mut self, mut reply: Reply<'_, Resp>) {
        reply.count();
    }

    /// Whether the call needs no more replies after this result.
    fn is_last(_: &Self::Output) -> bool {
        true
    }

    /// Why there can be no result, if so. Asked whenever a node has failed or ended.
    fn hopeless(&self, _: &Collector<Resp>) -> Option<QuorumErrorKind> {
        None
    }
}

pub(crate) type Verdict<T> = Option<Result<T, QuorumErrorKind>>;

/// A reply that has come, and the call that it is for.
pub(crate) struct Reply<'a, Resp> {
    pub(crate) collector: &'a mut Collector<Resp>,
    pub(crate) part: usize,
    payload: &'a Bytes,
}

impl<Resp: Message + Default> Reply<'_, Resp> {
    /// Decodes and maps it; where either fails, so does the node.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Resp> {
        self.collector.take(self.part, self.payload)
    }

    /// Decodes and maps it, and does not count it yet; where either fails, so does the node.
    pub(crate) fn look(&mut self) -> Option<Resp> {
        self.collector.look(self.part, self.payload)
    }

    /// Counts it without a look.
    pub(crate) fn count(&mut self) {
        self.collector.count(self.part, self.payload);
    }
}

/// A call that a task waits for.
pub(crate) struct Awaiting<Resp, R> {
    /// Why the call was not made, until that is told.
    collector: Result<Collector<Resp>, Option<QuorumError>>,
    pub(crate) rule: R,
}

impl<Resp, R> Awaiting<Resp, R> {
    pub(crate) fn new(collector: Result<Collector<Resp>, QuorumError>, rule: R) -> Self {
        Self {
            collector: collector.map_err(Some),
            rule,
        }
    }

    /// The call, if it was made.
    pub(crate) fn collector(&self) -> Option<&Collector<Resp>> {
        self.collector.as_ref().ok()
    }

    /// The same call with another rule.
    pub(crate) fn with_rule<S>(self, change: impl FnOnce(R) -> S) -> Awaiting<Resp, S> {
        Awaiting {
            collector: self.collector,
            rule: change(self.rule),
        }
    }
}

impl<Resp: Message + Default, R: Rule<Resp>> Awaiting<Resp, R> {
    /// Waits for the next result. With the last one the call is complete.
    ///
    /// # Panics
    /// When polled again after it was ready with the error of a call that was not made.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<R::Output, QuorumError>> {
        let (collector, rule) = match self.parts() {
            Ok(parts) => parts,
            Err(error) => return Poll::Ready(Err(error)),
        };
        loop {
            let step = ready!(poll_step(rule, collector, cx, R::wake_after));
            if let Some(result) = apply(rule, collector, step) {
                return Poll::Ready(result);
            }
        }
    }

    /// The call and its rule, or why it was not made.
    ///
    /// # Panics
    /// When that was told before.
    #[inline]
    pub(crate) fn parts(&mut self) -> Result<(&mut Collector<Resp>, &mut R), QuorumError> {
        match &mut self.collector {
            Ok(collector) => Ok((collector, &mut self.rule)),
            Err(error) => Err(error
                .take()
                .expect("a future is not polled after it was ready")),
        }
    }

    /// The next result, if it is known already.
    pub(crate) fn try_next(&mut self) -> Option<Result<R::Output, QuorumError>> {
        let collector = self.collector.as_mut().ok()?;
        while let Some(step) = collector.try_step() {
            if let Some(result) = apply(&mut self.rule, collector, step) {
                return Some(result);
            }
        }
        None
    }
}

/// What a step of the call means by the rule. With the last result the call is complete.
#[inline]
fn apply<Resp: Message + Default, R: Rule<Resp>>(
    rule: &mut R,
    collector: &mut Collector<Resp>,
    step: Step,
) -> Option<Result<R::Output, QuorumError>> {
    judge(rule, collector, step, |collector, output, part| {
        if R::is_last(output) {
            collector.complete_by(Some(part));
        }
    })
}

/// The next step of the call, which asks further nodes where it is time for that.
#[inline]
pub(crate) fn poll_step<Resp: Message + Default, R: Rule<Resp>>(
    rule: &R,
    collector: &mut Collector<Resp>,
    cx: &mut Context<'_>,
    wake_after: impl Fn(&Collector<Resp>) -> WakeAfter,
) -> Poll<Step> {
    loop {
        match collector.poll_step(cx, wake_after(collector)) {
            Poll::Pending
                if collector.may_widen()
                    && collector
                        .poll_widen(cx, &|collector| rule.hopeless(collector).is_some()) => {}
            polled => return polled,
        }
    }
}

/// What a step of the call means by the rule. A result is shown, with the node whose reply has made it.
#[inline]
pub(crate) fn judge<Resp: Message + Default, R: Rule<Resp>>(
    rule: &mut R,
    collector: &mut Collector<Resp>,
    step: Step,
    decided: impl FnOnce(&mut Collector<Resp>, &R::Output, usize),
) -> Option<Result<R::Output, QuorumError>> {
    let failed = match step {
        Step::Reply(part, payload) => {
            let payload = &payload;
            match rule.reply(Reply {
                collector,
                part,
                payload,
            }) {
                Some(Ok(output)) => {
                    decided(collector, &output, part);
                    return Some(Ok(output));
                }
                Some(Err(kind)) => Some(kind),
                None if collector.answered().contains(part) => None,
                // A reply that could not be used is a failure.
                None => rule.hopeless(collector),
            }
        }
        Step::Out(_) => rule.hopeless(collector),
        // Replies that did not come might have made a quorum.
        Step::End => Some(match R::EXHAUSTED {
            QuorumErrorKind::NoQuorum if collector.is_without_answer() => {
                QuorumErrorKind::Incomplete
            }
            exhausted => exhausted,
        }),
    };
    failed.map(|kind| {
        Err(
            collector.error(kind, R::COUNTED, |collector, part, payload| {
                rule.late(Reply {
                    collector,
                    part,
                    payload,
                });
            }),
        )
    })
}

// Neither the replies nor the rule are pinned, so it can be moved while it is polled.
impl<Resp, R> Unpin for Awaiting<Resp, R> {}
