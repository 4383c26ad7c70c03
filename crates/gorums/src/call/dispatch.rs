//! How a terminal queues a call on its nodes.

use std::sync::Arc;

use prost::Message;
use tokio::time::Instant;

use super::options::Options;
use super::state::{Call, Kind};
use crate::configuration::{Configuration, Node, NodeId};
use crate::connection::{OutMessage, Pool, Targets};
use crate::error::Status;
use crate::runtime::{Clock, SystemClock};
use crate::wire::{PREFIX, encode_message};

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
    _keep: Keep,
    complete: bool,
}

pub(crate) enum Keep {
    Configuration(Configuration),
    Node(Node),
}

impl Handle {
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
    let now = now(&targets);
    let deadline = options.ends(now);
    let (call, registered) = register(method, kind, &targets, requests, now, deadline);
    let handle = Handle {
        call: Arc::clone(&call),
        _keep: keep,
        complete: false,
    };
    let refused = registered.err().or_else(|| options.error.clone());
    let frames = Frames::new(call.id(), method, options, requests);
    for part in 0..targets.len() {
        if requests.is_left_out(part) {
            continue;
        }
        if let Some(status) = &refused {
            call.fail_at_once(part, status);
        } else if deadline.is_some_and(|deadline| deadline <= now) {
            call.expire_at_once(part);
        } else {
            match frames.frame(part) {
                Ok(frame) => {
                    call.queue(part, frame);
                }
                Err(status) => call.fail_at_once(part, &status),
            }
        }
    }
    if deadline.is_some() {
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
    let now = now(&targets);
    let deadline = options.ends(now);
    let members = (0..targets.len()).filter(|part| !requests.is_left_out(*part));
    let id_of = |part: usize| targets.channels()[part].id();
    if options.error.is_some() || deadline.is_some_and(|deadline| deadline <= now) {
        return members.map(id_of).collect();
    }
    if deadline.is_some() {
        // The table keeps the call, so that what is not written by then is withdrawn.
        let (call, registered) = register(method, Kind::OneWay, &targets, requests, now, deadline);
        let frames = Frames::new(call.id(), method, options, requests);
        return members
            .filter(|part| {
                registered.is_err()
                    || !frames
                        .frame(*part)
                        .is_ok_and(|frame| call.queue(*part, frame))
            })
            .map(id_of)
            .collect();
    }
    let frames = Frames::new(Pool::next_id(), method, options, requests);
    members
        .filter(|part| {
            let queued = frames
                .frame(*part)
                .and_then(|frame| targets.channels()[*part].queue(OutMessage::new(frame, None)));
            queued.is_err()
        })
        .map(id_of)
        .collect()
}

/// A call that is done when everything queued before it is with the connections.
pub(crate) fn flush(configuration: &Configuration) -> Handle {
    let targets = configuration.targets();
    let requests: Requests<'_, ()> = Requests::Same(&());
    let (call, registered) = register("", Kind::OneWay, targets, &requests, now(targets), None);
    for part in 0..targets.len() {
        match &registered {
            Ok(()) => call.queue_marker(part),
            Err(status) => call.fail_at_once(part, status),
        }
    }
    Handle {
        call,
        _keep: configuration.clone().into(),
        complete: false,
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
    method: &'static str,
    kind: Kind,
    targets: &Arc<Targets>,
    requests: &Requests<'_, Req>,
    now: Instant,
    deadline: Option<Instant>,
) -> (Arc<Call>, Result<(), Status>) {
    let members = requests.members(targets.len());
    loop {
        let call = Arc::new(Call::new(
            Pool::next_id(),
            method,
            kind,
            Arc::clone(targets),
            members,
            now,
        ));
        if members == 0 {
            return (call, Ok(()));
        }
        let mut taken = true;
        for pool in targets.pools() {
            match pool.register(&call, deadline) {
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
    options: &'a Options,
    requests: &'a Requests<'a, Req>,
    same: Option<Result<bytes::Bytes, Status>>,
}

impl<'a, Req: Message> Frames<'a, Req> {
    fn new(
        id: u64,
        method: &'static str,
        options: &'a Options,
        requests: &'a Requests<'a, Req>,
    ) -> Self {
        let mut frames = Self {
            id,
            method,
            options,
            requests,
            same: None,
        };
        if let Requests::Same(request) = requests {
            frames.same = Some(frames.encode(request));
        }
        frames
    }

    fn frame(&self, part: usize) -> Result<bytes::Bytes, Status> {
        match (&self.same, self.requests) {
            (Some(frame), _) => frame.clone(),
            (None, Requests::Same(request)) => self.encode(request),
            (None, Requests::Each(requests)) => match &requests[part] {
                Some(request) => self.encode(request),
                None => Err(Status::internal("the node was left out of the call")),
            },
        }
    }

    fn encode(&self, request: &Req) -> Result<bytes::Bytes, Status> {
        let limit = self
            .options
            .max_encoding
            .unwrap_or(u32::MAX as usize - PREFIX);
        encode_message(self.id, self.method, &self.options.metadata, request, limit)
    }
}
