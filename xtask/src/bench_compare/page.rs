//! docs/benchmarks.md.

use std::fmt::Write;

use super::case::{Place, size};
use super::figures::{Figures, both_ways, grouped, ratio};
use super::goals::{Goals, Reached};
use super::job::{Contender, Pair};
use super::record::Results;

/// What a goal is, for readers who find that one is not reached.
const WHY: &str = "\
A goal says where this library is to get, by the figures that the Go library had when it was set ([The Go side](#the-go-side)).
\"**not reached**\" means that it is not there yet, and not that something is wrong: what was found stands beside it, and 1 × Go is as
good as the Go library. In one process the client and three servers share the threads, so that what a call costs at each of them adds
up. On Go's servers most of the processor's time is theirs, whoever calls them. The floor is the same calls over plain TCP, without
HTTP/2, order, deadlines, bounds and failures; the distance to it is what these cost.
";

/// Pictures that lie beside the page, as paths from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pictures<'a> {
    pub(super) cost: &'a str,
    pub(super) latency: &'a str,
}

/// The page, as Markdown.
pub(super) fn write(results: &Results, goals: &Goals, pictures: Option<Pictures<'_>>) -> String {
    let mut text = String::new();
    page(&mut text, results, goals, pictures).expect("a string takes everything");
    text
}

fn page(
    text: &mut String,
    results: &Results,
    goals: &Goals,
    pictures: Option<Pictures<'_>>,
) -> std::fmt::Result {
    let sides = &results.sides;
    writeln!(
        text,
        "# Benchmarks

Quorum calls of this library, of the Go library, and written by hand on tonic, side by side. Written by `cargo xtask bench-compare`;
[BENCHMARKING.md](../BENCHMARKING.md) says how, and what the figures mean.

| | |
|---|---|
| date | {} |
| machine | {} |
| this library | {} |",
        sides.date, sides.machine, sides.ours,
    )?;
    for (name, what) in [("tonic", &sides.tonic), ("the Go library", &sides.go)] {
        if !what.is_empty() {
            writeln!(text, "| {name} | {what} |")?;
        }
    }
    writeln!(
        text,
        "| each figure | {} s after one to warm up, {} |
",
        results.effort.seconds,
        times(results.effort.rounds),
    )?;
    if results.busy() {
        writeln!(
            text,
            "**The machine was busy.** What is marked with \\* was measured while others used more than a twentieth of it, and says \
             little; CPU per call suffers least.\n"
        )?;
    }
    if let Some(pictures) = pictures {
        show(text, pictures)?;
    }
    writeln!(
        text,
        "## Goals

{WHY}
In one process a figure is that of the threads on which it is best, which are named beside it. The floor and slow
servers are those of the threads on which this library makes more calls per second; what it is compared with ran on the same ones.

| what | wanted | found | |
|---|---|---|---|"
    )?;
    for goal in &goals.rows {
        let found = goal.reached.to_string().replace('*', "\\*");
        let verdict = match (goal.is_reached(), &goal.reached) {
            (Some(true), _) => "reached".to_owned(),
            (Some(false), _) => "**not reached**".to_owned(),
            (None, Reached::NotMeasured(why)) => format!("not measured: {why}"),
            (None, Reached::Figure { .. }) => "not judged".to_owned(),
        };
        writeln!(
            text,
            "| {} | {} | {found} | {verdict} |",
            goal.what, goal.wanted
        )?;
    }
    both_directions(text, results)?;
    for place in [Place::OneProcess, Place::Processes] {
        table(text, results, place)?;
    }
    floors(text, results)?;
    isolation(text, results)?;
    slow_servers(text, results)?;
    mixed(text, results)?;
    go(text, goals)
}

fn show(text: &mut String, pictures: Pictures<'_>) -> std::fmt::Result {
    writeln!(
        text,
        "## Calls per second, and what a call costs

Each contender on the threads on which it makes most calls per second; the same calls, the same servers, the same number in flight.
On the left more is better, on the right less.

![calls per second and CPU per call of each contender]({})

## Latency over throughput

1, 10, 100 and 1,000 calls in flight; three servers, each in a process of its own, 0 B. To the right is more, and down is sooner. Both
scales are logarithmic.

![latency over throughput of each contender]({})
",
        pictures.cost, pictures.latency
    )
}

/// How two contenders compare, both ways, each on its fastest threads.
fn both_directions(text: &mut String, results: &Results) -> std::fmt::Result {
    if results.compared.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## Both ways

Each on the threads on which it makes most calls per second. Of calls per second more is better, of CPU per call less.

| nodes | | in flight | payload | | ours ÷ Go | Go ÷ ours | ours ÷ tonic | tonic ÷ ours | tonic ÷ Go | Go ÷ tonic |
|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    type Of = fn(&Figures) -> Option<f64>;
    let quantities: [(&str, Of); 2] = [
        ("calls/s", |figures| Some(figures.calls_per_second)),
        ("CPU", |figures| figures.cpu_us_per_call),
    ];
    for compared in &results.compared {
        let case = compared.case;
        let [go, tonic, ours] = compared
            .fastest()
            .map(|one| one.map(|(_, figures)| figures));
        let (nodes, place) = (case.nodes, case.place.name());
        let (in_flight, payload) = (grouped(case.in_flight as f64), size(case.payload));
        for (number, (quantity, of)) in quantities.into_iter().enumerate() {
            let case = match number {
                0 => format!("| {nodes} | {place} | {in_flight} | {payload}"),
                _ => "| | | | ".to_owned(),
            };
            write!(text, "{case} | {quantity} |")?;
            for (own, other) in [(ours, go), (ours, tonic), (tonic, go)] {
                let (there, back) = both(own.and_then(of), other.and_then(of));
                write!(text, " {there} | {back} |")?;
            }
            writeln!(text)?;
        }
    }
    Ok(())
}

/// A ratio both ways, or that it is not known.
fn both(own: Option<f64>, other: Option<f64>) -> (String, String) {
    match both_ways(own, other) {
        Some((there, back)) => (ratio(there), ratio(back)),
        None => (NONE.to_owned(), NONE.to_owned()),
    }
}

const NONE: &str = "–";

/// This library against something in the same run, both ways.
fn within_a_run(figures: &Figures) -> String {
    let compared = figures.compared;
    let (there, back) = both(compared.map(|one| one.ratio), Some(1.0));
    let (cpu, cpu_back) = both(compared.and_then(|one| one.cpu_ratio), Some(1.0));
    let other = compared.map_or_else(|| NONE.to_owned(), |one| grouped(one.calls_per_second));
    format!(
        "{}{} | {other} | {there} | {back} | {} | {cpu} | {cpu_back} |",
        grouped(figures.calls_per_second),
        mark(figures),
        micros(figures.cpu_us_per_call),
    )
}

fn mark(figures: &Figures) -> &'static str {
    if figures.busy { "\\*" } else { "" }
}

fn micros(figure: Option<f64>) -> String {
    figure.map_or_else(|| NONE.to_owned(), |figure| format!("{figure:.2}"))
}

fn floors(text: &mut String, results: &Results) -> std::fmt::Result {
    if results.floors.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## Against plain TCP

100 calls in flight, three servers in the same process; the two are measured in turn in the same run.

| payload | | calls/s | the floor's | ours ÷ floor | floor ÷ ours | CPU | ours ÷ floor | floor ÷ ours |
|---|---|---|---|---|---|---|---|---|"
    )?;
    for floor in &results.floors {
        let (payload, threads) = (size(floor.payload), floor.threads);
        let figures = within_a_run(&floor.figures);
        writeln!(text, "| {payload} | {threads} | {figures}")?;
    }
    Ok(())
}

fn isolation(text: &mut String, results: &Results) -> std::fmt::Result {
    if results.isolation.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## One server that is not well

Quorum calls to three servers in processes of their own, 100 in flight, 0 B. One of them is **stopped** (silent, and its connections
stay), or **slow** (1 ms for each call, one after the other), or its **disk stalls** (it answers nothing for half of each second, and then
all at once); against the same calls to the other two alone. A server whose disk stalls works for the rest of the time, on the same
machine, so that this one is against all three well. They take turns, for 4 s each. CPU is that of the client and of the servers that
are not stopped.

| | calls/s | what it is against | this ÷ that | that ÷ this | CPU | this ÷ that | that ÷ this |
|---|---|---|---|---|---|---|---|"
    )?;
    for (name, figures) in &results.isolation {
        if figures.compared.is_some() {
            writeln!(text, "| {name} | {}", within_a_run(figures))?;
        }
    }
    Ok(())
}

fn slow_servers(text: &mut String, results: &Results) -> std::fmt::Result {
    if results.slow_servers.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## Servers that take 10 ms

1,000 calls in flight, which begin evenly over the first 11 ms; against timers of 10 ms, as many of them, which begin in the same way.

| | calls/s | the timers' | ours ÷ timers | timers ÷ ours | CPU | ours ÷ timers | timers ÷ ours |
|---|---|---|---|---|---|---|---|"
    )?;
    for (threads, figures) in &results.slow_servers {
        writeln!(text, "| {threads} | {}", within_a_run(figures))?;
    }
    Ok(())
}

fn mixed(text: &mut String, results: &Results) -> std::fmt::Result {
    if results.mixed.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## Go and this library in one system

Three servers, each in a process of its own, 100 calls in flight, 0 B. **Go is not the Go library here**, whose published module speaks
an older protocol: it is the client and server of the interoperability tests (`interop/go`), on the same grpc-go.

| | calls/s | × Go on Go | p50 µs | × | p99 µs | CPU | × | client allocations | cores |
|---|---|---|---|---|---|---|---|---|---|"
    )?;
    let go = results.pair(Pair::GoOnGo);
    for (pair, figures) in &results.mixed {
        let go = go.filter(|_| *pair != Pair::GoOnGo);
        writeln!(text, "| {pair} | {}", row(figures, go))?;
    }
    Ok(())
}

fn table(text: &mut String, results: &Results, place: Place) -> std::fmt::Result {
    if !results.compared.iter().any(|one| one.case.place == place) {
        return Ok(());
    }
    let (title, threads, allocations) = match place {
        Place::OneProcess => (
            "Client and servers in one process",
            "On 1 thread and on 2, client and servers share a runtime; on 1 + 1 threads the client has one and the servers another, each \
             on a thread of its own. Go's scheduler has all cores in any case.\n\n",
            "client and servers",
        ),
        Place::Processes => ("Each server in a process of its own", "", "client"),
    };
    writeln!(
        text,
        "
## {title}

{threads}CPU is that of client and servers together, in µs per call; allocations are those of the {allocations}, per call; the last
column tells how many ns a cache line took to another core and back (see BENCHMARKING.md), where our program ran.

| nodes | in flight | payload | | calls/s | × Go | p50 µs | × Go | p99 µs | CPU | × Go | allocations | cores |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for compared in &results.compared {
        let case = compared.case;
        if case.place != place {
            continue;
        }
        let (in_flight, payload) = (grouped(case.in_flight as f64), size(case.payload));
        let mut cells = format!("| {} | {in_flight} | {payload}", case.nodes);
        for (contender, figures) in compared.all() {
            let go = compared.go.as_ref();
            let go = go.filter(|_| contender != Contender::Go);
            writeln!(text, "{cells} | {contender} | {}", row(figures, go))?;
            "| | | ".clone_into(&mut cells);
        }
    }
    Ok(())
}

/// The figures of a contender, and those of Go beside them.
fn row(figures: &Figures, go: Option<&Figures>) -> String {
    let times = |own: Option<f64>, of: fn(&Figures) -> Option<f64>| {
        let both = both_ways(own, go.and_then(of));
        both.map_or_else(String::new, |(there, _)| ratio(there))
    };
    let number = |figure: Option<f64>| {
        figure.map_or_else(|| NONE.to_owned(), |figure| format!("{figure:.1}"))
    };
    let rate = figures.calls_per_second;
    let latency = figures.latency_us;
    let cpu = figures.cpu_us_per_call;
    format!(
        "{}{} | {} | {:.1} | {} | {:.1} | {} | {} | {} | {} |",
        grouped(rate),
        mark(figures),
        times(Some(rate), |go| Some(go.calls_per_second)),
        latency.p50,
        times(Some(latency.p50), |go| Some(go.latency_us.p50)),
        latency.p99,
        micros(cpu),
        times(cpu, |go| go.cpu_us_per_call),
        number(figures.allocations_per_call),
        figures
            .core_round_trip_ns
            .map_or_else(String::new, |nanos| format!("{nanos:.0}")),
    )
}

fn go(text: &mut String, goals: &Goals) -> std::fmt::Result {
    if goals.go.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "
## The Go side

The goals were set by figures of the Go library's commit 3241d25b on a quiet machine with two cores. What is measured here is its
published module v0.11.0, which frames messages in another way. Each figure should be within 15 % of the earlier one on such a
machine.

| what | then | now | |
|---|---|---|---|"
    )?;
    for figure in &goals.go {
        let busy = if figure.busy { "\\*" } else { "" };
        let (then, now) = (grouped(figure.expected), grouped(figure.found));
        let change = figure.deviation() * 100.0;
        writeln!(
            text,
            "| {} | {then} | {now}{busy} | {change:+.0} % |",
            figure.what
        )?;
    }
    Ok(())
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        more => format!(
            "in each of {more} rounds: the run in the middle by calls per second, and the least CPU of all"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::results;
    use super::*;

    #[test]
    fn the_page_has_a_row_for_each_contender_of_each_case() {
        let results = results(11.0);
        let page = write(&results, &Goals::of(&results), None);
        for (row, count) in [
            ("| Go | 1,000 |", 38),
            ("| tonic, 1 thread | 2,000 | 2.00 |", 38),
            ("| tonic, 2 threads | 1,000 | 1.000 |", 18),
            ("| ours, 1 thread | 11,000 | 11.00 |", 38),
            ("| ours, 2 threads | 5,500 | 5.50 |", 18),
            ("| ours, 1 + 1 threads | 8,800 | 8.80 |", 18),
        ] {
            assert_eq!(page.matches(row).count(), count, "{row}");
        }
        assert!(page.contains("| 11.00 (1 thread) | reached |"), "{page}");
        assert_eq!(page.matches("| **not reached** |").count(), 3);
        let published = include_str!("../../../docs/benchmarks.md");
        assert!(page.contains(WHY) && published.contains(WHY));
        assert!(!page.contains("busy"), "{page}");
    }

    #[test]
    fn ratios_are_told_both_ways() {
        let results = results(8.0);
        let page = write(&results, &Goals::of(&results), None);
        let calls = "| calls/s | 8.00 | 0.125 | 4.00 | 0.250 | 2.00 | 0.500 |";
        assert_eq!(page.matches(calls).count(), 38, "{page}");
        let cpu = "| CPU | 0.125 | 8.00 | 0.250 | 4.00 | 0.500 | 2.00 |";
        assert_eq!(page.matches(cpu).count(), 38, "{page}");
        let floor = "| 1 KiB | 1 thread | 8,000 | 20,000 | 0.400 | 2.50 | 1.00 | 2.50 | 0.400 |";
        assert!(page.contains(floor), "{page}");
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let mut results = results(8.0);
        results
            .compared
            .retain(|one| one.case.place == Place::Processes);
        for compared in &mut results.compared {
            (compared.go, compared.tonic) = (None, Vec::new());
        }
        results.mixed.clear();
        results.isolation.clear();
        results.slow_servers.clear();
        results.floors.clear();
        let page = write(&results, &Goals::of(&results), None);
        assert!(page.contains("## Each server in a process of its own"));
        assert!(
            page.contains("| calls/s | – | – | – | – | – | – |"),
            "{page}"
        );
        for title in [
            "in one process",
            "plain TCP",
            "that is not well",
            "take 10 ms",
            "in one system",
            "The Go side",
        ] {
            let headings = page.lines().filter(|line| line.starts_with("## "));
            let shown = headings.filter(|line| line.contains(title));
            assert_eq!(shown.count(), 0, "{title}: {page}");
        }
    }

    #[test]
    fn pictures_are_shown_where_there_are_some() {
        let results = results(11.0);
        let goals = Goals::of(&results);
        let pictures = Pictures {
            cost: "a.svg",
            latency: "b.svg",
        };
        let page = write(&results, &goals, Some(pictures));
        assert!(page.contains("](a.svg)") && page.contains("](b.svg)"));
        assert!(!write(&results, &goals, None).contains("Latency over"));
    }

    #[test]
    fn a_busy_machine_is_marked() {
        let mut results = results(11.0);
        if let Some(go) = &mut results.compared[0].go {
            go.busy = true;
        }
        let page = write(&results, &Goals::of(&results), None);
        assert!(page.contains("**The machine was busy.**"));
        assert!(page.contains("| 3 | 1 | 0 B | Go | 1,000\\* |"), "{page}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_header() {
        let results = results(11.0);
        let page = write(&results, &Goals::of(&results), None);
        let mut cells = 0;
        for line in page.lines() {
            let count = line.matches('|').count();
            if line.starts_with("|---") {
                assert_eq!(count, cells, "{line}");
            }
            if cells > 0 && line.starts_with('|') {
                assert_eq!(count, cells, "{line}");
            }
            cells = if line.starts_with('|') { count } else { 0 };
        }
    }
}
