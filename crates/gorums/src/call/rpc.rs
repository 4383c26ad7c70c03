use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::Message;

use super::collect::decode_reply;
use super::dispatch::{Requests, start};
use super::handle::{Callees, Handle};
use super::options::{Options, answered_options, options};
use crate::channel::{EventKind, Kind, WakeAfter};
use crate::configuration::Node;
use crate::error::{NodeError, Outcome, Status};

/// A request to one node and its reply. Queued by [`send`](Self::send) or by awaiting it.
#[must_use = "a call is queued when `send` is called or when it is awaited"]
#[derive(Debug, Clone)]
pub struct Rpc<Req, Resp> {
    node: Node,
    method: &'static str,
    request: Req,
    options: Options,
    response: PhantomData<fn() -> Resp>,
}

impl<Req: Message, Resp: Message + Default> Rpc<Req, Resp> {
    pub(crate) fn new(node: Node, method: &'static str, request: Req, options: Options) -> Self {
        Self {
            node,
            method,
            request,
            options,
            response: PhantomData,
        }
    }

    options!();
    answered_options!();

    /// Queues the request now and returns the reply's future. Requests that are sent one after the
    /// other start in this order at the node, whatever is awaited when.
    pub fn send(self) -> Unary<Resp> {
        let handle = start(
            Callees::Node(self.node.clone()),
            self.method,
            Kind::Unary,
            &self.options,
            &Requests::Same(&self.request),
        );
        Unary {
            handle: Some(handle),
            node: self.node,
            max_decoding: self.options.max_decoding,
            response: PhantomData,
        }
    }
}

impl<Req: Message, Resp: Message + Default> IntoFuture for Rpc<Req, Resp> {
    type Output = Result<Resp, NodeError>;
    type IntoFuture = Unary<Resp>;

    fn into_future(self) -> Unary<Resp> {
        self.send()
    }
}

/// The reply of one node. Dropping it gives the call up: what is not written is withdrawn.
#[must_use = "dropping it gives the call up"]
pub struct Unary<Resp> {
    handle: Option<Handle>,
    node: Node,
    max_decoding: Option<usize>,
    response: PhantomData<fn() -> Resp>,
}

impl<Resp> fmt::Debug for Unary<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unary").field("node", &self.node).finish()
    }
}

impl<Resp: Message + Default> Future for Unary<Resp> {
    type Output = Result<Resp, NodeError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = this.handle.as_mut();
        let handle = handle.expect("a future is not polled after it was ready");
        let event = ready!(handle.poll_event(cx, WakeAfter::ANY));
        handle.complete();
        let fail = |outcome, status| this.node.channel().error(outcome, status);
        let result = match event.map(|event| event.kind) {
            Some(EventKind::Reply(payload)) => decode_reply(&payload, this.max_decoding)
                .map_err(|status| fail(Outcome::Unknown, status)),
            Some(EventKind::Failed(error)) => Err(error),
            Some(EventKind::Ended) | None => Err(fail(
                Outcome::Unknown,
                Status::internal("the call ended without a reply"),
            )),
        };
        if let Err(error) = &result {
            handle.tell_failure(error);
        }
        this.handle = None;
        Poll::Ready(result)
    }
}
