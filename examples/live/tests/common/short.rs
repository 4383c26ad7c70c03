//! A short run of a whole program, for its tests.

use std::path::Path;
use std::process::Command;

/// Runs a program for twelve seconds, with these options beside, and its report in this folder. What it has
/// said, of which the last line and a count of each of these kinds of faults are looked at.
pub(crate) fn run(
    program: &str,
    options: &[&str],
    report: &Path,
    last: &str,
    faults: &[&str],
) -> String {
    let output = Command::new(program)
        .args(["--seconds", "12", "--seed", "1"])
        .args(options)
        .arg("--report")
        .arg(report)
        .output()
        .expect("the program starts");
    let results = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{results}\n{errors}");
    assert!(results.ends_with(last), "{results}");
    for fault in faults {
        let line = results
            .lines()
            .find(|line| line.contains(&format!("  {fault}: ")));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(count > Some(0), "{fault}: {results}");
    }
    results
}
