//! A short run of the whole program.
#![cfg(unix)]

use std::fs;
use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost_or_there_twice_while_everything_fails() {
    let report = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_ledger-chaos"))
        .args(["--seconds", "12", "--seed", "1"])
        .args(["--clients", "4", "--calls", "100", "--report"])
        .arg(report.path())
        .output()
        .expect("the program starts");
    let results = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{results}\n{errors}");
    assert!(
        results.ends_with("nothing acknowledged is lost or there twice\n"),
        "{results}"
    );
    for fault in [
        "delays",
        "stalls",
        "cuts",
        "half-opens",
        "kills",
        "kills of all",
        "pauses",
        "stalled disks",
        "full disks",
        "upgrades",
        "black holes",
    ] {
        let line = results
            .lines()
            .find(|line| line.contains(&format!("  {fault}: ")));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(count > Some(0), "{fault}: {results}");
    }
    let kept = fs::read_to_string(report.path().join("summary.txt")).expect("it is there");
    assert!(results.contains(&kept), "{kept}\n{results}");
    let faults = fs::read_to_string(report.path().join("faults.txt")).expect("it is there");
    assert_eq!(faults, "");
}
