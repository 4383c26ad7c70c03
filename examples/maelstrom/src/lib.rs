//! A node for [Maelstrom](https://github.com/jepsen-io/maelstrom), a workbench that runs
//! distributed systems as processes which speak JSON on standard input and output, with a network
//! of its own making between them.
//!
//! The node serves the workloads *echo*, *broadcast*, *g-set* and *lin-kv*. What the nodes say to
//! each other are calls of this library, whose connections are carried by Maelstrom's messages: see
//! [`tunnel`].
//!
//! - [`run`] is a node, from its `init` message on.
//! - [`set`] is the set that only grows, for *broadcast* and *g-set*.
//! - [`kv`] has the registers of *lin-kv*. They know compare-and-set, which no register of reads
//!   and writes can offer (its consensus number is 1: Herlihy, *Wait-Free Synchronization*, 1991),
//!   and so they go by CASPaxos and not by the protocol of the register example.
//!
//! Nothing is kept on disk: a node that Maelstrom kills and starts again is an empty one.

pub mod kv;
mod message;
mod node;
pub mod set;
pub mod tunnel;

pub use message::{Code, Message};
pub use node::{RunError, run};

/// What `proto/maelstrom.proto` says, in Rust.
pub mod proto {
    gorums::include_proto!("maelstrom");
}
