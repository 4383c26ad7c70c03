//! The atomic register: few keys, which everybody reads and writes.

use std::sync::Arc;

use gorums_sim::{Client, History, Replica, Scenario, Violation};
use register::client::{Effect, Register};
use register::proto::register_client::RegisterClient;
use register::proto::register_server::RegisterServer;
use register::proto::{ReadRequest, WriteRequest};
use register::service::Replica as Service;
use register::version::{Version, Versioned, Writer};
use storage::service::Delay;

use crate::bug::Bug;
use crate::{faults_with_disks, losses, volume};

/// How many keys are in use all the time.
const KEYS: u64 = 3;

/// How many more are used as often as these together, where replicas lose their data: each read of a
/// key brings it back to a majority, so that what was lost shows where nobody has looked for long.
const SELDOM: u64 = 30;

pub(crate) fn scenario(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "register"))
        .faults(faults_with_disks())
        .replica(move |node| replica(node, bug))
        .client(move |node| client(node, 0, bug))
        .check(History::linearizable)
}

/// The same where replicas lose their data as well, and get them again from the others.
pub(crate) fn rejoin(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "register-rejoin"))
        .faults(losses())
        .replicas_are_peers()
        .replica(move |node| replica_with_seat(node, bug))
        .client(move |node| client(node, SELDOM, bug))
        .check(History::linearizable)
}

async fn replica_with_seat(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let store = Arc::new(volume::store_with_seat(&node, sized, bug).await?);
    let service = RegisterServer::new(Service::new(Arc::clone(&store), Delay::default()));
    volume::serve_and_catch_up(&node, store, node.server().add_service(service)).await
}

async fn replica(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let store = Arc::new(volume::store(&node, sized, bug).await?);
    let mut service = Service::new(Arc::clone(&store), Delay::default());
    if let Some(bug) = bug.and_then(Bug::of_register) {
        service = service.with_bug(bug);
    }
    let server = node.server().add_service(RegisterServer::new(service));
    volume::serve(&node, store, server).await
}

fn sized(bytes: usize) -> Versioned {
    let writer = Writer::from(0);
    Versioned {
        value: "v".repeat(bytes),
        version: Version { number: 0, writer },
    }
}

async fn client(node: Client, seldom: u64, bug: Option<Bug>) -> gorums_sim::Result {
    let configuration = node.configuration().connect()?;
    let writer = Writer::from(u128::from(node.id()));
    let mut register = Register::new(RegisterClient::new(&configuration), writer)
        .with_clock(node.clock())
        .with_timeout(node.patience());
    if let Some(bug) = bug.and_then(Bug::of_register) {
        register = register.with_bug(bug);
    }
    let mut probes = 0;
    while node.next_operation().await {
        let key = match seldom > 0 && node.random_below(2) == 0 {
            true => format!("seldom-{}", node.random_below(seldom) + 1),
            false => format!("key-{}", node.random_below(KEYS) + 1),
        };
        match node.random_below(8) {
            0 => {
                probes += 1;
                probe(&node, &register, writer, probes).await;
            }
            1..=3 => {
                let value = node.unique_value();
                let write = node.history().write(node.id(), &key, &value);
                match register.write(&key, &value).await {
                    Ok(_) => {
                        write.ok();
                    }
                    Err(error) if error.effect() == Effect::NotDone => write.not_done(),
                    Err(_) => {
                        write.failed();
                    }
                }
            }
            _ => {
                let read = node.history().read(node.id(), &key);
                match register.read(&key).await {
                    Ok(found) => read.ok(found.map(|found| found.value)),
                    Err(_) => read.failed(),
                };
            }
        }
    }
    Ok(())
}

/// A write and a read of one replica, queued one after the other before either is answered: they
/// are handled in this order, so the read finds what was written.
async fn probe(node: &Client, register: &Register, writer: Writer, number: u64) {
    let calls = register.replicas();
    let replicas = calls.configuration();
    let replica = &replicas[node.random_below(replicas.len() as u64) as usize];
    // Nobody else writes it.
    let key = format!("own-{}-{}", node.id(), replica.id());
    let value = node.unique_value();
    let version = Version { number, writer };
    let history = node.history();
    let one = calls.on(replica).with_timeout(node.patience());
    let write = history.write(node.id(), &key, &value);
    let read = history.read(node.id(), &key);
    let places = [write.place(), read.place()];
    let written = one.write(WriteRequest {
        key: key.clone(),
        version: Some(version.into()),
        value: value.clone(),
    });
    let written = written.all();
    let found = one.read(ReadRequest { key }).all();
    let (written, found) = (written.await, found.await);
    let written = match written {
        Ok(_) => {
            write.ok();
            true
        }
        Err(_) => {
            write.failed();
            false
        }
    };
    let Ok(found) = found else {
        read.failed();
        return;
    };
    let newest = found.version.map(Version::from);
    read.ok(newest.map(|_| found.value));
    if written && newest.is_none_or(|newest| newest < version) {
        node.report(Violation::new(
            format!(
                "replica {} handled a read before the write that the same client had queued first",
                replica.id()
            ),
            places.into_iter().flatten(),
        ));
    }
}
