//! The replicated key-value store: what a replica and a client of it are made of.
//!
//! A value is kept by every replica, with the time at which its client wrote it; the newest one
//! wins. Clients write to and read from a majority, so that the store goes on while others are
//! down.
//!
//! - [`proto`] holds the messages and the service as `proto/storage.proto` defines them.
//! - [`Replica`](service::Replica) is the service, and keeps its values in a
//!   [`Store`](store::Store): in memory, or on a [`Disk`](disk::Disk).
//! - A replica that has lost its data gets it again from the others before it answers: [`rejoin`].
//! - [`Client`](client::Client) writes to and reads from a majority.
//! - [`cli`] is the program, with the commands of its prompt.
//!
//! Options, prompt and local replicas are those of [`cluster_shell`], which other programs use too.
//!
//! Nothing here needs a network, a thread or the time of day: a test gives a replica a
//! [`Volume`](disk::Volume) of its own, and a client a clock.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! use std::sync::Arc;
//!
//! use gorums::{Configuration, Server};
//! use storage::client::Client;
//! use storage::proto::storage_client::StorageClient;
//! use storage::proto::storage_server::StorageServer;
//! use storage::service::{Delay, Replica};
//! use storage::store::{Store, Times};
//!
//! let replica = Replica::new(Arc::new(Store::in_memory()), Delay::default());
//! let server = Server::builder().add_service(StorageServer::new(replica));
//! let server = server.bind("127.0.0.1:0").await?;
//! let address = server.local_addr().to_string();
//! tokio::spawn(server.serve());
//!
//! let configuration = Configuration::builder().nodes([address]).connect()?;
//! let mut client = Client::new(StorageClient::new(configuration), Times::default());
//! let written = client.write("greeting", "hello").await?;
//! assert!(written.is_new());
//! let found = client.read("greeting").await?.expect("it was written");
//! assert_eq!((found.value.as_str(), found.time), ("hello", written.time));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).expect("it works");
//! ```

pub mod cli;
pub mod client;
pub mod disk;
pub mod open;
mod planted;
pub mod rejoin;
pub mod service;
pub mod store;

#[cfg(feature = "planted-bugs")]
pub use planted::Bug;
pub use planted::Planted;

/// What `proto/storage.proto` says, in Rust.
pub mod proto {
    gorums::include_proto!("proto");
}
