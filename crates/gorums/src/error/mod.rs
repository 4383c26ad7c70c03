//! What can go wrong, and to whom: [`Status`] is what a handler answers with, [`NodeError`] is one
//! node's part of a call, and [`QuorumError`] is the call.

mod excerpt;
mod node;
mod quorum;
mod shown;
mod status;

pub(crate) use excerpt::excerpt;
pub use node::{NodeError, Outcome};
pub(crate) use quorum::{Counted, QuorumFailure};
pub use quorum::{QuorumError, QuorumErrorKind};
pub(crate) use shown::{shown, write_shown};
pub(crate) use status::LONGEST_PAUSE;
pub use status::{Code, Status};
