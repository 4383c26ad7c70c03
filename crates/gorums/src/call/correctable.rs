use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use prost::Message;

use super::collect::Collector;
use super::replies::Replies;
use super::rule::{Awaiting, Reply, Rule, Verdict};
use crate::error::{QuorumError, QuorumErrorKind};

/// A call whose answer gets better as more replies come (Guerraoui, Pavlovic and Seredinschi,
/// "Incremental Consistency Guarantees for Replicated Objects", OSDI 2016).
///
/// Each answer has a *level*, and a later answer never has a lower one: an answer that would is
/// passed over. With [`correctable`](crate::call::QuorumCall::correctable) the level is the number
/// of distinct nodes that have answered and the value is the reply that came last; with
/// [`correctable_fn`](crate::call::QuorumCall::correctable_fn) a quorum function makes both of the
/// replies. The call is done when its level is reached or its function says so, and fails when
/// nothing more can come before that: every node has failed or, where the peer announces the end of
/// a streamed reply, has ended. A server of the Go library never announces that, so give calls to
/// one a deadline.
///
/// The replies are taken, and the quorum function runs, on the task that awaits one of its
/// functions; in between they wait, the newest 64 of each node and no more bytes than
/// [`unread_replies`](crate::call::QuorumCall::unread_replies) says. Older ones are
/// [dropped](Self::dropped): a newer answer makes up for them. All futures of its functions may be dropped without losing an answer. Dropping the
/// correctable gives the call up.
#[must_use = "dropping it gives the call up"]
pub struct Correctable<T> {
    state: State<T>,
    latest: Option<Answer<T>>,
    /// What the source had dropped when it was let go of.
    dropped: u64,
}

/// An answer of a [`Correctable`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Correction<'a, T> {
    /// The answer.
    pub value: &'a T,
    /// How good it is.
    pub level: usize,
    /// Whether it is the last one.
    pub done: bool,
}

impl<T> Clone for Correction<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Correction<'_, T> {}

enum State<T> {
    Open(Box<dyn Source<T>>),
    Done,
    Failed {
        error: QuorumError,
        /// Whether [`Correctable::changed`] has returned it.
        told: bool,
    },
}

struct Answer<T> {
    value: T,
    level: usize,
}

impl<T> Correctable<T> {
    pub(crate) fn new<Resp, R>(collector: Result<Collector<Resp>, QuorumError>, rule: R) -> Self
    where
        Resp: Message + Default + 'static,
        R: Rule<Resp, Output = Better<T>> + Send + 'static,
    {
        Self {
            state: match collector {
                Ok(collector) => State::Open(Box::new(Awaiting::new(Ok(collector), rule))),
                Err(error) => State::Failed { error, told: false },
            },
            latest: None,
            dropped: 0,
        }
    }

    /// The best answer so far, what has arrived by now included; none before the first. Never
    /// waits, and stays after the call is done or has failed.
    pub fn latest(&mut self) -> Option<Correction<'_, T>> {
        while let State::Open(source) = &mut self.state
            && let Some(change) = source.try_change()
        {
            self.apply(change);
        }
        self.correction()
    }

    /// The level of the best answer that was seen by one of the other functions; none before the
    /// first.
    #[must_use]
    pub fn level(&self) -> Option<usize> {
        self.latest.as_ref().map(|answer| answer.level)
    }

    /// How many replies to a streamed call were dropped so far, because newer ones of the same node
    /// came while nobody awaited this. None is, of what comes while one of its functions is
    /// awaited on a task that gets to run.
    ///
    /// The `tracing` event `replies that nobody took made room for newer ones`, of target
    /// `gorums::call` and level debug, names the method, the node and the node's count. It comes
    /// with the first of a node, and whenever the count has doubled.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match &self.state {
            State::Open(source) => source.dropped(),
            State::Done | State::Failed { .. } => self.dropped,
        }
    }

    /// Whether the last answer was seen, or the failure of the call.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(self.state, State::Open(_))
    }

    /// Waits for an answer of this level, or for the last one if the call is done below it. Ready
    /// at once where that has happened, also long after the call is done.
    ///
    /// # Errors
    /// The call failed before this level was reached.
    pub async fn reached(&mut self, level: usize) -> Result<Correction<'_, T>, QuorumError> {
        while self.level().is_none_or(|reached| reached < level) {
            match &mut self.state {
                State::Open(source) => {
                    let change = poll_fn(|cx| source.poll_change(cx)).await;
                    self.apply(change);
                }
                State::Done => break,
                State::Failed { error, .. } => return Err(error.clone()),
            }
        }
        Ok(self
            .correction()
            .expect("a level is reached, and a call is done, by an answer"))
    }

    /// Waits for the next answer, each one in turn; none when the last answer, or the failure, has
    /// been told. What [`latest`](Self::latest) or [`reached`](Self::reached) have passed over is
    /// not told again.
    pub async fn changed(&mut self) -> Option<Result<Correction<'_, T>, QuorumError>> {
        loop {
            match &mut self.state {
                State::Open(source) => {
                    let change = poll_fn(|cx| source.poll_change(cx)).await;
                    if self.apply(change) {
                        return self.correction().map(Ok);
                    }
                }
                State::Done => return None,
                State::Failed { error, told } => {
                    return (!std::mem::replace(told, true)).then(|| Err(error.clone()));
                }
            }
        }
    }

    /// Waits for the last answer.
    ///
    /// # Errors
    /// The call failed. To have the answers that it had before, use [`changed`](Self::changed) and
    /// [`latest`](Self::latest).
    pub async fn done(mut self) -> Result<T, QuorumError> {
        loop {
            match &mut self.state {
                State::Open(source) => {
                    let change = poll_fn(|cx| source.poll_change(cx)).await;
                    self.apply(change);
                }
                State::Done => {
                    let answer = self.latest.expect("a call is done by an answer");
                    return Ok(answer.value);
                }
                State::Failed { error, .. } => return Err(error.clone()),
            }
        }
    }

    fn correction(&self) -> Option<Correction<'_, T>> {
        self.latest.as_ref().map(|answer| Correction {
            value: &answer.value,
            level: answer.level,
            done: matches!(self.state, State::Done),
        })
    }

    /// Returns whether it is a new answer.
    fn apply(&mut self, change: Change<T>) -> bool {
        match change {
            Ok(Better { value, level, done }) => {
                let better = done || self.level().is_none_or(|reached| reached <= level);
                if better {
                    self.latest = Some(Answer { value, level });
                }
                if done {
                    self.dropped = self.dropped();
                    self.state = State::Done;
                }
                better
            }
            Err(error) => {
                self.dropped = self.dropped();
                self.state = State::Failed { error, told: false };
                false
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Correctable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correctable")
            .field("latest", &self.correction())
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}

/// Where the answers come from.
trait Source<T>: Send {
    /// The next answer, or why there is none.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change<T>>;

    /// The next answer, or why there is none, if that is known already.
    fn try_change(&mut self) -> Option<Change<T>>;

    /// How many replies have made room for newer ones.
    fn dropped(&self) -> u64;
}

type Change<T> = Result<Better<T>, QuorumError>;

/// An answer as a rule makes it.
pub(crate) struct Better<T> {
    value: T,
    level: usize,
    done: bool,
}

impl<T, Resp, R> Source<T> for Awaiting<Resp, R>
where
    Resp: Message + Default,
    R: Rule<Resp, Output = Better<T>> + Send,
{
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change<T>> {
        self.poll(cx)
    }

    fn try_change(&mut self) -> Option<Change<T>> {
        self.try_next()
    }

    fn dropped(&self) -> u64 {
        self.collector().map_or(0, Collector::dropped)
    }
}

/// The level is the number of nodes that have answered.
pub(crate) struct Nodes {
    pub(crate) needed: usize,
}

impl<Resp: Message + Default> Rule<Resp> for Nodes {
    type Output = Better<Resp>;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::Incomplete;

    fn is_last(better: &Self::Output) -> bool {
        better.done
    }

    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<Better<Resp>> {
        let value = reply.take()?;
        let level = reply.collector.answered().len();
        let done = level >= self.needed;
        Some(Ok(Better { value, level, done }))
    }

    fn hopeless(&self, collector: &Collector<Resp>) -> Option<QuorumErrorKind> {
        let possible = collector.can_answer().len();
        (possible < self.needed).then_some(QuorumErrorKind::Incomplete)
    }
}

/// A quorum function says what the replies so far are worth.
pub(crate) struct ByQuorumFn<Req, Resp, F> {
    pub(crate) request: Req,
    pub(crate) replies: Replies<Resp>,
    pub(crate) f: F,
}

impl<T, Req, Resp, F> Rule<Resp> for ByQuorumFn<Req, Resp, F>
where
    Resp: Message + Default,
    F: FnMut(&Req, &mut Replies<Resp>) -> (T, usize, bool),
{
    type Output = Better<T>;

    const EXHAUSTED: QuorumErrorKind = QuorumErrorKind::NoQuorum;

    fn is_last(better: &Self::Output) -> bool {
        better.done
    }

    fn reply(&mut self, mut reply: Reply<'_, Resp>) -> Verdict<Better<T>> {
        let value = reply.take()?;
        self.replies.insert(reply.part, value);
        let (value, level, done) = (self.f)(&self.request, &mut self.replies);
        Some(Ok(Better { value, level, done }))
    }
}
