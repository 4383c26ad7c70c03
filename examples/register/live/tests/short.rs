//! A short run of the whole program.
#![cfg(unix)]

use std::process::Command;

#[test]
fn registers_are_linearizable_while_replicas_and_their_connections_fail() {
    let report = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_register-live"))
        .args(["--seconds", "12", "--seed", "1", "--report"])
        .arg(report.path())
        .output()
        .expect("the program starts");
    let results = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{results}\n{errors}");
    assert!(results.ends_with(": linearizable\n"), "{results}");
    for fault in [
        "delays",
        "stalls",
        "cuts",
        "half-opens",
        "kills",
        "kills of all",
        "pauses",
    ] {
        let line = results
            .lines()
            .find(|line| line.contains(&format!("  {fault}: ")));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(count > Some(0), "{fault}: {results}");
    }
}
