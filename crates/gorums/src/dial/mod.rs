//! The client's side of a connection: it connects, and connects again.
//!
//! * [`keep_connected`] is the task of a node, and says what becomes of calls when the connection
//!   is lost.
//! * [`connect`] is one attempt, [`connected`] is what came of one that succeeded.
//! * [`winding_down`] has the connections of a node that goes away, until it has answered.
//! * [`suspended`] has a session whose connection was lost, until another one carries it.
//! * [`reconnect`] decides when the next attempt is made.
//! * [`serving`] has who serves what the nodes ask of this process.

mod connect;
mod connected;
mod keep_connected;
mod reconnect;
mod serving;
mod suspended;
mod winding_down;

#[cfg(test)]
pub(crate) use connected::OVERDUE;
pub(crate) use keep_connected::run;
pub(crate) use serving::Serving;
