//! One cluster, from one seed.
//!
//! ```text
//!               Run ── plan of faults, from the seed
//!                │ each step: begin and end what is due
//!                ▼
//!    turmoil ──────────────────────────────► links, crashes, restarts
//!                │ runs                             World ──► resets, pauses, skewed clocks, slow disks
//!                ▼                                    ▲
//!    replicas and clients ─ Transport, Clock, Disk, File ─┘ each asks whether a fault is there, which then has fired
//! ```

mod clock;
mod contents;
mod disk;
mod fault;
mod file;
mod jitter;
mod node;
mod random;
mod run;
mod scenario;
mod trace;
mod transport;
mod world;

pub use self::clock::Clock;
pub use self::disk::{Disk, DiskError};
pub use self::fault::{Fault, FaultKind};
pub use self::file::File;
pub use self::node::{Client, Replica};
pub(crate) use self::random::Random;
pub use self::run::{Failure, Run};
pub use self::scenario::Scenario;
pub use self::transport::Transport;
