//! The file that keeps every run, and what all of them say together.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Effort;
use super::case::{Case, Place, Threads};
use super::figures::{self, Figures, Named, QUORUM_CALL, Sides};
use super::job::{Contender, Job, Pair};

/// The layout of the file; it grows when a reader would misunderstand what a newer program wrote.
const FORMAT: u32 = 1;

/// Every run that was made, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    pub(super) effort: Effort,
    pub(super) sides: Sides,
    pub(super) runs: Vec<Run>,
}

/// What a run measured, which may be more than one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) round: usize,
    pub(super) job: Job,
    pub(super) results: Vec<Named>,
}

impl Record {
    pub(super) fn new(effort: Effort) -> Self {
        Self {
            format: FORMAT,
            effort,
            sides: Sides::default(),
            runs: Vec::new(),
        }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }

        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let not_ours = || format!("{shown} is not what bench-compare writes");
        let Format { format } = serde_json::from_str(&text).with_context(not_ours)?;
        if format != FORMAT {
            bail!("{shown} has format {format}, and this program reads {FORMAT}");
        }
        serde_json::from_str(&text).with_context(not_ours)
    }

    /// Writes all of it. A reader finds the old file or the new one, and never a part.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let written = || format!("writing {}", path.display());
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).with_context(written)?;
        }
        let mut text = serde_json::to_string_pretty(self).with_context(written)?;
        text.push('\n');
        let beside = path.with_extension("json.new");
        fs::write(&beside, text).with_context(written)?;
        fs::rename(&beside, path).with_context(written)
    }

    /// What was measured of a job by this name, in all rounds together.
    fn median(&self, job: Job, name: &str) -> Option<Figures> {
        let runs = self.runs.iter().filter(|run| run.job == job);
        let results = runs.flat_map(|run| &run.results);
        let named = results.filter(|result| result.name == name);
        let all: Vec<_> = named.map(|result| result.figures.clone()).collect();
        figures::median(all).ok()
    }
}

/// Everything that was measured, each figure in the middle of its rounds.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) effort: Effort,
    pub(super) sides: Sides,
    pub(super) compared: Vec<Compared>,
    pub(super) floors: Vec<Floor>,
    /// By what is the matter with one of the servers; the others alone are the first.
    pub(super) isolation: Vec<(&'static str, Figures)>,
    /// On all threads that they are measured on.
    pub(super) slow_servers: Vec<(Threads, Figures)>,
    pub(super) mixed: Vec<(Pair, Figures)>,
}

/// All contenders of a case.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) case: Case,
    pub(super) go: Option<Figures>,
    /// On all threads that the case is measured on.
    pub(super) tonic: Vec<(Threads, Figures)>,
    pub(super) ours: Vec<(Threads, Figures)>,
}

/// This library against plain TCP, both on the same threads of one process.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) payload: usize,
    pub(super) threads: Threads,
    pub(super) figures: Figures,
}

/// What our program calls the situations of isolation, and what they are called here.
const SITUATIONS: [(&str, &str); 5] = [
    ("isolation, the others alone", "the others alone"),
    ("isolation, all servers well", "all three well"),
    ("isolation, one server stopped", "one of three stopped"),
    ("isolation, one slow server", "one of three slow"),
    (
        "isolation, one server with a stalling disk",
        "one of three with a stalling disk",
    ),
];

impl Results {
    pub(super) fn of(record: &Record) -> Self {
        let median = |job, name: &str| record.median(job, name);
        let compared = Case::all(false).into_iter().map(|case| {
            let by = |by, name: &str| median(Job::Calls { case, by }, name);
            let on = |contender: fn(Threads) -> Contender, name: &str| {
                let all = case.runtimes().iter();
                all.filter_map(|&threads| Some((threads, by(contender(threads), name)?)))
                    .collect()
            };
            Compared {
                case,
                go: by(Contender::Go, QUORUM_CALL),
                tonic: on(Contender::Tonic, "tonic"),
                ours: on(Contender::Ours, QUORUM_CALL),
            }
        });
        let threads = [Threads::ONE, Threads::ONE_AND_ONE];
        let floors = [0, 1024].into_iter().flat_map(|payload| {
            threads.map(|threads| {
                let figures = median(Job::Floor { payload, threads }, QUORUM_CALL)?;
                Some(Floor {
                    payload,
                    threads,
                    figures,
                })
            })
        });
        let slow_servers = threads.into_iter().filter_map(|threads| {
            let figures = median(Job::SlowServers { threads }, "slow-server")?;
            Some((threads, figures))
        });
        let isolation = SITUATIONS
            .into_iter()
            .filter_map(|(name, shown)| Some((shown, median(Job::Isolation, name)?)));
        let mixed = Pair::ALL
            .into_iter()
            .filter_map(|pair| Some((pair, median(Job::Mixed(pair), QUORUM_CALL)?)));
        Self {
            effort: record.effort,
            sides: record.sides.clone(),
            compared: compared.filter(|compared| !compared.is_empty()).collect(),
            floors: floors.flatten().collect(),
            isolation: isolation.collect(),
            slow_servers: slow_servers.collect(),
            mixed: mixed.collect(),
        }
    }

    /// What was measured of a case with three servers.
    pub(super) fn find(&self, place: Place, in_flight: usize, payload: usize) -> Option<&Compared> {
        self.compared.iter().find(|compared| {
            let case = compared.case;
            case.nodes == 3
                && case.place == place
                && case.in_flight == in_flight
                && case.payload == payload
        })
    }

    /// The floor of a payload on the threads on which this library makes more calls per second.
    pub(super) fn floor(&self, payload: usize) -> Option<&Floor> {
        let floors = self.floors.iter().filter(|floor| floor.payload == payload);
        let rate = |floor: &Floor| floor.figures.calls_per_second;
        floors.max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }

    /// Slow servers on the threads on which this library makes more calls per second.
    pub(super) fn slow_server(&self) -> Option<&(Threads, Figures)> {
        best(&self.slow_servers, |figures| figures.calls_per_second)
    }

    /// Isolation with this the matter with one of the servers.
    pub(super) fn situation(&self, name: &str) -> Option<&Figures> {
        let mut all = self.isolation.iter();
        all.find(|(shown, _)| *shown == name)
            .map(|(_, figures)| figures)
    }

    pub(super) fn pair(&self, pair: Pair) -> Option<&Figures> {
        let mut all = self.mixed.iter();
        all.find(|(other, _)| *other == pair)
            .map(|(_, figures)| figures)
    }

    pub(super) fn busy(&self) -> bool {
        let floors = self.floors.iter().map(|floor| &floor.figures);
        let slow = self.slow_servers.iter().map(|(_, figures)| figures);
        let isolation = self.isolation.iter().map(|(_, figures)| figures);
        let mixed = self.mixed.iter().map(|(_, figures)| figures);
        let mut alone = floors.chain(slow).chain(isolation).chain(mixed);
        self.compared.iter().any(Compared::busy) || alone.any(|figures| figures.busy)
    }
}

impl Compared {
    /// Each contender, on all its threads.
    pub(super) fn all(&self) -> Vec<(Contender, &Figures)> {
        let go = self.go.iter().map(|figures| (Contender::Go, figures));
        let tonic = self.tonic.iter();
        let tonic = tonic.map(|(threads, figures)| (Contender::Tonic(*threads), figures));
        let ours = self.ours.iter();
        let ours = ours.map(|(threads, figures)| (Contender::Ours(*threads), figures));
        go.chain(tonic).chain(ours).collect()
    }

    /// Each contender on the threads on which it makes most calls per second: Go, tonic, ours.
    pub(super) fn fastest(&self) -> [Option<(Contender, &Figures)>; 3] {
        let rate = |figures: &Figures| figures.calls_per_second;
        let go = self.go.as_ref().map(|figures| (Contender::Go, figures));
        let tonic = best(&self.tonic, rate);
        let ours = best(&self.ours, rate);
        [
            go,
            tonic.map(|(threads, figures)| (Contender::Tonic(*threads), figures)),
            ours.map(|(threads, figures)| (Contender::Ours(*threads), figures)),
        ]
    }

    fn is_empty(&self) -> bool {
        self.go.is_none() && self.tonic.is_empty() && self.ours.is_empty()
    }

    pub(super) fn busy(&self) -> bool {
        self.all().iter().any(|(_, figures)| figures.busy)
    }
}

/// The threads on which a figure is best; `None` where nothing was measured.
pub(super) fn best(
    all: &[(Threads, Figures)],
    better: impl Fn(&Figures) -> f64,
) -> Option<&(Threads, Figures)> {
    all.iter()
        .max_by(|a, b| better(&a.1).total_cmp(&better(&b.1)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::FULL;
    use super::super::figures::Comparison;
    use super::super::figures::tests::figures;
    use super::*;

    /// Go makes 1,000 calls a second everywhere, tonic twice as many, and ours so many times more.
    pub(in super::super) fn results(times: f64) -> Results {
        let compared = Case::all(false).into_iter().map(|case| {
            // Two threads are slower here, and so are one and one.
            let on = |times: f64| {
                let all = case.runtimes().iter();
                all.map(|&threads| {
                    let slower = match threads.servers {
                        None => 1.0 / threads.client as f64,
                        Some(_) => 0.8,
                    };
                    let rate = 1000.0 * times * slower;
                    (threads, figures(rate, 100.0 / times, 50.0 / times))
                })
                .collect()
            };
            Compared {
                case,
                go: Some(figures(1000.0, 100.0, 50.0)),
                tonic: on(2.0),
                ours: on(times),
            }
        });
        let alone = |ratio| Figures {
            compared: Some(Comparison {
                calls_per_second: 20_000.0,
                ratio,
                cpu_ratio: Some(1.0 / ratio),
            }),
            ..figures(20_000.0 * ratio, 1.0, 1.0)
        };
        let floor = |payload, ratio| Floor {
            payload,
            threads: Threads::ONE,
            figures: alone(ratio),
        };
        let situations = SITUATIONS.map(|(_, shown)| (shown, alone(1.0)));
        Results {
            effort: FULL,
            sides: Sides::default(),
            compared: compared.collect(),
            floors: vec![floor(0, 0.6), floor(1024, 0.4)],
            isolation: situations.into_iter().collect(),
            slow_servers: vec![(Threads::ONE, alone(0.95))],
            mixed: vec![
                (Pair::GoOnGo, figures(1000.0, 100.0, 50.0)),
                (Pair::GoOnOurs, figures(2500.0, 40.0, 20.0)),
                (Pair::OursOnGo, figures(1600.0, 60.0, 30.0)),
            ],
        }
    }

    fn run(round: usize, job: Job, results: &[(&str, f64)]) -> Run {
        let named = results.iter().map(|&(name, rate)| Named {
            name: name.to_owned(),
            figures: figures(rate, 1.0, 1.0),
        });
        Run {
            round,
            job,
            results: named.collect(),
        }
    }

    #[test]
    fn each_figure_is_in_the_middle_of_its_rounds() {
        let case = Case::sweep()[0];
        let mut record = Record::new(FULL);
        for (round, rates) in [(1, [10.0, 7.0]), (2, [30.0, 9.0]), (3, [20.0, 8.0])] {
            for (by, name, rate) in [
                (Contender::Go, QUORUM_CALL, rates[0]),
                (Contender::Tonic(Threads::ONE), "tonic", rates[1]),
            ] {
                record
                    .runs
                    .push(run(round, Job::Calls { case, by }, &[(name, rate)]));
            }
        }
        let results = Results::of(&record);
        let [compared] = &results.compared[..] else {
            panic!("{results:?}");
        };
        assert_eq!(compared.case, case);
        let go = compared.go.as_ref().expect("it was measured");
        assert_eq!(go.calls_per_second, 20.0);
        assert_eq!(compared.tonic[0].1.calls_per_second, 8.0);
        assert!(compared.ours.is_empty());
        assert!(results.floors.is_empty() && results.isolation.is_empty());
        let [go, tonic, ours] = compared.fastest();
        assert!(go.is_some() && tonic.is_some() && ours.is_none());
    }

    #[test]
    fn results_of_one_run_are_told_apart_by_their_names() {
        let mut record = Record::new(FULL);
        let results = SITUATIONS.map(|(name, _)| (name, name.len() as f64));
        record.runs.push(run(1, Job::Isolation, &results));
        let floor = Job::Floor {
            payload: 0,
            threads: Threads::ONE,
        };
        let results = [("floor", 100.0), (QUORUM_CALL, 50.0)];
        record.runs.push(run(1, floor, &results));
        let results = Results::of(&record);
        for (name, shown) in SITUATIONS {
            let figures = results.situation(shown).expect("it was measured");
            assert_eq!(figures.calls_per_second, name.len() as f64, "{shown}");
        }
        let floor = results.floor(0).expect("it was measured");
        assert_eq!(floor.figures.calls_per_second, 50.0);
        assert!(results.floor(1024).is_none());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("below").join("results.json");
        let mut record = Record::new(FULL);
        for (round, job) in (1..).zip(Job::all(true)) {
            record.runs.push(run(round, job, &[("x", 1.5)]));
        }
        record.write(&path).expect("it can be written");
        assert_eq!(Record::read(&path).expect("it can be read"), record);
        record.format = FORMAT + 1;
        record.write(&path).expect("it can be written");
        let error = Record::read(&path).expect_err("a later format");
        assert!(error.to_string().contains("has format 2"), "{error}");
        fs::write(&path, "{}").expect("it can be written");
        let error = Record::read(&path).expect_err("something else");
        assert!(error.to_string().contains("is not what"), "{error}");
    }
}
