//! Peers that mean harm, and peers that are broken: written in bytes, down to the frames of HTTP/2.
//! Whatever they do, the other clients are served, the other nodes answer, and memory stays
//! bounded.
#![allow(unreachable_pub)]

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod foe;
mod frames;
mod memory;
#[path = "../common/memory.rs"]
mod network;
mod process;
#[path = "../common/raw_client.rs"]
mod raw_client;
mod servers;
mod storm;
#[path = "../common/wire.rs"]
mod wire;
