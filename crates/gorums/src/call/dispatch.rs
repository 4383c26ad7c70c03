//! How a terminal queues a call on its nodes.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::options::Options;
use crate::channel::{
    Call, Early, Event, EventKind, Kind, OutMessage, Pool, Targets, Unread, WakeAfter,
};
use crate::configuration::{Configuration, Interceptors, Node, Observers, intercept};
use crate::error::Status;
use crate::handler::refusal;
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{Clock, SystemClock};
use crate::wire::{PREFIX, Side, encode_message};

/// What is sent to whom.
pub(crate) enum Requests<'a, Req> {
    Same(&'a Req),
    /// By position; the nodes with none are left out.
    Each(&'a [Option<Req>]),
}

impl<Req> Requests<'_, Req> {
    pub(crate) fn members(&self, total: usize) -> usize {
        match self {
            Self::Same(_) => total,
            Self::Each(requests) => requests.iter().flatten().count(),
        }
    }

    pub(crate) fn is_left_out(&self, part: usize) -> bool {
        match self {
            Self::Same(_) => false,
            Self::Each(requests) => requests[part].is_none(),
        }
    }
}

/// Holds a call that somebody waits for: dropping it forgets the call, unless it is complete.
pub(crate) struct Handle {
    pub(crate) call: Arc<Call>,
    /// Keeps the connections open.
    keep: Keep,
    observers: Observers,
    cancelled: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    complete: bool,
}

pub(crate) enum Keep {
    Configuration(Configuration),
    Node(Node),
}

impl Handle {
    /// The next thing that happened; none when nothing more can.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        interest: WakeAfter,
    ) -> Poll<Option<Event>> {
        let mut polled = self.call.poll_event(cx, interest);
        // What has happened comes first.
        if polled.is_pending()
            && let Some(cancelled) = &mut self.cancelled
            && cancelled.as_mut().poll(cx).is_ready()
        {
            self.cancelled = None;
            self.call.end_early(Early::Cancelled);
            polled = self.call.poll_event(cx, interest);
        }
        if let Poll::Ready(Some(event)) = &polled {
            self.tell(event);
        }
        polled
    }

    /// What has happened already; none when nothing is known now.
    pub(crate) fn try_event(&mut self) -> Option<Event> {
        let event = self.call.try_event()?;
        self.tell(&event);
        Some(event)
    }

    fn tell(&self, event: &Event) {
        if self.observers.is_empty() {
            return;
        }
        let result = match &event.kind {
            EventKind::Reply(_) => Ok(()),
            EventKind::Ended if !self.call.is_streamed() => Ok(()),
            // All its replies were told.
            EventKind::Ended => return,
            EventKind::Failed(error) => Err(error),
        };
        let started = self.call.started();
        let elapsed = event
            .at
            .map_or_else(Default::default, |at| at.saturating_duration_since(started));
        let node = &self.keep.nodes()[event.part];
        self.observers
            .tell(node, self.call.method(), elapsed, result);
    }

    /// The call has what it wanted.
    pub(crate) fn complete(&mut self) {
        if !std::mem::replace(&mut self.complete, true) {
            self.call.complete();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.complete {
            self.call.forget();
        }
    }
}

impl From<Configuration> for Keep {
    fn from(configuration: Configuration) -> Self {
        Self::Configuration(configuration)
    }
}

impl From<Node> for Keep {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl Keep {
    fn targets(&self) -> Arc<Targets> {
        match self {
            Self::Configuration(configuration) => Arc::clone(configuration.targets()),
            Self::Node(node) => node.targets(),
        }
    }

    /// Those of the call's client, then those of the connections.
    fn interceptors(&self, options: &Options) -> Interceptors {
        let own = options.interceptors.clone();
        match self {
            Self::Configuration(configuration) => own.then(configuration.interceptors()),
            Self::Node(node) => own.then(node.members().interceptors()),
        }
    }

    fn nodes(&self) -> &[Node] {
        match self {
            Self::Configuration(configuration) => configuration.as_slice(),
            Self::Node(node) => std::slice::from_ref(node),
        }
    }
}

/// Queues a call on every node. All that fails at once is found in the handle.
pub(crate) fn start<Req: Message>(
    keep: impl Into<Keep>,
    method: &'static str,
    kind: Kind,
    options: &Options,
    requests: &Requests<'_, Req>,
) -> Handle {
    let keep = keep.into();
    let targets = keep.targets();
    let plan = Plan::new(&keep, &targets, method, options, requests);
    let (call, registered) = register(kind, &targets, requests, &plan);
    let handle = Handle {
        call: Arc::clone(&call),
        keep,
        cancelled: options
            .cancellation
            .as_ref()
            .map(|token| Box::pin(token.clone().cancelled_owned())),
        observers: plan.observers,
        complete: false,
    };
    let refused = registered.err().or(plan.refused);
    let frames = Frames::new(
        call.id(),
        method,
        &plan.metadata,
        options.max_encoding,
        requests,
    );
    for part in 0..targets.len() {
        if requests.is_left_out(part) {
            continue;
        }
        let rejected = plan.rejected.get(part).and_then(Option::as_ref);
        if let Some(status) = refused.as_ref().or(rejected) {
            call.fail_at_once(part, status);
        } else if let Some(early) = plan.early {
            call.end_at_once(part, early);
        } else if kind != Kind::OneWay
            && let Some(status) = refusal(|| targets.channels()[part].in_process())
        {
            call.fail_at_once(part, &status);
        } else {
            match frames.frame(part, targets.channels()[part].side()) {
                Ok(frame) => {
                    call.queue(part, frame);
                }
                Err(status) => call.fail_at_once(part, &status),
            }
        }
    }
    if plan.deadline.is_some() {
        call.settle_deadline();
    }
    handle
}

/// Queues a one-way call that nobody waits for, and tells which nodes did not take it.
pub(crate) fn detach<Req: Message>(
    keep: impl Into<Keep>,
    method: &'static str,
    options: &Options,
    requests: &Requests<'_, Req>,
) -> Vec<NodeId> {
    let keep = keep.into();
    let targets = keep.targets();
    let plan = Plan::new(&keep, &targets, method, options, requests);
    let members = (0..targets.len()).filter(|part| !requests.is_left_out(*part));
    let id_of = |part: usize| targets.channels()[part].id();
    if plan.refused.is_some() || plan.early.is_some() {
        return members.map(id_of).collect();
    }
    let is_rejected = |part: usize| plan.rejected.get(part).is_some_and(Option::is_some);
    if plan.deadline.is_some() {
        // The table keeps the call, so that what is not written by then is withdrawn.
        let (call, registered) = register(Kind::OneWay, &targets, requests, &plan);
        let frames = Frames::new(
            call.id(),
            method,
            &plan.metadata,
            options.max_encoding,
            requests,
        );
        return members
            .filter(|part| {
                registered.is_err()
                    || is_rejected(*part)
                    || !frames
                        .frame(*part, targets.channels()[*part].side())
                        .is_ok_and(|frame| call.queue(*part, frame))
            })
            .map(id_of)
            .collect();
    }
    let frames = Frames::new(
        Pool::next_id(),
        method,
        &plan.metadata,
        options.max_encoding,
        requests,
    );
    members
        .filter(|part| {
            let queued = frames
                .frame(*part, targets.channels()[*part].side())
                .and_then(|frame| targets.channels()[*part].queue(OutMessage::new(frame, None)));
            is_rejected(*part) || queued.is_err()
        })
        .map(id_of)
        .collect()
}

/// A call that is done when everything queued before it is with the connections.
pub(crate) fn flush(configuration: &Configuration) -> Handle {
    let targets = configuration.targets();
    let requests: Requests<'_, ()> = Requests::Same(&());
    let (call, registered) = register(Kind::OneWay, targets, &requests, &Plan::flush(now(targets)));
    for part in 0..targets.len() {
        match &registered {
            Ok(()) => call.queue_marker(part),
            Err(status) => call.fail_at_once(part, status),
        }
    }
    Handle {
        call,
        keep: configuration.clone().into(),
        observers: Observers::default(),
        cancelled: None,
        complete: false,
    }
}

/// What a call became by its options and its interceptors.
struct Plan<'a> {
    method: &'static str,
    now: Instant,
    metadata: Cow<'a, Metadata>,
    deadline: Option<Instant>,
    /// The call has ended before it begins.
    early: Option<Early>,
    /// Nothing is sent.
    refused: Option<Status>,
    /// By position: the nodes that get nothing. Empty where there are none.
    rejected: Vec<Option<Status>>,
    observers: Observers,
    unread: Unread,
}

impl<'a> Plan<'a> {
    fn new<Req>(
        keep: &Keep,
        targets: &Targets,
        method: &'static str,
        options: &'a Options,
        requests: &Requests<'_, Req>,
    ) -> Self {
        let now = now(targets);
        let mut plan = Self {
            method,
            now,
            metadata: Cow::Borrowed(&options.metadata),
            deadline: options.ends(now),
            early: None,
            refused: options.error.clone(),
            rejected: Vec::new(),
            observers: Observers::default(),
            unread: options.unread,
        };
        let is_left_out = |part| requests.is_left_out(part);
        if let Some(intercepted) = intercept(
            keep.interceptors(options),
            &options.metadata,
            method,
            keep.nodes(),
            plan.deadline,
            &is_left_out,
        ) {
            plan.metadata = Cow::Owned(intercepted.metadata);
            plan.deadline = intercepted.deadline;
            plan.rejected = intercepted.rejected;
            plan.refused = plan.refused.or(intercepted.refused);
            plan.observers = intercepted.observers;
        }
        plan.early = options.early(plan.deadline, now);
        plan
    }

    fn flush(now: Instant) -> Self {
        Self {
            method: "",
            now,
            metadata: Cow::Owned(Metadata::new()),
            deadline: None,
            early: None,
            refused: None,
            rejected: Vec::new(),
            observers: Observers::default(),
            unread: Unread::default(),
        }
    }
}

fn now(targets: &Targets) -> Instant {
    targets
        .pools()
        .first()
        .map_or_else(|| SystemClock.now(), |pool| pool.clock.now())
}

/// A new call, in the tables of all pools that its nodes belong to.
fn register<Req>(
    kind: Kind,
    targets: &Arc<Targets>,
    requests: &Requests<'_, Req>,
    plan: &Plan<'_>,
) -> (Arc<Call>, Result<(), Status>) {
    let members = requests.members(targets.len());
    loop {
        let call = Call::new(
            Pool::next_id(),
            plan.method,
            kind,
            Arc::clone(targets),
            members,
            plan.now,
        );
        let call = Arc::new(call.timed(!plan.observers.is_empty()).unread(plan.unread));
        if members == 0 {
            return (call, Ok(()));
        }
        let mut taken = true;
        for pool in targets.pools() {
            match pool.register(&call, plan.deadline) {
                Ok(inserted) => taken &= inserted,
                Err(_) => {
                    call.complete();
                    let status = Status::resource_exhausted(
                        "too many calls wait for replies (see ConfigurationBuilder::max_calls)",
                    );
                    return (call, Err(status));
                }
            }
        }
        if taken {
            return (call, Ok(()));
        }
        // An older call has the place of this id: the next id has another one.
        call.complete();
    }
}

/// The frames of a call: encoded once where all nodes get the same.
struct Frames<'a, Req> {
    id: u64,
    method: &'static str,
    metadata: &'a Metadata,
    limit: usize,
    requests: &'a Requests<'a, Req>,
    /// For nodes that this process connected to, and for those that connected.
    same: [OnceCell<Result<bytes::Bytes, Status>>; 2],
}

impl<'a, Req: Message> Frames<'a, Req> {
    fn new(
        id: u64,
        method: &'static str,
        metadata: &'a Metadata,
        limit: Option<usize>,
        requests: &'a Requests<'a, Req>,
    ) -> Self {
        Self {
            id,
            method,
            metadata,
            limit: limit.unwrap_or(u32::MAX as usize - PREFIX),
            requests,
            same: [const { OnceCell::new() }; 2],
        }
    }

    fn frame(&self, part: usize, side: Side) -> Result<bytes::Bytes, Status> {
        match self.requests {
            Requests::Same(request) => self.same[side as usize]
                .get_or_init(|| self.encode(request, side))
                .clone(),
            Requests::Each(requests) => match &requests[part] {
                Some(request) => self.encode(request, side),
                None => Err(Status::internal("the node was left out of the call")),
            },
        }
    }

    fn encode(&self, request: &Req, side: Side) -> Result<bytes::Bytes, Status> {
        let id = side.id_on_the_wire(self.id);
        encode_message(id, self.method, self.metadata, request, self.limit)
    }
}
