//! The seams between the library and the world: bytes come and go through a [`Transport`], time and
//! randomness through a [`Clock`].
//!
//! The defaults are TCP and unix sockets, tokio's clock and the process' random numbers. A simulation puts its own
//! in their place (`Configuration::builder().transport(…).clock(…)`, and the same on the server)
//! and runs unchanged services and clients: nothing in the library reads another clock, another
//! source of randomness or another socket.

mod address;
mod average;
mod box_future;
mod clock;
mod handshake;
mod in_process;
mod node_proof;
mod requirement;
mod tcp;
mod transport;
mod unix;

pub(crate) use address::canonical_ip;
pub use address::{Address, AddressError};
pub(crate) use average::MovingAverage;
pub use box_future::BoxFuture;
pub use clock::{Clock, SystemClock};
pub(crate) use clock::{bounded, paced};
pub use handshake::{Handshake, HandshakeError, Proven};
pub(crate) use in_process::InProcess;
#[cfg(all(test, feature = "tower"))]
pub(crate) use in_process::PIPE;
#[cfg(feature = "tower")]
pub(crate) use in_process::pipe;
pub(crate) use node_proof::SharedProof;
pub use node_proof::{Evidence, NodeProof};
pub(crate) use requirement::sockets as has_sockets;
pub use tcp::{Tcp, TcpAcceptor};
pub(crate) use transport::concerns_one_connection;
pub use transport::{BoxIo, Io, Listener, Transport};
pub use unix::Sockets;
#[cfg(unix)]
pub use unix::{Unix, UnixAcceptor};
