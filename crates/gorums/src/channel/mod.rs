//! Calls in flight to one node: what its callers and the task of its stream share.
//!
//! ```text
//!  a call ──► Outbox ──────────► the task of the node's stream ──────► node
//!    │       (bounded)                                                  │
//!    └──► Table ◄────── deliver: a reply meets its call ◄───────────────┘
//!           ▲ calls whose deadline has passed
//!         sweeper (pool)
//! ```
//!
//! * [`Channel`] stands for one node, whatever the state of its connection.
//! * [`Call`] is one call in flight, shared by its handle and the channels of its nodes.
//! * [`Outbox`] and [`table`] are the two bounded queues: requests that are not written, calls that
//!   are not answered.
//! * [`Attachment`] lets the calls to a node that opens the stream itself go over that stream.
//! * [`pauses`] are those that an overloaded node has asked for, by the method, and [`pause`] is what
//!   becomes of calls meanwhile.
//! * [`widen`] asks nodes that a call has not asked at first.
//! * [`owed`] tells a node that is connected and does not answer, and [`degraded`] looks at those that
//!   owe something.
//! * [`Pool`] is what all nodes of a pool share, and the sweeper that ends calls at their
//!   deadlines.

mod asked_later;
mod attachment;
mod call;
mod degraded;
mod deliver;
mod early;
mod events;
mod identify;
mod kept;
mod latency;
mod node_channel;
mod outbox;
mod owed;
mod parts;
mod pause;
mod pauses;
mod pool;
mod progress;
mod resend;
mod servers;
mod settings;
mod state;
pub(crate) mod table;
mod targets;
mod unread;
mod widen;
mod winding_down;

pub(crate) use attachment::Attachment;
pub(crate) use call::{Call, Kind};
pub(crate) use deliver::{Answered, deliver, skipped, waiting};
pub(crate) use early::Early;
pub(crate) use events::{Event, EventKind};
#[cfg(test)]
pub(crate) use kept::RESENDS;
pub(crate) use kept::Resending;
pub(crate) use node_channel::{Channel, Notices};
pub(crate) use outbox::{OutMessage, Outbox, Rejected, StreamId, Ticket};
#[cfg(test)]
pub(crate) use pauses::METHODS;
pub use pauses::WhilePaused;
pub(crate) use pool::Pool;
pub(crate) use progress::WakeAfter;
pub(crate) use servers::ServerIdentity;
pub(crate) use settings::{Pairs, Settings};
pub use state::{NodeState, WhileDisconnected};
pub(crate) use targets::Targets;
pub(crate) use unread::{Keep, Unread};
#[cfg(test)]
pub(crate) use unread::{NEWEST, WINDOW, WINDOWS_WITHOUT_CREDIT};
pub(crate) use widen::Requests;
