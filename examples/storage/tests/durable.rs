//! Replicas that keep what they acknowledged, though their process is killed.

mod common;

use std::fs;
use std::path::Path;

use common::{Program, host, run};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Replica 1 with this directory, and its address.
fn serve(data: &Path) -> (Program, String) {
    let listen = format!("{}:0", host());
    let data = text(data);
    let mut replica = Program::start(&["serve", "--id", "1", "--listen", &listen, "--data", data]);
    let line = replica.line();
    let address = line.strip_prefix("replica 1 listening on ");
    let address = address.expect("it tells the address").to_owned();
    (replica, address)
}

/// The message of a replica that cannot be started with this directory.
fn refused(data: &Path) -> String {
    let listen = format!("{}:0", host());
    let args = [
        "serve",
        "--id",
        "1",
        "--listen",
        &listen,
        "--data",
        text(data),
    ];
    let done = run(&args, "");
    assert_eq!((done.stdout.as_str(), done.code), ("", 1), "{done:?}");
    assert!(!done.stderr.contains("panicked"), "{done:?}");
    done.stderr
}

#[test]
fn a_replica_that_is_killed_in_the_midst_of_writes_has_what_it_acknowledged() {
    const CLIENTS: usize = 4;
    let data = directory();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let (replica, address) = serve(data.path());
        let connect = ["--connect", &address, "--timeout", "60s"];
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Program::start(&connect)).collect();
        let key = |client, write| format!("{round}-{client}-{write}");
        let before = 10 + 7 * round;
        // So many more that each client has one under way when the replica is killed.
        let more = 200;
        for (at, client) in clients.iter_mut().enumerate() {
            for write in 0..before + more {
                let key = key(at, write);
                client.type_line(&format!("rpc 1 write {key} v{key}"));
            }
        }
        for (at, client) in clients.iter_mut().enumerate() {
            for write in 0..before {
                client.expect_line("written to node 1");
                acknowledged.push(key(at, write));
            }
        }
        // Killed, not asked.
        drop(replica);
    }
    let (_replica, address) = serve(data.path());
    let reads: String = acknowledged
        .iter()
        .map(|key| format!("rpc 1 read {key}\n"))
        .collect();
    let done = run(&["--connect", &address], &reads);
    let found = done.lines();
    assert_eq!(found.len(), acknowledged.len(), "{done:?}");
    for (found, key) in found.iter().zip(&acknowledged) {
        let expected = format!("{key} = \"v{key}\"  (");
        assert!(found.starts_with(&expected), "{expected}: {found}");
    }
}

#[test]
fn a_damaged_file_is_named_and_left_as_it_is() {
    let data = directory();
    let (replica, address) = serve(data.path());
    let write = "rpc 1 write k a-value-to-be-found";
    let done = run(&["--connect", &address, "-c", write], "");
    assert_eq!(done.code, 0, "{done:?}");
    drop(replica);
    let file = data.path().join("replica-1.redb");
    let whole = fs::read(&file).expect("a file");
    let value = b"a-value-to-be-found";
    let place = whole.windows(value.len()).position(|bytes| bytes == value);
    let place = place.expect("it is there as it is");
    let mut flipped = whole.clone();
    flipped[place] ^= 1;
    let cut = whole[..place].to_vec();
    for bytes in [flipped, cut, Vec::new(), b"something else".to_vec()] {
        fs::write(&file, &bytes).expect("written");
        let message = refused(data.path());
        let expected = format!("{} is damaged, or not the file", text(&file));
        assert!(message.contains(&expected), "{message}");
        assert!(
            message.contains("restore all files of the replica"),
            "{message}"
        );
        assert!(fs::read(&file).expect("a file") == bytes, "{message}");
    }
}

#[test]
fn the_files_of_a_replica_that_does_not_run_are_verified_and_what_is_wrong_is_named() {
    let data = directory();
    let verify = || run(&["verify", "--id", "1", "--data", text(data.path())], "");
    let file = data.path().join("replica-1.redb");
    let done = verify();
    let expected = format!("error: {}: No such file", text(&file));
    assert!(done.stderr.starts_with(&expected), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));

    let (replica, address) = serve(data.path());
    let done = verify();
    assert!(
        done.stderr.contains("is in use by another replica"),
        "{done:?}"
    );
    let write = ["-c", "rpc 1 write k v", "-c", "rpc 1 write l v"];
    let done = run(&[&["--connect", &address], &write[..]].concat(), "");
    assert_eq!(done.code, 0, "{done:?}");
    drop(replica);
    let before = fs::read(&file).expect("a file");
    let done = verify();
    let expected = "replica 1: its file is whole: 2 records, 2 answers to calls, 2 commits, ";
    assert!(done.stdout.starts_with(expected), "{done:?}");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
    assert!(fs::read(&file).expect("a file") == before);

    fs::remove_file(&file).expect("it is there");
    let expected = format!("{} is gone", text(&file));
    let done = verify();
    assert!(done.stderr.contains(&expected), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
    let message = refused(data.path());
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn a_file_is_one_process_s() {
    let data = directory();
    let (_replica, _) = serve(data.path());
    let message = refused(data.path());
    assert!(
        message.contains("replica-1.redb is in use by another replica"),
        "{message}"
    );
}

#[test]
fn a_directory_that_cannot_be_had_is_named() {
    let data = directory();
    let file = data.path().join("file");
    fs::write(&file, "").expect("written");
    let message = refused(&file);
    assert!(
        message.contains(&format!("{}: not a directory", text(&file))),
        "{message}"
    );
    if cfg!(target_os = "linux") {
        // Nobody can make one here, whatever the rights.
        let message = refused(Path::new("/proc/replicas"));
        assert!(message.contains("/proc/replicas: "), "{message}");
    }
}

#[test]
fn local_replicas_keep_their_values_over_a_stop_and_over_a_run() {
    let data = directory();
    let data = text(data.path());
    let options = ["--replicas", "2", "--data", data];
    let done = run(
        &options,
        "rpc 1 write k v\nstop 1\nstart 1\nrpc 1 read k\nrpc 2 read k\n",
    );
    let lines = done.lines();
    assert!(lines[3].starts_with("k = \"v\"  ("), "{done:?}");
    assert_eq!(lines[4], "key \"k\" not found  (node 2)");
    let done = run(&options, "rpc 1 read k\n");
    assert!(done.stdout.starts_with("k = \"v\"  ("), "{done:?}");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
}
