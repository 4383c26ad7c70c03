//! Whole Gorums clusters in deterministic simulation, and histories of their operations checked.
//!
//! A [`Scenario`] says what runs on each replica, what each client does, and how their [`history`]
//! is judged. One seed then fixes everything else: how many there are, the network (on
//! [turmoil](https://docs.rs/turmoil), in virtual time), the clocks, all randomness, and which
//! [faults](FaultKind) happen to whom and when. The services and clients are those of production,
//! unchanged: they are given a transport, a clock and a disk of the simulation.
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! # use gorums::{ServerCtx, Status};
//! # use gorums_sim::{Client, FaultKind, History, Replica, Scenario};
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct Word { #[prost(string, tag = "1")] text: String }
//! let scenario = Scenario::new("one register, on one replica")
//!     .replicas(1..=1)
//!     .faults([FaultKind::Delay, FaultKind::Stall, FaultKind::Partition, FaultKind::Pause])
//!     .replica(|node: Replica| async move {
//!         let state: Arc<Mutex<Option<String>>> = Arc::default();
//!         let read = Arc::clone(&state);
//!         let server = node.server().unary("Register.Write", move |_: ServerCtx, new: Word| {
//!             *state.lock().expect("not poisoned") = Some(new.text);
//!             async { Ok::<_, Status>(Word::default()) }
//!         });
//!         let server = server.unary("Register.Read", move |_: ServerCtx, _: Word| {
//!             let text = read.lock().expect("not poisoned").clone().unwrap_or_default();
//!             async { Ok::<_, Status>(Word { text }) }
//!         });
//!         node.serve(server).await
//!     })
//!     .client(|client: Client| async move {
//!         let replica = gorums::Client::new(&client.configuration().connect()?);
//!         while client.next_operation().await {
//!             if client.random_below(2) == 0 {
//!                 let text = client.unique_value();
//!                 let write = client.history().write(client.id(), "register", &text);
//!                 let call = replica.quorum_call::<Word, Word>("Register.Write", Word { text });
//!                 match call.timeout(client.patience()).all().await {
//!                     Ok(_) => write.ok(),
//!                     Err(_) => write.failed(),
//!                 };
//!             } else {
//!                 let read = client.history().read(client.id(), "register");
//!                 let call = replica.quorum_call::<Word, Word>("Register.Read", Word::default());
//!                 match call.timeout(client.patience()).all().await {
//!                     Ok(word) => read.ok((!word.text.is_empty()).then_some(word.text)),
//!                     Err(_) => read.failed(),
//!                 };
//!             }
//!         }
//!         Ok(())
//!     })
//!     .check(History::linearizable);
//!
//! let run = scenario.run(1);
//! assert!(run.failure().is_none(), "{run}");
//! assert!(run.operations() >= 100 && run.faults_fired() >= 3);
//! ```
//!
//! [`Campaign`] runs many seeds on all cores, one in twenty of them twice to see that the seed
//! fixes everything, and shrinks what fails to few faults.
//!
//! # What the seed does not reach
//!
//! The order of a `HashMap` with the standard library's random keys, the branch that
//! `tokio::select!` takes without `biased`, threads of one's own, and the time and randomness of
//! the operating system. Code that lets any of them decide something that others can see is found
//! by the second run, as a trace that differs.

mod campaign;
mod cluster;
pub mod history;
mod replay;

pub use self::campaign::{Campaign, Failed, Least, Progress, Report};
pub use self::cluster::{
    Client, Clock, Disk, DiskError, Failure, Fault, FaultKind, File, Replica, Run, Scenario,
    Transport,
};
pub use self::history::{History, Recorder, Verdict, Violation};
pub use self::replay::{FaultSet, Files};

/// What a replica or a client of a scenario ends with.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
