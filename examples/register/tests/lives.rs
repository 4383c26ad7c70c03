//! A replica that loses its data while a write is under way.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cluster_shell::{Delay, ReplicaStore};
use gorums::server::{Incoming, Next};
use gorums::{Configuration, Server, Status};
use register::client::Register;
use register::proto::register_client::RegisterClient;
use register::proto::register_server::RegisterServer;
use register::service::Replica;
use register::version::{Versioned, Writer};
use storage::store::{Store, Stored};
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Registers = Store<Versioned>;

/// What a replica does with requests to write, until it takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Taken,
    Held,
    Refused,
}

/// A replica of three that runs.
struct Running {
    store: Arc<Registers>,
    address: String,
    serving: JoinHandle<()>,
    writes: watch::Sender<Writes>,
    /// How many requests to write have been taken.
    taken: watch::Receiver<u32>,
}

impl Running {
    async fn start(directory: &Path, id: u32, address: &str, writes: Writes) -> Self {
        let store = Registers::open(Some(directory), id, Some(3));
        let store = Arc::new(store.expect("it can be opened"));
        let (writes, told) = watch::channel(writes);
        let (take, taken) = watch::channel(0);
        let gate = move |incoming: Incoming, next: Next| {
            let (mut told, take) = (told.clone(), take.clone());
            async move {
                let is_write = incoming.ctx().method().ends_with("Write");
                if is_write {
                    let open = told.wait_for(|writes| *writes != Writes::Held).await;
                    if !open.is_ok_and(|writes| *writes == Writes::Taken) {
                        return Err(Status::unavailable("it takes no writes"));
                    }
                }
                let reply = next.run(incoming).await;
                take.send_modify(|taken| *taken += u32::from(is_write));
                reply
            }
        };
        let replica = Replica::new(Arc::clone(&store), Delay::default());
        let server = Server::builder()
            .interceptor(gate)
            .add_service(RegisterServer::new(replica))
            .add_service(store.source());
        let server = server.bind(address).await.expect("it is free");
        Self {
            store,
            address: server.local_addr().to_string(),
            serving: tokio::spawn(server.serve()),
            writes,
            taken,
        }
    }

    async fn end(self) {
        self.serving.abort();
        let _ = self.serving.await;
        self.store.close().await;
    }

    async fn value(&self, key: &str) -> Option<String> {
        let found = self.store.read(key.to_owned()).await.expect("it answers");
        let Stored::Coming(found) = found else {
            panic!("it is on disk");
        };
        let found = found.result().await.expect("the disk works");
        found.map(|found| found.value)
    }
}

/// Replica 1 acknowledges a write, and loses it with all of its data. It gets them again from others
/// that have not heard of the write yet, one of which acknowledges it then.
#[tokio::test]
async fn an_acknowledgement_does_not_outlast_what_it_acknowledges() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut replicas = Vec::new();
    for (id, writes) in [(1, Writes::Taken), (2, Writes::Held), (3, Writes::Refused)] {
        Registers::set_up(directory, id, false).expect("it is new");
        replicas.push(Running::start(directory, id, "127.0.0.1:0", writes).await);
    }
    let addresses: Vec<_> = replicas
        .iter()
        .map(|replica| replica.address.clone())
        .collect();
    // What is held keeps what comes behind it on the same connection.
    let [all, peers] = [(); 2].map(|()| {
        let nodes = Configuration::builder().nodes(addresses.clone());
        nodes.connect().expect("three addresses")
    });
    let register = Register::new(RegisterClient::new(&all), Writer::from(1))
        .with_timeout(std::time::Duration::from_secs(60));
    let write = tokio::spawn(register.write("k", "v"));
    let one = replicas.remove(0);
    let mut taken = one.taken.clone();
    taken.wait_for(|taken| *taken == 1).await.expect("it runs");
    // The client has the acknowledgement: it has been answered something that came later.
    let first = RegisterClient::new(all.select([1]).expect("it is one of them"));
    let later = first.latest(register::proto::LatestRequest::default());
    later.all().await.expect("it is there");

    one.end().await;
    for file in ["replica-1.redb", "replica-1.rejoin"] {
        fs::remove_file(directory.join(file)).expect("it is there");
    }
    let one = Running::start(directory, 1, &addresses[0], Writes::Taken).await;
    Arc::clone(&one.store)
        .catch_up(peers.without(1), |_| ())
        .await;
    assert_eq!(one.value("k").await, None);

    replicas[0].writes.send_replace(Writes::Taken);
    let written = write.await.expect("it does not panic");
    written.expect("two replicas take it");
    assert_eq!(one.value("k").await.as_deref(), Some("v"));
}
