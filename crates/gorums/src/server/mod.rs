//! Servers: services and interceptors, who is connected, and what handlers are given.
//!
//! The way in is [`Server::builder`](crate::Server::builder).

// `builder` and `accept` make a server and run it, `spread` over several runtimes; `admission` says
// which connections it has, and `connection` is one of them. `clients` are those that can be called
// back, `peers` those that the server calls. `mounted` is what else answers on the port, and
// `fallback` how a service of tower does, of which `reflection` is one; `gorums_service` has this server answer within another.

pub(crate) mod accept;
mod admission;
mod bodies;
mod buffered;
pub(crate) mod builder;
mod clients;
mod connect_request;
mod connection;
mod context;
mod descriptors;
#[cfg(feature = "tower")]
mod fallback;
#[cfg(feature = "tower")]
pub(crate) mod gorums_service;
mod grpc_call;
mod health;
mod identity;
mod mounted;
#[cfg(feature = "tower")]
pub(crate) mod peer_info;
mod peers;
#[cfg(feature = "reflection")]
mod reflection;
#[cfg(feature = "tower")]
pub(crate) mod response_body;
mod roles;
mod serve_client;
mod served_stream;
pub(crate) mod sessions;
mod settings;
mod slow_peer;
mod spread;
#[cfg(feature = "tower")]
mod upload;

pub use builder::HandlerOrder;
pub use clients::{Clients, ServerStopped, WaitError};
pub use connect_request::ConnectRequest;
pub(crate) use context::Peers;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use fallback::{ClientInfo, RequestBody};
pub use health::{Health, ServingStatus};
pub use peers::ConnectedPeers;
pub use roles::Roles;

pub use crate::handler::{
    Answered, AnsweredCalls, CallKey, Gone, Incoming, Interceptor, KeyedCall, Next, OldestHandler,
    Priority, Registry, Released, Reply, RunningHandlers, Service, Shedding, TrySendError,
    interceptor_fn,
};
