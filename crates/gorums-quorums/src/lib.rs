//! What a quorum system costs its nodes: load, capacity, and the best strategy.
//!
//! A *strategy* says how often each quorum is chosen. The *load* of a node is the share of all
//! operations that it takes part in, and that of a strategy is the load of its busiest node (Naor
//! and Wool, "The Load, Capacity, and Availability of Quorum Systems", SIAM Journal on Computing
//! 1998). The *capacity* is what the load leaves room for: 1 / load operations, in the unit in which
//! the capacities of nodes are given. The best strategy is the solution of a linear program, as in
//! Quoracle (Whittaker et al., "Read-Write Quorum Systems Made Practical", PaPoC 2021).
//!
//! ```
//! use gorums::quorum::{Expression, Quorums};
//! use gorums_quorums::{Capacities, ReadFraction, Strategy};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Expression::node;
//! let rows = node(1) & 2 & 3 | node(4) & 5 & 6;
//! let system = Quorums::from_reads(rows)?;
//! // Three of four operations are writes, and each node can do a thousand in a second.
//! let reads = ReadFraction::of(0.25)?;
//! let each = Capacities::each(1000.0)?;
//! let strategy = Strategy::best(&system, &reads, &each)?;
//! assert_eq!(strategy.capacity(&reads).round(), 2667.0);
//! for (quorum, share) in strategy.reads() {
//!     println!("{quorum:?} for {:.0} % of the reads", share * 100.0);
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod strategy;
mod workload;

pub use error::StrategyError;
pub use strategy::{MOST_QUORUMS, Strategy};
pub use workload::{Capacities, ReadFraction};
