//! Whether a replica has what its clients were told, once and in order.

use std::collections::HashMap;
use std::fmt;
use std::io;

use crate::noted::{Line, Noted, What};

/// How many of its faults are shown.
const SHOWN: usize = 10;

/// What a replica has at the end.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) replica: u32,
    pub(crate) log: Vec<Line>,
    pub(crate) count: u64,
}

/// What was asked of all replicas.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The number of the last line of each lane.
    pub(crate) lines: HashMap<u32, u32>,
    /// How many ones were to be added.
    pub(crate) ones: u64,
}

/// What was found in a replica's ledger.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) replica: u32,
    /// How many replies were compared with it.
    pub(crate) replies: u64,
    /// How many lines it has.
    pub(crate) lines: usize,
    pub(crate) count: u64,
    faults: Vec<String>,
    /// How many there are beyond those.
    more: u64,
}

impl Findings {
    fn fault(&mut self, text: impl fmt::Display) {
        if self.faults.len() < SHOWN {
            self.faults
                .push(format!("replica {}: {text}", self.replica));
        } else {
            self.more += 1;
        }
    }

    /// What is wrong, if anything, line by line.
    pub(crate) fn faults(&self) -> Option<String> {
        let mut text = self.faults.join("\n");
        if self.more > 0 {
            text += &format!("\nreplica {}: and {} more", self.replica, self.more);
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Ledger {
    /// Compares it with what was asked and what was told.
    pub(crate) fn check(&self, asked: &Asked, noted: &Noted) -> io::Result<Findings> {
        let mut findings = Findings {
            replica: self.replica,
            lines: self.log.len(),
            count: self.count,
            ..Findings::default()
        };
        self.check_log(asked, &mut findings);
        let mut counts = Vec::new();
        noted.each(|told| {
            if told.replica != self.replica {
                return;
            }
            findings.replies += 1;
            match told.what {
                What::Added { count } => counts.push(count),
                What::Appended { line, position } => {
                    let there = usize::try_from(position).ok();
                    let there = there.and_then(|position| self.log.get(position));
                    if there != Some(&line) {
                        let there = there.map_or("nothing".to_owned(), Line::to_string);
                        findings.fault(format_args!(
                            "line {line} was acknowledged at {position}, where there is {there}"
                        ));
                    }
                }
            }
        })?;
        self.check_count(asked, counts, &mut findings);
        Ok(findings)
    }

    /// Each lane has waited for each of its lines, so that they are in order, and none is there twice.
    fn check_log(&self, asked: &Asked, findings: &mut Findings) {
        let mut last: HashMap<u32, u32> = HashMap::new();
        for (position, line) in self.log.iter().enumerate() {
            let most = asked.lines.get(&line.lane).copied().unwrap_or(0);
            if line.number == 0 || line.number > most {
                findings.fault(format_args!(
                    "line {line} at {position} was written by nobody"
                ));
            }
            let last = last.entry(line.lane).or_default();
            if line.number <= *last {
                findings.fault(format_args!(
                    "line {line} at {position} is behind {}-{last}: it is there twice, or out of order",
                    line.lane
                ));
            }
            *last = line.number.max(*last);
        }
    }

    /// Each one that was added has made another count of the counter.
    fn check_count(&self, asked: &Asked, mut counts: Vec<u64>, findings: &mut Findings) {
        counts.sort_unstable();
        for pair in counts.windows(2) {
            if pair[0] == pair[1] {
                findings.fault(format_args!(
                    "two were told that the counter is {} since they have added to it",
                    pair[0]
                ));
            }
        }
        let (count, ones) = (self.count, asked.ones);
        if let Some(most) = counts.last().filter(|most| **most > count) {
            findings.fault(format_args!("the counter was {most}, and is {count}"));
        }
        if count > ones {
            findings.fault(format_args!("the counter is {count} of {ones}"));
        }
    }
}

#[cfg(test)]
impl Findings {
    /// Those of a replica with which so many replies were compared, and nothing is wrong.
    pub(crate) fn good(replica: u32, replies: u64) -> Self {
        Self {
            replica,
            replies,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noted::Told;

    fn lines(lines: &[(u32, u32)]) -> Vec<Line> {
        let line = |&(lane, number)| Line { lane, number };
        lines.iter().map(line).collect()
    }

    /// What is said of a log and a counter where lanes 1 and 2 have written three lines each and four
    /// ones were added; `told` is what was acknowledged by replica 2.
    fn faults(log: &[(u32, u32)], count: u64, told: &[What]) -> Option<String> {
        let ledger = Ledger {
            replica: 2,
            log: lines(log),
            count,
        };
        let asked = Asked {
            lines: [(1, 3), (2, 3)].into(),
            ones: 4,
        };
        let noted = Noted::new().expect("a file");
        for what in told {
            let told = Told {
                replica: 2,
                what: *what,
            };
            noted.add(told);
        }
        // Another replica has its own log.
        let elsewhere = Told {
            replica: 1,
            what: appended(9, 9, 9),
        };
        noted.add(elsewhere);
        let findings = ledger.check(&asked, &noted).expect("it is read");
        assert_eq!(findings.replies, told.len() as u64);
        findings.faults()
    }

    fn appended(lane: u32, number: u32, position: u64) -> What {
        let line = Line { lane, number };
        What::Appended { line, position }
    }

    #[test]
    fn what_may_be_is_no_fault() {
        let log = [(1, 1), (2, 2), (1, 3)];
        let added = |count| What::Added { count };
        let told = [added(2), appended(1, 3, 2), appended(1, 1, 0), added(1)];
        // Of lines and ones that nobody acknowledged some are there.
        assert_eq!(faults(&log, 3, &told), None);
        assert_eq!(faults(&[], 0, &[]), None);
    }

    #[test]
    fn every_fault_of_a_log_is_found() {
        for (log, told, expected) in [
            (
                &[(1, 1), (2, 1), (1, 1)][..],
                &[][..],
                "replica 2: line 1-1 at 2 is behind 1-1: it is there twice, or out of order",
            ),
            (
                &[(1, 2), (1, 1)],
                &[],
                "replica 2: line 1-1 at 1 is behind 1-2: it is there twice, or out of order",
            ),
            (
                &[(1, 1), (2, 4)],
                &[],
                "replica 2: line 2-4 at 1 was written by nobody",
            ),
            (
                &[(3, 1)],
                &[],
                "replica 2: line 3-1 at 0 was written by nobody",
            ),
            (
                &[(1, 1)],
                &[appended(1, 2, 1)],
                "replica 2: line 1-2 was acknowledged at 1, where there is nothing",
            ),
            (
                &[(1, 1), (2, 1)],
                &[appended(1, 1, 1)],
                "replica 2: line 1-1 was acknowledged at 1, where there is 2-1",
            ),
        ] {
            assert_eq!(faults(log, 0, told).as_deref(), Some(expected));
        }
    }

    #[test]
    fn every_fault_of_a_counter_is_found() {
        let added = |count| What::Added { count };
        for (count, told, expected) in [
            (5, &[][..], "replica 2: the counter is 5 of 4"),
            (2, &[added(3)], "replica 2: the counter was 3, and is 2"),
            (
                3,
                &[added(2), added(1), added(2)],
                "replica 2: two were told that the counter is 2 since they have added to it",
            ),
        ] {
            assert_eq!(faults(&[], count, told).as_deref(), Some(expected));
        }
    }

    #[test]
    fn many_faults_are_counted() {
        let log: Vec<_> = (0..13).map(|_| (1, 1)).collect();
        let text = faults(&log, 0, &[]).expect("there are faults");
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("replica 2: and 2 more"), "{text}");
    }
}
