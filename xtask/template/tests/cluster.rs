//! Three replicas on loopback, one of which is stopped and started again.

use std::path::Path;
use std::time::Duration;

use gorums::{Configuration, Server};
use tokio::task::JoinHandle;

use service_crate::client::Claims;
use service_crate::disk::VotesFile;
use service_crate::proto::claims_server::ClaimsServer;
use service_crate::replica::Replica;

/// Longer than any call here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica with its votes in this folder, and the address that it listens on.
async fn start(listen: &str, folder: &Path) -> (String, JoinHandle<()>) {
    let disk = VotesFile::open(folder).await.expect("a folder");
    let replica = Replica::open(disk).await.expect("its votes");
    let server = Server::builder().add_service(ClaimsServer::new(replica));
    let server = server.bind(listen).await.expect("a free port");
    let address = server.local_addr().to_string();
    (address, tokio::spawn(server.serve()))
}

#[tokio::test]
async fn a_name_has_one_owner_although_replicas_stop_and_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = |replica: usize| folder.path().join(replica.to_string());
    let mut addresses = Vec::new();
    let mut replicas = Vec::new();
    for replica in 0..3 {
        let (address, task) = start("127.0.0.1:0", &data(replica)).await;
        addresses.push(address);
        replicas.push(task);
    }
    let nodes = Configuration::builder().nodes(&addresses).connect();
    let nodes = nodes.expect("three addresses");
    let claims = Claims::new(&nodes, PATIENCE);
    let owner = claims.owner("summit").await;
    assert_eq!(owner.expect("all answer"), None);

    // Two of three are enough.
    replicas[0].abort();
    let claimed = claims.claim("summit", "ada").await;
    claimed.expect("a majority votes");
    let claimed = claims.claim("summit", "bob").await;
    let error = claimed.expect_err("ada has two votes");
    assert!(error.no().values().all(|ballot| ballot.candidate == "ada"));
    assert_eq!(error.no().len(), 2);

    // Both that voted are stopped and come back, and so does the one that was away.
    for replica in 0..3 {
        replicas[replica].abort();
        let stopped = (&mut replicas[replica]).await;
        assert!(stopped.is_err_and(|error| error.is_cancelled()));
        replicas[replica] = start(&addresses[replica], &data(replica)).await.1;
    }
    let all = nodes.connected(nodes.len());
    let connected = tokio::time::timeout(PATIENCE, all).await;
    connected.expect("all are back").expect("none is closed");
    let owner = claims.owner("summit").await;
    assert_eq!(owner.expect("all answer").as_deref(), Some("ada"));
    // To claim again what one owns changes nothing.
    let claimed = claims.claim("summit", "ada").await;
    claimed.expect("the votes stay");
}
