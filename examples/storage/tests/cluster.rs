//! Replicas as processes that one command starts, and that end with it.

mod common;

use std::io::Read;
use std::net::TcpStream;

use common::{PATIENCE, Program, host, run};

/// The cluster on addresses of its own.
fn start(options: &[&str]) -> Program {
    Program::start(&[&["cluster", "--listen", &host()], options].concat())
}

/// What `nodes` says of each replica: address, and what was done to it.
fn nodes(cluster: &mut Program, count: usize) -> Vec<(String, String)> {
    cluster.type_line("nodes");
    assert!(cluster.line().starts_with("node  address"));
    let rows = (0..count).map(|_| {
        let row = cluster.line();
        let cells: Vec<_> = row
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        (cells[1].to_owned(), cells[4].to_owned())
    });
    rows.collect()
}

/// The process of a replica, by what `nodes` says of it.
fn process(condition: &str) -> u32 {
    let (_, process) = condition.rsplit_once(", process ").expect("it has one");
    process.parse().expect("a number")
}

/// Connections to all replicas, which end with these, and their processes.
fn watch(cluster: &mut Program, count: usize) -> Vec<(TcpStream, u32)> {
    let nodes = nodes(cluster, count);
    let connect = |(address, condition): (String, String)| {
        let connection = TcpStream::connect(address).expect("it serves");
        (connection, process(&condition))
    };
    nodes.into_iter().map(connect).collect()
}

/// Waits until the replicas have ended.
fn gone(connections: Vec<(TcpStream, u32)>, how: &str) {
    for (mut connection, process) in connections {
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("it is more than nothing");
        // Whatever the replica said before.
        let ended = connection.read_to_end(&mut Vec::new());
        let waited = ended.as_ref().err().map(std::io::Error::kind);
        assert_ne!(
            waited,
            Some(std::io::ErrorKind::WouldBlock),
            "process {process} did not end after {how}: {}",
            std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default()
        );
    }
}

#[cfg(unix)]
fn send_signal(process: u32, signal: &str) {
    let kill = format!("kill -{signal} {process}");
    let status = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status();
    assert!(status.expect("there is a shell").success());
}

#[test]
fn processes_serve_and_call_each_other() {
    let done = run(
        &["cluster", "--listen", &host()],
        "qc write k v\nqc nwrite j w\nqc nread k\nmcast k again\nrpc 3 read k\n",
    );
    let lines = done.lines();
    assert_eq!(lines[0], "written to a majority (2 of 3 nodes)", "{done:?}");
    // A replica may have it from another one before it is asked.
    let already = ["written to a majority", " had it already, or "];
    let known = already.iter().any(|text| lines[1].contains(text));
    assert!(known, "{done:?}");
    assert!(lines[2].starts_with("k = \"v\"  ("), "{done:?}");
    assert_eq!(lines[3], "sent to 3 of 3");
    assert!(lines[4].starts_with("k = \"again\"  ("), "{done:?}");
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{done:?}");
}

#[test]
fn commands_come_from_options_too_and_a_failed_one_is_the_exit_status() {
    let args = ["cluster", "--replicas", "2", "--listen", &host()];
    let done = run(
        &[&args[..], &["-c", "qc write k v", "-c", "frobnicate"]].concat(),
        "",
    );
    assert_eq!(
        done.stdout, "written to a majority (2 of 2 nodes)\n",
        "{done:?}"
    );
    assert!(
        done.stderr.contains("unknown command \"frobnicate\""),
        "{done:?}"
    );
    assert_eq!(done.code, 1);
}

#[test]
fn what_was_acknowledged_is_there_after_each_was_killed_in_the_midst_of_writes() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("a plain path");
    let mut cluster = start(&["--data", data]);
    let rounds = 3;
    let writes = 40;
    let mut expected = 0;
    for round in 0..rounds {
        let victim = 1 + round % 3;
        // The replica is killed and comes back while these are under way or acknowledged.
        for write in 0..writes {
            cluster.type_line(&format!("qc write k{round}-{write} v"));
            if write == writes / 3 {
                cluster.type_line(&format!("stop {victim}"));
            }
            if write == 2 * writes / 3 {
                cluster.type_line(&format!("start {victim}"));
            }
        }
        for _ in 0..writes + 2 {
            let line = cluster.line();
            expected += usize::from(line == "written to a majority (2 of 3 nodes)");
        }
    }
    assert_eq!(expected, rounds * writes, "{:?}", cluster.messages());
    // And all at once.
    let connections = watch(&mut cluster, 3);
    for id in 1..=3 {
        cluster.type_line(&format!("stop {id}"));
        cluster.expect_line(&format!("replica {id} is stopped"));
    }
    gone(connections, "a kill");
    for id in 1..=3 {
        cluster.type_line(&format!("start {id}"));
        cluster.expect_line(&format!(
            "replica {id} is running, with what it had on disk"
        ));
    }
    for round in 0..rounds {
        for write in 0..writes {
            let key = format!("k{round}-{write}");
            cluster.type_line(&format!("qc read {key}"));
            let line = cluster.line();
            assert!(line.starts_with(&format!("{key} = \"v\"  (")), "{line}");
        }
    }
    assert_eq!(cluster.end(), 0);
    // Another cluster finds it as well.
    let args = ["cluster", "--listen", &host(), "--data", data];
    let done = run(&args, "qc read k0-0\n");
    assert!(done.stdout.starts_with("k0-0 = \"v\"  ("), "{done:?}");
}

#[test]
fn a_lost_majority_is_reported_with_its_nodes() {
    let args = ["cluster", "--listen", &host()];
    let done = run(
        &args,
        "stop 1\nstop 3\nqc write k v\nstart 3\nqc write k v\n",
    );
    let lines = done.lines();
    assert_eq!(lines[..2], ["replica 1 is stopped", "replica 3 is stopped"]);
    assert!(
        done.stderr.contains("1 of 3 nodes answered, 2 needed\n"),
        "{done:?}"
    );
    for id in [1, 3] {
        assert!(
            done.stderr.contains(&format!("  node {id} (127.")),
            "{done:?}"
        );
    }
    assert_eq!(lines[2], "replica 3 is running, and empty");
    assert_eq!(lines[3], "written to a majority (2 of 3 nodes)", "{done:?}");
    assert_eq!(done.code, 1);
}

#[test]
fn what_does_not_fit_the_state_of_a_replica_is_refused_with_the_reason() {
    let args = ["cluster", "--replicas", "1", "--listen", &host()];
    let done = run(
        &args,
        "start 1\nresume 1\nstop 1\nstop 1\ndelay 1 5\nstop 2\n",
    );
    for reason in [
        "line 1: replica 1 is running\n",
        "line 2: replica 1 is not paused\n",
        "line 4: replica 1 is stopped; \"start 1\" starts it\n",
        "line 5: replica 1 is stopped; \"start 1\" starts it\n",
        "line 6: there is no replica 2; the replicas are 1 to 1\n",
    ] {
        assert!(done.stderr.contains(reason), "{reason}: {done:?}");
    }
    assert_eq!(done.code, 1);
}

#[cfg(unix)]
#[test]
fn a_paused_process_costs_the_others_nothing_and_a_slow_one_is_late() {
    let mut cluster = start(&["--timeout", "1500ms"]);
    cluster.type_line("pause 2");
    cluster.expect_line("replica 2 is paused");
    cluster.type_line("qc write k v");
    cluster.expect_line("written to a majority (2 of 3 nodes)");
    cluster.type_line("rpc 2 read k");
    let error = cluster.error_line();
    assert!(
        error.contains("node 2 (") && error.contains("deadline exceeded"),
        "{error}"
    );
    // It hears of this when it goes on.
    cluster.type_line("delay 2 3600000");
    cluster.expect_line("replica 2 answers 3600000 ms late");
    assert!(
        nodes(&mut cluster, 3)[1]
            .1
            .starts_with("paused, 3600000 ms late, process ")
    );
    cluster.type_line("resume 2");
    cluster.expect_line("replica 2 goes on");
    cluster.type_line("rpc 2 read k");
    let error = cluster.error_line();
    assert!(error.contains("deadline exceeded"), "{error}");
    cluster.type_line("delay 2 0");
    cluster.expect_line("replica 2 answers at once");
    cluster.type_line("rpc 2 read k");
    assert!(cluster.line().starts_with("k = \"v\"  ("));
    assert_eq!(cluster.end(), 1);
}

#[cfg(unix)]
#[test]
fn a_process_that_others_kill_is_told_of_and_can_be_started_again() {
    let mut cluster = start(&[]);
    let before = nodes(&mut cluster, 3);
    send_signal(process(&before[1].1), "KILL");
    assert_eq!(
        cluster.error_line(),
        "replica 2 has ended; \"start 2\" starts it again"
    );
    let after = nodes(&mut cluster, 3);
    assert!(after[1].1.starts_with("ended: signal: 9"), "{after:?}");
    cluster.type_line("start 2");
    cluster.expect_line("replica 2 is running, and empty");
    let again = nodes(&mut cluster, 3);
    assert_eq!(again[1].0, before[1].0);
    assert_ne!(process(&again[1].1), process(&before[1].1));
    assert_eq!(cluster.end(), 0);
}

/// A shell without job control has what it starts in the background ignore Ctrl-C, and so do the
/// processes that come of it.
#[cfg(unix)]
fn interrupts_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGINT is 2.
    mask.is_some_and(|mask| mask & (1 << 1) != 0)
}

#[cfg(unix)]
#[test]
fn the_processes_end_with_the_command_however_it_ends() {
    for signal in [None, Some("INT"), Some("TERM"), Some("KILL")] {
        if signal == Some("INT") && interrupts_are_ignored() {
            continue;
        }
        let mut cluster = start(&[]);
        let connections = watch(&mut cluster, 3);
        // One that can do nothing by itself.
        cluster.type_line("pause 3");
        cluster.expect_line("replica 3 is paused");
        match signal {
            Some(signal) => send_signal(cluster.id(), signal),
            None => assert_eq!(cluster.end(), 0),
        }
        gone(connections, signal.unwrap_or("the end of its input"));
    }
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_started() {
    let host = host();
    // The second of two neighbours.
    let (first, taken) = (0..1000)
        .find_map(|_| {
            let taken = std::net::TcpListener::bind((&*host, 0)).expect("a port");
            let port = taken.local_addr().expect("it is bound").port();
            let first = std::net::TcpListener::bind((&*host, port - 1)).ok()?;
            Some((first.local_addr().expect("it is bound").to_string(), taken))
        })
        .expect("there are two");
    let done = run(&["cluster", "--listen", &first], "qc read k\n");
    let address = taken.local_addr().expect("it is bound");
    let expected = format!("replica 2 cannot listen on {address}: ");
    assert!(done.stderr.contains(&expected), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
}

#[test]
fn ports_that_there_are_not_are_refused() {
    let done = run(&["cluster", "--listen", "127.0.0.1:65534"], "");
    assert!(
        done.stderr.contains("there are no 3 ports from 65534 on"),
        "{done:?}"
    );
    assert_eq!((done.stdout.as_str(), done.code), ("", 1));
    let done = run(&["cluster", "--listen", "localhost"], "");
    assert!(done.stderr.contains("expected an IP address"), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.code), ("", 2));
}

#[test]
fn what_is_wrong_with_a_replica_is_told_with_its_id_and_the_others_end() {
    let data = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(data.path().join("replica-2.redb")).expect("made");
    let path = data.path().to_str().expect("a plain path");
    let args = ["cluster", "--listen", &host(), "--data", path];
    let done = run(&args, "qc read k\n");
    let mut lines = done.stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(
        first.ends_with(": replica 2 has not started (exit status: 1)"),
        "{done:?}"
    );
    let second = lines.next().unwrap_or_default();
    assert!(
        second.contains("replica-2.redb: Is a directory"),
        "{done:?}"
    );
    assert_eq!(
        (done.stdout.as_str(), lines.next(), done.code),
        ("", None, 1)
    );
    // Nobody has the files of the others open any more.
    std::fs::remove_dir(data.path().join("replica-2.redb")).expect("it was left");
    let done = run(&args, "qc read k\n");
    let first = done.stderr.lines().next().unwrap_or_default();
    // What was in it is gone, and comes from the others.
    let lost = "replica 2: replica 2 has lost its data, and ";
    assert!(first.starts_with(lost) && done.code == 0, "{done:?}");
}

#[test]
fn a_load_tells_how_many_writes_were_acknowledged_and_what_is_wrong() {
    let mut cluster = start(&[]);
    cluster.type_line("load 8 50");
    let line = cluster.line();
    let (writes, rest) = line.split_once(' ').expect("a number first");
    assert!(writes.parse::<u64>().expect("a number") >= 8, "{line}");
    assert!(
        rest.starts_with("writes of 100 bytes acknowledged in "),
        "{line}"
    );
    assert!(rest.contains(", 8 in flight: "), "{line}");
    assert!(cluster.line().starts_with("latency: median "));
    cluster.type_line("qc read load-7");
    assert!(cluster.line().starts_with("load-7 = \"vvv"));
    for command in [
        "stop 1",
        "stop 2",
        "load 1 50",
        "load 0 50",
        "load 99999 50",
    ] {
        cluster.type_line(command);
    }
    let error = cluster.error_line();
    // The third one may or may not have answered by then.
    assert!(error.contains(" of 3 nodes answered, 2 needed"), "{error}");
    assert_eq!(cluster.end(), 1);
    let messages = cluster.rest_of_messages().join("\n");
    assert!(
        messages.contains("\"0\" is not a number from 1"),
        "{messages}"
    );
    assert!(
        messages.contains("\"99999\" is not a number that small"),
        "{messages}"
    );
}
