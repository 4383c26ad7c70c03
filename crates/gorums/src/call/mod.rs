//! Calls: what is queued where, what came back, and when enough is enough.
//!
//! * [`options`] has what the four builders share. [`dispatch`] queues a call, and [`handle`] is a
//!   call that somebody waits for.
//! * [`collect`] takes replies and failures, and a [`rule`] says when they are enough.
//! * The rest is a module for each call type, as users see it.

mod client;
mod collect;
mod correctable;
mod dispatch;
mod flush;
mod handle;
mod multicast;
mod options;
mod quorum_call;
mod quorum_fn;
mod quorum_of;
mod replies;
pub(crate) mod responses;
mod rpc;
mod rule;
mod sent;
mod unicast;

pub use client::Client;
pub use correctable::{Correctable, Correction};
pub use multicast::Multicast;
pub use quorum_call::QuorumCall;
pub use quorum_fn::{Matching, QuorumFn};
pub use quorum_of::{MaxByKey, Quorum, QuorumReplies};
pub use replies::Replies;
pub use responses::{NodeResponse, Responses};
pub use rpc::{Rpc, Unary};
pub use sent::{NotQueued, Sent};
pub use unicast::Unicast;
