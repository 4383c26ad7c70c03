//! A short run of the whole program.
#![cfg(unix)]

#[path = "../../../live/tests/common/short.rs"]
mod short;

use std::fs;

#[test]
fn nothing_acknowledged_is_lost_or_there_twice_while_everything_fails() {
    let report = tempfile::tempdir().expect("a directory");
    let report = report.path();
    let faults = [
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
    ];
    let program = env!("CARGO_BIN_EXE_ledger-chaos");
    let options = ["--clients", "4", "--calls", "100"];
    let last = "nothing acknowledged is lost or there twice\n";
    let results = short::run(program, &options, report, last, &faults);
    let kept = fs::read_to_string(report.join("summary.txt")).expect("it is there");
    assert!(results.contains(&kept), "{kept}\n{results}");
    let faults = fs::read_to_string(report.join("faults.txt")).expect("it is there");
    assert_eq!(faults, "");
}
