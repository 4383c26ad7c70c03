//! Quorum calls for fault-tolerant replicated systems.

pub mod codegen;
pub mod quorum;
pub mod runtime;
pub mod testing;

mod call;
mod configuration;
mod connection;
mod error;
mod metadata;
mod server;
mod wire;

pub use call::{
    Client, Matching, MaxByKey, Multicast, NodeResponse, Quorum, QuorumCall, QuorumFn,
    QuorumReplies, Refused, Replies, Responses, Rpc, Sent, Unary, Unicast,
};
pub use configuration::{
    Configuration, ConfigurationBuilder, ConfigurationError, Node, NodeId, NodeState,
};
pub use error::{Code, NodeError, Outcome, QuorumError, QuorumErrorKind, Status};
pub use metadata::Metadata;
pub use server::{
    Connecting, Gone, HandlerOrder, Incoming, Interceptor, Next, Registry, Released, Reply,
    ReplySender, Server, ServerBuilder, ServerCtx, ServerError, Service, TrySendError,
    interceptor_fn,
};

/// Includes the code that `gorums-build` generated for a proto package:
/// `gorums::include_proto!("package.name")`.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
