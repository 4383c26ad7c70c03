//! What is to be reached, and whether it is.

use std::fmt;

use super::case::{Place, Threads};
use super::figures::Figures;
use super::job::Pair;
use super::record::{Compared, Floor, Results, best};

/// The goals, with what was reached.
pub(super) struct Goals {
    pub(super) rows: Vec<Goal>,
    /// Go's figures against those that the goals were set by.
    pub(super) go: Vec<GoFigure>,
}

pub(super) struct Goal {
    pub(super) what: &'static str,
    pub(super) wanted: Wanted,
    pub(super) reached: Reached,
}

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    AtLeast(f64, &'static str),
    AtMost(f64, &'static str),
}

pub(super) enum Reached {
    Figure {
        value: f64,
        busy: bool,
        /// The threads of our side, where it was measured on several and these are the best.
        on: Option<Threads>,
    },
    NotMeasured(&'static str),
}

/// A figure of Go's, and what it was on a quiet machine with two cores when the goals were set.
pub(super) struct GoFigure {
    pub(super) what: &'static str,
    pub(super) expected: f64,
    pub(super) found: f64,
    pub(super) busy: bool,
}

/// How far a figure of Go's may be from the expected one.
pub(super) const TOLERANCE: f64 = 0.15;

const NOT_RUN: &str = "this case was not measured";

/// A figure of the best of ours, whether the machine was busy, and the threads.
type Ratio = fn(&Compared) -> Option<(f64, bool, Threads)>;

const CALLS: Ratio = |compared| {
    let go = compared.go.as_ref()?;
    let (on, ours) = best(&compared.ours, |figures| figures.calls_per_second)?;
    let ratio = ours.calls_per_second / go.calls_per_second;
    Some((ratio, ours.busy || go.busy, *on))
};

const CPU: Ratio = |compared| {
    let cpu = |figures: &Figures| figures.cpu_us_per_call.unwrap_or(f64::NAN);
    let go = compared.go.as_ref()?;
    let (on, ours) = best(&compared.ours, |figures| -cpu(figures))?;
    Some((cpu(ours) / cpu(go), ours.busy || go.busy, *on))
};

const P50: Ratio = |compared| {
    let go = compared.go.as_ref()?;
    let (on, ours) = best(&compared.ours, |figures| -figures.latency_us.p50)?;
    let ratio = ours.latency_us.p50 / go.latency_us.p50;
    Some((ratio, ours.busy || go.busy, *on))
};

const ALLOCATIONS: Ratio = |compared| {
    let count = |figures: &Figures| figures.allocations_per_call.unwrap_or(f64::NAN);
    let (on, ours) = best(&compared.ours, |figures| -count(figures))?;
    // Others do not add to it.
    Some((count(ours), false, *on))
};

impl Goals {
    pub(super) fn of(results: &Results) -> Self {
        use Place::{OneProcess, Processes};
        use Wanted::{AtLeast, AtMost};

        let case = |what, wanted, place, in_flight, payload, ratio: Ratio| Goal {
            what,
            wanted,
            reached: match results.find(place, in_flight, payload).and_then(ratio) {
                Some((value, busy, on)) => Reached::Figure {
                    value,
                    busy,
                    on: (place == OneProcess).then_some(on),
                },
                None => Reached::NotMeasured(NOT_RUN),
            },
        };
        let compared = |what, least, figures: Option<&Figures>, on: Option<Threads>| {
            let found = figures.and_then(|figures| Some((figures.compared?.ratio, figures.busy)));
            Goal {
                what,
                wanted: AtLeast(least, ""),
                reached: match found {
                    Some((value, busy)) => Reached::Figure { value, busy, on },
                    None => Reached::NotMeasured(NOT_RUN),
                },
            }
        };
        let floor = |what, payload| {
            let floor = results.floor(payload);
            let figures = floor.map(|floor| &floor.figures);
            compared(what, 0.5, figures, floor.map(|floor| floor.threads))
        };
        let mixed = |what, least, pair| Goal {
            what,
            wanted: AtLeast(least, " × Go on Go"),
            reached: match results.pair(pair).zip(results.pair(Pair::GoOnGo)) {
                Some((figures, go_on_go)) => Reached::Figure {
                    value: figures.calls_per_second / go_on_go.calls_per_second,
                    busy: figures.busy || go_on_go.busy,
                    on: None,
                },
                None => Reached::NotMeasured(NOT_RUN),
            },
        };
        let isolation = |what, situation| compared(what, 0.9, results.situation(situation), None);
        let rows = vec![
            case(
                "one process, 100 in flight, 0 B: calls/s",
                AtLeast(10.0, " × Go"),
                OneProcess,
                100,
                0,
                CALLS,
            ),
            case(
                "one process, 100 in flight, 1 KiB: calls/s",
                AtLeast(10.0, " × Go"),
                OneProcess,
                100,
                1024,
                CALLS,
            ),
            case(
                "one process, 16 in flight, 64 KiB: calls/s",
                AtLeast(6.0, " × Go"),
                OneProcess,
                16,
                65_536,
                CALLS,
            ),
            case(
                "processes, 100 in flight, 0 B: calls/s",
                AtLeast(12.0, " × Go"),
                Processes,
                100,
                0,
                CALLS,
            ),
            case(
                "processes, 100 in flight, 0 B: CPU per call",
                AtMost(0.08, " × Go"),
                Processes,
                100,
                0,
                CPU,
            ),
            mixed(
                "Go client (grpc-go) on our servers: calls/s",
                2.0,
                Pair::GoOnOurs,
            ),
            mixed(
                "our client on Go servers (grpc-go): calls/s",
                1.5,
                Pair::OursOnGo,
            ),
            case(
                "one process, one at a time, 0 B: p50",
                AtMost(0.45, " × Go"),
                OneProcess,
                1,
                0,
                P50,
            ),
            case(
                "processes, 100 in flight, 0 B: client allocations per call",
                AtMost(8.0, ""),
                Processes,
                100,
                0,
                ALLOCATIONS,
            ),
            floor("against the floor, 100 in flight, 0 B", 0),
            floor("against the floor, 100 in flight, 1 KiB", 1024),
            isolation(
                "isolation: one of three stopped, against the others alone",
                "one of three stopped",
            ),
            isolation(
                "isolation: one of three slow, against the others alone",
                "one of three slow",
            ),
            isolation(
                "isolation: one with a stalling disk, against all well",
                "one of three with a stalling disk",
            ),
            compared(
                "slow servers, 1,000 in flight, against timers",
                0.9,
                results.slow_server().map(|(_, figures)| figures),
                results.slow_server().map(|(threads, _)| *threads),
            ),
            floor_itself(results),
        ];
        Self {
            rows,
            go: GoFigure::all(results),
        }
    }

    /// The names of those that are not reached.
    pub(super) fn short(&self) -> Vec<&'static str> {
        let short = self
            .rows
            .iter()
            .filter(|goal| goal.is_reached() == Some(false));
        short.map(|goal| goal.what).collect()
    }
}

/// Were the floor slow, nothing would be gained by being near it.
fn floor_itself(results: &Results) -> Goal {
    let go = results
        .find(Place::OneProcess, 100, 0)
        .and_then(|compared| compared.go.as_ref());
    let both = go.zip(results.floor(0));
    let found = both.and_then(|(go, floor)| {
        let Floor {
            threads, figures, ..
        } = floor;
        let ratio = figures.compared?.calls_per_second / go.calls_per_second;
        Some((ratio, go.busy || figures.busy, *threads))
    });
    Goal {
        what: "the floor itself, 100 in flight, 0 B: calls/s",
        wanted: Wanted::AtLeast(15.0, " × Go"),
        reached: match found {
            Some((value, busy, on)) => Reached::Figure {
                value,
                busy,
                on: Some(on),
            },
            None => Reached::NotMeasured(NOT_RUN),
        },
    }
}

impl Goal {
    /// `None` where it was not measured.
    pub(super) fn is_reached(&self) -> Option<bool> {
        let Reached::Figure { value, .. } = self.reached else {
            return None;
        };
        // A figure that is no number has not been reached.
        match self.wanted {
            Wanted::AtLeast(least, _) => Some(value >= least),
            Wanted::AtMost(most, _) => Some(value <= most),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AtLeast(figure, unit) => format!("≥ {figure}{unit}"),
            Self::AtMost(figure, unit) => format!("≤ {figure}{unit}"),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Figure { value, busy, on } => {
                let digits = if *value < 2.0 { 3 } else { 2 };
                let on = on.map_or_else(String::new, |threads| format!(" ({threads})"));
                format!("{value:.digits$}{}{on}", if *busy { "*" } else { "" })
            }
            Self::NotMeasured(_) => "–".to_owned(),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Goals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "goals")?;
        for goal in &self.rows {
            let verdict = match (goal.is_reached(), &goal.reached) {
                (Some(true), _) => "reached",
                (Some(false), _) => "NOT REACHED",
                (None, Reached::NotMeasured(why)) => why,
                (None, Reached::Figure { .. }) => "not judged",
            };
            writeln!(
                f,
                "  {:58} {:>30} {:>9}  {verdict}",
                goal.what, goal.wanted, goal.reached
            )?;
        }
        writeln!(
            f,
            "\nGo's figures, and what they were on a quiet machine of two cores (commit 3241d25b)"
        )?;
        for figure in &self.go {
            writeln!(f, "  {figure}")?;
        }
        Ok(())
    }
}

impl GoFigure {
    fn all(results: &Results) -> Vec<Self> {
        use Place::{OneProcess, Processes};

        let rate = |figures: &Figures| Some(figures.calls_per_second);
        let cpu = |figures: &Figures| figures.cpu_us_per_call;
        let allocations = |figures: &Figures| figures.allocations_per_call;
        type Of = fn(&Figures) -> Option<f64>;
        let expected: [(&'static str, f64, Place, usize, usize, Of); 9] = [
            (
                "one process, 100 in flight, 0 B: calls/s",
                72_000.0,
                OneProcess,
                100,
                0,
                rate,
            ),
            ("the same: CPU µs per call", 27.0, OneProcess, 100, 0, cpu),
            (
                "the same: allocations per call",
                160.0,
                OneProcess,
                100,
                0,
                allocations,
            ),
            (
                "one process, 100 in flight, 1 KiB: calls/s",
                33_000.0,
                OneProcess,
                100,
                1024,
                rate,
            ),
            (
                "one process, 16 in flight, 64 KiB: calls/s",
                2_100.0,
                OneProcess,
                16,
                65_536,
                rate,
            ),
            (
                "one process, one at a time, 0 B: p50 µs",
                44.0,
                OneProcess,
                1,
                0,
                |figures| Some(figures.latency_us.p50),
            ),
            (
                "processes, 100 in flight, 0 B: calls/s",
                48_000.0,
                Processes,
                100,
                0,
                rate,
            ),
            ("the same: CPU µs per call", 41.0, Processes, 100, 0, cpu),
            (
                "the same: client allocations per call",
                64.0,
                Processes,
                100,
                0,
                allocations,
            ),
        ];
        let found =
            expected
                .into_iter()
                .filter_map(|(what, expected, place, in_flight, payload, of)| {
                    let go = results.find(place, in_flight, payload)?.go.as_ref()?;
                    let found = of(go)?;
                    Some(Self {
                        what,
                        expected,
                        found,
                        busy: go.busy,
                    })
                });
        found.collect()
    }

    /// How far it is from what was expected, as a part of that.
    pub(super) fn deviation(&self) -> f64 {
        self.found / self.expected - 1.0
    }
}

impl fmt::Display for GoFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far = if self.deviation().abs() <= TOLERANCE {
            ""
        } else {
            "  beyond 15 %"
        };
        write!(
            f,
            "{:46} {:>9}, was {:>7} ({:+.0} %){}{far}",
            self.what,
            super::figures::grouped(self.found),
            super::figures::grouped(self.expected),
            self.deviation() * 100.0,
            if self.busy { "*" } else { "" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Comparison;
    use super::super::record::tests::results;
    use super::*;

    #[test]
    fn what_is_not_reached_is_named() {
        assert_eq!(
            Goals::of(&results(14.0)).short(),
            ["against the floor, 100 in flight, 1 KiB"]
        );
        let goals = Goals::of(&results(11.0));
        assert_eq!(
            goals.short(),
            [
                "processes, 100 in flight, 0 B: calls/s",
                "processes, 100 in flight, 0 B: CPU per call",
                "against the floor, 100 in flight, 1 KiB"
            ]
        );
        let text = goals.to_string();
        assert_eq!(text.matches("NOT REACHED").count(), 3, "{text}");
        assert!(text.contains("11.00"), "{text}");
    }

    #[test]
    fn what_cannot_be_measured_is_neither_reached_nor_missed() {
        let mut results = results(14.0);
        results.compared.clear();
        let goals = Goals::of(&results);
        let unmeasured = |goals: &Goals| {
            goals
                .rows
                .iter()
                .filter(|goal| goal.is_reached().is_none())
                .count()
        };
        assert_eq!(unmeasured(&goals), 8);
        results.isolation.clear();
        results.mixed.clear();
        results.floors.clear();
        results.slow_servers.clear();
        let nothing = Goals::of(&results);
        assert_eq!(unmeasured(&nothing), nothing.rows.len());
        assert!(nothing.short().is_empty());
        assert!(goals.to_string().contains(NOT_RUN));
    }

    #[test]
    fn a_figure_that_is_missing_is_not_reached() {
        let mut results = results(14.0);
        for compared in &mut results.compared {
            if let Some(go) = &mut compared.go {
                go.cpu_us_per_call = None;
            }
        }
        let short = Goals::of(&results).short();
        assert!(
            short.contains(&"processes, 100 in flight, 0 B: CPU per call"),
            "{short:?}"
        );
    }

    #[test]
    fn a_slow_floor_is_not_reached_either() {
        let mut results = results(14.0);
        results.floors[0].figures.compared = Some(Comparison {
            calls_per_second: 14_000.0,
            ratio: 0.9,
            cpu_ratio: None,
        });
        let short = Goals::of(&results).short();
        assert!(
            short.contains(&"the floor itself, 100 in flight, 0 B: calls/s"),
            "{short:?}"
        );
    }

    #[test]
    fn a_goal_is_judged_on_the_threads_that_are_best_and_names_them() {
        let mut results = results(11.0);
        let apart = |(threads, figures): &mut (Threads, Figures)| {
            if *threads == Threads::ONE_AND_ONE {
                figures.calls_per_second = 13_000.0;
            }
        };
        for compared in &mut results.compared {
            compared.ours.iter_mut().for_each(apart);
        }
        let text = Goals::of(&results).to_string();
        assert!(text.contains("13.00 (1 + 1 threads)"), "{text}");
        assert!(!text.contains("11.00 (1 thread)"), "{text}");
    }

    #[test]
    fn the_floor_is_that_of_the_threads_on_which_ours_makes_more_calls() {
        let mut results = results(14.0);
        // More calls per second, but not as near to what the floor makes of these threads.
        let mut figures = results.floors[0].figures.clone();
        figures.calls_per_second = 18_000.0;
        figures.compared = Some(Comparison {
            calls_per_second: 40_000.0,
            ratio: 0.45,
            cpu_ratio: None,
        });
        results.floors.push(Floor {
            payload: 0,
            threads: Threads::ONE_AND_ONE,
            figures,
        });
        let goals = Goals::of(&results);
        assert!(
            goals
                .short()
                .contains(&"against the floor, 100 in flight, 0 B")
        );
        let text = goals.to_string();
        assert!(text.contains("0.450 (1 + 1 threads)"), "{text}");
        assert!(text.contains("40.00 (1 + 1 threads)"), "{text}");
    }

    #[test]
    fn figures_of_go_that_are_far_from_the_expected_ones_are_marked() {
        let figure = |found| GoFigure {
            what: "x",
            expected: 100.0,
            found,
            busy: false,
        };
        assert!(figure(116.0).to_string().contains("beyond 15 %"));
        assert!(figure(84.0).to_string().contains("beyond 15 %"));
        assert!(!figure(114.0).to_string().contains("beyond"));
    }
}
