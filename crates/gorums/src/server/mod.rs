//! The server: it listens, accepts connections, knows its clients and its peers.
//!
//! * [`builder`] and [`accept`] make a server and run it; [`connection`] is one that was accepted.
//! * [`clients`] are those that can be called back, [`peers`] those that the server calls.

mod accept;
mod builder;
mod clients;
mod connect_request;
mod connection;
mod context;
mod identity;
mod peers;
mod serve_client;
mod served_stream;
mod settings;

pub use accept::Server;
pub use builder::{HandlerOrder, ServerBuilder, ServerError};
pub use clients::{Clients, ServerStopped, WaitError};
pub use connect_request::ConnectRequest;
pub(crate) use context::Peers;
pub use peers::ConnectedPeers;
