use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::handle::Handle;
use crate::channel::{EventKind, WakeAfter};
use crate::error::{Counted, NodeError, QuorumError, QuorumErrorKind, QuorumFailure};
use crate::node_id::NodeId;

/// A one-way call that was queued: ready when every node's connection has taken the message.
///
/// Dropping it withdraws what is not written yet.
#[must_use = "dropping it withdraws what is not written; `detach` sends without waiting"]
pub struct Sent<E> {
    handle: Handle,
    method: &'static str,
    nodes: usize,
    handed_over: usize,
    failures: Vec<NodeError>,
    error: PhantomData<fn() -> E>,
}

impl<E> Sent<E> {
    pub(crate) fn new(handle: Handle, method: &'static str, nodes: usize) -> Self {
        Self {
            handle,
            method,
            nodes,
            handed_over: 0,
            failures: Vec::new(),
            error: PhantomData,
        }
    }

    /// Ready when all parts are done.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wait_for_all = WakeAfter {
            replies: usize::MAX,
            failures: usize::MAX,
        };
        while let Some(event) = ready!(self.handle.poll_event(cx, wait_for_all)) {
            match event.kind {
                EventKind::Failed(error) => self.failures.push(error),
                EventKind::Ended | EventKind::Reply(_) => self.handed_over += 1,
            }
        }
        self.handle.complete();
        Poll::Ready(())
    }
}

impl<E> fmt::Debug for Sent<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("method", &self.method)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl Future for Sent<NodeError> {
    type Output = Result<(), NodeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.poll_done(cx));
        Poll::Ready(match self.failures.pop() {
            None => Ok(()),
            Some(error) => {
                self.handle.tell_failure(&error);
                Err(error)
            }
        })
    }
}

impl Future for Sent<QuorumError> {
    type Output = Result<(), QuorumError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.poll_done(cx));
        if self.failures.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let failures = std::mem::take(&mut self.failures);

        let error = QuorumFailure {
            kind: match self.handle.call.early() {
                Some(early) => early.into(),
                None => QuorumErrorKind::SendFailure,
            },
            method: self.method,
            nodes: self.nodes,
            asked: self.nodes,
            withdrawn: 0,
            needed: None,
            replies: self.handed_over,
            failures,
            counted: Counted::Sent,
        }
        .into();
        self.handle.tell_failure(&error);
        Poll::Ready(Err(error))
    }
}

/// The nodes that did not take a detached message: their outbox was full or closed, or the message
/// could not be encoded. Usually none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotQueued(Vec<NodeId>);

impl NotQueued {
    pub(crate) fn new(nodes: Vec<NodeId>) -> Self {
        Self(nodes)
    }

    /// How many nodes did not take it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether every node took it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes that did not take it.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().copied()
    }
}
