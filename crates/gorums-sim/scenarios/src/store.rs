//! The replicated store: each key has one writer, and everybody reads.

use std::sync::Arc;

use gorums::runtime::Clock;
use gorums_sim::{Client, History, Replica, Scenario};
use storage::client::{Client as StorageClient, newest};
use storage::proto::storage_client::StorageClient as Calls;
use storage::proto::storage_server::StorageServer;
use storage::proto::{ReadRequest, ReadResponse};
use storage::service::{Delay, Replica as Service};
use storage::store::{Entry, Time, Times};

use crate::bug::Bug;
use crate::{faults_with_disks, losses, volume};

pub(crate) fn scenario(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "store"))
        .faults(faults_with_disks())
        .replica(move |node| replica(node, bug))
        .client(move |node| client(node, bug))
        .check(History::regular)
}

/// The same where replicas lose their data as well, and get them again from the others.
pub(crate) fn rejoin(bug: Option<Bug>) -> Scenario {
    Scenario::new(Bug::name_of(bug, "store-rejoin"))
        .faults(losses())
        .replicas_are_peers()
        .replica(move |node| replica_with_seat(node, bug))
        .client(move |node| client(node, bug))
        .check(History::regular)
}

async fn replica_with_seat(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let store = Arc::new(volume::store_with_seat(&node, sized, bug).await?);
    let service = StorageServer::new(Service::new(Arc::clone(&store), Delay::default()));
    volume::serve_and_catch_up(&node, store, node.server().add_service(service)).await
}

async fn replica(node: Replica, bug: Option<Bug>) -> gorums_sim::Result {
    let store = Arc::new(volume::store(&node, sized, bug).await?);
    let service = Service::new(Arc::clone(&store), Delay::default());
    let server = node.server().add_service(StorageServer::new(service));
    volume::serve(&node, store, server).await
}

fn sized(bytes: usize) -> Entry {
    Entry {
        value: "v".repeat(bytes),
        time: Time::default(),
    }
}

async fn client(node: Client, bug: Option<Bug>) -> gorums_sim::Result {
    let configuration = node.configuration().connect()?;
    let clock = node.clock();
    let times = Times::of(move || clock.wall_clock());
    let calls = Calls::new(&configuration).with_timeout(node.patience());
    let quorum = match bug {
        Some(Bug::StoreHalfQuorum) => configuration.len() / 2,
        _ => configuration.len() / 2 + 1,
    };
    let mut store = StorageClient::new(calls.clone(), times);
    let own = format!("key-{}", node.id());
    let clients = 5;
    while node.next_operation().await {
        if node.random_below(3) == 0 {
            let value = node.unique_value();
            let write = node.history().write(node.id(), &own, &value);
            if quorum > configuration.len() / 2 {
                match store.write(&own, &value).await {
                    Ok(written) if written.is_new() => write.ok(),
                    // Without being new it is not promised to stay.
                    Ok(_) | Err(_) => write.failed(),
                };
            } else {
                let request = store.request(&own, &value);
                match calls.write_qc(request).threshold(quorum).await {
                    Ok(reply) if reply.new => write.ok(),
                    Ok(_) | Err(_) => write.failed(),
                };
            }
            continue;
        }
        let key = format!("key-{}", node.random_below(clients) + 1);
        let read = node.history().read(node.id(), &key);
        if quorum > configuration.len() / 2 {
            match store.read(&key).await {
                Ok(found) => read.ok(found.map(|entry| entry.value)),
                Err(_) => read.failed(),
            };
        } else {
            let call = calls.read_qc(ReadRequest { key }).threshold(quorum);
            match call.replies().await {
                Ok(replies) => {
                    let found = newest(replies.values());
                    let found = found.filter(|ReadResponse { ok, .. }| *ok);
                    read.ok(found.map(|found| found.value.clone()))
                }
                Err(_) => read.failed(),
            };
        }
    }
    Ok(())
}
