//! A write that comes again to a replica that was started anew is answered as at first.

#[path = "common/losing.rs"]
mod losing;

use std::path::Path;
use std::time::Duration;

use cluster_shell::{Delay, ReplicaStore};
use gorums::Configuration;
use losing::Losing;
use storage::client::Client;
use storage::proto::storage_client::StorageClient;
use storage::proto::storage_server::StorageServer;
use storage::service::Replica;
use storage::store::{Entry, Store, Stored, Times};

const LIMIT: Duration = Duration::from_secs(60);

async fn start(directory: &Path, address: &str, answers: u32) -> Losing<Entry> {
    let store = Store::open(Some(directory), 1, None);
    let store = store.expect("it can be opened");
    let serves = |store| StorageServer::new(Replica::new(store, Delay::default()));
    Losing::start(store, serves, address, answers).await
}

#[tokio::test]
async fn writes_whose_answers_were_lost_with_the_replica_are_answered_as_at_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut replica = start(directory, "127.0.0.1:0", 0).await;
    let address = replica.address.clone();
    let nodes = Configuration::builder().nodes([&*address]).sessions(LIMIT);
    let nodes = nodes.connect().expect("an address");
    let storage = StorageClient::new(&nodes).with_timeout(LIMIT);
    let mut client = Client::new(storage, Times::default());
    // The second value of a key replaces the first one, which would be too old then.
    let writes: Vec<_> = (0..10)
        .map(|number| tokio::spawn(client.write("k", &number.to_string())))
        .collect();
    let node = nodes[0].clone();
    let request = client.request("l", "v");
    let single = client.storage().write_rpc(&node, request);
    let single = tokio::spawn(single.into_future());
    replica.has_done(11).await;
    replica.end().await;

    let replica = start(directory, &address, u32::MAX).await;
    for write in writes {
        let written = write.await.expect("no panic");
        assert!(written.expect("it is sent again").is_new());
    }
    let written = single.await.expect("no panic");
    assert!(written.expect("it is sent again").new);
    let found = replica.store.read("k".to_owned()).await.expect("open");
    let Stored::Coming(found) = found else {
        panic!("it is on disk");
    };
    let found = found.result().await.expect("the disk works");
    assert_eq!(found.expect("it was written").value, "9");
    replica.end().await;
}
