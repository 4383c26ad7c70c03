//! What clients of a store did and saw, and whether that is what a store may do.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// One operation that has ended. Times are those of the machine's clock, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    /// Which write of its client it is, or whose value was read; 0 where there was none.
    pub(crate) number: u64,
    pub(crate) begin: u128,
    pub(crate) end: u128,
    /// A write: acknowledged as new by a majority. A read: it has an answer.
    pub(crate) ok: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
}

impl Operation {
    /// Reads `op write|read KEY NUMBER BEGIN END ok|failed`.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let ["op", kind, key, number, begin, end, outcome] = words[..] else {
            bail!("{line:?} is no operation");
        };
        let kind = match kind {
            "write" => Kind::Write,
            "read" => Kind::Read,
            _ => bail!("{line:?} is no operation"),
        };
        let wrong = || format!("{line:?} has something that is no number");
        Ok(Self {
            kind,
            key: key.to_owned(),
            number: number.parse().with_context(wrong)?,
            begin: begin.parse().with_context(wrong)?,
            end: end.parse().with_context(wrong)?,
            ok: outcome == "ok",
        })
    }
}

/// Whether every value that was read was written before the read ended, and no read returned an
/// older value than one that was acknowledged before it began. Each key has one writer, whose later
/// writes have greater numbers.
pub(crate) fn check(history: &[Operation]) -> Result<()> {
    let mut writes: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history
        .iter()
        .filter(|operation| operation.kind == Kind::Write)
    {
        writes.entry(&operation.key).or_default().push(operation);
    }
    for writes in writes.values_mut() {
        writes.sort_by_key(|write| write.number);
        ensure!(
            writes.windows(2).all(|two| two[0].end <= two[1].begin),
            "two writes of one key overlap: it has more than one writer"
        );
    }
    let reads = history
        .iter()
        .filter(|operation| operation.kind == Kind::Read && operation.ok);
    for read in reads {
        let writes = writes.get(read.key.as_str()).map_or(&[][..], Vec::as_slice);
        let written = writes
            .iter()
            .any(|write| write.number == read.number && write.begin <= read.end);
        ensure!(
            read.number == 0 || written,
            "a value was read that nobody had written: {read:?}"
        );
        let before = writes
            .iter()
            .filter(|write| write.ok && write.end < read.begin);
        if let Some(newest) = before.max_by_key(|write| write.number) {
            ensure!(
                read.number >= newest.number,
                "an acknowledged write was lost: {newest:?} ended before {read:?} began"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[&str]) -> Vec<Operation> {
        let operation = |line: &&str| Operation::parse(line).expect("an operation");
        lines.iter().map(operation).collect()
    }

    #[test]
    fn reads_of_what_was_acknowledged_or_is_being_written_are_right() {
        let legal = history(&[
            "op write a 1 10 20 ok",
            "op write a 2 30 40 failed",
            "op read a 0 5 15 ok",
            "op read a 1 15 18 ok",
            "op read a 1 50 60 ok",
            "op read a 2 35 36 ok",
            "op read b 0 50 60 ok",
            "op read a 0 50 60 failed",
        ]);
        check(&legal).expect("all of it is allowed");
    }

    #[test]
    fn a_lost_write_is_found() {
        for read in ["op read a 0 21 30 ok", "op read a 1 41 50 ok"] {
            let lost = history(&["op write a 1 10 20 ok", "op write a 2 30 40 ok", read]);
            let error = check(&lost).expect_err("it is older");
            assert!(error.to_string().contains("was lost"), "{error}");
        }
    }

    #[test]
    fn a_value_out_of_nowhere_is_found() {
        for read in [
            "op read a 3 50 60 ok",
            "op read b 1 50 60 ok",
            "op read a 1 5 9 ok",
        ] {
            let error =
                check(&history(&["op write a 1 10 20 ok", read])).expect_err("nobody wrote it");
            assert!(error.to_string().contains("nobody had written"), "{error}");
        }
    }

    #[test]
    fn lines_that_are_no_operations_are_refused() {
        for line in [
            "",
            "op",
            "op read a 1 2 3",
            "op cas a 1 2 3 ok",
            "op read a x 2 3 ok",
        ] {
            assert!(Operation::parse(line).is_err(), "{line:?}");
        }
    }
}
