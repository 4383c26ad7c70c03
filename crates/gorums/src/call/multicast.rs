use std::future::IntoFuture;

use prost::Message;

use super::dispatch::{Requests, detach, start};
use super::handle::Callees;
use super::options::{Options, options};
use super::quorum_call::PerNode;
use super::sent::{NotQueued, Sent};
use crate::channel::Kind;
use crate::configuration::{Configuration, Node};
use crate::error::QuorumError;

/// A one-way message to all nodes. Queued by [`send`](Self::send), [`detach`](Self::detach) or by
/// awaiting it.
#[must_use = "a call is queued when `send` or `detach` is called or when it is awaited"]
#[derive(Debug, Clone)]
pub struct Multicast<Req> {
    configuration: Configuration,
    method: &'static str,
    requests: PerNode<Req>,
    options: Options,
}

impl<Req: Message> Multicast<Req> {
    pub(crate) fn new(
        configuration: Configuration,
        method: &'static str,
        request: Req,
        options: Options,
    ) -> Self {
        Self {
            configuration,
            method,
            requests: PerNode::new(request),
            options,
        }
    }

    options!();

    /// Gives each node a message of its own; `None` leaves the node out. Runs now, in the order of
    /// the configuration. Called again, it maps what the last one made.
    #[must_use = "a call is queued when `send` or `detach` is called or when it is awaited"]
    pub fn map_request(mut self, map: impl FnMut(&Node, &Req) -> Option<Req>) -> Self {
        self.requests.map(&self.configuration, map);
        self
    }

    /// Queues the message on every node now. The future is ready when it was handed to the slowest
    /// connection; it fails if any node did not take it, and names each. Bound it by a timeout: a
    /// silent node is waited for until keep-alive finds it dead.
    pub fn send(self) -> Sent<QuorumError> {
        let members = self.requests.requests().members(self.configuration.len());
        let handle = start(
            Callees::Configuration(self.configuration),
            self.method,
            Kind::OneWay,
            &self.options,
            &self.requests.requests(),
        );
        Sent::new(handle, self.method, members)
    }

    /// Queues the message on every node now, and nobody waits. The nodes that did not take it are
    /// known at once; what happens to it later is silent, but for
    /// [`last_error`](Node::last_error).
    pub fn detach(self) -> NotQueued {
        let requests: Requests<'_, Req> = self.requests.requests();
        NotQueued::new(detach(
            Callees::Configuration(self.configuration.clone()),
            self.method,
            &self.options,
            &requests,
        ))
    }
}

impl<Req: Message> IntoFuture for Multicast<Req> {
    type Output = Result<(), QuorumError>;
    type IntoFuture = Sent<QuorumError>;

    fn into_future(self) -> Sent<QuorumError> {
        self.send()
    }
}
