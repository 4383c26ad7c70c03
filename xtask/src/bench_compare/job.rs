//! What is measured, one run at a time.

use std::fmt;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::case::{Case, Place, Threads, size};
use super::figures::{self, Named, Sides};
use super::{Effort, Programs};
use crate::command::Cmd;

/// One run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Job {
    /// Quorum calls of a contender.
    Calls { case: Case, by: Contender },
    /// This library against plain TCP, both on the same threads of one process.
    Floor { payload: usize, threads: Threads },
    /// This library with one server that is slow, stalls or is stopped, against the others alone.
    Isolation,
    /// This library with servers that take 10 ms, against timers.
    SlowServers { threads: Threads },
    /// Go and this library in one system.
    Mixed(Pair),
}

/// Who makes quorum calls, and serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Contender {
    Ours(Threads),
    /// By hand on tonic.
    Tonic(Threads),
    /// The Go library, on as many threads as there are cores.
    Go,
}

/// Client and servers of different programs, each server in a process of its own, 100 calls in
/// flight, 0 B. Go is the program of the interoperability tests here, on grpc-go, since the
/// library's published module speaks an older protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pair {
    GoOnGo,
    GoOnOurs,
    OursOnGo,
}

impl Pair {
    pub(super) const ALL: [Self; 3] = [Self::GoOnGo, Self::GoOnOurs, Self::OursOnGo];
}

/// Isolation is repeated at least so often, in all rounds together.
const ISOLATION_REPEATS: usize = 5;

/// Seconds of each run of isolation: what is compared differs by little.
const ISOLATION_SECONDS: u32 = 4;

impl Job {
    /// All of a round, in turn: the contenders of a case follow on one another, so that what the
    /// machine does meanwhile meets all of them.
    pub(super) fn all(quick: bool) -> Vec<Self> {
        let mut jobs = Vec::new();
        for case in Case::all(quick) {
            let mut by = |by| jobs.push(Self::Calls { case, by });
            by(Contender::Go);
            for &threads in case.runtimes() {
                by(Contender::Tonic(threads));
                by(Contender::Ours(threads));
            }
        }
        jobs.extend(Pair::ALL.map(Self::Mixed));
        for threads in [Threads::ONE, Threads::ONE_AND_ONE] {
            jobs.extend([0, 1024].map(|payload| Self::Floor { payload, threads }));
        }
        jobs.push(Self::Isolation);
        jobs.extend(
            [Threads::ONE, Threads::ONE_AND_ONE].map(|threads| Self::SlowServers { threads }),
        );
        jobs
    }

    /// Whether Go's program is needed.
    pub(super) fn needs_go(self) -> bool {
        matches!(
            self,
            Self::Mixed(_)
                | Self::Calls {
                    by: Contender::Go,
                    ..
                }
        )
    }

    /// About how many seconds it takes, starting and warming up included.
    pub(super) fn seconds(self, effort: Effort) -> u32 {
        let once = effort.seconds;
        match self {
            Self::Calls {
                by: Contender::Go, ..
            }
            | Self::Mixed(_) => once + 1,
            // Allocations are counted afterwards.
            Self::Calls { .. } => once + 3,
            Self::Floor { .. } => 2 * (once + 1),
            Self::Isolation => 5 * (1 + ISOLATION_SECONDS * isolation_repeats(effort) as u32),
            Self::SlowServers { .. } => 2 * once + 3,
        }
    }

    /// Runs it.
    pub(super) fn run(
        self,
        effort: Effort,
        programs: &Programs,
        sides: &mut Sides,
    ) -> Result<Vec<Named>> {
        let Some(command) = self.command(effort, programs) else {
            bail!("{self}: Go's program was not built");
        };
        if matches!(
            self,
            Self::Calls {
                by: Contender::Go,
                ..
            }
        ) {
            figures::go(&command, sides)
        } else if matches!(self, Self::Mixed(Pair::GoOnGo | Pair::GoOnOurs)) {
            figures::go(&command, &mut Sides::default())
        } else {
            figures::ours(&command, sides)
        }
    }

    fn command(self, effort: Effort, programs: &Programs) -> Option<Cmd> {
        let time = format!("{}s", effort.seconds);
        let ours = |words: &[&str], options: Vec<String>| {
            let command = programs.ours.clone().args(words.iter().copied());
            let command = command.args(options.iter().map(String::as_str));
            command.args(["--json", "-"])
        };
        Some(match self {
            Self::Calls { case, by } => match by {
                Contender::Go => {
                    let options = case.options("-");
                    let command = programs.go.clone()?.args(["-duration", &time]);
                    command.args(options.iter().map(String::as_str))
                }
                Contender::Ours(threads) | Contender::Tonic(threads) => {
                    let benchmark = match by {
                        Contender::Tonic(_) => "tonic",
                        _ => "quorum-call",
                    };
                    let options = [case.options("--"), threads.options()].concat();
                    ours(&[benchmark, "--duration", &time], options)
                }
            },
            Self::Floor { payload, threads } => {
                let payload = payload.to_string();
                let words = ["floor", "--duration", &time, "--payload", &payload];
                ours(&words, threads.options())
            }
            Self::Isolation => {
                let repeats = isolation_repeats(effort).to_string();
                let time = format!("{ISOLATION_SECONDS}s");
                let words = ["isolation", "--duration", &time, "--repeats", &repeats];
                ours(&words, Vec::new())
            }
            Self::SlowServers { threads } => {
                ours(&["slow-server", "--duration", &time], threads.options())
            }
            Self::Mixed(pair) => {
                let go = programs.go.clone()?;
                let program = go.program().to_owned();
                match pair {
                    Pair::GoOnGo => go.args(["-peer", "-duration", &time]),
                    Pair::GoOnOurs => go
                        .args(["-peer", "-duration", &time])
                        .args(["-server-program", programs.ours.program()]),
                    Pair::OursOnGo => {
                        let words = ["quorum-call", "--duration", &time, "--processes"];
                        let server = vec!["--server-program".to_owned(), program];
                        ours(&words, server)
                    }
                }
            }
        })
    }

    /// Whether its name has, for each of these, one of the words that commas part.
    pub(super) fn is_among(self, filters: &[String]) -> bool {
        let name = self.to_string().to_lowercase();
        filters.iter().all(|words| {
            let mut words = words.split(',').map(|word| word.trim().to_lowercase());
            words.any(|word| name.contains(&word))
        })
    }
}

/// An odd number, so that there is one in the middle.
fn isolation_repeats(effort: Effort) -> usize {
    ISOLATION_REPEATS.div_ceil(effort.rounds.max(1)) | 1
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Ours(threads) => format!("ours, {threads}"),
            Self::Tonic(threads) => format!("tonic, {threads}"),
            Self::Go => "Go".to_owned(),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GoOnGo => "Go client, Go servers",
            Self::GoOnOurs => "Go client, our servers",
            Self::OursOnGo => "our client, Go servers",
        })
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Calls { case, by } => format!("{case}: {by}"),
            Self::Floor { payload, threads } => {
                format!("the floor, {}: {threads}", size(*payload))
            }
            Self::Isolation => "isolation".to_owned(),
            Self::SlowServers { threads } => format!("slow servers: {threads}"),
            Self::Mixed(pair) => format!("in one system: {pair}"),
        };
        f.pad(&text)
    }
}

impl Place {
    /// As names of jobs and titles have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneProcess => "one process",
            Self::Processes => "processes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(go: bool) -> Programs {
        Programs {
            ours: Cmd::new("gorums-bench"),
            go: go.then(|| Cmd::new("go-bench")),
        }
    }

    const EFFORT: Effort = Effort {
        rounds: 3,
        seconds: 2,
    };

    #[test]
    fn the_contenders_of_a_case_take_turns() {
        let jobs = Job::all(true);
        let names: Vec<String> = jobs.iter().take(7).map(Job::to_string).collect();
        assert_eq!(
            names,
            [
                "3 nodes, one process, 1 in flight, 0 B: Go",
                "3 nodes, one process, 1 in flight, 0 B: tonic, 1 thread",
                "3 nodes, one process, 1 in flight, 0 B: ours, 1 thread",
                "3 nodes, one process, 1 in flight, 0 B: tonic, 2 threads",
                "3 nodes, one process, 1 in flight, 0 B: ours, 2 threads",
                "3 nodes, one process, 1 in flight, 0 B: tonic, 1 + 1 threads",
                "3 nodes, one process, 1 in flight, 0 B: ours, 1 + 1 threads",
            ]
        );
        for job in &jobs {
            assert_eq!(
                jobs.iter().filter(|other| *other == job).count(),
                1,
                "{job}"
            );
            assert!(job.seconds(EFFORT) >= EFFORT.seconds, "{job}");
        }
    }

    #[test]
    fn filters_take_alternatives_and_all_of_them_hold() {
        let among = |filters: &[&str]| -> usize {
            let filters: Vec<String> = filters.iter().map(|&words| words.to_owned()).collect();
            let jobs = Job::all(true);
            jobs.into_iter()
                .filter(|job| job.is_among(&filters))
                .count()
        };
        assert_eq!(among(&[]), Job::all(true).len());
        assert_eq!(among(&["isolation"]), 1);
        assert_eq!(among(&["Isolation,slow servers"]), 3);
        // Four loads of the sweep, of two contenders each.
        assert_eq!(among(&["tonic,ours", "processes"]), 4 * 2);
        assert_eq!(among(&["nothing like that"]), 0);
    }

    #[test]
    fn each_job_is_a_command_that_can_be_typed() {
        let case = Case::sweep()[1];
        for (job, command) in [
            (
                Job::Calls {
                    case,
                    by: Contender::Go,
                },
                "go-bench -duration 2s -nodes 3 -in-flight 10 -payload 0 -processes",
            ),
            (
                Job::Calls {
                    case,
                    by: Contender::Tonic(Threads::ONE),
                },
                "gorums-bench tonic --duration 2s --nodes 3 --in-flight 10 --payload 0 --processes --threads 1 --json -",
            ),
            (
                Job::Floor {
                    payload: 1024,
                    threads: Threads::ONE_AND_ONE,
                },
                "gorums-bench floor --duration 2s --payload 1024 --threads 1 --server-threads 1 --json -",
            ),
            (
                Job::Isolation,
                "gorums-bench isolation --duration 4s --repeats 3 --json -",
            ),
            (
                Job::Mixed(Pair::GoOnOurs),
                "go-bench -peer -duration 2s -server-program gorums-bench",
            ),
            (
                Job::Mixed(Pair::OursOnGo),
                "gorums-bench quorum-call --duration 2s --processes --server-program go-bench --json -",
            ),
        ] {
            let typed = job.command(EFFORT, &programs(true)).expect("it can be run");
            assert_eq!(typed.to_string(), command);
        }
    }

    #[test]
    fn without_go_only_what_needs_it_cannot_be_run() {
        for job in Job::all(true) {
            let command = job.command(EFFORT, &programs(false));
            assert_eq!(command.is_none(), job.needs_go(), "{job}");
        }
    }

    #[test]
    fn isolation_has_a_run_in_the_middle() {
        for (rounds, repeats) in [(1, 5), (2, 3), (3, 3), (5, 1), (50, 1)] {
            let effort = Effort { rounds, seconds: 1 };
            assert_eq!(isolation_repeats(effort), repeats, "{rounds} rounds");
        }
    }
}
