//! Handlers: requests wait in a lane, have their turn, and leave replies.
//!
//! ```text
//!  requests ──► lane: waiting requests ──► handler that holds the turn ─┐ release + suspend
//!               (bounded in bytes)              │ reply                 └─► released: beside the lane
//!                                               ▼                               │ reply
//!  replies ◄─── reply queue (bounded in bytes) ◄───────────────────────────────┘
//! ```
//!
//! * [`lane`] has the requests that wait, and [`worker`] starts their handlers one after the other;
//!   [`run`] is one that was started, [`turn`] is what they hand on, [`context`] is
//!   what they see of it, [`handling`] knows which of them is running; [`released`] polls those
//!   that go on without the turn; [`reply_queue`] is where their replies wait to be written.
//! * [`registry`] finds the handler of a method; [`interceptor`] is what surrounds it;
//!   [`reply_sender`] is how a handler streams, and [`credit`] how its caller holds it back.
//! * [`call_key`] names calls over restarts of their server, for services that keep what they answer.
//! * [`lanes`] finds the handler that has run for longest, and [`shedding`] says what is not run while there is overload.
//! * [`monitor`] notices a handler that blocks its thread, and has the others go on elsewhere.

mod call_key;
mod context;
mod credit;
mod handler_future;
mod handling;
mod interceptor;
pub(crate) mod lane;
mod lanes;
mod monitor;
pub(crate) mod registry;
pub(crate) mod released;
mod reply_queue;
mod reply_sender;
mod request;
mod run;
mod services;
mod shedding;
pub(crate) mod turn;
mod unstarted;
mod worker;

pub use call_key::{Answered, AnsweredCalls, CallKey, KeyedCall};
pub use context::ServerCtx;
pub(crate) use context::{ConnectionInfo, Running};
#[cfg(all(test, gorums_loom))]
pub(crate) use credit::Credit;
pub(crate) use handling::refusal;
pub(crate) use interceptor::Passage;
pub use interceptor::{Incoming, Interceptor, Next, Reply, interceptor_fn};
pub(crate) use lane::{Lane, LaneSettings};
pub(crate) use lanes::Lanes;
pub use lanes::{OldestHandler, RunningHandlers};
#[cfg(all(test, gorums_loom))]
pub(crate) use monitor::Watchlist;
pub(crate) use monitor::{Monitor, Polling};
pub(crate) use registry::Entry;
pub use registry::{Registry, Service};
pub(crate) use reply_queue::{Answer, ReplyQueue};
pub use reply_sender::{Gone, ReplySender, TrySendError};
pub(crate) use request::{Called, Request, keep_last};
pub(crate) use run::panicked;
pub(crate) use services::{ReadFor, Services, Waiting};
#[cfg(all(test, gorums_loom))]
pub(crate) use shedding::Needed;
pub use shedding::{Priority, Shedding};
pub use turn::Released;
