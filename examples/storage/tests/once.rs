//! A write that comes again to a replica that was started anew is answered as at first.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_shell::{Delay, ReplicaStore};
use gorums::server::{Incoming, Next};
use gorums::{Configuration, Server};
use storage::client::Client;
use storage::proto::storage_client::StorageClient;
use storage::proto::storage_server::StorageServer;
use storage::service::Replica;
use storage::store::{Store, Stored, Times};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);

/// The only replica of its store.
struct Running {
    store: Arc<Store>,
    address: String,
    serving: JoinHandle<()>,
    /// How many writes have been carried out.
    done: watch::Receiver<u32>,
}

impl Running {
    /// Starts it. Where it `answers` not, writes are carried out, and nobody is told.
    async fn start(directory: &Path, address: &str, answers: bool) -> Self {
        let store = Store::open(Some(directory), 1, None);
        let store = Arc::new(store.expect("it can be opened"));
        let (count, done) = watch::channel(0);
        let loses = move |incoming: Incoming, next: Next| {
            let count = count.clone();
            async move {
                let reply = next.run(incoming).await;
                count.send_modify(|count| *count += 1);
                if !answers {
                    std::future::pending::<()>().await;
                }
                reply
            }
        };
        let replica = Replica::new(Arc::clone(&store), Delay::default());
        let server = Server::builder()
            .interceptor(loses)
            .add_service(StorageServer::new(replica));
        let server = server.bind(address).await.expect("it is free");
        Self {
            store,
            address: server.local_addr().to_string(),
            serving: tokio::spawn(server.serve()),
            done,
        }
    }

    /// Ends it without a word, and what it serves.
    async fn end(self) {
        self.serving.abort();
        let _ = self.serving.await;
        self.store.close().await;
    }
}

#[tokio::test]
async fn writes_whose_answers_were_lost_with_the_replica_are_answered_as_at_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut replica = Running::start(directory, "127.0.0.1:0", false).await;
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
    let done = replica.done.wait_for(|done| *done == 11).await;
    done.expect("it runs");
    replica.end().await;

    let replica = Running::start(directory, &address, true).await;
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
