//! Replicas that lose their data and get them again from the others.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_shell::ReplicaStore;
use common::{Program, host, run, serve_as};
use gorums::{Configuration, Server};
use storage::client::Client;
use storage::proto::storage_client::StorageClient;
use storage::proto::storage_server::StorageServer;
use storage::service::{Delay, Replica};
use storage::store::{Entry, Store, Stored, Time, Times};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// Three replicas of this process, with a directory for each.
struct Cluster {
    directory: TempDir,
    addresses: Vec<String>,
    replicas: Vec<Option<Running>>,
}

struct Running {
    store: Arc<Store>,
    serving: JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cluster = Self {
            directory,
            addresses: free_addresses().to_vec(),
            replicas: (0..3).map(|_| None).collect(),
        };
        for id in 1..=3 {
            <Store as ReplicaStore>::set_up(cluster.directory.path(), id, false).expect("new");
            cluster.serve(id).await;
        }
        cluster
    }

    /// All replicas but this one.
    fn others(&self, id: u32) -> Configuration {
        self.configuration().without(id)
    }

    fn configuration(&self) -> Configuration {
        let nodes = Configuration::builder().nodes(self.addresses.clone());
        nodes.connect().expect("they are well formed")
    }

    fn client(&self) -> Client {
        Client::new(StorageClient::new(self.configuration()), Times::default())
    }

    /// Starts a replica, which does not catch up by itself.
    async fn serve(&mut self, id: u32) -> Arc<Store> {
        let store = Store::open(Some(self.directory.path()), id, Some(3));
        let store = Arc::new(store.expect("it can be opened"));
        let replica = Replica::new(Arc::clone(&store), Delay::default());
        let server = Server::builder()
            .add_service(StorageServer::new(replica))
            .add_service(store.source());
        let address = &self.addresses[id as usize - 1];
        let server = server.bind(address.as_str()).await.expect("it is free");
        let serving = tokio::spawn(server.serve());
        let running = Running {
            store: Arc::clone(&store),
            serving,
        };
        self.replicas[id as usize - 1] = Some(running);
        store
    }

    async fn stop(&mut self, id: u32) {
        let running = self.replicas[id as usize - 1].take().expect("it runs");
        running.serving.abort();
        let _ = running.serving.await;
        running.store.close().await;
    }

    /// One of the files of a replica.
    fn file(&self, id: u32, kind: &str) -> PathBuf {
        self.directory.path().join(format!("replica-{id}.{kind}"))
    }

    fn lose(&self, id: u32) {
        lose(self.directory.path(), id);
    }

    fn has_data_again(&self, id: u32) -> bool {
        let running = self.replicas[id as usize - 1].as_ref().expect("it runs");
        running.store.seat().expect("it has a seat").is_whole()
    }
}

async fn value_of(store: &Store, number: usize) -> String {
    let found = store.read(format!("k{number}")).await.expect("it answers");
    let Stored::Coming(found) = found else {
        panic!("it is on disk");
    };
    let found = found.result().await.expect("the disk works");
    found.expect("it came from the others").value
}

fn lose(directory: &Path, id: u32) {
    for file in ["redb", "seal", "rejoin"] {
        fs::remove_file(directory.join(format!("replica-{id}.{file}"))).expect("it is there");
    }
}

/// Addresses that are free now.
fn free_addresses() -> [String; 3] {
    let reserved = [(); 3].map(|()| TcpListener::bind(format!("{}:0", host())).expect("a port"));
    reserved.map(|listener| listener.local_addr().expect("it is bound").to_string())
}

#[tokio::test]
async fn a_replica_that_has_lost_its_data_answers_nothing_until_it_has_them_again() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client();
    // Several pages, with some records that are larger than one.
    let large = "v".repeat(200_000);
    for number in 0..700 {
        let value = if number % 300 == 0 { &large } else { "v" };
        let written = client.write(&format!("k{number}"), value).await;
        assert!(written.expect("all are there").is_new());
    }
    cluster.stop(3).await;
    cluster.lose(3);
    let store = cluster.serve(3).await;
    let refused = store
        .read("k1".to_owned())
        .await
        .expect_err("it has nothing");
    assert_eq!(refused.code(), gorums::Code::Unavailable);
    // Without it a majority is there, and with one of the others only there is none.
    let found = client.read("k1").await.expect("two have their data");
    assert_eq!(found.expect("it was written").value, "v");
    cluster.stop(1).await;
    let error = client.read("k1").await.expect_err("one has its data");
    assert!(
        error.to_string().contains("replica 3 has lost its data"),
        "{error}"
    );
    cluster.serve(1).await;

    let mut told = Vec::new();
    let others = cluster.others(3);
    Arc::clone(&store)
        .catch_up(others, |text| told.push(text))
        .await;
    assert!(cluster.has_data_again(3));
    assert!(told[0].ends_with("so far from none"), "{told:?}");
    assert_eq!(told.last().expect("some"), "replica 3 has its data");
    cluster.stop(1).await;
    cluster.stop(2).await;
    for number in 0..700 {
        let value = if number % 300 == 0 { &large } else { "v" };
        assert_eq!(value_of(&store, number).await, value, "{number}");
    }
}

#[tokio::test]
async fn catching_up_goes_on_where_it_was_interrupted_and_while_others_write() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client();
    for number in 0..700 {
        let written = client.write(&format!("k{number}"), "v").await;
        assert!(written.expect("all are there").is_new());
    }
    cluster.stop(2).await;
    cluster.stop(3).await;
    cluster.lose(3);
    // One of the others alone is not enough, and says nothing of the life that this is.
    let store = cluster.serve(3).await;
    let (tell, mut told) = unbounded_channel();
    let others = cluster.others(3);
    let catching =
        tokio::spawn(Arc::clone(&store).catch_up(others, move |text| drop(tell.send(text))));
    let waits = async |told: &mut UnboundedReceiver<String>, part: &str| {
        while !told.recv().await.expect("it goes on").contains(part) {}
    };
    waits(
        &mut told,
        "2 others have to have their data, and 1 say that they do",
    )
    .await;
    cluster.serve(2).await;
    // From one of them, or from both at once: then there is nothing left to interrupt.
    while let Some(text) = told.recv().await {
        if text.contains("all 700 records of") {
            break;
        }
    }
    catching.abort();
    let _ = catching.await;
    drop(store);
    // At least two have their data.
    let written = client.write("k7", "w").await.expect("they are a majority");
    assert!(written.is_new());
    cluster.stop(3).await;
    let store = cluster.serve(3).await;
    let others = cluster.others(3);
    Arc::clone(&store).catch_up(others, |_| ()).await;
    assert!(cluster.has_data_again(3));
    for number in 0..700 {
        let value = if number == 7 { "w" } else { "v" };
        assert_eq!(value_of(&store, number).await, value, "{number}");
    }
}

#[tokio::test]
async fn replicas_that_count_others_do_not_get_data_from_each_other() {
    let mut cluster = Cluster::start().await;
    cluster.stop(3).await;
    cluster.lose(3);
    let store = Store::<Entry>::open(Some(cluster.directory.path()), 3, Some(5));
    let store = Arc::new(store.expect("it can be opened"));
    let (tell, mut told) = unbounded_channel();
    let mut others = cluster.addresses[..2].to_vec();
    others.extend(free_addresses()[..2].to_vec());
    let others = Configuration::builder()
        .nodes(others)
        .connect()
        .expect("well formed");
    let tell = move |text| drop(tell.send(text));
    let catching = tokio::spawn(Arc::clone(&store).catch_up(others, tell));
    let expected = "replica 3 counts 5 replicas, and replica 1 counts 3";
    while !told.recv().await.expect("it goes on").contains(expected) {}
    catching.abort();
}

#[tokio::test]
async fn a_replica_whose_files_are_not_what_they_were_puts_them_aside_and_gets_its_data_again() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client();
    let [file, seal] = ["redb", "seal"].map(|kind| cluster.file(3, kind));
    cluster.stop(3).await;
    let old = fs::read(&file).expect("it is there");
    let store = cluster.serve(3).await;
    let entry = Entry {
        value: "v".to_owned(),
        time: Time::default(),
    };
    let written = store.write("its own".to_owned(), entry).await;
    let Stored::Coming(written) = written.expect("it answers") else {
        panic!("it is on disk");
    };
    assert!(written.result().await.expect("the disk works"));
    drop(store);
    for (number, case) in ["older", "damaged", "gone", "without its seal"]
        .into_iter()
        .enumerate()
    {
        let written = client.write(&format!("k{number}"), "v").await;
        assert!(written.expect("two are there").is_new(), "{case}");
        cluster.stop(3).await;
        let left = match case {
            "older" => {
                fs::write(&file, &old).expect("it can be written");
                [&seal, &file].to_vec()
            }
            "damaged" => {
                fs::write(&file, "something else").expect("it can be written");
                [&seal, &file].to_vec()
            }
            "gone" => {
                fs::remove_file(&file).expect("it is there");
                [&seal].to_vec()
            }
            _ => {
                fs::remove_file(&seal).expect("it is there");
                [&file].to_vec()
            }
        };
        let store = cluster.serve(3).await;
        assert!(!cluster.has_data_again(3), "{case}");
        let error = store.read("k0".to_owned()).await.expect_err(case);
        assert_eq!(error.code(), gorums::Code::Unavailable, "{case}");
        let mut told = Vec::new();
        let others = cluster.others(3);
        Arc::clone(&store)
            .catch_up(others, |text| told.push(text))
            .await;
        for path in left {
            let kept = format!("{}.lost", path.display());
            assert!(told[0].contains(&kept), "{case}: {told:?}");
            assert!(Path::new(&kept).exists(), "{case}");
        }
        assert!(cluster.has_data_again(3), "{case}");
        for before in 0..=number {
            assert_eq!(value_of(&store, before).await, "v", "{case}");
        }
    }
    // When it is started once more it has them.
    cluster.stop(3).await;
    cluster.serve(3).await;
    assert!(cluster.has_data_again(3));
}

/// Three replicas as processes, whose messages say when they have their data.
fn serve(id: u32, addresses: &[String; 3], data: &str) -> Program {
    let options = ["--peers", &addresses.join(","), "--data", data];
    serve_as(id, &addresses[id as usize - 1], &options).0
}

fn wait_for(program: &mut Program, part: &str) {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains(part)) {
        seen.push(program.error_line());
    }
}

#[test]
fn a_process_whose_directory_was_deleted_says_so_and_gets_its_data_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a plain path");
    let addresses = free_addresses();
    let mut replicas = Vec::new();
    for id in 1..=3 {
        let id_option = id.to_string();
        let set_up = run(&["init", "--id", &id_option, "--data", data], "");
        assert_eq!(
            set_up.stdout,
            format!("replica {id} is set up, with no data\n")
        );
        replicas.push(serve(id, &addresses, data));
    }
    let connect = addresses.join(",");
    let client = |commands: &str| run(&["--connect", &connect, "--timeout", "30s"], commands);
    let written = client("qc write k v\n");
    assert!(
        written.stdout.starts_with("written to a majority"),
        "{written:?}"
    );

    drop(replicas.pop());
    lose(directory.path(), 3);
    let mut third = serve(3, &addresses, data);
    wait_for(&mut third, "replica 3 has lost its data");
    wait_for(&mut third, "replica 3 has its data");
    let found = client("rpc 3 read k\nnodes\n");
    assert!(found.stdout.starts_with("k = \"v\""), "{found:?}");
    assert!(!found.stdout.contains("has lost its data"), "{found:?}");

    // Two of three: nobody knows any more what was acknowledged.
    drop((third, replicas.pop()));
    lose(directory.path(), 3);
    lose(directory.path(), 2);
    let mut second = serve(2, &addresses, data);
    let mut third = serve(3, &addresses, data);
    wait_for(&mut second, "too many have lost their data");
    wait_for(&mut third, "too many have lost their data");
    let refused = client("nodes\nqc read k\n");
    assert!(
        refused.stdout.contains("\nreplica 2 has lost its data"),
        "{refused:?}"
    );
    assert!(
        refused.stdout.contains("\nreplica 3 has lost its data"),
        "{refused:?}"
    );
    assert!(
        refused
            .stderr
            .contains("refused: unavailable: replica 3 has lost its data"),
        "{refused:?}"
    );

    // Somebody decides, and the other one follows.
    drop(second);
    let again = run(&["init", "--id", "2", "--data", data], "");
    assert!(again.stderr.contains("--accept-loss"), "{again:?}");
    assert_eq!(again.code, 1);
    let accepted = run(&["init", "--id", "2", "--data", data, "--accept-loss"], "");
    assert!(accepted.stdout.contains("is lost"), "{accepted:?}");
    let _second = serve(2, &addresses, data);
    wait_for(&mut third, "replica 3 has its data");
    let found = client("qc read k\n");
    assert!(found.stdout.starts_with("k = \"v\""), "{found:?}");
}

#[test]
fn a_replica_that_knows_no_others_does_not_start_without_its_data() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a plain path");
    let serve = [
        "serve",
        "--id",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--data",
        data,
    ];
    run(&["init", "--id", "1", "--data", data], "");
    let again = run(&["init", "--id", "1", "--data", data], "");
    assert_eq!(
        (again.stderr.as_str(), again.code),
        ("error: replica 1 is set up already, and has its data\n", 1)
    );
    let file = directory.path().join("replica-1.redb");
    for lost in ["damaged", "gone"] {
        match lost {
            "damaged" => fs::write(&file, "something else").expect("it can be written"),
            _ => fs::remove_file(&file).expect("it is there"),
        }
        let refused = run(&serve, "");
        assert!(
            refused.stderr.contains("start it with --peers"),
            "{refused:?}"
        );
        assert_eq!(refused.code, 1);
    }
    assert!(!file.exists());
}

#[test]
fn a_damaged_file_is_accepted_as_lost_where_somebody_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a plain path");
    let init = ["init", "--id", "1", "--data", data];
    let accept = ["init", "--id", "1", "--data", data, "--accept-loss"];
    assert_eq!(run(&init, "").code, 0);
    let whole = run(&accept, "");
    assert!(whole.stderr.contains("has its data"), "{whole:?}");
    assert_eq!(whole.code, 1);
    let file = directory.path().join("replica-1.redb");
    fs::write(&file, "something else").expect("it can be written");
    let accepted = run(&accept, "");
    for part in ["is damaged", "replica-1.redb.lost", "is lost"] {
        assert!(accepted.stdout.contains(part), "{accepted:?}");
    }
    assert_eq!(accepted.code, 0);
    let kept = directory.path().join("replica-1.redb.lost");
    assert_eq!(fs::read(kept).expect("it is kept"), b"something else");
    let verified = run(&["verify", "--id", "1", "--data", data], "");
    assert!(verified.stdout.contains("0 records"), "{verified:?}");
}
