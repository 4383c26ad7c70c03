use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::options::{Options, Thrift};
use super::{Multicast, QuorumCall, Rpc, Thrifty, Unicast};
use crate::configuration::nodes::Nodes;
use crate::configuration::{ClientInterceptor, Configuration, Node};

/// Makes calls by method name on a configuration, or on a
/// [`Membership`](crate::membership::Membership) as it is at the time of each call: what generated clients are made of.
///
/// Use it directly for services without generated code. Method names are the proto full names,
/// `package.Service.Method`.
#[derive(Debug, Clone)]
pub struct Client {
    nodes: Nodes,
    options: Options,
}

impl Client {
    /// A client for this configuration, for a single node, or for a membership, which it follows:
    /// each call goes to the nodes that there are when its method is called.
    pub fn new(nodes: impl Into<Nodes>) -> Self {
        Self {
            nodes: nodes.into(),
            options: Options::default(),
        }
    }

    /// The configuration that is called; where a membership is, the one of the moment.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.nodes.config()
    }

    /// The same client for another configuration, or another membership.
    #[must_use]
    pub fn on(&self, nodes: impl Into<Nodes>) -> Self {
        Self {
            nodes: nodes.into(),
            options: self.options.clone(),
        }
    }

    /// The timeout of calls that do not say otherwise. Without one, calls wait for silent nodes.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sends a name and a value with every request of this client. With a key that
    /// [`Metadata`](crate::Metadata) does not take every call fails, and nothing is sent.
    #[must_use]
    pub fn with_metadata(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.options.append(key.as_ref(), value.into());
        self
    }

    /// Adds an interceptor, which sees every call of this client. It comes after those that were
    /// added before, and before those of the
    /// [connections](crate::ConfigurationBuilder::interceptor).
    #[must_use]
    pub fn with_interceptor(mut self, interceptor: impl ClientInterceptor) -> Self {
        self.options.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Replies above this size fail their node's part. The connection's own limit
    /// ([`max_decoding_message_size`](crate::ConfigurationBuilder::max_decoding_message_size))
    /// holds as well.
    #[must_use]
    pub fn with_max_decoding_message_size(mut self, limit: usize) -> Self {
        self.options.max_decoding = Some(limit);
        self
    }

    /// Requests above this size, envelope included, fail at once and are not sent.
    #[must_use]
    pub fn with_max_encoding_message_size(mut self, limit: usize) -> Self {
        self.options.max_encoding = Some(limit);
        self
    }

    /// Has quorum calls of this client ask a quorum in place of all nodes, where they may: where the
    /// [method](Thrifty#which-methods) and the [terminal](Thrifty#which-terminals) allow it. All others ask
    /// all nodes, as without it. A call says otherwise by
    /// [`thrifty`](crate::call::QuorumCall::thrifty).
    #[must_use]
    pub fn with_thrifty(mut self, thrifty: Thrifty) -> Self {
        self.options.thrift = Thrift::WhereItMay(thrifty);
        self
    }

    /// Those of the next call.
    fn options(&self) -> Options {
        self.options.clone().called_by(self.nodes.caller())
    }

    /// A request to one node, which need not be in the configuration, and its reply.
    pub fn rpc<Req: Message, Resp: Message + Default>(
        &self,
        node: &Node,
        method: &'static str,
        request: Req,
    ) -> Rpc<Req, Resp> {
        Rpc::new(node.clone(), method, request, self.options())
    }

    /// A one-way message to one node, which need not be in the configuration.
    pub fn unicast<Req: Message>(
        &self,
        node: &Node,
        method: &'static str,
        request: Req,
    ) -> Unicast<Req> {
        Unicast::new(node.clone(), method, request, self.options())
    }

    /// A one-way message to all nodes.
    pub fn multicast<Req: Message>(&self, method: &'static str, request: Req) -> Multicast<Req> {
        Multicast::new(self.nodes.config(), method, request, self.options())
    }

    /// A request to all nodes, each of which sends one reply.
    pub fn quorum_call<Req: Message, Resp: Message + Default>(
        &self,
        method: &'static str,
        request: Req,
    ) -> QuorumCall<Req, Resp> {
        QuorumCall::new(self.nodes.config(), method, request, self.options(), false)
    }

    /// A request to all nodes, each of which sends any number of replies.
    pub fn streamed_quorum_call<Req: Message, Resp: Message + Default>(
        &self,
        method: &'static str,
        request: Req,
    ) -> QuorumCall<Req, Resp> {
        QuorumCall::new(self.nodes.config(), method, request, self.options(), true)
    }
}
