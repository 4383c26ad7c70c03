//! The protocol, with replicas of this process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_shell::{Delay, ReplicaStore};
use gorums::server::{Incoming, Next};
use gorums::{Configuration, NodeId, Outcome, Server, Status};
use register::client::{Effect, Register};
use register::proto::register_client::RegisterClient;
use register::proto::register_server::RegisterServer;
use register::proto::{ReadRequest, WriteRequest};
use register::service::Replica;
use register::version::{Version, Versioned, Writer};
use storage::store::Store;
use tokio::task::JoinHandle;

/// Replicas, and a configuration of all of them.
struct Cluster {
    configuration: Configuration,
    /// How many requests to write they got.
    writes: Arc<AtomicUsize>,
    stores: Vec<Arc<Store<Versioned>>>,
    serving: Vec<JoinHandle<()>>,
}

impl Cluster {
    async fn start(count: u32) -> Self {
        Self::start_with((0..count).map(|_| Store::in_memory())).await
    }

    async fn start_on(count: u32, directory: &Path) -> Self {
        let open = |id| Store::open(Some(directory), id, None).expect("it can be opened");
        Self::start_with((1..=count).map(open)).await
    }

    async fn start_with(stores: impl Iterator<Item = Store<Versioned>>) -> Self {
        let stores: Vec<_> = stores.map(Arc::new).collect();
        let writes = Arc::new(AtomicUsize::new(0));
        let (mut addresses, mut serving) = (Vec::new(), Vec::new());
        for store in &stores {
            let writes = Arc::clone(&writes);
            let count = move |incoming: Incoming, next: Next| {
                if incoming.ctx().method().ends_with("Write") {
                    writes.fetch_add(1, Ordering::SeqCst);
                }
                next.run(incoming)
            };
            let replica = Replica::new(Arc::clone(store), Delay::default());
            let server = Server::builder()
                .interceptor(count)
                .add_service(RegisterServer::new(replica))
                .bind("127.0.0.1:0")
                .await
                .expect("a port");
            addresses.push(server.local_addr().to_string());
            serving.push(tokio::spawn(async move {
                let _ = server.serve().await;
            }));
        }
        Self {
            configuration: Configuration::builder()
                .nodes(addresses)
                .connect()
                .expect("three addresses"),
            writes,
            stores,
            serving,
        }
    }

    /// A client of these replicas only.
    fn client_of<const N: usize>(&self, ids: [u32; N], writer: u128) -> Register {
        let some = self.configuration.select(ids).expect("they exist");
        Register::new(RegisterClient::new(some), Writer::from(writer))
            .with_timeout(Duration::from_secs(30))
    }

    fn client(&self, writer: u128) -> Register {
        let all = RegisterClient::new(&self.configuration);
        Register::new(all, Writer::from(writer)).with_timeout(Duration::from_secs(30))
    }

    /// What one replica has.
    async fn at(&self, id: u32, key: &str) -> Option<String> {
        let one = self.configuration.select([id]).expect("it exists");
        let request = ReadRequest {
            key: key.to_owned(),
        };
        let reply = RegisterClient::new(one).read(request).all().await;
        let reply = reply.expect("it answers");
        reply.version.map(|_| reply.value)
    }

    async fn stop(self) {
        for serving in self.serving {
            serving.abort();
            let _ = serving.await;
        }
        for store in self.stores {
            store.close().await;
        }
    }
}

fn version(number: u64, writer: u128) -> Version {
    let writer = Writer::from(writer);
    Version { number, writer }
}

async fn value(client: &Register, key: &str) -> Option<String> {
    let found = client.read(key).await.expect("a majority answers");
    found.map(|found| found.value)
}

#[tokio::test]
async fn a_client_reads_what_another_one_wrote_and_each_key_is_a_register() {
    let cluster = Cluster::start(3).await;
    let (one, other) = (cluster.client(1), cluster.client(2));
    assert_eq!(value(&one, "k").await, None);
    assert_eq!(one.write("k", "a").await.expect("written"), version(1, 1));
    assert_eq!(value(&other, "k").await.as_deref(), Some("a"));
    assert_eq!(other.write("k", "").await.expect("written"), version(2, 2));
    assert_eq!(value(&one, "k").await.as_deref(), Some(""));
    assert_eq!(value(&one, "").await, None);
}

#[tokio::test]
async fn a_read_that_finds_replicas_differ_writes_the_newest_back() {
    let cluster = Cluster::start(3).await;
    // A write that reached but one replica, and a majority in which one has it.
    cluster
        .client_of([1], 1)
        .write("k", "new")
        .await
        .expect("written");
    assert_eq!(cluster.at(2, "k").await, None);
    let found = cluster.client_of([1, 2], 2).read("k").await;
    let found = found.expect("both answer").expect("one has it");
    assert_eq!(
        (found.value.as_str(), found.version),
        ("new", version(1, 1))
    );
    assert_eq!(cluster.at(2, "k").await.as_deref(), Some("new"));
    // With the same version, so that the next read of this majority finds nothing to do.
    let before = cluster.writes.load(Ordering::SeqCst);
    assert_eq!(
        value(&cluster.client_of([1, 2], 3), "k").await.as_deref(),
        Some("new")
    );
    assert_eq!(cluster.writes.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_replica_keeps_the_newest_in_whatever_order_they_come() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(1);
    let cases = [
        ("a", version(2, 5), "a"),
        ("b", version(1, 9), "a"),
        ("c", version(2, 4), "a"),
        ("d", version(2, 5), "a"),
        ("e", version(2, 6), "e"),
        ("f", version(3, 1), "f"),
    ];
    for (value, version, expected) in cases {
        let request = WriteRequest {
            key: "k".to_owned(),
            version: Some(version.into()),
            value: value.to_owned(),
        };
        client
            .replicas()
            .write(request)
            .all()
            .await
            .expect("it answers");
        assert_eq!(
            cluster.at(1, "k").await.as_deref(),
            Some(expected),
            "{value}"
        );
    }
}

#[tokio::test]
async fn writes_of_one_client_at_once_have_versions_of_their_own() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    let writes: Vec<_> = (0..20)
        .map(|write| tokio::spawn(client.write("k", &write.to_string())))
        .collect();
    let mut versions = Vec::new();
    for (value, write) in writes.into_iter().enumerate() {
        versions.push((write.await.expect("no panic").expect("written"), value));
    }
    versions.sort_unstable();
    let newest = versions.last().map(|(_, value)| value.to_string());
    versions.dedup_by_key(|(version, _)| *version);
    assert_eq!(versions.len(), 20);
    assert_eq!(value(&client, "k").await, newest);
}

#[tokio::test]
async fn what_was_written_is_there_when_all_replicas_have_been_stopped() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_on(3, directory.path()).await;
    let written = cluster
        .client(u128::MAX)
        .write("k", "v")
        .await
        .expect("written");
    cluster.stop().await;
    let cluster = Cluster::start_on(3, directory.path()).await;
    let found = cluster.client(1).read("k").await.expect("a majority");
    let found = found.expect("it was written");
    assert_eq!((found.value.as_str(), found.version), ("v", written));
    let again = cluster.client(1).write("k", "w").await.expect("written");
    assert_eq!(again, version(2, 1));
    cluster.stop().await;
}

#[tokio::test]
async fn the_file_of_another_program_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::<storage::store::Entry>::open(Some(directory.path()), 1, None);
    store.expect("a new one").close().await;
    let error =
        Store::<Versioned>::open(Some(directory.path()), 1, None).expect_err("another type");
    assert!(
        error.to_string().contains("not the file of a replica"),
        "{error}"
    );
}

#[tokio::test]
async fn a_write_without_a_version_is_refused() {
    let cluster = Cluster::start(1).await;
    let request = WriteRequest::default();
    let error = cluster.client(1).replicas().write(request).all().await;
    let error = error.expect_err("refused");
    assert!(
        error.to_string().contains("a write needs a version"),
        "{error}"
    );
}

/// Replicas whose handlers do not come to this method.
async fn deaf_to(method: &'static str) -> Configuration {
    let mut addresses = Vec::new();
    for _ in 0..3 {
        let deaf = move |incoming: Incoming, next: Next| async move {
            if incoming.ctx().method().ends_with(method) {
                return Err(Status::unavailable("the disk is on fire"));
            }
            next.run(incoming).await
        };
        let replica = Replica::new(Arc::new(Store::in_memory()), Delay::default());
        let server = Server::builder()
            .interceptor(deaf)
            .add_service(RegisterServer::new(replica))
            .bind("127.0.0.1:0")
            .await
            .expect("a port");
        addresses.push(server.local_addr().to_string());
        tokio::spawn(server.serve());
    }
    let configuration = Configuration::builder().nodes(addresses).connect();
    configuration.expect("three addresses")
}

#[tokio::test]
async fn a_write_that_fails_in_its_first_phase_is_not_done_and_one_that_fails_later_is_unknown() {
    for (method, effect, text) in [
        ("Latest", Effect::NotDone, "\"k\" was not written: "),
        (
            "Write",
            Effect::Unknown,
            "it is unknown whether \"k\" was or will be written: ",
        ),
    ] {
        let replicas = RegisterClient::new(deaf_to(method).await);
        let error = Register::new(replicas, Writer::from(1))
            .write("k", "v")
            .await;
        let error = error.expect_err("no majority");
        assert_eq!(error.effect(), effect, "{method}");
        let message = error.to_string();
        assert!(
            message.starts_with(text) && message.contains("on fire"),
            "{message}"
        );
        assert_eq!(error.call().expect("a call failed").nodes(), 3);
    }
}

#[tokio::test]
async fn a_read_that_fails_has_changed_nothing() {
    let replicas = RegisterClient::new(deaf_to("Read").await);
    let error = Register::new(replicas, Writer::from(1)).read("k").await;
    let error = error.expect_err("no majority");
    assert_eq!(error.effect(), Effect::NotDone);
    assert!(
        error.to_string().starts_with("\"k\" could not be read: "),
        "{error}"
    );
}

#[tokio::test]
async fn both_phases_of_an_operation_have_one_deadline() {
    // A port that accepts connections, and a process that never reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("it is bound").to_string();
    let configuration = Configuration::builder().nodes([address]).connect();
    let replicas = RegisterClient::new(configuration.expect("an address"));
    let register =
        Register::new(replicas, Writer::random()).with_timeout(Duration::from_millis(50));
    let error = register.write("k", "v").await.expect_err("nobody answers");
    assert_eq!(error.effect(), Effect::NotDone);
    assert!(error.to_string().contains("deadline exceeded"), "{error}");
    let failure = error.call().and_then(|call| call.failure(NodeId::from(1)));
    assert_ne!(failure.expect("node 1 failed").outcome(), Outcome::Refused);
}
