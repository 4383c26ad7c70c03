//! One gRPC stream, at either end.

mod callbacks;
mod fair_io;
mod first_bytes;
mod input;
mod keep_alive;
mod pings;
mod poll_flag;
mod writer;

pub(crate) use callbacks::{Callbacks, Handlers, Served};
pub(crate) use fair_io::FairIo;
pub(crate) use first_bytes::FirstBytes;
pub(crate) use input::{Caller, Input, InputEnd};
pub(crate) use keep_alive::{Action, KeepAlive};
pub(crate) use pings::Pings;
pub(crate) use poll_flag::{Bell, quiet};
pub(crate) use writer::Writer;
