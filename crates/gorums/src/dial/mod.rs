//! The client's side of a connection: it connects, and connects again.

mod client;
mod reconnect;
mod serving;

pub(crate) use client::run;
pub(crate) use serving::Serving;
