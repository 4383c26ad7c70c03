//! A short run of the whole program.
#![cfg(unix)]

#[path = "../../../live/tests/common/short.rs"]
mod short;

#[test]
fn registers_are_linearizable_while_replicas_and_their_connections_fail() {
    let report = tempfile::tempdir().expect("a directory");
    let faults = [
        "delays",
        "stalls",
        "cuts",
        "half-opens",
        "kills",
        "kills of all",
        "pauses",
    ];
    let program = env!("CARGO_BIN_EXE_register-live");
    short::run(program, &[], report.path(), ": linearizable\n", &faults);
}
