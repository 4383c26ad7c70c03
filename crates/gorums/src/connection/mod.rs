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
//! * [`client`] is the I/O task; [`reconnect`] decides when it tries again, [`keep_alive`] when a
//!   silent connection is dead.
//! * [`door`] is the way to a node that is this process' own server.
//! * [`pool`] is what all nodes of a pool share, and the sweeper that ends calls at their deadline.

pub(crate) mod channel;
mod client;
mod door;
pub(crate) mod keep_alive;
mod outbox;
pub(crate) mod pool;
mod reconnect;
mod settings;
mod table;

pub(crate) use channel::{Channel, Targets};
pub(crate) use client::run;
pub(crate) use door::Door;
pub(crate) use outbox::{OutMessage, Ticket};
pub(crate) use pool::Pool;
pub(crate) use settings::Settings;
