//! The server and the client against peers that are made by hand of `h2` and raw TCP, and do what
//! our own side would never do.
#![allow(unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/raw_client.rs"]
mod raw_client;
#[path = "../common/raw_server.rs"]
mod raw_server;
#[path = "../common/wire.rs"]
mod wire;

mod back_channel;
mod back_pressure;
mod ending;
mod going_away;
mod lost_streams;
mod messages;
mod opening;
mod replies;
mod requests;
mod streams;
