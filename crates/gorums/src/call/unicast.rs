use std::future::IntoFuture;

use prost::Message;

use super::dispatch::{Requests, detach, start};
use super::handle::Callees;
use super::options::{Options, options};
use super::sent::{NotQueued, Sent};
use crate::channel::Kind;
use crate::configuration::Node;
use crate::error::NodeError;

/// A one-way message to one node. Queued by [`send`](Self::send), [`detach`](Self::detach) or by
/// awaiting it.
#[must_use = "a call is queued when `send` or `detach` is called or when it is awaited"]
#[derive(Debug, Clone)]
pub struct Unicast<Req> {
    node: Node,
    method: &'static str,
    request: Req,
    options: Options,
}

impl<Req: Message> Unicast<Req> {
    pub(crate) fn new(node: Node, method: &'static str, request: Req, options: Options) -> Self {
        Self {
            node,
            method,
            request,
            options,
        }
    }

    options!();

    /// Queues the message now. The future is ready when it was handed to the connection: taken by
    /// its flow control, and written to the socket or to the small buffer in front of it. That says
    /// nothing about the handler.
    pub fn send(self) -> Sent<NodeError> {
        let handle = start(
            Callees::Node(self.node),
            self.method,
            Kind::OneWay,
            &self.options,
            &Requests::Same(&self.request),
        );
        Sent::new(handle, self.method, 1)
    }

    /// Queues the message now, and nobody waits. What happens to it later is silent, but for the
    /// node's [`last_error`](Node::last_error).
    pub fn detach(self) -> NotQueued {
        NotQueued::new(detach(
            Callees::Node(self.node),
            self.method,
            &self.options,
            &Requests::Same(&self.request),
        ))
    }
}

impl<Req: Message> IntoFuture for Unicast<Req> {
    type Output = Result<(), NodeError>;
    type IntoFuture = Sent<NodeError>;

    fn into_future(self) -> Sent<NodeError> {
        self.send()
    }
}
