//! Quorum calls for fault-tolerant replicated systems, wire-compatible with the Go library Gorums.
//!
//! A Protocol Buffers service is compiled (by `gorums-build`) into typed calls on a
//! [`Configuration`], a set of nodes, and into a server trait whose handlers are plain async
//! functions that return a reply.
//!
//! # Start here
//!
//! [The README](https://github.com/gorums/gorums-rs#readme) builds a replicated register from its
//! `.proto` file to a client, and has larger programs to run. [Below](#a-first-program) is a first
//! program without generated code, and then [what code generation adds](#with-generated-code).
//! After that, [the page on calls](https://github.com/gorums/gorums-rs/blob/main/docs/calls.md).
//!
//! # What do you want to do?
//!
//! | you want to | look at |
//! |---|---|
//! | call all nodes and wait for a majority, or another quorum | [`QuorumCall`](call::QuorumCall), [`quorum`] |
//! | count the replies that say yes | [`votes`](call::Quorum::votes) |
//! | have a function decide over the replies | [`QuorumCall::quorum_fn`](call::QuorumCall::quorum_fn) |
//! | take the replies one by one | [`responses`] |
//! | get an answer soon, and better ones later | [`Correctable`](call::Correctable) |
//! | call one node, or send what has no reply | [`Rpc`](call::Rpc), [`Unicast`](call::Unicast), [`Multicast`](call::Multicast) |
//! | know what failed, and whether to try again | [`QuorumError::outcome`], [`NodeError`], [`Outcome`] |
//! | serve requests in order, and let the next one start early | [`Server`], [`ServerCtx::release`] |
//! | call peers and clients from handlers | [`ServerCtx::config`], [`ServerCtx::client_config`], [`server::Clients`] |
//! | let nodes come and go, and follow them | [`membership`] |
//! | see, refuse or label every call | [`ClientInterceptor`](call::ClientInterceptor), [`server::Interceptor`] |
//! | serve tonic, axum or plain HTTP on the same port | `ServerBuilder::fallback`, with the feature `tower` |
//! | tell grpcurl and other tools what is served | `ServerBuilder::reflection`, with the feature `reflection` |
//! | encrypt connections, and know who the peer is | `tls::Tls`, with the feature `tls`; [`ServerCtx::proven`] |
//! | serve within a server of tonic or axum that is there already | `ServerBuilder::into_service`, with the feature `tower` |
//! | test a service, or put another network or clock below it | [`testing`], [`runtime`] |
//!
//! The guide has pages on [calls](https://github.com/gorums/gorums-rs/blob/main/docs/calls.md),
//! [order and release](https://github.com/gorums/gorums-rs/blob/main/docs/ordering.md),
//! [membership](https://github.com/gorums/gorums-rs/blob/main/docs/membership.md),
//! [limits](https://github.com/gorums/gorums-rs/blob/main/docs/limits.md),
//! [TLS](https://github.com/gorums/gorums-rs/blob/main/docs/tls.md),
//! [observability](https://github.com/gorums/gorums-rs/blob/main/docs/observability.md),
//! [simulation](https://github.com/gorums/gorums-rs/blob/main/docs/simulation.md) and
//! [the wire](https://github.com/gorums/gorums-rs/blob/main/docs/wire.md).
//! `examples/quorum_call.rs` of this crate is a whole program of sixty lines.
//!
//! # A first program
//!
//! ```
//! use gorums::{Client, Configuration, Server, ServerCtx, Status};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Three servers with one method each, here without generated code.
//! let mut addresses = Vec::new();
//! for id in 1..=3 {
//!     let server = Server::builder()
//!         .unary("demo.Greeter.Greet", move |ctx: ServerCtx, name: String| async move {
//!             ctx.release(); // from here on the client's next request may start
//!             Ok::<_, Status>(format!("hello {name}, this is {id}"))
//!         })
//!         .bind("127.0.0.1:0")
//!         .await?;
//!     addresses.push(server.local_addr().to_string());
//!     tokio::spawn(server.serve());
//! }
//!
//! let configuration = Configuration::builder().nodes(addresses).connect()?;
//! let greeter = Client::new(&configuration);
//! let call = greeter.quorum_call::<String, String>("demo.Greeter.Greet", "Ada".to_owned());
//! // Queued on every node by `majority()`; fails as soon as a majority is out of reach.
//! let replies = call.majority().replies().await?;
//! assert_eq!(replies.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # With generated code
//!
//! Methods, messages and handlers get names and types from a `.proto` file. `gorums-build` compiles
//! it in the build script, and needs no `protoc`:
//!
//! ```text
//! // build.rs; `greeter.proto` says `package greeter;` and `service Greeter { … }`
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     gorums_build::compile_protos("proto/greeter.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! ```text
//! mod greeter {
//!     gorums::include_proto!("greeter");
//! }
//! use greeter::greeter_client::GreeterClient;
//! use greeter::greeter_server::{Greeter, GreeterServer};
//!
//! impl Greeter for Replica {
//!     async fn greet(&self, ctx: ServerCtx, name: Name) -> Result<Greeting, Status> { … }
//! }
//!
//! let server = Server::builder().add_service(GreeterServer::new(Replica));
//! let greeting = GreeterClient::new(&configuration).greet(name).majority().await?;
//! ```
//!
//! # What it promises
//!
//! * **Order.** The handlers of one client's requests start in the order in which the client queued
//!   the calls, whatever their types; a call is queued on every node when its terminal is called
//!   (`majority()`, `responses()`, `send()`, `detach()`, `.await`), before anything is polled. At
//!   most one handler of a connection holds the turn; [`ServerCtx::release`] gives it up early.
//! * **No node can block a caller.** Every queue is bounded, and a node that is down, full or
//!   silent fails or delays its own part only.
//! * **Calls fail early, and say why.** A [`QuorumError`] names every node that failed with its
//!   [cause](NodeError::status) and with what is known of the request ([`Outcome`]).
//!
//! # Cancellation
//!
//! All calls are futures that can be dropped at any time. Dropped before it has what it wanted, a
//! call withdraws what is not written yet, and tells the nodes that got it, if they understand,
//! that nobody waits. The connections are not touched. A call that has its quorum leaves its other
//! requests alone: they are sent, and the replies are ignored.
//!
//! # Bounds
//!
//! Every queue, table and buffer has a bound, and says what happens at it: a node whose outbox is
//! full fails its own part of a call, a client whose requests wait for their handlers is read no
//! further, and so on.
//! [The page on limits](https://github.com/gorums/gorums-rs/blob/main/docs/limits.md) has them all,
//! with their defaults and their settings.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bounds;
pub mod call;
pub mod codegen;
pub mod membership {
    //! Which nodes there are: nodes that come and go, where they come from, and how they are
    //! followed.
    //!
    //! The way in is [`ConfigurationBuilder::membership`](crate::ConfigurationBuilder::membership)
    //! for a set that changes, and [`Configuration::watch`](crate::Configuration::watch) for what
    //! the nodes of a fixed one do.

    pub use crate::channel::WhileDisconnected;
    #[cfg(feature = "toml")]
    #[cfg_attr(docsrs, doc(cfg(feature = "toml")))]
    pub use crate::configuration::node_file::NodeFile;
    pub use crate::configuration::nodes::Nodes;
    pub use crate::configuration::{
        Change, Family, Membership, NeverConnected, NodeAddress, Resolve, Watch,
    };
}
pub mod quorum;
pub mod responses {
    //! The replies and failures of a call one by one, and what they can be narrowed down to.
    //!
    //! The way in is [`QuorumCall::responses`](crate::call::QuorumCall::responses).

    pub use crate::call::responses::{Filter, NodeResponse, Responses, Successes, Take};
}
pub mod runtime;
pub mod server;
pub mod testing;
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub mod tls;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower {
    //! A server within another one, of tonic, axum or hyper, in the place of a port of its own.
    //!
    //! The way in is [`ServerBuilder::into_service`](crate::ServerBuilder::into_service).

    pub use crate::server::gorums_service::GorumsService;
    pub use crate::server::peer_info::PeerInfo;
    pub use crate::server::response_body::{ResponseBody, ResponseError};
}

mod channel;
mod configuration;
mod dial;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
#[cfg(test)]
mod limits;
mod log;
mod metadata;
#[cfg(all(test, gorums_loom))]
mod models;
mod node_id;
mod stream;
mod sync;
mod wire;

// A name stands here or in a module, and nowhere twice. Here is what the first program needs.
pub use call::client::Client;
pub use call::replies::Replies;
pub use channel::NodeState;
pub use configuration::{Configuration, ConfigurationBuilder, ConfigurationError, Node};
pub use error::{Code, NodeError, Outcome, QuorumError, QuorumErrorKind, Status};
pub use handler::{ReplySender, ServerCtx};
pub use metadata::Metadata;
pub use node_id::NodeId;
pub use server::accept::Server;
pub use server::builder::{ServerBuilder, ServerError};
#[doc(no_inline)]
pub use tokio_util::sync::CancellationToken;

/// Includes the code that `gorums-build` generated for a proto package, named as its file writes it:
/// `gorums::include_proto!("package.name")`. What has no package is `"_"`.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
