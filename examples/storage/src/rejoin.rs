//! How a replica that has lost its data comes back without harm.
//!
//! A replica that starts without its data would answer that it has nothing, and so break what it has
//! acknowledged before: a majority may have no other replica in common with the one that has taken a
//! write. So it refuses all requests (`Unavailable`, which counts as no answer) until it has got from
//! enough others what they have. `docs/registers.md` says why that is right. In short:
//!
//! ```text
//!  replica that has lost its data              each of the others that have theirs
//!    │ Ask ─────────────────────────────────────► how often have I lost them?
//!    │ one life more than anybody knows of, on its slate
//!    │ CatchUp ─────────────────────────────────► notes that life on its slate, and from then on
//!    │                                            says so with whatever it acknowledges
//!    │ ◄────────────────────────────── pages of all that it has, at the pace of whoever takes them
//!    │ writes them down, and how far it has come
//!    ▼
//!  enough have sent everything: answers again
//! ```
//!
//! - [`Seat`] is where a replica stands: whether it has its data, which life this is, and what it
//!   knows of lives of the others. It is written down on a [`Slate`].
//! - [`Source`] is the service by which others catch up from a replica, and [`catch_up`] is how a
//!   replica does.
//! - [`count_together`] says which acknowledgements make a quorum. Clients have to look.
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | a page | 128 KiB or 512 records; a record that is larger goes alone | the next page begins |
//! | pages that a replica has ready for each that catches up | one, beside the window of the call (1 MiB) | it waits until they are taken |
//! | replicas whose losses one knows | 1,000 | others are refused, with `ResourceExhausted` |
//! | attempts with another replica that does not answer | one every half of a second | |

mod catch_up;
mod notes;
mod seat;
mod slate;
mod source;
mod standing;
mod state;
#[cfg(test)]
mod tests;

use gorums::{Code, NodeError, Outcome};

pub use self::catch_up::catch_up;
pub use self::notes::notes;
pub use self::seat::{Found, Progress, Seat};
pub use self::slate::{Slate, SlateFile};
pub use self::source::Source;
pub use self::standing::count_together;
use crate::disk::Record;

/// What `proto/standing.proto` and `proto/rejoin.proto` say, in Rust.
pub mod proto {
    gorums::include_proto!("rejoin");
}

/// A record that goes from one replica to another.
pub trait Transfer: Record {
    /// The record and its key, as the message by which a client writes it.
    fn to_message(&self, key: &str) -> Vec<u8>;

    /// A record and its key as they came.
    ///
    /// # Errors
    ///
    /// Where it is no such message.
    fn from_message(message: &[u8]) -> Result<(String, Self), prost::DecodeError>;
}

/// Whether a replica has refused because it has lost its data. That it is not connected is no
/// refusal, though it has the same code.
fn has_lost(error: &NodeError) -> bool {
    error.outcome() == Outcome::Refused && error.code() == Code::Unavailable
}
