//! A call that somebody waits for.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::{Handle as Runtime, Id};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::options::Options;
use crate::channel::{Call, Early, Event, EventKind, Targets, WakeAfter};
use crate::configuration::{Configuration, Interceptors, Node, Observers};
use crate::handler::ServerCtx;
use crate::log;
use crate::runtime::BoxFuture;

/// A call that somebody waits for. Dropping it gives the call up, unless it is complete.
pub(crate) struct Handle {
    pub(crate) call: Arc<Call>,
    /// Holds the nodes, so that their connections stay open.
    callees: Callees,
    observers: Observers,
    cancelled: Option<BoxFuture<'static, ()>>,
    /// Until the connections' runtime is known to see to it.
    deadline: Option<Instant>,
    /// Where it is the task that waits, in the runtime with this id.
    timer: Option<(Id, BoxFuture<'static, ()>)>,
    /// The call is complete, or was given up.
    over: bool,
    /// How many nodes have failed, as far as the task that waits has heard.
    failures: usize,
    /// The call has failed, and the log says so.
    is_told: bool,
}

/// The nodes that are called.
pub(crate) enum Callees {
    Configuration(Configuration),
    Node(Node),
}

impl Handle {
    #[inline]
    pub(crate) fn new(
        call: Arc<Call>,
        callees: Callees,
        observers: Observers,
        deadline: Option<Instant>,
        options: &Options,
        caller: Option<ServerCtx>,
    ) -> Self {
        Self {
            call,
            callees,
            observers,
            cancelled: cancelled(options.cancellation.as_ref(), caller),
            deadline,
            timer: None,
            over: false,
            failures: 0,
            is_told: false,
        }
    }

    /// The next event; none when no more can come.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        wake_after: WakeAfter,
    ) -> Poll<Option<Event>> {
        let mut polled = self.call.poll_event(cx, wake_after);
        // Events from before the cancellation come first.
        if polled.is_pending()
            && let Some(cancelled) = &mut self.cancelled
            && cancelled.as_mut().poll(cx).is_ready()
        {
            self.cancelled = None;
            self.call.end_early(Early::Cancelled);
            polled = self.call.poll_event(cx, wake_after);
        }
        if polled.is_pending() && self.poll_deadline(cx).is_ready() {
            self.call.end_early(Early::Deadline);
            polled = self.call.poll_event(cx, wake_after);
        }
        if let Poll::Ready(Some(event)) = &polled {
            self.tell(event);
        }
        polled
    }

    /// Ready at the deadline where this task has to see to it: the runtime of the connections, which
    /// does that else, is another one than this task's, and perhaps nobody drives it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let Ok(here) = Runtime::try_current() else {
            return Poll::Pending;
        };
        let here = here.id();
        // A timer is of the runtime that it was made in.
        if self.timer.as_ref().is_none_or(|(id, _)| *id != here) {
            let mut pools = self.call.targets().pools().iter();
            let elsewhere = pools.find(|pool| pool.is_driven_elsewhere(here));
            // A runtime without timers cannot, and the connections' does it as ever.
            let timed = elsewhere.filter(|pool| pool.clock.check_runtime().is_ok());
            self.timer = timed.map(|pool| (here, pool.clock.sleep_until(deadline)));
        }
        let Some((_, timer)) = &mut self.timer else {
            self.deadline = None;
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        (self.deadline, self.timer) = (None, None);
        Poll::Ready(())
    }

    /// The next event, if it has happened already.
    pub(crate) fn try_event(&mut self) -> Option<Event> {
        let event = self.call.try_event()?;
        self.tell(&event);
        Some(event)
    }

    fn tell(&mut self, event: &Event) {
        if let EventKind::Failed(error) = &event.kind {
            self.failures += 1;
            tracing::debug!(
                target: log::CALL,
                method = self.method(),
                call = self.call.id(),
                node = error.node().get(),
                address = error.address(),
                outcome = %error.outcome(),
                error = %log::text(error.status()),
                "a node failed"
            );
        }
        if self.observers.is_empty() {
            return;
        }
        let result = match &event.kind {
            EventKind::Reply(_) => Ok(()),
            EventKind::Ended if !self.call.is_streamed() => Ok(()),
            // Each of its replies was told when it came.
            EventKind::Ended => return,
            EventKind::Failed(error) => Err(error),
        };
        let asked = self.call.asked_at(event.part);
        let elapsed = event
            .at
            .map_or_else(Default::default, |at| at.saturating_duration_since(asked));
        let node = &self.callees.nodes()[event.part];
        self.observers
            .tell(node, self.call.method(), elapsed, result);
    }

    /// The call failed.
    pub(crate) fn tell_failure(&mut self, error: &dyn std::fmt::Display) {
        self.is_told = true;
        tracing::debug!(
            target: log::CALL,
            method = self.method(),
            call = self.call.id(),
            nodes = self.call.targets().len(),
            failures = self.failures,
            took_ms = self.took_ms(),
            error = %log::text(error),
            "a call failed"
        );
    }

    /// The call is over, and has not failed.
    fn tell_end(&self) {
        // Where all nodes are done with it, there was nothing left to give up.
        if self.over || self.call.is_over() {
            tracing::debug!(
                target: log::CALL,
                method = self.method(),
                call = self.call.id(),
                nodes = self.call.targets().len(),
                failures = self.failures,
                took_ms = self.took_ms(),
                "a call is complete"
            );
        } else {
            tracing::debug!(
                target: log::CALL,
                method = self.method(),
                call = self.call.id(),
                nodes = self.call.targets().len(),
                failures = self.failures,
                took_ms = self.took_ms(),
                "a call was given up"
            );
        }
    }

    fn method(&self) -> &'static str {
        match self.call.method() {
            "" => "flush",
            method => method,
        }
    }

    fn took_ms(&self) -> u64 {
        log::millis(self.elapsed())
    }

    /// How long ago the call began. Zero for one of no node.
    pub(crate) fn elapsed(&self) -> Duration {
        let pool = self.call.targets().pools().first();
        pool.map_or(Duration::ZERO, |pool| {
            let now = pool.clock.now();
            now.saturating_duration_since(self.call.started())
        })
    }

    /// The call succeeded: when it is dropped, nothing is withdrawn.
    pub(crate) fn complete(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.call.complete();
        }
    }

    /// Nobody waits for the call any more: what is queued is withdrawn, of so many nodes.
    pub(crate) fn give_up(&mut self) -> usize {
        match std::mem::replace(&mut self.over, true) {
            false => self.call.forget(),
            true => 0,
        }
    }
}

/// Ready when the call is cancelled, by its token or with the request on whose behalf it is made.
#[inline]
fn cancelled(
    token: Option<&CancellationToken>,
    caller: Option<ServerCtx>,
) -> Option<BoxFuture<'static, ()>> {
    let token = token.map(|token| token.clone().cancelled_owned());
    match (token, caller) {
        (None, None) => None,
        (Some(token), None) => Some(Box::pin(token)),
        (None, Some(caller)) => Some(Box::pin(async move { caller.cancelled().await })),
        (Some(token), Some(caller)) => Some(Box::pin(async move {
            tokio::select! {
                biased;
                () = token => {}
                () = caller.cancelled() => {}
            }
        })),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell_end();
        }
        self.give_up();
    }
}

impl Callees {
    pub(crate) fn targets(&self) -> Arc<Targets> {
        match self {
            Self::Configuration(configuration) => Arc::clone(configuration.targets()),
            Self::Node(node) => node.targets(),
        }
    }

    /// The interceptors of the call's client, then those of the connections.
    pub(crate) fn interceptors(&self, options: &Options) -> Interceptors {
        let own = options.interceptors.clone();
        match self {
            Self::Configuration(configuration) => own.then(configuration.interceptors()),
            Self::Node(node) => own.then(node.members().interceptors()),
        }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        match self {
            Self::Configuration(configuration) => configuration.as_slice(),
            Self::Node(node) => std::slice::from_ref(node),
        }
    }
}
