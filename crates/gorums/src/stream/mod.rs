//! One gRPC stream, at either end.
//!
//! ```text
//!            bytes                      Reader, Accountant
//!  peer ──────────────► NodeStream ───► Inbound ───► calls that wait, lane
//!       ◄────────────── (h2)       ◄─── Outbound ◄── answers, outbox
//! ```
//!
//! * [`node_stream`] moves bytes between `h2` and the two halves.
//! * [`inbound`] is what comes: [`reader`] says what each message is for, [`accountant`] counts
//!   what waits, and [`served`] has the handlers of requests.
//! * [`outbound`] is what goes: it makes batches, and knows how far each message came.
//! * [`session`] is what outlives the stream, where the client wants that.
//! * [`link`] is what a connection has beside its stream: [`keep_alive`], [`pings`], [`timers`],
//!   and the [`poll_flag`], which says whether the connection has to be polled.
//! * [`fair_io`] lets other tasks run between reads; [`first_bytes`] tell what a peer speaks.

mod accountant;
mod fair_io;
mod first_bytes;
mod inbound;
mod keep_alive;
mod lasting;
mod link;
mod node_stream;
mod outbound;
mod pings;
mod poll_flag;
mod reader;
mod served;
mod session;
mod timers;

pub(crate) use fair_io::FairIo;
pub(crate) use first_bytes::FirstBytes;
pub(crate) use inbound::{Inbound, Opening, Received};
#[cfg(feature = "fuzzing")]
pub(crate) use inbound::{Progress, REFUSALS};
pub(crate) use keep_alive::KeepAlive;
pub(crate) use lasting::{Lasting, shortened};
pub(crate) use link::{Fired, Link};
pub(crate) use node_stream::{NodeStream, ReadEnd, Wrote, h2_status};
pub(crate) use outbound::Outbound;
pub(crate) use outbound::Written;
#[cfg(all(test, gorums_loom))]
pub(crate) use poll_flag::PollFlag;
pub(crate) use poll_flag::noop_context;
pub(crate) use reader::{Limit, Reader, Replies};
pub(crate) use served::{Served, Source};
#[cfg(test)]
pub(crate) use session::LEAST_KEPT;
pub(crate) use session::{Session, Writes};
pub(crate) use timers::Timer;

#[cfg(test)]
mod tests;
