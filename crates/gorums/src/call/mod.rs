//! Calls: the builders that describe them, what waits for their replies, and what sees them pass.
//!
//! A generated client, or a [`Client`](crate::Client), makes an [`Rpc`] or a [`Unicast`] to one
//! node, and a [`Multicast`] or a [`QuorumCall`] to all nodes of a configuration. The builder takes
//! what goes with the call. Its last function queues the call and gives what waits for it: a
//! [`Quorum`] or its [`Votes`], a [`QuorumFn`], a [`Correctable`], or a [`Sent`] where there is no reply.

// `options` has what the four builders share. `dispatch` queues a call, and `handle` is a call that
// somebody waits for. `collect` takes replies and failures, and a `rule` says when they are enough.
// What a `thrifty` call does not ask at first is `held`, and `widen` asks it.
// The rest is a module for each call type, as users see it.

pub(crate) mod client;
mod collect;
mod correctable;
mod dispatch;
mod explain;
mod flush;
mod handle;
mod held;
mod multicast;
mod not_awaited;
mod options;
mod quorum_call;
mod quorum_fn;
mod quorum_of;
pub(crate) mod replies;
pub(crate) mod responses;
mod rpc;
mod rule;
mod sent;
mod thrifty;
mod timer;
mod unicast;
mod votes;
mod widen;

pub use correctable::{Correctable, Correction};
pub use explain::{Explained, ExplainedNode, Explanation, Fate};
pub use multicast::Multicast;
pub use quorum_call::QuorumCall;
pub use quorum_fn::{Matching, QuorumFn};
pub use quorum_of::{MaxByKey, Quorum, QuorumReplies};
pub use rpc::{Rpc, Unary};
pub use sent::{NotQueued, Sent};
pub use thrifty::{Thrifty, ThriftyCounts};
pub use unicast::Unicast;
pub use votes::{VoteError, Votes};

pub use crate::channel::WhilePaused;
pub use crate::configuration::{AdaptiveLimit, ClientInterceptor, Outgoing};
