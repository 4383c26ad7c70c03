//! How many tests ran, added up over all test programs of a `cargo test`.

use std::fmt;
use std::ops::AddAssign;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Totals {
    /// Adds one line of output, if it is the closing line of a test program.
    pub(super) fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            if let (Some(Ok(count)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            {
                match what {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
            }
        }
    }

    /// Whether no test ran at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed == 0
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} skipped", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(lines: &[&str]) -> Totals {
        let mut totals = Totals::default();
        for line in lines {
            totals.add(line);
        }
        totals
    }

    #[test]
    fn closing_lines_of_all_programs_are_added_up() {
        let totals = totals(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]);
        assert_eq!(
            totals,
            Totals {
                passed: 4,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        let totals = totals(&[
            "test counts_2_passed ... ok",
            "2 passed; 1 failed",
            "test result: odd",
            "",
        ]);
        assert!(totals.is_empty());
    }

    #[test]
    fn skipped_tests_are_shown_only_where_there_are_some() {
        let some = Totals {
            passed: 5,
            failed: 0,
            ignored: 2,
        };
        assert_eq!(some.to_string(), "5 passed, 0 failed, 2 skipped");
        let none = Totals { ignored: 0, ..some };
        assert_eq!(none.to_string(), "5 passed, 0 failed");
    }
}
