//! What fuzzing does with the bytes of a peer: no part of the API.
//!
//! Each function takes any bytes, and panics where the library breaks a promise that it makes of all
//! of them. The crate in the folder `fuzz` of the repository calls them.

mod calls;
mod envelopes;
mod frames;
mod headers;
mod inbound;
mod input;
mod service;

pub use envelopes::envelopes;
pub use frames::frames;
pub use headers::headers;
pub use inbound::inbound;
