//! Replicas as processes of their own, and a client of them.

#[path = "../../../crates/gorums/tests/common/careless.rs"]
mod careless;
#[path = "../../../crates/gorums/tests/common/certs.rs"]
mod certs;
mod common;

use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;

use certs::{Authority, Identity};
use common::{Program, host, run, serve, serve_as};
use rcgen::SanType;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

fn serve_three() -> (Vec<Program>, Vec<String>) {
    (1..=3)
        .map(|id| serve(id, &format!("{}:0", host())))
        .unzip()
}

#[test]
fn a_client_finds_what_another_one_wrote_and_replicas_may_die() {
    let (mut replicas, addresses) = serve_three();
    let connect = addresses.join(",");
    let done = run(&["--connect", &connect, "-c", "qc write k v"], "");
    assert_eq!(
        done.stdout, "written to a majority (2 of 3 nodes)\n",
        "{done:?}"
    );
    let done = run(&["--connect", &connect], "qc read k\nnodes\n");
    assert!(done.stdout.starts_with("k = \"v\"  ("), "{done:?}");
    for (id, address) in (1..).zip(&addresses) {
        let row = format!("\n{id}     {address}");
        assert!(done.stdout.contains(&row), "{done:?}");
    }
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));

    // Killed, not asked.
    drop(replicas.remove(0));
    let done = run(&["--connect", &connect, "-c", "qc read k"], "");
    assert!(done.stdout.starts_with("k = \"v\"  ("), "{done:?}");
    drop(replicas.remove(0));
    let done = run(
        &["--connect", &connect, "--wait", "0s", "-c", "qc read k"],
        "",
    );
    assert!(
        done.stderr.contains(" of 3 nodes answered, 2 needed\n"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("node 1 ({})", addresses[0])),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("node 2 ({})", addresses[1])),
        "{done:?}"
    );
    assert_eq!(done.code, 1);
}

#[test]
fn one_way_messages_arrive_though_the_client_leaves_at_once() {
    let (_replicas, addresses) = serve_three();
    let connect = addresses.join(",");
    let rounds = 20;
    for round in 0..rounds {
        let commands = format!("mcast m{round} v\nucast 2 u{round} v\n");
        let done = run(&["--connect", &connect], &commands);
        assert_eq!(done.stdout, "sent to 3 of 3\nsent to node 2\n", "{done:?}");
    }
    let mut reads = String::new();
    for round in 0..rounds {
        reads += &format!(
            "rpc 1 read m{round}\nrpc 2 read m{round}\nrpc 3 read m{round}\nrpc 2 read u{round}\n"
        );
    }
    let done = run(&["--connect", &connect], &reads);
    assert_eq!(
        done.stdout.matches(" = \"v\"").count(),
        4 * rounds,
        "{done:?}"
    );
}

#[test]
fn replicas_that_know_each_other_take_nested_calls() {
    // Addresses that are free now, since each replica is told those of all.
    let reserved = [(); 3].map(|()| {
        let listener = std::net::TcpListener::bind(format!("{}:0", host())).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        (listener, address)
    });
    let addresses = reserved.map(|(_, address)| address);
    let all = addresses.join(",");
    let _replicas: Vec<_> = (1..)
        .zip(&addresses)
        .map(|(id, address)| serve_as(id, address, &["--peers", &all]))
        .collect();
    let done = run(
        &["--connect", &all],
        "cfg 1 nwrite k v\ncfg 3 nread k\nqc nread k\n",
    );
    let lines = done.lines();
    assert!(
        lines[1].starts_with("k = \"v\"") && lines[2].starts_with("k = \"v\""),
        "{done:?}"
    );
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
}

/// The options for these files of a folder.
fn tls_options(folder: &Path, name: &str, cluster: &str) -> Vec<String> {
    let path = |file: String| folder.join(file).display().to_string();
    let options = [
        ("--ca", path("ca.pem".to_owned())),
        ("--cert", path(format!("{name}.pem"))),
        ("--key", path(format!("{name}.key"))),
        ("--cluster", cluster.to_owned()),
    ];
    let words = options.map(|(name, value)| [name.to_owned(), value]);
    words.into_iter().flatten().collect()
}

fn write_identity(folder: &Path, name: &str, identity: &Identity) {
    fs::write(folder.join(format!("{name}.pem")), &identity.certificate).expect("there is room");
    fs::write(folder.join(format!("{name}.key")), &identity.key).expect("there is room");
}

#[test]
fn replicas_and_clients_prove_who_they_are_with_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    fs::write(folder.join("ca.pem"), authority.text()).expect("there is room");
    let reserved = [(); 3].map(|()| {
        let host = host();
        let listener = std::net::TcpListener::bind(format!("{host}:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    });
    let addresses = reserved.map(|(_, address)| address);
    let named = |id: u32| {
        let ip = addresses[id as usize - 1].ip();
        authority.issue(id, |params| {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        })
    };
    for id in 1..=3 {
        write_identity(folder, &format!("node-{id}"), &named(id));
    }
    let client = authority.issue(9, |params| {
        let is_uri = |name: &SanType| matches!(name, SanType::URI(_));
        params.subject_alt_names.retain(|name| !is_uri(name));
        // As `cargo xtask certs` has it.
        let uri = "gorums://test/client".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
    });
    write_identity(folder, "client", &client);
    write_identity(folder, "stranger", &stranger.issue(2, |_| {}));
    let addresses = addresses.map(|address| address.to_string());
    let all = addresses.join(",");
    let options = |name: &str| tls_options(folder, name, "test");
    let replica = |id: u32, name: &str| {
        let options = options(name);
        let mut words = vec!["--peers", &*all];
        words.extend(options.iter().map(String::as_str));
        serve_as(id, &addresses[id as usize - 1], &words)
    };
    let mut replicas: Vec<_> = (1..=3)
        .map(|id| replica(id, &format!("node-{id}")))
        .collect();
    let talk = |options: &[String], command: &str| {
        let mut words = vec![
            "--connect",
            &*all,
            "--wait",
            "0s",
            "--timeout",
            "30s",
            "-c",
            command,
        ];
        words.extend(options.iter().map(String::as_str));
        run(&words, "")
    };
    // Each replica writes to all, so that some have had it already.
    let done = talk(&options("client"), "qc nwrite k v");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
    let done = talk(&options("client"), "qc read k");
    assert!(done.stdout.starts_with("k = \"v\"  ("), "{done:?}");
    // One of them by hand.
    for (method, request, reply) in [
        (
            "WriteRPC",
            r#"{"key": "by", "value": "hand"}"#,
            "{\"new\":true}\n",
        ),
        (
            "ReadRPC",
            r#"{"key": "by"}"#,
            "{\"OK\":true,\"value\":\"hand\",",
        ),
    ] {
        let options = options("client");
        let mut words = vec!["call", "--connect", &*all, "--timeout", "30s"];
        words.extend(options.iter().map(String::as_str));
        words.extend(["2", method, request]);
        let done = run(&words, "");
        assert!(done.stdout.starts_with(reply), "{done:?}");
        assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
    }
    for (options, reason) in [
        (Vec::new(), "not sent"),
        (options("stranger"), "not sent"),
        (
            tls_options(folder, "client", "other"),
            "is of another cluster",
        ),
    ] {
        let done = talk(&options, "cfg 1 read k");
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(reason), "{reason}: {done:?}");
    }
    // One with the certificate of another node is none that clients take.
    drop(replicas.remove(1));
    let _impostor = replica(2, "node-3");
    let done = talk(&options("client"), "cfg 2 read k");
    assert!(
        done.stderr.contains("not sent") && done.code == 1,
        "{done:?}"
    );
    let done = talk(&options("client"), "qc read k");
    assert!(done.stdout.starts_with("k = \"v\"  ("), "{done:?}");
}

/// What a replica answers to a client of TLS that shows this.
fn answer(address: &str, authority: &Authority, identity: Option<&Identity>) -> io::Result<usize> {
    let name = ServerName::try_from("localhost").expect("a name");
    let config = careless::client(authority, identity);
    let client = ClientConnection::new(config, name).expect("sound");
    let socket = TcpStream::connect(address).expect("it listens");
    StreamOwned::new(client, socket).read(&mut [0])
}

#[test]
fn clients_that_prove_nothing_are_refused_by_an_alert_and_the_replica_serves_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    fs::write(folder.join("ca.pem"), authority.text()).expect("there is room");
    let host = host();
    let listen = format!("{host}:0");
    let ip = host.parse().expect("an address");
    let own = authority.issue(1, |params| {
        params.subject_alt_names.push(SanType::IpAddress(ip));
    });
    write_identity(folder, "node-1", &own);
    write_identity(folder, "node-2", &authority.node(2));
    let options = |name: &str| tls_options(folder, name, "test");
    let words = options("node-1");
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (_replica, address) = serve_as(1, &listen, &words);
    // Whoever says nothing holds up nobody.
    let _silent = TcpStream::connect(&address).expect("it listens");
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(stranger.node(2)), "UnknownCA"),
        (
            Some(authority.issue(2, certs::expired)),
            "CertificateExpired",
        ),
        (
            Some(authority.issue(2, certs::not_yet_valid)),
            "CertificateExpired",
        ),
        (
            Some(authority.issue(2, certs::for_servers_only)),
            "UnsupportedCertificate",
        ),
    ] {
        let error = answer(&address, &authority, identity.as_ref()).expect_err("it is refused");
        assert!(error.to_string().contains(alert), "{alert}: {error}");
    }
    // So is one that does not speak TLS.
    let done = run(&["--connect", &address, "--wait", "0s", "-c", "nodes"], "");
    assert!(!done.stdout.contains(" connected "), "{done:?}");
    let mut words = vec!["--connect", &*address, "-c", "qc write k v"];
    let options = options("node-2");
    words.extend(options.iter().map(String::as_str));
    let done = run(&words, "");
    assert_eq!(
        (done.stderr.as_str(), done.code),
        ("", 0),
        "it serves on: {done:?}"
    );
}

#[test]
fn options_of_tls_that_are_wrong_say_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("ours");
    fs::write(folder.path().join("ca.pem"), authority.text()).expect("there is room");
    write_identity(folder.path(), "node-1", &authority.node(1));
    let options = tls_options(folder.path(), "node-1", "test");
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let missing = tls_options(folder.path(), "node-2", "test");
    let missing: Vec<_> = missing.iter().map(String::as_str).collect();
    let serve = ["serve", "--id", "1", "--listen", "127.0.0.1:0"];
    let connect = ["--connect", "127.0.0.1:1", "-c", "qc read k"];
    for (words, expected) in [
        ([&serve[..], &options[..2]].concat(), "--cert"),
        ([&serve[..], &options[2..4]].concat(), "--ca"),
        ([&serve[..], &missing[..]].concat(), "node-2.pem"),
        ([&connect[..], &missing[..]].concat(), "node-2.pem"),
        (
            [&["-c", "qc read k"][..], &options[..]].concat(),
            "--connect",
        ),
    ] {
        let done = run(&words, "");
        assert!(
            done.stderr.contains(expected) && done.code == 2,
            "{expected}: {done:?}"
        );
    }
}

#[test]
fn a_replica_without_peers_says_what_nested_calls_need() {
    let (_replica, address) = serve(1, &format!("{}:0", host()));
    let done = run(&["--connect", &address], "qc nread k\nqc nwrite k v\n");
    assert_eq!(
        done.stderr.matches("start it with --peers").count(),
        2,
        "{done:?}"
    );
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
}

#[test]
fn peers_that_contradict_each_other_or_lack_the_replica_are_wrong_options() {
    for (peers, reason) in [
        ("1=a:1,1=b:1", "two nodes have the id 1"),
        (
            "2=a:1,3=b:1",
            "this server is to be node 1, and its peers are 2, 3",
        ),
        ("1=a", "expected host:port"),
    ] {
        let listen = format!("{}:0", host());
        let done = run(
            &["serve", "--id", "1", "--listen", &listen, "--peers", peers],
            "",
        );
        assert!(done.stderr.contains(reason), "{done:?}");
        assert_eq!((done.stdout.as_str(), done.code), ("", 2), "{peers}");
    }
}

#[test]
fn nodes_have_the_ids_that_they_are_given() {
    let (_replicas, addresses) = serve_three();
    let connect = format!("7={},20={},5={}", addresses[0], addresses[1], addresses[2]);
    let done = run(
        &["--connect", &connect],
        "rpc 20 write k v\ncfg 7,20 read k\ncfg 5:7 read k\ncfg 1 read k\n",
    );
    let lines = done.lines();
    assert_eq!(lines[0], "written to node 20");
    assert!(lines[1].starts_with("k = \"v\""), "{done:?}");
    assert_eq!(lines[2], "key \"k\" not found  (2 of 2 nodes answered)");
    assert!(
        done.stderr
            .contains("there is no node 1; the nodes are 7, 20, 5"),
        "{done:?}"
    );
}

#[test]
fn nodes_can_come_from_a_file() {
    let (_replicas, addresses) = serve_three();
    let mut file = String::new();
    for (id, address) in (4..).zip(&addresses) {
        file += &format!("[[node]]\nid = {id}\naddress = \"{address}\"\n\n");
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("nodes-{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("a file for the test");
    let path = path.to_str().expect("a plain path");
    let done = run(&["--config", path], "qc write k v\ncfg 4,6 read k\n");
    std::fs::remove_file(path).expect("it was made above");
    assert!(done.stdout.contains("k = \"v\""), "{done:?}");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0));
}

#[test]
fn replicas_elsewhere_cannot_be_stopped_from_here() {
    let (_replica, address) = serve(1, &format!("{}:0", host()));
    for command in ["stop 1", "start 1", "pause 1", "resume 1", "delay 1 5"] {
        let done = run(&["--connect", &address, "-c", command], "");
        assert!(done.stderr.contains("this program has started"), "{done:?}");
        assert_eq!((done.stdout.as_str(), done.code), ("", 1));
    }
}

#[test]
fn replicas_that_nobody_runs_are_named() {
    // A port that was just given back.
    let free = || {
        let listener = std::net::TcpListener::bind((host(), 0)).expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let connect = format!("{},{}", free(), free());
    let done = run(
        &["--connect", &connect, "--wait", "1ms"],
        "qc read k\nmcast k v\nrpc 1 read k\n",
    );
    assert!(
        done.stderr.contains("0 of 2 nodes answered, 2 needed\n"),
        "{done:?}"
    );
    let waited = "0 of 2 replicas connected after 1ms, 2 needed\n";
    assert!(done.stderr.starts_with(waited), "{done:?}");
    assert!(done.stderr.contains("sent to 0 of 2; node "), "{done:?}");
    assert!(
        done.stderr.contains("error in line 3: node 1 ("),
        "{done:?}"
    );
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (_replica, address) = serve(1, &format!("{}:0", host()));
    let done = run(&["serve", "--id", "2", "--listen", &address], "");
    assert!(
        done.stderr.contains(&format!("cannot listen on {address}")),
        "{done:?}"
    );
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
}

#[cfg(unix)]
fn send_signal(program: &Program, signal: &str) {
    let kill = format!("kill -{signal} {}", program.id());
    let status = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status();
    assert!(status.expect("there is a shell").success());
}

#[cfg(unix)]
#[test]
fn a_frozen_replica_costs_the_others_nothing_and_catches_up() {
    let (replicas, addresses) = serve_three();
    let connect = addresses.join(",");
    let mut client = Program::start(&["--connect", &connect, "--timeout", "1500ms"]);
    client.type_line("qc write k old");
    client.expect_line("written to a majority (2 of 3 nodes)");
    send_signal(&replicas[1], "STOP");
    client.type_line("qc write k new");
    client.expect_line("written to a majority (2 of 3 nodes)");
    client.type_line("qc read k");
    assert!(client.line().starts_with("k = \"new\""));
    client.type_line("mcast j v");
    client.expect_line("sent to 3 of 3");
    client.type_line("rpc 2 read k");
    let error = client.error_line();
    assert!(
        error.contains("node 2 (") && error.contains("deadline exceeded"),
        "{error}"
    );
    send_signal(&replicas[1], "CONT");
    client.type_line("rpc 2 read k");
    assert!(client.line().starts_with("k = \"new\""));
    client.type_line("rpc 2 read j");
    assert!(client.line().starts_with("j = \"v\""));
    assert_eq!(client.end(), 1);
}

#[cfg(unix)]
#[test]
fn a_replica_ends_when_it_is_told_to_though_clients_are_connected() {
    for signal in ["TERM", "INT"] {
        let (mut replica, address) = serve(1, &format!("{}:0", host()));
        let mut client = Program::start(&["--connect", &address]);
        client.type_line("rpc 1 write k v");
        client.expect_line("written to node 1");
        send_signal(&replica, signal);
        assert_eq!(replica.error_line(), "replica 1 has ended");
        assert_eq!(replica.end(), 0, "{signal}");
        client.type_line("rpc 1 read k");
        assert!(client.error_line().starts_with("error in line 2: node 1 ("));
        assert_eq!(client.end(), 1);

        // Its successor takes the port, and the client finds it.
        let (_replica, again) = serve(1, &address);
        assert_eq!(again, address);
    }
}

#[test]
fn a_client_waits_for_replicas_that_are_being_started() {
    let addresses: Vec<_> = (1..=3)
        .map(|_| {
            let listener = std::net::TcpListener::bind((host(), 0)).expect("a port");
            listener.local_addr().expect("an address").to_string()
        })
        .collect();
    let connect = addresses.join(",");
    let mut client =
        Program::start(&["--connect", &connect, "--wait", "60s", "-c", "qc write k v"]);
    // It calls nobody before there is a majority, and a majority is enough.
    let _replicas: Vec<_> = (1..)
        .zip(&addresses[..2])
        .map(|(id, address)| serve(id, address))
        .collect();
    client.expect_line("written to a majority (2 of 3 nodes)");
    assert_eq!(client.end(), 0);
}

/// The block of shell in which the README starts three replicas, with these for its ports and its
/// program.
#[cfg(unix)]
fn readme(host: &str, ports: [u16; 3]) -> String {
    let readme = include_str!("../../../README.md");
    let mut blocks = readme.split("```sh\n").skip(1);
    let block = blocks.find_map(|block| {
        let (block, _) = block.split_once("```")?;
        block.contains("storage serve --id").then_some(block)
    });
    let mut block = block.expect("the README has one").to_owned();
    for (known, here) in [
        ("cargo build --release -p storage", ":"),
        ("target/release/storage", env!("CARGO_BIN_EXE_storage")),
        ("127.0.0.1", host),
    ] {
        assert!(block.contains(known), "{known}");
        block = block.replace(known, here);
    }
    for (known, here) in ["8081", "8082", "8083"].iter().zip(ports) {
        assert!(block.contains(known), "{known}");
        block = block.replace(known, &here.to_string());
    }
    block
}

#[cfg(unix)]
#[test]
fn the_block_of_the_readme_works_as_a_whole_in_a_shell_without_a_terminal() {
    let data = tempfile::tempdir().expect("a directory");
    let host = host();
    let ports = [(); 3].map(|()| {
        let listener = std::net::TcpListener::bind((&*host, 0)).expect("a port");
        listener.local_addr().expect("an address").port()
    });
    let done = Shell::run(data.path(), &readme(&host, ports));
    assert!(
        done.contains("written to a majority (2 of 3 nodes)\n"),
        "{done}"
    );
    assert!(done.contains("greeting = \"hello\"  ("), "{done}");
    assert!(!done.contains("error"), "{done}");
}

/// A shell and what it leaves running, which is killed when this is dropped.
#[cfg(unix)]
struct Shell(std::process::Child);

#[cfg(unix)]
impl Shell {
    /// What it prints until it ends.
    fn run(directory: &std::path::Path, script: &str) -> String {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        let path = directory.join("printed");
        let printed = std::fs::File::create(&path).expect("a file for the test");
        let mut shell = Command::new("sh");
        shell
            .args(["-e", "-c", script])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(printed.try_clone().expect("there is room"))
            .stderr(printed)
            .process_group(0);
        let mut shell = Self(shell.spawn().expect("there is a shell"));
        let status = shell.0.wait().expect("it ends");
        let printed = std::fs::read_to_string(path).expect("text");
        assert!(status.success(), "{printed}");
        printed
    }
}

#[cfg(unix)]
impl Drop for Shell {
    fn drop(&mut self) {
        let kill = format!("kill -KILL -{}", self.0.id());
        let status = std::process::Command::new("sh")
            .args(["-c", &kill])
            .status();
        assert!(status.expect("there is a shell").success());
    }
}

#[test]
fn a_replica_with_the_id_of_another_one_does_not_start() {
    let host = host();
    let (first, second) = (format!("{host}:8081"), format!("{host}:8082"));
    let peers = format!("{first},{second}");
    let done = run(
        &["serve", "--id", "1", "--listen", &second, "--peers", &peers],
        "",
    );
    let expected = format!(
        "error: --listen is {second}, but --peers say that replica 1 is at {first}: each replica has an --id of \
         its own, and listens where the others look for it\n"
    );
    assert_eq!((done.stderr, done.code), (expected, 1));
}
