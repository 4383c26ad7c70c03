//! What a quorum system costs its nodes, how fast it is and how often it fails: load, capacity,
//! latency, failure probability, and the best strategy.
//!
//! A *strategy* says how often each quorum is chosen. The *load* of a node is the share of all
//! operations that it takes part in, and that of a strategy is the load of its busiest node (Naor
//! and Wool, "The Load, Capacity, and Availability of Quorum Systems", SIAM Journal on Computing
//! 1998). The *capacity* is what the load leaves room for: 1 / load operations, in the unit in which
//! the capacities of nodes are given. The *latency* of a quorum is that of its slowest node, and that
//! of a strategy what is to be expected of an operation. The best strategy, within bounds, is the
//! solution of a linear program, as in Quoracle (Whittaker et al., "Read-Write Quorum Systems Made
//! Practical", PaPoC 2021): see [`Strategies`].
//!
//! The *failure probability* is that of having no quorum, as too many nodes are down: see [`Faults`].
//!
//! ```
//! use gorums::quorum::{Expression, Quorums};
//! use gorums_quorums::{Capacities, ReadFraction, Strategies};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Expression::node;
//! let rows = node(1) & 2 & 3 | node(4) & 5 & 6;
//! let system = Quorums::from_reads(rows)?;
//! // Three of four operations are writes, and each node can do a thousand in a second.
//! let reads = ReadFraction::of(0.25)?;
//! let strategies = Strategies::of(&system).with_capacities(Capacities::each(1000.0)?);
//! let strategy = strategies.least_load(&reads)?;
//! assert_eq!(strategy.capacity(&reads).round(), 2667.0);
//! for (quorum, share) in strategy.reads() {
//!     println!("{quorum:?} for {:.0} % of the reads", share * 100.0);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The program of this crate, `gorums-quorums`, prints and draws all of it of systems that are typed: see
//! docs/quorums.md of the repository. It is the feature `program`, which is on unless it is turned off.

mod error;
mod faults;
mod per_node;
mod strategies;
mod strategy;
mod workload;

pub use error::AnalysisError;
pub use faults::{FailureProbability, FaultCurve, Faults};
pub use strategies::{MOST_QUORUMS, Strategies};
pub use strategy::Strategy;
pub use workload::{Capacities, Latencies, ReadFraction};
