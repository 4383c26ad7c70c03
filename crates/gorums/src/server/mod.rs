//! The server: it accepts connections, reads requests, and runs handlers in order.
//!
//! ```text
//!  socket ──► I/O task ──► lane: waiting requests ──► handler that holds the turn ─┐ release + suspend
//!            (connection)   (bounded in bytes)              │ reply                └─► beside the lane
//!                 ▲                                         ▼                               │ reply
//!                 └───────────────── reply queue (bounded in bytes) ◄───────────────────────┘
//! ```
//!
//! * [`builder`] and [`accept`] make a server and run it; [`connection`] is the I/O task.
//! * [`lane`] starts handlers one after the other, [`turn`] is what they hand on, [`context`] is
//!   what they see of it, [`handling`] knows which of them is running; [`released`] polls those that go
//!   on without the turn; [`reply_queue`] is where their replies wait to be written.
//! * [`clients`] are those that can be called back, [`peers`] those that the server calls.
//! * [`registry`] finds the handler of a method; [`interceptor`] is what surrounds it;
//!   [`reply_sender`] is how a handler streams.

mod accept;
mod builder;
mod clients;
mod connection;
mod context;
mod handling;
mod input;
mod interceptor;
pub(crate) mod lane;
mod peers;
pub(crate) mod registry;
pub(crate) mod released;
mod reply_queue;
mod reply_sender;
mod request;
pub(crate) mod turn;

pub use accept::Server;
pub use builder::{HandlerOrder, ServerBuilder, ServerError};
pub use clients::{ClientChanges, Clients, ServerStopped, WaitError};
pub(crate) use connection::ConnectionSettings;
pub use context::{Connecting, ServerCtx};
pub(crate) use context::{ConnectionInfo, Peers};
pub(crate) use handling::refusal;
pub use interceptor::{Incoming, Interceptor, Next, Reply, interceptor_fn};
pub(crate) use lane::Lane;
pub use peers::{ConnectedPeers, PeerChanges};
pub use registry::{Registry, Service};
pub(crate) use reply_queue::{Answer, ReplyQueue};
pub use reply_sender::{Gone, ReplySender, TrySendError};
pub(crate) use request::{Request, Taken};
pub use turn::Released;
