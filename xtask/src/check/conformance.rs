//! Whether docs/conformance.md names every behaviour, and proves it by tests that exist and run; and
//! whether the tests do that docs/reliability.md names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::workspace;

const CONFORMANCE: &str = "docs/conformance.md";
const RELIABILITY: &str = "docs/reliability.md";

/// The behaviours of the original that its tests assert, and its quirks.
fn numbers() -> impl Iterator<Item = String> {
    let behaviours = (1..=74).map(|number| format!("R8-{number:03}"));
    behaviours.chain((1..=19).map(|number| format!("Q-{number:02}")))
}

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Listed,
    Ignored,
    Failed,
}

/// The tests that a `cargo test` ran or listed, by program and name.
#[derive(Debug, Default)]
pub(super) struct Tests {
    program: String,
    outcomes: BTreeMap<String, Outcome>,
}

impl Tests {
    /// Takes one line of what cargo and the test programs print.
    pub(super) fn add(&mut self, line: &str) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            if let Some((_, path)) = rest.trim_end_matches(')').rsplit_once('(') {
                self.program = program(path);
            }
        } else if line.starts_with("Doc-tests ") {
            self.program = "doc-tests".to_owned();
        } else if let Some(test) = line.strip_suffix(": test") {
            self.note(test, Outcome::Listed);
        } else if let Some((test, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let outcome = match outcome {
                "ok" => Outcome::Passed,
                outcome if outcome.starts_with("ignored") => Outcome::Ignored,
                _ => Outcome::Failed,
            };
            self.note(test, outcome);
        }
    }

    fn note(&mut self, test: &str, outcome: Outcome) {
        let test = test.strip_suffix(" - should panic").unwrap_or(test);
        let name = format!("{}::{test}", self.program);
        // Two programs of one name: what is worse counts.
        let known = self.outcomes.entry(name).or_insert(outcome);
        if matches!(outcome, Outcome::Ignored | Outcome::Failed) {
            *known = outcome;
        }
    }
}

/// The name of a test program without cargo's hash: `calls` of
/// `target/debug/deps/calls-0123456789abcdef`.
fn program(path: &str) -> String {
    let name = Path::new(path)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    match name.rsplit_once('-') {
        Some((name, _)) => name.to_owned(),
        None => name.into_owned(),
    }
}

/// The step of this name: the page is complete, and the tests that it names exist. Whether they
/// ran, the tests' step says.
pub(super) fn run() -> Result<()> {
    let mut tests = Tests::default();
    Cmd::cargo()
        .args([
            "test",
            "--workspace",
            "--locked",
            "--",
            "--list",
            "--format",
            "terse",
        ])
        .run_quietly(|line| tests.add(line))?;
    check(&tests)
}

/// Fails with every mistake of the pages.
pub(super) fn check(tests: &Tests) -> Result<()> {
    let mut mistakes = String::new();
    for path in [CONFORMANCE, RELIABILITY] {
        let page = fs::read_to_string(workspace::root().join(path)).context(path)?;
        let rows: Vec<_> = page.lines().filter_map(Row::read).collect();
        if rows.is_empty() {
            bail!("{path} has no rows");
        }
        let known = (path == CONFORMANCE).then(|| numbers().collect());
        let found = mistakes_of(&page, known, tests);
        for mistake in &found {
            write!(mistakes, "\n  {path}: {mistake}")?;
        }
        println!(
            "{path}: {} rows, each with its tests or a reason",
            rows.len()
        );
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    bail!("these do not hold:{mistakes}")
}

/// What is wrong with a page, which is to have rows of exactly these numbers where that is known.
fn mistakes_of(page: &str, known: Option<BTreeSet<String>>, tests: &Tests) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut there = BTreeSet::new();
    for (index, line) in page.lines().enumerate() {
        let Some(row) = Row::read(line) else { continue };
        let at = format!("line {}: {}", index + 1, row.number);
        if known
            .as_ref()
            .is_some_and(|known| !known.contains(row.number))
        {
            mistakes.push(format!("{at}: there is no such behaviour"));
        } else if !there.insert(row.number.to_owned()) {
            mistakes.push(format!("{at} is there twice"));
        }
        if row.behaviour.is_empty() {
            mistakes.push(format!("{at} does not say what the behaviour is"));
        }
        if row.tests.is_empty() && !row.has_reason {
            mistakes.push(format!(
                "{at} names no test, and no reason (`not applicable: …` or `pending: …`)"
            ));
        }
        for test in row.tests {
            match tests.outcomes.get(test) {
                Some(Outcome::Passed | Outcome::Listed) => {}
                Some(Outcome::Ignored) => mistakes.push(format!("{at}: {test} is ignored")),
                Some(Outcome::Failed) => mistakes.push(format!("{at}: {test} failed")),
                None => mistakes.push(format!("{at}: {test} does not exist, or did not run")),
            }
        }
    }
    let missing = known.into_iter().flatten();
    let missing = missing.filter(|number| !there.contains(number));
    mistakes.extend(missing.map(|number| format!("{number} is missing")));
    mistakes
}

/// A row of one of the page's tables: number, behaviour, proof.
struct Row<'a> {
    number: &'a str,
    behaviour: &'a str,
    tests: Vec<&'a str>,
    has_reason: bool,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let line = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
        let (number, rest) = line.split_once('|')?;
        let (behaviour, proof) = rest.rsplit_once('|')?;
        let number = number.trim();
        let is_row = ["R8-", "Q-", "F-"]
            .iter()
            .any(|kind| number.starts_with(kind));
        if !is_row {
            return None;
        }
        // What stands between backticks and has a program's name in front.
        let code = proof.split('`').skip(1).step_by(2);
        Some(Self {
            number,
            behaviour: behaviour.trim(),
            tests: code.filter(|code| code.contains("::")).collect(),
            has_reason: ["not applicable: ", "pending: "].iter().any(|reason| {
                proof
                    .split(reason)
                    .nth(1)
                    .is_some_and(|why| !why.trim().is_empty())
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(page: &str, tests: &Tests) -> Vec<String> {
        mistakes_of(page, Some(numbers().collect()), tests)
    }

    fn ran(lines: &[&str]) -> Tests {
        let mut tests = Tests::default();
        for line in lines {
            tests.add(line);
        }
        tests
    }

    fn output() -> Tests {
        ran(&[
            "     Running unittests src/lib.rs (target/debug/deps/gorums-0123456789abcdef)",
            "running 2 tests",
            "test quorum::tests::all_is_all ... ok",
            "test quorum::tests::slow ... ignored, too slow",
            "     Running tests/calls.rs (/tmp/a (b)/deps/calls-0123456789abcdef)",
            "test a_call ... ok",
            "test a_broken_call ... FAILED",
            "test panics - should panic ... ok",
            "   Doc-tests gorums",
            "test crates/gorums/src/lib.rs - (line 7) ... ok",
        ])
    }

    /// A page with all rows, some of which are replaced.
    fn page(replaced: &[(&str, &str)]) -> String {
        let row = |number: String| match replaced.iter().find(|(other, _)| *other == number) {
            Some((_, row)) => (*row).to_owned(),
            None => format!("| {number} | works | `calls::a_call` |"),
        };
        numbers().map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn tests_are_known_by_program_and_name() {
        let tests = output();
        let outcome = |name: &str| tests.outcomes.get(name).copied();
        assert_eq!(
            outcome("gorums::quorum::tests::all_is_all"),
            Some(Outcome::Passed)
        );
        assert_eq!(
            outcome("gorums::quorum::tests::slow"),
            Some(Outcome::Ignored)
        );
        assert_eq!(outcome("calls::a_call"), Some(Outcome::Passed));
        assert_eq!(outcome("calls::a_broken_call"), Some(Outcome::Failed));
        assert_eq!(outcome("calls::panics"), Some(Outcome::Passed));
        assert_eq!(outcome("calls::quorum::tests::all_is_all"), None);
        let listed = ran(&[
            "Running tests/calls.rs (deps/calls-01)",
            "a_call: test",
            "2 tests, 0 benchmarks",
        ]);
        assert_eq!(listed.outcomes.get("calls::a_call"), Some(&Outcome::Listed));
        assert_eq!(listed.outcomes.len(), 1);
    }

    #[test]
    fn a_page_that_holds_has_no_mistakes() {
        let page = page(&[
            (
                "R8-002",
                "| R8-002 | a | b | `calls::a_call`, `gorums::quorum::tests::all_is_all` |",
            ),
            (
                "R8-003",
                "| R8-003 | c | not applicable: `Config` is not there |",
            ),
            ("Q-19", "| Q-19 | d | `calls::panics`; pending: peers |"),
        ]);
        assert_eq!(mistakes(&page, &output()), [""; 0]);
    }

    #[test]
    fn every_mistake_is_found_and_named() {
        for (row, expected) in [
            ("", "R8-002 is missing"),
            ("| R8-001 | a | `calls::a_call` |", "R8-001 is there twice"),
            (
                "| R8-075 | a | `calls::a_call` |",
                "R8-075: there is no such behaviour",
            ),
            ("| R8-002 | a | see `calls` |", "R8-002 names no test"),
            ("| R8-002 | a | pending:  |", "R8-002 names no test"),
            ("| R8-002 | | `calls::a_call` |", "does not say"),
            (
                "| R8-002 | a | `calls::no_call` |",
                "calls::no_call does not exist",
            ),
            (
                "| R8-002 | a | `gorums::quorum::tests::slow` |",
                "is ignored",
            ),
            ("| R8-002 | a | `calls::a_broken_call` |", "failed"),
        ] {
            let mistakes = mistakes(&page(&[("R8-002", row)]), &output());
            assert!(
                mistakes.iter().any(|mistake| mistake.contains(expected)),
                "{row:?}: {mistakes:?} does not say {expected:?}"
            );
        }
    }
}
