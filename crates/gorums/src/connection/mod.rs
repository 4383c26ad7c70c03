//! One connection per node, as a client sees it.
//!
//! ```text
//!  a call ──► Outbox ──► I/O task ──► batch ──► HTTP/2 stream ──► node
//!    │       (bounded)   (client.rs)                               │
//!    └──► CallTable ◄──────┴────────────◄── frames ◄───────────────┘
//!            ▲ expired calls
//!         sweeper (pool.rs)
//! ```
//!
//! * [`channel`] is what a node's calls and its I/O task share: the outbox, the state, the latency.
//! * [`outbox`] and [`table`] are the two bounded queues: requests that are not written, calls that
//!   are not answered.
//! * [`writer`] and [`deliver`] are what both ends of a stream do with calls of their own: write them,
//!   and give replies to them. [`callbacks`] takes what a node asks of its client.
//! * [`client`] is the I/O task; [`reconnect`] decides when it tries again, [`keep_alive`] when a
//!   silent connection is dead.
//! * [`attachment`] has the calls to a node that opens the stream itself go over that stream.
//! * [`pings`] asks the peer whether it lives, and whether it has what was written.
//! * [`door`] is the way to a node that is this process' own server.
//! * [`pool`] is what all nodes of a pool share, and the sweeper that ends calls at their deadline.

mod attachment;
mod callbacks;
pub(crate) mod channel;
mod client;
mod deliver;
mod door;
pub(crate) mod keep_alive;
pub(crate) mod outbox;
mod pings;
pub(crate) mod pool;
mod reconnect;
mod settings;
pub(crate) mod table;
mod writer;

pub(crate) use attachment::Attachment;
pub(crate) use callbacks::Served;
pub(crate) use channel::{Channel, Side, Targets};
use client::close_on_drop;
pub(crate) use client::run;
pub(crate) use deliver::{deliver, skipped};
pub(crate) use door::Door;
pub(crate) use outbox::{OutMessage, Ticket};
pub(crate) use pings::Pings;
pub(crate) use pool::Pool;
pub(crate) use settings::{Pairs, Settings};
pub(crate) use writer::Writer;
