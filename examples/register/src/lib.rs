//! An atomic register for many readers and writers, replicated so that it goes on while fewer than
//! half of its replicas are down.
//!
//! *Atomic* is what Herlihy and Wing call linearizable: each operation takes effect at one moment
//! between its call and its return. The protocol is that of Attiya, Bar-Noy and Dolev, *Sharing
//! Memory Robustly in Message-Passing Systems* (J. ACM 42(1), 1995), for many writers as by Lynch
//! and Shvartsman, *Robust Emulation of Shared Memory Using Dynamic Quorum-Acknowledged Broadcasts*
//! (FTCS 1997). Any two majorities have a replica in common, and so
//!
//! - a **write** asks a majority for its versions, makes one that is newer, and has a majority take
//!   the value;
//! - a **read** asks a majority for its values, and takes the newest. Unless all of the majority
//!   have that one, it has a majority take it before it returns (the *write-back*): no later read
//!   finds an older one.
//!
//! Here a register has a name, its key, and there are as many as there are keys.
//!
//! - [`Register`](client::Register) is the client: `read(key)` and `write(key, value)`.
//! - [`Replica`](service::Replica) is the service. Where its [`Store`](storage::store::Store) is on
//!   a disk, nothing is answered before it is there.
//! - [`proto`] holds the messages and the service as `proto/register.proto` defines them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! use std::sync::Arc;
//!
//! use gorums::{Configuration, Server};
//! use register::client::Register;
//! use register::proto::register_client::RegisterClient;
//! use register::proto::register_server::RegisterServer;
//! use register::service::Replica;
//! use register::version::Writer;
//! use cluster_shell::Delay;
//! use storage::store::Store;
//!
//! let mut addresses = Vec::new();
//! for _ in 0..3 {
//!     let replica = Replica::new(Arc::new(Store::in_memory()), Delay::default());
//!     let server = Server::builder().add_service(RegisterServer::new(replica));
//!     let server = server.bind("127.0.0.1:0").await?;
//!     addresses.push(server.local_addr().to_string());
//!     tokio::spawn(server.serve());
//! }
//! let configuration = Configuration::builder().nodes(addresses).connect()?;
//! let register = Register::new(RegisterClient::new(configuration), Writer::random());
//! register.write("greeting", "hello").await?;
//! let found = register.read("greeting").await?.expect("it was written");
//! assert_eq!(found.value, "hello");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).expect("it works");
//! ```

pub mod client;
mod planted;
pub mod program;
pub mod service;
pub mod version;

#[cfg(feature = "planted-bugs")]
pub use planted::Bug;

/// What `proto/register.proto` says, in Rust.
pub mod proto {
    gorums::include_proto!("register");
}
