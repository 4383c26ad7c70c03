//! How a terminal queues a call on its nodes.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::handle::{Callees, Handle};
use super::held::{Beginning, Choice, Held};
use super::options::Options;
use crate::bounds::Bound;
use crate::channel::{Call, Early, Kind, OutMessage, Pool, Resending, Targets, WhilePaused};
use crate::configuration::{Configuration, Observers, intercept};
use crate::error::Status;
use crate::handler::{ServerCtx, refusal};
use crate::log;
use crate::metadata::Metadata;
use crate::node_id::NodeId;
use crate::runtime::{Clock, SystemClock};
use crate::wire::{PREFIX, Side, encode_message};

/// The request of each node.
pub(crate) enum Requests<'a, Req> {
    Same(&'a Req),
    /// One for each node, by position. A node without one is left out.
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

/// Queues a call on every node. All that fails at once is found in the handle.
#[inline]
pub(crate) fn start<Req: Message>(
    callees: Callees,
    method: &'static str,
    kind: Kind,
    options: &Options,
    requests: &Requests<'_, Req>,
) -> Handle {
    start_by(callees, method, kind, options, requests, None, &mut None)
}

/// The same, on the nodes that are chosen, if there is a choice. What is kept of the others is held.
// Not inlined: what it is made of is, as it has one caller.
#[inline(never)]
pub(crate) fn start_by<Req: Message>(
    callees: Callees,
    method: &'static str,
    kind: Kind,
    options: &Options,
    requests: &Requests<'_, Req>,
    choice: Option<&Choice<'_>>,
    held: &mut Option<Box<Held>>,
) -> Handle {
    let targets = callees.targets();
    let mut prepared = Prepared::new(&callees, &targets, method, kind, options, requests);
    *held = choice.and_then(|choice| prepared.choose(choice, &targets));
    let not_asked = held.as_ref().map_or(0, |held| held.len());
    let call = register(kind, &targets, requests, not_asked, &mut prepared);
    let observers = std::mem::take(&mut prepared.observers);
    tracing::trace!(
        target: log::CALL,
        method,
        call = call.id(),
        nodes = requests.members(targets.len()),
        "a call begins"
    );
    let handle = Handle::new(
        Arc::clone(&call),
        callees,
        observers,
        prepared.deadline,
        options,
        prepared.caller.take(),
    );
    let frames = Frames::new(call.id(), kind, &targets, &prepared, requests);
    frames.for_each(|part, frame| {
        if choice.is_some()
            && let Some(held) = held
            && held.has(part)
        {
            return held.keep(part, frame.map_err(NotSent::into_status));
        }
        match frame {
            Ok(frame) => {
                call.queue(part, frame);
            }
            Err(NotSent::Failed(status)) => call.fail_at_once(part, &status),
            Err(NotSent::Ended(early)) => call.end_at_once(part, early),
        }
    });
    if prepared.deadline.is_some() {
        call.settle_deadline();
    }
    handle
}

/// Queues a one-way call that nobody waits for, and tells which nodes did not take it.
pub(crate) fn detach<Req: Message>(
    callees: Callees,
    method: &'static str,
    options: &Options,
    requests: &Requests<'_, Req>,
) -> Vec<NodeId> {
    let kind = Kind::OneWay;
    let targets = callees.targets();
    let mut prepared = Prepared::new(&callees, &targets, method, kind, options, requests);
    // With a deadline the tables keep the call, so that what is not written by then is withdrawn.
    let is_kept = prepared.deadline.is_some() && prepared.is_sent();
    let call = is_kept.then(|| register(kind, &targets, requests, 0, &mut prepared));
    let id = match &call {
        Some(call) => call.id(),
        None => Pool::next_id(kind.of_method()),
    };
    let mut not_queued = Vec::new();
    let frames = Frames::new(id, kind, &targets, &prepared, requests);
    frames.for_each(|part, frame| {
        let channel = &targets.channels()[part];
        let queued = frame.is_ok_and(|frame| match &call {
            Some(call) => call.queue(part, frame),
            None => channel.queue(OutMessage::new(frame, None)).is_ok(),
        });
        if !queued {
            tracing::debug!(
                target: log::CALL,
                method,
                call = id,
                node = channel.id().get(),
                address = %channel.address(),
                "a message was not queued"
            );
            not_queued.push(channel.id());
        }
    });
    not_queued
}

/// A call that is done when everything queued before it is with the connections.
pub(crate) fn flush(configuration: &Configuration) -> Handle {
    let targets = configuration.targets();
    let requests: Requests<'_, ()> = Requests::Same(&());
    let options = Options::default();
    let kind = Kind::OneWay;
    let mut prepared = Prepared::plain("", kind, now(targets), &options);
    let call = register(kind, targets, &requests, 0, &mut prepared);
    for part in 0..targets.len() {
        match &prepared.refused {
            None => call.queue_marker(part),
            Some(status) => call.fail_at_once(part, status),
        }
    }
    Handle::new(
        call,
        Callees::Configuration(configuration.clone()),
        prepared.observers,
        None,
        &options,
        None,
    )
}

/// What a call became by its options and its interceptors.
struct Prepared<'a> {
    method: &'static str,
    now: Instant,
    metadata: Cow<'a, Metadata>,
    max_encoding: Option<usize>,
    is_idempotent: bool,
    while_paused: WhilePaused,
    deadline: Option<Instant>,
    /// The same, as nodes are told of it.
    told: Option<Instant>,
    /// The request on whose behalf the call is made.
    caller: Option<ServerCtx>,
    /// The call has ended before it begins.
    early: Option<Early>,
    /// The call fails, and nothing is sent.
    refused: Option<Status>,
    /// By position: why a node gets nothing. Empty where every node gets something.
    rejected: Vec<Option<Status>>,
    observers: Observers,
}

impl<'a> Prepared<'a> {
    fn new<Req>(
        callees: &Callees,
        targets: &Targets,
        method: &'static str,
        kind: Kind,
        options: &'a Options,
        requests: &Requests<'_, Req>,
    ) -> Self {
        let mut prepared = Self::plain(method, kind, now(targets), options);
        let is_left_out = |part| requests.is_left_out(part);
        if let Some(intercepted) = intercept(
            callees.interceptors(options),
            &options.metadata,
            method,
            callees.nodes(),
            prepared.deadline,
            &is_left_out,
        ) {
            prepared.metadata = Cow::Owned(intercepted.metadata);
            prepared.deadline = intercepted.deadline;
            prepared.rejected = intercepted.rejected;
            prepared.refused = prepared.refused.or(intercepted.refused);
            prepared.observers = intercepted.observers;
        }
        prepared.early = options.early(prepared.deadline, prepared.caller.as_ref(), prepared.now);
        prepared
    }

    /// A call that no interceptor sees.
    #[inline]
    fn plain(method: &'static str, kind: Kind, now: Instant, options: &'a Options) -> Self {
        let caller = options.caller(kind == Kind::OneWay);
        let inherited = caller.as_ref().and_then(ServerCtx::deadline);
        let with_inherited = |own: Option<Instant>| match (own, inherited) {
            (Some(own), Some(inherited)) => Some(own.min(inherited)),
            (own, inherited) => own.or(inherited),
        };
        let deadline = with_inherited(options.ends(now));
        let told = match kind {
            // It is over when it is handed over, which is what its timeout is for.
            Kind::OneWay => with_inherited(options.deadline),
            _ => deadline,
        };
        Self {
            method,
            now,
            metadata: Cow::Borrowed(&options.metadata),
            max_encoding: options.max_encoding,
            is_idempotent: options.is_idempotent,
            while_paused: options.while_paused,
            deadline,
            told,
            caller,
            early: None,
            refused: options.error.clone(),
            rejected: Vec::new(),
            observers: Observers::default(),
        }
    }

    /// Chooses the nodes to ask at first. Where none is asked at all, all are to fail at once.
    #[cold]
    fn choose(&self, choice: &Choice<'_>, targets: &Targets) -> Option<Box<Held>> {
        if !self.is_sent() {
            return None;
        }
        choice.choose(&Beginning {
            targets,
            method: self.method,
            rejected: &self.rejected,
            now: self.now,
            deadline: self.deadline,
        })
    }

    /// Whether any node may get the request.
    fn is_sent(&self) -> bool {
        self.refused.is_none() && self.early.is_none()
    }
}

fn now(targets: &Targets) -> Instant {
    targets
        .pools()
        .first()
        .map_or_else(|| SystemClock.now(), |pool| pool.clock.now())
}

/// A new call, in the tables of all pools that its nodes belong to. Where one of them is full, the
/// call is refused. So many of the nodes are not asked at first.
fn register<Req>(
    kind: Kind,
    targets: &Arc<Targets>,
    requests: &Requests<'_, Req>,
    not_asked: usize,
    prepared: &mut Prepared<'_>,
) -> Arc<Call> {
    let members = requests.members(targets.len()) - not_asked;
    loop {
        let call = Call::new(
            Pool::next_id(kind.of_method()),
            prepared.method,
            kind,
            Arc::clone(targets),
            members,
            prepared.now,
        );
        let is_timed = !prepared.observers.is_empty();
        let resending = Resending::of(prepared.is_idempotent, prepared.deadline);
        let call = call.timed(is_timed).ending(prepared.told);
        let call = call.while_paused(prepared.while_paused);
        let mut call = Arc::new(call.resending(resending));
        // In its place, as calls would be copied once more: nobody else has this one yet.
        if not_asked > 0
            && let Some(call) = Arc::get_mut(&mut call)
        {
            call.hold();
        }
        if members == 0 {
            return call;
        }
        let mut taken = true;
        for pool in targets.pools() {
            match pool.register(&call, prepared.deadline) {
                Ok(inserted) => taken &= inserted,
                Err(_) => {
                    call.complete();
                    pool.reached.add(Bound::Calls);
                    let admission = pool.refusals.admit(prepared.now);
                    log::event!(
                        admission.is_told => warn or debug,
                        target: log::CALL,
                        method = call.method(),
                        max_calls = pool.settings.max_calls,
                        left_out = admission.left_out,
                        "too many calls wait for replies"
                    );
                    prepared.refused = Some(Status::resource_exhausted(
                        "too many calls wait for replies (see ConfigurationBuilder::max_calls)",
                    ));
                    return call;
                }
            }
        }
        if taken {
            return call;
        }
        // An older call has the place of this id: the next id has another one.
        call.complete();
    }
}

/// Why a node gets nothing.
enum NotSent {
    Failed(Status),
    /// The call has ended before it begins.
    Ended(Early),
}

impl NotSent {
    fn into_status(self) -> Status {
        match self {
            Self::Failed(status) => status,
            Self::Ended(early) => early.status_at_once(),
        }
    }
}

/// What each node gets. A request that is the same for all is encoded once for each side.
struct Frames<'a, Req> {
    id: u64,
    kind: Kind,
    targets: &'a Targets,
    prepared: &'a Prepared<'a>,
    requests: &'a Requests<'a, Req>,
    /// For nodes that this process connected to, and for those that connected.
    same: [OnceCell<Result<Bytes, Status>>; 2],
}

impl<'a, Req: Message> Frames<'a, Req> {
    fn new(
        id: u64,
        kind: Kind,
        targets: &'a Targets,
        prepared: &'a Prepared<'a>,
        requests: &'a Requests<'a, Req>,
    ) -> Self {
        Self {
            id,
            kind,
            targets,
            prepared,
            requests,
            same: [const { OnceCell::new() }; 2],
        }
    }

    /// Goes through the nodes that are not left out.
    fn for_each(&self, mut queue: impl FnMut(usize, Result<Bytes, NotSent>)) {
        for part in 0..self.targets.len() {
            if !self.requests.is_left_out(part) {
                queue(part, self.frame(part));
            }
        }
    }

    #[inline]
    fn frame(&self, part: usize) -> Result<Bytes, NotSent> {
        let rejected = self.prepared.rejected.get(part).and_then(Option::as_ref);
        if let Some(status) = self.prepared.refused.as_ref().or(rejected) {
            return Err(NotSent::Failed(status.clone()));
        }
        if let Some(early) = self.prepared.early {
            return Err(NotSent::Ended(early));
        }
        let channel = &self.targets.channels()[part];
        if self.kind != Kind::OneWay
            && let Some(status) = refusal(|| channel.in_process())
        {
            return Err(NotSent::Failed(status));
        }
        let side = channel.side();
        match self.requests {
            Requests::Same(request) => self.same[side as usize]
                .get_or_init(|| self.encode(request, side))
                .clone(),
            Requests::Each(requests) => match &requests[part] {
                Some(request) => self.encode(request, side),
                None => Err(Status::internal("the node was left out of the call")),
            },
        }
        .map_err(NotSent::Failed)
    }

    fn encode(&self, request: &Req, side: Side) -> Result<Bytes, Status> {
        let Prepared {
            method,
            metadata,
            max_encoding,
            ..
        } = self.prepared;
        let id = side.id_on_the_wire(self.id);
        let limit = max_encoding.unwrap_or(u32::MAX as usize - PREFIX);
        let encoded = encode_message(id, method, metadata, request, limit);
        if encoded.is_err() {
            let pools = self.targets.pools().iter();
            pools.for_each(|pool| pool.reached.add(Bound::RequestSent));
        }
        encoded
    }
}
