//! A counter and a log that have each request exactly once, also where replicas crash.
//!
//! Every replica has its own, on its disk. Adding twice is not adding once, and so a service like this
//! one cannot simply take a request that comes again: it has to know it. What it takes for that:
//!
//! - **Its clients have [sessions](gorums::ConfigurationBuilder::sessions).** What they send again has the
//!   same [`keyed_call`](gorums::ServerCtx::keyed_call), on another connection and to a server that was started
//!   anew as well. Whoever has none is refused.
//! - **Its methods are declared as `IDEMPOTENT`.** They are, with what follows, and so clients send them
//!   again when a replica was started anew, as long as their deadline allows.
//! - **It keeps the key and the answer with the effect, in one transaction:** all of it is on disk, or
//!   nothing. [`Store::change`](storage::store::Store::change) does that. A call that comes again is
//!   answered by what was kept.
//! - **It gives each request to its store while it has its turn**, so that those of one client have their
//!   effects in the order in which they were sent. A read has none and is not kept: one that comes again to
//!   a replica that was started anew finds what is there then, of its own client too.
//!
//! Answers are kept within [bounds](storage::disk): 1,024 of each client, and of 1,024 clients. A call
//! older than that of a client fails with `Aborted`: it may have had its effect. Of the client that was
//! answered the longest time ago nothing is kept when there is one more; what it sends again then **is run
//! again**, and so calls are to have deadlines in which no 1,024 others come. A client that is given up by a
//! deadline does not know whether it was run, once or not at all, as ever. A replica that has lost its
//! disk has lost its ledger: no other has the same one.
//!
//! The scenario `ledger` of `cargo xtask sim` has whole clusters of such replicas lose power, connections and
//! sessions with calls under way, and looks whether each has every call once.
//!
//! - [`Replica`](service::Replica) is the service, over a store of [`Note`](note::Note)s.
//! - [`proto`] holds the messages and the service as `proto/ledger.proto` defines them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use gorums::{Configuration, Server};
//! use ledger::proto::ledger_client::LedgerClient;
//! use ledger::proto::ledger_server::LedgerServer;
//! use ledger::proto::{AddRequest, ReadRequest};
//! use ledger::service::Replica;
//! use storage::store::Store;
//!
//! let replica = Replica::new(Arc::new(Store::in_memory()));
//! let server = Server::builder().add_service(LedgerServer::new(replica));
//! let server = server.bind("127.0.0.1:0").await?;
//! let address = server.local_addr().to_string();
//! tokio::spawn(server.serve());
//!
//! let replicas = Configuration::builder()
//!     .nodes([address])
//!     .sessions(Duration::from_secs(30))
//!     .connect()?;
//! let ledger = LedgerClient::new(replicas);
//! ledger.add(AddRequest { amount: 2 }).all().await?;
//! let added = ledger.add(AddRequest { amount: 3 }).all().await?;
//! assert_eq!(added.count, 5);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).expect("it works");
//! ```

pub mod note;
mod planted;
pub mod service;

#[cfg(feature = "planted-bugs")]
pub use planted::Bug;

/// What `proto/ledger.proto` says, in Rust.
pub mod proto {
    gorums::include_proto!("ledger");
}
