//! What became of a call at each of its nodes, and when.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;

use super::collect::{Collector, Step};
use super::rule::{Awaiting, Rule, judge, poll_step};
use super::timer::Timer;
use crate::channel::WakeAfter;
use crate::error::{NodeError, QuorumError, shown};
use crate::node_id::NodeId;
use crate::runtime::bounded;

/// How many columns the longest time has in a timeline.
const COLUMNS: usize = 32;

/// Of so many nodes a timeline has a line.
const LINES: usize = 64;

/// A call that tells what became of it at each node: see
/// [`Quorum::explain`](crate::call::Quorum::explain).
#[must_use = "dropping it gives the call up"]
pub struct Explained<C, T> {
    call: C,
    watch: Watch<T>,
}

/// What a call has come to, and how: who was asked, who answered when, who was late or has failed, and
/// at which node it was decided.
///
/// Shown, it is a timeline of some lines, of 64 nodes at most:
///
/// ```text
/// storage.Storage.ReadQC: done after 1.3ms, 2 of 3 nodes answered
///   node 1  127.0.0.1:8081  ─────────────●                     answered after 523.1µs
///   node 2  127.0.0.1:8082  ────────────────────────────────◆  answered after 1.3ms, which was enough
///   node 3  127.0.0.1:8083  ────────────────────────────────…  no answer in 1.3ms (usually 611.0µs)
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation<T> {
    /// What the call has come to: a result or an error, as without an explanation.
    pub result: T,
    /// The method, as `package.Service.Method`; empty where the call was not made.
    pub method: &'static str,
    /// How long the call took, from its terminal on. Zero where it was not made: it could not have
    /// succeeded, say, and the error tells why.
    pub took: Duration,
    /// The node whose answer or failure decided the call; none where a deadline or a cancellation did.
    pub decided_by: Option<NodeId>,
    /// Every node of the configuration, in its order. Empty where the call was not made.
    pub nodes: Vec<ExplainedNode>,
}

/// What became of a call at one node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExplainedNode {
    /// The node's id.
    pub id: NodeId,
    /// The node's address, as it was given.
    pub address: String,
    /// What became of the call there.
    pub fate: Fate,
    /// How long the node's answers have taken most often, if any have come of late.
    pub usually: Option<Duration>,
}

/// What became of a call at one node, with the time from the call's terminal until the task that awaits
/// the call heard of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fate {
    /// It was left out (`map_request`), or not needed ([`Thrifty`](crate::call::Thrifty)).
    NotAsked,
    /// Its first answer came after so long.
    Answered(Duration),
    /// It failed, or what it answered could not be used or was refused, after so long.
    Failed(Duration, NodeError),
    /// It has not answered in this time, which is for how long was waited.
    Late(Duration),
}

/// What is noted while a call is awaited whose result is of this type.
pub(crate) struct Watch<T> {
    /// For how long the others are waited for when it is decided.
    others: Duration,
    /// By position; none of those of which nothing was heard.
    heard: Vec<Option<Fate>>,
    decided: Option<Decided<T>>,
    /// Until when the others are waited for.
    timer: Timer,
}

/// What the call has come to, when, and at which node.
struct Decided<T> {
    result: Result<T, QuorumError>,
    at: Duration,
    by: Option<usize>,
}

impl<C, T> Explained<C, T> {
    pub(super) fn new(call: C) -> Self {
        Self {
            call,
            watch: Watch {
                others: Duration::ZERO,
                heard: Vec::new(),
                decided: None,
                timer: Timer::default(),
            },
        }
    }

    /// Waits for the other nodes, too, when the call is done: for so long, until they have answered or
    /// failed, or until the call's deadline. The result is what it was. Default: zero, and who has not
    /// answered is [late](Fate::Late).
    ///
    /// As long as it waits the call goes on: a deadline that passes then, a cancellation, or dropping it
    /// withdraws what is not written to the others, and tells those that handle it. Without, what is queued
    /// is still sent when the call is done.
    pub fn wait_for_others(mut self, others: Duration) -> Self {
        self.watch.others = others;
        self
    }

    /// The call, and what is noted of it.
    pub(super) fn parts(&mut self) -> (&mut C, &mut Watch<T>) {
        (&mut self.call, &mut self.watch)
    }
}

// What is in it is not pinned, as in a call; the timer has a place of its own.
impl<C: Unpin, T> Unpin for Explained<C, T> {}

impl<C: fmt::Debug, T> fmt::Debug for Explained<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Explained").field(&self.call).finish()
    }
}

impl<T> Explanation<T> {
    /// The same of another result.
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Explanation<U> {
        Explanation {
            result: map(self.result),
            method: self.method,
            took: self.took,
            decided_by: self.decided_by,
            nodes: self.nodes,
        }
    }

    /// How many nodes answered while the call was awaited.
    #[must_use]
    pub fn answered(&self) -> usize {
        let has_answered = |node: &&ExplainedNode| matches!(node.fate, Fate::Answered(_));
        self.nodes.iter().filter(has_answered).count()
    }

    /// What became of the call at this node, if it is one of the configuration.
    #[must_use]
    pub fn node(&self, id: impl Into<NodeId>) -> Option<&ExplainedNode> {
        let id = id.into();
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl<T> Explanation<Result<T, QuorumError>> {
    /// Of a call that was not made.
    fn not_made(error: QuorumError) -> Self {
        Self {
            method: error.method(),
            result: Err(error),
            took: Duration::ZERO,
            decided_by: None,
            nodes: Vec::new(),
        }
    }
}

impl Fate {
    /// When it was known.
    fn at(&self) -> Option<Duration> {
        match self {
            Self::NotAsked => None,
            Self::Answered(at) | Self::Failed(at, _) | Self::Late(at) => Some(*at),
        }
    }
}

impl<Resp: Message + Default, R: Rule<Resp>> Awaiting<Resp, R> {
    /// Waits for the result, and notes how it comes about.
    ///
    /// # Panics
    /// When polled again after it was ready with the error of a call that was not made.
    pub(crate) fn poll_explained(
        &mut self,
        watch: &mut Watch<R::Output>,
        cx: &mut Context<'_>,
    ) -> Poll<Explanation<Result<R::Output, QuorumError>>> {
        let (collector, rule) = match self.parts() {
            Ok(parts) => parts,
            Err(error) => return Poll::Ready(Explanation::not_made(error)),
        };
        watch.heard.resize(collector.configuration().len(), None);
        loop {
            let polled = match &watch.decided {
                None => poll_step(rule, collector, cx, |_| WakeAfter::ANY),
                Some(_) => collector.poll_step(cx, WakeAfter::ANY),
            };
            let step = match polled {
                Poll::Ready(step) => step,
                Poll::Pending if watch.has_waited(collector, cx) => Step::End,
                Poll::Pending => return Poll::Pending,
            };
            let at = collector.elapsed();
            let part = step.part();
            if let Step::Reply(part, _) = &step {
                watch.note(*part, Fate::Answered(at));
            }
            let is_end = part.is_none();
            if watch.decided.is_none()
                && let Some(result) = judge(rule, collector, step, |_, _, _| {})
            {
                // A deadline is no node's doing.
                let by = part.filter(|_| result.is_ok() || collector.call().early().is_none());
                watch.decided = Some(Decided { result, at, by });
            }
            if let Some(part) = part
                && let Some(error) = collector.failure_of(part)
            {
                watch.note(part, Fate::Failed(at, error.clone()));
            }
            let is_over =
                is_end || matches!(&watch.decided, Some(decided) if decided.result.is_err());
            if is_over && let Some(decided) = watch.decided.take() {
                return Poll::Ready(watch.explanation(collector, decided, at));
            }
        }
    }
}

impl<T> Watch<T> {
    /// Whether the call is decided, and the other nodes were waited for.
    fn has_waited<Resp: Message + Default>(
        &mut self,
        collector: &Collector<Resp>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(decided) = &self.decided else {
            return false;
        };
        let call = collector.call();
        let parts = self.heard.iter().enumerate();
        let mut late = parts.filter(|(part, heard)| heard.is_none() && collector.was_asked(*part));
        let pool = call.targets().pools().first();
        let Some(pool) = pool.filter(|_| !self.others.is_zero() && late.next().is_some()) else {
            return true;
        };
        let until = call.started() + bounded(decided.at.saturating_add(self.others));
        self.timer.poll(pool, until, cx).is_ready()
    }

    /// The first that was heard counts, but for an answer that turned out to be of no use.
    fn note(&mut self, part: usize, fate: Fate) {
        let heard = &mut self.heard[part];
        let is_first = match (&heard, &fate) {
            (None, _) => true,
            (Some(Fate::Answered(then)), Fate::Failed(now, _)) => then == now,
            _ => false,
        };
        if is_first {
            *heard = Some(fate);
        }
    }

    /// What is known now that the call is over.
    fn explanation<Resp: Message + Default>(
        &mut self,
        collector: &mut Collector<Resp>,
        decided: Decided<T>,
        now: Duration,
    ) -> Explanation<Result<T, QuorumError>> {
        match &decided.result {
            Ok(_) => collector.complete_by(decided.by),
            // It has said what it knows of each node, and what was heard at its end as well.
            Err(error) => {
                for (part, node) in collector.configuration().iter().enumerate() {
                    if let Some(failure) = error.failure(node.id()) {
                        self.note(part, Fate::Failed(now, failure.clone()));
                    } else if collector.answered().contains(part) {
                        self.note(part, Fate::Answered(now));
                    }
                }
            }
        }
        let configuration = collector.configuration();
        let heard = self.heard.drain(..).zip(configuration.iter()).enumerate();
        let nodes = heard.map(|(part, (heard, node))| ExplainedNode {
            id: node.id(),
            address: node.address().to_owned(),
            fate: match heard {
                Some(fate) => fate,
                None if collector.was_asked(part) => Fate::Late(now),
                None => Fate::NotAsked,
            },
            usually: node.latency(),
        });
        Explanation {
            nodes: nodes.collect(),
            result: decided.result,
            method: collector.call().method(),
            took: decided.at,
            decided_by: decided.by.map(|part| configuration[part].id()),
        }
    }
}

impl<T, E> fmt::Display for Explanation<Result<T, E>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, all) = (self.answered(), self.nodes.len());
        if all == 0 {
            return f.write_str("the call was not made: it could not have succeeded");
        }
        let end = match &self.result {
            Ok(_) => "done",
            Err(_) => "failed",
        };
        let (method, took) = (self.method, self.took);
        write!(
            f,
            "{method}: {end} after {took:.1?}, {answered} of {all} nodes answered"
        )?;
        let shown = &self.nodes[..all.min(LINES)];
        let width = |text: fn(&ExplainedNode) -> String| {
            let widths = shown.iter().map(|node| text(node).chars().count());
            widths.max().unwrap_or(0)
        };
        let id = width(|node| node.id.to_string());
        let address = width(|node| shown_text(&node.address));
        let longest = self.nodes.iter().filter_map(|node| node.fate.at()).max();
        let longest = longest.unwrap_or(self.took).as_secs_f64();
        for node in shown {
            let decided = self.decided_by == Some(node.id);
            let columns = node.fate.at().map_or(0, |at| {
                // A share of at most 1 of a few columns.
                (at.as_secs_f64() / longest.max(f64::MIN_POSITIVE) * COLUMNS as f64).ceil() as usize
            });
            let mark = match (&node.fate, decided) {
                (Fate::NotAsked, _) => ' ',
                (Fate::Late(_), _) => '…',
                (Fate::Failed(..), _) => '✗',
                (Fate::Answered(_), true) => '◆',
                (Fate::Answered(_), false) => '●',
            };
            write!(
                f,
                "\n  node {:<id$}  {:<address$}  {}{mark}{:rest$}  ",
                node.id.to_string(),
                shown_text(&node.address),
                "─".repeat(columns),
                "",
                rest = COLUMNS.saturating_sub(columns),
            )?;
            match &node.fate {
                Fate::NotAsked => f.write_str("not asked")?,
                Fate::Answered(at) => write!(f, "answered after {at:.1?}")?,
                Fate::Failed(at, error) => write!(f, "failed after {at:.1?}: {}", error.status())?,
                Fate::Late(at) => write!(f, "no answer in {at:.1?}")?,
            }
            match (decided, &self.result) {
                (true, Ok(_)) => f.write_str(", which was enough")?,
                (true, Err(_)) => f.write_str(", after which there was no way to succeed")?,
                (false, _) => {}
            }
            if let (Fate::Late(_), Some(usually)) = (&node.fate, node.usually) {
                write!(f, " (usually {usually:.1?})")?;
            }
        }
        match all - shown.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} nodes more"),
        }
    }
}

fn shown_text(text: &str) -> String {
    shown(text).to_string()
}

/// Gives a call that waits for a quorum its explanation.
macro_rules! explain {
    ([$($generics:tt)*] $call:ty => $output:ty) => {
        impl<$($generics)*> $call {
            /// The call with an [explanation](crate::call::Explanation) of how it came to its result: who
            /// was asked, who answered when, who was late or failed, and whose answer was enough.
            ///
            /// The times are those at which the task that awaits the call has heard of it: await it at
            /// once, and not when the answers are there. It looks at each answer by itself, which costs
            /// more than a call that is woken when there are enough.
            pub fn explain(self) -> $crate::call::Explained<Self, $output> {
                $crate::call::Explained::new(self)
            }
        }
    };
}

/// The same, where the result is that of the rule.
macro_rules! explain_as_is {
    ($([$($generics:tt)*] $call:ty => $output:ty;)*) => {
        $(
            $crate::call::explain::explain!([$($generics)*] $call => $output);

            impl<$($generics)*> Future for $crate::call::Explained<$call, $output> {
                type Output = $crate::call::Explanation<Result<$output, QuorumError>>;

                /// # Panics
                /// When polled again after it was ready with the error of a call that was not made.
                fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                    let (call, watch) = self.parts();
                    call.0.poll_explained(watch, cx)
                }
            }
        )*
    };
}

pub(super) use {explain, explain_as_is};
