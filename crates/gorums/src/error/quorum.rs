use std::error::Error;
use std::fmt;

use super::{Code, NodeError, Outcome, Status};
use crate::node_id::NodeId;

/// Why a call on a configuration failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuorumErrorKind {
    /// So many nodes failed that the rest cannot make a quorum; or some did not answer, and the quorum
    /// function accepted no set of the replies of the others.
    Incomplete,
    /// All nodes have answered, some perhaps with an error, and the quorum function accepted no set of
    /// their replies; or the
    /// replies rule out that enough of them match, whatever the others say; or so many voted no that the others cannot be a quorum,
    /// whatever they say ([`votes`](crate::call::Quorum::votes)).
    NoQuorum,
    /// The call's timeout or deadline passed first.
    Deadline,
    /// The call was [cancelled](crate::call::QuorumCall::cancelled_by) first.
    Cancelled,
    /// A one-way call could not be handed to every node.
    SendFailure,
    /// The configuration's connections were closed.
    Closed,
    /// No set of replies could ever be a quorum: a threshold of zero or above the number of nodes,
    /// or a rule that needs a node that was left out. Nothing was sent.
    Impossible,
    /// [`by_quorum_fn`](crate::call::QuorumCall::by_quorum_fn) was called without a quorum
    /// function. Nothing was sent.
    NoQuorumFn,
}

/// A failed call on a configuration: why, and what happened at each node.
///
/// Its text is a head line and one line for each node that failed, for the first 16 of them and cut
/// at 156 characters, so that nine nodes fit on a screen; [`failures`](Self::failures) has all of
/// it. One pointer wide.
#[derive(Clone)]
pub struct QuorumError(Box<QuorumFailure>);

/// The contents of a [`QuorumError`], for the calls that make one.
#[derive(Debug, Clone)]
pub(crate) struct QuorumFailure {
    pub(crate) kind: QuorumErrorKind,
    pub(crate) method: &'static str,
    pub(crate) nodes: usize,
    /// How many of them may have got the request, or have failed: they were not left out, and their
    /// request was not withdrawn when the call failed.
    pub(crate) asked: usize,
    /// How many requests were withdrawn when the call failed.
    pub(crate) withdrawn: usize,
    /// How many replies were needed, for rules that count.
    pub(crate) needed: Option<usize>,
    pub(crate) replies: usize,
    pub(crate) failures: Vec<NodeError>,
    pub(crate) counted: Counted,
}

/// What a call counts the nodes by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    /// They answered.
    Replies,
    /// They answered, and said yes.
    Votes,
    /// Nobody answers: their connections took the message.
    Sent,
}

impl QuorumError {
    /// Why the call failed.
    #[must_use]
    pub fn kind(&self) -> QuorumErrorKind {
        self.0.kind
    }

    /// The method called, as `package.Service.Method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.0.method
    }

    /// The number of nodes in the configuration called.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.0.nodes
    }

    /// How many replies the call needed, where its rule is a number.
    #[must_use]
    pub fn needed(&self) -> Option<usize> {
        self.0.needed
    }

    /// The number of nodes that had answered with success when the call failed; where
    /// [votes](crate::call::Quorum::votes) are counted, of those that said yes; for a one-way call,
    /// of those that it was handed to.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.0.replies
    }

    /// What is known of the request at all nodes together: at the node at which the most may have
    /// happened.
    ///
    /// * [`NotSent`](Outcome::NotSent): no node has acted on it, and none will. To try again is
    ///   safe, whatever the method does.
    /// * [`Refused`](Outcome::Refused): some nodes answered, each with an error, a no
    ///   ([`votes`](crate::call::Quorum::votes)), or a reply that `map_response` rejected; no other
    ///   has acted on it, and none will. Whether a node that refuses has changed something first is
    ///   for the method to say.
    /// * [`Unknown`](Outcome::Unknown): at least one node has handled it, or may have, or may do so
    ///   yet. Try again only what may happen twice.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let QuorumFailure {
            asked,
            replies,
            failures,
            ..
        } = &*self.0;
        if *replies > 0 || failures.len() < *asked {
            return Outcome::Unknown;
        }
        let outcomes = failures.iter().map(NodeError::outcome);
        outcomes.max().unwrap_or(Outcome::NotSent)
    }

    /// How many nodes had neither answered nor failed when it was clear that the call would fail.
    fn not_awaited(&self) -> usize {
        let QuorumFailure {
            asked,
            withdrawn,
            replies,
            failures,
            ..
        } = &*self.0;
        (asked + withdrawn).saturating_sub(replies + failures.len())
    }

    /// What happened at each node that failed, by id.
    #[must_use]
    pub fn failures(&self) -> &[NodeError] {
        &self.0.failures
    }

    /// What happened at this node, if it failed.
    #[must_use]
    pub fn failure(&self, node: NodeId) -> Option<&NodeError> {
        self.0.failures.iter().find(|error| error.node() == node)
    }
}

impl From<QuorumFailure> for QuorumError {
    fn from(mut failure: QuorumFailure) -> Self {
        // In the order in which they failed, two texts of one fault would differ.
        failure.failures.sort_by_key(NodeError::node);
        Self(Box::new(failure))
    }
}

impl fmt::Debug for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuorumError")
            .field("kind", &self.0.kind)
            .field("method", &self.0.method)
            .field("nodes", &self.0.nodes)
            .field("needed", &self.0.needed)
            .field("replies", &self.0.replies)
            .field("failures", &self.0.failures)
            .finish()
    }
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuorumFailure {
            kind,
            method,
            nodes,
            needed,
            replies,
            failures,
            counted,
            ..
        } = &*self.0;
        let needed = needed.map_or(String::new(), |needed| format!(", {needed} needed"));
        let so_far = match counted {
            Counted::Replies => format!("{replies} of {nodes} nodes answered{needed}"),
            Counted::Votes => format!("{replies} of {nodes} nodes said yes{needed}"),
            Counted::Sent => format!("sent to {replies} of {nodes} nodes"),
        };
        match kind {
            QuorumErrorKind::Incomplete => {
                write!(f, "{method}: a quorum is out of reach: {so_far}")
            }
            QuorumErrorKind::NoQuorum => {
                write!(f, "{method}: no quorum among the replies: {so_far}")
            }
            QuorumErrorKind::Deadline => write!(f, "{method}: deadline exceeded: {so_far}"),
            QuorumErrorKind::Cancelled => write!(f, "{method}: cancelled: {so_far}"),
            QuorumErrorKind::SendFailure => write!(f, "{method}: {so_far}"),
            QuorumErrorKind::Closed => write!(f, "{method}: the configuration is closed: {so_far}"),
            QuorumErrorKind::NoQuorumFn => write!(
                f,
                "{method}: no quorum function is set: pass one to `with_quorum_fn`, on the call or \
                 among the client's defaults"
            ),
            QuorumErrorKind::Impossible => write!(
                f,
                "{method}: no quorum is possible in this configuration of {nodes} nodes{needed}"
            ),
        }?;
        for failure in failures.iter().take(LINES) {
            write!(f, "\n  {}", one_line(&failure.to_string()))?;
        }
        match failures.len().saturating_sub(LINES) {
            0 => {}
            more => write!(f, "\n  and {more} more nodes")?,
        }
        match (kind, self.not_awaited()) {
            (QuorumErrorKind::Incomplete, 1) => f.write_str("\n  1 other node was not waited for"),
            (QuorumErrorKind::Incomplete, others @ 2..) => {
                write!(f, "\n  {others} other nodes were not waited for")
            }
            _ => Ok(()),
        }
    }
}

/// How many nodes the text names.
const LINES: usize = 16;

/// How many characters of a failure are told: two lines on a terminal of 80 columns, less a margin.
const WIDTH: usize = 156;

/// A node's message may have lines of its own, and any length.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > WIDTH {
        line = line.chars().take(WIDTH - 1).chain(['…']).collect();
    }
    line
}

impl Error for QuorumError {
    /// The failure of the node with the lowest id.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .failures
            .first()
            .map(|failure| failure as &(dyn Error + 'static))
    }
}

/// Lets `?` work in a handler that makes quorum calls.
impl From<QuorumError> for Status {
    fn from(error: QuorumError) -> Self {
        let code = match error.kind() {
            QuorumErrorKind::Deadline => Code::DeadlineExceeded,
            QuorumErrorKind::Cancelled => Code::Cancelled,
            QuorumErrorKind::NoQuorum => Code::Aborted,
            QuorumErrorKind::Impossible | QuorumErrorKind::NoQuorumFn => Code::FailedPrecondition,
            QuorumErrorKind::Incomplete
            | QuorumErrorKind::SendFailure
            | QuorumErrorKind::Closed => Code::Unavailable,
        };
        Status::new(code, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(nodes: u32, message: &str) -> QuorumError {
        let failure = |id: u32| {
            NodeError::new(
                NodeId::from(id),
                format!("replica-{id}.example.org:8080").into(),
                Outcome::Unknown,
                Status::unavailable(message).with_source(std::io::Error::other("cable")),
            )
        };
        QuorumError::from(QuorumFailure {
            kind: QuorumErrorKind::Incomplete,
            method: "proto.Storage.ReadQC",
            nodes: nodes as usize,
            asked: nodes as usize,
            withdrawn: 0,
            needed: Some(nodes as usize / 2 + 1),
            replies: 0,
            failures: (1..=nodes).rev().map(failure).collect(),
            counted: Counted::Replies,
        })
    }

    #[test]
    fn nodes_are_named_by_id_and_not_in_the_order_in_which_they_failed() {
        let error = failed(3, "gone");
        let ids: Vec<_> = error.failures().iter().map(|e| e.node().get()).collect();
        assert_eq!(ids, [1, 2, 3]);
        let text = error.to_string();
        let lines = text.lines().skip(1).map(|line| &line[..8]);
        assert_eq!(
            lines.collect::<Vec<_>>(),
            ["  node 1", "  node 2", "  node 3"]
        );
    }

    #[test]
    fn those_that_were_not_waited_for_are_told() {
        let last = |asked, withdrawn, replies| {
            let QuorumError(mut failure) = failed(2, "gone");
            failure.nodes = 5;
            (failure.asked, failure.withdrawn, failure.replies) = (asked, withdrawn, replies);
            let text = QuorumError(failure).to_string();
            text.lines().last().expect("a line").to_owned()
        };
        for (asked, withdrawn, replies, told) in [
            (5, 0, 3, None),
            (5, 0, 1, Some("  2 other nodes were not waited for")),
            (3, 2, 1, Some("  2 other nodes were not waited for")),
            (5, 0, 2, Some("  1 other node was not waited for")),
            // One was left out of the call.
            (4, 0, 2, None),
        ] {
            let line = last(asked, withdrawn, replies);
            match told {
                Some(told) => assert_eq!(line, told),
                None => assert!(line.starts_with("  node 2"), "{line}"),
            }
        }
    }

    #[test]
    fn the_outcome_is_that_of_the_node_at_which_the_most_may_have_happened() {
        use Outcome::{NotSent, Refused, Unknown};
        let outcome = |asked: usize, replies: usize, outcomes: &[Outcome]| {
            let failure = |(id, outcome): (u32, &Outcome)| {
                let status = Status::unavailable("gone");
                NodeError::new(NodeId::from(id), "a:1".into(), *outcome, status)
            };
            let error = QuorumError::from(QuorumFailure {
                kind: QuorumErrorKind::Incomplete,
                method: "proto.Storage.WriteQC",
                nodes: 3,
                asked,
                withdrawn: 0,
                needed: Some(2),
                replies,
                failures: (1..).zip(outcomes).map(failure).collect(),
                counted: Counted::Replies,
            });
            error.outcome()
        };
        for (asked, replies, outcomes, expected) in [
            // Nothing was sent at all.
            (0, 0, &[][..], NotSent),
            (3, 0, &[NotSent, NotSent, NotSent], NotSent),
            // The third node was left out.
            (2, 0, &[NotSent, NotSent], NotSent),
            // The third node has not said anything yet.
            (3, 0, &[NotSent, NotSent], Unknown),
            (3, 0, &[NotSent, Refused, NotSent], Refused),
            (3, 0, &[Refused, NotSent, Unknown], Unknown),
            (3, 1, &[Refused, NotSent], Unknown),
        ] {
            assert_eq!(outcome(asked, replies, outcomes), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn nine_nodes_fit_on_a_screen_whatever_they_say() {
        let long = "stack backtrace:\n".repeat(1000);
        let text = failed(9, &long).to_string();
        let rows: usize = text
            .lines()
            .map(|line| line.chars().count().div_ceil(80))
            .sum();
        assert!(rows <= 24, "{rows} rows");
        for id in 1..=9 {
            assert!(
                text.contains(&format!("node {id} (replica-{id}.example.org:8080)")),
                "{text}"
            );
        }
    }

    #[test]
    fn many_nodes_are_counted_and_all_can_be_asked_for() {
        let error = failed(100, "gone");
        let text = error.to_string();
        assert_eq!(text.lines().count(), 18, "{text}");
        assert!(text.ends_with("and 84 more nodes"), "{text}");
        assert_eq!(error.failures().len(), 100);
    }

    #[test]
    fn the_cause_can_be_followed_to_its_end() {
        let error = failed(3, "gone");
        let node = error.source().expect("a node failed");
        assert!(node.is::<NodeError>());
        let status = node.source().expect("with a status");
        assert!(status.is::<Status>());
        let cause = status.source().expect("that has a cause");
        assert_eq!(cause.to_string(), "cable");
    }
}
