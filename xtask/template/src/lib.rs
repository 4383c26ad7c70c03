//! Names that at most one owner has, for ever, although replicas fail.
//!
//! Each replica votes once for each name, for the first who asks, and notes its vote on disk before
//! it answers. Who has the votes of a majority owns the name. Two majorities have a replica in
//! common, and that one votes for one candidate only, so a name never has two owners. It may have
//! none: where several candidates ask at once, the votes may be split, and nobody gets the name.
//!
//! - [`replica`] is the service: what a replica does with a request.
//! - [`disk`] is where its votes are kept.
//! - [`client`] asks the replicas, and counts.

pub mod client;
pub mod disk;
pub mod replica;

/// The messages and the service of `proto/claims.proto`.
#[allow(missing_docs)]
pub mod proto {
    gorums::include_proto!("claims");
}
