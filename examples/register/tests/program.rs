//! The program: what comes of commands, in this process and with processes that are killed.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs the program with these options and this text in its pipe. What it says, what is wrong, its
/// exit status.
fn run(args: &[&str], input: &str) -> (String, String, Option<i32>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_register"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // It may end without reading all of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

#[test]
fn registers_are_read_and_written_while_a_majority_is_there() {
    let commands =
        "read k\nwrite k 'a value'\nstop 1\nread k\nstop 2\nread k\nwrite k w\nread other\n";
    let (results, errors, code) = run(&["--timeout", "30s"], commands);
    let lines: Vec<_> = results.lines().collect();
    assert_eq!(lines[0], "\"k\" was never written  (read)");
    assert!(lines[1].starts_with("written  (version 1 by "), "{results}");
    assert_eq!(lines[2], "replica 1 is stopped");
    assert!(
        lines[3].starts_with("k = \"a value\"  (version 1 by "),
        "{results}"
    );
    assert_eq!(&lines[4..], ["replica 2 is stopped"]);
    assert!(
        errors.contains("error in line 6: \"k\" could not be read: "),
        "{errors}"
    );
    assert!(
        errors.contains("error in line 7: \"k\" was not written: "),
        "{errors}"
    );
    assert!(
        errors.contains("1 of 3 nodes answered, 2 needed"),
        "{errors}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_read_brings_a_replica_up_to_date_that_was_down() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("a plain path");
    let options = ["--data", data, "--timeout", "30s"];
    // Replica 3 misses the write, for good, since the client ends.
    let (results, errors, code) = run(&options, "stop 3\nwrite k v\n");
    assert!(results.contains("\nwritten  (version 1 by "), "{results}");
    assert_eq!((errors.as_str(), code), ("", Some(0)));
    // With replica 1 it is all of a majority then.
    let (results, errors, code) = run(&options, "stop 2\npeek 3 k\nread k\npeek 3 k\n");
    let lines: Vec<_> = results.lines().collect();
    assert_eq!(
        lines[1], "\"k\" was never written  (at replica 3)",
        "{results}"
    );
    assert!(
        lines[2].starts_with("k = \"v\"  (version 1 by "),
        "{results}"
    );
    assert!(
        lines[3].starts_with("k = \"v\"  (version 1 by "),
        "{results}"
    );
    assert!(lines[3].ends_with(", at replica 3)"), "{results}");
    assert_eq!((errors.as_str(), code), ("", Some(0)));
}

#[cfg(unix)]
#[test]
fn what_processes_acknowledged_is_there_when_they_were_killed_and_started_again() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("a plain path");
    let options = ["cluster", "--data", data, "--timeout", "30s"];
    let kill = "write k v\nstop 1\nstop 2\nstop 3\nstart 2\nstart 3\nread k\nwrite k w\n";
    let (results, errors, code) = run(&options, kill);
    assert!(results.contains("\nk = \"v\"  (version 1 by "), "{results}");
    assert!(results.contains("\nwritten  (version 2 by "), "{results}");
    assert_eq!((errors.as_str(), code), ("", Some(0)));
    let (results, errors, code) = run(&options, "read k\n");
    assert!(
        results.starts_with("k = \"w\"  (version 2 by "),
        "{results}"
    );
    assert_eq!((errors.as_str(), code), ("", Some(0)));
}

#[test]
fn a_method_of_one_replica_is_called_with_json() {
    let commands = "write k v\ncall 1 Read '{\"key\": \"k\"}'\ncall 1 Raed '{}'\n";
    let (results, errors, code) = run(&["--replicas", "1", "--timeout", "30s"], commands);
    let lines: Vec<_> = results.lines().collect();
    // Numbers of 64 bits are texts in the JSON of protobuf.
    assert!(
        lines[1].starts_with("{\"version\":{\"number\":\"1\","),
        "{results}"
    );
    assert!(lines[1].ends_with(",\"value\":\"v\"}"), "{results}");
    assert!(errors.contains("did you mean \"Read\"?"), "{errors}");
    assert!(
        errors.contains("register.Register/Latest  LatestRequest -> LatestResponse"),
        "{errors}"
    );
    assert_eq!(code, Some(1));
}
