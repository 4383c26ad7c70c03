//! The pages for users, as documentation of modules, so that the tests compile each Rust block in
//! them.
//!
//! `build.rs` generates the services that the pages show and puts them in reach of each block.

#[doc = include_str!(concat!(env!("OUT_DIR"), "/README.md"))]
pub mod readme {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/calls.md"))]
pub mod calls {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/membership.md"))]
pub mod membership {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/observability.md"))]
pub mod observability {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/ordering.md"))]
pub mod ordering {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/quorums.md"))]
pub mod quorums {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/registers.md"))]
pub mod registers {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/service.md"))]
pub mod service {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/simulation.md"))]
pub mod simulation {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/testing.md"))]
pub mod testing {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/tls.md"))]
pub mod tls {}
