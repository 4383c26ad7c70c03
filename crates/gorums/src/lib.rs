//! Quorum calls for fault-tolerant replicated systems, wire-compatible with the Go library Gorums.
//!
//! A Protocol Buffers service is compiled (by `gorums-build`) into typed calls on a
//! [`Configuration`], a set of nodes, and into a server trait whose handlers are plain async
//! functions that return a reply.
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
//! # What it promises
//!
//! * **Order.** The handlers of one client's requests start in the order in which the client queued
//!   the calls, whatever their types; a call is queued on every node when its terminal is called
//!   (`majority()`, `responses()`, `send()`, `detach()`, `.await`), before anything is polled. At
//!   most one handler of a connection holds the turn; [`ServerCtx::release`] gives it up early.
//! * **No node can block a caller.** Every queue is bounded, and a node that is down, full or silent
//!   fails or delays its own part only.
//! * **Calls fail early, and say why.** A [`QuorumError`] names every node that failed with its
//!   [cause](NodeError::status) and with what is known of the request ([`Outcome`]).
//!
//! # Cancellation
//!
//! All calls are futures that can be dropped at any time. Dropped before it has what it wanted, a
//! call withdraws what is not written yet, and tells the nodes that got it, if they understand, that
//! nobody waits. The connections are not touched. A call that has its quorum leaves its other
//! requests alone: they are sent, and the replies are ignored.
//!
//! # Bounds
//!
//! | what | default | at the bound |
//! |---|---|---|
//! | requests waiting to be written to a node ([`outbox`](ConfigurationBuilder::outbox)) | 16,384 and 16 MiB | that node's part fails at once, as not sent |
//! | calls that wait for replies ([`max_calls`](ConfigurationBuilder::max_calls)) | 1,048,576 | the call fails at once, as not sent |
//! | replies of a node to a streamed call that nobody has taken | 64 | the oldest makes room for the newest |
//! | a reply ([`max_decoding_message_size`](ConfigurationBuilder::max_decoding_message_size)) | 4 MiB | that node's part fails |
//! | a request ([`max_decoding_message_size`](ServerBuilder::max_decoding_message_size)) | 4 MiB | it is answered with `ResourceExhausted` |
//! | requests read and not started, per connection ([`max_waiting_bytes`](ServerBuilder::max_waiting_bytes)) | 4 MiB | reading pauses |
//! | handlers that released and still run, per connection ([`concurrency_limit_per_connection`](ServerBuilder::concurrency_limit_per_connection)) | 1,024 | the next waits for one to end |
//! | replies waiting to be written, per connection ([`max_reply_bytes`](ServerBuilder::max_reply_bytes)) | 4 MiB, and one from each handler that runs already | nothing more starts; handlers wait with theirs, and keep their turn |
//! | connections of a server ([`max_connections`](ServerBuilder::max_connections)) | 16,384 | no more are accepted until one ends |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod codegen;
pub mod quorum;
pub mod responses {
    //! What [`Responses`](crate::Responses) can be narrowed down to.

    pub use crate::call::responses::{Filter, Successes, Take};
}
pub mod runtime;
pub mod testing;

mod call;
mod channel;
mod configuration;
mod dial;
mod error;
mod handler;
#[cfg(test)]
mod limits;
mod metadata;
#[cfg(all(test, gorums_loom))]
mod models;
mod node_id;
mod server;
mod stream;
mod sync;
mod wire;

pub use call::{
    Client, Correctable, Correction, Matching, MaxByKey, Multicast, NodeResponse, NotQueued,
    Quorum, QuorumCall, QuorumFn, QuorumReplies, Replies, Responses, Rpc, Sent, Unary, Unicast,
};
pub use channel::{NodeState, Overflow, WhileDisconnected};
pub use configuration::{
    Change, ClientInterceptor, Configuration, ConfigurationBuilder, ConfigurationError, Membership,
    Node, NodeAddress, Outgoing, Resolve, Watch,
};
pub use error::{Code, NodeError, Outcome, QuorumError, QuorumErrorKind, Status};
pub use handler::{
    Gone, Incoming, Interceptor, Next, Registry, Released, Reply, ReplySender, ServerCtx, Service,
    TrySendError, interceptor_fn,
};
pub use metadata::Metadata;
pub use node_id::NodeId;
pub use server::{
    Clients, ConnectRequest, ConnectedPeers, HandlerOrder, Server, ServerBuilder, ServerError,
    ServerStopped, WaitError,
};
#[doc(no_inline)]
pub use tokio_util::sync::CancellationToken;

/// Includes the code that `gorums-build` generated for a proto package:
/// `gorums::include_proto!("package.name")`.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
