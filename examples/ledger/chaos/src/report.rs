//! What there is to say of a run, and whether it was good.

use std::fmt::Write as _;
use std::time::Duration;

use cluster_live::tally::Tally;

use crate::check::Findings;
use crate::load::Times;

/// How long a run is at least whose memory and latency are judged: those of a shorter one are shown.
pub(crate) const JUDGED: Duration = Duration::from_secs(300);

/// How often the p99 with a replica in a black hole may be that without it.
const MOST_OF_HOLE: f64 = 2.0;

/// How much more memory a replica may have than one that was started anew, with the same data and the
/// same load: what the allocator does not give back at once.
const MORE_OF_REPLICA: u64 = 64 << 20;

/// How much more the clients may have after all faults than before: the same.
const MORE_OF_CLIENTS: u64 = 64 << 20;

/// What was measured of a part of the run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
    pub(crate) times: Times,
}

/// What was seen of the memory of all processes, that of the clients last.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    /// None where the system does not say.
    pub(crate) bytes: Option<Vec<u64>>,
}

/// What there is to say of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) took: Duration,
    /// Calls that a majority has answered, and that failed.
    pub(crate) calls: (u64, u64),
    /// How many parts of those that failed ended so.
    pub(crate) failed_parts: Vec<(String, u64)>,
    pub(crate) healthy: Measured,
    pub(crate) hole: Measured,
    /// Before the rounds of faults, after all of it, and then with replicas that were started anew.
    pub(crate) before: Level,
    pub(crate) after: Level,
    pub(crate) anew: Level,
    pub(crate) findings: Vec<Findings>,
}

impl Report {
    fn p99s(&self) -> (f64, f64) {
        let p99 = |measured: &Measured| measured.times.value_at_quantile(0.99) as f64;
        (p99(&self.healthy), p99(&self.hole))
    }

    /// All of it, for people.
    pub(crate) fn text(&self, tally: &Tally) -> String {
        let mut text = String::new();
        let seconds = self.took.as_secs_f64();
        let (done, failed) = self.calls;
        let mut line = |line: String| text += &(line + "\n");
        line(format!(
            "{done} calls of majorities in {seconds:.0} s, {:.0} per second; {failed} failed while faults went on",
            done as f64 / seconds
        ));
        if !self.failed_parts.is_empty() {
            line("what replicas had to do with those that failed:".to_owned());
        }
        for (ended, count) in &self.failed_parts {
            line(format!("  {count:6}  {ended}"));
        }
        line("faults:".to_owned());
        line(tally.table().trim_end().to_owned());
        line(format!(
            "{:34}{:>12}{:>11}{:>11}{:>11}",
            "calls in flight all the time", "per second", "p50", "p99", "slowest"
        ));
        for measured in [&self.healthy, &self.hole] {
            let ms = |quantile| {
                let micros = measured.times.value_at_quantile(quantile);
                format!("{:.1} ms", micros as f64 / 1e3)
            };
            line(format!(
                "  {:32}{:>12.0}{:>11}{:>11}{:>11}",
                measured.name,
                measured.times.len() as f64 / measured.time.as_secs_f64(),
                ms(0.5),
                ms(0.99),
                ms(1.0)
            ));
        }
        let (healthy, hole) = self.p99s();
        line(format!(
            "  p99 with the black hole is {:.2} times that without",
            hole / healthy
        ));
        for level in [&self.before, &self.after, &self.anew] {
            let Some(bytes) = &level.bytes else {
                line(format!("memory {}: unknown on this system", level.name));
                continue;
            };
            let mib = bytes.iter().map(|bytes| format!("{}", bytes >> 20));
            let mib: Vec<_> = mib.collect();
            let (clients, replicas) = mib.split_last().expect("that of the clients is there");
            line(format!(
                "memory {}: {} MiB of the replicas, {clients} MiB of the clients",
                level.name,
                replicas.join(", ")
            ));
        }
        for findings in &self.findings {
            let _ = writeln!(
                text,
                "replica {}: {} lines, counter {}; {} replies compared",
                findings.replica, findings.lines, findings.count, findings.replies
            );
        }
        text
    }

    /// Whose memory has not returned to its level.
    fn memory_faults(&self) -> Vec<String> {
        let levels = [&self.before, &self.after, &self.anew].map(|level| level.bytes.as_deref());
        let [Some(before), Some(after), Some(anew)] = levels else {
            return Vec::new();
        };
        let split = |level: &[u64]| {
            let (clients, replicas) = level.split_last().expect("that of the clients is there");
            (*clients, replicas.to_vec())
        };
        let ((before, _), (after, replicas), (_, anew)) =
            (split(before), split(after), split(anew));
        let mut faults = Vec::new();
        for (place, (after, anew)) in replicas.iter().zip(anew).enumerate() {
            if *after > anew + MORE_OF_REPLICA {
                faults.push(format!(
                    "the memory of replica {} has not returned to its level: {} MiB after all faults, {} MiB where it is \
                     started anew",
                    place + 1,
                    after >> 20,
                    anew >> 20
                ));
            }
        }
        if after > before + MORE_OF_CLIENTS {
            faults.push(format!(
                "the memory of the clients has not returned to its level: {} MiB before all faults, {} MiB after",
                before >> 20,
                after >> 20
            ));
        }
        faults
    }

    /// What is wrong, line by line.
    pub(crate) fn faults(&self, asked_for: Duration) -> Vec<String> {
        let found = self.findings.iter().filter_map(Findings::faults);
        let mut faults: Vec<_> = found.collect();
        let compared = self.findings.iter().map(|findings| findings.replies);
        if compared.sum::<u64>() == 0 {
            faults.push("no call was answered, so that nothing was compared".to_owned());
        }
        if asked_for < JUDGED {
            return faults;
        }
        let (healthy, hole) = self.p99s();
        if hole > MOST_OF_HOLE * healthy {
            faults.push(format!(
                "with one replica in a black hole the p99 of calls is {:.2} times that of the two others alone: \
                 {MOST_OF_HOLE} would be good",
                hole / healthy
            ));
        }
        faults.extend(self.memory_faults());
        faults
    }
}

#[cfg(test)]
mod tests {
    use cluster_live::tally::Kind;

    use super::*;
    use crate::load::no_times;

    /// A run with these times in milliseconds and this memory in MiB: before, after, and anew.
    fn report(healthy: u64, hole: u64, memory: [[u64; 3]; 3]) -> Report {
        let measured = |name, millis: u64| {
            let mut times = no_times();
            times.record_n(millis * 1000, 100).expect("within bounds");
            Measured {
                name,
                time: Duration::from_secs(1),
                times,
            }
        };
        let level = |name, mib: [u64; 3]| Level {
            name,
            bytes: Some(mib.map(|mib| mib << 20).to_vec()),
        };
        Report {
            took: Duration::from_secs(10),
            calls: (200, 1),
            failed_parts: vec![("refused, resource exhausted".to_owned(), 2)],
            healthy: measured("two alone", healthy),
            hole: measured("a hole", hole),
            before: level("before", memory[0]),
            after: level("after", memory[1]),
            anew: level("anew", memory[2]),
            findings: vec![Findings::good(1, 7), Findings::good(2, 7)],
        }
    }

    #[test]
    fn memory_and_latency_are_judged_in_long_runs() {
        let (short, long) = (JUDGED / 2, JUDGED);
        let memory = [[1, 1, 50], [164, 99, 114], [100, 100, 9]];
        let good = report(10, 19, memory);
        assert_eq!(good.faults(long), Vec::<String>::new());

        let memory = [[1, 1, 50], [164, 133, 115], [100, 68, 9]];
        let bad = report(10, 21, memory);
        assert_eq!(bad.faults(short), Vec::<String>::new());
        let faults = bad.faults(long);
        assert_eq!(faults.len(), 3, "{faults:?}");
        for (fault, begins) in faults.iter().zip([
            "with one replica in a black hole the p99 of calls is 2.1",
            "the memory of replica 2 has not returned to its level: 133 MiB after all faults, 68 MiB where",
            "the memory of the clients has not returned to its level: 50 MiB before all faults, 115 MiB",
        ]) {
            assert!(fault.starts_with(begins), "{fault}");
        }
    }

    #[test]
    fn a_run_that_compares_nothing_is_not_good() {
        let mut report = report(1, 1, [[1; 3]; 3]);
        report.findings = vec![Findings::default()];
        assert_eq!(report.faults(JUDGED / 2).len(), 1);
    }

    #[test]
    fn the_summary_has_what_was_measured() {
        let tally = Tally::of(vec![Kind::Kill]);
        let text = report(10, 20, [[1; 3], [2; 3], [3; 3]]).text(&tally);
        for expected in [
            "200 calls of majorities in 10 s, 20 per second; 1 failed while faults went on",
            "       2  refused, resource exhausted",
            "  p99 with the black hole is 2.00 times that without",
            "memory after: 2, 2 MiB of the replicas, 2 MiB of the clients",
            "replica 2: 0 lines, counter 0; 7 replies compared",
        ] {
            let found = text.lines().any(|line| line == expected);
            assert!(found, "{expected}\n{text}");
        }
    }
}
