//! The seams between the library and the world: bytes come and go through a [`Transport`], time and
//! randomness through a [`Clock`].
//!
//! The defaults are TCP, tokio's clock and the process' random numbers. A simulation puts its own
//! in their place (`Configuration::builder().transport(…).clock(…)`, and the same on the server) and
//! runs unchanged services and clients: nothing in the library reads another clock, another source
//! of randomness or another socket.

mod bell;
mod clock;
mod fair_io;
mod monitor;
mod tcp;
mod transport;

use std::pin::Pin;

pub use clock::{Clock, SystemClock};

pub(crate) use bell::{Bell, quiet};
pub(crate) use clock::bounded;
pub(crate) use fair_io::FairIo;
pub use tcp::{Tcp, TcpAcceptor};
pub use transport::{BoxIo, Io, Listener, Transport};

pub(crate) use monitor::{Monitor, Polling};

/// A boxed future, as the traits of this module return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
