//! What is compared.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Quorum calls to so many servers, in so many bytes, so many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) nodes: usize,
    pub(super) place: Place,
    pub(super) in_flight: usize,
    pub(super) payload: usize,
}

/// Where servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    OneProcess,
    Processes,
}

/// The threads of a contender that is told how many to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Threads {
    /// Of the client, and of servers on its runtime.
    pub(super) client: usize,
    /// Of a runtime that the servers of this process have to themselves, where they have one.
    pub(super) servers: Option<usize>,
}

impl Threads {
    pub(super) const ONE: Self = Self {
        client: 1,
        servers: None,
    };
    pub(super) const TWO: Self = Self {
        client: 2,
        servers: None,
    };
    /// The client on one, the servers on another.
    pub(super) const ONE_AND_ONE: Self = Self {
        client: 1,
        servers: Some(1),
    };

    /// What our program is told.
    pub(super) fn options(self) -> Vec<String> {
        let mut options = vec!["--threads".to_owned(), self.client.to_string()];
        if let Some(servers) = self.servers {
            options.extend(["--server-threads".to_owned(), servers.to_string()]);
        }
        options
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.client, self.servers) {
            (client, Some(servers)) => format!("{client} + {servers} threads"),
            (1, None) => "1 thread".to_owned(),
            (client, None) => format!("{client} threads"),
        };
        f.pad(&text)
    }
}

/// The loads of the picture of latency over throughput, in calls in flight.
const SWEEP: [usize; 4] = [1, 10, 100, 1000];

impl Case {
    /// All of them, or those that the goals and the pictures are about.
    pub(super) fn all(quick: bool) -> Vec<Self> {
        let mut cases = Vec::new();
        for nodes in [3, 5] {
            for place in [Place::OneProcess, Place::Processes] {
                for in_flight in [1, 16, 100] {
                    for payload in [0, 1024, 64 * 1024] {
                        cases.push(Self {
                            nodes,
                            place,
                            in_flight,
                            payload,
                        });
                    }
                }
            }
        }
        if quick {
            cases.retain(Self::has_goal);
        }
        for case in Self::sweep() {
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    /// Those of the picture of latency over throughput.
    pub(super) fn sweep() -> [Self; SWEEP.len()] {
        SWEEP.map(|in_flight| Self {
            nodes: 3,
            place: Place::Processes,
            in_flight,
            payload: 0,
        })
    }

    pub(super) fn has_goal(&self) -> bool {
        let load = (self.place, self.in_flight, self.payload);
        self.nodes == 3
            && matches!(
                load,
                (Place::OneProcess, 100, 0 | 1024)
                    | (Place::OneProcess, 16, 65_536)
                    | (Place::OneProcess, 1, 0)
                    | (Place::Processes, 100, 0)
            )
    }

    /// The threads on which this library and tonic are measured, in turn.
    pub(super) fn runtimes(&self) -> &'static [Threads] {
        match self.place {
            Place::OneProcess => &[Threads::ONE, Threads::TWO, Threads::ONE_AND_ONE],
            Place::Processes => &[Threads::ONE],
        }
    }

    /// What a program is told, whose options begin like this: `--` is ours, `-` Go's.
    pub(super) fn options(&self, dashes: &str) -> Vec<String> {
        let mut options = Vec::new();
        for (name, value) in [
            ("nodes", self.nodes),
            ("in-flight", self.in_flight),
            ("payload", self.payload),
        ] {
            options.extend([format!("{dashes}{name}"), value.to_string()]);
        }
        if self.place == Place::Processes {
            options.push(format!("{dashes}processes"));
        }
        options
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::OneProcess => "one process",
            Place::Processes => "processes",
        };
        let (nodes, in_flight, payload) = (self.nodes, self.in_flight, size(self.payload));
        let text = format!("{nodes} nodes, {place}, {in_flight} in flight, {payload}");
        f.pad(&text)
    }
}

pub(super) fn size(bytes: usize) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) {
        format!("{} KiB", bytes / 1024)
    } else {
        format!("{bytes} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_compared_or_what_goals_and_pictures_are_about() {
        // Of the sweep's loads, 1 and 100 are among the others.
        assert_eq!(Case::all(false).len(), 2 * 2 * 3 * 3 + 2);
        let quick = Case::all(true);
        assert_eq!(quick.len(), 5 + 3);
        assert!(quick.iter().all(|case| case.nodes == 3));
        for case in Case::sweep() {
            for cases in [Case::all(false), Case::all(true)] {
                let count = cases.iter().filter(|other| **other == case).count();
                assert_eq!(count, 1, "{case}");
            }
        }
    }

    #[test]
    fn each_program_is_told_the_case_in_its_own_way() {
        let [case, ..] = Case::sweep();
        assert_eq!(
            case.options("-").join(" "),
            "-nodes 3 -in-flight 1 -payload 0 -processes"
        );
        let here = Case {
            place: Place::OneProcess,
            ..case
        };
        assert_eq!(
            here.options("--").join(" "),
            "--nodes 3 --in-flight 1 --payload 0"
        );
    }

    #[test]
    fn threads_are_named_and_told_to_our_program() {
        for (threads, name, options) in [
            (Threads::ONE, "1 thread", "--threads 1"),
            (Threads::TWO, "2 threads", "--threads 2"),
            (
                Threads::ONE_AND_ONE,
                "1 + 1 threads",
                "--threads 1 --server-threads 1",
            ),
        ] {
            assert_eq!(threads.to_string(), name);
            assert_eq!(threads.options().join(" "), options);
        }
    }

    #[test]
    fn a_case_is_named_by_what_it_is() {
        let case = Case {
            nodes: 5,
            place: Place::Processes,
            in_flight: 16,
            payload: 65_536,
        };
        assert_eq!(case.to_string(), "5 nodes, processes, 16 in flight, 64 KiB");
    }
}
